"""The loss is cross-entropy, with a margin if asked for; recipes are those that were published."""

import itertools

import pytest
import torch

from tomolab.learning import Recipe, networks
from tomolab.learning.recipes import recipe


def test_without_a_margin_it_is_cross_entropy() -> None:
    labels = torch.arange(3).repeat_interleave(8)
    logits = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    expected = -torch.log_softmax(logits, 1)[torch.arange(24), labels].mean()
    assert Recipe(smoothing=0.0).loss(logits, labels) == pytest.approx(float(expected))


def test_a_margin_asks_for_more() -> None:
    labels = torch.tensor([0])
    logits = torch.tensor([[3.0, 1.0]])
    with_margin = Recipe(smoothing=0.0, margin=2.0).loss(logits, labels)
    assert float(with_margin) == pytest.approx(float(torch.tensor(2.0).log()))
    assert float(with_margin) > float(Recipe(smoothing=0.0).loss(logits, labels))


def test_published_recipes() -> None:
    paper, later = recipe("dsrf3d"), recipe("cb3d")
    assert recipe("inception3d") == paper
    assert (paper.algorithm, paper.learning_rate, paper.clip, paper.smoothing) == ("sgd", 0.01, None, 0.0)
    assert paper.rate(1_000_000, 0) == pytest.approx(0.005)
    assert (later.learning_rate, later.decay) == (0.005, 1e-7)
    network = networks.create("dsrf3d", box=8, classes=["a", "b"])
    group = paper.optimiser(network).param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.01, 0.9, True, 0)


def test_our_rate_rises_then_falls_to_nothing() -> None:
    ours = recipe("compact")
    rates = [ours.rate(update, 200) for update in range(200)]
    assert rates.index(max(rates)) == 9
    assert max(rates) == pytest.approx(ours.learning_rate)
    assert rates[-1] < 1e-3 * max(rates)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))


def test_impossible_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match='"adamw" or "sgd", got \'adam\''):
        Recipe(algorithm="adam")
