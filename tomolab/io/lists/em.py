"""Motive lists of AV3, the TOM toolbox and Artiatomi (.em): 20 numbers for each particle, to and from particle tables.

Rows are counted from 1. In all of them 1 is the score, 5 the number of the tomogram, 8 to 10 the position x, y, z in voxels
counted from 1, 11 to 13 the shift that is added to it, 17 to 19 the angles phi, psi, theta, and 20 the class. AV3 and what
came after it keep the number of the particle in row 4, Artiatomi in row 6, with the number of the wedge in 7 (ArtiaX). The
angles turn the reference as STOPGAP's do: in xyz by ``Rz(psi) Rx(theta) Rz(phi)`` (ArtiaX, and TOM's ``tom_rotate``).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION
from tomolab.io.lists import dynamo, outdated, stopgap
from tomolab.io.lists.options import ReadOptions, check_voxel_size
from tomolab.io.lists.star import parsing
from tomolab.io.paths import check_size
from tomolab.io.volumes import em

ROWS = 20
FIRST = 1
"""Number of the first voxel."""
SCORE, AV3_ID, TOMOGRAM, ARTIATOMI_ID, WEDGE_NUMBER, CLASS = 1, 4, 5, 6, 7, 20
PLACES, SHIFTS, ANGLES_ZXZ = [10, 9, 8], [13, 12, 11], [17, 19, 18]
"""Rows of z, y, x and of phi, theta, psi."""
OTHERS = [2, 3, 6, 7, 14, 15, 16]
"""Rows that are carried through, as ``motl_2`` and the like."""
EXACT = 2**24
"""Whole numbers over this have no place in a file of single precision."""
AV3, ARTIATOMI = "av3", "artiatomi"


def read(path: Path, options: ReadOptions) -> pd.DataFrame:
    """Read a motive list, without tilts; the names of the tomograms stand in a list beside it, as `stopgap.companion` says.

    Without that list they are called by their numbers, or as `options` say. The id is the number of row 4, or where that is
    always 0 the number of row 6, or where that repeats the place in the list, from 1.

    Raises
    ------
    ValueError
        If this is no EM file or no motive list, a number is not finite, or the voxel size is not given.
    """
    size = options.size("a motive list")
    numbers = em.numbers(path)
    if numbers.shape[2] != ROWS or numbers.shape[0] != 1:
        shape = " x ".join(map(str, numbers.shape[::-1]))
        raise ValueError(f"a motive list holds {ROWS} numbers for each particle, this EM file {shape}")
    check_size(path)
    rows = dict(enumerate(numbers[0].T.astype(float), 1))
    wrong = [row for row, values in rows.items() if not np.isfinite(values).all()]
    if wrong:
        raise ValueError(f"rows {', '.join(map(str, wrong))} of the motive list have values that are no finite numbers")
    strange = (rows[TOMOGRAM] != np.round(rows[TOMOGRAM])) | (np.abs(rows[TOMOGRAM]) > EXACT)
    if strange.any():
        raise ValueError(f"row {TOMOGRAM} must number the tomograms, got {rows[TOMOGRAM][strange][0]:g}")
    out = pd.DataFrame({"particle_id": _ids(rows)})
    out["tomogram"] = dynamo.names(stopgap.companion(path), pd.Series(rows[TOMOGRAM]), options.tomogram)
    out[POSITION] = np.stack([rows[place] - FIRST + rows[shift] for place, shift in zip(PLACES, SHIFTS, strict=True)], 1) * size
    angles = np.stack([rows[row] for row in ANGLES_ZXZ], axis=1)
    out[ANGLES] = rotations.to_euler(dynamo.from_zxz(angles).transpose(0, 2, 1))
    out["score"], out["class"] = rows[SCORE], rows[CLASS]
    for row in OTHERS:
        if rows[row].any() and not (row == ARTIATOMI_ID and (rows[row] == out["particle_id"]).all()):
            out[f"motl_{row}"] = rows[row]
    return out


def content(particles: pd.DataFrame, *, voxel_size: float | None, version: str = AV3) -> tuple[bytes, str]:
    """Give a motive list (little-endian, single precision) and the text of its list of tomograms.

    Kept are particle_id, tomogram, position, angles, ``score``, ``class`` (1 without) and the ``motl_`` columns of a list
    that was read. All other columns are left out, also the tilts. Rows 14 to 16, which are shifts before the rotation where
    they are used, go with a warning where particles were turned or moved since (`outdated`).

    The format ``"av3"`` numbers particles in row 4; ``"artiatomi"`` in row 6, and wedges like tomograms in row 7.

    Raises
    ------
    ValueError
        If the voxel size is not known, an id is not between 1 and 2^24, the name of a tomogram has a blank, or a column that
        is kept is no number.
    """
    size = check_voxel_size(voxel_size, "a motive list")
    if version not in (AV3, ARTIATOMI):
        raise ValueError(f"unknown format {version!r} of a motive list; there are {AV3}, {ARTIATOMI}")
    ids = particles["particle_id"]
    bad = (ids < 1) | (ids > EXACT)
    if bad.any():
        first = ids[bad].iloc[0]
        raise ValueError(f"a motive list numbers particles from 1 to {EXACT}; {bad.sum()} of {len(ids)} are not, first {first}")
    particles = outdated.current(particles, "motl_")
    tomo, listed = dynamo.numbered(particles["tomogram"])
    out = np.zeros((len(particles), ROWS + 1), dtype=np.float32)
    for row in OTHERS:
        if f"motl_{row}" in particles:
            out[:, row] = parsing.numbers(particles, [f"motl_{row}"])[:, 0]
    out[:, CLASS] = 1
    for name, row in (("score", SCORE), ("class", CLASS)):
        if name in particles:
            out[:, row] = parsing.numbers(particles, [name])[:, 0]
    out[:, AV3_ID if version == AV3 else ARTIATOMI_ID] = ids
    if version == ARTIATOMI and f"motl_{WEDGE_NUMBER}" not in particles:
        out[:, WEDGE_NUMBER] = tomo
    out[:, TOMOGRAM] = tomo
    places = tables.positions(particles) / size
    whole = np.floor(places + 0.5)
    out[:, PLACES], out[:, SHIFTS] = whole + FIRST, places - whole
    out[:, ANGLES_ZXZ] = dynamo.to_zxz(tables.matrices(particles).transpose(0, 2, 1))
    return em.content(out[None, :, 1:]), listed


def _ids(rows: dict[int, np.ndarray]) -> np.ndarray:
    count = len(rows[AV3_ID])
    if rows[AV3_ID].any():
        return rows[AV3_ID]
    if rows[ARTIATOMI_ID].any() and len(np.unique(rows[ARTIATOMI_ID])) == count:
        return rows[ARTIATOMI_ID]
    return np.arange(1, count + 1)
