"""Takes subtomograms of several structures; gives the class of each and a map of each class, without a reference.

`classify` makes as many classes as asked for. All subtomograms are first refined as if they were one structure. Those that
agree with it least, compared with references that do not contain them, are then refined on their own from random orientations,
and so on. Then every subtomogram is scored against all structures in turn, weighted among them by the likelihood, and the
structures are made again with these weights.

`discover` starts from rough labels, such as clusters of features, and finds the number of structures. Features, if they are
given, weigh in by how well they predict the present classes of other subtomograms. From time to time structures are merged and
divided, as in split and merge EM (Ueda et al. 2000): a change is kept if it raises the likelihood of the subtomograms. As a
subtomogram is only scored against references that do not contain it, this likelihood is cross-validated (Smyth 2000), and
highest at the true number of structures.

>>> found = classify(subtomograms, chosen.ids, classes=2, seed=1)
>>> rough = clusters.kmeans(features, 24, seed=0)
>>> found = discover(subtomograms, rough, features=features.vectors, seed=1)
>>> averaging.average(subtomograms, found.labels.index[found.labels == 0], seed=1, start=found.volumes[0])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize
from torch import Tensor
from torch.nn.functional import one_hot

from tomolab import parallel, rotations
from tomolab.averaging import alignment, coefficients, reconstruction, refinement
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import References, shell_index
from tomolab.averaging.refinement import FOLDS, Monitor, Refinement, Settings
from tomolab.jobs import Progress, reporting
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

MIN_PARTICLES = 8
"""Fewest subtomograms of a class."""
SEARCH_CYCLES = 4.0
"""Finest detail of the exhaustive search, in cycles per `SEARCH_BOX` voxels; all detail counts when poses are refined."""
SEARCH_BOX = 14
CANDIDATES = 4
"""Structures, the best by the exhaustive search, for which the poses of a subtomogram are refined."""
KEEP, STEPS = 3, 2
"""Poses of a subtomogram that are kept for each structure, and steps by which they are refined."""
CHANGE_EVERY = 3
"""Iterations between two rounds of merging and dividing."""
SPLIT_ITERATIONS, SPLIT_STARTS = 6, 2
"""Iterations of two structures that start from random halves of one class, and how often that is tried."""
CERTAIN = 3.0
"""Standard errors by which the likelihood of two structures must exceed that of one."""
NOT_SCORED = -1e30
"""Log-likelihood of a subtomogram under structures other than its candidates; finite, because all candidates may be lost."""
UNLIKELY = -10.0
"""Lowest logarithm of the probability of a class that features give: what they never saw is not impossible."""


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
        self.references.append(_for_all_folds(found))
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
        return Classification(*_ordered(probability, order, self.references, chosen=chosen, box=self.data.box))

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


def _ordered(
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


def _for_all_folds(reference: References) -> References:
    """A reference of some subtomograms, for all: not all have a fold in its search, so all are compared with the same sum."""
    return replace(reference, grids=[coefficients.gradient_grids(reference.density)] * FOLDS)


@dataclass(frozen=True, eq=False)
class Discovery(Classification):
    """Structures that subtomograms show; a `Classification` whose number of classes was found.

    Parameters
    ----------
    labels, probability, volumes
        As in `Classification`.
    history
        By iteration: ``structures``, ``moved`` (share of the subtomograms that changed class), ``merged`` and ``divided``
        (structures), ``score`` (mean of the log-likelihood of a subtomogram, relative to noise without a structure).
    """

    history: pd.DataFrame


def discover(
    subtomograms: Subtomograms,
    labels: pd.Series,
    *,
    features: np.ndarray | None = None,
    seed: int,
    iterations: int = 24,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    watch: Callable[[Discovery], Any] | None = None,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
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
    progress
        True shows a bar; a function is called with a `Progress` after every iteration, whose map is of the largest class.
    watch
        Called with the present `Discovery` after every iteration.
    stop
        Asked after every iteration; when it answers True, the present result is returned.
    mask_diameter, max_shift, device
        As in `averaging.average`; each structure has a mask of its own by default.

    Raises
    ------
    ValueError
        If ids are unknown or repeated, labels are not integers, no label has 8 particles, the features are of another number
        or not finite, a box holds NaN, or `iterations` or a length is out of range.
    """
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, got {iterations}")
    features = None if features is None else np.asarray(features)
    chosen, classes = _checked(subtomograms, labels, features)
    diameters = [_settings(chosen.take(ids), mask_diameter, max_shift)[1].diameter_voxels for ids in classes]
    box, settings = _settings(chosen, max(diameters) * chosen.voxel_size if mask_diameter is None else mask_diameter, max_shift)
    generator = torch.Generator(device=parallel.pick_device(device)).manual_seed(seed)
    # As fine as the search for a first structure becomes.
    radius = min(settings.radius_cycles * refinement.GROWTH[-1] * max(diameters) / min(diameters), settings.max_radius_cycles)
    data = coefficients.read(chosen, box=box, radius_cycles=radius, device=generator.device)
    discoverer = _Discoverer(data, replace(settings, max_radius_cycles=radius), generator, features)
    position = pd.Series(np.arange(len(chosen)), index=chosen.ids)
    total = len(classes) + iterations
    with reporting(progress, total, "discovery") as report:
        monitor = Monitor(report, stop, total, box * chosen.voxel_size)
        for number, (ids, diameter) in enumerate(zip(classes, diameters, strict=True), 1):
            rows = torch.tensor(position[ids].to_numpy()).to(generator.device)
            monitor.after(number, f"structure {number}", discoverer.start(rows, diameter))
            if monitor.stopped:
                break
        discoverer.score()
        for number in range(len(classes) + 1, total + 1):
            if monitor.stopped or discoverer.settled:
                break
            monitor.after(number, f"{len(discoverer.structures)} structures", discoverer.iterate())
            if watch is not None:
                watch(discoverer.result(chosen))
    return discoverer.result(chosen)


def _checked(
    subtomograms: Subtomograms, labels: pd.Series, features: np.ndarray | None
) -> tuple[Subtomograms, list[np.ndarray]]:
    """The subtomograms that take part, and the ids of each label that is large enough, the largest first."""
    if not pd.api.types.is_integer_dtype(labels.dtype) or labels.hasnans:
        raise ValueError(
            f"labels must be integers, none of them missing, got {labels.dtype}: number names by pandas.factorize; "
            "-1 is for subtomograms without a label"
        )
    chosen = subtomograms.take(labels.index.to_numpy())
    if features is not None and (features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all()):
        raise ValueError(f"features need one finite row for each of {len(labels)} labels, got shape {features.shape}")
    counts = labels[labels >= 0].value_counts(sort=True)
    classes = [labels.index[labels == value].to_numpy() for value in counts.index[counts >= MIN_PARTICLES]]
    if not classes:
        largest = counts.max() if len(counts) else 0
        raise ValueError(f"a label with {MIN_PARTICLES} particles or more is needed, the largest has {largest}")
    return chosen, classes


def _settings(some: Subtomograms, mask_diameter: float | None, max_shift: float | None) -> tuple[int, Settings]:
    return refinement.choose_settings(some, starts=1, mask_diameter=mask_diameter, max_shift=max_shift)


@dataclass
class _Structure:
    """A structure: the poses of all subtomograms under it, and the diameter of its mask."""

    poses: Poses
    diameter_voxels: float


class _Discoverer:
    """Structures and the log-likelihood (n, structures) of every subtomogram under each."""

    def __init__(self, data: Coefficients, settings: Settings, generator: torch.Generator, features: np.ndarray | None) -> None:
        self.data, self.settings, self.generator = data, settings, generator
        self.features = None if features is None else normalize(np.asarray(features, dtype=np.float64))
        count, device = len(data), data.values.device
        self.every = torch.arange(count, device=device)
        self.fold = torch.randperm(count, generator=generator, device=device) % FOLDS
        self.noise = reconstruction.shell_means(data, data.values.abs().square().sum(0))
        self.coarse = data.inside(SEARCH_CYCLES * data.box / SEARCH_BOX)
        self.shifts = refinement.search_shifts(self.coarse, settings.max_shift_voxels)[0]
        variance = self.noise[shell_index(data)]
        self.prior: dict[str, Any] = {"noise": variance, "shift_sigma_voxels": settings.max_shift_voxels / 2}
        self.coarse_prior = self.prior | {"noise": variance[: len(self.coarse.points)]}
        self.structures: list[_Structure] = []
        self.references: list[References] = []
        self.evidence = self.posterior = torch.zeros(count, 0, device=device)
        self.history: list[dict[str, Any]] = []
        self.settled = False

    def start(self, rows: Tensor, diameter_voxels: float) -> References:
        """Find the structure of some subtomograms from random orientations."""
        radius = max(4.0, 3 * self.data.box / diameter_voxels)
        settings = replace(self.settings, diameter_voxels=diameter_voxels, radius_cycles=radius, local_iterations=0)
        search = Refinement(self.data.take(rows), settings, generator=self.generator)
        for _ in search:
            pass
        part = search.current
        data = self.data.take(rows[part.rows])
        found = reconstruction.make_references(data, part.poses, part.fold, **self._filter(diameter_voxels))
        reference = _for_all_folds(found)
        self.references.append(reference)
        self.structures.append(
            _Structure(alignment.random_poses(len(self.data), KEEP, generator=self.generator), diameter_voxels)
        )
        return reference

    def score(self) -> None:
        """Score every subtomogram against every structure: exhaustively with little detail, the best with all detail."""
        coarse = [self._search(self.every, reference) for reference in self.references]
        evidence = torch.stack([poses.scores.logsumexp(1) for poses in coarse], dim=1)
        best = evidence.topk(min(CANDIDATES, evidence.shape[1]), dim=1).indices
        self.evidence = torch.full_like(evidence, NOT_SCORED)
        for number, (structure, reference) in enumerate(zip(self.structures, self.references, strict=True)):
            rows = (best == number).any(1).nonzero()[:, 0]
            coarse[number].put(rows, self._refine(rows, reference, coarse[number].take(rows)))
            structure.poses = coarse[number]
            self.evidence[rows, number] = structure.poses.scores[rows].logsumexp(1)
        self.posterior = self.evidence

    def iterate(self) -> References:
        """Make all structures again, perhaps merge or divide some, score everything, and return that of the largest class."""
        before = self.posterior.argmax(1)
        counts = torch.bincount(before, minlength=len(self.structures))
        self._keep((counts >= min(MIN_PARTICLES, int(counts.max()))).nonzero()[:, 0].tolist())
        weights = torch.softmax(self.posterior, dim=1)
        merged = divided = 0
        if len(self.history) % CHANGE_EVERY == CHANGE_EVERY - 1:
            weights, merged = self._merge(weights)
            weights, divided = self._divide(weights)
        self.references = [self._reference(self.every, s, w) for s, w in zip(self.structures, weights.T, strict=True)]
        labels = weights.argmax(1)
        self.score()
        self.posterior = self.evidence + self._feature_prior(weights)
        after = self.posterior.argmax(1)
        moved = float((after != labels).float().mean())
        self._note(moved, merged, divided)
        return self.references[int(torch.bincount(after).argmax())]

    def result(self, chosen: Subtomograms) -> Discovery:
        """Classes by their size, and the most likely one of each subtomogram."""
        probability = torch.softmax(self.posterior, dim=1).cpu().numpy()
        counts = np.bincount(probability.argmax(1), minlength=probability.shape[1])
        order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
        columns = ["structures", "moved", "merged", "divided", "score"]
        history = pd.DataFrame(self.history, columns=columns).rename_axis("iteration")
        return Discovery(*_ordered(probability, order, self.references, chosen=chosen, box=self.data.box), history)

    def _note(self, moved: float, merged: int, divided: int) -> None:
        """Add to the history, and see whether two rounds of merging and dividing in turn changed nothing."""
        score = float(self.evidence.logsumexp(1).mean())
        row = {"structures": len(self.structures), "moved": moved, "merged": merged, "divided": divided, "score": score}
        self.history.append(row)
        last = self.history[-CHANGE_EVERY - 1 :]
        self.settled = len(self.history) > 2 * CHANGE_EVERY and not any(one["merged"] or one["divided"] for one in last)
        self.settled &= len({one["structures"] for one in last}) == 1

    def _keep(self, numbers: list[int]) -> None:
        self.structures = [self.structures[number] for number in numbers]
        self.posterior, self.evidence = self.posterior[:, numbers], self.evidence[:, numbers]

    def _search(self, rows: Tensor, reference: References) -> Poses:
        turns = rotations.random(refinement.ROTATIONS, self.generator, device=rows.device)
        options: dict[str, Any] = {"turns": turns, "shifts": self.shifts, "keep": KEEP} | self.coarse_prior

        def search(fold: int, some: Tensor) -> Poses:
            return alignment.exhaustive_search(reference.grids[fold][0], self.coarse.take(rows[some]), **options)

        return self._by_fold(rows, search)

    def _refine(self, rows: Tensor, reference: References, poses: Poses) -> Poses:
        def refine(fold: int, some: Tensor) -> Poses:
            data = self.data.take(rows[some])
            return alignment.refine_poses(reference.grids[fold], data, poses.take(some), steps=STEPS, **self.prior)

        return self._by_fold(rows, refine)

    def _by_fold(self, rows: Tensor, work: Callable[[int, Tensor], Poses]) -> Poses:
        """Poses of subtomograms, each scored against the reference that does not contain it."""
        poses = alignment.random_poses(len(rows), KEEP, generator=self.generator)
        for fold in range(FOLDS):
            for some in (self.fold[rows] == fold).nonzero()[:, 0].split(refinement.BLOCK):
                if len(some):
                    poses.put(some, work(fold, some))
        return poses

    def _reference(self, rows: Tensor, structure: _Structure, weights: Tensor) -> References:
        """The structure of subtomograms in `rows`, whose poses it has in the same order, with their weights."""
        poses = replace(structure.poses, weights=structure.poses.weights * weights[:, None])
        used = (weights > 1e-3).nonzero()[:, 0]
        # Every fold must have a subtomogram for its sum, so all stay where few are used.
        some = used if len(self.fold[rows[used]].unique()) == FOLDS else torch.arange(len(rows), device=rows.device)
        data, fold = self.data.take(rows[some]), self.fold[rows[some]]
        return reconstruction.make_references(data, poses.take(some), fold, **self._filter(structure.diameter_voxels))

    def _filter(self, diameter_voxels: float) -> dict[str, Any]:
        """Wiener filter and mask of a reference: of the power of the noise the mask leaves its share of the box.

        With the noise of the whole box small structures are damped so much that they never divide.
        """
        share = np.pi / 6 * diameter_voxels**3 / self.data.box**3
        return {"noise": self.noise * share, "diameter_voxels": diameter_voxels, "max_damping": 2.0}

    def _fit(
        self, rows: Tensor, structures: Sequence[_Structure], weights: Tensor, *, iterations: int
    ) -> tuple[list[_Structure], Tensor, Tensor]:
        """Structures of subtomograms in `rows` alone: they, weights (rows, structures), and log-likelihoods (rows,).

        It ends early when a structure has lost its subtomograms.
        """
        found = list(structures)
        for _ in range(iterations):
            share = weights.mean(0).clamp_min(1e-4).log()
            for number, structure in enumerate(found):
                reference = self._reference(rows, structure, weights[:, number])
                poses = self._refine(rows, reference, self._search(rows, reference))
                found[number] = _Structure(poses, structure.diameter_voxels)
            evidence = torch.stack([one.poses.scores.logsumexp(1) for one in found], dim=1) + share
            weights = torch.softmax(evidence, dim=1)
            if len(found) > 1 and float(weights.sum(0).min()) < MIN_PARTICLES / 2:
                break
        return found, weights, evidence.logsumexp(1)

    def _of(self, structure: _Structure, rows: Tensor) -> _Structure:
        return _Structure(structure.poses.take(rows), structure.diameter_voxels)

    def _merge(self, weights: Tensor) -> tuple[Tensor, int]:
        """Merge structures where one explains the subtomograms of two as well; weights after that, and how many went."""
        members = self._members(weights)
        # By the structures alone: features may tell apart two parts of one class.
        likely = torch.softmax(self.evidence, dim=1)
        rival = {(a, b): float(likely[members[a], b].mean() + likely[members[b], a].mean()) for a, b in _pairs(members)}
        done: set[int] = set()
        gone: list[int] = []
        for a, b in sorted(rival, key=lambda pair: -rival[pair])[: len(members)]:
            if not done & {a, b} and self._merge_pair(a, b, weights, members):
                done |= {a, b}
                gone.append(b)
        kept = [number for number in range(len(self.structures)) if number not in gone]
        self.structures = [self.structures[number] for number in kept]
        return weights[:, kept], len(gone)

    def _merge_pair(self, a: int, b: int, weights: Tensor, members: list[Tensor]) -> bool:
        """Merge structure b into the larger a unless two are better; whether it was done.

        Mixed structures of the first iterations are merged only if the likelihood does not fall. Later two must be better for
        certain: a subtomogram is in the better of both, so two structures of one complex seem a little better than one.
        """
        rows = torch.cat([members[a], members[b]])
        first, second = self.structures[a], self.structures[b]
        larger = max(first.diameter_voxels, second.diameter_voxels)
        whole = torch.ones(len(rows), 1, device=rows.device)
        together, _, one = self._fit(rows, [replace(self._of(first, rows), diameter_voxels=larger)], whole, iterations=2)
        both = weights[rows][:, [a, b]]
        parts = [self._of(first, rows), self._of(second, rows)]
        _, _, two = self._fit(rows, parts, both / both.sum(1, keepdim=True).clamp_min(1e-30), iterations=1)
        rise = two - one
        certain = 0.0 if len(self.history) < CHANGE_EVERY else CERTAIN
        if float(rise.mean() / rise.std() * len(rise) ** 0.5) > certain:
            return False
        first.poses.put(rows, together[0].poses)
        first.diameter_voxels = larger
        weights[:, a] += weights[:, b]
        return True

    def _divide(self, weights: Tensor) -> tuple[Tensor, int]:
        """Divide structures whose subtomograms two explain better; weights after that, and how many were added."""
        added = []
        for number, rows in enumerate(self._members(weights)):
            found = self._halves(self._of(self.structures[number], rows), rows) if len(rows) >= 4 * MIN_PARTICLES else None
            if found is None:
                continue
            (one, other), parts = found
            structure = self.structures[number]
            twin = _Structure(structure.poses.take(self.every), structure.diameter_voxels)
            structure.poses.put(rows, one.poses)
            twin.poses.put(rows, other.poses)
            second = torch.zeros_like(weights[:, number])
            second[rows] = weights[rows, number] * parts[:, 1]
            weights[rows, number] *= parts[:, 0]
            self.structures.append(twin)
            added.append(second)
        return torch.column_stack([weights, *added]), len(added)

    def _halves(self, structure: _Structure, rows: Tensor) -> tuple[list[_Structure], Tensor] | None:
        """Two structures of the subtomograms of one, with their weights, if they raise the likelihood for certain."""
        whole = torch.ones(len(rows), 1, device=rows.device)
        alone, _, one = self._fit(rows, [structure], whole, iterations=2)
        best, found = CERTAIN, None
        for _ in range(SPLIT_STARTS):
            halves = one_hot(torch.randperm(len(rows), generator=self.generator, device=rows.device) % 2, 2).float()
            pair, weights, two = self._fit(rows, [alone[0], alone[0]], halves, iterations=SPLIT_ITERATIONS)
            gain = two - one
            rise = float(gain.mean() / gain.std() * len(gain) ** 0.5)
            fewest = int(torch.bincount(weights.argmax(1), minlength=2).min())
            if rise > best and fewest >= MIN_PARTICLES:
                best, found = rise, (pair, weights)
        return found

    def _members(self, weights: Tensor) -> list[Tensor]:
        labels = weights.argmax(1)
        return [(labels == number).nonzero()[:, 0] for number in range(weights.shape[1])]

    def _feature_prior(self, weights: Tensor) -> Tensor:
        """Logarithm of the probability (n, structures) of each class by the features, learned from the other folds.

        Without features it is the share of each class.
        """
        if self.features is None or weights.shape[1] < 2:
            return weights.mean(0).clamp_min(1e-6).log().expand_as(weights)
        labels, fold = weights.argmax(1).cpu().numpy(), self.fold.cpu().numpy()
        out = np.full(tuple(weights.shape), UNLIKELY)
        for number in range(FOLDS):
            known, asked = fold != number, np.flatnonzero(fold == number)
            # One subtomogram of a class has no covariance.
            classes = np.flatnonzero(np.bincount(labels[known], minlength=weights.shape[1]) > 1)
            known &= np.isin(labels, classes)
            if len(classes) < 2:
                out[np.ix_(asked, classes)] = 0.0
                continue
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(self.features[known], labels[known])
            with np.errstate(divide="ignore"):
                out[np.ix_(asked, model.classes_)] = np.maximum(model.predict_log_proba(self.features[asked]), UNLIKELY)
        return torch.from_numpy(out).to(weights)


def _pairs(members: list[Tensor]) -> list[tuple[int, int]]:
    """Pairs of classes with enough subtomograms, the larger first."""
    large = [number for number, rows in enumerate(members) if len(rows) >= MIN_PARTICLES]
    return [(a, b) if len(members[a]) >= len(members[b]) else (b, a) for a, b in combinations(large, 2)]
