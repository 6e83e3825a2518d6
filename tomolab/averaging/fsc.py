"""Two half maps in, their Fourier shell correlation out, corrected for the mask, and the resolution at which it falls.

Within a mask both maps have the same edge, which correlates however unlike they are. How much that is, is measured: beyond a
frequency the phases of both are made random, and what they then still share within the mask is taken off (Chen et al. 2013,
Ultramicroscopy 135, 24).

>>> curve = correlate(half1, half2, diameter=24)
>>> crossing(curve, THRESHOLD)
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import fourier
from tomolab.volumes import Volume, apply_mask

THRESHOLD = 0.143
"""FSC of two half maps at which the sum of them correlates to 0.5 with the true density (Rosenthal and Henderson 2003)."""
ALIKE = 0.8
"""Phases are made random from the shell on where the FSC without a mask first falls under this; there, agreement is real."""
DRAWS = 8
"""Times that phases are made random, of which the mean counts: the shells of small boxes hold few numbers."""


def correlate(half1: Volume, half2: Volume, *, weight: Tensor | None = None, diameter: float | None = None) -> pd.DataFrame:
    """Fourier shell correlation of two maps, corrected for the mask.

    Parameters
    ----------
    half1, half2
        Cubic maps of one shape.
    weight
        How much each point of the rfftn grid counts, such as the product of the sampling of both maps.
    diameter
        Voxels, of the soft sphere inside which they are compared; the box by default.

    Returns
    -------
    DataFrame
        From coarse to fine: ``resolution`` in Å; ``fsc``, corrected; ``masked``, before; ``unmasked``, of the whole maps;
        ``randomised``, of the same mask about maps that agree in nothing from some shell on (missing before it).

    Raises
    ------
    ValueError
        If the maps are no cubes of one shape, or the sphere is none inside them.
    """
    if half1.shape != half2.shape or len(set(half1.shape)) != 1:
        raise ValueError(f"half maps are cubes of one shape, got {half1} and {half2}")
    maps = [torch.from_numpy(volume.data).double() for volume in (half1, half2)]
    across = half1.shape[0] if diameter is None else diameter
    if not 0 < across <= 3**0.5 * half1.shape[0]:
        raise ValueError(f"diameter is in voxels, of a sphere in boxes of {half1.shape[0]}, got {across:g}")
    weight = None if weight is None else weight.cpu()

    def shells(first: Tensor, second: Tensor) -> np.ndarray:
        return fourier.shell_correlation(first, second, weight=weight)[1:].double().numpy()

    def inside(first: Tensor, second: Tensor) -> np.ndarray:
        return shells(apply_mask(first, across), apply_mask(second, across))

    unmasked, masked = shells(*maps), inside(*maps)
    below = np.flatnonzero(unmasked < ALIKE)
    # Shell number, of which the first in the table has 1; agreement on the first is never put in question.
    first = max(2, int(below[0]) + 1 if len(below) else len(unmasked) + 1)
    randomised = np.full(len(masked), np.nan)
    if first <= len(masked):
        pairs = [[_scrambled(one, first, seed=2 * draw + i) for i, one in enumerate(maps)] for draw in range(DRAWS)]
        randomised[first - 1 :] = np.mean([inside(*pair) for pair in pairs], axis=0)[first - 1 :]
    # A soft mask smears each shell over its neighbours: next to the kept shells the random ones are not random yet.
    shared = np.where(np.arange(len(masked)) >= first + 1, randomised, 0).clip(0, 0.99)
    corrected = (masked - shared) / (1 - shared)
    resolution = half1.extent[0] / np.arange(1, len(masked) + 1)
    columns = {"fsc": corrected, "masked": masked, "unmasked": unmasked, "randomised": randomised}
    return pd.DataFrame({"resolution": resolution, **columns})


def _scrambled(density: Tensor, first: int, *, seed: int) -> Tensor:
    """A density (z, y, x) whose phases are random from shell `first` on; amplitudes stay."""
    noise = torch.randn(density.shape, generator=torch.Generator().manual_seed(seed), dtype=density.dtype)
    # The phases of real noise have the symmetry that makes a real map.
    phases = torch.fft.rfftn(noise)
    transform = torch.fft.rfftn(density)
    shell = (fourier.radius(density.shape) * density.shape[0]).round()
    random = transform.abs() * phases / phases.abs().clamp_min(1e-30)
    return torch.fft.irfftn(torch.where(shell >= first, random, transform), s=density.shape)


def crossing(fsc: pd.DataFrame, threshold: float) -> float:
    """Resolution in Å at which an FSC table first falls under `threshold`, interpolated in frequency; the finest if never."""
    frequency = 1 / fsc["resolution"].to_numpy()
    return float(1 / min(falls(frequency, fsc["fsc"].to_numpy(), threshold), frequency[-1]))


def falls(frequency: np.ndarray, curve: np.ndarray, threshold: float) -> float:
    """Frequency at which a curve (n,) first falls under a threshold, linear between the points; infinite if it never does."""
    below = np.flatnonzero(curve < threshold)
    if not len(below):
        return float(np.inf)
    if below[0] == 0:
        return float(frequency[0])
    i = below[0]
    share = (curve[i - 1] - threshold) / (curve[i - 1] - curve[i])
    return float(frequency[i - 1] + share * (frequency[i] - frequency[i - 1]))


def fsc_weights(fsc: np.ndarray, box: int) -> Tensor:
    """Weights sqrt(2 FSC / (1 + FSC)) on the rfftn grid, 0 from where the FSC first falls to 0.143."""
    below = np.flatnonzero(fsc < THRESHOLD)
    kept = np.where(np.arange(len(fsc)) < (below[0] if len(below) else len(fsc)), fsc, 0).clip(0)
    weights = np.sqrt(2 * kept / (1 + kept))
    # The first shell is always shown, lest an average without signal be an empty map.
    weights[0] = max(weights[0], 0.1)
    radius = (fourier.radius((box,) * 3) * box).numpy()
    return torch.from_numpy(np.interp(radius, np.arange(len(fsc) + 1), np.append(weights[0], weights))).float()
