"""Subtomograms of several structures in; out come the class of each and a map of each class, without a reference.

A selection is never pure. All are refined as if they were one structure; those that agree with it least, by a reference that
they had no part in, are refined on their own, from random orientations; and so on until there are as many structures as
asked for. Then every subtomogram is scored against all structures in turn, shared among them by the likelihood, and the
structures are made anew from their shares.

>>> found = sort(subtomograms, chosen.ids, classes=2, seed=1)
>>> averaging.average(subtomograms, found.labels.index[found.labels == 0], seed=1)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from tomolab import parallel
from tomolab.averaging import alignment, coefficients, reconstruction, refinement
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import References, shell_of
from tomolab.averaging.refinement import FOLDS, Refinement, Settings, State
from tomolab.jobs import Progress, progress_after, reporting
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

FEWEST = 8
"""Subtomograms that a structure must have to be refined."""


@dataclass(frozen=True, eq=False)
class Sorted:
    """Subtomograms apart.

    Parameters
    ----------
    labels
        Class of each, 0 the largest, named "class" and indexed by particle id.
    certainty
        Probability, under the model, that it is of its class.
    volumes
        Structure of each class, as far as it is needed to tell them apart.
    """

    labels: pd.Series
    certainty: pd.Series
    volumes: list[Volume]


def sort(
    subtomograms: Subtomograms,
    ids: Any = None,
    *,
    seed: int,
    classes: int = 2,
    rounds: int = 6,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
) -> Sorted:
    """Divide subtomograms among structures, found on the way.

    Parameters
    ----------
    subtomograms
        In memory or on disk.
    ids
        Particles to use; all by default.
    seed
        Of all that is random.
    classes
        How many structures.
    rounds
        Times that everything is scored against all structures.
    mask_diameter, max_shift
        As in `averaging.average`.
    progress
        True shows a bar; a function is called with a `Progress` after every iteration, of the structure in hand.
    stop
        Asked after every iteration; when it answers True, no other is made, and what there is is returned, perhaps with fewer
        classes.
    device
        As in `averaging.average`.

    Raises
    ------
    ValueError
        If ids are unknown, there are less than 2 classes, fewer than 8 particles for each, or a length is out of range.
    """
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    if classes < 2 or len(chosen) < classes * FEWEST:
        raise ValueError(
            f"sorting needs 2 classes or more with {FEWEST} particles each, got {classes} for {len(chosen)} particles"
        )
    box, settings = refinement.plan(chosen, mask_diameter=mask_diameter, max_shift=max_shift)
    generator = torch.Generator(device=parallel.pick_device(device)).manual_seed(seed)
    radius = min(settings.radius * refinement.GROWTH[-1], settings.finest)
    data = coefficients.read(chosen, box=box, radius=radius, device=generator.device)
    sorter = _Sorter(data, replace(settings, finest=radius), generator)
    with reporting(progress, classes * settings.steps + rounds, "sorting") as tell:
        steps = _Steps(tell, stop, of=classes * settings.steps + rounds, extent=box * chosen.voxel_size)
        for number in range(classes):
            sorter.begin(partial(steps.made, f"structure {number + 1}"))
            if steps.stopped:
                break
        while not steps.over:
            sorter.advance(partial(steps.made, "sorting"))
    return _sorted(sorter, chosen)


class _Steps:
    """Tells of each iteration, and whether it is the last."""

    def __init__(self, tell: Callable[[Progress], Any], stop: Callable[[], bool] | None, *, of: int, extent: float) -> None:
        self.tell, self.stop, self.of, self.extent = tell, stop, of, extent
        self.step, self.stopped, self.began = 0, False, time.perf_counter()

    @property
    def over(self) -> bool:
        return self.stopped or self.step == self.of

    def made(self, stage: str, now: State | References) -> bool:
        """Tell what there is; whether to stop."""
        self.step += 1
        news = progress_after(
            stage,
            self.step,
            self.of,
            density=now.density,
            resolved=now.resolved,
            fsc=now.fsc,
            extent=self.extent,
            seconds=time.perf_counter() - self.began,
            made=self.step,
        )
        self.tell(news)
        self.stopped = self.stop is not None and self.stop()
        return self.stopped


class _Sorter:
    """Structures, and the share (n,) that each has of every subtomogram."""

    def __init__(self, data: Coefficients, settings: Settings, generator: torch.Generator) -> None:
        self.data, self.settings, self.generator = data, settings, generator
        count, device = len(data), data.values.device
        self.fold = torch.randperm(count, generator=generator, device=device) % FOLDS
        self.poses: list[Poses] = []
        self.made: list[References] = []
        self.evidence = torch.zeros(count, 0, device=device)
        self.noise = reconstruction.by_shell(data, data.values.abs().square().sum(0))

    def begin(self, made: Callable[[State | References], bool]) -> None:
        """Find a structure of those that agree least with the ones there are, until `made` of an iteration answers True."""
        rows = self._strangers()
        one = Refinement(self.data.take(rows), self.settings, generator=self.generator)
        for state in one:
            if made(state):
                break
        part = one.now
        found = self._references(self.data.take(rows[part.rows]), part.poses, part.fold)
        self.noise = part.noise if not self.made else self.noise
        # To begin with all are held against the same sum: who is in which fold of it is not known of all.
        self.made.append(replace(found, slopes=[coefficients.slopes(found.density)] * FOLDS))
        self._score()

    def advance(self, made: Callable[[State | References], bool]) -> None:
        """Make all structures anew from their shares, and score everything against them; `made` is told of the largest."""
        share = torch.softmax(self.evidence, dim=1)
        self.made = [
            self._references(self.data, replace(poses, weights=poses.weights * part[:, None]), self.fold)
            for poses, part in zip(self.poses, share.T, strict=True)
        ]
        self._score()
        made(self.made[int(share.sum(0).argmax())])

    def _score(self) -> None:
        step = self.data.box / (4 * float(self.data.points[-1].norm()))
        shifts = alignment.ball(self.settings.reach, step, device=self.fold.device).expand(len(self.data), -1, -1)
        expected: dict[str, Any] = {"noise": self.noise[shell_of(self.data)], "spread": self.settings.reach / 2}
        self.poses = [
            refinement.explore(self.data, self.fold, made.slopes, shifts=shifts, generator=self.generator, **expected)
            for made in self.made
        ]
        self.evidence = torch.stack([poses.scores.logsumexp(1) for poses in self.poses], dim=1)

    def _strangers(self) -> Tensor:
        """Rows of those that agree least with their structure; all of them if there is none yet."""
        if not self.made:
            return torch.arange(len(self.data), device=self.fold.device)
        best = self.evidence.amax(1).cpu().double().numpy()[:, None]
        groups = GaussianMixture(2, n_init=3, random_state=0).fit_predict(best)
        worst = groups == np.argmin([best[groups == one].mean() for one in range(2)])
        fewest = max(FEWEST, len(best) // 20)
        if worst.sum() < fewest:
            worst = np.argsort(best[:, 0]).argsort() < fewest
        return torch.from_numpy(np.flatnonzero(worst)).to(self.fold.device)

    def _references(self, data: Coefficients, poses: Poses, fold: Tensor) -> References:
        return reconstruction.make_references(data, poses, fold, noise=self.noise, diameter=self.settings.diameter, ceiling=2.0)


def _sorted(sorter: _Sorter, chosen: Subtomograms) -> Sorted:
    chance = torch.softmax(sorter.evidence, dim=1).cpu().numpy()
    order = np.argsort(-np.bincount(chance.argmax(1), minlength=chance.shape[1]), kind="stable")
    index = pd.Index(chosen.ids, name="particle_id")
    extent = sorter.data.box * chosen.voxel_size
    volumes = [Volume(one.density.cpu().numpy(), extent / len(one.density)) for one in (sorter.made[k] for k in order)]
    labels = pd.Series(chance[:, order].argmax(1), index=index, name="class")
    return Sorted(labels, pd.Series(chance.max(1), index=index, name="certainty"), volumes)
