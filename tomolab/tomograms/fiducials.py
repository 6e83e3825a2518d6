"""Gold beads in the images of a tilt series: found, and painted over, so that they own neither picks nor clusters.

A bead is far darker than anything else in an image, and its streaks reach through the whole tomogram, where they cannot be
taken out any more. In the images it is a disc, and under it there is hardly any signal to lose.

>>> series = erase(series, diameter=100.0)
>>> tomogram = tomograms.reconstruct(series.images, series.tilts, voxel_size=10.0, pixel_size=series.pixel_size)
"""

from dataclasses import replace

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from tqdm.auto import tqdm

from tomolab.tomograms.tilt_series import TiltSeries

RIM = 0.3
"""What is painted over around a bead, as a part of its diameter: its edge is blurred, and bright in an image out of focus."""
WIDE = 2.0
"""Width, in diameters, over which the surroundings of a place are averaged."""


def find(images: np.ndarray, *, diameter: float, deviations: float = 8.0) -> np.ndarray:
    """Find beads: what is darker than its surroundings by far more than noise and protein are.

    Parameters
    ----------
    images
        Grey values (n, y, x), dark gold.
    diameter
        Pixels, of a bead.
    deviations
        How many standard deviations below its surroundings, in the image smoothed to beads, a place is gold. The deviation
        is measured by its median, which gold does not move.

    Returns
    -------
    ndarray
        Bool (n, y, x), True on beads and a rim around them.

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
            f"a bead must be 2 pixels to a quarter of an image of {images.shape[1:]} wide, got {diameter:g} pixels"
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


def paint(images: np.ndarray, mask: np.ndarray, *, width: float, seed: int = 0) -> np.ndarray:
    """Replace what is masked by the mean of its surroundings and noise as strong as theirs.

    Parameters
    ----------
    images
        Grey values (n, y, x).
    mask
        Bool, of the same shape.
    width
        Pixels: the mean is taken by a Gaussian of half of this.
    seed
        Of the noise.

    Returns
    -------
    ndarray
        Float32; all values that are not masked are as they were.

    Raises
    ------
    ValueError
        If the shapes differ, or an image is masked altogether.
    """
    if np.shape(mask) != np.shape(images):
        raise ValueError(f"the mask must have the shape of the images, {np.shape(images)}, got {np.shape(mask)}")
    rng = np.random.default_rng(seed)
    out = np.array(images, dtype=np.float32)
    for number, (image, here) in enumerate(zip(out, mask, strict=True)):
        if here.all():
            raise ValueError(f"image {number} is masked altogether: there is nothing to fill it by")
        if here.any():
            noise = rng.standard_normal(int(here.sum()), dtype=np.float32)
            level = _around(image, here, width / 2)
            spread = np.sqrt(_around((image - level) ** 2, here, WIDE * width))
            image[here] = level[here] + spread[here] * noise
    return out


def erase(series: TiltSeries, *, diameter: float, deviations: float = 8.0, seed: int = 0, progress: bool = True) -> TiltSeries:
    """Tilt series with its gold beads painted over.

    Parameters
    ----------
    series
        As it was recorded, protein dark.
    diameter
        Å, of a bead.
    deviations, seed
        As in `find` and `paint`.
    progress
        Show a progress bar.

    Returns
    -------
    TiltSeries
        Its table has a column ``gold``: the share of each image that was painted over.

    Raises
    ------
    ValueError
        As `find` and `paint`.
    """
    pixels = diameter / series.pixel_size
    images, shares = np.empty_like(series.images), []
    for number in tqdm(range(len(series)), desc="gold", disable=not progress):
        one = series.images[number : number + 1]
        mask = find(one, diameter=pixels, deviations=deviations)
        images[number] = paint(one, mask, width=pixels, seed=seed + number)[0]
        shares.append(float(mask.mean()))
    return replace(series, images=images, table=series.table.assign(gold=shares))


def _around(values: np.ndarray, hidden: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean of what is not hidden; where none of that is in reach, the mean of the whole image."""
    seen = (~hidden).astype(np.float32)
    weight = gaussian_filter(seen, width)
    mean = gaussian_filter(np.where(hidden, 0, values), width) / np.maximum(weight, 1e-6)
    return np.where(weight > 1e-3, mean, values[~hidden].mean())
