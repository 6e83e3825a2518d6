import numpy as np
import pytest
import torch

from tomolab import fourier
from tomolab.simulation import membranes, solvent, surroundings
from tomolab.simulation.surroundings import Sheets


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sheets_come_as_often_as_asked_and_pass_beside_the_particle() -> None:
    places = torch.randn(2000, 3, generator=generator()) * 30
    radii = torch.full((2000,), 100.0)
    pieces = surroundings.sheets(0.3, places=places, radii=radii, gap=40.0, generator=generator(1))
    assert len(pieces.owner) / 2000 == pytest.approx(0.3, abs=0.03)
    middle = pieces.normal * (pieces.away + pieces.bend)[:, None]
    nearest = ((places[pieces.owner] - middle).norm(dim=-1) - pieces.bend.abs()).abs()
    # Off the middle of the box a curved membrane comes a little nearer or stays farther.
    assert float(nearest.median()) == pytest.approx(100 + membranes.HALF_THICKNESS + 20, rel=0.03)
    assert float(nearest.min()) > 100
    assert float((pieces.bend > 0).float().mean()) == pytest.approx(0.5, abs=0.06)
    assert len(surroundings.sheets(0.0, places=places, radii=radii, gap=40.0, generator=generator()).owner) == 0


@pytest.mark.parametrize("bend", [2000.0, -2000.0])
def test_a_sheet_has_the_profile_of_a_bilayer_at_its_distance(bend: float) -> None:
    pieces = Sheets(torch.tensor([1]), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([60.0]), torch.tensor([bend]))
    volumes = torch.zeros(2, 40, 40, 40)
    surroundings.add_sheets(volumes, pieces, voxel_size=5.0)
    assert float(volumes[0].abs().max()) == 0
    along = torch.arange(40) * 5.0 - 100 - 60
    assert torch.allclose(volumes[1, 20, :, 20], membranes.profile(along, resolution=10.0), atol=0.01)
    # It bends away from the middle of the box, or around it.
    edge = volumes[1, 20, :, 0].argmax() * 5.0 - 100
    assert (float(edge) > 60) == (bend > 0) or abs(float(edge) - 60) < 26


def test_hard_spheres_have_the_compressibility_of_percus_and_yevick() -> None:
    share = torch.tensor([[0.05], [0.2]], dtype=torch.float64)
    order = surroundings._hard_spheres(torch.tensor([1e-3, 300.0], dtype=torch.float64), share)
    expected = (1 - share) ** 4 / (1 + 2 * share) ** 2
    assert torch.allclose(order[:, :1], expected, rtol=1e-2)
    assert torch.allclose(order[:, 1], torch.ones(2, dtype=torch.float64), atol=0.01)


@pytest.mark.parametrize("concentration", [20.0, 120.0])
def test_the_power_of_a_solution_is_that_of_one_that_is_built(concentration: float) -> None:
    voxel, box = 10.0, 64
    density = np.zeros((box,) * 3, dtype=np.float32)
    rng = np.random.default_rng(1)
    solvent.add(density, np.ones(density.shape, dtype=bool), concentration, voxel_size=voxel, rng=rng)
    inner = torch.from_numpy(density)
    power = torch.fft.rfftn(inner).abs() ** 2 * (voxel**3 / box**3)
    k = fourier.radius(inner.shape) / voxel
    for low, high in ((0.004, 0.008), (0.008, 0.016), (0.016, 0.025)):
        here = (k > low) & (k < high)
        found = float(power[here].mean())
        expected = surroundings.solution_power(k[here], torch.tensor([concentration]), blur=0.45 * voxel)
        assert found == pytest.approx(float(expected.mean()), rel=0.25)
