"""STAR files of RELION, Warp and M: coordinates, origins and angles as these count them.

Coordinates are pixels counted from 0 at the centre of the first voxel (``rlnCoordinateX``), Å from the middle
(w/2, h/2, d/2) of the tomogram (``rlnCenteredCoordinateXAngst``, RELION 5), or Å from the first voxel (``wrpCoordinateX``, M).
``rlnOriginXAngst`` is subtracted, ``rlnOriginX`` too, in pixels of the images. With the angles of the subtomogram S and of
the particle P as rotations, reference to tomogram, the orientation is S P and the origin is turned by S (RELION's
``particle_set.cpp``). Here the columns are still RELION's; `tomolab.io.lists.star.relion` makes particle tables of them.
"""

import warnings
from collections.abc import Mapping
from typing import TypedDict

import numpy as np
import pandas as pd

from tomolab import rotations
from tomolab.io.lists.star import pixel_sizes
from tomolab.io.lists.star.parsing import floats, numbers
from tomolab.io.lists.star.pixel_sizes import DIMENSIONS, GROUP, NAME, PIXELS, SIZES, STACKS, TILT_SERIES
from tomolab.io.lists.tomogram_names import each, listed_for
from tomolab.io.volumes.mrc import TOLERANCE

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]
ORIGINS = [f"rlnOrigin{axis}Angst" for axis in "ZYX"]
OLD_ORIGINS = [f"rlnOrigin{axis}" for axis in "ZYX"]
EULER = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM_EULER = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
M_POSES = [[f"wrp{name}{time}" for name in ("CoordinateZ", "CoordinateY", "CoordinateX")] for time in ("", "1")]
M_EULER = [[f"wrp{name}{time}" for name in ("AngleRot", "AngleTilt", "AnglePsi")] for time in ("", "1")]
"""Columns of M, where particles stay and where they move; of a path, the first point is read."""
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
UNITS = ("angstrom", "voxel", "fraction")
"""What rlnCoordinateX, Y, Z may count: Å or pixels from the first voxel, or parts of the tomogram from 0 to 1."""
GENERAL = "general"
"""Block of RELION 5 and Warp that says whether images are stacks."""


class Known(TypedDict):
    """What the caller knows of the tomograms: `voxel_size`, `shape` and `listed` of `geometry`."""

    voxel_size: float | None
    shape: Shape | None
    listed: pd.DataFrame | None


def joined(blocks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows of the particles, each with what the optics table says of its group, and data_general of all.

    Pixel sizes are those of the optics table if both tables have them, as in RELION (``obs_model.cpp``); a warning tells where
    they differ. WarpTools passes columns on from the list that it was given.

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
    general = blocks.get(GENERAL, pd.DataFrame())
    if STACKS in general and STACKS not in rows and len(general) == 1:
        rows = rows.assign(**{STACKS: general[STACKS].iloc[0]})
    if optics is None:
        return rows
    doubled = [name for name in (*SIZES, DIMENSIONS) if name in rows and name in optics]
    out = _with_optics(rows.drop(columns=doubled), optics)
    different = [name for name in doubled if (np.abs(floats(rows[name]) / floats(out[name]) - 1) > TOLERANCE).any()]
    if different:
        warnings.warn(
            f"{', '.join(different)} of the particles differ from those of the optics table, which count, as in RELION",
            stacklevel=2,
        )
    return out


def _with_optics(rows: pd.DataFrame, optics: pd.DataFrame) -> pd.DataFrame:
    """Rows with those columns of the optics table that they lack."""
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
    unit: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) in Å and rotations (n, 3, 3), zyx, of the rows of a STAR file.

    Parameters
    ----------
    rows
        As `joined` gives them.
    names
        Tomogram of each row.
    voxel_size
        Å per pixel of the coordinates; from the file where it is None. Of centred coordinates and fractions: of `shape`.
    shape
        Voxels of the tomograms, for centred coordinates and fractions.
    listed
        Pixel size and size of the tomograms, as `relion_sets.tomograms` reads them.
    unit
        One of `UNITS` for rlnCoordinateX, Y, Z; told from the file where it is None.

    Raises
    ------
    ValueError
        If the voxel size, the shape or the unit is needed and not known, the files contradict the voxel size or each other, or
        coordinates cannot have the unit.
    """
    if unit is not None and unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; there are {', '.join(UNITS)}")
    if voxel_size is not None:
        check_voxel_size(voxel_size, "a STAR file")
    for places, angles in zip(M_POSES, M_EULER, strict=True):
        if set(places) <= set(rows):
            if unit not in (None, "angstrom"):
                raise ValueError(f"unit={unit!r} was given, but {places[-1]} of M is in Å")
            return numbers(rows, places), _matrices(rows, angles)
    positions, scale = _positions(rows, names, unit, {"voxel_size": voxel_size, "shape": shape, "listed": listed})
    origins, matrices = _origins(rows, scale), _matrices(rows, EULER)
    if not set(SUBTOMOGRAM_EULER) & set(rows):
        return positions - origins, matrices
    turned = _matrices(rows, SUBTOMOGRAM_EULER)
    return positions - np.einsum("nij,nj->ni", turned, origins), turned @ matrices


def _positions(
    rows: pd.DataFrame, names: pd.Series, unit: str | None, known: Known
) -> tuple[np.ndarray, np.ndarray | float | None]:
    """Coordinates (n, 3) of RELION and Warp in Å, zyx, without origins, and Å per pixel as far as that is known."""
    if set(CENTRED) <= set(rows):
        if unit is not None:
            raise ValueError(f"unit={unit!r} counts from the first voxel, but {CENTRED[-1]} is Å from the middle")
        return numbers(rows, CENTRED) + _extents(names, known, "Å from the middle of the tomogram (RELION 5)") / 2, known[
            "voxel_size"
        ]
    if pixel_sizes.are_fractions(rows, names, unit):
        # Warp divides the index of a voxel by their number (TiltSeries.MatchFull.cs), so that 0 is the first voxel.
        told = "fractions of the tomogram from 0 to 1, as of Warp's template matching"
        return numbers(rows, PIXELS) * _extents(names, known, told), known["voxel_size"]
    if unit == "angstrom":
        return numbers(rows, PIXELS), known["voxel_size"]
    size = pixel_sizes.of_coordinates(rows, names, voxel_size=known["voxel_size"], listed=known["listed"])
    return numbers(rows, PIXELS) * size, size


def _extents(names: pd.Series, known: Known, told: str) -> np.ndarray:
    """Extent of each row's tomogram, (n, 3) or (1, 3), in Å, zyx; `told` says what needs it."""
    if known["voxel_size"] is not None and known["shape"] is not None:
        return each(known["shape"], names, "tomogram_shape").reshape(-1, 3) * known["voxel_size"]
    listed = known["listed"]
    if listed is None or not set("zyx") <= set(listed):
        raise ValueError(
            f"coordinates are {told}; give voxel_size= and tomogram_shape= (z, y, x), or tomogram_list=, a tomograms.star that "
            "has the sizes rlnTomoSizeX, Y, Z"
        )
    found = listed_for(listed, names)
    return found[["z", "y", "x"]].to_numpy() * found[["pixel_size"]].to_numpy()


def _origins(rows: pd.DataFrame, size: np.ndarray | float | None) -> np.ndarray:
    """Give what is subtracted from the positions, (n, 3), Å, zyx; a missing column is 0, `size` that of coordinates."""
    out = np.zeros((len(rows), 3))
    for axis in range(3):
        if ORIGINS[axis] in rows:
            out[:, axis] = numbers(rows, [ORIGINS[axis]])[:, 0]
        elif OLD_ORIGINS[axis] in rows:
            shifts = numbers(rows, [OLD_ORIGINS[axis]])
            if shifts.any():
                out[:, axis] = (shifts * _origin_size(rows, OLD_ORIGINS[axis], size))[:, 0]
    return out


def _origin_size(rows: pd.DataFrame, name: str, size: np.ndarray | float | None) -> np.ndarray | float:
    """Å per pixel of an origin: that of the images; that of coordinates where nothing is known of images."""
    images = pixel_sizes.image_size(rows)
    if images is not None:
        return images
    if size is None:
        raise ValueError(f"the file does not say the pixel size of {name}; give voxel_size=")
    if NAME in rows:
        warnings.warn(
            f"{name} counts pixels of the images, whose size the file does not say; that of the coordinates is taken",
            stacklevel=4,
        )
    return size


def _matrices(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Rotations (n, 3, 3) from three angle columns; a missing one is 0, as in RELION."""
    angles = [numbers(rows, [name])[:, 0] if name in rows else np.zeros(len(rows)) for name in names]
    return rotations.from_euler(np.stack(angles, axis=1))


def check_voxel_size(voxel_size: float | None, what: str) -> float:
    """Give the voxel size back; a ValueError that names `what` needs it if it is not a positive number."""
    if voxel_size is None or not (np.isfinite(voxel_size) and voxel_size > 0):
        raise ValueError(f"{what} needs voxel_size=, the Å per voxel of the tomogram, got {voxel_size}")
    return float(voxel_size)
