"""Subtomograms in, poses and a reference out: refined by expectation and maximisation from random orientations, no template.

In turn every subtomogram is scored against the reference at random rotations and a grid of shifts (`alignment.search`), its
best poses are moved uphill (`alignment.polish`) and share it by their likelihood, and the sum over all of them, divided by
the summed wedges, is the next reference (`reconstruction`). Fresh random rotations in every iteration keep it from settling
in the featureless ball it starts from; detail grows from coarse to fine; in the end poses only move uphill, with ever finer
detail.

>>> box, settings = plan(subtomograms, iterations=20)
>>> for state in Refinement(data, settings, generator=generator):
...     print(state.stage, state.resolved)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tomolab import particles, rotations
from tomolab.averaging import alignment, reconstruction
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import References, shell_of
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import distance

FOLDS = 4
KEEP = 5
"""Poses that share a subtomogram in the search."""
FEW = 400
"""Subtomograms that the search for a first reference looks at; the others join when there is one."""
ROTATIONS = 700
"""Random rotations tried in each iteration of the search: 25 degrees apart, from where `alignment.polish` finds the best."""
GROWTH = (1.0,) * 5 + (1.25,) * 4 + (1.5,) * 4
"""Search: radius over the first radius in each iteration."""
BLOCK = 512
"""Subtomograms of one fold that are scored at a time, wherever that is."""
SEARCH_STEPS, LOCAL_STEPS = 2, 4
"""Steps by which poses are improved in each iteration of the search, and of the local refinement."""
STANDS_OUT = 5.0
"""Standard deviations by which the radial mean of a set must stand out of the noise somewhere to show how large it is."""


@dataclass(frozen=True)
class Settings:
    """What one refinement needs to know; lengths in voxels, `radius` and `finest` in cycles per box.

    Without `starts` it begins from poses that are given; `group` (g, 3, 3) are the rotations of a symmetry, if there is one.
    """

    radius: float
    finest: float
    diameter: float
    reach: float
    starts: int
    search: int
    local: int
    group: Tensor | None = None

    @property
    def steps(self) -> int:
        """Iterations altogether."""
        return self.starts * self.search + self.local


def plan(
    chosen: Subtomograms,
    *,
    iterations: int = 20,
    starts: int = 2,
    given: bool = False,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    finest: float | None = None,
) -> tuple[int, Settings]:
    """Voxels about the particle that are looked at, and how a set is refined; parameters as in `average`."""
    _check(
        chosen,
        iterations=iterations,
        starts=starts,
        given=given,
        mask_diameter=mask_diameter,
        max_shift=max_shift,
        finest=finest,
    )
    measured = mask_diameter is None
    diameter = _diameter(chosen) if mask_diameter is None else mask_diameter / chosen.voxel_size
    box = min(chosen.box, 2 * round((1.5 * diameter + 4) / 2))
    search = max(1, iterations * 2 // 3)
    return box, Settings(
        radius=max(4.0, 3 * box / diameter),
        finest=min(box / 2 - 1.1, box * chosen.voxel_size / finest if finest else np.inf),
        diameter=min(max(1.2 * diameter, 0.45 * chosen.box), 0.95 * box) if measured else diameter,
        reach=max_shift / chosen.voxel_size if max_shift else chosen.box / 10,
        starts=0 if given else starts,
        search=search,
        local=iterations - search,
    )


def _check(chosen: Subtomograms, *, iterations: int, starts: int, given: bool, **lengths: float | None) -> None:
    if len(chosen) < 4:
        raise ValueError(f"an average in two halves needs at least 4 particles, got {len(chosen)}")
    if chosen.box < 12:
        raise ValueError(f"averaging needs a box of at least 12 voxels, got {chosen.box}")
    if iterations < 2 or starts < 1:
        raise ValueError(f"at least 2 iterations and 1 start are needed, got {iterations} and {starts}")
    if given:
        particles.matrices(chosen.particles)
    extent = chosen.box * chosen.voxel_size
    for name, value in lengths.items():
        if value is not None and not 0 < value <= extent:
            raise ValueError(f"{name} must be over 0 and at most the box, {extent:g} Å, got {value}")


def _diameter(chosen: Subtomograms) -> float:
    """Voxels across which the mean of the unaligned subtomograms stands out of its surroundings by a tenth of its height.

    Where nothing stands out of the noise, nearly the whole box: in a small mask noise soon agrees with noise.
    """
    _, volumes = next(chosen.batches(FEW))
    mean = torch.from_numpy(volumes.mean(0))
    box = chosen.box
    shell = distance(box).round().long().flatten()
    count = torch.bincount(shell)[: box // 2]
    profile = torch.bincount(shell, weights=mean.flatten().double())[: box // 2] / count
    rim = int(0.38 * box)
    profile = profile - profile[rim:].median()
    scatter = mean.flatten()[(shell >= rim) & (shell < box // 2)].double().std() / count.sqrt()
    if not (profile > STANDS_OUT * scatter)[:rim].any():
        return 0.85 * box
    edge = float((profile > 0.1 * profile.max()).nonzero().max()) + 0.5
    return float(np.clip(2 * edge, 0.35 * box, 0.85 * box))


@dataclass(frozen=True)
class State:
    """After an iteration: `poses` (of `rows` of the data), masked `density` and its `resolved` radius and `fsc`, mean `score`.

    `fsc` is that of odd and even folds, as in `References`; `box` are the voxels of a subtomogram, over which the grid of the
    density is spread.
    """

    stage: str
    rows: Tensor
    poses: Poses
    density: Tensor
    resolved: float
    fsc: Tensor
    score: float
    box: int


@dataclass
class _Set:
    """Subtomograms under refinement: rows of the data, and what each iteration replaces."""

    rows: Tensor
    fold: Tensor
    poses: Poses
    noise: Tensor
    score: float = -torch.inf


class Refinement:
    """One refinement, an iteration at a time; the last state holds the poses of all.

    Parameters
    ----------
    data
        At least 2 subtomograms, with coefficients up to `settings.finest`.
    settings
        Radii, mask, iterations.
    generator
        All randomness; on the device of the data.
    given
        Poses to start from, one each: those of the first reference of a search, or, where `settings.starts` is 0, those that
        are refined.
    workers
        Who scores; this process by default.
    """

    def __init__(
        self,
        data: Coefficients,
        settings: Settings,
        *,
        generator: torch.Generator,
        given: Poses | None = None,
        workers: Workers | None = None,
    ) -> None:
        if given is None and settings.starts == 0:
            raise ValueError("refinement starts from given poses or searches for some, got neither")
        self.data, self.settings, self.generator, self.workers = data, settings, generator, workers or Workers()
        self.step, self.radius = 0, settings.radius * GROWTH[-1]
        every = torch.arange(len(data), device=data.values.device)
        self.now = self._begin(every)
        self.scores: list[float] = []
        """Mean score at the end of every search."""
        self.given = given
        if given is not None and settings.starts == 0:
            self.now.poses = given
        self.best = self.now

    def __iter__(self) -> Iterator[State]:
        while self.step < self.settings.steps:
            yield self.advance()

    def advance(self) -> State:
        """Make the next iteration."""
        settings, searches = self.settings, self.settings.starts * self.settings.search
        if self.step < searches:
            state = self._search(self.step % settings.search)
        else:
            if self.step == searches and searches:
                self.now = self._everyone()
            state = self._local(self.step - searches)
        self.step += 1
        return state

    def saved(self) -> dict[str, Tensor]:
        """All that `restore` needs to go on as if there had been no break."""
        at = torch.tensor([self.step, self.radius, *self.scores], dtype=torch.float64)
        out = {"generator": self.generator.get_state(), "at": at}
        sets = {"now": self.now} | ({"best": self.best} if self.best is not self.now else {})
        for name, one in sets.items():
            parts: dict[str, Any] = {"rows": one.rows, "fold": one.fold, "noise": one.noise, "score": torch.tensor(one.score)}
            parts |= vars(one.poses)
            out |= {f"{name}.{key}": value.cpu().contiguous() for key, value in parts.items()}
        return out

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Go back to where `saved` was taken, of a refinement of the same data and settings."""
        self.generator.set_state(saved["generator"])
        self.step, self.radius, self.scores = int(saved["at"][0]), float(saved["at"][1]), saved["at"][2:].tolist()
        device = self.data.values.device

        def one(name: str) -> _Set:
            parts = {key.partition(".")[2]: value.to(device) for key, value in saved.items() if key.startswith(f"{name}.")}
            poses = Poses(*(parts[key] for key in ("rotations", "shifts", "scores", "weights")))
            return _Set(parts["rows"], parts["fold"], poses, parts["noise"], float(parts["score"]))

        self.now = one("now")
        self.best = one("best") if "best.rows" in saved else self.now

    def _begin(self, rows: Tensor) -> _Set:
        few = self.data.take(rows) if len(rows) < len(self.data) else self.data
        count, device = len(rows), rows.device
        fold = torch.randperm(count, generator=self.generator, device=device) % min(FOLDS, count)
        # Of the first ones alone, where there are many: it is a first guess, and reading all of a mapped file takes time.
        some = few.take(torch.arange(min(FEW, count), device=device))
        noise = reconstruction.by_shell(some, (some.values.abs() ** 2).sum(0))
        return _Set(rows, fold, alignment.start(count, KEEP, generator=self.generator), noise)

    def _search(self, step: int) -> State:
        if step == 0:
            rows = torch.randperm(len(self.data), generator=self.generator, device=self.now.rows.device)[:FEW]
            self.now = self._begin(rows)
            if self.given is not None:
                self.now.poses.rotations[:, 0] = self.given.rotations[rows, 0]
                self.now.poses.shifts[:, 0] = self.given.shifts[rows, 0]
        part, growth = self.now, GROWTH[step * len(GROWTH) // self.settings.search]
        data = self._data(part, min(self.settings.radius * growth, self.settings.finest))
        made = self._references(part, data, ceiling=2.0)
        if step:
            part.noise = reconstruction.measure_noise(data, part.poses, part.fold, references=made, noise=part.noise)
        part.poses = self._score(part, data, made.slopes, close=growth > 1)
        part.score = float(part.poses.scores[:, 0].mean())
        if step == self.settings.search - 1:
            if part.score > max(self.scores, default=-torch.inf):
                self.best = part
            self.scores.append(part.score)
        return State("search", part.rows, part.poses, made.density, made.resolved, made.fsc, part.score, data.box)

    def _local(self, step: int) -> State:
        part = self.now
        data = self._data(part, self.radius)
        made = self._references(part, data, ceiling=20.0)
        part.noise = reconstruction.measure_noise(data, part.poses, part.fold, references=made, noise=part.noise)
        part.poses = part.poses.best(max(1, 3 - step))
        expected = self._expected(part, data)
        blocks = _blocks(part.fold)
        jobs = (
            {"slopes": made.slopes[one], "data": data.take(rows), "poses": part.poses.take(rows), "expected": expected}
            for one, rows in blocks
        )
        for (_, rows), found in zip(blocks, self.workers.each(_polished, jobs, home=part.fold.device), strict=True):
            part.poses.put(rows, found)
        self.radius = min(max(self.radius, made.resolved + 2), self.settings.finest)
        part.score = float(part.poses.scores[:, 0].mean())
        return State("refine", part.rows, part.poses, made.density, made.resolved, made.fsc, part.score, data.box)

    def _everyone(self) -> _Set:
        """All the subtomograms, with the poses of those that searched; where there are more, each is searched once."""
        few, everyone = self.best, self._begin(torch.arange(len(self.data), device=self.best.rows.device))
        everyone.noise = few.noise
        # Those that searched stay in their folds: what they are scored against must not hold themselves.
        everyone.fold[few.rows] = few.fold
        self.radius = min(self.radius, self.settings.finest)
        if len(everyone.rows) == len(few.rows):
            everyone.poses.put(few.rows, few.poses)
        else:
            made = self._references(few, self._data(few, self.radius), ceiling=2.0)
            data = self._data(everyone, self.radius)
            everyone.poses = self._score(everyone, data, made.slopes, close=False)
        return everyone

    def _data(self, part: _Set, radius: float) -> Coefficients:
        inside, every = self.data.inside(radius), torch.arange(len(self.data), device=part.rows.device)
        # Not copied where all are there in order, for then there may be many.
        return inside if torch.equal(part.rows, every) else inside.take(part.rows)

    def _references(self, part: _Set, data: Coefficients, *, ceiling: float) -> References:
        settings = self.settings
        return reconstruction.make_references(
            data, part.poses, part.fold, noise=part.noise, diameter=settings.diameter, ceiling=ceiling, group=settings.group
        )

    def _expected(self, part: _Set, data: Coefficients) -> dict[str, Any]:
        return {"noise": part.noise[shell_of(data)], "spread": self.settings.reach / 2}

    def _score(self, part: _Set, data: Coefficients, slopes: list[Tensor], *, close: bool) -> Poses:
        step = data.box / (4 * float(data.points[-1].norm()))
        if close:
            shifts = part.poses.shifts[:, :1] + alignment.ball(1.5 * step, step, device=part.fold.device)
        else:
            shifts = alignment.ball(self.settings.reach, step, device=part.fold.device).expand(len(data), -1, -1)
        about = self._expected(part, data)
        return explore(data, part.fold, slopes, shifts=shifts, generator=self.generator, workers=self.workers, **about)


def explore(
    data: Coefficients,
    fold: Tensor,
    slopes: list[Tensor],
    *,
    shifts: Tensor,
    noise: Tensor,
    spread: float,
    generator: torch.Generator,
    workers: Workers | None = None,
) -> Poses:
    """Try fresh random rotations of every subtomogram with shifts, and move the best poses to the best ones near by.

    Parameters
    ----------
    data, noise, spread
        As in `alignment.search`.
    fold
        Number of the fold of each subtomogram, which says against which of `slopes` it is scored.
    slopes
        Grids of the references of all folds (`coefficients.slopes`).
    shifts
        Shifts to try, (n, s, 3).
    generator
        Draws the rotations, the same for all.
    workers
        Who scores; this process by default.
    """
    turns = rotations.random(ROTATIONS, generator, device=fold.device)
    poses = alignment.start(len(data), KEEP, generator=generator)
    blocks, expected = _blocks(fold), {"noise": noise, "spread": spread}
    jobs = (
        {"slopes": slopes[one], "data": data.take(rows), "turns": turns, "shifts": shifts[rows], "expected": expected}
        for one, rows in blocks
    )
    for (_, rows), found in zip(blocks, (workers or Workers()).each(_explored, jobs, home=fold.device), strict=True):
        poses.put(rows, found)
    return poses


def _blocks(fold: Tensor) -> list[tuple[int, Tensor]]:
    """Rows that are scored at a time, each with the fold that they are of."""
    folds = range(int(fold.max()) + 1)
    return [(one, rows) for one in folds for rows in (fold == one).nonzero()[:, 0].split(BLOCK) if len(rows)]


def _explored(job: dict[str, Any]) -> Poses:
    slopes, data, expected = job["slopes"], job["data"], job["expected"]
    found = alignment.search(slopes[0], data, turns=job["turns"], shifts=job["shifts"], keep=KEEP, **expected)
    return alignment.polish(slopes, data, found, steps=SEARCH_STEPS, **expected)


def _polished(job: dict[str, Any]) -> Poses:
    return alignment.polish(job["slopes"], job["data"], job["poses"], steps=LOCAL_STEPS, **job["expected"])
