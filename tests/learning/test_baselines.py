"""Baselines: features that forget the pose and keep the shape, poses from the shape alone, and a classifier on features."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob

from tomolab import particles, rotations, volumes
from tomolab.learning import Embedding, baselines
from tomolab.subtomograms import Subtomograms


def packed(batch: torch.Tensor, **columns) -> Subtomograms:
    table = particles.table(np.zeros((len(batch), 3)), **columns)
    return Subtomograms(volumes.normalise(batch).numpy(), table.assign(particle_id=table["particle_id"] + 50), 10.0)


def posed(data: np.ndarray, count: int, *, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    source = torch.from_numpy(data).float()[None].expand(count, -1, -1, -1)
    shifts = shift * (2 * torch.rand(count, 3, generator=generator) - 1)
    return volumes.transform(source, rotations.random(count, generator), shifts)


@pytest.fixture(scope="module")
def shapes(phantom) -> Subtomograms:
    """Twenty of the phantom and twenty of it without its longest arm, turned and shifted at random, with a little noise."""
    other = phantom.data - sum(0.3 * blob(32, (step, 0, 0), 1.5) for step in np.linspace(0, 9, 18))
    batch = torch.cat([posed(one, 20, seed=seed, shift=1.5) for seed, one in enumerate((phantom.data, other))])
    noise = 0.02 * torch.randn(batch.shape, generator=torch.Generator().manual_seed(9))
    return packed(batch + noise, label=["whole"] * 20 + ["without"] * 20)


def separation(found: Embedding) -> float:
    """Distance between the means of the two shapes over the spread within them, both per feature in root mean square."""
    whole, without = found.vectors[:20], found.vectors[20:]
    inside = np.sqrt((whole.var(0) + without.var(0)).mean() / 2)
    return float(np.sqrt(((whole.mean(0) - without.mean(0)) ** 2).mean()) / inside)


def test_invariants_forget_rotation_and_shift(phantom) -> None:
    other = blob(32, (0, 0, 0), 4)
    batch = torch.cat([posed(phantom.data, 8, seed=0), posed(phantom.data, 8, seed=1, shift=2.0), posed(other, 8, seed=2)])
    found = baselines.invariants(packed(batch), mask_fraction=2.0, progress=False).vectors
    still = np.linalg.norm(found[:8] - found[0], axis=1).max()
    moved = np.linalg.norm(found[8:16] - found[0], axis=1).max()
    apart = np.linalg.norm(found[16:] - found[0], axis=1).min()
    assert still < 0.33 * apart
    assert moved < 0.33 * apart


@pytest.mark.parametrize("method", [baselines.invariants, baselines.normalised])
def test_features_tell_shapes_apart_and_keep_ids(shapes, method) -> None:
    options = {"components": 10} if method is baselines.normalised else {}
    found = method(shapes, progress=False, batch_size=7, **options)
    assert found.ids.tolist() == shapes.ids.tolist()
    assert separation(found) > 1.0
    again = method(shapes, progress=False, **options)
    np.testing.assert_allclose(again.vectors, found.vectors, atol=2e-3)


def test_invariants_have_mean_0_and_variance_1(shapes) -> None:
    found = baselines.invariants(shapes, progress=False).vectors
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-3)


def test_what_lies_beyond_the_mask_does_not_count(shapes) -> None:
    beyond = (volumes.sphere(32, 0.7 * 32, edge_voxels=baselines.EDGE * 32) == 0).numpy()
    spoiled = Subtomograms(np.where(beyond, 3.0, shapes.volumes).astype(np.float32), shapes.particles, 10.0)
    clean = Subtomograms(np.where(beyond, 0.0, shapes.volumes).astype(np.float32), shapes.particles, 10.0)
    for options, same in (({}, True), ({"mask_fraction": 2.0}, False)):
        first, second = (baselines.invariants(one, progress=False, **options).vectors for one in (spoiled, clean))
        assert np.allclose(first, second, atol=1e-3) == same


def test_normalised_volumes_of_one_shape_look_alike(phantom) -> None:
    batch = posed(phantom.data, 16, seed=3, shift=1.5)
    found = baselines.normalised(packed(batch), components=5, smoothing=10.0, progress=False)
    raw = packed(batch).volumes.reshape(16, -1)
    # What poses differ in is most of the variance of the volumes as they came.
    assert found.vectors.var(0).sum() < 0.2 * raw.var(0).sum()


def test_embeddings_of_other_settings_do_not_compare(shapes) -> None:
    part = shapes.take(shapes.ids[:12])
    names = {
        baselines.invariants(one, progress=False, **options).network
        for one, options in (
            (shapes, {}),
            (part, {}),
            (shapes, {"mask_fraction": 0.9}),
        )
    }
    names |= {baselines.normalised(one, components=5, progress=False).network for one in (shapes, part)}
    assert len(names) == 5
    assert baselines.invariants(shapes, progress=False).network in names


def test_impossible_settings_are_refused(shapes) -> None:
    with pytest.raises(ValueError, match=r"40 volumes of .* voxels have 1 to 40 components, got 41"):
        baselines.normalised(shapes, components=41)
    with pytest.raises(ValueError, match="positive number of Å, got 0"):
        baselines.normalised(shapes, components=5, smoothing=0.0)
    with pytest.raises(ValueError, match="above 0 and up to 2, got 3"):
        baselines.invariants(shapes, mask_fraction=3.0)
    with pytest.raises(ValueError, match="no subtomograms to embed"):
        baselines.invariants(shapes.take([]), progress=False)


def test_classify_learns_from_known_particles(shapes) -> None:
    features = baselines.invariants(shapes, progress=False)
    truth = shapes.particles.set_index("particle_id")["label"]
    learn, ask = shapes.ids[::2], shapes.ids[1::2]
    predicted = baselines.classify(features.take(learn), truth[learn].sample(frac=1, random_state=0), features.take(ask))
    assert (predicted.name, predicted.index.name) == ("class", "particle_id")
    assert (predicted == truth[predicted.index]).mean() >= 0.9
    assert predicted.index.tolist() == ask.tolist()


def test_classify_refuses_what_it_cannot_learn_from(shapes) -> None:
    features = baselines.invariants(shapes, progress=False)
    truth = shapes.particles.set_index("particle_id")["label"]
    with pytest.raises(ValueError, match=r"20 of 40 particles have no label, such as \[70, 71"):
        baselines.classify(features, truth[:20], features)
    with pytest.raises(ValueError, match=r"at least two classes, got \['one'\]"):
        baselines.classify(features, pd.Series("one", index=shapes.ids), features)
    with pytest.raises(ValueError, match="two networks"):
        baselines.classify(features, truth, Embedding(features.ids, features.vectors, "other"))


def turned(phantom, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The phantom in random poses, with rotations and shifts in voxels."""
    generator = torch.Generator().manual_seed(seed)
    turns, shifts = rotations.random(count, generator), 4 * torch.rand(count, 3, generator=generator) - 2
    data = torch.from_numpy(phantom.data)[None].expand(count, -1, -1, -1)
    return volumes.transform(data, turns, shifts), turns, shifts


def normalised(batch: torch.Tensor) -> torch.Tensor:
    centred = batch - batch.mean((1, 2, 3), keepdim=True)
    return baselines.normalise_pose(centred, baselines.outline(baselines.smooth(centred, 1.0), diffusion_voxels=1.5))


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
    middles, axes = baselines.principal_axes(weights, farthest_voxels=16)
    overlap = axes[0].numpy().T @ turn
    # Its third axis follows from the two others.
    np.testing.assert_allclose(np.abs(overlap), np.eye(3), atol=0.15)
    np.testing.assert_allclose(torch.linalg.det(axes).numpy(), 1, atol=1e-6)
    expected = (density[..., None] * places).sum((0, 1, 2)) / density.sum() + np.array([1.5, -2.0, 0.7])
    np.testing.assert_allclose(middles[0].numpy(), expected, atol=0.01)
    # A centre that is not reliable is the centre of the box.
    assert baselines.principal_axes(weights, farthest_voxels=1.0)[0].abs().max() == 0


def test_outline_is_the_bright_part() -> None:
    ball = volumes.sphere(24, 10) + 0.2 * torch.randn(24, 24, 24, generator=torch.Generator().manual_seed(0))
    found = baselines.outline(baselines.smooth((ball - ball.mean())[None], 1.0), diffusion_voxels=1.5)[0] > 0
    truth = volumes.sphere(24, 10) > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.85


def test_smoothing_has_the_width_asked_for() -> None:
    point = torch.zeros(1, 25, 25, 25)
    point[0, 12, 12, 12] = 1
    blurred = baselines.smooth(point, 2.0)[0]
    axis = torch.arange(25.0) - 12
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float((blurred.sum((1, 2)) * axis**2).sum().sqrt()) == pytest.approx(2, rel=0.01)
