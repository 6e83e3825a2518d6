"""Alignment: known rotations and shifts are found again, by the product of matrices and by the map on map fit."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tomolab import fourier, rotations, volumes
from tomolab.averaging import alignment, coefficients
from tomolab.volumes import Volume


@pytest.fixture(scope="module")
def small(phantom: Volume) -> Volume:
    """The phantom at 20 Å in a box of 20."""
    return volumes.fit(volumes.resample(phantom, 20.0), 20)


def moved(volume: Volume, turns: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Copies of a volume, rotated and shifted (voxels) with little interpolation error."""
    fine = fourier.resize(torch.from_numpy(volume.data), [2 * n for n in volume.shape])
    return volumes.transform(fine.expand(len(turns), -1, -1, -1), turns, shifts, box=volume.shape[0], step=2.0)


def mirrored(volume: Volume) -> Volume:
    """The other hand, about the centre voxel."""
    return Volume(np.roll(volume.data[:, :, ::-1], 1, axis=2).copy(), volume.voxel_size)


def poses(count: int, seed: int, reach: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return rotations.random(count, generator), (2 * torch.rand(count, 3, generator=generator) - 1) * reach


def test_uniform_rotations_leave_no_gap() -> None:
    grid = alignment.uniform_rotations(2000)
    asked = rotations.random(200, torch.Generator().manual_seed(0))
    nearest = torch.stack([rotations.angle_between(grid, one.expand_as(grid)).min() for one in asked])
    assert float(nearest.max()) < 22
    rotations.check(grid.numpy())


def test_the_shift_grid_holds_all_short_shifts() -> None:
    shifts = alignment.shift_grid(2.0, 1.0)
    assert len(shifts) == 33  # lattice points within 2 of the origin
    assert (shifts == 0).all(1).any()


def test_search_then_refinement_find_poses_in_a_wedge(small: Volume) -> None:
    turns, shifts = poses(12, 1, 1.5)
    low = torch.full((12,), -60.0)
    data = coefficients.transform(moved(small, turns, shifts), low, -low, radius_cycles=7)
    grid = coefficients.oversample(torch.from_numpy(small.data))
    noise = torch.full((len(data.points),), float(data.values.abs().square().mean()) / 10)
    found = alignment.exhaustive_search(
        grid,
        data,
        turns=alignment.uniform_rotations(3000),
        shifts=alignment.shift_grid(2.1, 0.7),
        noise=noise,
        shift_sigma_voxels=5,
    )
    off = rotations.angle_between(found.rotations[:, 0], turns)
    assert float(off.median()) < 20  # the spacing of 3000 rotations
    torch.testing.assert_close(found.weights.sum(1), torch.ones(12))

    found = alignment.refine_poses(
        coefficients.gradient_grids(torch.from_numpy(small.data)), data, found, noise=noise, steps=8, shift_sigma_voxels=5
    )
    assert float(rotations.angle_between(found.rotations[:, 0], turns).median()) < 0.5
    assert float((found.shifts[:, 0] - shifts).norm(dim=1).median()) < 0.03
    assert (found.scores.diff(dim=1) <= 0).all()
    torch.testing.assert_close(found.weights.sum(1), torch.ones(12))


def test_refinement_raises_scores_and_stays_proper(small: Volume) -> None:
    """From 15 degrees and a voxel away nearly all come home, noise or not; no pose is ever left worse than it came."""
    turns, shifts = poses(20, 3, 1.0)
    clean = moved(small, turns, shifts)
    generator = torch.Generator().manual_seed(1)
    noisy = clean + clean.std() / 0.5**0.5 * torch.randn(clean.shape, generator=generator)
    low = torch.full((20,), -60.0)
    data = coefficients.transform(noisy, low, -low, radius_cycles=5)
    noise = torch.full((len(data.points),), float((noisy - clean).var()) * clean[0].numel())
    axes = torch.nn.functional.normalize(torch.randn(20, 4, generator=generator))
    axes[:, 0] = 0
    away = rotations.from_quaternions(
        torch.nn.functional.normalize(axes) * np.sin(np.radians(7.5)) + torch.tensor([np.cos(np.radians(7.5)), 0, 0, 0])
    )
    start = alignment.Poses((away.float() @ turns)[:, None], (shifts + 0.5)[:, None], torch.zeros(20, 1), torch.ones(20, 1))
    grids = coefficients.gradient_grids(torch.from_numpy(small.data))
    scores = [
        alignment.refine_poses(grids, data, start, noise=noise, steps=steps, shift_sigma_voxels=5).scores
        for steps in (0, 1, 3, 8)
    ]
    assert all((after >= before).all() for before, after in pairwise(scores))
    found = alignment.refine_poses(grids, data, start, noise=noise, steps=8, shift_sigma_voxels=5)
    rotations.check(found.rotations[:, 0].double().numpy())
    off = rotations.angle_between(found.rotations[:, 0], turns)
    assert float((off < 5).float().mean()) > 0.8
    assert float((found.shifts[:, 0] - shifts).norm(dim=1).median()) < 0.3


def test_search_takes_shifts_of_each_its_own(small: Volume) -> None:
    turns, shifts = poses(4, 2, 1.5)
    low = torch.full((4,), -60.0)
    data = coefficients.transform(moved(small, turns, shifts), low, -low, radius_cycles=5)
    grid = coefficients.oversample(torch.from_numpy(small.data))
    noise = torch.ones(len(data.points))
    wrong = torch.zeros(1, 3) + 3
    near = torch.stack([shifts, wrong.expand(4, 3)], dim=1)
    found = alignment.exhaustive_search(grid, data, turns=turns, shifts=near, noise=noise, keep=1, shift_sigma_voxels=10)
    torch.testing.assert_close(found.shifts[:, 0], shifts)
    torch.testing.assert_close(found.rotations[:, 0], turns)


@pytest.mark.parametrize("seed", range(3))
def test_align_map_finds_the_pose(small: Volume, seed: int) -> None:
    turns, shifts = poses(1, seed, 1.5)
    turned = Volume(moved(small, turns, shifts)[0].numpy(), small.voxel_size)
    fit = alignment.align_map(small, turned)
    assert float(rotations.angle_between(torch.from_numpy(fit.rotation)[None].float(), turns)) < 3
    np.testing.assert_allclose(fit.shift, shifts[0].numpy() * 20.0, atol=2.0)
    assert fit.score > 0.98
    assert alignment.correlation(alignment.apply(small, fit), turned, radius_cycles=5) > 0.98


def test_finer_detail_decides_between_orientations_that_look_alike(small: Volume) -> None:
    # A ring of six blurred knobs, of which one is sharp: coarsely any of six turns will do, and noise decides.
    box, coarse = small.shape[0], np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij"))
    places = [(0.0, 5 * np.cos(a), 5 * np.sin(a)) for a in np.arange(6) * np.pi / 3]
    data = sum(np.exp(-((grid - np.reshape(place, (3, 1, 1, 1))) ** 2).sum(0) / 4.5) for place in [*places, (2.5, 0, 0)])
    fine = np.zeros_like(data)
    fine[box // 2, box // 2 + 5, box // 2] += 4.0
    fine = fine - volumes.low_pass(Volume(fine, 20.0), 90.0).data
    structure = Volume(data + fine, 20.0)
    blur = [volumes.low_pass(Volume(0.6 * coarse.normal(size=data.shape), 20.0), 90.0).data for _ in range(4)]
    turned = []
    for noise in blur:
        other = Volume(structure.data + noise, 20.0)
        fit = alignment.align_map(structure, other, radius_cycles=4, fine_radius_cycles=9)
        turned.append(float(rotations.angle_between(torch.from_numpy(fit.rotation)[None], torch.eye(3)[None].double())))
    assert max(turned) < 15


def test_mirror_image_does_not_align(phantom: Volume) -> None:
    fit = alignment.align_map(mirrored(phantom), phantom, radius_cycles=10)
    assert np.linalg.det(fit.rotation) == pytest.approx(1, abs=1e-5)
    assert fit.score < 0.96
    assert alignment.align_map(phantom, phantom, radius_cycles=10).score > 0.99


def test_correlation_of_opposites(small: Volume) -> None:
    assert alignment.correlation(small, small) == pytest.approx(1)
    assert alignment.correlation(small, Volume(5 - 2 * small.data, 20.0)) == pytest.approx(-1)


def test_maps_that_cannot_be_compared_are_refused(small: Volume) -> None:
    with pytest.raises(ValueError, match="one cubic box and voxel size"):
        alignment.align_map(small, volumes.fit(small, 24))
    with pytest.raises(ValueError, match="one cubic box and voxel size"):
        alignment.correlation(small, Volume(small.data, 10.0))
    with pytest.raises(ValueError, match="constant map"):
        alignment.align_map(Volume(np.ones((20, 20, 20)), 20.0), small)
