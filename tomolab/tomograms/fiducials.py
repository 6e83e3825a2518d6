"""A tilt series in, the same without its gold fiducials out: they are found in the images and filled with their surroundings.

The streaks of a fiducial reach through the whole tomogram and cannot be removed there. In the images it is a disc, darker than
anything else, with hardly any signal under it.

>>> series = erase(series, diameter=100.0)
>>> tomogram = tomograms.reconstruct(series.images, series.tilts, voxel_size=10.0, pixel_size=series.pixel_size)
"""

from dataclasses import replace

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from tqdm.auto import tqdm

from tomolab.tomograms.tilt_series import TiltSeries

RIM = 0.3
"""Width of the rim that is filled too, in diameters: the edge of a fiducial is blurred, and bright in an image out of focus."""
WIDE = 2.0
"""Width, in diameters, over which the surroundings of a pixel are averaged."""


def find(images: np.ndarray, *, diameter: float, deviations: float = 8.0) -> np.ndarray:
    """Find gold fiducials: they are much darker than their surroundings.

    Parameters
    ----------
    images
        Grey values (n, y, x), dark gold.
    diameter
        Pixels, of a fiducial.
    deviations
        A pixel is gold if it is this many standard deviations darker than its surroundings, in the image smoothed to fiducials.
        The deviation is the median absolute one, which gold does not change.

    Returns
    -------
    ndarray
        Bool (n, y, x), True on fiducials and a rim around them.

    Raises
    ------
    ValueError
        If the images are not (n, y, x), the diameter is under 2 pixels or over a quarter of an image, or `deviations` is not
        positive.
    """
    images = np.asarray(images)
    if images.ndim != 3:
        raise ValueError(f"images of shape (n, y, x) are needed, got shape {images.shape}")
    if not 2 <= diameter <= min(images.shape[1:]) / 4:
        raise ValueError(
            f"a fiducial must be 2 pixels to a quarter of an image of {images.shape[1:]} wide, got {diameter:g} pixels"
        )
    if not deviations > 0:
        raise ValueError(f"deviations must be positive, got {deviations:g}")
    out = np.zeros(images.shape, dtype=bool)
    for image, mask in zip(images, out, strict=True):
        image = image.astype(np.float32)
        contrast = gaussian_filter(image, diameter / 4) - gaussian_filter(image, WIDE * diameter)
        middle = np.median(contrast)
        deviation = 1.4826 * np.median(np.abs(contrast - middle))
        dark = contrast < middle - deviations * deviation
        mask[:] = distance_transform_edt(~dark) <= RIM * diameter if dark.any() else False
    return out


def erase(series: TiltSeries, *, diameter: float, deviations: float = 8.0, seed: int = 0, progress: bool = True) -> TiltSeries:
    """Fill the gold fiducials of a tilt series with the mean of their surroundings and noise as strong as there.

    Parameters
    ----------
    series
        As it was recorded, protein dark.
    diameter
        Å, of a fiducial.
    deviations
        As in `find`.
    seed
        Of the noise.
    progress
        Show a progress bar.

    Returns
    -------
    TiltSeries
        Its table has a column ``gold``: the fraction of each image that was filled. Other pixels are unchanged.

    Raises
    ------
    ValueError
        As `find`, or if an image is masked altogether.
    """
    pixels = diameter / series.pixel_size
    images, fractions = series.images.copy(), []
    for number, image in enumerate(tqdm(images, desc="gold", disable=not progress)):
        (mask,) = find(image[None], diameter=pixels, deviations=deviations)
        if mask.any():
            _fill(image, mask, width=pixels, rng=np.random.default_rng(seed + number))
        fractions.append(float(mask.mean()))
    return replace(series, images=images, table=series.table.assign(gold=fractions))


def _fill(image: np.ndarray, mask: np.ndarray, *, width: float, rng: np.random.Generator) -> None:
    """Replace masked pixels of an image, in place, by the mean of their surroundings (Gaussian of half `width`) and noise."""
    if mask.all():
        raise ValueError("an image is masked altogether: there is nothing to fill it with")
    noise = rng.standard_normal(int(mask.sum()), dtype=np.float32)
    level = _mean_around(image, mask, width / 2)
    deviation = np.sqrt(_mean_around((image - level) ** 2, mask, WIDE * width))
    image[mask] = level[mask] + deviation[mask] * noise


def _mean_around(values: np.ndarray, hidden: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean of the pixels that are not hidden; the mean of all of them where none is near."""
    visible = (~hidden).astype(np.float32)
    weight = gaussian_filter(visible, width)
    mean = gaussian_filter(np.where(hidden, 0, values), width) / np.maximum(weight, 1e-6)
    return np.where(weight > 1e-3, mean, values[~hidden].mean())
