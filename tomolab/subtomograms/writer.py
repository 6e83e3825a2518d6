"""Takes a stream of subtomograms, writes a store or adds them to one, and resumes after an interruption.

`_fill` writes the shards one after the other; an incomplete last shard is written again when more volumes follow. The particle
table, or the journal of an unfinished store (a hidden folder beside the path), states which volumes are valid. Both are
replaced last, so after a kill at any time they describe a whole state.
"""

import errno
import hashlib
import json
import os
import re
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
from tomolab.io import checksums, paths, safe_load
from tomolab.io.paths import atomic, inside
from tomolab.subtomograms import store
from tomolab.subtomograms.store import Batch, Bucket, Folder, Layout, Volumes, layout, layout_of, read_table

JOURNAL = "journal.json"
ROW_BYTES = 128
"""Approximate bytes of a particle in the table on disk."""
FAINT = 1e-3
"""Largest value of a volume below which float16 rounds it by more than a ten-thousandth."""
PATIENCE = 3600.0
"""Seconds to wait while other processes add."""
BEFORE = "id_before_joining"
"""Column with the former ids of renumbered particles."""


def write(
    path: str | Path,
    batches: Iterable[Batch],
    *,
    box: int,
    voxel_size: float,
    total: int | None = None,
    skipped: Sequence[pd.DataFrame] = (),
) -> str | Path:
    """Write a store from a stream of batches, whole or not at all; an existing one is replaced.

    Object storage cannot rename: there an existing store is removed first, and the new one is valid once its last object is
    written.

    Parameters
    ----------
    path
        Folder of the store, or an address of object storage (`tomolab.subtomograms.store`).
    batches
        At least one batch, of any length; particle ids must be unique over all of them.
    box, voxel_size
        Edge in voxels, and Å.
    total
        Number of subtomograms, for the progress bar and the check of the disk.
    skipped
        Tables of the particles that could not be cut, with a column ``reason``.

    Raises
    ------
    ValueError
        If there is no batch, or one has another box, another number of rows than volumes, or values beyond float16.
    OSError
        If the disk has less room than `total` subtomograms need, before anything is written.
    """
    place = store.at(path)
    with tqdm(total=total, unit=" subtomograms", desc=Path(str(path)).name, leave=False) as bar:
        coming = counted(batches, bar)
        if isinstance(place, Bucket):
            _clear(place)
            _write(place, coming, box, voxel_size=voxel_size, skipped=skipped)
            return str(place)
        check_room(place.path, total or 0, box)
        with atomic(place.path) as temporary:
            _write(Folder(temporary), coming, box, voxel_size=voxel_size, skipped=skipped)
    return place.path


def _write(
    place: Folder | Bucket, batches: Iterable[Batch], box: int, *, voxel_size: float, skipped: Sequence[pd.DataFrame]
) -> None:
    rows = _fill(place, layout(box), 0, batches)
    if not rows:
        raise ValueError(f"there are no subtomograms to write to {place}")
    _finish(place, layout(box), particles.check(joined(rows)), voxel_size=voxel_size, skipped=joined(skipped))


def _clear(bucket: Bucket) -> None:
    """Remove a store, first its group and table; ValueError if the bucket holds other objects."""
    names = bucket.names()
    other = [
        name for name in names if name not in (store.GROUP, store.TABLE, store.SKIPPED) and not name.startswith("volumes/")
    ]
    if other:
        raise ValueError(f"{bucket} holds {len(other)} objects that are not of a store, such as {other[0]}")
    for name in sorted(names, key=lambda name: name not in (store.GROUP, store.TABLE)):
        bucket.remove(name)


def _fill(place: Folder | Bucket, found: Layout, count: int, batches: Iterable[Batch]) -> list[pd.DataFrame]:
    """Write volumes after the first `count`, and give their tables."""
    start = count - count % found.shard
    name = store.shard_name(start // found.shard)
    # An incomplete last shard is written again with the same volumes at the same positions.
    try:
        tail = Volumes(place, found, count)[start:]
    except ValueError as error:
        # Somebody may remove the folder at any moment: that is not a damaged store.
        if place.size(name) is None:
            raise FileNotFoundError(f"{place}/{name} is missing; the new volumes follow those in it") from error
        raise
    rows: list[pd.DataFrame] = []
    for block in _blocks(chain([(tail, pd.DataFrame(index=range(len(tail))))], batches), found, rows):
        place.put(store.shard_name(start // found.shard), found.encode(block))
        start += len(block)
    return rows[1:]


def _blocks(batches: Iterable[Batch], found: Layout, rows: list[pd.DataFrame]) -> Iterator[np.ndarray]:
    """Regroup a stream into blocks of one shard, the last one shorter; the tables are appended to `rows`."""
    waiting: list[np.ndarray] = []
    for volumes, table in batches:
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
    """Volumes in float16; ValueError if their number or box differs, or values are too large or too small for float16."""
    data = volumes.detach().cpu().numpy() if isinstance(volumes, torch.Tensor) else np.asarray(volumes)
    if data.shape != (count, box, box, box):
        raise ValueError(f"{count} particles need volumes ({count}, {box}, {box}, {box}), got {data.shape}")
    if count:
        largest = np.maximum(data.max(axis=(1, 2, 3)), -data.min(axis=(1, 2, 3)))
        if (faint := (largest > 0) & (largest < FAINT)).any():
            raise ValueError(
                f"{faint.sum()} of {count} volumes have values up to {largest[faint].max():.3g}, too small for float16; "
                "subtomograms are stored normalised, with mean 0 and standard deviation 1"
            )
    with np.errstate(over="ignore"):
        data = data.astype(np.float16, copy=False)
    wrong = data.size - int(np.count_nonzero(np.isfinite(data)))
    if wrong:
        raise ValueError(f"{wrong} values are not finite or beyond float16 (±65504); subtomograms are stored normalised")
    return data


def _finish(place: Folder | Bucket, found: Layout, table: pd.DataFrame, *, voxel_size: float, skipped: pd.DataFrame) -> None:
    """Write the metadata of the array, the tables and last the group, so that readers always find a whole store."""
    about = {
        "tomolab": "subtomograms",
        "format": store.FORMAT,
        "voxel_size": float(voxel_size),
        "box": found.box,
        "count": len(table),
    }
    place.put(store.ARRAY, _text(found.metadata(len(table))))
    if len(skipped):
        place.put(store.SKIPPED, checksums.parquet_bytes(skipped))
    place.put(store.TABLE, checksums.parquet_bytes(table))
    # Zarr allows attributes of our own, but no other entries.
    group = {"zarr_format": 3, "node_type": "group", "attributes": about | {checksums.KEY: checksums.EMPTY}}
    place.put(store.GROUP, checksums.stamp(_text(group)))
    if isinstance(place, Folder):
        _tidy(place.path, shards=-(-len(table) // found.shard))


def _text(about: dict[str, Any]) -> bytes:
    return (json.dumps(about, indent=1) + "\n").encode()


def _tidy(folder: Path, *, shards: int) -> None:
    """Remove what killed writers left: shards after the last one, and temporary files."""
    for one in list(folder.glob("volumes/c/*")):
        if one.name.isdecimal() and int(one.name) >= shards:
            shutil.rmtree(one)
    for one in list(folder.glob("volumes/**/.*")):
        if one.is_file():
            one.unlink()


def joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenated tables; empty ones are left out unless all are empty."""
    found = list(tables)
    found = [one for one in found if len(one)] or found[:1]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def append(
    path: str | Path,
    batches: Iterable[Batch],
    *,
    box: int,
    voxel_size: float,
    total: int | None = None,
    skipped: Sequence[pd.DataFrame] = (),
    renumber: bool = False,
) -> None:
    """Add a stream of batches to a store, all of it or nothing, as `subtomograms.append`.

    Parameters
    ----------
    path, renumber
        As in `subtomograms.append`.
    batches, box, voxel_size, total, skipped
        As in `write`, with the box and voxel size of the store and new particle ids.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `subtomograms.append`.
    BlockingIOError
        If other processes add for more than an hour.
    """
    place = store.folder(path)
    with paths.lock(place, patience=PATIENCE) as check:
        volumes, table, size = store.read(place)
        found = volumes.layout
        if found.box != box or abs(size - voxel_size) > 1e-6 * size:
            raise ValueError(
                f"{place} holds boxes of {found.box}³ voxels of {size:g} Å, not of {box}³ voxels of {voxel_size:g} Å"
            )
        check_room(place, total or 0, box)
        more = joined(_fill(Folder(place), found, len(table), (one for one in batches if check() is None)))
        if len(more) and renumber:
            first = int(table["particle_id"].max()) + 1 if len(table) else 0
            more = more.assign(particle_id=np.arange(first, first + len(more)), **{BEFORE: more["particle_id"]})
            table = table if BEFORE in table else table.assign(**{BEFORE: table["particle_id"]})
        # Repeated after a killed addition, the same particles are skipped again.
        left = joined([store.read_skipped(place), *skipped]).drop_duplicates(ignore_index=True)
        _check_present(Folder(place))
        check()
        _finish(Folder(place), found, particles.check(joined([table, more])), voxel_size=size, skipped=left)


def _check_present(place: Folder) -> None:
    """FileNotFoundError if the folder was removed while it was written."""
    if place.size(store.ARRAY) is None:
        raise FileNotFoundError(f"{place} was removed while it was written")


@dataclass(frozen=True, eq=False)
class Journal:
    """An unfinished store: `folder`, `key` of the work, `voxel_size` in Å, `done` names and the `count` of their volumes."""

    folder: Path
    key: str
    layout: Layout
    voxel_size: float
    done: tuple[str, ...]
    count: int


def lock(path: str | Path) -> AbstractContextManager[object]:
    """Lock the unfinished stores of `path`; BlockingIOError if another process writes one."""
    place = store.folder(path)
    return paths.lock(place.with_name(f".{place.name}.partial"))


def begin(path: str | Path, key: str, *, box: int, voxel_size: float, total: int | None = None, resume: bool = True) -> Journal:
    """Begin or resume an unfinished store, which stays in a hidden folder beside `path` until `finish`.

    Parameters
    ----------
    path
        The finished store.
    key
        Identifies the work; an unfinished store with another key is removed with a warning.
    box, voxel_size
        Edge in voxels, and Å.
    total
        Largest number of subtomograms, if known.
    resume
        False removes any unfinished store.

    Raises
    ------
    OSError
        If the disk has less room than `total` subtomograms need.
    """
    folder = _unfinished(path, key)
    _remove_others(store.folder(path), folder)
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
    """The unfinished store, or None with a warning if it is damaged."""
    try:
        links = [one.name for one in (folder, *folder.rglob("*")) if one.is_symlink()]
        if links:
            # Files would be written to the targets of the links.
            raise ValueError(f"it holds links, such as {links[0]}")
        about = safe_load.read_json(inside(folder, JOURNAL), "a journal")
        safe_load.check_types(about, key=str, done=list, count=int)
        found, _ = layout_of(Folder(folder))
        if about["key"] != key or found.box != box:
            raise ValueError("it is of other work")
        volumes = Volumes(Folder(folder), found, about["count"])
        if len(damaged := volumes.damaged()):
            raise ValueError(f"{len(damaged)} of its {len(volumes)} volumes are damaged or missing")
        return Journal(folder, key, found, voxel_size, tuple(map(str, about["done"])), len(volumes))
    except (ValueError, OSError) as error:
        warnings.warn(f"the unfinished store {folder} cannot be read and is begun anew: {error}", stacklevel=4)
        return None


def add(journal: Journal, name: str, batches: Iterable[Batch], *, skipped: Sequence[pd.DataFrame]) -> Journal:
    """Add subtomograms under a name, all of them or none.

    Parameters
    ----------
    journal
        The unfinished store.
    name
        Unique name of these subtomograms, such as that of a tomogram.
    batches
        The subtomograms with their rows.
    skipped
        Tables of the particles that could not be cut, with the column ``reason``.

    Returns
    -------
    Journal
        The store with this name in `done`.
    """
    place = Folder(journal.folder)
    rows = joined(_fill(place, journal.layout, journal.count, batches))
    for stem, table in (("rows", rows), ("skipped", joined(skipped))):
        if len(table):
            place.put(f"{stem}-{len(journal.done)}.parquet", checksums.parquet_bytes(table))
    _check_present(place)
    more = replace(journal, done=(*journal.done, name), count=journal.count + len(rows))
    _note(more)
    return more


def _note(journal: Journal) -> None:
    about = {"key": journal.key, "done": list(journal.done), "count": journal.count}
    Folder(journal.folder).put(JOURNAL, checksums.json_bytes(about))


def finish(journal: Journal, path: str | Path) -> pd.DataFrame:
    """Move the finished store to `path`, and give the table of skipped particles.

    Parameters
    ----------
    journal
        The store, with all work done.
    path
        The finished store; an existing one is replaced.

    Raises
    ------
    ValueError
        If it holds no subtomogram.
    """
    folder, place = journal.folder, Folder(journal.folder)
    _check_present(place)
    # If it is whole, a finish was killed while it removed the files that are no longer needed.
    if place.size(store.GROUP) is None:
        _join(journal)
    skipped = store.read_skipped(folder)
    for one in (*folder.glob("rows-*.parquet"), *folder.glob("skipped-*.parquet"), folder / JOURNAL):
        one.unlink()
    with atomic(path) as temporary:
        os.rename(folder, temporary)
    return skipped


def _join(journal: Journal) -> None:
    """Write the tables of an unfinished store from those of its names, and what makes it a store."""
    folder, place = journal.folder, Folder(journal.folder)
    names = {stem: [f"{stem}-{n}.parquet" for n in range(len(journal.done))] for stem in ("rows", "skipped")}
    names = {stem: [name for name in several if place.size(name) is not None] for stem, several in names.items()}
    skipped = joined(read_table(place, name) for name in names["skipped"])
    if not names["rows"]:
        shutil.rmtree(folder)
        raise ValueError(f"none of {len(skipped)} particles could be cut: {reasons(skipped)}")
    with safe_load.reading(folder, "an unfinished store"):
        table = particles.check(joined(read_table(place, name) for name in names["rows"]))
    if len(table) != journal.count:
        raise ValueError(f"{folder} holds {len(table)} particles, but {journal.count} volumes; delete it to begin anew")
    _finish(place, journal.layout, table, voxel_size=journal.voxel_size, skipped=skipped)


def reasons(skipped: pd.DataFrame) -> str:
    """Reasons of skipped particles with their counts, as text; empty if there are none."""
    counts = skipped["reason"].value_counts() if len(skipped) else {}
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items())


def _unfinished(path: str | Path, key: str) -> Path:
    """Folder of an unfinished store. Its name is that of the work: no two works ever write into one folder."""
    place = store.folder(path)
    return place.with_name(f".{place.name}.{hashlib.sha256(key.encode()).hexdigest()[:8]}.partial")


def _remove_others(place: Path, mine: Path) -> None:
    """Remove unfinished stores of other work from beside a store, with a warning."""
    if not place.parent.is_dir():
        return
    for one in place.parent.iterdir():
        if one != mine and re.fullmatch(rf"{re.escape(f'.{place.name}.')}[0-9a-f]{{8}}\.partial", one.name):
            warnings.warn(
                f"the unfinished store {one} is of other particles, tomograms or parameters; it is dropped", stacklevel=4
            )
            shutil.rmtree(one)


def check_room(path: str | Path, count: int, box: int) -> None:
    """OSError if the disk has no room for `count` more subtomograms."""
    folder = next(one for one in Path(path).absolute().parents if one.exists())
    needed, free = size(count, box), shutil.disk_usage(folder).free
    if needed > free:
        message = f"{count:,} subtomograms of {box}³ voxels need {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free"
        raise OSError(errno.ENOSPC, message, str(path))


def size(count: int, box: int) -> int:
    """Bytes on disk of `count` subtomograms with their particle table."""
    return count * (2 * box**3 + ROW_BYTES)


def batches(volumes: Any, table: pd.DataFrame) -> Iterator[Batch]:
    """Yield volumes (n, box, box, box) with their rows, in batches of one shard."""
    n = layout(int(volumes.shape[1])).shard
    for start in range(0, max(1, len(table)), n):
        yield np.asarray(volumes[start : start + n]), table[start : start + n]


def counted(batches: Iterable[Batch], bar: Any) -> Iterator[Batch]:
    """The same batches; each advances a progress bar once it has been used."""
    for volumes, table in batches:
        yield volumes, table
        bar.update(len(table))
