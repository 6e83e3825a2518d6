"""Recall of picking in simulated tomograms of all shipped complexes over noise: a range of diameters against single ones.

As many picks are looked at as there are particles, the best first.
"""

from typing import Any

import numpy as np
import record

from tomolab import picking, simulation
from tomolab.simulation import Imaging, densities

VOXEL_SIZE, SHAPE, EACH = 20.0, (60, 300, 300), 8
SNRS = (0.1, 0.05, 0.02, 0.01)
SINGLE = (150.0, 200.0, 250.0, 300.0, 350.0)
RANGE = (150.0, 350.0)
EDGE, NEAR = 100.0, 100.0
SEEDS = range(2)


def main() -> None:
    """Means over the seeds."""
    names = densities.catalogue().query("shipped")["name"].tolist()
    maps = densities.load(names, voxel_size=VOXEL_SIZE, box=24)
    rows: list[dict[str, Any]] = []
    for snr in SNRS:
        found = [recalls(maps, snr, seed) for seed in SEEDS]
        mean = {tried: float(np.mean([one[tried] for one in found])) for tried in (RANGE, *SINGLE)}
        best = max(SINGLE, key=lambda tried: mean[tried])
        rows.append({"SNR": snr, "range": mean[RANGE], "best single": mean[best], "best single diameter (Å)": best})
        rows[-1] |= {f"single {tried:g} Å": mean[tried] for tried in SINGLE}
    settings = {"complexes": names, "of each": EACH, "voxels": SHAPE, "voxel size (Å)": VOXEL_SIZE, "range (Å)": RANGE}
    record.write("picking", rows, settings=settings | {"near (Å)": NEAR, "seeds": len(SEEDS)})


def recalls(maps: dict[str, Any], snr: float, seed: int) -> dict[Any, float]:
    """Recall by what was tried."""
    imaging = Imaging(snr=snr, defocus=3.0)
    tomogram, truth = simulation.tomogram(maps, EACH, shape=SHAPE, imaging=imaging, seed=seed)
    found: dict[Any, float] = {}
    for tried in (*SINGLE, RANGE):
        peaks = picking.candidates(tomogram, diameter=tried, edge=EDGE, tomogram=str(truth["tomogram"].iloc[0]))
        picks = picking.choose(peaks, score=-np.inf).head(len(truth))
        found[tried] = float(picking.evaluate(picks, truth, distance=NEAR)["recall"])
    return found


if __name__ == "__main__":
    main()
