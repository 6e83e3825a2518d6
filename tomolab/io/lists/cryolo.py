"""Picks of crYOLO, TomoTwin and the napari box manager (.cbox, .coords), to particle tables.

A .cbox is a STAR file with a table ``data_cryolo``. ``_CoordinateX`` and ``_CoordinateY`` are the corner of a box with
``_Width`` and ``_Height``, in voxels from 0 at the centre of the first one; ``_CoordinateZ`` is the middle already, not the
corner (`io/cbox.py` of napari-boxmanager, and TomoTwin's `cbox_format.py`). A .coords has the middle of a box in each line, as
x, y, z in voxels from 0 (`io/coords.py` and TomoTwin's `coords_format.py`). Neither turns particles, and neither names its
tomogram. What TomoTwin keeps for itself (.tloc) is a pickle, which can run any program when it is opened, and is not read.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.conventions import ANGLES, POSITION
from tomolab.io import paths
from tomolab.io.lists.options import ReadOptions
from tomolab.io.lists.star import parsing

BLOCK = "cryolo"
CORNERS, SIDES, DEPTH = ["CoordinateY", "CoordinateX"], ["Height", "Width"], "CoordinateZ"
SCORE = "Confidence"


def read(path: Path, options: ReadOptions) -> pd.DataFrame:
    """Read picks as particles that are not turned, without tilts; other columns of a .cbox become ``cryolo_Width`` etc.

    Raises
    ------
    ValueError
        If it is a .tloc, or no such file, its boxes are in two dimensions, or the voxel size or the name of the tomogram is not
        given.
    """
    suffix = path.suffix.lower()
    if suffix == ".tloc":
        raise ValueError(
            "a .tloc is a pickle of TomoTwin, which is not opened, as it could run any program; let tomotwin_pick.py write "
            ".coords or .star, and read these"
        )
    tomogram, size = options.name(f"a {suffix}"), options.size(f"a {suffix}")
    places, others = _boxes(path) if suffix == ".cbox" else (_lines(path), pd.DataFrame())
    out = pd.DataFrame({"particle_id": np.arange(1, len(places) + 1), "tomogram": tomogram})
    out[POSITION] = places * size
    out[ANGLES] = 0.0
    return pd.concat([out, others.set_axis(out.index)], axis=1) if len(others.columns) else out


def _lines(path: Path) -> np.ndarray:
    """Places zyx of a .coords."""
    text = paths.text(path)
    try:
        rows = parsing.rows(text, ["x", "y", "z"])
    except ValueError as error:
        raise ValueError(f"the list of x, y and z {error}") from error
    return parsing.numbers(rows, ["z", "y", "x"])


def _boxes(path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """Places zyx of a .cbox, and its other columns."""
    found = parsing.blocks(path)
    rows = found.get(BLOCK)
    needed = [DEPTH, *CORNERS, *SIDES]
    if rows is None or not set(CORNERS + SIDES) <= set(rows):
        named = ", ".join(f"_{name}" for name in needed)
        raise ValueError(f"a .cbox has data_{BLOCK} with {named}: {parsing.described(found)}")
    if DEPTH not in rows or (len(rows) and rows[DEPTH].isna().all()):
        raise ValueError(f"the boxes have no _{DEPTH}: they are of images, not of a tomogram")
    numbers = parsing.numbers(rows, needed)
    if (numbers[:, 3:] <= 0).any():
        raise ValueError(f"boxes must have a _Width and _Height over 0, got {numbers[:, 3:].min():g}")
    places = np.column_stack([numbers[:, 0], numbers[:, 1:3] + numbers[:, 3:] / 2])
    others = rows[[name for name in rows if name not in (DEPTH, *CORNERS) and rows[name].notna().any()]]
    names = {name: "score" if name == SCORE else f"cryolo_{name}" for name in others}
    return places, pd.DataFrame({names[name]: parsing.typed(others[name]) for name in others})
