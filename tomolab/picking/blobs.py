"""A volume and widths of Gaussians in, peaks out: the positions of bright blobs of one size or of several.

A large volume is worked on in tiles that overlap, to bound memory; the result does not depend on them.

>>> found = search(data, [3.6], clip=4.0)
>>> kept = separated(found.voxels, 7.2)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.spatial import KDTree
from torch import Tensor

from tomolab.volumes import block_mean

RATIO = 1.1
"""The wider Gaussian over the narrower one (Pei et al. 2016)."""
LARGEST = 2**26
"""Voxels of a tile; each takes about 30 bytes while it is worked on."""
REACH = 6
"""Width of the overlap of tiles in standard deviations of the widest Gaussian: farther voxels weigh less than rounding."""

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Found:
    """Peaks of a filtered volume.

    Parameters
    ----------
    voxels
        Their positions (n, 3) in voxels of the volume, zyx, refined by parabolas through each peak and its neighbours.
    heights
        The filtered volume at the voxel of each peak, (n,).
    scale
        Index of the width that responded most there, (n,).
    deviation
        Standard deviation of the volume filtered with the smallest width, which the inverted volume has too.
    """

    voxels: np.ndarray
    heights: np.ndarray
    scale: np.ndarray
    deviation: float


@dataclass(frozen=True)
class Tile:
    """A part of a volume: what is read, and its part without the overlap, in voxels of the volume and of the tile."""

    read: Slices
    inner: Slices


def search(data: np.ndarray, widths: Sequence[float], *, step: int = 1, clip: float | None, largest: int = LARGEST) -> Found:
    """Find the peaks of a volume filtered by a Gaussian of each width less one RATIO times as wide.

    A difference of Gaussians of one ratio is the Laplacian times the square of the width, up to a factor, so that balls of
    any size respond alike to the width that fits them (Lindeberg 1998, Int. J. Comput. Vision 30:79). With several widths, the
    filtered volume is at every voxel the largest response times the square of its width. Without that square, the parts of a
    large particle respond more than the whole, because the noise is smoothed least there; 2 was best on simulated tomograms.

    Parameters
    ----------
    data
        Volume (z, y, x), continued as its mirror image beyond its faces.
    widths
        Standard deviations of the narrower Gaussian, in voxels after binning, from small to large.
    step
        Voxels along each axis that are averaged first.
    clip
        After smoothing by half of the smallest width, values are limited to this many standard deviations from the mean.
    largest
        Voxels to work on at a time; more only where a tile would be narrower than the overlap.
    """
    shape = tuple(n // step for n in data.shape)
    done = 0.0 if clip is None else min(widths) / 2
    tiles = list(_tiles(shape, int(np.ceil(REACH * RATIO * max(widths))), largest))
    limits = None if clip is None else _limits(data, tiles, step, done, clip)
    parts, total, squares = [], 0.0, 0.0
    for tile in tiles:
        filtered, scale, finest = _filtered(_binned(data, tile.read, step), widths, done=done, limits=limits)
        core = finest[tile.inner].astype(np.float64)
        total += float(core.sum())
        squares += float(np.square(core).sum())
        at = _peaks(filtered)
        at = at[((at >= [part.start for part in tile.inner]) & (at < [part.stop for part in tile.inner])).all(1)]
        index = tuple(at.T)
        parts.append((_refined(filtered, at) + [part.start for part in tile.read], filtered[index], scale[index]))
    positions, heights, scales = (np.concatenate(part) for part in zip(*parts, strict=True))
    count = float(np.prod(shape))
    deviation = float(np.sqrt(max(squares / count - (total / count) ** 2, 0)))
    # The middle of a block of voxels lies (step - 1) / 2 voxels from its first.
    return Found(positions * step + (step - 1) / 2, heights, scales, deviation)


def _tiles(shape: tuple[int, ...], halo: int, largest: int) -> Iterator[Tile]:
    """Split a volume along its longest axis into tiles that have, with a halo on both sides, at most `largest` voxels.

    No tile becomes narrower than its halo, because most of the work would be done twice then.
    """
    axis = int(np.argmax(shape))
    whole = [slice(0, n) for n in shape]
    wide = shape[axis] if np.prod(shape) <= largest else max(largest * shape[axis] // int(np.prod(shape)) - 2 * halo, halo)
    for start in range(0, shape[axis], wide):
        stop = min(start + wide, shape[axis])
        read, inner = list(whole), list(whole)
        read[axis] = slice(max(0, start - halo), min(shape[axis], stop + halo))
        inner[axis] = slice(start - read[axis].start, stop - read[axis].start)
        yield Tile((read[0], read[1], read[2]), (inner[0], inner[1], inner[2]))


def _binned(data: np.ndarray, part: Slices, step: int) -> np.ndarray:
    """Part of a volume, given in blocks of step³ voxels, as their means."""
    return block_mean(data[tuple(slice(one.start * step, one.stop * step) for one in part)], step)


def _limits(data: np.ndarray, tiles: list[Tile], step: int, width: float, clip: float) -> tuple[float, float]:
    """Mean of the volume smoothed by `width`, less and plus `clip` standard deviations."""
    count, total, squares = 0, 0.0, 0.0
    for tile in tiles:
        padded, inside = _padded(_binned(data, tile.read, step), width)
        smooth = _smoothed(torch.fft.rfftn(padded), padded.shape, [(1, width)])[inside].numpy()[tile.inner].astype(np.float64)
        count += smooth.size
        total += float(smooth.sum())
        squares += float(np.square(smooth).sum())
    mean = total / count
    limit = clip * float(np.sqrt(max(squares / count - mean**2, 0)))
    return mean - limit, mean + limit


def _filtered(
    data: np.ndarray, widths: Sequence[float], *, done: float, limits: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest response at every voxel, the index of its width, and the response to the smallest width.

    Values are clipped to `limits` after smoothing by `done`.
    """
    padded, inside = _padded(data, RATIO * max(widths))
    transform = torch.fft.rfftn(padded)
    if limits is not None:
        transform = torch.fft.rfftn(_smoothed(transform, padded.shape, [(1, done)]).clamp(*limits))
    best, scale = torch.full(data.shape, -torch.inf), torch.zeros(data.shape, dtype=torch.int16)
    finest = best
    for i, width in enumerate(widths):
        # Variances of Gaussians add, so that of the first smoothing is subtracted.
        pair = [(sign, float(np.sqrt((ratio * width) ** 2 - done**2))) for sign, ratio in ((1, 1.0), (-1, RATIO))]
        response = _smoothed(transform, padded.shape, pair)[inside] * (width / min(widths)) ** 2
        finest = response if i == 0 else finest
        scale[response > best] = i
        best = torch.maximum(best, response)
    return best.numpy(), scale.numpy(), finest.numpy()


def _padded(data: np.ndarray, width: float) -> tuple[Tensor, tuple[slice, ...]]:
    """Volume with its mirror image around it, REACH widths or more, and the slices of the volume in that."""
    margin = int(np.ceil(REACH * width))
    before = [min(margin, n) for n in data.shape]
    after = [next_fast_len(n + 2 * low, real=True) - n - low for n, low in zip(data.shape, before, strict=True)]
    padded = np.pad(data, list(zip(before, after, strict=True)), mode="symmetric")
    return torch.from_numpy(padded), tuple(slice(low, low + n) for low, n in zip(before, data.shape, strict=True))


def _smoothed(transform: Tensor, shape: Sequence[int], gaussians: list[tuple[int, float]]) -> Tensor:
    """Sum of periodic smoothings by Gaussians, each a factor and a width in voxels, of the volume with this transform."""
    ky, kx = torch.fft.fftfreq(shape[1])[:, None], torch.fft.rfftfreq(shape[2])
    product = torch.empty_like(transform)
    for i, kz in enumerate(torch.fft.fftfreq(shape[0])):
        exponent = -2 * torch.pi**2 * (kz**2 + ky**2 + kx**2)
        product[i] = transform[i] * sum(factor * torch.exp(exponent * width**2) for factor, width in gaussians)
    return torch.fft.irfftn(product, s=tuple(shape))


def _peaks(filtered: np.ndarray) -> np.ndarray:
    """Voxels (n, 3) that are higher than the 6 next to them; none at a face."""
    high = np.ones(filtered.shape, dtype=bool)
    for axis in range(3):
        along, rise = np.moveaxis(high, axis, 0), np.moveaxis(np.diff(filtered, axis=axis), axis, 0)
        # > on one side and >= on the other: of a flat top one voxel is left.
        along[1:-1] &= (rise[:-1] > 0) & (rise[1:] <= 0)
        along[[0, -1]] = False
    return np.argwhere(high)


def _refined(filtered: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Maxima, in voxels, of parabolas through each peak and its neighbours along z, y, x."""
    out = peaks.astype(float)
    z, y, x = peaks.T
    for axis, (dz, dy, dx) in enumerate(np.eye(3, dtype=int)):
        before, here, after = filtered[z - dz, y - dy, x - dx], filtered[z, y, x], filtered[z + dz, y + dy, x + dx]
        bend = (before - 2 * here + after).astype(float)
        out[:, axis] += np.where(bend < 0, (before - after) / (2 * np.where(bend < 0, bend, 1)), 0)
    return out


def separated(positions: np.ndarray, distance: float | np.ndarray) -> np.ndarray:
    """Choose greedily from the first on: row numbers of positions that are at least `distance` from all chosen before.

    With a distance for each position, that of the one chosen before counts.
    """
    gaps = np.broadcast_to(np.asarray(distance, dtype=float), len(positions))
    if len(positions) == 0 or (gaps <= 0).all():
        return np.arange(len(positions))
    tree = KDTree(positions)
    free = np.ones(len(positions), dtype=bool)
    kept = []
    for i, position in enumerate(positions):
        if free[i]:
            kept.append(i)
            free[tree.query_ball_point(position, gaps[i])] = False
    return np.array(kept)
