"""Copies of a user's own particle list that hold some of its particles and are otherwise the same, byte for byte.

Comments, other tables, columns that tomolab does not know, the way numbers are written, quotes, line ends and text that is
not UTF-8 stay as they are: whole rows are left out, nothing is written anew. Tables with a row for each particle, as RELION
has them of bodies, lose the same rows. STAR (RELION, Warp, STOPGAP), Dynamo tables,
CSV, motive lists of AV3, TOM and Artiatomi (.em), and annotations of the CryoET Data Portal (.ndjson).

`io.read_particles` notes in ``source_list`` and ``source_row`` from which list and which row of it a particle came, so
that its row is found again after particles were numbered anew, moved or averaged.

>>> table = io.read_particles("ours.star", voxel_size=10.0, tilts=(-60, 60))
>>> io.filter_particles("ours.star", table[table["score"] > 0.2], "good.star")
Copy(path=PosixPath('good.star'), kept=310, dropped=90, elsewhere=0)
>>> io.filter_particles("ours.star", [0, 5, 7], "three.star")

A list is cut into pieces, its rows and what is around them, as bytes; put together again they are the file.
"""

import csv
import io
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.conventions import SOURCE
from tomolab.io.lists import dynamo, star, stopgap
from tomolab.io.lists import em as io_lists_em
from tomolab.io.paths import atomic, fingerprint
from tomolab.io.volumes import em
from tomolab.particles import REQUIRED

CLASSES = {
    ".star": ("rlnClassNumber", "class"),
    ".tbl": ("class",),
    ".csv": ("cluster", "class"),
    ".em": ("class",),
    ".ndjson": ("class",),
}
"""Columns that hold the class of a particle, by format; the first that is there."""
BODY = re.compile(r"images_body_\d+")
"""Blocks of RELION's multi-body refinement, with a row for each particle in the same order (`exp_model.cpp`)."""
COUNTS = ("rlnParticleNumber", "rlnGroupNrParticles", "rlnOpticsGroupNrParticles")
"""Columns of other blocks that count the particles of the list."""
HEAD = re.compile(rb"data_(\S*)[ \t]*(?:#|$)")
"""A line with which a block of a STAR file begins."""
VALUE = re.compile(rb"""'(?:[^']|'(?=[^ \t\r\n]))*'(?=[ \t\r\n]|$)|"(?:[^"]|"(?=[^ \t\r\n]))*"(?=[ \t\r\n]|$)|[^ \t\r\n]+""")
"""A value in a row of a STAR file, as `star.parsing` parts them, or the beginning of a comment."""

CELLS = {mark: re.compile(rb'"(?:[^"]|"")*"|[^%b\r\n]*' % mark.encode()) for mark in ",;\t"}
"""A value in a row of a CSV file, by what parts them."""


@dataclass(frozen=True)
class Copy:
    """What came of a filtered copy: where it is, and how many particles of the list it keeps and leaves out.

    ``elsewhere`` counts the particles that were asked for and came from another list, or from none.
    """

    path: Path
    kept: int
    dropped: int
    elsewhere: int = 0


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
    kind
        Type of the numbers of a motive list in EM format, or what parts the values of a CSV file.
    along
        Rows of other tables, (n,) each, that go with those of the particles.
    counts
        Names of columns elsewhere in the file that count its particles.
    """

    pieces: list[bytes]
    rows: np.ndarray
    columns: list[str]
    suffix: str
    kind: str = ""
    along: tuple[np.ndarray, ...] = ()
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
        The list: .star, .tbl, .csv, .em or .ndjson. A list of tomograms beside it (.doc of Dynamo, else
        ``_tomolist.txt``) is copied with it.
    keep
        Rows of the list, counted from 0, or a particle table with the columns ``source_list`` and ``source_row``; for a CSV
        file with all columns of tomolab their ids do. Particles of the table that are of other lists are counted, and left out.
    to
        The copy, with the same suffix. It holds the particles in the order of the list.
    classes
        Class of each of the particles to keep, whole numbers in their order, or the column of the table that has them. They
        take the place of rlnClassNumber, of column 22 of Dynamo, of the 20th value of a motive list, of ``class`` in that of
        STOPGAP, and of ``cluster`` or ``class`` in a CSV file; nothing else of a row changes.

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
        If it is no such list or broken, a row is not in it or named twice, nothing of it is kept, it is not what it was when
        the table was read, the copy would take its place or have another suffix, or it has no column for classes.
    """
    path, to = Path(path), Path(to)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    suffix = path.suffix.lower()
    if to.suffix.lower() != suffix:
        raise ValueError(f"a copy of {path.name} ends in {path.suffix}, got {to.name}")
    if to.resolve() == path.resolve():
        raise ValueError(f"the copy would take the place of {path}; name another file")
    try:
        found = cut(path.read_bytes(), suffix)
        rows, numbers, elsewhere = _wanted(path, found, keep, classes)
        _check_rows(rows, len(found.rows))
        order = np.argsort(rows)
        left = _left(found, rows[order], None if numbers is None else numbers[order])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _write(left, to)
    _copy_beside(path, to)
    if found.counts and len(rows) < len(found.rows):
        told = f"{to} holds {len(rows)} of the {len(found.rows)} particles of {path.name}"
        warnings.warn(f"{told}, but {', '.join(found.counts)} still counts them all", UserWarning, stacklevel=2)
    return Copy(to, len(rows), len(found.rows) - len(rows), elsewhere)


def _wanted(path: Path, found: Pieces, keep: object, classes: object) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Rows of the list, the class of each, and how many particles are of another list."""
    if isinstance(keep, pd.DataFrame):
        given = _rows_of(path, found, keep)
        numbers = keep[classes] if isinstance(classes, str) else classes
    else:
        given, numbers = np.asarray(keep), classes
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(f"rows are whole numbers (n,), got values of type {given.dtype} and shape {given.shape}")
        if given.size and given.min() < 0:
            raise ValueError(f"rows are counted from 0, got {given.min()}")
    mine = given >= 0
    if numbers is None:
        return given[mine], None, int((~mine).sum())
    numbers = np.asarray(numbers)
    if numbers.shape != given.shape or numbers.dtype.kind not in "iu":
        raise ValueError(f"classes must be {len(given)} whole numbers, got {numbers.shape} of type {numbers.dtype}")
    return given[mine], numbers[mine], int((~mine).sum())


def _rows_of(path: Path, found: Pieces, table: pd.DataFrame) -> np.ndarray:
    """Row in the list of every particle of a table; -1 for those of other lists."""
    ours = found.suffix == ".csv" and set(REQUIRED) <= set(found.columns)
    if not (ours or set(SOURCE) <= set(table)):
        raise ValueError(f"the particles do not say from which rows they came (columns {' and '.join(SOURCE)}); give rows")
    mark = fingerprint(path)
    mine = (table[SOURCE[0]] == mark).to_numpy() if set(SOURCE) <= set(table) else np.zeros(len(table), dtype=bool)
    if ours and not mine.any():
        listed = pd.Index(pd.read_csv(path, usecols=["particle_id"], encoding_errors="replace")["particle_id"])
        if not listed.is_unique:
            raise ValueError(f"column particle_id: {listed.duplicated().sum()} ids are repeated")
        return listed.get_indexer(table["particle_id"])
    if len(table) and not mine.any():
        raise ValueError(
            f"none of {len(table)} particles was read from this file as it is now ({mark}); if it was changed since, give rows"
        )
    return np.where(mine, table[SOURCE[1]].to_numpy(dtype=float, na_value=-1), -1).astype(np.int64)


def _check_rows(rows: np.ndarray, count: int) -> None:
    if not len(rows):
        raise ValueError(f"none of its {count} particles is kept")
    if rows.max() >= count:
        raise ValueError(f"it has {count} particles, rows 0 to {count - 1}, but row {rows.max()} is to be kept")
    values, times = np.unique(rows, return_counts=True)
    if len(values) < len(rows):
        raise ValueError(f"{(times > 1).sum()} rows are named more than once, such as {values[times > 1][0]}")


def _left(found: Pieces, rows: np.ndarray, numbers: np.ndarray | None) -> Pieces:
    """What is left of a list with these rows only, in ascending order."""
    keep = np.ones(len(found.pieces), dtype=bool)
    for lines in (found.rows, *found.along):
        keep[lines] = False
        keep[lines[rows]] = True
    kept = found.rows[rows]
    parts = list(found.pieces)
    if numbers is not None:
        changed = classified(found)
        for place, number in zip(kept.tolist(), numbers.tolist(), strict=True):
            parts[place] = changed(parts[place], number)
    if found.suffix == ".em":
        parts[0] = counted(found, len(kept))
    places = np.cumsum(keep) - 1
    along = tuple(places[lines[rows]] for lines in found.along)
    return replace(found, pieces=list(compress(parts, keep.tolist())), rows=places[kept], along=along)


def _write(left: Pieces, to: Path) -> None:
    """Write a list, and read it again before it comes to its place."""
    with atomic(to) as temporary:
        with temporary.open("wb") as file:
            file.writelines(left.pieces)
        again = cut(temporary.read_bytes(), left.suffix)
        if again.pieces != left.pieces or not np.array_equal(again.rows, left.rows):
            raise ValueError(f"{to} would read as {len(again.rows)} particles instead of {len(left.rows)}, and is not written")


def _copy_beside(path: Path, to: Path) -> None:
    """Copy the list of tomograms, without which a list of numbers does not name them."""
    ways = {".tbl": lambda one: one.with_suffix(".doc"), ".star": stopgap.companion, ".em": stopgap.companion}
    way = ways.get(path.suffix.lower())
    if way is None:
        return
    source, target = way(path), way(to)
    if source.is_file() and source.resolve() != target.resolve():
        with atomic(target) as temporary:
            shutil.copyfile(source, temporary)


def cut(data: bytes, suffix: str) -> Pieces:
    """Cut a list into pieces.

    Parameters
    ----------
    data
        The file.
    suffix
        .star, .tbl, .csv, .em or .ndjson.

    Raises
    ------
    ValueError
        If it is no such list, or a row has another number of values than the others.
    """
    kinds = {".star": _star, ".tbl": _table, ".csv": _csv, ".em": _em, ".ndjson": _points}
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
        kind = np.dtype(found.kind)
        return lambda piece, number: piece[: -kind.itemsize] + np.array(number, dtype=kind).tobytes()
    if found.suffix == ".star" and found.pieces[found.rows[0]].lstrip().startswith(b"_"):
        raise ValueError("its only particle is not written as a row; its class cannot be set")
    spans = partial(_cells, mark=found.kind) if found.suffix == ".csv" else _values
    column = found.columns.index(names[0])

    def changed(piece: bytes, number: int) -> bytes:
        start, end = spans(piece)[column]
        return piece[:start] + str(number).encode() + piece[end:]

    return changed


def counted(found: Pieces, count: int) -> bytes:
    """The header of a motive list in EM format, for another number of particles."""
    header = found.pieces[0]
    return header[:8] + np.array(count, dtype=f"{found.kind[0]}i4").tobytes() + header[12:]


def _star(data: bytes) -> Pieces:
    """Lines of a STAR file; the particles are in the table from which `star.joined` takes them."""
    pieces = data.splitlines(keepends=True)
    words = [line.strip() for line in pieces]
    found = [(number, head) for number, line in enumerate(words) if (head := HEAD.match(line))]
    starts, names = [number for number, _ in found], [_text(head[1]) for _, head in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"there are two blocks data_{twice[0]}")
    spans = list(zip(starts, [*starts[1:], len(words)], strict=False))
    heads = [_head(words, first, last) for first, last in spans]
    places = (star.PIXELS, star.CENTRED, *star.M_POSES)
    usable = [
        name
        for name, (columns, _) in zip(names, heads, strict=True)
        if name == stopgap.BLOCK or any(set(wanted) <= set(columns) for wanted in places)
    ]
    if not usable:
        raise ValueError(f"no table has coordinates; there are {', '.join(names) or 'none'}")
    place = names.index(next((one for one in (stopgap.BLOCK, "particles") if one in usable), usable[0]))
    columns, body = heads[place]
    if body < len(words) and words[body].startswith(b"_"):
        # One particle, a line for each column: it stays or goes as a whole.
        return Pieces(pieces, np.array([body]), columns, ".star")
    rows = _lines(words, columns, body, spans[place][1])
    along = []
    for name, (others, first), (_, last) in zip(names, heads, spans, strict=True):
        # Of one particle nothing can be left out.
        if BODY.fullmatch(name) and len(rows) > 1:
            along.append(_lines(words, others, first, last))
            if len(along[-1]) != len(rows):
                raise ValueError(f"data_{name} has {len(along[-1])} rows for {len(rows)} particles; it must have one for each")
    told = [(name, others) for name, (others, _) in zip(names, heads, strict=True)]
    counts = [f"{one} of data_{name}" for name, others in told for one in COUNTS if one in others]
    return Pieces(pieces, rows, columns, ".star", along=tuple(along), counts=tuple(counts))


def _lines(words: list[bytes], columns: list[str], first: int, last: int) -> np.ndarray:
    """Lines from `first` to `last` that are rows of a table with these columns."""
    rows = [n for n in range(first, last) if words[n] and not words[n].startswith(b"#")]
    wrong = next((n for n in rows if _count(words[n]) != len(columns)), None)
    if wrong is not None:
        told = f"{_count(words[wrong])} values for {len(columns)} columns"
        raise ValueError(f"line {wrong + 1} has {told}: {_text(words[wrong][:60])!r}")
    return np.array(rows, dtype=np.int64)


def _head(words: list[bytes], first: int, last: int) -> tuple[list[str], int]:
    """Columns of a table whose name stands in line `first`, and the line in which its values begin."""
    told = (n for n in range(first + 1, last) if words[n] and not words[n].startswith(b"#"))
    columns: list[str] = []
    begin = loop = last
    for n in told:
        if words[n].startswith(b"_"):
            columns.append(_text(words[n].split()[0][1:]))
            begin = min(begin, n)
        elif words[n].split()[0] == b"loop_" and not columns:
            loop = n
        else:
            return columns, n
    return columns, begin if loop == last else last


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
    head = _text(pieces[filled[0]])
    mark = next((mark for mark in ",;\t" if mark in head), ",")
    columns = next(csv.reader(io.StringIO(head), delimiter=mark))
    wrong = next((n for n in filled if len(_cells(pieces[n], mark=mark)) != len(columns)), None)
    if wrong is not None:
        told = f"{len(_cells(pieces[wrong], mark=mark))} values for {len(columns)} columns"
        raise ValueError(f"a row has {told}: {_text(pieces[wrong][:60])!r}")
    return Pieces(pieces, np.array(filled[1:], dtype=np.int64), columns, ".csv", mark)


def _em(data: bytes) -> Pieces:
    """The header and the 20 numbers of each particle; the byte order is that which fits the size, as `em` reads it."""
    kind = em.TYPES.get(data[3]) if len(data) >= em.HEADER else None
    if kind is None:
        raise ValueError("this is no EM file of real numbers")
    step = io_lists_em.ROWS * np.dtype(kind).itemsize
    for order in "<>":
        values, count, layers = np.frombuffer(data, dtype=f"{order}i4", count=3, offset=4).tolist()
        if (values, layers) == (io_lists_em.ROWS, 1) and count > 0 and len(data) == em.HEADER + step * count:
            break
    else:
        told = " x ".join(map(str, np.frombuffer(data, dtype="<i4", count=3, offset=4).tolist()))
        raise ValueError(
            f"a motive list holds {io_lists_em.ROWS} numbers for each particle, this one {told} in {len(data):,} bytes"
        )
    pieces = [data[: em.HEADER], *(data[start : start + step] for start in range(em.HEADER, len(data), step))]
    columns = [*(str(number) for number in range(1, io_lists_em.ROWS)), "class"]
    return Pieces(pieces, np.arange(1, count + 1), columns, ".em", f"{order}{kind}")


def _points(data: bytes) -> Pieces:
    """Lines of annotations, an object of JSON each."""
    pieces = data.split(b"\n")
    pieces = [line + b"\n" for line in pieces[:-1]] + [pieces[-1]] * bool(pieces[-1])
    rows = [number for number, line in enumerate(pieces) if line.strip()]
    wrong = next((n for n in rows if not (pieces[n].strip().startswith(b"{") and pieces[n].strip().endswith(b"}"))), None)
    if wrong is not None:
        raise ValueError(f"line {wrong + 1} is no annotated point: {_text(pieces[wrong][:60])!r}")
    return Pieces(pieces, np.array(rows, dtype=np.int64), [], ".ndjson")


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", errors="replace")


def _count(line: bytes) -> int:
    """Values in a row."""
    return len(_values(line)) if any(mark in line for mark in (b'"', b"'", b"#")) else len(line.split())


def _values(line: bytes) -> list[tuple[int, int]]:
    """Where the values of a row begin and end."""
    spans = []
    for found in VALUE.finditer(line):
        if found[0].startswith(b"#"):
            break
        spans.append(found.span())
    return spans


def _cells(line: bytes, *, mark: str) -> list[tuple[int, int]]:
    """Where the values of a row of a CSV file begin and end."""
    cell = CELLS[mark]
    spans = []
    place, end = 0, len(line.rstrip(b"\r\n"))
    while True:
        found = cell.match(line, place)
        assert found is not None
        spans.append(found.span())
        if found.end() >= end:
            return spans
        place = found.end() + 1
