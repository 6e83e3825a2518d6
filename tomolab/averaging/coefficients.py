"""Takes subtomograms, gives their Fourier coefficients inside a sphere; samples a Fourier grid and inserts into one.

A map of `box` voxels is kept as a centred Fourier grid of twice the density ("oversampled"), so that trilinear interpolation
is accurate: `sample` reads it at rotated points, `insert` is its transpose, and `to_plain_grid` brings inserted coefficients
back to the plain grid. Frequencies are in cycles per box, zyx. Of each pair k, -k one is kept; k = 0 is not.

>>> data = read(subtomograms, box=32, radius_cycles=12.0, device=torch.device("cpu"))
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tomolab import fourier, particles
from tomolab.conventions import centre
from tomolab.subtomograms.dataset import Subtomograms

OVERSAMPLING = 2
BATCH = 64
"""Subtomograms read at a time."""
MAX_MEMORY = 2**30
"""Bytes of coefficients that are kept in memory. More lie in a memory-mapped file."""


@dataclass(frozen=True)
class Coefficients:
    """Fourier coefficients of n subtomograms at m points.

    `values` (n, m) complex, zero in the missing wedge; `points` (m, 3), coarse to fine; `wedges` (u, m) the distinct wedges
    as masks of 0 and 1, and `wedge_index` (n,) the wedge of each subtomogram; `box` the edge in voxels.
    """

    values: Tensor
    points: Tensor
    wedges: Tensor
    wedge_index: Tensor
    box: int

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Tensor) -> "Coefficients":
        """Only the subtomograms in `rows`."""
        return Coefficients(self.values[rows], self.points, self.wedges, self.wedge_index[rows], self.box)

    def inside(self, radius_cycles: float) -> "Coefficients":
        """Only the points up to a radius. They come first, so nothing is copied."""
        count = int((self.points.norm(dim=-1) <= radius_cycles + 1e-3).sum())
        return Coefficients(self.values[:, :count], self.points[:count], self.wedges[:, :count], self.wedge_index, self.box)


def half_sphere(box: int, radius_cycles: float, *, device: torch.device | None = None) -> Tensor:
    """Points (m, 3) of the rfftn grid with 0 < length <= `radius_cycles`, by length, one of each pair k, -k."""
    k = (fourier.frequencies((box,) * 3, device=device) * box).round()
    z, y, x = k.unbind(-1)
    upper = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    # A coefficient at Nyquist is its own conjugate partner and cannot be shifted.
    points = k[upper & (k.norm(dim=-1) <= radius_cycles + 1e-3) & (k.abs().amax(-1) < box / 2)]
    return points[points.norm(dim=-1).argsort(stable=True)]


def transform(
    volumes: Tensor, tilt_min: Tensor, tilt_max: Tensor, *, radius_cycles: float, tilt_axis: Tensor | float = 0.0
) -> Coefficients:
    """Coefficients up to a radius of volumes (n, box, box, box).

    Tilt ranges (n,) are in degrees, as is `tilt_axis` (a number or (n,); from y towards x).
    """
    box = volumes.shape[-1]
    points = half_sphere(box, radius_cycles, device=volumes.device)
    axis = torch.as_tensor(tilt_axis).to(tilt_min).expand_as(tilt_min)
    wedges, index = _wedges(torch.stack([tilt_min, tilt_max, axis], dim=1).to(volumes), points, box)
    return Coefficients(_transform(volumes, points) * wedges[index], points, wedges, index, box)


def _transform(volumes: Tensor, points: Tensor) -> Tensor:
    """Coefficients (n, m) of volumes about their centres."""
    z, y, x = points.long().unbind(-1)
    box = volumes.shape[-1]
    phase = shift_phases(points, torch.full((1, 3), -float(centre(box)), device=volumes.device), box)
    return torch.fft.rfftn(volumes.float(), dim=(-3, -2, -1))[:, z, y, x] * phase


def _wedges(geometries: Tensor, points: Tensor, box: int) -> tuple[Tensor, Tensor]:
    """Distinct wedges (u, m) of tilt ranges and axes (n, 3), and which one each row has (n,)."""
    z, y, x = points.long().unbind(-1)
    distinct, index = geometries.unique(dim=0, return_inverse=True)
    return torch.cat([fourier.wedge(box, low, high, axis=axis)[:, z, y, x] for low, high, axis in distinct]), index


def read(subtomograms: Subtomograms, *, box: int, radius_cycles: float, device: torch.device) -> Coefficients:
    """Read the coefficients of the middle `box` voxels of every subtomogram, up to a radius.

    On a GPU they are in its memory. On a CPU they are in memory up to 1 GiB, or else in a temporary file of that size, which
    is removed with the result. A box with a value that is not finite is a ValueError.
    """
    if not len(subtomograms):
        raise ValueError("there are no subtomograms to read")
    first = centre(subtomograms.box) - centre(box)
    middle = slice(first, first + box)
    points = half_sphere(box, radius_cycles, device=device)
    geometries = torch.from_numpy(particles.geometries(subtomograms.particles)).float().to(device)
    wedges, index = _wedges(geometries, points, box)
    values = _allocate(len(subtomograms), len(points), device)
    rows = torch.arange(len(subtomograms), device=device).split(BATCH)
    for (ids, volumes), some in zip(subtomograms.batches(BATCH), rows, strict=True):
        wrong = ~np.isfinite(volumes).all(axis=(1, 2, 3))
        if wrong.any():
            raise ValueError(
                f"the boxes of particles {ids[wrong][:5].tolist()} hold values that are NaN or infinite: leave them out"
            )
        batch = torch.from_numpy(np.ascontiguousarray(volumes[:, middle, middle, middle])).to(device)
        values[int(some[0]) : int(some[-1]) + 1] = _transform(batch, points) * wedges[index[some]]
    return Coefficients(values, points, wedges, index, box)


def _allocate(count: int, points: int, device: torch.device) -> Tensor:
    if device.type != "cpu" or 8 * count * points <= MAX_MEMORY:
        return torch.empty(count, points, dtype=torch.complex64, device=device)
    # The file has no name, so nothing is left behind however a run ends. The map stays valid after it is closed.
    with tempfile.TemporaryFile(prefix="tomolab-") as file:
        return torch.from_numpy(np.memmap(file, dtype=np.complex64, mode="w+", shape=(count, points)))


def read_with_poses(
    subtomograms: Subtomograms, turns: np.ndarray, shifts: np.ndarray, *, radius_cycles: float, device: torch.device
) -> Iterator[tuple[Coefficients, Tensor, Tensor]]:
    """Read subtomograms with rotations (n, 3, 3) and shifts (n, 3) in Å, batch by batch.

    Yields coefficients, rotations (b, 3, 3) and shifts (b, 3) in voxels.
    """
    tables = (turns, shifts / subtomograms.voxel_size, particles.geometries(subtomograms.particles))
    parts = (torch.from_numpy(one).float().to(device).split(BATCH) for one in tables)
    for (_, volumes), turn, shift, tilts in zip(subtomograms.batches(BATCH), *parts, strict=True):
        low, high, axis = tilts.T
        batch = torch.from_numpy(volumes).to(device)
        yield transform(batch, low, high, tilt_axis=axis, radius_cycles=radius_cycles), turn, shift


def shift_phases(points: Tensor, shifts: Tensor, box: int) -> Tensor:
    """Factors (..., m) that move density by `shifts` (..., 3) voxels, zyx, towards higher index."""
    angle = shifts.to(points) @ points.T * (-2 * torch.pi / box)
    return torch.complex(angle.cos(), angle.sin())


def in_pose(grid: Tensor, turns: Tensor, shifts: Tensor, *, points: Tensor, box: int) -> Tensor:
    """Coefficients (..., m) of the map behind `grid` in poses: rotations (..., 3, 3) and shifts (..., 3) in voxels."""
    return sample(grid, turns, points) * shift_phases(points, shifts, box)


def sample(grid: Tensor, rotations: Tensor, points: Tensor) -> Tensor:
    """Coefficients (..., m) of the map behind `grid`, rotated by `rotations` (..., 3, 3), at `points` (m, 3).

    The transform of a rotated density at k is that of the density at R^-1 k. Trilinear.
    """
    (real,), (imaginary,) = sample_parts(grid[None], rotations, points)
    return torch.complex(real, imaginary)


def sample_parts(grids: Tensor, rotations: Tensor, points: Tensor) -> Tensor:
    """`sample` of several grids (c, size, size, size) at once: (2, c, ..., m), real and imaginary parts."""
    size = grids.shape[-1]
    places = (points @ rotations) * (OVERSAMPLING * 2 / (size - 1))  # row vectors: k R is R^-1 k
    places = places + (2 * centre(size) / (size - 1) - 1)
    channels = torch.cat([grids.real, grids.imag])[None]
    flat = places.reshape(1, 1, 1, -1, 3).flip(-1)
    out = torch.nn.functional.grid_sample(channels, flat, mode="bilinear", padding_mode="zeros", align_corners=True)
    return out.reshape(2, len(grids), *places.shape[:-1])


def insert(values: Tensor, weights: Tensor, rotations: Tensor, *, points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Back-project coefficients (p, m) into the frame of the reference: the transpose of `sample`.

    The values are already weighted. `rotations` (p, 3, 3) are reference to tomogram, `points` (m, 3) in cycles per box. Returns
    the sums of the values and of the weights on an oversampled grid (size, size, size), complex and real.
    """
    places = ((points @ rotations) * OVERSAMPLING + centre(size)).reshape(-1, 3)
    corner = places.floor()
    near = places - corner
    channels = torch.stack([values.real.flatten(), values.imag.flatten(), weights.flatten()], dim=1)
    out = torch.zeros(size**3, 3, dtype=channels.dtype, device=channels.device)
    strides = torch.tensor([size * size, size, 1], device=places.device)
    base = (corner.long() * strides).sum(-1)
    for step in torch.cartesian_prod(*[torch.arange(2, device=places.device)] * 3):
        share = torch.where(step.bool(), near, 1 - near).prod(-1)
        out.index_add_(0, base + int((step * strides).sum()), channels * share[:, None])
    out = out.reshape(size, size, size, 3)
    sums, sampling = torch.complex(out[..., 0], out[..., 1]), out[..., 2]
    return sums + _mirror(sums).conj(), sampling + _mirror(sampling)


def _mirror(grid: Tensor) -> Tensor:
    """The grid at -k (grid of even size, centred: index 0 has no partner and stays empty)."""
    flipped = torch.zeros_like(grid)
    flipped[1:, 1:, 1:] = grid[1:, 1:, 1:].flip(0, 1, 2)
    return flipped


def grid_size(radius_cycles: float) -> int:
    """Edge of the oversampled grid of the smallest even plain grid that holds a radius, with a margin of two."""
    return OVERSAMPLING * 2 * (int(radius_cycles) + 2)


def to_plain_grid(sums: Tensor, sampling: Tensor) -> tuple[Tensor, Tensor]:
    """Bring an oversampled grid of sums and sampling back to the plain grid, by cropping in real space.

    The crop removes the copies of the particle outside of the finite box, and undoes the attenuation of the trilinear kernel.
    """
    plain = sums.shape[-1] // OVERSAMPLING
    first = centre(sums.shape[-1]) - centre(plain)
    cut = (slice(first, first + plain),) * 3
    kernel = attenuation(plain, device=sums.device)
    density = to_density(sums)[cut] / kernel
    spread = to_density(sampling.to(sums.dtype))[cut] / kernel
    scale = OVERSAMPLING**3
    return to_grid(density) * scale, (to_grid(spread).real * scale).clamp_min(0)


def attenuation(plain: int, *, device: torch.device | None = None) -> Tensor:
    """What trilinear interpolation on the oversampled grid does to a density of `plain` voxels: sinc^2 along each axis."""
    axis = torch.sinc((torch.arange(plain, device=device) - centre(plain)) / (plain * OVERSAMPLING)) ** 2
    return axis[:, None, None] * axis[:, None] * axis


def oversample(density: Tensor) -> Tensor:
    """The oversampled grid of a density (plain, plain, plain), for `sample`."""
    plain = density.shape[-1]
    size = plain * OVERSAMPLING
    padded = torch.zeros(size, size, size, dtype=density.dtype, device=density.device)
    first = centre(size) - centre(plain)
    padded[(slice(first, first + plain),) * 3] = density / attenuation(plain, device=density.device)
    return to_grid(padded)


def gradient_grids(density: Tensor) -> Tensor:
    """Oversampled grids (4, size, size, size) of a density: its transform, and the derivatives of that by z, y and x.

    The derivative by k of the transform of f(r) is the transform of -2 pi i r / box f(r). This is exact; differences of
    interpolated values would be as coarse as the grid.
    """
    plain = density.shape[-1]
    axis = (torch.arange(plain, device=density.device) - centre(plain)) / plain
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    return torch.stack([oversample(density), *(-2j * torch.pi * oversample(density * place) for place in places)])


def to_grid(density: Tensor) -> Tensor:
    """Centred Fourier grid of a centred density."""
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(density)))


def to_density(grid: Tensor) -> Tensor:
    """Centred density of a centred Fourier grid (real part)."""
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(grid))).real
