"""A tomogram and a diameter, or a range of diameters, in; a particle table of all peaks out, by difference of Gaussians.

No template is needed. The steps are those of Pei et al. 2016 (BMC Bioinformatics 17:405), on which Xu et al. 2017 build: the
tomogram smoothed by a Gaussian less the tomogram smoothed by one 1.1 times as wide; the peaks of that; those above a threshold
between the worst and the best peak; the better of close neighbours. The last two steps are `tomolab.picking.thresholds`, so
that a threshold can be changed without filtering again.

>>> found = candidates(tomogram, diameter=(150.0, 350.0), tilts=(-60, 60), exclude={"gold": masks.fiducial_mask(tomogram)})
>>> picks = thresholds.choose(found, score=5.0)
>>> thresholds.evaluate(picks, truth, distance=100.0)["recall"]
0.87
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tomolab import particles
from tomolab.picking import blobs
from tomolab.picking.thresholds import FREE, WIDTH
from tomolab.volumes import Volume

FINEST = 12
"""Voxels per diameter from which on the tomogram is binned first: more cost time and find nothing else."""
STEP = 1.25
"""Largest ratio of one diameter to the one before in a range of them."""
EDGE, OUTSIDE, EXCLUDED = "edge", "outside", "excluded"
"""Status of a peak that is not free; masks in `exclude` have their own names."""

Masks = np.ndarray | Mapping[str, np.ndarray]


def candidates(
    volume: Volume,
    *,
    diameter: float | tuple[float, float],
    tilts: tuple[float, float] = (-60.0, 60.0),
    tomogram: str = "tomogram",
    edge: float | None = None,
    exclude: Masks | None = None,
    within: np.ndarray | None = None,
    clip: float | None = 10.0,
    largest: int = blobs.LARGEST,
) -> pd.DataFrame:
    """Find all bright blobs of about one diameter, or of a range of diameters, before any is chosen.

    The narrower Gaussian has a standard deviation of diameter / (2 √3), to which a solid ball responds most (the scale-space
    maximum of a ball of radius r in three dimensions is at r / √3): 72 Å for a ribosome of 250 Å, the 7 nm that Pei et al.
    found best. In a range, several widths are tried and the best counts (`blobs.search`).
    Of 16 complexes of 125 to 390 Å in simulated tomograms, 150 to 350 Å found 96 %, 94 % and 82 % of the particles at an SNR of
    0.1, 0.05 and 0.02, with as many picks as there are particles; the best single diameter 89 %, 83 % and 77 %. At 0.01 it was
    67 % against 68 % (``benchmarks/bench_picking.py``).

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    diameter
        Å, of the particles; or the (lowest, highest).
    tilts
        Lowest and highest tilt in degrees, for the table.
    tomogram
        Name of the tomogram, for the table.
    edge
        Å, the least from a pick to every face of the volume; half a diameter by default.
    exclude
        Mask of the shape of the volume, True where nothing shall be picked, such as on carbon; or masks by name, for
        `thresholds.count_status`.
    within
        Mask of the shape of the volume, True in the only parts where something shall be picked, such as the ice.
    clip
        After smoothing by half of the narrower Gaussian, densities farther than this many standard deviations from the mean
        are set to that limit, because gold would raise the threshold above all proteins. Gold still has the best scores;
        `masks.fiducial_mask` finds it for `exclude`. None leaves all densities.
    largest
        Voxels to work on at a time. A larger tomogram is worked on in tiles that overlap, with the same result.

    Returns
    -------
    DataFrame
        Particle table, best first, with ``score``, the height of the peak in standard deviations of the tomogram filtered with
        the (lowest) diameter; ``diameter`` in Å, the one that responded most; and ``status``: "free", or why it cannot be a
        pick: "edge", "outside" (of `within`), "excluded" or the name of the mask in `exclude`. In a range the diameter is an
        order of sizes, not a measure: an isolated solid ball responds most to √3 times its diameter, if that is in the range.
        Positions are refined below a voxel by a parabola.

    Raises
    ------
    ValueError
        If a diameter is below two voxels or above the smallest extent, the volume is constant, or a mask has another shape.
    """
    sizes = _sizes(diameter)
    named = _named(exclude)
    _check(volume, sizes, named if within is None else {**named, "within": within})
    step = max(1, int(sizes[0] / volume.voxel_size / FINEST))
    widths = [float(WIDTH * size / volume.voxel_size / step) for size in sizes]
    peaks = blobs.search(volume.data, widths, step=step, clip=clip, largest=largest)
    order = np.argsort(-peaks.heights, kind="stable")
    voxels, own = peaks.voxels[order], sizes[peaks.scale[order]]
    status = _status(voxels, volume, margin=own / 2 if edge is None else edge, exclude=named, within=within)
    scores = peaks.heights[order] / (peaks.deviation or 1.0)
    return particles.table(
        voxels * volume.voxel_size, tomogram=tomogram, tilts=tilts, score=scores, diameter=own, status=status
    )


def _sizes(diameter: float | tuple[float, float]) -> np.ndarray:
    """Diameters to try, each at most STEP times the one before."""
    ends = np.atleast_1d(np.asarray(diameter, dtype=float))
    if ends.shape not in ((1,), (2,)) or not np.isfinite(ends).all() or (np.diff(ends) <= 0).any() or ends[0] <= 0:
        raise ValueError(f"diameter is a number of Å or (lowest, highest), got {diameter}")
    if len(ends) == 1:
        return ends
    return np.geomspace(ends[0], ends[1], int(np.ceil(np.log(ends[1] / ends[0]) / np.log(STEP))) + 1)


def _named(exclude: Masks | None) -> dict[str, np.ndarray]:
    if exclude is None:
        return {}
    named = dict(exclude) if isinstance(exclude, Mapping) else {EXCLUDED: exclude}
    taken = {FREE, EDGE, OUTSIDE} & set(named)
    if taken:
        raise ValueError(f"a mask cannot be called {', '.join(sorted(taken))}")
    return named


def _check(volume: Volume, sizes: np.ndarray, masks: Mapping[str, np.ndarray]) -> None:
    smallest, largest = 2 * volume.voxel_size, float(volume.extent.min())
    for size in sizes[[0, -1]]:
        if not smallest <= size <= largest:
            raise ValueError(
                f"diameter must lie between two voxels ({smallest:g} Å) and the smallest extent of the volume ({largest:g} Å), "
                f"got {size:g} Å"
            )
    for name, mask in masks.items():
        if np.shape(mask) != volume.shape:
            which = "the mask" if name == EXCLUDED else f"the mask {name!r}"
            raise ValueError(f"{which} must have the shape of the volume, {volume.shape}, got {np.shape(mask)}")
    if volume.data.min() == volume.data.max():
        raise ValueError(f"there is nothing to pick: the volume is {volume.data.flat[0]:g} everywhere")


def _status(
    voxels: np.ndarray,
    volume: Volume,
    *,
    margin: float | np.ndarray,
    exclude: Mapping[str, np.ndarray],
    within: np.ndarray | None,
) -> np.ndarray:
    """Status of peaks at `voxels` (n, 3); of several reasons the first counts: edge, then excluded, then outside."""
    last = np.array(volume.shape) - 1
    index = tuple(np.clip(np.round(voxels).astype(int), 0, last).T)
    gap = np.minimum(voxels, last - voxels).min(1, initial=np.inf) * volume.voxel_size
    reasons = {EDGE: gap < margin} | {name: np.asarray(mask)[index].astype(bool) for name, mask in exclude.items()}
    if within is not None:
        reasons[OUTSIDE] = ~np.asarray(within)[index].astype(bool)
    return np.select(list(reasons.values()), list(reasons), FREE).astype(object)
