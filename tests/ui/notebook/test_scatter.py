"""What the lasso holds becomes a selection of the same particles, every one of them; no browser is needed."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from tomolab import particles
from tomolab.inspection import Selection
from tomolab.ui import style
from tomolab.ui.notebook import scatter

# jupyter-scatter 1.0 sets pandas tables in place while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


def points(n: int = 10, seed: int = 0) -> pd.DataFrame:
    """Particles with ids that are neither in order nor row numbers."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"particle_id": rng.permutation(n) * 3 + 100, "x": rng.normal(size=n), "y": rng.normal(size=n)})


def draw(view: scatter.Lasso, rows: np.ndarray) -> None:
    """Set what the browser sets when points are drawn around."""
    view.widget.selection = np.asarray(rows, dtype=np.uint32)


def test_a_lasso_becomes_a_selection_of_particle_ids() -> None:
    table = points()
    view = scatter.lasso(table)
    draw(view, [7, 2, 2])
    chosen = view.selection("two", "drawn")
    assert chosen == Selection("two", table["particle_id"].iloc[[2, 7]].to_numpy(), "drawn")
    assert repr(view) == "Lasso(10 particles, 2 selected)"


def test_a_large_lasso_loses_nobody() -> None:
    table = points(150_000)
    view = scatter.lasso(table)
    rows = np.random.default_rng(1).permutation(150_000)[:149_000]
    draw(view, rows)
    chosen = view.selection("most", "drawn")
    assert len(chosen) == 149_000
    assert set(chosen) == set(table["particle_id"].to_numpy()[rows].tolist())
    other = scatter.lasso(table)
    other.select(chosen)
    assert len(other.widget.selection) == 149_000
    assert other.selection("most", "drawn") == chosen


def test_nothing_selected_is_refused() -> None:
    view = scatter.lasso(points())
    with pytest.raises(ValueError, match="nothing is selected"):
        view.selection("none", "")
    draw(view, [1])
    draw(view, [])
    with pytest.raises(ValueError, match="nothing is selected"):
        view.selection("none", "")


def test_ids_that_are_not_shown_are_refused_and_leave_the_selection() -> None:
    table = points()
    view = scatter.lasso(table)
    draw(view, [3])
    with pytest.raises(ValueError, match=r"2 of 3 particles are not shown here, such as \[2, 1\]"):
        view.select([table["particle_id"][0], 2, 1])
    assert view.ids.tolist() == [table["particle_id"][3]]
    draw(view, [99])
    with pytest.raises(ValueError, match="reports row 99 as selected, but shows 10 particles"):
        view.selection("odd", "")


def test_changes_are_told_and_do_not_echo() -> None:
    table = points()
    view = scatter.lasso(table)
    heard: list[list[int]] = []

    def listen(held: np.ndarray) -> None:
        heard.append(np.flatnonzero(held).tolist())
        view.choose(held)

    view.on_change(listen)
    draw(view, [4, 5])
    view.select(table["particle_id"][[4, 5]])
    assert heard == [[4, 5]]


def test_colours_are_those_of_the_figures() -> None:
    table = points(12)
    labels = pd.Series(np.arange(12) % 11, index=table["particle_id"].sample(frac=1, random_state=0), name="cluster")
    view = scatter.lasso(table, colour=labels, particles=particles.table(np.zeros((12, 3)), ids=table["particle_id"]))
    kinds = {int(kind): index for kind, index in view.widget.color_domain.items()}
    palette = style.categories(labels)
    for kind, index in kinds.items():
        np.testing.assert_allclose(view.widget.color[index][:3], to_rgb(palette[kind]), atol=1e-6)
    assert view.scatter._data["cluster"].astype(int).tolist() == labels.loc[table["particle_id"]].tolist()
    scores = pd.Series(np.linspace(0, 1, 12), index=table["particle_id"], name="score")
    assert scatter.lasso(table, colour=scores).widget.color_title == "score"


def test_colours_stay_right_when_a_kind_has_become_empty() -> None:
    view = scatter.lasso(points(6))
    for kinds in (["a", "b", "c", "a", "b", "c"], ["c", "b", "c", "c", "b", "c"]):
        inks = {"a": "#ff0000", "b": "#00ff00", "c": "#0000ff"}
        view.recolour(pd.Categorical(kinds, categories=list(inks)), list(inks.values()))
        # What the browser draws: the colour whose number is the third value of the point.
        drawn = [style.to_hex(view.widget.color[int(point[2])][:3]) for point in view.widget.points]
        assert drawn == [inks[kind] for kind in kinds]
    with pytest.raises(ValueError, match="2 values for 6 particles, and 1 colours for 2 categories"):
        view.recolour(pd.Categorical(["a", "b"]), ["red"])


def test_what_is_hidden_is_not_drawn() -> None:
    view = scatter.lasso(points(4))
    view.show_only(np.array([True, False, True, True]))
    assert view.widget.filter.tolist() == [0, 2, 3]
    view.show_only(np.ones(4, dtype=bool))
    assert view.widget.filter is None


def test_it_shows_in_a_notebook() -> None:
    view = scatter.lasso(points())
    assert view.show() is not None


def test_bad_points_are_refused() -> None:
    table = points()
    with pytest.raises(ValueError, match="a scatter needs the columns particle_id, x, y; y is missing"):
        scatter.lasso(table[["particle_id", "x"]])
    with pytest.raises(ValueError, match="1 ids are repeated"):
        scatter.lasso(table.assign(particle_id=[1, 1, *range(2, 10)]))
    with pytest.raises(ValueError, match="1 particles are not finite"):
        scatter.lasso(table.assign(x=[np.nan, *range(9)]))
    with pytest.raises(ValueError, match="colour is unknown for 9 of 10"):
        scatter.lasso(table, colour=pd.Series(["a"], index=table["particle_id"][:1]))


LACKING = {
    "text": pd.Series(["b", "a", None, "a"]),
    "text with NaN": pd.Series(["b", "a", np.nan, "a"], dtype=object),
    "text with NA": pd.Series(["b", "a", pd.NA, "a"], dtype="string"),
    "category": pd.Series(["b", "a", None, "a"], dtype="category"),
    "category that does not occur": pd.Categorical(["b", "a", None, "a"], categories=["a", "b", "c"]),
    "truth": pd.Series([True, False, None, False], dtype=object),
    "truth of pandas": pd.Series([True, False, pd.NA, False], dtype="boolean"),
    "whole numbers": pd.Series([1, 0, pd.NA, 0], dtype="Int64"),
}


@pytest.mark.parametrize("name", LACKING)
def test_a_missing_kind_is_a_grey_kind_of_its_own(name: str) -> None:
    table = points(4)
    kinds = pd.Series(LACKING[name], name="kind").set_axis(table["particle_id"])
    widget = scatter.lasso(table, colour=kinds).widget
    inks = ["#" + "".join(f"{round(255 * part):02x}" for part in ink[:3]) for ink in widget.color]
    numbers = np.asarray(widget.points)[:, 2].astype(int)
    drawn = [inks[number] for number in numbers]
    assert drawn == [style.OKABE_ITO[n].lower() for n in (1, 0)] + [style.LACKING, style.OKABE_ITO[0].lower()]
    assert widget.legend_encoding["color"]["values"][-1][0] == "missing"


def test_a_missing_kind_does_not_hide_behind_one_of_that_name() -> None:
    found, palette = style.to_categorical(pd.Series(["missing", None, "a"]))
    assert list(found) == ["missing", "(missing)", "a"]
    assert palette == {"a": style.OKABE_ITO[0], "missing": style.OKABE_ITO[1], "(missing)": style.LACKING}
    found, palette = style.to_categorical(pd.Series([None, None]))
    assert (list(found), palette) == (["missing"] * 2, {"missing": style.LACKING})
    found, palette = style.to_categorical(pd.Series(["b", "a"]))
    assert (list(found), list(palette)) == (["b", "a"], ["a", "b"])


@pytest.mark.parametrize("dtype", ["float64", "Float64", "float32"])
def test_a_missing_number_is_grey_and_no_other_is(dtype: str) -> None:
    table = points(5)
    values = pd.Series([1.0, 3.0, None, 2.0, 3.0], dtype=dtype, name="score").set_axis(table["particle_id"])
    view = scatter.lasso(table, colour=values)
    for again in range(2):
        shares = np.asarray(view.widget.points)[:, 2]
        inks = ["#" + "".join(f"{round(255 * part):02x}" for part in ink[:3]) for ink in view.widget.color]
        steps = np.minimum((shares * len(inks)).astype(int), len(inks) - 1)
        assert [inks[step] == style.LACKING for step in steps] == [False, False, True, False, False]
        assert (inks[steps[0]], inks[steps[1]]) == ("#440154", "#fde725")
        if not again:
            view.shade(values.to_numpy(dtype=float, na_value=np.nan), "score")


def test_particles_without_a_kind_can_be_recoloured() -> None:
    view = scatter.lasso(points(3))
    view.recolour(pd.Categorical(["a", None, "b"]), ["#ff0000", "#00ff00"])
    assert [tuple(ink[:3]) for ink in view.widget.color][:2] == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    assert np.asarray(view.widget.points)[:, 2].astype(int).tolist() == [0, 2, 1]
