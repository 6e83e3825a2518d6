"""Simulated subtomograms per second, beside a plain recipe that does the same physics one particle at a time.

The plain recipe is what one would write with scipy and numpy: turn the map with `affine_transform`, multiply its transform
by CTF and wedge, add two filtered noises at the SNR asked for, normalise. Both are timed in turn, so that other work on the
machine meets both alike.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import record
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from tomolab import simulation
from tomolab.simulation import Imaging, densities
from tomolab.volumes import Volume

COUNT, FEW, REPEATS = 256, 12, 5
KINDS = {
    "SNR 0.05": Imaging(snr=0.05),
    "and a neighbour": Imaging(snr=0.05, neighbours=1.0),
    "as in cells": Imaging.in_cells(),
}


def main() -> None:
    """Time streams and plain recipes in turn; medians."""
    rows = []
    for voxel_size, box in ((10.0, 40), (20.0, 20)):
        maps = densities.load(voxel_size=voxel_size, box=box)
        streams = {
            name: simulation.Stream(maps, imaging=imaging, box=box, epoch_size=COUNT, seed=1) for name, imaging in KINDS.items()
        }
        ways: dict[str, Callable[[int], int]] = {
            f"tomolab, {name}": lambda number, stream=stream: sum(len(volumes) for volumes, _ in stream.epoch(number))
            for name, stream in streams.items()
        }
        ways |= {
            f"plain, SNR 0.05, order {order}": lambda number, order=order, maps=maps: plain(maps, order=order, seed=number)
            for order in (1, 3)
        }
        rates = timed(ways)
        rows += [
            {
                "box": box,
                "voxel size (Å)": voxel_size,
                "recipe": name,
                "subtomograms/s, median": statistics.median(values),
                "lowest": min(values),
                "highest": max(values),
                "times plain, order 1": statistics.median(values) / statistics.median(rates["plain, SNR 0.05, order 1"]),
            }
            for name, values in rates.items()
        ]
    settings = {"count": COUNT, "plain count": FEW, "repeats": REPEATS, "threads": torch.get_num_threads()}
    record.write("simulation", rows, settings=settings | {"load of the machine": os.getloadavg()[0]})


def timed(ways: dict[str, Callable[[int], int]]) -> dict[str, list[float]]:
    """Particles per second of every way, several times in turn, after once to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(REPEATS + 1):
        for name, make in ways.items():
            start = time.perf_counter()
            made = make(number)
            if number:
                rates[name].append(made / (time.perf_counter() - start))
    return rates


def plain(maps: dict[str, Volume], *, order: int, seed: int) -> int:
    """Make a few particles one at a time with scipy and numpy; how many."""
    rng = np.random.default_rng(seed)
    names = list(maps)
    first = maps[names[0]]
    box, voxel = first.shape[0], first.voxel_size
    z, y, x = np.meshgrid(np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box), indexing="ij")
    k = np.sqrt(z**2 + y**2 + x**2)
    wedge = ((np.abs(z) <= np.abs(x) * np.tan(np.pi / 3)) & (k <= 0.5)).astype(float)
    for _ in range(FEW):
        density = maps[names[rng.integers(len(names))]].data
        turn = Rotation.random(random_state=rng).as_matrix()
        offset = box // 2 - turn @ (box // 2 + rng.uniform(-0.05, 0.05, 3) * box)
        volume = affine_transform(density, turn, offset, order=order)
        chi = np.pi * 0.0197 * rng.uniform(2, 5) * 1e4 * (k / voxel) ** 2 - np.pi / 2 * 2.7e7 * 0.0197**3 * (k / voxel) ** 4
        optics = np.sin(chi + np.arcsin(0.07)) * np.exp(-((k / voxel * 50) ** 2)) * wedge
        image = np.fft.irfftn(np.fft.rfftn(volume) * optics, s=volume.shape, axes=(0, 1, 2))
        power = image.var()
        for filters in (optics, wedge * np.sinc(k)):
            noise = np.fft.irfftn(np.fft.rfftn(rng.standard_normal(volume.shape)) * filters, s=volume.shape, axes=(0, 1, 2))
            image = image + noise * np.sqrt(0.5 * power / 0.05 / noise.var())
        image = (image - image.mean()) / image.std()
    return FEW


if __name__ == "__main__":
    main()
