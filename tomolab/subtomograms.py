"""Subtomograms: boxes cut around particles, unrotated as they lie in the tomogram, beside their particle table.

Volumes are normalised (mean 0, standard deviation 1), bright on dark, and a particle sits at index ``box // 2``. Opened
from a store they are read on demand, so they never need to fit in memory.

>>> cut = extract(tomogram, picks, box=40)
>>> cut.save("subtomograms.zarr")
>>> for ids, volumes in open("subtomograms.zarr").batches(64): ...
"""

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tomolab import fourier, stores
from tomolab import particles as tables
from tomolab import volumes as densities
from tomolab.conventions import centre
from tomolab.stores import write
from tomolab.volumes import Volume

__all__ = ["Subtomograms", "extract", "join", "open", "write"]

BATCH = 64
MARGIN = 4
"""Voxels around a box that take part in its sub-voxel shift, so that opposite faces do not ring into each other."""


@dataclass(frozen=True, eq=False)
class Subtomograms:
    """Subtomograms with their particle table; row i of the table belongs to ``volumes[i]``.

    Parameters
    ----------
    volumes
        Array (n, box, box, box), numpy or zarr.
    particles
        Particle table of n rows.
    voxel_size
        Å.
    skipped
        Particles that could not be cut, with the column ``reason``; filled by `extract`, and kept in a store.

    Raises
    ------
    ValueError
        If the array is not n cubes, or its length is not that of the table.
    """

    volumes: Any
    particles: pd.DataFrame
    voxel_size: float
    skipped: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        shape = tuple(self.volumes.shape)
        if len(shape) != 4 or len(set(shape[1:])) != 1 or shape[1] < 1:
            raise ValueError(f"subtomograms need an array (n, box, box, box), got shape {shape}")
        if shape[0] != len(self.particles):
            raise ValueError(f"{shape[0]} volumes, but {len(self.particles)} rows in the particle table")
        if not np.isfinite(self.voxel_size) or self.voxel_size <= 0:
            raise ValueError(f"voxel size must be a positive number of Å, got {self.voxel_size}")
        object.__setattr__(self, "particles", tables.check(self.particles))
        object.__setattr__(self, "voxel_size", float(self.voxel_size))

    @property
    def box(self) -> int:
        """Edge of the boxes in voxels."""
        return int(self.volumes.shape[1])

    @property
    def ids(self) -> np.ndarray:
        """Particle ids, (n,) int64, in the order of the volumes."""
        return self.particles["particle_id"].to_numpy()

    def __len__(self) -> int:
        return len(self.particles)

    def __repr__(self) -> str:
        return f"Subtomograms({len(self):,} boxes of {self.box}³ voxels of {self.voxel_size:g} Å)"

    def take(self, ids: Any) -> "Subtomograms":
        """Return the subtomograms with these particle ids, in this order, in memory; a ValueError for unknown ones."""
        chosen = self.choose(ids)
        return Subtomograms(chosen.volumes[:], chosen.particles, self.voxel_size)

    def choose(self, ids: Any) -> "Subtomograms":
        """As `take`, but the volumes stay where they are, and are read when they are asked for."""
        rows = tables.rows(self.particles, ids)
        return Subtomograms(stores.Rows(self.volumes, rows), self.particles.iloc[rows], self.voxel_size)

    def batches(self, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (ids (b,), volumes (b, box, box, box) float32) with b up to `n`, in order, reading only what is yielded."""
        if n < 1:
            raise ValueError(f"a batch needs at least one subtomogram, got {n}")
        ids = self.ids
        for start in range(0, len(self), n):
            yield ids[start : start + n], np.asarray(self.volumes[start : start + n], dtype=np.float32)

    def save(self, path: str | Path) -> Path:
        """Write a store at `path`, whole or not at all; one that exists is replaced."""
        about: dict[str, Any] = {"box": self.box, "voxel_size": self.voxel_size, "total": len(self), "skipped": [self.skipped]}
        return stores.write(path, stores.parts(self.volumes, self.particles), **about)


def open(path: str | Path) -> Subtomograms:  # noqa: A001 - reads subtomograms.open
    """Open a store; volumes are read when they are asked for.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If it is not a store of subtomograms, or its table and array disagree.
    """
    volumes, particles, voxel_size = stores.read(path)
    return Subtomograms(volumes, particles, voxel_size, stores.skipped(path))


def join(parts: Sequence[Subtomograms], *, path: str | Path | None = None) -> Subtomograms:
    """Put several sets into one, in their order.

    Parameters
    ----------
    parts
        Sets of one box and one voxel size. Should their particle ids clash, all particles are numbered anew from 0 and
        the column ``id_before_joining`` keeps the old ids.
    path
        Write a store there and return it opened, instead of holding all in memory.

    Raises
    ------
    ValueError
        If there is nothing to join, or boxes or voxel sizes differ.
    """
    kinds = sorted({(part.box, part.voxel_size) for part in parts})
    if len(kinds) != 1:
        raise ValueError(f"sets of one box and voxel size can be joined, got {kinds or 'none'}")
    ((box, voxel_size),) = kinds
    particles = pd.concat([part.particles for part in parts], ignore_index=True)
    if particles["particle_id"].duplicated().any():
        particles["id_before_joining"] = particles["particle_id"]
        particles["particle_id"] = np.arange(len(particles))
    if path is None:
        return Subtomograms(np.concatenate([np.asarray(part.volumes[:]) for part in parts]), particles, voxel_size)
    starts = np.cumsum([0, *map(len, parts)])

    def stream() -> Iterator[stores.Part]:
        for start, part in zip(starts, parts, strict=False):
            done = int(start)
            for volumes, table in stores.parts(part.volumes, part.particles):
                yield volumes, particles.iloc[done : done + len(table)]
                done += len(table)

    return open(stores.write(path, stream(), box=box, voxel_size=voxel_size, total=len(particles)))


def extract(
    volume: Volume, particles: pd.DataFrame, *, box: int, voxel_size: float | None = None, path: str | Path | None = None
) -> Subtomograms:
    """Cut a box around every particle, with the particle at index ``box // 2`` to a fraction of a voxel.

    A box is cut at the nearest voxel, moved by the rest with a Fourier shift, and normalised to mean 0 and standard
    deviation 1. Particles that cannot be cut are named in ``.skipped`` with the reason, and counted in a warning.

    Parameters
    ----------
    volume
        The tomogram, bright on dark.
    particles
        The particles of this tomogram, positions in Å.
    box
        Edge in voxels of the result.
    voxel_size
        Å of the result; the tomogram is resampled first if it has another.
    path
        Write a store there and return it opened, instead of holding all in memory.

    Returns
    -------
    Subtomograms
        In the order of the table; rows of ``.particles`` and ``.skipped`` together are those that came in.

    Raises
    ------
    ValueError
        If the box is larger than the volume, or no particle can be cut.
    """
    particles = tables.check(particles)
    size = volume.voxel_size if voxel_size is None else voxel_size
    grid = densities.resample(volume, size)
    # Resampling may pad the far sides by a few voxels that were never measured.
    measured = np.minimum(np.floor(np.array(volume.shape) * volume.voxel_size / size + 0.01), grid.shape).astype(int)
    if box < 2 or (box > measured).any():
        raise ValueError(
            f"a box of {box} voxels of {size:g} Å does not fit into {' x '.join(map(str, measured))} voxels (z, y, x)"
        )
    places = tables.positions(particles) / size
    corners = np.floor(places + 0.5).astype(int) - centre(box)
    inside = ((corners >= 0) & (corners + box <= measured)).all(axis=1)
    skipped = [particles[~inside].assign(reason="the box leaves the tomogram")]
    crops = _cut(grid.data, particles[inside], places[inside], box=box, skipped=skipped)
    first = next(crops, None)
    if first is None:
        raise ValueError(f"none of {len(particles)} particles could be cut: {_reasons(skipped) or 'the table is empty'}")
    parts = itertools.chain([first], crops)
    if path is None:
        data, rows = zip(*parts, strict=True)
        cut = Subtomograms(np.concatenate(data), pd.concat(rows), size)
    else:
        cut = open(stores.write(path, parts, box=box, voxel_size=size, total=int(inside.sum()), skipped=skipped))
    if _reasons(skipped):
        warnings.warn(
            f"{len(particles) - len(cut)} of {len(particles)} particles skipped: {_reasons(skipped)}; see .skipped",
            stacklevel=2,
        )
    return replace(cut, skipped=pd.concat(skipped, ignore_index=True))


def _cut(
    data: np.ndarray, particles: pd.DataFrame, places: np.ndarray, *, box: int, skipped: list[pd.DataFrame]
) -> Iterator[stores.Part]:
    """Yield parts of normalised boxes (float16) about `places` (n, 3; zyx, voxels); constant boxes go to `skipped`."""
    edge = box + 2 * MARGIN
    core = (slice(None), *(slice(MARGIN, MARGIN + box),) * 3)
    for start in range(0, len(particles), BATCH):
        rows, here = particles[start : start + BATCH], places[start : start + BATCH]
        nearest = np.floor(here + 0.5).astype(int)
        axes = nearest[:, :, None] - centre(box) - MARGIN + np.arange(edge)
        # Beyond the tomogram the margin repeats the last voxel; the box itself lies inside.
        z, y, x = (np.clip(axes[:, i], 0, data.shape[i] - 1) for i in range(3))
        boxes = torch.from_numpy(data[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]])
        flat = boxes[core].flatten(1)
        varied = (flat.amax(1) > flat.amin(1)).numpy()
        if not varied.all():
            skipped.append(rows[~varied].assign(reason="all values in the box are equal"))
        if varied.any():
            phases = fourier.shift_phases((edge,) * 3, torch.from_numpy(nearest - here)[varied].float())
            moved = torch.fft.irfftn(torch.fft.rfftn(boxes[varied], dim=(1, 2, 3)) * phases, s=(edge,) * 3, dim=(1, 2, 3))
            yield densities.normalise(moved[core]).half().numpy(), rows[varied]


def _reasons(skipped: list[pd.DataFrame]) -> str:
    counts = pd.concat(skipped)["reason"].value_counts()
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items())
