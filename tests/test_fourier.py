import numpy as np
import pytest
import torch

from tomolab import fourier


def test_resize_keeps_a_wave_and_a_constant() -> None:
    x = torch.arange(24) / 24
    wave = (2 + torch.cos(2 * torch.pi * 3 * x))[None, None].expand(20, 18, 24)
    small = fourier.resize(wave, (10, 9, 12))
    expected = 2 + torch.cos(2 * torch.pi * 3 * torch.arange(12) / 12)
    assert torch.allclose(small[4, 5], expected, atol=1e-4)
    assert torch.allclose(fourier.resize(small, (20, 18, 24)), wave, atol=1e-4)


@pytest.mark.parametrize("box", [15, 16])
def test_shift_phases_move_towards_higher_index(box: int) -> None:
    volume = torch.rand(1, box, box, box)
    moved = torch.fft.irfftn(
        torch.fft.rfftn(volume, dim=(1, 2, 3)) * fourier.shift_phases((box,) * 3, torch.tensor([[1, -2, 3]])),
        s=(box,) * 3,
        dim=(1, 2, 3),
    )
    assert torch.allclose(moved[0], torch.roll(volume[0], (1, -2, 3), (0, 1, 2)), atol=1e-5)


def test_wedge_keeps_the_share_of_the_tilt_range() -> None:
    box = 48
    inside = fourier.radius((box,) * 3) <= 0.5
    for low, high in ((-60, 60), (-40, 40), (-30, 50)):
        kept = fourier.wedge(box, low, high)[0][inside].mean()
        assert float(kept) == pytest.approx((high - low) / 180, abs=0.02)


def test_wedge_has_the_sign_of_the_projection_geometry() -> None:
    # At tilt t the observed direction in (kx, kz) is (cos t, sin t): tilts 20° to 60° see kz/kx > 0 only.
    mask = fourier.wedge(32, 20, 60)[0]
    angle = np.deg2rad(40)
    seen = (round(10 * np.sin(angle)), 0, round(10 * np.cos(angle)))
    unseen = (-seen[0], 0, seen[2])
    assert mask[seen] == 1
    assert mask[unseen] == 0


def test_wedge_turns_with_the_tilt_axis() -> None:
    # The axis from y towards x by 30°: (y, x) = (cos 30°, sin 30°) is seen at every tilt, z across it at none.
    mask = fourier.wedge(48, -40, 40, axis=30.0)[0]
    at = {"along": (0, round(14 * np.cos(np.pi / 6)), round(14 * np.sin(np.pi / 6))), "beam": (14, 0, 0)}
    assert [int(mask[place]) for place in at.values()] == [1, 0]
    k = fourier.frequencies((48,) * 3)
    tilts = fourier.tilts(k, 90.0)
    # With the axis along x, what is seen at tilt t has (-ky, kz) along (cos t, sin t).
    assert float(tilts[6, -6, 3]) == pytest.approx(45, abs=1e-3)
    assert float(tilts[6, 6, 3]) == pytest.approx(-45, abs=1e-3)
    assert bool(tilts[0, 0, 5].isnan())
    each = fourier.wedge(24, torch.tensor([-40.0, -40.0]), torch.tensor([40.0, 40.0]), axis=torch.tensor([0.0, 30.0]))
    assert torch.equal(each[0], fourier.wedge(24, -40, 40)[0])
    assert torch.equal(each[1], fourier.wedge(24, -40, 40, axis=30.0)[0])


def test_tilts_about_a_turned_axis_are_those_of_turned_frequencies() -> None:
    turn = torch.tensor([[1.0, 0, 0], [0, np.cos(0.5), -np.sin(0.5)], [0, np.sin(0.5), np.cos(0.5)]])
    k = fourier.frequencies((32,) * 3)
    plain, turned = fourier.tilts(k), fourier.tilts(k @ turn.float().T, float(np.rad2deg(0.5)))
    # At 90° the sign depends on rounding.
    clear = plain.abs() < 89
    torch.testing.assert_close(turned[clear], plain[clear], atol=0.01, rtol=0)


def test_wedge_refuses_an_empty_range() -> None:
    with pytest.raises(ValueError, match="wider than 0"):
        fourier.wedge(16, 30, 30)


def test_shell_correlation_sees_what_agrees() -> None:
    generator = torch.Generator().manual_seed(0)
    first, other = torch.randn(2, 24, 24, 24, generator=generator)
    assert torch.allclose(fourier.shell_correlation(first, first), torch.ones(13), atol=1e-5)
    assert float(fourier.shell_correlation(first, other)[4:].abs().max()) < 0.3
    mixed = fourier.shell_correlation(first + other, first)
    assert float(mixed[6:].mean()) == pytest.approx(2**-0.5, abs=0.05)


def test_shell_correlation_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match="one shape"):
        fourier.shell_correlation(torch.zeros(8, 8, 8), torch.zeros(8, 8, 9))
