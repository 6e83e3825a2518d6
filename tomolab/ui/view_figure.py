"""Takes an inspection, draws its whole view as one figure: map, slice, clusters, and the averages with their FSC.

`picture` gives its map as HTML, for a notebook that has no kernel.

>>> figure = draw(work, tomogram="TS_01", axis=0, at=400.0)
>>> figure.savefig("view.pdf")
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tomolab import particles
from tomolab.averaging.half_maps import Average
from tomolab.inspection import cluster_columns
from tomolab.inspection.history import counted
from tomolab.inspection.model import CLUSTER, Inspection
from tomolab.ui import images, style
from tomolab.ui.plots import curves
from tomolab.ui.style import styled

ACROSS = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
"""Axis across a slice: the axes down and to the right in it."""
POINTS, FEW, AVERAGES, NAMED = 200_000, 20_000, 6, 24
"""Maximum numbers of points of the map and of a picture, of averages, and of names in the legend."""
# Of the two outputs of a cell only one is shown: the widgets, or where they are not there this picture.
SHEET = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .tomolab-inspector) .tomolab-picture { display: none; }
.jp-OutputArea-child:has(.tomolab-picture) + .jp-OutputArea-child:not(:has(.tomolab-inspector)) { display: none; }
</style>"""


@styled
def draw(
    work: Inspection,
    *,
    tomogram: str | None = None,
    axis: int = 0,
    at: float | None = None,
    thickness: float | None = None,
    contrast: tuple[float, float] = (1.0, 99.8),
) -> Figure:
    """Draw the visible particles of an inspection in the map and in a slice, and the newest average of each cluster.

    Parameters
    ----------
    work
        The inspection; what it lacks is left out.
    tomogram
        Name of the tomogram; the first by default.
    axis, at, thickness
        Of the slice: 0, 1 or 2 for z, y or x, its position in Å (the middle by default), and Å over which it is averaged (a
        quarter of a particle by default).
    contrast
        Percentiles of black and white.

    Raises
    ------
    ValueError
        If there is no such tomogram.
    """
    if tomogram is not None and tomogram not in work.tomograms:
        raise ValueError(f"there is no tomogram {tomogram!r}; there are {', '.join(work.tomograms) or 'none'}")
    shown = {one: found[1] for one, found in list(cluster_columns.newest(work).items())[:AVERAGES]}
    figure = Figure((10.0, 4.9 + (2.5 if shown else 0.0)), layout="constrained")
    rows = figure.subfigures(2 if shown else 1, 1, height_ratios=[4.9, 2.5] if shown else [1.0], squeeze=False)[:, 0]
    left, right = rows[0].subplots(1, 2)
    _map(left, work)
    _slice(right, work, tomogram or next(iter(work.tomograms), ""), axis, at, thickness, contrast)
    _letters({"a": left, "b": right})
    if shown:
        _averages(rows[1], work, shown)
    return figure


def picture(work: Inspection) -> str:
    """The map, or else the tomogram from above, in the colours of the particles, with the clusters, as HTML."""
    session, figure = work.session, Figure((6.0, 3.6), layout="constrained")
    _points(figure.subplots(), work, session.particles if work.points is None else work.points, most=FEW)
    content, size = style.png(figure, sharpness=1)
    source = base64.b64encode(content).decode()
    about = "The inspector, as it was when this cell ran. Run the cell to open it: every step is saved in the run folder."
    counts, inks = session.counts(), style.inks(session.clusters)
    names = [f"{style.span('■', inks[one])} {style.span(session.title(one), 'inherit')}: {counts[one]:,}" for one in inks]
    text = " &ensp; ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
    image = f"<img alt='Map of the particles' width='{size['width']}' src='data:image/png;base64,{source}'>"
    return f"{SHEET}<div class='tomolab-picture'><p><i>{about}</i></p>{image}<p>{text}</p></div>"


def _points(ax: Axes, work: Inspection, table: pd.DataFrame, *, most: int) -> None:
    """Draw the visible particles at their x and y in a table, of more than `most` a random sample."""
    ids = np.flatnonzero(work.session.visible)
    rows = np.sort(np.random.default_rng(0).choice(ids, most, replace=False)) if len(ids) > most else ids
    places = table[["x", "y"]].to_numpy(float)[rows]
    inks = style.particle_inks(work.session, work.colour_by)[rows]
    size = float(np.clip(4000 / max(1, len(rows)), 0.4, 22))
    ax.scatter(places[:, 0], places[:, 1], s=size, c=inks, linewidths=0, rasterized=len(rows) > 5000)
    ax.axis("off")


def _map(ax: Axes, work: Inspection) -> None:
    session = work.session
    ax.axis("off")
    if work.points is None:
        return
    _points(ax, work, work.points, most=POINTS)
    counts = session.counts(visible=True)
    palette = style.inks(session.clusters) if work.colour_by == CLUSTER else {}
    names = [f"{session.title(one)} ({counts[one]:,})" for one in palette]
    marks = [Line2D([], [], marker="o", linestyle="", color=ink, markersize=5) for ink in palette.values()]
    labels = [style.label(name[:32]) for name in names[:NAMED]]
    ax.legend(marks[:NAMED], labels, loc="upper left", bbox_to_anchor=(0, 0), ncols=3)
    what = "" if work.colour_by == CLUSTER else f", by {work.colour_by}"
    ax.set_title(f"{counted(int(session.visible.sum()))}{what}")


def _slice(
    ax: Axes, work: Inspection, name: str, axis: int, at: float | None, thickness: float | None, contrast: tuple[float, float]
) -> None:
    ax.axis("off")
    if name not in work.tomograms:
        return
    volume, session = work.tomograms[name], work.session
    voxel = volume.voxel_size
    place = volume.shape[axis] // 2 * voxel if at is None else at
    image = images.slab(volume, axis, at=place, thickness=work.diameter / 4 if thickness is None else thickness)
    images.show(ax, image, voxel, **images.limits(image, *contrast))
    positions = particles.positions(session.particles)
    off = np.abs(positions[:, axis] - place)
    inside = (off < work.diameter / 2) & session.visible & (session.particles["tomogram"] == name).to_numpy()
    widths = 2 * np.sqrt((work.diameter / 2) ** 2 - off[inside] ** 2)
    down, right = ACROSS[axis]
    options: dict[str, Any] = {"units": "xy", "transOffset": ax.transData, "facecolor": "none", "linewidth": 1.2}
    inks = style.lighten(style.particle_inks(session, work.colour_by)[inside], 0.2)
    offsets = positions[inside][:, [right, down]]
    ax.add_collection(EllipseCollection(widths, widths, np.zeros_like(widths), offsets=offsets, edgecolor=inks, **options))
    images.scale_bar(ax, share=0.2)
    ax.set_title(f"{name}, {'zyx'[axis]} = {place:.0f} Å")


def _averages(figure: Any, work: Inspection, averages: Mapping[int, Average]) -> None:
    inks, titles = style.inks(work.session.clusters), {one: work.session.title(one) for one in averages}
    axes = figure.subplots(1, len(averages) + 1, width_ratios=[*[1] * len(averages), 1.8])
    for ax, (cluster, average) in zip(axes, averages.items(), strict=False):
        cuts, grey = images.central(average.volume)
        images.show(ax, cuts[0], average.volume.voxel_size, **grey)
        images.scale_bar(ax)
        ax.axis("off")
        text = f"{titles[cluster][:22]}\n{len(average.particles):,} particles, {average.resolution:.0f} Å"
        ax.set_title(text, fontsize=8, color=inks[cluster])
    named = {titles[one]: average for one, average in averages.items()}
    curves.draw_fsc(axes[-1], named, inks=[inks[one] for one in averages])
    axes[-1].legend().remove()
    _letters({"c": axes[0], "d": axes[-1]})


def _letters(panels: Mapping[str, Axes]) -> None:
    for letter, ax in panels.items():
        ax.text(-0.03, 1.02, letter, transform=ax.transAxes, fontsize=12, fontweight="bold", ha="right", va="bottom")
