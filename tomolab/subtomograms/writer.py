"""Takes subtomograms as they come, writes a store that goes on after an interruption, or adds them to one that is there.

There is one way to write (`_fill`): shards are put down one after the other, and the last one, where it is not full, is put
down again with what it holds when more comes. What is there counts by the particle table, or by the journal of a store that is
not finished, which stands beside its place under a hidden name. Both are replaced last, so that a process that is killed at
any time leaves what they count.
"""

import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from tomolab import particles
from tomolab.io import paths, safe_load
from tomolab.io.paths import atomic, inside
from tomolab.subtomograms import store
from tomolab.subtomograms.store import Bucket, Folder, Layout, Part, Volumes, layout, layout_of, read_table

JOURNAL = "journal.json"
ROW_BYTES = 128
"""Of a particle in the table on disk, about."""
PATIENCE = 3600.0
"""Seconds to wait while others add."""
BEFORE = "id_before_joining"
"""Column with the ids of particles that were numbered anew."""


def write(
    path: str | Path,
    parts: Iterable[Part],
    *,
    box: int,
    voxel_size: float,
    total: int | None = None,
    skipped: Sequence[pd.DataFrame] = (),
) -> str | Path:
    """Write a store from a stream of parts, whole or not at all; one that exists is replaced.

    In object storage nothing can change its name: there, one that exists is removed first, and what was written becomes a
    store with its last object.

    Parameters
    ----------
    path
        Where the store stands at the end: a folder, or an address of object storage (`tomolab.subtomograms.store`).
    parts
        Any number of parts of any length, at least one; particle ids must be unique over all of them.
    box, voxel_size
        Edge in voxels, and Å.
    total
        How many subtomograms will come, for the progress bar.
    skipped
        Tables of particles that are not among them, with a column ``reason``.

    Raises
    ------
    ValueError
        If no part comes, or one has another box, other rows than volumes, or values that float16 cannot hold.
    OSError
        If the disk has less room than `total` need, before anything is written.
    """
    place = store.at(path)
    with tqdm(total=total, unit=" subtomograms", desc=Path(str(path)).name, leave=False) as bar:
        coming = counted(parts, bar)
        if isinstance(place, Bucket):
            _clear(place)
            _write(place, coming, box, voxel_size=voxel_size, skipped=skipped)
            return str(place)
        check_room(place.path, total or 0, box)
        with atomic(place.path) as temporary:
            _write(Folder(temporary), coming, box, voxel_size=voxel_size, skipped=skipped)
    return place.path


def _write(
    place: Folder | Bucket, parts: Iterable[Part], box: int, *, voxel_size: float, skipped: Sequence[pd.DataFrame]
) -> None:
    rows = _fill(place, layout(box), 0, parts)
    if not rows:
        raise ValueError(f"no subtomograms came to be written to {place}")
    _finish(place, layout(box), particles.check(joined(rows)), voxel_size=voxel_size, skipped=joined(skipped))


def _clear(bucket: Bucket) -> None:
    """Remove a store, first what makes it one; refuse to remove anything else."""
    names = bucket.names()
    other = [
        name for name in names if name not in (store.GROUP, store.TABLE, store.SKIPPED) and not name.startswith("volumes/")
    ]
    if other:
        raise ValueError(f"{bucket} holds {len(other)} objects that are not of a store, such as {other[0]}")
    for name in sorted(names, key=lambda name: name not in (store.GROUP, store.TABLE)):
        bucket.remove(name)


def _fill(place: Folder | Bucket, found: Layout, count: int, parts: Iterable[Part]) -> list[pd.DataFrame]:
    """Put volumes down behind the first `count`; their tables."""
    start = count - count % found.shard
    name = store.shard_name(start // found.shard)
    if start < count and place.size(name) is None:
        raise FileNotFoundError(f"{place}/{name} is not there, to which more was to be added")
    # The last shard, where it is not full, is put down again with the same volumes at the same places.
    tail = Volumes(place, found, count)[start:]
    rows: list[pd.DataFrame] = []
    for block in _blocks(chain([(tail, pd.DataFrame(index=range(len(tail))))], parts), found, rows):
        place.put(store.shard_name(start // found.shard), found.encode(block))
        start += len(block)
    return rows[1:]


def _blocks(parts: Iterable[Part], found: Layout, rows: list[pd.DataFrame]) -> Iterator[np.ndarray]:
    """Regroup a stream into volumes of a shard each, the last perhaps fewer; `rows` takes the tables."""
    waiting: list[np.ndarray] = []
    for volumes, table in parts:
        waiting.append(_checked(volumes, len(table), found.box))
        rows.append(table)
        if sum(map(len, waiting)) >= found.shard:
            stack = np.concatenate(waiting)
            whole = len(stack) // found.shard * found.shard
            yield from (stack[start : start + found.shard] for start in range(0, whole, found.shard))
            waiting = [stack[whole:].copy()]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


def _checked(volumes: Any, count: int, box: int) -> np.ndarray:
    """Volumes in float16; a ValueError if they are other than `count`, of another box, or beyond float16."""
    data = volumes.detach().cpu().numpy() if isinstance(volumes, torch.Tensor) else np.asarray(volumes)
    if data.shape != (count, box, box, box):
        raise ValueError(f"{count} particles need volumes ({count}, {box}, {box}, {box}), got {data.shape}")
    with np.errstate(over="ignore"):
        data = data.astype(np.float16, copy=False)
    wrong = data.size - int(np.count_nonzero(np.isfinite(data)))
    if wrong:
        raise ValueError(f"{wrong} values are not finite or beyond float16 (±65504); subtomograms are stored normalised")
    return data


def _finish(place: Folder | Bucket, found: Layout, table: pd.DataFrame, *, voxel_size: float, skipped: pd.DataFrame) -> None:
    """Say what there is, in the order in which a reader needs it: the array, the tables, and what makes it a store."""
    about = {
        "tomolab": "subtomograms",
        "format": store.FORMAT,
        "voxel_size": float(voxel_size),
        "box": found.box,
        "count": len(table),
    }
    place.put(store.ARRAY, _text(found.metadata(len(table))))
    if len(skipped):
        place.put(store.SKIPPED, skipped.to_parquet(index=False))
    place.put(store.TABLE, table.to_parquet(index=False))
    place.put(store.GROUP, _text({"zarr_format": 3, "node_type": "group", "attributes": about}))
    if isinstance(place, Folder):
        _tidy(place.path, shards=-(-len(table) // found.shard))


def _text(about: dict[str, Any]) -> bytes:
    return (json.dumps(about, indent=1) + "\n").encode()


def _tidy(folder: Path, *, shards: int) -> None:
    """Remove what killed writers left: shards behind the last, and files that were not finished."""
    for one in list(folder.glob("volumes/c/*")):
        if one.name.isdecimal() and int(one.name) >= shards:
            shutil.rmtree(one)
    for one in list(folder.glob("volumes/**/.*")):
        if one.is_file():
            one.unlink()


def joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other; those without rows count only where none has any."""
    found = list(tables)
    found = [one for one in found if len(one)] or found[:1]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


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
    """Add a stream of parts to a store, all of it or nothing, as `subtomograms.append` adds subtomograms.

    Parameters
    ----------
    path, renumber
        As of `subtomograms.append`.
    parts, box, voxel_size, total, skipped
        As of `write`; particle ids, box and voxel size must be those that the store needs.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `subtomograms.append`.
    BlockingIOError
        If others add for longer than an hour.
    """
    place = store.folder(path)
    with paths.lock(place, patience=PATIENCE):
        volumes, table, size = store.read(place)
        found = volumes.layout
        if found.box != box or abs(size - voxel_size) > 1e-6 * size:
            raise ValueError(
                f"{place} holds boxes of {found.box}³ voxels of {size:g} Å, not of {box}³ voxels of {voxel_size:g} Å"
            )
        check_room(place, total or 0, box)
        more = joined(_fill(Folder(place), found, len(table), parts))
        if len(more) and renumber:
            first = int(table["particle_id"].max()) + 1 if len(table) else 0
            more = more.assign(particle_id=np.arange(first, first + len(more)), **{BEFORE: more["particle_id"]})
            table = table if BEFORE in table else table.assign(**{BEFORE: table["particle_id"]})
        # After an addition that was killed, the same are left out again.
        left = joined([store.read_skipped(place), *skipped]).drop_duplicates(ignore_index=True)
        _check_present(Folder(place))
        _finish(Folder(place), found, particles.check(joined([table, more])), voxel_size=size, skipped=left)


def _check_present(place: Folder) -> None:
    """Refuse to go on where the folder was removed meanwhile: what was put into it before is gone."""
    if place.size(store.ARRAY) is None:
        raise FileNotFoundError(f"{place} was removed while it was written")


@dataclass(frozen=True, eq=False)
class Journal:
    """A store that is not finished: its `folder`, the `key` of the work, `voxel_size` in Å, and the names that are `done`.

    Of its volumes, `count` are those of the names.
    """

    folder: Path
    key: str
    layout: Layout
    voxel_size: float
    done: tuple[str, ...]
    count: int


def lock(path: str | Path) -> AbstractContextManager[bool]:
    """Keep other processes from what grows towards `path`; a BlockingIOError if another one is at it."""
    return paths.lock(_unfinished(path))


def begin(path: str | Path, key: str, *, box: int, voxel_size: float, total: int | None = None, resume: bool = True) -> Journal:
    """Begin a store that goes on after an interruption, or go on with one; until `finish` it stands beside its place.

    Parameters
    ----------
    path
        Where it stands at the end.
    key
        Says whether what is there is of the same work; what is of another is dropped with a warning.
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
    folder = _unfinished(path)
    journal = _begun(folder, key, box, voxel_size) if resume and (folder / JOURNAL).is_file() else None
    if journal is None and folder.exists():
        shutil.rmtree(folder)
    check_room(path, (total or 0) - (journal.count if journal else 0), box)
    if journal is None:
        folder.mkdir(parents=True)
        Folder(folder).put(store.ARRAY, _text(layout(box).metadata(0)))
        journal = Journal(folder, key, layout(box), voxel_size, (), 0)
        _note(journal)
    return journal


def _begun(folder: Path, key: str, box: int, voxel_size: float) -> Journal | None:
    """What an interruption left, or None with a warning if it is of other work, or damaged."""
    try:
        links = [one.name for one in (folder, *folder.rglob("*")) if one.is_symlink()]
        if links:
            # What is written into it would be written where they lead.
            raise ValueError(f"it holds links, such as {links[0]}")
        about = safe_load.read_json(inside(folder, JOURNAL), "a journal")
        safe_load.check_types(about, key=str, done=list, count=int)
        found, _ = layout_of(Folder(folder))
        if about["key"] == key and found.box == box:
            volumes = Volumes(Folder(folder), found, about["count"])
            for number in range(-(-len(volumes) // found.shard)):
                volumes.check_shard(number)
            return Journal(folder, key, found, voxel_size, tuple(map(str, about["done"])), len(volumes))
    except (ValueError, OSError) as error:
        warnings.warn(f"what was begun in {folder} cannot be read and is begun anew: {error}", stacklevel=4)
        return None
    warnings.warn(f"what was begun in {folder} is of other particles, tomograms or parameters; it is dropped", stacklevel=4)
    return None


def add(journal: Journal, name: str, parts: Iterable[Part], *, skipped: Sequence[pd.DataFrame]) -> Journal:
    """Add subtomograms under a name, all of them or none.

    Parameters
    ----------
    journal
        The store.
    name
        Of what they are, such as a tomogram.
    parts
        The subtomograms with their rows.
    skipped
        Tables of those that were left out, with the column ``reason``.

    Returns
    -------
    Journal
        The store with this name among those done.
    """
    place = Folder(journal.folder)
    rows = joined(_fill(place, journal.layout, journal.count, parts))
    for kind, table in (("rows", rows), ("skipped", joined(skipped))):
        if len(table):
            place.put(f"{kind}-{len(journal.done)}.parquet", table.to_parquet(index=False))
    _check_present(place)
    more = replace(journal, done=(*journal.done, name), count=journal.count + len(rows))
    _note(more)
    return more


def _note(journal: Journal) -> None:
    Folder(journal.folder).put(JOURNAL, _text({"key": journal.key, "done": list(journal.done), "count": journal.count}))


def finish(journal: Journal, path: str | Path) -> pd.DataFrame:
    """Put the store into its place, and give the table of those that were left out.

    Parameters
    ----------
    journal
        The store, with all of the work done.
    path
        Its place; a store that is there is replaced.

    Raises
    ------
    ValueError
        If it holds no subtomogram.
    """
    folder, place = journal.folder, Folder(journal.folder)
    names = {kind: [f"{kind}-{n}.parquet" for n in range(len(journal.done))] for kind in ("rows", "skipped")}
    names = {kind: [name for name in several if place.size(name) is not None] for kind, several in names.items()}
    skipped = joined(read_table(place, name) for name in names["skipped"])
    if not names["rows"]:
        shutil.rmtree(folder)
        raise ValueError(f"none of {len(skipped)} particles could be cut: {reasons(skipped)}")
    with safe_load.reading(folder, "an unfinished store"):
        table = particles.check(joined(read_table(place, name) for name in names["rows"]))
    if len(table) != journal.count:
        raise ValueError(f"{folder} holds {len(table)} particles, but {journal.count} volumes; delete it to begin anew")
    _check_present(place)
    _finish(place, journal.layout, table, voxel_size=journal.voxel_size, skipped=skipped)
    for name in (*names["rows"], *names["skipped"], JOURNAL):
        (folder / name).unlink()
    with atomic(path) as temporary:
        os.rename(folder, temporary)
    return skipped


def reasons(skipped: pd.DataFrame) -> str:
    """Why particles were skipped, and how many, as a phrase; empty if none were."""
    counts = skipped["reason"].value_counts() if len(skipped) else {}
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items())


def _unfinished(path: str | Path) -> Path:
    place = store.folder(path)
    return place.with_name(f".{place.name}.partial")


def check_room(path: str | Path, count: int, box: int) -> None:
    """Refuse `count` more subtomograms that the disk cannot hold; the OSError names what they need and what is free."""
    folder = next(one for one in Path(path).absolute().parents if one.exists())
    needed, free = size(count, box), shutil.disk_usage(folder).free
    if needed > free:
        told = f"{count:,} subtomograms of {box}³ voxels need {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free"
        raise OSError(errno.ENOSPC, told, str(path))


def size(count: int, box: int) -> int:
    """Bytes on disk of so many subtomograms, with their particle table."""
    return count * (2 * box**3 + ROW_BYTES)


def parts(volumes: Any, table: pd.DataFrame) -> Iterator[Part]:
    """Yield volumes (n, box, box, box) as they are held, with their rows, in parts of one shard."""
    n = layout(int(volumes.shape[1])).shard
    for start in range(0, max(1, len(table)), n):
        yield np.asarray(volumes[start : start + n]), table[start : start + n]


def counted(parts: Iterable[Part], bar: Any) -> Iterator[Part]:
    """The same parts, each counted on a progress bar when the next is asked for."""
    for volumes, table in parts:
        yield volumes, table
        bar.update(len(table))
