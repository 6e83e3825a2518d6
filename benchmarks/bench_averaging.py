"""Reference-free averaging: how near it comes to the average in the true poses, how often, in noise, and among strangers.

    python benchmarks/bench_averaging.py --seeds 10

Simulated subtomograms of 32³ voxels of 10 Å, tilts ±60°, random orientations, shifts up to a tenth of the box. Resolutions are
those at which the Fourier shell correlation with the true density falls to 0.5, within a mask of 280 Å; "oracle" is the
average of the same particles in their true poses. A seed succeeds that comes within one Fourier shell of the oracle.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
import torch

from tomolab import averaging, particles, rotations, simulation, volumes
from tomolab.averaging import Average, alignment, fsc, symmetry
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

BOX, VOXEL_SIZE, MASK = 32, 10.0, 28
COMPLEXES = ("ribosome_70s", "spliceosome", "ruvab", "mm_cpn_open")
SYMMETRY = {"mm_cpn_open": "D8"}
PARTS = ("oracle", "poses", "noise", "strangers")
COUNT = 200


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    options = parser.parse_args()
    # The largest complex needs a larger box to be made in; what it has beyond ours is its faint rim.
    maps = {name: volumes.fit(one, BOX) for name, one in densities.load(COMPLEXES, voxel_size=VOXEL_SIZE, box=40).items()}
    ribosome, count, seeds = maps[COMPLEXES[0]], options.count, range(1, options.seeds + 1)
    measured: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "oracle": lambda: [
            against_oracle(*one, snr=snr, count=count, seeds=seeds) for snr in (0.1, 0.05) for one in maps.items()
        ],
        "poses": lambda: [
            against_oracle(COMPLEXES[0], ribosome, snr=snr, count=count, seeds=seeds[:2])
            for snr in (0.4, 0.2, 0.1, 0.05, 0.03, 0.02)
        ],
        "noise": lambda: [nothing(ribosome, count=count, seed=seed) for seed in seeds],
        "strangers": lambda: [strangers(maps, seed=seed) for seed in range(1, 4)],
    }
    settings = {"box": BOX, "voxel size (Å)": VOXEL_SIZE, "particles": count, "seeds": options.seeds}
    for part in options.parts:
        record.write("averaging" if part == "oracle" else f"averaging_{part}", measured[part](), settings=settings)


def imaged(
    maps: dict[str, Volume], counts: int | dict[str, int], *, snr: float, seed: int, path: Path | None = None
) -> Subtomograms:
    """Particles in random poses, which their table does not tell but in its columns ``true_...``."""
    imaging = Imaging(snr=snr, tilts=(-60, 60), shift=0.1)
    return simulation.subtomograms(maps, counts, imaging=imaging, box=BOX, seed=seed, path=path)


def poses(data: Subtomograms) -> tuple[np.ndarray, np.ndarray]:
    """True rotations, and shifts in Å from the centres of the boxes."""
    angles = data.particles[["true_rot", "true_tilt", "true_psi"]].to_numpy()
    places = data.particles[["true_z", "true_y", "true_x"]].to_numpy()
    return rotations.from_euler(angles), places - particles.positions(data.particles)


def to_truth(volume: Volume, truth: Volume) -> tuple[float, alignment.Fit]:
    """Resolution against the true density, and how that was brought onto the map."""
    fit = alignment.align_map(truth, volume, radius_cycles=BOX / 3)
    table = fsc.correlate(volume, alignment.apply(truth, fit), diameter_voxels=MASK)
    return fsc.resolution_at(table.assign(fsc=table["masked"]), 0.5), fit


def errors(average: Average, data: Subtomograms, fit: alignment.Fit, axes: alignment.Fit, group: str) -> tuple[float, float]:
    """Median errors of the poses: degrees, and Å; of poses that the symmetry of the truth makes alike, the nearest counts."""
    turns, shifts = poses(data)
    # A point r of the truth lies at R r + s in the average, and at T (R r + s) + t in the particle.
    found = particles.matrices(average.particles)
    moved = particles.positions(average.particles) - particles.positions(data.particles) + found @ fit.shift
    angles, distances = [], []
    for turn in symmetry.group(group):
        # What maps the truth onto itself: into the frame of the group, turned there, and back.
        alike = axes.rotation.T @ turn @ axes.rotation
        across = axes.rotation.T @ (turn @ axes.shift - axes.shift)
        angles.append(rotations.angle_between(torch.from_numpy(found @ fit.rotation), torch.from_numpy(turns @ alike)).numpy())
        distances.append(np.linalg.norm(moved - shifts - turns @ across, axis=1))
    nearest = np.argmin(angles, axis=0)[None]
    return tuple(float(np.median(np.take_along_axis(np.array(all_), nearest, axis=0))) for all_ in (angles, distances))


def against_oracle(name: str, truth: Volume, *, snr: float, count: int, seeds: range) -> dict[str, Any]:
    """How several seeds compare with the average in the true poses."""
    data = imaged({name: truth}, count, snr=snr, seed=1)
    oracle, _ = to_truth(averaging.with_poses(data, *poses(data))[0], truth)
    # Shells are numbered by the box over the resolution.
    last = BOX * VOXEL_SIZE / oracle - 1
    group = SYMMETRY.get(name, "C1")
    axes = symmetry.align(truth, group) if group != "C1" else alignment.Fit(np.eye(3), np.zeros(3), 1.0)
    mirror = volumes.mirror(truth)
    rows = []
    for seed in seeds:
        average = averaging.average(data, seed=seed, progress=False)
        reached, fit = to_truth(average.volume, truth)
        wrong = alignment.align_map(mirror, average.volume, radius_cycles=BOX / 3).score
        degrees, distance = errors(average, data, fit, axes, group)
        seconds = average.record["seconds"]
        rows.append((reached, average.resolution, fit.score, wrong, degrees, distance, seconds, average.reliable))
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


def nothing(truth: Volume, *, count: int, seed: int) -> dict[str, Any]:
    """What comes out of particles that are only noise: the halves shall agree on nothing, and the average not be believed."""
    data = imaged({"noise": truth}, count, snr=1e-6, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        average = averaging.average(data, seed=seed, progress=False)
    together = average.record["together"]
    beyond = average.fsc.loc[average.fsc["resolution"] < 0.999 * together, "fsc"]
    return {
        "seed": seed,
        "brought together by (Å)": together,
        "halves (Å)": average.resolution,
        "FSC of the next three shells": float(beyond.iloc[:3].mean()),
        "largest FSC beyond": float(beyond.max()),
        "believed": average.reliable,
        "agreement": float(average.particles["agreement"].mean()),
    }


def strangers(maps: dict[str, Volume], *, seed: int) -> dict[str, Any]:
    """A set of which a fifth is another complex: averaged as it is, sorted first, and without the strangers."""
    names = ("ribosome_70s", "spliceosome")
    data = imaged({name: maps[name] for name in names}, {names[0]: 160, names[1]: 40}, snr=0.1, seed=seed)
    truth = data.particles.set_index("particle_id")["label"]
    start = time.perf_counter()
    found = averaging.classify(data, seed=seed, progress=False)
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
