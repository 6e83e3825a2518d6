"""Training: fit a network to labelled subtomograms, simulated on the fly or the user's own; stop and resume at will.

`fit` leaves in its folder ``network.safetensors`` and ``network.json`` (the trained network and its record), ``history.csv``
(a row per epoch) and ``checkpoint.safetensors``. A run that was cut goes on from its last checkpoint, in the middle of an epoch
too, and ends, on a CPU, with the numbers of an unbroken run: data, drop-out and learning rate depend only on the seed and
the numbers of epoch and batch. The same call under ``torchrun --nproc-per-node=4 script.py`` uses four GPUs, or four
processes on CPUs; the folder must then be one that all of them see.

>>> network = networks.create("compact", box=20, classes=data.classes, voxel_size=20)
>>> record = fit(network, data, validation=held_back, epochs=10, seed=1, folder="runs/first/training")
"""

import copy
import itertools
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from tomolab import parallel
from tomolab.io import paths
from tomolab.learning import checkpoints, metrics, recipes
from tomolab.learning import loop as training_loop
from tomolab.learning.checkpoints import TrainingProgress
from tomolab.learning.datasets import Data
from tomolab.learning.loop import Loop, TrainingLog
from tomolab.learning.networks import Network
from tomolab.learning.recipes import Recipe
from tomolab.subtomograms.dataset import Subtomograms


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
    patience: int | None = None,
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
        Training data whose classes are the network's: `simulation.Stream` or `learning.Labelled`.
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
        "last", the weights after the last epoch, or "best", those of the epoch with the highest ``novel_ari`` of the history,
        or ``accuracy`` where there are no `novel` subtomograms.
    patience
        Stop when no epoch was better for so many epochs.
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
    if keep not in ("last", "best"):
        raise ValueError(f'keep is "last" or "best", got {keep!r}')
    _agree(network, data)
    metrics.check(network, validation, novel)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    fabric = training_loop.launch(where, bfloat16=bfloat16)
    loop = Loop(network, data, recipe=recipe or recipes.recipe(network.name), epochs=epochs, seed=seed, fabric=fabric)
    plan = {"network": network.name, "box": network.box, "classes": list(network.classes), "epochs": epochs, "seed": seed}
    plan |= {"recipe": vars(loop.recipe), "keep": keep, "by": "accuracy" if novel is None else "novel_ari"}
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
        with closing(sums for number in itertools.count() for sums in loop.epoch(number)) as stream:
            next(stream)
            start = time.perf_counter()
            count = sum(float(sums[2]) for sums in itertools.islice(stream, batches))
            seconds = time.perf_counter() - start
    return {"per_second": count / seconds, "seconds": seconds / batches * data.batches * epochs}


def _agree(network: Network, data: Data) -> None:
    if tuple(data.classes) != network.classes:
        raise ValueError(f"the data have classes {', '.join(data.classes)}, the network {', '.join(network.classes)}")


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
            bar.set_postfix_str(_rates(so_far), refresh=False)
        if now - saved > every:
            saved = now
            log.save()
    so_far.seconds = time.perf_counter() - begun


def _rates(so_far: TrainingProgress) -> str:
    loss, right, count = so_far.sums
    return f"loss {loss / count:.3f}, accuracy {right / count:.3f}, {count / so_far.seconds:.0f} subtomograms/s"
