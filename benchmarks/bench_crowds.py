"""Discovery in an unequal crowd with junk: which classes it finds, and how much junk it leaves out of all classes.

    python benchmarks/bench_crowds.py --seeds 3
    python benchmarks/bench_crowds.py --sizes 100 50 25 --seeds 2 --name crowds_small

Simulated subtomograms of complexes that the shipped encoder has not seen, as many of each as `--sizes` says, which complex has
which number drawn by the seed. Of all boxes `--junk` are junk, of four kinds in equal parts: ``noise``; ``membrane``, a bilayer
through the middle of the box; ``neighbours``, a box midway between two particles; ``gold``, a box at the edge of a bead of
100 Å. Particles have the stated SNR; in boxes of junk the noise is as strong as in those of the middle class. Discovery starts
from k-means of the features.

A class is found if a structure has most of its particles, and most of the particles of the structure are of it. Junk is out if
it is in no class. ARI is the adjusted Rand index of the particles with the truth; those in no class count as a class of their
own. The rows are written as they come, so that a run that is cut keeps what it has.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import record
import torch
from bench_discovery import unseen
from sklearn.metrics import adjusted_rand_score

from tomolab import averaging, clusters, learning, rotations, simulation
from tomolab.simulation import Imaging, fiducials, microscope, rendering
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

BOX, VOXEL_SIZE = 20, 20.0
JUNK = ("noise", "membrane", "neighbours", "gold")
BEAD = 100.0
"""Diameter of a gold bead in Å."""
AWAY = 2.0
"""Voxels along each axis by which the picks of junk are scattered."""
CLUSTERS = 12


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--sizes", type=int, nargs="+", default=(400, 200, 100, 50, 25), help="subtomograms of the classes")
    parser.add_argument("--junk", type=float, default=0.2, help="share of all boxes that are junk")
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--name", default="crowds", help="of the result")
    options = parser.parse_args()
    network = learning.load_network("default")
    maps = unseen(network)
    settings = {"classes": list(maps), "sizes": list(options.sizes), "junk": options.junk, "SNR": options.snr}
    rows: list[dict[str, Any]] = []
    for seed in range(options.first, options.first + options.seeds):
        boxes = crowd(maps, options.sizes, junk=options.junk, snr=options.snr, seed=seed)
        rows.append(measured(network, boxes, seed=seed))
        record.write(options.name, rows, settings=settings | {"box": BOX, "voxel size (Å)": VOXEL_SIZE})


def crowd(maps: Mapping[str, Volume], sizes: tuple[int, ...], *, junk: float, snr: float, seed: int) -> Subtomograms:
    """Particles of classes of unequal sizes and junk, in random order."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list(maps), len(sizes), replace=False).tolist()
    chosen = {name: maps[name] for name in names}
    imaging = Imaging(snr=snr)
    made: dict[str, Any] = {"box": BOX, "seed": seed, "progress": False, "device": "cpu"}
    particles = simulation.subtomograms(chosen, dict(zip(names, sizes, strict=True)), imaging=imaging, **made)
    each = round(sum(sizes) * junk / (1 - junk) / len(JUNK))
    # Their tables have the tilts of junk; their boxes are nearly pure noise.
    others = simulation.subtomograms({names[0]: maps[names[0]]}, each * len(JUNK), imaging=replace(imaging, snr=1e-6), **made)
    volumes = np.concatenate([particles.volumes, others.volumes])
    volumes[-3 * each :] = images_of_junk(chosen, each, imaging, seed=seed)
    table = pd.concat([particles.particles, others.particles.assign(label=np.repeat(JUNK, each))], ignore_index=True)
    order = rng.permutation(len(table))
    table = table.iloc[order].assign(particle_id=np.arange(len(table))).reset_index(drop=True)
    return Subtomograms(volumes[order], table, VOXEL_SIZE)


def images_of_junk(maps: Mapping[str, Volume], each: int, imaging: Imaging, *, seed: int) -> np.ndarray:
    """Imaged boxes of `each` membranes, pairs of neighbours and edges of gold, in this order."""
    generator = torch.Generator().manual_seed(seed)
    templates = rendering.prepare(maps, torch.device("cpu"))
    instrument = microscope.prepare(replace(imaging, snr=float("inf")), (BOX,) * 3, voxel_size=VOXEL_SIZE)
    labels = torch.arange(len(maps)).repeat_interleave(16)
    clean = rendering.render(templates, labels, box=BOX, imaging=imaging, generator=generator)[0]
    of_class = _power(clean, instrument, generator).reshape(len(maps), -1).mean(1)
    density = torch.cat([_membranes(each, generator), _neighbours(templates, each, generator), _gold(each, generator)])
    # The noise of a class is its power over the SNR.
    snr = float(imaging.snr) * _power(density, instrument, generator) / of_class.median()  # type: ignore[arg-type]
    out = []
    for one, ratio in zip(density.split(1), snr.tolist(), strict=True):
        noisy = replace(instrument, imaging=replace(imaging, snr=ratio))
        out.append(microscope.image(one, noisy, generator, unit=True)[0])
    return torch.cat(out).numpy()


def _power(density: torch.Tensor, instrument: microscope.Microscope, generator: torch.Generator) -> torch.Tensor:
    return microscope.image(density, instrument, generator)[0].var(dim=(1, 2, 3))


def _membranes(count: int, generator: torch.Generator) -> torch.Tensor:
    normal = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    distance = (2 * torch.rand(count, generator=generator) - 1) * AWAY * VOXEL_SIZE
    low, high = rendering.CURVATURE_RADII
    radius = low * (high / low) ** torch.rand(count, generator=generator)
    density = torch.zeros(count, BOX, BOX, BOX)
    patches = rendering.MembranePatches(torch.arange(count), normal, distance, radius)
    rendering.add_membranes(density, patches, voxel_size=VOXEL_SIZE)
    return density


def _neighbours(templates: rendering.Templates, count: int, generator: torch.Generator) -> torch.Tensor:
    """Two particles that nearly touch, with the middle between them in the middle of the box."""
    species = torch.randint(len(templates.names), (2 * count,), generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    space = 1 + 2 * torch.rand(count, generator=generator)
    half = (templates.radii[species].reshape(2, count).sum(0) + space) / 2
    away = (2 * torch.rand(count, 3, generator=generator) - 1) * AWAY / 2
    density = torch.zeros(count, BOX, BOX, BOX)
    shifts = torch.cat([away + direction * half[:, None], away - direction * half[:, None]])
    turns = rotations.random(2 * count, generator, device=density.device)
    rendering.add(density, templates, species, boxes=torch.arange(count).repeat(2), matrices=turns, shifts=shifts)
    return density


def _gold(count: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes about a point near the surface of a bead."""
    density = np.zeros((count, BOX, BOX, BOX), dtype=np.float32)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    away = (2 * torch.rand(count, 3, generator=generator) - 1) * AWAY / 2
    centres = BOX // 2 + away + direction * BEAD / 2 / VOXEL_SIZE
    for box, centre in zip(density, centres.numpy().astype(float), strict=True):
        corner, fraction = fiducials.ball_at(centre, BEAD / VOXEL_SIZE)
        first = np.maximum(corner, 0)
        last = np.minimum(corner + len(fraction), BOX)
        inside = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        cut = tuple(slice(a - c, b - c) for a, b, c in zip(first, last, corner, strict=True))
        box[inside] += fiducials.GOLD * fraction[cut]
    return torch.from_numpy(density)


def measured(network: learning.Network, boxes: Subtomograms, *, seed: int) -> dict[str, Any]:
    """One row: what discovery finds in a crowd."""
    features = learning.embed(network, boxes, progress=False)
    rough = clusters.kmeans(features, CLUSTERS, seed=seed)
    began = time.perf_counter()
    found = averaging.discover(boxes, rough, features=features.vectors, seed=seed, progress=False)
    return {"seed": seed, **judged(found.labels, boxes), "seconds": time.perf_counter() - began}


def judged(labels: pd.Series, boxes: Subtomograms) -> dict[str, Any]:
    """Classes found, the share of each that is in its structure, and the share of junk that is in no class."""
    truth = boxes.particles.set_index("particle_id")["label"][labels.index]
    table = pd.crosstab(truth, labels)
    within = table.loc[:, table.columns >= 0]
    true = truth[~truth.isin(JUNK)]
    sizes = true.value_counts()
    recall = {}
    for name, size in sizes.items():
        best = int(within.loc[name].to_numpy().argmax()) if within.shape[1] else -1
        share = 0.0 if best < 0 else within.loc[name].iloc[best] / size
        mostly = best >= 0 and within.loc[name].iloc[best] > within.iloc[:, best].sum() / 2
        recall[size] = float(share) if mostly else 0.0
    out = {kind: float((labels[truth == kind] < 0).mean()) for kind in JUNK if kind in truth.to_numpy()}
    large = [share > 0.5 for size, share in recall.items() if size >= 50]
    return {
        "structures": within.shape[1],
        "classes of 50 found": f"{sum(large)} of {len(large)}",
        **{f"recall {size}": share for size, share in recall.items()},
        "junk out": float((labels[truth.isin(JUNK)] < 0).mean()),
        **{f"{kind} out": share for kind, share in out.items()},
        "particles in no class": float((labels[true.index] < 0).mean()),
        "ARI": float(adjusted_rand_score(true, labels[true.index])),
    }


if __name__ == "__main__":
    main()
