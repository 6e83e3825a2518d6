"""Takes subtomograms of several structures; gives the class of each and a map of each class, without a reference.

All subtomograms are first refined as if they were one structure. Those that agree with it least, compared with references that
do not contain them, are then refined on their own from random orientations, and so on. Then every subtomogram is scored against
all structures in turn, weighted among them by the likelihood, and the structures are made again with these weights. The number
of classes is given; `discovery` finds it.

>>> found = classify(subtomograms, chosen.ids, classes=2, seed=1)
>>> averaging.average(subtomograms, found.labels.index[found.labels == 0], seed=1, start=found.volumes[0])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from tomolab import parallel
from tomolab.averaging import coefficients, reconstruction, refinement
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import References, shell_index
from tomolab.averaging.refinement import FOLDS, Monitor, Refinement, Settings
from tomolab.jobs import Progress, reporting
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

MIN_PARTICLES = 8
"""Fewest subtomograms of a class."""


@dataclass(frozen=True, eq=False)
class Classification:
    """Classes of subtomograms.

    Parameters
    ----------
    labels
        Class of each, 0 the largest, named "class" and indexed by particle id.
    probability
        Probability, under the model, that it is of its class.
    volumes
        Structure of each class, at the resolution that the classification used.
    """

    labels: pd.Series
    probability: pd.Series
    volumes: list[Volume]


def classify(
    subtomograms: Subtomograms,
    ids: Any = None,
    *,
    seed: int,
    classes: int = 2,
    iterations: int = 6,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
) -> Classification:
    """Divide subtomograms among structures that are found on the way.

    Parameters
    ----------
    seed
        Of all random orientations and folds.
    classes
        How many structures.
    iterations
        How often all subtomograms are scored against all structures.
    stop
        Asked after every iteration; when it answers True, the present result is returned, perhaps with fewer classes.
    subtomograms, ids, mask_diameter, max_shift, progress, device
        As in `averaging.average`; the map in `progress` is of the class that was made last, or of the largest.

    Raises
    ------
    ValueError
        If ids are unknown, there are less than 2 classes, fewer than 8 particles for each, or a length is out of range.
    """
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    if classes < 2 or len(chosen) < classes * MIN_PARTICLES:
        raise ValueError(
            f"a classification needs 2 classes or more with {MIN_PARTICLES} particles each, "
            f"got {classes} for {len(chosen)} particles"
        )
    box, settings = refinement.choose_settings(chosen, mask_diameter=mask_diameter, max_shift=max_shift)
    generator = torch.Generator(device=parallel.pick_device(device)).manual_seed(seed)
    radius = min(settings.radius_cycles * refinement.GROWTH[-1], settings.max_radius_cycles)
    data = coefficients.read(chosen, box=box, radius_cycles=radius, device=generator.device)
    classifier = _Classifier(data, replace(settings, max_radius_cycles=radius), generator)
    total = classes * settings.iterations + iterations
    with reporting(progress, total, "classification") as report:
        monitor = Monitor(report, stop, total, box * chosen.voxel_size)
        while len(classifier.references) < classes and not monitor.stopped:
            classifier.add_class(monitor)
        while monitor.count < total and not monitor.stopped:
            monitor.after(monitor.count + 1, "classification", classifier.iterate())
    return classifier.result(chosen)


class _Classifier:
    """Structures, and the log-likelihood (n, classes) of every subtomogram under each."""

    def __init__(self, data: Coefficients, settings: Settings, generator: torch.Generator) -> None:
        self.data, self.settings, self.generator = data, settings, generator
        count, device = len(data), data.values.device
        self.fold = torch.randperm(count, generator=generator, device=device) % FOLDS
        self.poses: list[Poses] = []
        self.references: list[References] = []
        self.evidence = torch.zeros(count, 0, device=device)
        self.noise = reconstruction.shell_means(data, data.values.abs().square().sum(0))

    def add_class(self, monitor: Monitor) -> None:
        """Find a structure of the subtomograms that agree least with those there are, or until it is stopped."""
        rows = self._outliers()
        search = Refinement(self.data.take(rows), self.settings, generator=self.generator)
        for now in search:
            if monitor.after(monitor.count + 1, f"structure {len(self.references) + 1}", now.reference):
                break
        part = search.current
        found = self._reconstruct(self.data.take(rows[part.rows]), part.poses, part.fold)
        self.noise = part.noise if not self.references else self.noise
        self.references.append(for_all_folds(found))
        self._score()

    def iterate(self) -> References:
        """Make all structures again, score everything against them, and return that of the largest class."""
        weights = torch.softmax(self.evidence, dim=1)
        self.references = [
            self._reconstruct(self.data, replace(poses, weights=poses.weights * part[:, None]), self.fold)
            for poses, part in zip(self.poses, weights.T, strict=True)
        ]
        self._score()
        return self.references[int(weights.sum(0).argmax())]

    def result(self, chosen: Subtomograms) -> Classification:
        """Classes by their size, and the most likely one of each subtomogram."""
        probability = torch.softmax(self.evidence, dim=1).cpu().numpy()
        order = np.argsort(-np.bincount(probability.argmax(1), minlength=probability.shape[1]), kind="stable")
        return Classification(*ordered(probability, order, self.references, chosen=chosen, box=self.data.box))

    def _score(self) -> None:
        shift = self.settings.max_shift_voxels
        options: dict[str, Any] = {"noise": self.noise[shell_index(self.data)], "shift_sigma_voxels": shift / 2}
        options |= {"shifts": refinement.search_shifts(self.data, shift), "generator": self.generator}
        self.poses = [refinement.global_search(self.data, self.fold, one.grids, **options) for one in self.references]
        self.evidence = torch.stack([poses.scores.logsumexp(1) for poses in self.poses], dim=1)

    def _outliers(self) -> Tensor:
        """Rows of the subtomograms that agree least with their structure; all of them if there is none yet."""
        if not self.references:
            return torch.arange(len(self.data), device=self.fold.device)
        best = self.evidence.amax(1).cpu().double().numpy()[:, None]
        groups = GaussianMixture(2, n_init=3, random_state=0).fit_predict(best)
        worst = groups == np.argmin([best[groups == one].mean() for one in range(2)])
        fewest = max(MIN_PARTICLES, len(best) // 20)
        if worst.sum() < fewest:
            worst = np.argsort(best[:, 0]).argsort() < fewest
        return torch.from_numpy(np.flatnonzero(worst)).to(self.fold.device)

    def _reconstruct(self, data: Coefficients, poses: Poses, fold: Tensor) -> References:
        options: dict[str, Any] = {"noise": self.noise, "diameter_voxels": self.settings.diameter_voxels, "max_damping": 2.0}
        return reconstruction.make_references(data, poses, fold, **options)


def ordered(
    probability: np.ndarray, order: Sequence[int] | np.ndarray, references: list[References], *, chosen: Subtomograms, box: int
) -> tuple[pd.Series, pd.Series, list[Volume]]:
    """Labels, their probability, and the maps of classes in an order, from the probability (n, classes) of each."""
    index = pd.Index(chosen.ids, name="particle_id")
    densities = [references[k].density.cpu().numpy() for k in order]
    return (
        pd.Series(probability[:, order].argmax(1), index=index, name="class"),
        pd.Series(probability.max(1), index=index, name="probability"),
        [Volume(one, box * chosen.voxel_size / len(one)) for one in densities],
    )


def for_all_folds(reference: References) -> References:
    """A reference of some subtomograms, for all: not all have a fold in its search, so all are compared with the same sum."""
    return replace(reference, grids=[coefficients.gradient_grids(reference.density)] * FOLDS)
