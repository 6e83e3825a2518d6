"""A volume and tilts in, projections out; and back: images in, their back-projection out, which is the adjoint.

The tilt axis is y, and a point (x, z) about it is projected to ``x cos t + z sin t`` (`tomolab.conventions`). So all y share
one geometry: a voxel contributes to two neighbouring columns of every image, by linear interpolation on columns of a quarter of
a voxel.

>>> images = project(volume, np.arange(-60, 61, 3.0))
>>> parts, heights = slabs(data, 30.0, width=512, depth=100.0)     # split along the beam, for the defocus gradient
"""

from collections.abc import Sequence
from math import ceil, cos, radians, sin
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import embedding_bag
from tqdm.auto import tqdm

from tomolab import parallel
from tomolab.conventions import centre
from tomolab.volumes import Volume

FINE = 4
"""Columns per voxel of a fine image, for which linear interpolation keeps detail up to Nyquist within 2 %."""
STRIP = 32
"""Rows of all images, along y, that a worker back-projects at a time."""


def check_tilts(tilts: ArrayLike) -> np.ndarray:
    """Tilts as an array (n,) in degrees.

    Raises
    ------
    ValueError
        If they are not a list of angles within ±90°.
    """
    # A copy, since torch wants arrays that may be written to, and columns of a table may not.
    found = np.array(tilts, dtype=float)
    if found.ndim != 1 or len(found) == 0:
        raise ValueError(f"tilts must be a list of angles in degrees, got shape {found.shape}")
    bad = ~(np.abs(found) <= 90)
    if bad.any():
        raise ValueError(f"tilts must lie within ±90°, got {found[bad].tolist()}")
    return found


def project(
    volume: Volume,
    tilts: ArrayLike,
    *,
    width: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Project a volume along the beam at every tilt: sums over voxels, on pixels of the size of a voxel.

    The adjoint of the back-projection: voxels are spread over the same two columns, then everything beyond Nyquist is cut off,
    and the blur of the interpolation is corrected.

    Parameters
    ----------
    volume
        What to project, with nothing outside of it.
    tilts
        n angles in degrees.
    width
        Pixels along x; as many as the volume has by default. The tilt axis runs through pixel width // 2.
    device
        Where to compute; the first GPU if there is one, else the CPU.
    progress
        Show a progress bar.

    Returns
    -------
    ndarray
        Images, float32, shape (n, y, width).

    Raises
    ------
    ValueError
        If a tilt is beyond ±90°, the width is less than one pixel, or the device is absent.
    """
    angles = check_tilts(tilts)
    pixels = volume.shape[2] if width is None else width
    data = y_last(torch.from_numpy(volume.data).to(parallel.pick_device(device)))
    out = np.empty((len(angles), volume.shape[1], pixels), dtype=np.float32) if pixels > 0 else np.empty(0)
    for i, tilt in enumerate(tqdm(angles, desc="tilts", disable=not progress)):
        out[i] = slabs(data, float(tilt), width=pixels)[0][0].cpu().numpy()
    return out


def y_last(data: Tensor) -> Tensor:
    """The same (z, y, x) with y last in memory, which makes `slabs` faster; worth it for many tilts."""
    return data.transpose(1, 2).contiguous().transpose(1, 2)


def slabs(data: Tensor, tilt: float, *, width: int, depth: float | None = None) -> tuple[Tensor, Tensor]:
    """Project at one tilt, separately for slabs that lie above each other along the beam.

    A voxel at (x, z) from the middle lies at height ``z cos t - x sin t`` along the beam, and belongs to the slab that its
    centre is in. The sum over slabs is the whole projection.

    Parameters
    ----------
    data
        Density (z, y, x), on any device. It may reach beyond the image; see `y_last` for repeated use.
    tilt
        Degrees, within ±90°.
    width
        Pixels along x. The tilt axis runs through pixel width // 2.
    depth
        Thickness of a slab in voxels; None for a single one, of any thickness.

    Returns
    -------
    images, heights
        Shapes (s, y, width) and (s,): sums over voxels, and the height of the middle of each slab, in voxels; slabs lie
        symmetrically about height 0, in ascending order.

    Raises
    ------
    ValueError
        If the data are not a volume, the tilt is beyond ±90°, or the width or depth not positive.
    """
    if data.ndim != 3 or min(data.shape) < 1:
        raise ValueError(f"a volume of shape (z, y, x) is needed, got shape {tuple(data.shape)}")
    if width < 1 or (depth is not None and not depth > 0):
        raise ValueError(f"width and depth must be positive, got {width} pixels and {depth} voxels")
    [angle] = check_tilts([tilt])
    z, y, x = data.shape
    wide = columns_needed(width, np.array([angle]), (z, x))
    number, heights = _layers(angle, (z, x), depth)
    column, weight = columns(torch.tensor([angle]), (z, x), wide, layers=slice(0, z))
    bag = (column + number[:, None] * wide).flatten()
    used = weight.flatten() != 0
    # Sorted by the column they fall on, voxels are gathered by columns, and nothing is written twice.
    bag, order = torch.sort(bag[used], stable=True)
    voxel = (torch.arange(z * x).repeat_interleave(2)[used])[order]
    starts = torch.searchsorted(bag, torch.arange(len(heights) * wide))
    device = data.device
    sums = embedding_bag(
        voxel.to(device),
        data.transpose(1, 2).reshape(z * x, y),
        starts.to(device),
        per_sample_weights=weight.flatten()[used][order].to(device, data.dtype),
        mode="sum",
    ).reshape(len(heights), wide, y)
    # Frequencies below Nyquist of a voxel are taken from the fine columns to a grid of whole voxels.
    transform = torch.fft.rfft(sums, dim=1)[:, : wide // FINE // 2 + 1]
    transform *= interpolation_correction(wide)[: transform.shape[1], None].to(device)
    images = torch.fft.irfft(transform, n=wide // FINE, dim=1)
    start = wide // FINE // 2 - centre(width)
    return images[:, start : start + width].transpose(1, 2).contiguous(), heights.to(device, data.dtype)


def _layers(angle: float, plane: tuple[int, int], depth: float | None) -> tuple[Tensor, Tensor]:
    """For every voxel of a plane (z, x) the number of its slab, (voxels,), and the heights of the slabs, (s,)."""
    z, x = (torch.arange(n) - centre(n) for n in plane)
    if depth is None:
        return torch.zeros(plane[0] * plane[1], dtype=torch.long), torch.zeros(1)
    height = (z[:, None] * cos(radians(angle)) - x * sin(radians(angle))).flatten().double()
    # Half a voxel beyond the centres of the outermost voxels, so that these lie inside.
    count = max(1, ceil((2 * float(height.abs().max()) + 1) / depth))
    number = (height / depth + count / 2).floor().clamp(0, count - 1).long()
    return number, (torch.arange(count) - (count - 1) / 2) * depth


def columns_needed(pixels: float, tilts: np.ndarray, plane: tuple[int, int]) -> int:
    """Fine columns that hold the image and the projection of a plane (z, x); the axis is in the middle one."""
    radians = np.deg2rad(tilts)
    projected = (plane[1] * np.abs(np.cos(radians)) + plane[0] * np.abs(np.sin(radians))).max()
    return 2 * FINE * (ceil(max(pixels, float(projected)) / 2) + 1)


def columns(tilts: Tensor, plane: tuple[int, int], width: int, *, layers: slice) -> tuple[Tensor, Tensor]:
    """The two columns of every image that every (z, x) of these layers projects to, and their weights, (voxels, 2 n)."""
    z = torch.arange(plane[0], device=tilts.device)[layers] - centre(plane[0])
    x = torch.arange(plane[1], device=tilts.device) - centre(plane[1])
    radians = torch.deg2rad(tilts)
    position = x[None, :, None] * torch.cos(radians) + z[:, None, None] * torch.sin(radians)
    position = (position * FINE + width // 2).flatten(0, 1)
    left = position.floor()
    weight = (position - left).float()
    first = left.long() + torch.arange(len(tilts), device=tilts.device) * width
    return torch.stack([first, first + 1], dim=-1).flatten(1), torch.stack([1 - weight, weight], dim=-1).flatten(1)


def back_project(
    images: Tensor,
    tilts: np.ndarray,
    box: Sequence[int],
    *,
    progress: bool = True,
    client: Any = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Back-project fine images (n, columns, y), as many columns as `columns_needed`, into `box` voxels (z, y, x), float32.

    The tilt axis runs through the middle column. `client`, as `parallel.active` gave it, are workers that back-project strips
    of the images on `device`; None works here, where the images are, some layers at a time to bound memory.
    """
    z, y, x = box
    if client is not None:
        volume = np.empty((z, y, x), dtype=np.float32)
        parts = [slice(start, min(start + STRIP, y)) for start in range(0, y, STRIP)]
        strips = (images[..., part].cpu().contiguous().numpy() for part in parts)
        found = parallel.each(_strip, strips, client=client, shared=(tilts, (z, x), device))
        for part, strip in zip(parts, tqdm(found, total=len(parts), desc="strips", disable=not progress), strict=True):
            volume[:, part] = strip
        return volume
    out = torch.empty(z, y, x)
    angles = torch.from_numpy(tilts).to(images.device)
    step = max(1, 2_000_000 // (x * len(tilts)))
    for start in tqdm(range(0, z, step), desc="layers", disable=not progress):
        layers = slice(start, min(start + step, z))
        index, weight = columns(angles, (z, x), images.shape[1], layers=layers)
        slab = embedding_bag(index, images.flatten(0, 1), per_sample_weights=weight, mode="sum")
        out[layers] = slab.reshape(-1, x, y).transpose(1, 2)
    return out.numpy()


def _strip(images: np.ndarray, tilts: np.ndarray, plane: tuple[int, int], device: str | torch.device | None) -> np.ndarray:
    """Back-projection of a strip of the images."""
    strip = torch.from_numpy(images.copy()).to(parallel.pick_device(device))
    return back_project(strip, np.array(tilts), (plane[0], strip.shape[-1], plane[1]), progress=False)


def interpolation_correction(length: int) -> Tensor:
    """One over the transfer of linear interpolation on FINE columns per voxel (rfft grid); 0 beyond Nyquist of a voxel."""
    k = torch.fft.rfftfreq(length)
    return (k <= 0.5 / FINE) / torch.sinc(k) ** 2
