"""Blobs: bright things of one size, or of several, as peaks of a volume filtered to show them; and those that stand apart.

A volume that is too large for memory is worked on in tiles that overlap; what is found does not depend on them.

>>> found = search(data, [3.6], clip=4.0)
>>> kept = apart(found.places, 7.2)
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
"""Standard deviations of the widest Gaussian that are looked around a tile: what is farther weighs less than rounding does."""

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Found:
    """Peaks of a filtered volume.

    Parameters
    ----------
    places
        Their tops (n, 3) in voxels of the volume, zyx, by parabolas through each peak and its neighbours.
    heights
        The filtered volume at the voxel of each peak, (n,).
    scale
        Number of the width that answered most there, (n,).
    deviation
        Standard deviation of the volume filtered with the smallest width, which the inverted volume has too.
    """

    places: np.ndarray
    heights: np.ndarray
    scale: np.ndarray
    deviation: float


@dataclass(frozen=True)
class Tile:
    """A part of a volume: what is read, and the part of it that counts, in voxels of the volume and of the tile."""

    read: Slices
    core: Slices
    inner: Slices


def search(data: np.ndarray, widths: Sequence[float], *, step: int = 1, clip: float | None, largest: int = LARGEST) -> Found:
    """Find the peaks of a volume filtered by a Gaussian of each width less one RATIO times as wide.

    A difference of Gaussians of one ratio is the Laplacian times the square of the width, but for a factor, so that balls of
    any size answer alike to the width that fits them (Lindeberg 1998, Int. J. Comput. Vision 30:79). Of several widths, the
    filtered volume is at every voxel the greatest answer times the square of its width: without that factor the parts of
    large particles, where the noise is least smoothed, answer more than the whole. Two was found on simulated tomograms.

    Parameters
    ----------
    data
        Volume (z, y, x). Beyond its faces it goes on mirrored.
    widths
        Standard deviations of the narrower Gaussian, in voxels after binning, from small to large.
    step
        Voxels that are averaged along each axis first.
    clip
        Values are limited to that many standard deviations from the mean after smoothing by half of the smallest width.
    largest
        Voxels to work on at a time; more only where six widths are more.
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
        at = _peaks(filtered, tile, shape)
        index = tuple(at.T)
        parts.append((_refined(filtered, at) + [part.start for part in tile.read], filtered[index], scale[index]))
    places, heights, scales = (np.concatenate(part) for part in zip(*parts, strict=True))
    count = float(np.prod(shape))
    deviation = float(np.sqrt(max(squares / count - (total / count) ** 2, 0)))
    # The middle of a block of voxels lies (step - 1) / 2 voxels from its first.
    return Found(places * step + (step - 1) / 2, heights, scales, deviation)


def _tiles(shape: tuple[int, ...], halo: int, largest: int) -> Iterator[Tile]:
    """Split a volume until every tile, with a halo around it, has at most so many voxels.

    No tile becomes narrower than its halo, since then most of the work would be done twice.
    """
    cuts = [1, 1, 1]
    while np.prod(_sizes(shape, cuts, halo)) > largest:
        wide = [n / (cut + 1) if n // (cut + 1) >= halo else 0 for n, cut in zip(shape, cuts, strict=True)]
        if max(wide) == 0:
            break
        cuts[int(np.argmax(wide))] += 1
    edges = [np.linspace(0, n, cut + 1).astype(int) for n, cut in zip(shape, cuts, strict=True)]
    for place in np.ndindex(*cuts):
        low = [int(edge[i]) for edge, i in zip(edges, place, strict=True)]
        high = [int(edge[i + 1]) for edge, i in zip(edges, place, strict=True)]
        first = [max(0, a - halo) for a in low]
        last = [min(n, b + halo) for n, b in zip(shape, high, strict=True)]
        yield Tile(_slices(first, last), _slices(low, high), _slices(np.subtract(low, first), np.subtract(high, first)))


def _sizes(shape: tuple[int, ...], cuts: Sequence[int], halo: int) -> list[int]:
    return [min(n, -(-n // cut) + 2 * halo) for n, cut in zip(shape, cuts, strict=True)]


def _slices(low: Sequence[int] | np.ndarray, high: Sequence[int] | np.ndarray) -> Slices:
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


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
    reach = clip * float(np.sqrt(max(squares / count - mean**2, 0)))
    return mean - reach, mean + reach


def _filtered(
    data: np.ndarray, widths: Sequence[float], *, done: float, limits: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greatest answer at every voxel, the number of its width, and the answer to the smallest.

    Clipped to `limits` after smoothing by `done`.
    """
    padded, inside = _padded(data, RATIO * max(widths))
    transform = torch.fft.rfftn(padded)
    if limits is not None:
        transform = torch.fft.rfftn(_smoothed(transform, padded.shape, [(1, done)]).clamp(*limits))
    best, scale = torch.full(data.shape, -torch.inf), torch.zeros(data.shape, dtype=torch.int16)
    finest = best
    for i, width in enumerate(widths):
        # Variances of Gaussians add, so what the first smoothing did is left out of the second.
        pair = [(sign, float(np.sqrt((ratio * width) ** 2 - done**2))) for sign, ratio in ((1, 1.0), (-1, RATIO))]
        answer = _smoothed(transform, padded.shape, pair)[inside] * (width / min(widths)) ** 2
        finest = answer if i == 0 else finest
        scale[answer > best] = i
        best = torch.maximum(best, answer)
    return best.numpy(), scale.numpy(), finest.numpy()


def _padded(data: np.ndarray, width: float) -> tuple[Tensor, tuple[slice, ...]]:
    """Volume with its mirror image around it, to REACH widths or more, and where it is in that."""
    reach = int(np.ceil(REACH * width))
    before = [min(reach, n) for n in data.shape]
    after = [next_fast_len(n + 2 * low, real=True) - n - low for n, low in zip(data.shape, before, strict=True)]
    padded = np.pad(data, list(zip(before, after, strict=True)), mode="symmetric")
    return torch.from_numpy(padded), tuple(slice(low, low + n) for low, n in zip(before, data.shape, strict=True))


def _smoothed(transform: Tensor, shape: Sequence[int], gaussians: list[tuple[int, float]]) -> Tensor:
    """Sum of smoothings by Gaussians, each a factor and a width in voxels, of what has this transform; periodic."""
    ky, kx = torch.fft.fftfreq(shape[1])[:, None], torch.fft.rfftfreq(shape[2])
    product = torch.empty_like(transform)
    for i, kz in enumerate(torch.fft.fftfreq(shape[0])):
        exponent = -2 * torch.pi**2 * (kz**2 + ky**2 + kx**2)
        product[i] = transform[i] * sum(factor * torch.exp(exponent * width**2) for factor, width in gaussians)
    return torch.fft.irfftn(product, s=tuple(shape))


def _peaks(filtered: np.ndarray, tile: Tile, shape: tuple[int, ...]) -> np.ndarray:
    """Voxels (n, 3) of a tile that are higher than the 6 next to them; none at a face of the volume, and each in one tile."""
    inner = []
    for core, own, n in zip(tile.core, tile.inner, shape, strict=True):
        low, high = max(core.start, 1), min(core.stop, n - 1)
        if low >= high:
            return np.empty((0, 3), dtype=int)
        shift = own.start - core.start
        inner.append(slice(low + shift, high + shift))
    middle = filtered[tuple(inner)]
    high = np.ones(middle.shape, dtype=bool)
    for axis in range(3):
        before, after = list(inner), list(inner)
        before[axis] = slice(inner[axis].start - 1, inner[axis].stop - 1)
        after[axis] = slice(inner[axis].start + 1, inner[axis].stop + 1)
        # > on one side and >= on the other: of a flat top one voxel is left.
        high &= middle > filtered[tuple(before)]
        high &= middle >= filtered[tuple(after)]
    return np.argwhere(high) + [part.start for part in inner]


def _refined(filtered: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Find the tops, in voxels, of parabolas through each peak and its neighbours along z, y, x."""
    out = places.astype(float)
    z, y, x = places.T
    for axis, (dz, dy, dx) in enumerate(np.eye(3, dtype=int)):
        before, here, after = filtered[z - dz, y - dy, x - dx], filtered[z, y, x], filtered[z + dz, y + dy, x + dx]
        bend = (before - 2 * here + after).astype(float)
        out[:, axis] += np.where(bend < 0, (before - after) / (2 * np.where(bend < 0, bend, 1)), 0)
    return out


def apart(positions: np.ndarray, distance: float | np.ndarray) -> np.ndarray:
    """Choose greedily from the first on: row numbers of positions that are at least `distance` from all chosen before.

    With a distance for each position, that of the one chosen before counts.
    """
    reach = np.broadcast_to(np.asarray(distance, dtype=float), len(positions))
    if len(positions) == 0 or (reach <= 0).all():
        return np.arange(len(positions))
    tree = KDTree(positions)
    free = np.ones(len(positions), dtype=bool)
    kept = []
    for i, position in enumerate(positions):
        if free[i]:
            kept.append(i)
            free[tree.query_ball_point(position, reach[i])] = False
    return np.array(kept)
