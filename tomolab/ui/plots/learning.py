"""Takes the history of a training, draws its curves as a matplotlib Figure, afterwards or while it runs.

>>> training(history)
>>> fit(network, data, watch=live_training(), ...)
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tomolab.ui import style
from tomolab.ui.style import styled

SHOWN = {"accuracy": "known classes", "novel_ari": "unknown classes (ARI)"}
"""Columns of a history in the right panel, and their labels."""


@styled
def training(history: pd.DataFrame) -> Figure:
    """Loss, and accuracy on known classes, over the epochs; where measured, the ARI of unknown classes.

    Parameters
    ----------
    history
        Columns ``epoch``, ``train_loss``, ``loss`` and ``accuracy`` (the last two on the validation data), perhaps
        ``novel_ari`` and ``per_second``.

    Raises
    ------
    ValueError
        If a column is missing or there is no epoch yet.
    """
    style.require(history, ["epoch", "train_loss", "loss", "accuracy"], "the training history")
    if history.empty:
        raise ValueError("the training history holds no epoch yet")
    figure = Figure((7, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    point: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(history) < 40 else {}
    left.plot(history["epoch"], history["train_loss"], color=style.OKABE_ITO[4], label="training", **point)
    left.plot(history["epoch"], history["loss"], color=style.OKABE_ITO[0], label="validation", **point)
    left.set(title="Loss", xlabel="epoch", ylim=(0, None))
    left.legend(loc="upper right")
    shown = {column: name for column, name in SHOWN.items() if column in history}
    for (column, name), ink in zip(shown.items(), style.colours(len(shown)), strict=True):
        right.plot(history["epoch"], history[column], color=ink, label=name, **point)
    best = history.loc[history["accuracy"].idxmax()]
    right.set(
        title=f"Validation accuracy (best {best['accuracy']:.2f}, epoch {best['epoch']:g})", xlabel="epoch", ylim=(0, 1.02)
    )
    if len(shown) > 1:
        right.legend(loc="lower right")
    if "per_second" in history:
        figure.supxlabel(
            f"{history['per_second'].iloc[-1]:,.0f} subtomograms/s", x=0.99, ha="right", fontsize=8, color=style.QUIET
        )
    for ax in (left, right):
        ax.grid(axis="y")
        ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def live_training() -> Callable[[pd.DataFrame], None]:
    """Create a function that redraws the chart of a history in place; outside notebooks it does nothing."""
    from IPython import get_ipython
    from IPython.display import DisplayHandle

    handle: list[DisplayHandle] = []

    def draw(history: pd.DataFrame) -> None:
        if get_ipython() is None:
            return
        if handle:
            handle[0].update(training(history))
        else:
            handle.append(DisplayHandle())
            handle[0].display(training(history))

    return draw
