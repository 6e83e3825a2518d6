"""What dividing a million particles costs on this machine, and which rule finds the number of clusters.

Costs: k-means, HDBSCAN and PCA of synthetic vectors; the bookkeeping of embedding (a network that only reshapes, over volumes
made when they are asked for); fitting UMAP and placing particles with it. Each in a process of its own, with its peak of
memory: the first rows are what Python, the vectors and a particle table take before anything is done with them.

Rules: the shipped encoder's features of the complexes left out of its training, alone and among those of the training, at SNR
0.1 and 0.05, some tens or some hundreds of each, in even and uneven numbers. How often is the number of classes met, and
what adjusted Rand index is lost against the best number?
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
import torch

from tomolab import clusters, particles, simulation
from tomolab.clusters import layouts, validation
from tomolab.learning import Embedding, embedding, networks
from tomolab.learning import pca as principal_components
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms

FEATURES, K, MANY = 64, 100, 1_000_000
NUMBERS = range(2, 21)
RULES: dict[str, Callable[[pd.DataFrame], int]] = {
    "highest Calinski-Harabasz, if a division repeats itself (tomolab's)": validation.choose,
    "middle one of strength, Calinski-Harabasz, BIC": lambda table: int(
        validation.proposals(table)[["strength", "calinski_harabasz", "bic"]].median()
    ),
    "largest with prediction strength 0.7": lambda table: validation.proposals(table)["strength"],
    "highest silhouette": lambda table: table["silhouette"].idxmax(),
    "lowest Davies-Bouldin": lambda table: table["davies_bouldin"].idxmin(),
    "lowest BIC of Gaussians": lambda table: table["bic"].idxmin(),
}


class Reshaping(torch.nn.Module):
    """A network that costs nothing: the voxels are the features."""

    name, box, voxel_size = "reshaping", 4, 10.0

    def features(self, volumes: torch.Tensor) -> torch.Tensor:
        """Voxels of each volume."""
        return volumes.flatten(1)


class Endless:
    """Volumes (n, 4, 4, 4) that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.shape = (count, 4, 4, 4)

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        return np.random.default_rng(first).standard_normal((last - first, 4, 4, 4), dtype=np.float32)


def synthetic(count: int) -> Embedding:
    """As many groups as are looked for, in float32 from the start, since the peak of memory is measured."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, FEATURES), dtype=np.float32)
    middles = 2 * rng.standard_normal((K, FEATURES), dtype=np.float32)
    for start in range(0, count, K):
        vectors[start : start + K] += middles[: count - start]
    return Embedding(np.arange(count), vectors, "")


def nothing() -> dict[str, Any]:
    return {"what": "nothing", "particles": 0, "seconds": 0.0, "peak GB": record.peak_memory()}


def vectors_alone(count: int) -> dict[str, Any]:
    return timed("holding the vectors", count, lambda: synthetic(count))


def table_alone(count: int) -> dict[str, Any]:
    return timed("holding the particle table", count, lambda: endless(count))


def endless(count: int) -> Subtomograms:
    return Subtomograms(Endless(count), particles.table(np.zeros((count, 3))), 10.0)


def kmeans(count: int) -> dict[str, Any]:
    whole = synthetic(count)
    return timed(f"k-means, k = {K}", count, lambda: clusters.kmeans(whole, K, seed=0))


def hdbscan(count: int) -> dict[str, Any]:
    whole = synthetic(count)
    return timed("HDBSCAN", count, lambda: clusters.hdbscan(whole))


def pca(count: int) -> dict[str, Any]:
    whole = synthetic(count)
    return timed("16 whitened components", count, lambda: principal_components.pca(whole, 16, whiten=True))


def bookkeeping(count: int) -> dict[str, Any]:
    many = endless(count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embedding"
        run = lambda: embedding.embed(Reshaping(), many, path=path, batch_size=1024, precision="float32", progress=False)  # noqa: E731
        return timed("embedding to a file without a network", count, run)


def umap(count: int) -> dict[str, Any]:
    whole = synthetic(count)
    # Once beforehand, by every road: compiling is not what is measured.
    most, layouts.SAMPLE = layouts.SAMPLE, 5000
    layouts.flat(whole.take(np.arange(2 * layouts.SAMPLE)), progress=False)
    layouts.SAMPLE = most
    what = "UMAP, fit to all" if count <= layouts.SAMPLE else f"UMAP, fit to {layouts.SAMPLE:,}, the others placed"
    return timed(what, count, lambda: layouts.flat(whole, progress=False))


def timed(what: str, count: int, work: Callable[[], Any]) -> dict[str, Any]:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return {"what": what, "particles": count, "seconds": seconds, "peak GB": record.peak_memory()}


def rules() -> list[dict[str, Any]]:
    """A row for every rule: how often it is right, and what it loses."""
    network = networks.load("default")
    maps = densities.load(voxel_size=network.voxel_size, box=network.box)
    unknown = [name for name in maps if name not in network.classes]
    rows = []
    for snr in (0.1, 0.05):
        pool = simulation.subtomograms(maps, 700, imaging=Imaging(snr=snr, tilts=(-60, 60)), box=network.box, seed=5)
        features = embedding.embed(network, pool, progress=False)
        truth = pool.particles.set_index("particle_id")["label"]
        for number, seed in [(n, seed) for n in (3, 4, 5, 6, 10, 14) for seed in range(4)]:
            ids = draw(truth, unknown, number, seed=seed)
            rows += [row | {"classes": number, "snr": snr} for row in judged(features.take(ids), truth, number)]
    table = pd.DataFrame(rows)
    return [
        {
            "rule": rule,
            "sets": len(part),
            "exact": (part["k"] == part["classes"]).mean(),
            "within 1": ((part["k"] - part["classes"]).abs() <= 1).mean(),
            "mean k / classes": (part["k"] / part["classes"]).mean(),
            "ARI lost, mean": part["lost"].mean(),
            "ARI lost, worst": part["lost"].max(),
        }
        for rule, part in table.groupby("rule", sort=False)
    ]


def draw(truth: pd.Series, unknown: list[str], number: int, *, seed: int) -> np.ndarray:
    """Particles of left-out classes, then known ones; by seed 100 of each, 30 to 200, 350, or 100 to 700."""
    rng = np.random.default_rng((number, seed))
    others = sorted(set(truth) - set(unknown))
    names = [*rng.permutation(unknown)[:number], *rng.permutation(others)[: max(0, number - len(unknown))]]
    least, most = ((100, 100), (30, 200), (350, 350), (100, 700))[seed]
    sizes = np.exp(rng.uniform(np.log(least), np.log(most), number)).round().astype(int)
    return np.concatenate(
        [rng.choice(truth.index[truth == name], size, replace=False) for name, size in zip(names, sizes, strict=True)]
    )


def judged(features: Embedding, truth: pd.Series, number: int) -> list[dict[str, Any]]:
    """What every rule chooses, and the adjusted Rand index it loses against the best number."""
    table = validation.criteria(features, NUMBERS, seed=0, progress=False)
    ari = {k: clusters.agreement(clusters.kmeans(features, k, seed=0), truth)["ari"] for k in [1, *NUMBERS]}
    chosen = {rule: int(choose(table)) for rule, choose in RULES.items()} | {"the true number": number}
    return [{"rule": rule, "k": k, "lost": max(ari.values()) - ari[k]} for rule, k in chosen.items()]


def main() -> None:
    """Costs first, then rules."""
    jobs: list[tuple[Callable, int]] = [(vectors_alone, MANY), (table_alone, MANY)]
    jobs += [(work, count) for work in (kmeans, hdbscan, pca) for count in (MANY // 10, MANY)]
    jobs += [(bookkeeping, MANY // 10), (bookkeeping, MANY), (umap, layouts.SAMPLE), (umap, 5 * layouts.SAMPLE)]
    costs = [record.apart(nothing), *(record.apart(work, count) for work, count in jobs)]
    settings = {"features": FEATURES, "k": K, "threads": torch.get_num_threads()}
    record.write("clusters", costs, settings=settings)
    record.write("counting", rules(), settings={"numbers": [NUMBERS[0], NUMBERS[-1]], "snr": [0.1, 0.05], "tilts": [-60, 60]})


if __name__ == "__main__":
    main()
