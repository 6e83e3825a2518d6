"""How subtomograms should lie on disk: chunks, shards, types of numbers and compression, held against each other.

    python benchmarks/bench_stores.py
    python benchmarks/bench_stores.py --count 60000

A store of simulated subtomograms is written in each layout, and read: in order, as embedding does; as training does, in an
order of its own for every epoch (`learning.Labelled`); and one by one, as galleries do. Before every reading, the system is
told to forget the files of the store (posix_fadvise, POSIX_FADV_DONTNEED, after they were brought to the disk), so that they
come from there. Layouts take turns, so that other work on the machine meets all alike; medians. Plain float16 with a checksum
for each volume is written and read as stores are (`tomolab.subtomograms`); all else, which no store has, by Zarr.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import record
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from tomolab import learning, particles, simulation, subtomograms
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms, store, writer

DIFFERENT = 2048
"""Subtomograms that are simulated; the store repeats them."""
STEP = 1 / 24
"""Of the numbers of int8, in standard deviations: up to 5.3 of them."""
MODEL, SINGLE = 64, 100
"""Subtomograms of a batch, and those that are read one by one."""
KILO = 1024


class Layout(NamedTuple):
    """How a store lies on disk; sizes in kB."""

    chunk: int = 16
    shard: int = 16 * KILO
    dtype: str = "float16"
    compression: str = "none"

    @property
    def own(self) -> bool:
        """Whether stores are like this: a volume is a chunk with a checksum."""
        return (self.chunk, self.dtype, self.compression) == (16, "float16", "none")


CANDIDATES = [
    Layout(),
    *(Layout(shard=size) for size in (2 * KILO, 64 * KILO)),
    *(Layout(256, dtype=dtype) for dtype in ("float16", "float32", "int8")),
    *(Layout(256, compression=name) for name in ("zstd", "blosc")),
    Layout(256, dtype="int8", compression="zstd"),
]
COMPRESSORS: dict[str, Any] = {
    "none": None,
    "zstd": ZstdCodec(level=3),
    "blosc": BloscCodec(cname="lz4", shuffle="shuffle"),
}


def write(path: Path, layout: Layout, pool: np.ndarray, count: int) -> float:
    """Write a store in a layout; seconds, until it is on the disk."""
    box, each = pool.shape[-1], np.dtype(layout.dtype).itemsize * pool[0].size
    table = particles.table(np.zeros((count, 3)), label=[f"class {i % 16}" for i in range(count)])
    if layout.own:
        store.SHARD_BYTES = layout.shard * KILO
        parts = ((pool[np.arange(i, min(i + 1024, count)) % len(pool)], table[i : i + 1024]) for i in range(0, count, 1024))
        start = time.perf_counter()
        writer.write(path, parts, box=box, voxel_size=20.0)
        return time.perf_counter() - start
    chunk = max(1, layout.chunk * KILO // each)
    shard = chunk * max(1, layout.shard * KILO // (each * chunk))
    cube = (box, box, box)
    start = time.perf_counter()
    array = zarr.create_group(path, zarr_format=3).create_array(
        "volumes",
        shape=(count, *cube),
        chunks=(chunk, *cube),
        shards=(shard, *cube),
        dtype=layout.dtype,
        compressors=COMPRESSORS[layout.compression],
    )
    for first in range(0, count, shard):
        rows = np.arange(first, min(first + shard, count))
        block = pool[rows % len(pool)]
        if layout.dtype == "int8":
            block = np.clip(np.round(block / STEP), -127, 127)
        array[first : first + len(block)] = block.astype(layout.dtype)
    os.sync()
    seconds = time.perf_counter() - start
    table.to_parquet(path / store.TABLE, index=False)
    return seconds


def opened(path: Path, layout: Layout) -> Subtomograms:
    """A store; where its layout is one that stores do not have, and which is refused, by Zarr."""
    if layout.own:
        return subtomograms.open(path)
    array = zarr.open_array(path / "volumes", mode="r", zarr_format=3)
    return Subtomograms(ByZarr(array), pd.read_parquet(path / store.TABLE), 20.0)


class ByZarr:
    """An array that Zarr reads, as `Subtomograms` ask for rows."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype, self.block = array, array.shape, array.dtype, array.chunks[0]

    def __getitem__(self, rows: Any) -> Any:
        return self.array[rows] if isinstance(rows, slice) else self.array.oindex[rows]


def forget(path: Path) -> None:
    """Let the system forget what files hold, so that they are read from the disk again."""
    for one in path.rglob("*"):
        if one.is_file():
            file = os.open(one, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def in_order(boxes: Subtomograms, _: int) -> int:
    """As embedding reads."""
    return sum(len(ids) for ids, _ in boxes.batches(MODEL))


def as_training(boxes: Subtomograms, number: int) -> int:
    """An epoch."""
    return sum(len(labels) for _, labels in learning.Labelled(boxes, batch_size=MODEL, seed=1).epoch(number))


def one_by_one(boxes: Subtomograms, number: int) -> int:
    """As a gallery reads."""
    rows = np.random.default_rng(number).choice(len(boxes), SINGLE, replace=False)
    return sum(len(boxes.volumes[rows[i : i + 1]]) for i in range(SINGLE))


READINGS: dict[str, Callable[[Subtomograms, int], int]] = {
    "in order": in_order,
    "as training": as_training,
    "one by one": one_by_one,
}


def measured(pool: np.ndarray, *, count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each layout."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {layout: Path(folder) / f"{number}.zarr" for number, layout in enumerate(CANDIDATES)}
        writing = {layout: write(path, layout, pool, count) for layout, path in paths.items()}
        seconds: dict[tuple[Layout, str], list[float]] = {pair: [] for pair in itertools.product(CANDIDATES, READINGS)}
        for number, layout, (name, read) in itertools.product(range(repeats), CANDIDATES, READINGS.items()):
            boxes = opened(paths[layout], layout)
            forget(paths[layout])
            start = time.perf_counter()
            done = read(boxes, number)
            seconds[layout, name].append((time.perf_counter() - start) / done)
        for layout, path in paths.items():
            rates = {name: 1 / statistics.median(seconds[layout, name]) for name in READINGS}
            ratios = [a / b for a, b in zip(seconds[layout, "in order"], seconds[layout, "as training"], strict=True)]
            files = [one for one in path.rglob("*") if one.is_file() and one.name != store.TABLE]
            yield {
                "chunk (kB)": layout.chunk,
                "checksums": layout.own,
                "shard (MB)": layout.shard / KILO,
                "numbers": layout.dtype,
                "compression": layout.compression,
                "size of float16": sum(one.stat().st_size for one in files) / (2 * pool[0].size * count),
                "files": len(files),
                "written/s": count / writing[layout],
                "read in order/s": rates["in order"],
                "read as training/s": rates["as training"],
                "training of in order": statistics.median(ratios),
                "one by one/s": rates["one by one"],
            }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="subtomograms of 20³ voxels in every store")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    maps = densities.load(voxel_size=20.0, box=20)
    made = simulation.subtomograms(maps, DIFFERENT // len(maps), imaging=Imaging(snr=0.1), box=20, seed=1)
    pool = np.asarray(made.volumes, dtype=np.float32)
    rows = list(measured(pool, count=given.count, repeats=given.repeats))
    rounded = np.clip(np.round(pool / STEP), -127, 127) * STEP
    errors = {"float16": pool.astype(np.float16) - pool, "int8": rounded - pool}
    print(pd.Series({name: float(error.std()) for name, error in errors.items()}, name="error of a voxel (deviations)"))
    settings = {"box": 20, "count": given.count, "repeats": given.repeats, "load of the machine": os.getloadavg()[0]}
    settings |= {f"error of {name}": float(error.std()) for name, error in errors.items()}
    record.write("stores", rows, settings=settings)


if __name__ == "__main__":
    main()
