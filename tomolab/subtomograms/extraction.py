"""Takes tomograms and their particles, gives subtomograms, in memory or in one store, which goes on after an interruption.

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
from tomolab.subtomograms import cropping, dataset, writer
from tomolab.subtomograms.cropping import Cut
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

Boxes = tuple[np.ndarray, pd.DataFrame, pd.DataFrame]
"""What `cropping.boxes` gives."""


def extract(
    volume: Volume | Tomogram,
    particles: pd.DataFrame,
    *,
    box: int,
    voxel_size: float | None = None,
    path: str | Path | None = None,
    contrast: Literal["bright", "dark"] = "bright",
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
    named in ``.skipped`` with the reason, and counted in a warning.

    Parameters
    ----------
    volume
        The tomogram, in memory or opened by `io.open_volume`.
    particles
        The particles of this tomogram, positions in Å. All columns are kept, so that each keeps the tilts of its own.
    box
        Edge in voxels of the result.
    voxel_size
        Å of the result; that of the tomogram by default.
    path
        Write a store in this folder and return it opened, instead of holding all in memory. After an interruption the same
        call goes on with what was cut.
    contrast
        Of the tomogram. Where density is "dark" it is turned to bright, and the column ``contrast`` says so.
    normalise
        "box" takes mean and deviation of the whole box; "outside" those of the voxels outside a sphere about its centre, as
        RELION's background circle.
    diameter
        Of that sphere, in Å.
    edges
        "skip" leaves out particles whose box leaves the tomogram; "flag" keeps those whose centre lies in it, with the share
        of the box that was measured in the column ``edge`` and the mean, which is 0, where nothing was.
    resume
        Go on with work on `path` that was interrupted, if it was of the same particles, tomogram and parameters.
    progress
        Show a bar while a store is written.
    client
        Workers of a Dask cluster that read and cut, while this process writes (`parallel`). A tomogram on disk is opened by
        each at the same path; one in memory is sent. By default the active `distributed.Client`, if there is one; False works
        here. The result is the same.

    Returns
    -------
    Subtomograms
        In the order of the table; rows of ``.particles`` and ``.skipped`` together are those that came in.

    Raises
    ------
    ValueError
        If the box is larger than the volume, no particle can be cut, or a word is not one of those above.
    BlockingIOError
        If another process cuts into the same `path`.
    """
    particles = tables.check(particles)
    tomogram = tomogram_files.of(volume) if isinstance(volume, Volume) else volume
    size = tomogram.voxel_size if voxel_size is None else voxel_size
    cut = Cut(box, size, contrast=contrast, normalise=normalise, diameter=diameter, edges=edges)
    work = pieces(Path(tomogram.name).name, tomogram, particles, cut=cut)
    if not work:
        raise ValueError("the table of particles is empty")
    if path is not None:
        work_key = key(repr(cut), particles, [tomogram])
        return warned(store(path, work, key=work_key, resume=resume, progress=progress, client=parallel.active(client)))
    data, rows, skipped = zip(*_cut(deque(work), parallel.active(client)), strict=True)
    left = writer.joined(skipped)
    if not sum(map(len, rows)):
        raise ValueError(f"none of {len(left)} particles could be cut: {writer.reasons(left)}")
    return warned(Subtomograms(np.concatenate(data), writer.joined(rows), size, left))


@dataclass(frozen=True, eq=False)
class Piece:
    """Particles that are cut from a tomogram, all or none of them, and how; no other piece has its `name`."""

    name: str
    tomogram: Tomogram
    particles: pd.DataFrame
    cut: Cut


def pieces(name: str, tomogram: Tomogram, particles: pd.DataFrame, *, cut: Cut) -> list[Piece]:
    """The work on a tomogram of that name, as many particles at a time as are cut together.

    Raises
    ------
    ValueError
        If the box is larger than the tomogram.
    """
    held = cropping.measured(tomogram, cut.voxel_size)
    if cut.box < 2 or (cut.box > held).any():
        raise ValueError(
            f"a box of {cut.box} voxels of {cut.voxel_size:g} Å does not fit into {' x '.join(map(str, held))} voxels "
            f"(z, y, x) of {tomogram.name}"
        )
    count = cropping.together(cut)
    starts = range(0, len(particles), count)
    return [Piece(f"{name} {start}", tomogram, particles[start : start + count], cut) for start in starts]


def store(
    path: str | Path, work: Iterable[Piece], *, key: str, resume: bool = True, progress: bool = True, client: Any = None
) -> Subtomograms:
    """Cut boxes into a new store, which takes its place when it is whole; goes on where the same work was interrupted.

    Parameters
    ----------
    path, resume, progress
        As of `extract`.
    work
        At least one piece, and all of one box and voxel size. A tomogram is let go after the last piece of it.
    key
        What `key` gave: work that was interrupted goes on if it had the same.
    client
        What `parallel.active` gave: workers that cut, several pieces at a time; None works here.

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
    cut, total = waiting[0].cut, sum(len(piece.particles) for piece in waiting)
    with writer.lock(path):
        journal = writer.begin(path, key, box=cut.box, voxel_size=cut.voxel_size, total=total, resume=resume)
        left = deque(piece for piece in waiting if piece.name not in journal.done)
        waiting.clear()
        names, lengths = [piece.name for piece in left], [len(piece.particles) for piece in left]
        bar = tqdm(total=total, initial=total - sum(lengths), unit="particle", desc=Path(path).name, disable=not progress)
        with bar, closing(_cut(left, client)) as coming:
            for name, length, (data, rows, skipped) in zip(names, lengths, coming, strict=True):
                journal = writer.add(journal, name, [(data, rows)], skipped=[skipped])
                bar.update(length)
        skipped = writer.finish(journal, path)
    return replace(dataset.open(path), skipped=skipped)


def _cut(work: deque[Piece], client: Any) -> Generator[Boxes]:
    """Boxes of each piece, in their order, cut here or by workers; takes the pieces away."""
    # A tomogram in memory is sent once.
    only = work[0].tomogram if len({id(piece.tomogram) for piece in work}) == 1 else None
    pieces = (work.popleft() for _ in range(len(work)))
    items = ((None if only else piece.tomogram, piece.particles, piece.cut) for piece in pieces)
    return parallel.each(_boxes, items, client=client, shared=(only,))


def _boxes(item: tuple[Tomogram | None, pd.DataFrame, Cut], only: Tomogram | None) -> Boxes:
    tomogram, particles, cut = item
    tomogram = only or tomogram
    assert tomogram is not None
    return cropping.boxes(tomogram, particles, cut=cut)


def key(parameters: str, particles: pd.DataFrame, tomograms: Iterable[Tomogram]) -> str:
    """SHA-256 of all on which boxes depend. Of a file its size and time are taken for what it holds; memory is read."""
    digest = hashlib.sha256(parameters.encode())
    for tomogram in tomograms:
        digest.update(f"{tomogram!r} {tomogram.origin}".encode())
        if tomogram.again is None:
            for slab in tomogram_files.slabs(tomogram):
                digest.update(tomogram.read(slab).data)
        elif Path(tomogram.name).is_file():
            about = Path(tomogram.name).stat()
            digest.update(f"{about.st_size} {about.st_mtime_ns}".encode())
    digest.update(particles.to_csv().encode())
    return digest.hexdigest()


def warned(made: Subtomograms) -> Subtomograms:
    """The same subtomograms; the caller's caller is warned of particles that were skipped."""
    if len(made.skipped):
        total = len(made) + len(made.skipped)
        told = f"{len(made.skipped)} of {total} particles skipped: {writer.reasons(made.skipped)}; see .skipped"
        warnings.warn(told, stacklevel=3)
    return made
