"""Takes subtomograms or a map, and a reference; gives their poses, found by maximum likelihood.

A pose is a rotation R (reference to tomogram) and a shift s in voxels: the subtomogram's coefficients are modelled as
F(k) = W(k) T(R^-1 k) exp(-2 pi i k.s) + noise of variance v(k), W the wedge and T the reference. The score of a pose is the
logarithm of its likelihood over that of an empty model, sum_k (2 Re F* T - W |T|^2) / v, both terms real matrix products
over all rotations, shifts and subtomograms at once. Only proper rotations are tried, so a mirrored map does not align.
"""

from dataclasses import dataclass, replace
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
ORIENTATIONS, ORIENTATIONS_WITH_FINE_RADIUS = 4, 40
"""Distinct orientations of a map that `align_map` refines, without and with `fine_radius_cycles`."""
SEARCH_RESULTS = 200
"""Orientations of a map that are kept of the exhaustive search."""
DISTINCT = 8.0
"""Degrees by which two orientations of a map differ at least."""
SIMILAR_CORRELATION = 0.9
"""Part of the best correlation that an orientation must reach for finer detail to choose it."""
FAINT = 1e-3
"""Variance of the noise with which the likelihood of a map, whose power is 1, is a plain correlation."""


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
        for name, values in vars(self).items():
            values[rows] = getattr(poses, name)

    def take(self, rows: Tensor) -> "Poses":
        """The poses of the subtomograms in `rows`, copied."""
        return Poses(*(values[rows] for values in vars(self).values()))

    def best(self, count: int = 1) -> "Poses":
        """Only the `count` best poses of each, with weights that add to 1 again."""
        few = Poses(*(values[:, :count] for values in vars(self).values()))
        return replace(few, weights=few.weights / few.weights.sum(1, keepdim=True).clamp_min(1e-30))


def random_poses(count: int, poses: int, *, generator: torch.Generator) -> Poses:
    """Random orientations without shift. The first pose of each has all the weight."""
    device = generator.device
    turns = rotations.random(count * poses, generator, device=device).reshape(count, poses, 3, 3)
    weights = torch.zeros(count, poses, device=device)
    weights[:, 0] = 1
    return Poses(turns, torch.zeros(count, poses, 3, device=device), torch.zeros(count, poses, device=device), weights)


def uniform_rotations(count: int, *, device: torch.device | None = None) -> Tensor:
    """Evenly spread rotations (count, 3, 3): the super-Fibonacci spiral of Alexa (CVPR 2022)."""
    s = torch.arange(count, dtype=torch.float64, device=device) + 0.5
    phi, psi = 2**0.5, 1.533751168755204288118041
    first, second = (s / count).sqrt(), (1 - s / count).sqrt()
    a, b = 2 * torch.pi * s / phi, 2 * torch.pi * s / psi
    spiral = torch.stack([first * a.sin(), first * a.cos(), second * b.sin(), second * b.cos()], dim=1)
    return rotations.from_quaternions(spiral.float())


def shift_grid(max_shift_voxels: float, step_voxels: float, *, device: torch.device | None = None) -> Tensor:
    """Shifts (s, 3) on a cubic grid inside a sphere, the zero shift among them."""
    count = int(max_shift_voxels / step_voxels + 1e-6)
    axis = torch.arange(-count, count + 1, dtype=torch.float32, device=device) * step_voxels
    grid = torch.cartesian_prod(axis, axis, axis)
    return grid[grid.norm(dim=1) <= max_shift_voxels + 1e-3]


def exhaustive_search(
    grid: Tensor,
    data: Coefficients,
    *,
    turns: Tensor,
    shifts: Tensor,
    noise: Tensor,
    keep: int = 5,
    shift_sigma_voxels: float = 1.5,
) -> Poses:
    """Score every rotation (r, 3, 3) with every shift, (s, 3) or (n, s, 3) for each its own in voxels, and keep the best.

    `grid` is the oversampled Fourier grid of the reference (`coefficients.oversample`), and `noise` (m,) the variance of the
    noise at each point. The shifts have a Gaussian prior. The poses kept have different rotations, and are weighted by the
    softmax of their scores.
    """
    model = coefficients.sample(grid, turns, data.points)
    power = (model.abs() ** 2 / noise) @ data.wedges.T
    model = torch.view_as_real(model).flatten(1)
    shifts = shifts.expand(len(data), -1, -1)
    count = shifts.shape[1]
    parts = []
    each = max(1, CHUNK // (count * max(len(turns), len(data.points))))
    for rows in torch.arange(len(data), device=shifts.device).split(each):
        wave = coefficients.shift_phases(data.points, -shifts[rows], data.box)
        moved = torch.view_as_real((data.values[rows] / noise)[:, None] * wave).flatten(2)
        scores = (2 * moved.flatten(0, 1) @ model.T).reshape(len(rows), count, -1)
        prior = (shifts[rows] ** 2).sum(-1, keepdim=True) / (2 * shift_sigma_voxels**2)
        score, at = (scores - prior).max(1)
        score = score - power.T[data.wedge_index[rows]]
        top, turn = score.topk(min(keep, len(turns)), dim=1)
        place = shifts[rows].gather(1, at.gather(1, turn)[..., None].expand(-1, -1, 3))
        parts.append(Poses(turns[turn], place, top, torch.softmax(top, dim=1)))
    return _joined(parts)


def refine_poses(
    grids: Tensor, data: Coefficients, poses: Poses, *, noise: Tensor, steps: int = 4, shift_sigma_voxels: float = 1.5
) -> Poses:
    """Move every pose to a local maximum of its likelihood by damped Gauss-Newton steps (Levenberg-Marquardt).

    A pose converges if it starts within about half a turn of phase at the finest detail, that is about 1 / (2 radius) radians.
    `grids` are those of the reference and of its derivatives (`coefficients.gradient_grids`). As many poses come back, sorted
    and weighted by the softmax of their scores. A step that lowers the score is undone, and shorter ones follow.
    """
    p = poses.scores.shape[1]
    parts = []
    for rows in torch.arange(len(data), device=noise.device).split(max(1, CHUNK // (32 * p * len(data.points)))):
        some = data.take(rows.repeat_interleave(p))
        optimiser = _GaussNewton(grids, some, some.wedges[some.wedge_index] / noise, noise, shift_sigma_voxels)
        found = optimiser.run(poses.rotations[rows].flatten(0, 1), poses.shifts[rows].flatten(0, 1), steps)
        turns, shifts, scores = (one.reshape(len(rows), p, *one.shape[1:]) for one in found)
        order = scores.argsort(1, descending=True)
        pick = torch.arange(len(rows), device=order.device)[:, None]
        scores = scores[pick, order]
        parts.append(Poses(turns[pick, order], shifts[pick, order], scores, torch.softmax(scores, dim=1)))
    return _joined(parts)


@dataclass(frozen=True)
class _GaussNewton:
    """Gauss-Newton steps of q poses, each against its own row of `data`, whose points weigh `weight` (q, m)."""

    grids: Tensor
    data: Coefficients
    weight: Tensor
    noise: Tensor
    shift_sigma_voxels: float

    def run(self, turns: Tensor, shifts: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations (q, 3, 3), shifts (q, 3) and scores (q,) after `steps`."""
        score, gradient, curvature = self._evaluate(turns, shifts)
        damping = torch.full_like(score, 1e-2)
        for _ in range(steps):
            move = self._step(gradient, curvature, damping)
            candidate = from_rotation_vectors(move[:, :3]) @ turns, shifts + move[:, 3:]
            new = self._evaluate(*candidate)
            better = new[0] > score
            damping = torch.where(better, damping / 5, damping * 10)
            turns, shifts, score, gradient, curvature = (
                torch.where(better.reshape(-1, *[1] * (one.ndim - 1)), one, old)
                for one, old in zip((*candidate, *new), (turns, shifts, score, gradient, curvature), strict=True)
            )
        return turns, shifts, score

    def _evaluate(self, turns: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score (q,), its gradient (q, 6) by small rotations and shifts, and its Gauss-Newton curvature (q, 6, 6)."""
        data, points = self.data, self.data.points
        # The data are shifted back, which is cheaper than to shift the model and its derivatives.
        shifted = data.values * coefficients.shift_phases(points, -shifts, data.box)
        shifted = torch.stack([shifted.real, shifted.imag], dim=1)
        parts = coefficients.sample_parts(self.grids, turns, points)
        model = parts[:, 0].transpose(0, 1)
        change = self._change(parts, turns)
        left = shifted / self.noise - self.weight[:, None] * model
        gradient = 2 * (change.flatten(2) @ left.flatten(1)[..., None])[..., 0]
        curvature = 2 * (change * self.weight[:, None, None]).flatten(2) @ change.flatten(2).mT
        score = (2 * shifted * model / self.noise - self.weight[:, None] * model.square()).sum((1, 2))
        score = score - shifts.square().sum(1) / (2 * self.shift_sigma_voxels**2)
        gradient[:, 3:] -= shifts / self.shift_sigma_voxels**2
        curvature[:, 3:, 3:] += torch.eye(3, device=curvature.device) / self.shift_sigma_voxels**2
        return score, gradient, curvature

    def _change(self, parts: Tensor, turns: Tensor) -> Tensor:
        """Derivatives (q, 6, 2, m) of the model by small rotations and shifts, real and imaginary, from `sample_parts`."""
        (a, b, c), q = self.data.points.T, len(turns)
        # A small rotation w takes T(R^-1 k) to T(R^-1 (k - w x k)): its derivative by w is (R grad T) x k.
        steep = (turns @ parts[:, 1:].permute(2, 1, 0, 3).flatten(2)).reshape(q, 3, 2, -1)
        change = torch.empty(q, 6, 2, len(a), device=turns.device)
        change[:, 0] = steep[:, 1] * c - steep[:, 2] * b
        change[:, 1] = steep[:, 2] * a - steep[:, 0] * c
        change[:, 2] = steep[:, 0] * b - steep[:, 1] * a
        # The derivative by a shift is -2 pi i k / box times the model.
        waves = self.data.points.T * (2 * torch.pi / self.data.box)
        change[:, 3:, 0] = parts[1, 0][:, None] * waves
        change[:, 3:, 1] = -parts[0, 0][:, None] * waves
        return change

    def _step(self, gradient: Tensor, curvature: Tensor, damping: Tensor) -> Tensor:
        """Small rotation (radians) and shift (voxels), (q, 6), limited to where the gradient still holds."""
        level = curvature.diagonal(dim1=1, dim2=2)
        ridge = damping[:, None] * level + 1e-6 * level.amax(1, keepdim=True) + 1e-20
        move = torch.linalg.solve(curvature + torch.diag_embed(ridge), gradient)
        finest = float(self.data.points[-1].norm())
        longest = torch.tensor([1 / finest, self.data.box / (6 * finest)], device=move.device)
        long = torch.stack([move[:, :3].norm(dim=1), move[:, 3:].norm(dim=1)], dim=1)
        return move * (longest / long.clamp_min(1e-12)).clamp(max=1).repeat_interleave(3, dim=1)


def from_rotation_vectors(vectors: Tensor) -> Tensor:
    """Rotations (q, 3, 3) about vectors (q, 3), by their lengths in radians."""
    across = torch.zeros(*vectors.shape[:-1], 3, 3, dtype=vectors.dtype, device=vectors.device)
    a, b, c = vectors.unbind(-1)
    across[..., 2, 1], across[..., 0, 2], across[..., 1, 0] = a, b, c
    return torch.linalg.matrix_exp(across - across.mT)


def _joined(parts: list[Poses]) -> Poses:
    return Poses(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))


@dataclass(frozen=True)
class Fit:
    """Alignment of one map to another: a point r of `moving` lies at R r + shift in `fixed`.

    `rotation` (3, 3) on zyx vectors; `shift` (3,) in Å; `score` the correlation in Fourier space up to the radius used.
    """

    rotation: np.ndarray
    shift: np.ndarray
    score: float


def align_map(
    moving: Volume,
    fixed: Volume,
    *,
    radius_cycles: float | None = None,
    max_shift: float | None = None,
    fine_radius_cycles: float | None = None,
) -> Fit:
    """Find the proper rotation and the shift that bring `moving` onto `fixed`; a mirror image is never tried.

    Only the sphere in the box counts.

    Parameters
    ----------
    moving, fixed
        Maps of the same cubic box and voxel size.
    radius_cycles
        Finest detail used, in cycles per box; a quarter of the box by default.
    max_shift
        Longest shift tried, in Å; an eighth of the box by default.
    fine_radius_cycles
        Detail, in cycles per box, that chooses among orientations which correlate about as well up to `radius_cycles`, as those
        of a nearly symmetric structure do. It moves none of them.

    Raises
    ------
    ValueError
        If the maps differ in box or voxel size, are not cubes, or one of them is constant.
    """
    _check_pair(moving, fixed)
    box = fixed.shape[0]
    radius, far = radius_cycles or box / 4, (max_shift or fixed.extent[0] / 8) / fixed.voxel_size
    # The fixed map is the data, and the moving one the reference.
    (data, _), (_, norm) = map_coefficients(fixed, radius), map_coefficients(moving, radius)
    coarse = data.inside(min(radius, 5.0))
    grids = coefficients.gradient_grids(apply_mask(torch.from_numpy(moving.data), 0.95 * box) / norm)
    step = box / max(float(coarse.points.norm(dim=1).max()), 1.0) / 4
    noise = torch.full((len(data.points),), FAINT)
    prior: dict[str, Any] = {"noise": noise[: len(coarse.points)], "shift_sigma_voxels": 1e6}
    keep = ORIENTATIONS if fine_radius_cycles is None else ORIENTATIONS_WITH_FINE_RADIUS
    tried: dict[str, Any] = {"turns": uniform_rotations(4000), "shifts": shift_grid(far, step), "keep": SEARCH_RESULTS}
    poses = exhaustive_search(grids[0], coarse, **tried, **prior)
    poses = _distinct(refine_poses(grids, coarse, poses, steps=8, **prior), keep)
    poses = refine_poses(grids, data, poses, steps=12, noise=noise, shift_sigma_voxels=1e6)
    best = 0
    if fine_radius_cycles is not None:
        best = _choose_by_detail(grids[0], map_coefficients(fixed, fine_radius_cycles)[0], poses, noise=float(noise[0]))
    turn, shift = poses.rotations[0, best], poses.shifts[0, best]
    model = coefficients.in_pose(grids[0], turn, shift, points=data.points, box=box)
    score = _correlation(model, data.values[0])
    return Fit(turn.double().numpy(), shift.double().numpy() * fixed.voxel_size, score)


def _distinct(poses: Poses, count: int) -> Poses:
    """The best poses of one subtomogram, up to `count`, with more than `DISTINCT` degrees between any two."""
    turns, kept = poses.rotations[0], [0]
    for one in range(1, len(turns)):
        if len(kept) < count and float(rotations.angle_between(turns[kept], turns[one]).min()) > DISTINCT:
            kept.append(one)
    return Poses(*(values[:, kept] for values in vars(poses).values()))


def _choose_by_detail(grid: Tensor, data: Coefficients, poses: Poses, *, noise: float) -> int:
    """Index of the pose of a map that correlates best with finer data, among those whose score is close to the best."""
    coarse = (poses.scores[0] * noise + 1) / 2
    model = coefficients.in_pose(grid, poses.rotations[0], poses.shifts[0], points=data.points, box=data.box)
    fine = (model * data.values[0].conj()).real.sum(1) / model.abs().square().sum(1).sqrt().clamp_min(1e-30)
    return int(torch.where(coarse > SIMILAR_CORRELATION * coarse[0], fine, -torch.inf).argmax())


def apply(volume: Volume, fit: Fit) -> Volume:
    """Rotate and shift a map by `fit`."""
    fine = fourier.resize(torch.from_numpy(volume.data), [2 * n for n in volume.shape])[None]
    shift = torch.from_numpy(fit.shift)[None] / volume.voxel_size
    data = transform(fine, torch.from_numpy(fit.rotation)[None], shift, box=volume.shape[0], step=2.0)
    return Volume(data[0].numpy(), volume.voxel_size)


def correlation(a: Volume, b: Volume, *, radius_cycles: float | None = None) -> float:
    """Correlation, from -1 to 1, of two maps inside the sphere in their box.

    Taken over the Fourier coefficients up to `radius_cycles`, all by default.
    """
    _check_pair(a, b)
    first, second = (map_coefficients(one, radius_cycles or one.shape[0] / 2)[0].values[0] for one in (a, b))
    return _correlation(first, second)


def _correlation(first: Tensor, second: Tensor) -> float:
    return float((first * second.conj()).real.sum() / (first.abs().pow(2).sum() * second.abs().pow(2).sum()).sqrt())


def map_coefficients(volume: Volume, radius_cycles: float) -> tuple[Coefficients, float]:
    """Coefficients of a masked map (no wedge), divided by the root of their power, and that root."""
    whole = torch.full((1,), -90.0), torch.full((1,), 90.0)
    density = apply_mask(torch.from_numpy(volume.data), 0.95 * volume.shape[0])
    data = coefficients.transform(density[None], *whole, radius_cycles=radius_cycles)
    norm = float(data.values.abs().pow(2).sum().sqrt())
    return replace(data, values=data.values / norm), norm


def _check_pair(a: Volume, b: Volume) -> None:
    if a.shape != b.shape or len(set(a.shape)) != 1 or abs(a.voxel_size - b.voxel_size) > 1e-3 * b.voxel_size:
        raise ValueError(f"maps of one cubic box and voxel size are needed, got {a} and {b}")
    for volume in (a, b):
        if np.ptp(volume.data) == 0:
            raise ValueError("a constant map has no orientation")
