"""Takes the metadata of an OME-Zarr group, gives its levels with voxel sizes and positions, and chooses one; makes metadata.

Versions 0.4 and 0.5 of ngff.openmicroscopy.org: ``multiscales`` names the axes with their units and, for each level, a scale
and an optional translation. They apply to the voxel index in this order, then those of the whole pyramid.
"""

from dataclasses import dataclass, replace
from typing import Any
from warnings import warn

import numpy as np

UNITS = {"angstrom": 1.0, "ångström": 1.0, "å": 1.0, "nanometer": 10.0, "nm": 10.0, "picometer": 0.01, "micrometer": 1e4}
UNITS |= {"femtometer": 1e-5, "millimeter": 1e7, "centimeter": 1e8, "meter": 1e10}
"""Å of the units of length."""
SPACE = ("z", "y", "x")
OTHER_AXES = {"c": "channel", "t": "time"}
"""Axes of which one index is read, and the parameter that chooses it."""
TOLERANCE = 0.01
"""Relative difference up to which two voxel sizes count as equal."""
PLAUSIBLE = (0.1, 1000.0)
"""Å per voxel of tomograms and maps. Outside this range the unit is wrong, such as a default scale of 1 micrometer."""
MOST = 64
"""Largest number of levels."""


@dataclass(frozen=True)
class Level:
    """Path of an array, Å per voxel, and the centre of its voxel 0 (zyx, Å), None where the file does not state it.

    Before `sized`, scale and place are those of the file along z, y, x, in its `units`. `axes` are the axis names of the array
    in its order, None where the file does not name them.
    """

    path: str
    scale: tuple[float, ...]
    place: tuple[float, ...] | None = None
    units: tuple[str | None, ...] = (None, None, None)
    axes: tuple[str, ...] | None = None

    @property
    def voxel_size(self) -> float:
        """Å, after `sized`."""
        return self.scale[0]


def levels(attributes: dict[str, Any] | None, *, name: str, axes: tuple[str, ...] | None = None) -> list[Level]:
    """Levels of a group, finest first, in the units of the file; a plain array is one level of unknown voxel size.

    Parameters
    ----------
    attributes
        Attributes of the group, or None for an array.
    name
        For messages.
    axes
        Axis names from the user; required where multiscales do not name them.

    Raises
    ------
    ValueError
        If these are no multiscales of version 0.4 or 0.5 with axes z, y, x and optionally c and t, in any order, or `axes`
        differs from them.
    """
    if attributes is None:
        return [Level("", (1.0, 1.0, 1.0), axes=axes)]
    try:
        return _levels(attributes, axes)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{name}: its metadata are no OME-Zarr of version 0.4 or 0.5 ({error!r})") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _levels(attributes: dict[str, Any], stated: tuple[str, ...] | None) -> list[Level]:
    ome = attributes.get("ome", attributes)
    if not ome.get("multiscales"):
        raise ValueError("it is a group of Zarr without multiscales, so no tomogram of OME-Zarr; give the array in it")
    several = ome["multiscales"]
    first = several[0]
    if len(several) > 1:
        warn(f"there are {len(several)} images in it (multiscales); the first is taken, as the format says", stacklevel=5)
    version = str(ome.get("version", first.get("version", "0.4")))
    if version not in ("0.4", "0.5"):
        raise ValueError(f"it is OME-Zarr of version {version[:20]}; versions 0.4 and 0.5 can be read")
    named = first.get("axes")
    axes = agreed(None if named is None else _axes([_letter(one) for one in named]), stated)
    if axes is None:
        raise ValueError("its multiscales name no axes; say what they are, such as axes='zyx'")
    places = [axes.index(axis) for axis in SPACE]
    units: tuple[Any, ...] = (None,) * 3
    if named is not None:
        units = tuple(named[n].get("unit") if isinstance(named[n], dict) else None for n in places)
    found = []
    if not 1 <= len(first["datasets"]) <= MOST:
        raise ValueError(f"it has {len(first['datasets'])} levels, expected 1 to {MOST}")
    for entry in first["datasets"]:
        scale, place = _placed(entry, first.get("coordinateTransformations") or [], len(axes))
        zyx = scale[places]
        if not np.isfinite(zyx).all() or (zyx <= 0).any():
            raise ValueError(f"level {entry['path']!r} has the scale {zyx.tolist()}, expected positive numbers")
        first_voxel = None if place is None else tuple(place[places].tolist())
        found.append(Level(_path(entry["path"]), tuple(zyx.tolist()), first_voxel, units, axes))
    return sorted(found, key=lambda level: level.scale)


def _placed(entry: dict[str, Any], whole: list[dict[str, Any]], count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale of a level and the centre of its voxel 0 (None if not stated), along all axes of the file."""
    scale, move = _transform(entry["coordinateTransformations"], count)
    above, beyond = _transform(whole, count)
    if move is None and beyond is None:
        return scale * above, None
    place = np.broadcast_to(np.nan_to_num(move if move is not None else 0.0) * above, count)
    return scale * above, place if beyond is None else place + beyond


def stated_axes(text: str | None) -> tuple[str, ...] | None:
    """Axes from letters such as "zyx" or "czyx"; ValueError unless they are z, y, x and optionally c, t."""
    if text is None:
        return None
    if not isinstance(text, str) or not _complete(list(text.lower())):
        raise ValueError(
            f"axes must name z, y, x, and c and t if there are any, by a letter each, such as 'czyx', got {text!r}"
        )
    return tuple(text.lower())


def dimension_names(values: Any, *, needed: bool) -> tuple[str, ...] | None:
    """Axes of an array from its ``dimension_names`` or ``_ARRAY_DIMENSIONS``; None if no name is known, such as "dim_0".

    Parameters
    ----------
    values
        Value in the metadata.
    needed
        True if nothing else names the axes.

    Raises
    ------
    ValueError
        If they are needed, and only some are known or one occurs twice.
    """
    names = [_letter(one) for one in values] if isinstance(values, list) else []
    if not (set(names) & {*SPACE, *OTHER_AXES} if needed else _complete(names)):
        return None
    return _axes(names)


def agreed(named: tuple[str, ...] | None, stated: tuple[str, ...] | None, *, who: str = "axes= was given as") -> Any:
    """The axes that two sources name, or those of one where the other names none; ValueError if they differ."""
    if named is not None and stated is not None and named != stated:
        raise ValueError(f"its axes are {', '.join(named)}, but {who} {', '.join(stated)}")
    return named if stated is None else stated


def _letter(axis: Any) -> str:
    """Letter of an axis by its name, else by its type; the name itself where both are unknown."""
    name, axis_type = (axis.get("name"), axis.get("type")) if isinstance(axis, dict) else (axis, None)
    name = str(name).lower()
    letters = {word: letter for letter, word in OTHER_AXES.items()}
    if name in SPACE or name in OTHER_AXES:
        return name
    return letters.get(name) or letters.get(str(axis_type).lower()) or name


def _axes(names: list[str]) -> tuple[str, ...]:
    if not _complete(names):
        found = ", ".join(names)[:80]
        raise ValueError(f"its axes are {found}, expected z, y, x, with c and t beside them if any, in any order")
    return tuple(names)


def _complete(names: list[str]) -> bool:
    return set(names) - set(OTHER_AXES) == set(SPACE) and len(set(names)) == len(names)


def _path(text: Any) -> str:
    names = str(text).split("/")
    if not isinstance(text, str) or not text or any(name in ("", ".", "..") for name in names) or set(text) & set("\\?#:\0"):
        raise ValueError(f"a level has the path {str(text)[:80]!r}, which must name an array in the group")
    return text


def _transform(entries: list[dict[str, Any]], axes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale, and translation or None."""
    scale, move = np.ones(axes), None
    for entry in entries:
        name = entry["type"]
        if name == "identity":
            continue
        if name not in ("scale", "translation") or name not in entry:
            raise ValueError(f"a transformation of type {str(name)[:40]!r} is not read, expected scale and translation")
        values = np.asarray(entry[name], dtype=float)
        if values.shape != (axes,) or not np.isfinite(values).all():
            raise ValueError(f"a {name} needs {axes} finite numbers, got {str(entry[name])[:80]}")
        if name == "scale" and move is not None:
            raise ValueError("a scale after a translation is not read")
        scale, move = (scale * values, move) if name == "scale" else (scale, values if move is None else move + values)
    return scale, move


def sized(found: list[Level], voxel_size: float | None, *, name: str) -> list[Level]:
    """Levels with voxel size and positions in Å, on which the file and the user must agree; only levels of cubic voxels.

    Parameters
    ----------
    found
        From `levels`.
    voxel_size
        Å of the finest level, from the user; required where the file states no unit.
    name
        For messages.

    Raises
    ------
    ValueError
        If the voxel size is unknown, differs between the axes, or differs from `voxel_size`.
    """
    if voxel_size is not None and not (np.isfinite(voxel_size) and voxel_size > 0):
        raise ValueError(f"voxel_size must be a positive number of Å, got {voxel_size}")
    finest = np.array(found[0].scale)
    units = [None if unit in (None, "") else str(unit).lower() for unit in found[0].units]
    factors = np.array([UNITS.get(unit, np.nan) if unit else np.nan for unit in units])
    low, high = PLAUSIBLE
    factors[~((finest * factors >= low) & (finest * factors <= high))] = np.nan
    known = np.isfinite(factors)
    if known.all() or len(set(units)) == 1:
        measured = finest * (factors if known.all() else 1.0)
        if np.ptp(measured) > TOLERANCE / 2 * measured.mean():
            raise ValueError(f"{name}: its voxels measure {_product(finest)} along z, y, x, not the same along all axes")
    if voxel_size is None:
        _check_units(found[0], known, name=name)
    elif (np.abs(finest * factors / voxel_size - 1)[known] > TOLERANCE).any():
        at = int(np.flatnonzero(known)[0])
        sizes = ", ".join(f"{level.scale[at] * factors[at]:.4g}" for level in found)
        raise ValueError(
            f"{name}: its levels have {sizes} Å per voxel, but voxel_size={voxel_size:g} was given for the finest; "
            "near= takes another"
        )
    size = voxel_size if voxel_size is not None else float(finest[0] * factors[0])
    out = []
    for level in found:
        # In this order the finest level has exactly the stated size.
        scale = np.array(level.scale) / finest * size
        if np.ptp(scale) > TOLERANCE / 2 * scale.mean():
            # Light microscopy has levels that are coarser along some axes only.
            continue
        place = None if level.place is None else tuple(float(one) for one in np.array(level.place) / finest * size)
        out.append(replace(level, scale=(float(scale[0]),) * 3, place=place))
    return out


def _check_units(finest: Level, known: np.ndarray, *, name: str) -> None:
    """Raise ValueError if an axis has no known unit."""
    if known.all():
        return
    if not any(finest.units):
        raise ValueError(f"{name}: its scale of {finest.scale[0]:g} has no unit of length; give voxel_size= in Å")
    sizes = ", ".join(f"{scale:g} {unit}" for scale, unit in zip(finest.scale, finest.units, strict=True))[:120]
    raise ValueError(
        f"{name}: its voxels measure {sizes} (z, y, x), expected {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} Å, "
        f"in {', '.join(UNITS)}; give voxel_size= in Å"
    )


def _product(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def choose(found: list[Level], near: float | None) -> int:
    """Index of the coarsest level with voxels of at most `near` Å, else 0; ValueError if `near` is not positive."""
    if near is None:
        return 0
    if not (np.isfinite(near) and near > 0):
        raise ValueError(f"near must be a positive number of Å, got {near}")
    return max((i for i, level in enumerate(found) if level.voxel_size <= near * (1 + TOLERANCE)), default=0)


def origin(found: list[Level], chosen: int, *, averaged: bool | None) -> tuple[tuple[float, float, float], float]:
    """Offset (zyx, Å) of voxel 0 of a level from that of the finest, and its possible error in Å (0 where the file states it).

    Parameters
    ----------
    found
        From `sized`.
    chosen
        Index of the level.
    averaged
        Whether its voxels are averages of blocks, where the file does not state it.

    Raises
    ------
    ValueError
        If the offset is a voxel or more, or contradicts `averaged`.
    """
    finest, level = found[0], found[chosen]
    stated = finest.place is not None or level.place is not None
    away = np.subtract(level.place or (0.0,) * 3, finest.place or (0.0,) * 3) if stated else np.zeros(3)
    inside = (level.voxel_size - finest.voxel_size) / 2
    unknown = 0.0
    if chosen and not away.any():
        away = np.full(3, inside if averaged else 0.0)
        unknown = inside if averaged is None else 0.0
    elif (
        chosen and averaged is not None and (np.abs(away - (inside if averaged else 0.0)) > TOLERANCE * level.voxel_size).any()
    ):
        raise ValueError(
            f"the file says that level {level.path!r} begins {_product(away)} Å (z, y, x) from the finest level, but "
            f"averaged={averaged} was given; leave it out"
        )
    if (np.abs(away) >= level.voxel_size).any():
        raise ValueError(
            f"level {level.path!r} begins {_product(away)} Å (z, y, x) from the finest level, a voxel of "
            f"{level.voxel_size:g} Å or more; it does not show the same"
        )
    return (float(away[0]), float(away[1]), float(away[2])), unknown


def metadata(version: str, voxel_size: float, *, count: int, name: str) -> dict[str, Any]:
    """Attributes of a group in which each voxel of a level is the mean of eight voxels of the finer level.

    Parameters
    ----------
    version
        "0.4" or "0.5".
    voxel_size
        Å of the finest level.
    count
        Number of levels, named 0, 1, …
    name
        Name of the image.
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
