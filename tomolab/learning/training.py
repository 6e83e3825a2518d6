"""Training: fit a network to labelled subtomograms, simulated on the fly or the user's own; stop and resume at will.

`fit` leaves in its folder ``network.safetensors`` and ``network.json`` (the trained network and its record), ``history.csv``
(a row per epoch) and ``checkpoint.safetensors``. A run that was cut goes on from its last checkpoint, in the middle of an epoch
too, and ends, on a CPU, with the numbers of an unbroken run: data, drop-out and learning rate depend only on the seed and
the numbers of epoch and batch. The same call under ``torchrun --nproc-per-node=4 script.py`` uses four GPUs, or four
processes on CPUs; the folder must then be one that all of them see.

>>> network = networks.create("compact", box=20, classes=data.classes, voxel_size=20)
>>> record = fit(network, data, validation=held_back, epochs=10, seed=1, folder="runs/first/training")
>>> record = tune("default", learning.labelled(mine), validation=held_back, epochs=5, seed=1, folder="runs/mine")
"""

import copy
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from tomolab import parallel
from tomolab.io import paths
from tomolab.learning import checkpoints, metrics, networks, recipes
from tomolab.learning import loop as training_loop
from tomolab.learning.checkpoints import TrainingProgress
from tomolab.learning.datasets import Data
from tomolab.learning.loop import CRITERIA, Loop, TrainingLog
from tomolab.learning.metrics import evaluate
from tomolab.learning.networks import Network
from tomolab.learning.recipes import Recipe
from tomolab.subtomograms.dataset import Subtomograms

__all__ = ["estimate", "evaluate", "fit", "tune"]


def fit(
    network: Network,
    data: Data,
    *,
    validation: Subtomograms,
    epochs: int,
    seed: int,
    folder: str | Path,
    novel: Subtomograms | None = None,
    recipe: Recipe | None = None,
    keep: str = "last",
    by: str | None = None,
    patience: int | None = None,
    notes: dict[str, Any] | None = None,
    watch: Callable[[pd.DataFrame], object] | None = None,
    checkpoint_minutes: float = 5.0,
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
        Training data whose classes are the network's: `simulation.Stream` or `learning.labelled`.
    validation
        Labelled subtomograms that are not trained on; evaluated after every epoch.
    epochs
        Epochs in all, those of a resumed run included.
    seed
        Decides drop-out; the data carry their own seed.
    folder
        Where the network, its history and checkpoints go.
    novel
        Labelled subtomograms of at least two classes that are *not* trained on. After every epoch their features are
        clustered: what a network is worth for classes nobody trained for.
    recipe
        How the network is optimised; by default what goes with its name.
    keep
        "last", the weights after the last epoch, or "best", those of the epoch that was best in the column `by`.
    by
        Column of the history: "novel_ari" (the default where there are `novel` subtomograms), "novel_purity", "accuracy"
        (else the default) or "loss".
    patience
        Stop when the column `by` was not improved for so many epochs.
    notes
        What else to write in the record, numbers, text and lists; a run is only resumed with the same.
    watch
        Called with the history, a table with a row per epoch, after every epoch.
    checkpoint_minutes
        Minutes between checkpoints; after each epoch there is one as well.
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
        The record: history (a row per epoch: ``epoch``, ``train_loss``, ``train_accuracy``, ``loss`` and ``accuracy`` of the
        validation, perhaps ``novel_ari`` and ``novel_purity``, ``seconds``, ``per_second``), the ``kept`` epoch, the confusion
        matrix, seed, recipe, seconds, processes, machine.

    Raises
    ------
    ValueError
        If the classes disagree, a volume has the wrong size, an option is unknown, the device is absent, or the checkpoint
        is of another run.
    BlockingIOError
        If another process trains into `folder`.
    """
    where = parallel.pick_device(device)
    bfloat16 = parallel.use_bfloat16(where, precision)
    column = _column(keep, by, novel)
    _agree(network, data)
    metrics.check(network, validation, novel)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    fabric = training_loop.launch(where, bfloat16=bfloat16)
    loop = Loop(network, data, recipe=recipe or recipes.recipe(network.name), epochs=epochs, seed=seed, fabric=fabric)
    plan = {"network": network.name, "box": network.box, "classes": list(network.classes), "epochs": epochs, "seed": seed}
    plan |= {"recipe": vars(loop.recipe), "keep": keep, "by": column, "notes": notes or {}}
    rounding = "bfloat16" if bfloat16 else "float32"
    # Two kernels that train into one folder would write over each other's checkpoints.
    with paths.lock(target / "training") if fabric.is_global_zero else nullcontext():
        fabric.barrier()
        so_far = checkpoints.restore(target, network, loop.optimiser, plan=plan) if resume else TrainingProgress()
        log = TrainingLog(loop, so_far, folder=target, plan=plan, validation=validation, novel=novel, precision=rounding)
        with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
            loop.start()
            _train(loop, log, patience=patience, watch=watch, every=60 * checkpoint_minutes, progress=progress)
        return log.finish()


def tune(
    network: Network | str | Path,
    data: Data,
    *,
    validation: Subtomograms,
    epochs: int = 5,
    seed: int,
    folder: str | Path,
    recipe: Recipe | None = None,
    **more: Any,
) -> tuple[Network, dict[str, Any]]:
    """Train a trained network on for other classes: its features are kept as a start, its classifier is new.

    Parameters
    ----------
    network
        A trained network, where it lies, or the name of a shipped one (`networks.shipped`); not changed.
    data
        Training data of any classes, such as `learning.labelled` of the user's own subtomograms.
    validation
        Labelled subtomograms that are not trained on.
    epochs, seed, folder
        As in `fit`.
    recipe
        By default that of the network's name with a third of its learning rate.
    **more
        What else `fit` takes.

    Returns
    -------
    network, record
        The new network and the record of `fit`; its notes name the network that it started from.

    Raises
    ------
    ValueError
        If box or voxel size are not those of the trained network, or as `fit` does.
    """
    trained = network if isinstance(network, Network) else networks.load(network)
    networks.check(trained, box=validation.box, voxel_size=validation.voxel_size)
    tuned = networks.renewed(trained, tuple(data.classes), seed=seed)
    usual = recipes.recipe(trained.name)
    notes = more.pop("notes", {}) | {"tuned_from": networks.digest(trained)}
    record = fit(
        tuned,
        data,
        validation=validation,
        epochs=epochs,
        seed=seed,
        folder=folder,
        recipe=recipe or replace(usual, learning_rate=usual.learning_rate / 3),
        notes=notes,
        **more,
    )
    return tuned, record


def estimate(
    network: Network,
    data: Data,
    *,
    epochs: int,
    batches: int = 4,
    recipe: Recipe | None = None,
    device: str | None = None,
    precision: str = "auto",
) -> dict[str, float]:
    """How long `fit` will take: a copy of the network learns from a few batches.

    Parameters
    ----------
    network, data, epochs
        As for `fit`; the network is not changed.
    batches
        How many batches to measure, after a first that is not counted.
    recipe, device, precision
        As for `fit`.

    Returns
    -------
    dict
        ``per_second``, subtomograms per second, the making of the data included, and ``seconds`` for all epochs, without
        validation.
    """
    _agree(network, data)
    where = parallel.pick_device(device)
    fabric = training_loop.launch(where, bfloat16=parallel.use_bfloat16(where, precision))
    used = recipe or recipes.recipe(network.name)
    loop = Loop(copy.deepcopy(network), data, recipe=used, epochs=epochs, seed=0, fabric=fabric)
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        loop.start()
        count, seconds = training_loop.measure(loop, batches)
    return {"per_second": count / seconds, "seconds": seconds / batches * data.batches * epochs}


def _agree(network: Network, data: Data) -> None:
    if tuple(data.classes) != network.classes:
        raise ValueError(f"the data have classes {', '.join(data.classes)}, the network {', '.join(network.classes)}")


def _column(keep: str, by: str | None, novel: Subtomograms | None) -> str:
    """The column that decides, or ValueError."""
    if keep not in ("last", "best"):
        raise ValueError(f'keep is "last" or "best", got {keep!r}')
    column = by or ("accuracy" if novel is None else "novel_ari")
    if column not in CRITERIA:
        raise ValueError(f"by is one of {', '.join(CRITERIA)}, got {by!r}")
    if column.startswith("novel") and novel is None:
        raise ValueError(f"{column} needs novel subtomograms")
    return column


def _train(
    loop: Loop,
    log: TrainingLog,
    *,
    patience: int | None,
    watch: Callable[[pd.DataFrame], object] | None,
    every: float,
    progress: bool,
) -> None:
    """Train until all epochs are done or nothing gets better."""
    so_far, batches = log.so_far, loop.data.batches
    bar = tqdm(
        total=loop.epochs * batches,
        initial=len(so_far.history) * batches + so_far.batch,
        disable=not (progress and log.leads),
        unit="batch",
        desc="training",
    )
    with closing(bar):
        if watch is not None and so_far.history and log.leads:
            watch(pd.DataFrame(so_far.history))
        while len(so_far.history) < loop.epochs and (patience is None or log.epochs_since_best() < patience):
            _epoch(loop, log, every=every, bar=bar)
            log.end_epoch()
            if watch is not None and log.leads:
                watch(pd.DataFrame(so_far.history))


def _epoch(loop: Loop, log: TrainingLog, *, every: float, bar: Any) -> None:
    """What is left of an epoch, with a checkpoint now and then."""
    so_far = log.so_far
    sums = torch.tensor(so_far.sums, dtype=torch.float64, device=loop.fabric.device)
    begun = time.perf_counter() - so_far.seconds
    saved = shown = time.perf_counter()
    for more in loop.epoch(len(so_far.history), start=so_far.batch):
        sums += more
        so_far.batch += 1
        bar.update()
        now = time.perf_counter()
        # Reading the sums waits for the device, so it is done now and then only.
        if now - shown > 0.5 or now - saved > every or so_far.batch == loop.data.batches:
            shown = now
            so_far.sums, so_far.seconds = sums.tolist(), now - begun
            bar.set_postfix_str(_told(so_far), refresh=False)
        if now - saved > every:
            saved = now
            log.save()
    so_far.seconds = time.perf_counter() - begun


def _told(so_far: TrainingProgress) -> str:
    loss, right, count = so_far.sums
    return f"loss {loss / count:.3f}, accuracy {right / count:.3f}, {count / so_far.seconds:.0f} subtomograms/s"
