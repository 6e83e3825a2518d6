"""Takes the novelty of clusters, draws them in the order in which to average them as a matplotlib Figure.

>>> novelty(reference.clusters(embedding, labels))
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tomolab.ui import style
from tomolab.ui.style import styled


@styled
def novelty(table: pd.DataFrame, *, novel: float = 0.9, truth: pd.Series | None = None, limit: int = 30) -> Figure:
    """Clusters in the order in which to average them, with a bar of the novelty of each.

    Parameters
    ----------
    table
        From `novelty.Reference.clusters`.
    novel
        Novelty from which a cluster counts as novel and has the other colour.
    truth
        Class of each cluster, indexed by cluster, where it is known; written in brackets.
    limit
        Clusters shown, the first in rank.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    style.require(table, ["size", "novelty", "distance", "class", "compactness", "rank"], "a chart of novelty")
    shown = table.sort_values("rank").head(limit)
    figure = Figure((7.2, 0.9 + 0.24 * len(shown)), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(shown))
    inks = np.where(shown["novelty"] >= novel, style.OKABE_ITO[5], style.OKABE_ITO[4]).tolist()
    ax.barh(places, shown["distance"], color=inks, height=0.72)
    for place, (cluster, row) in zip(places, shown.iterrows(), strict=True):
        known = "" if truth is None else f"  [{truth[cluster]}]"
        text = f"novelty {row['novelty']:.2f}, nearest {row['class']}{known}"
        ax.annotate(text, (row["distance"], place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)
    ax.set_yticks(places, [f"cluster {cluster}, {row['size']:g}" for cluster, row in shown.iterrows()])
    entries = ((style.OKABE_ITO[5], f"novelty {novel:g} or more"), (style.OKABE_ITO[4], "like something known"))
    figure.legend(handles=[Patch(color=ink, label=text) for ink, text in entries], loc="outside lower center", ncols=2)
    ax.invert_yaxis()
    ax.set(
        xlim=(0, 1.45 * shown["distance"].max()),
        xlabel="distance from what is known (standard deviations within a class)",
        title="Clusters in the order in which to average them, with their sizes",
    )
    return figure
