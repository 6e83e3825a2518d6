"""Reconstruction of a measured tilt series at full size, and projection of a large volume: seconds and peak memory.

Every row is measured in a process of its own. The lower bounds are what no program can do without: reading the stack, and
one linear interpolation a voxel a tilt, here made on operands that never leave the cache.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import record
import torch

from tomolab import ctf, io, tomograms
from tomolab.io import download
from tomolab.tomograms import projection, tilt_series

VOXEL_SIZE, SHAPE = 10.0, (260, 630, 652)
LARGE, TILTS = (200, 512, 512), np.arange(-60, 61, 3.0)
REPEATS = 3
BLOCK = 2**14


def series() -> tilt_series.TiltSeries:
    sample = download.fetch_sample("empiar_10499_ts01")
    return tilt_series.read(
        sample.stack,
        transforms=sample.transforms,
        metadata=sample.metadata,
        pixel_size=sample.pixel_size,
    )


def reconstruction(weighting: str, *, flip: bool) -> Callable[[], Any]:
    measured = series()
    restored = {"lens": ctf.Lens(amplitude_contrast=0.1), "defocus": measured.defocus} if flip else {}
    return lambda: tomograms.reconstruct(
        measured.images,
        measured.tilts,
        pixel_size=measured.pixel_size,
        voxel_size=VOXEL_SIZE,
        transforms=measured.transforms,
        shape=SHAPE,
        weighting=weighting,
        progress=False,
        **restored,
    )


def reading() -> Callable[[], Any]:
    sample = download.fetch_sample("empiar_10499_ts01")
    return lambda: io.read_stack(sample.stack, pixel_size=sample.pixel_size)


def interpolations() -> Callable[[], Any]:
    # One piece a thread, all of them in cache together.
    start, end, share, out = torch.rand(4, torch.get_num_threads() * BLOCK * 2)
    passes = round(np.prod(SHAPE) * len(TILTS) / len(out))

    def work() -> None:
        for _ in range(passes):
            torch.lerp(start, end, share, out=out)

    return work


def projections(*, slabs: bool) -> Callable[[], Any]:
    data = torch.rand(LARGE)
    depth = ctf.depth_of_focus(VOXEL_SIZE, 300.0) / VOXEL_SIZE if slabs else None

    def work() -> None:
        turned = projection.y_last(data)
        for tilt in TILTS:
            projection.slabs(turned, float(tilt), width=LARGE[2], depth=depth)

    return work


ROWS: dict[str, Callable[[], Callable[[], Any]]] = {
    "reconstruct, ramp": lambda: reconstruction("ramp", flip=False),
    "reconstruct, ramp, phases flipped": lambda: reconstruction("ramp", flip=True),
    "reconstruct, sirt, phases flipped": lambda: reconstruction("sirt", flip=True),
    "lower bound: read the stack": reading,
    "lower bound: one interpolation a voxel a tilt": interpolations,
    "project 200 x 512 x 512 at 41 tilts": lambda: projections(slabs=False),
    "the same, in slabs of the depth of focus": lambda: projections(slabs=True),
}


def measure(name: str) -> dict[str, Any]:
    """Prepare a step, repeat it, and tell its median seconds, and the GB before it and at its peak."""
    work = ROWS[name]()
    before = record.peak_memory()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return {"step": name, "seconds": statistics.median(seconds), "GB before": before, "GB peak": record.peak_memory()}


def main() -> None:
    """Run the rows one after another."""
    rows = [record.apart(measure, name) for name in ROWS]
    settings = {"voxel size (Å)": VOXEL_SIZE, "shape (z, y, x)": SHAPE, "repeats": REPEATS, "threads": torch.get_num_threads()}
    record.write("reconstruction", rows, settings=settings)


if __name__ == "__main__":
    main()
