"""A simulated tomogram from start to end: specimen, tilt series and reconstruction, seconds and peak memory.

The whole case, one with half the voxels, and one with half the tilts: cost is linear in voxels times tilts where the later
rows take half of the first.
"""

import statistics
import time
from itertools import pairwise
from typing import Any

import record

from tomolab import simulation, tomograms
from tomolab.simulation import Imaging, densities
from tomolab.simulation import specimen as specimens

VOXEL_SIZE, THICKNESS = 10.0, 1800.0
REPEATS = 3
CASES = {
    "200 x 512 x 512, 41 tilts": ((200, 512, 512), 2000, 3.0),
    "half the voxels": ((200, 512, 256), 1000, 3.0),
    "half the tilts": ((200, 512, 512), 2000, 6.0),
}


def main() -> None:
    """Medians over fresh processes."""
    rows = []
    for name, case in CASES.items():
        made = [record.apart(measured, *case, seed) for seed in range(REPEATS)]
        rows.append({"tomogram": name} | {key: statistics.median(one[key] for one in made) for key in made[0]})
    record.write("tomogram", rows, settings={"voxel size (Å)": VOXEL_SIZE, "ice (Å)": THICKNESS, "repeats": REPEATS})


def measured(shape: tuple[int, int, int], complexes: int, step: float, seed: int) -> dict[str, Any]:
    """Make one tomogram."""
    catalogue = densities.catalogue().query("shipped")["name"]
    maps = densities.load([name for name in catalogue if not name.startswith("capsid")], voxel_size=VOXEL_SIZE)
    imaging = Imaging(snr=None, dose=120.0, defocus=3.0, envelope=None, thickness=THICKNESS, tilt_step=step)
    times = [time.perf_counter()]
    counts = complexes // len(maps) + 1
    specimen = specimens.build(maps, counts, shape=shape, seed=seed, thickness=THICKNESS, soluble_protein=60.0, progress=False)
    times.append(time.perf_counter())
    series = simulation.acquire(specimen, imaging, seed=seed, progress=False)
    times.append(time.perf_counter())
    tomograms.reconstruct(series.images, series.tilts, voxel_size=VOXEL_SIZE, shape=shape, progress=False)
    times.append(time.perf_counter())
    steps = zip(("specimen", "tilt series", "reconstruction"), pairwise(times), strict=True)
    return {
        "complexes": len(specimen.particles),
        "tilts": len(series),
        **{f"{name} (s)": end - start for name, (start, end) in steps},
        "together (s)": times[-1] - times[0],
        "peak memory (GB)": record.peak_memory(),
    }


if __name__ == "__main__":
    main()
