"""Takes subtomograms with rough labels; gives the structures they show, their number, and the structure of each subtomogram.

The structure of every label is refined from random orientations. Then split and merge EM finds their number (`split_merge`).
Structures whose density goes on to the border of the box are no classes (`contaminants`).

>>> rough = clusters.kmeans(features, 24, seed=0)
>>> found = discover(subtomograms, rough, features=features.vectors, seed=1)
>>> averaging.average(subtomograms, found.labels.index[found.labels == 0], seed=1, start=found.volumes[0])
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tomolab import parallel
from tomolab.averaging import coefficients, refinement
from tomolab.averaging.checkpoint import Checkpoint
from tomolab.averaging.classification.contaminants import Contaminant, border_share, separate
from tomolab.averaging.classification.split_merge import HISTORY, MIN_PARTICLES, SplitMerge
from tomolab.averaging.refinement import Monitor, Settings
from tomolab.jobs import Progress, reporting
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

NO_AGREEMENT = "agrees with no structure better than pure noise does"
"""Why a subtomogram of no structure is in no class."""
NOT_COMPARED = "was not compared with the structures, because the discovery was stopped"
"""Why a subtomogram that took no part in a stopped discovery is in no class."""
COARSEST = 3.0
"""Detail in cycles per box with which the surroundings of a structure are looked at, if less of it is resolved."""


@dataclass(frozen=True, eq=False)
class Classification:
    """Classes of subtomograms.

    Parameters
    ----------
    labels
        Class of each, 0 the largest, named "class" and indexed by particle id; -1 for a subtomogram that agrees with no
        structure better than pure noise does.
    probability
        Probability, under the model, that it is of its class; for those in no class, of the structure that it agrees with most.
    volumes
        Structure of each class, at the resolution that the classification used.
    """

    labels: pd.Series
    probability: pd.Series
    volumes: list[Volume]


@dataclass(frozen=True, eq=False)
class Discovery(Classification):
    """Structures that subtomograms show; a `Classification` whose number of classes was found.

    Parameters
    ----------
    labels, probability, volumes
        As in `Classification`.
    history
        By iteration: ``structures``, ``moved`` (share of the subtomograms that changed class), ``merged`` and ``divided``
        (structures), ``unassigned`` (subtomograms in no class), ``score`` (mean of the log-likelihood of a subtomogram,
        relative to noise without a structure).
    contaminants
        Structures that are no particles, the largest first, each with the reason. Their subtomograms have the label -1.
    reason
        Why each subtomogram that is in no class is in none, by particle id.
    """

    history: pd.DataFrame
    contaminants: list[Contaminant]
    reason: pd.Series


def discover(
    subtomograms: Subtomograms,
    labels: pd.Series,
    *,
    features: np.ndarray | None = None,
    seed: int,
    iterations: int = 24,
    min_particles: int = MIN_PARTICLES,
    max_particles: int | None = None,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    watch: Callable[[Discovery], Any] | None = None,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
    client: Any = None,
) -> Discovery:
    """Find the structures of subtomograms from rough labels, and the structure of each subtomogram.

    Parameters
    ----------
    subtomograms
        In memory or on disk, with their wedges, as in `averaging.average`.
    labels
        Integer label of each subtomogram that takes part, indexed by particle id: clusters, classes, or one value for all. More
        labels than there are structures are better than fewer. Negative labels, and labels of fewer than 8 subtomograms, start
        no structure, but these subtomograms take part.
    features
        Feature vectors (n, d); row i belongs to the i-th label.
    seed
        Of all random orientations, folds and divisions.
    iterations
        At most so many; 0 only compares all subtomograms with the structures of the labels. It ends when merging and dividing
        change nothing any more.
    min_particles
        Fewest subtomograms of a structure, 8 or more. A smaller one is given up after the first two rounds of changes, and its
        subtomograms go to the structures that they agree with best.
    max_particles
        The structures are found from at most so many, drawn at random from all labels in equal numbers as far as they go; all
        others are compared with the structures once, at the end. None uses all in every iteration.
    checkpoint
        File (.safetensors) for the state after every iteration. After an interruption the same call continues from there, with
        the result of an unbroken run on the same machine. A finished run removes it.
    progress
        True shows a bar; a function is called with a `Progress` after every iteration, whose map is of the largest class.
    watch
        Called with the present `Discovery` after every iteration.
    stop
        Asked after every iteration; when it answers True, the present result is returned.
    mask_diameter, max_shift, device, client
        As in `averaging.average`; each structure has a mask of its own by default.

    Raises
    ------
    ValueError
        If ids are unknown or repeated, labels are not integers, no label has 8 particles, the features are of another number
        or not finite, a box holds NaN, a number or a length is out of range, or the checkpoint is of another call.
    BlockingIOError
        If another process uses the same checkpoint.
    """
    check_limits(iterations, min_particles=min_particles, max_particles=max_particles)
    features = None if features is None else np.asarray(features)
    chosen = _checked(subtomograms, labels, features)
    some = _draw(labels, max_particles, seed)
    classes = _classes(labels[some])
    lengths = {"mask_diameter": mask_diameter, "max_shift": max_shift}
    workers = Workers(parallel.active(client), device)
    options: dict[str, Any] = {
        "features": features,
        "min_particles": min_particles,
        "rows": torch.from_numpy(np.flatnonzero(some)),
    }
    work, diameters = prepare(chosen, classes, seed=seed, workers=workers, **lengths, **options)
    position = pd.Series(np.arange(len(chosen)), index=chosen.ids)
    total = len(classes) + iterations
    about = _about(chosen, labels, features) | {"min_particles": min_particles, "max_particles": max_particles}
    saved = Checkpoint(checkpoint, about | {"seed": seed, **lengths})
    with saved.lock(), reporting(progress, total, "discovery") as report:
        monitor = Monitor(report, stop, total, work.data.box * chosen.voxel_size)
        saved.restore([work])
        if not saved.exists:
            for number, (ids, diameter) in enumerate(zip(classes, diameters, strict=True), 1):
                rows = torch.tensor(position[ids].to_numpy()).to(work.every)
                monitor.after(number, f"structure {number}", work.start(rows, diameter))
                if monitor.stopped:
                    break
            work.score()
        found = None
        while len(work.history) < iterations and not monitor.stopped and not work.settled:
            largest = work.iterate(change=True)
            saved.write([work])
            number = len(classes) + len(work.history)
            monitor.after(number, f"{len(work.structures)} structures", largest)
            if watch is not None:
                found = _discovery(work, chosen)
                watch(found)
        if not monitor.stopped:
            if work.complete():
                found = None
            saved.remove()
    return found or _discovery(work, chosen)


def check_limits(iterations: int, *, min_particles: int, max_particles: int | None) -> None:
    """Refuse numbers of `discover` that are out of range, with a ValueError."""
    least = {"iterations": (iterations, 0), "min_particles": (min_particles, MIN_PARTICLES)}
    least |= {} if max_particles is None else {"max_particles": (max_particles, 2 * min_particles)}
    for name, (value, limit) in least.items():
        if value < limit:
            raise ValueError(f"{name} must be {limit} or more, got {value}")


def _draw(labels: pd.Series, most: int | None, seed: int) -> np.ndarray:
    """Mask of at most so many labels, from each value as many as possible up to the same number."""
    shuffled = labels.sample(frac=1, random_state=seed)
    rank = shuffled.groupby(shuffled).cumcount().sort_values(kind="stable")
    return np.asarray(labels.index.isin(rank.index[:most]))


def _about(chosen: Subtomograms, labels: pd.Series, features: np.ndarray | None) -> dict[str, Any]:
    """What tells one discovery from another: digests of the subtomograms, labels and features."""
    parts = [labels.to_numpy(np.int64), np.zeros(0) if features is None else np.asarray(features, dtype=np.float64)]
    digests = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts]
    return {"discovery": True, "particles": chosen.digest(), "labels": digests[0], "features": digests[1]}


def _checked(subtomograms: Subtomograms, labels: pd.Series, features: np.ndarray | None) -> Subtomograms:
    """The subtomograms that have labels."""
    if not pd.api.types.is_integer_dtype(labels.dtype) or labels.hasnans:
        raise ValueError(
            f"labels must be integers, none of them missing, got {labels.dtype}: number names by pandas.factorize; "
            "-1 is for subtomograms without a label"
        )
    chosen = subtomograms.take(labels.index.to_numpy())
    if features is not None and (features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all()):
        raise ValueError(f"features need one finite row for each of {len(labels)} labels, got shape {features.shape}")
    return chosen


def _classes(labels: pd.Series) -> list[np.ndarray]:
    """Ids of each label that is large enough to start a structure, the largest first."""
    counts = labels[labels >= 0].value_counts(sort=True)
    classes = [labels.index[labels == value].to_numpy() for value in counts.index[counts >= MIN_PARTICLES]]
    if not classes:
        largest = counts.max() if len(counts) else 0
        raise ValueError(f"a label with {MIN_PARTICLES} particles or more is needed, the largest has {largest}")
    return classes


def prepare(
    chosen: Subtomograms,
    classes: list[np.ndarray],
    *,
    seed: int,
    mask_diameter: float | None,
    max_shift: float | None,
    workers: Workers,
    **options: Any,
) -> tuple[SplitMerge, list[float]]:
    """Read the subtomograms for split and merge EM; also gives the diameter of each class in voxels, from its ids.

    `options` are those of `SplitMerge`.
    """
    diameters = [_settings(chosen.take(ids), mask_diameter, max_shift)[1].diameter_voxels for ids in classes]
    box, settings = _settings(chosen, max(diameters) * chosen.voxel_size if mask_diameter is None else mask_diameter, max_shift)
    generator = torch.Generator(device=parallel.pick_device(workers.device)).manual_seed(seed)
    # As fine as the search for a first structure becomes.
    radius = min(settings.radius_cycles * refinement.GROWTH[-1] * max(diameters) / min(diameters), settings.max_radius_cycles)
    data = coefficients.read(chosen, box=box, radius_cycles=radius, device=generator.device)
    settings = replace(settings, max_radius_cycles=radius)
    return SplitMerge(data, settings, generator=generator, workers=workers, **options), diameters


def classes_of(work: SplitMerge, chosen: Subtomograms) -> Classification:
    """Classes by their size, and the most likely one of each subtomogram."""
    order = work.order
    probability = torch.softmax(work.posterior[:, order], dim=1).cpu().numpy()
    index = pd.Index(chosen.ids, name="particle_id")
    labels = pd.Series(probability.argmax(1), index=index, name="class").mask(work.unassigned.cpu().numpy(), -1)
    densities = [work.references[number].density.cpu().numpy() for number in order[: labels.max() + 1]]
    return Classification(
        labels,
        pd.Series(probability.max(1), index=index, name="probability"),
        [Volume(one, work.data.box * chosen.voxel_size / len(one)) for one in densities],
    )


def _discovery(work: SplitMerge, chosen: Subtomograms) -> Discovery:
    """Classes without the structures that are contaminants."""
    found, shares = classes_of(work, chosen), []
    for number, structure in enumerate(work.order[: len(found.volumes)]):
        rows = torch.from_numpy(np.flatnonzero(found.labels == number)).to(work.every)
        data = work.data.inside(max(work.references[structure].resolved_cycles, COARSEST)).take(rows)
        shares.append(border_share(data, work.structures[structure].poses.take(rows), work.fold[rows]))
    labels, volumes, contaminants = separate(found.labels, found.volumes, shares)
    why = np.where(work.taking_part.cpu(), NO_AGREEMENT, NOT_COMPARED)
    reason = pd.Series(why, index=labels.index, name="reason", dtype=object)[labels < 0]
    for one in contaminants:
        reason[one.ids] = one.reason
    history = pd.DataFrame(work.history, columns=HISTORY).rename_axis("iteration")
    return Discovery(labels, found.probability, volumes, history, contaminants, reason)


def _settings(some: Subtomograms, mask_diameter: float | None, max_shift: float | None) -> tuple[int, Settings]:
    return refinement.choose_settings(some, mask_diameter=mask_diameter, max_shift=max_shift)
