"""Takes subtomograms and their poses; gives maps: the sum of the back-projected data over the sum of their wedges.

Both are inserted into an oversampled Fourier grid with trilinear weights (`coefficients.insert`). `with_poses` makes one map of
subtomograms that it reads. `make_references` makes the references of a refinement from coefficients in memory: the set is
divided into folds, and a subtomogram is only scored against the sum of the other folds. Otherwise its own noise, which is in
the reference at its present pose, would keep it there and build structure from noise.
"""

from collections.abc import Iterable
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
"""A map divides by its sampling plus this part of the mean sampling, which damps what is hardly observed."""
REFERENCE_FLOOR = 0.1
"""Least damping of a reference, as a part of the mean sampling of each shell."""
CHUNK = 4_000_000
"""Coefficients that are back-projected or compared at a time."""


@dataclass(frozen=True)
class References:
    """References of one iteration.

    `grids`: for each fold the grids (`coefficients.gradient_grids`) of the masked sum of the other folds; `density` the masked
    sum of all folds; `resolved_cycles` the radius up to which odd and even folds agree; `fsc` the Fourier shell correlation of
    odd and even folds, (shells,) from one cycle per box.
    """

    grids: list[Tensor]
    density: Tensor
    resolved_cycles: float
    fsc: Tensor


def with_poses(
    subtomograms: Subtomograms, turns: np.ndarray, shifts: np.ndarray, *, device: str | torch.device | None = None
) -> tuple[Volume, np.ndarray]:
    """Average subtomograms whose poses are known: sum of the back-projected data over the sum of their wedges.

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
        The map, without zero frequency; and how many subtomograms observed each point of its rfftn grid.

    Raises
    ------
    ValueError
        If there are no subtomograms, their number is not that of the poses, or a matrix is not a proper rotation.
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
    """Sums of the back-projected data and of their wedges on the rfftn grid; reads the subtomograms in batches.

    Parameters as in `with_poses`; `group` (g, 3, 3) are the rotations of a symmetry, and every subtomogram counts once for
    each. Sums of several sets can be added before `to_map` makes a map of them.
    """
    where, box = parallel.pick_device(device), subtomograms.box
    batches = (
        (data.values * coefficients.shift_phases(data.points, -shift, box), data.wedges[data.wedge_index], turn, data.points)
        for data, turn, shift in coefficients.read_with_poses(subtomograms, turns, shifts, radius_cycles=box / 2, device=where)
    )
    same = None if group is None else torch.from_numpy(group).float().to(where)
    sums, sampling = _weighted_sum(batches, size=coefficients.grid_size(box / 2), group=same, device=where)
    k = (fourier.frequencies((box,) * 3, device=where) * box).round().long()
    at = tuple((k + centre(sums.shape[0])).unbind(-1))
    return sums[at] * (k.float().norm(dim=-1) <= box / 2), sampling[at]


def _weighted_sum(
    batches: Iterable[tuple[Tensor, Tensor, Tensor, Tensor]], *, size: int, group: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Back-project coefficients (p, m), their wedges, rotations and points, once for each rotation of a symmetry.

    Gives the plain grids of the sum of the data and of the wedges.
    """
    sums = torch.zeros((size,) * 3, dtype=torch.complex64, device=device)
    sampling = torch.zeros((size,) * 3, device=device)
    for values, wedges, turns, points in batches:
        for symmetric in torch.eye(3, device=device)[None] if group is None else group:
            part = coefficients.insert(values, wedges, turns @ symmetric, points=points, size=size)
            sums, sampling = sums + part[0], sampling + part[1]
    return coefficients.to_plain_grid(sums, sampling)


def to_map(sums: Tensor, sampling: Tensor, like: Subtomograms, *, filter_by: Tensor | None = None) -> Volume:
    """The map of the sums of `back_project`, in the box and voxel size of `like`; `filter_by` weights its transform."""
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
    diameter_voxels: float,
    max_damping: float,
    group: Tensor | None = None,
) -> References:
    """Make the references of subtomograms in weighted poses; `fold` (n,) is the number of the fold of each, from 0.

    A Wiener filter with the signal power measured between odd and even folds, and the variance of the noise in every shell. Its
    damping is at most `max_damping` times the mean sampling of a shell, so that a shell without signal yet is damped, not lost.
    `diameter_voxels` is that of the soft spherical mask, and `group` (g, 3, 3) the rotations of a symmetry, if there is one.
    """
    sums, sampling = back_project_folds(data, poses, fold, group=group)
    size, last = sums.shape[-1], len(noise) - 1
    radius = float(data.points[-1].norm())
    shells = int(radius + 1e-3)
    shell = grid_shells(size, last, device=sums.device)
    density = grid_shell_means(sampling.sum(0), shell, last)
    # Cropping leaves ripples at the rim of the sphere, where there is no sampling to divide them by.
    floor, inside = (REFERENCE_FLOOR * density + 0.5)[shell], distance(size, device=sums.device) <= radius + 1e-3
    odd = torch.arange(len(sums), device=sums.device) % 2 == 1
    one, other = (inside * sums[w].sum(0) / (sampling[w].sum(0) + floor) for w in (odd, ~odd))
    signal = grid_shell_means((one * other.conj()).real, shell, last).clamp_min(1e-9)
    inside_mask = noise * mask_share(diameter_voxels, data.box)
    damping = torch.maximum(torch.minimum(inside_mask / signal, max_damping * density)[shell], floor)
    total, whole = sums.sum(0) * inside, sampling.sum(0)
    across = diameter_voxels / data.box * size

    def masked(values: Tensor, weights: Tensor) -> Tensor:
        return apply_mask(coefficients.to_density(values / (weights + damping)), across)

    others = [(total - a * inside, (whole - b).clamp_min(0)) for a, b in zip(sums, sampling, strict=True)]
    grids = [coefficients.gradient_grids(masked(*each)) for each in others]
    below = ((signal * density / noise)[1 : shells + 1] < 0.5).nonzero()
    resolved = float(below[0]) if len(below) else float(shells)
    fsc = fourier.shell_correlation(*(coefficients.to_density(each) for each in (one, other)))[1 : shells + 1]
    return References(grids, masked(total, whole), resolved, fsc)


def mask_share(diameter_voxels: float, box: int) -> float:
    """Share of the box, and so of the power of its noise, that a spherical mask leaves."""
    return np.pi / 6 * diameter_voxels**3 / box**3


def grid_shells(size: int, last: int, *, device: torch.device) -> Tensor:
    """Shell of every point of a centred grid (size, size, size); points beyond the shell `last` count to it."""
    return distance(size, device=device).round().long().clamp_max(last)


def grid_shell_means(values: Tensor, shell: Tensor, last: int) -> Tensor:
    """Means of real values on a centred grid over its shells, from 0 to `last`."""
    count = torch.bincount(shell.flatten(), minlength=last + 1).clamp_min(1)
    return torch.zeros(last + 1, device=values.device).index_add_(0, shell.flatten(), values.flatten()) / count


def back_project_folds(data: Coefficients, poses: Poses, fold: Tensor, *, group: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum of the data in the frame of the reference, and of their wedges, for each fold: plain grids (folds, g, g, g)."""
    size = coefficients.grid_size(float(data.points[-1].norm()))
    rows_at_once = max(1, CHUNK // (poses.weights.shape[1] * len(data.points)))

    def weighted(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weights, shifts = poses.weights[rows], poses.shifts[rows]
        values = data.values[rows][:, None] * coefficients.shift_phases(data.points, -shifts, data.box) * weights[..., None]
        wedges = data.wedges[data.wedge_index[rows]][:, None] * weights[..., None]
        used = weights.flatten() > 1e-4
        values, wedges, turns = (part.flatten(0, 1)[used] for part in (values, wedges, poses.rotations[rows]))
        return values, wedges, turns, data.points

    sums = [
        _weighted_sum(
            (weighted(rows) for rows in (fold == one).nonzero()[:, 0].split(rows_at_once)),
            size=size,
            group=group,
            device=fold.device,
        )
        for one in range(int(fold.max()) + 1)
    ]
    values, sampling = zip(*sums, strict=True)
    return torch.stack(values), torch.stack(sampling)


def measure_noise(data: Coefficients, poses: Poses, fold: Tensor, *, references: References, noise: Tensor) -> Tensor:
    """Noise of every shell: the residual from the references at the best poses. Shells beyond the data keep their noise."""
    power = torch.zeros(len(data.points), device=data.points.device)
    for one, grids in enumerate(references.grids):
        for rows in (fold == one).nonzero()[:, 0].split(max(1, CHUNK // len(data.points))):
            turns, shifts = poses.rotations[rows, 0], poses.shifts[rows, 0]
            model = coefficients.in_pose(grids[0], turns, shifts, points=data.points, box=data.box)
            power += (data.values[rows] - model * data.wedges[data.wedge_index[rows]]).abs().pow(2).sum(0)
    inside = shell_means(data, power)
    out = noise.clone()
    out[: len(inside) - 1] = inside[:-1]
    return out


def shell_index(data: Coefficients) -> Tensor:
    """Shell of every point, (m,)."""
    return data.points.norm(dim=1).round().long()


def shell_means(data: Coefficients, power: Tensor) -> Tensor:
    """Mean over the observed coefficients of each shell, from power summed over the subtomograms (m,)."""
    index = data.wedge_index
    seen = data.wedges[index].sum(0) if len(index) < 1000 else torch.bincount(index).float() @ data.wedges
    shell = shell_index(data)
    total, count = (torch.zeros(int(shell.max()) + 2, device=power.device).index_add_(0, shell, x) for x in (power, seen))
    out = total / count.clamp_min(1e-6)
    out[0], out[-1] = out[1], out[-2]
    return out.clamp_min(out.max() * 1e-6 + 1e-20)
