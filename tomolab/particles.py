"""Takes positions, orientations and tilts of particles, gives and checks particle tables.

A particle table is a pandas DataFrame with the columns ``particle_id`` (int64, unique), ``tomogram`` (text), ``z y x``
(Å, position 0 is the centre of voxel 0), ``rot tilt psi`` (degrees, RELION's ZYZ), ``tilt_min tilt_max`` (degrees), then
free columns such as ``label``, ``score`` or ``cluster``. Other columns of a user's file stay as they are.

>>> found = table([[120.0, 340.0, 80.0]], tomogram="TS_01", tilts=(-54, 60), label=["ribosome"])
>>> positions(found)
array([[120., 340.,  80.]])
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tomolab import rotations as rotation_matrices
from tomolab.conventions import ANGLES, AXIS, POSITION, WEDGE

CLOSE = 2.0
"""Å; particles of a tomogram that all lie within this length have coordinates of another unit."""
BEFORE = 100.0
"""Å by which a position may lie before the first voxel: boxes at the edge, and shifts."""
BEYOND = 0.1
"""Fraction of the length of a tomogram by which a position may lie outside of it."""
REQUIRED = ["particle_id", "tomogram", *POSITION, *ANGLES, *WEDGE]
"""The columns of every particle table, in order."""


def table(
    positions_zyx: Any,
    *,
    tomogram: str | Sequence[str] = "tomogram",
    ids: Any = None,
    rotations: Any = None,
    angles: Any = None,
    tilts: Any = (-60.0, 60.0),
    **columns: Any,
) -> pd.DataFrame:
    """Build a particle table.

    Parameters
    ----------
    positions_zyx
        Positions (n, 3) in Å, zyx.
    tomogram
        Name of the tomogram, or n names.
    ids
        n unique whole numbers; 0 to n - 1 by default.
    rotations
        Matrices (n, 3, 3) on zyx vectors, reference to tomogram; none rotated by default.
    angles
        Instead of matrices: (n, 3) rot, tilt, psi in degrees.
    tilts
        (lowest, highest) tilt in degrees, or one such pair per particle, (n, 2).
    **columns
        Free columns: n values, or one for all.

    Raises
    ------
    ValueError
        If shapes disagree, both `rotations` and `angles` are given, or `check` finds a fault.
    """
    positions_zyx = _rows(positions_zyx, "positions_zyx", 3)
    n = len(positions_zyx)
    if rotations is not None and angles is not None:
        raise ValueError("give either rotations (matrices) or angles (degrees), not both")
    if rotations is not None:
        matrices = np.asarray(rotations, dtype=float)
        if matrices.shape != (n, 3, 3):
            raise ValueError(f"rotations: expected matrices of shape ({n}, 3, 3), got {matrices.shape}")
        angles = rotation_matrices.to_euler(matrices)
    angles = np.zeros((n, 3)) if angles is None else _rows(angles, "angles", 3)
    tilts = np.asarray(tilts, dtype=float)
    tilts = np.broadcast_to(tilts, (n, 2)) if tilts.shape == (2,) else _rows(tilts, "tilts", 2)
    if isinstance(tomogram, str):
        tomogram = [tomogram] * n
    data: dict[str, Any] = {"particle_id": np.arange(n) if ids is None else np.asarray(ids), "tomogram": list(tomogram)}
    data |= {
        name: values[:, i]
        for values, names in ((positions_zyx, POSITION), (angles, ANGLES), (tilts, WEDGE))
        for i, name in enumerate(names)
    }
    wrong = [f"{name} ({len(values)})" for name, values in data.items() if len(values) != n]
    if wrong:
        raise ValueError(f"{n} positions were given, but another number of {', '.join(wrong)}")
    return check(pd.DataFrame(data).assign(**columns))


def check(particles: pd.DataFrame) -> pd.DataFrame:
    """The table with the required columns first, in their types, and with rows numbered from 0.

    Raises
    ------
    ValueError
        If a required column is missing, an id is repeated or not a whole number, a number is not finite, a tomogram
        has no name, or tilts are not lowest < highest within ±90°. The message names column, count and first ids.
    """
    missing = [name for name in REQUIRED if name not in particles.columns]
    if missing:
        raise ValueError(
            f"a particle table needs the columns {', '.join(missing)}; this one has {', '.join(map(str, particles.columns))}"
        )
    out = particles[REQUIRED + [name for name in particles.columns if name not in REQUIRED]].reset_index(drop=True)
    out["particle_id"] = _ids(out["particle_id"])
    ids = out["particle_id"].to_numpy()
    repeated = out["particle_id"].duplicated(keep=False).to_numpy()
    if repeated.any():
        raise ValueError(f"column particle_id: {_named(ids, repeated)} an id that another row has too")
    nameless = out["tomogram"].isna().to_numpy() | (out["tomogram"].astype(str) == "").to_numpy()
    if nameless.any():
        raise ValueError(f"column tomogram: {_named(ids, nameless)} no name")
    out["tomogram"] = out["tomogram"].astype(str)
    for name in POSITION + ANGLES + WEDGE:
        numbers = pd.to_numeric(out[name], errors="coerce").astype(float)
        bad = ~np.isfinite(numbers.to_numpy())
        if bad.any():
            raise ValueError(f"column {name}: {_named(ids, bad)} no finite number")
        out[name] = numbers
    low, high = out["tilt_min"].to_numpy(), out["tilt_max"].to_numpy()
    bad = (low >= high) | (low < -90) | (high > 90)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"columns tilt_min, tilt_max: {_named(ids, bad)} tilts that are not lowest < highest within ±90°, "
            f"such as {low[first]:g} to {high[first]:g}"
        )
    return out


def renumber(particles: pd.DataFrame) -> pd.DataFrame:
    """The table with ids 0 to n - 1 in the order of its rows; the old ids go to a column ``original_id``, unless there is one.

    For lists that were merged, or that number the particles of each tomogram from 0.
    """
    old = particles["original_id" if "original_id" in particles else "particle_id"]
    return particles.assign(original_id=old, particle_id=np.arange(len(particles)))


def check_named(names: pd.Series, tomogram: str | None, what: str) -> None:
    """Raise ValueError if a name of the tomogram was given, and the list names others."""
    strange = [] if tomogram is None else sorted(set(names.astype(str)) - {tomogram})
    if strange:
        raise ValueError(
            f"tomogram={tomogram!r} was given, but {what} names {', '.join(map(repr, strange[:5]))}; leave tomogram= out, or "
            "keep the rows of that tomogram only"
        )


def check_apart(particles: pd.DataFrame, length: float) -> None:
    """Warn if all particles of a tomogram lie within a length in Å, but not at one place: their unit may be another."""
    groups = particles.groupby("tomogram", sort=False)[POSITION]
    low, high = groups.min(), groups.max()
    spread = (high - low).max(axis=1)
    close = (spread > 0) & (spread <= length)
    if close.any():
        warnings.warn(
            f"all particles of the tomograms {', '.join(low.index[close][:5])} lie within {length:g} Å of one another. If the "
            "coordinates are fractions of the volume or have another unit than pixels, the positions are wrong",
            stacklevel=3,
        )


def check_extent(particles: pd.DataFrame, extents: np.ndarray | None) -> None:
    """Warn of positions far outside of the tomogram; `extents` (n, 3) are its lengths in Å, zyx, if known.

    Raises
    ------
    ValueError
        If most particles lie outside of lengths that are known.
    """
    places = positions(particles)
    far, where = (places < -BEFORE).any(axis=1), "before the first voxel"
    if extents is not None:
        slack = BEYOND * extents + BEFORE
        far = ((places < -slack) | (places > extents + slack)).any(axis=1)
        where = f"outside of a tomogram of {' x '.join(f'{length:g}' for length in extents[np.argmax(far)])} Å"
    if not far.any():
        return
    first = int(np.argmax(far))
    place = ", ".join(f"{value:g}" for value in places[first])
    found = f"{far.sum()} of {len(places)} particles lie far {where}, first row {first} at {place} Å (z, y, x)"
    if far.mean() > 0.5 and extents is not None:
        raise ValueError(f"{found}; voxel_size= must be the Å per pixel of the coordinates, tomogram_shape= in the same voxels")
    warnings.warn(f"{found}. The unit of the coordinates, or the point from which they count, may be another", stacklevel=3)


def positions(particles: pd.DataFrame) -> np.ndarray:
    """Positions (n, 3) in Å, zyx."""
    return particles[POSITION].to_numpy(dtype=float)


def matrices(particles: pd.DataFrame) -> np.ndarray:
    """Rotations (n, 3, 3) on zyx vectors, reference to tomogram."""
    return rotation_matrices.from_euler(particles[ANGLES].to_numpy(dtype=float))


def geometries(particles: pd.DataFrame) -> np.ndarray:
    """Tilt geometry of each particle, (n, 3) in degrees: `tilt_min`, `tilt_max`, and `tilt_axis`, or 0 without that column.

    Raises
    ------
    ValueError
        If a tilt axis is no finite number.
    """
    axes = pd.to_numeric(particles[AXIS], errors="coerce").to_numpy(dtype=float) if AXIS in particles else 0.0
    out = np.column_stack([particles[WEDGE].to_numpy(dtype=float), np.broadcast_to(axes, len(particles))])
    bad = ~np.isfinite(out[:, 2])
    if bad.any():
        raise ValueError(f"column {AXIS}: {_named(particles['particle_id'].to_numpy(), bad)} no finite number")
    return out


def rows(particles: pd.DataFrame, ids: Any) -> np.ndarray:
    """Row numbers, in the order of `ids`, of the particles with these ids, or where a mask is true (`as_ids`).

    Raises
    ------
    ValueError
        If an id is not in the table or asked for twice, or `as_ids` refuses them.
    """
    index = pd.Index(particles["particle_id"])
    wanted = as_ids(ids, index.to_numpy())
    found = index.get_indexer(wanted)
    if (found < 0).any():
        unknown = wanted[found < 0]
        raise ValueError(
            f"{len(unknown)} of {len(wanted)} particle ids are not in this table of {len(index)}: {_first(unknown)}"
        )
    if not pd.Index(wanted).is_unique:
        values, counts = np.unique(wanted, return_counts=True)
        raise ValueError(f"{(counts > 1).sum()} particle ids are asked for more than once: {_first(values[counts > 1])}")
    return found


def as_ids(given: Any, known: np.ndarray) -> np.ndarray:
    """Particle ids (m,), int64: the given ones, or those of the particles where a mask is true.

    Parameters
    ----------
    given
        Whole numbers; or a mask: booleans in the order of `known`, or a Series of booleans with the index ``particle_id``.
    known
        Ids of all particles (n,).

    Raises
    ------
    ValueError
        If the mask does not have one value for each particle, or values are neither whole numbers nor a mask.
    """
    if isinstance(given, pd.Series) and given.dtype == bool and given.index.name == "particle_id":
        return given.index[given].to_numpy(dtype=np.int64)
    values = given if hasattr(given, "__array__") or not np.iterable(given) else list(given)
    found = np.asarray(values).reshape(-1)
    mixed = isinstance(values, list) and any(isinstance(one, bool | np.bool_) for one in values)
    if found.dtype.kind == "b" and len(found) == len(known):
        return np.asarray(known)[found]
    if found.dtype.kind == "b":
        raise ValueError(f"a mask has one boolean for each of the {len(known)} particles, got {len(found)}")
    if mixed or (found.size and found.dtype.kind not in "iu"):
        what = "booleans among numbers" if mixed else f"values of type {found.dtype}"
        raise ValueError(f"particle ids are whole numbers, or a mask of one boolean for each particle, got {what}")
    return found.astype(np.int64, copy=False)


def _ids(column: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    bad = ~np.isfinite(numbers) | (numbers != np.round(numbers)) | (np.abs(numbers) >= 2.0**63)
    if bad.any():
        raise ValueError(
            f"column particle_id: {bad.sum()} of {len(column)} are not whole numbers: {_first(column.to_numpy()[bad])}"
        )
    return column.to_numpy().astype(np.int64)


def _rows(values: Any, name: str, width: int) -> np.ndarray:
    """Give the values as a float array (n, width)."""
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        array = array.reshape(0, width)
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{name}: expected shape (n, {width}), got {array.shape}")
    return array


def _named(ids: np.ndarray, bad: np.ndarray) -> str:
    return f"{bad.sum()} of {len(ids)} particles (particle_id {_first(ids[bad])}) have"


def _first(values: np.ndarray, count: int = 5) -> str:
    """List the first few values as text."""
    return ", ".join(str(value) for value in values[:count]) + (", …" if len(values) > count else "")
