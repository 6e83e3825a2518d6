"""Takes tomograms and their particles, gives subtomograms in memory or in one store, and resumes after an interruption.

>>> cut = extract(tomogram, picks, box=40, path="subtomograms.zarr")
"""

import hashlib
import warnings
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tomolab import parallel
from tomolab import particles as tables
from tomolab.io.volumes import tomogram as tomogram_files
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.subtomograms import contrast as contrasts
from tomolab.subtomograms import cropping, dataset, writer
from tomolab.subtomograms.cropping import Cut
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

Boxes = tuple[np.ndarray, pd.DataFrame, pd.DataFrame]
"""Volumes, rows and skipped particles of `cropping.boxes`."""


def extract(
    volume: Volume | Tomogram,
    particles: pd.DataFrame,
    *,
    box: int,
    voxel_size: float | None = None,
    path: str | Path | None = None,
    contrast: Literal["bright", "dark"] = "bright",
    check_contrast: bool = True,
    normalise: Literal["box", "outside"] = "box",
    diameter: float | None = None,
    edges: Literal["skip", "flag"] = "skip",
    resume: bool = True,
    progress: bool = True,
    client: Any = None,
) -> Subtomograms:
    """Cut a box around every particle, with the particle at index ``box // 2`` to a fraction of a voxel.

    A box is cut at the nearest voxel, moved by the rest with a Fourier shift, and normalised to mean 0 and standard
    deviation 1. At another voxel size, a block around each particle is resampled by Fourier cropping
    (`tomolab.subtomograms.cropping`), so that a tomogram on disk is never read as a whole. Particles that cannot be cut are
    in ``.skipped`` with the reason; a warning counts them.

    Parameters
    ----------
    volume
        The tomogram, in memory or opened by `io.open_volume`.
    particles
        The particles of this tomogram, positions in Å. All columns are kept, also the tilts of each particle.
    box
        Edge in voxels of the result.
    voxel_size
        Å of the result; that of the tomogram by default.
    path
        Write a store in this folder and return it opened, instead of holding all in memory. After an interruption the same
        call resumes.
    contrast
        Of the tomogram. "dark" density is inverted, and the column ``contrast`` says so.
    check_contrast
        Measure the contrast of the tomogram where it can be told (`tomolab.subtomograms.contrast`), and refuse the other one.
    normalise
        "box" takes mean and deviation of the whole box, "outside" those of the voxels outside a centred sphere, as RELION's
        background circle.
    diameter
        Of that sphere, in Å.
    edges
        "skip" leaves out particles whose box leaves the tomogram; "flag" keeps those whose centre is inside. The column
        ``edge`` then has the fraction of the box inside the tomogram; voxels outside are 0, the mean.
    resume
        Resume interrupted work on `path` if particles, tomogram and parameters are the same.
    progress
        Show a bar while a store is written.
    client
        Workers of a Dask cluster that read and cut, while this process writes (`parallel`). Each opens a tomogram on disk at
        the same path; one in memory is sent. By default the active `distributed.Client`, if any; False uses this process
        alone. The result is the same.

    Returns
    -------
    Subtomograms
        In the order of the table; ``.particles`` and ``.skipped`` together have all its rows.

    Raises
    ------
    ValueError
        If the box is larger than the volume, no particle can be cut, a parameter is invalid, or the tomogram clearly has the
        other contrast.
    BlockingIOError
        If another process cuts into the same `path`.
    """
    particles = tables.check(particles)
    tomogram = tomogram_files.of(volume) if isinstance(volume, Volume) else volume
    size = tomogram.voxel_size if voxel_size is None else voxel_size
    cut = Cut(box, size, contrast=contrast, normalise=normalise, diameter=diameter, edges=edges)
    work = tasks(Path(tomogram.name).name, tomogram, particles, cut=cut)
    if not work:
        raise ValueError("the table of particles is empty")
    if check_contrast:
        contrasts.check(tomogram, contrast)
    if path is not None:
        work_key = key(repr(cut), particles, [tomogram])
        cut_store = store(path, work, key=work_key, resume=resume, progress=progress, client=parallel.active(client))
        return warn_skipped(cut_store)
    data, rows, skipped = zip(*_cut(deque(work), parallel.active(client)), strict=True)
    left = writer.joined(skipped)
    if not sum(map(len, rows)):
        raise ValueError(f"none of {len(left)} particles could be cut: {writer.reasons(left)}")
    return warn_skipped(Subtomograms(np.concatenate(data), writer.joined(rows), size, left))


@dataclass(frozen=True, eq=False)
class Task:
    """Particles to cut from a tomogram, all or none of them, with the parameters; `name` is unique."""

    name: str
    tomogram: Tomogram
    particles: pd.DataFrame
    cut: Cut


def tasks(name: str, tomogram: Tomogram, particles: pd.DataFrame, *, cut: Cut) -> list[Task]:
    """Tasks for the particles of a tomogram of this name, each with as many particles as are cut together.

    Raises
    ------
    ValueError
        If the box is larger than the tomogram.
    """
    size = cropping.measured(tomogram, cut.voxel_size)
    if cut.box < 2 or (cut.box > size).any():
        raise ValueError(
            f"a box of {cut.box} voxels of {cut.voxel_size:g} Å does not fit into {' x '.join(map(str, size))} voxels "
            f"(z, y, x) of {tomogram.name}"
        )
    count = cropping.count_together(cut)
    starts = range(0, len(particles), count)
    return [Task(f"{name} {start}", tomogram, particles[start : start + count], cut) for start in starts]


def store(
    path: str | Path, work: Iterable[Task], *, key: str, resume: bool = True, progress: bool = True, client: Any = None
) -> Subtomograms:
    """Cut boxes into a new store, which replaces `path` when it is whole; resumes the same work after an interruption.

    Parameters
    ----------
    path, resume, progress
        As in `extract`.
    work
        At least one task, all of one box and voxel size. A tomogram is released after its last task.
    key
        Result of `key`; interrupted work with the same key is resumed.
    client
        Result of `parallel.active`: workers that cut several tasks at a time; None uses this process.

    Returns
    -------
    Subtomograms
        The store, opened.

    Raises
    ------
    OSError
        If the disk has no room for the boxes, or another process writes there.
    ValueError
        If no particle can be cut.
    """
    waiting = deque(work)
    cut, total = waiting[0].cut, sum(len(task.particles) for task in waiting)
    with writer.lock(path):
        journal = writer.begin(path, key, box=cut.box, voxel_size=cut.voxel_size, total=total, resume=resume)
        left = deque(task for task in waiting if task.name not in journal.done)
        waiting.clear()
        names, lengths = [task.name for task in left], [len(task.particles) for task in left]
        bar = tqdm(total=total, initial=total - sum(lengths), unit="particle", desc=Path(path).name, disable=not progress)
        with bar, closing(_cut(left, client)) as coming:
            for name, length, (data, rows, skipped) in zip(names, lengths, coming, strict=True):
                journal = writer.add(journal, name, [(data, rows)], skipped=[skipped])
                bar.update(length)
        skipped = writer.finish(journal, path)
    return replace(dataset.open(path), skipped=skipped)


def _cut(work: deque[Task], client: Any) -> Generator[Boxes]:
    """Boxes of each task, in order, cut by this process or by workers; empties `work`."""
    # A tomogram in memory is sent once.
    only = work[0].tomogram if len({id(task.tomogram) for task in work}) == 1 else None
    taken = (work.popleft() for _ in range(len(work)))
    items = ((None if only else task.tomogram, task.particles, task.cut) for task in taken)
    return parallel.each(_boxes, items, client=client, shared=(only,))


def _boxes(item: tuple[Tomogram | None, pd.DataFrame, Cut], only: Tomogram | None) -> Boxes:
    tomogram, particles, cut = item
    tomogram = only or tomogram
    assert tomogram is not None
    return cropping.boxes(tomogram, particles, cut=cut)


def key(parameters: str, particles: pd.DataFrame, tomograms: Iterable[Tomogram]) -> str:
    """SHA-256 of all that determines the boxes. A tomogram file counts by its size and time, one in memory by its voxels."""
    digest = hashlib.sha256(parameters.encode())
    for tomogram in tomograms:
        digest.update(f"{tomogram!r} {tomogram.origin}".encode())
        if tomogram.again is None:
            for slab in tomogram_files.slabs(tomogram):
                digest.update(tomogram.read(slab).data)
        elif Path(tomogram.name).is_file():
            status = Path(tomogram.name).stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    digest.update(particles.to_csv().encode())
    return digest.hexdigest()


def warn_skipped(found: Subtomograms) -> Subtomograms:
    """Warn the caller's caller of skipped particles; gives back the subtomograms."""
    if len(found.skipped):
        total = len(found) + len(found.skipped)
        message = f"{len(found.skipped)} of {total} particles skipped: {writer.reasons(found.skipped)}; see .skipped"
        warnings.warn(message, stacklevel=3)
    return found
