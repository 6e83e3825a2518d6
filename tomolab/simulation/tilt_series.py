"""Acquisition: a specimen in the microscope becomes a tilt series.

At every tilt the specimen is projected in slabs thin enough for one defocus each; every slab passes through its own CTF,
gold absorbs, the beam loses electrons in the ice and does damage, and the detector counts what is left. The missing wedge
is painted on nowhere: it is what these tilts do not see.

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

from tomolab import ctf, fourier, parallel
from tomolab.conventions import HAND, centre
from tomolab.simulation import detector, fiducials
from tomolab.simulation.imaging import Imaging, draw
from tomolab.simulation.specimen import Specimen
from tomolab.tomograms import projection, tilt_series
from tomolab.tomograms.tilt_series import TiltSeries
from tomolab.volumes import overlap

GOLD_PATH = 130.0
"""Å of gold that let 1/e of the electrons through to the image: of 100 Å beads, a little less than half. Read off the
beads of EMPIAR-10499 (300 kV), where this includes what is scattered beyond the aperture and the energy filter."""


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
    the signal in boxes about the complexes over SNR: half of it through the CTF, half through the detector, as for particles.

    Parameters
    ----------
    specimen
        What is imaged. What is outside of it is taken as ice.
    imaging
        How it is imaged; a range is drawn once. What only concerns single particles is not used.
    seed
        Decides all that is drawn; the same seed on the same device gives the same series.
    box
        Edge in voxels of the boxes about the complexes in which the signal for `snr` is measured; needed with a finite SNR.
    scheme
        Tilts, doses and defoci to use instead of those of `imaging`, with the columns of `TiltSeries.table`: to record a
        specimen as a measured series was.
    field
        Pixels (y, x) of the images, about the middle of the specimen; all of it by default. A specimen wider than the field
        leaves no edge in tilted images.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    progress
        Show a progress bar.

    Returns
    -------
    TiltSeries
        Sorted by tilt, protein dark. The table also has `shift_y shift_x` (Å), how far each image is off, and `snr` (NaN with a
        dose).

    Raises
    ------
    ValueError
        If a scheme lacks a column, the field is larger than the specimen, densities cannot be in Da/Å³ where electrons are
        counted, there is no complex to measure the signal at, or the device is absent.
    """
    where = parallel.pick_device(device)
    generator = torch.Generator(device=where).manual_seed(seed)
    table = _table(imaging, scheme, generator)
    size = _field(specimen, field)
    snr = None if imaging.snr is None else float(draw(imaging.snr, 1, generator, logarithmic=True))
    if snr is not None and np.isfinite(snr) and (box is None or specimen.particles.empty):
        raise ValueError(f"an SNR of {snr:g} needs complexes and the box they are measured in, got {len(specimen.particles)} "
                         f"complexes and box {box}")  # fmt: skip
    if snr is None:
        _check_units(specimen)
    clean = _clean(specimen, imaging, table, where=where, progress=progress)
    if snr is None:
        images = detector.count(clean, imaging, table, specimen=specimen, generator=generator)
    else:
        images = detector.blur(clean, imaging, specimen.density.voxel_size)
        if np.isfinite(snr):
            images += detector.noise(images, imaging, table, specimen=specimen, snr=snr, box=box or 0, generator=generator)
    cut = tuple(slice(centre(n) - centre(m), centre(n) - centre(m) + m) for n, m in zip(images.shape[1:], size, strict=True))
    table["snr"] = np.nan if snr is None else snr
    return TiltSeries(images[:, cut[0], cut[1]].cpu().numpy(), table, specimen.density.voxel_size)


def _check_units(specimen: Specimen) -> None:
    """Raise ValueError unless the densest complex could be made of protein or RNA: a dose tells nothing of other units."""
    densest = float(specimen.density.data[specimen.instances > 0].max(initial=0))
    if specimen.instances.any() and not 0.1 < densest < 3:
        raise ValueError(
            f"to count electrons, densities must be in Da/Å³ above ice (protein near 0.8, as densities.from_structure gives "
            f"them); the densest complex has {densest:.3g}"
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
    data = projection.turn_over(torch.from_numpy(_without_gold(specimen)).to(where))
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
        if len(specimen.beads):
            wave += torch.fft.rfft2(_absorbed(specimen, row["tilt"], data.shape[1:], where))
        wave *= torch.exp(-2j * torch.pi * (ky * row["shift_y"] + kx * row["shift_x"]))
        images[i] = 1 - torch.fft.irfft2(wave, s=data.shape[1:])
    return images


def _without_gold(specimen: Specimen) -> np.ndarray:
    """Density without the beads: gold absorbs, and its potential is far beyond that of a weak phase object."""
    data = specimen.density.data
    if specimen.beads.empty:
        return data
    data = data.copy()
    for bead in specimen.beads.itertuples():
        centre_of = np.array([bead.z, bead.y, bead.x], dtype=float) / specimen.density.voxel_size
        corner, share = fiducials.at(centre_of, float(bead.diameter) / specimen.density.voxel_size)
        inside, cut = overlap(corner, len(share), specimen.density.shape)
        data[inside] -= fiducials.GOLD * share[cut]
    return data


def _absorbed(specimen: Specimen, tilt: float, size: Sequence[int], where: torch.device) -> Tensor:
    """Fraction of electrons that gold takes out of an image (y, x) at a tilt."""
    pixel = specimen.density.voxel_size
    shape = specimen.density.shape
    out = torch.zeros(tuple(size))
    turn = np.deg2rad(tilt)
    for bead in specimen.beads.itertuples():
        x, z = (float(place) / pixel - centre(n) for place, n in ((bead.x, shape[2]), (bead.z, shape[0])))
        middle = np.array([float(bead.y) / pixel, x * np.cos(turn) + z * np.sin(turn) + centre(size[1])])
        radius = float(bead.diameter) / 2 / pixel
        low = np.clip(np.floor(middle - radius), 0, size).astype(int)
        high = np.clip(np.ceil(middle + radius) + 1, 0, size).astype(int)
        # A tilted bead may lie beyond the image: then there is nothing between the two.
        inside = tuple(slice(first, max(first, last)) for first, last in zip(low, high, strict=True))
        rows, columns = (torch.arange(part.start, part.stop) for part in inside)
        chord = 2 * (radius**2 - (rows[:, None] - middle[0]) ** 2 - (columns - middle[1]) ** 2).clamp_min(0).sqrt() * pixel
        out[inside] += chord.float()
    return (1 - torch.exp(-out / GOLD_PATH)).to(where)
