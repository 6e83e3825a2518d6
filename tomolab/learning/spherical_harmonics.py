"""Fourier amplitudes in, spherical harmonics on shells and their power out, which does not change with rotation.

Out come the coefficients a_lm(r) of v(r, .) = sum a_lm(r) Y_lm on shells r, and the power
p_l(r) = sum_m |a_lm(r)|², which a rotation leaves as it is because it mixes only coefficients of one degree. Amplitudes
of a real volume are even, so degrees are even.

>>> plan = plan_shells(20, degree=8)
>>> power(coefficients(amplitudes(volumes, plan), plan), plan).shape
torch.Size([100, 236])
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.special import sph_harm_y
from torch import Tensor

OVERSAMPLING = 2
"""Points of the transform per point that the box needs: an object as large as the box changes the amplitude from one point
to the next, too fast to interpolate between them."""


@dataclass(frozen=True, eq=False)
class ShellPlan:
    """What is the same for all volumes of one box; made by `plan_shells`.

    Parameters
    ----------
    box
        Edge of the volumes in voxels.
    degrees
        For each shell the degree of every coefficient, (coefficients,).
    points
        For each shell the points of the oversampled rfftn grid that it touches, as flat indices.
    matrices
        For each shell what takes the amplitudes there to coefficients, (points, coefficients).
    """

    box: int
    degrees: tuple[Tensor, ...]
    points: tuple[Tensor, ...]
    matrices: tuple[Tensor, ...]


@functools.lru_cache(maxsize=4)
def plan_shells(box: int, *, degree: int, shells: int | None = None) -> ShellPlan:
    """Prepare shells of radius 1, 2, ... Fourier voxels (1 / box cycles per voxel each).

    An object that fits into the box varies over a shell of radius r up to degree π r: beyond that there is nothing to find.

    Parameters
    ----------
    box
        Edge of the volumes in voxels.
    degree
        Highest degree, even.
    shells
        How many shells; up to Nyquist by default.

    Raises
    ------
    ValueError
        If the degree is odd or negative, or there are no shells or more than up to Nyquist.
    """
    count = box // 2 if shells is None else shells
    if not 1 <= count <= box // 2:
        raise ValueError(f"a box of {box} voxels has 1 to {box // 2} shells up to Nyquist, got shells={shells}")
    if degree < 0 or degree % 2:
        raise ValueError(f"the highest degree must be even (amplitudes have no odd ones) and not negative, got {degree}")
    made = [_shell(box * OVERSAMPLING, r * OVERSAMPLING, min(degree, 2 * int(np.pi * r / 2))) for r in range(1, count + 1)]
    degrees, points, matrices = (tuple(torch.from_numpy(one[i]) for one in made) for i in range(3))
    return ShellPlan(box, degrees, points, matrices)


def _shell(grid: int, radius: int, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Degrees, points and matrix of one shell of `radius` points in a transform of `grid`³ points."""
    latitudes = max(int(np.ceil(np.pi * radius)), degree + 2)
    # Gauss-Legendre nodes along the polar axis integrate products of harmonics exactly.
    heights, weights = np.polynomial.legendre.leggauss(latitudes)
    azimuths = np.arange(2 * latitudes) * np.pi / latitudes
    z, azimuth = (axis.ravel() for axis in np.meshgrid(heights, azimuths, indexing="ij"))
    area = np.repeat(weights, 2 * latitudes) * np.pi / latitudes
    degrees, values = _real_harmonics(degree, np.arccos(z), azimuth)
    across = np.sqrt(1 - z**2)
    positions = radius * np.stack([z, across * np.sin(azimuth), across * np.cos(azimuth)], axis=1)
    points, interpolation = _interpolation(positions, grid)
    return degrees, points, np.ascontiguousarray(interpolation.T @ (values * area[:, None]), dtype=np.float32)


def _real_harmonics(degree: int, polar: np.ndarray, azimuth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Degrees (c,) and real harmonics (p, c) of the even degrees up to `degree`, orthonormal on the sphere."""
    degrees, columns = [], []
    for one in range(0, degree + 1, 2):
        columns.append(sph_harm_y(one, 0, polar, azimuth).real)
        for order in range(1, one + 1):
            harmonic = np.sqrt(2) * sph_harm_y(one, order, polar, azimuth)
            columns += [harmonic.real, harmonic.imag]
        degrees += [one] * (2 * one + 1)
    return np.array(degrees), np.stack(columns, axis=1)


def _interpolation(positions: np.ndarray, grid: int) -> tuple[np.ndarray, sparse.csr_array]:
    """Flat points (k,) of the rfftn grid and the trilinear matrix (p, k) from them to `positions` (p, 3; zyx, grid points)."""
    low = np.floor(positions).astype(int)
    fraction = positions - low
    flat, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        point = (low + corner) % grid
        # Amplitudes are even: the half that rfftn leaves out is the other one turned about the origin.
        point = np.where(point[:, 2:] > grid // 2, -point % grid, point)
        flat.append((point[:, 0] * grid + point[:, 1]) * (grid // 2 + 1) + point[:, 2])
        weights.append(np.where(corner, fraction, 1 - fraction).prod(axis=1))
    points, column = np.unique(np.concatenate(flat), return_inverse=True)
    row = np.tile(np.arange(len(positions)), 8)
    return points, sparse.csr_array((np.concatenate(weights), (row, column)), shape=(len(positions), len(points)))


def amplitudes(volumes: Tensor, plan: ShellPlan) -> Tensor:
    """Fourier amplitudes (n, grid points) of volumes (n, box, box, box), on the oversampled rfftn grid."""
    if volumes.ndim != 4 or volumes.shape[1:] != (plan.box,) * 3:
        raise ValueError(f"the plan is for volumes (n, {plan.box}, {plan.box}, {plan.box}), got {tuple(volumes.shape)}")
    return torch.fft.rfftn(volumes, s=(plan.box * OVERSAMPLING,) * 3, dim=(1, 2, 3)).abs().flatten(1)


def coefficients(values: Tensor, plan: ShellPlan) -> list[Tensor]:
    """Coefficients (n, c) for every shell, of even values (n, grid points) on the oversampled rfftn grid."""
    where = values.device
    return [values[:, points.to(where)] @ matrix.to(where) for points, matrix in zip(plan.points, plan.matrices, strict=True)]


def power(found: list[Tensor], plan: ShellPlan) -> Tensor:
    """Rotation invariants (n, features) of the coefficients of every shell: sum_m a_lm(r) a_lm(s) for every degree and s <= r.

    Those between two shells keep how the shells are turned against each other.
    """
    columns = []
    for i, (first, degrees) in enumerate(zip(found, plan.degrees, strict=True)):
        for second in found[: i + 1]:
            # An inner shell has fewer degrees, and they come first.
            common = second.shape[1]
            bands = torch.unique_consecutive(degrees[:common], return_counts=True)[1].tolist()
            columns += [band.sum(1) for band in (first[:, :common] * second).split(bands, dim=1)]
    return torch.stack(columns, dim=1)
