"""Takes unrotated boxes and their particle table, gives `Subtomograms` in memory or in a store; opens, extends, joins them.

Volumes are normalised (mean 0, standard deviation 1), bright on dark, with the particle at index ``box // 2``. Those of a
store are read on demand, so they need not fit into memory.

>>> cut.save("subtomograms.zarr")
>>> for ids, volumes in open("subtomograms.zarr").batches(64): ...
"""

import hashlib
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab.subtomograms import store, writer


@dataclass(frozen=True, eq=False)
class Subtomograms:
    """Subtomograms with their particle table; row i of the table belongs to ``volumes[i]``.

    Parameters
    ----------
    volumes
        Array (n, box, box, box), in memory or of a store.
    particles
        Particle table of n rows.
    voxel_size
        Å.
    skipped
        Particles that `extract` could not cut, with the column ``reason``.

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
        """As `take`, but the volumes are read on demand."""
        rows = tables.rows(self.particles, ids)
        return Subtomograms(store.Rows(self.volumes, rows), self.particles.iloc[rows], self.voxel_size)

    def batches(self, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (ids (b,), volumes (b, box, box, box) float32) with b up to `n`, in order; each batch is read on demand."""
        if n < 1:
            raise ValueError(f"a batch needs at least one subtomogram, got {n}")
        ids = self.ids
        for start in range(0, len(self), n):
            yield ids[start : start + n], np.asarray(self.volumes[start : start + n]).astype(np.float32, copy=False)

    def digest(self) -> str:
        """SHA-256 of the ids, positions, box and voxel size; not of the voxels."""
        total = hashlib.sha256(f"{self.box} {self.voxel_size}".encode())
        total.update(np.ascontiguousarray(self.ids).tobytes())
        total.update(np.ascontiguousarray(tables.positions(self.particles)).tobytes())
        return total.hexdigest()

    def save(self, path: str | Path) -> str | Path:
        """Write a store at `path`, a folder or an address such as s3://bucket/many.zarr; an existing one is replaced.

        In a folder it is whole or not at all. Object storage cannot rename: there an existing store is removed first, and the
        new one is valid once its last object is written.
        """
        batches = writer.batches(self.volumes, self.particles)
        skipped = [self.skipped]
        return writer.write(path, batches, box=self.box, voxel_size=self.voxel_size, total=len(self), skipped=skipped)


def open(path: str | Path, *, skip_damaged: bool = False) -> Subtomograms:  # noqa: A001 - reads subtomograms.open
    """Open a store in a folder or in object storage; its volumes are read on demand.

    Parameters
    ----------
    path
        Its folder, or an address such as ``s3://bucket/many.zarr`` (`tomolab.subtomograms.store`).
    skip_damaged
        Read the whole store now, and leave out, with a warning, the particles whose volumes are damaged or missing. Otherwise
        a volume that does not have its checksum is an error when it is read.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If it is not a store of subtomograms, or its table and array disagree.
    """
    volumes, particles, voxel_size = store.read(path)
    found = Subtomograms(volumes, particles, voxel_size, store.read_skipped(path))
    damaged = volumes.damaged() if skip_damaged else np.empty(0, dtype=int)
    if not len(damaged):
        return found
    warnings.warn(
        f"{len(damaged)} of {len(found)} volumes in {path} are damaged or missing, such as those of the particles "
        f"{found.ids[damaged][:5].tolist()}; they are left out",
        stacklevel=2,
    )
    return replace(found.choose(np.delete(found.ids, damaged)), skipped=found.skipped)


def append(path: str | Path, more: Subtomograms, *, renumber: bool = False) -> Subtomograms:
    """Add subtomograms to a store without writing it again; all of them or none.

    Meanwhile, and after a kill, readers see the store as it was. Several processes may add to one store, one after the other.

    Parameters
    ----------
    path
        The store.
    more
        Subtomograms of the same box and voxel size.
    renumber
        Number the new ones after the highest id in the store; the column ``id_before_joining`` keeps the old ids.

    Returns
    -------
    Subtomograms
        The store, opened again.

    Raises
    ------
    FileNotFoundError
        If there is no store at `path`.
    ValueError
        If the box or voxel size differs, or, without `renumber`, the store has some of the ids.
    OSError
        If the disk has no room for them.
    """
    if not renumber:
        known = store.read(path)[1]["particle_id"]
        common = more.ids[pd.Index(more.ids).isin(known)]
        if len(common):
            raise ValueError(
                f"{len(common)} of {len(more)} particle ids are in {path} already, such as {common[:5].tolist()}; "
                "renumber=True gives new ones"
            )
    writer.append(
        path,
        writer.batches(more.volumes, more.particles),
        box=more.box,
        voxel_size=more.voxel_size,
        total=len(more),
        skipped=[more.skipped],
        renumber=renumber,
    )
    return open(path)


def reachable(volumes: Any) -> bool:
    """Whether volumes are those of a store, which other processes can open, and not an array in memory."""
    return isinstance(volumes.array if isinstance(volumes, store.Rows) else volumes, store.Volumes)


def reached(volumes: Any) -> Any:
    """Volumes that were sent to this process; FileNotFoundError if it cannot reach the store. An array is made writeable."""
    if isinstance(volumes, np.ndarray):
        return volumes if volumes.flags.writeable else volumes.copy()
    place = (volumes.array if isinstance(volumes, store.Rows) else volumes).place
    if not place.exists():
        raise FileNotFoundError(
            f"a worker on {platform.node()} finds no store at {place}: put it where all workers can reach it, "
            "or load the subtomograms into memory (take), which are sent to the workers"
        )
    return volumes


def join(sets: Sequence[Subtomograms], *, path: str | Path | None = None) -> Subtomograms:
    """Join several sets into one, in their order.

    Parameters
    ----------
    sets
        Sets of one box and one voxel size. If particle ids occur twice, all particles are numbered from 0 and the column
        ``id_before_joining`` keeps the old ids.
    path
        Write a store there and return it opened, instead of holding all in memory.

    Raises
    ------
    ValueError
        If there is nothing to join, or boxes or voxel sizes differ.
    """
    shapes = sorted({(one.box, one.voxel_size) for one in sets})
    if len(shapes) != 1:
        raise ValueError(f"sets of one box and voxel size can be joined, got {shapes or 'none'}")
    ((box, voxel_size),) = shapes
    particles = pd.concat([one.particles for one in sets], ignore_index=True)
    if particles["particle_id"].duplicated().any():
        particles["id_before_joining"] = particles["particle_id"]
        particles["particle_id"] = np.arange(len(particles))
    if path is None:
        return Subtomograms(np.concatenate([np.asarray(one.volumes[:]) for one in sets]), particles, voxel_size)
    starts = np.cumsum([0, *map(len, sets)])

    def stream() -> Iterator[store.Batch]:
        for start, one in zip(starts, sets, strict=False):
            done = int(start)
            for volumes, table in writer.batches(one.volumes, one.particles):
                yield volumes, particles.iloc[done : done + len(table)]
                done += len(table)

    return open(writer.write(path, stream(), box=box, voxel_size=voxel_size, total=len(particles)))
