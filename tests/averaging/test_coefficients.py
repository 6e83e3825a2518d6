"""Fourier coefficients, sampled and inserted at rotated points, agree with moving the density itself."""

import numpy as np
import pytest
import torch

from tomolab import fourier, particles, rotations, volumes
from tomolab.averaging import coefficients
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

WHOLE = torch.tensor([-90.0]), torch.tensor([90.0])


@pytest.fixture(scope="module")
def density(phantom: Volume) -> torch.Tensor:
    return torch.from_numpy(phantom.data)


def turned(density: torch.Tensor, turn: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
    return volumes.transform(fourier.resize(density, (64,) * 3)[None], turn, shift, box=32, step=2.0)


def test_half_sphere_holds_one_of_each_pair() -> None:
    points = coefficients.half_sphere(16, 5)
    both = torch.cat([points, -points])
    assert len(both.unique(dim=0)) == len(both) == 514  # lattice points within 5 of the origin, without it
    assert len(coefficients.half_sphere(16, 100)) == (15**3 - 1) // 2  # Nyquist stays out


def test_sampling_a_rotated_grid_is_rotating_the_density(density: torch.Tensor) -> None:
    turn = rotations.random(1, torch.Generator().manual_seed(0))
    shift = torch.tensor([[1.5, -2.0, 0.5]])
    data = coefficients.transform(turned(density, turn, shift), *WHOLE, radius_cycles=10)
    model = coefficients.sample(coefficients.oversample(density), turn[0], data.points)
    model = model * coefficients.shift_phases(data.points, shift[0], 32)
    assert float((model - data.values[0]).abs().max() / data.values.abs().max()) < 0.02


def test_insert_is_the_transpose_of_sample() -> None:
    generator = torch.Generator().manual_seed(1)
    points = coefficients.half_sphere(16, 5)
    turns = rotations.random(3, generator)
    size = coefficients.grid_size(5)
    grid = torch.randn(size, size, size, dtype=torch.complex64, generator=generator)
    values = torch.randn(3, len(points), dtype=torch.complex64, generator=generator)
    there = (coefficients.sample(grid, turns, points).conj() * values).sum()
    sums, _ = coefficients.insert(values, values.abs(), turns, points=points, size=size)
    friedel = grid.clone()
    friedel[1:, 1:, 1:] = (grid[1:, 1:, 1:] + grid[1:, 1:, 1:].flip(0, 1, 2).conj()) / 2
    there = (coefficients.sample(friedel, turns, points).conj() * values).sum().real
    torch.testing.assert_close(there * 2, (friedel.conj() * sums).sum().real, rtol=1e-3, atol=1e-2)


def test_inserted_coefficients_give_the_density_back(density: torch.Tensor) -> None:
    turns = rotations.random(30, torch.Generator().manual_seed(2))
    data = coefficients.transform(
        torch.cat([turned(density, turn[None]) for turn in turns]), *(x.expand(30) for x in WHOLE), radius_cycles=8
    )
    size = coefficients.grid_size(8)
    sums, sampling = coefficients.insert(data.values, data.wedges[data.wedge_index], turns, points=data.points, size=size)
    sums, sampling = coefficients.to_plain_grid(sums, sampling)
    seen = sampling > 0.5 * sampling.max()
    got = coefficients.to_density(torch.where(seen, sums / sampling.clamp_min(1), 0))
    plain = got.shape[0]
    want = coefficients.to_density(torch.where(seen, coefficients.to_grid(fourier.resize(density, (plain,) * 3)), 0))
    # Grey values follow the transform, which knows nothing of the coarser grid.
    scale = (32 / plain) ** 3
    middle = volumes.sphere(plain, 0.8 * plain) > 0
    assert float((got - scale * want)[middle].abs().max() / (scale * want).abs().max()) < 0.1


def test_wedges_are_kept_once_and_read_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    batch = torch.randn(6, 12, 12, 12, generator=generator)
    low = torch.tensor([-60.0, -50.0, -60.0, -40.0, -60.0, -50.0])
    together = coefficients.transform(batch, low, -low, radius_cycles=5)
    assert len(together.wedges) == 3
    assert float(together.values[together.wedges[together.wedge_index] == 0].abs().max()) == 0
    monkeypatch.setattr(coefficients, "BATCH", 2)
    table = particles.table(np.zeros((6, 3)), tilts=(-60, 60)).assign(tilt_min=low.numpy(), tilt_max=-low.numpy())
    stored = Subtomograms(batch.numpy(), table, 10.0)
    read = coefficients.read(stored, box=12, radius_cycles=5, device=torch.device("cpu"))
    torch.testing.assert_close(read.values, together.values)
    torch.testing.assert_close(read.wedges[read.wedge_index], together.wedges[together.wedge_index])


def test_take_and_inside() -> None:
    data = coefficients.transform(torch.randn(3, 12, 12, 12), *(x.expand(3) for x in WHOLE), radius_cycles=5)
    few = data.take(torch.tensor([2, 0])).inside(3)
    assert len(few) == 2
    assert float(few.points.norm(dim=1).max()) <= 3
    keep = data.points.norm(dim=1) <= 3
    torch.testing.assert_close(few.values, data.values[[2, 0]][:, keep])


def test_gradients_are_derivatives(density: torch.Tensor) -> None:
    """Between two points close by the transform changes as its derivative says."""
    grids = coefficients.gradient_grids(density)
    points = coefficients.half_sphere(32, 8)
    turn = rotations.random(1, torch.Generator().manual_seed(3))[0]
    step = 0.02 * torch.tensor([1.0, -2.0, 0.5])
    exact = [(density * torch.exp(-2j * torch.pi * _waves(32, k))).sum() for k in (points[40], points[40] + step)]
    plain = torch.complex(*coefficients.sample_parts(grids, torch.eye(3), points))[:, 40]
    assert abs(complex(plain[0] - exact[0])) < 0.02 * abs(complex(exact[0]))
    assert abs(complex((plain[1:] * step).sum() - (exact[1] - exact[0]))) < 0.05 * abs(complex(exact[1] - exact[0]))
    # Four grids at once are read as one by one.
    one = torch.stack([coefficients.sample(grid, turn, points) for grid in grids])
    torch.testing.assert_close(torch.complex(*coefficients.sample_parts(grids, turn, points)), one)


def _waves(box: int, k: torch.Tensor) -> torch.Tensor:
    axis = (torch.arange(box) - box // 2) / box
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return k[0] * z + k[1] * y + k[2] * x


def test_coarse_points_come_first(density: torch.Tensor) -> None:
    data = coefficients.transform(density[None], *WHOLE, radius_cycles=9)
    assert (data.points.norm(dim=1).diff() >= -1e-6).all()
    few = data.inside(4)
    assert len(few.points) == len(coefficients.half_sphere(32, 4))
    assert few.values.data_ptr() == data.values.data_ptr()
