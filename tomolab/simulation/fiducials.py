"""An occupancy in, gold fiducials at free positions out, and the density of a fiducial.

>>> placed = place(occupancy, 10, diameter=100.0, voxel_size=10.0, layers=(40, 160), site="face", rng=rng)
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tomolab.simulation.packing import Occupancy, Shape

GOLD = 5.6
"""Density of gold in the scale of proteins, Da/Å³ above ice.

19.3 g/cm³ are 0.059 atoms per Å³, of 10.6 Å elastic scattering length at zero angle (Doyle & Turner 1968): 29.9 V, 25.4 V above
ice, over the 4.5 V of `ctf.FREE_ATOMS`. A heavy atom scatters less for its mass than a light one, so this is not its mass.
"""
SPREAD = 0.05
"""Standard deviation of the diameters, as a fraction of them."""
Site = Literal["face", "ice"]


@dataclass(frozen=True)
class Fiducial:
    """A placed fiducial: centre (3,) in voxels, diameter in Å, and the fraction it fills of each voxel of a box at `corner`."""

    centre: np.ndarray
    diameter: float
    corner: np.ndarray
    fraction: np.ndarray


def place(
    occupancy: Occupancy,
    count: int,
    *,
    diameter: float,
    voxel_size: float,
    layers: tuple[int, int],
    site: Site,
    rng: np.random.Generator,
) -> list[Fiducial]:
    """Place up to `count` fiducials of a mean diameter in Å at free positions, and occupy these.

    They lie between the first layer of the ice and the one behind the last, `layers`: against one of its two faces for the site
    "face", as fiducials on a grid do, anywhere for "ice". ValueError if the site is unknown or the diameter below a voxel.
    """
    if not diameter >= voxel_size:
        raise ValueError(f"fiducials must be at least a voxel of {voxel_size:g} Å wide, got {diameter:g} Å")
    if site not in get_args(Site):
        raise ValueError(f"fiducials lie on a {' or in the '.join(map(repr, get_args(Site)))}, got {site!r}")
    placed = []
    for _ in range(count):
        size = diameter * (1 + SPREAD * float(np.clip(rng.normal(), -3, 3)))
        offset = rng.random(3)
        fraction = ball(size / voxel_size, offset)
        shape = Shape.of(fraction > 0.5)
        first, last = layers
        if site == "face":
            thick = int(shape.extent[0])
            first, last = (first, first + thick) if rng.random() < 0.5 else (last - thick, last)
        position = occupancy.find(shape, rng, low=(first, 0, 0), high=(last, *occupancy.occupied.shape[1:]))
        if position is not None:
            occupancy.occupy(shape, position)
            corner = position - shape.corner
            placed.append(Fiducial(corner + fraction.shape[0] // 2 + offset, size, corner, fraction))
    return placed


def ball_at(centre: np.ndarray, diameter: float) -> tuple[np.ndarray, np.ndarray]:
    """Corner (3,) of a box, and the fraction of each of its voxels that a ball fills; centre and diameter in voxels."""
    whole = np.floor(centre).astype(int)
    fraction = ball(diameter, centre - whole)
    return whole - fraction.shape[0] // 2, fraction


def ball(diameter: float, offset: np.ndarray) -> np.ndarray:
    """Fraction of each voxel of a cube that a ball fills: `diameter` in voxels, centre `offset` (3,) from the middle voxel."""
    half = int(np.ceil(diameter / 2)) + 2
    z, y, x = (np.arange(-half, half + 1) - shift for shift in offset)
    distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    return np.clip(diameter / 2 - distance + 0.5, 0, 1).astype(np.float32)
