"""Detector: how intensities become the images of a tilt series: electrons counted, or noise added at a stated SNR.

>>> images = count(intensities, imaging, table, specimen=specimen, generator=generator)
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import ctf, fourier, particles
from tomolab.simulation.imaging import Imaging
from tomolab.simulation.specimen import Specimen
from tomolab.tomograms import reconstruction
from tomolab.volumes import Volume, overlap

ROWS = 24
"""Rows of a volume from which the variance of back-projected noise is measured."""


def modulation(imaging: Imaging, images: Tensor, pixel: float) -> Tensor:
    """Modulation transfer of the detector on the rfft2 grid of images (n, y, x) with pixels in Å."""
    ky, kx = fourier.frequencies_2d(images.shape[1:], pixel, device=images.device)
    return ctf.detector(torch.hypot(ky, kx), imaging.detector_pixel or pixel)


def blur(images: Tensor, imaging: Imaging, pixel: float) -> Tensor:
    """Images (n, y, x) as the detector passes them on."""
    passed = modulation(imaging, images, pixel)
    return torch.stack([torch.fft.irfft2(torch.fft.rfft2(image) * passed, s=images.shape[1:]) for image in images])


def count(images: Tensor, imaging: Imaging, table: pd.DataFrame, *, specimen: Specimen, generator: torch.Generator) -> Tensor:
    """Count electrons in every pixel: Poisson numbers of what survives the ice, then the detector's modulation.

    Parameters
    ----------
    images
        Intensities (n, y, x), 1 for ice.
    imaging
        For the detector.
    table
        Tilt and exposure (e/Å²) of each image.
    specimen
        For its thickness and pixels.
    generator
        Source of the numbers.
    """
    pixel = specimen.density.voxel_size
    tilts, exposure = (torch.tensor(table[name].to_numpy(dtype=float), device=images.device) for name in ("tilt", "exposure"))
    electrons = exposure * ctf.survivors(specimen.thickness, tilts) * pixel**2
    counts = [
        torch.poisson(image.clamp_min(0) * number, generator=generator)
        for image, number in zip(images, electrons.tolist(), strict=True)
    ]
    return blur(torch.stack(counts), imaging, pixel)


def noise(
    images: Tensor,
    imaging: Imaging,
    table: pd.DataFrame,
    *,
    specimen: Specimen,
    snr: float,
    box: int,
    generator: torch.Generator,
) -> Tensor:
    """Noise (n, y, x) that after back-projection has the variance of the signal about the complexes over `snr`.

    Half of the variance has gone through the CTF, all of it through the detector.

    Parameters
    ----------
    images
        Without noise.
    imaging
        For the CTF and the detector.
    table
        Tilt and defocus of each image.
    specimen
        Where the complexes are.
    snr
        As in `Imaging`.
    box
        Edge in voxels of the boxes about the complexes in which the signal is measured.
    generator
        Source of the noise.
    """
    tilts, pixel = table["tilt"].to_numpy(dtype=float), specimen.density.voxel_size
    signal = _back_projected(images, tilts, pixel, shape=specimen.density.shape)
    wanted = _signal(signal.data, specimen, box) / snr
    ky, kx = fourier.frequencies_2d(images.shape[1:], pixel, device=images.device)
    k = torch.hypot(ky, kx)
    passed = modulation(imaging, images, pixel)
    total = torch.zeros_like(images)
    for through_lens in (True, False):
        white = torch.randn(images.shape, generator=generator, device=images.device)
        for i in range(len(images)):
            transfer = passed
            if through_lens and imaging.defocus is not None:
                focus = torch.tensor(table["defocus"].iloc[i], device=k.device)
                transfer = passed * ctf.contrast(k, focus, imaging.lens) * imaging.blur(k)
            white[i] = torch.fft.irfft2(torch.fft.rfft2(white[i]) * transfer, s=images.shape[1:])
        total += white * (0.5 * wanted / _variance(white, tilts, specimen)) ** 0.5
    return total


def _back_projected(images: Tensor, tilts: np.ndarray, pixel: float, *, shape: tuple[int, int, int]) -> Volume:
    return reconstruction.reconstruct(
        images.cpu(), tilts, voxel_size=pixel, shape=shape, clip=None, normalise=False, device=images.device, progress=False
    )


def _signal(volume: np.ndarray, specimen: Specimen, box: int) -> float:
    """Mean variance in boxes about the complexes."""
    corners = np.floor(particles.positions(specimen.particles) / specimen.density.voxel_size).astype(int) - box // 2
    return float(np.mean([volume[overlap(corner, box, specimen.density.shape)[0]].var() for corner in corners]))


def _variance(images: Tensor, tilts: np.ndarray, specimen: Specimen) -> float:
    """Variance of the back-projection of noise, from some of its rows, since rows are alike."""
    z, y, x = specimen.density.shape
    rows = min(ROWS, y)
    start = (y - rows) // 2
    part = images[:, start : start + rows]
    volume = _back_projected(part, tilts, specimen.density.voxel_size, shape=(z, rows, x))
    # Images fade out at their border.
    middle = slice(rows // 4, rows - rows // 4) if rows >= 4 else slice(None)
    return float(volume.data[:, middle].var())
