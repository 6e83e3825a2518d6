"""Reference-free averaging: seconds to the first average that shows what it is and to the end, where they go, and large sets.

    python benchmarks/bench_averaging_speed.py
    python benchmarks/bench_averaging_speed.py --parts large --large 1000 10000 100000

Particles as in `bench_averaging.py`: 32³ voxels of 10 Å, SNR 0.1, tilts ±60°.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import record
import torch
from bench_averaging import BOX, MASK, VOXEL_SIZE, imaged, to_truth

from tomolab import averaging, rotations, subtomograms, volumes
from tomolab.averaging import alignment, coefficients, fsc, half_maps, reconstruction
from tomolab.averaging.coefficients import Coefficients
from tomolab.jobs import Progress
from tomolab.simulation import densities
from tomolab.volumes import Volume

PARTS = ("speed", "stages", "large")
RECOGNISABLE = 60.0
"""Å, at which a running average shows what it is."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[125, 250, 500, 1000], help="particles of sets in memory")
    parser.add_argument("--large", type=int, nargs="+", default=[1000, 4000, 16000], help="particles of sets on disk")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    options = parser.parse_args()
    truth = volumes.fit(densities.load(["ribosome_70s"], voxel_size=VOXEL_SIZE, box=40)["ribosome_70s"], BOX)
    measured: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "speed": lambda: [speed(truth, count) for count in options.counts],
        "stages": lambda: stages(truth, 500),
        "large": lambda: [record.apart(large, truth, count) for count in options.large],
    }
    for part in options.parts:
        record.write(f"averaging_{part}", measured[part](), settings={"box": BOX, "voxel size (Å)": VOXEL_SIZE})


def speed(truth: Volume, count: int) -> dict[str, Any]:
    """Seconds to the first running average that shows what it is, and to the end."""
    data = imaged({"one": truth}, count, snr=0.1, seed=2)
    seen: list[Progress] = []
    start = time.perf_counter()
    average = averaging.average(data, seed=1, progress=seen.append)
    seconds = time.perf_counter() - start
    first = next((now.seconds for now in seen if _shows(now.volume, truth)), None)
    reached, _ = to_truth(average.volume, truth)
    return {"particles": count, "first (s)": first, "finished (s)": seconds, "reached (Å)": reached}


def _shows(running: Volume, truth: Volume) -> bool:
    """Whether a running average, which has a coarser grid, agrees with the truth to what can be recognised."""
    box = running.shape[0]
    coarse = volumes.fit(volumes.resample(truth, running.voxel_size), box)
    fit = alignment.align_map(coarse, running, radius_cycles=box / 2 - 1)
    table = fsc.correlate(running, alignment.apply(coarse, fit), diameter_voxels=MASK * box / BOX)
    return fsc.resolution_at(table.assign(fsc=table["masked"]), 0.5) <= RECOGNISABLE


def stages(truth: Volume, count: int) -> list[dict[str, Any]]:
    """Where the time of an average goes, and how near each stage comes to what the machine can do at all."""
    spent: dict[str, list[float]] = {}

    def timed(module: Any, name: str, work: Callable[..., float] = lambda *_, **__: 0.0) -> Any:
        function = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **options)
            now = spent.setdefault(name, [0.0, 0.0])
            now[0], now[1] = now[0] + time.perf_counter() - start, now[1] + work(*arguments, **options)
            return result

        return mock.patch.object(module, name, call)

    def products(_: torch.Tensor, data: Coefficients, *, turns: torch.Tensor, shifts: torch.Tensor, **__: Any) -> float:
        return 4.0 * len(data) * shifts.shape[-2] * len(turns) * len(data.points)

    def samples(grids: torch.Tensor, data: Coefficients, poses: alignment.Poses, *, steps: int, **_: Any) -> float:
        return float(len(grids) * len(data.points) * poses.scores.numel() * (steps + 1))

    data = imaged({"one": truth}, count, snr=0.1, seed=2)
    start = time.perf_counter()
    with (
        timed(alignment, "exhaustive_search", products),
        timed(alignment, "refine_poses", samples),
        timed(reconstruction, "back_project_folds"),
        timed(reconstruction, "make_references"),
        timed(reconstruction, "measure_noise"),
        timed(coefficients, "read"),
        timed(half_maps, "combine"),
    ):
        averaging.average(data, seed=1, progress=False)
    whole = time.perf_counter() - start
    spent["make_references"][0] -= spent["back_project_folds"][0]
    bounds = {
        "exhaustive_search": ("float32 products", 1e9, _products()),
        "refine_poses": ("sampled coefficients", 1e6, _samples()),
    }
    rows = []
    for name, (seconds, work) in sorted(spent.items(), key=lambda item: -item[1][0]):
        row: dict[str, Any] = {"stage": name, "seconds": seconds, "share": seconds / whole}
        if name in bounds:
            what, unit, bound = bounds[name]
            row |= {"does": f"{what}, {unit:.0e}/s", "rate": work / seconds / unit, "bound": bound / unit}
            row |= {"of the bound": work / seconds / bound}
        rows.append(row)
    rest = whole - sum(seconds for seconds, _ in spent.values())
    return [*rows, {"stage": "all else", "seconds": rest, "share": rest / whole}]


def _products() -> float:
    """Multiplications and additions a second of one large float32 matrix product."""
    one, other = torch.rand(2000, 2000), torch.rand(2000, 2000)
    return 2 * 2000**3 / _fastest(lambda: one @ other)


def _samples() -> float:
    """Complex coefficients a second that interpolation alone takes from four grids at random orientations."""
    grids, turns = coefficients.gradient_grids(torch.rand(20, 20, 20)), rotations.random(200, torch.Generator().manual_seed(1))
    points = coefficients.half_sphere(BOX, 8.0)
    return len(grids) * len(turns) * len(points) / _fastest(lambda: coefficients.sample_parts(grids, turns, points))


def _fastest(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of ten."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def store(truth: Volume, count: int, path: Path) -> None:
    """Write a set to disk."""
    imaged({"one": truth}, count, snr=0.1, seed=2, path=path)


def large(truth: Volume, count: int) -> dict[str, Any]:
    """Seconds and peak of memory of a set on disk, with 6 iterations of which 2 go through all of it."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "set.zarr")
        record.apart(store, truth, count, path)
        data = subtomograms.open(path)
        before, start = record.peak_memory(), time.perf_counter()
        with record.Own() as own:
            average = averaging.average(data, seed=1, iterations=6, progress=False)
        seconds = time.perf_counter() - start
    reached, _ = to_truth(average.volume, truth)
    return {
        "particles": count,
        "store (GB)": count * 2 * BOX**3 / 1e9,
        "seconds": seconds,
        "seconds of 1,000": 1000 * seconds / count,
        "memory before (GB)": before,
        "peak (GB)": own.peak,
        "with mapped files (GB)": record.peak_memory(),
        "reached (Å)": reached,
    }


if __name__ == "__main__":
    main()
