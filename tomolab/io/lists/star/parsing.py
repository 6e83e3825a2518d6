"""STAR files: their blocks as tables of text, and tables as the text of a file.

A block begins with ``data_NAME`` and holds either names with a value each, or ``loop_``, the names of columns and a row a line.
Values are parted by blanks; one with blanks stands in quotes, which end before a blank. A # that begins a word begins a
comment (Hall, J. Chem. Inf. Comput. Sci. 31, 326, 1991). Values that run over several lines are not read.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import starfile

from tomolab.io import paths

MISSING = ["nan", "NaN", "<NA>"]
"""What other programs write where there is no value."""
FORBIDDEN = re.compile(f"[\"'#\x00-\x1f\x7f\x85\u2028\u2029]|^(?:{'|'.join(MISSING)})$")
"""What readers of STAR files take for the end of a text, or for none."""
HEAD = re.compile(r"(?:\A|\n)[ \t]*data_([^ \t\n]*)[ \t]*(?=\n|#|\Z)")
CLOSES = {quote: re.compile(rf"{quote}(?=[ \t]|$)") for quote in "'\""}
"""Where a value in quotes ends."""
WORD = re.compile(r"[^ \t]+")
WIDEST = 4096
"""Columns of a table; those of other programs have less than a tenth of it."""
SINGLE = ("general",)
"""Blocks that RELION writes without a loop."""
BLOCKS = 10_000
"""Blocks of a file; RELION has one for each tomogram."""


@dataclass(frozen=True)
class Block:
    """A block: name, columns, their values (None in a loop), and where in the text its rows, or these values, begin and end."""

    name: str
    columns: list[str]
    values: list[str] | None
    start: int
    end: int


def blocks(path: Path) -> dict[str, pd.DataFrame]:
    """Blocks of a STAR file as tables of text, so that a name like 001 stays what it is; one row where there is no loop.

    Raises
    ------
    ValueError
        If the text is not UTF-8, or a block is no table.
    """
    return parsed(paths.text(path))


def parsed(text: str) -> dict[str, pd.DataFrame]:
    """Blocks of the text of a STAR file, as `blocks` gives them."""
    return {block.name: _table(text, block) for block in scan(text)}


def scan(text: str) -> list[Block]:
    """Find the blocks of a STAR file, their columns, and where their rows are; a ValueError if a block is no table."""
    heads = list(HEAD.finditer(text))
    if len(heads) > BLOCKS:
        raise ValueError(f"this is not a readable STAR file: it has {len(heads)} blocks, expected at most {BLOCKS}")
    ends = [*(head.start() for head in heads[1:]), len(text)]
    out: dict[str, Block] = {}
    for head, end in zip(heads, ends, strict=False):
        name = head[1]
        if name in out:
            raise ValueError(f"this is not a readable STAR file: there are two blocks data_{name}")
        try:
            out[name] = _block(text, name, head.end(), end=end)
        except ValueError as error:
            raise ValueError(f"this is not a readable STAR file: data_{name} {error}") from error
    return list(out.values())


def described(blocks: Mapping[str, Iterable[str]]) -> str:
    """Blocks and their columns, for the message that one is missing."""
    return "; ".join(f"data_{name} has {', '.join(columns)}" for name, columns in blocks.items()) or "it has no tables"


def text(tables: dict[str, pd.DataFrame], *, version: int | None) -> str:
    """Give the text of a STAR file, every table under the comment from which RELION knows its version, if there is one.

    Raises
    ------
    ValueError
        If a text holds a quote, #, tab, line break or other control character, which not every reader of STAR files
        understands, or is what stands for a missing value.
    """
    written = []
    for name, table in tables.items():
        for column in table:
            values = table[column]
            if pd.api.types.is_numeric_dtype(values):
                continue
            texts = values.dropna().astype(str)
            wrong = texts[texts.str.contains(FORBIDDEN)]
            if len(wrong):
                raise ValueError(
                    f"column {column}: {len(wrong)} texts hold a quote, #, tab or line break, or are {', '.join(MISSING)}, "
                    f"which readers of STAR files misread, first {wrong.iloc[0]!r}; rename them, or write .csv"
                )
        # The first line of starfile names the day; the same table shall give the same file.
        block = table.iloc[0].to_dict() if name in SINGLE else table
        body = starfile.to_string({name: block}, float_format=None).split("\n", 1)[1].strip()
        written.append(f"{body}\n" if version is None else f"# version {version}\n\n{body}\n")
    return "\n".join(written)


def numbers(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Columns as floats (n, columns); a ValueError if a value is not a finite number."""
    out = np.stack([floats(rows[name]) for name in names], axis=1)
    bad = ~np.isfinite(out)
    if bad.any():
        row, column = map(int, np.argwhere(bad)[0])
        first = f"{names[column]} of row {row}: {rows[names[column]].iloc[row]!r}"
        raise ValueError(f"{bad.sum()} of {out.size} values in {', '.join(names)} are not numbers, first {first}")
    return out


def floats(column: pd.Series) -> np.ndarray:
    """Values as floats, NaN where one is no number."""
    try:
        # Many times as fast as pandas on text, and as exact; it refuses what is no number.
        return column.astype("double[pyarrow]").to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError, NotImplementedError):
        return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def typed(column: pd.Series) -> pd.Series:
    """Numbers where every text is one and would be written the same, else text: 7 becomes a number, 007 stays a name."""
    known = column.dropna().astype(str)
    if len(known) and known.isin(["True", "False"]).all() and len(known) == len(column):
        return column == "True"
    if not len(known) or not known.str.fullmatch(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?").all():
        return column
    if known.str.contains("[.eE]").any():
        return pd.Series(floats(column), index=column.index, name=column.name)
    return pd.to_numeric(column)


def _block(text: str, name: str, start: int, *, end: int) -> Block:
    """Block whose lines stand between two places of the text, the line ``data_NAME`` left out."""
    columns: list[str] = []
    values: list[str] = []
    loop, rows = False, end
    for place, line in _lines(text, start, end):
        if line.startswith("_"):
            head = words(line)
            rows = rows if loop or columns else place
            columns.append(head[0][1:])
            values += head[1:]
            if not loop and len(head) != 2:
                raise ValueError(f"has a line that is no name with a value: {line[:60]!r}")
        elif not columns and words(line)[0] == "loop_":
            loop = True
        elif loop and columns:
            rows = place
            break
        else:
            raise ValueError(f"has a line that is neither a name nor a row of a loop: {line[:60]!r}")
    if not columns:
        raise ValueError("holds nothing")
    if len(columns) > WIDEST:
        raise ValueError(f"has {len(columns)} columns, expected at most {WIDEST}")
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise ValueError(f"has the columns {', '.join(twice)} twice")
    return Block(name, columns, None if loop else values, rows, end)


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    """Lines between two places that are neither empty nor comments, without blanks around them, each with its place."""
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        line = text[start:stop].strip(" \t")
        if line and not line.startswith("#"):
            yield start, line
        start = stop + 1


def _table(text: str, block: Block) -> pd.DataFrame:
    """Values of a block, one row where there is no loop."""
    if block.values is not None:
        return _missing(pd.DataFrame([block.values], columns=block.columns, dtype=str))
    try:
        return rows(text[block.start : block.end], block.columns)
    except ValueError as error:
        raise ValueError(f"this is not a readable STAR file: data_{block.name} {error}") from error


def rows(text: str, columns: list[str]) -> pd.DataFrame:
    """Lines of values that blanks part, as a table of text; a ValueError names the row that has not a value for each column."""
    if not text.strip():
        return pd.DataFrame(columns=columns, dtype=str)
    if not any(mark in text for mark in "'\"#"):
        source, options = io.StringIO(text), {"sep": r"\s+", "header": None, "quoting": csv.QUOTE_NONE}
        try:
            found = pd.read_csv(source, dtype=str, keep_default_na=False, na_values=MISSING, **options)
        except pd.errors.ParserError:
            found = pd.DataFrame()
        # A row that is too short lacks its last value, which pandas makes an empty text, or a missing one.
        if found.shape[1] == len(columns) and not found.iloc[:, -1].isin(["", np.nan]).any():
            return found.set_axis(columns, axis=1)
    values = [row for row in map(words, text.split("\n")) if row]
    wrong = next((number for number, row in enumerate(values) if len(row) != len(columns)), None)
    if wrong is not None:
        row = values[wrong]
        raise ValueError(f"has {len(columns)} columns, but {len(row)} values in row {wrong}: {' '.join(row)[:60]!r}")
    return _missing(pd.DataFrame(values, columns=columns, dtype=str))


def _missing(table: pd.DataFrame) -> pd.DataFrame:
    return table.mask(table.isin(MISSING))


def words(line: str) -> list[str]:
    """Values of a line, without quotes and comments."""
    if not any(mark in line for mark in "'\"#"):
        return WORD.findall(line)
    return [line[start:end] for start, end in spans(line)]


def spans(line: str) -> list[tuple[int, int]]:
    """Where the values of a line begin and end, without their quotes."""
    out, place = [], 0
    # A quote that nothing closes is looked for once, not again from each word.
    unclosed = set()
    while start := WORD.search(line, place):
        place, quote = start.end(), start[0][0]
        if quote == "#":
            break
        end = CLOSES[quote].search(line, start.start() + 1) if quote in CLOSES and quote not in unclosed else None
        if end is None:
            unclosed.add(quote)
            out.append(start.span())
        else:
            out.append((start.start() + 1, end.start()))
            place = end.end()
    return out
