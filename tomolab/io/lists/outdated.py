"""Takes a particle table with columns of the list that it was read from, gives it without those that no longer hold.

Such columns describe a pose, a box or a half set that has changed since. Lists note the pose in which they had each particle
(`READ_POSE`) and where its box was cut (`BOX`).

>>> table = noted(table)                # when a list is read
>>> table = current(table)              # when it is written: without priors on angles that were changed
"""

import re
import warnings
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, BOX, READ_POSE
from tomolab.io.lists.star import coordinates
from tomolab.io.lists.star.columns import BINNING, DIMENSIONS, IMAGE, IMAGE_NAME, STACKS, SUBTOMOGRAM_EULER

ANGLE_PRIORS = (
    *("rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior"),
    *("rlnAngleRotFlipRatio", "rlnAnglePsiFlipRatio", "rlnAnglePsiFlip"),
)
"""Which angles are likely, counted from those of the subtomogram."""
ORIGIN_PRIORS = tuple(f"rlnOrigin{axis}Prior{unit}" for unit in ("Angst", "") for axis in "XYZ")
"""Which origins are likely, counted from the centre of the box."""
FITS = (
    *("rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnNrOfSignificantSamples", "rlnKullbackLeiblerDivergence"),
    *("dynamo_dshift", "dynamo_daxis", "dynamo_dnarot", "dynamo_dcc", "dynamo_cc2"),
    *("motl_14", "motl_15", "motl_16"),
)
"""How well a particle agreed with a reference in its pose, or how far its last alignment moved it (RELION, Dynamo, AV3)."""
POSES = (*ANGLE_PRIORS, *ORIGIN_PRIORS, *FITS)
"""Columns that hold for the pose that the particle had in the list."""
IMAGE_FILES = (IMAGE_NAME, "rlnReconstructImageName", "rlnCtfImage")
BOXES = (
    *(*IMAGE_FILES, "rlnTomoVisibleFrames", IMAGE, "rlnImageSize", DIMENSIONS, BINNING, STACKS),
    *("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataAreCtfCorrected", "rlnNormCorrection", "rlnImageId", "rlnImageWeight"),
    *("rlnMinimumValue", "rlnMaximumValue", "rlnAverageValue", "rlnStandardDeviationValue"),
)
"""The files with the box of a particle, and what is in them."""
HALF_SETS = ("rlnRandomSubset", "wrpRandomSubset")
"""The half set whose average gave a particle its pose."""
PATH = re.compile(r"wrp(?:Coordinate[XYZ]|Angle(?:Rot|Tilt|Psi))(?:[2-9]|[1-9][0-9]+)")
"""Columns of M for the later points of a path; of these the first is the place of the particle."""
NEAR, ALIKE = 0.01, 2e-4
"""Å that a particle may lie apart, and the most that an element of its rotation may differ, to be where it was."""


def among(particles: pd.DataFrame, names: Collection[str]) -> list[str]:
    """Columns of a table that are among these names."""
    return [name for name in particles if name in names]


def noted(particles: pd.DataFrame) -> pd.DataFrame:
    """The table with the pose that each particle has in `READ_POSE`, if a column describes it and none was noted before."""
    if set(READ_POSE) <= set(particles) or not among(particles, POSES):
        return particles
    angles = particles[ANGLES].to_numpy(dtype=float)
    turned = frames(particles)
    if turned is not None:
        angles = rotations.to_euler(turned.transpose(0, 2, 1) @ tables.matrices(particles))
    noted = np.column_stack([tables.positions(particles), angles])
    return particles.assign(**{name: noted[:, place] for place, name in enumerate(READ_POSE)})


def frames(particles: pd.DataFrame) -> np.ndarray | None:
    """Rotations (n, 3, 3) of the subtomograms from which RELION counts angles, priors and origins; None if it counts from none.

    A particle without these angles, of another list, counts from the axes of the tomogram.
    """
    names = among(particles, SUBTOMOGRAM_EULER)
    if not names:
        return None
    found = rotations.from_euler(coordinates.numbers_or_zeros(particles[names].fillna(0.0), SUBTOMOGRAM_EULER))
    return None if np.allclose(found, np.eye(3), rtol=0, atol=1e-12) else found


def boxes(particles: pd.DataFrame) -> np.ndarray:
    """Where the boxes of the particles were cut, (n, 3) in Å, zyx; their positions where nothing is noted."""
    places = tables.positions(particles)
    if not set(BOX) <= set(particles):
        return places
    cut = particles[BOX].to_numpy(dtype=float)
    return np.where(np.isfinite(cut).all(axis=1, keepdims=True), cut, places)


def changed(particles: pd.DataFrame) -> np.ndarray:
    """Which particles (n,) are turned or moved since their list was read."""
    if not set(READ_POSE) <= set(particles):
        return np.zeros(len(particles), dtype=bool)
    before = particles[READ_POSE].to_numpy(dtype=float)
    known = np.isfinite(before).all(axis=1)
    before = np.where(known[:, None], before, 0.0)
    moved = np.linalg.norm(tables.positions(particles) - before[:, :3], axis=1) > NEAR
    matrices, turned = rotations.from_euler(before[:, 3:]), frames(particles)
    if turned is not None:
        matrices = turned @ matrices
    return known & (moved | (np.abs(tables.matrices(particles) - matrices).max(axis=(1, 2), initial=0.0) > ALIKE))


def poses(particles: pd.DataFrame, prefix: str = "") -> dict[str, list[str]]:
    """Columns that begin with `prefix` and describe other poses than those of the table, by the reason for `without`."""
    names = [name for name in among(particles, POSES) if name.startswith(prefix)]
    count = int(changed(particles).sum()) if names else 0
    reason = f"{count} of {len(particles)} particles were turned or moved since the list was read"
    return {reason: names} if count else {}


def current(particles: pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    """The table without the columns of `poses`, which a warning names."""
    return without(particles, poses(particles, prefix))


def without(particles: pd.DataFrame, reasons: Mapping[str, list[str]]) -> pd.DataFrame:
    """The table without the columns that no longer hold, by the reason; one warning names them.

    A column that has several reasons is named with the first.
    """
    left: list[str] = []
    messages = []
    for reason, columns in reasons.items():
        names = [name for name in columns if name in particles and name not in left]
        left += names
        if names:
            messages.append(f"{', '.join(names)} ({reason})")
    if messages:
        warnings.warn(f"columns that no longer hold are left out: {'; '.join(messages)}", UserWarning, stacklevel=3)
    return particles.drop(columns=left)
