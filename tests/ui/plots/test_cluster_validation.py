"""Charts of subdivision show what the tables say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tomolab import clusters
from tomolab.clusters import hierarchy, validation
from tomolab.learning import Embedding
from tomolab.ui import plots, style


@pytest.fixture
def divided() -> tuple[Embedding, pd.Series, pd.Series]:
    """Three groups in eight clusters, and the truth."""
    rng = np.random.default_rng(3)
    true = np.repeat([0, 1, 2], [80, 60, 40])
    embedding = Embedding(np.arange(180), 5 * np.eye(6)[true] + rng.normal(size=(180, 6)), "")
    return embedding, clusters.kmeans(embedding, 8, seed=0), pd.Series(np.array(["a", "b", "c"])[true])


def drawn(figure: Figure) -> Figure:
    figure.canvas.draw()
    return figure


def test_criteria_mark_the_chosen_number_and_the_best_of_each() -> None:
    table = pd.DataFrame(
        {
            "strength": [0.9, 0.7, 0.3],
            "silhouette": [0.1, 0.5, 0.2],
            "calinski_harabasz": [9, 2, 1],
            "davies_bouldin": [3, 2, 1],
            "bic": [5, 4, 6],
        },
        index=pd.Index([2, 3, 4], name="k"),
    )
    figure = drawn(plots.criteria(table))
    assert len(figure.axes) == 5
    assert figure.get_suptitle() == "2 clusters"
    assert figure.axes[0].get_title(loc="left") == "Prediction strength: 3 come back"
    # The first line of a panel marks the choice, the last one rings its own proposal.
    assert {ax.lines[0].get_xdata()[0] for ax in figure.axes} == {2}
    own = {ax.get_title(loc="left").split(":")[0]: ax.lines[2].get_xdata()[0] for ax in figure.axes}
    assert own == {
        "Prediction strength": 3,
        "Silhouette": 3,
        "Calinski-Harabasz": 2,
        "Davies-Bouldin": 4,
        "BIC of Gaussians": 3,
    }
    none = drawn(plots.criteria(table.assign(strength=0.1)))
    assert none.axes[0].get_title(loc="left") == "Prediction strength: no division repeats itself"
    assert plots.criteria(table, chosen=4).axes[0].lines[0].get_xdata()[0] == 4
    with pytest.raises(ValueError, match="bic is missing"):
        plots.criteria(table.drop(columns="bic"))


def test_stability_sorts_clusters_by_verdict() -> None:
    table = pd.DataFrame({"size": [50, 30, 9], "jaccard": [0.9, 0.6, 0.4], "lowest": [0.8, 0.2, 0.1]})
    figure = drawn(plots.stability(table))
    ax = figure.axes[0]
    assert [bar.get_height() for bar in ax.patches] == [0.9, 0.6, 0.4]
    assert len({bar.get_facecolor() for bar in ax.patches}) == 3
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "comes back (1)",
        "comes back in part (1)",
        "dissolves (1)",
    ]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0\n50", "1\n30", "2\n9"]
    with pytest.raises(ValueError, match="jaccard is missing"):
        plots.stability(table.drop(columns="jaccard"))


def test_dendrogram_has_the_colours_of_the_merged_clusters(divided) -> None:
    embedding, labels, truth = divided
    tree = hierarchy.merges(embedding, labels)
    figure = drawn(plots.dendrogram(tree, k=3, labels=labels, truth=truth))
    ax, bars = figure.axes
    merged = clusters.merge(labels, hierarchy.cut(tree, 3))
    palette = style.categories(merged)
    became = clusters.became(labels, merged).set_index("before")["after"]
    for text in ax.get_yticklabels():
        name, size = text.get_text().split()
        assert int(size.strip("()")) == (labels == int(name)).sum()
        assert to_hex(text.get_color()) == palette[became[int(name)]].lower()
    # Seven merges and the line of the cut, which is crossed by three groups.
    assert len(ax.lines) == 8
    # Two merges lie above the cut, grey; the others have the colours of their groups.
    assert [line.get_color() for line in ax.lines[:-1]].count(style.QUIET) == 2
    place = ax.lines[-1].get_xdata()[0]
    assert (tree.links[:, 2] > place).sum() == 2
    assert bars.get_legend_handles_labels()[1] == ["a", "b", "c"]
    assert ax.get_title(loc="left") == "8 clusters in 3 groups"


def test_bars_of_classes_stand_at_their_clusters(divided) -> None:
    embedding, labels, truth = divided
    tree = hierarchy.merges(embedding, labels)
    figure = drawn(plots.dendrogram(tree, labels=labels, truth=truth))
    shares = pd.crosstab(labels, truth, normalize="index")
    names = [int(text.get_text().split()[0]) for text in figure.axes[0].get_yticklabels()]
    for container in figure.axes[1].containers:
        widths = [bar.get_width() for bar in container]
        assert widths == pytest.approx(shares.loc[names, container.get_label()].tolist())
    with pytest.raises(ValueError, match="need both labels and truth"):
        plots.dendrogram(tree, labels=labels)
    with pytest.raises(ValueError, match="got k=9"):
        plots.dendrogram(tree, k=9)


def test_charts_draw_what_counting_gives(divided) -> None:
    embedding, labels, _ = divided
    drawn(plots.criteria(validation.criteria(embedding, [2, 3, 4], seed=0, progress=False)))
    drawn(plots.stability(validation.stability(embedding, labels, seed=0, repeats=3, progress=False)))
    drawn(plots.dendrogram(hierarchy.merges(embedding, labels)))
