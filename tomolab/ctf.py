"""Takes spatial frequencies, gives contrast transfer, radiation damage and the response of the detector.

`k` is the spatial frequency in 1/Å, of any shape: images, tilt series and the Fourier space of a small box use the same
functions.

>>> lens = Lens()
>>> k = torch.linspace(0, 0.05, 100)
>>> contrast(k, torch.tensor(3.0), lens)      # sin χ at 3 µm underfocus
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch_ctf import calculate_relativistic_electron_wavelength, calculate_total_phase_shift
from torch_fourier_filter.dose_weight import critical_exposure

FREE_ATOMS = 4.5
"""Volts of mean inner potential above vitreous ice for a density of 1 Da/Å³ of atoms other than hydrogen, if atoms were free.

From the elastic scattering of single atoms at zero angle (H 0.53, C 2.51, N 2.21, O 1.98, P 5.5, S 5.1 Å; Peng 1996),
47.88 V Å² per Å: ice of 0.92 g/cm³ has 4.5 V, protein of 1.35 g/cm³ 7.9 V, RNA of 1.75 g/cm³ 9.0 V. Both differences come
to 4.4-4.6 V per Da/Å³.
"""
BOUND = 0.75
"""Factor on that contrast in a cell: bonds lower the potential of atoms, and solutes raise that of the water.

Calibrated on EMPIAR-10499: with it, the some 280 ribosomes that such a field holds (Tegunov et al. 2021) have the measured
power at 1/400 to 1/150 Å⁻¹; free atoms would have it with half as many (`benchmarks/bench_realism.py`).
"""
POTENTIAL = BOUND * FREE_ATOMS
"""Volts above ice for a density of 1 Da/Å³."""
MEAN_FREE_PATH = 3000.0
"""Å of vitreous ice after which 1/e of the electrons have lost no energy, at 300 kV (Grimm et al. 1996 and Rice et al. 2018
give 2800-3500); an energy filter removes the others."""


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Optics of the microscope: voltage in kV, spherical aberration Cs in mm, fraction of amplitude contrast.

    Raises
    ------
    ValueError
        If the voltage or Cs is not positive, or the fraction not from 0 to 1.
    """

    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.07

    def __post_init__(self) -> None:
        if not (self.voltage > 0 and self.spherical_aberration > 0):
            raise ValueError(
                f"voltage and spherical aberration must be positive, got {self.voltage} kV and {self.spherical_aberration} mm"
            )
        if not 0 <= self.amplitude_contrast <= 1:
            raise ValueError(f"amplitude contrast is a fraction from 0 to 1, got {self.amplitude_contrast}")


def contrast(k: Tensor, defocus: Tensor, lens: Lens) -> Tensor:
    """Contrast transfer sin χ(k) for an underfocus in µm, positive at low frequency; shapes broadcast.

    χ = π λ Δz k² - π/2 Cs λ³ k⁴ + arcsin(amplitude contrast), from torch-ctf. Density is bright on dark here, so
    underfocus leaves the first band positive; overfocus (negative) turns it over.
    """
    flat, per_micron = (phases(k, lens)[name] for name in ("flat", "per_micron"))
    return torch.sin(flat + per_micron * defocus)


def phases(k: Tensor, lens: Lens) -> dict[str, Tensor]:
    """The two parts of χ(k), which is linear in defocus: `flat` at defocus 0, and `per_micron` of underfocus.

    For many defoci on one grid this calls torch-ctf twice instead of once for each.
    """
    settings = [
        torch.tensor(value, device=k.device, dtype=k.dtype)
        for value in (lens.voltage, lens.spherical_aberration, 0.0, lens.amplitude_contrast)
    ]

    def phase(defocus: float) -> Tensor:
        focus = torch.tensor(defocus, device=k.device, dtype=k.dtype)
        return calculate_total_phase_shift(focus, *settings, k**2)  # type: ignore[call-arg]

    flat = -phase(0.0)
    per_micron = -phase(1.0) - flat
    return {"flat": flat, "per_micron": per_micron}


def damage(k: Tensor, dose: Tensor, *, voltage: float = 300.0) -> Tensor:
    """Amplitude that remains at frequency k after `dose` electrons per Å²: exp(-N / (2 Nc(k))); shapes broadcast.

    Nc(k) = 0.245 k^-1.665 + 2.81 e/Å² at 300 kV, by a fifth less at 200 kV (Grant & Grigorieff 2015), from
    torch-fourier-filter.
    """
    critical = critical_exposure(k.clamp_min(1e-6)) * (0.8 if voltage < 250 else 1.0)
    return torch.exp(-dose / (2 * critical))


def detector(k: Tensor, pixel: float) -> Tensor:
    """Modulation transfer sin(u) / u of the detector, u = π/2 times the fraction of the Nyquist frequency of its pixels (Å)."""
    return torch.sinc(k * pixel)


def wavelength(voltage: float) -> float:
    """Electron wavelength in Å at `voltage` kV (0.0197 at 300 kV)."""
    return float(calculate_relativistic_electron_wavelength(voltage * 1e3)) * 1e10


def interaction(voltage: float) -> float:
    """Phase in rad that an electron gains per V Å of projected potential: 6.53e-4 at 300 kV.

    σ = 2π m e λ / h² = 2π / (λ V) (m₀c² + eV) / (2 m₀c² + eV) (Kirkland, Advanced Computing in Electron Microscopy, eq. 5.6).
    """
    volts, rest = voltage * 1e3, 510_998.95
    return 2 * pi / (wavelength(voltage) * volts) * (rest + volts) / (2 * rest + volts)


def survivors(thickness: float, tilts: Tensor) -> Tensor:
    """Fraction of electrons that lose no energy in `thickness` Å of ice, seen at `tilts` (degrees)."""
    return torch.exp(-thickness / MEAN_FREE_PATH / torch.cos(torch.deg2rad(tilts)).clamp_min(1e-3))


def depth_of_focus(pixel: float, voltage: float, *, error: float = 0.1) -> float:
    """Å along the beam over which χ at the Nyquist frequency of `pixel` Å changes by `error` rad to either side."""
    return 2 * error * (2 * pixel) ** 2 / (pi * wavelength(voltage))
