"""Densities and numbers in, a crowded scene out: complexes in random poses, packed by their own shapes.

The shape of a complex are the voxels over the contour that encloses its molecular volume. It is taken from the very density
that is then added, so complexes touch but do not overlap, whatever their form.
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
from tomolab.simulation import packing
from tomolab.simulation.packing import TRIES, Room, Shape
from tomolab.simulation.rendering import BATCH, Sources, check, prepare
from tomolab.simulation.scene import Scene
from tomolab.volumes import Volume, fit, overlap, transform

SURFACE = 0.8
"""Contour of a complex's surface, as a share of the density that its mass lies in on average. For the shipped complexes at 10
and 20 Å it encloses their molecular volume (mass over 1.35 g/cm³) to within a fifth, and it needs no units."""
POSES = 6
"""Poses of a kind that in succession find no room before the rest of it is given up."""


@dataclass(frozen=True)
class PreparedComplex:
    """A complex ready to be placed: its density on a fine grid, the contour of its surface, and its volume in Å³."""

    name: str
    sources: Sources
    contour: float
    volume: float

    @property
    def box(self) -> int:
        """Edge in voxels of the box it is rendered in."""
        return self.sources.data.shape[-1] // 2

    @property
    def radius(self) -> float:
        """Voxels about its centre that hold 95 % of its density."""
        return float(self.sources.radii[0])


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


def kinds(densities: Mapping[str, Volume], device: torch.device) -> dict[str, PreparedComplex]:
    """Get complexes ready, each in the smallest box it can be turned in.

    Raises
    ------
    ValueError
        If there are none, voxel sizes differ, or a map has no density above 0.
    """
    check(densities)
    return {name: _kind(name, density, device) for name, density in densities.items()}


def _kind(name: str, density: Volume, device: torch.device) -> PreparedComplex:
    data = density.data
    where = np.argwhere(np.abs(data) > 0.01 * np.abs(data).max())
    reach = np.sqrt(((where - [centre(n) for n in data.shape]) ** 2).sum(1).max(initial=0))
    tight = fit(density, 2 * int(np.ceil(reach) + 2))
    sources = prepare({name: tight}, device)
    return PreparedComplex(name, sources, contour(tight), molecular_volume(tight))


def check_fits(kind: PreparedComplex, space: tuple[int, int, int]) -> None:
    """Raise ValueError if a complex cannot lie in a box of `space` voxels in any orientation."""
    coarse = kind.sources.data[0, ::2, ::2, ::2].cpu().numpy() > kind.contour
    narrowest = packing.thinnest(Shape.of(coarse))
    if narrowest > min(space) + 1:
        raise ValueError(
            f"{kind.name} is at least {narrowest:.0f} voxels wide in any orientation and cannot lie within "
            f"{' x '.join(map(str, space))} voxels of ice (z, y, x)"
        )


def add(
    scene: Scene,
    kinds_by_name: Mapping[str, PreparedComplex],
    counts: Mapping[str, int],
    *,
    gap: float = 0.0,
    progress: bool = True,
) -> tuple[pd.DataFrame, list[tuple]]:
    """Paint complexes, large ones first: small ones find room between them, not the other way round.

    Parameters
    ----------
    scene
        What they are painted on.
    kinds_by_name
        Kinds by name.
    counts
        How many of each are wanted.
    gap
        Å left free around each.
    progress
        Show a progress bar.

    Returns
    -------
    particles, rows
        The table of what was placed, with `label` and `visibility`; and a row of the report for each kind.
    """
    room = Room(~scene.room | (scene.labels > 0))
    tables: list[pd.DataFrame] = []
    reasons: dict[str, str] = {}
    with tqdm(total=sum(counts.values()), desc="complexes", unit=" complexes", disable=not progress) as bar:
        for name in sorted(counts, key=lambda name: -kinds_by_name[name].radius):
            first = sum(len(table) for table in tables)
            placed = _place(
                scene, room, kinds_by_name[name], count=counts[name], first=first, gap=gap / scene.voxel_size, bar=bar
            )
            tables.append(placed)
            missing = counts[name] - len(placed)
            reasons[name] = f"no room for {missing}: {POSES} poses in a row at {TRIES} places each" if missing else ""
            bar.update(missing)
    table = pd.concat(tables, ignore_index=True).assign(visibility=1.0)
    placed = table["label"].value_counts()
    return table, [(name, counts[name], int(placed.get(name, 0)), reasons[name]) for name in counts]


def _place(scene: Scene, room: Room, kind: PreparedComplex, *, count: int, first: int, gap: float, bar: tqdm) -> pd.DataFrame:
    """Paint up to `count` complexes of a kind, numbered from `first`, `gap` voxels apart; give up after `POSES` failures."""
    places: list[np.ndarray] = []
    turns: list[np.ndarray] = []
    failed = 0
    for turn, rest, density in _poses(kind, count, scene.generator):
        if len(places) == count or failed == POSES:
            break
        mask = density > kind.contour
        body = solid(mask)
        # The grown shape hits nothing where the shape itself keeps its distance.
        margin = int(np.ceil(gap))
        shape = Shape.of(packing.grown(body, gap) if gap else body)
        found = room.find(shape, scene.rng)
        if found is None:
            failed += 1
            continue
        failed = 0
        corner = found - shape.corner + margin
        _paint(scene, density, mask, corner=corner, label=scene.label(kind.name), particle=first + len(places))
        inner = Shape.of(body)
        room.take(inner, corner + inner.corner)
        places.append((corner + centre(kind.box) + rest) * scene.voxel_size)
        turns.append(turn)
        bar.update()
    return particles.table(
        places,
        ids=first + np.arange(len(places)),
        tomogram="simulated",
        rotations=np.reshape(turns, (-1, 3, 3)),
        label=kind.name,
    )


def _poses(
    kind: PreparedComplex, count: int, generator: torch.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rotation, offset within a voxel, and density in its box, of one random pose after the other."""
    size = min(count, BATCH)
    sources = kind.sources.data.expand(size, -1, -1, -1)
    while size:
        turns = rotations.random(size, generator, device=generator.device)
        rests = torch.rand(size, 3, generator=generator, device=generator.device)
        boxes = transform(sources, turns, rests, box=kind.box, step=2)
        yield from zip(turns.cpu().numpy(), rests.cpu().numpy(), boxes.cpu().numpy(), strict=True)


def solid(mask: np.ndarray) -> np.ndarray:
    """A mask with the cavities filled that it encloses: nothing is placed within a closed shell."""
    parts, _ = ndimage.label(~np.pad(mask, 1, constant_values=False))
    return (parts != parts[0, 0, 0])[1:-1, 1:-1, 1:-1]


def _paint(scene: Scene, density: np.ndarray, mask: np.ndarray, *, corner: np.ndarray, label: int, particle: int) -> None:
    inside, cut = overlap(corner, len(density), scene.density.shape)  # type: ignore[arg-type]
    scene.density[inside] += density[cut]
    scene.labels[inside][mask[cut]] = label
    scene.instances[inside][mask[cut]] = particle + 1
