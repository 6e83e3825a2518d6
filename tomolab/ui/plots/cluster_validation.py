"""Takes validation tables and a cluster tree, draws criteria for k, a dendrogram and stability as matplotlib Figures.

>>> criteria(validation.criteria(embedding, range(2, 16), seed=0))
>>> dendrogram(tree, k=5, labels=labels, truth=truth)
>>> stability(validation.stability(embedding, labels, seed=0))
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.cluster import hierarchy

from tomolab.clusters import hierarchy as cluster_tree
from tomolab.clusters import validation
from tomolab.clusters.hierarchy import Tree
from tomolab.ui import style
from tomolab.ui.style import styled

TITLES = {
    "strength": ("Prediction strength", True),
    "silhouette": ("Silhouette", True),
    "calinski_harabasz": ("Calinski-Harabasz", True),
    "davies_bouldin": ("Davies-Bouldin", False),
    "bic": ("BIC of Gaussians", False),
}
"""Titles of the columns of `validation.criteria`, and whether high is good."""


@styled
def criteria(table: pd.DataFrame, *, chosen: int | None = None) -> Figure:
    """Every criterion against the number of clusters, with a line at the chosen number and a ring at its own optimum.

    Parameters
    ----------
    table
        From `validation.criteria`.
    chosen
        The number to mark; that of `validation.choose` by default.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    style.require(table, list(TITLES), "a chart of criteria")
    chosen = validation.choose(table) if chosen is None else chosen
    proposed = validation.proposals(table)
    figure = Figure((9, 3.4), layout="constrained")
    panels = figure.subplot_mosaic(
        [["strength", "silhouette", "calinski_harabasz"], ["strength", "davies_bouldin", "bic"]], width_ratios=[1.5, 1, 1]
    )
    for name, (title, high) in TITLES.items():
        ax, curve = panels[name], table[name]
        ax.axvline(chosen, color=style.OKABE_ITO[1], linewidth=5, alpha=0.3, zorder=0)
        ax.plot(curve.index, curve, color=style.OKABE_ITO[0], marker="o", markersize=3)
        own = [k for k in (proposed[name],) if k in table.index]
        ax.plot(own, curve[own], "o", markersize=9, markerfacecolor="none", markeredgecolor=style.OKABE_ITO[0])
        ax.set_title(f"{title}: {'high' if high else 'low'} is good")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        ax.grid(axis="y")
        # Room for the rings.
        ax.margins(y=0.12)
    strength = panels["strength"]
    strength.axhline(validation.STRONG, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    result = "no division repeats itself" if proposed["strength"] == 1 else f"{proposed['strength']} come back"
    strength.set(ylim=(0, 1.04), title=f"Prediction strength: {result}", xlabel="clusters")
    figure.suptitle(f"{chosen} clusters", x=0.01, ha="left", fontsize=11)
    strength.annotate(f"{validation.STRONG}", (table.index.min(), validation.STRONG + 0.015), fontsize=8, color=style.QUIET)
    return figure


@styled
def stability(table: pd.DataFrame) -> Figure:
    """Stability of every cluster: a bar of its mean Jaccard index, and a line from its worst repeat.

    Parameters
    ----------
    table
        From `validation.stability`.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    style.require(table, ["size", "jaccard", "lowest"], "a chart of stability")
    verdicts = {"comes back": style.OKABE_ITO[0], "comes back in part": style.OKABE_ITO[1], "dissolves": style.FAINT}
    names = np.select([table["jaccard"] >= 0.75, table["jaccard"] > 0.5], ["comes back", "comes back in part"], "dissolves")
    figure = Figure((min(11, max(5.5, 2.4 + 0.38 * len(table))), 2.8), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(table))
    for name, ink in verdicts.items():
        mine = names == name
        if mine.any():
            ax.bar(places[mine], table["jaccard"][mine], color=ink, width=0.72, label=f"{name} ({mine.sum()})")
    ax.vlines(places, table["lowest"], table["jaccard"], color=style.INK, linewidth=1)
    for limit in (0.5, 0.75):
        ax.axhline(limit, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set_xticks(places, [f"{cluster}\n{size:,}" for cluster, size in table["size"].items()], fontsize=7.5)
    ax.tick_params(axis="x", length=0)
    ax.set(title="Does a cluster come back from half of the particles?", ylabel="Jaccard", ylim=(0, 1.02))
    ax.set_xlabel("cluster and its particles")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@styled
def dendrogram(tree: Tree, *, k: int | None = None, labels: pd.Series | None = None, truth: pd.Series | None = None) -> Figure:
    """A tree of merges from left to right, the clusters at its leaves with their sizes and, where known, their classes.

    Parameters
    ----------
    tree
        From `hierarchy.merges`.
    k
        Groups to cut it into: each has the colour that its cluster has after `clusters.merge`, where the largest is the
        first, and a line shows where the cut lies.
    labels, truth
        Cluster and class of each particle, indexed by particle id; with both, a bar at each leaf shows its classes.

    Raises
    ------
    ValueError
        If a particle has no class, there are no such groups, or only one of `labels` and `truth` is given.
    """
    if (labels is None) != (truth is None):
        raise ValueError("classes at the leaves need both labels and truth")
    inks = _inks(tree, k)
    drawn = hierarchy.dendrogram(tree.links, no_plot=True, link_color_func=inks.__getitem__)
    order = drawn["leaves"]
    figure = Figure((7.5 if truth is None else 9, 1.1 + 0.24 * len(order)), layout="constrained")
    widths = [1.0] if truth is None else [1.4, 1.0]
    ax, *beside = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    for across, height, ink in zip(drawn["icoord"], drawn["dcoord"], drawn["color_list"], strict=True):
        # scipy puts leaf i at 5 + 10 i.
        ax.plot(height, (np.array(across) - 5) / 10, color=ink, linewidth=1.5)
    tops = np.sort(tree.links[:, 2])
    if k is not None and 1 < k <= len(tops):
        ax.axvline((tops[-k] + tops[1 - k]) / 2, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    title = f"{len(order)} clusters" + (f" in {k} groups" if k else "")
    ax.set(title=title, xlabel="height of the merge (Ward)", xlim=(1.04 * tops[-1], 0), ylim=(len(order) - 0.4, -0.6))
    ax.spines["left"].set_visible(False)
    ax.yaxis.tick_right()
    ax.set_yticks(range(len(order)), [f"{tree.clusters[i]}  ({tree.sizes[i]:,})" for i in order], fontsize=8)
    for text, i in zip(ax.get_yticklabels(), order, strict=True):
        text.set_color(style.INK if k is None else inks[i])
    ax.tick_params(axis="y", length=0)
    if labels is not None and truth is not None:
        _classes(beside[0], [tree.clusters[i] for i in order], labels, truth)
    return figure


def _inks(tree: Tree, k: int | None) -> list[str]:
    """Colour of every node: that of its group, or grey above the cut."""
    count = len(tree.clusters)
    if k is None:
        return [style.OKABE_ITO[0]] * (2 * count - 1)
    found = cluster_tree.groups(tree, k)
    # As `clusters.merge` numbers them: by size, and of two alike the one with the lower cluster first.
    sizes = pd.Series(tree.sizes).groupby(found, sort=False).sum().sort_values(ascending=False, kind="stable")
    inks = [style.colours(k)[sizes.index.get_loc(group)] for group in found]
    for step, first in enumerate(tree.links[:, 0].astype(int)):
        inks.append(inks[first] if step < count - k else style.QUIET)
    return inks


def _classes(ax: Axes, clusters: list[int], labels: pd.Series, truth: pd.Series) -> None:
    """Bars of the shares of classes in each cluster, first cluster on top."""
    classes = style.aligned(truth, labels.index.to_numpy(), name="truth")
    counts = pd.crosstab(labels.to_numpy(), classes.to_numpy()).loc[clusters]
    left = np.zeros(len(counts))
    for name, ink in style.categories(classes).items():
        if name in counts:
            share = (counts[name] / counts.sum(axis=1)).to_numpy()
            ax.barh(range(len(counts)), share, left=left, color=ink, label=style.label(name), height=0.72)
            left += share
    ax.tick_params(axis="y", length=0, labelleft=False)
    ax.spines["left"].set_visible(False)
    ax.set(title="Classes", xlabel="share of the cluster", xlim=(0, 1))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1, handleheight=1, fontsize=7.5)
