"""Takes volumes and tilt images, draws slices, projections and galleries as matplotlib Figures.

>>> slices(tomogram, low_pass=60)
>>> gallery(subtomograms.take(ribosomes.ids), low_pass=40)
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tomolab import volumes as densities
from tomolab.conventions import centre
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.tomograms.tilt_series import TiltSeries
from tomolab.ui import images, style, surfaces
from tomolab.ui.style import styled
from tomolab.volumes import Volume


@styled
def slices(volume: Volume, *, at: Sequence[float] | None = None, low_pass: float | None = None, width: float = 6.5) -> Figure:
    """Three slices at right angles through one point.

    Parameters
    ----------
    volume
        A tomogram or density.
    at
        Point (z, y, x) in Å; the centre by default.
    low_pass
        Low-pass filter in Å.
    width
        Width of the figure in inches.

    Raises
    ------
    ValueError
        If the point is outside the volume.
    """
    shown = volume if low_pass is None else densities.low_pass(volume, low_pass)
    point = surfaces.middle(volume) if at is None else np.asarray(at, dtype=float)
    k, j, i = (round(c) for c in point / volume.voxel_size)
    if not all(0 <= index < n for index, n in zip((k, j, i), volume.shape, strict=True)):
        raise ValueError(f"the point {tuple(point.tolist())} Å is outside the volume of {tuple(volume.extent.tolist())} Å")
    z, y, x = volume.extent
    figure = Figure((width, 0.3 + width * (y + z) / (x + z)), layout="constrained")
    axes = figure.subplots(2, 2, width_ratios=[x, z], height_ratios=[y, z])
    limits = images.limits(shown.data[:: max(1, volume.shape[0] // 32)])
    cuts = (shown.data[k], shown.data[:, :, i].T, shown.data[:, j])
    labels = (("x", "y"), ("z", ""), ("x", "z"))
    for ax, cut, (across, down) in zip((axes[0, 0], axes[0, 1], axes[1, 0]), cuts, labels, strict=True):
        images.show(ax, cut, volume.voxel_size, **limits)
        ax.set(xlabel=f"{across} (Å)", ylabel=f"{down} (Å)" if down else "")
        ax.spines[:].set_visible(False)
    axes[0, 0].set(xlabel="")
    for ax, (across, down) in zip((axes[0, 0], axes[0, 1], axes[1, 0]), ((i, j), (k, j), (i, k)), strict=True):
        ax.axvline(across * volume.voxel_size, color=style.OKABE_ITO[1], linewidth=0.6, alpha=0.7)
        ax.axhline(down * volume.voxel_size, color=style.OKABE_ITO[1], linewidth=0.6, alpha=0.7)
    images.scale_bar(axes[0, 0])
    axes[1, 1].axis("off")
    size = " × ".join(str(n) for n in volume.shape)
    axes[1, 1].text(
        0.5, 0.5, f"{size}\nvoxels of {volume.voxel_size:g} Å", ha="center", va="center", color=style.QUIET, fontsize=8
    )
    return figure


@styled
def beside(
    volumes: Mapping[str, Volume], *, z: float | None = None, low_pass: float | None = None, size: float = 3.2
) -> Figure:
    """Slices of several volumes side by side, each with its own contrast limits.

    Parameters
    ----------
    volumes
        By name.
    z
        Å, where to cut; the middle of each by default.
    low_pass
        Low-pass filter in Å.
    size
        Width of a panel in inches.

    Raises
    ------
    ValueError
        If z is outside a volume, or there is none.
    """
    named = images.named(volumes)
    tallest = max(volume.shape[1] / volume.shape[2] for volume in named.values())
    figure = Figure((size * len(named), 0.35 + size * tallest), layout="constrained")
    axes = figure.subplots(1, len(named), squeeze=False)[0]
    for ax, (name, volume) in zip(axes, named.items(), strict=True):
        layer = centre(volume.shape[0]) if z is None else round(z / volume.voxel_size)
        if not 0 <= layer < volume.shape[0]:
            raise ValueError(f"z = {z:g} Å is outside {name or 'the volume'} of {volume.extent[0]:g} Å")
        shown = volume if low_pass is None else densities.low_pass(volume, low_pass)
        images.show(ax, shown.data[layer], volume.voxel_size, **images.limits(shown.data[layer]))
        ax.set_title(name)
        ax.axis("off")
        images.scale_bar(ax)
    return figure


@styled
def tilt_images(series: TiltSeries, *, at: Sequence[float] = (-60, -30, 0, 30, 60), size: float = 1.9) -> Figure:
    """Images of a tilt series at the tilts nearest to some angles, with the recorded contrast: protein is dark.

    Parameters
    ----------
    series
        Tilt series.
    at
        Degrees.
    size
        Width of a panel in inches.
    """
    order = list(dict.fromkeys(int(np.abs(series.tilts - tilt).argmin()) for tilt in at))
    ratio = series.images.shape[1] / series.images.shape[2]
    figure = Figure((size * len(order), 0.35 + size * ratio), layout="constrained")
    for ax, i in zip(figure.subplots(1, len(order), squeeze=False)[0], order, strict=True):
        images.show(ax, series.images[i], series.pixel_size, **images.limits(series.images[i], 0.3, 99.7))
        ax.set_title(f"{round(series.tilts[i])}°")
        ax.axis("off")
    images.scale_bar(figure.axes[0])
    return figure


@styled
def projections(volumes: Volume | Mapping[str, Volume], *, columns: int = 6, size: float = 1.5) -> Figure:
    """Projections: of one volume along z, y and x, of several with their names along z, all to one scale.

    Parameters
    ----------
    volumes
        A volume, or volumes by name.
    columns
        Panels per row.
    size
        Edge of a panel in inches.
    """
    named = images.named(volumes)
    if isinstance(volumes, Volume):
        panels = [(f"along {axis}", volumes.data.sum(axis=i), volumes.voxel_size) for i, axis in enumerate("zyx")]
    else:
        panels = [(name, volume.data.sum(axis=0), volume.voxel_size) for name, volume in named.items()]
    figure, axes = style.grid(len(panels), columns, size=size, extra=0.25)
    half = max(max(image.shape) * voxel_size for _, image, voxel_size in panels) / 2
    for ax, (name, image, voxel_size) in zip(axes, panels, strict=True):
        images.show(ax, image, voxel_size, first=-centre(image.shape[0]) * voxel_size, **images.limits(image, 0.5, 99.9))
        ax.set(xlim=(-half, half), ylim=(half, -half))
        ax.set_title(name, loc="center")
    images.scale_bar(axes[0])
    return figure


@styled
def gallery(
    subtomograms: Subtomograms | np.ndarray,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    limit: int = 32,
    low_pass: float | None = None,
    voxel_size: float | None = None,
    size: float = 1.0,
) -> Figure:
    """Central slabs (an eighth of the box thick) of the first subtomograms.

    Parameters
    ----------
    subtomograms
        Subtomograms (order them by `take`), or an array (n, z, y, x).
    titles
        Above each, such as classes or scores.
    columns, limit
        Panels per row; most to show.
    low_pass
        Low-pass filter in Å.
    voxel_size
        Å; needed with an array.
    size
        Edge of a panel in inches.

    Raises
    ------
    ValueError
        If there is nothing to show, an array has no voxel size, or there are too few titles.
    """
    arrays, spacing = (
        (subtomograms.volumes, subtomograms.voxel_size)
        if isinstance(subtomograms, Subtomograms)
        else (subtomograms, voxel_size)
    )
    count = min(limit, len(arrays))
    if count == 0 or spacing is None:
        raise ValueError("there are no subtomograms to show" if count == 0 else "an array needs its voxel_size in Å")
    if titles is not None and len(titles) < count:
        raise ValueError(f"{count} panels need as many titles, got {len(titles)}")
    shown = images.flattened(arrays[:count], spacing, low_pass=low_pass)
    figure, axes = style.grid(count, columns, size=size, extra=0.0 if titles is None else 0.2)
    for number, (ax, image) in enumerate(zip(axes, shown, strict=True)):
        images.show(ax, image, spacing, **images.limits(image, 1, 99.8))
        if titles is not None:
            ax.set_title(str(titles[number]), fontsize=8, pad=2, loc="center")
    images.scale_bar(axes[0], share=0.5)
    return figure
