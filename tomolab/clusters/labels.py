"""Cluster labels in, cluster labels or a summary out: merge and split clusters, and look into them.

The founding paper makes more clusters than there are classes, which are then looked at and merged (`hierarchy` proposes how).

>>> labels = kmeans(embedding, 12, seed=0)
>>> fewer = merge(labels, [[0, 3], [5, 7, 8]])
>>> became(labels, fewer)
>>> summary(labels, particles)
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tomolab.clusters.clustering import directions, kmeans, series
from tomolab.learning.embedding import Embedding


def merge(labels: pd.Series, groups: Iterable[Iterable[int]]) -> pd.Series:
    """Join clusters.

    Parameters
    ----------
    labels
        As everywhere in `tomolab.clusters`. In the result clusters are numbered anew; `became` says what became what.
    groups
        Clusters that become one, group by group; those not named stay as they are. `hierarchy.cut` proposes groups.

    Raises
    ------
    ValueError
        If a cluster is unknown or named twice.
    """
    joining = [[int(cluster) for cluster in group] for group in groups]
    named = [cluster for group in joining for cluster in group]
    _known(labels, named)
    if len(set(named)) < len(named):
        raise ValueError(f"a cluster can go into one group, but {sorted({c for c in named if named.count(c) > 1})} are in two")
    joined = {cluster: group[0] for group in joining for cluster in group}
    return series(labels.map(lambda cluster: joined.get(cluster, cluster)).to_numpy(), labels.index.to_numpy())


def split(embedding: Embedding, labels: pd.Series, cluster: int, *, k: int = 2, seed: int, normalise: bool = True) -> pd.Series:
    """Divide one cluster into k by k-means among its own particles.

    Parameters
    ----------
    embedding, labels, seed, normalise
        As everywhere in `tomolab.clusters`. In the result clusters are numbered anew; `became` says what became what.
    cluster, k
        The one to divide, and into how many.

    Raises
    ------
    ValueError
        If there is no such cluster, or it has less than k particles.
    """
    _known(labels, [cluster])
    members = embedding.take(labels.index[labels == cluster].to_numpy())
    divided = kmeans(members, k, seed=seed, normalise=normalise)
    found = labels.copy()
    found.loc[divided.index] = divided + labels.max() + 1
    return series(found.to_numpy(), labels.index.to_numpy())


def became(before: pd.Series, after: pd.Series) -> pd.DataFrame:
    """What became of each cluster: by merging, splitting, or another method or seed.

    Parameters
    ----------
    before, after
        Labels of the same particles.

    Returns
    -------
    DataFrame
        A row for every pair of clusters that share particles, the largest share of each cluster before first: ``before``,
        ``after``, ``particles``, ``share`` of the cluster before, and ``jaccard``, particles in both over particles in either.

    Raises
    ------
    ValueError
        If the two do not label the same particles.
    """
    other = before.index.symmetric_difference(after.index)
    if len(other):
        raise ValueError(f"{len(other)} particles have only one of two labels, such as {other[:5].tolist()}")
    pairs = pd.DataFrame({"before": before, "after": after.loc[before.index]})
    out = pairs.groupby(["before", "after"]).size().rename("particles").reset_index()
    sizes = [out.groupby(name)["particles"].transform("sum") for name in ("before", "after")]
    out["share"] = out["particles"] / sizes[0]
    out["jaccard"] = out["particles"] / (sizes[0] + sizes[1] - out["particles"])
    return out.sort_values(["before", "particles"], ascending=[True, False], ignore_index=True)


def centres(embedding: Embedding, labels: pd.Series, *, normalise: bool = True) -> pd.DataFrame:
    """Mean vector of every cluster, (clusters, d), indexed by cluster; particles in no cluster take no part.

    With `normalise` it is the mean of directions, of length below 1.
    """
    held = labels[labels != -1]
    if held.empty:
        raise ValueError(f"none of {len(labels)} particles is in a cluster")
    vectors = pd.DataFrame(directions(embedding.take(held.index.to_numpy()), normalise))
    return vectors.groupby(held.to_numpy()).mean().rename_axis("cluster")


def nearest(embedding: Embedding, labels: pd.Series, *, normalise: bool = True) -> pd.Series:
    """Distance of each particle to the centre of its cluster; sorted, it puts the most typical particles first.

    The Series "distance" has the order and the index of `labels`; NaN for particles in no cluster.
    """
    vectors = directions(embedding.take(labels.index.to_numpy()), normalise)
    middle = centres(embedding, labels, normalise=normalise).reindex(labels.to_numpy())
    return pd.Series(np.linalg.norm(vectors - middle.to_numpy(), axis=1), index=labels.index, name="distance")


def likeness(embedding: Embedding, labels: pd.Series, reference: Embedding) -> pd.Series:
    """How much the centre of each cluster looks like the centre of a reference, such as simulated particles of one complex.

    Parameters
    ----------
    embedding, labels
        As everywhere in `tomolab.clusters`.
    reference
        Vectors (m, d) of the same network.

    Returns
    -------
    Series
        Indexed by cluster, named "likeness": cosine between the mean directions of cluster and reference, largest first.

    Raises
    ------
    ValueError
        If the two embeddings are of different networks, or no particle is in a cluster.
    """
    embedding.check_network(reference.network)
    middle = centres(embedding, labels)
    direction = directions(reference, True).mean(axis=0)
    cosine = (middle @ direction) / (np.linalg.norm(middle, axis=1) * np.linalg.norm(direction))
    return cosine.rename("likeness").sort_values(ascending=False)


def summary(labels: pd.Series, particles: pd.DataFrame, *, truth: str = "label") -> pd.DataFrame:
    """One row per cluster: how many particles, from how many tomograms and, where there is truth, of which class.

    Parameters
    ----------
    labels
        As everywhere in `tomolab.clusters`; particles in no cluster make the last row, -1.
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
    return out.loc[np.roll(out.index, -1) if out.index[0] == -1 else out.index]


def _known(labels: pd.Series, named: Iterable[int]) -> None:
    """Refuse clusters that are not in the labels, -1 among them: it is no cluster."""
    known = sorted(set(labels.unique()) - {-1})
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise ValueError(f"there is no cluster {', '.join(map(str, unknown))}; there are {', '.join(map(str, known))}")
