from math import pi

import numpy as np
import pytest
import torch

from tomolab import ctf, fourier, rotations, volumes
from tomolab.simulation import Imaging, Microscope, microscope, solvent
from tomolab.simulation.microscope import Conditions
from tomolab.volumes import Volume

CLEAN = {"snr": float("inf"), "defocus": None}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def imaged(batch: torch.Tensor, imaging: Imaging, seed: int = 0, **options: bool) -> tuple[torch.Tensor, Conditions]:
    scope = microscope.prepare(imaging, batch.shape[1:], voxel_size=10.0)
    return microscope.image(batch, scope, generator(seed), **options)


def factors(imaging: Imaging, box: int = 32, **drawn: float) -> tuple[Microscope, torch.Tensor]:
    """The signal's factors at all points, for one particle with what was drawn for it."""
    scope = microscope.prepare(imaging, (box,) * 3, voxel_size=10.0)
    conditions = microscope.draw_conditions(imaging, 1, generator())
    values = {name: getattr(conditions, name) for name in Conditions.__dataclass_fields__}
    conditions = Conditions(**(values | {name: torch.tensor([value]) for name, value in drawn.items()}))
    return scope, microscope.transfer(scope, conditions)[0][0]


def batch(phantom: Volume, count: int = 40) -> torch.Tensor:
    return volumes.transform(torch.from_numpy(phantom.data).expand(count, -1, -1, -1), rotations.random(count, generator(9)))


@pytest.mark.parametrize("more", [{}, {"defocus": None}, {"dose": 100.0, "thickness": 1500.0}])
@pytest.mark.parametrize("snr", [0.05, 1.0])
def test_noise_has_the_snr_that_was_asked_for(phantom: Volume, snr: float, more: dict) -> None:
    turned = batch(phantom)
    clean, _ = imaged(turned, Imaging(**({"snr": float("inf"), "defocus": 3.0} | more)), seed=1)
    noisy, conditions = imaged(turned, Imaging(**({"snr": snr, "defocus": 3.0} | more)), seed=1)
    noise = (noisy - clean).var((1, 2, 3))
    assert float((clean.var((1, 2, 3)) / noise).mean()) == pytest.approx(snr, rel=0.05)
    assert torch.allclose(conditions.snr, torch.tensor(snr))


@pytest.mark.parametrize("shape", [(16, 16, 16), (15, 17, 13), (12, 10, 14)])
def test_white_noise_has_the_symmetry_and_the_power_of_a_real_one(shape: tuple[int, int, int]) -> None:
    scope = microscope.prepare(Imaging(), shape, voxel_size=10.0)
    points = microscope._white(400, scope, generator())
    made = microscope._volumes(points, scope)
    assert torch.allclose(torch.fft.rfftn(made, dim=(1, 2, 3)).flatten(1)[:, scope.index], points, atol=1e-4)
    power = points.abs().square().mean(0)
    assert float(power.mean()) == pytest.approx(1, abs=0.01)
    assert float(power.min()) > 0.6
    assert float(power[scope.mirrored[0]].mean()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("more", [{}, {"snr": None, "dose": 100.0, "thickness": 1000.0}])
def test_nothing_is_observed_in_the_wedge(phantom: Volume, more: dict) -> None:
    imaging = Imaging(**({"snr": 0.1, "tilts": (-50, 60), "tilt_axis": 25.0} | more))
    noisy, _ = imaged(torch.from_numpy(phantom.data)[None], imaging)
    power = torch.fft.rfftn(noisy[0]).abs() ** 2
    missing = 1 - fourier.wedge(32, -50, 60, axis=25.0)[0]
    assert float((power * missing).sum() / power.sum()) < 1e-6
    assert float((power * (1 - fourier.wedge(32, -50, 60)[0])).sum() / power.sum()) > 0.01


def test_without_noise_wedge_and_ctf_the_volume_comes_back(phantom: Volume) -> None:
    same, _ = imaged(torch.from_numpy(phantom.data)[None], Imaging(**CLEAN, tilts=(-90, 90)))
    assert float(fourier.shell_correlation(same[0], torch.from_numpy(phantom.data))[:9].min()) > 0.999


def test_unit_images_have_mean_0_and_deviation_1(phantom: Volume) -> None:
    turned = batch(phantom, 5)
    raw, _ = imaged(turned, Imaging())
    unit, _ = imaged(turned, Imaging(), unit=True)
    assert torch.allclose(unit, volumes.normalise(raw), atol=1e-4)


def test_ctf_crosses_zero_where_optics_says() -> None:
    # Phase contrast alone, Cs ~ 0: sin(π λ Δz k²) first vanishes at k = 1 / sqrt(λ Δz); λ = 0.0197 Å at 300 kV.
    imaging = Imaging(snr=1.0, defocus=4.0, tilts=(-90, 90), envelope=None, amplitude_contrast=0.0, spherical_aberration=1e-6)
    scope, signal = factors(imaging, box=64)
    k = scope.k.norm(dim=-1)
    order = k.argsort()
    k, signal = k[order], signal[order]
    crossing = float(k[1:][signal[1:] <= 0].min())
    assert crossing == pytest.approx((0.0197 * 4e4) ** -0.5, rel=0.03)
    assert float(signal[5]) > 0


def test_a_higher_particle_is_farther_under_focus_and_the_difference_falls_with_the_tilt() -> None:
    imaging = Imaging(snr=1.0, defocus=3.0, thickness=2000.0, tilts=(-70, 70), envelope=None)
    lens = Imaging(snr=1.0, defocus=3.0, tilts=(-70, 70), envelope=None)
    lost = ctf.survivors(2000.0, fourier.tilts(factors(lens)[0].k).nan_to_num(0.0)).sqrt()
    scope, high = factors(imaging, height=1000.0, across=0.0)
    tilt = fourier.tilts(scope.k).nan_to_num(0.0)
    for lowest, highest, height in ((-2.0, 2.0, 1000.0), (59.0, 61.0, 500.0)):
        here = (tilt >= lowest) & (tilt <= highest)
        _, expected = factors(lens, defocus=3.0 + height * 1e-4)
        _, wrong = factors(lens, defocus=3.0 - height * 1e-4)
        near, far = ((high / lost - other)[here].abs().max() for other in (expected, wrong))
        assert float(near) < 0.2 * float(far)


def test_across_the_axis_the_focus_changes_with_the_sign_of_the_tilt() -> None:
    # z' = z cos t - x sin t: at positive tilts, what lies at positive x is nearer to focus.
    imaging = Imaging(snr=1.0, defocus=3.0, thickness=1.0, tilts=(-70, 70), envelope=None)
    scope, signal = factors(imaging, height=0.0, across=3000.0)
    tilt = fourier.tilts(scope.k).nan_to_num(0.0)
    for angle in (-40.0, 40.0):
        here = (tilt - angle).abs() < 1
        _, expected = factors(imaging, height=0.0, across=0.0, defocus=3.0 - 0.3 * np.sin(np.deg2rad(angle)))
        _, wrong = factors(imaging, height=0.0, across=0.0, defocus=3.0 + 0.3 * np.sin(np.deg2rad(angle)))
        assert float((signal - expected)[here].abs().max()) < 0.2 * float((signal - wrong)[here].abs().max())


def test_damage_grows_with_the_tilt_as_the_dose_does() -> None:
    imaging = Imaging(**CLEAN, dose=120.0, tilts=(-60, 60))
    scope, signal = factors(imaging)
    tilt, k = fourier.tilts(scope.k).nan_to_num(0.0), scope.k.norm(dim=-1)
    for angle in (0.0, 30.0, -45.0):
        here = ((tilt - angle).abs() < 1) & (k > 0.02) & (k < 0.045)
        # 41 images of 120/41 e/Å²; at ± t, on average all smaller tilts and half of the two at t are done.
        dose = 120.0 / 41 * max(2 * abs(angle) / 3, 0.5)
        assert torch.allclose(signal[here], ctf.damage(k[here], torch.tensor(dose)), rtol=0.03)


def test_one_sided_series_spend_their_last_dose_on_the_long_side() -> None:
    conditions = microscope.draw_conditions(Imaging(snr=1.0, dose=100.0, tilts=(-20, 60)), 1, generator())
    spent = microscope._accumulated(conditions, torch.tensor([[0.0, 20.0, -20.0, 40.0, 60.0]]), 3.0)[0] / (100 / 83)
    assert torch.allclose(spent, torch.tensor([1.5, 40, 40, 60, 80]))


def test_ice_and_misalignment_weaken_the_signal() -> None:
    scope, signal = factors(Imaging(**CLEAN, thickness=1500.0, misalignment=4.0, tilts=(-80, 80)))
    tilt, k = fourier.tilts(scope.k), scope.k.norm(dim=-1)
    for angle in (0.0, 60.0):
        here = (tilt - angle).abs() < 1
        arrived = np.exp(-1500 / ctf.MEAN_FREE_PATH / np.cos(np.deg2rad(angle)) / 2)
        expected = arrived * torch.exp(-2 * pi**2 * 16 * k[here] ** 2)
        assert torch.allclose(signal[here], expected, rtol=0.02)


def test_shot_noise_is_that_of_back_projected_images() -> None:
    # Project nothing 41 times with shot noise alone, back-project plainly with the ramp, and compare the variance.
    imaging = Imaging(snr=None, dose=100.0, defocus=None, tilts=(-60, 60), detector_pixel=1e-3)
    box, count, voxel = 24, 100, 10.0
    scope = microscope.prepare(imaging, (box,) * 3, voxel_size=voxel)
    images, conditions = microscope.image(torch.zeros(count, box, box, box), scope, generator())
    found = float(images.var())
    # σ² of the field of power k Δθ / dose per image within the wedge and the sphere, in closed form on a fine grid.
    k = torch.linspace(-0.5, 0.5, 101)[:-1] / voxel + 0.005 / voxel
    z, y, x = torch.meshgrid(k, k, k, indexing="ij")
    seen = (torch.rad2deg(torch.atan2(z.abs(), x.abs())) <= 60) & (z**2 + y**2 + x**2 <= (0.5 / voxel) ** 2)
    power = torch.hypot(z, x) * np.deg2rad(3.0) * 41 / 100.0 * seen
    contrast = 2 * ctf.POTENTIAL * ctf.interaction(300.0)
    assert found == pytest.approx(float(power.sum()) * (0.01 / voxel) ** 3 / contrast**2, rel=0.05)
    assert float(conditions.snr.max()) == 0


def test_soluble_protein_adds_their_power_and_take_contrast(phantom: Volume) -> None:
    whole = {"snr": float("inf"), "defocus": None, "tilts": (-90, 90)}
    empty, _ = imaged(torch.zeros(30, 32, 32, 32), Imaging(**whole, soluble_protein=100.0))
    k = fourier.radius((32,) * 3)
    power = (torch.fft.rfftn(empty, dim=(1, 2, 3)).abs() ** 2).mean(0) * 10.0**3 / 32**3
    for low, high in ((0.05, 0.1), (0.2, 0.3)):
        here = (k > low) & (k < high)
        expected = solvent.solution_power(k[here] / 10, torch.tensor([100.0]), blur=4.5)
        assert float(power[here].mean()) == pytest.approx(float(expected.mean()), rel=0.03)
    filled, _ = imaged(torch.from_numpy(phantom.data).expand(200, -1, -1, -1), Imaging(**whole, soluble_protein=100.0))
    left = float((filled.mean(0) * torch.from_numpy(phantom.data)).sum() / np.square(phantom.data).sum())
    assert left == pytest.approx(1 - 100 * solvent.DALTON * solvent.SPECIFIC_VOLUME, abs=0.01)


def test_more_dose_is_less_noise() -> None:
    quiet, loud = (imaged(torch.zeros(8, 16, 16, 16), Imaging(snr=None, dose=dose))[0].var() for dose in (200.0, 50.0))
    assert float(loud / quiet) == pytest.approx(4, rel=0.02)


def test_ranges_are_drawn_anew_for_every_particle() -> None:
    imaging = Imaging(
        snr=(0.01, 1), dose=(50, 150), defocus=(1, 3), tilts=((-70, -40), (40, 70)), tilt_axis=(-10, 10), thickness=1000.0
    )
    images, conditions = imaged(torch.randn(200, 16, 16, 16, generator=generator()), imaging)
    limits = {"snr": (0.01, 1), "dose": (50, 150), "defocus": (1, 3), "tilt_min": (-70, -40), "tilt_axis": (-10, 10)}
    for name, (low, high) in (limits | {"height": (-500, 500)}).items():
        values = getattr(conditions, name)
        assert values.shape == (200,)
        assert low <= float(values.min()) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < float(values.max()) <= high
    columns = conditions.columns(200)
    wedge = fourier.wedge(16, conditions.tilt_min, conditions.tilt_max, axis=conditions.tilt_axis)
    power = torch.fft.rfftn(images, dim=(1, 2, 3)).abs() ** 2
    assert float((power * (1 - wedge)).sum() / power.sum()) < 1e-5
    assert list(columns) == ["snr", "defocus", "dose", "tilt_min", "tilt_max", "tilt_axis"]


def test_the_same_generator_gives_the_same_image(phantom: Volume) -> None:
    one = torch.from_numpy(phantom.data)[None]
    first, second, other = (imaged(one, Imaging.in_cells(), seed)[0] for seed in (4, 4, 5))
    assert torch.equal(first, second)
    assert not np.allclose(first, other)
