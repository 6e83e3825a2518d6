import numpy as np
import pytest
import torch

from tomolab import fourier, rotations, volumes
from tomolab.volumes import Volume


def centre_of_mass(batch: torch.Tensor) -> torch.Tensor:
    axes = torch.stack(torch.meshgrid(*[torch.arange(n) - n // 2 for n in batch.shape[1:]], indexing="ij"), dim=-1).float()
    return (batch[..., None] * axes).sum((1, 2, 3)) / batch.sum((1, 2, 3))[:, None]


def test_transform_moves_a_point_to_r_times_p_plus_shift(phantom: Volume) -> None:
    turns = rotations.random(6, torch.Generator().manual_seed(2))
    shifts = torch.tensor([[1.0, -2.0, 0.5]]).expand(6, 3)
    batch = torch.from_numpy(phantom.data).expand(6, -1, -1, -1)
    moved = centre_of_mass(volumes.transform(batch, turns, shifts))
    assert torch.allclose(moved, turns @ centre_of_mass(batch)[0] + shifts, atol=0.05)


def test_the_centre_stays_put_under_any_rotation() -> None:
    point = torch.zeros(50, 15, 15, 15)
    point[:, 7, 7, 7] = 1
    turned = volumes.transform(point, rotations.random(50, torch.Generator().manual_seed(4)))
    assert torch.allclose(turned[:, 7, 7, 7], torch.ones(50), atol=1e-4)


def test_transform_of_an_oversampled_map_is_the_map(phantom: Volume) -> None:
    fine = volumes.resample(phantom, 5.0)
    back = volumes.transform(torch.from_numpy(fine.data)[None], torch.eye(3)[None], box=32, step=2)[0]
    assert torch.allclose(back, torch.from_numpy(phantom.data), atol=1e-4)


def test_a_mirrored_phantom_is_no_rotation_of_it(phantom: Volume) -> None:
    turns = rotations.random(500, torch.Generator().manual_seed(5))
    batch = volumes.transform(torch.from_numpy(phantom.data).expand(500, -1, -1, -1), turns)
    mirrored = torch.from_numpy(phantom.data[:, :, ::-1].copy())
    overlap = (volumes.normalise(batch) * volumes.normalise(mirrored[None])).mean((1, 2, 3))
    assert float(overlap.max()) < 0.93


@pytest.mark.parametrize("size", [20.0, 13.3, 7.0])
def test_resample_keeps_positions_in_angstrom(size: float) -> None:
    at = np.array([120.0, 90.0, 200.0])
    axes = np.meshgrid(*[np.arange(32) * 10.0] * 3, indexing="ij")
    bead = Volume(np.exp(-sum((a - p) ** 2 for a, p in zip(axes, at, strict=True)) / (2 * 25.0**2)), 10.0)
    other = volumes.resample(bead, size)
    grid = np.meshgrid(*[np.arange(n) * size for n in other.shape], indexing="ij")
    weight = other.data.clip(0.05) - 0.05
    found = [float((axis * weight).sum() / weight.sum()) for axis in grid]
    assert np.allclose(found, at, atol=1.5)


@pytest.mark.parametrize("size", [13.48, 9.8, 7.123, 23.3])
def test_resample_is_exact_far_from_the_corner(size: float) -> None:
    at = (153.0, 148.0, 3711.3)

    def bead(shape: tuple[int, ...], voxel: float) -> np.ndarray:
        z, y, x = (np.exp(-((np.arange(n) * voxel - place) ** 2) / (2 * 40.0**2)) for n, place in zip(shape, at, strict=True))
        return z[:, None, None] * y[:, None] * x

    other = volumes.resample(Volume(bead((32, 33, 400), 10.0), 10.0), size)
    assert all(-1e-6 <= n * size - old * 10.0 < size for n, old in zip(other.shape, (32, 33, 400), strict=True))
    np.testing.assert_allclose(other.data, bead(other.shape, size), atol=0.004)
    # A ten thousandth of the distance would be seen.
    assert np.abs(other.data - bead(other.shape, size * 1.0003)).max() > 0.01


@pytest.mark.parametrize("size", [20.0, 5.0])
def test_resample_is_cropping_or_padding_where_the_grids_fit(phantom: Volume, size: float) -> None:
    new = [round(n * 10.0 / size) for n in phantom.shape]
    expected = fourier.resize(torch.from_numpy(phantom.data), new).numpy()
    np.testing.assert_allclose(volumes.resample(phantom, size).data, expected, atol=2e-3)


def test_fit_keeps_the_centre_voxel() -> None:
    data = np.zeros((9, 10, 11))
    data[4, 5, 5] = 1
    for shape in (6, 15, (7, 20, 8)):
        fitted = volumes.fit(Volume(data, 1.0), shape)
        assert fitted.data[tuple(n // 2 for n in fitted.shape)] == 1


def test_normalise_handles_a_constant() -> None:
    batch = torch.stack([torch.full((4, 4, 4), 3.0), torch.rand(4, 4, 4) * 5 + 2])
    done = volumes.normalise(batch)
    assert torch.all(done[0] == 0)
    assert float(done[1].std(correction=0)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("data", "voxel_size", "message"),
    [
        (np.zeros((4, 4)), 10, "array with at least one voxel"),
        (np.zeros((4, 4, 4)), 0, "positive number"),
        (np.full((4, 4, 4), np.nan), 10, "64 values that are NaN"),
    ],
)
def test_a_volume_refuses_nonsense(data: np.ndarray, voxel_size: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Volume(data, voxel_size)


@pytest.mark.parametrize(("shape", "step"), [((4, 6, 8), 2), ((5, 7, 9), 2), ((7, 11), 3), ((3, 4, 5), 1)])
def test_a_block_mean_is_that_of_its_voxels(shape: tuple[int, ...], step: int) -> None:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = volumes.block_mean(data, step)
    assert found.shape == tuple(n // step for n in shape)
    for place in np.ndindex(found.shape):
        block = data[tuple(slice(i * step, (i + 1) * step) for i in place)]
        assert found[place] == pytest.approx(block.mean(), abs=1e-6)
