"""Shapes and a crowded volume in, places out where all voxels of a shape are free.

A shape is the list of its voxels; a place is where its voxel (0, 0, 0) comes to lie. Random places are tested, a few voxels
first and all only where those are free, so that thousands of places cost as much as a few shapes.

>>> room = Room(np.zeros((200, 512, 512), dtype=bool))
>>> shape = Shape.of(mask)
>>> place = room.find(shape, rng)
>>> room.take(shape, place)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

TRIES = 100_000
"""Random places after which a shape is said to find no room."""
_ROUNDS = (64, 1024, 16384)
_STAGES = (1, 4, 12, 32, 96)


@dataclass(frozen=True)
class Shape:
    """The voxels (m, 3) of a shape, from 0 on along each axis, in an order that tests the spread-out ones first.

    `corner` is where voxel (0, 0, 0) of the shape lay in the mask that it was made of.
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
        # A large step that has no common divisor with the number of voxels visits each once, far from the one before.
        order = np.arange(len(flat)) * _stride(len(flat)) % len(flat)
        voxels = np.stack(np.unravel_index(flat[order], mask.shape), axis=-1)
        corner = voxels.min(0)
        return cls(voxels - corner, corner)

    @property
    def extent(self) -> np.ndarray:
        """Voxels along z, y, x that it needs."""
        return self.voxels.max(0) + 1


def _stride(count: int) -> int:
    stride = max(1, round(count * 0.381966))
    while np.gcd(stride, count) > 1:
        stride += 1
    return stride


class Room:
    """A volume (z, y, x) of which some voxels are taken; the array that is given is the one that is changed."""

    def __init__(self, taken: np.ndarray) -> None:
        if taken.ndim != 3 or taken.dtype != bool:
            raise ValueError(f"a room is a (z, y, x) array of bool, got {taken.dtype} of shape {taken.shape}")
        if not taken.flags.c_contiguous:
            raise ValueError("a room must be contiguous in memory, so that it can be looked at as one line of voxels")
        self.taken = taken
        self._line = taken.reshape(-1)

    def find(
        self,
        shape: Shape,
        rng: np.random.Generator,
        *,
        tries: int = TRIES,
        low: Sequence[int] = (0, 0, 0),
        high: Sequence[int] | None = None,
    ) -> np.ndarray | None:
        """A random place where all voxels of the shape are free, every such place equally likely; None where none is found.

        Parameters
        ----------
        shape
            What is to be placed; it lies whole within the volume.
        rng
            Source of the places.
        tries
            Places tested.
        low, high
            Voxels, zyx, between which the shape is to lie, `high` excluded; the whole volume by default.
        """
        first = np.maximum(low, 0)
        last = np.minimum(self.taken.shape if high is None else high, self.taken.shape) - shape.extent
        if (last < first).any():
            return None
        strides = np.array([self.taken.shape[1] * self.taken.shape[2], self.taken.shape[2], 1])
        offsets = shape.voxels @ strides
        left = tries
        for size in (*_ROUNDS, tries):
            # Few places are tested while there is much room, many where there is little.
            places = rng.integers(first, last + 1, size=(min(size, left), 3))
            found = self._free(places @ strides, offsets)
            if found is not None:
                return places[found]
            left -= len(places)
            if not left:
                break
        return None

    def _free(self, places: np.ndarray, offsets: np.ndarray) -> int | None:
        """Index of the first place at which all offsets are free."""
        alive = np.arange(len(places))
        done = 0
        for count in _STAGES:
            part = offsets[done:count]
            alive = alive[~self._line[places[alive, None] + part].any(1)]
            done = count
        for i in alive:
            if not self._line[places[i] + offsets[done:]].any():
                return int(i)
        return None

    def take(self, shape: Shape, place: np.ndarray) -> None:
        """Mark the voxels of a shape at a place as taken."""
        self.taken[tuple((shape.voxels + place).T)] = True


def grown(mask: np.ndarray, distance: float) -> np.ndarray:
    """A mask with all voxels within `distance` voxels of it, in an array larger on every side by that number rounded up."""
    margin = int(np.ceil(distance))
    return ndimage.distance_transform_edt(~np.pad(mask, margin)) <= distance


def thinnest(shape: Shape, count: int = 200) -> float:
    """Voxels of the narrowest gap that a shape can lie in: its smallest width over its own axes and `count` directions."""
    # Half a sphere of directions in golden angles; width is the same both ways.
    i = np.arange(count) + 0.5
    z, turn = i / count, np.pi * (3 - np.sqrt(5)) * i
    ring = np.sqrt(1 - z**2)
    # Of a plate hardly any other direction than its own axis is the narrow one.
    own = np.linalg.eigh(np.cov(shape.voxels.T)).eigenvectors if len(shape.voxels) > 1 else np.eye(3)
    directions = np.concatenate([np.stack([z, ring * np.sin(turn), ring * np.cos(turn)]), own], axis=1)
    return float(np.ptp(shape.voxels @ directions, axis=0).min()) + 1
