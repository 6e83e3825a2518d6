"""Clusters: grouping particles by their features, and measuring the groups against truth where there is some.

In comes an `Embedding`, out come labels: a Series named "cluster", indexed by particle id, with the largest cluster
first (0). The founding paper over-partitions: more clusters than classes, which are then looked at and merged.

>>> labels = kmeans(embedding, 12, seed=0)
>>> agreement(labels, truth)            # {"ari": ..., "homogeneity": ..., "completeness": ..., "purity": ...}
>>> summary(labels, particles)
"""

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score, homogeneity_score
from sklearn.preprocessing import normalize

from tomolab.embedding import Embedding

MANY = 100_000
"""Particles above which k-means works on random batches."""


def kmeans(embedding: Embedding, k: int, *, seed: int, normalise: bool = True) -> pd.Series:
    """Cluster by k-means (best of 10 starts, k-means++).

    Above 100,000 particles batches of 8,192 are used (Sculley 2010), which finds slightly looser clusters in linear time
    and bounded memory.

    Parameters
    ----------
    embedding
        Vectors (n, d).
    k
        Number of clusters, 1 to n.
    seed
        Seed of the starts: same seed, same labels.
    normalise
        Scale every vector to length 1 first. The length of a feature vector goes mostly with signal to noise, its
        direction with structure.

    Returns
    -------
    Series
        Cluster of each particle, 0 the largest, named "cluster" and indexed by particle id.

    Raises
    ------
    ValueError
        If k is less than 1 or more than there are particles.
    """
    if not 1 <= k <= len(embedding):
        raise ValueError(f"k-means of {len(embedding)} particles makes 1 to {len(embedding)} clusters, got k={k}")
    if len(embedding) > MANY:
        method: KMeans | MiniBatchKMeans = MiniBatchKMeans(k, batch_size=8192, n_init=10, random_state=seed)
    else:
        method = KMeans(k, n_init=10, random_state=seed)
    found = method.fit_predict(_vectors(embedding, normalise))
    order = np.argsort(-np.bincount(found, minlength=k), kind="stable")
    return pd.Series(np.argsort(order)[found], index=pd.Index(embedding.ids, name="particle_id"), name="cluster")


def _vectors(embedding: Embedding, normalise: bool) -> np.ndarray:
    return normalize(embedding.vectors) if normalise else embedding.vectors


def _aligned(labels: pd.Series, truth: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Turn both into integer codes in the order of `labels`."""
    for name, series in (("labels", labels), ("truth", truth)):
        if not series.index.is_unique:
            raise ValueError(
                f"{name} must have one entry per particle id, but {series.index.duplicated().sum()} ids are repeated"
            )
    missing = labels.index.difference(truth.dropna().index)
    if len(missing):
        raise ValueError(f"truth is unknown for {len(missing)} of {len(labels)} particles, such as {missing[:5].tolist()}")
    if labels.empty:
        raise ValueError("there are no labels to compare")
    return pd.factorize(labels)[0], pd.factorize(truth.loc[labels.index])[0]


def agreement(labels: pd.Series, truth: pd.Series) -> dict[str, float]:
    """How well clusters agree with the true classes; 1 is perfect in every number.

    Parameters
    ----------
    labels
        Cluster of each particle, indexed by particle id.
    truth
        Class of each particle, indexed by particle id; may know more particles than `labels`.

    Returns
    -------
    dict
        ``ari``: adjusted Rand index (Hubert and Arabie 1985), 0 for a chance partition. ``homogeneity`` and
        ``completeness`` (Rosenberg and Hirschberg 2007): each cluster holds one class; each class lies in one cluster.
        ``purity``: share of particles that belong to the commonest class of their cluster; it rises with more clusters.

    Raises
    ------
    ValueError
        If truth does not know some of the particles, or an id is repeated.
    """
    found, true = _aligned(labels, truth)
    return {
        "ari": float(adjusted_rand_score(true, found)),
        "homogeneity": float(homogeneity_score(true, found)),
        # Completeness is homogeneity with the parts exchanged.
        "completeness": float(homogeneity_score(found, true)),
        "purity": purity(labels, truth),
    }


def purity(labels: pd.Series, truth: pd.Series) -> float:
    """Share of particles that belong to the commonest class of their cluster.

    Parameters
    ----------
    labels
        Cluster of each particle, indexed by particle id.
    truth
        Class of each particle, indexed by particle id.

    Raises
    ------
    ValueError
        If truth does not know some of the particles, or an id is repeated.
    """
    found, true = _aligned(labels, truth)
    return float(np.asarray(pd.crosstab(found, true)).max(axis=1).sum() / len(found))


def nearest(embedding: Embedding, labels: pd.Series, *, normalise: bool = True) -> pd.Series:
    """Distance of each particle to the centre of its cluster; sorted, it puts the most typical particles first.

    Parameters
    ----------
    embedding
        Vectors (n, d).
    labels
        Cluster of particles of the embedding, indexed by particle id.
    normalise
        As in `kmeans`.

    Returns
    -------
    Series
        Distances named "distance", in the order of `labels` and with its index.

    Raises
    ------
    KeyError
        If a particle is not in the embedding.
    """
    vectors = pd.DataFrame(_vectors(embedding.take(labels.index.to_numpy()), normalise), index=labels.index)
    centres = vectors.groupby(labels).transform("mean")
    return pd.Series(np.linalg.norm(vectors.to_numpy() - centres.to_numpy(), axis=1), index=labels.index, name="distance")


def likeness(embedding: Embedding, labels: pd.Series, reference: Embedding) -> pd.Series:
    """How much the centre of each cluster looks like the centre of a reference, such as simulated particles of one complex.

    Parameters
    ----------
    embedding
        Vectors (n, d).
    labels
        Cluster of particles of the embedding, indexed by particle id.
    reference
        Vectors (m, d) of the same network.

    Returns
    -------
    Series
        Indexed by cluster, named "likeness": cosine between the mean directions of cluster and reference, largest first.

    Raises
    ------
    ValueError
        If the two embeddings are of different networks.
    KeyError
        If a particle is not in the embedding.
    """
    if embedding.network != reference.network:
        raise ValueError(f"embeddings of two networks cannot be compared: {embedding.network[:8]} and {reference.network[:8]}")
    vectors = pd.DataFrame(_vectors(embedding.take(labels.index.to_numpy()), True), index=labels.index)
    centres = vectors.groupby(labels).mean()
    direction = _vectors(reference, True).mean(axis=0)
    cosine = (centres @ direction) / (np.linalg.norm(centres, axis=1) * np.linalg.norm(direction))
    return cosine.rename("likeness").sort_values(ascending=False)


def summary(labels: pd.Series, particles: pd.DataFrame, *, truth: str = "label") -> pd.DataFrame:
    """One row per cluster: how many particles, from how many tomograms and, where there is truth, of which class.

    Parameters
    ----------
    labels
        Cluster of each particle, indexed by particle id.
    particles
        Particle table; must hold the particles of `labels`.
    truth
        Column of the table with the true class; without such a column the table has no ``class`` and ``purity``.

    Returns
    -------
    DataFrame
        Indexed by cluster: ``size``, ``share`` of all particles, ``tomograms``, then ``class`` (the commonest) and
        ``purity`` (its share of the cluster).

    Raises
    ------
    ValueError
        If particles of `labels` are missing from the table.
    """
    table = particles.set_index("particle_id")
    missing = labels.index.difference(table.index)
    if len(missing):
        raise ValueError(
            f"{len(missing)} of {len(labels)} labelled particles are not in the table, such as {missing[:5].tolist()}"
        )
    table = table.loc[labels.index]
    groups = table.groupby(labels)
    out = pd.DataFrame({"size": groups.size()})
    out["share"] = out["size"] / len(labels)
    out["tomograms"] = groups["tomogram"].nunique()
    if truth in table:
        counts = pd.crosstab(labels, table[truth])
        out["class"] = counts.idxmax(axis=1)
        out["purity"] = counts.max(axis=1) / out["size"]
    return out
