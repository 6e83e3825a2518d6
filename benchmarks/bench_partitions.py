"""Why clusterings and the flat layout have the defaults they have: k-means, HDBSCAN, mixtures of Gaussians, UMAP.

Of a million made vectors in 100 groups that stand apart, touch, and overlap: k-means as tomolab does it against steps over
small batches. Of the shipped encoder's features of complexes left out of its training, at SNR 0.1 and 0.05: HDBSCAN with
finest and most persistent clusters, Gaussians begun once and five times, k-means. Of all complexes: three layouts.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import record
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from tomolab import clusters, simulation
from tomolab.clusters import layouts
from tomolab.learning import Embedding, embedding, networks
from tomolab.simulation import Imaging, densities

MANY, FEATURES, GROUPS = 1_000_000, 64, 100
SPREADS = {"apart": 1.6, "touching": 2.2, "overlapping": 3.4}
PER_CLASS, SEEDS = 200, range(5)


def main() -> None:
    """Measure and write."""
    network = networks.load("default")
    maps = densities.load(voxel_size=20, box=20)
    unknown = [name for name in maps if name not in network.classes]
    settings: dict[str, Any] = {"vectors": [MANY, FEATURES], "groups": GROUPS, "spreads": SPREADS, "left_out": unknown}
    rows = [{"data": f"made, {title}"} | row for title, spread in SPREADS.items() for row in of_many(spread)]
    for snr in (0.1, 0.05):
        some = {name: maps[name] for name in unknown}
        rows += [{"data": f"complexes left out, SNR {snr}"} | row for row in divided(*features(network, some, snr=snr))]
    record.write("partitions", rows, settings=settings | {"per_class": PER_CLASS, "seeds": len(SEEDS)})
    record.write(
        "layouts", laid_out(*features(network, maps, snr=0.1)), settings={"classes": len(maps), "per_class": PER_CLASS}
    )


def of_many(spread: float) -> list[dict[str, Any]]:
    """Two ways of k-means on a million vectors about 100 places; noise has `spread` times the variance of the places."""
    generator = np.random.default_rng(1)
    places = generator.standard_normal((GROUPS, FEATURES), dtype=np.float32)
    truth = generator.integers(GROUPS, size=MANY)
    vectors = places[truth] + np.float32(spread) * generator.standard_normal((MANY, FEATURES), dtype=np.float32)
    made = Embedding(np.arange(MANY), vectors, "made")

    def small_batches() -> np.ndarray:
        return MiniBatchKMeans(GROUPS, batch_size=8192, n_init=3, random_state=1).fit_predict(normalize(vectors))

    ways: dict[str, Callable[[], Any]] = {
        "k-means": lambda: clusters.kmeans(made, GROUPS, seed=1).to_numpy(),
        "k-means, small batches": small_batches,
    }
    rows = []
    for title, way in ways.items():
        start = time.perf_counter()
        found = way()
        seconds = time.perf_counter() - start
        rows.append({"method": title, "seconds": seconds, "ARI": adjusted_rand_score(truth, found)})
    return rows


def features(network: networks.Network, maps: dict[str, Any], *, snr: float) -> tuple[Embedding, pd.Series]:
    """Features and classes of simulated particles."""
    found = simulation.subtomograms(maps, PER_CLASS, imaging=Imaging(snr=snr), box=20, seed=5)
    return embedding.embed(network, found, progress=False), found.particles.set_index("particle_id")["label"]


def divided(vectors: Embedding, truth: pd.Series) -> list[dict[str, Any]]:
    """Agreement of each way with the truth: medians over seeds; of HDBSCAN among the particles that it holds."""
    k = truth.nunique()
    ways: dict[str, Callable[[int], pd.Series]] = {
        "k-means": lambda seed: clusters.kmeans(vectors, k, seed=seed),
        "Gaussians, one start": lambda seed: clusters.gaussians(vectors, k, seed=seed, starts=1).labels,
        "Gaussians, five starts": lambda seed: clusters.gaussians(vectors, k, seed=seed).labels,
        "HDBSCAN, finest": lambda seed: clusters.hdbscan(vectors, seed=seed),
        "HDBSCAN, most persistent": lambda seed: clusters.hdbscan(vectors, leaves=False, seed=seed),
    }
    rows = []
    for title, way in ways.items():
        found = [way(seed) for seed in SEEDS]
        kept = [labels[labels != -1] for labels in found]
        rows.append(
            {
                "method": title,
                "ARI": statistics.median(adjusted_rand_score(truth[one.index], one) for one in kept),
                "held": statistics.median(len(one) / len(truth) for one in kept),
                "clusters": statistics.median(one.nunique() for one in kept),
            }
        )
    return rows


def laid_out(vectors: Embedding, truth: pd.Series) -> list[dict[str, Any]]:
    """How far the class of a particle is that of its ten neighbours, how far classes stand apart, and the time it took."""
    layouts.flat(vectors.take(vectors.ids[:100]), progress=False)  # compiles
    rows = [{"layout": "none: all features", "neighbours": _told(normalize(vectors.vectors), truth)}]
    for method in ("umap", "tsne", "pca"):
        start = time.perf_counter()
        table = layouts.flat(vectors, method=method, progress=False)
        seconds = time.perf_counter() - start
        places = table[["x", "y"]].to_numpy()
        told = {"neighbours": _told(places, truth), "silhouette": float(silhouette_score(places, truth))}
        rows.append({"layout": method, **told, "seconds": seconds})
    return rows


def _told(points: np.ndarray, truth: pd.Series) -> float:
    """Share of particles whose class ten neighbours tell."""
    order = np.random.default_rng(1).permutation(len(points))
    return float(cross_val_score(KNeighborsClassifier(10), points[order], truth.to_numpy()[order], cv=10).mean())


if __name__ == "__main__":
    main()
