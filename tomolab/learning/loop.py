"""A network and labelled subtomograms in, trained weights and a history out: the training loop, its log and its checkpoints.

One pass after the other goes over the data, on one device or spread over the processes that ``torchrun`` started. The global
batch is the same however many processes there are: each takes every so-manieth of its subtomograms, and the loss is that of
the whole batch, whose logits are gathered from all. So the numbers are those of one process, except for what a network does
with its own subtomograms only: drop-out, and batch norm on CPUs (on GPUs its statistics are of the whole batch).

>>> loop = Loop(network, data, recipe=recipe, epochs=10, seed=1, fabric=launch(device, bfloat16=False))
>>> log = TrainingLog(loop, TrainingProgress(), folder=folder, plan=plan, validation=held_back)
>>> log.end_epoch()              # a row of the history, perhaps new best weights, a checkpoint
"""

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, nn

from tomolab import io
from tomolab.io import run_folder
from tomolab.learning import checkpoints, metrics, networks
from tomolab.learning.checkpoints import TrainingProgress
from tomolab.learning.datasets import Data
from tomolab.learning.networks import Network
from tomolab.learning.recipes import Recipe
from tomolab.subtomograms import store
from tomolab.subtomograms.dataset import Subtomograms


def launch(where: torch.device, *, bfloat16: bool) -> Fabric:
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
        self.classifier, self.stepper = self.fabric.setup(_Classifier(self.network), self.optimiser)

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
        own = volumes[self.fabric.global_rank :: self.fabric.world_size].to(self.fabric.device, non_blocking=True)
        logits = self._gather(self.classifier(own[:, None].contiguous(memory_format=torch.channels_last_3d)), len(labels))
        loss = self.recipe.loss(logits, labels)
        self.optimiser.zero_grad()
        # Every process has the gradient through its own rows; their mean, which is what they agree on, is to be the sum.
        self.fabric.backward(loss * self.fabric.world_size)
        if self.recipe.clip is not None:
            self.fabric.clip_gradients(self.classifier, self.stepper, max_norm=self.recipe.clip)
        self.stepper.step()
        right = (logits.argmax(1) == labels).sum()
        count = len(labels)
        return torch.stack([loss.detach().double() * count, right.double(), torch.full_like(right, count).double()])

    def _gather(self, own: Tensor, count: int) -> Tensor:
        """Rows of the whole batch, in its order, from all processes; gradients flow to the own rows only."""
        world = self.fabric.world_size
        if world == 1:
            return own
        filled = torch.cat([own, own.new_zeros(-(-count // world) - len(own), own.shape[1])])
        gathered: list[Tensor] = list(self.fabric.all_gather(filled.detach()))  # type: ignore[arg-type]
        gathered[self.fabric.global_rank] = filled
        return torch.stack(gathered, dim=1).flatten(0, 1)[:count]


class _Classifier(nn.Module):
    """Logits of volumes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, volumes: Tensor) -> Tensor:
        features = self.network.features(volumes).float()
        # The classifier is small: it costs nothing to have its logits in full precision.
        with torch.autocast(features.device.type, enabled=False):
            return self.network.head(features)


class TrainingLog:
    """Keeps the history of a loop; of several processes the first one evaluates and writes."""

    def __init__(
        self,
        loop: Loop,
        so_far: TrainingProgress,
        *,
        folder: Path,
        plan: dict[str, Any],
        validation: Subtomograms,
        novel: Subtomograms | None = None,
        precision: str = "auto",
    ) -> None:
        self.loop, self.so_far, self.folder, self.plan = loop, so_far, folder, plan
        self.validation, self.novel, self.precision = validation, novel, precision
        self.leads = loop.fabric.is_global_zero

    def end_epoch(self) -> None:
        """Close an epoch: a row of the history, the best weights, a checkpoint."""
        so_far, network = self.so_far, self.loop.network
        loss, right, count = so_far.sums
        row: dict[str, float] = {
            "epoch": len(so_far.history) + 1,
            "train_loss": loss / count,
            "train_accuracy": right / count,
        }
        if self.leads:
            found = metrics.evaluate(network, self.validation, precision=self.precision)
            row |= {"loss": found["loss"], "accuracy": found["accuracy"]}
            if self.novel is not None:
                row |= metrics.novel(network, self.novel, seed=self.plan["seed"], precision=self.precision)
            row |= {"seconds": so_far.seconds, "per_second": count / so_far.seconds}
        so_far.history.append(self.loop.fabric.broadcast(row))
        if self.plan["keep"] == "best" and _best(so_far.history, self.plan["by"]) == len(so_far.history) - 1:
            so_far.best = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        so_far.batch, so_far.sums, so_far.seconds = 0, [0.0, 0.0, 0.0], 0.0
        # First the history: where a run is cut between the two, the last epoch is done again, and its row written again.
        if self.leads:
            with io.atomic(self.folder / "history.csv") as temporary:
                pd.DataFrame(so_far.history).to_csv(temporary, index=False)
        self.save()

    def save(self) -> None:
        """Write a checkpoint; of several processes one does."""
        if self.leads:
            checkpoints.write(self.folder, self.loop.network, self.loop.optimiser, plan=self.plan, progress=self.so_far)

    def epochs_since_best(self) -> int:
        """Epochs since the best."""
        history = self.so_far.history
        return len(history) - 1 - _best(history, self.plan["by"]) if history else 0

    def finish(self) -> dict[str, Any]:
        """Put the weights to keep in place, evaluate them, write the network, and return its record."""
        network, history, target = self.loop.network, self.so_far.history, self.folder / "network.safetensors"
        if self.so_far.best:
            network.load_state_dict(self.so_far.best)
        record = self.plan | {
            "precision": self.precision,
            "history": history,
            "kept": _best(history, self.plan["by"]) + 1 if self.plan["keep"] == "best" else len(history),
            "seconds": sum(row["seconds"] for row in history),
            "processes": self.loop.fabric.world_size,
            "machine": run_folder.machine(),
        }
        if self.leads:
            record["confusion"] = metrics.evaluate(network, self.validation, precision=self.precision)["confusion"].tolist()
            networks.save(network.eval(), target, record=record)
        self.loop.fabric.barrier()
        networks.weights(network.eval(), target)
        return networks.describe(target)["record"]


def _best(history: list[dict[str, float]], column: str) -> int:
    """Index of the best epoch, the first of equals."""
    values = [row[column] for row in history]
    return values.index(max(values))
