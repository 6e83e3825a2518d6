"""A tilt series shows what is in the specimen, where it is, with the noise, focus and dose that were asked for."""

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import ctf, fourier, particles, tomograms, volumes
from tomolab.simulation import Imaging, Specimen, fiducials, microscope, tilt_series
from tomolab.simulation import specimen as specimens
from tomolab.volumes import Volume

QUIET = Imaging(snr=float("inf"), defocus=None)
BEAD = (60.0, -40.0, 90.0)


def of(volume: Volume, *, places: list[tuple[float, float, float]] | None = None, thickness: float | None = None) -> Specimen:
    """A specimen that is a given density, with complexes listed at some places (Å)."""
    empty = np.zeros(volume.shape, dtype=np.uint8)
    table = particles.table(places or [tuple(volume.extent / 2)], tomogram="simulated", tilts=(-60, 60), label="phantom")
    return Specimen(
        density=volume,
        labels=empty,
        instances=empty,
        accessible=empty == 0,
        names=("phantom",),
        particles=table,
        fiducials=pd.DataFrame(columns=["z", "y", "x", "diameter"], dtype=float),
        report=pd.DataFrame(),
        thickness=thickness or float(volume.extent[0]),
    )


def with_bead(shape: tuple[int, int, int] = (40, 48, 64)) -> Specimen:
    """Ice of 10 Å voxels and one gold bead off its middle."""
    middle = (np.array(shape) // 2) * 10.0 + BEAD
    density = np.zeros(shape, dtype=np.float32)
    corner, share = fiducials.ball_at(middle / 10, 6.0)
    density[tuple(slice(c, c + len(share)) for c in corner)] = fiducials.GOLD * share
    table = pd.DataFrame([[*middle, 60.0]], columns=["z", "y", "x", "diameter"])
    return Specimen(**(vars(of(Volume(density, 10.0))) | {"fiducials": table, "names": ("phantom", specimens.GOLD)}))


def test_gold_absorbs_and_does_nothing_else() -> None:
    assert np.abs(tilt_series._without_gold(with_bead())).max() < 1e-5


def crowd(phantom: Volume, shape: tuple[int, int, int] = (64, 128, 128), count: int = 12) -> Specimen:
    scaled = Volume(phantom.data * 0.5, phantom.voxel_size)
    return specimens.build({"phantom": scaled}, count, shape=shape, seed=2, progress=False)


@pytest.mark.parametrize("defocus", [None, 3.0])
def test_a_bead_is_dark_at_the_predicted_pixel_at_every_tilt(defocus: float | None) -> None:
    imaging = Imaging(snr=float("inf"), defocus=defocus, envelope=None)
    series = tilt_series.acquire(with_bead(), imaging, seed=0, progress=False)
    z, y, x = (offset / 10 for offset in BEAD)
    turn = np.deg2rad(series.tilts)
    expected = 32 + x * np.cos(turn) + z * np.sin(turn)
    dark = np.clip(1 - series.images - 0.1, 0, None)
    assert len(series.images) == 41
    assert dark.max((1, 2)).min() > 0.2
    np.testing.assert_allclose((dark.sum(1) * np.arange(64)).sum(1) / dark.sum((1, 2)), expected, atol=0.25)
    np.testing.assert_allclose((dark.sum(2) * np.arange(48)).sum(1) / dark.sum((1, 2)), 24 + y, atol=0.25)


def test_every_angle_without_noise_gives_the_phantom_back_and_not_its_mirror_image(phantom: Volume) -> None:
    imaging = Imaging(snr=float("inf"), defocus=None, tilts=(-90, 90), tilt_step=2.0)
    wide = volumes.fit(phantom, 48)
    series = tilt_series.acquire(of(wide), imaging, seed=0, progress=False)
    found = tomograms.reconstruct(series.images, series.tilts, voxel_size=10.0, shape=wide.shape, clip=None, progress=False)
    curve = fourier.shell_correlation(torch.from_numpy(found.data), torch.from_numpy(wide.data))
    mirrored = fourier.shell_correlation(torch.from_numpy(found.data), torch.from_numpy(wide.data[:, :, ::-1].copy()))
    # Half of Nyquist is shell 12 of 24.
    assert curve[1:13].min() > 0.95
    # Only the direction of x changed: much of a blob-like phantom is its own mirror image at low resolution.
    assert mirrored[8:13].max() < 0.6


@pytest.mark.parametrize("snr", [0.05, 0.5])
def test_the_tomogram_has_the_snr_that_was_asked_for(phantom: Volume, snr: float) -> None:
    specimen = crowd(phantom)
    options = {"voxel_size": 10.0, "shape": specimen.density.shape, "clip": None, "normalise": False, "progress": False}
    tomogram = {}
    for value in (snr, float("inf")):
        imaging = Imaging(snr=value, defocus=3.0, envelope=20.0)
        series = tilt_series.acquire(specimen, imaging, seed=3, box=32, progress=False)
        tomogram[value] = tomograms.reconstruct(series.images, series.tilts, **options).data
    clean = tomogram[float("inf")]
    corners = np.floor(particles.positions(specimen.particles) / 10).astype(int) - 16
    boxes = [tuple(slice(max(c, 0), c + 32) for c in corner) for corner in corners]
    signal = np.mean([clean[inside].var() for inside in boxes])
    assert signal / (tomogram[snr] - clean).var() == pytest.approx(snr, rel=0.05)


def test_nothing_is_in_the_missing_wedge(phantom: Volume) -> None:
    # Thick enough to hold what 60° smears out of the middle: a face would cut it, and a cut shows in the wedge.
    wide = volumes.fit(Volume(phantom.data, 10.0), 128)
    imaging = Imaging(snr=float("inf"), defocus=2.0, envelope=None)
    series = tilt_series.acquire(of(wide), imaging, seed=0, progress=False)
    found = tomograms.reconstruct(series.images, series.tilts, voxel_size=10.0, shape=wide.shape, clip=None, progress=False)
    power = torch.fft.rfftn(torch.from_numpy(found.data)).abs() ** 2
    power[0, 0, 0] = 0
    inside = fourier.radius(wide.shape) < 0.4
    # The outermost images stand for half a step beyond their tilt.
    seen = fourier.wedge(128, -61.5, 61.5)[0] > 0
    assert power[inside & ~seen].sum() / power[inside].sum() < 0.01


def test_defocus_follows_the_tilted_slab() -> None:
    """Two equal dots left and right of the axis: at 60° each has the rings of its own height, and not of the other's."""
    dots = np.zeros((8, 64, 1024), dtype=np.float32)
    dots[4, 32, 512 - 400], dots[4, 32, 512 + 400] = 1.0, 1.0
    volume = Volume(dots, 5.0)
    imaging = Imaging(snr=float("inf"), defocus=2.0, envelope=None, tilts=(57, 60), amplitude_contrast=0.0, detector_pixel=1e-3)
    series = tilt_series.acquire(of(volume), imaging, seed=0, progress=False)
    image = 1 - series.images[list(series.tilts).index(60.0)]
    ky, kx = torch.fft.fftfreq(64, d=5.0)[:, None], torch.fft.rfftfreq(64, d=5.0)
    k = torch.hypot(ky, kx)
    for side in (-1, 1):
        # x' = x cos t + z sin t; a point at +x is at height -x sin t.
        column = 512 + side * 200
        seen = torch.from_numpy(image[:, column - 32 : column + 32].copy())
        height = -side * 400 * 5.0 * np.sin(np.deg2rad(60))
        fits = []
        for sign in (1, -1):
            rings = ctf.contrast(k, torch.tensor(2.0 + sign * height * 1e-4), Imaging(amplitude_contrast=0.0).lens)
            dot = torch.fft.irfft2(rings * torch.exp(-2j * torch.pi * 5.0 * 32 * (ky + kx)), s=(64, 64))
            fits.append(float(torch.corrcoef(torch.stack([seen.flatten(), dot.flatten()]))[0, 1]))
        assert fits[0] > 0.95
        assert fits[0] > fits[1] + 0.1


def test_dose_adds_up() -> None:
    empty = of(Volume(np.zeros((20, 64, 64)), 10.0), thickness=1500.0)
    imaging = Imaging(snr=None, dose=120.0, defocus=None, detector_pixel=1e-3)
    series = tilt_series.acquire(empty, imaging, seed=1, progress=False)
    assert series.table["exposure"].sum() == pytest.approx(120.0)
    alive = ctf.survivors(1500.0, torch.from_numpy(series.tilts)).numpy()
    np.testing.assert_allclose(series.images.mean((1, 2)), 120 / 41 * 100 * alive, rtol=0.01)
    # Counted electrons vary as much as there are of them.
    np.testing.assert_allclose(series.images.var((1, 2)), series.images.mean((1, 2)), rtol=0.1)


def test_dose_takes_detail_away(phantom: Volume) -> None:
    imaging = Imaging(snr=float("inf"), dose=120.0, defocus=None, tilts=(-3, 3))
    series = tilt_series.acquire(of(phantom), imaging, seed=0, progress=False)
    early, late = (series.images[(series.table["order"] == order).to_numpy()][0] for order in (0, 2))
    lost = np.abs(np.fft.fft2(1 - late)) / np.abs(np.fft.fft2(1 - early))
    assert lost[0, 1] > 0.9
    k = torch.tensor(8 / 320)
    expected = ctf.damage(k, torch.tensor(100.0)) / ctf.damage(k, torch.tensor(20.0))
    assert np.median(lost[7:9, 0:3]) == pytest.approx(float(expected), rel=0.3)


def test_a_bad_alignment_is_told() -> None:
    imaging = Imaging(snr=float("inf"), defocus=None, misalignment=30.0)
    moved, still = (tilt_series.acquire(with_bead(), one, seed=4, progress=False) for one in (imaging, QUIET))
    dark = [np.clip(1 - series.images - 0.1, 0, None) for series in (moved, still)]
    places = [(one.sum(1) * np.arange(64)).sum(1) / one.sum((1, 2)) for one in dark]
    np.testing.assert_allclose((places[0] - places[1]) * 10, moved.table["shift_x"], atol=3)
    assert moved.table["shift_x"].std() == pytest.approx(30, rel=0.4)


def test_a_wider_specimen_leaves_no_edge(phantom: Volume) -> None:
    slab = np.zeros((16, 32, 256), dtype=np.float32)
    slab[4:12] = 0.5
    series = tilt_series.acquire(of(Volume(slab, 10.0)), QUIET, seed=0, field=(32, 96), progress=False)
    assert series.images.shape[1:] == (32, 96)
    at_60 = series.images[-1].mean(0)
    assert np.ptp(at_60) < 0.02 * (1 - at_60.mean())


def test_the_scheme_of_a_measured_series_is_followed(phantom: Volume) -> None:
    scheme = tomograms.dose_symmetric(-40, 50, step=10.0, dose=60.0).assign(defocus=np.linspace(2, 3, 10))
    series = tilt_series.acquire(of(phantom), Imaging(dose=1.0, snr=float("inf")), seed=0, scheme=scheme, progress=False)
    assert series.tilts.tolist() == scheme["tilt"].tolist()
    assert series.defocus.tolist() == scheme["defocus"].tolist()
    with pytest.raises(ValueError, match="missing or incomplete: defocus"):
        tilt_series.acquire(of(phantom), Imaging(), seed=0, scheme=scheme.drop(columns="defocus"), progress=False)


def test_the_same_seed_gives_the_same_series(phantom: Volume) -> None:
    specimen = crowd(phantom, (40, 64, 64), 2)
    imaging = Imaging(snr=None, dose=100.0, misalignment=5.0, tilt_step=20.0)
    first, again, other = (tilt_series.acquire(specimen, imaging, seed=seed, progress=False) for seed in (1, 1, 2))
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_bad_requests_are_refused(phantom: Volume) -> None:
    with pytest.raises(ValueError, match=r"within the 32 x 32 of the specimen, got \(32, 64\)"):
        tilt_series.acquire(of(phantom), QUIET, seed=0, field=(32, 64))
    with pytest.raises(ValueError, match=r"an SNR of 0\.05 needs particles and the box"):
        tilt_series.acquire(of(phantom), Imaging(), seed=0)


def test_particles_have_the_shot_noise_of_tomograms() -> None:
    """The noise that a box is given alone is, in Da/Å³ and in every direction, that of electrons counted in a tilt series."""
    shape, dose = (64, 96, 96), 60.0
    imaging = Imaging(snr=None, dose=dose, defocus=None, detector_pixel=1e-3)
    empty = of(Volume(np.zeros(shape), 10.0), thickness=1e-3)
    series = tilt_series.acquire(empty, imaging, seed=1, progress=False)
    relative = series.images / series.images.mean((1, 2), keepdims=True)
    whole = tomograms.reconstruct(
        relative, series.tilts, voxel_size=10.0, shape=shape, clip=None, normalise=False, progress=False
    ).data
    contrast = 2 * ctf.POTENTIAL * ctf.interaction(300.0) * 10.0
    middle = torch.from_numpy(whole[16:48, 32:64, 32:64] / contrast)
    boxes = torch.stack([middle, *(torch.from_numpy(whole[16:48, y : y + 32, 32:64] / contrast) for y in (8, 56))])
    scope = microscope.prepare(imaging, (32, 32, 32), voxel_size=10.0)
    alone, _ = microscope.image(torch.zeros(24, 32, 32, 32), scope, torch.Generator().manual_seed(1))
    k = fourier.frequencies((32, 32, 32))
    away, inside = torch.hypot(k[..., 0], k[..., 2]), fourier.wedge(32, -50, 50)[0] > 0
    for low, high in ((0.1, 0.2), (0.2, 0.3), (0.3, 0.38)):
        ring = inside & (away > low) & (away < high) & (k[..., 1].abs() < 0.3)
        power = [(torch.fft.rfftn(one, dim=(1, 2, 3)).abs() ** 2).mean(0)[ring].mean() for one in (boxes, alone)]
        assert float(power[0] / power[1]) == pytest.approx(1, abs=0.15)
