"""Tomograms from tilt series: weighted back-projection, and its adjoint, projection.

In go the images of a tilt series, their tilts, and the alignment of each image; out comes a `Volume`, bright on dark.
The geometry is that of `tomolab.conventions`: the tilt axis is y, and a point (x, z) about it is seen at
``x cos t + z sin t``. The plane (z, x) is worked on for all y at once: each voxel gathers from every image one pair of
neighbouring columns, interpolated linearly on columns of a quarter of a voxel.

>>> stack, pixel_size = files.read_stack("TS_01.mrc")
>>> tilts, transforms = files.read_tilts("TS_01.tlt"), files.read_transforms("TS_01.xf")
>>> tomogram = reconstruct(stack, tilts, pixel_size=pixel_size, voxel_size=20.0, transforms=transforms)
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag
from tqdm.auto import tqdm

from tomolab import devices, tiltimages
from tomolab.conventions import centre
from tomolab.tiltimages import FINE, OVER
from tomolab.volumes import Volume

THICKNESS = 4000.0
"""Å along z where no shape is given: more than most lamellae and vitrified cells that an electron beam goes through."""


def reconstruct(
    stack: ArrayLike,
    tilts: ArrayLike,
    *,
    voxel_size: float,
    pixel_size: float | None = None,
    transforms: tuple[ArrayLike, ArrayLike] | None = None,
    shape: Sequence[int] | None = None,
    invert: bool = True,
    clip: float | None = 10.0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Volume:
    """Reconstruct a tilt series by weighted back-projection.

    Every image has its outliers clipped, is brought to the resolution of the result, to mean 0 and standard deviation
    1, faded out at its border, aligned, and weighted along x with the ramp ``|k|`` times the width of its tilt (half the
    angle between its neighbours), with a soft cut-off at Nyquist (Radermacher, in Frank, Electron Tomography, 2006).

    Parameters
    ----------
    stack
        Images, shape (n, y, x), with the tilt axis along y unless `transforms` bring it there.
    tilts
        n angles in degrees. The other sign gives the mirror image of the specimen.
    voxel_size
        Å, of the result. Coarser than the pixels means binning, by Fourier cropping.
    pixel_size
        Å, of the images; `voxel_size` by default.
    transforms
        IMOD's alignment as `files.read_transforms` gives it: matrices A (n, 2, 2) and shifts d (n, 2). A pixel at (x, y)
        from the middle of its image, which is index (size - 1) / 2, belongs at ``A (x, y) + d``, in pixels of `stack`.
        Without transforms the images are aligned already, and the tilt axis runs through index size // 2.
    shape
        Voxels (z, y, x) of the result; by default the field of view of the images, and 4000 Å along z or, if that is less,
        the width of the images.
    invert
        Measured images show dark protein; True turns them, so that the result is bright on dark. Record it with the
        parameters of the run. False for images that are bright on dark already, such as those of `project`.
    clip
        Grey values farther than this many standard deviations from the mean of an image are set to that limit, before and
        after binning, against hot pixels. Lower values, down to 4, also dim gold beads. None leaves everything.
    device
        Where to compute; the first GPU if there is one, else the CPU.
    progress
        Show progress bars.

    Returns
    -------
    Volume
        Grey values are relative, not normalised.

    Raises
    ------
    ValueError
        If the numbers of images, tilts and transforms differ, an image holds NaN or is constant, a transform cannot
        be inverted, a tilt is beyond ±90°, a size is not positive, or the device is absent.
    """
    images, angles, moves = _checked(stack, tilts, transforms)
    pixel = voxel_size if pixel_size is None else pixel_size
    box = _box(images.shape, voxel_size, pixel, shape)
    ratio = pixel / voxel_size
    width = _width(images.shape[2] * ratio, angles, box)
    weights = increments(angles) * (-1 if invert else 1)
    columns = torch.empty(len(images), width, box[1], device=devices.pick(device))
    for i in tqdm(range(len(images)), desc="images", disable=not progress):
        pixels = torch.from_numpy(np.array(images[i], dtype=np.float32)).to(columns.device)
        image = tiltimages.prepare(pixels, ratio, clip=clip, name=f"image {i}")
        image = tiltimages.align(image, pixels.shape, ratio, transform=moves[i], size=(box[1], width * OVER // FINE))
        columns[i] = (tiltimages.weight(image) * float(weights[i])).T
    return Volume(_smeared(columns, angles, box, progress=progress), voxel_size)


def project(volume: Volume, tilts: ArrayLike, *, width: int | None = None) -> np.ndarray:
    """Project a volume along the beam at every tilt: sums over voxels, on pixels of the size of a voxel.

    The adjoint of the back-projection: voxels are spread over the same two columns of a quarter of a voxel, then everything
    beyond Nyquist is cut off, and the blur of the spreading is undone.

    Parameters
    ----------
    volume
        What to project; nothing is outside of it.
    tilts
        n angles in degrees.
    width
        Pixels along x; as many as the volume has by default. The tilt axis runs through pixel width // 2.

    Returns
    -------
    ndarray
        Images, float32, shape (n, y, width).
    """
    angles = _angles(tilts)
    z, y, x = volume.shape
    pixels = x if width is None else width
    if pixels < 1:
        raise ValueError(f"width must be at least one pixel, got {pixels}")
    wide = _width(pixels, angles, volume.shape)
    columns, shares = _columns(torch.from_numpy(angles), (z, x), wide, layers=slice(0, z))
    starts = np.arange(z * x + 1) * columns.shape[1]
    spread = csr_array((shares.numpy().ravel(), columns.numpy().ravel(), starts), shape=(z * x, len(angles) * wide))
    sums = spread.T @ volume.data.transpose(0, 2, 1).reshape(z * x, y)
    transform = torch.fft.rfft(torch.from_numpy(sums).reshape(len(angles), wide, y), dim=1)
    images = torch.fft.irfft(transform * tiltimages.unblur(wide)[:, None], n=wide, dim=1)[:, ::FINE] * FINE
    start = wide // FINE // 2 - centre(pixels)
    return images[:, start : start + pixels].transpose(1, 2).contiguous().numpy()


def increments(tilts: ArrayLike) -> np.ndarray:
    """Width in radians that each tilt stands for: half the angle between its two neighbours, modulo 180°.

    The first and last tilt of a series with a missing wedge are taken to lie in the middle of their widths, so that nothing
    of the wedge is given to them.
    """
    # Equal tilts, such as -90 and 90, share one width.
    folded, which, counts = np.unique(np.mod(_angles(tilts), 180), return_inverse=True, return_counts=True)
    if len(folded) == 1:
        return 1 / counts[which]
    after = np.diff(folded, append=folded[0] + 180)
    before = np.roll(after, 1)
    last = int(np.argmax(after))
    first = (last + 1) % len(after)
    after[last], before[first] = min(after[last], before[last]), min(before[first], after[first])
    return np.deg2rad((before + after) / 2 / counts)[which]


def _checked(
    stack: ArrayLike, tilts: ArrayLike, transforms: tuple[ArrayLike, ArrayLike] | None
) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray] | None]]:
    """Return the images, their tilts, and the transform of each, or None."""
    images = np.asanyarray(stack)
    if images.ndim != 3 or min(images.shape) < 1:
        raise ValueError(f"a tilt series needs images of shape (n, y, x), got shape {images.shape}")
    n = len(images)
    angles = _angles(tilts)
    if len(angles) != n:
        raise ValueError(f"a tilt for every image is needed, got {len(angles)} tilts for {n} images")
    if transforms is None:
        return images, angles, [None] * n
    matrices, shifts = (np.asarray(part, dtype=float) for part in transforms)
    if matrices.shape != (n, 2, 2) or shifts.shape != (n, 2):
        raise ValueError(
            f"transforms must be matrices ({n}, 2, 2) and shifts ({n}, 2), one for every image; "
            f"got shapes {matrices.shape} and {shifts.shape}"
        )
    good = np.isfinite(matrices).all((1, 2)) & np.isfinite(shifts).all(1)
    good[good] = np.abs(np.linalg.det(matrices[good])) > 1e-3
    if not good.all():
        raise ValueError(f"the transforms of images {np.flatnonzero(~good).tolist()} hold NaN or cannot be inverted")
    return images, angles, list(zip(matrices, shifts, strict=True))


def _angles(tilts: ArrayLike) -> np.ndarray:
    angles = np.asarray(tilts, dtype=float)
    if angles.ndim != 1 or len(angles) == 0:
        raise ValueError(f"tilts must be a list of angles in degrees, got shape {angles.shape}")
    bad = ~(np.abs(angles) <= 90)
    if bad.any():
        raise ValueError(f"tilts must lie within ±90°, got {angles[bad].tolist()}")
    return angles


def _box(stack: Sequence[int], voxel_size: float, pixel_size: float, shape: Sequence[int] | None) -> tuple[int, int, int]:
    """Voxels (z, y, x) of the result."""
    for name, size in (("voxel_size", voxel_size), ("pixel_size", pixel_size)):
        if not np.isfinite(size) or size <= 0:
            raise ValueError(f"{name} must be a positive number of Å, got {size}")
    if shape is None:
        y, x = (max(1, round(n * pixel_size / voxel_size)) for n in stack[1:])
        return min(max(1, round(THICKNESS / voxel_size)), x), y, x
    if len(shape) != 3 or any(n != int(n) or n < 1 for n in shape):
        raise ValueError(f"shape must be three positive whole numbers (z, y, x), got {tuple(shape)}")
    z, y, x = (int(n) for n in shape)
    return z, y, x


def _width(pixels: float, angles: np.ndarray, box: Sequence[int]) -> int:
    """Columns of a quarter of a voxel that hold the image and the shadow of the box; the axis is in the middle one."""
    shadow = (box[2] * np.abs(np.cos(np.deg2rad(angles))) + box[0] * np.abs(np.sin(np.deg2rad(angles)))).max()
    return 2 * FINE * (int(np.ceil(max(pixels, shadow) / 2)) + 1)


def _columns(angles: Tensor, plane: tuple[int, int], width: int, *, layers: slice) -> tuple[Tensor, Tensor]:
    """For every (z, x) of these layers, the two columns of every image that it is seen in, and their shares; (voxels, 2 n)."""
    z = torch.arange(plane[0], device=angles.device)[layers] - centre(plane[0])
    x = torch.arange(plane[1], device=angles.device) - centre(plane[1])
    radians = torch.deg2rad(angles)
    place = x[None, :, None] * torch.cos(radians) + z[:, None, None] * torch.sin(radians)
    place = (place * FINE + width // 2).flatten(0, 1)
    left = place.floor()
    share = (place - left).float()
    first = left.long() + torch.arange(len(angles), device=angles.device) * width
    return torch.stack([first, first + 1], dim=-1).flatten(1), torch.stack([1 - share, share], dim=-1).flatten(1)


def _smeared(columns: Tensor, angles: np.ndarray, box: tuple[int, int, int], *, progress: bool) -> np.ndarray:
    """Sum over the images (n, width, y) along their beams, shape `box`; some layers at a time to bound memory."""
    z, y, x = box
    out = np.empty(box, dtype=np.float32)
    turned = torch.from_numpy(angles).to(columns.device)
    step = max(1, 2_000_000 // (x * len(angles)))
    for start in tqdm(range(0, z, step), desc="layers", disable=not progress):
        layers = slice(start, min(start + step, z))
        index, share = _columns(turned, (z, x), columns.shape[1], layers=layers)
        slab = embedding_bag(index, columns.flatten(0, 1), per_sample_weights=share, mode="sum")
        out[layers] = slab.reshape(-1, x, y).transpose(1, 2).cpu().numpy()
    return out
