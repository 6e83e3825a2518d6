"""An embedding in, its principal components out, which apply to any embedding of the same network.

>>> basis = fit(known, 16, whiten=True)
>>> a, b = basis.apply(known), basis.apply(unknown)     # 16 numbers per particle, in one space
>>> reduced = pca(embedding, 32)
"""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils.extmath import svd_flip

from tomolab.learning.embedding import Embedding

WIDE = 2048
"""Features above which the covariance (d, d) is not formed."""


@dataclass(frozen=True, eq=False)
class Components:
    """A linear map onto principal components; made by `fit`.

    Parameters
    ----------
    mean
        Of the features, (d,).
    axes
        Orthonormal directions, (k, d), by falling variance.
    variance
        Along each of them, (k,).
    whiten
        Whether `apply` scales every component to variance 1.
    network
        Digest of the network whose features they are.
    """

    mean: np.ndarray
    axes: np.ndarray
    variance: np.ndarray
    whiten: bool
    network: str

    def apply(self, embedding: Embedding) -> Embedding:
        """Project an embedding (n, d) onto the components: (n, k), a part at a time.

        Raises
        ------
        ValueError
            If it is of another network or has another number of features.
        """
        if (embedding.network, embedding.vectors.shape[1]) != (self.network, len(self.mean)):
            raise ValueError(
                f"these components are for {len(self.mean)} features of network {self.network[:8]}, "
                f"got {embedding.vectors.shape[1]} of {embedding.network[:8]}"
            )
        scale = np.sqrt(self.variance) if self.whiten else np.ones(len(self.axes))
        turn = (self.axes / scale[:, None]).T.astype(np.float32)
        out = np.empty((len(embedding), len(self.axes)), dtype=np.float32)
        for rows, vectors in embedding.blocks():
            out[rows] = (vectors - self.mean.astype(np.float32)) @ turn
        return Embedding(embedding.ids, out, embedding.network)


def fit(embedding: Embedding, count: int, *, whiten: bool = False) -> Components:
    """Find the directions of greatest variance.

    Up to 2,048 features their covariance is summed a part at a time in float64, which is exact and holds no more than a
    part of the vectors; beyond that all vectors are decomposed at once.

    Parameters
    ----------
    embedding
        Vectors (n, d).
    count
        Directions to keep, at most min(n, d).
    whiten
        Scale every direction to variance 1.

    Raises
    ------
    ValueError
        If there are fewer than `count` particles or features, or directions without variance are to be whitened.
    """
    n, d = embedding.vectors.shape
    if not 1 <= count <= min(n, d):
        raise ValueError(f"PCA of {n} particles with {d} features has 1 to {min(n, d)} components, got components={count}")
    if d > WIDE:
        # sklearn may choose a randomised solver: it is given a seed to be repeatable.
        found = PCA(count, random_state=0).fit(np.asarray(embedding.vectors, dtype=np.float32))
        mean, axes, variance = found.mean_, found.components_, found.explained_variance_
    else:
        mean, covariance = _moments(embedding)
        values, columns = np.linalg.eigh(covariance)
        variance = np.maximum(values[::-1][:count], 0)
        # The sign of a direction is free; sklearn's rule for it makes a fit repeatable.
        _, axes = svd_flip(None, columns[:, ::-1][:, :count].T, u_based_decision=False)
    flat = int((variance <= 1e-10 * variance[0]).sum())
    if whiten and flat:
        raise ValueError(f"{flat} of {count} components have no variance to whiten; ask for at most {count - flat}")
    return Components(mean, axes, variance, whiten, embedding.network)


def _moments(embedding: Embedding) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) in float64, in two passes, since in one the covariance would lose its digits."""
    n, d = embedding.vectors.shape
    mean = sum((part.sum(axis=0, dtype=np.float64) for _, part in embedding.blocks()), np.zeros(d)) / n
    covariance = np.zeros((d, d))
    for _, part in embedding.blocks():
        centred = part - mean
        covariance += centred.T @ centred
    return mean, covariance / max(n - 1, 1)


def pca(embedding: Embedding, components: int, *, whiten: bool = False) -> Embedding:
    """Project on the directions of greatest variance.

    Parameters
    ----------
    embedding
        Vectors (n, d).
    components
        Directions to keep, at most min(n, d).
    whiten
        Scale every direction to variance 1.

    Raises
    ------
    ValueError
        If there are fewer than `components` particles or features.
    """
    return fit(embedding, components, whiten=whiten).apply(embedding)
