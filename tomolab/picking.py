"""Picking particles without a template: blobs of a given diameter, by difference of Gaussians.

In goes a tomogram, bright on dark; out comes a particle table with a score. The steps are those of Pei et al. 2016
(BMC Bioinformatics 17:405), which Xu et al. 2017 build upon: the tomogram smoothed by a Gaussian, less the tomogram
smoothed by one 1.1 times as wide; peaks of that; those above a threshold between the worst and the best peak; of
close neighbours the better.

>>> found = difference_of_gaussians(tomogram, diameter=250.0, tilts=(-60, 60), tomogram="TS_01")
>>> score(found, truth, distance=100.0)["recall"]
0.87
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.fft import next_fast_len
from scipy.spatial import KDTree

from tomolab import particles, volumes
from tomolab.volumes import Volume

RATIO = 1.1
"""The wider Gaussian over the narrower one (Pei et al. 2016)."""
FINEST = 12
"""Voxels per diameter from which on the tomogram is binned first: more cost time and find nothing else."""


def difference_of_gaussians(
    volume: Volume,
    *,
    diameter: float,
    threshold: float = 3.0,
    tilts: tuple[float, float] = (-60.0, 60.0),
    tomogram: str = "tomogram",
    distance: float | None = None,
    edge: float | None = None,
    exclude: np.ndarray | None = None,
    clip: float | None = 4.0,
) -> pd.DataFrame:
    """Pick bright blobs of about one diameter.

    The narrower Gaussian has a standard deviation of diameter / (2 √3), the width at which a solid ball answers most (the
    scale-space maximum of a ball of radius r in three dimensions is at r / √3): 72 Å for a ribosome of 250 Å, the 7 nm that
    Pei et al. found best.

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    diameter
        Å, of the particles.
    threshold
        t in the lowest accepted score ``m + t (M - m) / 20``, between the worst peak m and the best M. 3 was best in Pei
        et al.; more picks fewer.
    tilts
        Lowest and highest tilt in degrees, for the table.
    tomogram
        Name of the tomogram, for the table.
    distance
        Å, the least between two picks; by default twice the narrower Gaussian, 0.58 diameters, as in Pei et al.
    edge
        Å, the least from a pick to every face of the volume; half a diameter by default.
    exclude
        Mask of the shape of the volume, True where nothing shall be picked, such as on carbon.
    clip
        After smoothing by half of the narrower Gaussian, densities farther than this many standard deviations from the mean
        are set to that limit; otherwise gold beads own the best scores, and with them the threshold. None leaves them.

    Returns
    -------
    DataFrame
        Particle table, best first, with the column ``score``: the peak's height in standard deviations of the filtered volume.
        Positions are refined below a voxel by a parabola.

    Raises
    ------
    ValueError
        If the diameter is below two voxels or above the smallest extent, the volume is constant, the mask has another
        shape, or `threshold` is not within 0 to 20.
    """
    _check(volume, diameter, threshold, exclude)
    step = max(1, int(diameter / volume.voxel_size / FINEST))
    voxel_size = volume.voxel_size * step
    width = diameter / (2 * np.sqrt(3)) / voxel_size
    filtered = _filter(_binned(volume.data, step).mean((1, 3, 5)), width, clip)
    mask = None if exclude is None else _binned(exclude, step).any((1, 3, 5))
    places, heights = _peaks(filtered, (diameter / 2 if edge is None else edge) / voxel_size, mask)
    if len(heights):
        worst, best = heights.min(), heights.max()
        good = heights >= worst + threshold * (best - worst) / 20
        order = np.flatnonzero(good)[np.argsort(-heights[good], kind="stable")]
        places, heights = places[order], heights[order]
    # The middle of a block of voxels lies (step - 1) / 2 voxels from its first.
    found = _refined(filtered, places) * voxel_size + (step - 1) / 2 * volume.voxel_size
    kept = _apart(found, 2 * width * voxel_size if distance is None else distance)
    return particles.table(found[kept], tomogram=tomogram, tilts=tilts, score=heights[kept] / filtered.std())


def score(picks: pd.DataFrame, truth: pd.DataFrame, *, distance: float) -> dict[str, Any]:
    """Hold picks against the true particles: one to one, closest pairs first, within each tomogram.

    Parameters
    ----------
    picks, truth
        Particle tables.
    distance
        Å, the most that a pick may lie from its particle.

    Returns
    -------
    dict
        ``precision`` (share of picks that are particles), ``recall`` (share of particles that are picked), ``f1`` (their
        harmonic mean), and ``matched``: a DataFrame with ``pick_id``, ``truth_id`` and ``distance`` in Å.

    Raises
    ------
    ValueError
        If `distance` is not positive, or there is no true particle.
    """
    if not distance > 0:
        raise ValueError(f"distance must be a positive number of Å, got {distance}")
    if len(truth) == 0:
        raise ValueError("there are no true particles to hold the picks against")
    pairs = [_pairs(group, truth[truth["tomogram"] == name], distance) for name, group in picks.groupby("tomogram", sort=False)]
    columns = ["pick_id", "truth_id", "distance"]
    matched = pd.DataFrame([pair for group in pairs for pair in group], columns=columns)
    matched = matched.astype({"pick_id": "int64", "truth_id": "int64", "distance": float})
    precision = len(matched) / len(picks) if len(picks) else 0.0
    recall = len(matched) / len(truth)
    f1 = 2 * precision * recall / (precision + recall) if len(matched) else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "matched": matched}


def _check(volume: Volume, diameter: float, threshold: float, exclude: np.ndarray | None) -> None:
    smallest, largest = 2 * volume.voxel_size, float(volume.extent.min())
    if not smallest <= diameter <= largest:
        raise ValueError(
            f"diameter must lie between two voxels ({smallest:g} Å) and the smallest extent of the volume ({largest:g} Å), "
            f"got {diameter:g} Å"
        )
    if not 0 <= threshold <= 20:
        raise ValueError(f"threshold must lie between 0 (all peaks) and 20 (only the best), got {threshold}")
    if volume.data.min() == volume.data.max():
        raise ValueError(f"there is nothing to pick: the volume is {volume.data.flat[0]:g} everywhere")
    if exclude is not None and exclude.shape != volume.shape:
        raise ValueError(f"the mask must have the shape of the volume, {volume.shape}, got {exclude.shape}")


def _binned(data: np.ndarray, step: int) -> np.ndarray:
    """View blocks of step^3 voxels: shape (z, step, y, step, x, step), without what is left over at the far faces."""
    z, y, x = (n // step for n in data.shape)
    return data[: z * step, : y * step, : x * step].reshape(z, step, y, step, x, step)


def _filter(data: np.ndarray, width: float, clip: float | None) -> np.ndarray:
    """Difference of Gaussians of `width` voxels; the volume goes on mirrored beyond its faces."""
    reach = int(np.ceil(3 * RATIO * width))
    before = [min(reach, n) for n in data.shape]
    after = [next_fast_len(n + 2 * low, real=True) - n - low for n, low in zip(data.shape, before, strict=True)]
    smooth = torch.from_numpy(np.pad(data, list(zip(before, after, strict=True)), mode="symmetric"))
    done = 0.0
    if clip is not None:
        done = width / 2
        smooth = volumes.clip(_smoothed(smooth, [(1, done)]), clip)
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


def _peaks(filtered: np.ndarray, margin: float, exclude: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
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


def _refined(filtered: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Tops of parabolas through each peak and its neighbours along z, y, x, in voxels."""
    out = places.astype(float)
    z, y, x = places.T
    for axis, (dz, dy, dx) in enumerate(np.eye(3, dtype=int)):
        before, here, after = filtered[z - dz, y - dy, x - dx], filtered[z, y, x], filtered[z + dz, y + dy, x + dx]
        bend = (before - 2 * here + after).astype(float)
        out[:, axis] += np.where(bend < 0, (before - after) / (2 * np.where(bend < 0, bend, 1)), 0)
    return out


def _apart(positions: np.ndarray, distance: float) -> np.ndarray:
    """Greedy choice from the first on: row numbers of positions that are at least `distance` from all chosen before."""
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


def _pairs(picks: pd.DataFrame, truth: pd.DataFrame, distance: float) -> list[tuple[int, int, float]]:
    if len(truth) == 0:
        return []
    near = KDTree(particles.positions(picks)).sparse_distance_matrix(
        KDTree(particles.positions(truth)), distance, output_type="ndarray"
    )
    picked, true = picks["particle_id"].to_numpy(), truth["particle_id"].to_numpy()
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for i, j, gap in np.sort(near, order="v"):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append((int(picked[i]), int(true[j]), float(gap)))
    return pairs
