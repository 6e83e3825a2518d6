"""Densities and counts in, particles in random poses out, packed into a specimen by their own shapes.

The shape of a particle are the voxels above the contour that encloses its molecular volume. It is taken from the density that
is then added, so particles may touch, but they do not overlap.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from tqdm.auto import tqdm

from tomolab import fourier, particles, rotations
from tomolab.conventions import centre
from tomolab.simulation.packing import TRIES, Occupancy, Shape
from tomolab.simulation.rendering import BATCH, Templates, check, prepare
from tomolab.simulation.scene import Scene
from tomolab.volumes import Volume, fit, overlap, transform

SURFACE = 0.8
"""Contour of the surface of a complex, as a fraction of the mean density that its mass lies in. For the shipped complexes at 10
and 20 Å it encloses their molecular volume (mass over 1.35 g/cm³) to within a fifth, and it needs no units."""
FAILURES = 6
"""Poses of a species that find no room in succession before the rest of the species is given up."""


@dataclass(frozen=True)
class Species:
    """A complex ready to be placed: its density on a fine grid, and the contour of its surface."""

    name: str
    templates: Templates
    contour: float

    @property
    def box(self) -> int:
        """Edge in voxels of the box it is rendered in."""
        return self.templates.data.shape[-1] // 2

    @property
    def radius_voxels(self) -> float:
        """Voxels about its centre that hold 95 % of its density."""
        return float(self.templates.radii[0])


def contour(density: Volume) -> float:
    """Density at the surface of a complex: `SURFACE` of Σρ² / Σρ.

    Raises
    ------
    ValueError
        If there is no density above 0.
    """
    data = density.data.clip(0).astype(np.float64)
    if not data.any():
        raise ValueError(f"a density must be above 0 somewhere (bright on dark), got at most {float(density.data.max()):g}")
    return float(SURFACE * (data**2).sum() / data.sum())


def molecular_volume(density: Volume) -> float:
    """Volume in Å³ within the surface of a complex, counted on a grid of half the voxel size."""
    fine = fourier.resize(torch.from_numpy(density.data), tuple(2 * n for n in density.shape))
    return int((fine > contour(density)).sum()) * (density.voxel_size / 2) ** 3


def prepare_species(densities: Mapping[str, Volume], device: torch.device) -> dict[str, Species]:
    """Prepare complexes by class name, each in the smallest box it can be rotated in.

    Raises
    ------
    ValueError
        If there are none, voxel sizes differ, or a map has no density above 0.
    """
    check(densities)
    return {name: _species(name, density, device) for name, density in densities.items()}


def _species(name: str, density: Volume, device: torch.device) -> Species:
    data = density.data
    dense = np.argwhere(np.abs(data) > 0.01 * np.abs(data).max())
    radius = np.sqrt(((dense - [centre(n) for n in data.shape]) ** 2).sum(1).max(initial=0))
    tight = fit(density, 2 * int(np.ceil(radius) + 2))
    return Species(name, prepare({name: tight}, device), contour(tight))


def add(
    scene: Scene, species: Mapping[str, Species], counts: Mapping[str, int], *, gap: float = 0.0, progress: bool = True
) -> tuple[pd.DataFrame, list[tuple]]:
    """Add particles to a scene, `gap` Å apart, large species first: small ones find room between them.

    Returns the table of what was placed, with `label` and `visibility`, and a row of the report for each species.
    """
    occupancy = Occupancy(~scene.accessible | (scene.labels > 0))
    tables: list[pd.DataFrame] = []
    reasons: dict[str, str] = {}
    with tqdm(total=sum(counts.values()), desc="particles", unit=" particles", disable=not progress) as bar:
        for name in sorted(counts, key=lambda name: -species[name].radius_voxels):
            first = sum(len(table) for table in tables)
            placed = _place(
                scene, occupancy, species[name], count=counts[name], first=first, gap_voxels=gap / scene.voxel_size, bar=bar
            )
            tables.append(placed)
            missing = counts[name] - len(placed)
            reasons[name] = f"no room for {missing}: {FAILURES} poses in a row at {TRIES} positions each" if missing else ""
            bar.update(missing)
    table = pd.concat(tables, ignore_index=True).assign(visibility=1.0)
    placed = table["label"].value_counts()
    return table, [(name, counts[name], int(placed.get(name, 0)), reasons[name]) for name in counts]


def _place(
    scene: Scene, occupancy: Occupancy, species: Species, *, count: int, first: int, gap_voxels: float, bar: tqdm
) -> pd.DataFrame:
    """Add up to `count` particles of a species, numbered from `first`; give up after `FAILURES` poses without room."""
    positions: list[np.ndarray] = []
    matrices: list[np.ndarray] = []
    margin = int(np.ceil(gap_voxels))
    failed = 0
    for matrix, offset, density in _poses(species, count, scene.generator):
        if len(positions) == count or failed == FAILURES:
            break
        mask = density > species.contour
        # Nothing is placed within a closed shell.
        filled = ndimage.binary_fill_holes(mask)
        # The dilated shape hits nothing where the shape itself keeps the gap.
        dilated = ndimage.distance_transform_edt(~np.pad(filled, margin)) <= gap_voxels if gap_voxels else filled
        shape = Shape.of(dilated)
        found = occupancy.find(shape, scene.rng)
        if found is None:
            failed += 1
            continue
        failed = 0
        corner = found - shape.corner + margin
        inside, cut = overlap(corner, species.box, scene.density.shape)  # type: ignore[arg-type]
        scene.density[inside] += density[cut]
        scene.labels[inside][mask[cut]] = scene.label(species.name)
        scene.instances[inside][mask[cut]] = first + len(positions) + 1
        own = Shape.of(filled)
        occupancy.occupy(own, corner + own.corner)
        positions.append((corner + centre(species.box) + offset) * scene.voxel_size)
        matrices.append(matrix)
        bar.update()
    return particles.table(
        positions,
        ids=first + np.arange(len(positions)),
        tomogram="simulated",
        rotations=np.reshape(matrices, (-1, 3, 3)),
        label=species.name,
    )


def _poses(species: Species, count: int, generator: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rotation matrix, offset within a voxel, and density in its box, of one random pose after the other."""
    size = min(count, BATCH)
    data = species.templates.data.expand(size, -1, -1, -1)
    while size:
        matrices = rotations.random(size, generator, device=generator.device)
        offsets = torch.rand(size, 3, generator=generator, device=generator.device)
        boxes = transform(data, matrices, offsets, box=species.box, step=2)
        yield from zip(matrices.cpu().numpy(), offsets.cpu().numpy(), boxes.cpu().numpy(), strict=True)
