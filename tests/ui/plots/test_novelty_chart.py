"""Charts of novelty and of methods under conditions show what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from tomolab.experiments import MEASURES
from tomolab.ui import plots, style


def clusters_found() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "size": [40, 12, 30],
            "novelty": [0.2, 0.95, 0.5],
            "distance": [1.0, 5.0, 2.0],
            "class": ["a", "b", "b"],
            "compactness": [0.9, 0.8, 0.7],
            "rank": [3, 1, 2],
        },
        index=pd.Index([0, 1, 2], name="cluster"),
    )


def test_novel_clusters_stand_first_and_in_their_own_colour() -> None:
    (ax,) = plots.novelty(clusters_found(), truth=pd.Series({0: "a", 1: "new", 2: "b"})).axes
    assert [bar.get_width() for bar in ax.patches] == [5.0, 2.0, 1.0]
    inks = [bar.get_facecolor() for bar in ax.patches]
    assert inks[0] != inks[1] == inks[2]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["cluster 1, 12", "cluster 2, 30", "cluster 0, 40"]
    assert "novelty 0.95, nearest b  [new]" in [text.get_text() for text in ax.texts]
    assert len(plots.novelty(clusters_found(), limit=2).axes[0].patches) == 2
    with pytest.raises(ValueError, match="rank is missing"):
        plots.novelty(clusters_found().drop(columns="rank"))


def trials_made() -> pd.DataFrame:
    rows = [
        {"method": method, "split": split, "snr": snr, "tilt": tilt, **dict.fromkeys(MEASURES, base + 0.1 * (split == "2"))}
        for method, base in (("compact", 0.7), ("dsrf3d", 0.5))
        for split in ("1", "2")
        for snr in (1.0, 0.1)
        for tilt in (60.0, 40.0)
    ]
    return pd.DataFrame(rows)


def test_conditions_have_a_line_for_each_method_and_get_harder_to_the_right() -> None:
    figure = plots.conditions(trials_made(), measures={"ari": "ARI", "novelty": "novelty"})
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["tilts ±60°", "tilts ±40°"]
    assert len(figure.axes) == 4
    for ax in figure.axes:
        lines = {line.get_label(): line for line in ax.get_lines()}
        assert lines["compact"].get_ydata() == pytest.approx([0.75, 0.75])
        assert lines["dsrf3d"].get_ydata() == pytest.approx([0.55, 0.55])
        assert lines["compact"].get_color() == style.INK
        left, right = ax.get_xlim()
        assert left > 1.0 > 0.1 > right
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["compact", "dsrf3d"]
    with pytest.raises(ValueError, match="accuracy is missing"):
        plots.conditions(trials_made().drop(columns="accuracy"))


def test_a_method_without_a_condition_has_no_line_there() -> None:
    rows = trials_made()
    some = rows[(rows["method"] != "dsrf3d") | (rows["tilt"] == 60)]
    figure = plots.conditions(some, measures={"ari": "ARI"}, highlight=None)
    assert [len(ax.get_lines()) for ax in figure.axes] == [2, 1]
    assert np.isfinite(figure.axes[1].get_lines()[0].get_ydata()).all()
