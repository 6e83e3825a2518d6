"""Labelled subtomograms in, batches of volumes and labels out, which a network learns from.

A subtomogram is labelled by the column ``label`` of the particle table. A store is read a little at a time, never as a whole:
its chunks come in random order, and what was read together is shuffled again.

>>> known, held_back = split(subtomograms.open("labelled.zarr"), 0.2, seed=1)
>>> data = Labelled(known, batch_size=32, balanced=True, seed=1)
>>> volumes, labels = next(data.epoch(0))
"""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupShuffleSplit
from torch import Tensor

from tomolab.subtomograms import store
from tomolab.subtomograms.dataset import Subtomograms

WINDOW_BYTES = 64 * 1024**2
"""How much of a store is read together; as much again is read meanwhile."""


class Data(Protocol):
    """What a network learns from: `simulation.Stream(...)` and `Labelled(...)` are such."""

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
    """Subtomograms whose table has a `label` column, as training data.

    Parameters
    ----------
    subtomograms
        The data, in memory or a store, which is then read a little at a time.
    classes
        Class names in the order of the network's outputs; by default the labels that occur, sorted.
    batch_size
        Subtomograms per batch.
    balanced
        Draw all classes equally often in every batch; rare ones are repeated within an epoch.
    seed
        Decides the order.

    Raises
    ------
    ValueError
        If there is no `label` column, or a label is not among the classes.
    """

    subtomograms: Subtomograms
    _: KW_ONLY
    classes: tuple[str, ...] = ()
    batch_size: int = 32
    balanced: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        table = self.subtomograms.particles
        if "label" not in table:
            raise ValueError(f"training needs a column 'label'; the particle table has {', '.join(table.columns)}")
        if self.batch_size < 1:
            raise ValueError(f"a batch needs at least one subtomogram, got batch_size={self.batch_size}")
        object.__setattr__(self, "classes", tuple(self.classes) or tuple(sorted(table["label"].astype(str).unique())))
        labels_of(self.subtomograms, self.classes)

    @property
    def batches(self) -> int:
        """Batches in an epoch; they differ in size by one at most, and only where classes are not balanced."""
        return math.ceil(len(self.subtomograms) / self.batch_size)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """All subtomograms in an order of their own for every epoch, from batch `start` on."""
        codes = labels_of(self.subtomograms, self.classes).numpy()
        order = self._order(codes, np.random.default_rng((self.seed, number)))
        edges = np.linspace(0, len(order), self.batches + 1).round().astype(int)
        windows = self._windows(order, edges, start)
        # From a store, the next window is read while this one is used.
        for first, last, block, volumes in windows if self._chunk() == 1 else store.ahead(windows):
            for batch in range(first, last):
                rows = slice(edges[batch] - edges[first], edges[batch + 1] - edges[first])
                chosen = torch.from_numpy(np.array(volumes[rows], dtype=np.float32))
                yield chosen, torch.from_numpy(codes[block[rows]])

    def _windows(self, order: np.ndarray, edges: np.ndarray, start: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Numbers of batches, first and behind the last, that are read together; their rows, and their volumes."""
        together, first = max(1, self._window() // self.batch_size), start
        while first < self.batches:
            # Windows are the same wherever an epoch starts.
            last = min(self.batches, (first // together + 1) * together)
            block = order[edges[first] : edges[last]]
            yield first, last, block, self.subtomograms.volumes[block]
            first = last

    def _window(self) -> int:
        """Subtomograms that are read together."""
        each = 2 * self.subtomograms.box**3
        return len(self.subtomograms) if self._chunk() == 1 else max(self.batch_size, WINDOW_BYTES // each)

    def _chunk(self) -> int:
        """Neighbouring subtomograms that are read together from a store; 1 in memory."""
        return int(getattr(self.subtomograms.volumes, "block", 1))

    def _order(self, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows in the order of an epoch."""
        if not self.balanced:
            return _scattered(np.arange(len(codes)), self._chunk(), self._window(), rng)
        present = np.unique(codes)
        slots = self.batches * self.batch_size
        rounds = -(-slots // len(present))
        # Every round has each class once, so that any batch holds them as evenly as its size allows.
        drawn = np.concatenate([rng.permutation(present) for _ in range(rounds)])[:slots]
        order = np.empty(slots, dtype=int)
        for code in present:
            places, rows = np.flatnonzero(drawn == code), np.flatnonzero(codes == code)
            again = -(-len(places) // len(rows))
            block = max(1, self._window() // len(present))
            order[places] = np.concatenate([_scattered(rows, self._chunk(), block, rng) for _ in range(again)])[: len(places)]
        return order


def labels_of(subtomograms: Subtomograms, classes: tuple[str, ...]) -> Tensor:
    """Class indices (n,) of the `label` column, or ValueError naming labels that are no class."""
    labels = subtomograms.particles["label"].astype(str)
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ValueError(f"labels {', '.join(unknown)} are not among the classes {', '.join(classes)}")
    return torch.from_numpy(pd.Categorical(labels, categories=list(classes)).codes.astype(np.int64))


def split(
    subtomograms: Subtomograms, fraction: float, *, seed: int, by_tomogram: bool = False
) -> tuple[Subtomograms, Subtomograms]:
    """Split labelled subtomograms into some to train on and some to validate with; what lies in a store stays there.

    Parameters
    ----------
    subtomograms
        Labelled subtomograms.
    fraction
        Fraction of each class in the second part, between 0 and 1.
    seed
        Decides who comes where.
    by_tomogram
        Keep the particles of a tomogram together: then the second part shows what a network is worth in a new tomogram. The
        fraction of each class is met as well as whole tomograms allow.

    Raises
    ------
    ValueError
        If the fraction is not between 0 and 1, a class has one member only, or there are too few tomograms to split.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction to validate with lies between 0 and 1, got {fraction}")
    labels = subtomograms.particles["label"].astype(str).to_numpy()
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(f"classes with a single member cannot be split: {', '.join(names[counts < 2])}")
    rng = np.random.default_rng(seed)
    held = _by_tomogram(subtomograms, labels, fraction, rng) if by_tomogram else np.zeros(len(labels), dtype=bool)
    for name, count in zip(names, counts, strict=True) if not by_tomogram else ():
        some = int(np.clip(round(fraction * count), 1, count - 1))
        held[rng.permutation(np.flatnonzero(labels == name))[:some]] = True
    return _part(subtomograms, np.flatnonzero(~held)), _part(subtomograms, np.flatnonzero(held))


def _by_tomogram(subtomograms: Subtomograms, labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Mask of the particles held back: of 100 splits of the tomograms, the one that best meets the fraction in each class."""
    tomograms = subtomograms.particles["tomogram"].to_numpy()
    if len(set(tomograms)) < 2:
        raise ValueError(f"particles of one tomogram ({tomograms[0]}) cannot be split by tomogram")
    splits = GroupShuffleSplit(100, test_size=fraction, random_state=int(rng.integers(2**31)))
    best, least = np.zeros(len(labels), dtype=bool), np.inf
    for _, rows in splits.split(labels, groups=tomograms):
        held = np.isin(np.arange(len(labels)), rows)
        fractions = pd.Series(held).groupby(labels).mean()
        if (off := float((fractions - fraction).abs().max())) < least and fractions.between(0, 1, inclusive="neither").all():
            best, least = held, off
    if not best.any():
        raise ValueError("no choice of whole tomograms leaves members of every class on both sides; split by class instead")
    return best


def _part(subtomograms: Subtomograms, rows: np.ndarray) -> Subtomograms:
    volumes = subtomograms.volumes
    lazy = isinstance(volumes, store.Volumes | store.Rows)
    chosen: Any = store.Rows(volumes, rows) if lazy else np.asarray(volumes)[rows]
    return replace(subtomograms, volumes=chosen, particles=subtomograms.particles.iloc[rows].reset_index(drop=True))


def _scattered(rows: np.ndarray, chunk: int, block: int, rng: np.random.Generator) -> np.ndarray:
    """Ascending rows, shuffled: chunks of the store in random order, then all that lies within `block` of each other."""
    groups = np.split(rows, np.flatnonzero(np.diff(rows // chunk)) + 1)
    mixed = np.concatenate([groups[i] for i in rng.permutation(len(groups))])
    for start in range(0, len(mixed), block):
        mixed[start : start + block] = rng.permutation(mixed[start : start + block])
    return mixed
