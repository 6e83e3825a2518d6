import math

import pytest
import torch

from tomolab import ctf
from tomolab.ctf import Lens


def test_wavelength_and_interaction_are_the_textbook_ones() -> None:
    assert ctf.wavelength(300.0) == pytest.approx(0.01969, rel=1e-3)
    assert ctf.wavelength(200.0) == pytest.approx(0.02508, rel=1e-3)
    # Kirkland: 0.00653 rad / (V nm) at 300 kV, 0.00729 at 200 kV.
    assert ctf.interaction(300.0) == pytest.approx(6.53e-4, rel=2e-3)
    assert ctf.interaction(200.0) == pytest.approx(7.29e-4, rel=2e-3)


def test_contrast_is_the_sine_of_chi() -> None:
    k, focus, wave = torch.linspace(0, 0.1, 50), 2.0, 0.019687
    chi = math.pi * wave * focus * 1e4 * k**2 - math.pi / 2 * 2.7e7 * wave**3 * k**4 + math.asin(0.1)
    found = ctf.contrast(k, torch.tensor(focus), Lens(amplitude_contrast=0.1))
    assert torch.allclose(found, torch.sin(chi), atol=2e-3)


def test_overfocus_turns_the_contrast_over() -> None:
    k = torch.tensor(0.02)
    lens = Lens(amplitude_contrast=0.0)
    under, over = (float(ctf.contrast(k, torch.tensor(focus), lens)) for focus in (2.0, -2.0))
    assert under > 0 > over


def test_defocus_broadcasts() -> None:
    k, focus = torch.rand(5, 1, 7) * 0.05, torch.tensor([1.0, 2.0, 3.0])[:, None]
    assert ctf.contrast(k, focus, Lens()).shape == (5, 3, 7)


def test_damage_is_that_of_grant_and_grigorieff() -> None:
    # At 1/10 Å⁻¹ the critical exposure is 0.245 · 10^1.665 + 2.81 = 14.1 e/Å².
    assert float(ctf.damage(torch.tensor(0.1), torch.tensor(14.14))) == pytest.approx(math.exp(-0.5), rel=1e-2)
    assert float(ctf.damage(torch.tensor(0.0), torch.tensor(100.0))) == pytest.approx(1, abs=1e-3)
    low, high = (float(ctf.damage(torch.tensor(0.05), torch.tensor(30.0), voltage=volts)) for volts in (200.0, 300.0))
    assert low < high


def test_fewer_electrons_come_through_a_tilted_slab() -> None:
    alive = ctf.survivors(1500.0, torch.tensor([0.0, 60.0]))
    assert alive.tolist() == pytest.approx([math.exp(-0.5), math.exp(-1.0)])


def test_within_the_depth_of_focus_the_phase_hardly_changes() -> None:
    depth = ctf.depth_of_focus(5.0, 300.0)
    phases = ctf.phases(torch.tensor(0.1), Lens())
    assert float(phases["per_micron"]) * depth / 2 * 1e-4 == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("change", [{"voltage": 0.0}, {"spherical_aberration": -1.0}, {"amplitude_contrast": 2.0}])
def test_a_lens_that_cannot_be_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"must be positive|fraction from 0 to 1"):
        Lens(**change)
