"""Loops: one pass after the other over the data, on one device or spread over the processes that ``torchrun`` started.

The global batch is the same however many processes there are: each takes every so-manieth of its subtomograms, and the loss
is that of the whole batch, whose logits are gathered from all. So the numbers are those of one process, except for what
a network does with its own share only: drop-out, and batch norm on CPUs (on GPUs its statistics are of the whole batch).
"""

import itertools
import logging
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, nn

from tomolab.learning import losses
from tomolab.learning.datasets import Data
from tomolab.learning.networks import Network
from tomolab.learning.recipes import Recipe
from tomolab.subtomograms import store


def spread(where: torch.device, *, bfloat16: bool) -> Fabric:
    """What runs the loop: this process alone, or with the others that ``torchrun`` started, in float32 or mixed bfloat16.

    Parameters
    ----------
    where
        The device; of a GPU's index each process of ``torchrun`` has its own.
    bfloat16
        Multiply in bfloat16.
    """
    together = TorchElasticEnvironment.detect()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if together else 1
    nodes = int(os.environ.get("WORLD_SIZE", 1)) // local if together else 1
    alone: Any = [where.index or 0] if where.type == "cuda" else 1
    with _quiet():
        fabric = Fabric(
            accelerator=where.type,
            devices=local if together else alone,
            num_nodes=nodes,
            strategy="ddp" if together else "auto",
            precision="bf16-mixed" if bfloat16 else "32-true",
        )
        fabric.launch()
    return fabric


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Fabric's notes on what it was asked for."""
    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


class Loop:
    """A network, its data, and how it is optimised."""

    def __init__(self, network: Network, data: Data, *, recipe: Recipe, epochs: int, seed: int, fabric: Fabric) -> None:
        self.data, self.recipe, self.epochs, self.seed, self.fabric = data, recipe, epochs, seed, fabric
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        # Channels last is faster for 3-D convolutions on both kinds of device, and changes no more than rounding.
        network.to(fabric.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.network, self.optimiser = network, recipe.optimiser(network)

    def start(self) -> None:
        """Make ready; what is restored from a checkpoint has to be in place before."""
        self.pupil, self.stepper = self.fabric.setup(_Pupil(self.network), self.optimiser)

    def epoch(self, number: int, *, start: int = 0) -> Generator[Tensor]:
        """Train on the batches of an epoch from `start` on; yields after each (loss times n, right answers, n), float64."""
        self.network.train()
        updates = self.epochs * self.data.batches
        for batch, (volumes, labels) in enumerate(store.ahead(self.data.epoch(number, start=start)), start):
            self._rate(number * self.data.batches + batch, updates)
            # Drop-out depends on nothing but where the training is.
            place = np.random.SeedSequence((self.seed, number, batch, self.fabric.global_rank))
            torch.manual_seed(int(place.generate_state(1)[0]))
            yield self._step(volumes, labels)

    def _rate(self, update: int, updates: int) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(update, updates)

    def _step(self, volumes: Tensor, labels: Tensor) -> Tensor:
        labels = labels.to(self.fabric.device, non_blocking=True)
        share = volumes[self.fabric.global_rank :: self.fabric.world_size].to(self.fabric.device, non_blocking=True)
        logits = self._gathered(self.pupil(share[:, None].contiguous(memory_format=torch.channels_last_3d)), len(labels))
        loss = losses.loss(self.recipe, logits, labels)
        self.optimiser.zero_grad()
        # Every process has the gradient through its share; their mean, which is what they agree on, is to be the sum.
        self.fabric.backward(loss * self.fabric.world_size)
        if self.recipe.clip is not None:
            self.fabric.clip_gradients(self.pupil, self.stepper, max_norm=self.recipe.clip)
        self.stepper.step()
        right = (logits.argmax(1) == labels).sum()
        count = len(labels)
        return torch.stack([loss.detach().double() * count, right.double(), torch.full_like(right, count).double()])

    def _gathered(self, part: Tensor, count: int) -> Tensor:
        """Rows of the whole batch, in its order, from the shares of all processes; gradients flow to the own share only."""
        world = self.fabric.world_size
        if world == 1:
            return part
        filled = torch.cat([part, part.new_zeros(-(-count // world) - len(part), part.shape[1])])
        shares: list[Tensor] = list(self.fabric.all_gather(filled.detach()))  # type: ignore[arg-type]
        shares[self.fabric.global_rank] = filled
        return torch.stack(shares, dim=1).flatten(0, 1)[:count]


class _Pupil(nn.Module):
    """Logits of volumes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, volumes: Tensor) -> Tensor:
        features = self.network.features(volumes).float()
        # The classifier is small: it costs nothing to have its logits in full precision.
        with torch.autocast(features.device.type, enabled=False):
            return self.network.head(features)


def measure(loop: Loop, batches: int) -> tuple[float, float]:
    """Subtomograms and seconds of a few batches, the making of the data included, after one that is not counted.

    Parameters
    ----------
    loop
        A loop that was started; its network learns.
    batches
        How many.
    """
    seen = (sums for number in itertools.count() for sums in loop.epoch(number))
    next(seen)
    start = time.perf_counter()
    count = sum(float(sums[2]) for sums in islice(seen, batches))
    seconds = time.perf_counter() - start
    seen.close()
    return count, seconds
