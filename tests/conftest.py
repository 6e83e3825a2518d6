"""Fixtures shared by all tests: a phantom without symmetry."""

import numpy as np
import pytest

from tomolab.volumes import Volume


def blob(box: int, at: tuple[float, float, float], sigma: float) -> np.ndarray:
    """Gaussian of width `sigma` voxels at a zyx offset from the centre of the box."""
    axes = np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij")
    return np.exp(-sum((axis - place) ** 2 for axis, place in zip(axes, at, strict=True)) / (2 * sigma**2))


@pytest.fixture(scope="session")
def phantom() -> Volume:
    """32 voxels of 10 Å: three unequal arms and a bead off the axes, so no rotation or mirror maps it onto itself."""
    data = np.zeros((32, 32, 32))
    for arm, length in enumerate((9, 6, 4)):
        for step in np.linspace(0, length, 2 * length):
            place = [0.0, 0.0, 0.0]
            place[arm] = step
            data += 0.3 * blob(32, tuple(place), 1.5)
    data += 1.5 * blob(32, (-4, 3, 5), 1.5)
    return Volume(data, 10.0)
