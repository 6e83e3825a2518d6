"""Takes points, labels and classes, draws scatter, confusion and composition of clusters as matplotlib Figures.

>>> scatter(points, colour=particles.set_index("particle_id")["label"])
>>> composition(labels, truth)
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tomolab.clusters.metrics import agreement
from tomolab.ui import style
from tomolab.ui.style import styled


@styled
def scatter(points: pd.DataFrame, *, colour: pd.Series | None = None, title: str = "", size: float = 5.0) -> Figure:
    """Particles in two dimensions.

    Parameters
    ----------
    points
        Columns ``particle_id``, ``x``, ``y`` (`layouts.flat`).
    colour
        A category (text or whole number) or a number (float) per particle, indexed by particle id; particles where it is
        missing (NaN) are grey.
    title
        Above the figure.
    size
        Height in inches.

    Raises
    ------
    ValueError
        If a column is missing or a particle has no entry in `colour`.
    """
    style.require(points, ["particle_id", "x", "y"], "a scatter")
    figure = Figure((size + 1.8, size), layout="constrained")
    ax = figure.subplots()
    dot: dict[str, Any] = {
        "s": float(np.clip(6000 / max(len(points), 1), 1.5, 22)),
        "linewidths": 0,
        "alpha": 0.8,
        "rasterized": True,
    }
    if colour is None:
        ax.scatter(points["x"], points["y"], color=style.OKABE_ITO[0], **dot)
    else:
        values = style.aligned(colour, points["particle_id"].to_numpy(), name="colour")
        if style.is_categorical(values):
            _categories(ax, points, values, dot)
        else:
            inks = matplotlib.colormaps["viridis"].with_extremes(bad=style.LACKING)
            numbers = values.to_numpy(dtype=float, na_value=np.nan)
            shown = ax.scatter(points["x"], points["y"], c=numbers, cmap=inks, plotnonfinite=True, **dot)
            figure.colorbar(shown, ax=ax, shrink=0.6, label=str(colour.name or "")).outline.set_visible(False)  # type: ignore[operator]
    ax.set(xticks=[], yticks=[], title=title or f"{len(points):,} particles")
    ax.spines[:].set_visible(False)
    ax.set_aspect("equal", adjustable="datalim")
    return figure


def _categories(ax: Axes, points: pd.DataFrame, values: pd.Series, dot: dict[str, Any]) -> None:
    categories, palette = style.to_categorical(values)
    inks = np.array(list(palette.values()), dtype=object)[categories.codes]
    # In random order, or the last category would cover the others.
    order = np.random.default_rng(0).permutation(len(points))
    ax.scatter(points["x"].to_numpy()[order], points["y"].to_numpy()[order], color=inks[order], **dot)
    counts = np.bincount(categories.codes, minlength=len(palette))
    for count, (name, ink) in zip(counts, palette.items(), strict=True):
        ax.scatter([], [], color=ink, s=28, label=style.label(f"{name}  ({count:,})"))
    columns = 1 + (len(palette) - 1) // 22
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), title=values.name, alignment="left", ncols=columns, handletextpad=0.2
    )


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Confusion matrix with each row divided by its sum.

    Parameters
    ----------
    matrix
        Counts (n, n), rows true, columns predicted, as in ``sklearn.metrics.confusion_matrix``.
    classes
        Names (n,).

    Raises
    ------
    ValueError
        If the matrix is not square or does not have as many rows as there are names.
    """
    counts = np.asarray(matrix, dtype=float)
    n = len(classes)
    if counts.shape != (n, n):
        raise ValueError(f"{n} classes need a confusion matrix of {n} x {n}, got {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    edge = max(3.2, 0.34 * n) + 1.3
    figure = Figure((edge + 0.4, edge), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(n), classes, rotation=90 if n > 6 else 0)
    ax.set_yticks(range(n), classes)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if n <= 24:
        for row, column in np.argwhere(shares >= 0.005):
            share = shares[row, column]
            ax.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if share > 0.5 else style.INK,
            )
    right = np.trace(counts) / max(counts.sum(), 1)
    ax.set(title=f"{100 * right:.1f} % of {counts.sum():,.0f} right", xlabel="predicted", ylabel="true")
    bar = figure.colorbar(image, ax=ax, shrink=0.6, ticks=[0, 0.5, 1], format=lambda v, _: f"{100 * v:.0f} %")
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


@styled
def composition(labels: pd.Series, truth: pd.Series) -> Figure:
    """Composition of each cluster: a bar per cluster, divided by true class.

    Parameters
    ----------
    labels
        Cluster of each particle, indexed by particle id.
    truth
        Class of each particle, indexed by particle id.

    Raises
    ------
    ValueError
        If a particle has no class.
    """
    classes = style.aligned(truth, labels.index.to_numpy(), name="truth")
    counts = pd.crosstab(labels.to_numpy(), classes.to_numpy())
    palette = style.categories(classes)
    figure = Figure((7, 1.0 + 0.24 * max(len(counts), len(palette) * 0.8)), layout="constrained")
    ax = figure.subplots()
    left = np.zeros(len(counts))
    for name, ink in palette.items():
        ax.barh(
            range(len(counts)),
            counts[name],
            left=left,
            color=ink,
            label=style.label(name),
            height=0.78,
            edgecolor="white",
            linewidth=0.4,
        )
        left += counts[name].to_numpy()
    for row, (total, largest) in enumerate(zip(counts.sum(axis=1), counts.max(axis=1), strict=True)):
        ax.text(total, row, f" {100 * largest / total:.0f} %", va="center", fontsize=7.5, color=style.QUIET)
    ax.set_yticks(range(len(counts)), counts.index.astype(str))
    ax.invert_yaxis()
    # Room for the percentage beside the longest bar.
    ax.set_xlim(0, 1.12 * counts.sum(axis=1).max())
    ax.set(title=f"Purity {agreement(labels, truth)['purity']:.2f}", xlabel="particles", ylabel="cluster")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1, handleheight=1)
    return figure
