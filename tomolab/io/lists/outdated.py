"""Columns that tell of a pose, a box or a half set, by the program that writes them, and which of them no longer hold.

In comes a particle table with columns of the list that it was read from, out comes the table without those that describe
what has changed since. Lists note the pose in which they had each particle (`READ_POSE`) and where its box was cut (`BOX`).

>>> table = noted(table)                # when a list is read
>>> table = current(table)              # when it is written: without priors on angles that were changed
"""

import re
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import BOX, READ_POSE
from tomolab.io.lists import star

PRIOR, ORIGIN, FIT, IMAGE, HALF = "prior", "origin", "fit", "image", "half"
TELLS: dict[str, dict[str, tuple[str, ...]]] = {
    PRIOR: {
        "RELION": (
            *("rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior"),
            *("rlnAngleRotFlipRatio", "rlnAnglePsiFlipRatio", "rlnAnglePsiFlip"),
        ),
    },
    ORIGIN: {"RELION": tuple(f"rlnOrigin{axis}Prior{unit}" for unit in ("Angst", "") for axis in "XYZ")},
    FIT: {
        "RELION": (
            *("rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnNrOfSignificantSamples"),
            *("rlnKullbackLeiblerDivergence",),
        ),
        "Dynamo": ("dynamo_dshift", "dynamo_daxis", "dynamo_dnarot", "dynamo_dcc", "dynamo_cc2"),
        "AV3": ("motl_14", "motl_15", "motl_16"),
    },
    IMAGE: {
        "RELION": (
            *("rlnImageName", "rlnReconstructImageName", "rlnCtfImage", "rlnTomoVisibleFrames"),
            *("rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality", "rlnTomoSubtomogramBinning"),
            *("rlnTomoSubTomosAre2DStacks", "rlnCtfDataAreCtfPremultiplied", "rlnCtfDataAreCtfCorrected"),
            *("rlnNormCorrection", "rlnImageId", "rlnImageWeight"),
            *("rlnMinimumValue", "rlnMaximumValue", "rlnAverageValue", "rlnStandardDeviationValue"),
        ),
    },
    HALF: {"RELION": ("rlnRandomSubset",), "M": ("wrpRandomSubset",)},
}
"""Columns by what they tell of and by program.

"prior": which angles are likely, counted from those of the subtomogram. "origin": which origins are likely, counted from the
centre of the box. "fit": how well the particle agreed with a reference in its pose, or how far its last alignment moved it.
"image": the file with its box, and what is in it. "half": the half set whose average gave it its pose.
"""
OF_POSE = (PRIOR, ORIGIN, FIT)
"""Those that hold for the pose that the particle had in the list."""
NAMED = ("rlnImageName", "rlnReconstructImageName", "rlnCtfImage")
"""Those that name the file."""
STACKS = "rlnTomoSubTomosAre2DStacks"
"""Stands in a block of its own, data_general: all boxes of a list are stacks of images."""
PATH = re.compile(r"wrp(?:Coordinate[XYZ]|Angle(?:Rot|Tilt|Psi))(?:[2-9]|[1-9][0-9]+)")
"""Columns of M for the later points of a path; of these the first is the place of the particle."""
NEAR, ALIKE = 0.01, 2e-4
"""Å that a particle may lie apart, and the most that an element of its rotation may differ, to be where it was."""


def of(particles: pd.DataFrame, *kinds: str) -> list[str]:
    """Columns of a table that tell of these."""
    wanted = {name for kind in kinds for names in TELLS[kind].values() for name in names}
    return [name for name in particles if name in wanted]


def noted(particles: pd.DataFrame) -> pd.DataFrame:
    """The table with the pose that each particle has in `READ_POSE`, if a column tells of it and nothing was noted before."""
    if set(READ_POSE) <= set(particles) or not of(particles, *OF_POSE):
        return particles
    angles = particles[["rot", "tilt", "psi"]].to_numpy(dtype=float)
    turned = frames(particles)
    if turned is not None:
        angles = rotations.to_euler(turned.transpose(0, 2, 1) @ tables.matrices(particles))
    noted = np.column_stack([tables.positions(particles), angles])
    return particles.assign(**{name: noted[:, place] for place, name in enumerate(READ_POSE)})


def frames(particles: pd.DataFrame) -> np.ndarray | None:
    """Rotations (n, 3, 3) of the subtomograms from which RELION counts angles, priors and origins; None if it counts from none.

    A particle without these angles, of another list, counts from the axes of the tomogram.
    """
    names = [name for name in star.SUBTOMOGRAM_EULER if name in particles]
    if not names:
        return None
    angles = np.zeros((len(particles), 3))
    for place, name in enumerate(star.SUBTOMOGRAM_EULER):
        if name in particles:
            angles[:, place] = star.numbers(particles[[name]].fillna(0.0), [name])[:, 0]
    found = rotations.from_euler(angles)
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
    """Columns that begin with `prefix` and tell of other poses than those of the table, by the reason for `without`."""
    names = [name for name in of(particles, *OF_POSE) if name.startswith(prefix)]
    count = int(changed(particles).sum()) if names else 0
    reason = f"{count} of {len(particles)} particles were turned or moved since the list was read"
    return {reason: names} if count else {}


def current(particles: pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    """The table without the columns of `poses`, which a warning names."""
    return without(particles, poses(particles, prefix))


def without(particles: pd.DataFrame, reasons: Mapping[str, list[str]]) -> pd.DataFrame:
    """The table without some columns, which one warning names by the reason why they no longer hold.

    Parameters
    ----------
    particles
        Particle table.
    reasons
        Columns by the reason. One without columns is not told; a column that has several is told with the first.

    Warns
    -----
    UserWarning
        If there are any.
    """
    left: list[str] = []
    told = []
    for reason, columns in reasons.items():
        names = [name for name in columns if name in particles and name not in left]
        left += names
        if names:
            told.append(f"{', '.join(names)} ({reason})")
    if told:
        warnings.warn(f"columns that no longer hold are left out: {'; '.join(told)}", UserWarning, stacklevel=3)
    return particles.drop(columns=left)
