"""A network and labelled subtomograms in, accuracy on its classes and clustering scores on classes it has never seen out.

>>> evaluate(network, held_back)["accuracy"]
>>> novel(network, left_out, seed=1)["novel_ari"]
"""

from contextlib import closing
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor
from torch.nn import functional

from tomolab import parallel
from tomolab.learning import embedding, networks
from tomolab.learning.datasets import labels_of
from tomolab.learning.networks import Network
from tomolab.subtomograms.dataset import Subtomograms

BATCH = 128
"""Subtomograms that are read at once."""


def features(network: Network, subtomograms: Subtomograms, *, precision: str = "auto") -> Tensor:
    """Features (n, d) of all subtomograms, float32, on the CPU.

    Parameters
    ----------
    network
        A network; left in the mode in which it came.
    subtomograms
        Read in batches.
    precision
        "float32", "bfloat16", or "auto": bfloat16 where the hardware multiplies it fast.
    """
    device = next(network.parameters()).device
    batches = (volumes for _, volumes in subtomograms.batches(BATCH))
    bfloat16 = parallel.use_bfloat16(device, precision)
    with closing(embedding.stream_features(network, batches, device=device, bfloat16=bfloat16)) as stream:
        return torch.from_numpy(np.concatenate(list(stream)))


def evaluate(network: Network, subtomograms: Subtomograms, *, precision: str = "auto") -> dict[str, Any]:
    """Loss, accuracy and confusion matrix of a network on labelled subtomograms of classes that it knows.

    Parameters
    ----------
    network
        A network; left in the mode in which it came.
    subtomograms
        With a `label` column.
    precision
        As in `features`.

    Returns
    -------
    dict
        ``loss`` (cross-entropy), ``accuracy``, and ``confusion``, counts (true class, predicted class).

    Raises
    ------
    ValueError
        If a label is not among the network's classes.
    """
    truth = labels_of(subtomograms, network.classes)
    vectors = features(network, subtomograms, precision=precision)
    with torch.inference_mode():
        logits = network.head(vectors.to(next(network.parameters()).device)).cpu()
    predicted = logits.argmax(1)
    size = len(network.classes)
    confusion = torch.bincount(truth * size + predicted, minlength=size * size).reshape(size, size).numpy()
    return {
        "loss": float(functional.cross_entropy(logits, truth)),
        "accuracy": float((predicted == truth).float().mean()),
        "confusion": confusion,
    }


def novel(network: Network, subtomograms: Subtomograms, *, seed: int, precision: str = "auto") -> dict[str, float]:
    """How well features of classes that a network was not trained on fall into clusters: k-means with as many as classes.

    Parameters
    ----------
    network
        A network; left in the mode in which it came.
    subtomograms
        With a `label` column of at least two classes.
    seed
        Seed of k-means (best of 10 starts), on features scaled to length 1.
    precision
        As in `features`.

    Returns
    -------
    dict
        ``novel_ari``, the adjusted Rand index of clusters and classes (Hubert and Arabie 1985), and ``novel_purity``
        (`purity`).
    """
    names, truth = np.unique(subtomograms.particles["label"].astype(str), return_inverse=True)
    vectors = functional.normalize(features(network, subtomograms, precision=precision)).numpy()
    found = KMeans(len(names), n_init=10, random_state=seed).fit_predict(vectors)
    return {"novel_ari": float(adjusted_rand_score(truth, found)), "novel_purity": purity(truth, found)}


def purity(truth: np.ndarray, found: np.ndarray) -> float:
    """Share of particles in the commonest class of their cluster, by classes (n,) and clusters (n,)."""
    counts = contingency_matrix(truth, found)
    return float(counts.max(axis=0).sum() / counts.sum())


def check(network: Network, validation: Subtomograms, unseen: Subtomograms | None = None) -> None:
    """Refuse subtomograms whose boxes, voxel sizes or labels do not fit the network; ValueError.

    Those for validation are of classes that it knows, the unseen ones of at least two classes that it does not know.
    """
    networks.check(network, box=validation.box, voxel_size=validation.voxel_size)
    labels_of(validation, network.classes)
    if unseen is None:
        return
    networks.check(network, box=unseen.box, voxel_size=unseen.voxel_size)
    labels = set(unseen.particles["label"].astype(str))
    if len(labels) < 2 or labels & set(network.classes):
        known = sorted(labels & set(network.classes))
        raise ValueError(
            f"novel subtomograms must be of at least two classes that are not trained on, got {len(labels)} classes"
            + (f", of which the network knows {', '.join(known)}" if known else "")
        )
