"""Rows of a STAR file of RELION, Warp or M in, positions, orientations and centres of boxes as these programs mean them out.

Coordinates are pixels counted from 0 at the centre of the first voxel (``rlnCoordinateX``), Å from the middle
(w/2, h/2, d/2) of the tomogram (``rlnCenteredCoordinateXAngst``, RELION 5), or Å from the first voxel (``wrpCoordinateX``, M).
``rlnOriginXAngst`` is subtracted, ``rlnOriginX`` too, in pixels of the images. With the angles of the subtomogram S and of
the particle P as rotations, reference to tomogram, the orientation is S P and the origin is turned by S (RELION's
``particle_set.cpp``).
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tomolab import rotations
from tomolab.io.lists.options import MissingOptionError, ReadOptions, Shape
from tomolab.io.lists.star import parsing, pixel_sizes
from tomolab.io.lists.star.columns import (
    CENTRED,
    DIMENSIONS,
    EULER,
    GENERAL,
    GROUP,
    IMAGE_NAME,
    M_EULER,
    M_POSES,
    OLD_ORIGINS,
    ORIGINS,
    PIXELS,
    SIZES,
    STACKS,
    SUBTOMOGRAM_EULER,
)
from tomolab.io.lists.star.parsing import floats, numbers
from tomolab.io.lists.tomogram_names import each, listed_for
from tomolab.io.volumes.mrc import TOLERANCE

UNITS = ("angstrom", "voxel", "fraction")
"""What rlnCoordinateX, Y, Z may count: Å or pixels from the first voxel, or parts of the tomogram from 0 to 1."""
FROM_MIDDLE = "Å from the middle of the tomogram (RELION 5)"


class Geometry(NamedTuple):
    """Positions and centres of the boxes, (n, 3) in Å, zyx, and rotations (n, 3, 3)."""

    positions: np.ndarray
    boxes: np.ndarray
    matrices: np.ndarray


def particle_block(blocks: Mapping[str, Iterable[str]]) -> str:
    """Name of the block with the particles, by the columns of all blocks; a ValueError if none has coordinates."""
    places = (PIXELS, CENTRED, *M_POSES)
    usable = [name for name, columns in blocks.items() if any(set(names) <= set(columns) for names in places)]
    if not usable:
        raise ValueError(
            "there are no coordinates (rlnCoordinateX, Y, Z or rlnCenteredCoordinateXAngst, Y, Z): " + parsing.described(blocks)
        )
    return "particles" if "particles" in usable else usable[0]


def joined(blocks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows of the particles, each with the columns of its group in the optics table, and data_general of all.

    Pixel sizes are those of the optics table if both tables have them, as in RELION (``obs_model.cpp``); a warning names those
    that differ. WarpTools passes columns on from the list that it was given.

    Raises
    ------
    ValueError
        If no table has coordinates, or the optics table does not fit.
    """
    rows, optics = blocks[particle_block(blocks)], blocks.get("optics")
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


def geometry(rows: pd.DataFrame, names: pd.Series, options: ReadOptions, *, listed: pd.DataFrame | None = None) -> Geometry:
    """Where the particles of a STAR file lie, where their boxes were cut, and how they are turned.

    Parameters
    ----------
    rows
        As `joined` gives them.
    names
        Tomogram of each row.
    options
        ``voxel_size``: Å per pixel of the coordinates; the file is asked where it is None. Of centred coordinates and
        fractions it is that of ``tomogram_shape``, which these need. ``unit``: one of `UNITS` for rlnCoordinateX, Y, Z; the
        file is asked where it is None.
    listed
        Pixel size and size of the tomograms, as `relion_sets.tomograms` reads them.

    Raises
    ------
    ValueError
        If the voxel size, the shape or the unit is needed and not known, the files contradict the voxel size or each other, or
        coordinates cannot have the unit.
    """
    unit = options.unit
    if unit is not None and unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; there are {', '.join(UNITS)}")
    if options.voxel_size is not None:
        options.size("a STAR file")
    for places, angles in zip(M_POSES, M_EULER, strict=True):
        if set(places) <= set(rows):
            if unit not in (None, "angstrom"):
                raise ValueError(f"unit={unit!r} was given, but {places[-1]} of M is in Å")
            positions = numbers(rows, places)
            return Geometry(positions, positions, _matrices(rows, angles))
    boxes, scale = _boxes(rows, names, options, listed=listed)
    origins, matrices = _origins(rows, scale), _matrices(rows, EULER)
    if set(SUBTOMOGRAM_EULER) & set(rows):
        turned = _matrices(rows, SUBTOMOGRAM_EULER)
        origins, matrices = np.einsum("nij,nj->ni", turned, origins), turned @ matrices
    return Geometry(boxes - origins, boxes, matrices)


def _boxes(
    rows: pd.DataFrame, names: pd.Series, options: ReadOptions, *, listed: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray | float | None]:
    """Coordinates (n, 3) of RELION and Warp in Å, zyx, without origins, and Å per pixel as far as that is known."""
    unit, size = options.unit, options.voxel_size
    known: dict[str, Any] = {"voxel_size": size, "shape": options.tomogram_shape, "listed": listed}
    if set(CENTRED) <= set(rows):
        if unit is not None:
            raise ValueError(f"unit={unit!r} counts from the first voxel, but {CENTRED[-1]} is Å from the middle")
        return numbers(rows, CENTRED) + extents(names, **known, what=FROM_MIDDLE) / 2, size
    if pixel_sizes.are_fractions(rows, names, unit):
        # Warp divides the index of a voxel by their number (TiltSeries.MatchFull.cs), so that 0 is the first voxel.
        what = "fractions of the tomogram from 0 to 1, as of Warp's template matching"
        return numbers(rows, PIXELS) * extents(names, **known, what=what), size
    if unit == "angstrom":
        return numbers(rows, PIXELS), size
    sizes = pixel_sizes.of_coordinates(rows, names, voxel_size=size, listed=listed)
    return numbers(rows, PIXELS) * sizes, sizes


def extents(
    names: pd.Series, *, voxel_size: float | None, shape: Shape | None, listed: pd.DataFrame | None, what: str
) -> np.ndarray:
    """Extent of each row's tomogram, (n, 3) or (1, 3), in Å, zyx; a ValueError says that coordinates are `what`."""
    if voxel_size is not None and shape is not None:
        return each(shape, names, "tomogram_shape").reshape(-1, 3) * voxel_size
    if listed is None or not set("zyx") <= set(listed):
        raise MissingOptionError(
            f"coordinates are {what}; give voxel_size= and tomogram_shape= (z, y, x), or tomogram_list=, a tomograms.star that "
            "has the sizes rlnTomoSizeX, Y, Z",
            "voxel_size",
            "tomogram_shape",
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
    images = pixel_sizes.of_images(rows)
    if images is not None:
        wrong = np.flatnonzero(np.isnan(images))
        if len(wrong):
            raise ValueError(f"{name} counts pixels of the images, whose size is not a number in row {wrong[0]}")
        return images[:, None]
    if size is None:
        raise MissingOptionError(f"the file does not say the pixel size of {name}; give voxel_size=", "voxel_size")
    if IMAGE_NAME in rows:
        warnings.warn(
            f"{name} counts pixels of the images, whose size the file does not say; that of the coordinates is taken",
            stacklevel=4,
        )
    return size


def _matrices(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Rotations (n, 3, 3) from three angle columns; a missing one is 0, as in RELION."""
    return rotations.from_euler(numbers_or_zeros(rows, names))


def numbers_or_zeros(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Columns as numbers (n, columns); 0 where there is none, as in RELION."""
    return np.stack([numbers(rows, [name])[:, 0] if name in rows else np.zeros(len(rows)) for name in names], axis=1)
