"""Embeddings: every subtomogram as one vector of structural features.

In come a network and subtomograms, out comes an `Embedding`: particle ids and the vectors that the layer before the
softmax gives (Xu et al. 2017), with the digest of the network that made them. Subtomograms stream through in batches,
so memory holds one batch and the vectors.

>>> vectors = embed(network, subtomograms)
>>> reduced = pca(vectors, 32)
>>> points = flat(reduced, method="tsne", seed=0)      # particle_id, x, y
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from tqdm.auto import tqdm

from tomolab import devices, files, networks
from tomolab.subtomograms import Subtomograms


@dataclass(frozen=True, eq=False)
class Embedding:
    """Feature vectors of particles.

    Parameters
    ----------
    ids
        Particle ids, shape (n,), unique integers.
    vectors
        Features, shape (n, d), finite; converted to float32. Row i belongs to ``ids[i]``.
    network
        Digest of the network that made them (`networks.digest`).

    Raises
    ------
    ValueError
        If the lengths differ, an id is repeated or not a whole number, or a vector holds NaN or infinity.
    """

    ids: np.ndarray
    vectors: np.ndarray
    network: str

    def __post_init__(self) -> None:
        ids, vectors = np.asarray(self.ids), np.asarray(self.vectors, dtype=np.float32)
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"particle ids must be integers, got {ids.dtype}")
        if vectors.ndim != 2 or ids.shape != vectors.shape[:1]:
            raise ValueError(f"an embedding needs ids (n,) and vectors (n, d), got shapes {ids.shape} and {vectors.shape}")
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"particle ids must be unique, but {(counts > 1).sum()} are repeated: {values[counts > 1][:5].tolist()}"
            )
        bad = ids[~np.isfinite(vectors).all(axis=1)]
        if len(bad):
            raise ValueError(f"the vectors of {len(bad)} particles hold NaN or infinity, such as particles {bad[:5].tolist()}")
        object.__setattr__(self, "ids", ids.astype(np.int64))
        object.__setattr__(self, "vectors", vectors)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Embedding({len(self)} particles x {self.vectors.shape[1]} features, network {self.network[:8]})"

    def take(self, ids: np.ndarray) -> "Embedding":
        """Take the vectors of these particles, in this order; KeyError if one is not in the embedding."""
        rows = pd.Index(self.ids).get_indexer(np.asarray(ids, dtype=np.int64))
        unknown = np.asarray(ids)[rows < 0]
        if len(unknown):
            raise KeyError(f"{len(unknown)} of {len(rows)} particles are not in the embedding, such as {unknown[:5].tolist()}")
        return Embedding(self.ids[rows], self.vectors[rows], self.network)

    def save(self, path: str | Path) -> None:
        """Write to `path` as .npz without pickle, whole or not at all."""
        # Given a name, numpy would append .npz to the temporary one.
        with files.atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=self.ids, vectors=self.vectors, network=np.array(self.network))


def load(path: str | Path) -> Embedding:
    """Read an embedding from the .npz file `path`; ValueError if it is none, or could only be read by pickle."""
    with np.load(path, allow_pickle=False) as stored:
        missing = {"ids", "vectors", "network"} - set(getattr(stored, "files", ()))
        if missing:
            raise ValueError(f"{path} is not an embedding: it has no {', '.join(sorted(missing))}")
        return Embedding(stored["ids"], stored["vectors"], str(stored["network"]))


def embed(
    network: torch.nn.Module,
    subtomograms: Subtomograms,
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    precision: str = "auto",
    progress: bool = True,
) -> Embedding:
    """Features of every subtomogram, from the layer before the softmax.

    Parameters
    ----------
    network
        A network of `networks`; it is left in the mode and on the device in which it came.
    subtomograms
        What to embed; read in batches, in order.
    batch_size
        Subtomograms per batch.
    device
        Where to compute, such as "cuda"; where the network is by default.
    precision
        "float32", "bfloat16", or "auto": bfloat16 where the device computes in it natively, else float32.
        bfloat16 changes the features by about half a per cent.
    progress
        Show a bar with subtomograms per second and the time left.

    Raises
    ------
    ValueError
        If the box or the voxel size (by more than 1 %) is not the one of the network, if there is nothing to embed,
        or if a GPU is asked for and absent.
    """
    if len(subtomograms) == 0:
        raise ValueError("there are no subtomograms to embed")
    networks.check(network, box=subtomograms.box, voxel_size=subtomograms.voxel_size)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    features: Callable[[torch.Tensor], torch.Tensor] = network.features  # type: ignore[assignment]
    home = next((p.device for p in network.parameters()), torch.device("cpu"))
    target = devices.pick(home if device is None else device)
    rough = devices.bfloat16(target, precision)
    modes = [(module, module.training) for module in network.modules()]
    ids, vectors, done = np.empty(len(subtomograms), np.int64), None, 0
    try:
        # Channels last is faster for 3-D convolutions on both kinds of device, and changes no more than rounding.
        network.to(device=target, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
        bar = tqdm(total=len(ids), desc="embedding", unit=" subtomograms", disable=not progress)
        with torch.inference_mode(), torch.autocast(target.type, dtype=torch.bfloat16, enabled=rough), bar:
            for batch_ids, volumes in _ahead(subtomograms.batches(batch_size)):
                batch = torch.from_numpy(np.ascontiguousarray(volumes, dtype=np.float32)).to(target, non_blocking=True)
                found = features(batch).float().cpu().numpy()
                if vectors is None:
                    vectors = np.empty((len(ids), found.shape[1]), np.float32)
                rows = slice(done, done + len(batch_ids))
                ids[rows], vectors[rows] = batch_ids, found
                done = rows.stop
                bar.update(len(batch_ids))
    finally:
        network.to(home)
        for module, mode in modes:
            module.training = mode
    if vectors is None or done != len(ids):
        raise ValueError(f"the subtomograms gave {done} volumes, expected {len(ids)}")
    return Embedding(ids, vectors, networks.digest(network))


def _ahead(batches: Iterator) -> Iterator:
    """Read each batch while the one before is computed on."""
    batches = iter(batches)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(lambda: list(islice(batches, 1)))
        while batch := coming.result():
            coming = reader.submit(lambda: list(islice(batches, 1)))
            yield batch[0]


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
    n, d = embedding.vectors.shape
    if not 1 <= components <= min(n, d):
        raise ValueError(f"PCA of {n} particles with {d} features has 1 to {min(n, d)} components, got components={components}")
    # Beyond 80 % of 500 x 500 sklearn may choose a randomised solver: it is given a seed to be repeatable.
    vectors = PCA(components, whiten=whiten, random_state=0).fit_transform(embedding.vectors)
    return Embedding(embedding.ids, vectors, embedding.network)


def flat(embedding: Embedding, *, method: str = "pca", seed: int = 0) -> pd.DataFrame:
    """Project on two dimensions to look at: a table particle_id, x, y.

    Parameters
    ----------
    embedding
        Vectors (n, d).
    method
        "pca", linear and fast, or "tsne" (van der Maaten and Hinton 2008, on the first 50 principal components), which
        shows neighbourhoods but neither distances nor densities, and takes about a minute per 10,000 particles.
    seed
        Seed of t-SNE.

    Raises
    ------
    ValueError
        If the method is unknown or there are too few particles for it (2; t-SNE 5).
    """
    n, d = embedding.vectors.shape
    if method not in ("pca", "tsne"):
        raise ValueError(f'method is "pca" or "tsne", got {method!r}')
    if method == "pca":
        points = pca(embedding, 2).vectors
    elif n < 5:
        raise ValueError(f"t-SNE needs at least 5 particles, got {n}")
    else:
        start = pca(embedding, min(50, n, d)).vectors
        points = TSNE(2, init="pca", perplexity=min(30.0, (n - 1) / 4), random_state=seed).fit_transform(start)
    return pd.DataFrame({"particle_id": embedding.ids, "x": points[:, 0], "y": points[:, 1]})
