"""Images are corrected frequency by frequency, and column by column where defocus changes."""

import numpy as np
import pytest
import torch

from tomolab.ctf import Lens, contrast
from tomolab.tomograms import preprocessing

VOXEL = 4.0
SIZE = (32, 600)


def frequencies() -> torch.Tensor:
    ky, kx = torch.fft.fftfreq(SIZE[0])[:, None] / VOXEL, torch.fft.rfftfreq(SIZE[1]) * preprocessing.OVER / VOXEL
    return torch.hypot(ky, kx)


def point(column: int, defocus: float) -> torch.Tensor:
    """A point seen through the CTF, its highest value 1 if no phase were turned over."""
    image = torch.zeros(SIZE)
    image[16, column] = 1
    transfer = contrast(frequencies(), torch.tensor(defocus), Lens())
    flat = torch.fft.irfft2(transfer.abs(), s=SIZE)[0, 0]
    return torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=SIZE) / flat


def test_without_optics_nothing_changes() -> None:
    image = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    assert preprocessing.correct(image, 30.0, voxel_size=VOXEL, radius=600.0) is image


@pytest.mark.parametrize("defocus", [3.0, -3.0])
def test_an_untilted_image_has_one_defocus(defocus: float) -> None:
    found = preprocessing.correct(point(300, defocus), 0.0, voxel_size=VOXEL, radius=600.0, lens=Lens(), defocus=defocus)
    assert float(found[16, 300]) == pytest.approx(1, abs=1e-4)
    assert float(point(300, defocus)[16, 300]) < 0.5


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("tilt", [-60.0, 60.0])
@pytest.mark.parametrize("side", [-250, 250])
def test_columns_take_the_defocus_of_their_height(hand: int, tilt: float, side: int) -> None:
    """A specimen that lies flat in the middle is at z cos t - x sin t, with z = 0 and x cos t where it is seen."""
    height = -side / preprocessing.OVER * VOXEL * np.tan(np.deg2rad(tilt))
    image = point(300 + side, 3.0 + hand * height * 1e-4)
    options = {"voxel_size": VOXEL, "lens": Lens(), "defocus": 3.0}
    found = preprocessing.correct(image, tilt, radius=1e4, hand=hand, **options)
    assert float(found[16, 300 + side]) > 0.97
    assert float(preprocessing.correct(image, tilt, radius=1e4, hand=-hand, **options)[16, 300 + side]) < 0.8


def test_height_ends_with_the_specimen() -> None:
    image = point(550, 3.0 - 0.05 * np.sin(np.pi / 3))
    found = preprocessing.correct(image, 60.0, voxel_size=VOXEL, radius=500.0, lens=Lens(), defocus=3.0)
    assert float(found[16, 550]) > 0.97


def test_weighting_by_one_refines_the_columns() -> None:
    """The blur that linear interpolation will bring is undone, so the sum stays and the columns in between come to be."""
    image = torch.zeros(4, 64)
    image[:] = torch.exp(-((torch.arange(64) - 32) ** 2) / 50.0)
    ones = torch.ones(preprocessing.padded(64) // 2 + 1)
    fine = preprocessing.weight(image, ones)
    assert fine.shape == (4, 128)
    torch.testing.assert_close(fine[:, ::2], image, atol=0.01, rtol=0)
