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
from tomolab.io.lists import outdated
from tomolab.io.lists.star import parsing, pixel_sizes
from tomolab.io.lists.star.columns import STACKS, SUBTOMOGRAM_EULER
from tomolab.io.volumes.mrc import TOLERANCE

ONE_TABLE = ("relion30", "warp")
"""Versions that have one pixel size, in one table."""
FROM_SERIES = ("relion4", "relion5")
"""Those that know tilt series: pixels are those of the tilt images, and boxes may be turned."""


def has(rows: pd.DataFrame) -> bool:
    """Whether a column counts from where the boxes were cut."""
    return bool(outdated.among(rows, (*outdated.IMAGE_FILES, *outdated.ORIGIN_PRIORS)))


def holding(particles: pd.DataFrame, *, voxel_size: float, version: str) -> pd.DataFrame:
    """The table without columns that would not hold in a list of this version; one warning names them."""
    reasons = outdated.poses(particles)
    reasons["only M reads the later points of a path"] = [name for name in particles if outdated.PATH.fullmatch(str(name))]
    priors = outdated.among(particles, (*outdated.ANGLE_PRIORS, *outdated.ORIGIN_PRIORS))
    if priors and version not in FROM_SERIES and outdated.frames(particles) is not None:
        reasons[f"they count from {SUBTOMOGRAM_EULER[0]}, Tilt, Psi, which {version} does not have"] = priors
    if outdated.among(particles, outdated.IMAGE_FILES):
        why = _wrong_boxes(particles, voxel_size=voxel_size, version=version)
        reasons |= {why: outdated.among(particles, (*outdated.BOXES, *outdated.ORIGIN_PRIORS))} if why else {}
    return outdated.without(particles, reasons)


def _wrong_boxes(particles: pd.DataFrame, *, voxel_size: float, version: str) -> str:
    """Why a list of this version cannot name the boxes that the table names; empty if it can."""
    if version != "relion5" and stacks(particles):
        return f"the boxes are stacks of images ({STACKS}), which {version} does not have"
    if version not in FROM_SERIES and outdated.frames(particles) is not None:
        return f"the boxes are turned by {SUBTOMOGRAM_EULER[0]}, Tilt, Psi, which {version} does not have"
    sizes = pixels(particles)
    if version in ONE_TABLE and (np.abs(sizes / voxel_size - 1) > TOLERANCE).any():
        different = ", ".join(f"{size:g}" for size in np.unique(sizes))
        return (
            f"pixels of the boxes are {different} Å, those of coordinates {voxel_size:g}, and {version} has one size for both"
        )
    edges = pd.to_numeric(particles.get("rlnImageSize", pd.Series(np.nan, index=particles.index)), errors="coerce")
    half = (edges * sizes / 2).fillna(np.inf).to_numpy(dtype=float)
    out = np.abs(origins(particles, outdated.boxes(particles))).max(axis=1, initial=0.0) > half
    return f"{out.sum()} of {len(out)} particles lie outside of their boxes" if out.any() else ""


def pixels(particles: pd.DataFrame) -> pd.Series:
    """Å per pixel of the boxes that the table names; NaN where it does not say so."""
    found = pixel_sizes.of_images(particles)
    return pd.Series(np.nan if found is None else found, index=particles.index)


def stacks(particles: pd.DataFrame) -> bool:
    """Whether the boxes are stacks of images.

    Raises
    ------
    ValueError
        If some are and others are not, which one list cannot say.
    """
    if STACKS not in particles:
        return False
    found = parsing.numbers(particles[[STACKS]].fillna(0), [STACKS])[:, 0] != 0
    if found.any() and not found.all():
        raise ValueError(
            f"column {STACKS}: {found.sum()} of {len(found)} particles have stacks of images, the others volumes; a "
            "list cannot have both, so write each apart"
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
