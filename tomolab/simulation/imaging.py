"""Numbers and ranges in, a checked description of how particles and specimens are imaged out.

`tomolab.simulation.microscope` applies it to boxes of particles, `tomolab.simulation.tilt_series` to specimens.

>>> imaging = Imaging(tilts=(-60, 60), snr=(0.03, 0.1), defocus=(2, 5))
>>> cells = Imaging.in_cells(dose=120.0)
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tomolab.ctf import Lens

Range = float | tuple[float, float]
"""One number, or (low, high) to draw from uniformly for every particle."""

_ABOVE = {"snr": 0.0, "dose": 0.0, "defocus": -50.0, "tilt_step": 0.0, "envelope": 0.0, "detector_pixel": 0.0}
_WITHIN = {
    "tilt_axis": (-180.0, 180.0),
    "misalignment": (0.0, 1e3),
    "thickness": (0.0, 1e5),
    "shift": (0.0, 0.5),
    "neighbours": (0.0, 1e3),
    "membranes": (0.0, 1.0),
    "soluble_protein": (0.0, 1e3),
}


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """How particles are imaged. Every range is drawn anew for every particle.

    Parameters
    ----------
    tilts
        Lowest and highest tilt in degrees; what lies outside is the missing wedge. Either may be a range.
    tilt_step
        Degrees between the images of a series. The wedge of a particle is taken as continuous.
    tilt_axis
        Direction of the tilt axis in the plane of the tomogram, in degrees from y towards x. Only for particles.
    snr
        Variance of the signal after CTF and wedge over variance of the noise (logarithmically uniform in a range);
        ``float("inf")`` for no noise. None: the noise is that of the electrons of `dose`, and densities are in Da/Å³.
    dose
        Electrons per Å² over the whole series, in dose-symmetric order, which damage the specimen; None for no damage.
    defocus
        Underfocus in µm, of the middle of the slab; None leaves the CTF and its envelope out.
    voltage
        Acceleration voltage in kV.
    spherical_aberration
        Cs in mm.
    amplitude_contrast
        Fraction of amplitude contrast, 0 to 1.
    envelope
        Å at which the envelope exp(-(k envelope)²) of the CTF has fallen to 1/e; None for no envelope.
    misalignment
        Å, standard deviation along each axis of the alignment error of an image.
    detector_pixel
        Å, pixel size of the detector, which decides its modulation transfer; that of the simulation by default.
    thickness
        Å of ice. More electrons are lost in it at higher tilts; a particle lies at any height in it and anywhere in the field
        of view, so that its defocus changes with the tilt.
    shift
        Off-centre displacement along each axis, uniform within ± this fraction of the box.
    neighbours
        Mean number of other complexes that touch the particle and reach into its box, as in a crowded cell.
    membranes
        Probability that a piece of membrane passes beside the particle through its box. Only for particles.
    soluble_protein
        mg/ml of small soluble proteins, as noise with the power spectrum of such a solution. Only for particles.

    Raises
    ------
    ValueError
        If a value is outside what it can be, or neither `snr` nor `dose` says how much noise there is.
    """

    tilts: tuple[Range, Range] = (-60.0, 60.0)
    tilt_step: float = 3.0
    tilt_axis: Range = 0.0
    snr: Range | None = 0.05
    dose: Range | None = None
    defocus: Range | None = (2.0, 5.0)
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.07
    envelope: float | None = 50.0
    misalignment: float = 0.0
    detector_pixel: float | None = None
    thickness: float = 0.0
    shift: float = 0.05
    neighbours: float = 0.0
    membranes: float = 0.0
    soluble_protein: Range = 0.0

    def __post_init__(self) -> None:
        _check_tilts(self.tilts)
        if self.snr is None and self.dose is None:
            raise ValueError("either snr or dose must say how much noise there is, got None for both")
        for name, smallest in _ABOVE.items():
            value = getattr(self, name)
            if value is not None and not smallest < bounds(value)[0] <= bounds(value)[1]:
                raise ValueError(f"{name} must be a number above {smallest:g} or (low, high), got {value}")
        for name, (low, high) in _WITHIN.items():
            value = getattr(self, name)
            if not low <= bounds(value)[0] <= bounds(value)[1] <= high:
                raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {value}")
        _ = self.lens  # refuses what no microscope has

    @property
    def lens(self) -> Lens:
        """What forms the contrast."""
        return Lens(
            voltage=self.voltage,
            spherical_aberration=self.spherical_aberration,
            amplitude_contrast=self.amplitude_contrast,
        )

    def blur(self, k: Tensor) -> Tensor:
        """Envelope exp(-(k envelope)²) of the CTF at frequencies k in 1/Å; 1 without an envelope or a CTF."""
        return torch.exp(-((k * (self.envelope if self.envelope and self.defocus is not None else 0.0)) ** 2))

    @classmethod
    def in_cells(cls, **changes: Any) -> "Imaging":
        """The full model, with ranges fit for crowded cells, on which encoders for measured tomograms train.

        Parameters
        ----------
        **changes
            Fields that shall be otherwise.
        """
        cells: dict[str, Any] = {
            "tilts": ((-66.0, -40.0), (40.0, 66.0)),
            "snr": None,
            "dose": (80.0, 140.0),
            "defocus": (1.5, 5.5),
            "envelope": 12.0,
            "misalignment": 4.0,
            "thickness": 2000.0,
            "shift": 0.1,
            "neighbours": 2.0,
            "membranes": 0.2,
            "soluble_protein": (30.0, 120.0),
        }
        return cls(**(cells | changes))


def _check_tilts(tilts: tuple[Range, Range]) -> None:
    if len(tilts) != 2:
        raise ValueError(f"tilts must be (lowest, highest), got {tilts}")
    (lowest, low), (high, highest) = (bounds(tilt) for tilt in tilts)
    if not -90 <= lowest <= low < high <= highest <= 90:
        raise ValueError(f"tilts must be (lowest, highest) within ±90°, numbers or (low, high) that do not meet, got {tilts}")


def bounds(value: Range) -> tuple[float, float]:
    """A range as (low, high)."""
    return value if isinstance(value, tuple) else (value, value)


def draw(value: Range, count: int, generator: torch.Generator, *, logarithmic: bool = False) -> Tensor:
    """Draw `count` numbers uniformly, or uniformly in the logarithm, from a range."""
    low, high = bounds(value)
    if low == high:
        return torch.full((count,), float(low), device=generator.device)
    fraction = torch.rand(count, generator=generator, device=generator.device)
    return low * (high / low) ** fraction if logarithmic else low + (high - low) * fraction
