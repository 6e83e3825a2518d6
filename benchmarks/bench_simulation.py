"""Simulated subtomograms per second: full recipe (CTF, wedge, two kinds of noise), with and without neighbours."""

import statistics
import time

import record

from tomolab import densities, simulation
from tomolab.imaging import Imaging

COUNT, REPEATS = 256, 5


def main() -> None:
    """Time the stream that training draws from, after one batch to warm up."""
    rows = []
    for voxel_size, box in ((20.0, 20), (10.0, 40)):
        maps = densities.load(voxel_size=voxel_size, box=box)
        for neighbours in (0.0, 1.0):
            imaging = Imaging(snr=0.05, neighbours=neighbours)
            stream = simulation.stream(maps, imaging=imaging, box=box, epoch_size=COUNT, seed=1)
            next(stream.epoch(0))
            rates = [rate(stream, number) for number in range(REPEATS)]
            rows.append(
                {
                    "box": box,
                    "voxel size (Å)": voxel_size,
                    "neighbours": neighbours,
                    "subtomograms/s, median": statistics.median(rates),
                    "lowest": min(rates),
                    "highest": max(rates),
                }
            )
    record.write("simulation", rows, settings={"count": COUNT, "repeats": REPEATS, "snr": 0.05})


def rate(stream: simulation.Stream, number: int) -> float:
    """Subtomograms per second of one epoch, the preparation of the densities included."""
    start = time.perf_counter()
    made = sum(len(volumes) for volumes, _ in stream.epoch(number))
    return made / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
