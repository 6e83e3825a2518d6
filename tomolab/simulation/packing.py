"""A shape and a crowded volume in, a random position out at which all voxels of the shape are free.

A position is that of voxel (0, 0, 0) of the shape. At every random position a few voxels are tested first, and all only where
those are free, so that thousands of positions cost as much as a few shapes.

>>> occupancy = Occupancy(np.zeros((200, 512, 512), dtype=bool))
>>> shape = Shape.of(mask)
>>> position = occupancy.find(shape, rng)
>>> occupancy.occupy(shape, position)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TRIES = 100_000
"""Random positions that are tested before a shape is said to have no free position."""
_ROUNDS = (64, 1024, 16384)
_STAGES = (1, 4, 12, 32, 96)


@dataclass(frozen=True)
class Shape:
    """The voxels (m, 3) of a shape, from 0 on along each axis, in an order that tests the spread-out ones first.

    `corner` is the position of voxel (0, 0, 0) of the shape in the mask that it was made of.
    """

    voxels: np.ndarray
    corner: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> "Shape":
        """The shape of a mask (z, y, x).

        Raises
        ------
        ValueError
            If the mask is empty.
        """
        flat = np.flatnonzero(mask)
        if not len(flat):
            raise ValueError("a shape needs at least one voxel, got an empty mask")
        # A large stride without a common divisor with the number of voxels visits each once, far from the one before.
        stride = max(1, round(len(flat) * 0.381966))
        while np.gcd(stride, len(flat)) > 1:
            stride += 1
        order = np.arange(len(flat)) * stride % len(flat)
        voxels = np.stack(np.unravel_index(flat[order], mask.shape), axis=-1)
        corner = voxels.min(0)
        return cls(voxels - corner, corner)

    @property
    def extent(self) -> np.ndarray:
        """Voxels along z, y, x that it needs."""
        return self.voxels.max(0) + 1


class Occupancy:
    """Which voxels (z, y, x) of a volume are occupied; the array that is given is the one that is changed."""

    def __init__(self, occupied: np.ndarray) -> None:
        if occupied.ndim != 3 or occupied.dtype != bool:
            raise ValueError(f"an occupancy is a (z, y, x) array of bool, got {occupied.dtype} of shape {occupied.shape}")
        if not occupied.flags.c_contiguous:
            raise ValueError("an occupancy must be contiguous in memory, so that its voxels can be addressed by one number")
        self.occupied = occupied
        self._flat = occupied.reshape(-1)

    def find(
        self,
        shape: Shape,
        rng: np.random.Generator,
        *,
        tries: int = TRIES,
        low: Sequence[int] = (0, 0, 0),
        high: Sequence[int] | None = None,
    ) -> np.ndarray | None:
        """A random position where all voxels of the shape are free, every such position equally likely; None if none is found.

        The shape lies between the voxels `low` and `high` (zyx; `high` excluded), by default anywhere within the volume. At
        most `tries` positions are tested.
        """
        size = np.array(self.occupied.shape)
        first = np.maximum(low, 0)
        last = np.minimum(size if high is None else high, size) - shape.extent
        if (last < first).any():
            return None
        strides = np.array([size[1] * size[2], size[2], 1])
        offsets = shape.voxels @ strides
        left = tries
        for batch in (*_ROUNDS, tries):
            # Few positions are tested where much is free, many where little is.
            positions = rng.integers(first, last + 1, size=(min(batch, left), 3))
            found = self._first_free(positions @ strides, offsets)
            if found is not None:
                return positions[found]
            left -= len(positions)
            if not left:
                break
        return None

    def _first_free(self, positions: np.ndarray, offsets: np.ndarray) -> int | None:
        """Index of the first position at which all offsets are free."""
        candidates = np.arange(len(positions))
        tested = 0
        for count in _STAGES:
            candidates = candidates[~self._flat[positions[candidates, None] + offsets[tested:count]].any(1)]
            tested = count
        for i in candidates:
            if not self._flat[positions[i] + offsets[tested:]].any():
                return int(i)
        return None

    def occupy(self, shape: Shape, position: np.ndarray) -> None:
        """Mark the voxels of a shape at a position as occupied."""
        self.occupied[tuple((shape.voxels + position).T)] = True
