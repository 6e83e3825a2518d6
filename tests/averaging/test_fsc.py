"""Resolution: the mask's part in the correlation is found and taken off, what is real stays."""

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import fourier
from tomolab.averaging import fsc as fsc_curves
from tomolab.volumes import Volume, fit


def noise(box: int, seed: int, *, sigma: float = 1.0) -> np.ndarray:
    return sigma * np.random.default_rng(seed).standard_normal((box,) * 3).astype(np.float32)


def limited(density: np.ndarray, radius: float) -> np.ndarray:
    """Only the detail up to `radius` cycles per box."""
    transform = torch.fft.rfftn(torch.from_numpy(density))
    shell = fourier.radius(density.shape) * len(density)
    return torch.fft.irfftn(transform * (shell <= radius), s=density.shape).numpy()


def test_a_tight_mask_makes_noise_alike_and_that_is_taken_off() -> None:
    """Coarse signal cut by a mask shows in all shells of both halves."""
    coarse = limited(noise(32, 0), 3)
    halves = [Volume(3 * coarse / coarse.std() + noise(32, seed), 10.0) for seed in (1, 2)]
    table = fsc_curves.correlate(*halves, diameter_voxels=10)
    assert list(table) == ["resolution", "fsc", "masked", "unmasked", "randomised"]
    assert table["masked"].iloc[6:14].mean() > 0.4
    assert abs(table["fsc"].iloc[6:14].mean()) < 0.15
    assert table["fsc"].iloc[:3].min() > 0.98
    assert table["randomised"].isna().tolist() == [True] * 3 + [False] * 13


def test_what_is_real_stays(phantom: Volume) -> None:
    """Signal to 8 cycles and white noise: the corrected curve falls where the signal ends, not before."""
    signal = limited(phantom.data, 8)
    sigma = 0.3 * float(signal.std())
    halves = [Volume(signal + noise(32, seed, sigma=sigma), 10.0) for seed in (3, 4)]
    table = fsc_curves.correlate(*halves, diameter_voxels=24)
    assert table["fsc"].iloc[:6].min() > 0.8
    assert abs(table["fsc"].iloc[9:]).max() < 0.35
    assert 320 / 9.5 < fsc_curves.resolution_at(table, 0.143) < 320 / 7


def test_a_map_agrees_with_itself_wherever_it_is_masked(phantom: Volume) -> None:
    for diameter in (None, 12, 20):
        table = fsc_curves.correlate(phantom, phantom, diameter_voxels=diameter)
        assert table["fsc"].to_numpy() == pytest.approx(np.ones(16), abs=1e-6)
        assert table["randomised"].isna().all()


def test_the_same_maps_give_the_same_curve(phantom: Volume) -> None:
    other = Volume(phantom.data + noise(32, 6), 10.0)
    one, two = (fsc_curves.correlate(phantom, other, diameter_voxels=16) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_maps_of_two_sizes_are_refused(phantom: Volume) -> None:
    with pytest.raises(ValueError, match="half maps are cubes of one shape"):
        fsc_curves.correlate(phantom, fit(phantom, 24), diameter_voxels=16)


@pytest.mark.parametrize("diameter", [300.0, 0.0, -4.0, np.nan])
def test_a_sphere_that_is_none_is_refused(phantom: Volume, diameter: float) -> None:
    """As an Å for a voxel is, which would leave nothing that correlates."""
    with pytest.raises(ValueError, match=r"in voxels.*boxes of 32, got"):
        fsc_curves.correlate(phantom, phantom, diameter_voxels=diameter)


def test_crossing_is_interpolated_in_frequency() -> None:
    fsc = pd.DataFrame({"resolution": [400.0, 200.0, 400 / 3], "fsc": [0.9, 0.243, 0.043]})
    assert fsc_curves.resolution_at(fsc, 0.143) == pytest.approx(400 / 2.5)
    assert fsc_curves.resolution_at(fsc, 0.01) == pytest.approx(400 / 3)
    assert fsc_curves.resolution_at(fsc, 0.95) == pytest.approx(400)
