"""STAR files of RELION: their tables, and coordinates, origins and angles as RELION counts them.

Coordinates are pixels counted from 0 at the centre of the first voxel (``rlnCoordinateX``), or Å from the middle
(w/2, h/2, d/2) of the tomogram (``rlnCenteredCoordinateXAngst``, RELION 5). ``rlnOriginXAngst`` is subtracted. With the
angles of the subtomogram S and of the particle P as rotations, reference to tomogram, the orientation is S P and the
origin is turned by S (RELION's ``particle_set.cpp``). Here the columns are still RELION's; `tomolab.lists` makes particle
tables of them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile

from tomolab import rotations
from tomolab.mrc import TOLERANCE

PIXELS = [f"rlnCoordinate{axis}" for axis in "ZYX"]
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]
ORIGINS = [f"rlnOrigin{axis}Angst" for axis in "ZYX"]
OLD_ORIGINS = [f"rlnOrigin{axis}" for axis in "ZYX"]
EULER = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM_EULER = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
GROUP = "rlnOpticsGroup"
FORBIDDEN = re.compile("[\"'#\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
OPTICS = [
    *(
        "rlnOpticsGroupName",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
        "rlnImagePixelSize",
        "rlnImageSize",
    ),
    *("rlnImageDimensionality", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnTomoTiltSeriesPixelSize"),
    *("rlnTomoSubtomogramBinning", "rlnCtfDataAreCtfPremultiplied", "rlnMtfFileName"),
]
"""Columns that RELION expects in the optics table."""

CONSUMED = {*PIXELS, *CENTRED, *ORIGINS, *OLD_ORIGINS, *EULER, *SUBTOMOGRAM_EULER}
"""Columns whose meaning passes into position and orientation; they must not be written back beside those."""
VERSIONS = {"relion31": 30001, "relion5": 50001}
"""What RELION looks for in a comment above each table."""

Shape = tuple[int, int, int] | Mapping[str, tuple[int, int, int]]
"""Voxels (z, y, x) of all tomograms, or of each by name."""
Tilts = tuple[float, float] | Mapping[str, tuple[float, float]]
"""(Lowest, highest) tilt in degrees of all tomograms, or of each by name."""


def blocks(path: Path) -> dict[str, pd.DataFrame]:
    """Blocks of a STAR file as tables of text, so that a name like 001 stays what it is."""
    with path.open(errors="replace") as file:
        names = {line.split()[0][1:] for line in map(str.strip, file) if line.startswith("_")}
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=sorted(names))
    except (TypeError, IndexError) as error:
        raise ValueError(f"this is not a readable STAR file ({error})") from error
    return {name: pd.DataFrame([block], dtype=str) if isinstance(block, dict) else block for name, block in blocks.items()}


def joined(blocks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows of the particles, each with what the optics table says of its group.

    Raises
    ------
    ValueError
        If no table has coordinates, or the optics table does not fit.
    """
    usable = [name for name, block in blocks.items() if set(PIXELS) <= set(block) or set(CENTRED) <= set(block)]
    if not usable:
        told = "; ".join(f"data_{name} has {', '.join(block)}" for name, block in blocks.items()) or "it has no tables"
        raise ValueError(f"there are no coordinates (rlnCoordinateX, Y, Z or rlnCenteredCoordinateXAngst, Y, Z): {told}")
    rows, optics = blocks["particles" if "particles" in usable else usable[0]], blocks.get("optics")
    if optics is None:
        return rows
    optics = optics[[name for name in optics if name == GROUP or name not in rows]]
    if GROUP not in rows or GROUP not in optics:
        if len(optics) != 1:
            raise ValueError(f"there are {len(optics)} optics groups, but {GROUP} does not tie them to the particles")
        return rows.assign(**optics.iloc[0])
    strange = sorted(set(rows[GROUP]) - set(optics[GROUP]))
    if strange:
        raise ValueError(f"particles name the optics groups {', '.join(strange)}; there are {', '.join(optics[GROUP])}")
    if optics[GROUP].duplicated().any():
        raise ValueError(f"the optics table has a group twice: {', '.join(optics[GROUP])}")
    return rows.merge(optics, on=GROUP, how="left", validate="many_to_one")


def geometry(
    rows: pd.DataFrame, names: pd.Series, *, voxel_size: float | None, shape: Shape | None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) in Å and rotations (n, 3, 3), zyx, of the rows of a STAR file.

    Parameters
    ----------
    rows
        As `joined` gives them.
    names
        Tomogram of each row.
    voxel_size
        Å per pixel of the coordinates; from the file where it is None.
    shape
        Voxels of the tomograms, for centred coordinates.

    Raises
    ------
    ValueError
        If the voxel size or the shape is needed and not known, or the file contradicts the voxel size.
    """
    turned = _matrices(rows, SUBTOMOGRAM_EULER)
    origins = np.einsum("nij,nj->ni", turned, _origins(rows, voxel_size))
    return _positions(rows, names, voxel_size=voxel_size, shape=shape) - origins, turned @ _matrices(rows, EULER)


def text(tables: dict[str, pd.DataFrame], *, version: int) -> str:
    """Give the text of a STAR file, every table under the comment from which RELION knows its version.

    Raises
    ------
    ValueError
        If a text holds a quote, #, tab or line break, which STAR cannot hold.
    """
    parts = []
    for name, table in tables.items():
        for column in table:
            values = table[column]
            if pd.api.types.is_numeric_dtype(values):
                continue
            texts = values.dropna().astype(str)
            wrong = texts[texts.str.contains(FORBIDDEN)]
            if len(wrong):
                raise ValueError(
                    f"column {column}: {len(wrong)} texts hold a quote, #, tab or line break, first {wrong.iloc[0]!r}"
                )
        # The first line of starfile names the day; the same table shall give the same file.
        body = starfile.to_string({name: table}, float_format=None).split("\n", 1)[1].strip()
        parts.append(f"# version {version}\n\n{body}\n")
    return "\n".join(parts)


def _positions(rows: pd.DataFrame, names: pd.Series, *, voxel_size: float | None, shape: Shape | None) -> np.ndarray:
    """Positions (n, 3) in Å, zyx, before the origins are subtracted."""
    if set(CENTRED) <= set(rows):
        if voxel_size is None or shape is None:
            raise ValueError(
                "coordinates are Å from the middle of the tomogram (RELION 5); give voxel_size= and tomogram_shape= (z, y, x)"
            )
        middles = np.array([of(shape, name, "tomogram_shape") for name in names], dtype=float).reshape(-1, 3) / 2 * voxel_size
        return numbers(rows, CENTRED) + middles
    told = next((name for name in ("rlnTomoTiltSeriesPixelSize", "rlnMicrographPixelSize") if name in rows), None)
    if told is not None and voxel_size is not None:
        sizes = numbers(rows, [told])
        if (np.abs(sizes / voxel_size - 1) > TOLERANCE).any():
            raise ValueError(
                f"{told} is {', '.join(f'{size:g}' for size in np.unique(sizes))} Å, but voxel_size={voxel_size:g} was given"
            )
    return numbers(rows, PIXELS) * _pixel_size(rows, voxel_size)


def _pixel_size(rows: pd.DataFrame, voxel_size: float | None) -> np.ndarray:
    """Å per pixel of the coordinates, (n, 1)."""
    if voxel_size is not None:
        return np.full((len(rows), 1), voxel_size)
    for name in ("rlnTomoTiltSeriesPixelSize", "rlnMicrographPixelSize", "rlnImagePixelSize", "rlnPixelSize"):
        if name in rows:
            return numbers(rows, [name])
    if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(rows):
        # Detector pixels are µm.
        return numbers(rows, ["rlnDetectorPixelSize"]) * 1e4 / numbers(rows, ["rlnMagnification"])
    raise ValueError("the file does not say the pixel size of its coordinates; give voxel_size=")


def _origins(rows: pd.DataFrame, voxel_size: float | None) -> np.ndarray:
    """Give what is subtracted from the positions, (n, 3), Å, zyx; a missing column is 0."""
    out = np.zeros((len(rows), 3))
    for axis in range(3):
        if ORIGINS[axis] in rows:
            out[:, axis] = numbers(rows, [ORIGINS[axis]])[:, 0]
        elif OLD_ORIGINS[axis] in rows:
            scale = numbers(rows, ["rlnImagePixelSize"]) if "rlnImagePixelSize" in rows else _pixel_size(rows, voxel_size)
            out[:, axis] = (numbers(rows, [OLD_ORIGINS[axis]]) * scale)[:, 0]
    return out


def _matrices(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Rotations (n, 3, 3) from three angle columns; a missing one is 0, as in RELION."""
    angles = [numbers(rows, [name])[:, 0] if name in rows else np.zeros(len(rows)) for name in names]
    return rotations.from_euler(np.stack(angles, axis=1))


def numbers(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Columns as floats (n, columns); a ValueError if a value is not a finite number."""
    out = rows[names].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    bad = ~np.isfinite(out)
    if bad.any():
        row, column = map(int, np.argwhere(bad)[0])
        first = f"{names[column]} of row {row}: {rows[names[column]].iloc[row]!r}"
        raise ValueError(f"{bad.sum()} of {out.size} values in {', '.join(names)} are not numbers, first {first}")
    return out


def typed(column: pd.Series) -> pd.Series:
    """Numbers where every text is one and would be written the same, else text: 7 becomes a number, 007 stays a name."""
    known = column.dropna().astype(str)
    if len(known) and known.isin(["True", "False"]).all() and len(known) == len(column):
        return column == "True"
    if len(known) and not known.str.fullmatch(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?").all():
        return column
    return pd.to_numeric(column) if len(known) else column


def tilts_of(tilts: Tilts, names: pd.Series) -> np.ndarray:
    """Lowest and highest tilt of each row, (n, 2), by the name of its tomogram."""
    return np.array([of(tilts, name, "tilts") for name in names], dtype=float).reshape(-1, 2)


def check_voxel_size(voxel_size: float | None, what: str) -> float:
    """Give the voxel size back; a ValueError that names `what` needs it if it is not a positive number."""
    if voxel_size is None or not (np.isfinite(voxel_size) and voxel_size > 0):
        raise ValueError(f"{what} needs voxel_size=, the Å per voxel of the tomogram, got {voxel_size}")
    return float(voxel_size)


def of(values: Any, name: str, what: str) -> Any:
    """Give the value for one tomogram where there is one for each, or the one for all."""
    if not isinstance(values, Mapping):
        return values
    if name not in values:
        raise ValueError(f"{what}= has no entry for tomogram {name!r}; it has {', '.join(map(str, values))}")
    return values[name]
