"""Recipes: how a network is optimised, the paper's networks as in the paper.

>>> recipe("compact").rate(0, 1000)
"""

import math
from dataclasses import dataclass

import torch

from tomolab.networks import Network


@dataclass(frozen=True)
class Recipe:
    """How a network is optimised.

    `paper` is SGD with Nesterov momentum 0.9, learning rate 0.01 / (1 + 1e-6 t) after t updates (Xu et al. 2017); otherwise
    AdamW, a linear warm-up over a twentieth of all updates, then a cosine to zero.
    """

    paper: bool = False
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    smoothing: float = 0.05

    def optimiser(self, network: Network) -> torch.optim.Optimizer:
        """A fresh optimiser of the network's parameters."""
        if self.paper:
            return torch.optim.SGD(network.parameters(), lr=self.learning_rate, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def rate(self, update: int, updates: int) -> float:
        """Learning rate at update number `update` of `updates`."""
        if self.paper:
            return self.learning_rate / (1 + 1e-6 * update)
        warm = max(1, updates // 20)
        if update < warm:
            return self.learning_rate * (update + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (update - warm) / max(1, updates - warm)))


def recipe(name: str) -> Recipe:
    """The recipe that goes with a network: the paper's for the paper's networks."""
    return Recipe() if name == "compact" else Recipe(paper=True, learning_rate=0.01, weight_decay=0.0, smoothing=0.0)
