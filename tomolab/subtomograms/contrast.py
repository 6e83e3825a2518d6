"""Takes a tomogram, tells whether its protein is bright or dark, and refuses a contrast that was stated the other way round.

What is dense in a specimen, as complexes, granules and gold, is compact and fills less room than what is not. So densities of
a tomogram, filtered to the size of complexes, have a long tail on the side of protein: their skewness is positive where
protein is bright. It is measured in blocks all over the tomogram, and counts only where most blocks agree.

>>> measure(io.open_volume("TS_01.mrc"))
'dark'
"""

from itertools import product

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from tomolab.io.volumes.tomogram import Tomogram
from tomolab.volumes import block_mean, clip

SIZE = 150.0
"""Å, of the complexes to which densities are filtered."""
VOXEL = 20.0
"""Å, to which finer tomograms are binned."""
BLOCK, MOST = 32, 4
"""Edge of the largest block in binned voxels, and most blocks along an axis."""
SMALLEST, FEWEST = 12, 8
"""Least edge of a block in binned voxels, and blocks from which on the contrast is measured."""
LIMIT = 5.0
"""Standard deviations at which densities are clipped, because the rims of gold beads would outweigh all else in a block."""
SURE, AGREEING = 4.0, 2 / 3
"""Standard errors that the mean skewness must differ from 0, and share of the blocks that must have its sign."""


def measure(tomogram: Tomogram) -> str | None:
    """Measure whether protein is "bright" or "dark" in a tomogram; None where that cannot be told.

    Simulated and measured tomograms with bright protein had mean skewnesses of 5 to 15 standard errors; noise has about 0.
    """
    step = max(1, int(VOXEL / tomogram.voxel_size + 0.01))
    sigma = SIZE / tomogram.voxel_size / step / (2 * np.sqrt(3))
    starts = [_starts(n // step) for n in tomogram.shape]
    if np.prod([len(one) for one in starts]) < FEWEST:
        return None
    found = np.array([_skewness(tomogram, corner, step=step, sigma=sigma) for corner in product(*starts)])
    error = found.std(ddof=1) / np.sqrt(len(found))
    mean = found.mean()
    if abs(mean) <= SURE * error or (np.sign(found) == np.sign(mean)).mean() < AGREEING:
        return None
    return "bright" if mean > 0 else "dark"


def check(tomogram: Tomogram, contrast: str) -> None:
    """Raise a ValueError if a tomogram clearly has the other contrast than the one that is stated, "bright" or "dark"."""
    measured = measure(tomogram)
    if measured not in (None, contrast):
        raise ValueError(
            f'protein is {measured} in {tomogram.name}, as its densities show, but contrast="{contrast}" was stated: '
            f'state contrast="{measured}". If the picture shows that the measurement is wrong, state check_contrast=False'
        )


def _starts(length: int) -> list[tuple[int, int]]:
    """First binned voxel and edge of the blocks along an axis, spread evenly."""
    count = min(MOST, length // SMALLEST)
    if count == 0:
        return []
    room = length // count
    edge = min(room, BLOCK)
    return [(i * room + (room - edge) // 2, edge) for i in range(count)]


def _skewness(tomogram: Tomogram, corner: tuple[tuple[int, int], ...], *, step: int, sigma: float) -> float:
    """Skewness of the filtered densities in a block, 0 if all are equal."""
    margin = int(np.ceil(3 * sigma))
    ends = [n // step for n in tomogram.shape]
    low = [max(0, start - margin) for start, _ in corner]
    high = [min(n, start + edge + margin) for n, (start, edge) in zip(ends, corner, strict=True)]
    data = block_mean(tomogram.read(tuple(slice(a * step, b * step) for a, b in zip(low, high, strict=True))), step)
    data = clip(torch.from_numpy(data), LIMIT).numpy()
    filtered = gaussian_filter(data, sigma, truncate=3) - gaussian_filter(data, 1.6 * sigma, truncate=3)
    values = filtered[tuple(slice(start - a, start - a + edge) for a, (start, edge) in zip(low, corner, strict=True))]
    values = values - values.mean()
    return float((values**3).mean() / values.std() ** 3) if values.std() else 0.0
