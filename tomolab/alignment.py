"""Alignment: the pose of a subtomogram, or of a map, against a reference.

A pose is a rotation R (reference to tomogram) and a shift s in voxels: the subtomogram's coefficients are modelled as
F(k) = W(k) T(R^-1 k) exp(-2 pi i k.s) + noise of variance v(k), W the wedge and T the reference. The score of a pose is the
logarithm of its likelihood over that of an empty model, sum_k (2 Re F* T - W |T|^2) / v, both terms real matrix products
over all rotations, shifts and subtomograms at once. Only proper rotations are ever tried: a mirrored map does not align.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tomolab import fourier, rotations, spectra
from tomolab.spectra import Spectra
from tomolab.volumes import Volume, isolate, transform

CHUNK = 16_000_000
"""Scores held at one time."""


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
    grid: Tensor, data: Spectra, *, turns: Tensor, shifts: Tensor, noise: Tensor, keep: int = 5, spread: float = 1.5
) -> Poses:
    """Score every rotation with every shift, and keep the best.

    Parameters
    ----------
    grid
        Oversampled Fourier grid of the reference (`spectra.oversample`).
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
    model = spectra.sample(grid, turns, data.points)
    power = (model.abs() ** 2 / noise) @ data.wedges.T
    model = torch.view_as_real(model).flatten(1)
    shifts = shifts.expand(len(data), -1, -1)
    count = shifts.shape[1]
    parts = []
    each = max(1, CHUNK // (count * max(len(turns), len(data.points))))
    for rows in torch.arange(len(data), device=shifts.device).split(each):
        wave = spectra.phases(data.points, -shifts[rows], data.box)
        moved = torch.view_as_real((data.values[rows] / noise)[:, None] * wave).flatten(2)
        scores = (2 * moved.flatten(0, 1) @ model.T).reshape(len(rows), count, -1)
        prior = (shifts[rows] ** 2).sum(-1, keepdim=True) / (2 * spread**2)
        score, at = (scores - prior).max(1)
        score = score - power.T[data.kind[rows]]
        top, turn = score.topk(min(keep, len(turns)), dim=1)
        place = shifts[rows].gather(1, at.gather(1, turn)[..., None].expand(-1, -1, 3))
        parts.append(Poses(turns[turn], place, top, torch.softmax(top, dim=1)))
    return _joined(parts)


def refine(
    grid: Tensor,
    data: Spectra,
    poses: Poses,
    *,
    angle: float,
    step: float,
    noise: Tensor,
    generator: torch.Generator,
    tries: int = 40,
    spread: float = 1.5,
) -> Poses:
    """Try small rotations and shifts about each pose, and keep the best of each.

    Parameters
    ----------
    grid, data, noise, spread
        As in `search`.
    poses
        Where to start, p per subtomogram; p come back, sorted, weighted by the softmax of their scores.
    angle
        Standard deviation, in degrees about each axis, of the small rotations.
    step
        Distance of the neighbouring shifts, in voxels.
    generator
        Draws the small rotations.
    tries
        Small rotations per pose; none at all is always among them.
    """
    offsets = ball(step * 1.5, step, device=noise.device)
    wave = spectra.phases(data.points, -offsets, data.box)
    wave = torch.stack([wave.real, wave.imag], dim=-1).flatten(1).T.contiguous()
    p = poses.scores.shape[1]
    parts = []
    for rows in torch.arange(len(data), device=noise.device).split(max(1, CHUNK // (p * tries * len(data.points)))):
        turns = _nearby(poses.rotations[rows], angle, tries, generator)
        model = spectra.sample(grid, turns, data.points)  # (n, p, tries, m)
        power = (model.abs() ** 2 * (data.wedges[data.kind[rows]] / noise)[:, None, None]).sum(-1)
        moved = (data.values[rows] / noise)[:, None] * spectra.phases(data.points, -poses.shifts[rows], data.box)
        # Re(F w T*) = Re(w conj(T F*)): interleaving real and imaginary parts makes it a real product.
        cross = torch.view_as_real(model * moved[:, :, None].conj()).flatten(-2)
        shifts = poses.shifts[rows][:, :, None] + offsets
        scores = 2 * cross @ wave - power[..., None] - (shifts**2).sum(-1)[:, :, None] / (2 * spread**2)
        top, at = scores.flatten(2).max(-1)
        turn, shift = at // len(offsets), at % len(offsets)
        chosen = turns.gather(2, turn[..., None, None, None].expand(-1, -1, 1, 3, 3))[:, :, 0]
        moved_by = shifts.gather(2, shift[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]
        order = top.argsort(1, descending=True)
        pick = torch.arange(len(rows), device=order.device)[:, None]
        top = top[pick, order]
        parts.append(Poses(chosen[pick, order], moved_by[pick, order], top, torch.softmax(top, dim=1)))
    return _joined(parts)


def _nearby(turns: Tensor, angle: float, tries: int, generator: torch.Generator) -> Tensor:
    """Rotations (n, p, tries, 3, 3) about each of (n, p, 3, 3), that one first."""
    half = torch.randn(*turns.shape[:2], tries, 3, generator=generator, device=turns.device) * (np.radians(angle) / 2)
    half[:, :, 0] = 0
    small = rotations.from_quaternions(torch.cat([torch.ones_like(half[..., :1]), half], dim=-1))
    return small @ turns[:, :, None]


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


def align_map(moving: Volume, fixed: Volume, *, radius: float | None = None, reach: float | None = None) -> Fit:
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
    grid = spectra.oversample(isolate(torch.from_numpy(moving.data), 0.95 * box) / norm)
    noise = torch.full((len(coarse.points),), 1e-3)
    step = box / max(float(coarse.points.norm(dim=1).max()), 1.0) / 4
    poses = search(grid, coarse, turns=uniform(4000), shifts=ball(far, step), noise=noise, keep=20, spread=1e6)
    generator = torch.Generator().manual_seed(0)
    for angle in (10.0, 7.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.0, 0.7, 0.5, 0.3):
        part = coarse if angle > 5 else data
        noise = torch.full((len(part.points),), 1e-3)
        poses = refine(
            grid, part, poses, angle=angle, step=step * angle / 12, noise=noise, generator=generator, tries=60, spread=1e6
        )
        if angle <= 5:
            poses = poses.best(4)
    turn, shift = poses.rotations[0, 0], poses.shifts[0, 0]
    score = _match(spectra.sample(grid, turn, data.points) * spectra.phases(data.points, shift, box), data.values[0])
    return Fit(turn.double().numpy(), shift.double().numpy() * fixed.voxel_size, score)


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


def _unit(volume: Volume, radius: float) -> tuple[Spectra, float]:
    """Coefficients of a whole map (no wedge), divided by the root of their power, and that root."""
    whole = torch.full((1,), -90.0), torch.full((1,), 90.0)
    density = isolate(torch.from_numpy(volume.data), 0.95 * volume.shape[0])
    data = spectra.transform(density[None], *whole, radius=radius)
    norm = float(data.values.abs().pow(2).sum().sqrt())
    return Spectra(data.values / norm, data.points, data.wedges, data.kind, data.box), norm


def _check_pair(a: Volume, b: Volume) -> None:
    if a.shape != b.shape or len(set(a.shape)) != 1 or abs(a.voxel_size - b.voxel_size) > 1e-3 * b.voxel_size:
        raise ValueError(f"maps of one cubic box and voxel size are needed, got {a} and {b}")
    for volume in (a, b):
        if np.ptp(volume.data) == 0:
            raise ValueError("a constant map has no orientation")
