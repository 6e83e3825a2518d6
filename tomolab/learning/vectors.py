"""Vectors: the value `Embedding`, ids and feature vectors with the network that made them, and its file.

>>> whole = load("embedding.npz", mapped=True)      # vectors stay on disk until they are used
>>> some = whole.take([3, 17, 4])
"""

import mmap
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from tomolab import io
from tomolab.io import safe_load

LONGEST = 4 * 1024
"""Bytes of the name or digest of a network."""
ROWS = 65_536
"""Vectors that are worked on at once where there may be millions."""


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
    for start in range(0, len(vectors), ROWS):
        rows = slice(start, min(start + ROWS, len(vectors)))
        yield rows, vectors[rows]
        release(vectors)


def release(vectors: np.ndarray) -> None:
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
        if stored["network"].shape or stored["network"].dtype.kind != "U" or stored["network"].dtype.itemsize > LONGEST:
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
