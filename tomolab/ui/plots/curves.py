"""Takes averages, volumes and tables, draws FSC, power spectra, histograms and profiles as matplotlib Figures.

>>> fsc({"cluster 0": average})
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tomolab.averaging.fsc import first_crossing
from tomolab.conventions import centre
from tomolab.tomograms import statistics
from tomolab.ui import style
from tomolab.ui.style import styled
from tomolab.volumes import Volume


@styled
def fsc(averages: Any, *, width: float = 5.2, inks: Sequence[str] | None = None) -> Figure:
    """Fourier shell correlation between half maps, with the resolution at 0.143 (Rosenthal and Henderson 2003).

    Parameters
    ----------
    averages
        An average, or averages by name; also tables with the columns ``resolution`` (Å) and ``fsc``.
    width
        In inches.
    inks
        Colour of each curve; by default those of the palette.

    Raises
    ------
    ValueError
        If a table lacks a column.
    """
    figure = Figure((width, 0.6 * width), layout="constrained")
    draw_fsc(figure.subplots(), averages, inks=inks)
    return figure


def draw_fsc(ax: Axes, averages: Any, *, inks: Sequence[str] | None = None) -> None:
    """The same on given axes, and in given colours."""
    named = _by_name(averages)
    finest, coarsest = np.inf, 0.0
    for (name, average), ink in zip(named.items(), inks or style.colours(len(named)), strict=True):
        curve = average if isinstance(average, pd.DataFrame) else average.fsc
        style.require(curve, ["resolution", "fsc"], "an FSC curve")
        # Shell 0 has no resolution (infinite).
        curve = curve[np.isfinite(curve["resolution"]) & (curve["resolution"] > 0)].sort_values("resolution", ascending=False)
        frequency = 1 / curve["resolution"].to_numpy()
        reached = first_crossing(frequency, curve["fsc"].to_numpy(), 0.143)
        text = f"{name}  " * bool(name) + (f"{1 / reached:.1f} Å" if np.isfinite(reached) else "above 0.143 to the end")
        ax.plot(frequency, curve["fsc"], color=ink, label=style.label(text))
        if np.isfinite(reached):
            ax.plot([reached], [0.143], "o", color=ink, markersize=5)
        finest, coarsest = min(finest, float(curve["resolution"].min())), max(coarsest, float(curve["resolution"].max()))
    ax.axhline(0.143, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.text(0.03 / finest, 0.155, "0.143", fontsize=8, color=style.QUIET)
    ax.axhline(0, color=style.FAINT, linewidth=0.8)
    resolution_axis(ax, finest, coarsest)
    ax.set(ylabel="FSC", ylim=(-0.1, 1.05))
    ax.legend(loc="lower left", bbox_to_anchor=(0.01, 0.28))


def resolution_axis(ax: Axes, finest: float, coarsest: float) -> None:
    """Axis of spatial frequency with its ticks at round resolutions in Å."""
    steps = np.array([1, 1.5, 2, 2.5, 3, 4, 5, 6, 8])
    round_values = np.concatenate([steps * 10.0**power for power in range(4)])
    ticks = [v for v in round_values if finest <= v <= coarsest]
    kept: list[float] = []
    for value in ticks:
        if not kept or (1 / kept[-1] - 1 / value) > 0.07 / finest:
            kept.append(value)
    ax.set_xticks([1 / v for v in kept], [f"{v:g}" for v in kept])
    ax.set(xlabel="resolution (Å)", xlim=(0, 1 / finest * 1.02))


@styled
def radial_profile(volumes: Volume | Mapping[str, Volume]) -> Figure:
    """Mean grey value in spherical shells about the centre of each volume.

    Parameters
    ----------
    volumes
        A volume, or volumes by name; grey values are scaled to a peak of 1 where there are several.
    """
    named = _by_name(volumes)
    figure = Figure((5.2, 2.8), layout="constrained")
    ax = figure.subplots()
    for (name, volume), ink in zip(named.items(), style.colours(len(named)), strict=True):
        radius, mean = profile(volume)
        scale = np.abs(mean).max() if len(named) > 1 else 1.0
        ax.plot(radius, mean / (scale or 1.0), color=ink, label=style.label(name))
    ax.axhline(0, color=style.FAINT, linewidth=0.8, zorder=0)
    ax.set(xlabel="distance from the centre (Å)", ylabel="density" if len(named) == 1 else "density (peak 1)", xlim=(0, None))
    if len(named) > 1:
        ax.legend()
    return figure


@styled
def power(spectra: Mapping[str, pd.DataFrame], *, between: tuple[float, float] = (400, 40)) -> Figure:
    """Radial power spectra, each scaled to a geometric mean of 1 between two resolutions in Å, and their ratio to the first.

    Parameters
    ----------
    spectra
        Results of `statistics.power`, by name.
    between
        Coarsest and finest resolution.
    """
    figure = Figure((6.4, 2.8), layout="constrained")
    ax, below = figure.subplots(1, 2)
    reference = None
    for (name, table), ink in zip(spectra.items(), style.colours(len(spectra)), strict=True):
        reference = table if reference is None else reference
        inside = table[table["frequency"].between(1 / between[0], 1 / between[1])]
        scale = np.exp(np.log(inside["power"]).mean())
        ax.plot(inside["frequency"], inside["power"] / scale, color=ink, label=style.label(name))
        bands = statistics.ratio(reference, table, between=between)
        below.plot(1 / bands["resolution"], bands["ratio"], color=ink, marker="o", markersize=3, label=style.label(name))
    ax.set(yscale="log", ylabel="power")
    below.axhspan(0.75, 1.25, color=style.FAINT, alpha=0.5, zorder=0, linewidth=0)
    below.set(ylabel="ratio to the first", ylim=(0, 2))
    for panel in (ax, below):
        resolution_axis(panel, between[1], between[0])
    ax.legend()
    return figure


@styled
def histograms(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Histograms of grey values, a panel for each region; results of `statistics.histograms`, by name."""
    regions = [column for column in next(iter(tables.values())) if column != "value"]
    figure = Figure((3.2 * len(regions), 2.5), layout="constrained")
    for ax, region in zip(figure.subplots(1, len(regions), squeeze=False, sharey=True)[0], regions, strict=True):
        for (name, table), ink in zip(tables.items(), style.colours(len(tables)), strict=True):
            ax.plot(table["value"], table[region], color=ink, label=style.label(name))
        ax.set_title(region)
        ax.set(xlabel="grey value (standard deviations)")
    figure.axes[0].set(ylabel="share per unit", ylim=(0, None))
    figure.axes[0].legend()
    return figure


@styled
def profiles(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Mean grey values at distances in Å from particles: results of `statistics.profile`, by name."""
    figure = Figure((5.2, 2.8), layout="constrained")
    ax = figure.subplots()
    for (name, (radii, values)), ink in zip(curves.items(), style.colours(len(curves)), strict=True):
        ax.plot(radii, values, color=ink, label=style.label(name))
    ax.axhline(0, color=style.FAINT, linewidth=0.8, zorder=0)
    ax.set(xlabel="distance from the particle (Å)", ylabel="grey value (standard deviations)", xlim=(0, None))
    ax.legend()
    return figure


def profile(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Radii (Å) and mean grey values of the spherical shells, one voxel thick, that fit into the volume."""
    axes = np.meshgrid(*[np.arange(n) - centre(n) for n in volume.shape], indexing="ij")
    shell = np.sqrt(sum(axis.astype(float) ** 2 for axis in axes)).round().astype(int)  # type: ignore[call-overload]
    count = max(1, (min(volume.shape) - 1) // 2 + 1)
    sums = np.bincount(shell.ravel(), volume.data.ravel())[:count]
    return np.arange(count) * volume.voxel_size, sums / np.bincount(shell.ravel())[:count]


def _by_name(values: Any) -> dict[str, Any]:
    return dict(values) if isinstance(values, Mapping) else {"": values}
