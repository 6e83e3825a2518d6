"""Centre and radii in, the density of a closed lipid bilayer out: a vesicle or the border of a cell.

A membrane is a slightly rough ellipsoid. Its density is a function of the signed distance from the middle of the bilayer, which
is negative inside.

>>> vesicle = Membrane(centre=(1000, 2000, 2000), radii=(400, 400, 500))
>>> density = profile(distance(vesicle, shape=(200, 400, 400), voxel_size=10.0), resolution=20.0)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from tomolab.ctf import FREE_ATOMS

HALF_THICKNESS = 25.0
"""Å from the middle of a bilayer to the outer edge of its head groups."""
REACH = 80.0
"""Å from the middle of the bilayer to which distances are cut; density is 0 there."""
WAVES = 8
"""Number of waves that make up the roughness of a surface."""
ROUGHEST = sqrt(2 * WAVES)
"""Largest possible roughness, in its standard deviations."""
STEP = 8
"""Layers of a volume worked on at a time."""

# Potential above ice (4.48 V) in V Å and Å of one leaflet of DOPC at 30 °C, from the scattering of its atoms as in
# `ctf.FREE_ATOMS`: 319 Å³ of head group and 984 Å³ of chains on 72.4 Å² of surface, head groups at 18.4 Å, chains to
# 13.6 Å, methyl groups of 53.5 Å³ (Kučerka et al. 2008; Nagle & Tristram-Nagle 2000).
_HEAD = 18.7
_HEAD_PLACE, _HEAD_WIDTH = 18.4, 3.4
_CHAIN_POTENTIAL = 1.63
_CHAIN_END, _CHAIN_WIDTH = 13.6, 2.5
_METHYL = -3.6
_METHYL_WIDTH = 2.9


@dataclass(frozen=True, kw_only=True)
class Membrane:
    """A closed bilayer.

    Parameters
    ----------
    centre
        Its centre in Å, zyx; it may lie outside a volume that it reaches into.
    radii
        Half axes along z, y, x in Å, before `tilt`, to the middle of the bilayer.
    roughness
        Standard deviation of the radius, as a fraction of it: smooth bumps and dents.
    tilt
        Degrees by which it is rotated in the plane, from y towards x.
    seed
        Decides the bumps and dents.

    Raises
    ------
    ValueError
        If a radius is smaller than 60 Å, where a bilayer cannot bend to, or the roughness is not from 0 to 0.15.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    roughness: float = 0.03
    tilt: float = 0.0
    seed: int = 0
    _waves: tuple[Tensor, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.centre) != 3 or len(self.radii) != 3 or not np.isfinite([*self.centre, *self.radii, self.tilt]).all():
            raise ValueError(f"centre and radii are three numbers of Å each (z, y, x), got {self.centre} and {self.radii}")
        if min(self.radii) < 60:
            raise ValueError(f"the radii of a bilayer are at least 60 Å, got {self.radii}")
        if not 0 <= self.roughness <= 0.15:
            raise ValueError(f"roughness is a fraction of the radius from 0 to 0.15, got {self.roughness}")
        generator = torch.Generator().manual_seed(self.seed)
        # From two to four bumps around: shorter ones would bend a small vesicle more sharply than a bilayer bends.
        directions = torch.nn.functional.normalize(torch.randn(WAVES, 3, generator=generator), dim=1)
        lengths = 2 + 2 * torch.rand(WAVES, 1, generator=generator)
        object.__setattr__(self, "_waves", (directions * lengths, 2 * pi * torch.rand(WAVES, generator=generator)))

    def extent(self, margin: float = 0.0) -> np.ndarray:
        """Lowest and highest z, y, x in Å, shape (2, 3), between which all of it and `reach` Å around it must lie."""
        z, y, x = self.radii
        c, s = np.cos(np.deg2rad(self.tilt)), np.sin(np.deg2rad(self.tilt))
        half = np.array([z, np.hypot(y * c, x * s), np.hypot(y * s, x * c)]) * (1 + ROUGHEST * self.roughness) + margin
        return np.stack([np.array(self.centre) - half, np.array(self.centre) + half])


def profile(distance: Tensor, *, resolution: float = 0.0) -> Tensor:
    """Density of a bilayer in Da/Å³ above ice, in the scale of `densities`, at signed distances in Å from its middle.

    Two peaks of head groups 36.8 Å apart, hydrocarbon chains between them, and the trough of their methyl groups. Carbon
    scatters electrons more than oxygen does, so the chains are darker than ice in an image although they hold fewer electrons;
    only at the methyl groups do they come close to it. The comment above the constants derives the potentials. The profile is
    blurred to a resolution in Å, by a Gaussian of sigma 0.225 resolution as in `densities.from_structure`.
    """
    blur = 0.225 * resolution
    chain = _CHAIN_POTENTIAL / 2 * (_step(distance + _CHAIN_END, blur) - _step(distance - _CHAIN_END, blur))
    head, methyl = sqrt(_HEAD_WIDTH**2 + blur**2), sqrt(_METHYL_WIDTH**2 + blur**2)
    heads = _HEAD * (_gaussian(distance - _HEAD_PLACE, head) + _gaussian(distance + _HEAD_PLACE, head))
    return (heads + chain + 2 * _METHYL * _gaussian(distance, methyl)) / FREE_ATOMS


def _gaussian(distance: Tensor, sigma: float) -> Tensor:
    return torch.exp(-(distance**2) / (2 * sigma**2)) / (sigma * sqrt(2 * pi))


def _step(distance: Tensor, blur: float) -> Tensor:
    return torch.erf(distance / (sqrt(2) * sqrt(_CHAIN_WIDTH**2 + blur**2)))


def signed_distance(membrane: Membrane, points: Tensor) -> Tensor:
    """Signed distance in Å, negative inside, of points (..., 3; Å, zyx) from the middle of the bilayer.

    The implicit function over its gradient: exact to 1 Å within the bilayer; the sign is right everywhere.
    """
    waves, phases = (value.to(points) for value in membrane._waves)
    radii = torch.tensor(membrane.radii).to(points)
    q = (points - torch.tensor(membrane.centre).to(points)) @ _axes(membrane).to(points).T / radii
    size = q.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    u = q / size
    angle = u @ waves.T + phases
    scale = membrane.roughness * sqrt(2 / WAVES)
    value = size[..., 0] - 1 - scale * torch.cos(angle).sum(-1)
    # The roughness depends on the direction alone, so its gradient is tangential and falls with the distance.
    slope = scale * torch.sin(angle) @ waves
    tangential = slope - (slope * u).sum(-1, keepdim=True) * u
    return value / ((u + tangential / size) / radii).norm(dim=-1)


def surface(membrane: Membrane, count: int = 400) -> np.ndarray:
    """Points (count, 3) in Å, zyx, spread over the middle of the bilayer."""
    # A spiral from pole to pole in golden angles covers the sphere evenly.
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z, azimuth = 1 - 2 * i / count, pi * (3 - sqrt(5)) * i
    ring = (1 - z**2).sqrt()
    u = torch.stack([z, ring * torch.sin(azimuth), ring * torch.cos(azimuth)], dim=-1)
    waves, phases = (value.double() for value in membrane._waves)
    rough = membrane.roughness * sqrt(2 / WAVES) * torch.cos(u @ waves.T + phases).sum(-1)
    points = u * (1 + rough)[:, None] * torch.tensor(membrane.radii).double()
    return (points @ _axes(membrane)).numpy() + np.array(membrane.centre)


def _axes(membrane: Membrane) -> Tensor:
    """Rows are the directions, zyx, of the membrane's own z, y and x axes."""
    c, s = np.cos(np.deg2rad(membrane.tilt)), np.sin(np.deg2rad(membrane.tilt))
    return torch.tensor([[1.0, 0, 0], [0, c, s], [0, -s, c]], dtype=torch.float64)


def window(membrane: Membrane, shape: tuple[int, int, int], voxel_size: float) -> tuple[slice, slice, slice]:
    """The part of a volume that the bilayer, what it encloses and `REACH` Å around it can lie in; empty slices where none."""
    low, high = membrane.extent(REACH) / voxel_size
    first = np.clip(np.floor(low), 0, shape).astype(int)
    last = np.clip(np.ceil(high) + 1, first, np.maximum(shape, first)).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return z, y, x


def distance(
    membrane: Membrane,
    *,
    shape: tuple[int, int, int],
    voxel_size: float,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    device: torch.device | None = None,
) -> Tensor:
    """Signed distance of every voxel from the middle of the bilayer, negative inside, cut at ± `REACH`.

    The volume has `shape` (z, y, x) voxels of `voxel_size` Å, and voxel (0, 0, 0) has its centre at `origin` (zyx, Å). Returns
    Å, float32, of that shape.
    """
    z, y, x = (torch.arange(n, device=device) * voxel_size + start for n, start in zip(shape, origin, strict=True))
    out = torch.empty(shape, device=device)
    # Farther than this from the smooth ellipsoid, in its radii, a point is out of reach of the roughest surface.
    margin = ROUGHEST * membrane.roughness + REACH / min(membrane.radii)
    for start in range(0, len(z), STEP):
        part = slice(start, start + STEP)
        points = torch.stack(torch.meshgrid(z[part], y, x, indexing="ij"), dim=-1)
        radius = _radius(membrane, z[part], y, x) - 1
        near = radius.abs() <= margin
        out[part] = radius.sign() * REACH
        out[part][near] = signed_distance(membrane, points[near]).clamp(-REACH, REACH)
    return out


def _radius(membrane: Membrane, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Distance of a grid's points from the centre in radii of the smooth ellipsoid, shape (z, y, x)."""
    c, s = np.cos(np.deg2rad(membrane.tilt)), np.sin(np.deg2rad(membrane.tilt))
    z, y, x = (axis - middle for axis, middle in zip((z, y, x), membrane.centre, strict=True))
    along = (y[:, None] * c + x * s) / membrane.radii[1]
    across = (x * c - y[:, None] * s) / membrane.radii[2]
    return ((z / membrane.radii[0])[:, None, None] ** 2 + along**2 + across**2).sqrt()


def are_apart(first: Membrane, second: Membrane, gap: float) -> bool:
    """Whether two bilayers are at least `gap` Å apart, outside or one within the other."""
    mine, other = (torch.from_numpy(surface(one)) for one in (first, second))
    # If one lies within the other, only the points of the inner one are all on one side.
    sides = signed_distance(second, mine), signed_distance(first, other)
    return all(bool((side > gap).all()) or bool((side < -gap).all()) for side in sides)


def random_vesicles(
    count: int,
    *,
    low: Sequence[float],
    high: Sequence[float],
    rng: np.random.Generator,
    radii: tuple[float, float] = (200.0, 500.0),
    others: Sequence[Membrane] = (),
    gap: float = 2 * HALF_THICKNESS + 20.0,
    tries: int = 200,
) -> list[Membrane]:
    """Vesicles at random positions, at most `count`: fewer if no position is found in so many `tries` for each.

    Along z they lie whole between the corners `low` and `high` (Å, zyx), along y and x with their centres; the middles of two
    bilayers, also of the `others` that are there already, are at least `gap` Å apart. `radii` are the smallest and the largest
    in Å, drawn uniformly in the logarithm; the three of a vesicle differ by up to a fifth. ValueError if radii are below 60 Å.
    """
    if not 60 <= radii[0] <= radii[1]:
        raise ValueError(f"radii of vesicles are (smallest, largest) from 60 Å on, got {radii}")
    placed: list[Membrane] = []
    for _ in range(count):
        for _ in range(tries):
            size = radii[0] * (radii[1] / radii[0]) ** rng.random()
            vesicle = Membrane(
                centre=tuple(rng.uniform(low, high)),
                radii=tuple(np.maximum(size * rng.uniform(0.9, 1.1, 3), 60.0)),
                tilt=float(rng.uniform(0, 180)),
                seed=int(rng.integers(2**31)),
            )
            z = surface(vesicle)[:, 0]
            inside = z.min() - HALF_THICKNESS >= low[0] and z.max() + HALF_THICKNESS <= high[0]
            if inside and all(are_apart(vesicle, other, gap) for other in (*others, *placed)):
                placed.append(vesicle)
                break
    return placed
