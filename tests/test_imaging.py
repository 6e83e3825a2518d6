import numpy as np
import pytest
import torch

from tomolab import fourier, rotations, volumes
from tomolab.imaging import Imaging, ctf, image
from tomolab.volumes import Volume

QUIET = Imaging(snr=float("inf"), defocus=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("defocus", [None, 3.0])
@pytest.mark.parametrize("snr", [0.05, 1.0])
def test_noise_has_the_snr_that_was_asked_for(phantom: Volume, snr: float, defocus: float | None) -> None:
    turned = volumes.transform(torch.from_numpy(phantom.data).expand(40, -1, -1, -1), rotations.random(40, generator(9)))
    clean, _ = image(turned, Imaging(snr=float("inf"), defocus=defocus), generator(1), voxel_size=10)
    noisy, exposure = image(turned, Imaging(snr=snr, defocus=defocus), generator(1), voxel_size=10)
    noise = (noisy - clean).var((1, 2, 3))
    assert float((clean.var((1, 2, 3)) / noise).mean()) == pytest.approx(snr, rel=0.05)
    assert torch.allclose(exposure.snr, torch.tensor(snr))


def test_nothing_is_observed_in_the_wedge(phantom: Volume) -> None:
    noisy, _ = image(torch.from_numpy(phantom.data)[None], Imaging(snr=0.1, tilts=(-50, 60)), generator(), voxel_size=10)
    power = torch.fft.rfftn(noisy[0]).abs() ** 2
    missing = 1 - fourier.wedge(32, -50, 60)[0]
    assert float((power * missing).sum() / power.sum()) < 0.01


def test_without_noise_wedge_and_ctf_the_volume_comes_back(phantom: Volume) -> None:
    same, _ = image(
        torch.from_numpy(phantom.data)[None],
        Imaging(snr=float("inf"), defocus=None, tilts=(-90, 90)),
        generator(),
        voxel_size=10,
    )
    assert float(fourier.shell_correlation(same[0], torch.from_numpy(phantom.data))[:9].min()) > 0.999


def test_ctf_crosses_zero_where_optics_says() -> None:
    # Phase contrast alone, Cs ~ 0: sin(π λ Δz k²) first vanishes at k = 1 / sqrt(λ Δz); λ = 0.0197 Å at 300 kV.
    imaging = Imaging(envelope=None, amplitude_contrast=0.0, spherical_aberration=1e-6)
    transfer = ctf(imaging, torch.tensor([4.0]), shape=(1, 1, 256), voxel_size=5.0)[0, 0, 0]
    k = torch.arange(129) / 256 / 5.0
    crossing = float(k[1:-1][(transfer[1:-1] > 0) & (transfer[2:] <= 0)][0])
    assert crossing == pytest.approx((0.0197 * 4e4) ** -0.5, rel=0.03)
    assert float(transfer[3]) > 0


def test_ranges_are_drawn_anew_for_every_particle(phantom: Volume) -> None:
    batch = torch.from_numpy(phantom.data).expand(200, -1, -1, -1)[:, 8:24, 8:24, 8:24]
    _, exposure = image(batch, Imaging(snr=(0.01, 1), defocus=(1, 3)), generator(), voxel_size=10)
    assert 0.01 <= float(exposure.snr.min()) < 0.02
    assert 0.5 < float(exposure.snr.max()) <= 1
    assert float(exposure.snr.log10().median()) == pytest.approx(-1, abs=0.25)
    assert float(exposure.defocus.min()) >= 1
    assert float(exposure.defocus.max()) <= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tilts": (60, -60)}, "within ±90"),
        ({"snr": 0.0}, "snr must be a number above 0"),
        ({"snr": (1.0, 0.1)}, "snr must be"),
        ({"amplitude_contrast": 7.0}, "fraction from 0 to 1"),
        ({"shift": 2.0}, "fraction of the box"),
        ({"neighbours": -1.0}, "neighbours not negative"),
    ],
)
def test_imaging_refuses_nonsense(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Imaging(**arguments)


def test_the_same_generator_gives_the_same_image(phantom: Volume) -> None:
    batch = torch.from_numpy(phantom.data)[None]
    first, second, other = (image(batch, Imaging(), generator(seed), voxel_size=10)[0] for seed in (4, 4, 5))
    assert torch.equal(first, second)
    assert not np.allclose(first, other)
