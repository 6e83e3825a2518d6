"""Tomograms in, masks out: cells, membranes and gold fiducials, for what to pick in and what to leave out.

Masks are bool arrays of the shape of a volume, and go together by ``&``, ``|`` and ``~``. A mask of another program comes with
``io.read_volume(path).data > 0.5``.

>>> gold = fiducial_mask(tomogram)
>>> wall = dilate(membranes(tomogram), 200.0, voxel_size=tomogram.voxel_size)
>>> found = picking.candidates(tomogram, diameter=250.0, within=cell(tomogram), exclude=gold | wall)
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.filters import threshold_otsu
from torch import Tensor

from tomolab import volumes
from tomolab.volumes import Volume

LAYERS = 32
"""Layers of a tomogram in which membranes are searched at a time."""


def cell(volume: Volume, *, detail: float = 400.0, threshold: float | None = None) -> np.ndarray:
    """Find the inside of a cell: the largest connected part that is dense at a coarse resolution, with its holes filled.

    Parameters
    ----------
    volume
        Tomogram, bright on dark, with the cell and something around it.
    detail
        Å; finer density is smoothed away.
    threshold
        Lowest smoothed density of the cell; by default the threshold of Otsu (1979). Look at the outline.

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
    clipped = volumes.clip(torch.from_numpy(volume.data), 4.0).numpy()
    smooth = gaussian_filter(clipped, detail / 4 / volume.voxel_size, truncate=3)
    level = float(threshold_otsu(smooth)) if threshold is None else threshold
    parts, count = ndimage.label(smooth > level)
    if count == 0:
        raise ValueError(f"nothing is denser than {level:g}; the smoothed density ends at {float(smooth.max()):g}")
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    # Slice by slice, since a cell that is cut by the faces of the volume encloses nothing in three dimensions.
    return np.stack([ndimage.binary_fill_holes(layer) for layer in largest])


def membranes(
    volume: Volume, *, thickness: float = 100.0, patch: float = 60.0, threshold: float = 0.3, area: float = 500.0
) -> np.ndarray:
    """Find membranes: what is bright, thin and flat.

    The second derivatives of the smoothed density are strongly negative across a bright sheet and small along it; those of a
    blob are negative in all directions. A voxel counts by how well the directions of its neighbours agree with its own (tensor
    voting, Medioni et al. 2000; for membranes Martinez-Sanchez et al. 2014, J. Struct. Biol. 186:49). Level membranes are lost
    in the missing wedge. Shells of viruses are found too, and so are rows of complexes: look at the mask.

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    thickness
        Å, of a membrane as it shows in the tomogram, blurred and with its rims. At least three voxels are taken.
    patch
        Å, the standard deviation of the Gaussian over which the directions of neighbours must agree.
    threshold
        Of `flatness`. A lower one finds more membranes and more of what is none.
    area
        A connected piece is left out unless it is as large as a square of this edge in Å.

    Returns
    -------
    ndarray
        Bool, of the shape of the volume, True in the membrane.

    Raises
    ------
    ValueError
        If a parameter is not positive.
    """
    for name, size in {"thickness": thickness, "patch": patch, "threshold": threshold, "area": area}.items():
        if not size > 0:
            raise ValueError(f"{name} must be positive, got {size:g}")
    flat = flatness(volume, thickness=thickness, patch=patch) > threshold
    pieces, _ = ndimage.label(flat, structure=np.ones((3, 3, 3)))
    # A sheet is about one and a half voxels thick where it is thinnest.
    large = np.bincount(pieces.ravel()) >= 1.5 * (area / volume.voxel_size) ** 2
    large[0] = False
    return large[pieces]


def flatness(volume: Volume, *, thickness: float, patch: float) -> np.ndarray:
    """How much every voxel lies in the middle of a bright sheet, (z, y, x), from 0 to 1.

    With the eigenvalues a ≤ b ≤ c of the second derivatives of the smoothed density, the sheetness is ``-a`` less the larger of
    ``|b|`` and ``|c|``; it is limited to what 95 % of the voxels stay below, so that bright things do not outweigh flat ones.
    The agreement is the largest eigenvalue less the second of ``n n'``, weighted by the sheetness and summed over a patch, with
    n the direction across the sheet. The flatness is the geometric mean of both.

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    thickness, patch
        Å, as in `membranes`.
    """
    sigma = max(thickness / 2 / volume.voxel_size, 1.5) / np.sqrt(3)
    patch_sigma = max(patch / volume.voxel_size, 1.0)
    clipped = volumes.clip(torch.from_numpy(volume.data), 4.0).numpy()
    smooth = gaussian_filter(clipped, sigma, truncate=4)
    limit = _limit(smooth)
    out = np.zeros(volume.shape, dtype=np.float32)
    halo = int(np.ceil(3 * patch_sigma)) + 2
    for first in range(0, len(out) if limit > 0 else 0, LAYERS):
        low, high = max(0, first - halo), min(len(out), first + LAYERS + halo)
        part = slice(first - low, min(first + LAYERS, len(out)) - low)
        out[first : first + LAYERS] = _flatness(smooth[low:high], patch_sigma, limit)[part]
    return out


def _hessian(smooth: np.ndarray) -> Tensor:
    """Second derivatives (z, y, x, 3, 3)."""
    rows = [np.stack(np.gradient(first), axis=-1) for first in np.gradient(smooth)]
    return torch.from_numpy(np.stack(rows, axis=-2))


def _sheetness(bends: Tensor) -> Tensor:
    """Sheetness (...) of voxels from the eigenvalues (..., 3) of their second derivatives, in ascending order."""
    return (-bends[..., 0] - bends[..., 1:].abs().amax(-1)).clamp_min(0)


def _limit(smooth: np.ndarray) -> float:
    """What 95 % of the voxels stay below, measured in every fourth stack of layers."""
    length = LAYERS if len(smooth) > 8 * LAYERS else len(smooth)
    stacks = [smooth[i : i + length] for i in range(0, len(smooth), 4 * length) if len(smooth) - i > 1]
    found = [_sheetness(torch.linalg.eigvalsh(_hessian(stack))).numpy().ravel() for stack in stacks if min(stack.shape) > 1]
    return float(np.quantile(np.concatenate(found), 0.95)) if found else 0.0


def _flatness(smooth: np.ndarray, sigma: float, limit: float) -> np.ndarray:
    bends, axes = torch.linalg.eigh(_hessian(smooth))
    sheet = _sheetness(bends).clamp_max(limit) / limit
    across = axes[..., 0]
    votes = (sheet[..., None, None] * across[..., :, None] * across[..., None, :]).numpy()
    votes = torch.from_numpy(gaussian_filter(votes, sigma, truncate=3, axes=(0, 1, 2)))
    agreement = torch.linalg.eigvalsh(votes).diff(dim=-1)[..., 1].clamp_min(0).numpy()
    return np.sqrt(agreement * gaussian_filter(sheet.numpy(), 1.0))


def dilate(mask: np.ndarray, distance: float, *, voxel_size: float) -> np.ndarray:
    """Grow a mask: True within `distance` Å of what it holds.

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


def fiducial_mask(volume: Volume, *, diameter: float = 100.0, deviations: float = 8.0) -> np.ndarray:
    """Find gold fiducials and the brightest part of their streaks.

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    diameter
        Å, of the fiducials.
    deviations
        The tomogram, smoothed to fiducials, is gold where it is farther than this from the mean, in standard deviations of what
        is left when outliers are clipped. Ribosomes reach 4 to 5.

    Returns
    -------
    ndarray
        Bool, of the shape of the volume, True within one diameter of gold.

    Raises
    ------
    ValueError
        If `diameter` or `deviations` is not positive.
    """
    if not (diameter > 0 and deviations > 0):
        raise ValueError(f"diameter and deviations must be positive, got {diameter:g} Å and {deviations:g}")
    smooth = gaussian_filter(volume.data, diameter / volume.voxel_size / (2 * np.sqrt(3)), truncate=3)
    clipped = volumes.clip(torch.from_numpy(smooth), deviations / 2)
    gold = np.abs(smooth - float(clipped.mean())) > deviations * float(clipped.std())
    return dilate(gold, diameter, voxel_size=volume.voxel_size)


def streaks(mask: np.ndarray, *, tilts: tuple[float, float], length: float, voxel_size: float) -> np.ndarray:
    """Add to a mask of gold the streaks that gold leaves along the edges of the missing wedge.

    Back-projections cancel each other except along the beams of the lowest and highest tilt, beyond which no tilt follows. At a
    tilt t the beam runs along (z, x) = (cos t, -sin t), as x cos t + z sin t is the same along it.

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
    steps = int(length / voxel_size)
    along = np.arange(-steps, steps + 1)
    beams = np.zeros((2 * steps + 1, 1, 2 * steps + 1), dtype=bool)
    for tilt in np.radians(tilts):
        beams[steps + np.rint(along * np.cos(tilt)).astype(int), 0, steps - np.rint(along * np.sin(tilt)).astype(int)] = True
    return ndimage.binary_dilation(mask, beams)
