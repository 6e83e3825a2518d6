"""Feature vectors in, points in two dimensions out, to look at.

>>> points = flat(embedding, seed=0)                # particle_id, x, y
>>> plain = flat(embedding, method="pca")           # what lies along the two directions of greatest variance
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsRegressor
from tqdm.auto import tqdm

from tomolab.clusters.clustering import directions, sample
from tomolab.learning import pca
from tomolab.learning.embedding import Embedding

SAMPLE = 20_000
"""Particles to which a layout is fit, at most; the others are placed into it."""
FAINT = 1e-15
"""Size of features whose squared distances leave float32, as those of the inverse size do."""
SAME = 1e-6
"""Spread of features, relative to the largest, up to which they are equal but for rounding."""
CHUNK = 20_000
"""Particles that are placed at once."""
Fitted = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


def flat(
    embedding: Embedding, *, method: str = "umap", seed: int = 0, normalise: bool = True, progress: bool = True
) -> pd.DataFrame:
    """Project on two dimensions to look at: a table particle_id, x, y.

    UMAP and t-SNE work on the first 50 principal components. Both show neighbourhoods, but neither distances between groups
    nor densities; never let them decide what is a cluster. Beyond 20,000 particles they are fit to so many drawn at random,
    and place the others into this layout.

    Of 16 complexes, six of them never seen in training, 3,200 particles at SNR 0.1, UMAP and t-SNE kept the ten nearest
    neighbours equally well (87 and 86 % of the particles tell their class by them, 88 % by all features, 58 % with PCA). UMAP
    drew the classes further apart (silhouette 0.50, t-SNE 0.45, PCA 0.04), and it places new particles, which t-SNE cannot:
    so it is the default (``benchmarks/bench_partitions.py``). The first call compiles for some ten seconds.

    Parameters
    ----------
    embedding, seed, normalise
        As everywhere in `tomolab.clusters`.
    method
        "umap" (McInnes, Healy and Melville 2018), "tsne" (van der Maaten and Hinton 2008), or "pca", linear and fast.
    progress
        Show a bar while the particles beyond the sample are placed.

    Raises
    ------
    ValueError
        If the method is unknown or there are too few particles for it (2; UMAP and t-SNE 5), or all features are
        the same.
    """
    n, d = embedding.vectors.shape
    methods: dict[str, Callable[..., Fitted]] = {"umap": _umap, "tsne": _tsne}
    if method not in ("pca", *methods):
        raise ValueError(f'method is "umap", "tsne" or "pca", got {method!r}')
    if n < (2 if method == "pca" else 5):
        raise ValueError(f"{method} needs at least {2 if method == 'pca' else 5} particles, got {n}")
    whole = Embedding(embedding.ids, directions(embedding, normalise), embedding.network)
    reduced = pca.pca(whole, min(2 if method == "pca" else 50, n, d)).vectors
    largest = np.abs(whole.vectors).max()
    if largest and not FAINT < largest < 1 / FAINT:
        raise ValueError(f"the largest feature is {largest:.3g}; distances need {FAINT:g} to {1 / FAINT:g}: scale the features")
    if np.ptp(reduced, axis=0).max() <= SAME * largest:
        same = "point the same way" if normalise else "are the same"
        raise ValueError(f"the features of all {n} particles {same}, which gives no layout; check network and subtomograms")
    points = reduced if method == "pca" else _placed(reduced, methods[method], seed=seed, progress=progress)
    return pd.DataFrame({"particle_id": embedding.ids, "x": points[:, 0], "y": points[:, 1]})


def _placed(vectors: np.ndarray, fit: Callable[..., Fitted], *, seed: int, progress: bool) -> np.ndarray:
    """Points (n, 2): a layout is fit to a sample of the vectors, and the others are placed into it."""
    rows = sample(len(vectors), SAMPLE, seed=seed)
    points = np.empty((len(vectors), 2), np.float32)
    points[rows], place = fit(vectors[rows], seed)
    rest = np.delete(np.arange(len(vectors)), rows)
    with tqdm(total=len(rest), desc="placing", unit=" particles", disable=not progress or not len(rest)) as bar:
        for start in range(0, len(rest), CHUNK):
            some = rest[start : start + CHUNK]
            points[some] = place(vectors[some])
            bar.update(len(some))
    return points


def _umap(vectors: np.ndarray, seed: int) -> Fitted:
    with warnings.catch_warnings():
        # It regrets that tensorflow is absent, which only its parametric variant needs.
        warnings.filterwarnings("ignore", category=ImportWarning, module="umap")
        # Imported here, since it compiles with numba on import, which takes seconds.
        from umap import UMAP
    # A seed and several threads exclude each other. Begun from principal components, the arrangement repeats and no
    # spectral decomposition can fail.
    method = UMAP(n_neighbors=min(15, len(vectors) - 1), init="pca", random_state=seed, transform_seed=seed, n_jobs=1)
    return method.fit_transform(vectors), method.transform


def _tsne(vectors: np.ndarray, seed: int) -> Fitted:
    """t-SNE cannot place what it was not fit to: a particle goes amid its five nearest neighbours, near ones count most."""
    method: Any = TSNE(2, init="pca", perplexity=min(30.0, (len(vectors) - 1) / 4), random_state=seed)
    placed = method.fit_transform(vectors)
    return placed, KNeighborsRegressor(5, weights="distance").fit(vectors, placed).predict
