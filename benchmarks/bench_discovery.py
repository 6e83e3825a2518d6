"""Discovery: how well subtomograms are divided by features alone, by structures and features together, and at best.

    python benchmarks/bench_discovery.py --seeds 3
    python benchmarks/bench_discovery.py --network fine --snr 0.05 0.02 --name discovery_fine
    python benchmarks/bench_discovery.py --complexes ribosome_70s ribosome_50s ribosome_30s --name discovery_related
    python benchmarks/bench_discovery.py --maps folder/of/maps --draw 6 --name discovery_others
    python benchmarks/bench_discovery.py --believed 10 --name discovery_believed

Simulated subtomograms of complexes that the shipped encoder has not seen, or of those named, or of the maps (.mrc) in a folder,
all or some drawn at random by the seed. They are divided by k-means of the features, with the true number of clusters and with
twice as many; by `averaging.discover`, which starts from the latter and is not told a number; and by observers that know the
classes: every subtomogram is scored against references made of other subtomograms by their true classes, in their true poses
(observer a) or in poses that are found as in an average from random orientations (observer b). ARI is the adjusted Rand index
with the truth, 1 at best. Subtomograms that discovery leaves in no class count as a class of their own there. "classes" counts
true classes of which one structure holds more than half, where they are the most.

With `--believed N` it counts what is found where little can be: in pure noise, and in one complex alone, each with N seeds. The
result is written after every row, so that a run which is stopped leaves what it has; `--more` adds the rows that it lacks.
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
from torch import Tensor

from tomolab import averaging, clusters, io, learning, particles, simulation, volumes
from tomolab.averaging import coefficients, reconstruction, refinement
from tomolab.averaging.alignment import Poses
from tomolab.simulation import Imaging
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

ALONE = 100
"""Subtomograms of pure noise, or of one complex."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=100, help="subtomograms of each class")
    parser.add_argument("--snr", type=float, nargs="+", default=(0.1, 0.05, 0.02))
    parser.add_argument("--network", default="default", help="encoder, which sets the box and the voxel size")
    parser.add_argument("--complexes", nargs="+", help="by default those left out of the encoder's training")
    parser.add_argument("--maps", type=Path, help="folder of maps (.mrc) instead")
    parser.add_argument("--draw", type=int, help="so many of them, another draw with every seed")
    parser.add_argument("--name", default="discovery", help="of the result")
    parser.add_argument("--more", action="store_true", help="keep the rows of the result that exists")
    parser.add_argument("--believed", type=int, metavar="N", help="seeds of pure noise and of one complex, instead")
    options = parser.parse_args()
    network = learning.load_network(options.network)
    grid = {"network": options.network, "box": network.box, "voxel size (Å)": network.voxel_size}
    if options.believed:
        rows: list[dict[str, Any]] = []
        for seed in range(1, options.believed + 1):
            rows += [alone(network, kind, seed=seed) for kind in ("noise", "one complex")]
            record.write(options.name, rows, settings={"count": ALONE, "SNR": 0.05} | grid)
        return
    maps = chosen_maps(network, options.complexes, options.maps)
    settings = {"classes": list(maps), "count": options.count, "draw": options.draw} | grid
    rows = record.earlier(options.name, settings=settings) if options.more else []
    known = {(row["SNR"], row["seed"]) for row in rows}
    for snr in options.snr:
        for seed in range(1, options.seeds + 1):
            if (snr, seed) in known:
                continue
            some = {name: maps[name] for name in np.random.default_rng(seed).permutation(sorted(maps))[: options.draw]}
            rows.append(divided(network, some, count=options.count, snr=snr, seed=seed))
            rows.sort(key=lambda row: (-row["SNR"], row["seed"]))
            record.write(options.name, rows, settings=settings)


def chosen_maps(network: learning.Network, complexes: list[str] | None, folder: Path | None) -> dict[str, Volume]:
    """Maps of shipped complexes or of a folder, in the box and voxel size of a network."""
    if folder is not None:
        return {path.stem: fitted(io.read_volume(path), network) for path in sorted(folder.glob("*.mrc"))}
    if complexes is not None:
        return simulation.load_densities(complexes, voxel_size=network.voxel_size, box=network.box)
    return unseen(network)


def unseen(network: learning.Network) -> dict[str, Volume]:
    """Shipped complexes that the encoder was not trained on."""
    maps = simulation.load_densities(voxel_size=network.voxel_size, box=network.box)
    return {name: one for name, one in maps.items() if name not in network.classes}


def fitted(volume: Volume, network: learning.Network) -> Volume:
    """A map in a cube of the box and voxel size of a network, with its middle in the middle."""
    edge = max(volume.shape) + max(volume.shape) % 2
    before = [(edge - n) // 2 for n in volume.shape]
    cube = np.pad(volume.data, [(b, edge - n - b) for b, n in zip(before, volume.shape, strict=True)])
    return volumes.fit(volumes.resample(Volume(cube, volume.voxel_size), network.voxel_size), network.box)


def divided(network: learning.Network, maps: dict[str, Volume], *, count: int, snr: float, seed: int) -> dict[str, Any]:
    """One row: features, discovery and observer on the same subtomograms."""
    boxes, others = (
        simulation.subtomograms(maps, count, imaging=Imaging(snr=snr), box=network.box, seed=number, progress=False)
        for number in (seed, seed + 1000)
    )
    truth = boxes.particles.set_index("particle_id")["label"]
    features = learning.embed(network, boxes, progress=False)
    exact, rough = (clusters.kmeans(features, number * len(maps), seed=seed) for number in (1, 2))
    began = time.perf_counter(), time.process_time()
    found = averaging.discover(boxes, rough, features=features.vectors, seed=seed, progress=False)
    ended = time.perf_counter(), time.process_time()

    def ari(labels: pd.Series) -> float:
        return float(adjusted_rand_score(truth[labels.index], labels))

    row = {
        "SNR": snr,
        "seed": seed,
        "features ARI": ari(exact),
        "features, twice ARI": ari(rough),
        "discovery ARI": ari(found.labels),
        "observer a ARI": ari(observer(boxes, others, known_poses=True)),
        "observer b ARI": ari(observer(boxes, others, known_poses=False)),
        "true": len(maps),
        "found": len(found.volumes),
        "classes": recovered(found.labels, truth),
        "in no class": float((found.labels < 0).mean()),
        "purity": clusters.agreement(found.labels[found.labels >= 0], truth)["purity"],
        "iterations": len(found.history),
        "seconds": ended[0] - began[0],
        "processor seconds": ended[1] - began[1],
    }
    return row | {"of observer b": row["discovery ARI"] / row["observer b ARI"]}


def recovered(labels: pd.Series, truth: pd.Series) -> int:
    """True classes of which one structure holds more than half, and in which they are the most."""
    counts = pd.crosstab(labels[labels >= 0], truth)
    held = counts / truth.value_counts()[counts.columns]
    return sum(
        bool(held.loc[structure].max() > 0.5 and held.loc[structure].idxmax() == row.idxmax())
        for structure, row in counts.iterrows()
    )


def alone(network: learning.Network, kind: str, *, seed: int) -> dict[str, Any]:
    """How many structures are found in pure noise, or in one complex, from four clusters of features."""
    name = sorted(unseen(network))[seed % len(unseen(network))]
    maps = {name: unseen(network)[name]}
    boxes = simulation.subtomograms(maps, ALONE, imaging=Imaging(snr=0.05), box=network.box, seed=seed, progress=False)
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


def observer(boxes: Subtomograms, others: Subtomograms, *, known_poses: bool) -> pd.Series:
    """The class of each subtomogram by references of others in their true classes, in their true poses or in found ones."""
    truth = others.particles["label"].to_numpy()
    box, settings = refinement.choose_settings(boxes, mask_diameter=0.9 * boxes.box * boxes.voxel_size)
    generator = torch.Generator().manual_seed(0)
    radius = settings.max_radius_cycles
    known, asked = (coefficients.read(one, box=box, radius_cycles=radius, device=generator.device) for one in (others, boxes))
    noise = reconstruction.shell_means(asked, asked.values.abs().square().sum(0))
    scores = []
    for name in pd.unique(truth):
        rows = torch.from_numpy(np.flatnonzero(truth == name))
        own = refinement.choose_settings(others.take(others.ids[rows.numpy()]), iterations=40)[1]
        if known_poses:
            poses, fold = true_poses(others, rows), torch.arange(len(rows)) % refinement.FOLDS
        else:
            *_, last = refinement.Refinement(known.take(rows), own, generator=generator)
            rows, poses, fold = rows[last.rows], last.poses, torch.arange(len(last.rows)) % refinement.FOLDS
        made = reconstruction.make_references(
            known.take(rows), poses, fold, noise=noise, diameter_voxels=own.diameter_voxels, max_damping=2.0
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


def true_poses(others: Subtomograms, rows: Tensor) -> Poses:
    """The poses with which some subtomograms were simulated."""
    table = others.particles.iloc[rows.numpy()]
    turns = particles.matrices(table.assign(rot=table["true_rot"], tilt=table["true_tilt"], psi=table["true_psi"]))
    shifts = (table[["true_z", "true_y", "true_x"]].to_numpy() - table[["z", "y", "x"]].to_numpy()) / others.voxel_size
    count = len(rows), 1
    return Poses(
        torch.from_numpy(turns).float()[:, None],
        torch.from_numpy(shifts).float()[:, None],
        torch.zeros(count),
        torch.ones(count),
    )


if __name__ == "__main__":
    main()
