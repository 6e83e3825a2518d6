"""Clean boxes of one particle each in, images out: CTF, missing wedge and noise, applied in Fourier space.

Every point of it is observed at one tilt (`fourier.tilts`), so what changes from image to image of a tilt series, such as
defocus, damage and loss of electrons, is a function of that tilt. Points beyond Nyquist are not observed.

>>> microscope = prepare(Imaging(snr=0.1), (40, 40, 40), voxel_size=10.0)
>>> images, exposure = image(volumes, microscope, generator)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import pi, prod, radians

import pandas as pd
import torch
from torch import Tensor

from tomolab import ctf, fourier
from tomolab.conventions import AXIS, HAND, WEDGE
from tomolab.simulation import solvent
from tomolab.simulation.imaging import Imaging, Range, bounds, draw

FIELD = 6000.0
"""Å across the tilt axis in which particles lie: the field of view of a usual camera at 1.5 Å a pixel."""
ON_AXIS = 0.38
"""Distance from the tilt axis, in points of the grid, that stands for all within the cell of a point on the axis: the mean
distance of a unit square from its centre."""

LEVELS = 512
"""Frequencies at which the power of a solution is worked out."""
SLACK = 1e-3
"""Degrees beyond a tilt range that still count as in it, as in `fourier.wedge`."""


@dataclass(frozen=True)
class Exposure:
    """What was drawn for n particles, each of shape (n,), or (1,) where one number holds for all.

    `snr`; `defocus` in µm of underfocus and `dose` in e/Å² (NaN without); `tilt_min`, `tilt_max`, `tilt_axis` in degrees;
    `height` and `across` in Å: place in the slab along the beam and across the tilt axis, from its middle; `solutes` in mg/ml.
    """

    snr: Tensor
    defocus: Tensor
    dose: Tensor
    tilt_min: Tensor
    tilt_max: Tensor
    tilt_axis: Tensor
    height: Tensor
    across: Tensor
    solutes: Tensor

    def table(self, count: int) -> pd.DataFrame:
        """What particle tables say of it, a row for each of `count` particles."""
        names = ("snr", "defocus", "dose", *WEDGE, AXIS)
        return pd.DataFrame({name: getattr(self, name).expand(count).cpu().numpy() for name in names})


def join(parts: Sequence[Exposure]) -> Exposure:
    """Exposures of the same imaging one after the other."""
    names = Exposure.__dataclass_fields__
    return Exposure(**{name: _joined([getattr(part, name) for part in parts]) for name in names})


def _joined(values: list[Tensor]) -> Tensor:
    first = values[0].nan_to_num()
    # One number for all particles stays one.
    return (
        values[0] if all(torch.equal(value.nan_to_num(), first) and len(value) == 1 for value in values) else torch.cat(values)
    )


@dataclass(frozen=True)
class Microscope:
    """Imaging made ready for one box: m points of the rfftn grid, and what is the same there for all particles.

    `index` (m,) into the flat grid; `k` (m, 3) in 1/Å; `counts` (m,) how often a point counts in the whole grid (0 for zero
    frequency); `mirrored` (2, p) places among the m of points and of their conjugates, where both are kept; `phases` (2, m)
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
    """Work out what all boxes of a (z, y, x) shape and a voxel size in Å have in common."""
    z, y, x = shape
    grid = fourier.frequencies((z, y, x), device=device)
    index = ((grid.norm(dim=-1) <= 0.5) & _seen(imaging, grid)).flatten().nonzero()[:, 0]
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


def _seen(imaging: Imaging, grid: Tensor) -> Tensor:
    """Points of a grid that any particle may observe: where all share one tilt axis, the others need no work."""
    lowest, highest = bounds(imaging.tilts[0])[0], bounds(imaging.tilts[1])[1]
    low, high = bounds(imaging.tilt_axis)
    if low != high or lowest == -90 or highest == 90:
        return torch.ones(grid.shape[:-1], dtype=torch.bool, device=grid.device)
    tilts = fourier.tilts(grid, low)
    return ~((tilts < lowest - SLACK) | (tilts > highest + SLACK))


def _mirrored(index: Tensor, shape: tuple[int, int, int], alone: Tensor) -> Tensor:
    """Places among `index` of the points in the planes that hold both of a pair k, -k, and of their partners."""
    z, y, x = shape
    half = x // 2 + 1
    here = alone.nonzero()[:, 0]
    at = index[here]
    partner = ((-(at // (y * half))) % z * y + (-(at // half % y)) % y) * half + at % half
    place = torch.zeros(z * y * half, dtype=torch.long, device=index.device)
    place[index] = torch.arange(len(index), device=index.device)
    return torch.stack([here, place[partner]])


def expose(imaging: Imaging, count: int, generator: torch.Generator) -> Exposure:
    """Draw how each of `count` particles is imaged."""

    def drawn(value: Range | None, *, logarithmic: bool = False) -> Tensor:
        if value is None:
            return torch.full((1,), torch.nan, device=generator.device)
        low, high = bounds(value)
        return draw(value, 1 if low == high else count, generator, logarithmic=logarithmic)

    flat = imaging.thickness == 0
    return Exposure(
        snr=drawn(imaging.snr, logarithmic=True),
        defocus=drawn(imaging.defocus),
        dose=drawn(imaging.dose),
        tilt_min=drawn(imaging.tilts[0]),
        tilt_max=drawn(imaging.tilts[1]),
        tilt_axis=drawn(imaging.tilt_axis),
        height=drawn(0.0 if flat else (-imaging.thickness / 2, imaging.thickness / 2)),
        across=drawn(0.0 if flat else (-FIELD / 2, FIELD / 2)),
        solutes=drawn(imaging.solutes),
    )


def transfer(microscope: Microscope, exposure: Exposure) -> tuple[Tensor, Tensor, Tensor]:
    """What happens to the points on the way: factors of shape (n, m), or (1, m) where they are the same for all.

    Returns
    -------
    signal, lens, observed
        All that density goes through; the lens alone (CTF and envelope); 1 inside the tilt range and 0 in the missing wedge.
    """
    imaging = microscope.imaging
    tilts = fourier.tilts(microscope.k, exposure.tilt_axis[:, None])
    # What lies on the axis (NaN) is seen at every tilt.
    low, high = exposure.tilt_min[:, None], exposure.tilt_max[:, None]
    observed = ~((tilts < low - SLACK) | (tilts > high + SLACK))
    tilts = tilts.nan_to_num(0.0)
    lens = observed.float()
    if imaging.defocus is not None:
        flat, per_micron = microscope.phases
        focus = exposure.defocus[:, None]
        if imaging.thickness > 0:
            turn = torch.deg2rad(tilts)
            away = exposure.height[:, None] * torch.cos(turn) - exposure.across[:, None] * torch.sin(turn)
            focus = focus + HAND * 1e-4 * away
        lens = torch.sin(flat + per_micron * focus) * microscope.envelope * observed
    signal = lens * microscope.misaligned if imaging.misalignment > 0 else lens
    if imaging.dose is not None:
        signal = signal * torch.exp(-_accumulated(exposure, tilts, imaging.tilt_step) * microscope.decay)
    if imaging.thickness > 0:
        # Images are normalised before back-projection: fewer electrons leave less signal, not more noise.
        signal = signal * ctf.survivors(imaging.thickness, tilts).sqrt()
    if imaging.snr is None:
        signal = signal * microscope.modulation
    return signal, lens, observed


def _accumulated(exposure: Exposure, tilts: Tensor, step: float) -> Tensor:
    """Dose in e/Å², shape (n, m), at which tilts are recorded in dose-symmetric order: by then all smaller ones are done."""
    low, high = exposure.tilt_min[:, None], exposure.tilt_max[:, None]
    reach = tilts.abs()
    done = torch.minimum(reach, high) - torch.maximum(-reach, low)
    return exposure.dose[:, None] * (done.clamp_min(step / 2) / (high - low + step))


def image(
    volumes: Tensor,
    microscope: Microscope,
    generator: torch.Generator,
    *,
    unit: bool = False,
) -> tuple[Tensor, Exposure]:
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
        Shift and scale each image to mean 0 and standard deviation 1.

    Returns
    -------
    images, exposure
        Images (n, z, y, x), and what was drawn. Its SNR is the measured one where the dose decides.
    """
    exposure = expose(microscope.imaging, len(volumes), generator)
    signal, lens, observed = transfer(microscope, exposure)
    points = torch.fft.rfftn(volumes, dim=(1, 2, 3)).flatten(1)[:, microscope.index] * signal
    power = _power(points, microscope)
    noise: Tensor | float = 0.0
    if bounds(microscope.imaging.solutes)[1] > 0:
        # Protein takes the room of solution, so all there is stands out the less.
        seen = 1 - exposure.solutes * solvent.DALTON * solvent.SPECIFIC_VOLUME
        noise = _solution(microscope, exposure) * signal**2
        points, power = points * seen[:, None], power * seen**2 + _variances(noise, microscope)
    if microscope.imaging.snr is None:
        electrons = _shot(microscope, exposure, observed)
        exposure = replace(exposure, snr=power / _variances(electrons, microscope))
    else:
        electrons = _recipe(microscope, exposure, lens, observed) * (power / exposure.snr)[:, None]
    noise = noise + electrons
    if bounds(microscope.imaging.solutes)[1] > 0 or bounds(microscope.imaging.snr or 1.0)[0] < float("inf"):
        points = points + _white(len(volumes), microscope, generator) * noise.sqrt()
    if unit:
        points[:, microscope.index == 0] = 0
        deviation = _power(points, microscope).sqrt()
        points = points / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)[:, None]
    return _volumes(points, microscope), exposure


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


def _solution(microscope: Microscope, exposure: Exposure) -> Tensor:
    """Power (n, m) in transforms of volumes of what small soluble protein adds to them."""
    radius = microscope.k.norm(dim=-1)
    table = torch.linspace(0, float(radius.max()), LEVELS, device=radius.device)
    # Densities are blurred to a resolution of two voxels.
    power = solvent.solution_power(table, exposure.solutes, blur=0.45 * microscope.voxel_size)
    return power[:, (radius / table[1]).round().int()] * (prod(microscope.shape) / microscope.voxel_size**3)


def _white(count: int, microscope: Microscope, generator: torch.Generator) -> Tensor:
    """Complex normal numbers (count, m) of variance 1 with the symmetry of the transform of a real volume."""
    pairs = torch.randn(count, len(microscope.index), 2, generator=generator, device=generator.device)
    noise = torch.view_as_complex(pairs * 0.5**0.5)
    here, there = microscope.mirrored
    noise[:, here] = (noise[:, here] + noise[:, there].conj()) * 0.5**0.5
    return noise


def _from_axis(microscope: Microscope, exposure: Exposure) -> Tensor:
    """Distance (n, m) of the points from the tilt axis in 1/Å: weighted back-projection amplifies noise with its root."""
    turn = torch.deg2rad(exposure.tilt_axis)[:, None]
    z, y, x = microscope.k.T
    distance = torch.hypot(z, x * torch.cos(turn) - y * torch.sin(turn))
    return distance.clamp_min(ON_AXIS / (max(microscope.shape) * microscope.voxel_size))


def _recipe(microscope: Microscope, exposure: Exposure, lens: Tensor, observed: Tensor) -> Tensor:
    """Power (n, m) of noise of variance 1, half of it from before the CTF and half from the detector.

    Two independent Gaussian noises that are filtered differently are one noise, whose power is the sum of theirs.
    """
    colour = _from_axis(microscope, exposure) if microscope.imaging.weighted else 1.0
    total = torch.zeros((), device=lens.device)
    for factor in (lens, microscope.modulation * observed):
        power = factor**2 * colour
        total = total + power * (0.5 * float(prod(microscope.shape)) ** 2 / (power @ microscope.counts))[:, None]
    return total


def _shot(microscope: Microscope, exposure: Exposure, observed: Tensor) -> Tensor:
    """Power (n, m) of shot noise in transforms of volumes in Da/Å³.

    A pixel that n electrons hit has a relative variance 1/n, so an image with d e/Å² has noise of 1/d Å² (power per unit of
    frequency). Back-projection weighted with the ramp puts it, spread over tilts Δθ rad apart, at distance k from the axis
    with k Δθ / d Å into the volume; the contrast of 1 Da/Å³ is 2 σ V per Å. Images are normalised, so losses in the ice
    weaken the signal instead.
    """
    imaging = microscope.imaging
    images = (exposure.tilt_max - exposure.tilt_min) / imaging.tilt_step + 1
    spread = (radians(imaging.tilt_step) * images / exposure.dose)[:, None]
    contrast = 2 * ctf.POTENTIAL * ctf.interaction(imaging.voltage)
    scale = prod(microscope.shape) / microscope.voxel_size**3 / contrast**2
    return spread * scale * _from_axis(microscope, exposure) * microscope.modulation**2 * observed
