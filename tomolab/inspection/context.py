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

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from tomolab import io, particles
from tomolab.io import safe_load
from tomolab.io.volumes import tomogram as tomograms
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
    save: bool = False,
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
    save
        Save the columns of a mask that is a file beside it, as NAME.mrc.npz, and read them from there as long as mask and
        particles are the same.

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
            some, given = rows[name], of[name]
            opened = tomograms.of(given) if isinstance(given, Volume) else io.open_volume(given)
            shift = _shift(mask, opened, name, shapes.get(name))
            if isinstance(given, Volume) or not save:
                distance[some], inside[some] = _from_mask(places[some] + shift, opened)
            else:
                distance[some], inside[some] = _saved(given, places[some] + shift, opened)
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


def _shift(name: str, mask: Tomogram, tomogram: str, shape: Volume | Tomogram | None) -> float:
    """Å from a position in a tomogram to that in its mask; ValueError if the mask does not have the size of the tomogram."""
    if shape is None:
        return 0.0
    size, wanted = (np.array(one.shape) * one.voxel_size for one in (mask, shape))
    if np.abs(size - wanted).max() > 2 * max(mask.voxel_size, shape.voxel_size):
        got, expected = (" × ".join(f"{edge:.0f}" for edge in one) for one in (size, wanted))
        raise ValueError(
            f"the mask {name} of {tomogram} is {got} Å large (z, y, x), but its tomogram {expected} Å: "
            "give a mask of this tomogram with the right voxel size"
        )
    # Both begin at the same corner, and position 0 is the centre of the first voxel of the tomogram.
    return (shape.voxel_size - mask.voxel_size) / 2


def _saved(path: Path, places: np.ndarray, mask: Tomogram) -> tuple[np.ndarray, np.ndarray]:
    """`_from_mask`, read from the file beside the mask if it is of this mask and these places; else computed and saved."""
    beside = io.inside(path.parent, f"{path.name}.npz")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    about = [(one.relative_to(path.parent).as_posix(), one.stat().st_size, one.stat().st_mtime_ns) for one in files]
    key = np.frombuffer(hashlib.sha256(repr((about, mask.voxel_size)).encode() + places.tobytes()).digest(), np.uint8)
    # A damaged file is written anew.
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        found = safe_load.read_npz(beside, "distances to a mask")
        if np.array_equal(found["key"], key):
            return np.broadcast_to(found["distance"].astype(float), len(places)), found["inside"].astype(bool)
    distance, inside = _from_mask(places, mask)
    # In a folder that cannot be written to, they are computed every time.
    with contextlib.suppress(PermissionError), io.atomic(beside) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, key=key, distance=distance, inside=inside)
    return distance, inside


def _from_mask(places: np.ndarray, mask: Tomogram) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each place from the surface of a mask, negative inside, and whether it is inside; read block by block."""
    index = np.rint(places / mask.voxel_size).astype(int)
    within = ((index >= 0) & (index < mask.shape)).all(axis=1)
    inside, surface = np.zeros(len(places), dtype=bool), []
    for across, *others in tomograms.slabs(mask):
        low = max(across.start - 1, 0)
        filled = mask.read((slice(low, min(across.stop + 1, mask.shape[0])), *others)) > 0.5
        here = within & (index[:, 0] >= across.start) & (index[:, 0] < across.stop)
        inside[here] = filled[tuple((index[here] - [low, 0, 0]).T)]
        # Where the volume ends, the mask is cut and has no surface.
        surface.append(np.argwhere(_edge(filled)[across.start - low : across.stop - low]) + np.array([across.start, 0, 0]))
    voxels = np.concatenate(surface)
    if not len(voxels):
        return np.full(len(places), np.nan), inside
    distance = KDTree(voxels * mask.voxel_size).query(places)[0]
    return np.where(inside, -distance, distance), inside


def _edge(filled: np.ndarray) -> np.ndarray:
    """Filled voxels of which one of the six neighbours is empty; a fraction of the time of `ndimage.binary_erosion`."""
    core = filled.copy()
    for axis in range(3):
        ahead, inner = np.moveaxis(filled, axis, 0), np.moveaxis(core, axis, 0)
        inner[1:] &= ahead[:-1]
        inner[:-1] &= ahead[1:]
    return filled & ~core


def density(points: np.ndarray) -> np.ndarray:
    """Number of points (n, 2) around each, relative to the mean over all; a Gaussian of 1/64 of the map counts them."""
    low = points.min(axis=0, initial=0.0) if not len(points) else points.min(axis=0)
    extent = np.maximum(np.ptp(points, axis=0), 1e-9) if len(points) else np.ones(2)
    cells = np.minimum((CELLS * (points - low) / extent).astype(int), CELLS - 1)
    counts = np.bincount(cells @ [CELLS, 1], minlength=CELLS**2).reshape(CELLS, CELLS).astype(float)
    around = ndimage.gaussian_filter(counts, CELLS / 64, mode="constant")[tuple(cells.T)]
    return around / around.mean() if len(around) else around
