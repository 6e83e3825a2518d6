"""EMAN2: boxes in tomograms (``info/NAME_info.json``), to particle tables.

``boxes_3d`` lists x, y, z, how the box was made, its score and its class; ``class_list`` names the classes. Where there is an
``apix_unbin``, the coordinates are pixels of that many Å from the voxel ``n // 2`` of the tomogram; where there is none (before
September 2018), they are voxels of the tomogram from 0 (`e2spt_boxer.py` and `e2spt_extract.py` of EMAN2). Boxes are not
turned. A curve (``curves``) is no particle, and is left out.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab.conventions import ANGLES, POSITION, centre
from tomolab.io.lists.options import MissingOptionError, ReadOptions, check_voxel_size
from tomolab.io.lists.star import parsing

BOXES, CLASSES, UNBINNED, CURVES = "boxes_3d", "class_list", "apix_unbin", "curves"
USUAL = (None, None, None, "manual", 0.0, 0)
"""What a box has that does not say it."""
ENDING = "_info"


def read(path: Path, content: dict[str, Any], options: ReadOptions) -> pd.DataFrame:
    """Make particles that are not turned, without tilts, of the boxes in the JSON of a file.

    The class is ``class``, its name ``label``; ``score`` and ``eman2_method`` are read too. The tomogram is called NAME, as in
    NAME_info.json, unless `options` name it.

    Raises
    ------
    ValueError
        If it is no such file, or the voxel size, or the shape for coordinates that count from the middle, is not given.

    Warns
    -----
    UserWarning
        If there are curves, which are left out.
    """
    if not isinstance(content[BOXES], list):
        raise ValueError(f"{BOXES} of EMAN2 must be a list, got a {type(content[BOXES]).__name__}")
    name = options.tomogram or path.stem.removesuffix(ENDING)
    if not name:
        raise MissingOptionError("the name of the file does not name the tomogram; give tomogram=", "tomogram")
    size, shape = options.size("a list of EMAN2"), options.tomogram_shape
    boxes, classes = _boxes(content), _classes(content)
    places = parsing.numbers(boxes, ["z", "y", "x"])
    positions = places * size
    if UNBINNED in content:
        if shape is None:
            message = "boxes of EMAN2 count from the middle of the tomogram; give tomogram_shape= (z, y, x)"
            raise MissingOptionError(message, "tomogram_shape")
        voxels = shape.get(name) if isinstance(shape, Mapping) else shape
        if voxels is None or len(voxels) != 3:
            raise ValueError(f"tomogram_shape= must be (z, y, x) of the tomogram {name!r}, got {shape}")
        unbinned = check_voxel_size(_number(content[UNBINNED]), f"a list of EMAN2, in {UNBINNED},")
        positions = places * unbinned + np.array([centre(int(n)) for n in voxels]) * size
    out = pd.DataFrame({"particle_id": np.arange(1, len(boxes) + 1), "tomogram": name})
    out[POSITION] = positions
    out[ANGLES] = 0.0
    out["class"] = parsing.numbers(boxes, ["class"])[:, 0].astype(int)
    out["label"] = [classes.get(number, f"particles_{number:02d}") for number in out["class"]]
    out["score"], out["eman2_method"] = parsing.numbers(boxes, ["score"])[:, 0], boxes["method"].astype(str)
    curves = content.get(CURVES)
    if isinstance(curves, list) and curves:
        warnings.warn(f"{path} has {len(curves)} points of curves beside the boxes; they are left out", stacklevel=2)
    return out


def _boxes(content: dict[str, Any]) -> pd.DataFrame:
    """Rows with x, y, z, method, score and class; EMAN2 may put more behind them."""
    rows = []
    for number, box in enumerate(content[BOXES]):
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


def _classes(content: dict[str, Any]) -> dict[int, str]:
    """Names of the classes by their numbers."""
    classes = content.get(CLASSES, {})
    if not isinstance(classes, dict) or not all(str(number).isdecimal() and len(number) < 10 for number in classes):
        raise ValueError(f"{CLASSES} must be names of numbered classes, got {str(classes)[:60]}")
    return {
        int(number): str(one["name"] if isinstance(one, dict) and "name" in one else one) for number, one in classes.items()
    }
