"""Takes a tomogram on disk or in memory, gives the blocks that are requested, or the whole as a `Volume`.

>>> tomogram = io.open_volume("TS_01.mrc", voxel_size=10.0)
>>> block = tomogram.read(np.s_[100:140, 200:240, 200:240])      # float32, not normalised
>>> volume = tomogram.load()                                     # the whole, as a Volume
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tomolab import fourier, memory
from tomolab.volumes import Volume

SLAB_BYTES = 2**26
"""Bytes read at once while a whole tomogram is loaded."""
MARGIN = 8
"""Voxels added beyond the faces for a shift by a fraction of a voxel."""

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Tomogram:
    """A tomogram from which only the requested blocks are read.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    voxel_size
        Å.
    fetch
        Gives the voxels of three slices, whose bounds lie inside the shape, as an array of any real type.
    name
        File or address, for messages.
    origin
        Centre of voxel (0, 0, 0), zyx in Å: 0, except for the coarser levels of a pyramid, whose voxels may be averages of
        blocks.
    chunks
        Voxels along z, y, x that the file stores together; (1, 1, 1) where that does not matter.
    again
        Opens the same tomogram in another process, so that no voxels are sent there.

    Raises
    ------
    ValueError
        If there are not three dimensions of at least one voxel, or the voxel size is not positive.
    """

    shape: tuple[int, int, int]
    voxel_size: float
    fetch: Callable[[Slices], np.ndarray]
    name: str = "the tomogram"
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    chunks: tuple[int, int, int] = (1, 1, 1)
    again: Callable[[], "Tomogram"] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | ({} if self.again is None else {"fetch": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.again is not None:
            found = self.again()
            if (found.shape, found.voxel_size, found.origin) != (self.shape, self.voxel_size, self.origin):
                raise ValueError(f"{self!r} was sent, but this process opened {found!r}")
            vars(self)["fetch"] = found.fetch

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"{self.name}: a tomogram has at least one voxel along z, y and x, got shape {self.shape}")
        if not np.isfinite(self.voxel_size) or self.voxel_size <= 0:
            raise ValueError(f"{self.name}: voxel size must be a positive number of Å, got {self.voxel_size}")

    @property
    def extent(self) -> np.ndarray:
        """Size along z, y, x in Å."""
        return np.array(self.shape) * self.voxel_size

    def __repr__(self) -> str:
        z, y, x = self.shape
        return f"Tomogram({self.name}: {z} x {y} x {x} voxels of {self.voxel_size:g} Å)"

    def read(self, slices: tuple[slice, ...]) -> np.ndarray:
        """Voxels of a block as float32, (z, y, x).

        Parameters
        ----------
        slices
            One for each of z, y and x, with a step of 1; bounds as in any array.

        Raises
        ------
        ValueError
            If these are not three slices with at least one voxel, the file has changed, or values are NaN or infinite.
        """
        if len(slices) != 3 or not all(isinstance(one, slice) and one.step in (None, 1) for one in slices):
            raise ValueError(f"{self.name}: a block needs three slices with a step of 1, got {slices}")
        low, high = zip(*(one.indices(n)[:2] for one, n in zip(slices, self.shape, strict=True)), strict=True)
        if any(a >= b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"{self.name}: {slices} holds no voxel of {' x '.join(map(str, self.shape))}")
        z, y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
        data = np.array(self.fetch((z, y, x)), dtype=np.float32, order="C")
        bad = data.size - int(np.count_nonzero(np.isfinite(data)))
        if bad:
            raise ValueError(
                f"{self.name}: the block from {low} to {high} (z, y, x) holds {bad} values that are NaN or infinite, "
                f"of {data.size}"
            )
        return data

    def load(self) -> Volume:
        """Read the whole; where voxel 0 does not lie at position 0, it is moved there by a Fourier shift.

        Raises
        ------
        ValueError
            If it does not fit into memory, or holds NaN or infinity.
        """
        voxels = prod(self.shape)
        # Beside the result: the block that is read, and where values are not finite.
        needed = 5 * voxels + 3 * SLAB_BYTES
        memory.check(needed, f"{self!r} needs", instead="read it in blocks")
        blocks = slabs(self)
        slab = next(blocks)
        # Only reading shows whether a compressed file holds what its header says, so memory is allocated after that.
        first = self.read(slab)
        try:
            data = np.empty(self.shape, dtype=np.float32)
        except MemoryError as error:
            raise ValueError(f"{self!r} needs {needed:,} bytes of memory, more than this process may take") from error
        data[slab] = first
        for slab in blocks:
            data[slab] = self.read(slab)
        moved = np.array(self.origin) / self.voxel_size
        return Volume(shift(data, moved) if np.abs(moved).max() > 1e-3 else data, self.voxel_size)


def unchanged(path: Path, mapped: np.ndarray) -> Callable[[Slices], np.ndarray]:
    """A function that gives voxels of a mapped file; it raises ValueError if the file has changed."""
    opened = path.stat()

    def fetch(slices: Slices) -> np.ndarray:
        # A file that shrinks under its map would end the process, not raise an error.
        now = path.stat() if path.is_file() else None
        if now is None or (now.st_size, now.st_mtime_ns) != (opened.st_size, opened.st_mtime_ns):
            raise ValueError(f"{path} has changed since it was opened; open it again")
        return mapped[slices]

    return fetch


def slabs(tomogram: Tomogram) -> Iterator[Slices]:
    """Blocks that together cover a tomogram, each of whole chunks and about `SLAB_BYTES`."""
    z, y, x = tomogram.shape
    step = max(1, SLAB_BYTES // (4 * y * x) // tomogram.chunks[0]) * tomogram.chunks[0]
    for start in range(0, z, step):
        yield slice(start, min(start + step, z)), slice(0, y), slice(0, x)


def of(volume: Volume, *, name: str = "the tomogram") -> Tomogram:
    """A volume in memory as a tomogram, under a name for messages."""
    return Tomogram(volume.shape, volume.voxel_size, volume.data.__getitem__, name)


def shift(data: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Move values (z, y, x) by `voxels` (3,) towards higher index with a Fourier shift; the faces are repeated beyond.

    Meant for fractions of a voxel.
    """
    moved = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
    for axis, step in enumerate(voxels):
        if abs(step) < 1e-6:
            continue
        n = moved.shape[axis]
        index = torch.arange(-MARGIN, n + MARGIN).clamp(0, n - 1)
        lines = moved.index_select(axis, index).movedim(axis, -1)
        phases = fourier.shift_phases((1, 1, lines.shape[-1]), torch.tensor([[0.0, 0.0, float(step)]], dtype=torch.float64))
        transform = torch.fft.rfft(lines) * phases[0, 0, 0].to(torch.complex64)
        back = torch.fft.irfft(transform, n=lines.shape[-1])[..., MARGIN : MARGIN + n]
        moved = back.movedim(-1, axis).contiguous()
    return moved.numpy()
