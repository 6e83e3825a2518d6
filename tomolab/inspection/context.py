"""Takes particles, their tomograms, masks and map, gives columns about the surroundings of each particle.

| column | content |
|---|---|
| ``neighbour_distance`` | Å to the next particle of the same tomogram; missing where there is none |
| ``depth`` | Å to the nearer of the two faces of the tomogram across z |
| ``in_NAME`` | whether its centre is inside of the mask NAME |
| ``distance_to_NAME`` | Å to the surface of the mask; negative inside |
| ``map_density`` | particles around it in the map, relative to the mean over all particles |

>>> table = add(particles, shapes={"TS_01": volume}, masks={"membrane": {"TS_01": mask}})
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from tomolab import io, particles
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.volumes import Volume

DENSITY = "map_density"
TOOLTIPS = {
    "neighbour_distance": "Å to the next particle of the same tomogram",
    "depth": "Å to the nearer face of the tomogram across z",
    DENSITY: "particles around it in the map; 1 is the mean",
}
CELLS = 128
"""Cells of the grid over the map, along each axis."""


def tooltip(column: str) -> str:
    """What a column of this module means; empty for other columns."""
    if column.startswith("distance_to_"):
        return f"Å to the surface of the mask {column.removeprefix('distance_to_')}; negative inside"
    if column.startswith("in_"):
        return f"whether its centre is inside of the mask {column.removeprefix('in_')}"
    return TOOLTIPS.get(column, "")


def add(
    table: pd.DataFrame,
    *,
    shapes: Mapping[str, Volume | Tomogram] | None = None,
    masks: Mapping[str, Mapping[str, Volume | Path]] | None = None,
    points: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Particle table with the columns of this module; a column that is there already stays as it is.

    Parameters
    ----------
    table
        Particle table.
    shapes
        Tomograms by name, of which only shape and voxel size are used.
    masks
        By name, then by tomogram: volumes or files, inside where greater than 0.5. A mask lies in its tomogram from corner to
        corner, so it may have other voxels.
    points
        Map of the particles: columns ``particle_id``, ``x``, ``y``.

    Raises
    ------
    ValueError
        If a mask does not have the size of its tomogram.
    """
    names, places = table["tomogram"].to_numpy(), particles.positions(table)
    rows = {str(name): np.flatnonzero(names == name) for name in pd.unique(names)}
    columns = {"neighbour_distance": _neighbours(places, rows)}
    shapes = dict(shapes or {})
    if shapes:
        columns["depth"] = _depths(places, rows, shapes)
    for mask, of in (masks or {}).items():
        distance = np.full(len(table), np.nan)
        inside = np.full(len(table), None, dtype=object)
        for name in rows.keys() & of.keys():
            some, tomogram = rows[name], shapes.get(name)
            volume = _mask(mask, of[name], name, tomogram)
            # Both begin at the same corner, and position 0 is the centre of the first voxel of the tomogram.
            shift = 0.0 if tomogram is None else (tomogram.voxel_size - volume.voxel_size) / 2
            distance[some], inside[some] = _from_mask(places[some] + shift, volume)
        columns |= {f"in_{mask}": inside, f"distance_to_{mask}": distance}
    if points is not None:
        columns[DENSITY] = density(points.set_index("particle_id").loc[table["particle_id"], ["x", "y"]].to_numpy(float))
    return table.assign(**{name: values for name, values in columns.items() if name not in table and not _empty(values)})


def names(table: pd.DataFrame) -> list[str]:
    """The columns of this module in a table, without that of the map."""
    return [name for name in table if tooltip(str(name)) and name != DENSITY]


def summary(table: pd.DataFrame) -> list[str]:
    """The surroundings of some particles in words: medians of distances, and shares inside of masks."""
    found = []
    for name in names(table):
        values = table[name].dropna()
        if not len(values):
            continue
        what = name.replace("neighbour_distance", "distance to the next particle").replace("_", " ")
        if pd.api.types.is_float_dtype(values):
            found.append(f"median {what} {values.median():,.0f} Å")
        else:
            found.append(f"{100 * values.astype(bool).mean():.0f} % {what}")
    return found


def _empty(values: np.ndarray) -> bool:
    return bool(pd.isna(values).all())


def _neighbours(places: np.ndarray, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    found = np.full(len(places), np.nan)
    for some in rows.values():
        if len(some) > 1:
            found[some] = KDTree(places[some]).query(places[some], k=2)[0][:, 1]
    return found


def _depths(places: np.ndarray, rows: Mapping[str, np.ndarray], shapes: Mapping[str, Volume | Tomogram]) -> np.ndarray:
    found = np.full(len(places), np.nan)
    for name in rows.keys() & shapes.keys():
        some, voxel = rows[name], shapes[name].voxel_size
        # Position 0 is the centre of the first voxel, half a voxel below the face.
        below = places[some, 0] + voxel / 2
        found[some] = np.minimum(below, shapes[name].shape[0] * voxel - below)
    return found


def _mask(name: str, given: Volume | Path, tomogram: str, shape: Volume | Tomogram | None) -> Volume:
    mask = given if isinstance(given, Volume) else io.read_volume(given)
    if shape is not None:
        size, wanted = (np.array(one.shape) * one.voxel_size for one in (mask, shape))
        if np.abs(size - wanted).max() > 2 * max(mask.voxel_size, shape.voxel_size):
            got, expected = (" × ".join(f"{edge:.0f}" for edge in one) for one in (size, wanted))
            raise ValueError(
                f"the mask {name} of {tomogram} is {got} Å large (z, y, x), but its tomogram {expected} Å: "
                "give a mask of this tomogram with the right voxel size"
            )
    return mask


def _from_mask(places: np.ndarray, mask: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each place from the surface of a mask, negative inside, and whether it is inside."""
    filled, voxel = mask.data > 0.5, mask.voxel_size
    index = np.rint(places / voxel).astype(int)
    within = ((index >= 0) & (index < filled.shape)).all(axis=1)
    inside = np.zeros(len(places), dtype=bool)
    inside[within] = filled[tuple(index[within].T)]
    # Where the volume ends, the mask is cut and has no surface.
    surface = np.argwhere(filled & ~ndimage.binary_erosion(filled, border_value=1))
    if not len(surface):
        return np.full(len(places), np.nan), inside
    distance = KDTree(surface * voxel).query(places)[0]
    return np.where(inside, -distance, distance), inside


def density(points: np.ndarray) -> np.ndarray:
    """Number of points (n, 2) around each, relative to the mean over all; a Gaussian of 1/64 of the map counts them."""
    low = points.min(axis=0, initial=0.0) if not len(points) else points.min(axis=0)
    extent = np.maximum(np.ptp(points, axis=0), 1e-9) if len(points) else np.ones(2)
    cells = np.minimum((CELLS * (points - low) / extent).astype(int), CELLS - 1)
    counts = np.bincount(cells @ [CELLS, 1], minlength=CELLS**2).reshape(CELLS, CELLS).astype(float)
    around = ndimage.gaussian_filter(counts, CELLS / 64, mode="constant")[tuple(cells.T)]
    return around / around.mean() if len(around) else around
