"""Takes the contents of a run folder, draws the pictures of its report (slice, map of clusters, boxes, curves) as PNG.

>>> report_figures.boxes(subtomograms, ids)
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from tomolab import particles
from tomolab.averaging.half_maps import Average
from tomolab.inspection.session import Session
from tomolab.inspection.session_values import NONE
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.ui import images, style
from tomolab.ui.plots import curves
from tomolab.ui.style import styled
from tomolab.volumes import Volume

POINTS = 200_000
"""Maximum number of points of a map; of more, a random sample is drawn."""
SIDE = 72
"""Pixels of a box."""
DETAIL = 60.0
"""Low-pass filter of boxes and slices, in Å."""
NAMED = 16
"""Maximum number of clusters for which the map shows names."""


@styled
def section(volume: Volume, table: pd.DataFrame, palette: dict[int, str], *, diameter: float) -> bytes:
    """The slice of a tomogram that cuts most particles, with a circle for each.

    Parameters
    ----------
    volume
        Tomogram.
    table
        Its particles; a column ``cluster`` colours them.
    palette
        Colour of each cluster.
    diameter
        Of a particle, in Å.
    """
    places, radius = particles.positions(table), diameter / 2
    levels = np.arange(volume.shape[0]) * volume.voxel_size
    ordered = np.sort(places[:, 0])
    cuts = np.searchsorted(ordered, levels + radius) - np.searchsorted(ordered, levels - radius)
    best = np.flatnonzero(cuts == cuts.max())
    index = int(best[len(best) // 2])
    image = volume.data[max(0, index - 1) : index + 2].mean(axis=0)
    # This Gaussian halves the amplitude at `DETAIL`.
    image = ndimage.gaussian_filter(image, 0.19 * DETAIL / volume.voxel_size)
    y, x = volume.extent[1:]
    width = min(5.2, 4.4 * x / y)
    figure = Figure((width, width * y / x))
    ax = figure.add_axes((0, 0, 1, 1))
    images.show(ax, image, volume.voxel_size, **images.limits(image))
    off = np.abs(places[:, 0] - levels[index])
    cut = off < radius
    widths = 2 * np.sqrt(np.maximum(radius**2 - off**2, 0))[cut]
    labels = table["cluster"].to_numpy()[cut] if "cluster" in table else np.full(int(cut.sum()), NONE)
    inks = [style.lighter(palette.get(int(label), style.OKABE_ITO[1] if not palette else style.FAINT)) for label in labels]
    ax.add_collection(
        EllipseCollection(
            widths, widths, np.zeros_like(widths), units="xy", offsets=places[cut][:, [2, 1]], transOffset=ax.transData,
            facecolor="none", edgecolor=inks, linewidth=1.2,
        )
    )  # fmt: skip
    images.scale_bar(ax, share=0.2)
    ax.axis("off")
    return style.png(figure)[0]


@styled
def scatter(points: pd.DataFrame, session: Session, palette: dict[int, str]) -> bytes:
    """The map of particles in the colours of their clusters.

    Parameters
    ----------
    points
        Columns ``particle_id``, ``x``, ``y``.
    session
        The clusters.
    palette
        Colour of each.
    """
    placed = points.set_index("particle_id").reindex(session.ids)[["x", "y"]].to_numpy()
    labels = session.labels.to_numpy()
    if len(placed) > POINTS:
        drawn = np.sort(np.random.default_rng(0).choice(len(placed), POINTS, replace=False))
        placed, labels = placed[drawn], labels[drawn]
    inks = style.painted(labels, palette | {NONE: style.FAINT})
    figure = Figure((4.4, 4.4))
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    size = float(np.clip(4000 / max(1, len(placed)), 0.4, 26))
    ax.scatter(placed[:, 0], placed[:, 1], s=size, c=inks, linewidths=0, alpha=0.85)
    ax.margins(x=0.12, y=0.08)
    for cluster in palette if len(palette) <= NAMED else ():
        mine = placed[labels == cluster]
        if len(mine):
            _name(ax, session.title(cluster), (float(np.median(mine[:, 0])), float(np.quantile(mine[:, 1], 0.99))))
    ax.axis("off")
    return style.png(figure)[0]


def _name(ax: Axes, text: str, at: tuple[float, float]) -> None:
    """A name above a group of points."""
    around = [withStroke(linewidth=2.5, foreground="white")]
    ax.annotate(text[:24], at, (0, 4), textcoords="offset points", ha="center", va="bottom", path_effects=around)


def boxes(subtomograms: Subtomograms, ids: np.ndarray) -> bytes:
    """Boxes side by side, as central slabs.

    Parameters
    ----------
    subtomograms
        The subtomograms.
    ids
        Particle ids; at least one.
    """
    taken = subtomograms.take(ids)
    detail = DETAIL if 2 * taken.voxel_size < DETAIL else None
    flat = images.flattened(taken.volumes, taken.voxel_size, low_pass=detail)
    scale = SIDE / flat.shape[1]
    tiles: list[np.ndarray] = []
    for image in flat:
        grey = images.limits(image, 1, 99.8)
        shown = ndimage.zoom(image, scale, order=3, mode="nearest") if scale > 1 else image
        tiles += [np.clip((shown - grey["vmin"]) / (grey["vmax"] - grey["vmin"]), 0, 1), np.full((len(shown), 4), np.nan)]
    return images.png(np.hstack(tiles[:-1]), vmin=0, vmax=1)


def correlation(average: Average) -> bytes:
    """Fourier shell correlation of its halves."""
    return style.png(curves.fsc(average, width=3.1))[0]
