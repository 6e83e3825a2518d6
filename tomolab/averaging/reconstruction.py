"""Subtomograms and their poses in, maps out: the sum of the turned-back data over the sum of the turned-back wedges.

Both are gathered by trilinear insertion into an oversampled Fourier grid (`coefficients.insert`). `with_poses` makes one map
of subtomograms that it reads. `make_references` makes the references of a refinement, of coefficients in memory: the set is cut
into folds, and a subtomogram is only ever scored against the sum of the other folds. Otherwise its own noise, which is in the
reference at its present pose, holds it there and makes structure out of noise.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tomolab import fourier, parallel, rotations
from tomolab.averaging import coefficients
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.conventions import centre
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume, apply_mask, distance

MAP_FLOOR = 0.05
"""A map divides by its sampling plus this part of the mean sampling, so that what is hardly seen is damped."""
REFERENCE_FLOOR = 0.1
"""Least damping of a reference, as a part of the mean sampling of each shell."""
POINTS = 4_000_000
"""Coefficients that are gathered or compared at a time."""


@dataclass(frozen=True)
class References:
    """References at one moment.

    Parameters
    ----------
    slopes
        For each fold the grids (`coefficients.slopes`) of the sum of the other folds, masked.
    density
        Of all folds, masked.
    resolved
        Radius, in cycles per box, up to which odd and even folds agree.
    fsc
        Fourier shell correlation of odd and even folds, (shells,) from one cycle per box.
    """

    slopes: list[Tensor]
    density: Tensor
    resolved: float
    fsc: Tensor


def with_poses(
    subtomograms: Subtomograms, turns: np.ndarray, shifts: np.ndarray, *, device: str | torch.device | None = None
) -> tuple[Volume, np.ndarray]:
    """Average subtomograms whose poses are known: sum of the data turned back, over the sum of their wedges turned back.

    Parameters
    ----------
    subtomograms
        n of them.
    turns
        Rotations (n, 3, 3) on zyx vectors, reference to tomogram.
    shifts
        Places (n, 3) of the particles from the centres of their boxes, zyx, in Å.
    device
        As in `average`.

    Returns
    -------
    volume, sampling
        The map, without zero frequency; and how many subtomograms saw each point of its rfftn grid.

    Raises
    ------
    ValueError
        If there are no subtomograms, their number is not that of the poses, or a matrix is no proper rotation.
    """
    turns, shifts = np.asarray(turns, dtype=float), np.asarray(shifts, dtype=float)
    n = len(subtomograms)
    if n < 1 or turns.shape != (n, 3, 3) or shifts.shape != (n, 3):
        raise ValueError(
            f"{n} subtomograms need rotations ({n}, 3, 3) and shifts ({n}, 3), got {turns.shape} and {shifts.shape}"
        )
    rotations.check(turns)
    sums, sampling = back_project(subtomograms, turns, shifts, device=device)
    return to_map(sums, sampling, subtomograms), sampling.cpu().numpy()


def back_project(
    subtomograms: Subtomograms,
    turns: np.ndarray,
    shifts: np.ndarray,
    *,
    group: np.ndarray | None = None,
    device: str | torch.device | None,
) -> tuple[Tensor, Tensor]:
    """Sums of the turned-back data and of their wedges on the rfftn grid; reads the subtomograms in batches.

    Parameters as in `with_poses`; `group` (g, 3, 3) are the rotations of a symmetry, and every subtomogram counts once for
    each. Sums of several sets can be added before `to_map` makes a map of them.
    """
    where, box = parallel.pick_device(device), subtomograms.box
    size = coefficients.grid_size(box / 2)
    total = _empty(size, where)
    same = torch.eye(3, device=where)[None] if group is None else torch.from_numpy(group).float().to(where)
    for data, turn, shift in coefficients.posed(subtomograms, turns, shifts, radius=box / 2, device=where):
        values = data.values * coefficients.phases(data.points, -shift, box)
        total = _added(total, values, data.wedges[data.kind], turns=turn, points=data.points, group=same)
    sums, sampling = coefficients.condense(*total)
    k = (fourier.frequencies((box,) * 3, device=where) * box).round().long()
    at = tuple((k + centre(sums.shape[0])).unbind(-1))
    return sums[at] * (k.float().norm(dim=-1) <= box / 2), sampling[at]


def _empty(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Oversampled grids to which nothing has been added: the sum of data and that of wedges."""
    return torch.zeros((size,) * 3, dtype=torch.complex64, device=device), torch.zeros((size,) * 3, device=device)


def _added(
    total: tuple[Tensor, Tensor], values: Tensor, wedges: Tensor, *, turns: Tensor, points: Tensor, group: Tensor
) -> tuple[Tensor, Tensor]:
    """Both sums with coefficients (p, m) and their wedges turned back, once for each rotation of a symmetry.

    What a symmetric particle shows from one side it shows from all.
    """
    for alike in group:
        part = coefficients.insert(values, wedges, turns @ alike, points=points, size=total[0].shape[-1])
        total = total[0] + part[0], total[1] + part[1]
    return total


def to_map(sums: Tensor, sampling: Tensor, like: Subtomograms, *, filter_by: Tensor | None = None) -> Volume:
    """The map of what `back_project` gathered, in the box and voxel size of `like`; `filter_by` weights its transform."""
    box = like.box
    seen = fourier.radius((box,) * 3, device=sums.device) <= 0.5
    transform = sums / (sampling + MAP_FLOOR * sampling[seen].mean() + 1e-6)
    if filter_by is not None:
        transform = transform * filter_by.to(transform.device)
    place = torch.full((1, 3), float(centre(box)), device=sums.device)
    density = torch.fft.irfftn(transform * fourier.shift_phases((box,) * 3, place)[0], s=(box,) * 3)
    return Volume(density.cpu().numpy(), like.voxel_size)


def make_references(
    data: Coefficients,
    poses: Poses,
    fold: Tensor,
    *,
    noise: Tensor,
    diameter: float,
    ceiling: float,
    group: Tensor | None = None,
) -> References:
    """Make the references of subtomograms in poses.

    Wiener filter with the signal power measured between odd and even folds, its strength held under `ceiling` times the mean
    sampling, so that a shell without signal yet is damped, not lost.

    Parameters
    ----------
    data
        Subtomograms, with the coefficients to use.
    poses
        Of each, with weights.
    fold
        Number of the fold of each, from 0.
    noise
        Variance of the noise in every shell.
    diameter
        Voxels, of the soft spherical mask.
    ceiling
        Strongest damping, times the mean sampling of a shell.
    group
        Rotations (g, 3, 3) of the symmetry of the reference; none by default.
    """
    sums, sampling = back_project_folds(data, poses, fold, group=group)
    size = sums.shape[-1]
    radius = float(data.points[-1].norm())
    away = distance(size, device=sums.device)
    shell = away.round().long().clamp_max(len(noise) - 1)
    count = torch.bincount(shell.flatten(), minlength=len(noise)).clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        return torch.zeros(len(noise), device=values.device).index_add_(0, shell.flatten(), values.flatten()) / count

    density = mean(sampling.sum(0))
    # Cropping leaves ripples at the rim of the sphere, where there is no sampling to divide them by.
    floor, inside = (REFERENCE_FLOOR * density + 0.5)[shell], away <= radius + 1e-3
    odd = torch.arange(len(sums), device=sums.device) % 2 == 1
    one, other = (inside * sums[w].sum(0) / (sampling[w].sum(0) + floor) for w in (odd, ~odd))
    signal = mean((one * other.conj()).real).clamp_min(1e-9)
    damping = torch.maximum(torch.minimum(noise / signal, ceiling * density)[shell], floor)
    total, whole = sums.sum(0) * inside, sampling.sum(0)
    across = diameter / data.box * size
    leave = [(total - a * inside, (whole - b).clamp_min(0)) for a, b in zip(sums, sampling, strict=True)]
    slopes = [coefficients.slopes(apply_mask(coefficients.to_density(a / (b + damping)), across)) for a, b in leave]
    ratio = (signal * density / noise)[1 : int(radius + 1e-3) + 1]
    below = (ratio < 0.5).nonzero()
    resolved = float(below[0]) if len(below) else float(int(radius + 1e-3))
    power = mean(one.abs().square()) * mean(other.abs().square())
    fsc = (mean((one * other.conj()).real) / power.clamp_min(1e-30).sqrt())[1 : int(radius + 1e-3) + 1]
    return References(slopes, apply_mask(coefficients.to_density(total / (whole + damping)), across), resolved, fsc)


def back_project_folds(data: Coefficients, poses: Poses, fold: Tensor, *, group: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum of the data in the frame of the reference, and of their wedges, for each fold: plain grids (folds, g, g, g)."""
    size = coefficients.grid_size(float(data.points[-1].norm()))
    group = torch.eye(3, device=fold.device)[None] if group is None else group
    found = []
    for one in range(int(fold.max()) + 1):
        mine = (fold == one).nonzero()[:, 0]
        total = _empty(size, fold.device)
        for rows in mine.split(max(1, POINTS // (poses.weights.shape[1] * len(data.points)))):
            weights, shifts = poses.weights[rows], poses.shifts[rows]
            values = data.values[rows][:, None] * coefficients.phases(data.points, -shifts, data.box) * weights[..., None]
            seen = data.wedges[data.kind[rows]][:, None] * weights[..., None]
            used = weights.flatten() > 1e-4
            turns, values, seen = (part.flatten(0, 1)[used] for part in (poses.rotations[rows], values, seen))
            total = _added(total, values, seen, turns=turns, points=data.points, group=group)
        found.append(coefficients.condense(*total))
    sums, sampling = zip(*found, strict=True)
    return torch.stack(sums), torch.stack(sampling)


def measure_noise(data: Coefficients, poses: Poses, fold: Tensor, *, references: References, noise: Tensor) -> Tensor:
    """Noise of every shell from what the references at the best poses leave over; shells beyond the data keep theirs."""
    power = torch.zeros(len(data.points), device=data.points.device)
    for one, slopes in enumerate(references.slopes):
        for rows in (fold == one).nonzero()[:, 0].split(max(1, POINTS // len(data.points))):
            model = coefficients.sample(slopes[0], poses.rotations[rows, 0], data.points)
            model = model * coefficients.phases(data.points, poses.shifts[rows, 0], data.box)
            power += (data.values[rows] - model * data.wedges[data.kind[rows]]).abs().pow(2).sum(0)
    inside = by_shell(data, power)
    out = noise.clone()
    out[: len(inside) - 1] = inside[:-1]
    return out


def shell_of(data: Coefficients) -> Tensor:
    """Shell of every point, (m,)."""
    return data.points.norm(dim=1).round().long()


def by_shell(data: Coefficients, power: Tensor) -> Tensor:
    """Mean over the observed coefficients of each shell, from power summed over the subtomograms (m,)."""
    seen = data.wedges[data.kind].sum(0) if len(data.kind) < 1000 else torch.bincount(data.kind).float() @ data.wedges
    shell = shell_of(data)
    total, count = (torch.zeros(int(shell.max()) + 2, device=power.device).index_add_(0, shell, x) for x in (power, seen))
    out = total / count.clamp_min(1e-6)
    out[0], out[-1] = out[1], out[-2]
    return out.clamp_min(out.max() * 1e-6 + 1e-20)
