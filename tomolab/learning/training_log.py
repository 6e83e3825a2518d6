"""Diaries: what happened in a training so far, judged after each epoch, and written where a later run finds it.

>>> diary = Diary(loop, Progress(), folder=folder, plan=plan, validation=held_back)
>>> diary.judge()                # after an epoch: a row of the history, perhaps new best weights, a checkpoint
"""

from pathlib import Path
from typing import Any

import pandas as pd

from tomolab import io
from tomolab.io import run_folder
from tomolab.learning import checkpoints, metrics, networks
from tomolab.learning.checkpoints import Progress
from tomolab.learning.loop import Loop
from tomolab.subtomograms.dataset import Subtomograms

COLUMNS = ("accuracy", "loss", "novel_ari", "novel_purity")
"""Columns of a history that can decide which weights are kept; the loss is better where it is lower."""


class Diary:
    """Keeps the history of a loop; of several processes the first one judges and writes."""

    def __init__(
        self,
        loop: Loop,
        so_far: Progress,
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

    def judge(self) -> None:
        """Close an epoch: a row of the history, the best weights, a checkpoint."""
        so_far, network = self.so_far, self.loop.network
        loss, right, count = so_far.sums
        row: dict[str, float] = {
            "epoch": len(so_far.history) + 1,
            "train_loss": loss / count,
            "train_accuracy": right / count,
        }
        if self.leads:
            judged = metrics.evaluate(network, self.validation, precision=self.precision)
            row |= {"loss": judged["loss"], "accuracy": judged["accuracy"]}
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

    def stale(self) -> int:
        """Epochs since the best."""
        history = self.so_far.history
        return len(history) - 1 - _best(history, self.plan["by"]) if history else 0

    def close(self) -> dict[str, Any]:
        """Put the weights to keep in place, judge them, write the network, and return its record."""
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
    values = [-row[column] if column == "loss" else row[column] for row in history]
    return values.index(max(values))
