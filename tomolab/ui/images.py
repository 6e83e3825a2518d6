"""Takes slices of volumes, draws them on axes in Å with one contrast, extent and scale bar for all pictures.

x points right and y down, as napari shows them, so that a picture keeps the hand.
"""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib.image
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from tomolab import fourier
from tomolab.conventions import centre
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.ui import style
from tomolab.volumes import Volume

VIEWS = ("slices", "projections")
"""Views of a box along z."""


def limits(image: np.ndarray, low: float = 0.5, high: float = 99.7) -> dict[str, float]:
    """Contrast limits: grey values of black and white, from percentiles."""
    black, white = np.percentile(image, [low, high])
    return {"vmin": float(black), "vmax": float(max(white, black + 1e-6))}


def central(volume: Volume) -> tuple[list[np.ndarray], dict[str, float]]:
    """Slices through the centre across z, y and x, and contrast limits for all three."""
    middle = centre(volume.shape[0])
    cuts = [volume.data[middle], volume.data[:, middle], volume.data[:, :, middle]]
    return cuts, limits(np.stack(cuts), 1, 99.8)


def slab(volume: Volume | Tomogram, axis: int, *, at: float, thickness: float) -> np.ndarray:
    """Mean of the slices around a position on an axis.

    Parameters
    ----------
    volume
        A tomogram, in memory or opened.
    axis
        0, 1 or 2 for z, y or x.
    at, thickness
        Å; the mean has at least one slice.
    """
    middle, half = round(at / volume.voxel_size), int(thickness / volume.voxel_size / 2)
    first, last = max(0, middle - half), min(volume.shape[axis], middle + half + 1)
    where = [slice(None)] * 3
    where[axis] = slice(first, last)
    block = volume.read(tuple(where)) if isinstance(volume, Tomogram) else volume.data[tuple(where)]
    return np.asarray(block, dtype=np.float32).mean(axis)


def png(image: np.ndarray, *, vmin: float, vmax: float) -> bytes:
    """PNG of a grey image, one pixel per value; NaN is transparent."""
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, image, cmap="gray", format="png", vmin=vmin, vmax=vmax)
    return buffer.getvalue()


def flattened(volumes: np.ndarray, voxel_size: float, *, view: str = "slices", low_pass: float | None = None) -> np.ndarray:
    """Boxes averaged along z, as images.

    Parameters
    ----------
    volumes
        Array (n, z, y, x).
    voxel_size
        Å.
    view
        "slices", the mean of the central eighth of the box, or "projections", the mean of the whole box.
    low_pass
        Low-pass filter in Å.

    Returns
    -------
    ndarray
        (n, y, x), float32.

    Raises
    ------
    ValueError
        If there is no such view.
    """
    if view not in VIEWS:
        raise ValueError(f"view is one of {', '.join(VIEWS)}, got {view!r}")
    batch = torch.from_numpy(np.asarray(volumes, dtype=np.float32))
    if low_pass is not None:
        mask = fourier.low_pass(batch.shape[1:], voxel_size, low_pass)
        batch = torch.fft.irfftn(torch.fft.rfftn(batch, dim=(1, 2, 3)) * mask, s=batch.shape[1:], dim=(1, 2, 3))
    if view == "slices":
        box = batch.shape[1]
        half = max(1, box // 16)
        batch = batch[:, centre(box) - half : centre(box) + half + 1]
    return batch.mean(1).numpy()


def show(ax: Axes, image: np.ndarray, voxel_size: float, *, first: float = 0.0, **options: Any) -> None:
    """Draw an image with axes in Å; the centre of the first voxel lies at `first`."""
    y, x = image.shape[:2]
    edge = first - voxel_size / 2
    extent = (edge, edge + x * voxel_size, edge + y * voxel_size, edge)
    ax.imshow(image, cmap="gray", extent=extent, **{"interpolation": "bilinear", **options})


def scale_bar(ax: Axes, *, share: float = 0.3, dark: bool = False) -> None:
    """Draw a scale bar of a round length in the lower left corner of axes in Å."""
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    wanted = share * abs(right - left)
    power = 10.0 ** np.floor(np.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    text = f"{length / 10:g} nm" if length >= 100 else f"{length:g} Å"
    x, y = left + 0.05 * (right - left), bottom + 0.06 * (top - bottom)
    ink, rim = (style.INK, "white") if dark else ("white", "black")
    ax.plot(
        [x, x + length],
        [y, y],
        color=ink,
        linewidth=2.5,
        solid_capstyle="butt",
        path_effects=[withStroke(linewidth=3.5, foreground=rim)],
    )
    label = ax.text(
        x + length / 2, y + 0.025 * (top - bottom), text, color=ink, ha="center", va="bottom", fontsize=9, fontweight="bold"
    )
    label.set_path_effects([withStroke(linewidth=1.2, foreground=rim)])


def named(volumes: Volume | Mapping[str, Volume]) -> dict[str, Volume]:
    """Volumes by name; a single one has the empty name. ValueError if there are none."""
    named = {"": volumes} if isinstance(volumes, Volume) else dict(volumes)
    if not named:
        raise ValueError("there is no volume to show")
    return named
