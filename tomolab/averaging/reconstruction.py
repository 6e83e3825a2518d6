"""Reconstruction: the map of subtomograms whose poses are known, and how much of it was seen.

The map is the sum of the turned-back data over the sum of the turned-back wedges, both gathered by trilinear insertion into
an oversampled Fourier grid (`tomolab.averaging.coefficients`).
"""

import numpy as np
import torch
from torch import Tensor

from tomolab import devices, fourier, rotations
from tomolab.averaging import coefficients
from tomolab.conventions import centre
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

FLOOR = 0.05
"""A map divides by its sampling plus this part of the mean sampling, so that what is hardly seen is damped."""


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
    sums, sampling = sums_of(subtomograms, turns, shifts, device=device)
    return density_of(sums, sampling, subtomograms), sampling.cpu().numpy()


def sums_of(
    subtomograms: Subtomograms,
    turns: np.ndarray,
    shifts: np.ndarray,
    *,
    group: np.ndarray | None = None,
    device: str | torch.device | None,
) -> tuple[Tensor, Tensor]:
    """Sums of the turned-back data and of their wedges on the rfftn grid; reads the subtomograms in batches.

    Parameters as in `with_poses`; `group` (g, 3, 3) are the rotations of a symmetry, and every subtomogram counts once for
    each. Sums of several sets can be added before `density_of` makes a map of them.
    """
    where, box = devices.pick(device), subtomograms.box
    size = coefficients.grid_size(box / 2)
    total = torch.zeros(size, size, size, dtype=torch.complex64, device=where), torch.zeros(size, size, size, device=where)
    same = torch.eye(3, device=where)[None] if group is None else torch.from_numpy(group).float().to(where)
    for data, turn, shift in coefficients.posed(subtomograms, turns, shifts, radius=box / 2, device=where):
        values = data.values * coefficients.phases(data.points, -shift, box)
        for alike in same:
            part = coefficients.insert(values, data.wedges[data.kind], turn @ alike, points=data.points, size=size)
            total = total[0] + part[0], total[1] + part[1]
    sums, sampling = coefficients.condense(*total)
    k = (fourier.frequencies((box,) * 3, device=where) * box).round().long()
    at = tuple((k + centre(sums.shape[0])).unbind(-1))
    return sums[at] * (k.float().norm(dim=-1) <= box / 2), sampling[at]


def density_of(sums: Tensor, sampling: Tensor, like: Subtomograms, *, filter_by: Tensor | None = None) -> Volume:
    """The map of what `sums_of` gathered, in the box and voxel size of `like`; `filter_by` weights its transform."""
    box = like.box
    seen = fourier.radius((box,) * 3, device=sums.device) <= 0.5
    transform = sums / (sampling + FLOOR * sampling[seen].mean() + 1e-6)
    if filter_by is not None:
        transform = transform * filter_by.to(transform.device)
    place = torch.full((1, 3), float(centre(box)), device=sums.device)
    density = torch.fft.irfftn(transform * fourier.shift_phases((box,) * 3, place)[0], s=(box,) * 3)
    return Volume(density.cpu().numpy(), like.voxel_size)
