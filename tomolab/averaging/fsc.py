"""Takes two half maps; gives their Fourier shell correlation, corrected for the mask, and the resolution at a threshold.

The edge of a mask is the same in both maps and makes them correlate. This part of the correlation is measured with maps whose
phases are random beyond some frequency, and subtracted (Chen et al. 2013, Ultramicroscopy 135, 24).

>>> curve = correlate(half1, half2, diameter_voxels=24)
>>> resolution_at(curve, THRESHOLD)
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import fourier
from tomolab.volumes import Volume, apply_mask

THRESHOLD = 0.143
"""FSC of two half maps at which their sum correlates to 0.5 with the true density (Rosenthal and Henderson 2003)."""
RANDOMISE_FROM = 0.8
"""Phases are made random from the first shell on in which the FSC without a mask is lower than this."""
DRAWS = 8
"""How often phases are randomised; the mean counts, since a shell of a small box has few coefficients."""


def correlate(
    half1: Volume, half2: Volume, *, weight: Tensor | None = None, diameter_voxels: float | None = None
) -> pd.DataFrame:
    """Fourier shell correlation of two maps, corrected for the mask.

    Parameters
    ----------
    half1, half2
        Cubic maps of one shape.
    weight
        Weight of each point of the rfftn grid, such as the product of the sampling of both maps.
    diameter_voxels
        Of the soft spherical mask; the box by default.

    Returns
    -------
    DataFrame
        From coarse to fine: ``resolution`` in Å; ``fsc``, corrected; ``masked``, not corrected; ``unmasked``, without mask;
        ``randomised``, with the mask and random phases (missing before the first shell with random phases).

    Raises
    ------
    ValueError
        If the maps are not cubes of one shape, or the sphere does not fit the box.
    """
    if half1.shape != half2.shape or len(set(half1.shape)) != 1:
        raise ValueError(f"half maps are cubes of one shape, got {half1} and {half2}")
    maps = [torch.from_numpy(volume.data).double() for volume in (half1, half2)]
    diameter = half1.shape[0] if diameter_voxels is None else diameter_voxels
    if not 0 < diameter <= 3**0.5 * half1.shape[0]:
        raise ValueError(f"the diameter is in voxels, of a sphere in boxes of {half1.shape[0]}, got {diameter:g}")
    weight = None if weight is None else weight.cpu()

    def curve(first: Tensor, second: Tensor) -> np.ndarray:
        return fourier.shell_correlation(first, second, weight=weight)[1:].double().numpy()

    def masked_curve(first: Tensor, second: Tensor) -> np.ndarray:
        return curve(apply_mask(first, diameter), apply_mask(second, diameter))

    unmasked, masked = curve(*maps), masked_curve(*maps)
    below = np.flatnonzero(unmasked < RANDOMISE_FROM)
    # The table begins with shell 1, which always keeps its phases.
    first = max(2, int(below[0]) + 1 if len(below) else len(unmasked) + 1)
    randomised = np.full(len(masked), np.nan)
    if first <= len(masked):
        pairs = [[_randomised(one, first, seed=2 * draw + i) for i, one in enumerate(maps)] for draw in range(DRAWS)]
        randomised[first - 1 :] = np.mean([masked_curve(*pair) for pair in pairs], axis=0)[first - 1 :]
    # A soft mask mixes neighbouring shells: the first random shell still holds some of the phases that were kept.
    by_mask = np.where(np.arange(len(masked)) >= first + 1, randomised, 0).clip(0, 0.99)
    corrected = (masked - by_mask) / (1 - by_mask)
    resolution = half1.extent[0] / np.arange(1, len(masked) + 1)
    columns = {"fsc": corrected, "masked": masked, "unmasked": unmasked, "randomised": randomised}
    return pd.DataFrame({"resolution": resolution, **columns})


def _randomised(density: Tensor, first: int, *, seed: int) -> Tensor:
    """A density (z, y, x) with random phases from shell `first` on and the same amplitudes."""
    noise = torch.randn(density.shape, generator=torch.Generator().manual_seed(seed), dtype=density.dtype)
    # The phases of real noise have the symmetry of the transform of a real map.
    phases = torch.fft.rfftn(noise)
    transform = torch.fft.rfftn(density)
    random = transform.abs() * phases / phases.abs().clamp_min(1e-30)
    return torch.fft.irfftn(torch.where(fourier.shells(density.shape) >= first, random, transform), s=density.shape)


def resolution_at(fsc: pd.DataFrame, threshold: float) -> float:
    """Resolution in Å where an FSC table first falls below `threshold`, interpolated in frequency; the finest if never."""
    frequency = 1 / fsc["resolution"].to_numpy()
    return float(1 / min(first_crossing(frequency, fsc["fsc"].to_numpy(), threshold), frequency[-1]))


def first_crossing(frequency: np.ndarray, curve: np.ndarray, threshold: float) -> float:
    """Frequency where a curve (n,) first falls below a threshold, linear between the points; infinite if it never does."""
    below = np.flatnonzero(curve < threshold)
    if not len(below) or below[0] == 0:
        return float(frequency[0] if len(below) else np.inf)
    i = below[0]
    share = (curve[i - 1] - threshold) / (curve[i - 1] - curve[i])
    return float(frequency[i - 1] + share * (frequency[i] - frequency[i - 1]))


def fsc_weights(fsc: np.ndarray, box: int) -> Tensor:
    """Weights sqrt(2 FSC / (1 + FSC)) on the rfftn grid, 0 from where the FSC first falls below 0.143."""
    below = np.flatnonzero(fsc < THRESHOLD)
    kept = np.where(np.arange(len(fsc)) < (below[0] if len(below) else len(fsc)), fsc, 0).clip(0)
    weights = np.sqrt(2 * kept / (1 + kept))
    # The first shell always stays, so that an average without signal is not an empty map.
    weights[0] = max(weights[0], 0.1)
    radius = (fourier.radius((box,) * 3) * box).numpy()
    return torch.from_numpy(np.interp(radius, np.arange(len(fsc) + 1), np.append(weights[0], weights))).float()
