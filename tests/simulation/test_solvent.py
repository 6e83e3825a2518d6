import numpy as np
import pytest
import torch

from tomolab import fourier
from tomolab.simulation import solvent

SHAPE = (60, 90, 100)


def test_mass_in_the_room_is_that_of_the_concentration() -> None:
    density, free = np.zeros(SHAPE, dtype=np.float32), np.zeros(SHAPE, dtype=bool)
    free[10:50, 20:70, 10:90] = True
    count = solvent.add(density, free, 80.0, voxel_size=10.0, rng=np.random.default_rng(0))
    room = free.sum() * 1e3
    # 1 mg/ml is 6.022e-4 Da/Å³; hydrogen is not counted.
    assert density.sum() * 1e3 == pytest.approx(0.93 * 80 * 6.022e-4 * room, rel=5 / count**0.5)
    assert density[free].sum() > 0.9 * density.sum()


def test_few_proteins_fluctuate_as_poisson_numbers_do() -> None:
    free = np.ones((30, 30, 30), dtype=bool)
    counts = [
        solvent.add(np.zeros(free.shape, dtype=np.float32), free, 60.0, voxel_size=10.0, rng=np.random.default_rng(seed))
        for seed in range(150)
    ]
    assert np.var(counts) == pytest.approx(np.mean(counts), rel=0.4)


def test_a_protein_has_the_density_and_size_of_a_protein(monkeypatch: pytest.MonkeyPatch) -> None:
    density, free = np.zeros((30, 30, 30), dtype=np.float32), np.ones((30, 30, 30), dtype=bool)
    place = np.array([[14.3, 15.6, 15.0]])
    monkeypatch.setattr(solvent, "_positions", lambda free, radii, rng: (place, np.ones(1, dtype=bool)))
    mass = 150e3
    monkeypatch.setattr(solvent, "masses", lambda shares: np.full_like(shares, mass))
    alone = mass / solvent.DALTON / density.size / 1e3
    seed = next(seed for seed in range(100) if np.random.default_rng(seed).poisson(1.0) == 1)
    assert solvent.add(density, free, alone, voxel_size=10.0, rng=np.random.default_rng(seed)) == 1
    assert density.sum() * 1e3 == pytest.approx(0.93 * mass, rel=1e-3)
    axes = np.stack(np.meshgrid(*[np.arange(30)] * 3, indexing="ij"), axis=-1)
    middle = (density[..., None] * axes).sum((0, 1, 2)) / density.sum()
    assert middle == pytest.approx(place[0], abs=0.02)
    spread = (density[..., None] * (axes - middle) ** 2).sum() / density.sum()
    radius = (3 * 1.21 * mass / (4 * np.pi)) ** (1 / 3) / 10
    assert spread == pytest.approx(0.6 * radius**2 + 3 * solvent.BLUR**2, rel=0.03)
    # 0.93 / 1.21 Å³ per Da is the density of protein without hydrogen.
    assert density.max() == pytest.approx(0.93 / 1.21, rel=0.05)


def test_proteins_keep_out_of_what_is_taken_and_of_each_other() -> None:
    density, free = np.zeros(SHAPE, dtype=np.float32), np.ones(SHAPE, dtype=bool)
    free[:, :, 45:] = False
    solvent.add(density, free, 150.0, voxel_size=10.0, rng=np.random.default_rng(1))
    assert density[:, :, 48:].max() < 0.05
    # Two balls of 0.77 Da/Å³ in one place would be twice that.
    assert (density > 1.0).sum() < 0.02 * (density > 0.4).sum()


def test_masses_are_within_limits_about_their_median() -> None:
    found = solvent.masses(np.linspace(0, 1, 1001))
    assert (found[0], found[-1]) == pytest.approx(solvent.MASSES)
    assert 6e3 < found[500] < 9e3


def test_hard_spheres_have_the_compressibility_of_percus_and_yevick() -> None:
    share = torch.tensor([[0.05], [0.2]], dtype=torch.float64)
    order = solvent._hard_spheres(torch.tensor([1e-3, 300.0], dtype=torch.float64), share)
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
        expected = solvent.solution_power(k[here], torch.tensor([concentration]), blur=0.45 * voxel)
        assert found == pytest.approx(float(expected.mean()), rel=0.25)
