"""A network and subtomograms in, an `Embedding` out: one feature vector per particle, from the layer before the softmax.

An `Embedding` holds particle ids and vectors (Xu et al. 2017), with the digest of the network that made them, and has a file.
Subtomograms stream through in batches; the vectors lie in memory, or are written to a file as they come, and a run that was
cut goes on where it stopped.

>>> features = embed(network, subtomograms)
>>> features = embed(network, subtomograms, path="embedding.npz", dtype="float16")
>>> features = load("embedding.npz", mapped=True)     # vectors stay on disk until they are used
>>> some = features.take([3, 17, 4])
"""

import copy
import hashlib
import json
import mmap
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from tomolab import io, parallel
from tomolab import particles as tables
from tomolab.io import paths, safe_load
from tomolab.learning import networks
from tomolab.subtomograms import store
from tomolab.subtomograms.dataset import Subtomograms, reachable, reached

DIGEST_BYTES = 4 * 1024
"""Most bytes of the name or digest of a network."""
BLOCK_ROWS = 65_536
"""Vectors that are worked on at once where there may be millions."""
NOTED_ROWS = 1024
"""Rows after which a `PartialArray` in a folder notes how far it is."""


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
        finite = [np.isfinite(part).all(axis=1) for _, part in _blocks(vectors)]
        bad = ids[~np.concatenate(finite)] if finite else ids
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
        return Embedding(self.ids[rows], np.asarray(self.vectors[rows]), self.network)

    def labelled(self, labels: pd.Series) -> np.ndarray:
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

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield rows and their vectors in float32, a part at a time, so that memory holds one part."""
        for rows, part in _blocks(self.vectors):
            yield rows, np.asarray(part, dtype=np.float32)

    def save(self, path: str | Path) -> None:
        """Write to `path` as .npz without pickle, whole or not at all."""
        # As numpy.savez does, but a part at a time, so that mapped vectors do not pass through memory all at once.
        with io.atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in (("ids", self.ids), ("network", np.array(self.network))):
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
            with archive.open("vectors.npy", "w", force_zip64=True) as file:
                head = {"descr": self.vectors.dtype.str, "fortran_order": False, "shape": self.vectors.shape}
                np.lib.format.write_array_header_1_0(file, head)
                for _, part in _blocks(self.vectors):
                    file.write(part.tobytes())


def _blocks(vectors: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows and what is in them, a part at a time; of mapped vectors, memory holds one part."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, len(vectors)))
        yield rows, vectors[rows]
        _release(vectors)


def _release(vectors: np.ndarray) -> None:
    """Give back the memory of what was read of a mapped array; the file still holds it, and what was written is in it."""
    if isinstance(vectors, np.memmap) and isinstance(vectors.base, mmap.mmap):
        vectors.base.madvise(mmap.MADV_DONTNEED)


def load(path: str | Path, *, mapped: bool = False) -> Embedding:
    """Read an embedding from the .npz file `path`.

    Parameters
    ----------
    path
        Written by `Embedding.save`, or by `embed` given a path.
    mapped
        Leave the vectors on disk, read-only, and read what is used; for more vectors than should lie in memory.

    Raises
    ------
    ValueError
        If the file is no embedding, or could only be read by pickle, or is compressed and asked for mapped.
    """
    stored = safe_load.arrays(path, "an embedding", without=["vectors"] if mapped else [])
    with safe_load.reading(path, "an embedding"):
        if mapped:
            stored["vectors"] = _mapped(Path(path))
        missing = {"ids", "vectors", "network"} - set(stored)
        if missing:
            raise ValueError(f"{path} is not an embedding: it has no {', '.join(sorted(missing))}")
        if stored["network"].shape or stored["network"].dtype.kind != "U" or stored["network"].dtype.itemsize > DIGEST_BYTES:
            raise ValueError(f"{path} is not an embedding: its network is no digest")
        return Embedding(stored["ids"], stored["vectors"], str(stored["network"]))


def _mapped(path: Path) -> np.ndarray:
    """Map the array ``vectors`` where it lies in an uncompressed archive, which numpy itself does only for .npy files."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entry = archive.getinfo("vectors.npy")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{path} is compressed; only an embedding written by tomolab can be mapped")
        # The local header of a zip entry: 30 bytes, of which the last two pairs are the lengths of name and extra field.
        file.seek(entry.header_offset + 26)
        file.seek(entry.header_offset + 30 + sum(np.frombuffer(file.read(4), "<u2").tolist()))
        start = file.tell()
        told = safe_load.claim(file, entry.file_size, start=start)
        if not all(told.shape):
            # Nothing cannot be mapped.
            return np.empty(told.shape, told.dtype)
        order: Literal["F", "C"] = "F" if told.columns_first else "C"
        return np.memmap(path, told.dtype, mode="r", offset=start + told.start, shape=told.shape, order=order)


class PartialArray:
    """An array (n, d) that is filled from the top, in memory or in a folder from where a run that was cut goes on.

    Parameters
    ----------
    count
        Rows in the end.
    dtype
        "float32" or "float16".
    folder
        Where to keep the array, with a description of how far it is; None for memory. If a cut run left a folder there,
        the array goes on from it, when `about` is the same.
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
        self.done = 0
        # A description without its array, as where the folder was deleted meanwhile, tells of nothing.
        if self.folder is not None and all(os.path.lexists(self.folder / name) for name in ("about.json", "array.npy")):
            self._resume(self.folder)

    def _resume(self, folder: Path) -> None:
        about, place = (io.inside(folder, name) for name in ("about.json", "array.npy"))
        begun = safe_load.mapping(about, "the description of a part")
        with safe_load.reading(about, "the description of a part"):
            safe_load.typed(begun, done=int)
        done = begun.pop("done")
        other = [name for name in sorted(self.about | begun) if begun.get(name) != self.about.get(name)]
        if other:
            told = ", ".join(f"{name} was {_short(begun.get(name))}, is {_short(self.about.get(name))}" for name in other)
            raise ValueError(f"{folder} was begun otherwise: {told}; delete the folder to begin anew")
        array = safe_load.array(place, mode="r+")
        if array.ndim != 2 or (len(array), array.dtype) != (len(self.array), self.array.dtype) or not 0 <= done <= len(array):
            raise ValueError(f"{folder} holds {done} rows of an array {array.shape} of {array.dtype}; delete it to begin anew")
        self.array, self.done = array, done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keep()

    def add(self, rows: np.ndarray) -> None:
        """Append rows (b, d).

        Raises
        ------
        ValueError
            If they are beyond the dtype, of another width than those before, or more than there is room for.
        OSError
            If the disk has no room for the whole array; told with the first rows.
        """
        shape = (len(self.array), rows.shape[1])
        if self.array.shape[1] == 0:
            self.array = self._room(shape)
        if self.array.shape != shape or self.done + len(rows) > len(self.array):
            raise ValueError(f"rows {rows.shape} do not fit after row {self.done} of {self.array.shape}")
        with np.errstate(over="ignore"):
            rounded = rows.astype(self.array.dtype)
        if (np.isinf(rounded) & np.isfinite(rows)).any():
            raise ValueError(f"some numbers are beyond float16 (±65504), up to {np.abs(rows).max():.3g}; use float32")
        start, self.done = self.done, self.done + len(rows)
        self.array[start : self.done] = rounded
        if start // NOTED_ROWS < self.done // NOTED_ROWS:
            self._keep()

    def _room(self, shape: tuple[int, int]) -> np.ndarray:
        if self.folder is None:
            return np.empty(shape, self.array.dtype)
        self.folder.mkdir(parents=True, exist_ok=True)
        # A link in its place would be written through.
        path = io.inside(self.folder, "array.npy")
        array = np.lib.format.open_memmap(path, mode="w+", dtype=self.array.dtype, shape=shape)
        _reserve(path)
        return array

    def _keep(self) -> None:
        """Note how far the array is, after what it holds has reached the disk."""
        if self.folder is not None and isinstance(self.array, np.memmap):
            self.array.flush()
            _release(self.array)
            with io.atomic(self.folder / "about.json") as temporary:
                temporary.write_text(json.dumps(self.about | {"done": self.done}, indent=1) + "\n")

    def remove(self) -> None:
        """Remove the folder, once the array stands elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder)


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


def _short(value: Any) -> str:
    """A value as an error shows it; of a digest its first figures."""
    return str(value)[:12]


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
        part = PartialArray(len(ids), dtype=dtype, folder=None if path is None else f"{path}.part", about=about)
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
    ready = parallel.Made(_ready, (copy.deepcopy(network).cpu(), device))
    if reachable(volumes):
        yield from parallel.each(_read, rows, client=client, shared=(ready, device, rough, parallel.Made(reached, (volumes,))))
    else:
        batches = (np.asarray(volumes[one]) for one in rows)
        yield from parallel.each(_sent, batches, client=client, shared=(ready, device, rough))


def _read(rows: slice, network: torch.nn.Module, device: str | torch.device | None, *rest: Any) -> np.ndarray:
    rough, volumes = rest
    return _sent(np.asarray(volumes[rows]), network, device, rough)


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
        yield _plain(np.asarray(subtomograms.volumes[some]))


def _plain(volumes: np.ndarray) -> np.ndarray:
    """Volumes as torch takes them, writable: float16 as it is, for it is half as much to send, and all else in float32."""
    return np.require(volumes, dtype=np.float16 if volumes.dtype == np.float16 else np.float32, requirements=["C", "W"])
