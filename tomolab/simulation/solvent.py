"""A concentration in, density or power spectrum out: small soluble proteins between the particles.

In a specimen they are density. In boxes of single particles they are noise with a power spectrum.

>>> add(density, free, 100.0, voxel_size=10.0, rng=np.random.default_rng(1))
"""

from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

MASSES = (1e3, 100e3)
"""Smallest and largest mass in Da: from peptides to the largest proteins that are not particles of their own."""
MEDIAN, SPREAD = 8e3, 1.0
"""Median in Da and standard deviation in the logarithm of the masses, before they are cut to `MASSES`. By mass the median is
near 20 kDa. Larger ones make the power spectrum of a cell fall off faster between 1/100 and 1/40 Å⁻¹ than the measured one of
EMPIAR-10499 does (`benchmarks/bench_realism.py`)."""
DALTON = 6.022e-4
"""Da/Å³ of 1 mg/ml."""
NOT_HYDROGEN = 0.93
"""Fraction of a protein's mass in atoms other than hydrogen, which is what densities hold."""
SPECIFIC_VOLUME = 1.21
"""Å³ that a protein occupies per Da (0.73 ml/g)."""
BLUR = 0.45
"""Voxels, sigma: a resolution of two voxels."""
BATCH = 1_000
"""Most proteins placed at a time."""
TRIES = 200
"""Positions tested for each protein; the few that find none in a dense specimen are left out."""


def masses(shares: np.ndarray) -> np.ndarray:
    """Masses in Da below which these shares (0 to 1) of the proteins lie: a log-normal distribution cut to `MASSES`."""
    low, high = ndtr(np.log(np.array(MASSES) / MEDIAN) / SPREAD)
    return MEDIAN * np.exp(SPREAD * ndtri(low + (high - low) * shares))


def _radius(mass: Any) -> Any:
    """Radius in Å of balls with these masses (Da), an array or a tensor."""
    return (3 * SPECIFIC_VOLUME * mass / (4 * pi)) ** (1 / 3)


def add(density: np.ndarray, free: np.ndarray, concentration: float, *, voxel_size: float, rng: np.random.Generator) -> int:
    """Add soluble proteins to a density, in place, and return how many.

    Their number is Poisson, and each is a ball with the mass and the volume of a globular protein, blurred to two voxels as
    densities on this grid are; so mean and fluctuation of the background are those of such a solution. Each is tested at its
    centre and at six points below its surface, so that they hardly overlap with particles and with each other.

    Parameters
    ----------
    density
        Da/Å³, float32, shape (z, y, x), contiguous.
    free
        Where they may be, bool, of the same shape; beyond the volume as at its faces.
    concentration
        mg of protein per ml of free volume.
    voxel_size
        Å.
    rng
        Source of all that is drawn.
    """
    typical = masses((np.arange(1000) + 0.5) / 1000).mean()
    count = rng.poisson(concentration * DALTON / typical * np.count_nonzero(free) * voxel_size**3)
    # Large ones first: small ones find room between them. Neighbours in size also need boxes of one size.
    mass = np.sort(masses(rng.random(count)))[::-1]
    radius = _radius(mass) / voxel_size
    # Proteins of a batch are not tested against each other, so a batch occupies little of the volume.
    batch = int(np.clip(0.01 * np.count_nonzero(free) * voxel_size**3 / (SPECIFIC_VOLUME * typical), 1, BATCH))
    free = free.copy()
    placed = 0
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        positions, found = _positions(free, radius[part], rng)
        sums = NOT_HYDROGEN * mass[part][found] / voxel_size**3
        _add_balls(density, free, positions[found], radii=radius[part][found], sums=sums)
        placed += int(found.sum())
    return placed


def _positions(free: np.ndarray, radii: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random positions (n, 3) in voxels of balls in free voxels, and for which balls one was found."""
    points = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]) * 0.8
    last = np.array(free.shape) - 1
    positions, found = np.zeros((len(radii), 3)), np.zeros(len(radii), dtype=bool)
    for _ in range(TRIES):
        left = np.flatnonzero(~found)
        if not len(left):
            break
        tried = rng.random((len(left), 3)) * free.shape - 0.5
        tested = np.rint(tried[:, None] + points * radii[left, None, None]).astype(np.int64).clip(0, last)
        good = free[tuple(tested.transpose(2, 0, 1))].all(1)
        positions[left[good]], found[left[good]] = tried[good], True
    return positions, found


def _add_balls(density: np.ndarray, free: np.ndarray, positions: np.ndarray, *, radii: np.ndarray, sums: np.ndarray) -> None:
    """Add blurred balls of the given sums at positions (n, 3; voxels), and mark their voxels as not free."""
    if not len(positions):
        return
    half = int(np.ceil(radii.max() + 3 * BLUR))
    whole = np.rint(positions).astype(np.int64)
    step = np.arange(-half, half + 1)
    rest = torch.from_numpy(positions - whole)[:, :, None] - torch.from_numpy(step)
    z, y, x = (rest.float() ** 2).unbind(1)
    balls = _ball((z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]).sqrt(), torch.from_numpy(radii).float())
    indices = torch.zeros(1, dtype=torch.long)
    inside = torch.ones(1, dtype=torch.bool)
    for axis, size in enumerate(density.shape):
        view = [-1, 1, 1, 1]
        view[axis + 1] = len(step)
        at = torch.from_numpy(whole[:, axis, None] + step).reshape(view)
        inside = inside & (at >= 0) & (at < size)
        indices = indices * size + at.clamp(0, size - 1)
    scale = torch.from_numpy(sums).float() / balls.sum((1, 2, 3))
    # Density beyond the volume is left out.
    balls *= inside
    free.reshape(-1)[indices[balls > 0.5].numpy()] = False
    torch.from_numpy(density.reshape(-1)).index_add_(0, indices.reshape(-1), (balls * scale[:, None, None, None]).reshape(-1))


def _ball(distance: Tensor, radii: Tensor) -> Tensor:
    """Density at distances (n, …) from the centre of a ball of density 1 and radius (n,), blurred by `BLUR`."""
    distance = distance.clamp_min(1e-3)
    radii = radii[:, None, None, None]
    near, far = (radii - distance) / (sqrt(2) * BLUR), (radii + distance) / (sqrt(2) * BLUR)
    rim = (torch.exp(-(near**2)) - torch.exp(-(far**2))) * BLUR / (sqrt(2 * pi) * distance)
    return (torch.erf(near) + torch.erf(far)) / 2 - rim


def solution_power(k: Tensor, concentrations: Tensor, *, blur: float) -> Tensor:
    """Power spectrum, in Da²/Å³, of the density of a solution of small soluble proteins.

    n (⟨F²⟩ + ⟨F⟩² (S - 1)): balls with the masses of `masses`, F(k) = m 3 (sin x - x cos x) / x³ at x = 2π k R, that do
    not overlap, S(k) that of hard spheres after Percus and Yevick (Kotlarchyk & Chen, J. Chem. Phys. 79, 1983).

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
    k, amount = k.double(), concentrations.double()[:, None] * DALTON
    mass = torch.from_numpy(masses((np.arange(100) + 0.5) / 100)).to(k.device)
    x = 2 * pi * k.clamp_min(1e-4) * _radius(mass)[:, None]
    form = NOT_HYDROGEN * mass[:, None] * 3 * (torch.sin(x) - x * torch.cos(x)) / x**3
    form = form * torch.exp(-2 * (pi * blur * k) ** 2)
    fraction = amount * SPECIFIC_VOLUME
    order = _hard_spheres(2 * pi * k.clamp_min(1e-4) * 2 * _radius(mass.mean()), fraction)
    return (amount / mass.mean() * (form.square().mean(0) + form.mean(0).square() * (order - 1))).float()


def _hard_spheres(a: Tensor, fraction: Tensor) -> Tensor:
    """Structure factor of hard spheres of a volume `fraction`, at a = 2π k times their diameter (Kinning & Thomas 1984)."""
    a = a.clamp_min(0.05)
    alpha = (1 + 2 * fraction) ** 2 / (1 - fraction) ** 4
    beta = -6 * fraction * (1 + fraction / 2) ** 2 / (1 - fraction) ** 4
    gamma = fraction * alpha / 2
    sin, cos = torch.sin(a), torch.cos(a)
    first = alpha * (sin - a * cos) / a**2
    second = beta * (2 * a * sin + (2 - a**2) * cos - 2) / a**3
    third = gamma * (-(a**4) * cos + 4 * ((3 * a**2 - 6) * cos + (a**3 - 6 * a) * sin + 6)) / a**5
    return 1 / (1 + 24 * fraction * (first + second + third) / a)
