"""Refinement: one set of subtomograms, from random orientations to poses and a reference, without any template.

Expectation and maximisation in turn: every subtomogram is scored against the reference at random rotations and a grid of
shifts (`alignment.search`), its best poses share it by their likelihood, and the sum over all of them, divided by the summed
wedges, is the next reference. Fresh random rotations in every iteration keep it from settling in the featureless ball it
starts from; detail grows from coarse to fine; in the end the poses are refined locally.

The set is cut into folds, and a subtomogram is only ever scored against the sum of the other folds. Otherwise its own noise,
which is in the reference at its present pose, holds it there and makes structure out of noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tomolab import alignment, rotations, spectra
from tomolab.alignment import Poses
from tomolab.spectra import Spectra
from tomolab.volumes import distance, isolate

FOLDS = 4
KEEP = 5
"""Poses that share a subtomogram in the search."""
FLOOR = 0.1
"""Least damping of the reference, as a part of the mean sampling of each shell."""
FEW = 400
"""Subtomograms that the search for a first reference looks at; the others join when there is one."""
ROTATIONS = (700, 700, 700, 700, 1000, 1000, 1000, 1500, 1500, 2000, 2000, 3000, 3000)
GROWTH = (1.0,) * 5 + (1.25,) * 4 + (1.5,) * 4
"""Search: random rotations tried, and radius over the first radius, in each iteration."""
ANGLES = (7.0, 5.0, 3.5, 2.5, 1.8, 1.3, 1.0)
"""Local refinement: standard deviation in degrees of the small rotations in each iteration."""


@dataclass(frozen=True)
class Settings:
    """What one refinement needs to know; lengths in voxels, `radius` and `finest` in cycles per box."""

    radius: float
    finest: float
    diameter: float
    reach: float
    starts: int
    search: int
    local: int

    @property
    def steps(self) -> int:
        """Iterations altogether."""
        return self.starts * self.search + self.local


@dataclass(frozen=True)
class State:
    """After an iteration: `poses` (of `rows` of the data), masked `density` and its `resolved` radius, mean `score`."""

    stage: str
    rows: Tensor
    poses: Poses
    density: Tensor
    resolved: float
    score: float


@dataclass
class _Set:
    """A set under refinement: what stays, and what each iteration replaces."""

    data: Spectra
    fold: Tensor
    poses: Poses
    noise: Tensor
    settings: Settings
    generator: torch.Generator


def run(data: Spectra, settings: Settings, *, generator: torch.Generator) -> Iterator[State]:
    """Refine from random orientations, yielding after every iteration; the last state holds the poses of all.

    Parameters
    ----------
    data
        At least 2 subtomograms, with coefficients up to `settings.finest`.
    settings
        Radii, mask, iterations.
    generator
        All randomness; on the device of the data.
    """
    device = data.values.device
    searches: list[tuple[float, _Set, Tensor]] = []
    for _ in range(settings.starts):
        rows = torch.randperm(len(data), generator=generator, device=device)[:FEW]
        few = _begin(data.take(rows), settings, generator)
        for step in range(settings.search):
            state = _search(few, step, rows)
            yield state
        searches.append((state.score, few, rows))
    _, best, chosen = max(searches, key=lambda search: search[0])
    radius = _radius(settings, settings.search - 1)
    everyone = _everyone(best, chosen, data, radius) if settings.local else best
    rows = torch.arange(len(data), device=device)
    for step in range(settings.local):
        state = _local(everyone, step, radius, rows)
        radius = min(max(radius, state.resolved + 2), settings.finest)
        yield state


def _radius(settings: Settings, step: int) -> float:
    """Radius of an iteration of the search."""
    return min(settings.radius * GROWTH[step * len(GROWTH) // settings.search], settings.finest)


def _everyone(few: _Set, chosen: Tensor, data: Spectra, radius: float) -> _Set:
    """All the subtomograms, with the poses of those that searched; where there are more, each is searched once."""
    everyone = _begin(data, few.settings, few.generator)
    everyone.noise = few.noise
    if len(data) == len(chosen):
        everyone.poses.put(chosen, few.poses)
        everyone.fold[chosen] = few.fold
    else:
        grid = spectra.oversample(_references(few, radius, ceiling=2.0)[1])
        everyone.poses = _score(everyone, [grid] * FOLDS, radius, count=ROTATIONS[-1], close=False)
    everyone.poses = everyone.poses.best(3)
    return everyone


def _begin(data: Spectra, settings: Settings, generator: torch.Generator) -> _Set:
    fold = torch.randperm(len(data), generator=generator, device=data.values.device) % min(FOLDS, len(data))
    power = _by_shell(data, (data.values.abs() ** 2).sum(0))
    return _Set(data, fold, alignment.start(len(data), KEEP, generator=generator), power, settings, generator)


def _search(part: _Set, step: int, rows: Tensor) -> State:
    at, radius = step * len(GROWTH) // part.settings.search, _radius(part.settings, step)
    grids, density, resolved = _references(part, radius, ceiling=2.0)
    if step:
        _measure_noise(part, grids, radius)
    part.poses = _score(part, grids, radius, count=ROTATIONS[at], close=GROWTH[at] > 1)
    return State("search", rows, part.poses, density, resolved, float(part.poses.scores[:, 0].mean()))


def _score(part: _Set, grids: list[Tensor], radius: float, *, count: int, close: bool) -> Poses:
    data = part.data.inside(radius)
    turns = rotations.random(count, part.generator, device=part.fold.device)
    step = data.box / (4 * radius)
    if close:
        shifts = part.poses.shifts[:, :1] + alignment.ball(1.5 * step, step, device=part.fold.device)
    else:
        shifts = alignment.ball(part.settings.reach, step, device=part.fold.device).expand(len(data), -1, -1)
    noise = part.noise[_shell(data)]
    poses = alignment.start(len(data), part.poses.scores.shape[1], generator=part.generator)
    for fold, grid in enumerate(grids):
        rows = (part.fold == fold).nonzero()[:, 0]
        one, spread, keep = data.take(rows), part.settings.reach / 2, poses.scores.shape[1]
        poses.put(rows, alignment.search(grid, one, turns=turns, shifts=shifts[rows], noise=noise, keep=keep, spread=spread))
    return poses


def _local(part: _Set, step: int, radius: float, rows: Tensor) -> State:
    grids, density, resolved = _references(part, radius, ceiling=20.0)
    _measure_noise(part, grids, radius)
    data = part.data.inside(radius)
    noise = part.noise[_shell(data)]
    part.poses = part.poses.best(max(1, 3 - step // 2))
    angle = ANGLES[step * len(ANGLES) // part.settings.local]
    step_size = data.box / (4 * radius) * (angle / 7)
    for fold, grid in enumerate(grids):
        mine = (part.fold == fold).nonzero()[:, 0]
        one, old, spread = data.take(mine), part.poses.take(mine), part.settings.reach / 2
        found = alignment.refine(
            grid, one, old, angle=angle, step=step_size, noise=noise, generator=part.generator, spread=spread
        )
        part.poses.put(mine, found)
    return State("refine", rows, part.poses, density, resolved, float(part.poses.scores[:, 0].mean()))


def _references(part: _Set, radius: float, *, ceiling: float) -> tuple[list[Tensor], Tensor, float]:
    """For each fold the oversampled grid of the others; the masked density of all; and the radius up to which it is resolved.

    Wiener filter with the signal power measured between odd and even folds, its strength held under `ceiling` times the mean
    sampling, so that a shell without signal yet is damped, not lost.
    """
    data = part.data.inside(radius)
    sums, sampling = gather(data, part.poses, part.fold)
    away = distance(sums.shape[-1], device=sums.device)
    shell = away.round().long().clamp_max(len(part.noise) - 1)
    count = torch.bincount(shell.flatten(), minlength=len(part.noise)).clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        return torch.zeros(len(part.noise), device=values.device).index_add_(0, shell.flatten(), values.flatten()) / count

    density = mean(sampling.sum(0))
    # Cropping leaves ripples at the rim of the sphere, where there is no sampling to divide them by.
    floor, inside = (FLOOR * density + 0.5)[shell], away <= radius
    odd = torch.arange(len(sums), device=sums.device) % 2 == 1
    one, other = (inside * sums[w].sum(0) / (sampling[w].sum(0) + floor) for w in (odd, ~odd))
    signal = mean((one * other.conj()).real).clamp_min(1e-9)
    damping = torch.maximum(torch.minimum(part.noise / signal, ceiling * density)[shell], floor)
    total, whole = sums.sum(0) * inside, sampling.sum(0)
    across = part.settings.diameter / data.box * sums.shape[-1]
    leave = [(total - a * inside, (whole - b).clamp_min(0)) for a, b in zip(sums, sampling, strict=True)]
    grids = [spectra.oversample(isolate(spectra.to_density(a / (b + damping)), across)) for a, b in leave]
    ratio = (signal * density / part.noise)[1 : int(radius) + 1]
    below = (ratio < 0.5).nonzero()
    resolved = float(below[0]) if len(below) else float(int(radius))
    return grids, isolate(spectra.to_density(total / (whole + damping)), across), resolved


def gather(data: Spectra, poses: Poses, fold: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the data in the frame of the reference, and of their wedges, for each fold: plain grids (folds, g, g, g)."""
    size = spectra.grid_size(float(data.points.norm(dim=1).max()))
    sums, sampling = [], []
    for one in range(int(fold.max()) + 1):
        mine = (fold == one).nonzero()[:, 0]
        total = None
        for rows in mine.split(max(1, 4_000_000 // (poses.weights.shape[1] * len(data.points)))):
            weights, shifts = poses.weights[rows], poses.shifts[rows]
            values = data.values[rows][:, None] * spectra.phases(data.points, -shifts, data.box) * weights[..., None]
            seen = data.wedges[data.kind[rows]][:, None] * weights[..., None]
            turns = poses.rotations[rows].flatten(0, 1)
            used = weights.flatten() > 1e-4
            part = spectra.insert(
                values.flatten(0, 1)[used], seen.flatten(0, 1)[used], turns[used], points=data.points, size=size
            )
            total = part if total is None else (total[0] + part[0], total[1] + part[1])
        ready = spectra.condense(*total)  # type: ignore[misc]
        sums.append(ready[0])
        sampling.append(ready[1])
    return torch.stack(sums), torch.stack(sampling)


def _measure_noise(part: _Set, grids: list[Tensor], radius: float) -> None:
    """Noise of every shell from what the reference at the best poses leaves over."""
    data = part.data.inside(radius)
    power = torch.zeros(len(data.points), device=data.points.device)
    for fold, grid in enumerate(grids):
        for rows in (part.fold == fold).nonzero()[:, 0].split(max(1, 4_000_000 // len(data.points))):
            model = spectra.sample(grid, part.poses.rotations[rows, 0], data.points)
            model = model * spectra.phases(data.points, part.poses.shifts[rows, 0], data.box)
            power += (data.values[rows] - model * data.wedges[data.kind[rows]]).abs().pow(2).sum(0)
    inside = _by_shell(data, power)
    part.noise = part.noise.clone()
    part.noise[: len(inside) - 1] = inside[:-1]


def _shell(data: Spectra) -> Tensor:
    return data.points.norm(dim=1).round().long()


def _by_shell(data: Spectra, power: Tensor) -> Tensor:
    """Mean over the observed coefficients of each shell, from power summed over the subtomograms (m,)."""
    seen = data.wedges[data.kind].sum(0) if len(data.kind) < 1000 else torch.bincount(data.kind).float() @ data.wedges
    shell = _shell(data)
    total, count = (torch.zeros(int(shell.max()) + 2, device=power.device).index_add_(0, shell, x) for x in (power, seen))
    out = total / count.clamp_min(1e-6)
    out[0], out[-1] = out[1], out[-2]
    return out.clamp_min(out.max() * 1e-6 + 1e-20)
