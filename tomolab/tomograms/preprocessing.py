"""An image of a tilt series in, the image ready for back-projection out: normalised, binned, aligned, CTF-corrected, weighted.

Works on one image (y, x) at a time, as a torch tensor on its device.

>>> image = prepare(pixels, ratio=0.5, clip=10.0, name="image 0")
>>> rows = align(image, pixels.shape, 0.5, transform=None, size=(315, 652))
>>> corrected = correct(rows, 30.0, voxel_size=20.0, radius=3260.0, lens=Lens(), defocus=3.0)
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import grid_sample

from tomolab import volumes
from tomolab.conventions import HAND, centre
from tomolab.ctf import Lens, damage, depth_of_focus, phases
from tomolab.tomograms.projection import FINE, interpolation_correction

OVER = 2
"""Samples per voxel of a prepared image, so that cubic interpolation loses nothing."""


def prepare(image: Tensor, ratio: float, *, clip: float | None, normalise: bool = True, name: str) -> Tensor:
    """Clip outliers, taper the border, resample to OVER samples per voxel, low-pass to Nyquist of a voxel, normalise.

    Parameters
    ----------
    image
        Grey values, shape (y, x).
    ratio
        Pixel size over voxel size.
    clip
        Limit for outliers in standard deviations, or None.
    normalise
        Bring the result to standard deviation 1; otherwise only the mean is subtracted.
    name
        Name of the image in errors.

    Returns
    -------
    Tensor
        Shape close to (y, x) * ratio * OVER, over the same extent; index 0 stays in place.

    Raises
    ------
    ValueError
        If the image holds NaN or infinity, or is constant.
    """
    bad = int((~torch.isfinite(image)).sum())
    if bad:
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite, of {image.numel()}")
    if clip is not None:
        image = volumes.clip(image, clip)
    if float(image.std(correction=0)) == 0:
        raise ValueError(f"{name} is constant ({float(image[0, 0]):g} everywhere)")
    image = image - image.mean()
    for axis, n in enumerate(image.shape):
        index = torch.arange(n, device=image.device)
        taper = torch.sin(torch.pi / 2 * ((torch.minimum(index, n - 1 - index) + 1) / (n * 0.02 + 1)).clamp(max=1)) ** 2
        image = image * (taper[:, None] if axis == 0 else taper)
    rows, columns = (max(1, round(n * ratio * OVER)) for n in image.shape)
    fine = _resize(image, (rows, columns))
    if clip is not None:
        fine = volumes.clip(fine, clip)
    return volumes.normalise(fine[None, None])[0, 0] if normalise else fine


def _resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resample the image to `shape` over the same extent and low-pass it to Nyquist of a voxel."""
    transform = torch.fft.rfft2(image)
    rows, columns = (min(n, m) for n, m in zip(image.shape, shape, strict=True))
    ky, kx = torch.fft.fftfreq(shape[0], device=image.device), torch.fft.rfftfreq(shape[1], device=image.device)
    out = torch.zeros(shape[0], len(kx), dtype=transform.dtype, device=image.device)
    low, high, half = (rows + 1) // 2, rows // 2, columns // 2 + 1
    out[:low, :half] = transform[:low, :half]
    out[shape[0] - high :, :half] = transform[image.shape[0] - high :, :half]
    # The last fifth below Nyquist is tapered, against ringing.
    taper_y, taper_x = (torch.cos(torch.pi / 2 * ((k.abs() * OVER - 0.4) / 0.1).clamp(0, 1)) ** 2 for k in (ky, kx))
    return torch.fft.irfft2(out * taper_y[:, None] * taper_x, s=shape) * (shape[0] * shape[1] / image.numel())


def align(
    fine: Tensor,
    pixels: Sequence[int],
    ratio: float,
    *,
    transform: tuple[np.ndarray, np.ndarray] | None,
    size: tuple[int, int],
) -> Tensor:
    """Bring a prepared image to rows of a voxel and columns of half a voxel about the tilt axis (cubic interpolation).

    Parameters
    ----------
    fine
        What `prepare` returned.
    pixels
        Shape (y, x) of the image as it was measured.
    ratio
        Pixel size over voxel size.
    transform
        Matrix (2, 2) and shift (2,), xy, in measured pixels, from the raw to the aligned image; None if it is aligned.
    size
        Rows and columns of the result; the axis is at column size[1] // 2, the middle row at size[0] // 2.

    Returns
    -------
    Tensor
        Shape `size`; 0 where the image does not reach.
    """
    y = (torch.arange(size[0], device=fine.device) - centre(size[0])) / ratio
    x = (torch.arange(size[1], device=fine.device) - size[1] // 2) / (OVER * ratio)
    points = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    middle = [centre(n) for n in pixels] if transform is None else [(n - 1) / 2 for n in pixels]
    if transform is not None:
        inverse = points.new_tensor(np.linalg.inv(transform[0]))
        points = (points - points.new_tensor(transform[1])) @ inverse.T
    step = points.new_tensor([fine.shape[1] / pixels[1], fine.shape[0] / pixels[0]])
    last = points.new_tensor([max(fine.shape[1] - 1, 1), max(fine.shape[0] - 1, 1)])
    grid = (points + points.new_tensor(middle[::-1])) * step * (2 / last) - 1
    return grid_sample(fine[None, None], grid[None], mode="bicubic", padding_mode="zeros", align_corners=True)[0, 0]


def correct(
    image: Tensor,
    tilt: float,
    *,
    voxel_size: float,
    radius: float,
    lens: Lens | None = None,
    defocus: float = 0.0,
    hand: int = HAND,
    dose: float = 0.0,
) -> Tensor:
    """Flip the phases of frequencies with a negative contrast transfer, and damp frequencies that radiation has damaged.

    Across the tilt axis the specimen rises and falls with the tilt, and defocus with it. The image is flipped at a few
    defoci, no farther apart than the depth of focus, and every column is interpolated between the nearest two.

    Parameters
    ----------
    image
        What `align` returned, (y, x), its columns half a voxel wide and the tilt axis in the middle one.
    tilt
        Degrees.
    voxel_size
        Å.
    radius
        Å from the tilt axis to the border of the specimen, which ends the gradient of defocus.
    lens, defocus
        Optics, and the underfocus in µm at the tilt axis; without a lens phases are not flipped.
    hand
        1 or -1: whether a point at greater height is farther under focus, or less far (`tomolab.conventions`).
    dose
        e/Å² that the specimen had before the image (Grant & Grigorieff 2015, eq. 5).
    """
    if lens is None and dose == 0:
        return image
    ky = torch.fft.fftfreq(image.shape[0], device=image.device) / voxel_size
    kx = torch.fft.rfftfreq(image.shape[1], device=image.device) * OVER / voxel_size
    k = torch.hypot(ky[:, None], kx)
    transform = torch.fft.rfft2(image)
    if dose > 0:
        transform *= damage(k, torch.tensor(dose, device=k.device), voltage=(lens or Lens()).voltage)
    if lens is None:
        return torch.fft.irfft2(transform, s=image.shape)
    phase = phases(k, lens)
    x = (torch.arange(image.shape[1], device=k.device) - image.shape[1] // 2) * (voxel_size / OVER)
    rise, top = np.tan(np.deg2rad(tilt)), abs(np.sin(np.deg2rad(tilt))) * radius
    focus = defocus + hand * 1e-4 * (-x * float(rise)).clamp(-top, top)
    low, high = float(focus.min()), float(focus.max())
    steps = max(1, ceil((high - low) / (depth_of_focus(voxel_size, lens.voltage) * 1e-4)))
    out = torch.zeros_like(image)
    for step in range(steps + 1):
        value = low + (high - low) * step / steps
        weights = (1 - (focus - value).abs() / ((high - low) / steps or 1)).clamp_min(0)
        flipped = torch.where(torch.sin(phase["flat"] + phase["per_micron"] * value) < 0, -transform, transform)
        out += weights * torch.fft.irfft2(flipped, s=image.shape)
        if high == low:
            break
    return out


def weight(image: Tensor, weights: Tensor) -> Tensor:
    """Weight rows (y, x) in Fourier space and resample them from OVER to FINE columns per voxel.

    The blur of the linear interpolation that follows is corrected here. Weights are those of `tomolab.tomograms.filters`, on
    the rfft grid of `padded(x)` columns.
    """
    length, times = padded(image.shape[1]), FINE // OVER
    response = weights.to(image.device) * interpolation_correction(length * times)[: length // 2 + 1].to(image.device) * times
    fine = torch.fft.irfft(torch.fft.rfft(image, n=length) * response, n=length * times)
    return fine[:, : image.shape[1] * times]


def padded(columns: int) -> int:
    """Columns to which a row is padded, so that weighting does not wrap around."""
    return 2 * next_fast_len(columns, real=True)
