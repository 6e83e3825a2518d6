"""Each part of the loss rewards what it is there for."""

import itertools

import pytest
import torch
from torch import Tensor

from tomolab import networks, objectives
from tomolab.recipes import Recipe, recipe


def groups(spread: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of three classes about directions of their own, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(8)
    return 4 * torch.eye(6)[labels] + spread * torch.randn(24, 6, generator=generator), labels


@pytest.mark.parametrize("part", ["contrastive", "triplet"])
def test_metric_parts_pull_classes_together_and_apart(part: str) -> None:
    # Features that share most of their direction: classes are there, but hardly apart.
    features, labels = groups(0.5)
    features = (features + 8 * torch.ones(6)).requires_grad_()
    asked = Recipe(classification=1e-9, smoothing=0.0, **{part: 1.0})
    step = torch.optim.Adam([features], lr=0.3)
    before = separation(features, labels)
    for _ in range(30):
        step.zero_grad()
        objectives.loss(asked, features, torch.zeros(24, 3), labels=labels).backward()
        step.step()
    assert before < 0.2
    assert separation(features, labels) > before + 0.3


def separation(features: Tensor, labels: Tensor) -> float:
    """Mean cosine within classes less that between them."""
    directions = torch.nn.functional.normalize(features.detach())
    cosines, same = directions @ directions.T, labels[:, None] == labels
    return float(cosines[same].mean() - cosines[~same].mean())


@pytest.mark.parametrize("part", ["contrastive", "triplet"])
def test_metric_parts_see_directions_only(part: str) -> None:
    features, labels = groups(1.0)
    asked, logits = Recipe(**{part: 1.0}), torch.zeros(24, 3)
    lengths = 1 + torch.arange(24)[:, None] % 5
    assert objectives.loss(asked, features, logits, labels=labels) == pytest.approx(
        float(objectives.loss(asked, features * lengths, logits, labels=labels)), rel=1e-4
    )


def test_without_further_parts_it_is_cross_entropy() -> None:
    features, labels = groups(1.0)
    logits = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    expected = -torch.log_softmax(logits, 1)[torch.arange(24), labels].mean()
    assert objectives.loss(Recipe(smoothing=0.0), features, logits, labels=labels) == pytest.approx(float(expected))


def test_a_margin_asks_for_more() -> None:
    labels = torch.tensor([0])
    logits = torch.tensor([[3.0, 1.0]])
    with_margin = objectives.loss(Recipe(smoothing=0.0, margin=2.0), logits, logits, labels=labels)
    assert float(with_margin) == pytest.approx(float(torch.tensor(2.0).log()))
    assert float(with_margin) > float(objectives.loss(Recipe(smoothing=0.0), logits, logits, labels=labels))


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
    with pytest.raises(ValueError, match="classification must be above 0"):
        Recipe(classification=0.0, contrastive=1.0)
