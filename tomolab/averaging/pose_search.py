"""Subtomograms and a map in, poses against the low-passed map out, from which a refinement goes on.

What the map knows beyond the chosen detail never enters, so that what two halves agree on there, they found themselves.
"""

import numpy as np
import torch
from torch import Tensor

from tomolab import volumes
from tomolab.averaging import alignment, coefficients, reconstruction
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.half_maps import Half
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume, apply_mask, distance

STRENGTH = 0.02
"""Power that the map is given in every shell, as a part of that of the subtomograms: so weak that scores are correlations."""
ROTATIONS = (700, 4000)
"""Fewest and most rotations tried."""


def check(volume: Volume, resolution: float, like: Subtomograms) -> Volume:
    """The map with the voxel size and in the box of the subtomograms.

    Raises
    ------
    ValueError
        If the map is constant, or the resolution is finer than two voxels or coarser than a quarter of the box.
    """
    finest, coarsest = 2 * like.voxel_size, like.box * like.voxel_size / 4
    if not finest <= resolution <= coarsest:
        raise ValueError(f"the resolution must lie within {finest:g} to {coarsest:g} Å for these boxes, got {resolution:g} Å")
    if np.ptp(volume.data) == 0:
        raise ValueError("a constant map is no start")
    return volumes.fit(volumes.resample(volume, like.voxel_size), like.box)


def orient(
    part: Subtomograms,
    volume: Volume,
    *,
    resolution: float,
    box: int,
    diameter: float,
    reach: float,
    device: torch.device,
    level: bool = True,
) -> Half:
    """Orient every subtomogram by a map.

    Parameters
    ----------
    part
        The subtomograms.
    volume
        The map, in their box and voxel size (`check`).
    resolution
        Å; finer detail of the map is not used.
    box
        Voxels in the middle of the boxes that are looked at.
    diameter
        Voxels, of the soft spherical mask on the map.
    reach
        Voxels, longest shift.
    device
        Where to compute.
    level
        Give every shell of the map the same, weak strength, for a map of whatever scale. Else it counts as it is, so that it
        must be of the scale of the subtomograms and fade where it is not to be trusted, as an average does.
    """
    data = coefficients.read(part, box=box, radius=box * part.voxel_size / resolution, device=device)
    return against(part, data, volume, resolution=resolution, diameter=diameter, reach=reach, level=level)


def against(
    part: Subtomograms, data: Coefficients, volume: Volume, *, resolution: float, diameter: float, reach: float, level: bool
) -> Half:
    """`orient`, with the coefficients `data` of the subtomograms already read: once for several maps."""
    box, device = data.box, data.values.device
    radius = box * part.voxel_size / resolution
    power = torch.stack([(some.abs() ** 2).sum(0) for some in data.values.split(coefficients.BATCH)]).sum(0)
    noise = reconstruction.by_shell(data, power)
    density = apply_mask(torch.from_numpy(volumes.fit(volume, box).data).to(device), diameter)
    grids = coefficients.slopes(apply_mask(_levelled(density, data, noise), diameter) if level else density)
    # Neighbours are as far apart as detail of this size turns at the rim of the particle.
    step = resolution / (diameter * part.voxel_size)
    turns = alignment.uniform(int(np.clip(8 * np.pi**2 / step**3, *ROTATIONS)), device=device)
    shifts = alignment.ball(reach, box / (4 * radius), device=device)
    seen = noise[reconstruction.shell_of(data)]
    found = alignment.search(grids[0], data, turns=turns, shifts=shifts, noise=seen, keep=3, spread=reach / 2)
    found = alignment.polish(grids, data, found, noise=seen, steps=4, spread=reach / 2)
    return Half(
        part,
        found.rotations[:, 0].cpu().double().numpy(),
        found.shifts[:, 0].cpu().double().numpy() * part.voxel_size,
        found.scores[:, 0].cpu().numpy(),
        np.eye(3)[None],
    )


def _levelled(density: Tensor, data: Coefficients, noise: Tensor) -> Tensor:
    """Each shell at STRENGTH times the power of the data, and nothing beyond them."""
    grid = coefficients.to_grid(density)
    shell = distance(density.shape[-1], device=noise.device).round().long().clamp_max(len(noise) - 1)
    count = torch.bincount(shell.flatten(), minlength=len(noise)).clamp_min(1)
    power = torch.zeros_like(noise).index_add_(0, shell.flatten(), grid.abs().square().flatten()) / count
    gain = (STRENGTH * noise / power.clamp_min(1e-30)).sqrt()
    gain[0], gain[int(float(data.points[-1].norm())) + 1 :] = 0, 0
    return coefficients.to_density(grid * gain[shell])
