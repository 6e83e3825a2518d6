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
"""

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.conventions import SOURCE
from tomolab.io.lists import byte_rows, stopgap
from tomolab.io.lists.byte_rows import Pieces
from tomolab.io.paths import atomic, fingerprint
from tomolab.particles import REQUIRED


@dataclass(frozen=True)
class Copy:
    """What came of a filtered copy: where it is, and how many particles of the list it keeps and leaves out.

    ``elsewhere`` counts the particles that were asked for and came from another list, or from none.
    """

    path: Path
    kept: int
    dropped: int
    elsewhere: int = 0


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
        found = byte_rows.cut(path.read_bytes(), suffix)
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
        changed = byte_rows.classified(found)
        for place, number in zip(kept.tolist(), numbers.tolist(), strict=True):
            parts[place] = changed(parts[place], number)
    if found.suffix == ".em":
        parts[0] = byte_rows.counted(found, len(kept))
    places = np.cumsum(keep) - 1
    along = tuple(places[lines[rows]] for lines in found.along)
    return replace(found, pieces=list(compress(parts, keep.tolist())), rows=places[kept], along=along)


def _write(left: Pieces, to: Path) -> None:
    """Write a list, and read it again before it comes to its place."""
    with atomic(to) as temporary:
        with temporary.open("wb") as file:
            file.writelines(left.pieces)
        again = byte_rows.cut(temporary.read_bytes(), left.suffix)
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
