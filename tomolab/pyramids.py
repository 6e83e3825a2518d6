"""Pyramids: what the metadata of OME-Zarr say of the levels of a tomogram, and which level is meant.

The format is that of ngff.openmicroscopy.org, versions 0.4 and 0.5: ``multiscales`` names axes with their units and, for each
level, a scale and perhaps a translation, which apply to the index of a voxel in this order, those of the whole pyramid after.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

UNITS = {"angstrom": 1.0, "ångström": 1.0, "å": 1.0, "nanometer": 10.0, "nm": 10.0, "picometer": 0.01, "micrometer": 1e4}
"""Å of the units that tomograms come in."""
TOLERANCE = 0.01
"""Relative difference up to which two voxel sizes are taken to be the same."""
MOST = 64
"""Levels of a pyramid."""


@dataclass(frozen=True)
class Level:
    """A level: where its array is, Å per voxel, and the centre of its voxel 0 (zyx, Å), None where it is not told.

    Before `sized` the voxel size is that of the file, along z, y, x, and `unit` its Å, None if there is no unit.
    """

    path: str
    scale: tuple[float, ...]
    place: tuple[float, ...] | None = None
    unit: float | None = None

    @property
    def voxel_size(self) -> float:
        """Å, after `sized`."""
        return self.scale[0]


def levels(version: int, attributes: dict[str, Any] | None, *, name: str) -> tuple[Any, list[Level]]:
    """Levels of a group, from the finest on, as they are told; a plain array is one level of unknown size.

    Parameters
    ----------
    version
        Format of Zarr; given back.
    attributes
        Of the group, or None for an array.
    name
        For messages.

    Raises
    ------
    ValueError
        If these are no multiscales of version 0.4 or 0.5 with axes z, y, x and perhaps a channel and a time before them.
    """
    if attributes is None:
        return version, [Level("", (1.0, 1.0, 1.0))]
    try:
        return version, _levels(attributes)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{name}: its metadata are no OME-Zarr of version 0.4 or 0.5 ({error!r})") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _levels(attributes: dict[str, Any]) -> list[Level]:
    ome = attributes.get("ome", attributes)
    if not ome.get("multiscales"):
        raise ValueError("it is a group of Zarr without multiscales, so no tomogram of OME-Zarr; give the array in it")
    several = ome["multiscales"]
    first = several[0]
    version = str(ome.get("version", first.get("version", "0.4")))
    if version not in ("0.4", "0.5"):
        raise ValueError(f"it is OME-Zarr of version {version[:20]}; versions 0.4 and 0.5 can be read")
    axes = [str(axis["name"]).lower() for axis in first["axes"]]
    if axes[-3:] != ["z", "y", "x"] or not set(axes[:-3]) <= {"c", "t"} or len(set(axes)) != len(axes):
        raise ValueError(f"its axes are {', '.join(axes)[:80]}, expected z, y, x, with c and t before them if any")
    found = []
    if not 1 <= len(first["datasets"]) <= MOST:
        raise ValueError(f"it has {len(first['datasets'])} levels, expected 1 to {MOST}")
    unit = _unit([axis.get("unit") for axis in first["axes"][-3:]])
    for entry in first["datasets"]:
        scale, move = _transform(entry["coordinateTransformations"], len(axes))
        above, beyond = _transform(first.get("coordinateTransformations") or [], len(axes))
        told = None if move is None and beyond is None else np.nan_to_num(move if move is not None else 0.0) * above
        if told is not None and beyond is not None:
            told = told + beyond
        whole = (scale * above)[-3:]
        if not np.isfinite(whole).all() or (whole <= 0).any():
            raise ValueError(f"level {entry['path']!r} has the scale {whole.tolist()}, expected positive numbers")
        place = None if told is None else tuple(float(one) for one in np.broadcast_to(told, len(axes))[-3:])
        found.append(Level(_path(entry["path"]), tuple(whole.tolist()), place, unit))
    return sorted(found, key=lambda level: level.scale)


def _path(text: Any) -> str:
    parts = str(text).split("/")
    if not isinstance(text, str) or not text or any(part in ("", ".", "..") for part in parts) or set(text) & set("\\?#:\0"):
        raise ValueError(f"a level is called {str(text)[:80]!r}, which must name an array in the group")
    return text


def _unit(units: list[Any]) -> float | None:
    kinds = {None if unit is None else str(unit).lower() for unit in units}
    if kinds == {None} or kinds == {""}:
        return None
    (kind,) = kinds if len(kinds) == 1 else (None,)
    if kind not in UNITS:
        raise ValueError(f"its axes are in {', '.join(map(str, units))}, expected one of {', '.join(UNITS)} for all")
    return UNITS[kind]


def _transform(entries: list[dict[str, Any]], axes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and translation, None where there is none."""
    scale, move = np.ones(axes), None
    for entry in entries:
        kind = entry["type"]
        if kind == "identity":
            continue
        if kind not in ("scale", "translation") or kind not in entry:
            raise ValueError(f"a transformation of kind {str(kind)[:40]!r} is not read, expected scale and translation")
        values = np.asarray(entry[kind], dtype=float)
        if values.shape != (axes,) or not np.isfinite(values).all():
            raise ValueError(f"a {kind} needs {axes} finite numbers, got {str(entry[kind])[:80]}")
        if kind == "scale" and move is not None:
            raise ValueError("a scale after a translation is not read")
        scale, move = (scale * values, move) if kind == "scale" else (scale, values if move is None else move + values)
    return scale, move


def sized(found: list[Level], voxel_size: float | None, *, name: str) -> list[Level]:
    """Levels with their voxel size and places in Å, after the file and the user are found to agree.

    Parameters
    ----------
    found
        From `levels`.
    voxel_size
        Å of the finest level that the user states; needed where there is no unit.
    name
        For messages.

    Raises
    ------
    ValueError
        If it is unknown, not the same along the axes, or unlike the one stated.
    """
    if voxel_size is not None and not (np.isfinite(voxel_size) and voxel_size > 0):
        raise ValueError(f"voxel_size must be a positive number of Å, got {voxel_size}")
    finest = np.array(found[0].scale)
    unit = found[0].unit
    if np.ptp(finest) > TOLERANCE / 2 * finest.mean():
        raise ValueError(f"{name}: its voxels measure {_told(finest)} along z, y, x, not the same along all axes")
    if unit is None and voxel_size is None:
        raise ValueError(f"{name}: its scale of {finest[0]:g} has no unit of length; give voxel_size= in Å")
    if unit is not None and voxel_size is not None and (np.abs(finest * unit / voxel_size - 1) > TOLERANCE).any():
        sizes = ", ".join(f"{level.scale[0] * unit:.4g}" for level in found)
        raise ValueError(
            f"{name}: its levels have {sizes} Å per voxel, but voxel_size={voxel_size:g} was given for the finest; "
            "near= takes another"
        )
    size = voxel_size if voxel_size is not None else float(finest[0]) * (unit or 1.0)
    out = []
    for level in found:
        # In this order, so that the finest level has just the size that was stated.
        scale = np.array(level.scale) / finest[0] * size
        if np.ptp(scale) > TOLERANCE / 2 * scale.mean():
            # Levels that are coarser along some axes only, as microscopists of light make them.
            continue
        place = None if level.place is None else tuple(float(one) for one in np.array(level.place) / finest[0] * size)
        out.append(replace(level, scale=(float(scale[0]),) * 3, place=place))
    return out


def _told(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def choose(found: list[Level], near: float | None) -> int:
    """Number of the coarsest level that is not coarser than `near` Å, else of the finest; ValueError if it is not positive."""
    if near is None:
        return 0
    if not (np.isfinite(near) and near > 0):
        raise ValueError(f"near must be a positive number of Å, got {near}")
    return max((i for i, level in enumerate(found) if level.voxel_size <= near * (1 + TOLERANCE)), default=0)


def origin(found: list[Level], chosen: int, *, averaged: bool | None) -> tuple[tuple[float, float, float], float]:
    """Where voxel 0 of a level lies, from that of the finest, and how many Å it may be wrong, 0 where it is known.

    Parameters
    ----------
    found
        From `sized`.
    chosen
        Number of the level.
    averaged
        Whether its voxels are averages of blocks, where the file does not tell.

    Raises
    ------
    ValueError
        If it lies a voxel or more away: then the levels do not show the same.
    """
    finest, level = found[0], found[chosen]
    told = finest.place is not None or level.place is not None
    away = np.subtract(level.place or (0.0,) * 3, finest.place or (0.0,) * 3) if told else np.zeros(3)
    inside = (level.voxel_size - finest.voxel_size) / 2
    unknown = 0.0
    if chosen and not away.any():
        away = np.full(3, inside if averaged else 0.0)
        unknown = inside if averaged is None else 0.0
    if (np.abs(away) >= level.voxel_size).any():
        raise ValueError(
            f"level {level.path!r} begins {_told(away)} Å (z, y, x) from the finest level, a voxel of {level.voxel_size:g} Å "
            "or more; it does not show the same"
        )
    return (float(away[0]), float(away[1]), float(away[2])), unknown


def averages(data: np.ndarray) -> np.ndarray:
    """A level of half the size: averages of blocks of 2 voxels along each axis (z, y, x); an odd last voxel is left out."""
    z, y, x = (n // 2 for n in data.shape)
    return data[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5), dtype=np.float32)


def metadata(version: str, voxel_size: float, *, count: int, name: str) -> dict[str, Any]:
    """Attributes of a group whose levels were made by `averages`.

    Parameters
    ----------
    version
        "0.4" or "0.5".
    voxel_size
        Å of the finest level.
    count
        Number of levels, named 0, 1, …
    name
        Of the image.
    """
    datasets = [
        {
            "path": str(n),
            "coordinateTransformations": [
                {"type": "scale", "scale": [voxel_size * 2**n] * 3},
                {"type": "translation", "translation": [voxel_size * (2**n - 1) / 2] * 3},
            ],
        }
        for n in range(count)
    ]
    scales = {
        "name": name,
        "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
        "datasets": datasets,
        "type": "mean",
    }
    if version == "0.4":
        return {"multiscales": [{"version": "0.4", **scales}]}
    return {"ome": {"version": "0.5", "multiscales": [scales]}}
