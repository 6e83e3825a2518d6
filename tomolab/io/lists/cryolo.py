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
from tomolab.io.lists import star

BLOCK = "cryolo"
CORNERS, SIDES, DEPTH = ["CoordinateY", "CoordinateX"], ["Height", "Width"], "CoordinateZ"
SCORE = "Confidence"


def read(path: Path, *, voxel_size: float | None, tomogram: str | None) -> pd.DataFrame:
    """Read picks as particles that are not turned, without tilts; other columns of a .cbox become ``cryolo_Width`` etc.

    Parameters
    ----------
    path
        .cbox or .coords.
    voxel_size
        Å per voxel of the tomogram in which the particles were picked.
    tomogram
        Its name; the file does not say it.

    Raises
    ------
    ValueError
        If it is a .tloc, or no such file, its boxes are in two dimensions, or something needed is not given.
    """
    if path.suffix.lower() == ".tloc":
        raise ValueError(
            "a .tloc is a pickle of TomoTwin, which is not opened, as it could run any program; let tomotwin_pick.py write "
            ".coords or .star, and read these"
        )
    if tomogram is None:
        raise ValueError(f"a {path.suffix.lower()} does not name its tomogram; give tomogram=")
    size = star.check_voxel_size(voxel_size, f"a {path.suffix.lower()}")
    places, others = _boxes(path) if path.suffix.lower() == ".cbox" else (_lines(path), pd.DataFrame())
    out = pd.DataFrame({"particle_id": np.arange(1, len(places) + 1), "tomogram": tomogram})
    out[POSITION] = places * size
    out[ANGLES] = 0.0
    return pd.concat([out, others.set_axis(out.index)], axis=1) if len(others.columns) else out


def _lines(path: Path) -> np.ndarray:
    """Places zyx of a .coords."""
    places = []
    for number, line in enumerate(paths.text(path).split("\n"), 1):
        if line.strip():
            words = line.split()
            if len(words) != 3:
                raise ValueError(f"line {number} must be x, y and z, got {line[:60]!r}")
            places.append(words)
    return star.numbers(pd.DataFrame(places, columns=["x", "y", "z"], dtype=str), ["z", "y", "x"])


def _boxes(path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """Places zyx of a .cbox, and its other columns."""
    found = star.blocks(path)
    rows = found.get(BLOCK)
    needed = [DEPTH, *CORNERS, *SIDES]
    if rows is None or not set(CORNERS + SIDES) <= set(rows):
        told = "; ".join(f"data_{name} has {', '.join(block)}" for name, block in found.items()) or "it has no tables"
        raise ValueError(f"a .cbox has data_{BLOCK} with {', '.join(f'_{name}' for name in needed)}: {told}")
    if DEPTH not in rows or (len(rows) and rows[DEPTH].isna().all()):
        raise ValueError(f"the boxes have no _{DEPTH}: they are of images, not of a tomogram")
    numbers = star.numbers(rows, needed)
    if (numbers[:, 3:] <= 0).any():
        raise ValueError(f"boxes must have a _Width and _Height over 0, got {numbers[:, 3:].min():g}")
    places = np.column_stack([numbers[:, 0], numbers[:, 1:3] + numbers[:, 3:] / 2])
    others = rows[[name for name in rows if name not in (DEPTH, *CORNERS) and rows[name].notna().any()]]
    names = {name: "score" if name == SCORE else f"cryolo_{name}" for name in others}
    return places, pd.DataFrame({names[name]: star.typed(others[name]) for name in others})
