"""Discovery: how well subtomograms are divided by features alone, by structures and features together, and at best.

    python benchmarks/bench_discovery.py --seeds 3
    python benchmarks/bench_discovery.py --maps folder/of/maps --name others
    python benchmarks/bench_discovery.py --believed 10 --name discovery_believed

Simulated subtomograms of complexes that the shipped encoder has not seen, or of the maps (.mrc) in a folder. They are divided
by k-means of the features, with the true number of clusters and with twice as many; by `averaging.discover`, which starts from
the latter and is not told a number; and by an observer: every subtomogram is scored against references made of other
subtomograms in their true classes and poses. ARI is the adjusted Rand index with the truth, 1 at best. Subtomograms that
discovery leaves in no class count as a class of their own there.

With `--believed N` it counts what is found where little can be: in pure noise, and in one complex alone, each with N seeds.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
import torch
from sklearn.metrics import adjusted_rand_score

from tomolab import averaging, clusters, io, learning, particles, simulation, volumes
from tomolab.averaging import alignment, coefficients, reconstruction, refinement
from tomolab.simulation import Imaging
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

BOX, VOXEL_SIZE = 20, 20.0
ALONE = 100
"""Subtomograms of pure noise, or of one complex."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=100, help="subtomograms of each class")
    parser.add_argument("--snr", type=float, nargs="+", default=(0.1, 0.05, 0.02))
    parser.add_argument(
        "--maps", type=Path, help="folder of maps (.mrc); by default the complexes left out of the encoder's training"
    )
    parser.add_argument("--name", default="discovery", help="of the result")
    parser.add_argument("--believed", type=int, metavar="N", help="seeds of pure noise and of one complex, instead")
    options = parser.parse_args()
    network = learning.load_network("default")
    if options.believed:
        rows = [alone(network, kind, seed=seed) for seed in range(1, options.believed + 1) for kind in ("noise", "one complex")]
        record.write(options.name, rows, settings={"count": ALONE, "box": BOX, "voxel size (Å)": VOXEL_SIZE, "SNR": 0.05})
        return
    maps = unseen(network) if options.maps is None else from_folder(options.maps)
    rows = [
        divided(network, maps, count=options.count, snr=snr, seed=seed)
        for snr in options.snr
        for seed in range(1, options.seeds + 1)
    ]
    settings = {"classes": list(maps), "count": options.count, "box": BOX, "voxel size (Å)": VOXEL_SIZE}
    record.write(options.name, rows, settings=settings)


def unseen(network: learning.Network) -> dict[str, Volume]:
    """Shipped complexes that the encoder was not trained on."""
    maps = simulation.load_densities(voxel_size=VOXEL_SIZE, box=BOX)
    return {name: one for name, one in maps.items() if name not in network.classes}


def from_folder(folder: Path) -> dict[str, Volume]:
    """Maps of a folder in our box and voxel size."""
    found = {path.stem: io.read_volume(path) for path in sorted(folder.glob("*.mrc"))}
    return {name: fitted(one) for name, one in found.items()}


def fitted(volume: Volume) -> Volume:
    """A map in a cube of our box and voxel size, with its middle in the middle."""
    edge = max(volume.shape) + max(volume.shape) % 2
    before = [(edge - n) // 2 for n in volume.shape]
    cube = np.pad(volume.data, [(b, edge - n - b) for b, n in zip(before, volume.shape, strict=True)])
    return volumes.fit(volumes.resample(Volume(cube, volume.voxel_size), VOXEL_SIZE), BOX)


def divided(network: learning.Network, maps: dict[str, Volume], *, count: int, snr: float, seed: int) -> dict[str, Any]:
    """One row: features, discovery and observer on the same subtomograms."""
    boxes, others = (
        simulation.subtomograms(maps, count, imaging=Imaging(snr=snr), box=BOX, seed=number, progress=False)
        for number in (seed, seed + 1000)
    )
    truth = boxes.particles.set_index("particle_id")["label"]
    features = learning.embed(network, boxes, progress=False)
    exact, rough = (clusters.kmeans(features, number * len(maps), seed=seed) for number in (1, 2))
    began = time.perf_counter()
    found = averaging.discover(boxes, rough, features=features.vectors, seed=seed, progress=False)
    seconds = time.perf_counter() - began

    def ari(labels: pd.Series) -> float:
        return float(adjusted_rand_score(truth[labels.index], labels))

    return {
        "SNR": snr,
        "seed": seed,
        "features ARI": ari(exact),
        "features, twice ARI": ari(rough),
        "discovery ARI": ari(found.labels),
        "observer ARI": ari(observer(boxes, others)),
        "true": len(maps),
        "found": len(found.volumes),
        "in no class": float((found.labels < 0).mean()),
        "purity": clusters.agreement(found.labels[found.labels >= 0], truth)["purity"],
        "iterations": len(found.history),
        "seconds": seconds,
    }


def alone(network: learning.Network, kind: str, *, seed: int) -> dict[str, Any]:
    """How many structures are found in pure noise, or in one complex, from four clusters of features."""
    name = sorted(unseen(network))[seed % len(unseen(network))]
    maps = {name: unseen(network)[name]}
    boxes = simulation.subtomograms(maps, ALONE, imaging=Imaging(snr=0.05), box=BOX, seed=seed, progress=False)
    if kind == "noise":
        noise = np.random.default_rng(seed).standard_normal(boxes.volumes.shape).astype(np.float32)
        boxes = Subtomograms(noise, boxes.particles, boxes.voxel_size)
    features = learning.embed(network, boxes, progress=False)
    rough = clusters.kmeans(features, 4, seed=seed)
    found = averaging.discover(boxes, rough, features=features.vectors, seed=seed, progress=False)
    return {
        "kind": kind,
        "complex": name,
        "seed": seed,
        "structures, one at most": len(found.volumes),
        "in no class": float((found.labels < 0).mean()),
        "iterations": len(found.history),
    }


def observer(boxes: Subtomograms, others: Subtomograms) -> pd.Series:
    """The class of each subtomogram by references of others in their true classes and poses."""
    table = others.particles
    truth = table["label"].to_numpy()
    turns = particles.matrices(table.assign(rot=table["true_rot"], tilt=table["true_tilt"], psi=table["true_psi"]))
    shifts = (table[["true_z", "true_y", "true_x"]].to_numpy() - table[["z", "y", "x"]].to_numpy()) / others.voxel_size
    box, settings = refinement.choose_settings(boxes, mask_diameter=0.9 * BOX * VOXEL_SIZE)
    generator = torch.Generator().manual_seed(0)
    radius = settings.max_radius_cycles
    known, asked = (coefficients.read(one, box=box, radius_cycles=radius, device=generator.device) for one in (others, boxes))
    noise = reconstruction.shell_means(known, known.values.abs().square().sum(0))
    scores = []
    for name in pd.unique(truth):
        rows = torch.from_numpy(np.flatnonzero(truth == name))
        poses = alignment.Poses(
            torch.from_numpy(turns).float()[rows, None],
            torch.from_numpy(shifts).float()[rows, None],
            torch.zeros(len(rows), 1),
            torch.ones(len(rows), 1),
        )
        diameter = refinement.choose_settings(others.take(others.ids[rows.numpy()]))[1].diameter_voxels
        fold = torch.arange(len(rows)) % refinement.FOLDS
        made = reconstruction.make_references(
            known.take(rows), poses, fold, noise=noise, diameter_voxels=diameter, max_damping=2.0
        )
        found = refinement.global_search(
            asked,
            torch.zeros(len(boxes), dtype=torch.long),
            [coefficients.gradient_grids(made.density)],
            shifts=refinement.search_shifts(asked, settings.max_shift_voxels),
            noise=noise[reconstruction.shell_index(asked)],
            shift_sigma_voxels=settings.max_shift_voxels / 2,
            generator=generator,
        )
        scores.append(found.scores.logsumexp(1))
    return pd.Series(torch.stack(scores, 1).argmax(1).numpy(), index=boxes.ids)


if __name__ == "__main__":
    main()
