"""Shape and thickness in, a slab of ice out to which membranes, gold fiducials and solvent are added.

`tomolab.simulation.crowding` adds the particles; `tomolab.simulation.specimen` does it all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from tomolab.conventions import POSITION, centre
from tomolab.simulation import fiducials, membranes, solvent
from tomolab.simulation.fiducials import Site
from tomolab.simulation.membranes import HALF_THICKNESS, REACH, Membrane
from tomolab.simulation.packing import Occupancy
from tomolab.volumes import overlap

MEMBRANE, GOLD = "membrane", "gold"
"""Names of the classes that are not species of particles."""
VESICLE_RADII = (200.0, 500.0)
"""Å; smaller if the ice is too thin for them."""


@dataclass(frozen=True)
class Scene:
    """An unfinished specimen, and the random number generators that it is drawn with.

    `density` (Da/Å³), `labels` (class + 1), `instances` (particle id + 1) and `accessible` (where particles and soluble protein
    may be) are arrays (z, y, x) that are changed in place; `layers` are the first layer of the ice and the one behind the last.
    """

    density: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    accessible: np.ndarray
    names: tuple[str, ...]
    voxel_size: float
    layers: tuple[int, int]
    rng: np.random.Generator
    generator: torch.Generator

    def label(self, name: str) -> int:
        """Value of a class in the labels."""
        return self.names.index(name) + 1


def start(
    names: tuple[str, ...],
    *,
    shape: tuple[int, int, int],
    voxel_size: float,
    thickness: float | None,
    particles: int,
    seed: int,
    device: torch.device,
) -> Scene:
    """Empty ice: `thickness` Å of it, or all of a volume of `shape` voxels, for up to so many `particles` of the classes
    `names`.

    ValueError if the shape is not three numbers of voxels, or the ice thicker than the volume.
    """
    layers = ice_layers(shape, voxel_size, thickness)
    accessible = np.zeros(shape, dtype=bool)
    accessible[slice(*layers)] = True
    return Scene(
        density=np.zeros(shape, dtype=np.float32),
        labels=np.zeros(shape, dtype=np.min_scalar_type(len(names))),
        instances=np.zeros(shape, dtype=np.uint16 if particles < 2**16 - 1 else np.uint32),
        accessible=accessible,
        names=names,
        voxel_size=voxel_size,
        layers=layers,
        rng=np.random.default_rng(seed),
        generator=torch.Generator(device=device).manual_seed(seed),
    )


def ice_layers(shape: tuple[int, int, int], voxel_size: float, thickness: float | None) -> tuple[int, int]:
    """First layer of a slab of ice about the centre along z, and the one behind the last.

    Raises
    ------
    ValueError
        If the shape is not three numbers of voxels, or the slab thinner than a voxel or thicker than the volume.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"a specimen needs (z, y, x) voxels, got {shape}")
    if thickness is None:
        return 0, shape[0]
    if not voxel_size <= thickness <= shape[0] * voxel_size * 1.0001:
        raise ValueError(
            f"ice must be from one voxel to the {shape[0] * voxel_size:g} Å of the volume thick, got {thickness:g} Å"
        )
    count = round(thickness / voxel_size)
    first = centre(shape[0]) - centre(count)
    return first, first + count


def exclude_margin(scene: Scene, margin: int) -> None:
    """Make a margin of voxels along the faces of the volume inaccessible."""
    for axis in range(3):
        layers = np.moveaxis(scene.accessible, axis, 0)
        layers[:margin] = layers[len(layers) - margin :] = False


def exclude_membrane(
    accessible: np.ndarray, membrane: Membrane, *, voxel_size: float, cell: bool, device: torch.device
) -> tuple:
    """Make a bilayer, and everything outside of a cell, inaccessible (z, y, x; bool), in place.

    Returns the part of the volume near the membrane, as slices, and the signed distances in Å there.
    """
    near = membranes.window(membrane, accessible.shape, voxel_size)  # type: ignore[arg-type]
    distances = membranes.distance(
        membrane,
        shape=tuple(s.stop - s.start for s in near),  # type: ignore[arg-type]
        voxel_size=voxel_size,
        origin=[s.start * voxel_size for s in near],
        device=device,
    )
    signed = distances.cpu().numpy()
    if cell:
        inside = np.zeros_like(accessible)
        inside[near] = signed <= -HALF_THICKNESS
        accessible &= inside
    else:
        accessible[near] &= np.abs(signed) >= HALF_THICKNESS
    return near, signed


def add_membranes(scene: Scene, cell: Membrane | None, vesicles: int | Sequence[Membrane]) -> list[tuple]:
    """Add the border of a cell and vesicles where there is ice; return their row of the report, if any."""
    border = [] if cell is None else [cell]
    asked = vesicles if isinstance(vesicles, int) else len(vesicles)
    placed = _random_vesicles(scene, border, asked) if isinstance(vesicles, int) else list(vesicles)
    for membrane in (*border, *placed):
        near, signed = exclude_membrane(
            scene.accessible, membrane, voxel_size=scene.voxel_size, cell=membrane is cell, device=scene.generator.device
        )
        # The faces of the ice cut a membrane off.
        below, above = (min(max(layer - near[0].start, 0), len(signed)) for layer in scene.layers)
        part, signed = (slice(near[0].start + below, near[0].start + above), *near[1:]), signed[below:above]
        close = np.abs(signed) < REACH
        values = membranes.profile(torch.from_numpy(signed[close]), resolution=2 * scene.voxel_size).numpy()
        scene.density[part][close] += values
        scene.labels[part][np.abs(signed) < HALF_THICKNESS] = scene.label(MEMBRANE)
    reason = "" if len(placed) == asked else f"no room for {asked - len(placed)} vesicles that touch no other membrane"
    total = len(border) + asked
    return [(MEMBRANE, total, len(border) + len(placed), reason)] if total else []


def _random_vesicles(scene: Scene, border: list[Membrane], count: int) -> list[Membrane]:
    low = [start * scene.voxel_size for start in (scene.layers[0], 0, 0)]
    high = [stop * scene.voxel_size for stop in (scene.layers[1], *scene.accessible.shape[1:])]
    largest = max(60.0, min(VESICLE_RADII[1], 0.4 * (high[0] - low[0])))
    radii = (min(VESICLE_RADII[0], largest), largest)
    return membranes.random_vesicles(count, low=low, high=high, rng=scene.rng, radii=radii, others=border)


def add_fiducials(scene: Scene, count: int, *, diameter: float, site: Site, cell: bool) -> tuple[pd.DataFrame, list[tuple]]:
    """Add gold fiducials; return their table (z, y, x, diameter in Å) and their row of the report, if any.

    Those on a face may lie above or below a cell, those in the ice lie outside of it.
    """
    if not count:
        return pd.DataFrame(columns=[*POSITION, "diameter"], dtype=float), []
    occupied = scene.labels > 0
    occupied[: scene.layers[0]] = occupied[scene.layers[1] :] = True
    if site == "ice" and cell:
        occupied |= scene.accessible
    placed = fiducials.place(
        Occupancy(occupied),
        count,
        diameter=diameter,
        voxel_size=scene.voxel_size,
        layers=scene.layers,
        site=site,
        rng=scene.rng,
    )
    for fiducial in placed:
        _add_fiducial(scene, fiducial)
    rows = [(*fiducial.centre * scene.voxel_size, fiducial.diameter) for fiducial in placed]
    reason = "" if len(placed) == count else f"no room for {count - len(placed)} fiducials"
    return pd.DataFrame(rows, columns=[*POSITION, "diameter"], dtype=float), [(GOLD, count, len(placed), reason)]


def _add_fiducial(scene: Scene, fiducial: fiducials.Fiducial) -> None:
    """Add a fiducial; only the empty corners of its box may reach beyond the volume."""
    inside, cut = overlap(fiducial.corner, len(fiducial.fraction), scene.density.shape)  # type: ignore[arg-type]
    fraction = fiducial.fraction[cut]
    scene.density[inside] += fiducials.GOLD * fraction
    scene.labels[inside][fraction > 0.5] = scene.label(GOLD)
    scene.accessible[inside][fraction > 0.5] = False


def add_solvent(scene: Scene, concentration: float, *, outside: float) -> None:
    """Fill what is left of the accessible volume with small soluble proteins (mg/ml), and the ice outside of a cell too."""
    medium = np.zeros_like(scene.accessible)
    medium[slice(*scene.layers)] = True
    medium &= ~scene.accessible
    for space, amount in ((scene.accessible, concentration), (medium, outside)):
        if amount:
            solvent.add(scene.density, space & (scene.labels == 0), amount, voxel_size=scene.voxel_size, rng=scene.rng)
