"""Takes subtomograms, writes a store of them on disk or in object storage, larger than memory, and reads any of them again.

A store is a Zarr v3 group with the array ``volumes`` (n, box, box, box) in float16 and, beside it, the particle table
``particles.parquet``, and ``skipped.parquet`` with the particles that could not be cut, where there are any. The array is
sharded: a shard is one file of about 16 MB, a chunk in it, of 256 kB, is what is read at least from afar.

The layout was chosen by ``benchmarks/bench_stores.py``. Noise hardly compresses: zstd saves 8 % of the disk, LZ4 nothing, and
with either training reads at a fifth of the rate, since a whole chunk must be unpacked for a row. So nothing is
compressed, and rows are read straight from the files (`read_rows`), in any order as fast as one after the
other. float16 rounds a voxel by 0.0002 of its standard deviation; int8 would halve the disk once more and round by 0.013, and
would clip what is far from the mean, as gold is. Larger shards write no faster, smaller ones make more files.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
import zarr
from tqdm.auto import tqdm
from zarr.storage import LocalStore

from tomolab import io, particles
from tomolab.io import paths, safe_load
from tomolab.subtomograms import object_storage, store_checks
from tomolab.subtomograms.object_storage import Bucket

TABLE, SKIPPED, ARRAY = "particles.parquet", "skipped.parquet", "volumes/zarr.json"
FORMAT = 1
"""Version of the layout."""
READERS = 8
"""Shards, or runs of chunks, that are read at once."""
TOGETHER = 1000
"""Rows that are read at once; the system takes 1,024."""
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_INDEX = [_LITTLE, {"name": "crc32c"}]
ROW_BYTES = 128
"""Of a particle in the table on disk, about."""
CHUNK_BYTES, SHARD_BYTES = 256 * 1024, 16 * 1024 * 1024
Part = tuple[Any, pd.DataFrame]
"""Volumes (b, box, box, box), array or tensor, with their particle table of b rows."""


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
        Where the store stands at the end: a folder, or an address of object storage (`object_storage`).
    parts
        Any number of parts of any length, at least one; particle ids must be unique over all of them.
    box, voxel_size
        Edge in voxels, and Å.
    total
        How many subtomograms will come, for the progress bar.
    skipped
        Tables of particles that are not among them, with a column ``reason``; asked for when all parts have come.

    Raises
    ------
    ValueError
        If no part comes, or one has another box, other rows than volumes, or values that float16 cannot hold.
    OSError
        If the disk has less room than `total` need; told before anything is written.
    """
    place = object_storage.at(path)
    if isinstance(place, Bucket):
        _clear(place)
        joined = _fill(place, parts, box, total=total, name=str(place))
        _tables(place, joined, skipped)
        zarr.open_group(place.store(read_only=False), mode="r+").attrs.update(_about(joined, box, voxel_size))
        return str(place)
    check_room(place, total or 0, box)
    with io.atomic(place) as temporary:
        joined = _fill(temporary, parts, box, total=total, name=place.name)
        _tables(temporary, joined, skipped)
        zarr.open_group(temporary, mode="r+").attrs.update(_about(joined, box, voxel_size))
    return place


def _clear(bucket: Bucket) -> None:
    """Remove a store, first what makes it one; refuse to remove anything else."""
    names = bucket.names()
    other = [name for name in names if name not in (store_checks.NODE, TABLE, SKIPPED) and not name.startswith("volumes/")]
    if other:
        raise ValueError(f"{bucket} holds {len(other)} objects that are not of a store, such as {other[0]}")
    first = [name for name in (store_checks.NODE, TABLE) if name in names]
    bucket.remove([*first, *(name for name in names if name not in first)])


def _fill(place: Path | Bucket, parts: Iterable[Part], box: int, *, total: int | None, name: str) -> pd.DataFrame:
    """Write the volumes of a new store; their table."""
    rows: list[pd.DataFrame] = []
    with tqdm(total=total, unit=" subtomograms", desc=name, leave=False) as bar:
        array = begin(place, box)
        for block in blocks(parts, box, size=layout(box)[1], rows=rows):
            put(array, array.shape[0], block)
            bar.update(len(block))
    if not rows:
        raise ValueError(f"no subtomograms came to be written to {place}")
    return particles.check(pd.concat([part for part in rows if len(part)] or rows[:1], ignore_index=True))


def _tables(place: Path | Bucket, joined: pd.DataFrame, skipped: Sequence[pd.DataFrame]) -> None:
    left = [one for one in skipped if len(one)]
    for name, table in ((TABLE, joined), *([(SKIPPED, pd.concat(left, ignore_index=True))] if left else [])):
        if isinstance(place, Bucket):
            place.put(name, table.to_parquet(index=False))
        else:
            table.to_parquet(place / name, index=False)


def begin(place: Path | Bucket, box: int, *, count: int = 0) -> zarr.Array:
    """Make a group with an array for `count` boxes of `box` voxels, none of which is written; it grows from whole shards."""
    chunk, shard = layout(box)
    cube = (box, box, box)
    store = place.store(read_only=False) if isinstance(place, Bucket) else place
    # Chunks of zeros are written too, so that one that is missing is known to be lost.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.create_group(store, zarr_format=3).create_array(
            "volumes", shape=(count, *cube), chunks=(chunk, *cube), shards=(shard, *cube), dtype="float16", compressors=None
        )


def growing(folder: Path) -> zarr.Array:
    """Array of a group that `begin` made, to be written; ValueError if it is of another layout."""
    # What is written again after the folder was removed has an array, but is no group.
    store_checks.attributes(_node(folder, store_checks.NODE), folder)
    store_checks.check(folder)
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(folder / "volumes", mode="r+", zarr_format=3)


def put(array: zarr.Array, start: int, block: np.ndarray, *, settle: Path | None = None) -> None:
    """Write volumes into an array from row `start` on, which begins a shard; it grows where it is too short.

    Parameters
    ----------
    array
        Of a store in a folder.
    start
        Row of the first.
    block
        Volumes (b, box, box, box), b up to a shard.
    settle
        Folder of the store; then wait until they are on the disk, so that what is noted after them survives a power cut.
    """
    if start + len(block) > array.shape[0]:
        array.resize((start + len(block), *array.shape[1:]))
    array[start : start + len(block)] = block
    if settle is not None:
        number = start // (array.shards or array.chunks)[0]
        descriptor = os.open(settle.joinpath("volumes", "c", str(number), "0", "0", "0"), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def tidy(folder: Path) -> None:
    """Remove what killed writers left of files that they had not finished. Nobody may be writing there."""
    for one in folder.rglob("*.partial"):
        one.unlink()


def finish(folder: Path, table: pd.DataFrame, *, box: int, voxel_size: float) -> None:
    """Make a store of a group whose array is complete: its attributes and its particle table.

    Parameters
    ----------
    folder
        Of the group.
    table
        Particle table, a row for each volume.
    box, voxel_size
        Edge in voxels, and Å.
    """
    zarr.open_group(folder, mode="r+").attrs.update(_about(table, box, voxel_size))
    table.to_parquet(folder / TABLE, index=False)


def _about(table: pd.DataFrame, box: int, voxel_size: float) -> dict[str, Any]:
    """Attributes of a store."""
    return {"tomolab": "subtomograms", "format": FORMAT, "voxel_size": float(voxel_size), "box": box, "count": len(table)}


def check_room(path: str | Path, count: int, box: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Parameters
    ----------
    path
        Of the store; its folder need not be there.
    count, box
        Subtomograms that are to come, and their edge in voxels.

    Raises
    ------
    OSError
        If they need more than is free; both numbers are told.
    """
    folder = next(one for one in Path(path).absolute().parents if one.exists())
    needed, free = size(count, box), shutil.disk_usage(folder).free
    if needed > free:
        told = f"{count:,} subtomograms of {box}³ voxels need {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free"
        raise OSError(errno.ENOSPC, told, str(path))


def size(count: int, box: int) -> int:
    """Bytes on disk of so many subtomograms, with their particle table."""
    return count * (2 * box**3 + ROW_BYTES)


def read(path: str | Path) -> tuple[zarr.Array, pd.DataFrame, float]:
    """Open a store: its array, not yet read, its particle table, and the voxel size in Å.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If it is not a store, has another format, or its array, table and attributes disagree.
    """
    place = object_storage.at(path)
    about = _described(place)
    # The table before the array: while another process appends, volumes come before it, and the count after it.
    with safe_load.reading(str(place), "a store of subtomograms"):
        found = _read_table(place, TABLE)
        if found is None:
            raise ValueError(f"{place} is not a store of subtomograms: it lacks {TABLE}")
        table, array = particles.check(found), _array(place)
    if not about["count"] <= len(table) <= array.shape[0]:
        raise ValueError(
            f"{path} was written with {about['count']} subtomograms, "
            f"but holds {array.shape[0]} volumes and {len(table)} particles"
        )
    if array.shape[1:] != (about["box"],) * 3:
        raise ValueError(f"{path} says box {about['box']}, but its volumes have shape {array.shape[1:]}")
    return _first(array, len(table)), table, float(about["voxel_size"])


def _described(place: Path | Bucket) -> dict[str, Any]:
    """What a store says of itself."""
    if isinstance(place, Bucket):
        found, table = place.get(store_checks.NODE), place.get(TABLE)
        there, whole = bool(found or table or place.names()), found is not None and table is not None
    else:
        there, whole = place.exists(), (place / store_checks.NODE).is_file() and (place / TABLE).is_file()
    if not there:
        raise FileNotFoundError(f"no subtomograms at {place}")
    if not whole:
        raise ValueError(f"{place} is not a store of subtomograms: it lacks {store_checks.NODE} or {TABLE}")
    about = store_checks.attributes(_node(place, store_checks.NODE), str(place))
    if about.get("tomolab") != "subtomograms" or _node(place, ARRAY, missing={}) == {}:
        raise ValueError(f"{place} is a Zarr group, but not a store of subtomograms")
    if about.get("format") != FORMAT:
        raise ValueError(f"{place} has format {about.get('format')}, this version of tomolab reads format {FORMAT}")
    with safe_load.reading(str(place), "a store of subtomograms"):
        safe_load.check_types(about, count=int, box=int, voxel_size=(int, float))
        if not 0 < about["voxel_size"] < 1e9:
            raise ValueError(f"its voxel_size is {about['voxel_size']}, expected a positive number of Å")
    return about


def _node(place: Path | Bucket, name: str, *, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a ``zarr.json`` holds, or `missing` where there is none."""
    if not isinstance(place, Bucket):
        path = io.inside(place, name)
        return missing if missing is not None and not path.is_file() else safe_load.read_json(path, "a Zarr group")
    data = place.get(name)
    if data is None and missing is not None:
        return missing
    with safe_load.reading(f"{place}/{name}", "a Zarr group"):
        return safe_load.parse_json(data or b"")


def _read_table(place: Path | Bucket, name: str) -> pd.DataFrame | None:
    """A table of a store; None if it is not there."""
    if isinstance(place, Bucket):
        data = place.get(name)
        return None if data is None else safe_load.read_parquet(data, name=f"{place}/{name}")
    path = io.inside(place, name)
    return safe_load.read_parquet(path) if path.is_file() else None


def _array(place: Path | Bucket) -> zarr.Array:
    """The array of a store, none of which is read yet."""
    if not isinstance(place, Bucket):
        return store_checks.volumes(place)
    with safe_load.reading(str(place), "a store of subtomograms"):
        store_checks.fits(_node(place, ARRAY))
        array = zarr.open_group(place.store(read_only=True), mode="r")["volumes"]
        assert isinstance(array, zarr.Array)
        # Zarr would give zeros for what is not there.
        shard, there = (array.shards or array.chunks)[0], set(place.names())
        keys = (f"volumes/c/{number}/0/0/0" for number in range(-(-array.shape[0] // shard)))
        missing = [key for key in keys if key not in there]
        if missing:
            raise ValueError(f"{place} lacks {len(missing)} of its shards, such as {missing[0]}")
        return array


def _first(array: zarr.Array, count: int) -> zarr.Array:
    """An array without what is being appended to it, or was by a process that was killed."""
    if array.shape[0] == count:
        return array
    whole = array.async_array
    short = whole.metadata.update_shape((count, *array.shape[1:]))
    first = zarr.Array(zarr.AsyncArray(short, whole.store_path, whole.config))
    return store_checks.Volumes(first, array.place) if isinstance(array, store_checks.Volumes) else first


def read_skipped(path: str | Path) -> pd.DataFrame:
    """The particles that could not be cut, with the column ``reason``, if the store tells of any."""
    table = _read_table(object_storage.at(path), SKIPPED)
    if table is None:
        return pd.DataFrame()
    if "reason" not in table:
        raise ValueError(f"{path} does not say why particles were skipped: {SKIPPED} has no column reason")
    return table


def take(array: zarr.Array, rows: np.ndarray) -> np.ndarray:
    """Volumes of these rows, in this order. Neighbouring chunks are read together, which saves requests."""
    if is_plain(array):
        return read_rows(array, rows)
    out = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    length = array.chunks[0]
    chunks = ascending // length
    # A run ends at a gap of 4 chunks, or where it would hold more than a shard in memory.
    shard = array.shards[0] if array.shards else length
    breaks = np.flatnonzero((np.diff(chunks) > 4) | (np.diff(ascending // shard) > 0)) + 1

    def read(some: np.ndarray) -> None:
        if len(some):
            first, last = int(chunks[some[0]]) * length, (int(chunks[some[-1]]) + 1) * length
            out[order[some]] = np.asarray(array[first:last])[ascending[some] - first]

    # From afar, most of the time is spent on waiting.
    with ThreadPoolExecutor(READERS) as readers:
        list(readers.map(read, np.split(np.arange(len(rows)), breaks)))
    return out


def is_plain(array: zarr.Array) -> bool:
    """Whether the array can be read so: sharded along its first axis, not compressed, in a folder of this machine."""
    # The words of the specification of Zarr v3; how Zarr's own classes hold them differs between its versions.
    codecs: Any = array.metadata.to_dict().get("codecs", ())
    if not isinstance(array.store, LocalStore) or [one["name"] for one in codecs] != ["sharding_indexed"]:
        return False
    sharding = codecs[0]["configuration"]
    return (
        tuple(sharding["chunk_shape"][1:]) == tuple(array.shape[1:])
        and sharding["index_location"] == "end"
        and list(sharding["codecs"]) == [_LITTLE]
        and list(sharding["index_codecs"]) == _INDEX
        and array.dtype.byteorder in "=|<"
    )


def read_rows(array: zarr.Array, rows: np.ndarray) -> np.ndarray:
    """Rows of a plain array (`is_plain`), read straight from its files, in the order in which they are asked for.

    Zarr works about a millisecond for every run of chunks that it is asked for, in which a disk reads megabytes, and always
    reads whole chunks. Training and averaging ask for many small runs. Here the index of a shard and the rows of it are read
    from one file that is opened once, so that it does not matter if another process puts a longer shard in its place meanwhile.

    Parameters
    ----------
    array
        The array.
    rows
        Row numbers.

    Raises
    ------
    IndexError
        If there is no such row.
    ValueError
        If a shard is damaged.
    """
    out: np.ndarray = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
    if not len(rows):
        return out
    if rows.min() < 0 or rows.max() >= array.shape[0]:
        raise IndexError(f"rows {rows.min()} to {rows.max()} were asked for, and there are {array.shape[0]}")
    assert array.shards is not None
    order = np.argsort(rows, kind="stable")
    spans = np.split(order, np.flatnonzero(np.diff(rows[order] // array.shards[0])) + 1)
    work = partial(_shard, array, rows, out)
    if len(spans) == 1:
        work(spans[0])
    else:
        with ThreadPoolExecutor(min(READERS, len(spans))) as readers:
            list(readers.map(work, spans))
    return out


def _shard(array: zarr.Array, rows: np.ndarray, out: np.ndarray, wanted: np.ndarray) -> None:
    """Read those rows that lie in one shard, `wanted` of all by their places in `out`, which are in the order of the file."""
    assert array.shards is not None
    shard, chunk, each = array.shards[0], array.chunks[0], out[0].nbytes
    number = int(rows[wanted[0]]) // shard
    place = Path(array.store.root, array.path)  # type: ignore[attr-defined]
    path = paths.inside(place, "/".join(["c", str(number), *["0"] * (out.ndim - 1)]))
    inside = rows[wanted] - number * shard
    if not path.is_file():
        raise ValueError(f"{path} is not there, which holds some of {array.shape[0]} volumes")
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        offsets, lengths = store_checks.index_of(file, shard // chunk, path)[inside // chunk].T
        if (offsets == store_checks.ABSENT).any():
            raise ValueError(f"{path} is damaged: it lacks chunks")
        if (lengths != chunk * each).any() or (offsets > os.fstat(file).st_size).any():
            raise ValueError(f"{path} is damaged: its index tells of chunks elsewhere, or not of {chunk * each:,} bytes")
        places = offsets.astype(np.int64) + (inside % chunk) * each
        # Rows that follow one another in the file are read together.
        ends = np.flatnonzero(np.diff(places) != each) + 1
        for some, where in zip(np.split(wanted, ends), np.split(places, ends), strict=True):
            for start in range(0, len(some), TOGETHER):
                part = [memoryview(out[row]).cast("B") for row in some[start : start + TOGETHER]]
                _fill_views(file, part, int(where[start]), path)
    finally:
        os.close(file)


def _fill_views(file: int, views: list[memoryview], place: int, path: Path) -> None:
    """Fill views, one after the other, with what stands in a file from a place on."""
    while views:
        count = os.preadv(file, views, place)
        if not count:
            raise ValueError(f"{path} is damaged: it ends {sum(map(len, views)):,} bytes too early")
        place += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if count:
            views[0] = views[0][count:]


class Rows:
    """Some volumes of an array, in an order of their own, read when they are asked for as ``rows[a:b]``."""

    def __init__(self, array: Any, rows: np.ndarray) -> None:
        # A choice among chosen ones is a choice among all.
        inside = isinstance(array, Rows)
        self.array: Any = array.array if inside else array
        self.rows: np.ndarray = array.rows[rows] if inside else rows
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype
        self.chunks = getattr(self.array, "chunks", (1,))

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        wanted = self.rows[rows]
        return take(self.array, wanted) if isinstance(self.array, zarr.Array) else np.asarray(self.array)[wanted]


def span(volumes: Any, start: int, stop: int) -> np.ndarray:
    """Volumes that follow one another, as they are held; `stop` may lie beyond the end."""
    if isinstance(volumes, zarr.Array):
        return take(volumes, np.arange(start, min(stop, volumes.shape[0])))
    return np.asarray(volumes[start:stop])


def parts(volumes: Any, table: pd.DataFrame) -> Iterator[Part]:
    """Yield volumes (n, box, box, box) as they are held, with their rows, in parts of one shard."""
    n = layout(int(volumes.shape[1]))[1]
    for start in range(0, max(1, len(table)), n):
        yield span(volumes, start, start + n), table[start : start + n]


def blocks(parts: Iterable[Part], box: int, *, size: int, rows: list[pd.DataFrame]) -> Iterator[np.ndarray]:
    """Regroup a stream into blocks of volumes, so that every shard is written once.

    Parameters
    ----------
    parts
        The stream.
    box
        Edge in voxels.
    size
        Volumes of a block; the last may have fewer.
    rows
        Takes the tables.

    Raises
    ------
    ValueError
        If a part has another box, other rows than volumes, or values that float16 cannot hold.
    """
    waiting: list[np.ndarray] = []
    for volumes, table in parts:
        data = volumes.detach().cpu().numpy() if isinstance(volumes, torch.Tensor) else np.asarray(volumes)
        if data.shape != (len(table), box, box, box):
            raise ValueError(f"{len(table)} particles need volumes ({len(table)}, {box}, {box}, {box}), got {data.shape}")
        with np.errstate(over="ignore"):
            data = data.astype(np.float16, copy=False)
        wrong = data.size - int(np.count_nonzero(np.isfinite(data)))
        if wrong:
            raise ValueError(f"{wrong} values are not finite or beyond float16 (±65504); subtomograms are stored normalised")
        rows.append(table)
        waiting.append(data)
        if sum(map(len, waiting)) >= size:
            stack = np.concatenate(waiting)
            whole = len(stack) // size * size
            yield from (stack[start : start + size] for start in range(0, whole, size))
            waiting = [stack[whole:].copy()]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


_Item = TypeVar("_Item")


def ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Read or make each item, such as a batch, in a thread of its own while the one before is worked on."""
    rest = iter(items)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(lambda: list(islice(rest, 1)))
        while found := coming.result():
            coming = reader.submit(lambda: list(islice(rest, 1)))
            yield found[0]


def layout(box: int) -> tuple[int, int]:
    """Subtomograms per chunk and per shard."""
    each = 2 * box**3
    chunk = max(1, CHUNK_BYTES // each)
    return chunk, chunk * max(1, SHARD_BYTES // (each * chunk))
