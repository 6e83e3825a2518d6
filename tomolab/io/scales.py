"""Scales: how much the notebooks compute, set once by the environment variable ``TOMOLAB_SCALE``.

``tiny`` is for tests, ``laptop`` for 2 cores without a GPU, ``paper`` for a GPU and the numbers of Xu et al. 2017.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """How much the notebooks compute.

    Parameters
    ----------
    name
        ``tiny``, ``laptop`` or ``paper``.
    voxel_size, box
        Å, and edge of subtomograms in voxels.
    count
        Simulated subtomograms per class.
    epochs, epoch_size
        Training: epochs, and simulated subtomograms in each.
    tomogram_shape, tomogram_count
        Simulated tomogram: voxels (z, y, x), and particles per class in it.
    field
        Pixels (y, x) of 10 Å of a simulated tilt series; 630 by 652 is that of the measured one.
    average_count
        Subtomograms in an average, at most.
    """

    name: str
    voxel_size: float
    box: int
    count: int
    epochs: int
    epoch_size: int
    tomogram_shape: tuple[int, int, int]
    tomogram_count: int
    field: tuple[int, int]
    average_count: int


SCALES = {
    scale.name: scale
    for scale in (
        Scale("tiny", 20.0, 20, 8, 1, 256, (40, 128, 128), 6, (150, 160), 24),
        Scale("laptop", 20.0, 20, 150, 20, 4000, (80, 200, 200), 40, (630, 652), 200),
        Scale("paper", 10.0, 40, 1000, 10, 22000, (200, 500, 500), 100, (630, 652), 1000),
    )
}


def scale() -> Scale:
    """Return the scale that the environment variable ``TOMOLAB_SCALE`` names; ``laptop`` where it is not set.

    Raises
    ------
    ValueError
        If there is no scale of that name.
    """
    name = os.environ.get("TOMOLAB_SCALE") or "laptop"
    if name not in SCALES:
        raise ValueError(f"TOMOLAB_SCALE is {name!r}; it can be {', '.join(SCALES)}")
    return SCALES[name]
