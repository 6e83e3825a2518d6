"""Images of a tilt series, made ready for back-projection: cleaned, normalised, binned and aligned.

Works on one image (y, x) at a time, as a torch tensor on its device.

>>> image = prepare(pixels, ratio=0.5, clip=10.0, name="image 0")
>>> rows = align(image, pixels.shape, 0.5, transform=None, size=(315, 652))
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import grid_sample

from tomolab import volumes
from tomolab.conventions import centre

OVER = 2
"""Samples per voxel of a prepared image, so that cubic interpolation loses nothing."""
FINE = 4
"""Columns per voxel of a weighted image: there linear interpolation leaves detail up to Nyquist as it is, within 2 %."""


def prepare(image: Tensor, ratio: float, *, clip: float | None, name: str) -> Tensor:
    """Clip outliers, fade out the border, sample twice a voxel, low-pass to a voxel's Nyquist, normalise.

    Parameters
    ----------
    image
        Grey values, shape (y, x).
    ratio
        Pixel size over voxel size.
    clip
        Limit for outliers in standard deviations, or None.
    name
        What to call the image in errors.

    Returns
    -------
    Tensor
        Mean 0, standard deviation 1, shape close to (y, x) * ratio * OVER, over the same extent; index 0 stays in place.

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
        place = torch.arange(n, device=image.device)
        fade = torch.sin(torch.pi / 2 * ((torch.minimum(place, n - 1 - place) + 1) / (n * 0.02 + 1)).clamp(max=1)) ** 2
        image = image * (fade[:, None] if axis == 0 else fade)
    rows, columns = (max(1, round(n * ratio * OVER)) for n in image.shape)
    fine = _resize(image, (rows, columns))
    if clip is not None:
        fine = volumes.clip(fine, clip)
    return volumes.normalise(fine[None, None])[0, 0]


def _resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sample the image at `shape` over the same extent and low-pass it, by cropping its transform."""
    transform = torch.fft.rfft2(image)
    rows, columns = (min(n, m) for n, m in zip(image.shape, shape, strict=True))
    ky, kx = torch.fft.fftfreq(shape[0], device=image.device), torch.fft.rfftfreq(shape[1], device=image.device)
    out = torch.zeros(shape[0], len(kx), dtype=transform.dtype, device=image.device)
    low, high, half = (rows + 1) // 2, rows // 2, columns // 2 + 1
    out[:low, :half] = transform[:low, :half]
    out[shape[0] - high :, :half] = transform[image.shape[0] - high :, :half]
    # The last fifth below Nyquist fades out, so that sharp things do not ring.
    fade_y, fade_x = (torch.cos(torch.pi / 2 * ((k.abs() * OVER - 0.4) / 0.1).clamp(0, 1)) ** 2 for k in (ky, kx))
    return torch.fft.irfft2(out * fade_y[:, None] * fade_x, s=shape) * (shape[0] * shape[1] / image.numel())


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


def weight(image: Tensor) -> Tensor:
    """Weight rows by the ramp ``|k|`` and refine them from OVER to FINE columns per voxel.

    The ramp is made in real space, so that its zero frequency is right (Kak & Slaney, 1988, eq. 3.61). The blur of the linear
    interpolation that follows is undone in advance.
    """
    length = 2 * next_fast_len(image.shape[1], real=True)
    distance = torch.minimum(torch.arange(length), length - torch.arange(length)).double()
    kernel = torch.where(distance % 2 == 1, -1 / (torch.pi * distance.clamp_min(1)) ** 2, 0.0)
    kernel[0] = 0.25
    times = FINE // OVER
    ramp = torch.fft.rfft(kernel).real.float() * unblur(length * times)[: length // 2 + 1] * (OVER * times)
    fine = torch.fft.irfft(torch.fft.rfft(image, n=length) * ramp.to(image.device), n=length * times)
    return fine[:, : image.shape[1] * times]


def unblur(length: int) -> Tensor:
    """Undo the blur of linear interpolation on FINE columns per voxel; 0 beyond a voxel's Nyquist. On the rfft grid."""
    k = torch.fft.rfftfreq(length)
    return (k <= 0.5 / FINE) / torch.sinc(k) ** 2
