"""Takes subtomograms as they come, writes a store that goes on after an interruption, or adds them to one that is there.

While it grows, a new store stands beside its place under a hidden name, with a journal of what is finished. Only whole shards
are written into its array, and none twice; what does not fill one is kept in a file of its own. So an interruption at any time
leaves all that the journal tells of.

What is added by `append` stands behind what there is, and counts from the moment at which the particle table is replaced: a
reader sees all of it or none. Processes that add to one store take turns. One that is killed leaves the store as it was; what
it had written behind the end is written over by the next.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from tomolab import io, particles
from tomolab.io import paths, safe_load
from tomolab.io.paths import atomic
from tomolab.subtomograms import object_storage, store
from tomolab.subtomograms.store import Part

JOURNAL = "journal.json"
PATIENCE = 3600.0
"""Seconds to wait while others add."""
BEFORE = "id_before_joining"
"""Column with the ids of particles that were numbered anew."""


@dataclass(frozen=True, eq=False)
class Journal:
    """A store that grows: its `folder`, the `key` of the work, `box`, `voxel_size` in Å, and the names that are `done`.

    `written` subtomograms stand in the array; `tail` holds those after them, which do not fill a shard.
    """

    folder: Path
    key: str
    box: int
    voxel_size: float
    done: tuple[str, ...]
    written: int
    tail: np.ndarray


def lock(path: str | Path) -> AbstractContextManager[bool]:
    """Keep other processes from what grows towards `path`; a BlockingIOError if another one is at it."""
    return paths.lock(_folder(path))


def begin(path: str | Path, key: str, *, box: int, voxel_size: float, total: int | None = None, resume: bool = True) -> Journal:
    """Begin a store, or go on with one that was interrupted.

    Parameters
    ----------
    path
        Where it stands at the end.
    key
        Tells whether what is there is of the same work; what is of another is dropped with a warning.
    box, voxel_size
        Edge in voxels, and Å.
    total
        How many subtomograms will come at most, if that is known.
    resume
        False drops in any case what is there.

    Raises
    ------
    OSError
        If the disk has less room than they need.
    """
    folder = _folder(path)
    found = _begun(folder, key, box=box, voxel_size=voxel_size) if resume and (folder / JOURNAL).is_file() else None
    if found is not None:
        store.tidy(folder)
        store.check_room(path, (total or 0) - found.written, box)
        return found
    if folder.exists():
        shutil.rmtree(folder)
    store.check_room(path, total or 0, box)
    folder.parent.mkdir(parents=True, exist_ok=True)
    store.begin(folder, box)
    journal = Journal(folder, key, box, voxel_size, (), 0, _nothing(box))
    _note(journal)
    return journal


def _begun(folder: Path, key: str, *, box: int, voxel_size: float) -> Journal | None:
    """What an interruption left, or None with a warning if it is of other work, or damaged."""
    try:
        _own(folder)
        told = safe_load.read_json(io.inside(folder, JOURNAL), "a journal")
        safe_load.check_types(told, key=str, done=list, written=int)
        if told["key"] == key:
            done, written = tuple(map(str, told["done"])), told["written"]
            tail = safe_load.read_npy(io.inside(folder, f"tail-{len(done)}.npy")) if done else _nothing(box)
            if _fits(store.growing(folder), tail, written=written, box=box):
                return Journal(folder, key, box, voxel_size, done, written, tail)
    except (ValueError, OSError) as error:
        warnings.warn(f"what was begun in {folder} cannot be read and is begun anew: {error}", stacklevel=4)
        return None
    warnings.warn(f"what was begun in {folder} is of other particles, tomograms or parameters; it is dropped", stacklevel=4)
    return None


def add(journal: Journal, name: str, parts: Iterable[Part], *, skipped: list[pd.DataFrame]) -> Journal:
    """Add the subtomograms of a tomogram, all of them or none.

    Parameters
    ----------
    journal
        The store.
    name
        Of the tomogram.
    parts
        Its subtomograms with their rows.
    skipped
        Tables of those that were left out, with the column ``reason``; read when all parts have come.

    Returns
    -------
    Journal
        The store with this tomogram among those done.
    """
    array = store.growing(journal.folder)
    shard = array.shards[0] if array.shards else array.chunks[0]
    rows: list[pd.DataFrame] = []
    written, tail = journal.written, _nothing(journal.box)
    before = (journal.tail, pd.DataFrame(index=range(len(journal.tail))))
    for block in store.blocks(chain([before], parts), journal.box, size=shard, rows=rows):
        if len(block) < shard:
            tail = block
            continue
        store.put(array, written, block, settle=journal.folder)
        written += shard
    number = len(journal.done) + 1
    for kind, some in (("rows", rows[1:]), ("skipped", [one for one in skipped if len(one)])):
        if some:
            pd.concat(some, ignore_index=True).to_parquet(journal.folder / f"{kind}-{number}.parquet", index=False)
    # Straight into a file numpy says of a full disk only how many bytes were not written.
    held = BytesIO()
    np.save(held, tail, allow_pickle=False)
    (journal.folder / f"tail-{number}.npy").write_bytes(held.getbuffer())
    made = replace(journal, done=(*journal.done, name), written=written, tail=tail)
    _note(made)
    (journal.folder / f"tail-{number - 1}.npy").unlink(missing_ok=True)
    return made


def finish(journal: Journal, path: str | Path) -> pd.DataFrame:
    """Put the store into its place, and give the table of those that were left out.

    Parameters
    ----------
    journal
        The store, with all tomograms done.
    path
        Its place; a store that is there is replaced.

    Raises
    ------
    ValueError
        If it holds no subtomogram.
    """
    folder = journal.folder
    skips, rows = (
        [
            safe_load.read_parquet(one)
            for n in range(1, len(journal.done) + 1)
            if (one := io.inside(folder, f"{kind}-{n}.parquet")).is_file()
        ]
        for kind in ("skipped", "rows")
    )
    skipped = pd.concat(skips, ignore_index=True) if skips else pd.DataFrame()
    if not rows:
        shutil.rmtree(folder)
        raise ValueError(f"none of {len(skipped)} particles could be cut: {reasons(skipped)}")
    with safe_load.reading(folder, "an unfinished store"):
        table = particles.check(pd.concat(rows, ignore_index=True))
    if len(table) != journal.written + len(journal.tail):
        raise ValueError(
            f"{folder} holds {len(table)} particles, but {journal.written + len(journal.tail)} volumes; delete it to begin anew"
        )
    array = store.growing(folder)
    if len(journal.tail):
        store.put(array, journal.written, journal.tail, settle=folder)
    # Work that was cut may have written more than it noted.
    array.resize((len(table), *array.shape[1:]))
    if len(skipped):
        skipped.to_parquet(folder / store.SKIPPED, index=False)
    store.finish(folder, table, box=journal.box, voxel_size=journal.voxel_size)
    for left in (
        *folder.glob("rows-*.parquet"),
        *folder.glob("skipped-*.parquet"),
        *folder.glob("tail-*.npy"),
        folder / JOURNAL,
    ):
        left.unlink()
    with atomic(path) as temporary:
        os.rename(folder, temporary)
    return skipped


def reasons(skipped: pd.DataFrame) -> str:
    """Why particles were skipped, and how many, as a phrase; empty if none were."""
    counts = skipped["reason"].value_counts() if len(skipped) else {}
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items())


def _folder(path: str | Path) -> Path:
    place = object_storage.folder(path)
    return place.with_name(f".{place.name}.partial")


def _own(folder: Path) -> None:
    """Refuse a folder with links: what is written into it would be written where they lead."""
    links = [one.name for one in (folder, *folder.rglob("*")) if one.is_symlink()]
    if links:
        raise ValueError(f"{folder} holds links, such as {links[0]}")


def _fits(array: zarr.Array, tail: np.ndarray, *, written: int, box: int) -> bool:
    """Whether what was read can be what was left: whole shards, and fewer volumes after them than one holds."""
    shard = (array.shards or array.chunks)[0]
    boxes = array.shape[1:] == tail.shape[1:] == (box,) * 3 and tail.dtype == np.float16
    return boxes and 0 <= written <= array.shape[0] and written % shard == 0 and len(tail) < shard


def _nothing(box: int) -> np.ndarray:
    return np.empty((0, box, box, box), dtype=np.float16)


def _note(journal: Journal) -> None:
    told = {"key": journal.key, "done": list(journal.done), "written": journal.written}
    with atomic(journal.folder / JOURNAL) as temporary:
        temporary.write_text(json.dumps(told) + "\n")


def append(
    path: str | Path,
    parts: Iterable[Part],
    *,
    box: int,
    voxel_size: float,
    total: int | None = None,
    skipped: Sequence[pd.DataFrame] = (),
    renumber: bool = False,
) -> None:
    """Add a stream of parts to a store, all of it or nothing.

    Parameters
    ----------
    path
        Of the store.
    parts
        Any number of parts of any length; particle ids must be unique over all of them, and other than those in the store.
    box, voxel_size
        Edge in voxels, and Å: those of the store.
    total
        How many subtomograms will come, if that is known.
    skipped
        Tables of particles that are not among them, with a column ``reason``; asked for when all parts have come.
    renumber
        Give new ids, that follow the highest in the store, and keep the old ones in the column ``id_before_joining``.

    Raises
    ------
    FileNotFoundError
        If there is no store.
    ValueError
        If it is not a store, has another box or voxel size, or the parts are not what they must be.
    OSError
        If the disk has less room than `total` need.
    BlockingIOError
        If others add for longer than an hour.
    """
    place = object_storage.folder(path)
    with paths.lock(place, patience=PATIENCE):
        old, table, size = store.read(place)
        if old.shape[1] != box or abs(size - voxel_size) > 1e-6 * size:
            raise ValueError(
                f"{place} holds boxes of {old.shape[1]}³ voxels of {size:g} Å, not of {box}³ voxels of {voxel_size:g} Å"
            )
        store.check_room(place, total or 0, box)
        store.tidy(place)
        rows = _put_behind(place, old, parts)
        joined = _joined(table, rows, renumber=renumber)
        _skip(place, skipped)
        with atomic(place / store.TABLE) as temporary:
            joined.to_parquet(temporary, index=False)
        zarr.open_group(place, mode="r+").attrs["count"] = len(joined)


def _put_behind(place: Path, old: zarr.Array, parts: Iterable[Part]) -> list[pd.DataFrame]:
    """Write volumes behind the last of the store; their rows. What stood there of an addition that was killed is gone."""
    rows: list[pd.DataFrame] = []
    array = store.growing(place)
    shard = (array.shards or array.chunks)[0]
    # The last shard, where it is not full, is put down anew with the same volumes at the same places, in one step.
    start = old.shape[0] // shard * shard
    tail = np.asarray(old[start:])
    for block in store.blocks(
        chain([(tail, pd.DataFrame(index=range(len(tail))))], parts), old.shape[1], size=shard, rows=rows
    ):
        store.put(array, start, block, settle=place)
        start += len(block)
    array.resize((start, *array.shape[1:]))
    return rows[1:]


def _joined(table: pd.DataFrame, rows: list[pd.DataFrame], *, renumber: bool) -> pd.DataFrame:
    more = [one for one in rows if len(one)]
    if more and renumber:
        added = pd.concat(more, ignore_index=True)
        first = int(table["particle_id"].max()) + 1 if len(table) else 0
        new = np.arange(first, first + len(added))
        more = [added.assign(particle_id=new, **{BEFORE: added["particle_id"]})]
        table = table if BEFORE in table else table.assign(**{BEFORE: table["particle_id"]})
    return particles.check(pd.concat([table, *more], ignore_index=True))


def _skip(place: Path, skipped: Sequence[pd.DataFrame]) -> None:
    """Note what was left out; the same again, after an addition that was killed, is noted once."""
    left = [one for one in skipped if len(one)]
    if left:
        told = pd.concat([store.read_skipped(place), *left], ignore_index=True)
        with atomic(place / store.SKIPPED) as temporary:
            told.drop_duplicates(ignore_index=True).to_parquet(temporary, index=False)
