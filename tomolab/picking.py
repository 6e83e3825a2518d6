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
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import KDTree

from tomolab import blobs, particles, volumes
from tomolab.volumes import Volume

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
    clip: float | None = 10.0,
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
        t in the lowest accepted score ``m + t (M - m) / 20``, between the worst peak m (0, the background, if all are above it)
        and the best M. More picks fewer. 3 was best in Pei et al.
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
        are set to that limit, or gold beads raise the threshold above all proteins. Gold still has the best scores; `beads`
        finds it for `exclude`. None leaves everything.

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
    filtered = blobs.enhance(_binned(volume.data, step).mean((1, 3, 5)), width, clip)
    mask = None if exclude is None else np.asarray(_binned(exclude, step).any((1, 3, 5)))
    places, heights = blobs.peaks(filtered, (diameter / 2 if edge is None else edge) / voxel_size, mask)
    if len(heights):
        worst, best = min(heights.min(), 0.0), heights.max()
        good = heights >= worst + threshold * (best - worst) / 20
        order = np.flatnonzero(good)[np.argsort(-heights[good], kind="stable")]
        places, heights = places[order], heights[order]
    # The middle of a block of voxels lies (step - 1) / 2 voxels from its first.
    found = blobs.refine(filtered, places) * voxel_size + (step - 1) / 2 * volume.voxel_size
    kept = blobs.apart(found, 2 * width * voxel_size if distance is None else distance)
    return particles.table(found[kept], tomogram=tomogram, tilts=tilts, score=heights[kept] / filtered.std())


def beads(volume: Volume, *, diameter: float = 100.0, deviations: float = 8.0) -> np.ndarray:
    """Find gold beads and their streaks, as a mask for `exclude`.

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
    voxels = diameter / volume.voxel_size
    smooth = gaussian_filter(volume.data, voxels / (2 * np.sqrt(3)), truncate=3)
    calm = volumes.clip(torch.from_numpy(smooth), deviations / 2)
    gold = np.abs(smooth - float(calm.mean())) > deviations * float(calm.std())
    return distance_transform_edt(~gold) <= voxels if gold.any() else gold


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
