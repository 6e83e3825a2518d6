"""STOPGAP: motive lists (``data_stopgap_motivelist`` in a STAR file) and the list of tomograms, to and from particle tables.

Positions are voxels counted from 1, ``orig_x`` the whole voxel at which the subtomogram is cut and ``x_shift`` what is added
to it. The angles phi, psi, the turn the reference: in xyz it is ``Rz(psi) Rx(the) Rz(phi)`` (`sg_euler2matrix` of the
STOPGAP toolbox), the inverse of what these angles would mean in Dynamo's columns.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION
from tomolab.io.lists import dynamo
from tomolab.io.lists.options import ReadOptions, check_voxel_size
from tomolab.io.lists.star import parsing

BLOCK = "stopgap_motivelist"
FIRST = 1
"""Number of the first voxel."""
PLACES = ["orig_z", "orig_y", "orig_x"]
SHIFTS = ["z_shift", "y_shift", "x_shift"]
ANGLES_ZXZ = ["phi", "the", "psi"]
COLUMNS = [
    *("motl_idx", "tomo_num", "object", "subtomo_num", "halfset", *PLACES[::-1], "score", *SHIFTS[::-1]),
    *("phi", "psi", "the", "class"),
]
"""Columns of a motive list, in order; STOPGAP knows no others."""
HALVES = {1: "A", 2: "B"}


def companion(path: Path) -> Path:
    """Where the list of tomograms of the motive list at `path` stands."""
    return path.with_name(f"{path.stem}_tomolist.txt")


def read(path: Path, rows: pd.DataFrame, options: ReadOptions) -> pd.DataFrame:
    """Make particles, without tilts, of the rows of a motive list; ``half`` (1 or 2), ``score`` and ``class`` are read too.

    The names of the tomograms stand beside the list (`companion`); else they are called by their numbers, or as `options` say.

    Raises
    ------
    ValueError
        If a column is missing or not a number, or the voxel size is not given.
    """
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise ValueError(f"the motive list lacks the columns {', '.join(missing)}; it has {', '.join(rows)}")
    size = options.size("a STOPGAP motive list")
    kept = [name for name in COLUMNS if name != "halfset"]
    numbers = pd.DataFrame(parsing.numbers(rows, kept), columns=kept)
    out = pd.DataFrame({"particle_id": numbers["subtomo_num"]})
    out["tomogram"] = dynamo.names(companion(path), numbers["tomo_num"], options.tomogram)
    out[POSITION] = (numbers[PLACES].to_numpy() - FIRST + numbers[SHIFTS].to_numpy()) * size
    out[ANGLES] = rotations.to_euler(dynamo.from_zxz(numbers[ANGLES_ZXZ].to_numpy()).transpose(0, 2, 1))
    strange = sorted(set(rows["halfset"].fillna("nothing")) - set(HALVES.values()))
    if strange:
        raise ValueError(f"halfset must be A or B, got {', '.join(map(repr, strange[:5]))}")
    out["half"] = rows["halfset"].map({letter: half for half, letter in HALVES.items()}).to_numpy()
    out["score"], out["class"], out["stopgap_object"] = numbers["score"], numbers["class"], numbers["object"].astype(int)
    return out


def text(particles: pd.DataFrame, *, voxel_size: float | None) -> tuple[str, str]:
    """Give the text of a motive list and of its list of tomograms.

    Kept are particle_id (subtomo_num), tomogram, position, angles, ``half`` (A and B; all are A without), ``score``, ``class``
    (1 without) and ``stopgap_object``. All other columns are left out, also the tilts: STOPGAP has them in its wedge list.

    Raises
    ------
    ValueError
        If the voxel size is not known, an id is negative, the name of a tomogram has a blank, ``half`` is not 1 or 2, or a
        column that is kept is no number.
    """
    size = check_voxel_size(voxel_size, "a STOPGAP motive list")
    if (particles["particle_id"] < 0).any():
        raise ValueError(f"a motive list cannot hold negative ids, such as {particles['particle_id'].min()}")
    tomo, listed = dynamo.numbered(particles["tomogram"])
    half = particles["half"] if "half" in particles else pd.Series(1, index=particles.index)
    if not half.isin(list(HALVES)).all():
        raise ValueError(f"half must be 1 or 2, got {', '.join(map(str, sorted(set(half) - set(HALVES), key=str)[:5]))}")
    rows = pd.DataFrame({"object": 1, "score": 0.0, "class": 1}, index=particles.index)
    for ours, theirs in (("score", "score"), ("class", "class"), ("stopgap_object", "object")):
        if ours in particles:
            rows[theirs] = parsing.numbers(particles, [ours])[:, 0]
    rows["motl_idx"], rows["subtomo_num"] = np.arange(1, len(rows) + 1), particles["particle_id"]
    rows["tomo_num"], rows["halfset"] = tomo, half.map(HALVES)
    places = tables.positions(particles) / size
    rows[PLACES] = np.floor(places + 0.5).astype(int) + FIRST
    rows[SHIFTS] = (places - np.floor(places + 0.5)).round(6)
    rows[ANGLES_ZXZ] = dynamo.to_zxz(tables.matrices(particles).transpose(0, 2, 1)).round(6)
    rows = rows.astype({"object": int, "class": int})[COLUMNS]
    # STOPGAP refuses comments and numbers behind the names of columns.
    head = "\n".join(["", f"data_{BLOCK}", "", "loop_", *(f"_{name}" for name in COLUMNS), "", ""])
    return head + rows.to_csv(sep=" ", header=False, index=False), listed
