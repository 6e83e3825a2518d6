"""Surroundings: what is around a particle in a cell and in its box: pieces of membrane and small soluble protein.

Boxes are cubes with the particle near the middle; lengths are Å from the middle of the box. A membrane is added to a box as
density; soluble proteins are so small and many that they are noise with a power spectrum.
"""

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from tomolab.conventions import centre
from tomolab.simulation import membranes, solvent

BENDING = (300.0, 10_000.0)
"""Å, radii of curvature of the membranes: from small vesicles to the border of a cell."""


@dataclass(frozen=True)
class Sheets:
    """Pieces of membrane: the boxes `owner` (m,) they lie in; `normal` (m, 3) from the middle of the box towards each, `away`
    (m,) Å of it along the normal, and `bend` (m,) Å, radius of curvature, positive where the membrane curves away.
    """

    owner: Tensor
    normal: Tensor
    away: Tensor
    bend: Tensor

    def beyond(self, count: int) -> tuple[Tensor, Tensor]:
        """Normal (count, 3) and distance (count,) of the membrane of every box; endlessly far where there is none."""
        normal = torch.zeros(count, 3, device=self.normal.device)
        away = torch.full((count,), torch.inf, device=self.normal.device)
        normal[self.owner], away[self.owner] = self.normal, self.away
        return normal, away


def sheets(share: float, *, places: Tensor, radii: Tensor, gap: float, generator: torch.Generator) -> Sheets:
    """Draw membranes beside some of n particles, in any direction.

    Parameters
    ----------
    share
        Probability of a membrane, 0 to 1.
    places, radii
        Where the particles are, (n, 3), and how far they reach, (n,), in Å.
    gap
        Å, largest space between particle and membrane, drawn uniformly from 0.
    generator
        Source of all that is drawn.
    """
    device = generator.device
    if share == 0:
        empty = torch.zeros(0, device=device)
        return Sheets(empty.long(), empty.reshape(0, 3), empty, empty)
    owner = (torch.rand(len(places), generator=generator, device=device) < share).nonzero()[:, 0]
    normal = torch.nn.functional.normalize(torch.randn(len(owner), 3, generator=generator, device=device), dim=-1)
    space, bend, side = torch.rand(3, len(owner), generator=generator, device=device)
    apart = radii[owner] + membranes.HALF_THICKNESS + gap * space
    away = (places[owner] * normal).sum(-1) + apart
    radius = BENDING[0] * (BENDING[1] / BENDING[0]) ** bend
    # Inside a vesicle there must be room for the particle.
    return Sheets(owner, normal, away, torch.where(side < 0.5, radius, -radius - apart))


def add_sheets(volumes: Tensor, pieces: Sheets, *, voxel_size: float) -> None:
    """Add bilayers to volumes (n, box, box, box) in Da/Å³, in place."""
    if len(pieces.owner) == 0:
        return
    box = volumes.shape[-1]
    axis = (torch.arange(box, device=volumes.device) - centre(box)) * voxel_size
    middle = pieces.normal * (pieces.away + pieces.bend)[:, None]
    z, y, x = ((axis - middle[:, i, None]) ** 2 for i in range(3))
    distance = (
        (z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]).sqrt_().sub_(pieces.bend.abs()[:, None, None, None])
    )
    # A table in steps of half an Å instead of millions of exponentials.
    reach = membranes.REACH
    table = membranes.profile(
        torch.linspace(-reach, reach, int(4 * reach) + 1, device=volumes.device), resolution=2 * voxel_size
    )
    place = distance.add_(reach).mul_(2).round_().clamp_(0, len(table) - 1).int()
    volumes.index_add_(0, pieces.owner, table[place])


def solution_power(k: Tensor, concentrations: Tensor, *, blur: float) -> Tensor:
    """Power spectrum, in Da²/Å³, of the density of a solution of small soluble proteins.

    n (⟨F²⟩ + ⟨F⟩² (S - 1)): balls with the masses of `solutes`, F(k) = m 3 (sin x - x cos x) / x³ at x = 2π k R, that keep
    out of each other, S(k) that of hard spheres after Percus and Yevick (Kotlarchyk & Chen, J. Chem. Phys. 79, 1983).

    Parameters
    ----------
    k
        Frequencies in 1/Å, shape (m,).
    concentrations
        mg/ml, shape (n,).
    blur
        Å, standard deviation of the Gaussian that densities are blurred with.

    Returns
    -------
    Tensor
        Shape (n, m).
    """
    k, amount = k.double(), concentrations.double()[:, None] * solvent.DALTON
    masses = torch.from_numpy(solvent.masses((np.arange(100) + 0.5) / 100)).to(k.device)
    x = 2 * pi * k.clamp_min(1e-4) * _radius(masses)[:, None]
    form = solvent.NOT_HYDROGEN * masses[:, None] * 3 * (torch.sin(x) - x * torch.cos(x)) / x**3
    form = form * torch.exp(-2 * (pi * blur * k) ** 2)
    share = amount * solvent.SPECIFIC_VOLUME
    order = _hard_spheres(2 * pi * k.clamp_min(1e-4) * 2 * _radius(masses.mean()), share)
    return (amount / masses.mean() * (form.square().mean(0) + form.mean(0).square() * (order - 1))).float()


def _radius(masses: Tensor) -> Tensor:
    return (3 * solvent.SPECIFIC_VOLUME / (4 * pi) * masses) ** (1 / 3)


def _hard_spheres(a: Tensor, share: Tensor) -> Tensor:
    """Structure factor of spheres that take a `share` of the room, at a = 2π k times their diameter (Kinning & Thomas 1984)."""
    a = a.clamp_min(0.05)
    alpha = (1 + 2 * share) ** 2 / (1 - share) ** 4
    beta = -6 * share * (1 + share / 2) ** 2 / (1 - share) ** 4
    gamma = share * alpha / 2
    sin, cos = torch.sin(a), torch.cos(a)
    first = alpha * (sin - a * cos) / a**2
    second = beta * (2 * a * sin + (2 - a**2) * cos - 2) / a**3
    third = gamma * (-(a**4) * cos + 4 * ((3 * a**2 - 6) * cos + (a**3 - 6 * a) * sin + 6)) / a**5
    return 1 / (1 + 24 * share * (first + second + third) / a)
