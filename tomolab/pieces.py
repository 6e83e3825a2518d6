"""Pieces: a particle list of any program cut into its rows and what is around them, as bytes, so that nothing is lost.

Put together again the pieces are the file. `tomolab.copies` leaves some out.

>>> found = cut(Path("ours.star").read_bytes(), ".star")
>>> found.pieces[found.rows[0]], found.columns
"""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tomolab import dynamo, star, stopgap

CLASSES = {
    ".star": ("rlnClassNumber", "class"),
    ".tbl": ("class",),
    ".csv": ("cluster", "class"),
    ".em": ("class",),
}
"""Columns that hold the class of a particle, by format; the first that is there."""
VALUE = re.compile(rb"\"[^\"]*\"|'[^']*'|#|[^\s#]+")
"""A value in a row of a STAR file or table, or the beginning of a comment."""
CELL = re.compile(rb"\"(?:[^\"]|\"\")*\"|[^,\r\n]*")
EM_HEADER, EM_VALUES, EM_FLOAT = 512, 20, 5
"""Bytes of the header of an EM file, values of a particle in a motive list, code of float32 (TOM toolbox, `tom_emread`)."""
EM_ORDERS = {5: ">", 6: "<"}
"""Byte order by the code of the machine: Mac and PC."""


@dataclass(frozen=True)
class Pieces:
    """A list in pieces.

    Parameters
    ----------
    pieces
        Put together they are the file.
    rows
        Which of them are particles (n,), in the order of the file.
    columns
        Names of the values of a particle.
    suffix
        The format.
    """

    pieces: list[bytes]
    rows: np.ndarray
    columns: list[str]
    suffix: str


def cut(data: bytes, suffix: str) -> Pieces:
    """Cut a list into pieces.

    Parameters
    ----------
    data
        The file.
    suffix
        .star, .tbl, .csv or .em.

    Raises
    ------
    ValueError
        If it is no such list, or a row has another number of values than the others.
    """
    kinds = {".star": _star, ".tbl": _table, ".csv": _csv, ".em": _em}
    if suffix not in kinds:
        raise ValueError(f"lists that can be copied are {', '.join(kinds)}, got {suffix or 'a name without suffix'}")
    return kinds[suffix](data)


def classified(found: Pieces) -> Callable[[bytes, int], bytes]:
    """A function that gives a row another class and leaves the rest of it as it was.

    Raises
    ------
    ValueError
        If there is no column that holds classes.
    """
    names = [name for name in CLASSES[found.suffix] if name in found.columns]
    if not names:
        raise ValueError(f"there is no column {' or '.join(CLASSES[found.suffix])} to hold classes")
    if found.suffix == ".em":
        kind = f"{EM_ORDERS[found.pieces[0][0]]}f4"
        return lambda piece, number: piece[:-4] + np.array(number, dtype=kind).tobytes()
    if found.suffix == ".star" and found.pieces[found.rows[0]].lstrip().startswith(b"_"):
        raise ValueError("its only particle is not written as a row; its class cannot be set")
    spans, column = _cells if found.suffix == ".csv" else _values, found.columns.index(names[0])

    def changed(piece: bytes, number: int) -> bytes:
        start, end = spans(piece)[column]
        return piece[:start] + str(number).encode() + piece[end:]

    return changed


def counted(header: bytes, count: int) -> bytes:
    """The header of a motive list in EM format, for another number of particles."""
    return header[:8] + np.array(count, dtype=f"{EM_ORDERS[header[0]]}i4").tobytes() + header[12:]


def _star(data: bytes) -> Pieces:
    """Lines of a STAR file; the particles are in the table from which `star.joined` takes them."""
    pieces = data.splitlines(keepends=True)
    words = [line.strip() for line in pieces]
    starts = [number for number, line in enumerate(words) if line.startswith(b"data_")]
    names = [_text(words[first][5:]) for first in starts]
    spans = list(zip(starts, [*starts[1:], len(words)], strict=False))
    heads = [_head(words, first, last) for first, last in spans]
    usable = [
        name
        for name, (columns, _) in zip(names, heads, strict=True)
        if name == stopgap.BLOCK or any(set(wanted) <= set(columns) for wanted in (star.PIXELS, star.CENTRED))
    ]
    if not usable:
        raise ValueError(f"no table has coordinates; there are {', '.join(names) or 'none'}")
    name = next((one for one in (stopgap.BLOCK, "particles") if one in usable), usable[0])
    if names.count(name) > 1:
        raise ValueError(f"the table data_{name} is there {names.count(name)} times")
    place = names.index(name)
    columns, body = heads[place]
    if body < len(words) and words[body].startswith(b"_"):
        # One particle, a line for each column: it stays or goes as a whole.
        return Pieces(pieces, np.array([body]), columns, ".star")
    rows = [n for n in range(body, spans[place][1]) if words[n] and not words[n].startswith(b"#")]
    wrong = next((n for n in rows if _count(words[n]) != len(columns)), None)
    if wrong is not None:
        told = f"{_count(words[wrong])} values for {len(columns)} columns"
        raise ValueError(f"line {wrong + 1} has {told}: {_text(words[wrong][:60])!r}")
    return Pieces(pieces, np.array(rows, dtype=np.int64), columns, ".star")


def _head(words: list[bytes], first: int, last: int) -> tuple[list[str], int]:
    """Columns of a table whose name stands in line `first`, and the line in which its values begin."""
    begin = next((n for n in range(first + 1, last) if words[n].startswith((b"loop_", b"_"))), last)
    if begin < last and words[begin].startswith(b"_"):
        return [_text(line.split()[0][1:]) for line in words[begin:last] if line.startswith(b"_")], begin
    body = begin + 1
    while body < last and words[body].startswith(b"_"):
        body += 1
    return [_text(line.split()[0][1:]) for line in words[begin + 1 : body]], body


def _table(data: bytes) -> Pieces:
    pieces = data.splitlines(keepends=True)
    rows = [number for number, line in enumerate(pieces) if line.strip()]
    width = len(pieces[rows[0]].split()) if rows else 0
    wrong = next((n for n in rows if len(pieces[n].split()) != width), None)
    if wrong is not None:
        raise ValueError(f"line {wrong + 1} has {len(pieces[wrong].split())} columns, the others {width}")
    if width < dynamo.NEEDED:
        raise ValueError(f"a Dynamo table has at least {dynamo.NEEDED} columns, this one {width}")
    return Pieces(pieces, np.array(rows, dtype=np.int64), dynamo.COLUMNS, ".tbl")


def _csv(data: bytes) -> Pieces:
    pieces: list[bytes] = []
    quoted = False
    for line in data.splitlines(keepends=True):
        # A text in quotes may go on in the next line.
        if quoted:
            pieces[-1] += line
        else:
            pieces.append(line)
        quoted ^= line.count(b'"') % 2 == 1
    filled = [number for number, line in enumerate(pieces) if line.strip()]
    if quoted or not filled:
        raise ValueError("a quote is not closed" if quoted else "it is empty")
    columns = next(csv.reader(io.StringIO(_text(pieces[filled[0]]))))
    wrong = next((n for n in filled if len(_cells(pieces[n])) != len(columns)), None)
    if wrong is not None:
        told = _text(pieces[wrong][:60])
        raise ValueError(f"a row has {len(_cells(pieces[wrong]))} values for {len(columns)} columns: {told!r}")
    return Pieces(pieces, np.array(filled[1:], dtype=np.int64), columns, ".csv")


def _em(data: bytes) -> Pieces:
    if len(data) < EM_HEADER or data[0] not in EM_ORDERS or data[3] != EM_FLOAT:
        raise ValueError("this is no EM file of float32 of a PC or Mac")
    values, count, layers = np.frombuffer(data, dtype=f"{EM_ORDERS[data[0]]}i4", count=3, offset=4).tolist()
    if values != EM_VALUES or count < 1 or layers != 1:
        raise ValueError(f"a motive list has {EM_VALUES} values for each particle, this file {values} × {count} × {layers}")
    step, end = 4 * EM_VALUES, EM_HEADER + 4 * EM_VALUES * count
    if len(data) < end:
        raise ValueError(f"the header says {count:,} particles, {end:,} bytes, but the file holds {len(data):,}")
    pieces = [data[:EM_HEADER], *(data[start : start + step] for start in range(EM_HEADER, end, step))]
    columns = [*(str(number) for number in range(1, EM_VALUES)), "class"]
    return Pieces(pieces + ([data[end:]] if len(data) > end else []), np.arange(1, count + 1), columns, ".em")


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", errors="replace")


def _count(line: bytes) -> int:
    """Values in a row."""
    return len(_values(line)) if any(mark in line for mark in (b'"', b"'", b"#")) else len(line.split())


def _values(line: bytes) -> list[tuple[int, int]]:
    """Where the values of a row begin and end."""
    spans = []
    for found in VALUE.finditer(line):
        if found[0] == b"#":
            break
        spans.append(found.span())
    return spans


def _cells(line: bytes) -> list[tuple[int, int]]:
    """Where the values of a row of a CSV file begin and end."""
    spans = []
    place, end = 0, len(line.rstrip(b"\r\n"))
    while True:
        found = CELL.match(line, place)
        assert found is not None
        spans.append(found.span())
        if found.end() >= end:
            return spans
        place = found.end() + 1
