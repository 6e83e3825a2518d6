"""EMAN2: boxes in tomograms (``info/NAME_info.json``), to particle tables.

``boxes_3d`` lists x, y, z, how the box was made, its score and its class; ``class_list`` names the classes. Where there is an
``apix_unbin``, the coordinates are pixels of that many Å from the voxel ``n // 2`` of the tomogram; where there is none (before
September 2018), they are voxels of the tomogram from 0 (`e2spt_boxer.py` and `e2spt_extract.py` of EMAN2). Boxes are not
turned. A curve (``curves``) is no particle, and is left out.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab.conventions import ANGLES, POSITION, centre
from tomolab.io import paths
from tomolab.io.lists import star

BOXES, CLASSES, UNBINNED, CURVES = "boxes_3d", "class_list", "apix_unbin", "curves"
USUAL = (None, None, None, "manual", 0.0, 0)
"""What a box has that does not say it."""
ENDING = "_info"


def read(path: Path, *, voxel_size: float | None, shape: star.Shape | None, tomogram: str | None) -> pd.DataFrame:
    """Read boxes as particles that are not turned, without tilts.

    The class is ``class``, its name ``label``; ``score`` and ``eman2_method`` are read too.

    Parameters
    ----------
    path
        .json.
    voxel_size
        Å per voxel of the tomogram.
    shape
        Its voxels (z, y, x), for coordinates that count from its middle.
    tomogram
        Its name; NAME of a file NAME_info.json by default.

    Raises
    ------
    ValueError
        If it is no such file, or something needed is not given.

    Warns
    -----
    UserWarning
        If there are curves.
    """
    found = _content(path)
    if tomogram is None and not path.stem.removesuffix(ENDING):
        raise ValueError("the name of the file does not name the tomogram; give tomogram=")
    name = path.stem.removesuffix(ENDING) if tomogram is None else tomogram
    size = star.check_voxel_size(voxel_size, "a list of EMAN2")
    boxes, kinds = _boxes(found), _kinds(found)
    places = star.numbers(boxes, ["z", "y", "x"])
    positions = places * size
    if UNBINNED in found:
        if shape is None:
            raise ValueError("boxes of EMAN2 count from the middle of the tomogram; give tomogram_shape= (z, y, x)")
        voxels = shape.get(name) if isinstance(shape, Mapping) else shape
        if voxels is None or len(voxels) != 3:
            raise ValueError(f"tomogram_shape= must be (z, y, x) of the tomogram {name!r}, got {shape}")
        unbinned = star.check_voxel_size(_number(found[UNBINNED]), f"a list of EMAN2, in {UNBINNED},")
        positions = places * unbinned + np.array([centre(int(n)) for n in voxels]) * size
    out = pd.DataFrame({"particle_id": np.arange(1, len(boxes) + 1), "tomogram": name})
    out[POSITION] = positions
    out[ANGLES] = 0.0
    out["class"] = star.numbers(boxes, ["class"])[:, 0].astype(int)
    out["label"] = [kinds.get(number, f"particles_{number:02d}") for number in out["class"]]
    out["score"], out["eman2_method"] = star.numbers(boxes, ["score"])[:, 0], boxes["method"].astype(str)
    curves = found.get(CURVES)
    if isinstance(curves, list) and curves:
        warnings.warn(f"{path} has {len(curves)} points of curves beside the boxes; they are left out", stacklevel=2)
    return out


def _content(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(paths.text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"this is not JSON ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get(BOXES), list):
        told = ", ".join(map(str, found)) or "nothing" if isinstance(found, dict) else f"a {type(found).__name__}"
        raise ValueError(f"a list of EMAN2 is an object with {BOXES}, this file has {told[:200]}")
    return found


def _boxes(found: dict[str, Any]) -> pd.DataFrame:
    """Rows with x, y, z, method, score and class; EMAN2 may put more behind them."""
    rows = []
    for number, box in enumerate(found[BOXES]):
        if not isinstance(box, list) or len(box) < 3 or not all(isinstance(value, str | int | float) for value in box[:6]):
            raise ValueError(f"box {number}, counted from 0, must be x, y, z, method, score and class, got {str(box)[:60]}")
        values = [*box[:6], *USUAL[len(box) :]]
        rows.append([*map(_number, values[:3]), values[3], *map(_number, values[4:])])
    return pd.DataFrame(rows, columns=["x", "y", "z", "method", "score", "class"])


def _number(value: Any) -> float:
    """A number of JSON, which may be longer than numbers are; what is none is no finite number."""
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError):
        return float("nan")


def _kinds(found: dict[str, Any]) -> dict[int, str]:
    """Names of the classes by their numbers."""
    classes = found.get(CLASSES, {})
    if not isinstance(classes, dict) or not all(str(number).isdecimal() and len(number) < 10 for number in classes):
        raise ValueError(f"{CLASSES} must be names of numbered classes, got {str(classes)[:60]}")
    return {
        int(number): str(kind["name"] if isinstance(kind, dict) and "name" in kind else kind)
        for number, kind in classes.items()
    }
