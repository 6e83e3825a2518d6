"""Scores say how many are right, and how well classes that nobody trained for separate into clusters."""

import numpy as np
import pytest
import torch

from tomolab import particles
from tomolab.learning import Network, metrics, networks
from tomolab.subtomograms import Subtomograms


def levels(labels: list[str], heights: list[float]) -> Subtomograms:
    """Volumes with a corner as bright as the class says."""
    volumes = np.random.default_rng(0).normal(size=(len(labels), 8, 8, 8)).astype(np.float32) * 0.01
    volumes[:, :4, :4, :4] += np.array(heights)[:, None, None, None]
    return Subtomograms(volumes, particles.table(np.zeros((len(labels), 3)), label=labels), 10.0)


@pytest.fixture
def network() -> Network:
    """Features are the corner and a constant; "bright" is what has a bright corner."""
    made = networks.Network("plain", box=8, classes=["dark", "bright"], voxel_size=10.0)
    made.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(512, 2))
    made.head = torch.nn.Linear(2, 2)
    with torch.no_grad():
        corner = torch.zeros(8, 8, 8)
        corner[:4, :4, :4] = 1 / 64
        made.body[1].weight[:] = torch.stack([corner.flatten(), torch.zeros(512)])
        made.body[1].bias[:] = torch.tensor([0.0, 1.0])
        made.head.weight[:] = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        made.head.bias.zero_()
    return made


def test_evaluate_counts_what_was_predicted(network: Network) -> None:
    judged = metrics.evaluate(network, levels(["dark", "dark", "bright", "bright", "bright"], [-1, 1, 1, 1, 1]))
    np.testing.assert_array_equal(judged["confusion"], [[1, 1], [0, 3]])
    assert judged["accuracy"] == pytest.approx(0.8)
    right, wrong = np.log1p(np.exp(-2)), np.log1p(np.exp(2))
    assert judged["loss"] == pytest.approx((4 * right + wrong) / 5, abs=0.01)
    assert network.training


def test_novel_classes_are_told_apart_by_their_features(network: Network) -> None:
    apart = levels(["a"] * 20 + ["b"] * 20 + ["c"] * 20, [-5] * 20 + [0.2] * 20 + [5] * 20)
    assert metrics.novel(network, apart, seed=1) == pytest.approx({"novel_ari": 1.0, "novel_purity": 1.0})
    alike = levels(["a", "b"] * 30, [0.5] * 60)
    found = metrics.novel(network, alike, seed=1)
    assert abs(found["novel_ari"]) < 0.1
    assert 0.5 <= found["novel_purity"] < 0.75
    assert metrics.novel(network, alike, seed=1) == found


def test_what_cannot_be_judged_is_refused(network: Network) -> None:
    known = levels(["dark", "bright"], [0, 1])
    metrics.check(network, known, levels(["a", "b"], [0, 1]))
    with pytest.raises(ValueError, match="labels a, b are not among the classes"):
        metrics.check(network, levels(["a", "b"], [0, 1]))
    with pytest.raises(ValueError, match="2 classes, of which the network knows dark"):
        metrics.check(network, known, levels(["dark", "b"], [0, 1]))
    with pytest.raises(ValueError, match="at least two classes that are not trained on, got 1 classes"):
        metrics.check(network, known, levels(["a", "a"], [0, 1]))
    small = Subtomograms(known.volumes[:, :6, :6, :6], known.particles, 10.0)
    with pytest.raises(ValueError, match="trained on boxes of 8 voxels"):
        metrics.check(network, known, small)
