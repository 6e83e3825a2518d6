"""A name is drawn as it is written, whatever is in it."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from tomolab import inspection, particles
from tomolab.clusters import hierarchy
from tomolab.learning import Embedding
from tomolab.ui import plots, view_figure
from tomolab.volumes import Volume

NAMES = ["$a_b$", "_hidden", r"$\frac{", "__", "100 %", "$", "_", "_nolegend_", "plain"]


def drawn(figure: Figure, names: list[str], *, everywhere: bool = False) -> None:
    """The figure can be drawn without a warning, and holds all names as they are written, by default in legends."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)
    places = [figure] if everywhere else figure.findobj(Legend)
    texts = [text for place in places for text in place.findobj(Text)]
    shown = [text.get_text() for text in texts]
    for name in names:
        assert any(
            one == name or one.startswith((f"{name} ", f"{name}:", f"{name}\n")) or one.endswith(name) for one in shown
        ), name
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())


@pytest.fixture
def table() -> pd.DataFrame:
    places = np.random.default_rng(0).uniform(0, 300, (4 * len(NAMES), 3))
    return particles.table(places, tomogram="cell", label=NAMES * 4)


def test_classes_and_clusters(table: pd.DataFrame) -> None:
    ids = table["particle_id"]
    truth = pd.Series(table["label"].to_numpy(), index=ids)
    points = pd.DataFrame({"particle_id": ids, "x": table["x"], "y": table["y"]})
    drawn(plots.scatter(points, colour=truth.rename("$_$")), [*NAMES, "$_$"])
    drawn(plots.composition(truth.map(hash), truth), NAMES)
    drawn(plots.composition(truth, truth), NAMES, everywhere=True)
    drawn(plots.confusion(np.eye(len(NAMES)), NAMES), NAMES, everywhere=True)
    volume = Volume(np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32), 20.0)
    drawn(plots.picks(volume, table, diameter=200, colour=truth), NAMES)
    labels = pd.Series(np.arange(len(ids)) % 4, index=ids)
    tree = hierarchy.merges(Embedding(ids.to_numpy(), np.random.default_rng(2).normal(size=(len(ids), 3)), ""), labels)
    drawn(plots.dendrogram(tree, labels=labels, truth=truth), NAMES)


def test_maps_and_curves() -> None:
    volume = Volume(np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32), 20.0)
    curve = pd.DataFrame({"resolution": [200.0, 100.0, 50.0], "fsc": [1.0, 0.5, 0.0]})
    drawn(plots.fsc(dict.fromkeys(NAMES, curve)), NAMES)
    drawn(plots.radial_profile(dict.fromkeys(NAMES, volume)), NAMES)
    drawn(plots.profiles(dict.fromkeys(NAMES, (np.arange(4.0), np.arange(4.0)))), NAMES)
    drawn(plots.projections(dict.fromkeys(NAMES, volume)), NAMES, everywhere=True)
    spectrum = pd.DataFrame({"frequency": np.linspace(0.002, 0.03, 99), "power": np.logspace(4, -3, 99)})
    figure = plots.power(dict.fromkeys(NAMES, spectrum))
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    assert any("10^" in text.get_text() and text.get_parse_math() for text in figure.axes[0].get_yticklabels())
    assert not any("10^" in text.get_text() and not text.get_parse_math() for text in figure.findobj(Text))
    grey = pd.DataFrame({"value": [0.0, 1.0], "$inside$": [0.5, 0.5]})
    drawn(plots.histograms(dict.fromkeys(NAMES, grey)), NAMES)


def test_the_inspector_and_the_report(folder) -> None:
    work = inspection.open(folder, diameter=250)
    for name in NAMES:
        work.session.select(work.session.ids[2 * NAMES.index(name) :][:2])
        work.session.new_cluster(name)
    drawn(view_figure.draw(work), NAMES)
