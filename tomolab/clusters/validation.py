"""Feature vectors in; out come how many clusters there are, and which of them come back when clustering is repeated.

>>> table = criteria(embedding, range(2, 16), seed=0)
>>> k = choose(table)
>>> stability(embedding, kmeans(embedding, k, seed=0), seed=0)
"""

import warnings
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score
from tqdm.auto import tqdm

from tomolab.clusters import clustering
from tomolab.learning.embedding import Embedding

HALVINGS = 8
"""Times that the particles are halved for the prediction strength."""
STRONG = 0.7
"""Prediction strength that the number of clusters which it proposes must reach."""


def criteria(
    embedding: Embedding, ks: Iterable[int], *, seed: int, most: int = 4000, normalise: bool = True, progress: bool = True
) -> pd.DataFrame:
    """Five criteria for numbers of clusters, each of k-means with this number.

    Parameters
    ----------
    embedding, seed, normalise
        As everywhere in `tomolab.clusters`.
    ks
        Numbers of clusters to try, 2 to a quarter of the particles.
    most
        Particles to use, drawn at random from more. Time grows with it, the criteria hardly change.
    progress
        Show a bar over the numbers.

    Returns
    -------
    DataFrame
        Indexed by k. ``strength``: prediction strength (Tibshirani and Walther 2005), 0 to 1. The particles are halved and
        both halves clustered; of every cluster of one half, which share of its pairs is together in the clusters of the
        other half too? It is that of the worst cluster, averaged over 8 halvings, both ways. ``silhouette`` (Rousseeuw 1987)
        and ``calinski_harabasz`` (1974): high is good. ``davies_bouldin`` (1979): low is good. ``bic`` of a mixture of k
        Gaussians on 10 principal components: low is good.

    Raises
    ------
    ValueError
        If a number is below 2 or more than a quarter of the particles.
    """
    numbers = sorted({int(k) for k in ks})
    rows = clustering.sample(len(embedding), most, seed=seed)
    if not numbers or numbers[0] < 2 or numbers[-1] > len(rows) // 4:
        given = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
        raise ValueError(f"of {len(rows)} particles 2 to {len(rows) // 4} clusters can be tried, got {given}")
    some = Embedding(embedding.ids[rows], np.asarray(embedding.vectors[rows]), embedding.network)
    points = clustering.directions(some, normalise)
    table = []
    for k in tqdm(numbers, desc="counting", unit=" numbers", disable=not progress):
        found = KMeans(k, n_init=10, random_state=seed).fit_predict(points)
        table.append(
            {
                "strength": _strength(points, k, seed=seed),
                "silhouette": float(silhouette_score(points, found)),
                "calinski_harabasz": float(calinski_harabasz_score(points, found)),
                "davies_bouldin": float(davies_bouldin_score(points, found)),
                "bic": clustering.gaussians(some, k, seed=seed, starts=1, normalise=normalise).bic,
            }
        )
    return pd.DataFrame(table, index=pd.Index(numbers, name="k"))


def proposals(table: pd.DataFrame) -> pd.Series:
    """Number of clusters that each criterion of a table from `criteria` proposes, a Series indexed by criterion.

    It is the best one; of the strength, the largest number that reaches 0.7, or 1 if no division repeats itself that well.
    """
    strong = table.index[table["strength"] >= STRONG]
    found = {"strength": strong.max() if len(strong) else 1}
    found |= {name: table[name].idxmax() for name in ("silhouette", "calinski_harabasz")}
    found |= {name: table[name].idxmin() for name in ("davies_bouldin", "bic")}
    return pd.Series(found, name="k").astype(int)


def choose(table: pd.DataFrame) -> int:
    """Choose a number of clusters: the one with the highest Calinski-Harabasz index of a table from `criteria`.

    It is 1 where no division repeats itself with a prediction strength of 0.7.

    No rule is the best everywhere. In the sets of ``benchmarks/bench_clusters.py``, complexes most of which were never seen in
    training, this one loses least of the adjusted Rand index against the best number and meets the number of classes most
    often. It joins what is alike, and the more so the more classes there are; BIC divides too far when particles are many,
    since no cluster is quite a Gaussian. So divide further than that, and merge what looks the same.
    """
    found = proposals(table)
    return 1 if found["strength"] == 1 else int(found["calinski_harabasz"])


def _strength(points: np.ndarray, k: int, *, seed: int) -> float:
    rng = np.random.default_rng(seed)
    worst = []
    for _ in range(HALVINGS):
        halves = np.array_split(rng.permutation(len(points)), 2)
        models = [KMeans(k, n_init=3, random_state=int(rng.integers(2**31))).fit(points[half]) for half in halves]
        worst += [_together(models[1 - i].predict(points[half]), models[i].labels_, k).min() for i, half in enumerate(halves)]
    return float(np.mean(worst))


def _together(other: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """Share of the pairs in each of k clusters `own` that `other` has together too; 1 for a cluster without pairs."""
    counts = np.zeros((k, k))
    np.add.at(counts, (own, other), 1)
    sizes = counts.sum(axis=1)
    pairs = sizes * (sizes - 1)
    return np.where(pairs > 0, (counts * (counts - 1)).sum(axis=1) / np.maximum(pairs, 1), 1.0)


def stability(
    embedding: Embedding,
    labels: pd.Series,
    *,
    seed: int,
    repeats: int = 20,
    partition: Callable[[Embedding, int], pd.Series] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """How well each cluster comes back when a random half of the particles is clustered anew, with another seed each time.

    A cluster is compared with whichever cluster of the half it shares most with: particles in both over particles in
    either, among those drawn (Jaccard; Hennig 2007). Below 0.5 a cluster dissolves, from 0.75 on it is a valid pattern; on
    a cluster that dissolves no average should rest.

    Parameters
    ----------
    embedding, labels, seed
        As everywhere in `tomolab.clusters`.
    repeats
        Times that a half is drawn.
    partition
        What clusters anew: takes an embedding and a seed, gives labels. By default k-means with as many clusters as
        `labels` has. Labels that came about otherwise, by merging say, need what made them here to be compared fairly.
    progress
        Show a bar over the repeats.

    Returns
    -------
    DataFrame
        Indexed by cluster: ``size``; ``jaccard``, its mean; ``lowest``, in the worst repeat; ``recovered``, the share of
        repeats with 0.75 or more; ``dissolved``, that with 0.5 or less.

    Raises
    ------
    ValueError
        If less than one repeat is asked for, no particle is in a cluster, or half of the particles are fewer than clusters.
    """
    clusters = sorted(set(labels.unique()) - {-1})
    if not clusters or repeats < 1 or len(labels) // 2 < len(clusters):
        raise ValueError(
            f"stability needs clusters, twice as many particles, and a repeat: "
            f"got {len(clusters)} clusters, {len(labels)} particles, {repeats} repeats"
        )
    anew = partition or (lambda some, start: clustering.kmeans(some, len(clusters), seed=start))
    whole = embedding.take(labels.index.to_numpy())
    rng = np.random.default_rng(seed)
    found = np.empty((repeats, len(clusters)))
    for repeat in tqdm(range(repeats), desc="stability", unit=" repeats", disable=not progress):
        rows = np.sort(rng.permutation(len(whole))[: len(whole) // 2])
        some = Embedding(whole.ids[rows], whole.vectors[rows], whole.network)
        found[repeat] = _jaccard(labels.iloc[rows].to_numpy(), anew(some, int(rng.integers(2**31))).to_numpy(), clusters)
    out = pd.DataFrame({"size": labels.value_counts().loc[clusters]}).rename_axis("cluster")
    with warnings.catch_warnings():
        # A cluster of which no particle was ever drawn has no mean.
        warnings.filterwarnings("ignore", message="Mean of empty slice|All-NaN slice encountered", category=RuntimeWarning)
        out["jaccard"], out["lowest"] = np.nanmean(found, axis=0), np.nanmin(found, axis=0)
    return out.assign(recovered=np.mean(found >= 0.75, axis=0), dissolved=np.mean(found <= 0.5, axis=0))


def _jaccard(labels: np.ndarray, other: np.ndarray, clusters: list[int]) -> np.ndarray:
    """Highest Jaccard of each cluster of `labels` with a cluster of `other`; NaN for one that has no particle here."""
    counts = pd.crosstab(labels, other).reindex(clusters, fill_value=0)
    sizes = counts.sum(axis=1).to_numpy()
    shared = counts.loc[:, counts.columns != -1]
    either = sizes[:, None] + shared.sum(axis=0).to_numpy() - shared.to_numpy()
    best = (shared.to_numpy() / either).max(axis=1, initial=0)
    return np.where(sizes > 0, best, np.nan)
