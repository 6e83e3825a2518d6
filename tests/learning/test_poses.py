"""Poses: a particle comes out the same however it lay, with its hand kept."""

import numpy as np
import pytest
import torch

from tomolab import rotations, volumes
from tomolab.learning import poses


def turned(phantom, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The phantom in random poses, with rotations and shifts in voxels."""
    generator = torch.Generator().manual_seed(seed)
    turns, shifts = rotations.random(count, generator), 4 * torch.rand(count, 3, generator=generator) - 2
    data = torch.from_numpy(phantom.data)[None].expand(count, -1, -1, -1)
    return volumes.transform(data, turns, shifts), turns, shifts


def normalised(batch: torch.Tensor) -> torch.Tensor:
    centred = batch - batch.mean((1, 2, 3), keepdim=True)
    return poses.normalise(centred, poses.outline(poses.smooth(centred, 1.0), diffusion=1.5))


def correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    a, b = (volumes.normalise(one).flatten(1) for one in torch.broadcast_tensors(first, second))
    return (a * b).mean(1)


def test_a_phantom_comes_out_in_one_pose(phantom) -> None:
    batch, *_ = turned(phantom, 12, 0)
    out = normalised(batch)
    assert correlation(batch, batch[:1])[1:].max() < 0.7
    assert correlation(out, out[:1]).min() > 0.93
    # The mirrored phantom has other poses: the hand is kept.
    mirrored = normalised(batch.flip(3))
    assert correlation(mirrored, out[:1]).max() < 0.9


def test_the_centre_of_mass_and_the_axes_are_found() -> None:
    rng = np.random.default_rng(1)
    turn = rotations.random(1, torch.Generator().manual_seed(2))[0].double().numpy()
    axis = np.arange(32) - 16
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1) - np.array([1.5, -2.0, 0.7])
    inside = places @ turn
    # Along its axes an ellipsoid, denser on the positive side of each.
    density = np.exp(-((inside / np.array([5.0, 3.5, 2.0])) ** 2).sum(-1)) * (1 + 0.9 * np.tanh(inside).sum(-1) / 3)
    weights = torch.from_numpy(density * (1 + 1e-3 * rng.random(density.shape)))[None]
    middles, axes = poses.principal(weights, farthest=16)
    overlap = axes[0].numpy().T @ turn
    # Its third axis follows from the two others.
    np.testing.assert_allclose(np.abs(overlap), np.eye(3), atol=0.15)
    np.testing.assert_allclose(torch.linalg.det(axes).numpy(), 1, atol=1e-6)
    expected = (density[..., None] * places).sum((0, 1, 2)) / density.sum() + np.array([1.5, -2.0, 0.7])
    np.testing.assert_allclose(middles[0].numpy(), expected, atol=0.01)
    # A centre that is not believed is the centre of the box.
    assert poses.principal(weights, farthest=1.0)[0].abs().max() == 0


def test_outline_is_the_bright_part() -> None:
    ball = volumes.sphere(24, 10) + 0.2 * torch.randn(24, 24, 24, generator=torch.Generator().manual_seed(0))
    found = poses.outline(poses.smooth((ball - ball.mean())[None], 1.0), diffusion=1.5)[0] > 0
    truth = volumes.sphere(24, 10) > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.85


def test_smoothing_has_the_width_asked_for() -> None:
    point = torch.zeros(1, 25, 25, 25)
    point[0, 12, 12, 12] = 1
    blurred = poses.smooth(point, 2.0)[0]
    axis = torch.arange(25.0) - 12
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float((blurred.sum((1, 2)) * axis**2).sum().sqrt()) == pytest.approx(2, rel=0.01)
