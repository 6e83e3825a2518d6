"""Takes tomograms and their particles, writes the boxes into one store, tomogram by tomogram; goes on where it stopped.

>>> work = pieces("TS_01", tomogram, picks, cut=Cut(40, 10.0))
>>> skipped = store("subtomograms.zarr", work, key=key(repr(cut), picks, [tomogram]))
"""

import hashlib
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from tomolab import parallel
from tomolab.io.volumes import tomogram as tomogram_files
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.subtomograms import cropping, writer
from tomolab.subtomograms import store as stores
from tomolab.subtomograms.cropping import Cut


@dataclass(frozen=True, eq=False)
class Piece:
    """Particles that are cut from a tomogram, all or none of them, and how; no other piece has its `name`."""

    name: str
    tomogram: Tomogram
    particles: pd.DataFrame
    cut: Cut


def pieces(name: str, tomogram: Tomogram, particles: pd.DataFrame, *, cut: Cut) -> list[Piece]:
    """The work on a tomogram, so many particles at a time as `cropping` reads together.

    Parameters
    ----------
    name
        Of the tomogram.
    tomogram, particles
        As of `subtomograms.extract`.
    cut
        How boxes are cut.

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
) -> pd.DataFrame:
    """Cut boxes into a new store, which takes its place when it is whole.

    Parameters
    ----------
    path
        Its place; a store that is there is replaced.
    work
        At least one piece, and all of one box and voxel size. A tomogram is let go after the last piece of it.
    key
        What `key` gave: work that was interrupted goes on if it had the same.
    resume
        False begins anew in any case.
    progress
        Show a bar.
    client
        What `parallel.active` gave: workers that cut, several pieces at a time; None works here.

    Returns
    -------
    DataFrame
        The particles that could not be cut, with the column ``reason``.

    Raises
    ------
    BlockingIOError
        If another process writes there.
    OSError
        If the disk has no room for the boxes.
    ValueError
        If no particle can be cut.
    """
    waiting = deque(work)
    cut, total = waiting[0].cut, sum(len(piece.particles) for piece in waiting)
    with writer.lock(path):
        journal = writer.begin(path, key, box=cut.box, voxel_size=cut.voxel_size, total=total, resume=resume)
        left = [piece for piece in waiting if piece.name not in journal.done] if client else []
        sent = {piece.name: _windows(piece) for piece in left}
        ahead = parallel.each(_cut, ((piece.tomogram, one) for piece in left for one in sent[piece.name]), client=client)
        bar = tqdm(total=total, unit="particle", desc=Path(path).name, disable=not progress, leave=False)
        with bar, closing(ahead):
            while waiting:
                piece = waiting.popleft()
                bar.set_postfix_str(piece.name, refresh=False)
                if piece.name not in journal.done:
                    skipped: list[pd.DataFrame] = []
                    found = islice(ahead, len(sent[piece.name])) if client else None
                    journal = writer.add(journal, piece.name, parts(piece, skipped=skipped, found=found), skipped=skipped)
                bar.update(len(piece.particles))
        return writer.finish(journal, path)


def parts(
    piece: Piece, *, skipped: list[pd.DataFrame], client: Any = None, found: Iterable[cropping.Boxes] | None = None
) -> Iterator[stores.Part]:
    """Yield the boxes of a piece with their rows, in the order of its table.

    Parameters
    ----------
    piece
        The work.
    skipped
        Takes tables of particles that cannot be cut, with the column ``reason``.
    client, found
        As of `cropping.boxes`.
    """
    inside = cropping.inside(piece.tomogram, piece.particles, cut=piece.cut)
    reason = "the box leaves the tomogram" if piece.cut.edges == "skip" else "its centre lies outside the tomogram"
    skipped.append(piece.particles[~inside].assign(reason=reason))
    yield from cropping.boxes(
        piece.tomogram, piece.particles[inside], cut=piece.cut, skipped=skipped, client=client, found=found
    )


def key(told: str, particles: pd.DataFrame, tomograms: Iterable[Tomogram]) -> str:
    """A hash of all on which the boxes depend.

    Parameters
    ----------
    told
        The parameters.
    particles
        All of them.
    tomograms
        From which they are cut. Of a file its size and time are taken for what it holds; what is in memory is read.
    """
    digest = hashlib.sha256(told.encode())
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


def warn(skipped: pd.DataFrame, total: int) -> None:
    """Tell the caller's caller of particles that were skipped, of `total`."""
    if len(skipped):
        told = f"{len(skipped)} of {total} particles skipped: {writer.reasons(skipped)}; see .skipped"
        warnings.warn(told, stacklevel=3)


def _windows(piece: Piece) -> list[cropping.Window]:
    """What workers are to do for a piece."""
    inside = cropping.inside(piece.tomogram, piece.particles, cut=piece.cut)
    return cropping.windows(piece.particles[inside], cut=piece.cut, sent=True)


def _cut(work: tuple[Tomogram, cropping.Window]) -> cropping.Boxes:
    tomogram, piece = work
    return cropping.window(piece, tomogram)
