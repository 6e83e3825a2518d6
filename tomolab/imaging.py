"""Imaging: what the microscope does to a volume, as factors in Fourier space.

`Imaging` says how particles are imaged; the functions turn it into transfer functions on the rfftn grid, where the
image of a volume is ``irfftn(rfftn(volume) * ctf * wedge)`` plus noise. CTF phases come from torch-ctf.

>>> imaging = Imaging(tilts=(-60, 60), snr=(0.03, 0.1), defocus=(2, 5))
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch_ctf import calculate_total_phase_shift

from tomolab import fourier

Range = float | tuple[float, float]
"""One number, or (low, high) to draw from uniformly for every particle."""


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """How particles are imaged. Every range is drawn anew for every particle.

    Parameters
    ----------
    tilts
        Lowest and highest tilt in degrees; what lies outside is the missing wedge.
    snr
        Variance of the signal after CTF and wedge over variance of the noise (logarithmically uniform in a range);
        ``float("inf")`` for no noise.
    defocus
        Underfocus in µm; None leaves the CTF and its envelope out.
    voltage
        Acceleration voltage in kV.
    spherical_aberration
        Cs in mm.
    amplitude_contrast
        Fraction of amplitude contrast, 0 to 1.
    envelope
        Å at which the envelope exp(-(k envelope)²) of the CTF has fallen to 1/e; None for no envelope.
    shift
        Off-centre displacement along each axis, uniform within ± this fraction of the box.
    neighbours
        Mean number of other complexes that touch the particle and reach into its box, as in a crowded cell.

    Raises
    ------
    ValueError
        If a value is outside what it can be.
    """

    tilts: tuple[float, float] = (-60.0, 60.0)
    snr: Range = 0.05
    defocus: Range | None = (2.0, 5.0)
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.07
    envelope: float | None = 50.0
    shift: float = 0.05
    neighbours: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.tilts
        if not -90 <= low < high <= 90:
            raise ValueError(f"tilts must be (lowest, highest) within ±90°, got {self.tilts}")
        for name, smallest in (("snr", 0.0), ("defocus", -50.0)):
            value = getattr(self, name)
            if value is not None and not smallest < bounds(value)[0] <= bounds(value)[1]:
                raise ValueError(f"{name} must be a number above {smallest:g} or (low, high), got {value}")
        if not 0 <= self.amplitude_contrast <= 1:
            raise ValueError(f"amplitude contrast is a fraction from 0 to 1, got {self.amplitude_contrast}")
        if not 0 <= self.shift <= 0.5:
            raise ValueError(f"shift is a fraction of the box from 0 to 0.5, got {self.shift}")
        if min(self.voltage, self.spherical_aberration, self.envelope or 1.0) <= 0 or self.neighbours < 0:
            raise ValueError(
                "voltage, spherical aberration and envelope must be positive and neighbours not negative, got "
                f"{self.voltage} kV, {self.spherical_aberration} mm, {self.envelope} Å, {self.neighbours}"
            )


def bounds(value: Range) -> tuple[float, float]:
    """A range as (low, high)."""
    return value if isinstance(value, tuple) else (value, value)


def draw(value: Range, count: int, generator: torch.Generator, *, logarithmic: bool = False) -> Tensor:
    """Draw `count` numbers uniformly, or uniformly in the logarithm, from a range."""
    low, high = bounds(value)
    if low == high:
        return torch.full((count,), float(low), device=generator.device)
    share = torch.rand(count, generator=generator, device=generator.device)
    return low * (high / low) ** share if logarithmic else low + (high - low) * share


def ctf(imaging: Imaging, defocus: Tensor, *, shape: tuple[int, int, int], voxel_size: float) -> Tensor:
    """Contrast transfer functions, shape (n, z, y, x // 2 + 1), positive at low frequency, for underfocus (n,) in µm.

    sin(χ(k)) exp(-(k envelope)²) with χ from torch-ctf (defocus, Cs and amplitude contrast): radially symmetric and
    the same for all tilts, as for a small volume.
    """
    k = fourier.radius(shape, device=defocus.device) / voxel_size
    fixed = (imaging.voltage, imaging.spherical_aberration, 0.0, imaging.amplitude_contrast)
    phase = calculate_total_phase_shift(  # type: ignore[call-arg]
        defocus[:, None, None, None], *(torch.tensor(value, device=defocus.device) for value in fixed), (k**2)[None]
    )
    transfer = torch.sin(phase)
    # torch-ctf counts phases so that a dark-protein image is negative; density here is bright on dark.
    transfer = transfer * torch.sign(torch.sin(phase.flatten(1)[:, 1]))[:, None, None, None]
    if imaging.envelope is not None:
        transfer = transfer * torch.exp(-((k * imaging.envelope) ** 2))
    return transfer


def detector(shape: tuple[int, int, int], *, device: torch.device | None = None) -> Tensor:
    """Modulation transfer of the detector on the rfftn grid: sin(u) / u with u = π/2 times the fraction of Nyquist."""
    return torch.sinc(fourier.radius(shape, device=device))


@dataclass(frozen=True)
class Exposure:
    """What was drawn for a batch of particles: SNR, and underfocus in µm (NaN without CTF), each of shape (n,)."""

    snr: Tensor
    defocus: Tensor


def image(
    volumes: Tensor,
    imaging: Imaging,
    generator: torch.Generator,
    *,
    voxel_size: float,
    variance: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Exposure]:
    """Image clean volumes (n, z, y, x): CTF and missing wedge, then noise at the SNR that was asked for.

    Half the variance of the noise enters before the CTF and half after it through the detector; both halves are scaled so
    that after all filters noise has the variance of the imaged signal divided by SNR (Förster et al. 2008).

    Parameters
    ----------
    volumes
        Density, bright on dark.
    imaging
        How they are imaged; ranges are drawn per volume.
    generator
        Source of all that is drawn, on the device of the volumes.
    voxel_size
        Å.
    variance
        Turns the imaged, noise-free volumes (n, z, y, x) into the variance (n,) that SNR refers to; by default that of
        the whole volume.
    """
    shape: tuple[int, int, int] = tuple(volumes.shape[-3:])  # type: ignore[assignment]
    snr = draw(imaging.snr, len(volumes), generator, logarithmic=True)
    defocus = torch.full_like(snr, torch.nan) if imaging.defocus is None else draw(imaging.defocus, len(volumes), generator)
    observed = fourier.wedge(shape, *(torch.tensor(tilt, device=volumes.device) for tilt in imaging.tilts))
    optics = observed if imaging.defocus is None else observed * ctf(imaging, defocus, shape=shape, voxel_size=voxel_size)
    signal = torch.fft.rfftn(volumes, dim=(1, 2, 3)) * optics
    if variance is None:
        power = _power(signal, shape)
    else:
        power = variance(torch.fft.irfftn(signal, s=shape, dim=(1, 2, 3)))
    for filters in (optics, observed * detector(shape, device=volumes.device)):
        white = torch.randn(volumes.shape, generator=generator, device=volumes.device)
        # White noise of variance 1 has, after a filter, the mean square of the filter over the whole grid as its variance.
        gain = (0.5 * power / snr / (filters**2 * _twice(shape, volumes.device)).sum((1, 2, 3)) * prod(shape)).sqrt()
        signal = signal + torch.fft.rfftn(white, dim=(1, 2, 3)) * filters * gain[:, None, None, None]
    return torch.fft.irfftn(signal, s=shape, dim=(1, 2, 3)), Exposure(snr, defocus)


def _twice(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """How often each x plane of the rfftn grid stands in the whole grid: the inner ones stand for two."""
    twice = torch.full((shape[-1] // 2 + 1,), 2.0, device=device)
    twice[0] = 1
    if shape[-1] % 2 == 0:
        twice[-1] = 1
    return twice


def _power(transforms: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Variance (n,) of the volumes behind rfftn transforms (n, z, y, x // 2 + 1), by Parseval."""
    power = transforms.abs() ** 2 * _twice(shape, transforms.device)
    return (power.sum((1, 2, 3)) - power[:, 0, 0, 0]) / float(prod(shape)) ** 2
