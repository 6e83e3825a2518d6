"""Weights are held against what they stand for: every angle's share, and iterations that were really made."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tomolab.tomograms import filters, preprocessing, projection
from tomolab.volumes import Volume

TILTS = np.arange(-60, 61, 3.0)


def test_increments_give_every_angle_its_share() -> None:
    np.testing.assert_allclose(np.rad2deg(filters.angular_widths(np.arange(-90, 90, 3.0))), 3)
    np.testing.assert_allclose(np.rad2deg(filters.angular_widths(TILTS)), 3)
    np.testing.assert_allclose(np.rad2deg(filters.angular_widths([20, -10, 0, 4])), [16, 10, 7, 10])
    np.testing.assert_allclose(np.rad2deg(filters.angular_widths([0, 0, 10])), [5, 5, 10])


def test_exact_weights_are_the_ramp_where_many_tilts_overlap_and_flat_where_none_do() -> None:
    tilts = np.arange(-90, 90, 1.0)
    exact, ramp = (filters.filters(kind, tilts, length=2048, thickness=40) for kind in ("exact", "ramp"))
    k = torch.fft.rfftfreq(2048) * 2
    low, high = (k > 0.1) & (k < 0.3), k * 40 * np.sin(np.deg2rad(1)) > 1
    torch.testing.assert_close(exact[:, low], ramp[:, low], rtol=0.08, atol=0)
    torch.testing.assert_close(exact[:, high], torch.full_like(exact[:, high], 1 / 40))


def test_uneven_tilts_count_by_what_only_they_see() -> None:
    exact = filters.filters("exact", [0.0, 1.0, 2.0, 40.0], length=256, thickness=20)
    assert (exact[3, 12:] > 2 * exact[1, 12:]).all()


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_sirt_weights_come_to_what_iterations_come_to(iterations: int) -> None:
    """Landweber's iterations, ``f + Aᵀ(p - A f) / (tilts × thickness)``, with the matrix A of a plane (z, x)."""
    depth, width, pixels = 16, 48, 72
    # Along y nothing is mixed, so that it can count the voxels of the plane.
    unit = np.eye(depth * width, dtype=np.float32).reshape(depth, width, -1).transpose(0, 2, 1)
    matrix = projection.project(Volume(unit, 10.0), TILTS, width=pixels, progress=False)
    matrix = matrix.transpose(0, 2, 1).reshape(-1, depth * width)
    noise = np.pad(np.random.default_rng(0).normal(size=(depth - 6, width - 20)), ((3, 3), (10, 10)))
    images = matrix @ gaussian_filter(noise, 1.5).ravel().astype(np.float32)
    expected = np.zeros(depth * width, dtype=np.float32)
    for _ in range(iterations):
        expected += matrix.T @ (images - matrix @ expected) / (len(TILTS) * depth)
    columns = projection.columns_needed(pixels, TILTS, (depth, width))
    weights = filters.filters("sirt", TILTS, length=preprocessing.padded(columns // 2), thickness=depth, iterations=iterations)
    fine = []
    for row, weight in zip(images.reshape(len(TILTS), 1, pixels), weights, strict=True):
        image = torch.from_numpy(np.repeat(row, 8, 0))
        image = torch.fft.irfft(torch.fft.rfft(image, dim=1), n=2 * pixels, dim=1) * 2
        image = preprocessing.align(image.repeat_interleave(2, 0), (8, pixels), 1.0, transform=None, size=(8, columns // 2))
        fine.append(preprocessing.weight(image, weight).T)
    found = projection.back_project(torch.stack(fine), TILTS, (depth, 8, width), progress=False)[:, 4]
    assert np.corrcoef(found.ravel(), expected)[0, 1] > 0.98
    assert np.polyfit(expected, found.ravel(), 1)[0] == pytest.approx(1, abs=0.12)


def test_wrong_weightings_are_refused() -> None:
    with pytest.raises(ValueError, match="one of ramp, exact, sirt, got 'none'"):
        filters.filters("none", TILTS, length=64, thickness=10)
    with pytest.raises(ValueError, match="got 0 voxels and 10"):
        filters.filters("exact", TILTS, length=64, thickness=0)
