"""Shape and thickness in, a specimen in the making out: a slab of ice that receives membranes, beads and solutes.

`tomolab.simulation.crowding` adds the complexes; `tomolab.simulation.specimen` puts all together.
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
from tomolab.simulation.packing import Room

MEMBRANE, GOLD = "membrane", "gold"
"""Names of the classes that are not complexes."""
VESICLE_RADII = (200.0, 500.0)
"""Å; smaller where the ice is too thin for them."""


@dataclass(frozen=True)
class Scene:
    """What is being painted, and the sources of all that is drawn.

    `density` (Da/Å³), `labels` (class + 1), `instances` (particle id + 1) and `room` (where complexes and solutes may be) are
    arrays (z, y, x) that are changed in place; `layers` are the first layer of the ice and the one behind the last.
    """

    density: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    room: np.ndarray
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
    """Ice without anything in it.

    Parameters
    ----------
    names
        Classes that may be painted.
    shape
        Voxels along z, y, x.
    voxel_size
        Å.
    thickness
        Å of ice; None for all of the volume.
    particles
        Largest number of particles that will be counted.
    seed
        Decides all that is drawn.
    device
        Where to compute.

    Raises
    ------
    ValueError
        If the shape is not three numbers of voxels, or there is less volume than ice.
    """
    layers = ice(shape, voxel_size, thickness)
    room = np.zeros(shape, dtype=bool)
    room[slice(*layers)] = True
    return Scene(
        density=np.zeros(shape, dtype=np.float32),
        labels=np.zeros(shape, dtype=np.min_scalar_type(len(names))),
        instances=np.zeros(shape, dtype=np.uint16 if particles < 2**16 - 1 else np.uint32),
        room=room,
        names=names,
        voxel_size=voxel_size,
        layers=layers,
        rng=np.random.default_rng(seed),
        generator=torch.Generator(device=device).manual_seed(seed),
    )


def ice(shape: tuple[int, int, int], voxel_size: float, thickness: float | None) -> tuple[int, int]:
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


def keep_off(scene: Scene, margin: int) -> None:
    """Take a margin of voxels along the faces of the volume out of the room."""
    for axis in range(3):
        faces = np.moveaxis(scene.room, axis, 0)
        faces[:margin] = faces[len(faces) - margin :] = False


def confine(space: np.ndarray, membrane: Membrane, *, voxel_size: float, cell: bool, device: torch.device) -> tuple:
    """Take a bilayer, and all that is outside of a cell, out of a space (z, y, x; bool), in place.

    Returns the part of the volume near the membrane, as slices, and the signed distances in Å there.
    """
    near = membranes.window(membrane, space.shape, voxel_size)  # type: ignore[arg-type]
    distances = membranes.distance(
        membrane,
        shape=tuple(s.stop - s.start for s in near),  # type: ignore[arg-type]
        voxel_size=voxel_size,
        origin=[s.start * voxel_size for s in near],
        device=device,
    )
    away = distances.cpu().numpy()
    if cell:
        inside = np.zeros_like(space)
        inside[near] = away <= -HALF_THICKNESS
        space &= inside
    else:
        space[near] &= np.abs(away) >= HALF_THICKNESS
    return near, away


def bilayers(scene: Scene, cell: Membrane | None, vesicles: int | Sequence[Membrane]) -> list[tuple]:
    """Paint a cell's border and vesicles where there is ice, take their room, and return their row of the report, if any."""
    border = [] if cell is None else [cell]
    asked = vesicles if isinstance(vesicles, int) else len(vesicles)
    made = _scattered(scene, border, asked) if isinstance(vesicles, int) else list(vesicles)
    for membrane in (*border, *made):
        near, away = confine(
            scene.room, membrane, voxel_size=scene.voxel_size, cell=membrane is cell, device=scene.generator.device
        )
        # The faces of the ice cut a membrane off.
        below, above = (min(max(layer - near[0].start, 0), len(away)) for layer in scene.layers)
        part, away = (slice(near[0].start + below, near[0].start + above), *near[1:]), away[below:above]
        close = np.abs(away) < REACH
        values = membranes.profile(torch.from_numpy(away[close]), resolution=2 * scene.voxel_size).numpy()
        scene.density[part][close] += values
        scene.labels[part][np.abs(away) < HALF_THICKNESS] = scene.label(MEMBRANE)
    reason = "" if len(made) == asked else f"no room for {asked - len(made)} vesicles that touch no other membrane"
    total = len(border) + asked
    return [(MEMBRANE, total, len(border) + len(made), reason)] if total else []


def _scattered(scene: Scene, border: list[Membrane], count: int) -> list[Membrane]:
    low = [start * scene.voxel_size for start in (scene.layers[0], 0, 0)]
    high = [stop * scene.voxel_size for stop in (scene.layers[1], *scene.room.shape[1:])]
    largest = max(60.0, min(VESICLE_RADII[1], 0.4 * (high[0] - low[0])))
    radii = (min(VESICLE_RADII[0], largest), largest)
    return membranes.scatter(count, low=low, high=high, rng=scene.rng, radii=radii, others=border)


def gold(scene: Scene, count: int, *, diameter: float, site: Site, cell: bool) -> tuple[pd.DataFrame, list[tuple]]:
    """Paint beads, take their room, and return their table (z, y, x, diameter in Å) and their row of the report, if any.

    Beads on a face may lie above or below a cell; beads in the ice lie outside of it.
    """
    if not count:
        return pd.DataFrame(columns=[*POSITION, "diameter"], dtype=float), []
    taken = scene.labels > 0
    taken[: scene.layers[0]] = taken[scene.layers[1] :] = True
    if site == "ice" and cell:
        taken |= scene.room
    placed = fiducials.scatter(
        Room(taken), count, diameter=diameter, voxel_size=scene.voxel_size, layers=scene.layers, site=site, rng=scene.rng
    )
    for bead in placed:
        _dip(scene, bead)
    rows = [(*bead.centre * scene.voxel_size, bead.diameter) for bead in placed]
    reason = "" if len(placed) == count else f"no room for {count - len(placed)} beads"
    return pd.DataFrame(rows, columns=[*POSITION, "diameter"], dtype=float), [(GOLD, count, len(placed), reason)]


def _dip(scene: Scene, bead: fiducials.Bead) -> None:
    """Paint a bead; only its empty corners may reach beyond the volume."""
    at = np.argwhere(bead.share > 0)
    to = at + bead.corner
    within = ((to >= 0) & (to < scene.density.shape)).all(1)
    share, places = bead.share[tuple(at[within].T)], tuple(to[within].T)
    scene.density[places] += fiducials.GOLD * share
    full = tuple(axis[share > 0.5] for axis in places)
    scene.labels[full] = scene.label(GOLD)
    scene.room[full] = False


def solution(scene: Scene, concentration: float, *, medium: float) -> None:
    """Fill the room that is left with small soluble proteins (mg/ml of it), and the ice outside of a cell with `medium`."""
    outside = np.zeros_like(scene.room)
    outside[slice(*scene.layers)] = True
    outside &= ~scene.room
    for room, share in ((scene.room, concentration), (outside, medium)):
        if share:
            solvent.add(scene.density, room & (scene.labels == 0), share, voxel_size=scene.voxel_size, rng=scene.rng)
