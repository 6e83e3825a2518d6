"""Recovered resolution: averages from nothing beside the averages of the same subtomograms in their true poses.

    python benchmarks/bench_recovery.py --seeds 3
    python benchmarks/bench_recovery.py --seeds 3 --search 20 2 --name recovery_short
    python benchmarks/bench_recovery.py --seeds 3 --box 40 --voxel-size 10 --name recovery_fine

Simulated subtomograms of the shipped complexes, 100 each, in random orientations, tilts ±60°, SNR 0.05. Resolutions are those
at which the Fourier shell correlation with the known map falls to 0.5, within the mask of the average. "behind"
is how many Fourier shells of the box the average lies behind that in the true poses.
"""

import argparse
import time
import warnings
from typing import Any

import record
from bench_averaging import poses

from tomolab import averaging, simulation
from tomolab.averaging import matching
from tomolab.simulation import Imaging
from tomolab.volumes import Volume


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=100, help="subtomograms of each complex")
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--box", type=int, default=20)
    parser.add_argument("--voxel-size", type=float, default=20.0)
    parser.add_argument(
        "--search", type=int, nargs=2, metavar=("ITERATIONS", "STARTS"), help="of `average`; its own by default"
    )
    parser.add_argument("--complexes", nargs="+", help="all that are shipped by default")
    parser.add_argument("--name", default="recovery", help="of the result")
    options = parser.parse_args()
    maps = simulation.load_densities(options.complexes, voxel_size=options.voxel_size, box=options.box)
    search = dict(zip(("iterations", "starts"), options.search, strict=True)) if options.search else {}
    rows = [
        recovered(name, known, count=options.count, snr=options.snr, seed=seed, search=search)
        for name, known in maps.items()
        for seed in range(1, options.seeds + 1)
    ]
    record.write(options.name, rows, settings=vars(options))


def recovered(name: str, known: Volume, *, count: int, snr: float, seed: int, search: dict[str, int]) -> dict[str, Any]:
    """One row: an average from nothing and in the true poses."""
    data = simulation.subtomograms(
        {name: known}, count, imaging=Imaging(snr=snr), box=known.shape[0], seed=seed, progress=False
    )
    began = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):
        found = averaging.average(data, seed=seed, progress=False, **search)
    seconds = time.perf_counter() - began
    mask = found.record["mask"]
    reached = matching.compare(found.volume, known, mask_diameter=mask).resolution
    best = matching.compare(averaging.with_poses(data, *poses(data))[0], known, mask_diameter=mask).resolution
    row = {"complex": name, "seed": seed, "reached (Å)": reached, "true poses (Å)": best}
    behind = float(known.extent[0] / best - known.extent[0] / reached)
    row |= {"behind": behind, "half maps (Å)": found.resolution, "mask (Å)": mask, "believed": int(found.reliable)}
    print(row | {"seconds": round(seconds, 1)}, flush=True)
    return row | {"seconds": seconds}


if __name__ == "__main__":
    main()
