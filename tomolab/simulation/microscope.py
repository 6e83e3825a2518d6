"""Clean boxes of one particle each in, imaged boxes out: CTF, missing wedge and noise, applied in Fourier space.

Every point of Fourier space is observed at one tilt (`fourier.tilts`), so what changes from image to image of a tilt series,
such as defocus, damage and loss of electrons, is a function of that tilt. Points beyond Nyquist are not observed.

>>> microscope = prepare(Imaging(snr=0.1), (40, 40, 40), voxel_size=10.0)
>>> images, conditions = image(volumes, microscope, generator)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import pi, prod, radians

import numpy as np
import torch
from torch import Tensor

from tomolab import ctf, fourier
from tomolab.conventions import AXIS, HAND, WEDGE
from tomolab.simulation import solvent
from tomolab.simulation.imaging import Imaging, Range, bounds, draw

FIELD = 6000.0
"""Å across the tilt axis in which particles lie: the field of view of a camera at 1.5 Å a pixel."""
ON_AXIS = 0.38
"""Distance from the tilt axis of a point on it, in points of the grid: the mean distance of a unit square from its centre."""

LEVELS = 512
"""Frequencies at which the power of a solution is calculated."""
SLACK = 1e-3
"""Degrees beyond a tilt range that still count as in it, as in `fourier.wedge`."""


@dataclass(frozen=True)
class Conditions:
    """The imaging conditions drawn for n particles, each of shape (n,), or (1,) where one number holds for all.

    `snr`; `defocus` in µm of underfocus and `dose` in e/Å² (NaN without); `tilt_min`, `tilt_max`, `tilt_axis` in degrees;
    `height` and `across` in Å: position in the ice along the beam and across the tilt axis, from its middle; `soluble_protein`
    in mg/ml.
    """

    snr: Tensor
    defocus: Tensor
    dose: Tensor
    tilt_min: Tensor
    tilt_max: Tensor
    tilt_axis: Tensor
    height: Tensor
    across: Tensor
    soluble_protein: Tensor

    def columns(self, count: int) -> dict[str, np.ndarray]:
        """Columns of the table of `count` particles."""
        names = ("snr", "defocus", "dose", *WEDGE, AXIS)
        return {name: getattr(self, name).expand(count).cpu().numpy() for name in names}


@dataclass(frozen=True)
class Microscope:
    """Imaging prepared for boxes of one shape: m points of the rfftn grid, and what is the same there for all particles.

    `index` (m,) into the flat grid; `k` (m, 3) in 1/Å; `counts` (m,) how often a point counts in the whole grid (0 for zero
    frequency); `mirrored` (2, p) positions among the m of points and of their conjugates, where both are kept; `phases` (2, m)
    of the CTF at defocus 0 and per µm; `envelope`, `misaligned`, `modulation` (m,) factors; `decay` (m,) damage per e/Å².
    """

    imaging: Imaging
    shape: tuple[int, int, int]
    voxel_size: float
    index: Tensor
    k: Tensor
    counts: Tensor
    mirrored: Tensor
    phases: Tensor
    envelope: Tensor
    misaligned: Tensor
    modulation: Tensor
    decay: Tensor


def prepare(imaging: Imaging, shape: Sequence[int], *, voxel_size: float, device: torch.device | None = None) -> Microscope:
    """Calculate what all boxes of a (z, y, x) shape and a voxel size in Å have in common."""
    z, y, x = shape
    grid = fourier.frequencies((z, y, x), device=device)
    index = ((grid.norm(dim=-1) <= 0.5) & _observable(imaging, grid)).flatten().nonzero()[:, 0]
    cycles = grid.reshape(-1, 3)[index]
    k = cycles / voxel_size
    radius = k.norm(dim=-1)
    parts = ctf.phases(radius, imaging.lens)
    alone = (cycles[:, 2] == 0) | (cycles[:, 2] == 0.5)
    return Microscope(
        imaging=imaging,
        shape=(z, y, x),
        voxel_size=voxel_size,
        index=index,
        k=k,
        counts=torch.where(alone, 1.0, 2.0) * (radius > 0),
        mirrored=_mirrored(index, (z, y, x), alone),
        phases=torch.stack([parts["flat"], parts["per_micron"]]),
        envelope=imaging.blur(radius),
        misaligned=torch.exp(-2 * (pi * imaging.misalignment * radius) ** 2),
        modulation=ctf.detector(radius, imaging.detector_pixel or voxel_size),
        decay=-ctf.damage(radius, torch.tensor(1.0, device=device), voltage=imaging.voltage).log(),
    )


def _observable(imaging: Imaging, grid: Tensor) -> Tensor:
    """Points of a grid that any particle may observe; the others are left out where all share one tilt axis."""
    lowest, highest = bounds(imaging.tilts[0])[0], bounds(imaging.tilts[1])[1]
    low, high = bounds(imaging.tilt_axis)
    if low != high or lowest == -90 or highest == 90:
        return torch.ones(grid.shape[:-1], dtype=torch.bool, device=grid.device)
    tilts = fourier.tilts(grid, low)
    return ~((tilts < lowest - SLACK) | (tilts > highest + SLACK))


def _mirrored(index: Tensor, shape: tuple[int, int, int], alone: Tensor) -> Tensor:
    """Positions among `index` of the points in the planes that hold both of a pair k, -k, and of their partners."""
    z, y, x = shape
    half = x // 2 + 1
    here = alone.nonzero()[:, 0]
    at = index[here]
    partner = ((-(at // (y * half))) % z * y + (-(at // half % y)) % y) * half + at % half
    position = torch.zeros(z * y * half, dtype=torch.long, device=index.device)
    position[index] = torch.arange(len(index), device=index.device)
    return torch.stack([here, position[partner]])


def draw_conditions(imaging: Imaging, count: int, generator: torch.Generator) -> Conditions:
    """Draw the imaging conditions of `count` particles."""

    def drawn(value: Range | None, *, logarithmic: bool = False) -> Tensor:
        if value is None:
            return torch.full((1,), torch.nan, device=generator.device)
        low, high = bounds(value)
        return draw(value, 1 if low == high else count, generator, logarithmic=logarithmic)

    flat = imaging.thickness == 0
    return Conditions(
        snr=drawn(imaging.snr, logarithmic=True),
        defocus=drawn(imaging.defocus),
        dose=drawn(imaging.dose),
        tilt_min=drawn(imaging.tilts[0]),
        tilt_max=drawn(imaging.tilts[1]),
        tilt_axis=drawn(imaging.tilt_axis),
        height=drawn(0.0 if flat else (-imaging.thickness / 2, imaging.thickness / 2)),
        across=drawn(0.0 if flat else (-FIELD / 2, FIELD / 2)),
        soluble_protein=drawn(imaging.soluble_protein),
    )


def transfer(microscope: Microscope, conditions: Conditions) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of the points, of shape (n, m), or (1, m) where they are the same for all particles.

    Returns
    -------
    signal, lens, observed
        The whole transfer of density; that of the lens (CTF and envelope); 1 inside the tilt range and 0 in the missing wedge.
    """
    imaging = microscope.imaging
    tilts = fourier.tilts(microscope.k, conditions.tilt_axis[:, None])
    # Points on the axis (NaN) are observed at every tilt.
    low, high = conditions.tilt_min[:, None], conditions.tilt_max[:, None]
    observed = ~((tilts < low - SLACK) | (tilts > high + SLACK))
    tilts = tilts.nan_to_num(0.0)
    lens = observed.float()
    if imaging.defocus is not None:
        flat, per_micron = microscope.phases
        focus = conditions.defocus[:, None]
        if imaging.thickness > 0:
            angles = torch.deg2rad(tilts)
            height = conditions.height[:, None] * torch.cos(angles) - conditions.across[:, None] * torch.sin(angles)
            focus = focus + HAND * 1e-4 * height
        lens = torch.sin(flat + per_micron * focus) * microscope.envelope * observed
    signal = lens * microscope.misaligned if imaging.misalignment > 0 else lens
    if imaging.dose is not None:
        signal = signal * torch.exp(-_accumulated(conditions, tilts, imaging.tilt_step) * microscope.decay)
    if imaging.thickness > 0:
        # Images are normalised before back-projection: fewer electrons leave less signal, not more noise.
        signal = signal * ctf.survivors(imaging.thickness, tilts).sqrt()
    if imaging.snr is None:
        signal = signal * microscope.modulation
    return signal, lens, observed


def _accumulated(conditions: Conditions, tilts: Tensor, step: float) -> Tensor:
    """Dose in e/Å², shape (n, m), before tilts in dose-symmetric order, in which all smaller tilts are recorded first."""
    low, high = conditions.tilt_min[:, None], conditions.tilt_max[:, None]
    largest = tilts.abs()
    recorded = torch.minimum(largest, high) - torch.maximum(-largest, low)
    return conditions.dose[:, None] * (recorded.clamp_min(step / 2) / (high - low + step))


def image(
    volumes: Tensor,
    microscope: Microscope,
    generator: torch.Generator,
    *,
    unit: bool = False,
) -> tuple[Tensor, Conditions]:
    """Image clean volumes (n, z, y, x), bright on dark.

    With an SNR, half the variance of the noise enters before the CTF and half after it through the detector; both halves
    are scaled so that after all filters noise has the variance of the imaged signal divided by SNR (Förster et al. 2008).
    Without, volumes are Da/Å³, and the noise is that of the electrons that the dose brings.

    Parameters
    ----------
    volumes
        Density, of the shape the microscope was prepared for.
    microscope
        Made by `prepare` on the device of the volumes.
    generator
        Source of all that is drawn, on the device of the volumes.
    unit
        Normalise each image to mean 0 and standard deviation 1.

    Returns
    -------
    images, conditions
        Images (n, z, y, x), and what was drawn; its SNR is the measured one if the dose decides.
    """
    conditions = draw_conditions(microscope.imaging, len(volumes), generator)
    signal, lens, observed = transfer(microscope, conditions)
    points = torch.fft.rfftn(volumes, dim=(1, 2, 3)).flatten(1)[:, microscope.index] * signal
    power = _power(points, microscope)
    noise: Tensor | float = 0.0
    if bounds(microscope.imaging.soluble_protein)[1] > 0:
        # Particles displace the solution, which lowers their contrast.
        contrast = 1 - conditions.soluble_protein * solvent.DALTON * solvent.SPECIFIC_VOLUME
        noise = _solvent_power(microscope, conditions) * signal**2
        points, power = points * contrast[:, None], power * contrast**2 + _variances(noise, microscope)
    if microscope.imaging.snr is None:
        electrons = _shot_noise(microscope, conditions, observed)
        conditions = replace(conditions, snr=power / _variances(electrons, microscope))
    else:
        electrons = _stated_noise(microscope, lens, observed) * (power / conditions.snr)[:, None]
    noise = noise + electrons
    if bounds(microscope.imaging.soluble_protein)[1] > 0 or bounds(microscope.imaging.snr or 1.0)[0] < float("inf"):
        points = points + _white(len(volumes), microscope, generator) * noise.sqrt()
    if unit:
        points[:, microscope.index == 0] = 0
        deviation = _power(points, microscope).sqrt()
        points = points / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)[:, None]
    return _volumes(points, microscope), conditions


def _volumes(points: Tensor, microscope: Microscope) -> Tensor:
    z, y, x = microscope.shape
    grid = torch.zeros(len(points), z * y * (x // 2 + 1), dtype=points.dtype, device=points.device)
    grid[:, microscope.index] = points
    return torch.fft.irfftn(grid.reshape(-1, z, y, x // 2 + 1), s=(z, y, x), dim=(1, 2, 3))


def _power(points: Tensor, microscope: Microscope) -> Tensor:
    """Variance (n,) of the volumes behind points (n, m), by Parseval."""
    # Real and imaginary parts one after the other: a sum over pairs takes ten times as long as this product.
    parts = torch.view_as_real(points).flatten(1).square()
    return (parts @ microscope.counts.repeat_interleave(2)) / float(prod(microscope.shape)) ** 2


def _variances(noise: Tensor, microscope: Microscope) -> Tensor:
    """Variance (n,) of the volumes of noise with this power (n, m)."""
    return (noise @ microscope.counts) / float(prod(microscope.shape)) ** 2


def _solvent_power(microscope: Microscope, conditions: Conditions) -> Tensor:
    """Power (n, m) of small soluble proteins in transforms of volumes."""
    radius = microscope.k.norm(dim=-1)
    table = torch.linspace(0, float(radius.max()), LEVELS, device=radius.device)
    # Densities are blurred to a resolution of two voxels.
    power = solvent.solution_power(table, conditions.soluble_protein, blur=0.45 * microscope.voxel_size)
    return power[:, (radius / table[1]).round().int()] * (prod(microscope.shape) / microscope.voxel_size**3)


def _white(count: int, microscope: Microscope, generator: torch.Generator) -> Tensor:
    """Complex normal numbers (count, m) of variance 1 with the symmetry of the transform of a real volume."""
    pairs = torch.randn(count, len(microscope.index), 2, generator=generator, device=generator.device)
    noise = torch.view_as_complex(pairs * 0.5**0.5)
    here, there = microscope.mirrored
    noise[:, here] = (noise[:, here] + noise[:, there].conj()) * 0.5**0.5
    return noise


def _from_axis(microscope: Microscope, conditions: Conditions) -> Tensor:
    """Distance (n, m) of the points from the tilt axis in 1/Å: weighted back-projection amplifies noise with its root."""
    axis = torch.deg2rad(conditions.tilt_axis)[:, None]
    z, y, x = microscope.k.T
    distance = torch.hypot(z, x * torch.cos(axis) - y * torch.sin(axis))
    return distance.clamp_min(ON_AXIS / (max(microscope.shape) * microscope.voxel_size))


def _stated_noise(microscope: Microscope, lens: Tensor, observed: Tensor) -> Tensor:
    """Power (n, m) of noise of variance 1, half of it from before the CTF and half from the detector.

    The sum of two independent Gaussian noises is Gaussian noise whose power is the sum of theirs.
    """
    total = torch.zeros((), device=lens.device)
    for factor in (lens, microscope.modulation * observed):
        power = factor**2
        total = total + power * (0.5 * float(prod(microscope.shape)) ** 2 / (power @ microscope.counts))[:, None]
    return total


def _shot_noise(microscope: Microscope, conditions: Conditions, observed: Tensor) -> Tensor:
    """Power (n, m) of shot noise in transforms of volumes in Da/Å³.

    A pixel that n electrons hit has a relative variance 1/n, so an image with d e/Å² has noise of 1/d Å² (power per unit of
    frequency). Back-projection weighted with the ramp puts it, spread over tilts Δθ rad apart, at distance k from the axis
    with k Δθ / d Å into the volume; the contrast of 1 Da/Å³ is 2 σ V per Å. Images are normalised, so losses in the ice
    weaken the signal instead.
    """
    imaging = microscope.imaging
    images = (conditions.tilt_max - conditions.tilt_min) / imaging.tilt_step + 1
    spread = (radians(imaging.tilt_step) * images / conditions.dose)[:, None]
    contrast = 2 * ctf.POTENTIAL * ctf.interaction(imaging.voltage)
    scale = prod(microscope.shape) / microscope.voxel_size**3 / contrast**2
    return spread * scale * _from_axis(microscope, conditions) * microscope.modulation**2 * observed
