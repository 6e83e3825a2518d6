import pytest
import torch

from tomolab.ctf import Lens
from tomolab.simulation import Imaging
from tomolab.simulation.imaging import draw


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tilts": (60, -60)}, "within ±90"),
        ({"tilts": ((-60, 10), (0, 60))}, "do not meet"),
        ({"snr": 0.0}, "snr must be a number above 0"),
        ({"snr": (1.0, 0.1)}, "snr must be"),
        ({"snr": None}, "either snr or dose"),
        ({"dose": -3.0}, "dose must be"),
        ({"tilt_step": 0.0}, "tilt_step must be"),
        ({"tilt_axis": float("nan")}, "tilt_axis must be"),
        ({"amplitude_contrast": 7.0}, "fraction from 0 to 1"),
        ({"voltage": -300.0}, "voltage"),
        ({"shift": 2.0}, "shift must be a number from 0 to 0.5"),
        ({"neighbours": -1.0}, "neighbours must be"),
        ({"membranes": 1.5}, "membranes must be a number from 0 to 1"),
        ({"soluble_protein": (-5.0, 10.0)}, "soluble_protein must be"),
        ({"misalignment": -1.0}, "misalignment must be"),
        ({"detector_pixel": 0.0}, "detector_pixel must be"),
    ],
)
def test_imaging_refuses_nonsense(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Imaging(**arguments)


def test_imaging_knows_its_lens() -> None:
    imaging = Imaging(voltage=200.0, spherical_aberration=2.0, amplitude_contrast=0.1)
    assert imaging.lens == Lens(voltage=200.0, spherical_aberration=2.0, amplitude_contrast=0.1)


def test_cells_have_all_of_it_and_can_be_changed() -> None:
    cells = Imaging.in_cells(dose=100.0)
    assert cells.dose == 100.0
    assert cells.snr is None
    assert min(cells.neighbours, cells.membranes, cells.thickness, cells.misalignment) > 0
    with pytest.raises(TypeError, match="colour"):
        Imaging.in_cells(colour="blue")


def test_draws_fill_their_range() -> None:
    generator = torch.Generator().manual_seed(0)
    values = draw((0.01, 1.0), 2000, generator, logarithmic=True)
    assert float(values.min()) >= 0.01
    assert float(values.max()) <= 1
    assert float(values.log10().mean()) == pytest.approx(-1, abs=0.05)
    assert float(draw((-5.0, 5.0), 2000, generator).mean()) == pytest.approx(0, abs=0.2)
    assert draw(3.0, 2, generator).tolist() == [3.0, 3.0]
