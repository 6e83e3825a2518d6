"""Reconstruction puts things back where they were, with the right hand, and only where the tilts have seen."""

import numpy as np
import pytest
import torch

from tomolab import fourier, tomograms, volumes
from tomolab.volumes import Volume

TILTS = np.arange(-60, 61, 3.0)
EVERY = np.arange(-90, 90, 3.0)
BEAD = (6.0, -4.0, 9.0)


def spot(shape: tuple[int, int], y: float, x: float, sigma: float = 1.5) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


def shadows(tilts: np.ndarray, size: int = 48, bead: tuple[float, float, float] = BEAD) -> np.ndarray:
    """Images of a bead at zyx from the centre: it lies at x cos t + z sin t."""
    z, y, x = bead
    places = x * np.cos(np.deg2rad(tilts)) + z * np.sin(np.deg2rad(tilts))
    return np.stack([spot((size, size), size // 2 + y, size // 2 + place) for place in places])


def brightest(volume: Volume) -> np.ndarray:
    """Centre of mass, from the centre of the volume in voxels, of what is over half of the highest value."""
    data = np.where(volume.data > volume.data.max() / 2, volume.data, 0)
    grid = np.indices(data.shape).reshape(3, -1)
    return (grid * data.ravel()).sum(1) / data.sum() - np.array(data.shape) // 2


def test_a_bead_comes_back_at_its_place() -> None:
    found = tomograms.reconstruct(shadows(TILTS), TILTS, voxel_size=10.0, shape=(40, 48, 48), invert=False, progress=False)
    assert found.shape == (40, 48, 48)
    assert found.voxel_size == 10.0
    np.testing.assert_allclose(brightest(found), BEAD, atol=0.2)


def test_the_other_sign_of_tilts_gives_the_mirror_image() -> None:
    found = tomograms.reconstruct(shadows(TILTS), -TILTS, voxel_size=10.0, shape=(40, 48, 48), invert=False, progress=False)
    np.testing.assert_allclose(brightest(found), (-6, -4, 9), atol=0.2)


def test_order_of_images_does_not_matter() -> None:
    images = shadows(TILTS)
    order = np.random.default_rng(0).permutation(len(TILTS))
    first = tomograms.reconstruct(images, TILTS, voxel_size=10.0, progress=False)
    second = tomograms.reconstruct(images[order], TILTS[order], voxel_size=10.0, progress=False)
    np.testing.assert_allclose(first.data, second.data, atol=1e-4)


@pytest.mark.parametrize("size", [48, 49])
def test_alignment_is_applied(size: int) -> None:
    """Raw images are made so that ``A r + d`` about the middle, (size - 1) / 2, is the aligned place."""
    z, y, x = BEAD
    rng = np.random.default_rng(1)
    turn = np.deg2rad(rng.uniform(-8, 8, len(TILTS)))
    matrices = np.stack([np.stack([np.cos(turn), -np.sin(turn)], 1), np.stack([np.sin(turn), np.cos(turn)], 1)], 1)
    shifts = rng.uniform(-5, 5, (len(TILTS), 2))
    images = []
    for tilt, matrix, shift in zip(np.deg2rad(TILTS), matrices, shifts, strict=True):
        aligned = np.array([x * np.cos(tilt) + z * np.sin(tilt), y])
        raw = np.linalg.solve(matrix, aligned - shift) + (size - 1) / 2
        images.append(spot((size, size), raw[1], raw[0]))
    found = tomograms.reconstruct(
        images, TILTS, voxel_size=10.0, transforms=(matrices, shifts), shape=(40, 48, 48), invert=False, progress=False
    )
    np.testing.assert_allclose(brightest(found), BEAD, atol=0.2)


@pytest.mark.parametrize("voxel_size", [20.0, 13.0])
def test_binning_keeps_places_in_angstrom(voxel_size: float) -> None:
    images = shadows(TILTS, 96, (12.0, -8.0, 18.0))
    found = tomograms.reconstruct(images, TILTS, pixel_size=10.0, voxel_size=voxel_size, invert=False, progress=False)
    assert found.shape[1] == round(960 / voxel_size)
    np.testing.assert_allclose(brightest(found) * voxel_size, (120, -80, 180), atol=4)


def test_every_tilt_gives_the_phantom_back(phantom: Volume) -> None:
    images = tomograms.project(phantom, EVERY)
    found = tomograms.reconstruct(images, EVERY, voxel_size=10.0, shape=phantom.shape, invert=False, progress=False)
    curve = fourier.shell_correlation(torch.from_numpy(found.data), torch.from_numpy(phantom.data))
    assert curve[1:9].min() > 0.9
    assert np.corrcoef(found.data.ravel(), phantom.data.ravel())[0, 1] > 0.97


def test_measured_contrast_is_inverted(phantom: Volume) -> None:
    dark = 100 - tomograms.project(phantom, EVERY)
    found = tomograms.reconstruct(dark, EVERY, voxel_size=10.0, shape=phantom.shape, progress=False)
    assert np.corrcoef(found.data.ravel(), phantom.data.ravel())[0, 1] > 0.97


def test_the_missing_wedge_is_empty(phantom: Volume) -> None:
    lopsided = TILTS[TILTS <= 30]
    wide = volumes.fit(phantom, 64)
    found = tomograms.reconstruct(
        tomograms.project(wide, lopsided), lopsided, voxel_size=10.0, shape=wide.shape, invert=False, progress=False
    )
    power = torch.fft.rfftn(torch.from_numpy(found.data)).abs() ** 2
    inside = fourier.radius((64, 64, 64)) < 0.4
    seen, mirrored = (fourier.wedge(64, *tilts)[0] > 0 for tilts in ((-61.5, 31.5), (-31.5, 61.5)))
    assert power[inside & ~seen].sum() / power[inside].sum() < 0.05
    assert power[inside & ~mirrored].sum() / power[inside].sum() > 0.1


def test_a_hot_pixel_does_not_spoil_the_volume() -> None:
    images = shadows(TILTS) + np.random.default_rng(2).normal(0, 0.2, (len(TILTS), 48, 48))
    images[7, 5, 5] = 1e6
    found = tomograms.reconstruct(images, TILTS, voxel_size=10.0, shape=(40, 48, 48), invert=False, progress=False)
    np.testing.assert_allclose(brightest(found), BEAD, atol=0.5)


def test_projection_sums_along_the_beam(phantom: Volume) -> None:
    images = tomograms.project(phantom, [0.0, 37.0, 90.0])
    assert images.shape == (3, 32, 32)
    np.testing.assert_allclose(images[0], phantom.data.sum(0), atol=0.01 * images[0].max())
    np.testing.assert_allclose(images.sum((1, 2)), phantom.data.sum(), rtol=1e-3)
    # At 90 degrees the image's x is the volume's z.
    np.testing.assert_allclose(images[2], phantom.data.sum(2).T, atol=0.01 * images[2].max())


def test_projection_sees_a_bead_where_it_is() -> None:
    grid = np.indices((32, 40, 48)) - np.array([16, 20, 24])[:, None, None, None]
    bead = np.exp(-((grid - np.array(BEAD)[:, None, None, None]) ** 2).sum(0) / (2 * 1.5**2))
    images = tomograms.project(Volume(bead, 10.0), TILTS, width=64)
    expected = 24 + 8 + BEAD[2] * np.cos(np.deg2rad(TILTS)) + BEAD[0] * np.sin(np.deg2rad(TILTS))
    mass = images.sum(1)
    np.testing.assert_allclose((mass * np.arange(64)).sum(1) / mass.sum(1), expected, atol=0.1)


def test_increments_give_every_angle_its_share() -> None:
    np.testing.assert_allclose(np.rad2deg(tomograms.increments(EVERY)), 3)
    np.testing.assert_allclose(np.rad2deg(tomograms.increments(TILTS)), 3)
    np.testing.assert_allclose(np.rad2deg(tomograms.increments([20, -10, 0, 4])), [16, 10, 7, 10])
    np.testing.assert_allclose(np.rad2deg(tomograms.increments([0, 0, 10])), [5, 5, 10])


def test_clip_limits_outliers() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    values[3] = 1e5
    clipped = volumes.clip(values, 5.0)
    assert clipped.max() < 40
    torch.testing.assert_close(clipped[4:], values[4:])
    with pytest.raises(ValueError, match="must be positive, got -1"):
        volumes.clip(values, -1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tilts": TILTS[:-1]}, "40 tilts for 41 images"),
        ({"tilts": TILTS * 2}, "within ±90°"),
        ({"stack": np.ones((3, 4))}, r"shape \(n, y, x\), got shape \(3, 4\)"),
        ({"transforms": (np.ones((40, 2, 2)), np.ones((40, 2)))}, r"\(41, 2, 2\).*got shapes \(40, 2, 2\)"),
        ({"transforms": (np.ones((41, 2, 2)), np.ones((41, 2)))}, "cannot be inverted"),
        ({"voxel_size": 0.0}, "voxel_size must be a positive number of Å, got 0"),
        ({"pixel_size": -1.0}, "pixel_size must be a positive number of Å, got -1"),
        ({"shape": (10, 0, 10)}, "three positive whole numbers"),
        ({"stack": np.ones((41, 8, 8))}, "image 0 is constant"),
    ],
)
def test_bad_input_is_refused(change: dict, message: str) -> None:
    given = {"stack": shadows(TILTS, 16), "tilts": TILTS, "voxel_size": 10.0, "progress": False} | change
    stack, tilts = given.pop("stack"), given.pop("tilts")
    with pytest.raises(ValueError, match=message):
        tomograms.reconstruct(stack, tilts, **given)


def test_nan_is_refused_by_image() -> None:
    images = shadows(TILTS, 16)
    images[5, 2, 2] = np.nan
    with pytest.raises(ValueError, match="image 5 holds 1 values that are NaN"):
        tomograms.reconstruct(images, TILTS, voxel_size=10.0, progress=False)


def test_an_absent_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda' was asked for"):
        tomograms.reconstruct(shadows(TILTS, 16), TILTS, voxel_size=10.0, device="cuda", progress=False)
