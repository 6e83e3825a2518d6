"""Takes two averages of one structure (of two programs or runs), draws them side by side as a matplotlib Figure.

>>> two_averages({"tomolab": average, "RELION": relion.refine(folder, diameter=300)})
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tomolab.averaging import alignment
from tomolab.averaging.fsc import THRESHOLD, correlate, resolution_at
from tomolab.averaging.half_maps import Average
from tomolab.ui import images, style
from tomolab.ui.plots.curves import resolution_axis
from tomolab.ui.style import styled
from tomolab.volumes import Volume

HALF = 0.5
"""Threshold of the FSC between two full maps."""


@styled
def two_averages(averages: Mapping[str, Average], *, diameter: float | None = None, width: float = 8.0) -> Figure:
    """Central slices of two averages, the Fourier shell correlation of the halves of each, and of one with the other.

    The second is turned and shifted onto the first, without mirroring.

    Parameters
    ----------
    averages
        Two averages by name, of one box and voxel size.
    diameter
        Å, of the sphere within which one is compared with the other; the box by default.
    width
        Inches.

    Raises
    ------
    ValueError
        If there are not two averages, or they differ in box or voxel size.
    """
    if len(averages) != 2:
        raise ValueError(f"two averages can be compared, got {len(averages)}: {', '.join(averages) or 'none'}")
    (one, first), (other, second) = averages.items()
    fit = alignment.align_map(second.volume, first.volume)
    onto = alignment.apply(second.volume, fit)
    across = None if diameter is None else diameter / first.volume.voxel_size
    figure = Figure((width, 0.42 * width), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.05])[0]
    curves = {one: first.fsc, other: second.fsc}
    _curves(left.subplots(), curves, correlate(first.volume, onto, diameter_voxels=across), title=f"{one} with {other}")
    panels = right.subplots(2, 3)
    colours = style.colours(2)
    for row, (name, volume) in enumerate({one: first.volume, other: onto}.items()):
        _slices(panels[row], volume)
        panels[row, 0].set_ylabel(name, color=colours[row], fontweight="bold")
    for ax, axis in zip(panels[0], "zyx", strict=True):
        ax.set_title(f"across {axis}", loc="center")
    images.scale_bar(panels[0, 0], share=0.45)
    right.suptitle(f"{other} turned onto {one}: correlation {fit.score:.2f}", fontsize=9, color=style.QUIET)
    return figure


def _curves(ax: Axes, halves: Mapping[str, pd.DataFrame], both: pd.DataFrame, *, title: str) -> None:
    """Curves of the half maps of each, and of one map with the other."""
    inks = style.colours(2)
    lines = [(f"halves of {name}", curve, ink, "-", THRESHOLD) for (name, curve), ink in zip(halves.items(), inks, strict=True)]
    for text, curve, ink, dashes, threshold in [*lines, (title, both, style.INK, (0, (5, 2)), HALF)]:
        values, falls = curve["fsc"].to_numpy(), bool((curve["fsc"] < threshold).any())
        reached = resolution_at(curve, threshold)
        label = f"{text}: {reached:.0f} Å" if falls else f"{text}: to the end"
        ax.plot(1 / curve["resolution"].to_numpy(), values, color=ink, linestyle=dashes, label=style.label(label))
        if falls and values[0] >= threshold:
            ax.plot([1 / reached], [threshold], "o", color=ink, markersize=4.5)
    finest = float(both["resolution"].min())
    for threshold in (THRESHOLD, HALF):
        ax.axhline(threshold, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.text(1 / finest, threshold + 0.012, f"{threshold:g}", fontsize=8, color=style.QUIET, ha="right")
    ax.axhline(0, color=style.FAINT, linewidth=0.8)
    resolution_axis(ax, finest, float(both["resolution"].max()))
    ax.set(ylabel="FSC", ylim=(-0.15, 1.05))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, borderaxespad=0.2)


def _slices(axes: np.ndarray, volume: Volume) -> None:
    """Slices through the centre across z, y and x, in one range of grey."""
    cuts, grey = images.central(volume)
    for ax, cut in zip(axes, cuts, strict=True):
        images.show(ax, cut, volume.voxel_size, **grey)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
