"""Feature vectors in; out comes which particles and clusters are unlike every class that the network was trained on.

A `Reference` is made of known particles with their classes. Every novelty that it gives to other embeddings of the same
network is a share of known particles, or of clusters of them, so it means the same for every network:

- A *particle* of novelty 0.95 looks less familiar than 95 % of known particles.
- A *cluster* of novelty 0.95 looks less familiar than 95 % of the clusters that k-means finds when it divides as many known
  particles into as many clusters.

One half of the known particles says what is familiar, and is compared with the other half (conformal p-values, Vovk 2005);
then the halves change places, and the two answers are averaged. A particle is scored by relative Mahalanobis distance (Ren
et al. 2021), a cluster by the Mahalanobis distance of its mean from the nearest mean of a cluster that k-means finds in the
first half. Random groups of one class would not do: k-means also finds parts of a class and what two classes share.

Known particles must be imaged as the data: whatever differs (signal to noise, tilt range, crowding) counts as novel. With
fewer than twice as many known particles as data, the novelty of clusters is too low: the more particles a class has, the
farther k-means takes its parts from each other.

>>> known = reference(embed(network, simulated), simulated.particles.set_index("particle_id")["label"])
>>> known.particles(measured)
>>> known.clusters(measured, clusters.kmeans(measured, 24, seed=0))
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.covariance import ledoit_wolf
from sklearn.preprocessing import normalize

from tomolab.clusters.labels import centres
from tomolab.learning.embedding import Embedding

FEWEST = 8
"""Known particles that every class must have: half of them say where the class lies."""
FINE = 200
"""Clusters that k-means finds at least in each half, in as many runs as that takes, so that shares are fine."""
MOST = 100
"""Clusters of one run, for speed: more of them are looked for among as many fewer particles."""
ROOM = 16
"""Particles that a cluster needs for a mean that says something, where the known particles are fewer than the data."""
BATCH = 65_536


@dataclass(frozen=True, eq=False)
class _Half:
    """What one half of the known particles (``seen``) says is familiar; the other half is ``unseen``.

    ``means`` are those of the classes; ``within`` and ``total`` whiten by the covariance within classes and of all.
    """

    means: np.ndarray
    within: np.ndarray
    total: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """Relative Mahalanobis distance: to the nearest class, less that to all known particles as one cloud; squared."""
        blocks = [vectors[start : start + BATCH].astype(np.float64) for start in range(0, len(vectors), BATCH)]
        middle = self.seen.mean(axis=0, keepdims=True)
        return np.concatenate(
            [_distances(block, self.means, self.within) - _distances(block, middle, self.total) for block in blocks]
        )

    def novelty(self, vectors: np.ndarray) -> np.ndarray:
        """Share of the other half that looks more familiar."""
        return _share(self.score(self.unseen), self.score(vectors))

    def cluster_novelty(self, centres: np.ndarray, total: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Novelty (k,) of the means (k, d) of clusters of `total` particles, and squared distances from what is familiar."""
        like = {"count": len(centres), "total": total, "classes": len(self.means)}
        # Two streams, so that the halves do not share starts.
        places = np.concatenate([self.means, _centres(self.seen, **like, seed=2 * seed)])
        known = _centres(self.unseen, **like, seed=2 * seed + 1)
        distances = _distances(centres, places, self.within)
        return _share(_distances(known, places, self.within), distances), distances


def _distances(vectors: np.ndarray, places: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance from each vector to the nearest of the places."""
    return cdist(vectors @ whitening, places @ whitening, "sqeuclidean").min(axis=1)


def _share(familiar: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of `familiar` that lies below each score; the score itself counts as one of them, so 1 is never reached."""
    return np.searchsorted(np.sort(familiar), scores, side="left") / (len(familiar) + 1)


def _centres(vectors: np.ndarray, *, count: int, total: int, classes: int, seed: int) -> np.ndarray:
    """Means of the clusters that k-means finds by direction: `count` among `total`, and at least one for each class."""
    # Every class has half of `FEWEST` particles in each half.
    most = min(len(vectors), max(total, classes * FEWEST // 2))
    k = int(np.clip(count, classes, max(classes, most / min(total / count, ROOM))))
    share, k = min(1, MOST / k), min(k, MOST)
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(-(-FINE // k)):
        some = vectors[generator.permutation(len(vectors))[: int(np.ceil(most * share))]]
        start = int(generator.integers(2**31))
        labels = KMeans(k, n_init=1, random_state=start).fit_predict(normalize(some))
        means += [some[labels == one].mean(axis=0) for one in np.unique(labels)]
    return np.stack(means)


def _whitening(residuals: np.ndarray) -> np.ndarray:
    """Matrix W with W Wᵀ the inverse covariance of centred vectors, shrunk as Ledoit and Wolf (2004)."""
    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    values, axes = np.linalg.eigh(covariance)
    return axes / np.sqrt(values.clip(values[-1] * 1e-9))


def _half(vectors: np.ndarray, codes: np.ndarray, seen: np.ndarray) -> _Half:
    inside, own = vectors[seen], codes[seen]
    means = np.stack([inside[own == code].mean(axis=0) for code in range(codes.max() + 1)])
    return _Half(
        means=means,
        within=_whitening(inside - means[own]),
        total=_whitening(inside - inside.mean(axis=0)),
        seen=inside,
        unseen=vectors[~seen],
    )


def reference(known: Embedding, labels: pd.Series, *, seed: int = 0) -> "Reference":
    """Learn what is familiar from particles of the training classes.

    Parameters
    ----------
    known
        Features of known particles, best ones that the network was not trained on, imaged as the data.
    labels
        Class of each known particle, indexed by particle id; may name more particles.
    seed
        Decides how the known particles are halved, and the starts of k-means.

    Raises
    ------
    ValueError
        If known particles have no label, an id is repeated, there are fewer than two classes, or fewer than 8 particles of one.
    """
    codes, classes = pd.factorize(known.match_labels(labels), sort=True)
    counts = np.bincount(codes, minlength=len(classes))
    if len(classes) < 2 or counts.min() < FEWEST:
        raise ValueError(
            f"a reference needs at least two classes with {FEWEST} particles each, "
            f"got {dict(zip(classes.tolist(), counts.tolist(), strict=True))}"
        )
    # Every other particle of each class, in random order.
    order = np.random.default_rng(seed).permutation(len(codes))
    seen = np.empty(len(codes), bool)
    seen[order] = pd.Series(codes[order]).groupby(codes[order]).cumcount().to_numpy() % 2 == 0
    vectors = known.vectors.astype(np.float64)
    directions = normalize(vectors)
    return Reference(
        classes=tuple(classes.tolist()),
        network=known.network,
        directions=np.stack([directions[codes == code].mean(axis=0) for code in range(len(classes))]),
        halves=(_half(vectors, codes, seen), _half(vectors, codes, ~seen)),
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class Reference:
    """What is familiar; made by `reference`.

    Parameters
    ----------
    classes
        Names of the known classes.
    network
        Digest of the network that made the features.
    directions
        Mean direction of each class, (classes, d).
    halves
        What each half of the known particles says is familiar.
    seed
        Decides the starts of k-means.
    """

    classes: tuple[str, ...]
    network: str
    directions: np.ndarray
    halves: tuple[_Half, _Half]
    seed: int

    def particles(self, embedding: Embedding) -> pd.Series:
        """Novelty of every particle, 0 familiar to 1 novel: a Series "novelty", indexed by particle id.

        It is the share of known particles that look more familiar. For particles of known classes, in equal numbers and imaged
        as the reference, it is uniform between 0 and 1. Features of another network are a ValueError.
        """
        embedding.check_network(self.network)
        shares = np.mean([half.novelty(embedding.vectors) for half in self.halves], axis=0)
        return pd.Series(shares, index=pd.Index(embedding.ids, name="particle_id"), name="novelty")

    def clusters(self, embedding: Embedding, labels: pd.Series, *, novel: float = 0.9, smallest: int = 20) -> pd.DataFrame:
        """Novelty of clusters, and which to average first.

        The order: first the clusters of at least `smallest` particles whose novelty is at least `novel`, by distance times
        compactness, so that what is farthest from all that is known, and tight, comes first. Then the others, by novelty.
        Sizes do not count beyond `smallest`: the largest clusters are mostly known classes that just pass.

        Parameters
        ----------
        embedding, labels
            As everywhere in `tomolab.clusters`. Give all clusters of the data at once: how many there are decides what they
            are compared with.
        novel
            Novelty from which a cluster counts as novel.
        smallest
            Particles from which a cluster is worth averaging.

        Returns
        -------
        DataFrame
            Indexed by cluster: ``size``; ``novelty``, the share of clusters found in the same way among known particles
            that look more familiar; ``distance`` from what is familiar, in standard deviations within a class, which tells
            apart clusters that all have the highest novelty; ``class``, the known class nearest in direction, and
            ``likeness``, the cosine to it; ``compactness``, the mean cosine between two of its particles (missing for one
            particle); ``rank``, from 1, in which to average.

        Raises
        ------
        ValueError
            If the features are of another network, or no particle is in a cluster.
        """
        embedding.check_network(self.network)
        middles, directions = (centres(embedding, labels, normalise=one).astype(float) for one in (False, True))
        sizes = labels.value_counts().loc[middles.index]
        table = pd.DataFrame({"size": sizes}).rename_axis("cluster")
        found = [half.cluster_novelty(middles.to_numpy(), int(sizes.sum()), seed=self.seed) for half in self.halves]
        table["novelty"], table["distance"] = np.mean(found, axis=0)
        table["distance"] **= 0.5
        cosines = normalize(directions) @ normalize(self.directions).T
        table["class"] = np.array(self.classes)[cosines.argmax(axis=1)]
        table["likeness"] = cosines.max(axis=1)
        # Of m unit vectors with a mean of length r, the mean cosine of two different ones is (m r² - 1) / (m - 1).
        pairs = (sizes - 1).where(sizes > 1)
        table["compactness"] = (sizes * (directions**2).sum(axis=1) - 1) / pairs
        return table.assign(rank=_ranks(table, novel=novel, smallest=smallest))


def _ranks(table: pd.DataFrame, *, novel: float, smallest: int) -> pd.Series:
    """Place of every cluster in the order in which to average, from 1."""
    worth = (table["novelty"] >= novel) & (table["size"] >= smallest)
    first = (table["distance"] * table["compactness"].fillna(0)).where(worth, table["novelty"])
    order = pd.DataFrame({"others": ~worth, "first": -first}).sort_values(["others", "first"], kind="stable").index
    return pd.Series(np.arange(1, len(table) + 1), index=order).reindex(table.index)
