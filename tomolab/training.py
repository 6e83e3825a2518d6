"""Training: fit a network to labelled subtomograms, simulated on the fly or the user's own; stop and resume at will.

`fit` leaves in its folder ``network.safetensors`` and ``network.json`` (the trained network), ``history.csv`` (a row per
epoch) and ``checkpoint.safetensors`` (weights and optimiser state of the last whole epoch). A run that was cut continues from
there and ends, on a CPU, with the numbers of an unbroken run: data, drop-out and learning rate depend only on the seed
and the number of the epoch.

>>> network = networks.create("compact", box=20, classes=data.classes, voxel_size=20)
>>> record = fit(network, data, validation=held_back, epochs=10, seed=1, folder="runs/first/training")
"""

import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from tomolab import checkpoints, devices, files, networks, runs
from tomolab.networks import Network
from tomolab.recipes import Recipe, recipe
from tomolab.subtomograms import Subtomograms


class Data(Protocol):
    """What `fit` learns from: `simulation.stream(...)` and `labelled(...)` are such."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        ...

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Volumes (b, box, box, box) and labels (b,) of epoch `number`, batch by batch; always the same for a number."""
        ...


@dataclass(frozen=True)
class Labelled:
    """Subtomograms with a `label` column as training data; made by `labelled`."""

    subtomograms: Subtomograms
    classes: tuple[str, ...]
    batch_size: int
    seed: int

    @property
    def batches(self) -> int:
        """Batches in an epoch, the last one perhaps smaller."""
        return math.ceil(len(self.subtomograms) / self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All subtomograms in an order of their own for every epoch."""
        ids = self.subtomograms.particles["particle_id"].to_numpy()
        order = np.random.default_rng((self.seed, number)).permutation(ids)
        for part in np.array_split(order, self.batches):
            chosen = self.subtomograms.take(part)
            yield torch.from_numpy(np.asarray(chosen.volumes, dtype=np.float32)), labels_of(chosen, self.classes)


def labelled(
    subtomograms: Subtomograms, *, classes: tuple[str, ...] | None = None, batch_size: int = 32, seed: int = 0
) -> Labelled:
    """Use subtomograms whose table has a `label` column as training data.

    Parameters
    ----------
    subtomograms
        The data.
    classes
        Class names in the order of the network's outputs; by default the labels that occur, sorted.
    batch_size
        Subtomograms per batch.
    seed
        Decides the order.

    Raises
    ------
    ValueError
        If there is no `label` column or a label is not among the classes.
    """
    if "label" not in subtomograms.particles:
        raise ValueError(f"training needs a column 'label'; the particle table has {', '.join(subtomograms.particles.columns)}")
    wanted = classes or tuple(sorted(subtomograms.particles["label"].astype(str).unique()))
    labels_of(subtomograms, wanted)
    return Labelled(subtomograms, wanted, batch_size, seed)


def labels_of(subtomograms: Subtomograms, classes: tuple[str, ...]) -> Tensor:
    """Class indices (n,) of the `label` column, or ValueError naming labels that are no class."""
    labels = subtomograms.particles["label"].astype(str)
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ValueError(f"labels {', '.join(unknown)} are not among the classes {', '.join(classes)}")
    return torch.from_numpy(pd.Categorical(labels, categories=list(classes)).codes.astype(np.int64))


def fit(
    network: Network,
    data: Data,
    *,
    validation: Subtomograms,
    epochs: int,
    seed: int,
    folder: str | Path,
    resume: bool = True,
    device: str | None = None,
    precision: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train a network and write it to `folder`.

    Parameters
    ----------
    network
        From `networks.create`; trained in place.
    data
        Training data whose classes are the network's.
    validation
        Labelled subtomograms that are not trained on; evaluated after every epoch.
    epochs
        Epochs in all, those of a resumed run included.
    seed
        Decides drop-out; the data carry their own seed.
    folder
        Where the network, its history and checkpoints go.
    resume
        Continue from a checkpoint in `folder`; False starts anew.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    precision
        "float32", "bfloat16" (mixed), or "auto": bfloat16 where the hardware multiplies it fast.
    progress
        Show a progress bar with rate and remaining time.

    Returns
    -------
    dict
        The record: history (a row per epoch), confusion matrix, seed, recipe, seconds, machine.

    Raises
    ------
    ValueError
        If the classes disagree, a volume has the wrong size, the precision is unknown, the device is absent, or the
        checkpoint is of another run.
    """
    where = devices.pick(device)
    bfloat16 = devices.bfloat16(where, precision)
    _agree(network, data, validation)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    plan = {"network": network.name, "box": network.box, "classes": list(network.classes), "epochs": epochs, "seed": seed}
    network.to(where, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    lesson = _Lesson(network, data, recipe(network.name), epochs, seed)
    history = checkpoints.restore(target, network, lesson.optimiser, plan=plan) if resume else []
    lesson.done = len(history)
    diary = _Diary(lesson, target, plan, history, validation, progress=progress)
    if len(history) < epochs:
        with _quiet():
            trainer = Trainer(
                accelerator="gpu" if where.type == "cuda" else "cpu",
                devices=[where.index or 0] if where.type == "cuda" else 1,
                max_epochs=epochs - len(history),
                precision="bf16-mixed" if bfloat16 else "32-true",
                gradient_clip_val=None if lesson.recipe.paper else 1.0,
                callbacks=[diary],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                reload_dataloaders_every_n_epochs=1,
            )
            trainer.fit(lesson)
    record = plan | {
        "recipe": vars(lesson.recipe),
        "precision": "bfloat16" if bfloat16 else "float32",
        "history": diary.history,
        "confusion": evaluate(network, validation)["confusion"].tolist(),
        "machine": runs.machine(),
    }
    networks.save(network.eval(), target / "network.safetensors", record=record)
    return record


def evaluate(network: Network, subtomograms: Subtomograms, *, batch_size: int = 128) -> dict[str, Any]:
    """Loss, accuracy and confusion matrix (true class, predicted class) of a network on labelled subtomograms."""
    truth = labels_of(subtomograms, network.classes)
    where = next(network.parameters()).device
    before = network.training
    network.eval()
    with torch.inference_mode():
        parts = (torch.from_numpy(volumes).to(where) for _, volumes in subtomograms.batches(batch_size))
        logits = torch.cat([network(part).float().cpu() for part in parts])
    network.train(before)
    predicted = logits.argmax(1)
    size = len(network.classes)
    confusion = torch.bincount(truth * size + predicted, minlength=size * size).reshape(size, size).numpy()
    return {
        "loss": float(functional.cross_entropy(logits, truth)),
        "accuracy": float((predicted == truth).float().mean()),
        "confusion": confusion,
    }


def _agree(network: Network, data: Data, validation: Subtomograms) -> None:
    if tuple(data.classes) != network.classes:
        raise ValueError(f"the data have classes {', '.join(data.classes)}, the network {', '.join(network.classes)}")
    networks.check(network, box=validation.box, voxel_size=validation.voxel_size)
    labels_of(validation, network.classes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notes on the machine and on its own use of torch, which a user can do nothing about."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            warnings.filterwarnings("ignore", message="GPU available but not used")
            yield
    finally:
        log.setLevel(level)


class _Lesson(LightningModule):
    """The network in Lightning's terms. Epochs and updates are counted over all runs, so that a resumed run goes on."""

    def __init__(self, network: Network, data: Data, recipe: Recipe, epochs: int, seed: int) -> None:
        super().__init__()
        self.network, self.data, self.recipe, self.epochs, self.seed = network, data, recipe, epochs, seed
        self.optimiser = recipe.optimiser(network)
        self.done = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimiser

    def train_dataloader(self) -> "_Epoch":
        torch.manual_seed(self.seed * 1_000_003 + self.done)
        return _Epoch(self.data, self.done)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> dict[str, Tensor]:
        volumes, labels = batch
        update, updates = self.done * self.data.batches + index, self.epochs * self.data.batches
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(update, updates)
        logits = self.network(volumes[:, None].contiguous(memory_format=torch.channels_last_3d)).float()
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.smoothing)
        return {"loss": loss, "right": (logits.argmax(1) == labels).float().sum(), "count": torch.tensor(len(labels))}


class _Epoch:
    """One epoch of the data, as the loader that Lightning asks for."""

    def __init__(self, data: Data, number: int) -> None:
        self.data, self.number = data, number

    def __len__(self) -> int:
        return self.data.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.data.epoch(self.number)


class _Diary(Callback):
    """Keeps the history, shows progress and writes a checkpoint after every epoch."""

    def __init__(
        self,
        lesson: _Lesson,
        folder: Path,
        plan: dict[str, Any],
        history: list[dict[str, float]],
        validation: Subtomograms,
        *,
        progress: bool,
    ) -> None:
        self.lesson, self.folder, self.plan, self.history, self.validation = lesson, folder, plan, history, validation
        batches = lesson.data.batches
        self.bar = tqdm(
            total=lesson.epochs * batches, initial=len(history) * batches, disable=not progress, unit="batch", desc="training"
        )
        self.sums = np.zeros(3)

    def on_train_epoch_start(self, *_: Any) -> None:
        self.sums, self.started = np.zeros(3), time.perf_counter()

    def on_train_batch_end(self, _trainer: Trainer, _module: LightningModule, outputs: Any, *_: Any) -> None:
        count = float(outputs["count"])
        self.sums += [float(outputs["loss"]) * count, float(outputs["right"]), count]
        loss, right, total = self.sums
        rate = total / (time.perf_counter() - self.started)
        self.bar.set_postfix_str(
            f"loss {loss / total:.3f}, accuracy {right / total:.3f}, {rate:.0f} subtomograms/s", refresh=False
        )
        self.bar.update()

    def on_train_epoch_end(self, *_: Any) -> None:
        loss, right, total = self.sums
        seconds = time.perf_counter() - self.started
        judged = evaluate(self.lesson.network, self.validation)
        self.lesson.done += 1
        self.history.append(
            {
                "epoch": self.lesson.done,
                "train_loss": loss / total,
                "train_accuracy": right / total,
                "loss": judged["loss"],
                "accuracy": judged["accuracy"],
                "seconds": seconds,
                "per_second": total / seconds,
            }
        )
        checkpoints.write(self.folder, self.lesson.network, self.lesson.optimiser, plan=self.plan, history=self.history)
        with files.atomic(self.folder / "history.csv") as temporary:
            pd.DataFrame(self.history).to_csv(temporary, index=False)

    def on_train_end(self, *_: Any) -> None:
        self.bar.close()
