"""Specimens: complexes in random poses, with neighbours, and placed in a volume without overlap.

What is rendered here is clean density; `tomolab.imaging` then images it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tomolab import fourier, rotations
from tomolab.imaging import Imaging
from tomolab.volumes import Volume, distance, fit, transform

BATCH = 64
"""Particles rendered at a time; larger batches are not faster on a CPU."""


@dataclass(frozen=True)
class Sources:
    """Densities ready to be rendered.

    `data` (classes, 2n, 2n, 2n) has half the voxel size, so that trilinear sampling is accurate; `radii` (classes,) in
    voxels of `voxel_size` enclose 95 % of the density.
    """

    names: tuple[str, ...]
    data: Tensor
    radii: Tensor
    voxel_size: float


def check(densities: Mapping[str, Volume]) -> float:
    """The one voxel size (Å) of all densities; ValueError if there is no density or they differ."""
    sizes = sorted({round(volume.voxel_size, 4) for volume in densities.values()})
    if not sizes:
        raise ValueError("simulation needs at least one density, got none")
    if len(sizes) > 1:
        raise ValueError(f"all densities must have one voxel size, got {sizes} Å")
    return sizes[0]


def prepare(densities: Mapping[str, Volume], device: torch.device) -> Sources:
    """Stack checked maps at half their voxel size on a device."""
    voxel_size = check(densities)
    edge = max(max(volume.shape) for volume in densities.values())
    edge += edge % 2
    maps = torch.stack([torch.from_numpy(fit(volume, edge).data) for volume in densities.values()])
    fine = fourier.resize(maps.to(device), (2 * edge,) * 3)
    return Sources(tuple(densities), fine, _radii(maps).to(device), voxel_size)


def _radii(maps: Tensor) -> Tensor:
    """Radius in voxels, shape (n,), of the centred sphere that holds 95 % of each map's positive density."""
    away = distance(maps.shape[-1]).flatten()
    order = away.argsort()
    mass = maps.clamp_min(0).flatten(1)[:, order].cumsum(1)
    reached = (mass < 0.95 * mass[:, -1:]).sum(1)
    return away[order][reached.clamp_max(len(order) - 1)]


def _poses(count: int, box: int, imaging: Imaging, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    turns = rotations.random(count, generator, device=generator.device)
    shifts = (2 * torch.rand(count, 3, generator=generator, device=generator.device) - 1) * imaging.shift * box
    return turns, shifts


def render(
    sources: Sources, labels: Tensor, *, box: int, imaging: Imaging, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean volumes (n, box, box, box) of the labelled densities with their neighbours; and the poses."""
    turns, shifts = _poses(len(labels), box, imaging, generator)
    volumes = transform(sources.data[labels], turns, shifts, box=box, step=2)
    rate = torch.full((len(labels),), float(imaging.neighbours), device=generator.device)
    intruders = torch.poisson(rate, generator=generator).long()
    owner = torch.repeat_interleave(torch.arange(len(labels), device=labels.device), intruders)
    if len(owner):
        other = torch.randint(len(sources.names), (len(owner),), generator=generator, device=generator.device)
        direction = torch.nn.functional.normalize(torch.randn(len(owner), 3, generator=generator, device=generator.device))
        gap = 0.1 * box * torch.rand(len(owner), generator=generator, device=generator.device)
        reach = sources.radii[labels[owner]] + sources.radii[other] + gap
        places = shifts[owner] + direction * reach[:, None]
        turns_other = rotations.random(len(owner), generator, device=generator.device)
        volumes = volumes.index_add(0, owner, transform(sources.data[other], turns_other, places, box=box, step=2))
    return volumes, turns, shifts


def overlap(corner: np.ndarray, box: int, shape: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a box at `corner` that lies in a volume: as slices of the volume and of the box."""
    low, high = np.maximum(corner, 0), np.minimum(corner + box, shape)
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return inside, tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))


def paste(specimen: Tensor, sources: Sources, labels: Tensor, *, rotations: Tensor, places: np.ndarray) -> None:
    """Add the labelled densities (n,), turned by `rotations` (n, 3, 3), at `places` (n, 3; voxels) to a volume, in place."""
    box = sources.data.shape[-1] // 2
    whole = np.floor(places).astype(int)
    for start in range(0, len(labels), BATCH):
        part = slice(start, start + BATCH)
        rest = torch.from_numpy(places[part] - whole[part]).to(specimen)
        turned = transform(sources.data[labels[part]], rotations[part], rest, box=box, step=2)
        for particle, corner in zip(turned, whole[part] - box // 2, strict=True):
            inside, cut = overlap(corner, box, tuple(specimen.shape))  # type: ignore[arg-type]
            specimen[inside] += particle[cut]


def places(radii: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator, *, tries: int = 2000) -> np.ndarray:
    """Centres (n, 3) in voxels of spheres that neither overlap nor leave the volume, by random sequential placing.

    Parameters
    ----------
    radii
        Radii of the spheres in voxels, placed in this order.
    shape
        Voxels of the volume along z, y, x.
    rng
        Source of the candidates.
    tries
        Candidates per sphere; the first that is free is taken.

    Raises
    ------
    ValueError
        If a sphere finds no room, saying how many did.
    """
    placed = np.empty((0, 3))
    for i, radius in enumerate(radii):
        room = np.array(shape) - 1 - 2 * radius
        if room.min() <= 0:
            raise ValueError(f"a particle of diameter {2 * radius:.0f} voxels does not fit into a volume of {shape} voxels")
        candidates = radius + rng.random((tries, 3)) * room
        apart = np.full(tries, True)
        for centre, other in zip(placed, radii[:i], strict=True):
            apart &= ((candidates - centre) ** 2).sum(1) >= (radius + other) ** 2
        if not apart.any():
            raise ValueError(
                f"only {i} of {len(radii)} particles found room in {shape} voxels; ask for fewer or a larger volume"
            )
        placed = np.vstack([placed, candidates[apart.argmax()]])
    return placed
