"""Feature vectors in, cluster labels out, by k-means, by density, or as a mixture of Gaussians.

>>> labels = kmeans(embedding, 12, seed=0)
>>> cores = hdbscan(embedding)
>>> mixture = gaussians(embedding, 8, seed=0)
>>> sure = mixture.labels[mixture.certainty > 0.9]
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from tomolab.learning.embedding import Embedding
from tomolab.learning.pca import pca

MANY = 50_000
"""Particles among which k-means looks for its first centres, at most."""
SAMPLE = 20_000
"""Particles among which HDBSCAN looks for clusters, and to which a mixture of Gaussians is fit, at most."""
ROUNDS = 10
"""Rounds over all particles by which k-means improves centres that were found among some."""
NOISE = -1
"""Label of a particle in no cluster."""


def kmeans(embedding: Embedding, k: int, *, seed: int, normalise: bool = True) -> pd.Series:
    """Cluster by k-means (k-means++, best of 10 starts; above 20,000 particles, where starts differ little, best of 3).

    Above 50,000 particles the centres are found among so many drawn at random, and then improved by ten rounds of Lloyd's
    algorithm over all. For a million vectors this took about as long as steps over small batches (Sculley 2010), and
    recovered 100 groups better where they touch (adjusted Rand index 0.67 against 0.60) and overlap (0.12 against 0.03),
    and a little worse where they stand apart (0.92 against 0.93): ``benchmarks/bench_partitions.py``.

    Parameters
    ----------
    embedding, seed, normalise
        As everywhere in `tomolab.clusters`.
    k
        Number of clusters, 1 to n.

    Raises
    ------
    ValueError
        If k is less than 1 or more than there are particles.
    """
    if not 1 <= k <= len(embedding):
        raise ValueError(f"k-means of {len(embedding)} particles makes 1 to {len(embedding)} clusters, got k={k}")
    points = directions(embedding, normalise)
    rows = sample(len(points), max(MANY, k), seed=seed)
    method = KMeans(k, n_init=10 if len(rows) <= SAMPLE else 3, random_state=seed).fit(points[rows])
    if len(rows) < len(points):
        # Directions are our own and may be changed in place, the user's vectors not.
        again = KMeans(k, init=method.cluster_centers_, n_init=1, max_iter=ROUNDS, copy_x=not normalise)
        method = again.fit(points)
    return series(method.labels_, embedding.ids)


def hdbscan(
    embedding: Embedding,
    *,
    smallest: int = 20,
    leaves: bool = True,
    components: int = 16,
    seed: int = 0,
    normalise: bool = True,
) -> pd.Series:
    """Cluster by density: HDBSCAN (Campello, Moulavi and Sander 2013), which finds the number of clusters itself.

    It leaves out (-1) whatever lies between clusters, so its clusters are cores: small, pure, and good first candidates for
    averaging, where k-means puts every particle somewhere. Above 20,000 particles, clusters are looked for among so many
    drawn at random, and every other particle takes the label of the nearest of these.

    Parameters
    ----------
    embedding, seed, normalise
        As everywhere in `tomolab.clusters`.
    smallest
        Fewest particles that make a cluster.
    leaves
        Take the finest clusters; otherwise the most persistent ones, which are fewer and larger. Of six complexes never
        seen in training, 200 particles each at SNR 0.1 and 0.05, the finest held 88 and 67 % with an adjusted Rand
        index of 0.81 and 0.87 among these; the most persistent 97 and 85 % with 0.69 and 0.71 (``bench_partitions.py``).
    components
        Principal components to work in; density means little in many dimensions.

    Raises
    ------
    ValueError
        If a cluster is to have less than 2 particles, or more than there are.
    """
    if not 2 <= smallest <= len(embedding):
        raise ValueError(f"the smallest of clusters of {len(embedding)} particles has 2 to that many, got smallest={smallest}")
    points = _reduced(embedding, components, normalise=normalise)
    rows = sample(len(points), SAMPLE, seed=seed)
    method = HDBSCAN(
        min_cluster_size=smallest,
        min_samples=min(5, smallest),
        cluster_selection_method="leaf" if leaves else "eom",
        copy=True,
    )
    found = method.fit_predict(points[rows])
    if len(rows) < len(points):
        found = KNeighborsClassifier(1).fit(points[rows], found).predict(points)
    return series(found, embedding.ids)


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of Gaussians, as `gaussians` fits it.

    Parameters
    ----------
    labels
        As everywhere in `tomolab.clusters`.
    certainty
        Probability, under the mixture, that the particle belongs to its cluster, indexed by particle id.
    bic
        Bayesian information criterion; of two mixtures of the same particles the lower one is the better description.
    """

    labels: pd.Series
    certainty: pd.Series
    bic: float


def gaussians(
    embedding: Embedding, k: int, *, seed: int, components: int = 10, starts: int = 5, normalise: bool = True
) -> Mixture:
    """Cluster by a mixture of k Gaussians on whitened principal components, which says how sure it is of each particle.

    Clusters may be of unlike width and shape, where those of k-means are round and alike. To at most 20,000 particles
    drawn at random the mixture is fit; all are then labelled by it.

    Parameters
    ----------
    embedding, seed, normalise
        As everywhere in `tomolab.clusters`.
    k
        Number of Gaussians, 1 to n. One that is the likeliest of no particle gives no cluster.
    components
        Principal components to work in. A Gaussian has its own full covariance, which takes about as many particles
        as components squared over 2.
    starts
        Times to begin anew, of which the best is kept. Of six unseen complexes at SNR 0.1 and 0.05, the adjusted Rand
        index was 0.74 and 0.75 with one start, 0.89 and 0.75 with five; 0.94 and 0.83 with k-means (``bench_partitions.py``).

    Raises
    ------
    ValueError
        If k is less than 1 or more than there are particles.
    """
    if not 1 <= k <= len(embedding):
        raise ValueError(f"a mixture for {len(embedding)} particles has 1 to {len(embedding)} Gaussians, got k={k}")
    points = _reduced(embedding, components, normalise=normalise, whiten=True)
    rows = sample(len(points), max(SAMPLE, k), seed=seed)
    # Whitened data have variance 1 in all: a thousandth of it keeps a Gaussian from closing in on a few particles.
    method = GaussianMixture(k, reg_covar=1e-3, n_init=starts, random_state=seed, max_iter=500).fit(points[rows])
    chance = np.concatenate([method.predict_proba(some) for some in np.array_split(points, 1 + len(points) // SAMPLE)])
    certainty = pd.Series(chance.max(axis=1), index=pd.Index(embedding.ids, name="particle_id"), name="certainty")
    return Mixture(series(chance.argmax(axis=1), embedding.ids), certainty, float(method.bic(points[rows])))


def series(found: np.ndarray, ids: np.ndarray) -> pd.Series:
    """Labels of particles `ids` (n,) from whole numbers (n,), numbered anew with the largest cluster 0; below 0 becomes -1."""
    clusters, codes, counts = np.unique(np.where(found < 0, NOISE, found), return_inverse=True, return_counts=True)
    order = np.argsort(np.where(clusters < 0, 1, -counts), kind="stable")
    ranks = np.argsort(order)
    ranks[clusters < 0] = NOISE
    return pd.Series(ranks[codes], index=pd.Index(ids, name="particle_id"), name="cluster")


def directions(embedding: Embedding, normalise: bool) -> np.ndarray:
    """Vectors (n, d), float32, scaled to length 1 if `normalise`."""
    if not normalise:
        return np.asarray(embedding.vectors, dtype=np.float32)
    out = np.empty(embedding.vectors.shape, dtype=np.float32)
    for rows, vectors in embedding.blocks():
        out[rows] = normalize(vectors)
    return out


def sample(n: int, most: int, *, seed: int) -> np.ndarray:
    """Rows, ascending: all of n, or `most` of them drawn at random."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _reduced(embedding: Embedding, components: int, *, normalise: bool, whiten: bool = False) -> np.ndarray:
    """At most `components` principal components (n, k), of directions if `normalise`."""
    whole = Embedding(embedding.ids, directions(embedding, normalise), embedding.network)
    n, d = whole.vectors.shape
    # n particles span n - 1 directions.
    return pca(whole, max(1, min(components, n - 1, d)), whiten=whiten).vectors
