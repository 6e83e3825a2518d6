"""The name of a network in, a recipe out: how it is optimised, the published networks as published.

>>> recipe("dsrf3d").rate(1000, 5000)
>>> replace(recipe("compact"), learning_rate=1e-3)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tomolab.learning.networks import Network


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is optimised: by what, how fast, and for which loss.

    Parameters
    ----------
    algorithm
        "adamw", with a linear warm-up over a twentieth of all updates and then a cosine to zero; or "sgd", with Nesterov
        momentum 0.9 and a rate that falls as 1 / (1 + decay t) after t updates.
    learning_rate
        Of the first update (sgd), or at the top of the warm-up (adamw).
    decay
        Of the rate per update, for sgd.
    weight_decay
        Decoupled weight decay, for adamw.
    clip
        Largest norm of a gradient, or None to leave gradients as they are.
    smoothing
        Share of each label that is spread over all classes.
    margin
        By how much the logit of the true class must be larger: cosine margin times the scale of the classifier.

    Raises
    ------
    ValueError
        If the algorithm is unknown.
    """

    algorithm: str = "adamw"
    learning_rate: float = 3e-3
    decay: float = 0.0
    weight_decay: float = 1e-2
    clip: float | None = 1.0
    smoothing: float = 0.05
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.algorithm not in ("adamw", "sgd"):
            raise ValueError(f'an algorithm is "adamw" or "sgd", got {self.algorithm!r}')

    def optimiser(self, network: Network) -> torch.optim.Optimizer:
        """A fresh optimiser of the network's parameters."""
        if self.algorithm == "sgd":
            return torch.optim.SGD(network.parameters(), lr=self.learning_rate, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def rate(self, update: int, updates: int) -> float:
        """Learning rate at update number `update` of `updates`."""
        if self.algorithm == "sgd":
            return self.learning_rate / (1 + self.decay * update)
        warm = max(1, updates // 20)
        if update < warm:
            return self.learning_rate * (update + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (update - warm) / max(1, updates - warm)))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of logits (n, classes), float32, and class indices (n,), which training lowers.

        Cross-entropy (Xu et al. 2017) with label smoothing; with a margin, the cosine loss of CosFace (Wang et al. 2018).
        """
        lowered = logits - self.margin * functional.one_hot(labels, logits.shape[1]) if self.margin else logits
        return functional.cross_entropy(lowered, labels, label_smoothing=self.smoothing)


_PLAIN = Recipe(algorithm="sgd", learning_rate=0.01, decay=1e-6, weight_decay=0.0, clip=None, smoothing=0.0)
# Xu et al. 2017 trained the first two so; Che et al. 2018 the next three, at half the rate.
_LATER = Recipe(algorithm="sgd", learning_rate=0.005, decay=1e-7, weight_decay=0.0, clip=None, smoothing=0.0)
# A cosine margin of 0.2 at the scale of 16 that the classifier of ours has.
_OURS = Recipe(margin=3.2)
_RECIPES = {"compact": _OURS, "inception3d": _PLAIN, "dsrf3d": _PLAIN, "dsrf3d_v2": _LATER, "rb3d": _LATER, "cb3d": _LATER}


def recipe(name: str) -> Recipe:
    """The recipe that goes with a network of that name: the published one where there is one."""
    return _RECIPES.get(name, Recipe())
