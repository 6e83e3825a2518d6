"""Reference-free averaging: how near it comes to the average in the true poses, how often, how fast, and among strangers.

    python benchmarks/bench_averaging.py --seeds 10

Simulated subtomograms of 32³ voxels of 10 Å, tilts ±60°, random orientations, shifts up to a tenth of the box. Resolutions are
those at which the Fourier shell correlation with the true density falls to 0.5, within a mask of 280 Å; "oracle" is the
average of the same particles in their true poses. A seed succeeds that comes within one Fourier shell of the oracle.
"""

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
import record
import torch

from tomolab import alignment, averaging, densities, particles, resolution, rotations, simulation, sorting, volumes
from tomolab.averaging import Average, Progress
from tomolab.imaging import Imaging
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

BOX, VOXEL_SIZE, MASK = 32, 10.0, 28
COMPLEXES = ("ribosome_70s", "spliceosome", "ruvab", "mm_cpn_open")
COUNT = 200
RECOGNISABLE = 60.0
"""Å, at which a running average shows what it is."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--count", type=int, default=COUNT)
    options = parser.parse_args()
    settings = {"box": BOX, "voxel size (Å)": VOXEL_SIZE, "particles": options.count, "seeds": options.seeds}
    # The largest complex needs a larger box to be made in; what it has beyond ours is its faint rim.
    maps = {name: volumes.fit(one, BOX) for name, one in densities.load(COMPLEXES, voxel_size=VOXEL_SIZE, box=40).items()}
    rows = [
        against_oracle(name, truth, snr=snr, count=options.count, seeds=range(1, options.seeds + 1))
        for snr in (0.1, 0.05)
        for name, truth in maps.items()
    ]
    record.write("averaging", rows, settings=settings)
    record.write("averaging_speed", [speed(maps["ribosome_70s"], count) for count in (125, 250, 500, 1000)], settings=settings)
    record.write("averaging_strangers", [strangers(maps, seed=seed) for seed in range(1, 4)], settings=settings)


def imaged(maps: dict[str, Volume], counts: int | dict[str, int], *, snr: float, seed: int) -> Subtomograms:
    """Particles in random poses, which their table does not tell but in its columns ``true_...``."""
    imaging = Imaging(snr=snr, tilts=(-60, 60), shift=0.1)
    return simulation.subtomograms(maps, counts, imaging=imaging, box=BOX, seed=seed)


def poses(data: Subtomograms) -> tuple[np.ndarray, np.ndarray]:
    """True rotations, and shifts in Å from the centres of the boxes."""
    angles = data.particles[["true_rot", "true_tilt", "true_psi"]].to_numpy()
    places = data.particles[["true_z", "true_y", "true_x"]].to_numpy()
    return rotations.from_euler(angles), places - particles.positions(data.particles)


def to_truth(volume: Volume, truth: Volume) -> tuple[float, alignment.Fit]:
    """Resolution against the true density, and how that was brought onto the map."""
    fit = alignment.align_map(truth, volume, radius=BOX / 3)
    table = resolution.correlate(volume, alignment.apply(truth, fit), diameter=MASK)
    return resolution.crossing(table.assign(fsc=table["masked"]), 0.5), fit


def errors(average: Average, data: Subtomograms, fit: alignment.Fit) -> tuple[float, float]:
    """Median errors of the poses: degrees, and Å."""
    turns, shifts = poses(data)
    # A point r of the truth lies at R r + s in the average, and at T (R r + s) + t in the particle.
    found = particles.matrices(average.particles)
    angle = rotations.angle_between(torch.from_numpy(found @ fit.rotation), torch.from_numpy(turns))
    moved = particles.positions(average.particles) - particles.positions(data.particles) + found @ fit.shift
    return float(angle.median()), float(np.median(np.linalg.norm(moved - shifts, axis=1)))


def against_oracle(name: str, truth: Volume, *, snr: float, count: int, seeds: range) -> dict[str, Any]:
    """How several seeds compare with the average in the true poses."""
    data = imaged({name: truth}, count, snr=snr, seed=1)
    oracle, _ = to_truth(averaging.with_poses(data, *poses(data))[0], truth)
    # Shells are numbered by the box over the resolution.
    last = BOX * VOXEL_SIZE / oracle - 1
    mirror = Volume(np.roll(truth.data[:, :, ::-1], 1, axis=2).copy(), truth.voxel_size)
    rows = []
    for seed in seeds:
        average = averaging.average(data, seed=seed, progress=False)
        reached, fit = to_truth(average.volume, truth)
        wrong = alignment.align_map(mirror, average.volume, radius=BOX / 3).score
        degrees, distance = errors(average, data, fit)
        seconds = average.record["seconds"]
        rows.append((reached, average.resolution, fit.score, wrong, degrees, distance, seconds, average.believable))
    table = pd.DataFrame(rows, columns=["reached", "halves", "fit", "mirror", "degrees", "distance", "seconds", "believable"])
    middle = table.median()
    return {
        "complex": name,
        "snr": snr,
        "oracle (Å)": oracle,
        "reached (Å)": middle["reached"],
        "worst (Å)": table["reached"].max(),
        "half maps (Å)": middle["halves"],
        "succeeded": f"{int((BOX * VOXEL_SIZE / table['reached'] >= last).sum())} of {len(table)}",
        "believed": int(table["believable"].sum()),
        "fit": middle["fit"],
        "mirror": middle["mirror"],
        "pose error (°)": middle["degrees"],
        "shift error (Å)": middle["distance"],
        "seconds": middle["seconds"],
    }


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
    fit = alignment.align_map(coarse, running, radius=box / 2 - 1)
    table = resolution.correlate(running, alignment.apply(coarse, fit), diameter=MASK * box / BOX)
    return resolution.crossing(table.assign(fsc=table["masked"]), 0.5) <= RECOGNISABLE


def strangers(maps: dict[str, Volume], *, seed: int) -> dict[str, Any]:
    """A set of which a fifth is another complex: averaged as it is, sorted first, and without the strangers."""
    names = ("ribosome_70s", "spliceosome")
    data = imaged({name: maps[name] for name in names}, {names[0]: 160, names[1]: 40}, snr=0.1, seed=seed)
    truth = data.particles.set_index("particle_id")["label"]
    start = time.perf_counter()
    found = sorting.sort(data, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    stranger = truth == names[1]
    sets = {"all": None, "sorted": found.labels.index[found.labels == 0], "pure": truth.index[~stranger]}
    reached = {
        f"{title} (Å)": to_truth(averaging.average(data, ids, seed=seed, progress=False).volume, maps[names[0]])[0]
        for title, ids in sets.items()
    }
    named = (found.labels != 0)[stranger].mean()
    return {
        "seed": seed,
        **reached,
        "strangers named": named,
        "others lost": (found.labels != 0)[~stranger].mean(),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
