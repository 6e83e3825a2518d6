"""Reconstruction puts things back where they were, with the right hand, and only where the tilts have seen."""

import numpy as np
import pytest
import torch

from tomolab import fourier, tomograms, volumes
from tomolab.ctf import Lens, contrast, damage
from tomolab.tomograms import projection
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


@pytest.mark.parametrize("weighting", ["ramp", "exact"])
def test_every_tilt_gives_the_phantom_back(phantom: Volume, weighting: str) -> None:
    """To half of Nyquist and on the same scale: nothing but noise and the missing wedge shall change a specimen."""
    wide = volumes.fit(phantom, 48)
    images = projection.project(wide, EVERY, progress=False)
    options = {"voxel_size": 10.0, "shape": wide.shape, "invert": False, "clip": None, "normalise": False, "progress": False}
    found = tomograms.reconstruct(images, EVERY, weighting=weighting, **options)
    curve = fourier.shell_correlation(torch.from_numpy(found.data), torch.from_numpy(wide.data))
    assert curve[1:13].min() > 0.95
    assert np.polyfit(wide.data.ravel(), found.data.ravel(), 1)[0] == pytest.approx(1, abs=0.03)


def test_a_mirrored_phantom_is_told_apart(phantom: Volume) -> None:
    found = tomograms.reconstruct(
        projection.project(phantom, TILTS, progress=False),
        TILTS,
        voxel_size=10.0,
        shape=phantom.shape,
        invert=False,
        progress=False,
    )
    fits = [np.corrcoef(found.data.ravel(), seen.ravel())[0, 1] for seen in (phantom.data, phantom.data[::-1].copy())]
    assert fits[0] > 0.8
    assert fits[1] < fits[0] - 0.2


def test_measured_contrast_is_inverted(phantom: Volume) -> None:
    dark = 100 - projection.project(phantom, EVERY, progress=False)
    found = tomograms.reconstruct(dark, EVERY, voxel_size=10.0, shape=phantom.shape, progress=False)
    assert np.corrcoef(found.data.ravel(), phantom.data.ravel())[0, 1] > 0.97


def test_the_missing_wedge_is_empty(phantom: Volume) -> None:
    """Less than 1 % of the power, beyond the one voxel of Fourier space to which a box of this size can tell frequencies."""
    lopsided, size = TILTS[TILTS <= 30], 64
    wide = volumes.fit(phantom, size)
    images = projection.project(wide, lopsided, progress=False)
    found = tomograms.reconstruct(images, lopsided, voxel_size=10.0, shape=wide.shape, invert=False, progress=False)
    power = (torch.fft.rfftn(torch.from_numpy(found.data - found.data.mean())).abs() ** 2).sum(1)
    kz, kx = torch.fft.fftfreq(size)[:, None] * size, torch.fft.rfftfreq(size) * size

    def unseen(low: float, high: float) -> float:
        # A tilt sees the direction (cos t, sin t) of (kx, kz); how far a frequency lies beyond the first and the last one.
        above, below = (
            sign * (kz * np.cos(np.deg2rad(tilt)) - kx * np.sin(np.deg2rad(tilt))) for sign, tilt in ((1, high), (-1, low))
        )
        return float(power[(above > 1) | (below > 1)].sum() / power.sum())

    assert unseen(-60, 30) < 0.01
    assert unseen(-30, 60) > 0.05


def test_a_hot_pixel_does_not_spoil_the_volume() -> None:
    images = shadows(TILTS) + np.random.default_rng(2).normal(0, 0.2, (len(TILTS), 48, 48))
    images[7, 5, 5] = 1e6
    found = tomograms.reconstruct(images, TILTS, voxel_size=10.0, shape=(40, 48, 48), invert=False, progress=False)
    np.testing.assert_allclose(brightest(found), BEAD, atol=0.5)


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
        ({"weighting": "none"}, "one of ramp, exact, sirt, got 'none'"),
        ({"weighting": "sirt", "iterations": 0}, "iterations must be positive, got 16 voxels and 0"),
        ({"lens": Lens()}, "needs both lens and defocus"),
        ({"defocus": np.ones(41)}, "needs both lens and defocus"),
        ({"lens": Lens(), "defocus": [3.0]}, "defocus must be a number of µm for each of 41 images"),
        ({"lens": Lens(), "defocus": np.full(41, np.nan)}, "defocus must be a number of µm"),
        ({"lens": Lens(), "defocus": np.ones(41), "hand": 0}, "hand must be 1 or -1, got 0"),
        ({"dose": np.full(41, -1.0)}, "dose must not be negative, got -1"),
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


def imaged(volume: Volume, tilts: np.ndarray, defocus: float) -> np.ndarray:
    """Every slab of a quarter of the height that matters is seen through the CTF of its own height."""
    size = volume.shape[1:]
    ky, kx = torch.fft.fftfreq(size[0])[:, None] / volume.voxel_size, torch.fft.rfftfreq(size[1]) / volume.voxel_size
    images = []
    for tilt in tilts:
        slabs, heights = projection.slabs(torch.from_numpy(volume.data), float(tilt), width=size[1], depth=20.0)
        transfers = [contrast(torch.hypot(ky, kx), defocus + 1e-4 * volume.voxel_size * height, Lens()) for height in heights]
        image = sum(torch.fft.rfft2(slab) * transfer for slab, transfer in zip(slabs, transfers, strict=True))
        images.append(torch.fft.irfft2(image, s=size).numpy())
    return np.stack(images)


def test_phases_are_flipped_along_the_gradient_of_defocus() -> None:
    """At 4 Å per voxel two beads 1000 Å to the left and right of the axis lie up to 870 Å above and below it."""
    data = np.zeros((9, 24, 560), dtype=np.float32)
    data[4, 12, [280 - 250, 280 + 250]] = 1
    tilts = np.arange(-60, 61, 6.0)
    images = imaged(Volume(data, 4.0), tilts, 2.0)
    options = {"voxel_size": 4.0, "shape": data.shape, "invert": False, "clip": None, "normalise": False, "progress": False}

    def peaks(**optics) -> np.ndarray:
        found = tomograms.reconstruct(images, tilts, **options, **optics)
        return found.data[4, 12, [280 - 250, 280 + 250]]

    flip = {"lens": Lens(), "defocus": np.full(len(tilts), 2.0)}
    left, right = peaks(**flip)
    assert left == pytest.approx(right, rel=0.05)
    assert left > 1.3 * peaks(**flip, hand=-1).max()
    assert left > 3 * peaks().max()


def test_dose_damps_what_radiation_has_destroyed(phantom: Volume) -> None:
    images = projection.project(phantom, EVERY, progress=False)
    options = {"voxel_size": 10.0, "shape": phantom.shape, "invert": False, "progress": False}
    plain, damped = (tomograms.reconstruct(images, EVERY, dose=dose, **options) for dose in (None, np.full(len(EVERY), 40.0)))
    ratio = [torch.fft.rfftn(torch.from_numpy(volume.data)).abs() for volume in (damped, plain)]
    k = fourier.radius((32, 32, 32)) / 10.0
    for low, high in ((0.008, 0.012), (0.018, 0.022), (0.028, 0.032)):
        shell = (k > low) & (k < high)
        expected = damage(torch.tensor((low + high) / 2), torch.tensor(40.0))
        assert ratio[0][shell].mean() / ratio[1][shell].mean() == pytest.approx(float(expected), rel=0.05)


def test_an_absent_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda' was asked for"):
        tomograms.reconstruct(shadows(TILTS, 16), TILTS, voxel_size=10.0, device="cuda", progress=False)
