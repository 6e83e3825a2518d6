"""Copies a user's own STAR file or Dynamo table with some of its particles only; all other bytes stay as they are.

Whole lines are left out, nothing is written anew: comments, other tables, unknown columns, the way numbers are written, line
ends and text that is not UTF-8 stay. Tables with a row for each particle, as RELION has them of bodies, lose the same rows.
Lists of other formats are read and written anew (`io.read_particles`, `io.write_particles`).

`io.read_particles` notes in ``source_list`` and ``source_row`` from which list and which row of it a particle came, so
that its row is found again after particles were numbered anew, moved or averaged.

>>> table = io.read_particles("ours.star", voxel_size=10.0, tilts=(-60, 60))
>>> io.filter_particles("ours.star", table[table["score"] > 0.2], "good.star")
Copy(path=PosixPath('good.star'), kept=310, dropped=90, elsewhere=0)
>>> io.filter_particles("ours.star", [0, 5, 7], "three.star")
"""

import re
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.conventions import SOURCE
from tomolab.io.lists import dynamo, stopgap
from tomolab.io.lists.star import coordinates, parsing
from tomolab.io.paths import atomic, content, fingerprint

CLASSES = ("rlnClassNumber", "class")
"""Columns that hold the class of a particle; the first that is there counts."""
BODY = re.compile(r"images_body_\d+")
"""Blocks of RELION's multi-body refinement, with a row for each particle in the same order (`exp_model.cpp`)."""
COUNTS = ("rlnParticleNumber", "rlnGroupNrParticles", "rlnOpticsGroupNrParticles")
"""Columns of other blocks that count the particles of the list."""


@dataclass(frozen=True)
class Copy:
    """A filtered copy: where it is, and how many particles of the list it keeps and leaves out.

    ``elsewhere`` counts the particles that were asked for and came from another list, or from none.
    """

    path: Path
    kept: int
    dropped: int
    elsewhere: int = 0


@dataclass(frozen=True)
class Lines:
    """A list as lines: all of them, numbers (n,) of those that are particles, and the columns of these.

    ``bodies`` are the numbers (n,) of lines in other tables that belong to the particles, ``counts`` names columns elsewhere
    in the file that count its particles.
    """

    lines: list[bytes]
    rows: np.ndarray
    columns: list[str]
    bodies: tuple[np.ndarray, ...] = ()
    counts: tuple[str, ...] = ()


def filter_particles(
    path: str | Path,
    keep: pd.DataFrame | Sequence[int] | np.ndarray,
    to: str | Path,
    *,
    classes: str | Sequence[int] | np.ndarray | None = None,
) -> Copy:
    """Copy a particle list with some of its particles, and all else as it is; whole or not at all.

    Parameters
    ----------
    path
        The list, .star or .tbl. A list of tomograms beside it (.doc of Dynamo, ``_tomolist.txt`` of STOPGAP) is copied too.
    keep
        Rows of the list, counted from 0, or a particle table with the columns ``source_list`` and ``source_row``. Particles of
        the table that are of other lists are counted, and left out.
    to
        The copy, with the same suffix. It holds the particles in the order of the list.
    classes
        Class of each of the particles to keep, whole numbers in their order, or the column of the table that has them. They
        take the place of rlnClassNumber, of ``class`` in a motive list of STOPGAP, and of column 22 of Dynamo; nothing else
        of a row changes.

    Returns
    -------
    Copy
        Kept and dropped together are the particles of the list; the copy was read again to see that.

    Warns
    -----
    UserWarning
        If another table of the file counts its particles, and not all are kept: such a number stays as it is.

    Raises
    ------
    FileNotFoundError
        If there is no such list.
    ValueError
        If it has another suffix or is broken, a row is not in it or named twice, nothing of it is kept, it is not what it was
        when the table was read, the copy would take its place or have another suffix, or it has no column for classes.
    """
    path, to = Path(path), Path(to)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if to.suffix.lower() != path.suffix.lower():
        raise ValueError(f"a copy of {path.name} ends in {path.suffix}, got {to.name}")
    if to.resolve() == path.resolve():
        raise ValueError(f"the copy would take the place of {path}; name another file")
    try:
        found = lines_of(path)
        rows, numbers = _wanted(path, keep, classes)
        here = rows >= 0
        _check_rows(rows[here], len(found.rows))
        kept = _kept(found, rows[here], None if numbers is None else numbers[here])
        with atomic(to) as temporary:
            temporary.write_bytes(b"".join(kept))
            _check_copy(temporary, to, kept, count=int(here.sum()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    # A list of numbers does not name its tomograms.
    beside = [one.with_suffix(".doc") if one.suffix.lower() == ".tbl" else stopgap.companion(one) for one in (path, to)]
    if beside[0].is_file() and beside[0].resolve() != beside[1].resolve():
        with atomic(beside[1]) as temporary:
            shutil.copyfile(beside[0], temporary)
    if found.counts and here.sum() < len(found.rows):
        message = f"{to} holds {here.sum()} of the {len(found.rows)} particles of {path.name}"
        warnings.warn(f"{message}, but {', '.join(found.counts)} still counts them all", UserWarning, stacklevel=2)
    return Copy(to, int(here.sum()), int(len(found.rows) - here.sum()), int((~here).sum()))


def lines_of(path: Path) -> Lines:
    """Read a list as lines, and find those that are particles.

    Raises
    ------
    ValueError
        If it is neither .star nor .tbl, no such list, or a row has another number of values than the others.
    """
    suffix = path.suffix.lower()
    if suffix not in (".star", ".tbl"):
        raise ValueError(
            f"copies are made of .star and .tbl, got {suffix or 'a name without suffix'}; other lists are written anew: "
            "io.write_particles(table, ...)"
        )
    data = content(path)
    text = _text(data).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return (_star if suffix == ".star" else _dynamo)(data.splitlines(keepends=True), text)


def _wanted(path: Path, keep: object, classes: object) -> tuple[np.ndarray, np.ndarray | None]:
    """Row of the list of each particle to keep, -1 for those of other lists, and the class of each."""
    if isinstance(keep, pd.DataFrame):
        rows = _rows_of(path, keep)
        classes = keep[classes] if isinstance(classes, str) else classes
    else:
        rows = np.asarray(keep)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise ValueError(f"rows are whole numbers (n,), got values of type {rows.dtype} and shape {rows.shape}")
        if rows.size and rows.min() < 0:
            raise ValueError(f"rows are counted from 0, got {rows.min()}")
    if classes is None:
        return rows, None
    numbers = np.asarray(classes)
    if numbers.shape != rows.shape or numbers.dtype.kind not in "iu":
        raise ValueError(f"classes must be {len(rows)} whole numbers, got {numbers.shape} of type {numbers.dtype}")
    return rows, numbers


def _rows_of(path: Path, table: pd.DataFrame) -> np.ndarray:
    """Row in the list of every particle of a table; -1 for those of other lists."""
    if not set(SOURCE) <= set(table):
        raise ValueError(f"the particles do not say from which rows they came (columns {' and '.join(SOURCE)}); give rows")
    mark = fingerprint(path)
    here = (table[SOURCE[0]] == mark).to_numpy()
    if len(table) and not here.any():
        raise ValueError(
            f"none of {len(table)} particles was read from this file as it is now ({mark}); if it was changed since, give rows"
        )
    return np.where(here, table[SOURCE[1]].to_numpy(dtype=float, na_value=-1), -1).astype(np.int64)


def _check_rows(rows: np.ndarray, count: int) -> None:
    if not len(rows):
        raise ValueError(f"none of its {count} particles is kept")
    if rows.max() >= count:
        raise ValueError(f"it has {count} particles, rows 0 to {count - 1}, but row {rows.max()} is to be kept")
    values, times = np.unique(rows, return_counts=True)
    if len(values) < len(rows):
        raise ValueError(f"{(times > 1).sum()} rows are named more than once, such as {values[times > 1][0]}")


def _kept(found: Lines, rows: np.ndarray, numbers: np.ndarray | None) -> list[bytes]:
    """Lines of the copy, with these classes."""
    keep = np.ones(len(found.lines), dtype=bool)
    for numbered in (found.rows, *found.bodies):
        keep[numbered] = False
        keep[numbered[rows]] = True
    lines = list(found.lines)
    if numbers is not None:
        column = _class_column(found)
        for place, number in zip(found.rows[rows].tolist(), numbers.tolist(), strict=True):
            line = _text(lines[place])
            start, end = parsing.spans(line.rstrip("\r\n"))[column]
            lines[place] = f"{line[:start]}{number}{line[end:]}".encode("utf-8", "surrogateescape")
    return [line for line, stays in zip(lines, keep, strict=True) if stays]


def _check_copy(written: Path, to: Path, kept: list[bytes], *, count: int) -> None:
    """Read the copy again."""
    message = f"{to} would not read as the list does, and is not written"
    try:
        found = lines_of(written)
    except ValueError as error:
        raise ValueError(f"{message}: {error}") from error
    if found.lines != kept or len(found.rows) != count:
        raise ValueError(f"{message}: it has {len(found.rows)} particles instead of {count}")


def _class_column(found: Lines) -> int:
    """Place of the column that holds classes."""
    name = next((name for name in CLASSES if name in found.columns), None)
    if name is None:
        raise ValueError(f"there is no column {' or '.join(CLASSES)} to hold classes")
    if found.lines[found.rows[0]].lstrip().startswith(b"_"):
        raise ValueError("its only particle is not written as a row; its class cannot be set")
    return found.columns.index(name)


def _star(lines: list[bytes], text: str) -> Lines:
    """Lines of a STAR file; the particles are in the table from which it is read."""
    blocks = {block.name: block for block in parsing.scan(text)}
    name = stopgap.BLOCK if stopgap.BLOCK in blocks else coordinates.particle_block({n: b.columns for n, b in blocks.items()})
    block = blocks[name]
    if block.values is not None:
        # One particle, a line for each column: it stays as a whole.
        return Lines(lines, np.array([text.count("\n", 0, block.start)]), block.columns)
    rows = _row_lines(text, block)
    bodies = []
    # Of one particle nothing can be left out.
    for body in (one for one in blocks.values() if BODY.fullmatch(one.name) and len(rows) > 1):
        bodies.append(_row_lines(text, body))
        if len(bodies[-1]) != len(rows):
            raise ValueError(
                f"data_{body.name} has {len(bodies[-1])} rows for {len(rows)} particles; it must have one for each"
            )
    counts = [f"{column} of data_{one.name}" for one in blocks.values() for column in COUNTS if column in one.columns]
    return Lines(lines, rows, block.columns, tuple(bodies), tuple(counts))


def _dynamo(lines: list[bytes], text: str) -> Lines:
    width = len(parsing.words(text.strip().split("\n", 1)[0]))
    if width < dynamo.NEEDED:
        raise ValueError(f"a Dynamo table has at least {dynamo.NEEDED} columns, this one {width}")
    whole = parsing.Block("", dynamo.COLUMNS, None, 0, len(text))
    return Lines(lines, _row_lines(text, whole, width=width), dynamo.COLUMNS)


def _row_lines(text: str, block: parsing.Block, *, width: int | None = None) -> np.ndarray:
    """Numbers of the lines that are rows of a block; a ValueError if one has not `width` values, by default one a column."""
    width = len(block.columns) if width is None else width
    rows = []
    for number, line in enumerate(text[block.start : block.end].split("\n"), text.count("\n", 0, block.start)):
        values = parsing.words(line)
        if values and len(values) != width:
            raise ValueError(f"line {number + 1} has {len(values)} values for {width} columns: {line.strip()[:60]!r}")
        if values:
            rows.append(number)
    return np.array(rows, dtype=np.int64)


def _text(data: bytes) -> str:
    """Bytes as text; what is not UTF-8 stays apart, so that the same bytes come out again."""
    return data.decode("utf-8", "surrogateescape")
