"""Images of a tilt series, their tilts and alignment in, a tomogram out (a `Volume`, bright on dark): weighted back-projection.

>>> series = tilt_series.read("TS_01.mrc", tilts="TS_01.tlt", transforms="TS_01.xf", metadata="TS_01.mdoc")
>>> tomogram = reconstruct(
...     series.images, series.tilts, pixel_size=series.pixel_size, voxel_size=20.0, transforms=series.transforms,
...     lens=Lens(), defocus=series.defocus,
... )
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm.auto import tqdm

from tomolab import parallel
from tomolab.conventions import HAND
from tomolab.ctf import Lens
from tomolab.io.tilts.imod import check_transforms
from tomolab.tomograms import preprocessing, projection
from tomolab.tomograms.filters import filters
from tomolab.tomograms.preprocessing import OVER
from tomolab.tomograms.projection import FINE
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
    normalise: bool = True,
    weighting: Literal["ramp", "exact", "sirt"] = "ramp",
    iterations: int = 10,
    lens: Lens | None = None,
    defocus: ArrayLike | None = None,
    hand: int = HAND,
    dose: ArrayLike | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    client: Any = None,
) -> Volume:
    """Reconstruct a tilt series by weighted back-projection.

    Every image is clipped, tapered at its border, resampled to the voxel size, normalised, aligned, phase-flipped where the
    optics are given, and weighted across the tilt axis (`tomolab.tomograms.filters`), with a soft cut-off at Nyquist.

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
        IMOD's alignment as `io.tilts.read_transforms` gives it: matrices A (n, 2, 2) and shifts d (n, 2). A pixel at (x, y)
        from the middle of its image, which is index (size - 1) / 2, belongs at ``A (x, y) + d``, in pixels of `stack`.
        Without transforms the images are aligned already, and the tilt axis runs through index size // 2.
    shape
        Voxels (z, y, x) of the result; by default the field of view of the images, and 4000 Å along z or, if that is less,
        the width of the images.
    invert
        Measured images show dark protein; True inverts them, so that the result is bright on dark. Record it with the
        parameters of the run. False for images that are bright on dark already, such as those of `project`.
    clip
        Grey values farther than this many standard deviations from the mean of an image are set to that limit, before and
        after binning, against hot pixels. Lower values, down to 4, also dim gold. None leaves everything.
    normalise
        Bring every image to standard deviation 1. False keeps the grey values of the images, so that images that
        `projection.project` gave for all angles give the volume back.
    weighting
        "ramp"; "exact", for tilts that are unevenly spaced or far apart; or "sirt", like `iterations` of SIRT. The last two
        assume that the specimen is as thick as the result.
    iterations
        Of "sirt"; fewer are smoother.
    lens
        Flip the phases of images taken with these optics; needs `defocus`. The flip follows the gradient of defocus
        across tilted images, for a specimen in the middle of the result.
    defocus
        Underfocus (n,) in µm of each image, at the tilt axis.
    hand
        1 if points at greater height are farther under focus, -1 if less far (`tomolab.conventions`).
    dose
        e/Å² (n,) that the specimen had before each image: damps frequencies by their radiation damage (Grant & Grigorieff
        2015). None leaves the images as they are.
    device
        Where to compute; the first GPU if there is one, else the CPU.
    progress
        Show progress bars.
    client
        Workers of a Dask cluster that prepare and back-project the images, each on its own device (`parallel`), while this
        process holds images and volume. By default the active `distributed.Client`, if there is one; False works
        here. The result is the same on devices of the same kind.

    Returns
    -------
    Volume
        Grey values are relative, unless `normalise` is False.

    Raises
    ------
    ValueError
        If the numbers of images, tilts and transforms differ, an image holds NaN or is constant, a transform cannot
        be inverted, a tilt is beyond ±90°, a size is not positive, a lens is given without a defocus for each image, a
        defocus or dose is not known, or the device is absent.
    """
    images, angles, moves = _checked(stack, tilts, transforms)
    focus, before = _optics(len(images), lens=lens, defocus=defocus, hand=hand, dose=dose)
    pixel = voxel_size if pixel_size is None else pixel_size
    box = _box(images.shape, voxel_size, pixel, shape)
    ratio = pixel / voxel_size
    width = projection.columns_needed(images.shape[2] * ratio, angles, (box[0], box[2]))
    rows = (box[1], width * OVER // FINE)
    weights = filters(weighting, angles, length=preprocessing.padded(rows[1]), thickness=box[0], iterations=iterations)
    workers = parallel.active(client)
    columns = torch.empty(len(images), width, box[1], device=parallel.pick_device(device) if workers is None else "cpu")
    optics = {"voxel_size": voxel_size, "radius": box[2] / 2 * voxel_size, "lens": lens, "hand": hand}
    settings = _Settings(ratio, rows, clip, normalise, optics, -1 if invert else 1, device, workers is not None)
    items = (
        _Image(i, np.asarray(images[i]), float(angles[i]), moves[i], float(focus[i]), float(before[i]), weights[i].numpy())
        for i in range(len(images))
    )
    prepared = parallel.each(_columns, items, client=workers, shared=(settings,))
    for i, found in enumerate(tqdm(prepared, total=len(images), desc="images", disable=not progress)):
        columns[i] = found
    return Volume(projection.back_project(columns, angles, box, progress=progress, client=workers, device=device), voxel_size)


@dataclass(frozen=True)
class _Image:
    """An image of the series with its tilt, transform, underfocus, the dose before it, and its weights."""

    number: int
    pixels: np.ndarray
    tilt: float
    transform: tuple[np.ndarray, np.ndarray] | None
    defocus: float
    dose: float
    weights: np.ndarray


@dataclass(frozen=True)
class _Settings:
    """How every image is prepared, on which device, and whether the result goes to another process."""

    ratio: float
    rows: tuple[int, int]
    clip: float | None
    normalise: bool
    optics: dict[str, Any]
    sign: int
    device: str | torch.device | None
    sent: bool


def _columns(item: _Image, settings: _Settings) -> Tensor:
    """The image ready to be back-projected, (columns, y)."""
    pixels = torch.from_numpy(np.array(item.pixels, dtype=np.float32)).to(parallel.pick_device(settings.device))
    name = f"image {item.number}"
    image = preprocessing.prepare(pixels, settings.ratio, clip=settings.clip, normalise=settings.normalise, name=name)
    image = preprocessing.align(image, pixels.shape, settings.ratio, transform=item.transform, size=settings.rows)
    image = preprocessing.correct(image, item.tilt, defocus=item.defocus, dose=item.dose, **settings.optics)
    found = (preprocessing.weight(image, torch.from_numpy(item.weights.copy())) * settings.sign).T
    return found.cpu().contiguous() if settings.sent else found


def _checked(
    stack: ArrayLike, tilts: ArrayLike, transforms: tuple[ArrayLike, ArrayLike] | None
) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray] | None]]:
    """Return the images, their tilts, and the transform of each, or None."""
    images = np.asanyarray(stack)
    if images.ndim != 3 or min(images.shape) < 1:
        raise ValueError(f"a tilt series needs images of shape (n, y, x), got shape {images.shape}")
    n = len(images)
    angles = projection.check_tilts(tilts)
    if len(angles) != n:
        raise ValueError(f"a tilt for every image is needed, got {len(angles)} tilts for {n} images")
    if transforms is None:
        return images, angles, [None] * n
    matrices, shifts = check_transforms(transforms, n)
    return images, angles, list(zip(matrices, shifts, strict=True))


def _optics(
    images: int, *, lens: Lens | None, defocus: ArrayLike | None, hand: int, dose: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the underfocus of each image, and the dose before it; 0 where there is none."""
    if (lens is None) != (defocus is None):
        raise ValueError(f"flipping phases needs both lens and defocus, got lens={lens} and defocus={defocus!r}")
    if hand not in (1, -1):
        raise ValueError(f"hand must be 1 or -1, got {hand}")
    values = []
    for name, given, unit in (("defocus", defocus, "µm"), ("dose", dose, "e/Å²")):
        found = np.zeros(images) if given is None else np.asarray(given, dtype=float)
        if found.shape != (images,) or not np.isfinite(found).all():
            raise ValueError(f"{name} must be a number of {unit} for each of {images} images, got {found.tolist()}")
        values.append(found)
    if (values[1] < 0).any():
        raise ValueError(f"dose must not be negative, got {values[1].min():g} e/Å²")
    return values[0], values[1]


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
