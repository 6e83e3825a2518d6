"""References: what the poses of subtomograms make of them together, and what is left over as noise.

The set is cut into folds, and a subtomogram is only ever scored against the sum of the other folds. Otherwise its own noise,
which is in the reference at its present pose, holds it there and makes structure out of noise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tomolab.averaging import coefficients
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.volumes import distance, isolate

FLOOR = 0.1
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


def make(
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
    sums, sampling = gather(data, poses, fold, group=group)
    size = sums.shape[-1]
    radius = float(data.points[-1].norm())
    away = distance(size, device=sums.device)
    shell = away.round().long().clamp_max(len(noise) - 1)
    count = torch.bincount(shell.flatten(), minlength=len(noise)).clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        return torch.zeros(len(noise), device=values.device).index_add_(0, shell.flatten(), values.flatten()) / count

    density = mean(sampling.sum(0))
    # Cropping leaves ripples at the rim of the sphere, where there is no sampling to divide them by.
    floor, inside = (FLOOR * density + 0.5)[shell], away <= radius + 1e-3
    odd = torch.arange(len(sums), device=sums.device) % 2 == 1
    one, other = (inside * sums[w].sum(0) / (sampling[w].sum(0) + floor) for w in (odd, ~odd))
    signal = mean((one * other.conj()).real).clamp_min(1e-9)
    damping = torch.maximum(torch.minimum(noise / signal, ceiling * density)[shell], floor)
    total, whole = sums.sum(0) * inside, sampling.sum(0)
    across = diameter / data.box * size
    leave = [(total - a * inside, (whole - b).clamp_min(0)) for a, b in zip(sums, sampling, strict=True)]
    slopes = [coefficients.slopes(isolate(coefficients.to_density(a / (b + damping)), across)) for a, b in leave]
    ratio = (signal * density / noise)[1 : int(radius + 1e-3) + 1]
    below = (ratio < 0.5).nonzero()
    resolved = float(below[0]) if len(below) else float(int(radius + 1e-3))
    power = mean(one.abs().square()) * mean(other.abs().square())
    fsc = (mean((one * other.conj()).real) / power.clamp_min(1e-30).sqrt())[1 : int(radius + 1e-3) + 1]
    return References(slopes, isolate(coefficients.to_density(total / (whole + damping)), across), resolved, fsc)


def gather(data: Coefficients, poses: Poses, fold: Tensor, *, group: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum of the data in the frame of the reference, and of their wedges, for each fold: plain grids (folds, g, g, g)."""
    size = coefficients.grid_size(float(data.points[-1].norm()))
    group = torch.eye(3, device=fold.device)[None] if group is None else group
    found = []
    for one in range(int(fold.max()) + 1):
        mine = (fold == one).nonzero()[:, 0]
        total = (
            torch.zeros((size,) * 3, dtype=torch.complex64, device=fold.device),
            torch.zeros((size,) * 3, device=fold.device),
        )
        for rows in mine.split(max(1, POINTS // (poses.weights.shape[1] * len(data.points)))):
            weights, shifts = poses.weights[rows], poses.shifts[rows]
            values = data.values[rows][:, None] * coefficients.phases(data.points, -shifts, data.box) * weights[..., None]
            seen = data.wedges[data.kind[rows]][:, None] * weights[..., None]
            used = weights.flatten() > 1e-4
            turns, values, seen = (part.flatten(0, 1)[used] for part in (poses.rotations[rows], values, seen))
            # What a symmetric particle shows from one side it shows from all.
            for turn in group:
                part = coefficients.insert(values, seen, turns @ turn, points=data.points, size=size)
                total = total[0] + part[0], total[1] + part[1]
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
