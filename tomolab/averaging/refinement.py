"""Takes coefficients of subtomograms; gives their poses and a reference, by expectation and maximisation without a template.

In turn every subtomogram is scored against the reference at random rotations and a grid of shifts
(`alignment.exhaustive_search`), its best poses are refined (`alignment.refine_poses`) and weighted by their likelihood, and the
sum over all of them, divided by the summed wedges, is the next reference (`reconstruction`). New random rotations in every
iteration keep it from staying with the featureless ball that it starts from; the resolution rises from coarse to fine. At the
end comes a local refinement with ever finer detail.

>>> box, settings = choose_settings(subtomograms, iterations=20)
>>> for now in Refinement(data, settings, generator=generator):
...     print(now.stage, now.resolved_cycles)
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tomolab import particles, rotations
from tomolab.averaging import alignment, reconstruction
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import References, shell_index
from tomolab.jobs import Progress, progress_after
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import distance

FOLDS = 4
KEEP = 5
"""Poses of a subtomogram that are kept in the search."""
SUBSET = 400
"""Subtomograms that search for a first reference; the others join afterwards."""
ROTATIONS = 700
"""Random rotations tried in each iteration of the search: 25 degrees apart, from where `alignment.refine_poses` converges."""
GROWTH = (1.0,) * 5 + (1.25,) * 4 + (1.5,) * 4
"""Search: radius over the first radius in each iteration."""
BLOCK = 512
"""Subtomograms of one fold that are scored at a time, here or by a worker."""
SEARCH_STEPS, LOCAL_STEPS = 2, 4
"""Steps of `alignment.refine_poses` in each iteration of the search, and of the local refinement."""
SIGNIFICANT = 5.0
"""Standard deviations of the noise that the radial mean of the unaligned subtomograms must exceed to show their diameter."""


@dataclass(frozen=True)
class Settings:
    """Settings of one refinement: radii in cycles per box, lengths in voxels, iterations of each search and at the end.

    Without `starts` it begins from poses that are given; `group` (g, 3, 3) are the rotations of a symmetry, if there is one.
    """

    radius_cycles: float
    max_radius_cycles: float
    diameter_voxels: float
    max_shift_voxels: float
    starts: int
    search_iterations: int
    local_iterations: int
    group: Tensor | None = None

    @property
    def iterations(self) -> int:
        """Iterations altogether."""
        return self.starts * self.search_iterations + self.local_iterations


def choose_settings(
    chosen: Subtomograms,
    *,
    iterations: int = 20,
    starts: int = 1,
    given: bool = False,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    finest: float | None = None,
) -> tuple[int, Settings]:
    """Voxels in the middle of the boxes that hold the particle, and the settings; parameters as in `average`."""
    if len(chosen) < 4:
        raise ValueError(f"an average in two halves needs at least 4 particles, got {len(chosen)}")
    if chosen.box < 12:
        raise ValueError(f"averaging needs a box of at least 12 voxels, got {chosen.box}")
    if iterations < 2 or starts < 1:
        raise ValueError(f"at least 2 iterations and 1 start are needed, got {iterations} and {starts}")
    if given:
        particles.matrices(chosen.particles)
    extent = chosen.box * chosen.voxel_size
    for name, value in {"mask_diameter": mask_diameter, "max_shift": max_shift, "finest": finest}.items():
        if value is not None and not 0 < value <= extent:
            raise ValueError(f"{name} must be over 0 and at most the box, {extent:g} Å, got {value}")
    measured = mask_diameter is None
    diameter = _diameter_voxels(chosen) if mask_diameter is None else mask_diameter / chosen.voxel_size
    box = min(chosen.box, 2 * round((1.5 * diameter + 4) / 2))
    search = max(1, iterations * 2 // 3)
    return box, Settings(
        radius_cycles=max(4.0, 3 * box / diameter),
        max_radius_cycles=min(box / 2 - 1.1, box * chosen.voxel_size / finest if finest else np.inf),
        diameter_voxels=min(max(1.2 * diameter, 0.45 * chosen.box), 0.95 * box) if measured else diameter,
        max_shift_voxels=max_shift / chosen.voxel_size if max_shift else chosen.box / 10,
        starts=0 if given else starts,
        search_iterations=search,
        local_iterations=iterations - search,
    )


def _diameter_voxels(chosen: Subtomograms) -> float:
    """Diameter at which the mean of the unaligned subtomograms falls to a tenth of its height above the surroundings.

    Nearly the whole box if the mean does not exceed the noise: in a small mask noise soon agrees with noise.
    """
    _, volumes = next(chosen.batches(SUBSET))
    mean = torch.from_numpy(volumes.mean(0))
    box = chosen.box
    shell = distance(box).round().long().flatten()
    count = torch.bincount(shell)[: box // 2]
    profile = torch.bincount(shell, weights=mean.flatten().double())[: box // 2] / count
    rim = int(0.38 * box)
    profile = profile - profile[rim:].median()
    scatter = mean.flatten()[(shell >= rim) & (shell < box // 2)].double().std() / count.sqrt()
    if not (profile > SIGNIFICANT * scatter)[:rim].any():
        return 0.85 * box
    edge = float((profile > 0.1 * profile.max()).nonzero().max()) + 0.5
    return float(np.clip(2 * edge, 0.35 * box, 0.85 * box))


@dataclass(frozen=True)
class Iteration:
    """Result of an iteration: `poses` of `rows` of the data, their mean `score`, and the `reference` of the scores.

    `box` are the voxels of a subtomogram, over which the grid of the density of the reference extends.
    """

    stage: str
    rows: Tensor
    poses: Poses
    reference: References
    score: float
    box: int


@dataclass
class Monitor:
    """Reports every iteration to `report` and asks `stop`, if given, whether to go on.

    `iterations` is their number altogether, `extent` the edge in Å of the box that the references fill.
    """

    report: Callable[[Progress], Any]
    stop: Callable[[], bool] | None
    iterations: int
    extent: float
    started: float = field(default_factory=time.perf_counter)
    count: int = 0
    stopped: bool = False

    def after(self, iteration: int, stage: str, reference: References, *, resolved_cycles: float | None = None) -> bool:
        """Report an iteration, counted from 1; whether to stop."""
        self.count += 1
        progress = progress_after(
            stage,
            iteration,
            self.iterations,
            density=reference.density,
            resolved=reference.resolved_cycles if resolved_cycles is None else resolved_cycles,
            fsc=reference.fsc,
            extent=self.extent,
            seconds=self.seconds,
            made=self.count,
        )
        self.report(progress)
        self.stopped = self.stop is not None and self.stop()
        return self.stopped

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started


@dataclass
class _Subset:
    """Subtomograms under refinement: rows of the data, and what each iteration replaces."""

    rows: Tensor
    fold: Tensor
    poses: Poses
    noise: Tensor
    score: float = -torch.inf


class Refinement:
    """One refinement, an iteration at a time; the last iteration holds the poses of all.

    `data` are at least 2 subtomograms with coefficients up to `settings.max_radius_cycles`; `generator` makes all randomness on
    their device. `given` are poses to start from, one each: those of the first reference of a search, or, if `settings.starts`
    is 0, those that are refined. `workers` score; this process by default.
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
        self.step, self.radius_cycles = 0, settings.radius_cycles * GROWTH[-1]
        self.current = self._start(torch.arange(len(data), device=data.values.device))
        self.scores: list[float] = []
        """Mean score at the end of every search."""
        self.given = given
        if given is not None and settings.starts == 0:
            self.current.poses = given
        self.best = self.current

    def __iter__(self) -> Iterator[Iteration]:
        while self.step < self.settings.iterations:
            yield self.advance()

    def advance(self) -> Iteration:
        """Make the next iteration."""
        searches = self.settings.starts * self.settings.search_iterations
        if self.step < searches:
            result = self._search(self.step % self.settings.search_iterations)
        else:
            if self.step == searches and searches:
                self.current = self._all_subtomograms()
            result = self._refine_locally(self.step - searches)
        self.step += 1
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` needs to go on as if there had been no break."""
        at = torch.tensor([self.step, self.radius_cycles, *self.scores], dtype=torch.float64)
        out = {"generator": self.generator.get_state(), "at": at}
        subsets = {"current": self.current} | ({"best": self.best} if self.best is not self.current else {})
        for name, one in subsets.items():
            parts: dict[str, Any] = {"rows": one.rows, "fold": one.fold, "noise": one.noise, "score": torch.tensor(one.score)}
            parts |= vars(one.poses)
            out |= {f"{name}.{key}": value.cpu().contiguous() for key, value in parts.items()}
        return out

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a `state_dict` of a refinement of the same data and settings."""
        self.generator.set_state(state["generator"])
        self.step, self.radius_cycles, self.scores = int(state["at"][0]), float(state["at"][1]), state["at"][2:].tolist()
        device = self.data.values.device

        def subset(name: str) -> _Subset:
            parts = {key.partition(".")[2]: value.to(device) for key, value in state.items() if key.startswith(f"{name}.")}
            poses = Poses(*(parts[key] for key in ("rotations", "shifts", "scores", "weights")))
            return _Subset(parts["rows"], parts["fold"], poses, parts["noise"], float(parts["score"]))

        self.current = subset("current")
        self.best = subset("best") if "best.rows" in state else self.current

    def _start(self, rows: Tensor) -> _Subset:
        data = self.data.take(rows) if len(rows) < len(self.data) else self.data
        count, device = len(rows), rows.device
        fold = torch.randperm(count, generator=self.generator, device=device) % min(FOLDS, count)
        # The first ones are enough for a first estimate, and reading all of a mapped file takes time.
        some = data.take(torch.arange(min(SUBSET, count), device=device))
        noise = reconstruction.shell_means(some, (some.values.abs() ** 2).sum(0))
        return _Subset(rows, fold, alignment.random_poses(count, KEEP, generator=self.generator), noise)

    def _search(self, step: int) -> Iteration:
        settings = self.settings
        if step == 0:
            rows = torch.randperm(len(self.data), generator=self.generator, device=self.current.rows.device)[:SUBSET]
            self.current = self._start(rows)
            if self.given is not None:
                self.current.poses.rotations[:, 0] = self.given.rotations[rows, 0]
                self.current.poses.shifts[:, 0] = self.given.shifts[rows, 0]
        now, growth = self.current, GROWTH[step * len(GROWTH) // settings.search_iterations]
        data = self._data(now, min(settings.radius_cycles * growth, settings.max_radius_cycles))
        references = self._references(now, data, max_damping=2.0)
        if step:
            now.noise = reconstruction.measure_noise(data, now.poses, now.fold, references=references, noise=now.noise)
        now.poses = self._score(now, data, references.grids, near=growth > 1)
        now.score = float(now.poses.scores[:, 0].mean())
        if step == settings.search_iterations - 1:
            if now.score > max(self.scores, default=-torch.inf):
                self.best = now
            self.scores.append(now.score)
        return Iteration("search", now.rows, now.poses, references, now.score, data.box)

    def _refine_locally(self, step: int) -> Iteration:
        now = self.current
        data = self._data(now, self.radius_cycles)
        references = self._references(now, data, max_damping=20.0)
        now.noise = reconstruction.measure_noise(data, now.poses, now.fold, references=references, noise=now.noise)
        now.poses = now.poses.best(max(1, 3 - step))
        prior, parts = self._prior(now, data), blocks(now.fold)
        jobs = (
            {"grids": references.grids[one], "data": data.take(rows), "poses": now.poses.take(rows), "prior": prior}
            for one, rows in parts
        )
        for (_, rows), found in zip(parts, self.workers.each(_refine_block, jobs, home=now.fold.device), strict=True):
            now.poses.put(rows, found)
        self.radius_cycles = min(max(self.radius_cycles, references.resolved_cycles + 2), self.settings.max_radius_cycles)
        now.score = float(now.poses.scores[:, 0].mean())
        return Iteration("refine", now.rows, now.poses, references, now.score, data.box)

    def _all_subtomograms(self) -> _Subset:
        """All subtomograms with the poses of the best search; if there are more, all are searched once."""
        subset, everyone = self.best, self._start(torch.arange(len(self.data), device=self.best.rows.device))
        everyone.noise = subset.noise
        # Those that searched stay in their folds, so that no reference that they are scored against holds themselves.
        everyone.fold[subset.rows] = subset.fold
        self.radius_cycles = min(self.radius_cycles, self.settings.max_radius_cycles)
        if len(everyone.rows) == len(subset.rows):
            everyone.poses.put(subset.rows, subset.poses)
        else:
            references = self._references(subset, self._data(subset, self.radius_cycles), max_damping=2.0)
            everyone.poses = self._score(everyone, self._data(everyone, self.radius_cycles), references.grids, near=False)
        return everyone

    def _data(self, now: _Subset, radius_cycles: float) -> Coefficients:
        inside, every = self.data.inside(radius_cycles), torch.arange(len(self.data), device=now.rows.device)
        # Large data are not copied where all rows are used in order.
        return inside if torch.equal(now.rows, every) else inside.take(now.rows)

    def _references(self, now: _Subset, data: Coefficients, *, max_damping: float) -> References:
        options: dict[str, Any] = {"diameter_voxels": self.settings.diameter_voxels, "group": self.settings.group}
        return reconstruction.make_references(data, now.poses, now.fold, noise=now.noise, max_damping=max_damping, **options)

    def _prior(self, now: _Subset, data: Coefficients) -> dict[str, Any]:
        return {"noise": now.noise[shell_index(data)], "shift_sigma_voxels": self.settings.max_shift_voxels / 2}

    def _score(self, now: _Subset, data: Coefficients, grids: list[Tensor], *, near: bool) -> Poses:
        shifts = search_shifts(data, self.settings.max_shift_voxels)
        if near:
            shifts = now.poses.shifts[:, :1] + near_shifts(data)
        options: dict[str, Any] = {"generator": self.generator, "workers": self.workers} | self._prior(now, data)
        return global_search(data, now.fold, grids, shifts=shifts, **options)


def _shift_step(data: Coefficients) -> float:
    """Voxels between two shifts that are tried: a quarter of the finest wave."""
    return data.box / (4 * float(data.points[-1].norm()))


def search_shifts(data: Coefficients, max_shift_voxels: float) -> Tensor:
    """Shifts (n, s, 3) that a search over all of them tries, the same for every subtomogram."""
    shifts = alignment.shift_grid(max_shift_voxels, _shift_step(data), device=data.values.device)
    return shifts.expand(len(data), -1, -1)


def near_shifts(data: Coefficients) -> Tensor:
    """Shifts (s, 3) that a search tries near one that is known."""
    step = _shift_step(data)
    return alignment.shift_grid(1.5 * step, step, device=data.values.device)


def global_search(
    data: Coefficients,
    fold: Tensor,
    grids: list[Tensor],
    *,
    shifts: Tensor,
    noise: Tensor,
    shift_sigma_voxels: float,
    generator: torch.Generator,
    workers: Workers | None = None,
) -> Poses:
    """Score new random rotations of every subtomogram with shifts (n, s, 3), and refine the best poses.

    Each subtomogram is scored against that of `grids` (one for each fold, `coefficients.gradient_grids`) which `fold` (n,)
    names. `generator` draws the rotations, the same for all. The rest is as in `alignment.exhaustive_search`.
    """
    turns = rotations.random(ROTATIONS, generator, device=fold.device)
    poses = alignment.random_poses(len(data), KEEP, generator=generator)
    parts, prior = blocks(fold), {"noise": noise, "shift_sigma_voxels": shift_sigma_voxels}
    jobs = (
        {"grids": grids[one], "data": data.take(rows), "turns": turns, "shifts": shifts[rows], "prior": prior}
        for one, rows in parts
    )
    for (_, rows), found in zip(parts, (workers or Workers()).each(_search_block, jobs, home=fold.device), strict=True):
        poses.put(rows, found)
    return poses


def blocks(fold: Tensor) -> list[tuple[int, Tensor]]:
    """Rows that are scored at a time, each with their fold."""
    return [(one, rows) for one in fold.unique().tolist() for rows in (fold == one).nonzero()[:, 0].split(BLOCK)]


def _search_block(job: dict[str, Any]) -> Poses:
    grids, data, prior = job["grids"], job["data"], job["prior"]
    found = alignment.exhaustive_search(grids[0], data, turns=job["turns"], shifts=job["shifts"], keep=KEEP, **prior)
    return alignment.refine_poses(grids, data, found, steps=SEARCH_STEPS, **prior)


def _refine_block(job: dict[str, Any]) -> Poses:
    return alignment.refine_poses(job["grids"], job["data"], job["poses"], steps=LOCAL_STEPS, **job["prior"])
