"""Tilts in, weights of back-projection out: how much each tilt counts at each frequency, so that their sum is flat.

Tilts overlap near the tilt axis in Fourier space, and count less there. All weights are functions of the frequency across the
tilt axis, in cycles per voxel.

>>> weights = filters("exact", np.arange(-60, 61, 3.0), length=1024, thickness=200)
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from tomolab.tomograms.projection import check_tilts

WEIGHTINGS = ("ramp", "exact", "sirt")


def filters(
    weighting: str, tilts: ArrayLike, *, length: int, spacing: float = 0.5, thickness: float, iterations: int = 10
) -> Tensor:
    """Weights (n, length // 2 + 1) of n tilts, on the rfft grid of `length` columns.

    Parameters
    ----------
    weighting
        "ramp": ``|k|`` times the width of the tilt, as if there were a tilt at every angle (Radermacher, in Frank, Electron
        Tomography, 2006). "exact": one over the sum of all tilts' overlaps with this one, for an object of `thickness`
        (Harauz & van Heel 1986): a ramp where tilts overlap, flat where they do not. "sirt": the result of `iterations` of
        SIRT, which is the exact filter times ``1 - (1 - e)^iterations`` with the mean overlap e; it keeps low frequencies
        strong and noise low.
    tilts
        n angles in degrees.
    length
        Columns, even.
    spacing
        Voxels per column.
    thickness
        Voxels of the object along the beam; not used for the ramp.
    iterations
        For "sirt".

    Raises
    ------
    ValueError
        If there is no such weighting, or the thickness or the iterations are not positive.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
    if weighting == "ramp":
        return torch.from_numpy(angular_widths(tilts)).float()[:, None] * ramp(length, spacing)
    if not thickness > 0 or not iterations >= 1:
        raise ValueError(f"thickness and iterations must be positive, got {thickness} voxels and {iterations}")
    overlap = _overlap(check_tilts(tilts), torch.fft.rfftfreq(length) / spacing, thickness)
    weights = 1 / (overlap * thickness)
    if weighting == "sirt":
        weights *= 1 - (1 - overlap / len(overlap)) ** iterations
    return weights


def ramp(length: int, spacing: float) -> Tensor:
    """``|k|`` in cycles per voxel, from real space, so that its zero frequency is right (Kak & Slaney, 1988, eq. 3.61)."""
    distance = torch.minimum(torch.arange(length), length - torch.arange(length)).double()
    kernel = torch.where(distance % 2 == 1, -1 / (torch.pi * distance.clamp_min(1)) ** 2, 0.0)
    kernel[0] = 0.25
    return torch.fft.rfft(kernel).real.float() / spacing


def angular_widths(tilts: ArrayLike) -> np.ndarray:
    """Angular width of each tilt in radians: half the angle between its two neighbours, modulo 180°.

    The first and last tilt of a series lie in the middle of their widths, which leaves out the missing wedge.
    """
    # Equal tilts, such as -90 and 90, share one width.
    folded, which, counts = np.unique(np.mod(check_tilts(tilts), 180), return_inverse=True, return_counts=True)
    if len(folded) == 1:
        return 1 / counts[which]
    after = np.diff(folded, append=folded[0] + 180)
    before = np.roll(after, 1)
    last = int(np.argmax(after))
    first = (last + 1) % len(after)
    after[last], before[first] = min(after[last], before[last]), min(before[first], after[first])
    return np.deg2rad((before + after) / 2 / counts)[which]


def _overlap(tilts: np.ndarray, k: Tensor, thickness: float) -> Tensor:
    """Sum over all tilts of their overlap (1 to 0) with each one at frequency k; (n, k).

    The central slice of a tilt is 1 / thickness thick in Fourier space; two slices at an angle are ``|k sin|`` apart.
    """
    radians = torch.from_numpy(np.deg2rad(tilts)).float()
    distances = torch.sin(radians[:, None] - radians).abs()
    # One tilt at a time: all pairs at all frequencies would fill memory for long series of large images.
    return torch.stack([(1 - k * thickness * row[:, None]).clamp_min(0).sum(0) for row in distances])
