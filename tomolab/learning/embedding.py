"""A network and subtomograms in, an `Embedding` out: one feature vector per particle, from the layer before the softmax.

An `Embedding` holds particle ids and vectors (Xu et al. 2017), and the digest of the network that made them. On disk it is a
folder with ``vectors.npy``, ``ids.npy`` and ``about.json``. Subtomograms are read in batches. The vectors lie in memory, or are
written to disk as they come; then a run that was cut goes on where it stopped.

>>> features = embed(network, subtomograms)
>>> features = embed(network, subtomograms, path="embedding", dtype="float16")
>>> features = load("embedding", mapped=True)     # vectors stay on disk until they are used
>>> some = features.take([3, 17, 4])
"""

import copy
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from tomolab import io, parallel
from tomolab import particles as tables
from tomolab.io import checksums, paths, safe_load
from tomolab.learning import networks
from tomolab.subtomograms import store
from tomolab.subtomograms.dataset import Subtomograms, reachable, reached

VECTORS, IDS, ABOUT = "vectors.npy", "ids.npy", "about.json"
"""Files of an embedding."""
BLOCK_ROWS = 65_536
"""Vectors that are worked on at once where there may be millions."""
NOTED_ROWS = 1024
"""Rows after which a `PartialArray` in a folder notes how many rows are done."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """Feature vectors of particles.

    Parameters
    ----------
    ids
        Particle ids, shape (n,), unique integers.
    vectors
        Features, shape (n, d), finite; float16 and float32 stay what they are, all else becomes float32. Row i belongs
        to ``ids[i]``.
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
        ids, vectors = np.asarray(self.ids), np.asanyarray(self.vectors)
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"particle ids must be integers, got {ids.dtype}")
        if vectors.ndim != 2 or ids.shape != vectors.shape[:1]:
            raise ValueError(f"an embedding needs ids (n,) and vectors (n, d), got shapes {ids.shape} and {vectors.shape}")
        if vectors.dtype not in (np.float16, np.float32):
            vectors = vectors.astype(np.float32)
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"particle ids must be unique, but {(counts > 1).sum()} are repeated: {values[counts > 1][:5].tolist()}"
            )
        object.__setattr__(self, "ids", ids.astype(np.int64))
        object.__setattr__(self, "vectors", vectors)
        bad = [self.ids[rows][~np.isfinite(block).all(axis=1)] for rows, block in self.blocks()]
        if any(map(len, bad)):
            found = np.concatenate(bad)
            raise ValueError(
                f"the vectors of {len(found)} particles hold NaN or infinity, such as particles {found[:5].tolist()}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Embedding({len(self)} particles x {self.vectors.shape[1]} features, network {self.network[:8]})"

    def take(self, ids: np.ndarray) -> "Embedding":
        """Take the vectors of these particles, in this order, or of a mask; KeyError if one is not in the embedding."""
        wanted = tables.as_ids(ids, self.ids)
        rows = pd.Index(self.ids).get_indexer(wanted)
        unknown = wanted[rows < 0]
        if len(unknown):
            raise KeyError(f"{len(unknown)} of {len(rows)} particles are not in the embedding, such as {unknown[:5].tolist()}")
        return Embedding(self.ids[rows], np.asarray(self.vectors[rows]), self.network)

    def match_labels(self, labels: pd.Series) -> np.ndarray:
        """Labels (n,) of the particles in their order, from a series indexed by particle id that may name more.

        Raises
        ------
        ValueError
            If an id is repeated in `labels`, or particles have no label.
        """
        if not labels.index.is_unique:
            raise ValueError(
                f"labels must have one entry per particle id, but {labels.index.duplicated().sum()} ids are repeated"
            )
        found = labels.reindex(self.ids)
        missing = found.index[found.isna()]
        if len(missing):
            raise ValueError(f"{len(missing)} of {len(self)} particles have no label, such as {missing[:5].tolist()}")
        return found.to_numpy()

    def check_network(self, network: str) -> None:
        """Refuse to be compared with the features of another network; ValueError."""
        if self.network != network:
            raise ValueError(f"embeddings of two networks cannot be compared: {self.network[:8]} and {network[:8]}")

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield rows and their vectors in float32, block by block; of mapped vectors, memory holds one block."""
        for start in range(0, len(self), BLOCK_ROWS):
            rows = slice(start, min(start + BLOCK_ROWS, len(self)))
            yield rows, np.asarray(self.vectors[rows], dtype=np.float32)
            _release(self.vectors)

    def save(self, path: str | Path) -> None:
        """Write the folder `path`, whole or not at all: ``vectors.npy``, ``ids.npy`` and ``about.json``."""
        with io.atomic(path) as folder:
            folder.mkdir()
            np.save(folder / VECTORS, self.vectors, allow_pickle=False)
            _release(self.vectors)
            np.save(folder / IDS, self.ids, allow_pickle=False)
            (folder / ABOUT).write_text(json.dumps({"network": self.network}) + "\n")
            checksums.write_folder(folder)


def _release(vectors: np.ndarray) -> None:
    """Give back the memory of what was read of a mapped array; the file still holds it, and what was written is in it."""
    if isinstance(vectors, np.memmap) and isinstance(vectors.base, mmap.mmap):
        vectors.base.madvise(mmap.MADV_DONTNEED)


def load(path: str | Path, *, mapped: bool = False) -> Embedding:
    """Read an embedding from the folder `path`.

    Parameters
    ----------
    path
        Written by `Embedding.save`, or by `embed` given a path.
    mapped
        Leave the vectors on disk, read-only, and read what is used; for more vectors than fit into memory.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or it lacks a file.
    ValueError
        If a file is damaged, could only be read by pickle, does not fit the others, or is a link that leads out of the folder.
    """
    folder = paths.recovered(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no embedding {folder}: that is a folder with {VECTORS}, {IDS} and {ABOUT}")
    with safe_load.reading(folder, "an embedding"):
        checksums.check_folder(folder)
    about = safe_load.read_json(io.inside(folder, ABOUT), "the description of an embedding")
    vectors = safe_load.read_npy(io.inside(folder, VECTORS), mode="r" if mapped else None)
    ids = safe_load.read_npy(io.inside(folder, IDS))
    with safe_load.reading(folder, "an embedding"):
        safe_load.check_types(about, network=str)
        return Embedding(ids, vectors, about["network"])


class PartialArray:
    """An array (n, d) that is filled row by row, in memory, or in a folder where a run that was cut goes on.

    Parameters
    ----------
    count
        Rows in the end.
    dtype
        "float32" or "float16".
    folder
        Where to keep the array and how many rows are done; None for memory. If a cut run left a folder there, the array goes
        on from it.
    about
        What the rows are of: plain values by name.

    Raises
    ------
    ValueError
        If the folder was begun with other values of `about`.
    """

    def __init__(
        self, count: int, *, dtype: str, folder: str | Path | None = None, about: dict[str, Any] | None = None
    ) -> None:
        self.about = {"dtype": dtype, "count": count, **(about or {})}
        self.folder = None if folder is None else Path(folder)
        self.array: np.ndarray = np.empty((count, 0), dtype)
        self.done = self._sum = 0
        # A description without its array, as where the folder was deleted meanwhile, says nothing.
        if self.folder is not None and all(os.path.lexists(self.folder / name) for name in (ABOUT, VECTORS)):
            self._resume(self.folder)

    def _resume(self, folder: Path) -> None:
        path = io.inside(folder, ABOUT)
        begun = safe_load.read_json(path, "the description of a partial embedding")
        with safe_load.reading(path, "the description of a partial embedding"):
            safe_load.check_types(begun, done=int, crc32c=int)
        done, written = begun.pop("done"), begun.pop("crc32c")
        other = [name for name in sorted(self.about | begun) if begun.get(name) != self.about.get(name)]
        if other:
            # Of a digest, its first figures.
            changes = [f"{name} was {str(begun.get(name))[:12]}, is {str(self.about.get(name))[:12]}" for name in other]
            raise ValueError(f"{folder} was begun otherwise: {', '.join(changes)}; delete the folder to begin anew")
        path = io.inside(folder, VECTORS)
        array = safe_load.read_npy(path, mode="r+")
        if array.ndim != 2 or (len(array), array.dtype) != (len(self.array), self.array.dtype) or not 0 <= done <= len(array):
            raise ValueError(f"{folder} holds {done} rows of an array {array.shape} of {array.dtype}; delete it to begin anew")
        self.array, self.done = array, done
        for start in range(0, done, BLOCK_ROWS):
            self._sum = checksums.crc32c(array[start : min(start + BLOCK_ROWS, done)], self._sum)
        if self._sum != written:
            raise ValueError(
                f"{path} is damaged: its first {done} rows do not have their checksum; delete {folder} to begin anew"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._note()

    def add(self, rows: np.ndarray) -> None:
        """Append rows (b, d).

        Raises
        ------
        ValueError
            If they are beyond the dtype, of another width than those before, or more than there is room for.
        OSError
            If the disk has no room for the whole array; raised with the first rows.
        """
        shape = (len(self.array), rows.shape[1])
        if self.array.shape[1] == 0:
            self.array = np.empty(shape, self.array.dtype) if self.folder is None else self._create(self.folder, shape)
        if self.array.shape != shape or self.done + len(rows) > len(self.array):
            raise ValueError(f"rows {rows.shape} do not fit after row {self.done} of {self.array.shape}")
        with np.errstate(over="ignore"):
            rounded = rows.astype(self.array.dtype)
        if (np.isinf(rounded) & np.isfinite(rows)).any():
            raise ValueError(f"some numbers are beyond float16 (±65504), up to {np.abs(rows).max():.3g}; use float32")
        largest = np.abs(rows).max(axis=1, initial=0.0)
        if ((largest > 0) & (largest < np.finfo(rounded.dtype).tiny)).any():
            raise ValueError(f"some rows hold only numbers too small for {rounded.dtype}, which would become 0; use float32")
        start, self.done = self.done, self.done + len(rows)
        self.array[start : self.done] = rounded
        self._sum = checksums.crc32c(rounded, self._sum)
        if start // NOTED_ROWS < self.done // NOTED_ROWS:
            self._note()

    def _create(self, folder: Path, shape: tuple[int, int]) -> np.ndarray:
        folder.mkdir(parents=True, exist_ok=True)
        # A link in its place would be written through.
        path = io.inside(folder, VECTORS)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=self.array.dtype, shape=shape)
        _reserve(path)
        return array

    def _note(self) -> None:
        """Note how many rows are done, after they have reached the disk."""
        if self.folder is not None and isinstance(self.array, np.memmap):
            self.array.flush()
            _release(self.array)
            with io.atomic(self.folder / ABOUT) as temporary:
                temporary.write_bytes(checksums.json_bytes(self.about | {"done": self.done, "crc32c": self._sum}))


def _reserve(path: Path) -> None:
    """Give a file all its room on the disk now: a page of a mapped file without any would end the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink()
        raise OSError(error.errno, f"no room for {size / 1e9:.2g} GB: {error.strerror}", str(path)) from None


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
        Folder to write to. The vectors of the result are mapped from it, so that memory holds one batch however many there
        are. Until all are done they lie in the folder ``<path>.part``; after a cut the same call goes on from there, with
        the result of an unbroken run. A finished embedding at `path` is made anew.
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
    workers = parallel.active(client)
    if device is None and workers is None:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
    # "auto" is asked of the cluster once, so that all batches are computed alike.
    [bfloat16] = parallel.each(_use_bfloat16, [precision], client=workers, shared=(device,))
    ids, digest = subtomograms.ids, networks.digest(network)
    about = {"network": digest, "precision": "bfloat16" if bfloat16 else "float32"}
    if path is not None:
        about["subtomograms"] = _fingerprint(subtomograms)
    # Two kernels that write the same path would fill the same folder.
    with nullcontext() if path is None else paths.lock(f"{path}.part"):
        partial = PartialArray(len(ids), dtype=dtype, folder=None if path is None else f"{path}.part", about=about)
        bar = tqdm(total=len(ids), initial=partial.done, desc="embedding", unit=" subtomograms", disable=not progress)
        rows = [slice(first, first + batch_size) for first in range(partial.done, len(ids), batch_size)]
        volumes = subtomograms.volumes
        if workers is None:
            batches = (np.asarray(volumes[one]) for one in rows)
            stream = stream_features(network, batches, device=parallel.pick_device(device), bfloat16=bfloat16)
        else:
            stream = _stream_from_workers(network, volumes, rows, device=device, bfloat16=bfloat16, client=workers)
        with partial, bar, closing(stream):
            for found in stream:
                # A batch is checked before it is kept: NaN must not wait for the end of a long run to be noticed.
                partial.add(Embedding(ids[partial.done : partial.done + len(found)], found, digest).vectors)
                bar.update(len(found))
        whole = Embedding(ids, partial.array, digest)
        if path is None:
            return whole
        whole.save(path)
        shutil.rmtree(f"{path}.part")
    return load(path, mapped=True)


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


def stream_features(
    network: torch.nn.Module, batches: Iterator[np.ndarray], *, device: torch.device, bfloat16: bool
) -> Generator[np.ndarray]:
    """Yield features (b, d), float32, of batches of volumes (b, box, box, box); the network is given back as it came."""
    home = next((p.device for p in network.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in network.modules()]
    try:
        _prepare(network, device)
        for volumes in store.ahead(map(_for_torch, batches)):
            yield _compute(volumes, network, device, bfloat16)
    finally:
        network.to(home)
        for module, mode in modes:
            module.training = mode


def _stream_from_workers(
    network: torch.nn.Module,
    volumes: Any,
    rows: list[slice],
    *,
    device: str | torch.device | None,
    bfloat16: bool,
    client: Any,
) -> Generator[np.ndarray]:
    """The same from the workers of a cluster."""
    # The network itself may lie on a GPU that a worker does not have.
    prepared = parallel.OncePerProcess(_prepare, (copy.deepcopy(network).cpu(), device))
    if reachable(volumes):
        shared = (prepared, device, bfloat16, parallel.OncePerProcess(reached, (volumes,)))
        yield from parallel.each(_read_and_compute, rows, client=client, shared=shared)
    else:
        batches = (np.asarray(volumes[one]) for one in rows)
        yield from parallel.each(_compute, batches, client=client, shared=(prepared, device, bfloat16))


def _read_and_compute(rows: slice, network: torch.nn.Module, device: str | torch.device | None, *rest: Any) -> np.ndarray:
    bfloat16, volumes = rest
    return _compute(np.asarray(volumes[rows]), network, device, bfloat16)


def _use_bfloat16(precision: str, device: str | torch.device | None) -> bool:
    return parallel.use_bfloat16(parallel.pick_device(device), precision)


def _prepare(network: torch.nn.Module, device: str | torch.device | None) -> torch.nn.Module:
    """The network itself, on the device and in evaluation mode."""
    # Channels last is faster for 3-D convolutions on both kinds of device, and changes no more than rounding.
    network.to(device=parallel.pick_device(device), memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
    return network


def _compute(volumes: np.ndarray, network: torch.nn.Module, device: str | torch.device | None, bfloat16: bool) -> np.ndarray:
    """Features (b, d), float32, of one batch by a network that `_prepare` gave."""
    features: Callable[[torch.Tensor], torch.Tensor] = network.features  # type: ignore[assignment]
    target = parallel.pick_device(device)
    batch = torch.from_numpy(_for_torch(volumes)).to(target, non_blocking=True).float()
    with torch.inference_mode(), torch.autocast(target.type, dtype=torch.bfloat16, enabled=bfloat16):
        return features(batch).float().cpu().numpy()


def _for_torch(volumes: np.ndarray) -> np.ndarray:
    """Volumes as torch takes them, writable: float16 as it is, for it is half as much to send, and all else in float32."""
    return np.require(volumes, dtype=np.float16 if volumes.dtype == np.float16 else np.float32, requirements=["C", "W"])
