"""STAR files of RELION, Warp and M: coordinates, origins and angles as these count them.

Coordinates are pixels counted from 0 at the centre of the first voxel (``rlnCoordinateX``), Å from the middle
(w/2, h/2, d/2) of the tomogram (``rlnCenteredCoordinateXAngst``, RELION 5), or Å from the first voxel (``wrpCoordinateX``, M).
``rlnOriginXAngst`` is subtracted, ``rlnOriginX`` too, in pixels of the images. With the angles of the subtomogram S and of
the particle P as rotations, reference to tomogram, the orientation is S P and the origin is turned by S (RELION's
``particle_set.cpp``). Here the columns are still RELION's; `tomolab.relionlists` makes particle tables of them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tomolab import rotations
from tomolab.mrc import TOLERANCE
from tomolab.starblocks import MISSING as MISSING
from tomolab.starblocks import WIDEST as WIDEST
from tomolab.starblocks import blocks as blocks
from tomolab.starblocks import parsed as parsed
from tomolab.starblocks import text as text

PIXELS = [f"rlnCoordinate{axis}" for axis in "ZYX"]
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]
ORIGINS = [f"rlnOrigin{axis}Angst" for axis in "ZYX"]
OLD_ORIGINS = [f"rlnOrigin{axis}" for axis in "ZYX"]
EULER = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM_EULER = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
M_POSES = [[f"wrp{name}{time}" for name in ("CoordinateZ", "CoordinateY", "CoordinateX")] for time in ("", "1")]
M_EULER = [[f"wrp{name}{time}" for name in ("AngleRot", "AngleTilt", "AnglePsi")] for time in ("", "1")]
"""Columns of M, where particles stay and where they move; of a path, the first point is read."""
TILT_SERIES = "rlnTomoTiltSeriesPixelSize"
GROUP = "rlnOpticsGroup"
OPTICS = [
    *(
        "rlnOpticsGroupName",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
        "rlnImagePixelSize",
        "rlnImageSize",
    ),
    *("rlnImageDimensionality", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", TILT_SERIES),
    *("rlnTomoSubtomogramBinning", "rlnCtfDataAreCtfPremultiplied", "rlnCtfDataAreCtfCorrected", "rlnMtfFileName"),
    *("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike"),
    *("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"),
]
"""Columns that RELION expects in the optics table."""

CONSUMED = {*PIXELS, *CENTRED, *ORIGINS, *OLD_ORIGINS, *EULER, *SUBTOMOGRAM_EULER}
CONSUMED |= {name for names in (*M_POSES, *M_EULER) for name in names}
"""Columns whose meaning passes into position and orientation; they must not be written back beside those."""
VERSIONS: dict[str, int | None] = {"relion30": None, "warp": None, "relion31": 30001, "relion4": 30001, "relion5": 50001}
"""What RELION looks for in a comment above each table; what has no optics table has none."""

Shape = tuple[int, int, int] | Mapping[str, tuple[int, int, int]]
"""Voxels (z, y, x) of all tomograms, or of each by name."""
Tilts = tuple[float, float] | Mapping[str, tuple[float, float]]
"""(Lowest, highest) tilt in degrees of all tomograms, or of each by name."""


def joined(blocks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows of the particles, each with what the optics table says of its group.

    Raises
    ------
    ValueError
        If no table has coordinates, or the optics table does not fit.
    """
    places = (PIXELS, CENTRED, *M_POSES)
    usable = [name for name, block in blocks.items() if any(set(names) <= set(block) for names in places)]
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
    strange = sorted(set(rows[GROUP].fillna("nothing")) - set(optics[GROUP].dropna()))
    if strange:
        there = ", ".join(optics[GROUP].dropna())
        raise ValueError(f"particles name the optics groups {', '.join(strange[:5])}; there are {there}")
    if optics[GROUP].duplicated().any():
        raise ValueError(f"the optics table has a group twice: {', '.join(optics[GROUP])}")
    return rows.merge(optics, on=GROUP, how="left", validate="many_to_one")


def geometry(
    rows: pd.DataFrame,
    names: pd.Series,
    *,
    voxel_size: float | None,
    shape: Shape | None,
    listed: pd.DataFrame | None = None,
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
    listed
        Pixel size and size of the tomograms, as `relionsets.tomograms` reads them.

    Raises
    ------
    ValueError
        If the voxel size or the shape is needed and not known, or the files contradict the voxel size or each other.
    """
    for places, angles in zip(M_POSES, M_EULER, strict=True):
        if set(places) <= set(rows):
            return numbers(rows, places), _matrices(rows, angles)
    scale: np.ndarray | float | None
    if set(CENTRED) <= set(rows):
        positions = numbers(rows, CENTRED) + _middles(names, voxel_size=voxel_size, shape=shape, listed=listed)
        scale = voxel_size
    else:
        size = _pixel_size(rows, names, voxel_size=voxel_size, listed=listed)
        positions, scale = numbers(rows, PIXELS) * size, size
    origins, matrices = _origins(rows, scale), _matrices(rows, EULER)
    if not set(SUBTOMOGRAM_EULER) & set(rows):
        return positions - origins, matrices
    turned = _matrices(rows, SUBTOMOGRAM_EULER)
    return positions - np.einsum("nij,nj->ni", turned, origins), turned @ matrices


def _middles(names: pd.Series, *, voxel_size: float | None, shape: Shape | None, listed: pd.DataFrame | None) -> np.ndarray:
    """Middle of each row's tomogram, (n, 3) or (1, 3), in Å, zyx."""
    if voxel_size is not None and shape is not None:
        return each(shape, names, "tomogram_shape").reshape(-1, 3) / 2 * voxel_size
    if listed is None or not set("zyx") <= set(listed):
        raise ValueError(
            "coordinates are Å from the middle of the tomogram (RELION 5); give voxel_size= and tomogram_shape= (z, y, x), or "
            "tomogram_list=, a tomograms.star that has the sizes rlnTomoSizeX, Y, Z"
        )
    found = listed_for(listed, names)
    return found[["z", "y", "x"]].to_numpy() / 2 * found[["pixel_size"]].to_numpy()


def _pixel_size(rows: pd.DataFrame, names: pd.Series, *, voxel_size: float | None, listed: pd.DataFrame | None) -> np.ndarray:
    """Å per pixel of the coordinates, (n, 1)."""
    told = next((name for name in (TILT_SERIES, "rlnMicrographPixelSize") if name in rows), None)
    sizes = None if told is None else numbers(rows, [told])
    if listed is not None and "rlnTomoName" in rows:
        stated = listed_for(listed, names)[["pixel_size"]].to_numpy()
        if sizes is not None:
            _agree(sizes, stated, f"{told} is {{told}} Å, but that of the list of tomograms is {stated[0, 0]:g}")
        told, sizes = f"{TILT_SERIES} of the list of tomograms", stated
    if voxel_size is not None:
        if sizes is not None:
            _agree(sizes, np.array(voxel_size), f"{told} is {{told}} Å, but voxel_size={voxel_size:g} was given")
        return np.full((len(rows), 1), voxel_size)
    found = _image_size(rows) if sizes is None else sizes
    if found is None:
        raise ValueError("the file does not say the pixel size of its coordinates; give voxel_size= or tomogram_list=")
    return found


def _agree(told: np.ndarray, other: np.ndarray, message: str) -> None:
    """Refuse sizes that differ, with a message that has a place for those that were told."""
    if (np.abs(told / other - 1) > TOLERANCE).any():
        raise ValueError(message.format(told=", ".join(f"{size:g}" for size in np.unique(told))))


def _image_size(rows: pd.DataFrame) -> np.ndarray | None:
    """Å per pixel of the images of the particles, (n, 1), if the file says so."""
    for name in ("rlnImagePixelSize", "rlnPixelSize"):
        if name in rows:
            return numbers(rows, [name])
    if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(rows):
        # Detector pixels are µm.
        return numbers(rows, ["rlnDetectorPixelSize"]) * 1e4 / numbers(rows, ["rlnMagnification"])
    return None


def _origins(rows: pd.DataFrame, size: np.ndarray | float | None) -> np.ndarray:
    """Give what is subtracted from the positions, (n, 3), Å, zyx; a missing column is 0, `size` that of coordinates."""
    out = np.zeros((len(rows), 3))
    for axis in range(3):
        if ORIGINS[axis] in rows:
            out[:, axis] = numbers(rows, [ORIGINS[axis]])[:, 0]
        elif OLD_ORIGINS[axis] in rows:
            images = _image_size(rows)
            scale = size if images is None else images
            if scale is None:
                raise ValueError(f"the file does not say the pixel size of {OLD_ORIGINS[axis]}; give voxel_size=")
            out[:, axis] = (numbers(rows, [OLD_ORIGINS[axis]]) * scale)[:, 0]
    return out


def _matrices(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Rotations (n, 3, 3) from three angle columns; a missing one is 0, as in RELION."""
    angles = [numbers(rows, [name])[:, 0] if name in rows else np.zeros(len(rows)) for name in names]
    return rotations.from_euler(np.stack(angles, axis=1))


def numbers(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Columns as floats (n, columns); a ValueError if a value is not a finite number."""
    out = np.stack([_floats(rows[name]) for name in names], axis=1)
    bad = ~np.isfinite(out)
    if bad.any():
        row, column = map(int, np.argwhere(bad)[0])
        first = f"{names[column]} of row {row}: {rows[names[column]].iloc[row]!r}"
        raise ValueError(f"{bad.sum()} of {out.size} values in {', '.join(names)} are not numbers, first {first}")
    return out


def _floats(column: pd.Series) -> np.ndarray:
    """Values as floats, NaN where one is no number."""
    try:
        # Many times as fast as pandas on text, and as exact; it refuses what is no number.
        return column.astype("double[pyarrow]").to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError, NotImplementedError):
        return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def typed(column: pd.Series) -> pd.Series:
    """Numbers where every text is one and would be written the same, else text: 7 becomes a number, 007 stays a name."""
    known = column.dropna().astype(str)
    if len(known) and known.isin(["True", "False"]).all() and len(known) == len(column):
        return column == "True"
    if len(known) and not known.str.fullmatch(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?").all():
        return column
    if not len(known):
        return column
    if known.str.contains("[.eE]").any():
        return pd.Series(_floats(column), index=column.index, name=column.name)
    return pd.to_numeric(column)


def tilts_of(tilts: Tilts, names: pd.Series) -> np.ndarray:
    """Lowest and highest tilt of each row, (n, 2), by the name of its tomogram."""
    return each(tilts, names, "tilts").reshape(-1, 2)


def each(values: Any, names: pd.Series, what: str) -> np.ndarray:
    """Value of each row, (n, ...), by the name of its tomogram, where there is one for each, or the one for all."""
    place, different = pd.factorize(names)
    if not len(different):
        return np.zeros((0, 1))
    return np.array([of(values, name, what) for name in different], dtype=float)[place]


def listed_for(listed: pd.DataFrame, names: pd.Series) -> pd.DataFrame:
    """Rows of the list of tomograms for each name, in order; a ValueError if one is not there or not a positive number."""
    strange = sorted(set(names.fillna("nothing")) - set(listed.index.dropna()))
    if strange:
        there = ", ".join(sorted(listed.index.dropna())[:5])
        raise ValueError(f"the list of tomograms lacks {', '.join(strange[:5])}; it has {there}")
    return listed.loc[names]


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
