"""The chart of a training shows what is in the history, and draws itself anew in its place."""

import IPython
import pandas as pd
import pytest
from IPython import display
from matplotlib.figure import Figure

from tomolab.ui import plots

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [3, 2, 1],
        "loss": [3, 2.5, 2],
        "accuracy": [0.3, 0.6, 0.5],
        "novel_ari": [0.1, 0.2, 0.4],
        "per_second": [90.0, 80.0, 1234.0],
    }
)


def test_unknown_classes_and_the_rate_are_shown_where_they_were_measured() -> None:
    figure = plots.training(HISTORY)
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[1].lines}
    assert lines == {"known classes": [0.3, 0.6, 0.5], "unknown classes (ARI)": [0.1, 0.2, 0.4]}
    assert figure.get_supxlabel() == "1,234 subtomograms/s"
    bare = plots.training(HISTORY[["epoch", "train_loss", "loss", "accuracy"]])
    assert len(bare.axes[1].lines) == 1
    assert bare.axes[1].get_legend() is None


def test_a_live_chart_is_drawn_once_and_then_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    class Handle:
        def display(self, figure: Figure) -> None:
            seen.append(("display", len(figure.axes[0].lines[0].get_xdata())))

        def update(self, figure: Figure) -> None:
            seen.append(("update", len(figure.axes[0].lines[0].get_xdata())))

    monkeypatch.setattr(display, "DisplayHandle", Handle)
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    draw = plots.live_training()
    for epochs in (1, 2, 3):
        draw(HISTORY[:epochs])
    assert seen == [("display", 1), ("update", 2), ("update", 3)]
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    plots.live_training()(HISTORY)
    assert len(seen) == 3
