"""Boxes of RELION's particles: where they were cut, how they were turned, and whether a list of some version can name them.

In comes a particle table with the columns of the list that it was read from; out come the origins and angles that count from
the boxes as these are, and the table without what does not hold in such a list.

RELION cuts a box at the coordinates of a particle and turns it by the angles of the subtomogram S (RELION 4 and 5). The origin
o leads from its centre to the particle, ``position = coordinate - S o``, and the orientation is S P (`particle_set.cpp`).
"""

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, READ_POSE
from tomolab.io.lists import outdated, star
from tomolab.io.volumes.mrc import TOLERANCE

ONE_TABLE = ("relion30", "warp")
"""Versions that have one pixel size, in one table."""
FROM_SERIES = ("relion4", "relion5")
"""Those that know tilt series: pixels are those of the tilt images, and boxes may be turned."""
IMAGE = "rlnImagePixelSize"
SIZES = (IMAGE, "rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification")
"""Columns that say the pixel size of the boxes."""


def has(rows: pd.DataFrame) -> bool:
    """Whether a column counts from where the boxes were cut."""
    return bool(set(outdated.NAMED) & set(rows) or outdated.of(rows, outdated.ORIGIN))


def holding(particles: pd.DataFrame, *, voxel_size: float, version: str) -> pd.DataFrame:
    """The table without columns that would not hold in a list of this version; one warning names them."""
    reasons = outdated.poses(particles)
    reasons["only M reads the later points of a path"] = [name for name in particles if outdated.PATH.fullmatch(str(name))]
    priors = outdated.of(particles, outdated.PRIOR, outdated.ORIGIN)
    if priors and version not in FROM_SERIES and outdated.frames(particles) is not None:
        reasons[f"they count from {star.SUBTOMOGRAM_EULER[0]}, Tilt, Psi, which {version} does not have"] = priors
    if set(outdated.NAMED) & set(particles):
        why = _wrong_boxes(particles, voxel_size=voxel_size, version=version)
        reasons |= {why: outdated.of(particles, outdated.IMAGE, outdated.ORIGIN)} if why else {}
    return outdated.without(particles, reasons)


def _wrong_boxes(particles: pd.DataFrame, *, voxel_size: float, version: str) -> str:
    """Why a list of this version cannot name the boxes that the table names; empty if it can."""
    if version != "relion5" and stacks(particles):
        return f"the boxes are stacks of images ({outdated.STACKS}), which {version} does not have"
    if version not in FROM_SERIES and outdated.frames(particles) is not None:
        return f"the boxes are turned by {star.SUBTOMOGRAM_EULER[0]}, Tilt, Psi, which {version} does not have"
    sizes = pixels(particles)
    if version in ONE_TABLE and (np.abs(sizes / voxel_size - 1) > TOLERANCE).any():
        told = ", ".join(f"{size:g}" for size in np.unique(sizes))
        return f"the pixels of the boxes are {told} Å, those of coordinates {voxel_size:g}, and {version} has one size for both"
    edges = pd.to_numeric(particles.get("rlnImageSize", pd.Series(np.nan, index=particles.index)), errors="coerce")
    half = (edges * sizes / 2).fillna(np.inf).to_numpy(dtype=float)
    out = np.abs(origins(particles, outdated.boxes(particles))).max(axis=1, initial=0.0) > half
    return f"{out.sum()} of {len(out)} particles lie outside of their boxes" if out.any() else ""


def pixels(particles: pd.DataFrame) -> pd.Series:
    """Å per pixel of the boxes that the table names; nan where it does not say so."""
    known = {name: pd.to_numeric(particles[name], errors="coerce") for name in SIZES if name in particles}
    for name in (IMAGE, "rlnPixelSize"):
        if name in known:
            return known[name]
    if len(known) == 2:
        # Detector pixels are µm.
        return known["rlnDetectorPixelSize"] * 1e4 / known["rlnMagnification"]
    return pd.Series(np.nan, index=particles.index)


def stacks(particles: pd.DataFrame) -> bool:
    """Whether the boxes are stacks of images.

    Raises
    ------
    ValueError
        If some are and others are not, which one list cannot say.
    """
    if outdated.STACKS not in particles:
        return False
    found = star.numbers(particles[[outdated.STACKS]].fillna(0), [outdated.STACKS])[:, 0] != 0
    if found.any() and not found.all():
        raise ValueError(
            f"column {outdated.STACKS}: {found.sum()} of {len(found)} particles have stacks of images, the others volumes; a "
            "list has one kind, so write each apart"
        )
    return bool(found.any())


def origins(particles: pd.DataFrame, cut: np.ndarray) -> np.ndarray:
    """Origins (n, 3) in Å, zyx, which lead from the centre of a box to its particle, on the axes of the subtomogram."""
    turned = outdated.frames(particles)
    way = cut - tables.positions(particles)
    # Not -0.
    return (way if turned is None else np.einsum("nji,nj->ni", turned, way)) + 0.0


def angles(particles: pd.DataFrame, *, turned: bool) -> np.ndarray:
    """Rot, tilt, psi (n, 3) in degrees, counted from those of the subtomograms if `turned`; as read if nothing changed."""
    found, frames = particles[ANGLES].to_numpy(dtype=float), outdated.frames(particles)
    if frames is not None:
        if not turned:
            return found
        found = rotations.to_euler(frames.transpose(0, 2, 1) @ tables.matrices(particles))
    if not set(READ_POSE) <= set(particles):
        return found
    read = particles[READ_POSE[3:]].to_numpy(dtype=float)
    same = np.isfinite(read).all(axis=1) & ~outdated.changed(particles)
    return np.where(same[:, None], read, found)
