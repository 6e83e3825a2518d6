"""Stores: subtomograms on disk, larger than memory.

A store is a Zarr v3 group with the array ``volumes`` (n, box, box, box) in float16 and, beside it, the particle table
``particles.parquet``, and ``skipped.parquet`` with the particles that could not be cut, where there are any. The array is
sharded: a shard is one file of about 16 MB, a chunk in it is what is read at least. Normalised noise does not compress, so
nothing is compressed.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
import zarr
from tqdm.auto import tqdm

from tomolab import claims, files, particles, records

SKIPPED = "skipped.parquet"
FORMAT = 1
"""Version of the layout."""
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
) -> Path:
    """Write a store from a stream of parts, whole or not at all; one that exists is replaced.

    Parameters
    ----------
    path
        Where the store stands at the end.
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
    """
    rows: list[pd.DataFrame] = []
    with files.atomic(path) as temporary, tqdm(total=total, unit="subtomogram", desc=Path(path).name, leave=False) as bar:
        array = begin(temporary, box)
        for block in blocks(parts, box, size=_layout(box)[1], rows=rows):
            start = array.shape[0]
            array.resize((start + len(block), *array.shape[1:]))
            array[start:] = block
            bar.update(len(block))
        if not rows:
            raise ValueError(f"no subtomograms came to be written to {path}")
        joined = particles.check(pd.concat([part for part in rows if len(part)] or rows[:1], ignore_index=True))
        finish(temporary, joined, box=box, voxel_size=voxel_size)
        left = [one for one in skipped if len(one)]
        if left:
            pd.concat(left, ignore_index=True).to_parquet(temporary / SKIPPED, index=False)
    return Path(path)


def begin(folder: Path, box: int) -> zarr.Array:
    """Make a group with an empty array for boxes of `box` voxels, which grows from whole shards."""
    chunk, shard = _layout(box)
    cube = (box, box, box)
    # Chunks of zeros are written too, so that one that is missing is known to be lost.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.create_group(folder, zarr_format=3).create_array(
            "volumes", shape=(0, *cube), chunks=(chunk, *cube), shards=(shard, *cube), dtype="float16", compressors=None
        )


def growing(folder: Path) -> zarr.Array:
    """Array of a group that `begin` made, to be written; ValueError if it is of another layout."""
    claims.check(folder)
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(folder / "volumes", mode="r+", zarr_format=3)


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
    about: dict[str, Any] = {
        "tomolab": "subtomograms",
        "format": FORMAT,
        "voxel_size": float(voxel_size),
        "box": box,
        "count": len(table),
    }
    zarr.open_group(folder, mode="r+").attrs.update(about)
    table.to_parquet(folder / "particles.parquet", index=False)


def read(path: str | Path) -> tuple[zarr.Array, pd.DataFrame, float]:
    """Open a store: its array, not yet read, its particle table, and the voxel size in Å.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If it is not a store, has another format, or its array, table and attributes disagree.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no subtomograms at {path}")
    if not (path / "zarr.json").is_file() or not (path / "particles.parquet").is_file():
        raise ValueError(f"{path} is not a store of subtomograms: it lacks zarr.json or particles.parquet")
    about = claims.attributes(path)
    if about.get("tomolab") != "subtomograms" or not (path / "volumes").is_dir():
        raise ValueError(f"{path} is a Zarr group, but not a store of subtomograms")
    if about.get("format") != FORMAT:
        raise ValueError(f"{path} has format {about.get('format')}, this version of tomolab reads format {FORMAT}")
    with records.reading(path, "a store of subtomograms"):
        records.typed(about, count=int, box=int, voxel_size=(int, float))
        if not 0 < about["voxel_size"] < 1e9:
            raise ValueError(f"its voxel_size is {about['voxel_size']}, expected a positive number of Å")
        array, table = claims.volumes(path), particles.check(records.table(files.inside(path, "particles.parquet")))
    if not array.shape[0] == len(table) == about["count"]:
        raise ValueError(
            f"{path} was written with {about['count']} subtomograms, "
            f"but holds {array.shape[0]} volumes and {len(table)} particles"
        )
    if array.shape[1:] != (about["box"],) * 3:
        raise ValueError(f"{path} says box {about['box']}, but its volumes have shape {array.shape[1:]}")
    return array, table, float(about["voxel_size"])


def read_skipped(path: str | Path) -> pd.DataFrame:
    """The particles that could not be cut, with the column ``reason``, if the store tells of any."""
    place = files.inside(path, SKIPPED)
    if not place.is_file():
        return pd.DataFrame()
    table = records.table(place)
    if "reason" not in table:
        raise ValueError(f"{place} does not say why particles were skipped: it has no column reason")
    return table


def take(array: zarr.Array, rows: np.ndarray) -> np.ndarray:
    """Volumes of these rows, in this order. Neighbouring chunks are read together, which saves requests."""
    out = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    length = array.chunks[0]
    chunks = ascending // length
    # A run ends at a gap of 4 chunks, or where it would hold more than a shard in memory.
    shard = array.shards[0] if array.shards else length
    breaks = np.flatnonzero((np.diff(chunks) > 4) | (np.diff(ascending // shard) > 0)) + 1
    for some in np.split(np.arange(len(rows)), breaks):
        if len(some):
            first, last = int(chunks[some[0]]) * length, (int(chunks[some[-1]]) + 1) * length
            out[order[some]] = np.asarray(array[first:last])[ascending[some] - first]
    return out


class Rows:
    """Some volumes of an array, in an order of their own, read when they are asked for as ``rows[a:b]``."""

    def __init__(self, array: Any, rows: np.ndarray) -> None:
        # A choice among chosen ones is a choice among all.
        inside = isinstance(array, Rows)
        self.array: Any = array.array if inside else array
        self.rows: np.ndarray = array.rows[rows] if inside else rows
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> np.ndarray:
        wanted = self.rows[rows]
        return take(self.array, wanted) if isinstance(self.array, zarr.Array) else np.asarray(self.array)[wanted]


def parts(volumes: Any, table: pd.DataFrame) -> Iterator[Part]:
    """Yield volumes (n, box, box, box) as they are held, with their rows, in parts of one shard."""
    n = _layout(int(volumes.shape[1]))[1]
    for start in range(0, max(1, len(table)), n):
        yield np.asarray(volumes[start : start + n]), table[start : start + n]


def _layout(box: int) -> tuple[int, int]:
    """Subtomograms per chunk and per shard."""
    each = 2 * box**3
    chunk = max(1, CHUNK_BYTES // each)
    return chunk, chunk * max(1, SHARD_BYTES // (each * chunk))


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
        while sum(map(len, waiting)) >= size:
            stack = np.concatenate(waiting)
            yield stack[:size]
            waiting = [stack[size:]]
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
