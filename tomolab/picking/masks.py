"""Masks: where to pick and where not. Bool arrays of the shape of a volume, put together by ``&``, ``|`` and ``~``.

>>> ice = find_slab(tomogram).mask(tomogram)
>>> gold = beads(tomogram)
>>> wall = near(membranes.membranes(tomogram), 200.0, voxel_size=tomogram.voxel_size)
>>> picks = picking.difference_of_gaussians(tomogram, diameter=250.0, within=ice & cell(tomogram), exclude=gold | wall)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.draw import polygon2mask
from skimage.filters import threshold_otsu

from tomolab import io, volumes
from tomolab.volumes import Volume

PATCHES = 8
"""Patches along y and x in each of which `find_slab` looks for the faces of the ice."""
CONTRAST = 1.5
"""Variance in the ice over that outside, at least, for a patch to tell where its faces are."""
TRUST = 3.0
"""Patches farther from the plane through all than this many median distances are left out of it."""


@dataclass(frozen=True)
class Slab:
    """Ice between two planes, which need be neither parallel nor level.

    Parameters
    ----------
    low, high
        Of each plane: its height z in Å at y = x = 0, and its slopes dz/dy and dz/dx.

    Raises
    ------
    ValueError
        If these are not three finite numbers each.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            plane = tuple(float(value) for value in getattr(self, name))
            if len(plane) != 3 or not np.isfinite(plane).all():
                raise ValueError(f"{name}: a plane is its height at y = x = 0 and two slopes, got {getattr(self, name)}")
            object.__setattr__(self, name, plane)

    def mask(self, volume: Volume) -> np.ndarray:
        """True between the planes; bool, of the shape of the volume."""
        z, y, x = (np.arange(n) * volume.voxel_size for n in volume.shape)
        low, high = (plane[0] + plane[1] * y[:, None] + plane[2] * x for plane in (self.low, self.high))
        return (z[:, None, None] >= low) & (z[:, None, None] <= high)

    def thickness(self, volume: Volume) -> float:
        """Å between the planes in the middle of a volume."""
        _, y, x = volume.extent / 2
        return float(np.dot(np.subtract(self.high, self.low), (1, y, x)))


def slab(low: float, high: float) -> Slab:
    """Level ice between two heights in Å.

    Raises
    ------
    ValueError
        If the second is not above the first.
    """
    if not low < high:
        raise ValueError(f"the ice goes from low to high, got {low:g} to {high:g} Å")
    return Slab((low, 0.0, 0.0), (high, 0.0, 0.0))


def find_slab(volume: Volume, *, detail: float = 100.0, level: float = 0.3) -> Slab:
    """Find the ice by what is in it: above and below it a tomogram is smooth, but for noise, which is fine.

    In every patch of the field of view, the variance of what is about as large as `detail` is followed along z; a face of the
    ice is where it crosses `level` between its lowest and its typical high value, and a plane is laid through each face. So
    the planes enclose what is in the ice; of ice that holds nothing they know nothing.

    Parameters
    ----------
    volume
        Tomogram that is thicker than its ice.
    detail
        Å: between Gaussians of half of it and of one and a half.
    level
        Share of the way from the variance outside to that inside.

    Raises
    ------
    ValueError
        If the variance does not fall off towards both faces of the volume.
    """
    if not (detail > 0 and 0 < level < 1):
        raise ValueError(f"detail must be positive and level between 0 and 1, got {detail:g} Å and {level:g}")
    profiles, centres = _profiles(volume, detail)
    faces: list[tuple[float, float]] = []
    for profile in profiles:
        # The highest third is inside whatever lies there: gold and a few dense things must not raise it.
        outside, inside = profile.min(), np.median(np.sort(profile)[-max(1, len(profile) // 3) :])
        above = np.flatnonzero(profile > outside + level * (inside - outside))
        seen = inside > CONTRAST * outside and above[0] > 0 and above[-1] < len(profile) - 1
        faces.append((above[0], above[-1]) if seen else (np.nan, np.nan))
    heights = np.array(faces, dtype=float) * volume.voxel_size
    good = np.isfinite(heights).all(axis=1)
    known = int(np.count_nonzero(good))
    if known < max(3, good.size // 4):
        raise ValueError(
            f"no ice was found: only in {known} of {good.size} patches does the detail fall off above and below; "
            f"give its faces to slab(), or use a thicker tomogram"
        )
    low, high = (_plane(centres[good], heights[good, side]) for side in (0, 1))
    return Slab(low, high)


def _profiles(volume: Volume, detail: float) -> tuple[np.ndarray, np.ndarray]:
    """Variance along z in every patch, (patches, z); and the y, x in Å of their centres."""
    sigma = max(detail / 2 / volume.voxel_size, 0.5)
    band = gaussian_filter(volume.data, sigma, truncate=3) - gaussian_filter(volume.data, 3 * sigma, truncate=3)
    # Clipped, or a bead would be all of the variance of its patch.
    fine = volumes.clip(torch.from_numpy(band), 4.0).numpy() ** 2
    rows, columns = (np.array_split(np.arange(n), min(PATCHES, n)) for n in volume.shape[1:])
    patches = [(one, other) for one in rows for other in columns]
    profiles = [fine[:, one[0] : one[-1] + 1, other[0] : other[-1] + 1].mean((1, 2)) for one, other in patches]
    centres = [(one.mean() * volume.voxel_size, other.mean() * volume.voxel_size) for one, other in patches]
    return ndimage.gaussian_filter1d(np.stack(profiles), sigma, axis=1), np.array(centres)


def _plane(places: np.ndarray, heights: np.ndarray) -> tuple[float, float, float]:
    """Height and slopes of the plane through most of these heights."""
    design = np.column_stack([np.ones(len(places)), places])
    kept = np.ones(len(places), dtype=bool)
    for _ in range(5):
        plane = np.linalg.lstsq(design[kept], heights[kept], rcond=None)[0]
        off = np.abs(heights - design @ plane)
        near = off <= TRUST * max(float(np.median(off)), 1e-9)
        if near.sum() < 4 or (near == kept).all():
            break
        kept = near
    return float(plane[0]), float(plane[1]), float(plane[2])


def cell(volume: Volume, *, detail: float = 400.0, threshold: float | None = None) -> np.ndarray:
    """Find the inside of a cell: the largest part that is dense at a coarse resolution, without holes.

    Parameters
    ----------
    volume
        Tomogram, bright on dark, with the cell and something around it.
    detail
        Å; finer density is smoothed away.
    threshold
        Density, after smoothing, from which on it is cell; by default what parts cell and surroundings best (Otsu 1979).
        The outline runs where the smoothed density crosses it; look at it.

    Returns
    -------
    ndarray
        Bool, of the shape of the volume.

    Raises
    ------
    ValueError
        If `detail` is not positive, or nothing is that dense.
    """
    if not detail > 0:
        raise ValueError(f"detail must be positive, got {detail:g} Å")
    calm = volumes.clip(torch.from_numpy(volume.data), 4.0).numpy()
    smooth = gaussian_filter(calm, detail / 4 / volume.voxel_size, truncate=3)
    level = float(threshold_otsu(smooth)) if threshold is None else threshold
    parts, count = ndimage.label(smooth > level)
    if count == 0:
        raise ValueError(f"nothing is denser than {level:g}; the smoothed density ends at {float(smooth.max()):g}")
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    # Slice by slice, since a cell that is cut by the faces of the volume encloses nothing in three dimensions.
    return np.stack([ndimage.binary_fill_holes(layer) for layer in largest])


def outlined(volume: Volume, outlines: Mapping[float, ArrayLike]) -> np.ndarray:
    """Inside of outlines drawn on some slices; between two of them they turn into each other.

    Parameters
    ----------
    volume
        The tomogram.
    outlines
        By height z in Å: corners (n, 2), y and x in Å, of a polygon.

    Returns
    -------
    ndarray
        Bool, of the shape of the volume; nothing below the lowest outline and above the highest.

    Raises
    ------
    ValueError
        If there is no outline, one has fewer than three corners, or is outside the volume.
    """
    if not outlines:
        raise ValueError("there are no outlines")
    layers = {}
    for z in sorted(outlines):
        corners = np.asarray(outlines[z], dtype=float)
        layer = round(z / volume.voxel_size)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
            raise ValueError(f"the outline at z = {z:g} Å needs corners (n, 2) with n of 3 or more, got shape {corners.shape}")
        if not 0 <= layer < volume.shape[0]:
            raise ValueError(f"z = {z:g} Å is outside the volume, which is {volume.extent[0]:g} Å high")
        layers[layer] = _signed(polygon2mask(volume.shape[1:], corners / volume.voxel_size))
    out = np.zeros(volume.shape, dtype=bool)
    known = sorted(layers)
    for layer in range(known[0], known[-1] + 1):
        after = int(np.searchsorted(known, layer))
        low, high = known[max(after - 1, 0)], known[after]
        share = 0.0 if high == low else (layer - low) / (high - low)
        out[layer] = (1 - share) * layers[low] + share * layers[high] > 0
    return out


def _signed(inside: np.ndarray) -> np.ndarray:
    """Pixels to the border of a mask, positive inside."""
    away = distance_transform_edt(inside) - distance_transform_edt(~inside)
    # Without an inside or an outside there is no border to be away from.
    return away if inside.any() and not inside.all() else np.where(inside, 1.0, -1.0) * sum(inside.shape)


def read(path: str | Path, *, like: Volume, threshold: float = 0.5) -> np.ndarray:
    """Read a mask or a segmentation that another program made.

    Parameters
    ----------
    path
        A volume that `io.read_volume` reads.
    like
        The tomogram that it belongs to.
    threshold
        What is above is True.

    Raises
    ------
    ValueError
        If it has another shape than the tomogram, or nothing or everything is above the threshold.
    """
    found = io.read_volume(path, voxel_size=like.voxel_size)
    if found.shape != like.shape:
        raise ValueError(f"{path} has {found.shape} voxels, but the tomogram {like.shape}")
    mask = found.data > threshold
    if mask.all() or not mask.any():
        raise ValueError(f"{path}: {'all' if mask.all() else 'no'} voxels are above {threshold:g}")
    return mask


def near(mask: np.ndarray, distance: float, *, voxel_size: float) -> np.ndarray:
    """True within `distance` Å of what the mask holds.

    Raises
    ------
    ValueError
        If the distance is negative or the voxel size not positive.
    """
    if not (distance >= 0 and voxel_size > 0):
        raise ValueError(f"distance must not be negative and voxel_size positive, got {distance:g} and {voxel_size:g} Å")
    return distance_transform_edt(~mask) * voxel_size <= distance if mask.any() else np.zeros(mask.shape, dtype=bool)


def inner(volume: Volume, margin: float | Sequence[float]) -> np.ndarray:
    """True at least `margin` Å from every face of the volume; or from those across z, y and x.

    Raises
    ------
    ValueError
        If a margin is negative.
    """
    margins = np.broadcast_to(np.asarray(margin, dtype=float), 3)
    if not (margins >= 0).all():
        raise ValueError(f"margin must not be negative, got {margin} Å")
    out = np.zeros(volume.shape, dtype=bool)
    low = np.ceil(margins / volume.voxel_size).astype(int)
    out[tuple(slice(int(a), max(int(a), n - int(a))) for a, n in zip(low, volume.shape, strict=True))] = True
    return out


def beads(volume: Volume, *, diameter: float = 100.0, deviations: float = 8.0) -> np.ndarray:
    """Find gold beads and what is brightest of their streaks.

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    diameter
        Å, of the beads.
    deviations
        How far beyond the mean the tomogram, smoothed to beads, is taken to be gold. In standard deviations after these very
        outliers are clipped. Ribosomes reach 4 to 5.

    Returns
    -------
    ndarray
        Bool, of the shape of the volume, True within one bead's diameter of gold.

    Raises
    ------
    ValueError
        If `diameter` or `deviations` is not positive.
    """
    if not (diameter > 0 and deviations > 0):
        raise ValueError(f"diameter and deviations must be positive, got {diameter:g} Å and {deviations:g}")
    smooth = gaussian_filter(volume.data, diameter / volume.voxel_size / (2 * np.sqrt(3)), truncate=3)
    calm = volumes.clip(torch.from_numpy(smooth), deviations / 2)
    gold = np.abs(smooth - float(calm.mean())) > deviations * float(calm.std())
    return near(gold, diameter, voxel_size=volume.voxel_size)


def streaks(mask: np.ndarray, *, tilts: tuple[float, float], length: float, voxel_size: float) -> np.ndarray:
    """Add to a mask of gold the streaks that it leaves along the edges of the missing wedge.

    Back-projections cancel each other but where the next tilt is missing: along the beams of the lowest and highest tilt,
    which at a tilt t run along (z, x) = (cos t, -sin t), as x cos t + z sin t is the same along them.

    Parameters
    ----------
    mask
        Of gold, (z, y, x).
    tilts
        Lowest and highest, in degrees.
    length
        Å that streaks are followed to either side.
    voxel_size
        Å.

    Raises
    ------
    ValueError
        If a tilt is beyond ±90°, the length negative or the voxel size not positive.
    """
    if not (length >= 0 and voxel_size > 0 and max(np.abs(tilts)) <= 90):
        raise ValueError(f"got tilts {tilts}°, length {length:g} Å, voxel_size {voxel_size:g} Å; expected ±90° and lengths")
    out = mask.copy()
    steps = int(length / voxel_size)
    for tilt in tilts:
        dz, dx = np.cos(np.radians(tilt)), -np.sin(np.radians(tilt))
        for step in range(-steps, steps + 1):
            a, b = round(step * dz), round(step * dx)
            out[_part(a, 0), :, _part(b, 0)] |= mask[_part(-a, 0), :, _part(-b, 0)]
    return out


def _part(shift: int, first: int) -> slice:
    """Where something moved by `shift` lies that does not leave an axis."""
    return slice(shift, None) if shift > 0 else slice(first, shift or None)
