"""Takes subtomograms with rough labels; gives the structures they show, their number, and the structure of each subtomogram.

The structure of every label is refined from random orientations. In turn all subtomograms are scored against all structures,
and the structures are made again. Features, if they are given, weigh in by how well they predict the present classes of other
subtomograms. From time to time structures are merged and divided, as in split and merge EM (Ueda et al. 2000): a change is kept
if it raises the likelihood of the subtomograms. As a subtomogram is only scored against references that do not contain it, this
likelihood is cross-validated (Smyth 2000), and highest at the true number of structures. Subtomograms that agree with no
structure better than pure noise does are in no class.

>>> rough = clusters.kmeans(features, 24, seed=0)
>>> found = discover(subtomograms, rough, features=features.vectors, seed=1)
>>> averaging.average(subtomograms, found.labels.index[found.labels == 0], seed=1, start=found.volumes[0])
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import normalize
from torch import Tensor
from torch.nn.functional import one_hot

from tomolab import fourier, parallel, rotations
from tomolab.averaging import alignment, coefficients, reconstruction, refinement
from tomolab.averaging.alignment import Poses
from tomolab.averaging.checkpoint import Checkpoint
from tomolab.averaging.classification import MIN_PARTICLES, Classification, for_all_folds, ordered
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import References, shell_index
from tomolab.averaging.refinement import FOLDS, Monitor, Refinement, Settings
from tomolab.jobs import Progress, reporting
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

SEARCH_CYCLES = 4.0
"""Finest detail of the exhaustive search, in cycles per `SEARCH_BOX` voxels; all detail counts when poses are refined."""
SEARCH_BOX = 14
CANDIDATES = 4
"""Structures, the best by the exhaustive search, for which the poses of a subtomogram are refined."""
UNLIKELY_BY = 8.0
"""Log-likelihood by which a structure may fall behind the best one of the exhaustive search to remain a candidate."""
KEEP, STEPS = 3, 2
"""Poses of a subtomogram that are kept for each structure, and steps by which they are refined."""
CHANGE_EVERY = 3
"""Iterations between two rounds of merging and dividing."""
SPLIT_ITERATIONS = 6
"""Iterations of two structures that start from two parts of one class."""
CERTAIN = 3.0
"""Standard errors by which the likelihood of two structures must exceed that of one."""
SAME_MAP = 0.1
"""How far the correlation of two maps may fall short of that which their halves predict, if they are one structure."""
NOISE, NOISE_DEVIATIONS = 64, 2.0
"""Boxes of pure noise that are compared with the structures, and standard deviations by which a particle must exceed them."""
CHANGED = 0.1
"""Share of the subtomograms of a structure that must have changed before it is tried again to divide it."""
NOT_SCORED = -1e30
"""Log-likelihood of a subtomogram under structures other than its candidates; finite, because all candidates may be lost."""
HISTORY = ("structures", "moved", "merged", "divided", "unassigned", "score")
"""Columns of `Discovery.history`."""
UNLIKELY = -10.0
"""Lowest logarithm of the probability of a class that features give: what they never saw is not impossible."""


@dataclass(frozen=True, eq=False)
class Discovery(Classification):
    """Structures that subtomograms show; a `Classification` whose number of classes was found.

    Parameters
    ----------
    labels
        As in `Classification`; -1 for a subtomogram that agrees with no structure better than pure noise does.
    probability
        Probability that it is of its class; for those in no class, of the structure that it agrees with most.
    volumes
        As in `Classification`.
    history
        By iteration: ``structures``, ``moved`` (share of the subtomograms that changed class), ``merged`` and ``divided``
        (structures), ``unassigned`` (subtomograms in no class), ``score`` (mean of the log-likelihood of a subtomogram,
        relative to noise without a structure).
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
    checkpoint: str | Path | None = None,
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
    checkpoint
        File (.safetensors) for the state after every iteration. After an interruption the same call continues from there, with
        the result of an unbroken run on the same machine. A finished run removes it.
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
        or not finite, a box holds NaN, `iterations` or a length is out of range, or the checkpoint is of another call.
    BlockingIOError
        If another process uses the same checkpoint.
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
    lengths = {"mask_diameter": mask_diameter, "max_shift": max_shift}
    saved = Checkpoint(checkpoint, _about(chosen, labels, features) | {"seed": seed, **lengths})
    with saved.lock(), reporting(progress, total, "discovery") as report:
        monitor = Monitor(report, stop, total, box * chosen.voxel_size)
        saved.restore([discoverer])
        if not saved.exists:
            for number, (ids, diameter) in enumerate(zip(classes, diameters, strict=True), 1):
                rows = torch.tensor(position[ids].to_numpy()).to(generator.device)
                monitor.after(number, f"structure {number}", discoverer.start(rows, diameter))
                if monitor.stopped:
                    break
            discoverer.score()
        while len(discoverer.history) < iterations and not monitor.stopped and not discoverer.settled:
            largest = discoverer.iterate()
            saved.write([discoverer])
            number = len(classes) + len(discoverer.history)
            monitor.after(number, f"{len(discoverer.structures)} structures", largest)
            if watch is not None:
                watch(discoverer.result(chosen))
        if not monitor.stopped:
            saved.remove()
    return discoverer.result(chosen)


def _about(chosen: Subtomograms, labels: pd.Series, features: np.ndarray | None) -> dict[str, Any]:
    """What tells one discovery from another: digests of the subtomograms, labels and features."""
    parts = [labels.to_numpy(np.int64), np.zeros(0) if features is None else np.asarray(features, dtype=np.float64)]
    digests = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts]
    return {"discovery": True, "particles": chosen.digest(), "labels": digests[0], "features": digests[1]}


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
    """Poses of all subtomograms under a structure, its diameter, and with which (n,) subtomograms no division was better."""

    poses: Poses
    diameter_voxels: float
    undivided: Tensor | None = None


@dataclass(frozen=True)
class _Boxes:
    """Coefficients of boxes, with all and with little detail, and the fold of each."""

    data: Coefficients
    coarse: Coefficients
    fold: Tensor


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
        self.boxes = _Boxes(data, self.coarse, self.fold)
        self.shifts = refinement.search_shifts(self.coarse, settings.max_shift_voxels)[0]
        self.near_shifts = refinement.near_shifts(self.coarse)
        variance = self.noise[shell_index(data)]
        self.prior: dict[str, Any] = {"noise": variance, "shift_sigma_voxels": settings.max_shift_voxels / 2}
        self.coarse_prior = self.prior | {"noise": variance[: len(self.coarse.points)]}
        self.structures: list[_Structure] = []
        self.references: list[References] = []
        self.evidence = self.posterior = torch.zeros(count, 0, device=device)
        self.unassigned = torch.zeros(count, dtype=torch.bool, device=device)
        self.history: list[dict[str, Any]] = []
        self.pure_noise = self._draw_noise()

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
        reference = for_all_folds(found)
        self.references.append(reference)
        self.structures.append(
            _Structure(alignment.random_poses(len(self.data), KEEP, generator=self.generator), diameter_voxels)
        )
        return reference

    def score(self, *, everything: bool = True) -> None:
        """Score the subtomograms against the structures, and see which agree with none better than pure noise does.

        With everything, every subtomogram against every structure; or only against the structures that were most likely last.
        """
        asked = torch.ones(len(self.every), len(self.structures), dtype=torch.bool, device=self.every.device)
        if not everything:
            asked = _largest(self.posterior, CANDIDATES)
        poses = [one.poses for one in self.structures]
        self.evidence = self._compare(self.boxes, self.references, poses, asked=asked, near=bool(self.history))
        self.posterior = self.evidence
        by_chance = self._by_chance()
        self.unassigned = self.evidence.amax(1) < by_chance.mean() + NOISE_DEVIATIONS * by_chance.std()

    def _by_chance(self) -> Tensor:
        """Log-likelihood of boxes of pure noise under the structure that each agrees with most."""
        poses = [alignment.random_poses(NOISE, KEEP, generator=self.generator) for _ in self.structures]
        asked = torch.ones(NOISE, len(poses), dtype=torch.bool, device=self.every.device)
        return self._compare(self.pure_noise, self.references, poses, asked=asked, near=False).amax(1)

    def iterate(self) -> References:
        """Make all structures again, perhaps merge or divide some, score everything, and return that of the largest class."""
        counts = torch.bincount(self.posterior.argmax(1)[self._used()], minlength=len(self.structures))
        self._keep((counts >= min(MIN_PARTICLES, int(counts.max()))).nonzero()[:, 0].tolist())
        weights = torch.softmax(self.posterior, dim=1) * self._used()[:, None]
        merged = divided = 0
        changing = len(self.history) % CHANGE_EVERY == CHANGE_EVERY - 1
        if changing:
            weights, merged = self._merge(weights)
            weights, divided = self._divide(weights)
        self.references = [self._reference(self.every, s, w) for s, w in zip(self.structures, weights.T, strict=True)]
        labels = weights.argmax(1)
        self.score(everything=changing)
        self.posterior = self.evidence + self._feature_prior(weights)
        after = self.posterior.argmax(1)
        self._note(float((after != labels)[self._used()].float().mean()), merged, divided)
        return self.references[int(torch.bincount(after[self._used()]).argmax())]

    @property
    def settled(self) -> bool:
        """Whether two rounds of merging and dividing in turn changed nothing."""
        last = self.history[-CHANGE_EVERY - 1 :]
        changed = any(one["merged"] or one["divided"] for one in last) or len({one["structures"] for one in last}) > 1
        return len(self.history) > 2 * CHANGE_EVERY and not changed

    def result(self, chosen: Subtomograms) -> Discovery:
        """Classes by their size, and the most likely one of each subtomogram."""
        probability = torch.softmax(self.posterior, dim=1).cpu().numpy()
        nowhere = self.unassigned.cpu().numpy()
        counts = np.bincount(probability.argmax(1)[~nowhere], minlength=probability.shape[1])
        order = np.argsort(-counts, kind="stable")
        labels, likely, maps = ordered(probability, order, self.references, chosen=chosen, box=self.data.box)
        history = pd.DataFrame(self.history, columns=HISTORY).rename_axis("iteration")
        return Discovery(labels.mask(nowhere, -1), likely, maps[: np.count_nonzero(counts)], history)

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` needs to go on as if there had been no break."""
        out = {name: getattr(self, name) for name in ("evidence", "posterior", "unassigned")}
        out |= {"generator": self.generator.get_state(), "history": torch.tensor(pd.DataFrame(self.history).to_numpy(float))}
        for number, (structure, reference) in enumerate(zip(self.structures, self.references, strict=True)):
            known = {"diameter": torch.tensor(structure.diameter_voxels), "resolved": torch.tensor(reference.resolved_cycles)}
            known |= vars(structure.poses) | {"density": reference.density, "fsc": reference.fsc}
            known |= {} if structure.undivided is None else {"undivided": structure.undivided}
            out |= {f"{number}/{name}": value for name, value in known.items()}
        return {name: value.cpu().contiguous() for name, value in out.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a `state_dict` of a discovery of the same data and settings."""
        device = self.data.values.device
        self.generator.set_state(state["generator"])
        self.evidence, self.posterior, self.unassigned = (
            state[name].to(device) for name in ("evidence", "posterior", "unassigned")
        )
        rows = [dict(zip(HISTORY, row, strict=True)) for row in state["history"].tolist()]
        self.history = [row | {name: int(row[name]) for name in HISTORY if name not in ("moved", "score")} for row in rows]
        self.structures, self.references = [], []
        for number in range(self.evidence.shape[1]):
            known = {name.partition("/")[2]: value.to(device) for name, value in state.items() if name.startswith(f"{number}/")}
            poses = Poses(*(known[name] for name in ("rotations", "shifts", "scores", "weights")))
            self.structures.append(_Structure(poses, float(known["diameter"]), known.get("undivided")))
            # The next iteration makes the grids again.
            self.references.append(References([], known["density"], float(known["resolved"]), known["fsc"]))

    def _used(self) -> Tensor:
        """Which subtomograms make the structures: all but those in no class, unless that leaves too few."""
        return ~self.unassigned if int((~self.unassigned).sum()) >= MIN_PARTICLES else torch.ones_like(self.unassigned)

    def _note(self, moved: float, merged: int, divided: int) -> None:
        score, nowhere = float(self.evidence.logsumexp(1).mean()), int(self.unassigned.sum())
        row = (len(self.structures), moved, merged, divided, nowhere, score)
        self.history.append(dict(zip(HISTORY, row, strict=True)))

    def _keep(self, numbers: list[int]) -> None:
        self.structures = [self.structures[number] for number in numbers]
        self.references = [self.references[number] for number in numbers]
        self.posterior, self.evidence = self.posterior[:, numbers], self.evidence[:, numbers]

    def _compare(
        self, boxes: _Boxes, references: Sequence[References], poses: Sequence[Poses], *, asked: Tensor, near: bool
    ) -> Tensor:
        """Log-likelihood (n, structures) of boxes under the structures they are asked for; puts their `poses` in place.

        They are searched with little detail, the best ones with all detail. `near` tries only shifts near those of `poses`.
        """
        evidence = torch.full(asked.shape, NOT_SCORED, device=asked.device)
        for number, (found, reference) in enumerate(zip(poses, references, strict=True)):
            rows = asked[:, number].nonzero()[:, 0]
            shifts = found.shifts[rows, :1] + self.near_shifts if near else self.shifts.expand(len(rows), -1, -1)
            found.put(rows, self._search(boxes, rows, reference, shifts))
            evidence[rows, number] = found.scores[rows].logsumexp(1)
        best = _largest(evidence, CANDIDATES) & (evidence > evidence.amax(1, keepdim=True) - UNLIKELY_BY)
        for number, (found, reference) in enumerate(zip(poses, references, strict=True)):
            rows = best[:, number].nonzero()[:, 0]
            found.put(rows, self._refine(boxes, rows, reference, found.take(rows)))
            evidence[rows, number] = found.scores[rows].logsumexp(1)
        return evidence.where(best, NOT_SCORED)

    def _search(self, boxes: _Boxes, rows: Tensor, reference: References, shifts: Tensor) -> Poses:
        turns = rotations.random(refinement.ROTATIONS, self.generator, device=rows.device)
        options: dict[str, Any] = {"turns": turns, "keep": KEEP} | self.coarse_prior

        def search(fold: int, at: Tensor) -> Poses:
            data = boxes.coarse.take(rows[at])
            return alignment.exhaustive_search(reference.grids[fold][0], data, shifts=shifts[at], **options)

        return self._by_fold(boxes.fold[rows], search)

    def _refine(self, boxes: _Boxes, rows: Tensor, reference: References, poses: Poses) -> Poses:
        def refine(fold: int, at: Tensor) -> Poses:
            data = boxes.data.take(rows[at])
            return alignment.refine_poses(reference.grids[fold], data, poses.take(at), steps=STEPS, **self.prior)

        return self._by_fold(boxes.fold[rows], refine)

    def _by_fold(self, folds: Tensor, work: Callable[[int, Tensor], Poses]) -> Poses:
        """Poses of subtomograms in these folds, each scored against the reference that does not contain it."""
        poses = alignment.random_poses(len(folds), KEEP, generator=self.generator)
        for fold in range(FOLDS):
            for some in (folds == fold).nonzero()[:, 0].split(refinement.BLOCK):
                if len(some):
                    poses.put(some, work(fold, some))
        return poses

    def _draw_noise(self) -> _Boxes:
        """Boxes of pure noise, with the noise and the wedges of the subtomograms."""
        data, device = self.data, self.data.values.device
        index = data.wedge_index[torch.randint(len(data), (NOISE,), generator=self.generator, device=device)]
        parts = torch.randn(NOISE, len(data.points), 2, generator=self.generator, device=device) / 2**0.5
        values = torch.view_as_complex(parts) * self.noise[shell_index(data)].sqrt() * data.wedges[index]
        drawn = Coefficients(values, data.points, data.wedges, index, data.box)
        return _Boxes(drawn, drawn.inside(SEARCH_CYCLES * data.box / SEARCH_BOX), torch.arange(NOISE, device=device) % FOLDS)

    def _reference(self, rows: Tensor, structure: _Structure, weights: Tensor) -> References:
        """The structure of subtomograms in `rows`, whose poses it has in the same order, with their weights."""
        poses = replace(structure.poses, weights=structure.poses.weights * weights[:, None])
        used = (weights > 1e-3).nonzero()[:, 0]
        # Every fold must have a subtomogram for its sum, so all stay where few are used.
        some = used if len(self.fold[rows[used]].unique()) == FOLDS else torch.arange(len(rows), device=rows.device)
        data, fold = self.data.take(rows[some]), self.fold[rows[some]]
        return reconstruction.make_references(data, poses.take(some), fold, **self._filter(structure.diameter_voxels))

    def _filter(self, diameter_voxels: float) -> dict[str, Any]:
        return {"noise": self.noise, "diameter_voxels": diameter_voxels, "max_damping": 2.0}

    def _fit(
        self, rows: Tensor, structures: Sequence[_Structure], weights: Tensor, *, iterations: int
    ) -> tuple[list[_Structure], Tensor, Tensor]:
        """Structures of subtomograms in `rows` alone: they, weights (rows, structures), and log-likelihoods (rows,).

        It ends early when a structure has lost its subtomograms.
        """
        found = [replace(one, poses=one.poses.take(torch.arange(len(rows), device=rows.device))) for one in structures]
        boxes = _Boxes(self.data.take(rows), self.coarse.take(rows), self.fold[rows])
        asked = torch.ones_like(weights, dtype=torch.bool)
        for _ in range(iterations):
            share = weights.mean(0).clamp_min(1e-4).log()
            made = [self._reference(rows, one, part) for one, part in zip(found, weights.T, strict=True)]
            evidence = self._compare(boxes, made, [one.poses for one in found], asked=asked, near=True) + share
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
        self._keep(kept)
        return weights[:, kept], len(gone)

    def _merge_pair(self, a: int, b: int, weights: Tensor, members: list[Tensor]) -> bool:
        """Merge structure b into the larger a unless two are better; whether it was done.

        Mixed structures of the first iterations are merged only if the likelihood does not fall. Later two must be better for
        certain, and their maps must differ: a subtomogram is in the better of both, and the CTF and the strength of the signal
        vary, so two structures of one complex can be better than one.
        """
        rows = torch.cat([self._some(members[a]), self._some(members[b])])
        first, second = self.structures[a], self.structures[b]
        larger = max(first.diameter_voxels, second.diameter_voxels)
        whole = torch.ones(len(rows), 1, device=rows.device)
        together, _, one = self._fit(rows, [replace(self._of(first, rows), diameter_voxels=larger)], whole, iterations=2)
        both = weights[rows][:, [a, b]]
        parts = [self._of(first, rows), self._of(second, rows)]
        _, _, two = self._fit(rows, parts, both / both.sum(1, keepdim=True).clamp_min(1e-30), iterations=1)
        rise = two - one
        early = len(self.history) < CHANGE_EVERY
        better = _standard_errors(rise) > (0.0 if early else CERTAIN)
        if better and (early or not _same_map(*(self._with_diameter(number) for number in (a, b)), box=self.data.box)):
            return False
        first.poses.put(rows, together[0].poses)
        first.diameter_voxels = larger
        weights[:, a] += weights[:, b]
        return True

    def _divide(self, weights: Tensor) -> tuple[Tensor, int]:
        """Divide structures whose subtomograms two explain better; weights after that, and how many were added."""
        added = []
        for number, members in enumerate(self._members(weights)):
            structure, rows = self.structures[number], self._some(members)
            if len(rows) < 4 * MIN_PARTICLES or self._was_tried(structure, members):
                continue
            found = self._halves(self._of(structure, rows), rows)
            structure.undivided = None if found else torch.zeros_like(self.unassigned).index_fill(0, members, True)
            if found is None:
                continue
            (one, other), parts = found
            twin = _Structure(structure.poses.take(self.every), structure.diameter_voxels)
            structure.poses.put(rows, one.poses)
            twin.poses.put(rows, other.poses)
            # Those that were not tried make neither structure; they are scored against both.
            before, weights[:, number] = weights[rows, number], 0
            second = torch.zeros_like(weights[:, number])
            second[rows], weights[rows, number] = before * parts[:, 1], before * parts[:, 0]
            self.structures.append(twin)
            added.append(second)
        return torch.column_stack([weights, *added]), len(added)

    def _halves(self, structure: _Structure, rows: Tensor) -> tuple[list[_Structure], Tensor] | None:
        """Two structures of the subtomograms of one, with their weights, if they raise the likelihood for certain."""
        whole = torch.ones(len(rows), 1, device=rows.device)
        alone, _, one = self._fit(rows, [structure], whole, iterations=2)
        best, found = CERTAIN, None
        for halves in self._starts(rows):
            pair, weights, two = self._fit(rows, [alone[0], alone[0]], one_hot(halves, 2).float(), iterations=SPLIT_ITERATIONS)
            rise = _standard_errors(two - one)
            fewest = int(torch.bincount(weights.argmax(1), minlength=2).min())
            if rise > best and fewest >= MIN_PARTICLES and not self._alike(rows, pair, weights):
                best, found = rise, (pair, weights)
        return found

    def _starts(self, rows: Tensor) -> list[Tensor]:
        """Divisions of subtomograms to start from: at random, and by their features if there are any."""
        found = [torch.randperm(len(rows), generator=self.generator, device=rows.device) % 2]
        if self.features is not None:
            vectors = self.features[rows.cpu().numpy()]
            found.append(torch.from_numpy(KMeans(2, n_init=3, random_state=0).fit_predict(vectors)).to(rows))
        return found

    def _some(self, rows: Tensor) -> Tensor:
        """At most `refinement.SUBSET` of some subtomograms, by chance: enough to tell two structures from one."""
        order = torch.randperm(len(rows), generator=self.generator, device=rows.device)
        return rows[order[: refinement.SUBSET].sort().values]

    def _alike(self, rows: Tensor, pair: list[_Structure], weights: Tensor) -> bool:
        """Whether the maps of two structures of subtomograms in `rows` are the same."""
        made = [self._reference(rows, one, share) for one, share in zip(pair, weights.T, strict=True)]
        return _same_map(*((one, pair[0].diameter_voxels) for one in made), box=self.data.box)

    def _with_diameter(self, number: int) -> tuple[References, float]:
        return self.references[number], self.structures[number].diameter_voxels

    def _was_tried(self, structure: _Structure, rows: Tensor) -> bool:
        """Whether it was tried to divide a structure of nearly the same subtomograms."""
        before = structure.undivided
        return before is not None and int((~before[rows]).sum()) + int(before.sum() - before[rows].sum()) < CHANGED * len(rows)

    def _members(self, weights: Tensor) -> list[Tensor]:
        labels, used = weights.argmax(1), self._used()
        return [((labels == number) & used).nonzero()[:, 0] for number in range(weights.shape[1])]

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


def _largest(values: Tensor, count: int) -> Tensor:
    """Whether each of the values (n, k) is among the `count` largest of its row."""
    best = values.topk(min(count, values.shape[1]), dim=1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter(1, best, True)


def _standard_errors(rise: Tensor) -> float:
    """Mean rise (n,) of the likelihood in standard errors of the mean."""
    return float(rise.mean() / rise.std() * len(rise) ** 0.5)


def _pairs(members: list[Tensor]) -> list[tuple[int, int]]:
    """Pairs of classes with enough subtomograms, the larger first."""
    large = [number for number, rows in enumerate(members) if len(rows) >= MIN_PARTICLES]
    return [(a, b) if len(members[a]) >= len(members[b]) else (b, a) for a, b in combinations(large, 2)]


def _same_map(one: tuple[References, float], other: tuple[References, float], *, box: int) -> bool:
    """Whether two maps, each with the diameter of its mask in voxels, agree as well as halves of both predict.

    The halves are not masked. A mask leaves its share of their noise, so the correlation of the maps with the truth is
    (x / (1 + x))^(1/2), where x is twice f / (1 - f) over that share, and f the correlation of the halves.
    """
    (first, _), (second, _) = one, other
    shells = max(3, int(min(first.resolved_cycles, second.resolved_cycles)))
    expected, weight = torch.ones(shells), torch.arange(1, shells + 1).float().square()
    for reference, diameter in one, other:
        halves = reference.fsc[:shells].cpu().clamp(0, 0.999)
        ratio = 2 * halves / (1 - halves) / reconstruction.mask_share(diameter, box)
        expected = expected * (ratio / (1 + ratio)).sqrt()
    fixed, moving = (Volume(reference.density.cpu().numpy(), 1.0) for reference in (first, second))
    fit = alignment.align_map(moving, fixed, radius_cycles=float(shells))
    maps = (torch.from_numpy(volume.data) for volume in (fixed, alignment.apply(moving, fit)))
    observed = fourier.shell_correlation(*maps)[1 : shells + 1]
    return float(((expected - observed) * weight).sum() / weight.sum()) < SAME_MAP
