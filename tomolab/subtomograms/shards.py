"""Shards: rows of an array read straight from its files, where they lie on a disk of this machine as plain numbers.

Zarr works about a millisecond for every run of chunks that it is asked for, in which a disk reads megabytes, and always reads
whole chunks. Training and averaging ask for many small runs. Here the index of a shard and the rows of it are read from one
file that is opened once, so that it does not matter if another process puts a longer shard in its place meanwhile.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from tomolab.io import paths
from tomolab.subtomograms import store_checks

READERS = 8
"""Shards that are read at once."""
TOGETHER = 1000
"""Rows that are read at once; the system takes 1,024."""


_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_INDEX = [_LITTLE, {"name": "crc32c"}]


def plain(array: zarr.Array) -> bool:
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


def read(array: zarr.Array, rows: np.ndarray) -> np.ndarray:
    """Rows of a `plain` array, in the order in which they are asked for.

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
                _fill(file, part, int(where[start]), path)
    finally:
        os.close(file)


def _fill(file: int, views: list[memoryview], place: int, path: Path) -> None:
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
