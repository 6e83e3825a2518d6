"""Blobs: a volume filtered to show things of one size, its peaks, and those of them that stand apart.

>>> filtered = enhance(data, width=3.6, clip=4.0)
>>> places, heights = peaks(filtered, margin=6, exclude=None)
"""

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.spatial import KDTree

from tomolab import volumes

RATIO = 1.1
"""The wider Gaussian over the narrower one (Pei et al. 2016)."""


def enhance(data: np.ndarray, width: float, clip: float | None) -> np.ndarray:
    """Filter (z, y, x) by a Gaussian of `width` voxels less one RATIO times as wide.

    Beyond its faces the volume goes on mirrored. With `clip`, values are limited to that many standard deviations from the
    mean after smoothing by half of `width`.
    """
    reach = int(np.ceil(3 * RATIO * width))
    before = [min(reach, n) for n in data.shape]
    after = [next_fast_len(n + 2 * low, real=True) - n - low for n, low in zip(data.shape, before, strict=True)]
    smooth = torch.from_numpy(np.pad(data, list(zip(before, after, strict=True)), mode="symmetric"))
    done = 0.0
    if clip is not None:
        done = width / 2
        smooth = volumes.clip(_smoothed(smooth, [(1, done)]), clip, rounds=1)
    # Variances of Gaussians add, so what the first smoothing did is left out of the second.
    narrow, wide = (float(np.sqrt(w**2 - done**2)) for w in (width, RATIO * width))
    smooth = _smoothed(smooth, [(1, narrow), (-1, wide)])
    return smooth[tuple(slice(low, low + n) for low, n in zip(before, data.shape, strict=True))].numpy()


def _smoothed(data: torch.Tensor, gaussians: list[tuple[int, float]]) -> torch.Tensor:
    """Sum of smoothings by Gaussians, each a factor and a width in voxels; periodic."""
    transform = torch.fft.rfftn(data)
    ky, kx = torch.fft.fftfreq(data.shape[1])[:, None], torch.fft.rfftfreq(data.shape[2])
    for i, kz in enumerate(torch.fft.fftfreq(data.shape[0])):
        exponent = -2 * torch.pi**2 * (kz**2 + ky**2 + kx**2)
        transform[i] *= sum(factor * torch.exp(exponent * width**2) for factor, width in gaussians)
    return torch.fft.irfftn(transform, s=data.shape)


def peaks(filtered: np.ndarray, margin: float, exclude: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Find voxels (n, 3) higher than the 6 next to them, at least `margin` voxels inside, not excluded; and their heights."""
    low = max(1, int(np.ceil(margin)))
    inner = tuple(slice(low, n - low) for n in filtered.shape)
    if any(n <= 2 * low for n in filtered.shape):
        return np.empty((0, 3), dtype=int), np.empty(0, dtype=filtered.dtype)
    middle = filtered[inner]
    high = np.ones(middle.shape, dtype=bool) if exclude is None else ~exclude[inner].astype(bool)
    for axis in range(3):
        before, after = list(inner), list(inner)
        n = filtered.shape[axis]
        before[axis], after[axis] = slice(low - 1, n - low - 1), slice(low + 1, n - low + 1)
        # > on one side and >= on the other: of a flat top one voxel is left.
        high &= middle > filtered[tuple(before)]
        high &= middle >= filtered[tuple(after)]
    places = np.argwhere(high)
    return places + low, middle[high]


def refine(filtered: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Find the tops, in voxels, of parabolas through each peak and its neighbours along z, y, x."""
    out = places.astype(float)
    z, y, x = places.T
    for axis, (dz, dy, dx) in enumerate(np.eye(3, dtype=int)):
        before, here, after = filtered[z - dz, y - dy, x - dx], filtered[z, y, x], filtered[z + dz, y + dy, x + dx]
        bend = (before - 2 * here + after).astype(float)
        out[:, axis] += np.where(bend < 0, (before - after) / (2 * np.where(bend < 0, bend, 1)), 0)
    return out


def apart(positions: np.ndarray, distance: float) -> np.ndarray:
    """Choose greedily from the first on: row numbers of positions that are at least `distance` from all chosen before."""
    if len(positions) == 0 or distance <= 0:
        return np.arange(len(positions))
    tree = KDTree(positions)
    free = np.ones(len(positions), dtype=bool)
    kept = []
    for i, position in enumerate(positions):
        if free[i]:
            kept.append(i)
            free[tree.query_ball_point(position, distance)] = False
    return np.array(kept)
