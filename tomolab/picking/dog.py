"""Picking particles without a template: blobs of a given diameter, or of a range of them, by difference of Gaussians.

In goes a tomogram, bright on dark; out comes a particle table with a score. The steps are those of Pei et al. 2016
(BMC Bioinformatics 17:405), which Xu et al. 2017 build upon: the tomogram smoothed by a Gaussian, less the tomogram
smoothed by one 1.1 times as wide; peaks of that; those above a threshold between the worst and the best peak; of
close neighbours the better.

>>> picks = difference_of_gaussians(tomogram, diameter=(150.0, 350.0), tilts=(-60, 60), tomogram="TS_01")
>>> score(picks, truth, distance=100.0)["recall"]
0.87

The two steps of it, to look between them at where to cut, and at what the masks took:

>>> found = candidates(tomogram, diameter=250.0, exclude={"gold": masks.beads(tomogram)})
>>> picks = choose(found, score=5.0)
>>> fates(found, picks)
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tomolab import particles
from tomolab.picking import blobs
from tomolab.picking.masks import beads
from tomolab.picking.thresholds import FREE, WIDTH, apart, choose, false_share, fates, score
from tomolab.volumes import Volume

__all__ = ["apart", "beads", "candidates", "choose", "difference_of_gaussians", "false_share", "fates", "oversample", "score"]

FINEST = 12
"""Voxels per diameter from which on the tomogram is binned first: more cost time and find nothing else."""
STEP = 1.25
"""Ratio, at most, of one diameter to the one before in a range of them."""
MOST = 10_000_000
"""Particles that a grid may have."""
EDGE, OUTSIDE, EXCLUDED = "edge", "outside", "excluded"
"""What may take a peak before it is chosen; masks in `exclude` have their own names."""

Masks = np.ndarray | Mapping[str, np.ndarray]


def difference_of_gaussians(
    volume: Volume,
    *,
    diameter: float | tuple[float, float],
    threshold: float = 3.0,
    tilts: tuple[float, float] = (-60.0, 60.0),
    tomogram: str = "tomogram",
    distance: float | None = None,
    edge: float | None = None,
    exclude: Masks | None = None,
    within: np.ndarray | None = None,
    clip: float | None = 10.0,
    largest: int = blobs.LARGEST,
) -> pd.DataFrame:
    """Pick bright blobs of about one diameter, or of a range of diameters.

    The narrower Gaussian has a standard deviation of diameter / (2 √3), the width at which a solid ball answers most (the
    scale-space maximum of a ball of radius r in three dimensions is at r / √3): 72 Å for a ribosome of 250 Å, the 7 nm that
    Pei et al. found best. With a range, several widths are tried and the best counts (`blobs.search`).
    Of 16 complexes of 125 to 390 Å in simulated tomograms, 150 to 350 Å found 96 %, 94 % and 82 % of the particles at an SNR of
    0.1, 0.05 and 0.02, with as many picks as there are particles; the best single diameter 89 %, 83 % and 77 %. At 0.01 it was
    67 % against 68 % (``benchmarks/bench_picking.py``).

    Parameters
    ----------
    volume
        Tomogram, bright on dark.
    diameter
        Å, of the particles; or the (lowest, highest).
    threshold
        t in the lowest accepted score ``m + t (M - m) / 20``, between the worst peak m (0, the background, if all are above it)
        and the best M. More picks fewer. 3 was best in Pei et al. In a range of diameters the score
        grows with the size too, and small particles need a lower one.
    tilts
        Lowest and highest tilt in degrees, for the table.
    tomogram
        Name of the tomogram, for the table.
    distance
        Å, the least between two picks; by default twice the narrower Gaussian of the better one, 0.58 of its diameter, as in
        Pei et al.
    edge
        Å, the least from a pick to every face of the volume; half a diameter by default.
    exclude
        Mask of the shape of the volume, True where nothing shall be picked, such as on carbon; or masks by name, for `fates`.
    within
        Mask of the shape of the volume, True where alone something shall be picked, such as in the ice
        (`tomolab.picking.masks`).
    clip
        After smoothing by half of the narrower Gaussian, densities farther than this many standard deviations from the mean
        are set to that limit, or gold beads raise the threshold above all proteins. Gold still has the best scores;
        `masks.beads` finds it for `exclude`. None leaves everything.
    largest
        Voxels to work on at a time. A larger tomogram is worked on in tiles that overlap, with the same result.

    Returns
    -------
    DataFrame
        Particle table, best first, with the columns ``score``, the peak's height in standard deviations of the tomogram
        filtered with the (lowest) diameter, and ``diameter`` in Å, the one that answered most. In a range that is an order of
        sizes, not a measure: an isolated solid ball answers most to √3 times its diameter, if that is in the range.
        Positions are refined below a voxel by a parabola.

    Raises
    ------
    ValueError
        If a diameter is below two voxels or above the smallest extent, the volume is constant, a mask has another
        shape, or `threshold` is not within 0 to 20.
    """
    if not 0 <= threshold <= 20:
        raise ValueError(f"threshold must lie between 0 (all peaks) and 20 (only the best), got {threshold}")
    found = candidates(
        volume,
        diameter=diameter,
        tilts=tilts,
        tomogram=tomogram,
        edge=edge,
        exclude=exclude,
        within=within,
        clip=clip,
        largest=largest,
    )
    return choose(found, threshold=threshold, distance=distance)


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
    """Find every peak, before any is chosen, and whether the masks leave it.

    Parameters
    ----------
    volume, diameter, tilts, tomogram, edge, exclude, within, clip, largest
        As in `difference_of_gaussians`.

    Returns
    -------
    DataFrame
        Particle table, best first, with ``score`` and ``diameter``, and ``fate``: "free", or why it cannot be a pick: "edge",
        "outside" (of `within`), "excluded" or the name of the mask in `exclude`.

    Raises
    ------
    ValueError
        As in `difference_of_gaussians`.
    """
    sizes = _sizes(diameter)
    named = _named(exclude)
    _check(volume, sizes, named if within is None else {**named, "within": within})
    step = max(1, int(sizes[0] / volume.voxel_size / FINEST))
    widths = [float(WIDTH * size / volume.voxel_size / step) for size in sizes]
    peaks = blobs.search(volume.data, widths, step=step, clip=clip, largest=largest)
    order = np.argsort(-peaks.heights, kind="stable")
    places, own = peaks.places[order], sizes[peaks.scale[order]]
    fate = _fate(places, volume, margin=own / 2 if edge is None else edge, exclude=named, within=within)
    scores = peaks.heights[order] / (peaks.deviation or 1.0)
    return particles.table(places * volume.voxel_size, tomogram=tomogram, tilts=tilts, score=scores, diameter=own, fate=fate)


def oversample(
    volume: Volume,
    *,
    spacing: float,
    edge: float = 0.0,
    exclude: Masks | None = None,
    within: np.ndarray | None = None,
    tilts: tuple[float, float] = (-60.0, 60.0),
    tomogram: str = "tomogram",
) -> pd.DataFrame:
    """Put particles on a grid, whatever the tomogram shows: for discovery, where a score would choose what is already known.

    An encoder describes them all, a cluster is chosen, and `apart` leaves one for each particle of it. On a body-centred cubic
    grid the fewest points do for no place to be farther than 0.65 spacings from one (Conway & Sloane 1999). Peaks that are
    hardly any, ``choose(candidates(...), score=1.0)``, are fewer by far and miss what is darker than its surroundings.

    Parameters
    ----------
    volume
        Tomogram.
    spacing
        Å between neighbours. An encoder bears a box that is off centre by about a tenth of it.
    edge
        Å, the least from a particle to every face of the volume.
    exclude, within
        Masks, as in `difference_of_gaussians`.
    tilts, tomogram
        For the table.

    Returns
    -------
    DataFrame
        Particle table.

    Raises
    ------
    ValueError
        If the spacing is not positive, a mask has another shape, or there would be more than 10 million particles.
    """
    if not spacing > 0 or not edge >= 0:
        raise ValueError(f"spacing must be positive and edge not negative, got {spacing:g} and {edge:g} Å")
    named = _named(exclude)
    _check_masks(volume, named if within is None else {**named, "within": within})
    period = 2 * spacing / np.sqrt(3)
    count = 2 * np.prod(np.maximum((volume.extent - 2 * edge) / period, 0))
    if count > MOST:
        raise ValueError(f"a spacing of {spacing:g} Å gives about {count:.3g} particles, above {MOST}; use a wider one")
    last = (np.array(volume.shape) - 1) * volume.voxel_size
    parts = []
    for shift in (0.0, period / 2):
        axes = [np.arange(edge + shift, end - edge + 1e-6, period) for end in last]
        parts.append(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3))
    places = np.concatenate(parts)
    fate = _fate(places / volume.voxel_size, volume, margin=edge, exclude=named, within=within)
    return particles.table(places[fate == FREE], tomogram=tomogram, tilts=tilts)


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
    _check_masks(volume, masks)
    if volume.data.min() == volume.data.max():
        raise ValueError(f"there is nothing to pick: the volume is {volume.data.flat[0]:g} everywhere")


def _check_masks(volume: Volume, masks: Mapping[str, np.ndarray]) -> None:
    for name, mask in masks.items():
        if np.shape(mask) != volume.shape:
            told = "the mask" if name == EXCLUDED else f"the mask {name!r}"
            raise ValueError(f"{told} must have the shape of the volume, {volume.shape}, got {np.shape(mask)}")


def _fate(
    places: np.ndarray,
    volume: Volume,
    *,
    margin: float | np.ndarray,
    exclude: Mapping[str, np.ndarray],
    within: np.ndarray | None,
) -> np.ndarray:
    """What the masks make of each place (n, 3), in voxels; the first reason counts: edge, then excluded, then outside."""
    last = np.array(volume.shape) - 1
    voxels = np.clip(np.round(places).astype(int), 0, last)
    gap = np.minimum(places, last - places).min(1, initial=np.inf) * volume.voxel_size
    reasons = [(EDGE, gap < margin)]
    index = tuple(voxels.T)
    reasons += [(name, np.asarray(mask)[index].astype(bool)) for name, mask in exclude.items()]
    if within is not None:
        reasons.append((OUTSIDE, ~np.asarray(within)[index].astype(bool)))
    return np.select([taken for _, taken in reasons], [name for name, _ in reasons], FREE).astype(object)
