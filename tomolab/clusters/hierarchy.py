"""Feature vectors and labels in, a tree of merges out: which clusters are most alike; cut, it proposes what to join.

An over-partition is made first, and then joined from the bottom up by Ward's criterion (Ward 1963): at each step the two
clusters whose union raises the sum of squares within clusters least, which counts their particles and not only their
centres.

>>> tree = merges(embedding, labels)
>>> clusters.merge(labels, cut(tree, 5))
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster

from tomolab.clusters.labels import centres
from tomolab.learning.embedding import Embedding


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree of merges; made by `merges`.

    Parameters
    ----------
    clusters
        Clusters at its leaves, ascending.
    sizes
        Particles in each of them.
    links
        Merges (clusters - 1, 4), as scipy writes them: the two nodes, the height, and the leaves below. Node i below the
        number of clusters is ``clusters[i]``, the ones above are earlier merges.
    """

    clusters: tuple[int, ...]
    sizes: tuple[int, ...]
    links: np.ndarray

    def __repr__(self) -> str:
        return f"Tree({len(self.clusters)} clusters, {sum(self.sizes):,} particles)"


def merges(embedding: Embedding, labels: pd.Series, *, normalise: bool = True) -> Tree:
    """Join clusters two by two until one is left.

    The height of a merge is sqrt(2 n m / (n + m)) times the distance of the two centres, n and m being the particles in
    each. Leaving the sizes out, as linkage of bare centres does, recovers known classes less well: joining two to three
    times as many clusters as there were classes (80 sets of 3 to 16 complexes, at SNR 0.1 and 0.05), the mean adjusted
    Rand index was 0.84 with sizes, 0.81 with Ward's linkage of bare centres, 0.79 with average linkage of cosines, and
    0.84 for k-means given the right number.

    Parameters
    ----------
    embedding, labels, normalise
        As everywhere in `tomolab.clusters`.

    Raises
    ------
    ValueError
        If there are fewer than two clusters.
    """
    middle = centres(embedding, labels, normalise=normalise)
    if len(middle) < 2:
        raise ValueError(f"a tree needs at least two clusters, got {len(middle)}")
    sizes = labels.value_counts().loc[middle.index].to_numpy()
    return Tree(tuple(middle.index.tolist()), tuple(sizes.tolist()), _ward(middle.to_numpy(dtype=float), sizes.astype(float)))


def _ward(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ward's linkage (k - 1, 4) of points (k, d) with weights (k,), which scipy's has not."""
    points, weights = points.copy(), weights.copy()
    nodes, leaves = np.arange(len(points)), np.ones(len(points), dtype=int)
    squares = (points**2).sum(axis=1)
    costs = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0) * _reduced(weights[:, None], weights)
    np.fill_diagonal(costs, np.inf)
    links = np.empty((len(points) - 1, 4))
    for step in range(len(links)):
        i, j = sorted(np.unravel_index(costs.argmin(), costs.shape))
        links[step] = *sorted((nodes[i], nodes[j])), np.sqrt(2 * costs[i, j]), leaves[i] + leaves[j]
        points[i] = (weights[i] * points[i] + weights[j] * points[j]) / (weights[i] + weights[j])
        weights[i], leaves[i], nodes[i] = weights[i] + weights[j], leaves[i] + leaves[j], len(points) + step
        # The joined cluster takes the place of the first; the second is out of play.
        fresh = ((points - points[i]) ** 2).sum(axis=1) * _reduced(weights, weights[i])
        fresh[np.isinf(costs[i]) | (np.arange(len(points)) == j)] = np.inf
        costs[i], costs[:, i] = fresh, fresh
        costs[j], costs[:, j] = np.inf, np.inf
    return links


def _reduced(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a * b / (a + b)


def cut(tree: Tree, k: int) -> list[list[int]]:
    """Clusters of each of the k groups into which a tree is cut, the group of cluster 0 first, for `clusters.merge`.

    Raises
    ------
    ValueError
        If k is not 1 to the number of clusters.
    """
    return [group.tolist() for _, group in pd.Series(tree.clusters).groupby(groups(tree, k), sort=False)]


def groups(tree: Tree, k: int) -> np.ndarray:
    """Group of every leaf of the tree, (clusters,), when it is cut into k; ValueError as `cut`."""
    if not 1 <= k <= len(tree.clusters):
        raise ValueError(f"a tree of {len(tree.clusters)} clusters is cut into 1 to that many groups, got k={k}")
    # Merges of equal height cannot be told apart by a threshold, so the cut counts merges instead of measuring them.
    ranks = tree.links.copy()
    ranks[:, 2] = np.arange(len(ranks))
    return fcluster(ranks, len(tree.clusters) - k - 0.5, "distance")
