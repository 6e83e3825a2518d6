"""Reconstruction: the map of subtomograms whose poses are known, how much of it was seen, and how two maps correlate.

The map is the sum of the turned-back data over the sum of the turned-back wedges, both gathered by trilinear insertion into
an oversampled Fourier grid (`tomolab.spectra`).
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import devices, fourier, particles, rotations, spectra
from tomolab.averages import THRESHOLD
from tomolab.conventions import centre
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume, isolate

BATCH = 64
"""Subtomograms read at a time."""
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
    subtomograms: Subtomograms, turns: np.ndarray, shifts: np.ndarray, *, device: str | torch.device | None
) -> tuple[Tensor, Tensor]:
    """Sums of the turned-back data and of their wedges on the rfftn grid; reads the subtomograms in batches.

    Parameters as in `with_poses`. Sums of several sets can be added before `density_of` makes a map of them.
    """
    where, box = devices.pick(device), subtomograms.box
    poses = torch.from_numpy(turns).float().to(where), torch.from_numpy(shifts / subtomograms.voxel_size).float().to(where)
    tilts = torch.from_numpy(particles.geometries(subtomograms.particles)).float().to(where)
    size = spectra.grid_size(box / 2)
    total = torch.zeros(size, size, size, dtype=torch.complex64, device=where), torch.zeros(size, size, size, device=where)
    batches = zip(subtomograms.batches(BATCH), poses[0].split(BATCH), poses[1].split(BATCH), tilts.split(BATCH), strict=True)
    for (_, volumes), turn, shift, tilt in batches:
        low, high, axis = tilt.T
        data = spectra.transform(torch.from_numpy(volumes).to(where), low, high, tilt_axis=axis, radius=box / 2)
        values = data.values * spectra.phases(data.points, -shift, box)
        part = spectra.insert(values, data.wedges[data.kind], turn, points=data.points, size=size)
        total = total[0] + part[0], total[1] + part[1]
    sums, sampling = spectra.condense(*total)
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


def correlate(half1: Volume, half2: Volume, *, weight: Tensor | None = None, diameter: float | None = None) -> pd.DataFrame:
    """Fourier shell correlation of two maps as a table of `resolution` (Å) and `fsc`, from coarse to fine.

    Parameters
    ----------
    half1, half2
        Cubic maps of one shape.
    weight
        How much each point of the rfftn grid counts, such as the product of the sampling of both maps.
    diameter
        Voxels, of the soft sphere inside which they are compared; the box by default.
    """
    first, second = (isolate(torch.from_numpy(volume.data), diameter or half1.shape[0]) for volume in (half1, half2))
    values = fourier.shell_correlation(first, second, weight=None if weight is None else weight.cpu())[1:].numpy()
    return pd.DataFrame({"resolution": half1.extent[0] / np.arange(1, len(values) + 1), "fsc": values})


def trust(fsc: np.ndarray, box: int) -> Tensor:
    """Weights sqrt(2 FSC / (1 + FSC)) on the rfftn grid, 0 from where the FSC first falls to 0.143."""
    below = np.flatnonzero(fsc < THRESHOLD)
    kept = np.where(np.arange(len(fsc)) < (below[0] if len(below) else len(fsc)), fsc, 0).clip(0)
    weights = np.sqrt(2 * kept / (1 + kept))
    # The first shell is always shown, lest an average without signal be an empty map.
    weights[0] = max(weights[0], 0.1)
    radius = (fourier.radius((box,) * 3) * box).numpy()
    return torch.from_numpy(np.interp(radius, np.arange(len(fsc) + 1), np.append(weights[0], weights))).float()
