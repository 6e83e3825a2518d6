"""Takes results of an experiment, draws each measure over noise and missing wedge as a matplotlib Figure.

>>> conditions(experiments.run(plan, methods, maps=maps, folder=folder))
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from tomolab.ui import style
from tomolab.ui.style import styled

TITLES = {
    "accuracy": "known complexes\nrecognised",
    "ari": "unknown complexes\nARI",
    "purity_twice": "unknown complexes\npurity, k doubled",
    "novelty": "noticed as new\nAUROC, particles",
    "novelty_clusters": "noticed as new\nAUROC, clusters",
}
"""Measures from top to bottom, and their axis labels."""


@styled
def conditions(rows: pd.DataFrame, *, measures: Mapping[str, str] | None = None, highlight: str | None = "compact") -> Figure:
    """Each measure against the signal-to-noise ratio, a column for each tilt range, a line for each method.

    Parameters
    ----------
    rows
        From `experiments.run`: ``method``, ``split``, ``snr``, ``tilt`` and the measures. Lines are means over splits, bands
        reach from the worst split to the best.
    measures
        Columns to show, and their axis labels; `TITLES` by default.
    highlight
        Method with a thick black line.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    shown = measures or TITLES
    style.require(rows, ["method", "split", "snr", "tilt", *shown], "the table of trials")
    tilts = sorted(rows["tilt"].unique(), reverse=True)
    methods = list(dict.fromkeys(rows["method"]))
    others = [method for method in methods if method != highlight]
    inks = dict(zip(others, style.colours(len(others)), strict=True)) | dict.fromkeys(set(methods) - set(others), style.INK)
    width = 2.1 + 2.5 * len(tilts)
    figure = Figure((width, 0.7 + 1.55 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), len(tilts), sharex=True, sharey="row", squeeze=False)
    for line, (measure, title) in zip(panels, shown.items(), strict=True):
        for ax, tilt in zip(line, tilts, strict=True):
            _lines(ax, rows[rows["tilt"] == tilt], measure, inks, highlight)
        line[0].set_ylabel(title)
    for ax, tilt in zip(panels[0], tilts, strict=True):
        ax.set_title(f"tilts ±{tilt:g}°")
    for ax in panels[-1]:
        ax.set_xlabel("signal-to-noise ratio")
    handles = {handle.get_label(): handle for ax in panels.flat for handle in ax.get_lines()}
    figure.legend([handles[name] for name in methods], methods, loc="outside lower center", ncols=max(1, int(width / 2)))
    return figure


def _lines(ax: Axes, rows: pd.DataFrame, measure: str, inks: Mapping[str, str], highlight: str | None) -> None:
    for method, ink in inks.items():
        values = rows[rows["method"] == method].groupby("snr")[measure].agg(["mean", "min", "max"])
        if values.empty:
            continue
        width, order = (2.4, 3) if method == highlight else (1.3, 2)
        ax.plot(values.index, values["mean"], color=ink, label=method, linewidth=width, zorder=order, marker="o", markersize=3)
        ax.fill_between(values.index, values["min"], values["max"], color=ink, alpha=0.12, linewidth=0)
    levels = sorted(rows["snr"].unique(), reverse=True)
    ax.set_xscale("log")
    # From easy to hard, left to right.
    ax.set_xlim(levels[0] * 1.3, levels[-1] / 1.3)
    ax.set_xticks(levels, [f"{level:g}" for level in levels])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(0, 1.03)
    ax.grid(axis="y")
