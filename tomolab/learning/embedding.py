"""Embeddings: every subtomogram as one vector of structural features.

In come a network and subtomograms, out comes an `Embedding`: particle ids and the vectors that the layer before the
softmax gives (Xu et al. 2017), with the digest of the network that made them. Subtomograms stream through in batches; the
vectors lie in memory, or are written to a file as they come, and a run that was cut goes on where it stopped.

>>> vectors = embed(network, subtomograms)
>>> many = embed(network, subtomograms, path="embedding.npz", dtype="float16")
>>> reduced = pca(vectors, 32)
>>> theirs = read("tomotwin.parquet",
...     particles=picks)     # features that another program made (`tomolab.learning.feature_files`)
"""

import copy
import hashlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from tomolab import parallel
from tomolab import particles as tables
from tomolab.io import paths
from tomolab.learning import networks
from tomolab.learning.feature_files import read
from tomolab.learning.partial_array import Part
from tomolab.learning.pca import pca
from tomolab.learning.vectors import Embedding, load
from tomolab.subtomograms import store
from tomolab.subtomograms.dataset import Subtomograms, reachable, reached

__all__ = ["Embedding", "embed", "estimate", "load", "pca", "read"]


def embed(
    network: torch.nn.Module,
    subtomograms: Subtomograms,
    *,
    path: str | Path | None = None,
    dtype: str = "float32",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    precision: str = "auto",
    progress: bool = True,
    client: Any = None,
) -> Embedding:
    """Features of every subtomogram, from the layer before the softmax.

    Parameters
    ----------
    network
        A network of `networks`; it is left in the mode and on the device in which it came.
    subtomograms
        What to embed; read in batches, in order.
    path
        Write the vectors there (.npz) and return the embedding with its vectors mapped from that file, so that memory holds
        one batch however many there are. Until all are done they stand in the folder ``<path>.part``; after a cut the same
        call goes on from there, with the result of an unbroken run. A finished file at `path` is made anew.
    dtype
        "float32", or "float16" for half the space: every number is rounded by at most 1 part in 2,048, less than
        computing in bfloat16 changes it.
    batch_size
        Subtomograms per batch.
    device
        Where to compute, such as "cuda"; where the network is by default.
    precision
        "float32", "bfloat16", or "auto": bfloat16 where the device computes in it natively, else float32.
        bfloat16 changes the features by about half a per cent.
    progress
        Show a bar with subtomograms per second and the time left.
    client
        Workers of a Dask cluster to which the network is sent once, and which compute the batches, each on its own device: by
        default its GPU, if it has one (`parallel`). They read a store at its path themselves; what lies in memory is sent. By
        default the active `distributed.Client`, if there is one; False works here. The result is the same on devices of the
        same kind.

    Raises
    ------
    ValueError
        If the box or the voxel size (by more than 1 %) is not the one of the network, if there is nothing to embed, if a
        GPU is asked for and absent, if a feature is not finite or beyond float16, or if ``<path>.part`` was begun with
        another network, other subtomograms or another precision.
    BlockingIOError
        If another process fills ``<path>.part``.
    """
    _check(network, subtomograms, batch_size=batch_size, dtype=dtype)
    helpers = parallel.active(client)
    home = next((p.device for p in network.parameters()), torch.device("cpu"))
    if device is None and helpers is None:
        device = home
    # "auto" is asked of the cluster once, so that all batches are computed alike.
    [rough] = parallel.each(_rough, [precision], client=helpers, shared=(device,))
    ids, digest = subtomograms.ids, networks.digest(network)
    about = {"network": digest, "precision": "bfloat16" if rough else "float32"}
    if path is not None:
        about["subtomograms"] = _fingerprint(subtomograms)
    # Two kernels that write the same path would fill the same part.
    with nullcontext() if path is None else paths.lock(f"{path}.part"):
        part = Part(len(ids), dtype=dtype, folder=None if path is None else f"{path}.part", about=about)
        bar = tqdm(total=len(ids), initial=part.done, desc="embedding", unit=" subtomograms", disable=not progress)
        rows = [slice(first, first + batch_size) for first in range(part.done, len(ids), batch_size)]
        if helpers is None:
            stream = _features(
                network, _batches(subtomograms, rows), home=home, target=parallel.pick_device(device), rough=rough
            )
        else:
            stream = _gathered(network, subtomograms.volumes, rows, device=device, rough=rough, client=helpers)
        with part, bar, closing(stream):
            for found in stream:
                # A batch is checked before it is kept: NaN must not wait for the end of a long run to be noticed.
                part.add(Embedding(ids[part.done : part.done + len(found)], found, digest).vectors)
                bar.update(len(found))
        whole = Embedding(ids, part.array, digest)
        if path is None:
            return whole
        whole.save(path)
        part.remove()
    return load(path, mapped=True)


def estimate(
    network: torch.nn.Module,
    subtomograms: Subtomograms,
    *,
    dtype: str = "float32",
    batch_size: int = 64,
    batches: int = 4,
    device: str | torch.device | None = None,
    precision: str = "auto",
) -> dict[str, float]:
    """What `embed` will take: a few batches are read and embedded, after one that is not counted.

    Parameters
    ----------
    network, subtomograms, dtype, batch_size, device, precision
        As of `embed`.
    batches
        How many to measure.

    Returns
    -------
    dict
        ``per_second`` and ``seconds``, and the ``bytes`` on disk, which are needed twice until the file is whole.

    Raises
    ------
    ValueError
        As `embed`.
    """
    _check(network, subtomograms, batch_size=batch_size, dtype=dtype)
    home = next((p.device for p in network.parameters()), torch.device("cpu"))
    target = parallel.pick_device(home if device is None else device)
    count = len(subtomograms)
    rows = [slice(first, first + batch_size) for first in range(0, count, batch_size)][: batches + 1]
    # Should there be one batch only, it is measured again.
    some = _batches(subtomograms, rows if len(rows) > 1 else rows * 2)
    rough = parallel.use_bfloat16(target, precision)
    with closing(_features(network, some, home=home, target=target, rough=rough)) as stream:
        width = next(stream).shape[1]
        start = time.perf_counter()
        rate = sum(len(found) for found in stream) / (time.perf_counter() - start)
    return {"per_second": rate, "seconds": count / rate, "bytes": float(count * (width * np.dtype(dtype).itemsize + 8))}


def _check(network: torch.nn.Module, subtomograms: Subtomograms, *, batch_size: int, dtype: str) -> None:
    if len(subtomograms) == 0:
        raise ValueError("there are no subtomograms to embed")
    networks.check(network, box=subtomograms.box, voxel_size=subtomograms.voxel_size)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if dtype not in ("float16", "float32"):
        raise ValueError(f'dtype is "float32" or "float16", got {dtype!r}')


def _fingerprint(subtomograms: Subtomograms) -> str:
    """SHA-256 of ids, positions, box, voxel size, and the first and the last volume: enough to tell two sets apart."""
    total = hashlib.sha256(f"{subtomograms.box} {subtomograms.voxel_size}".encode())
    total.update(np.ascontiguousarray(subtomograms.ids).tobytes())
    total.update(np.ascontiguousarray(tables.positions(subtomograms.particles)).tobytes())
    for row in (0, len(subtomograms) - 1):
        total.update(np.ascontiguousarray(subtomograms.volumes[row : row + 1], dtype=np.float32).tobytes())
    return total.hexdigest()


def _features(
    network: torch.nn.Module, batches: Iterator[np.ndarray], *, home: torch.device, target: torch.device, rough: bool
) -> Generator[np.ndarray]:
    """Yield features (b, d), float32, of batches of volumes; the network is given back as it came."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        _ready(network, target)
        for volumes in store.ahead(batches):
            yield _computed(network, volumes, target=target, rough=rough)
    finally:
        network.to(home)
        for module, mode in modes:
            module.training = mode


def _gathered(
    network: torch.nn.Module,
    volumes: Any,
    rows: list[slice],
    *,
    device: str | torch.device | None,
    rough: bool,
    client: Any,
) -> Generator[np.ndarray]:
    """The same from the workers of a cluster."""
    # The network itself may lie on a GPU that a worker does not have.
    pupil = parallel.Made(_ready, (copy.deepcopy(network).cpu(), device))
    if reachable(volumes):
        yield from parallel.each(_read, rows, client=client, shared=(pupil, device, rough, parallel.Made(reached, (volumes,))))
    else:
        batches = (store.span(volumes, one.start, one.stop) for one in rows)
        yield from parallel.each(_sent, batches, client=client, shared=(pupil, device, rough))


def _read(rows: slice, network: torch.nn.Module, device: str | torch.device | None, *rest: Any) -> np.ndarray:
    rough, volumes = rest
    return _sent(store.span(volumes, rows.start, rows.stop), network, device, rough)


def _sent(volumes: np.ndarray, network: torch.nn.Module, device: str | torch.device | None, rough: bool) -> np.ndarray:
    return _computed(network, _plain(volumes), target=parallel.pick_device(device), rough=rough)


def _rough(precision: str, device: str | torch.device | None) -> bool:
    """Whether to compute in bfloat16 on the device of this process."""
    return parallel.use_bfloat16(parallel.pick_device(device), precision)


def _ready(network: torch.nn.Module, target: str | torch.device | None) -> torch.nn.Module:
    """The network itself, on the device and in evaluation mode."""
    # Channels last is faster for 3-D convolutions on both kinds of device, and changes no more than rounding.
    network.to(device=parallel.pick_device(target), memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
    return network


def _computed(network: torch.nn.Module, volumes: np.ndarray, *, target: torch.device, rough: bool) -> np.ndarray:
    """Features (b, d), float32, of one batch by a network that is `_ready`."""
    features: Callable[[torch.Tensor], torch.Tensor] = network.features  # type: ignore[assignment]
    batch = torch.from_numpy(volumes).to(target, non_blocking=True).float()
    with torch.inference_mode(), torch.autocast(target.type, dtype=torch.bfloat16, enabled=rough):
        return features(batch).float().cpu().numpy()


def _batches(subtomograms: Subtomograms, rows: list[slice]) -> Iterator[np.ndarray]:
    """Volumes (b, box, box, box) of some rows after the other."""
    for some in rows:
        yield _plain(store.span(subtomograms.volumes, some.start, some.stop))


def _plain(volumes: np.ndarray) -> np.ndarray:
    """Volumes as torch takes them, writable: float16 as it is, for it is half as much to send, and all else in float32."""
    return np.require(volumes, dtype=np.float16 if volumes.dtype == np.float16 else np.float32, requirements=["C", "W"])
