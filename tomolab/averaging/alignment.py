"""Subtomograms or a map, and a reference in; their poses out, found by likelihood.

A pose is a rotation R (reference to tomogram) and a shift s in voxels: the subtomogram's coefficients are modelled as
F(k) = W(k) T(R^-1 k) exp(-2 pi i k.s) + noise of variance v(k), W the wedge and T the reference. The score of a pose is the
logarithm of its likelihood over that of an empty model, sum_k (2 Re F* T - W |T|^2) / v, both terms real matrix products
over all rotations, shifts and subtomograms at once. Only proper rotations are ever tried: a mirrored map does not align.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tomolab import fourier, rotations
from tomolab.averaging import coefficients
from tomolab.averaging.coefficients import Coefficients
from tomolab.volumes import Volume, apply_mask, transform

CHUNK = 16_000_000
"""Scores held at one time."""
FEW, MANY = 4, 40
"""Orientations of a map that are refined to the end: of the best, or of those among which finer detail decides."""
TRIED = 200
"""Orientations of a map from which these are found."""
APART = 8.0
"""Degrees between two of these orientations."""
ALIKE = 0.9
"""Part of the best correlation that orientations must reach to be among these."""


@dataclass(frozen=True)
class Poses:
    """The p best poses of each of n subtomograms, best first.

    `rotations` (n, p, 3, 3), `shifts` (n, p, 3) in voxels, `scores` (n, p) log-likelihoods, `weights` (n, p) that add to 1.
    """

    rotations: Tensor
    shifts: Tensor
    scores: Tensor
    weights: Tensor

    def put(self, rows: Tensor, poses: "Poses") -> None:
        """Write the poses of `rows` in place."""
        for name in ("rotations", "shifts", "scores", "weights"):
            getattr(self, name)[rows] = getattr(poses, name)

    def take(self, rows: Tensor) -> "Poses":
        """The poses of the subtomograms in `rows`, copied."""
        return Poses(self.rotations[rows], self.shifts[rows], self.scores[rows], self.weights[rows])

    def best(self, count: int = 1) -> "Poses":
        """Only the `count` best poses of each, weights added to 1 again."""
        weights = self.weights[:, :count]
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-30)
        return Poses(self.rotations[:, :count], self.shifts[:, :count], self.scores[:, :count], weights)


def start(count: int, poses: int, *, generator: torch.Generator) -> Poses:
    """Random orientations without shift: what is known before there is a reference. The first pose has all the weight."""
    device = generator.device
    turns = rotations.random(count * poses, generator, device=device).reshape(count, poses, 3, 3)
    weights = torch.zeros(count, poses, device=device)
    weights[:, 0] = 1
    return Poses(turns, torch.zeros(count, poses, 3, device=device), torch.zeros(count, poses, device=device), weights)


def uniform(count: int, *, device: torch.device | None = None) -> Tensor:
    """Evenly spread rotations (count, 3, 3): the super-Fibonacci spiral of Alexa (CVPR 2022)."""
    s = torch.arange(count, dtype=torch.float64, device=device) + 0.5
    phi, psi = 2**0.5, 1.533751168755204288118041
    first, second = (s / count).sqrt(), (1 - s / count).sqrt()
    a, b = 2 * torch.pi * s / phi, 2 * torch.pi * s / psi
    spiral = torch.stack([first * a.sin(), first * a.cos(), second * b.sin(), second * b.cos()], dim=1)
    return rotations.from_quaternions(spiral.float())


def ball(reach: float, step: float, *, device: torch.device | None = None) -> Tensor:
    """Shifts (s, 3) on a cubic grid of `step` voxels, no longer than `reach`; no shift is among them."""
    count = int(reach / step + 1e-6)
    axis = torch.arange(-count, count + 1, dtype=torch.float32, device=device) * step
    grid = torch.cartesian_prod(axis, axis, axis)
    return grid[grid.norm(dim=1) <= reach + 1e-3]


def search(
    grid: Tensor, data: Coefficients, *, turns: Tensor, shifts: Tensor, noise: Tensor, keep: int = 5, spread: float = 1.5
) -> Poses:
    """Score every rotation with every shift, and keep the best.

    Parameters
    ----------
    grid
        Oversampled Fourier grid of the reference (`coefficients.oversample`).
    data
        The subtomograms.
    turns, shifts
        Rotations (r, 3, 3) and shifts in voxels, (s, 3) or (n, s, 3) for each its own, to try in every combination.
    noise
        Variance of the noise at each point, shape (m,).
    keep
        Poses to keep, each of another rotation; they are weighted by the softmax of their scores.
    spread
        Standard deviation, in voxels, of the shifts expected.
    """
    model = coefficients.sample(grid, turns, data.points)
    power = (model.abs() ** 2 / noise) @ data.wedges.T
    model = torch.view_as_real(model).flatten(1)
    shifts = shifts.expand(len(data), -1, -1)
    count = shifts.shape[1]
    parts = []
    each = max(1, CHUNK // (count * max(len(turns), len(data.points))))
    for rows in torch.arange(len(data), device=shifts.device).split(each):
        wave = coefficients.phases(data.points, -shifts[rows], data.box)
        moved = torch.view_as_real((data.values[rows] / noise)[:, None] * wave).flatten(2)
        scores = (2 * moved.flatten(0, 1) @ model.T).reshape(len(rows), count, -1)
        prior = (shifts[rows] ** 2).sum(-1, keepdim=True) / (2 * spread**2)
        score, at = (scores - prior).max(1)
        score = score - power.T[data.kind[rows]]
        top, turn = score.topk(min(keep, len(turns)), dim=1)
        place = shifts[rows].gather(1, at.gather(1, turn)[..., None].expand(-1, -1, 3))
        parts.append(Poses(turns[turn], place, top, torch.softmax(top, dim=1)))
    return _joined(parts)


def polish(slopes: Tensor, data: Coefficients, poses: Poses, *, noise: Tensor, steps: int = 4, spread: float = 1.5) -> Poses:
    """Move every pose uphill to the best one near by: damped Gauss-Newton steps (Levenberg-Marquardt) on its likelihood.

    A pose ends where it should if it starts within about half a turn of phase at the finest detail: turned by less than
    radians of 1 over twice the radius, or so.

    Parameters
    ----------
    slopes
        Oversampled Fourier grids of the reference and of its derivatives (`coefficients.slopes`).
    data, noise, spread
        As in `search`.
    poses
        Where to start, p per subtomogram; p come back, sorted, weighted by the softmax of their scores.
    steps
        Steps of each pose; one that would make it worse is taken back, and shorter ones follow.
    """
    p = poses.scores.shape[1]
    parts = []
    for rows in torch.arange(len(data), device=noise.device).split(max(1, CHUNK // (32 * p * len(data.points)))):
        some = data.take(rows.repeat_interleave(p))
        climb = _Climb(slopes, some, some.wedges[some.kind] / noise, noise, spread)
        found = climb.run(poses.rotations[rows].flatten(0, 1), poses.shifts[rows].flatten(0, 1), steps)
        turns, shifts, scores = (one.reshape(len(rows), p, *one.shape[1:]) for one in found)
        order = scores.argsort(1, descending=True)
        pick = torch.arange(len(rows), device=order.device)[:, None]
        scores = scores[pick, order]
        parts.append(Poses(turns[pick, order], shifts[pick, order], scores, torch.softmax(scores, dim=1)))
    return _joined(parts)


@dataclass(frozen=True)
class _Climb:
    """Gauss-Newton steps of q poses, each against its own row of `data`, whose points weigh `weight` (q, m)."""

    slopes: Tensor
    data: Coefficients
    weight: Tensor
    noise: Tensor
    spread: float

    def run(self, turns: Tensor, shifts: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations (q, 3, 3), shifts (q, 3) and scores (q,) after `steps`."""
        score, slope, bend = self._look(turns, shifts)
        damping = torch.full_like(score, 1e-2)
        for _ in range(steps):
            move = self._step(slope, bend, damping)
            there = turned(move[:, :3]) @ turns, shifts + move[:, 3:]
            new = self._look(*there)
            better = new[0] > score
            damping = torch.where(better, damping / 5, damping * 10)
            turns, shifts, score, slope, bend = (
                torch.where(better.reshape(-1, *[1] * (one.ndim - 1)), one, old)
                for one, old in zip((*there, *new), (turns, shifts, score, slope, bend), strict=True)
            )
        return turns, shifts, score

    def _look(self, turns: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score (q,), its slope (q, 6) by small rotations and shifts, and its curvature (q, 6, 6) after Gauss and Newton."""
        data, points = self.data, self.data.points
        # Instead of the model, its slopes and all, the data are moved, the other way.
        moved = data.values * coefficients.phases(points, -shifts, data.box)
        moved = torch.stack([moved.real, moved.imag], dim=1)
        parts = coefficients.sample_parts(self.slopes, turns, points)
        model = parts[:, 0].transpose(0, 1)
        change = self._change(parts, turns)
        left = moved / self.noise - self.weight[:, None] * model
        slope = 2 * (change.flatten(2) @ left.flatten(1)[..., None])[..., 0]
        bend = 2 * (change * self.weight[:, None, None]).flatten(2) @ change.flatten(2).mT
        score = (2 * moved * model / self.noise - self.weight[:, None] * model.square()).sum((1, 2))
        score = score - shifts.square().sum(1) / (2 * self.spread**2)
        slope[:, 3:] -= shifts / self.spread**2
        bend[:, 3:, 3:] += torch.eye(3, device=bend.device) / self.spread**2
        return score, slope, bend

    def _change(self, parts: Tensor, turns: Tensor) -> Tensor:
        """Derivatives (q, 6, 2, m) of the model by small rotations and shifts, real and imaginary, from `sample_parts`."""
        (a, b, c), q = self.data.points.T, len(turns)
        # A small rotation w takes T(R^-1 k) to T(R^-1 (k - w x k)): its derivative by w is (R grad T) x k.
        steep = (turns @ parts[:, 1:].permute(2, 1, 0, 3).flatten(2)).reshape(q, 3, 2, -1)
        change = torch.empty(q, 6, 2, len(a), device=turns.device)
        change[:, 0] = steep[:, 1] * c - steep[:, 2] * b
        change[:, 1] = steep[:, 2] * a - steep[:, 0] * c
        change[:, 2] = steep[:, 0] * b - steep[:, 1] * a
        # And by a shift -2 pi i k / box times the model.
        waves = self.data.points.T * (2 * torch.pi / self.data.box)
        change[:, 3:, 0] = parts[1, 0][:, None] * waves
        change[:, 3:, 1] = -parts[0, 0][:, None] * waves
        return change

    def _step(self, slope: Tensor, bend: Tensor, damping: Tensor) -> Tensor:
        """Small rotation (radians) and shift (voxels), (q, 6); none so long that the slope would say nothing of its end."""
        level = bend.diagonal(dim1=1, dim2=2)
        ridge = damping[:, None] * level + 1e-6 * level.amax(1, keepdim=True) + 1e-20
        move = torch.linalg.solve(bend + torch.diag_embed(ridge), slope)
        finest = float(self.data.points[-1].norm())
        longest = torch.tensor([1 / finest, self.data.box / (6 * finest)], device=move.device)
        long = torch.stack([move[:, :3].norm(dim=1), move[:, 3:].norm(dim=1)], dim=1)
        return move * (longest / long.clamp_min(1e-12)).clamp(max=1).repeat_interleave(3, dim=1)


def turned(vectors: Tensor) -> Tensor:
    """Rotations (q, 3, 3) about vectors (q, 3), by their lengths in radians."""
    across = torch.zeros(*vectors.shape[:-1], 3, 3, dtype=vectors.dtype, device=vectors.device)
    a, b, c = vectors.unbind(-1)
    across[..., 2, 1], across[..., 0, 2], across[..., 1, 0] = a, b, c
    return torch.linalg.matrix_exp(across - across.mT)


def _joined(parts: list[Poses]) -> Poses:
    return Poses(*(torch.cat([getattr(part, name) for part in parts]) for name in ("rotations", "shifts", "scores", "weights")))


@dataclass(frozen=True)
class Fit:
    """How a map was brought onto another: a point r of `moving` lies at R r + shift in `fixed`.

    `rotation` (3, 3) on zyx vectors; `shift` (3,) in Å; `score` the correlation in Fourier space up to the radius used.
    """

    rotation: np.ndarray
    shift: np.ndarray
    score: float


def align_map(
    moving: Volume, fixed: Volume, *, radius: float | None = None, reach: float | None = None, fine_radius: float | None = None
) -> Fit:
    """Find the proper rotation and the shift that bring `moving` onto `fixed`; a mirror image is never tried.

    What lies outside the sphere in the box is left out of both.

    Parameters
    ----------
    moving, fixed
        Maps of the same cubic box and voxel size.
    radius
        Detail used at the end, in cycles per box; a quarter of the box by default.
    reach
        Longest shift looked for, in Å; an eighth of the box by default.
    fine_radius
        Detail, in cycles per box, by which one is taken of several orientations that agree about as well up to `radius`, as
        those of a nearly symmetric structure do; none of them is moved by it.

    Raises
    ------
    ValueError
        If the maps differ in box or voxel size, are not cubes, or one of them is constant.
    """
    _check_pair(moving, fixed)
    box = fixed.shape[0]
    radius, far = radius or box / 4, (reach or fixed.extent[0] / 8) / fixed.voxel_size
    # The fixed map is the data; the moving one the reference that is rotated into it.
    (data, _), (_, norm) = _unit(fixed, radius), _unit(moving, radius)
    coarse = data.inside(min(radius, 5.0))
    slopes = coefficients.slopes(apply_mask(torch.from_numpy(moving.data), 0.95 * box) / norm)
    step = box / max(float(coarse.points.norm(dim=1).max()), 1.0) / 4
    # Against so little noise the likelihood is a plain correlation.
    faint = torch.full((len(data.points),), 1e-3)
    like: dict[str, Any] = {"noise": faint[: len(coarse.points)], "spread": 1e6}
    keep = FEW if fine_radius is None else MANY
    poses = search(slopes[0], coarse, turns=uniform(4000), shifts=ball(far, step), keep=TRIED, **like)
    poses = _distinct(polish(slopes, coarse, poses, steps=8, **like), keep)
    poses = polish(slopes, data, poses, steps=12, noise=faint, spread=1e6)
    best = 0 if fine_radius is None else _decided(slopes[0], _unit(fixed, fine_radius)[0], poses, noise=float(faint[0]))
    turn, shift = poses.rotations[0, best], poses.shifts[0, best]
    model = coefficients.sample(slopes[0], turn, data.points) * coefficients.phases(data.points, shift, box)
    score = _match(model, data.values[0])
    return Fit(turn.double().numpy(), shift.double().numpy() * fixed.voxel_size, score)


def _distinct(poses: Poses, most: int) -> Poses:
    """The best poses of one subtomogram that are turned by more than `APART` against each other, at the most so many."""
    turns, kept = poses.rotations[0], [0]
    for one in range(1, len(turns)):
        if len(kept) < most and float(rotations.angle_between(turns[kept], turns[one]).min()) > APART:
            kept.append(one)
    return Poses(*(getattr(poses, name)[:, kept] for name in ("rotations", "shifts", "scores", "weights")))


def _decided(grid: Tensor, data: Coefficients, poses: Poses, *, noise: float) -> int:
    """Which pose of a map agrees best with the finer data, of those that are about as good as the first by what they score."""
    agreed = (poses.scores[0] * noise + 1) / 2
    model = coefficients.sample(grid, poses.rotations[0], data.points)
    model = model * coefficients.phases(data.points, poses.shifts[0], data.box)
    fine = (model * data.values[0].conj()).real.sum(1) / model.abs().square().sum(1).sqrt().clamp_min(1e-30)
    return int(torch.where(agreed > ALIKE * agreed[0], fine, -torch.inf).argmax())


def apply(volume: Volume, fit: Fit) -> Volume:
    """The map rotated and shifted by `fit`."""
    fine = fourier.resize(torch.from_numpy(volume.data), [2 * n for n in volume.shape])[None]
    shift = torch.from_numpy(fit.shift)[None] / volume.voxel_size
    data = transform(fine, torch.from_numpy(fit.rotation)[None], shift, box=volume.shape[0], step=2.0)
    return Volume(data[0].numpy(), volume.voxel_size)


def correlation(a: Volume, b: Volume, *, radius: float | None = None) -> float:
    """Correlation, from -1 to 1, of two maps inside the sphere in their box.

    Taken over the Fourier coefficients up to `radius` cycles per box, all by default.
    """
    _check_pair(a, b)
    first, second = (_unit(volume, radius or volume.shape[0] / 2)[0].values[0] for volume in (a, b))
    return _match(first, second)


def _match(first: Tensor, second: Tensor) -> float:
    return float((first * second.conj()).real.sum() / (first.abs().pow(2).sum() * second.abs().pow(2).sum()).sqrt())


def _unit(volume: Volume, radius: float) -> tuple[Coefficients, float]:
    """Coefficients of a whole map (no wedge), divided by the root of their power, and that root."""
    whole = torch.full((1,), -90.0), torch.full((1,), 90.0)
    density = apply_mask(torch.from_numpy(volume.data), 0.95 * volume.shape[0])
    data = coefficients.transform(density[None], *whole, radius=radius)
    norm = float(data.values.abs().pow(2).sum().sqrt())
    return Coefficients(data.values / norm, data.points, data.wedges, data.kind, data.box), norm


def _check_pair(a: Volume, b: Volume) -> None:
    if a.shape != b.shape or len(set(a.shape)) != 1 or abs(a.voxel_size - b.voxel_size) > 1e-3 * b.voxel_size:
        raise ValueError(f"maps of one cubic box and voxel size are needed, got {a} and {b}")
    for volume in (a, b):
        if np.ptp(volume.data) == 0:
            raise ValueError("a constant map has no orientation")
