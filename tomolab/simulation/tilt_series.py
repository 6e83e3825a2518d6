"""A specimen in, a tilt series out: images as the microscope records them at every tilt.

At every tilt the specimen is projected in slabs thin enough for one defocus each. Every slab passes through its own CTF, gold
absorbs, the beam loses electrons in the ice and damages the specimen, and the detector counts the rest, or noise is added at a
stated SNR. The missing wedge follows from the tilts.

>>> specimen = specimen.build(maps, 20, shape=(100, 400, 400), seed=1)
>>> series = acquire(specimen, Imaging(snr=None, dose=120.0, defocus=3.0, envelope=None), seed=1)
>>> tomogram = tomograms.reconstruct(series.images, series.tilts, voxel_size=series.pixel_size)
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tomolab import ctf, fourier, parallel, particles
from tomolab.conventions import HAND, POSITION, centre
from tomolab.simulation import fiducials
from tomolab.simulation.imaging import Imaging, draw
from tomolab.simulation.specimen import Specimen
from tomolab.tomograms import projection, reconstruction, tilt_series
from tomolab.tomograms.tilt_series import TiltSeries
from tomolab.volumes import Volume, overlap

GOLD_PATH = 130.0
"""Å of gold that transmit 1/e of the electrons: 100 Å fiducials a little less than half. Measured on the fiducials of
EMPIAR-10499 (300 kV); includes electrons scattered beyond the aperture and the energy filter."""
NOISE_ROWS = 24
"""Rows of a volume from which the variance of back-projected noise is measured."""


def acquire(
    specimen: Specimen,
    imaging: Imaging,
    *,
    seed: int,
    box: int | None = None,
    scheme: pd.DataFrame | None = None,
    field: Sequence[int] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> TiltSeries:
    """Record a tilt series of a specimen, its pixels the size of the specimen's voxels.

    Image contrast is that of a weak phase object: ``1 - 2 Σ sin χ(k; Δf + h) σ V`` over slabs at height h, with V the projected
    potential above ice; gold absorbs as well. With a dose, electrons are counted (Poisson) and the values are counts. With an
    SNR the values are intensities about 1, and noise is added so that after weighted back-projection its variance is that of
    the signal in boxes about the particles over SNR. Half of the noise passes the CTF, all of it the detector.

    Parameters
    ----------
    specimen
        The specimen, surrounded by ice.
    imaging
        How it is imaged; a range is drawn once. Settings for single particles are not used.
    seed
        Decides all that is drawn; the same seed on the same device gives the same series.
    box
        Edge in voxels of the boxes about the particles in which the signal for `snr` is measured; needed with a finite SNR.
    scheme
        Tilts, doses and defoci instead of those of `imaging`, with the columns of `TiltSeries.table`, such as those of a
        measured series.
    field
        Pixels (y, x) of the images, about the middle of the specimen; all of it by default. If the specimen is wider than the
        field, its edges are not in tilted images.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    progress
        Show a progress bar.

    Returns
    -------
    TiltSeries
        Sorted by tilt, protein dark. The table also has `shift_y shift_x` (Å), the alignment error of each image, and `snr`
        (NaN with a dose).

    Raises
    ------
    ValueError
        If a scheme lacks a column, the field is larger than the specimen, densities cannot be in Da/Å³ where electrons are
        counted, there is no particle to measure the signal at, or the device is absent.
    """
    where = parallel.pick_device(device)
    generator = torch.Generator(device=where).manual_seed(seed)
    table = _table(imaging, scheme, generator)
    size = _field(specimen, field)
    snr = None if imaging.snr is None else float(draw(imaging.snr, 1, generator, logarithmic=True))
    if snr is not None and np.isfinite(snr) and (box is None or specimen.particles.empty):
        raise ValueError(
            f"an SNR of {snr:g} needs particles and the box they are measured in, got {len(specimen.particles)} particles and "
            f"box {box}"
        )
    if snr is None:
        _check_units(specimen)
    clean = _clean(specimen, imaging, table, where=where, progress=progress)
    if snr is None:
        images = _counted(clean, imaging, table, specimen=specimen, generator=generator)
    else:
        images = _detected(clean, imaging, specimen.density.voxel_size)
        if np.isfinite(snr):
            images += _noise(images, imaging, table, specimen=specimen, snr=snr, box=box or 0, generator=generator)
    cut = tuple(slice(centre(n) - centre(m), centre(n) - centre(m) + m) for n, m in zip(images.shape[1:], size, strict=True))
    table["snr"] = np.nan if snr is None else snr
    return TiltSeries(images[:, cut[0], cut[1]].cpu().numpy(), table, specimen.density.voxel_size)


def _check_units(specimen: Specimen) -> None:
    """Raise ValueError unless the densest particle could be made of protein or RNA, since electrons need Da/Å³."""
    densest = float(specimen.density.data[specimen.instances > 0].max(initial=0))
    if specimen.instances.any() and not 0.1 < densest < 3:
        raise ValueError(
            "to count electrons, densities must be in Da/Å³ above ice (protein near 0.8, as simulation.density_from_structure "
            f"gives them); the densest particle has {densest:.3g}"
        )


def _table(imaging: Imaging, scheme: pd.DataFrame | None, generator: torch.Generator) -> pd.DataFrame:
    """Tilt, order, dose, exposure, defocus and shift of every image."""
    low, high = (float(draw(limit, 1, generator)) for limit in imaging.tilts)
    dose = None if imaging.dose is None else float(draw(imaging.dose, 1, generator))
    defocus = np.nan if imaging.defocus is None else float(draw(imaging.defocus, 1, generator))
    if scheme is None:
        table = tilt_series.dose_symmetric(low, high, step=imaging.tilt_step, dose=dose)
        table["defocus"] = defocus
    else:
        needed = ["tilt", *(["dose", "exposure"] if imaging.dose is not None else [])]
        needed += [] if imaging.defocus is None else ["defocus"]
        absent = [name for name in needed if name not in scheme or scheme[name].isna().any()]
        if absent:
            raise ValueError(
                f"the scheme needs {', '.join(needed)} for every image; missing or incomplete: {', '.join(absent)}"
            )
        table = scheme.reset_index(drop=True).copy()
    shifts = torch.randn(len(table), 2, generator=generator, device=generator.device).cpu().numpy() * imaging.misalignment
    return table.assign(shift_y=shifts[:, 0], shift_x=shifts[:, 1])


def _field(specimen: Specimen, field: Sequence[int] | None) -> tuple[int, int]:
    rows, columns = specimen.density.shape[1:]
    if field is None:
        return rows, columns
    if len(field) != 2 or not (0 < field[0] <= rows and 0 < field[1] <= columns):
        raise ValueError(f"a field is pixels (y, x) within the {rows} x {columns} of the specimen, got {tuple(field)}")
    return int(field[0]), int(field[1])


def _clean(specimen: Specimen, imaging: Imaging, table: pd.DataFrame, *, where: torch.device, progress: bool) -> Tensor:
    """Intensity before the detector, 1 where there is only ice; shape (n, y, x)."""
    pixel = specimen.density.voxel_size
    data = projection.y_last(torch.from_numpy(_without_gold(specimen)).to(where))
    phase = 2 * ctf.POTENTIAL * ctf.interaction(imaging.voltage) * pixel
    depth = None if imaging.defocus is None else ctf.depth_of_focus(pixel, imaging.voltage) / pixel
    ky, kx = fourier.frequencies_2d(data.shape[1:], pixel, device=where)
    k = torch.hypot(ky, kx)
    images = torch.empty(len(table), *data.shape[1:], device=where)
    for i, row in enumerate(tqdm(table.to_dict("records"), desc="tilts", disable=not progress)):
        slabs, heights = projection.slabs(data, row["tilt"], width=data.shape[2], depth=depth)
        wave = torch.zeros(k.shape, dtype=torch.complex64, device=where)
        for slab, height in zip(slabs, heights.tolist(), strict=True):
            focus = torch.tensor(row["defocus"] + HAND * height * pixel * 1e-4, device=where)
            transfer = 1.0 if imaging.defocus is None else ctf.contrast(k, focus, imaging.lens)
            wave += torch.fft.rfft2(slab) * transfer * phase
        wave *= imaging.blur(k)
        if imaging.dose is not None:
            wave *= ctf.damage(k, torch.tensor(row["dose"] + row["exposure"] / 2, device=where), voltage=imaging.voltage)
        if len(specimen.fiducials):
            wave += torch.fft.rfft2(_absorbed(specimen, row["tilt"], data.shape[1:], where))
        wave *= torch.exp(-2j * torch.pi * (ky * row["shift_y"] + kx * row["shift_x"]))
        images[i] = 1 - torch.fft.irfft2(wave, s=data.shape[1:])
    return images


def _without_gold(specimen: Specimen) -> np.ndarray:
    """Density without gold, which absorbs, and whose potential is far beyond that of a weak phase object."""
    data = specimen.density.data
    if specimen.fiducials.empty:
        return data
    data = data.copy()
    for z, y, x, diameter in specimen.fiducials[[*POSITION, "diameter"]].to_numpy(dtype=float) / specimen.density.voxel_size:
        corner, fraction = fiducials.ball_at(np.array([z, y, x]), diameter)
        inside, cut = overlap(corner, len(fraction), specimen.density.shape)
        data[inside] -= fiducials.GOLD * fraction[cut]
    return data


def _absorbed(specimen: Specimen, tilt: float, size: Sequence[int], where: torch.device) -> Tensor:
    """Fraction of electrons that gold absorbs in an image (y, x) at a tilt."""
    pixel = specimen.density.voxel_size
    shape = specimen.density.shape
    out = torch.zeros(tuple(size))
    radians = np.deg2rad(tilt)
    for z, y, x, diameter in specimen.fiducials[[*POSITION, "diameter"]].to_numpy(dtype=float) / pixel:
        column = (x - centre(shape[2])) * np.cos(radians) + (z - centre(shape[0])) * np.sin(radians) + centre(size[1])
        middle, radius = np.array([y, column]), diameter / 2
        low = np.clip(np.floor(middle - radius), 0, size).astype(int)
        high = np.clip(np.ceil(middle + radius) + 1, 0, size).astype(int)
        # Tilted gold may lie beyond the image; then the slices are empty.
        inside = tuple(slice(first, max(first, last)) for first, last in zip(low, high, strict=True))
        rows, columns = (torch.arange(part.start, part.stop) for part in inside)
        chord = 2 * (radius**2 - (rows[:, None] - middle[0]) ** 2 - (columns - middle[1]) ** 2).clamp_min(0).sqrt() * pixel
        out[inside] += chord.float()
    return (1 - torch.exp(-out / GOLD_PATH)).to(where)


def _modulation(imaging: Imaging, images: Tensor, pixel: float) -> Tensor:
    """Modulation transfer of the detector on the rfft2 grid of images (n, y, x) with pixels in Å."""
    ky, kx = fourier.frequencies_2d(images.shape[1:], pixel, device=images.device)
    return ctf.detector(torch.hypot(ky, kx), imaging.detector_pixel or pixel)


def _detected(images: Tensor, imaging: Imaging, pixel: float) -> Tensor:
    """Images (n, y, x) as the detector passes them on."""
    passed = _modulation(imaging, images, pixel)
    return torch.stack([torch.fft.irfft2(torch.fft.rfft2(image) * passed, s=images.shape[1:]) for image in images])


def _counted(
    images: Tensor, imaging: Imaging, table: pd.DataFrame, *, specimen: Specimen, generator: torch.Generator
) -> Tensor:
    """Electrons in images (n, y, x) of intensities, 1 for ice: Poisson numbers of what survives the ice, then the detector."""
    pixel = specimen.density.voxel_size
    tilts, exposure = (torch.tensor(table[name].to_numpy(dtype=float), device=images.device) for name in ("tilt", "exposure"))
    electrons = exposure * ctf.survivors(specimen.thickness, tilts) * pixel**2
    counts = [
        torch.poisson(image.clamp_min(0) * number, generator=generator)
        for image, number in zip(images, electrons.tolist(), strict=True)
    ]
    return _detected(torch.stack(counts), imaging, pixel)


def _noise(
    images: Tensor,
    imaging: Imaging,
    table: pd.DataFrame,
    *,
    specimen: Specimen,
    snr: float,
    box: int,
    generator: torch.Generator,
) -> Tensor:
    """Noise (n, y, x) that after back-projection has the variance of the signal about the particles over `snr`.

    Half of the variance has gone through the CTF, all of it through the detector. The images have no noise; `snr` is as in
    `Imaging`, and `box` is the edge in voxels of the boxes about the particles in which the signal is measured.
    """
    tilts, pixel = table["tilt"].to_numpy(dtype=float), specimen.density.voxel_size
    signal = _back_projected(images, tilts, pixel, shape=specimen.density.shape)
    variance = _signal(signal.data, specimen, box) / snr
    ky, kx = fourier.frequencies_2d(images.shape[1:], pixel, device=images.device)
    k = torch.hypot(ky, kx)
    passed = _modulation(imaging, images, pixel)
    total = torch.zeros_like(images)
    for through_lens in (True, False):
        white = torch.randn(images.shape, generator=generator, device=images.device)
        for i in range(len(images)):
            transfer = passed
            if through_lens and imaging.defocus is not None:
                focus = torch.tensor(table["defocus"].iloc[i], device=k.device)
                transfer = passed * ctf.contrast(k, focus, imaging.lens) * imaging.blur(k)
            white[i] = torch.fft.irfft2(torch.fft.rfft2(white[i]) * transfer, s=images.shape[1:])
        total += white * (0.5 * variance / _variance(white, tilts, specimen)) ** 0.5
    return total


def _back_projected(images: Tensor, tilts: np.ndarray, pixel: float, *, shape: tuple[int, int, int]) -> Volume:
    return reconstruction.reconstruct(
        images.cpu(), tilts, voxel_size=pixel, shape=shape, clip=None, normalise=False, device=images.device, progress=False
    )


def _signal(volume: np.ndarray, specimen: Specimen, box: int) -> float:
    """Mean variance in boxes about the particles."""
    corners = np.floor(particles.positions(specimen.particles) / specimen.density.voxel_size).astype(int) - box // 2
    return float(np.mean([volume[overlap(corner, box, specimen.density.shape)[0]].var() for corner in corners]))


def _variance(images: Tensor, tilts: np.ndarray, specimen: Specimen) -> float:
    """Variance of the back-projection of noise, from some of its rows, since rows are alike."""
    z, y, x = specimen.density.shape
    rows = min(NOISE_ROWS, y)
    start = (y - rows) // 2
    part = images[:, start : start + rows]
    volume = _back_projected(part, tilts, specimen.density.voxel_size, shape=(z, rows, x))
    # Images fade out at their border.
    middle = slice(rows // 4, rows - rows // 4) if rows >= 4 else slice(None)
    return float(volume.data[:, middle].var())
