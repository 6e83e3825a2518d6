"""Sheets: membranes found in a tomogram as what is bright, thin and flat.

The second derivatives of the smoothed density tell how it bends in every voxel: across a bright sheet strongly down, along it
hardly; a blob bends down all around. What counts is that neighbours bend the same way (tensor voting, Medioni et al. 2000; for
membranes Martinez-Sanchez et al. 2014, J. Struct. Biol. 186:49). Membranes that lie level stay unseen in the missing wedge.

>>> wall = membranes(tomogram)
>>> inside = masks.near(wall, 200.0, voxel_size=tomogram.voxel_size)
"""

import numpy as np
import torch
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tomolab import volumes
from tomolab.volumes import Volume

LAYERS = 32
"""Layers of a tomogram worked on at a time."""


def membranes(
    volume: Volume, *, thickness: float = 100.0, patch: float = 60.0, threshold: float = 0.3, area: float = 500.0
) -> np.ndarray:
    """Find membranes.

    Shells of viruses are such sheets as well, and where complexes lie side by side there are some by chance: look at the mask.

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    thickness
        Å, of a membrane as it shows in the tomogram, blurred and with its rims. At least three voxels are taken.
    patch
        Å, the standard deviation of the Gaussian over which neighbours must bend the same way.
    threshold
        Of `flatness`. Less finds more, also of what is none.
    area
        A piece is left out unless it is as large as a square of this edge in Å.

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
    # A sheet shows about one and a half voxels thick where it is thinnest.
    wide = np.bincount(pieces.ravel()) >= 1.5 * (area / volume.voxel_size) ** 2
    wide[0] = False
    return wide[pieces]


def flatness(volume: Volume, *, thickness: float, patch: float) -> np.ndarray:
    """How much every voxel lies in the middle of a bright sheet, (z, y, x), from 0 to 1.

    With the eigenvalues a ≤ b ≤ c of the second derivatives of the smoothed density, ``-a`` less the larger of ``|b|`` and
    ``|c|``, if that is positive; at most what 95 % of the voxels stay below, or the brightest would outshine the flattest.
    The geometric mean of that and of how far its directions agree: of ``n n'``, with n the direction across, weighted by it and
    summed over a patch, the largest eigenvalue less the second.

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    thickness, patch
        Å, as in `membranes`.
    """
    sigma = max(thickness / 2 / volume.voxel_size, 1.5) / np.sqrt(3)
    wide = max(patch / volume.voxel_size, 1.0)
    calm = volumes.clip(torch.from_numpy(volume.data), 4.0).numpy()
    smooth = gaussian_filter(calm, sigma, truncate=4)
    most = _most(smooth)
    out = np.zeros(volume.shape, dtype=np.float32)
    halo = int(np.ceil(3 * wide)) + 2
    for first in range(0, len(out) if most > 0 else 0, LAYERS):
        low, high = max(0, first - halo), min(len(out), first + LAYERS + halo)
        part = slice(first - low, min(first + LAYERS, len(out)) - low)
        out[first : first + LAYERS] = _agreement(smooth[low:high], wide, most)[part]
    return out


def _bends(smooth: np.ndarray) -> Tensor:
    """Second derivatives zz, zy, zx, yy, yx, xx."""
    gradients = np.gradient(smooth)
    return torch.from_numpy(np.stack([np.gradient(gradients[i], axis=j) for i in range(3) for j in range(i, 3)]))


def _sheet(low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
    return (-low - torch.maximum(middle.abs(), high.abs())).clamp_min(0)


def _most(smooth: np.ndarray) -> float:
    """What 95 % of the voxels stay below, judged by every fourth stack of layers."""
    starts = range(0, len(smooth), 4 * LAYERS) if len(smooth) > 8 * LAYERS else [0]
    length = LAYERS if len(smooth) > 8 * LAYERS else len(smooth)
    found = [_sheet(*eigenvalues(_bends(smooth[i : i + length]))).numpy().ravel() for i in starts if len(smooth) - i > 1]
    return float(np.quantile(np.concatenate(found), 0.95)) if found and min(smooth.shape) > 1 else 0.0


def _agreement(smooth: np.ndarray, wide: float, most: float) -> np.ndarray:
    bends = _bends(smooth)
    low, middle, high = eigenvalues(bends)
    sheet = _sheet(low, middle, high).clamp_max(most) / most
    zz, zy, zx, yy, yx, xx = bends
    matrix = torch.stack([zz, zy, zx, zy, yy, yx, zx, yx, xx], dim=-1).reshape(*zz.shape, 3, 3)
    one = torch.eye(3)
    # n n' of the lowest eigenvalue, as the other two make (H - b)(H - c) vanish.
    across = (matrix - middle[..., None, None] * one) @ (matrix - high[..., None, None] * one)
    across *= (sheet / ((low - middle) * (low - high)).clamp_min(torch.finfo(low.dtype).tiny))[..., None, None]
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    summed = [gaussian_filter(across[..., i, j].numpy(), wide, truncate=3) for i, j in pairs]
    _, second, first = eigenvalues(torch.from_numpy(np.stack(summed)))
    agreed = (first - second).clamp_min(0).numpy()
    return np.sqrt(agreed * gaussian_filter(sheet.numpy(), 1.0))


def eigenvalues(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues, from low to high, of symmetric 3 x 3 matrices.

    By the cosine of a third of an angle (Smith 1961, Comm. ACM 4:168), which is many times faster than a general solver.

    Parameters
    ----------
    matrices
        (6, ...): elements zz, zy, zx, yy, yx, xx.
    """
    zz, zy, zx, yy, yx, xx = matrices
    mean = (zz + yy + xx) / 3
    a, b, c = zz - mean, yy - mean, xx - mean
    spread = ((a**2 + b**2 + c**2 + 2 * (zy**2 + zx**2 + yx**2)) / 6).sqrt()
    safe = spread.clamp_min(torch.finfo(spread.dtype).tiny)
    determinant = a * (b * c - yx**2) - zy * (zy * c - yx * zx) + zx * (zy * yx - b * zx)
    angle = (determinant / safe**3 / 2).nan_to_num(0.0).clamp(-1, 1).acos() / 3
    high = mean + 2 * spread * angle.cos()
    low = mean + 2 * spread * (angle + 2 * torch.pi / 3).cos()
    return low, 3 * mean - low - high, high
