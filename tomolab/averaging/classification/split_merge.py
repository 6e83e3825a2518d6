"""Takes coefficients of subtomograms and features; gives the structures that they show, by split and merge EM.

In turn all subtomograms are scored against all structures (`comparison`), and the structures are made again. Features, if they
are given, weigh in by how well they predict the present classes of other subtomograms. From time to time structures are merged
and divided, as in split and merge EM (Ueda et al. 2000): a change is kept if it raises the likelihood of the subtomograms. As a
subtomogram is only scored against references that do not contain it, this likelihood is cross-validated (Smyth 2000), and
highest at the true number of structures. Subtomograms that agree with no structure better than pure noise does are in no class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import normalize
from torch import Tensor
from torch.nn.functional import one_hot

from tomolab import fourier
from tomolab.averaging import alignment, coefficients, reconstruction, refinement
from tomolab.averaging.alignment import Poses
from tomolab.averaging.classification.comparison import NOT_SCORED, Boxes, Comparison
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import References, shell_index
from tomolab.averaging.refinement import FOLDS, Refinement, Settings
from tomolab.parallel import Workers
from tomolab.volumes import Volume

MIN_PARTICLES = 8
"""Fewest subtomograms of a structure."""
CHANGE_EVERY = 3
"""Iterations between two rounds of merging and dividing."""
SPLIT_ITERATIONS = 6
"""Iterations of two structures that start from two parts of one class."""
CERTAIN = 3.0
"""Standard errors by which the likelihood of two structures must exceed that of one."""
SAME_MAP = 0.1
"""How far the correlation of two maps may fall short of that which their halves predict, if they are one structure."""
NOISE = 64
"""Boxes of pure noise that are compared with the structures."""
NOISE_DEVIATIONS = 2.0
"""Standard deviations above the mean score of noise below which subtomograms are counted to estimate how many are noise."""
CHANGED = 0.1
"""Share of the subtomograms of a structure that must have changed before it is tried again to divide it."""
HISTORY = ("structures", "moved", "merged", "divided", "unassigned", "score")
"""Columns of `Discovery.history`."""
UNLIKELY = -10.0
"""Lowest logarithm of the probability of a class that features give: what they never saw is not impossible."""


@dataclass
class Structure:
    """Poses of all subtomograms under a structure, its diameter, and with which (n,) subtomograms no division was better."""

    poses: Poses
    diameter_voxels: float
    undivided: Tensor | None = None


@dataclass(frozen=True)
class _Division:
    """Two structures of the subtomograms of one, their weights (rows, 2), and by how many standard errors they are better."""

    structures: list[Structure]
    weights: Tensor
    rise: float


class SplitMerge:
    """Structures and the log-likelihood (n, structures) of every subtomogram under each. `workers` score.

    Only the subtomograms in `rows` (all by default) make structures and are scored, until `complete`.
    """

    def __init__(
        self,
        data: Coefficients,
        settings: Settings,
        *,
        generator: torch.Generator,
        features: np.ndarray | None = None,
        min_particles: int = MIN_PARTICLES,
        rows: Tensor | None = None,
        workers: Workers,
    ) -> None:
        self.data, self.settings, self.generator, self.min_particles = data, settings, generator, min_particles
        self.features = None if features is None else normalize(np.asarray(features, dtype=np.float64))
        count, device = len(data), data.values.device
        self.every = torch.arange(count, device=device)
        self.fold = torch.randperm(count, generator=generator, device=device) % FOLDS
        self.noise = reconstruction.shell_means(data, data.values.abs().square().sum(0))
        self.boxes = Boxes.of(data, self.fold)
        options: dict[str, Any] = {"noise": self.noise, "max_shift_voxels": settings.max_shift_voxels}
        self.comparison = Comparison(self.boxes, generator=generator, workers=workers, **options)
        self.structures: list[Structure] = []
        self.references: list[References] = []
        self.evidence = self.posterior = torch.zeros(count, 0, device=device)
        self.taking_part = torch.zeros(count, dtype=torch.bool, device=device)
        self.taking_part[self.every if rows is None else rows] = True
        self.unassigned = ~self.taking_part
        self.history: list[dict[str, Any]] = []
        self.pure_noise = self._draw_noise()

    def start(self, rows: Tensor, diameter_voxels: float) -> References:
        """Find the structure of some subtomograms from random orientations."""
        radius = max(4.0, 3 * self.data.box / diameter_voxels)
        settings = replace(self.settings, diameter_voxels=diameter_voxels, radius_cycles=radius, local_iterations=0)
        search = Refinement(self.data.take(rows), settings, generator=self.generator, workers=self.comparison.workers)
        for _ in search:
            pass
        part = search.current
        data = self.data.take(rows[part.rows])
        found = reconstruction.make_references(data, part.poses, part.fold, **self._filter(diameter_voxels))
        # Not all subtomograms have a fold in this search, so all are compared with the same sum.
        reference = replace(found, grids=[coefficients.gradient_grids(found.density)] * FOLDS)
        self.references.append(reference)
        self.structures.append(Structure(self.comparison.random_poses(len(self.data)), diameter_voxels))
        return reference

    def score(self) -> None:
        """Score the subtomograms against the structures, and see which agree with none better than pure noise does.

        Between two rounds of changes only against the structures that could still be the best one in the last iteration.
        """
        asked = torch.ones(len(self.every), len(self.structures), dtype=torch.bool, device=self.every.device)
        if self.history and not self.change_is_due:
            known = self.posterior > NOT_SCORED / 2
            # Of some subtomograms all structures were lost.
            asked = known | ~known.any(1, keepdim=True)
        self.posterior = self.evidence = self._compare(asked & self.taking_part[:, None], near=bool(self.history))
        self._find_unassigned()

    def complete(self) -> bool:
        """Score the subtomograms that took no part yet against all structures; whether there were any."""
        if self.taking_part.all():
            return False
        weights = self._weights()
        self.references = self._references(weights)
        others = ~self.taking_part[:, None]
        scored = self._compare(others.expand(-1, len(self.structures)), near=False)
        self.evidence = scored.where(others, self.evidence)
        self.posterior = (scored + self._feature_prior(weights)).where(others, self.posterior)
        self.taking_part = torch.ones_like(self.taking_part)
        self._find_unassigned()
        return True

    def _compare(self, asked: Tensor, *, near: bool) -> Tensor:
        poses = [one.poses for one in self.structures]
        return self.comparison.score(self.boxes, self.references, poses, asked=asked, near=near)

    def _find_unassigned(self) -> None:
        some = self.taking_part
        self.unassigned = torch.ones_like(some)
        self.unassigned[some] = _like_noise(self.evidence[some].amax(1), self._by_chance())

    def _by_chance(self) -> Tensor:
        """Log-likelihood of boxes of pure noise under the structure that each agrees with most."""
        poses = [self.comparison.random_poses(NOISE) for _ in self.structures]
        asked = torch.ones(NOISE, len(poses), dtype=torch.bool, device=self.every.device)
        return self.comparison.score(self.pure_noise, self.references, poses, asked=asked, near=False).amax(1)

    def iterate(self, *, change: bool) -> References:
        """Make all structures again, merge and divide some if `change` allows it, score, and give that of the largest class."""
        counts = torch.bincount(self.posterior.argmax(1)[self._used()], minlength=len(self.structures))
        # Parts of a structure are merged before those that are too small go.
        fewest = self.min_particles if len(self.history) >= 2 * CHANGE_EVERY else MIN_PARTICLES
        self._keep((counts >= min(fewest, int(counts.max()))).nonzero()[:, 0].tolist())
        weights = self._weights()
        merged = divided = 0
        if change and self.change_is_due:
            weights, merged = self._merge(weights)
            weights, divided = self._divide(weights)
        moved = self._make(weights)
        self._note(moved, merged, divided)
        return self.references[int(torch.bincount(self.posterior.argmax(1)[self._used()]).argmax())]

    def add(self) -> References:
        """Divide the structure of which two explain the subtomograms better by most; gives the new one."""
        weights = torch.softmax(self.posterior, dim=1)
        some = [self._some(members) for members in self._members(weights)]
        large = [number for number, rows in enumerate(some) if len(rows) >= 2 * MIN_PARTICLES]
        tried = {number: self._division(self._of(self.structures[number], some[number]), some[number]) for number in large}
        number = max(tried, key=lambda one: tried[one].rise)
        self._make(torch.column_stack([weights, self._apply(tried[number], number, some[number], weights)]))
        return self.references[-1]

    def _make(self, weights: Tensor) -> float:
        """Make the structures by weights (n, structures) and score; the share of the subtomograms that changed class."""
        self.references = self._references(weights)
        self.score()
        self.posterior = self.evidence + self._feature_prior(weights)
        return float((self.posterior.argmax(1) != weights.argmax(1))[self._used()].float().mean())

    @property
    def order(self) -> list[int]:
        """Numbers of the structures, that with most subtomograms first."""
        counts = torch.bincount(self.posterior.argmax(1)[~self.unassigned], minlength=len(self.structures))
        return torch.argsort(counts, descending=True, stable=True).tolist()

    @property
    def change_is_due(self) -> bool:
        """Whether the next iteration is one that merges and divides."""
        return len(self.history) % CHANGE_EVERY == CHANGE_EVERY - 1

    @property
    def settled(self) -> bool:
        """Whether two rounds of merging and dividing in turn changed nothing."""
        last = self.history[-CHANGE_EVERY - 1 :]
        changed = any(one["merged"] or one["divided"] for one in last) or len({one["structures"] for one in last}) > 1
        return len(self.history) > 2 * CHANGE_EVERY and not changed

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
            self.structures.append(Structure(poses, float(known["diameter"]), known.get("undivided")))
            # The next iteration makes the grids again.
            self.references.append(References([], known["density"], float(known["resolved"]), known["fsc"]))

    def _used(self) -> Tensor:
        """Which subtomograms make the structures: all but those in no class, unless that leaves too few."""
        return ~self.unassigned if int((~self.unassigned).sum()) >= MIN_PARTICLES else self.taking_part

    def _weights(self) -> Tensor:
        """Weight (n, structures) of each subtomogram in each structure."""
        return torch.softmax(self.posterior, dim=1) * self._used()[:, None]

    def _references(self, weights: Tensor) -> list[References]:
        return [self._reference(self.every, s, w) for s, w in zip(self.structures, weights.T, strict=True)]

    def _note(self, moved: float, merged: int, divided: int) -> None:
        some = self.taking_part
        score, nowhere = float(self.evidence[some].logsumexp(1).mean()), int(self.unassigned[some].sum())
        row = (len(self.structures), moved, merged, divided, nowhere, score)
        self.history.append(dict(zip(HISTORY, row, strict=True)))

    def _keep(self, numbers: list[int]) -> None:
        self.structures = [self.structures[number] for number in numbers]
        self.references = [self.references[number] for number in numbers]
        self.posterior, self.evidence = self.posterior[:, numbers], self.evidence[:, numbers]

    def _draw_noise(self) -> Boxes:
        """Boxes of pure noise, with the noise and the wedges of the subtomograms."""
        data, device = self.data, self.data.values.device
        index = data.wedge_index[torch.randint(len(data), (NOISE,), generator=self.generator, device=device)]
        parts = torch.randn(NOISE, len(data.points), 2, generator=self.generator, device=device) / 2**0.5
        values = torch.view_as_complex(parts) * self.noise[shell_index(data)].sqrt() * data.wedges[index]
        drawn = Coefficients(values, data.points, data.wedges, index, data.box)
        return Boxes.of(drawn, torch.arange(NOISE, device=device) % FOLDS)

    def _reference(self, rows: Tensor, structure: Structure, weights: Tensor) -> References:
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
        self, rows: Tensor, structures: Sequence[Structure], weights: Tensor, *, iterations: int
    ) -> tuple[list[Structure], Tensor, Tensor]:
        """Structures of subtomograms in `rows` alone: they, weights (rows, structures), and log-likelihoods (rows,).

        It ends early when a structure has lost its subtomograms.
        """
        found = [replace(one, poses=one.poses.take(torch.arange(len(rows), device=rows.device))) for one in structures]
        boxes = self.boxes.take(rows)
        asked = torch.ones_like(weights, dtype=torch.bool)
        for _ in range(iterations):
            share = weights.mean(0).clamp_min(1e-4).log()
            made = [self._reference(rows, one, part) for one, part in zip(found, weights.T, strict=True)]
            evidence = self.comparison.score(boxes, made, [one.poses for one in found], asked=asked, near=True) + share
            weights = torch.softmax(evidence, dim=1)
            if len(found) > 1 and float(weights.sum(0).min()) < MIN_PARTICLES / 2:
                break
        return found, weights, evidence.logsumexp(1)

    def _of(self, structure: Structure, rows: Tensor) -> Structure:
        return Structure(structure.poses.take(rows), structure.diameter_voxels)

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
        """Divide structures whose subtomograms two explain better for certain; weights after that, and how many were added."""
        added = []
        for number, members in enumerate(self._members(weights)):
            structure, rows = self.structures[number], self._some(members)
            if len(rows) < max(4 * MIN_PARTICLES, 2 * self.min_particles) or self._was_tried(structure, members):
                continue
            found = self._division(self._of(structure, rows), rows)
            structure.undivided = None
            if found.rise > CERTAIN and not self._alike(rows, found):
                added.append(self._apply(found, number, rows, weights))
            else:
                structure.undivided = torch.zeros_like(self.unassigned).index_fill(0, members, True)
        return torch.column_stack([weights, *added]), len(added)

    def _apply(self, division: _Division, number: int, rows: Tensor, weights: Tensor) -> Tensor:
        """Divide a structure and its column of weights, in place; gives the weights (n,) of the new structure, the last one."""
        structure, (one, other) = self.structures[number], division.structures
        twin = Structure(structure.poses.take(self.every), structure.diameter_voxels)
        structure.poses.put(rows, one.poses)
        twin.poses.put(rows, other.poses)
        self.structures.append(twin)
        # Those that were not tried make neither structure; they are scored against both.
        before, weights[:, number] = weights[rows, number], 0
        second = torch.zeros_like(weights[:, number])
        second[rows], weights[rows, number] = before * division.weights[:, 1], before * division.weights[:, 0]
        return second

    def _division(self, structure: Structure, rows: Tensor) -> _Division:
        """The best of several divisions of a structure, which has the poses of the subtomograms in `rows`."""
        whole = torch.ones(len(rows), 1, device=rows.device)
        alone, _, one = self._fit(rows, [structure], whole, iterations=2)
        tried = []
        for halves in self._starts(rows, one):
            pair, weights, two = self._fit(rows, [alone[0], alone[0]], one_hot(halves, 2).float(), iterations=SPLIT_ITERATIONS)
            fewest = int(torch.bincount(weights.argmax(1), minlength=2).min())
            rise = _standard_errors(two - one) if fewest >= self.min_particles else -np.inf
            tried.append(_Division(pair, weights, rise))
        return max(tried, key=lambda division: division.rise)

    def _starts(self, rows: Tensor, evidence: Tensor) -> list[Tensor]:
        """Divisions of subtomograms to start from: at random, and by their features, or without those by their agreement.

        `evidence` (rows,) is their log-likelihood under the structure that is divided.
        """
        by = evidence.double().cpu().numpy()[:, None] if self.features is None else self.features[rows.cpu().numpy()]
        parts = torch.from_numpy(KMeans(2, n_init=3, random_state=0).fit_predict(by)).to(rows)
        return [torch.randperm(len(rows), generator=self.generator, device=rows.device) % 2, parts]

    def _some(self, rows: Tensor) -> Tensor:
        """At most `refinement.SUBSET` of some subtomograms, by chance: enough to tell two structures from one."""
        order = torch.randperm(len(rows), generator=self.generator, device=rows.device)
        return rows[order[: refinement.SUBSET].sort().values]

    def _alike(self, rows: Tensor, division: _Division) -> bool:
        """Whether the maps of the two structures of a division are the same."""
        pair = division.structures
        made = [self._reference(rows, one, share) for one, share in zip(pair, division.weights.T, strict=True)]
        return _same_map(*((one, pair[0].diameter_voxels) for one in made), box=self.data.box)

    def _with_diameter(self, number: int) -> tuple[References, float]:
        return self.references[number], self.structures[number].diameter_voxels

    def _was_tried(self, structure: Structure, rows: Tensor) -> bool:
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
        labels, fold, used = (one.cpu().numpy() for one in (weights.argmax(1), self.fold, weights.sum(1) > 0))
        out = np.full(tuple(weights.shape), UNLIKELY)
        for number in range(FOLDS):
            known, asked = used & (fold != number), np.flatnonzero(fold == number)
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


def _like_noise(scores: Tensor, by_chance: Tensor) -> Tensor:
    """Which of the scores (n,) lie below the threshold with the fewest errors: noise above it, and particles below it.

    `by_chance` are scores of pure noise. How many boxes are noise follows from the scores that are as low as nearly all noise
    is (as in Storey 2002). Particles may be among those, so there is less noise than that. Where few scores are low, hardly any
    is noise, and only the lowest are left out.
    """
    chance = torch.distributions.Normal(by_chance.mean(), by_chance.std())
    low = chance.mean + NOISE_DEVIATIONS * chance.stddev
    noise = ((scores < low).sum() / chance.cdf(low)).clamp_max(len(scores))
    thresholds = torch.cat([scores.sort().values, scores.new_full((1,), torch.inf)])
    below = torch.arange(len(thresholds), device=scores.device)
    errors = noise * (1 - chance.cdf(thresholds)) + below - noise * chance.cdf(thresholds)
    return scores < thresholds[errors.argmin()]


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
