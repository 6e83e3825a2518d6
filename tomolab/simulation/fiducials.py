"""Free room in, places of gold beads out, and the density of a bead; tilt series are aligned by them.

>>> placed = scatter(room, 10, diameter=100.0, voxel_size=10.0, layers=(40, 160), site="face", rng=rng)
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tomolab.simulation.packing import Room, Shape

GOLD = 5.6
"""Density of gold in the scale of proteins, Da/Å³ above ice.

19.3 g/cm³ are 0.059 atoms per Å³, of 10.6 Å elastic scattering length at zero angle (Doyle & Turner 1968): 29.9 V, 25.4 V above
ice, over the 4.5 V of `ctf.FREE_ATOMS`. A heavy atom scatters less for its mass than a light one, so this is not its mass.
"""
SPREAD = 0.05
"""Standard deviation of the diameters, as a share of them."""
Site = Literal["face", "ice"]


@dataclass(frozen=True)
class Bead:
    """A placed bead: its centre (3,) in voxels, diameter in Å, and the share it fills of each voxel of a box at `corner`."""

    centre: np.ndarray
    diameter: float
    corner: np.ndarray
    share: np.ndarray


def scatter(
    room: Room,
    count: int,
    *,
    diameter: float,
    voxel_size: float,
    layers: tuple[int, int],
    site: Site,
    rng: np.random.Generator,
) -> list[Bead]:
    """Place up to `count` beads where there is room, and take that room.

    Parameters
    ----------
    room
        What is taken already.
    count
        How many.
    diameter
        Mean diameter in Å.
    voxel_size
        Å.
    layers
        First layer of the ice and the one behind the last.
    site
        "face": within the ice against one of its two faces, as beads on a grid lie; "ice": anywhere in it.
    rng
        Source of all that is drawn.

    Raises
    ------
    ValueError
        If the diameter is smaller than a voxel, or the site unknown.
    """
    if not diameter >= voxel_size:
        raise ValueError(f"beads must be at least a voxel of {voxel_size:g} Å wide, got {diameter:g} Å")
    if site not in get_args(Site):
        raise ValueError(f"beads lie on a {' or in the '.join(map(repr, get_args(Site)))}, got {site!r}")
    placed = []
    for _ in range(count):
        size = diameter * (1 + SPREAD * float(np.clip(rng.normal(), -3, 3)))
        rest = rng.random(3)
        share = ball(size / voxel_size, rest)
        shape = Shape.of(share > 0.5)
        first, last = layers
        if site == "face":
            thick = int(shape.extent[0])
            first, last = (first, first + thick) if rng.random() < 0.5 else (last - thick, last)
        place = room.find(shape, rng, low=(first, 0, 0), high=(last, *room.taken.shape[1:]))
        if place is not None:
            room.take(shape, place)
            corner = place - shape.corner
            placed.append(Bead(corner + share.shape[0] // 2 + rest, size, corner, share))
    return placed


def at(centre: np.ndarray, diameter: float) -> tuple[np.ndarray, np.ndarray]:
    """Corner (3,) of a box, and the share of each of its voxels, that a bead fills; centre and diameter in voxels."""
    whole = np.floor(centre).astype(int)
    share = ball(diameter, centre - whole)
    return whole - share.shape[0] // 2, share


def ball(diameter: float, rest: np.ndarray) -> np.ndarray:
    """Share of each voxel of a cube that a ball fills: `diameter` in voxels, centre `rest` (3,) from the middle voxel."""
    half = int(np.ceil(diameter / 2)) + 2
    axes = [np.arange(-half, half + 1) - offset for offset in rest]
    away = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2)
    return np.clip(diameter / 2 - away + 0.5, 0, 1).astype(np.float32)
