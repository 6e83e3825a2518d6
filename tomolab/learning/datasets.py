"""Labelled subtomograms in, batches of volumes and labels out, which a network learns from.

A subtomogram is labelled by the column ``label`` of the particle table. A store is read a little at a time, never as a whole:
its chunks come in random order, and what was read together is shuffled again before it is dealt out.

>>> known, held_back = split(subtomograms.open("labelled.zarr"), 0.2, seed=1)
>>> data = labelled(known, batch_size=32, balanced=True, turns=True, shift=1, seed=1)
>>> volumes, labels = next(data.epoch(0))
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
import zarr
from sklearn.model_selection import GroupShuffleSplit
from torch import Tensor

from tomolab.conventions import AXIS, WEDGE
from tomolab.subtomograms import store
from tomolab.subtomograms.dataset import Subtomograms

WINDOW_BYTES = 64 * 1024**2
"""How much of a store is read together; as much again is read meanwhile."""
HALF_TURNS = ((), (0, 1), (0, 2), (1, 2))
"""Axes (z, y, x) that are reversed by no rotation, and by 180° about x, y and z."""


class Data(Protocol):
    """What a network learns from: `simulation.Stream(...)` and `labelled(...)` are such."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        ...

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Volumes (b, box, box, box) and labels (b,) of epoch `number`, batch by batch from `start` on.

        They depend on nothing but the number of epoch and batch: a training that was cut goes on with those that are missing.
        """
        ...


@dataclass(frozen=True)
class Labelled:
    """Subtomograms with a `label` column as training data; made by `labelled`."""

    subtomograms: Subtomograms
    classes: tuple[str, ...]
    batch_size: int
    seed: int
    balanced: bool = False
    turns: bool = False
    shift: int = 0

    @property
    def batches(self) -> int:
        """Batches in an epoch; they differ in size by one at most, and only where classes are not balanced."""
        return math.ceil(len(self.subtomograms) / self.batch_size)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """All subtomograms in an order of their own for every epoch, from batch `start` on."""
        codes = labels_of(self.subtomograms, self.classes).numpy()
        order = self._order(codes, np.random.default_rng((self.seed, number)))
        edges = np.linspace(0, len(order), self.batches + 1).round().astype(int)
        ways = half_turns(self.subtomograms.particles) if self.turns else None
        windows = self._windows(order, edges, start)
        # From a store, the next window is read while this one is dealt out.
        for first, last, block, volumes in windows if self._chunk() == 1 else store.ahead(windows):
            for batch in range(first, last):
                rows = slice(edges[batch] - edges[first], edges[batch + 1] - edges[first])
                chosen = torch.from_numpy(np.asarray(volumes[rows], dtype=np.float32))
                rng = np.random.default_rng((self.seed, number, batch))
                if ways is not None:
                    chosen = _turned(chosen, ways[block[rows]], rng)
                yield _moved(chosen, self.shift, rng), torch.from_numpy(codes[block[rows]])

    def _windows(self, order: np.ndarray, edges: np.ndarray, start: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Numbers of batches, first and behind the last, that are read together; their rows, and their volumes."""
        together, first = max(1, self._window() // self.batch_size), start
        while first < self.batches:
            # Windows are the same wherever an epoch starts.
            last = min(self.batches, (first // together + 1) * together)
            block = order[edges[first] : edges[last]]
            yield first, last, block, _read(self.subtomograms.volumes, block)
            first = last

    def _window(self) -> int:
        """Subtomograms that are read together."""
        each = 2 * self.subtomograms.box**3
        return len(self.subtomograms) if self._chunk() == 1 else max(self.batch_size, WINDOW_BYTES // each)

    def _chunk(self) -> int:
        """Subtomograms that a store reads at least; 1 in memory."""
        return int(getattr(self.subtomograms.volumes, "chunks", (1,))[0])

    def _order(self, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows in the order of an epoch."""
        if not self.balanced:
            return _scattered(np.arange(len(codes)), self._chunk(), self._window(), rng)
        present = np.unique(codes)
        slots = self.batches * self.batch_size
        rounds = -(-slots // len(present))
        # Every round has each class once, so that any batch holds them as evenly as its size allows.
        kinds = np.concatenate([rng.permutation(present) for _ in range(rounds)])[:slots]
        order = np.empty(slots, dtype=int)
        for kind in present:
            places, rows = np.flatnonzero(kinds == kind), np.flatnonzero(codes == kind)
            again = -(-len(places) // len(rows))
            block = max(1, self._window() // len(present))
            order[places] = np.concatenate([_scattered(rows, self._chunk(), block, rng) for _ in range(again)])[: len(places)]
        return order


def labelled(
    subtomograms: Subtomograms,
    *,
    classes: tuple[str, ...] | None = None,
    batch_size: int = 32,
    balanced: bool = False,
    turns: bool = False,
    shift: int = 0,
    seed: int = 0,
) -> Labelled:
    """Use subtomograms whose table has a `label` column as training data.

    Parameters
    ----------
    subtomograms
        The data, in memory or a store, which is then read piece by piece.
    classes
        Class names in the order of the network's outputs; by default the labels that occur, sorted.
    batch_size
        Subtomograms per batch.
    balanced
        Draw all classes equally often in every batch; rare ones are repeated within an epoch.
    turns
        Turn subtomograms at random by 180° about the axes that leave their missing wedge as it is (`half_turns`).
    shift
        Move them at random by up to so many voxels along each axis. What leaves the box comes in at the other side, which
        keeps the missing wedge exactly.
    seed
        Decides order, turns and shifts.

    Raises
    ------
    ValueError
        If there is no `label` column, a label is not among the classes, or a shift is not within half the box.
    """
    if "label" not in subtomograms.particles:
        raise ValueError(f"training needs a column 'label'; the particle table has {', '.join(subtomograms.particles.columns)}")
    if batch_size < 1:
        raise ValueError(f"a batch needs at least one subtomogram, got batch_size={batch_size}")
    if not 0 <= shift <= subtomograms.box // 2:
        raise ValueError(f"shift must be 0 to {subtomograms.box // 2} voxels in a box of {subtomograms.box}, got {shift}")
    wanted = classes or tuple(sorted(subtomograms.particles["label"].astype(str).unique()))
    labels_of(subtomograms, wanted)
    return Labelled(subtomograms, tuple(wanted), batch_size, seed, balanced=balanced, turns=turns, shift=shift)


def labels_of(subtomograms: Subtomograms, classes: tuple[str, ...]) -> Tensor:
    """Class indices (n,) of the `label` column, or ValueError naming labels that are no class."""
    labels = subtomograms.particles["label"].astype(str)
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ValueError(f"labels {', '.join(unknown)} are not among the classes {', '.join(classes)}")
    return torch.from_numpy(pd.Categorical(labels, categories=list(classes)).codes.astype(np.int64))


def half_turns(particles: pd.DataFrame) -> np.ndarray:
    """Which rotations leave the missing wedge of each particle as it is.

    A wedge about the tilt axis y is unchanged by 180° about y. Where it is symmetric (tilts from -t to t), also by 180° about
    x and z. A tilt axis along x exchanges the roles of x and y; any other leaves only 180° about z, where it is symmetric.

    Parameters
    ----------
    particles
        Particle table with ``tilt_min``, ``tilt_max`` and perhaps ``tilt_axis`` (degrees).

    Returns
    -------
    ndarray
        Truth values (n, 4): no rotation, 180° about x, y, z.
    """
    low, high = particles[WEDGE].to_numpy(dtype=float).T
    axis = particles[AXIS].to_numpy(dtype=float) if AXIS in particles else np.zeros(len(particles))
    symmetric = np.abs(low + high) < 1
    along_y, along_x = (np.abs((axis + 90 + offset) % 180 - 90) < 0.5 for offset in (0, 90))
    about_x = along_x | (along_y & symmetric)
    about_y = along_y | (along_x & symmetric)
    return np.stack([np.ones(len(low), dtype=bool), about_x, about_y, symmetric], axis=1)


def split(
    subtomograms: Subtomograms, share: float, *, seed: int, by_tomogram: bool = False
) -> tuple[Subtomograms, Subtomograms]:
    """Part labelled subtomograms into some to train on and some to validate with; what lies in a store stays there.

    Parameters
    ----------
    subtomograms
        Labelled subtomograms.
    share
        Share of each class in the second part, between 0 and 1.
    seed
        Decides who comes where.
    by_tomogram
        Keep the particles of a tomogram together: then the second part tells what a network is worth in a new tomogram. The
        share of each class is met as well as whole tomograms allow.

    Raises
    ------
    ValueError
        If the share is not between 0 and 1, a class has one member only, or there are too few tomograms to part.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to validate with lies between 0 and 1, got {share}")
    labels = subtomograms.particles["label"].astype(str).to_numpy()
    kinds, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(f"classes with a single member cannot be parted: {', '.join(kinds[counts < 2])}")
    rng = np.random.default_rng(seed)
    held = _by_tomogram(subtomograms, labels, share, rng) if by_tomogram else np.zeros(len(labels), dtype=bool)
    for kind, count in zip(kinds, counts, strict=True) if not by_tomogram else ():
        some = int(np.clip(round(share * count), 1, count - 1))
        held[rng.permutation(np.flatnonzero(labels == kind))[:some]] = True
    return _part(subtomograms, np.flatnonzero(~held)), _part(subtomograms, np.flatnonzero(held))


def _by_tomogram(subtomograms: Subtomograms, labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Mask of the particles held back: of many ways to choose tomograms, the one that best gives each class its share."""
    tomograms = subtomograms.particles["tomogram"].to_numpy()
    if len(set(tomograms)) < 2:
        raise ValueError(f"particles of one tomogram ({tomograms[0]}) cannot be parted by tomogram")
    ways = GroupShuffleSplit(100, test_size=share, random_state=int(rng.integers(2**31)))
    best, least = np.zeros(len(labels), dtype=bool), np.inf
    for _, rows in ways.split(labels, groups=tomograms):
        held = np.isin(np.arange(len(labels)), rows)
        shares = pd.Series(held).groupby(labels).mean()
        if (off := float((shares - share).abs().max())) < least and shares.between(0, 1, inclusive="neither").all():
            best, least = held, off
    if not best.any():
        raise ValueError("no choice of whole tomograms leaves members of every class on both sides; part by class instead")
    return best


def _part(subtomograms: Subtomograms, rows: np.ndarray) -> Subtomograms:
    volumes = subtomograms.volumes
    lazy = isinstance(volumes, zarr.Array | store.Rows)
    chosen: Any = store.Rows(volumes, rows) if lazy else np.asarray(volumes)[rows]
    return replace(subtomograms, volumes=chosen, particles=subtomograms.particles.iloc[rows].reset_index(drop=True))


def _read(volumes: Any, rows: np.ndarray) -> np.ndarray:
    return store.take(volumes, rows) if isinstance(volumes, zarr.Array) else volumes[rows]


def _scattered(rows: np.ndarray, chunk: int, block: int, rng: np.random.Generator) -> np.ndarray:
    """Ascending rows, shuffled: chunks of the store in random order, then all that lies within `block` of each other."""
    groups = np.split(rows, np.flatnonzero(np.diff(rows // chunk)) + 1)
    mixed = np.concatenate([groups[i] for i in rng.permutation(len(groups))])
    for start in range(0, len(mixed), block):
        mixed[start : start + block] = rng.permutation(mixed[start : start + block])
    return mixed


def _turned(volumes: Tensor, ways: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Volumes turned about their centres by rotations drawn from those that are allowed, (n, 4)."""
    chosen = (rng.random(ways.shape) * ways).argmax(axis=1)
    turned = volumes.clone()
    for way, axes in enumerate(HALF_TURNS):
        rows = torch.from_numpy(np.flatnonzero(chosen == way))
        if axes and len(rows):
            dims = tuple(axis + 1 for axis in axes)
            # The centre of an even box is no point of symmetry of the array: index i goes to -i.
            offset = 1 - volumes.shape[-1] % 2
            turned[rows] = volumes[rows].flip(dims).roll((offset,) * 2, dims)
    return turned


def _moved(volumes: Tensor, shift: int, rng: np.random.Generator) -> Tensor:
    if shift == 0:
        return volumes
    steps = rng.integers(-shift, shift + 1, (len(volumes), 3))
    return torch.stack([one.roll(tuple(step), (0, 1, 2)) for one, step in zip(volumes, steps.tolist(), strict=True)])
