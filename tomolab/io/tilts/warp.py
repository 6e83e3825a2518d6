"""Metadata of tilt series that Warp writes: .xml (angles, dose, alignment, and the defocus that it has fitted) and .tomostar.

Warp projects a point of the specimen to ``x cos(a) - z sin(a)`` (`TiltSeries.GetPositionInAllTilts` of its source), IMOD and
tomolab to ``x cos(t) + z sin(t)``. So the tilt is the negative of Warp's angle, whatever AreAnglesInverted says: that is about
heights alone, from which the defocus across an image follows.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd

from tomolab.conventions import HAND
from tomolab.io.lists.star import parsing
from tomolab.io.tilts import imod
from tomolab.io.xml import parsed

LISTS = ("Angles", "Dose", "UseTilt", "MoviePath", "AxisAngle", "AxisOffsetX", "AxisOffsetY")
"""Elements that hold a line for each image."""
LOCALISED = ("AxisAngle", "AxisOffsetX", "AxisOffsetY")
"""Those whose numbers Warp writes as the language of the computer has it, with a comma in many."""
COMMA = re.compile(r"^([-+]?\d+),(\d+(?:[eE][-+]?\d+)?)$")
LOCAL = ("GridMovementX", "GridMovementY", "GridVolumeWarpX", "GridVolumeWarpY", "GridVolumeWarpZ")
"""Elements that move parts of the images, or of the specimen."""


def read_warp(path: str | Path) -> pd.DataFrame:
    """Tilt table of a tilt series' .xml file, in its order, which is that of the stacks that Warp writes.

    Tilts have IMOD's sign, which is the opposite of Warp's (see above), and are without LevelAngleY. Dose is what the specimen
    had before each image. Defocus is GridCTF's, averaged over the image where that varies. Further columns are:

    - `axis`: tilt axis in degrees from y to x, as IMOD counts; `shift_x`, `shift_y`: Å in the image (AxisOffsetX, Y)
    - `level_x`, `level_y`: degrees by which Warp turns the specimen level (LevelAngleX, Y); 0 where it does not
    - `local`: whether Warp moves parts of the images or of the specimen, too
    - `image`: name of the movie; `use`: whether Warp uses the image
    - `inverted`: AreAnglesInverted; `defocus_hand`: what follows from it, as `tomograms.reconstruct` takes it (``hand=``)

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not XML of a tilt series, declares entities, its lists differ in length, or a value is not what its
        name says.
    """
    text = imod.text(path)
    try:
        root = parsed(text, "TiltSeries")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    found = {name: _list(root, name) for name in LISTS}
    for name in LOCALISED:
        found[name] = [COMMA.sub(r"\1.\2", value) for value in found[name]]
    numbers = {name: _numbers(found[name], name, text=text, path=path) for name in ("Angles", "Dose", *LOCALISED)}
    angles = numbers["Angles"]
    if angles is None:
        raise ValueError(f"{path} has no angles (element Angles)")
    imod.check_tilts(angles, _place(text, "Angles", path))
    for name, values in found.items():
        if values and len(values) != len(angles):
            raise ValueError(f"{_place(text, name, path)(0)}: {len(values)} values of {name} for {len(angles)} angles")
    place, used = _place(text, "TiltSeries", path)(0), _place(text, "UseTilt", path)
    inverted = _boolean(root.get("AreAnglesInverted", "False"), place)
    columns = {"axis": "AxisAngle", "shift_x": "AxisOffsetX", "shift_y": "AxisOffsetY"}
    return imod.table(
        _turned(angles),
        dose=numbers["Dose"],
        defocus=_defocus(root, len(angles), text=text, path=path),
        **{ours: np.nan if numbers[theirs] is None else numbers[theirs] for ours, theirs in columns.items()},
        level_x=_number(root.get("LevelAngleX", "0"), place),
        level_y=_number(root.get("LevelAngleY", "0"), place),
        local=any(_moves(node.get("Value")) for grid in LOCAL for node in root.iterfind(f"{grid}/Node")),
        image=[_bare(name) for name in found["MoviePath"]] or "",
        use=[_boolean(value, used(i)) for i, value in enumerate(found["UseTilt"])] or True,
        inverted=inverted,
        defocus_hand=-HAND if inverted else HAND,
    )


def read_tomostar(path: str | Path) -> pd.DataFrame:
    """Tilt table of a .tomostar file, in its order, which is that of the stacks that Warp writes.

    Tilts have IMOD's sign, which is the opposite of Warp's (see above). Dose is what the specimen had before each image;
    defocus is not known to this file. Further columns are `axis`, `shift_x`, `shift_y`, `image` and `use` (True) as `read_warp`
    has them, and those of the file that have no counterpart, under their own names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not STAR, has no column wrpAngleTilt, or a value is not a number.
    """
    try:
        blocks = parsing.parsed(imod.text(path, strict=True))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    rows = next((block for block in blocks.values() if "wrpAngleTilt" in block), None)
    if rows is None:
        raise ValueError(f"{path} has no column wrpAngleTilt: {parsing.described(blocks)}")
    angles = _column(rows, "wrpAngleTilt", path)
    imod.check_tilts(angles, lambda i: f"{path}, row {i}")
    columns = {"axis": "wrpAxisAngle", "shift_x": "wrpAxisOffsetX", "shift_y": "wrpAxisOffsetY"}
    known = {"wrpAngleTilt", "wrpDose", "wrpMovieName", *columns.values()}
    return imod.table(
        _turned(angles),
        dose=_column(rows, "wrpDose", path) if "wrpDose" in rows else None,
        **{ours: _column(rows, theirs, path) if theirs in rows else np.nan for ours, theirs in columns.items()},
        image=[_bare(name) for name in rows["wrpMovieName"]] if "wrpMovieName" in rows else "",
        use=True,
        **{str(name): parsing.typed(rows[name]).to_numpy() for name in rows if name not in known},
    )


def _moves(value: str | None) -> bool:
    """Whether a node of a grid is anything but 0."""
    try:
        return float(value or 0) != 0
    except ValueError:
        return True


def _turned(angles: np.ndarray) -> np.ndarray:
    """Tilts with IMOD's sign of Warp's angles; 0 stays without one."""
    return 0.0 - angles


def _list(root: Element, name: str) -> list[str]:
    """Lines of an element; none where it is absent or empty."""
    found = root.findtext(name)
    return [line.strip() for line in found.strip().splitlines()] if found and found.strip() else []


def _numbers(values: list[str], name: str, *, text: str, path: str | Path) -> np.ndarray | None:
    """Lines as finite numbers; None where there are none."""
    place = _place(text, name, path)
    return np.array([_number(value, place(i)) for i, value in enumerate(values)]) if values else None


def _number(value: Any, place: str) -> float:
    try:
        found = float(value or "")
    except ValueError:
        found = np.nan
    if not np.isfinite(found):
        raise ValueError(f"{place}: expected a number, got {str(value or '')[:60]!r}")
    return found


def _boolean(value: str, place: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{place}: expected True or False, got {value[:60]!r}")
    return value.lower() == "true"


def _place(text: str, name: str, path: str | Path) -> Callable[[int], str]:
    """A function that gives file and line of a value, counted from where its element opens."""
    before = text.partition(f"<{name}>")[0] if f"<{name}>" in text else text.partition(f"<{name} ")[0]
    line = before.count("\n") + 1
    return lambda row: f"{path}, line {line + row} ({name})"


def _defocus(root: Element, images: int, *, text: str, path: str | Path) -> np.ndarray | None:
    """Underfocus of each image in µm; None where the file holds none."""
    grid = root.find("GridCTF")
    if grid is None:
        return None
    nodes: dict[int, list[float]] = {}
    place = _place(text, "GridCTF", path)
    for i, node in enumerate(grid.iter("Node"), 1):
        nodes.setdefault(int(_number(node.get("Z"), place(i))), []).append(_number(node.get("Value"), place(i)))
    values = np.array([np.mean(nodes[z]) for z in sorted(nodes)])
    if len(values) not in (1, images):
        raise ValueError(f"{place(0)}: expected one defocus, or one for each of {images} images, got {len(values)}")
    return np.broadcast_to(values, images)


def _column(rows: pd.DataFrame, name: str, path: str | Path) -> np.ndarray:
    return np.array([_number(value, f"{path}, row {i} ({name})") for i, value in enumerate(rows[name])])


def _bare(name: Any) -> str:
    """Name of a file without folders, whichever way its slashes lean."""
    return str(name).replace("\\", "/").rsplit("/", 1)[-1]
