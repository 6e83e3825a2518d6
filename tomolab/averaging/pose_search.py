"""Takes subtomograms and a map; gives their poses against the low-passed map, from which a refinement starts.

Detail of the map finer than the chosen resolution is never used, so two halves find what they share there independently.
"""

import numpy as np
import torch
from torch import Tensor

from tomolab import volumes
from tomolab.averaging import alignment, coefficients, reconstruction
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.half_maps import Half
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume, apply_mask

FLAT_POWER = 0.02
"""Power of a map in every shell, over that of the subtomograms, if it is flattened: so weak that scores are correlations."""
ROTATIONS = (700, 4000)
"""Fewest and most rotations tried."""


def match_box(volume: Volume, resolution: float, like: Subtomograms) -> Volume:
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


def read(part: Subtomograms, *, resolution: float, box: int, device: torch.device) -> Coefficients:
    """Coefficients of the middle `box` voxels of subtomograms up to a resolution in Å."""
    return coefficients.read(part, box=box, radius_cycles=box * part.voxel_size / resolution, device=device)


def align_to_map(
    part: Subtomograms,
    data: Coefficients,
    volume: Volume,
    *,
    resolution: float,
    diameter_voxels: float,
    max_shift_voxels: float,
    flat_spectrum: bool = True,
) -> Half:
    """Align subtomograms to a map, low-passed to `resolution` in Å.

    `data` are their coefficients up to that resolution (`read`), and `volume` is in their box (`match_box`). `diameter_voxels`
    is that of the soft spherical mask on the map. With a flat spectrum every shell of the map gets the same low power, so that
    its scale and spectrum do not matter. Else it counts as it is: it must have the scale of the subtomograms and fade where it
    is not reliable, as an average does.
    """
    device, radius = data.values.device, data.box * part.voxel_size / resolution
    power = torch.stack([(some.abs() ** 2).sum(0) for some in data.values.split(coefficients.BATCH)]).sum(0)
    noise = reconstruction.shell_means(data, power)
    density = apply_mask(torch.from_numpy(volumes.fit(volume, data.box).data).to(device), diameter_voxels)
    if flat_spectrum:
        density = apply_mask(_with_flat_spectrum(density, data, noise), diameter_voxels)
    grids = coefficients.gradient_grids(density)
    # Neighbouring rotations move the rim of the particle by the finest detail.
    step = resolution / (diameter_voxels * part.voxel_size)
    turns = alignment.uniform_rotations(int(np.clip(8 * np.pi**2 / step**3, *ROTATIONS)), device=device)
    shifts = alignment.shift_grid(max_shift_voxels, data.box / (4 * radius), device=device)
    seen, sigma = noise[reconstruction.shell_index(data)], max_shift_voxels / 2
    found = alignment.exhaustive_search(
        grids[0], data, turns=turns, shifts=shifts, noise=seen, keep=3, shift_sigma_voxels=sigma
    )
    found = alignment.refine_poses(grids, data, found, noise=seen, steps=4, shift_sigma_voxels=sigma)
    return Half.of(part, found)


def _with_flat_spectrum(density: Tensor, data: Coefficients, noise: Tensor) -> Tensor:
    """Each shell with `FLAT_POWER` times the power of the data, and nothing beyond the data."""
    grid, last = coefficients.to_grid(density), len(noise) - 1
    shell = reconstruction.grid_shells(density.shape[-1], last, device=noise.device)
    power = reconstruction.grid_shell_means(grid.abs().square(), shell, last)
    gain = (FLAT_POWER * noise / power.clamp_min(1e-30)).sqrt()
    gain[0], gain[int(float(data.points[-1].norm())) + 1 :] = 0, 0
    return coefficients.to_density(grid * gain[shell])
