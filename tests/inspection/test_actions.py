"""Actions do what their buttons say, or say why they cannot; a new one, or a new column, needs one entry for all screens."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tomolab import inspection
from tomolab.averaging import Average
from tomolab.inspection import Inspection, Session, cluster_columns, exports
from tomolab.inspection.actions import ACTIONS, GROUPS, Action, Choice
from tomolab.inspection.cluster_columns import COLUMNS, Column
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

# jupyter-scatter 1.0 sets pandas tables in place while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


@pytest.fixture
def work(folder: Path) -> Inspection:
    return inspection.open(folder)


def browser(work: Inspection) -> tuple[Any, dict[str, tuple[str, str]], dict[str, tuple[str, str, list[str]]]]:
    """The inspector of the browser; title and tooltip of its buttons; title, tooltip and texts of its columns."""
    from tomolab.ui.notebook.inspector import Inspector

    view = Inspector(work)
    texts = {one["name"]: [row["texts"][one["name"]] for row in view.table.rows] for one in view.table.columns}
    columns = {one["name"]: (one["title"], one["tooltip"], texts[one["name"]]) for one in view.table.columns}
    return view, {name: (one.description, one.tooltip) for name, one in view.buttons.items()}, columns


def napari(work: Inspection) -> tuple[Any, dict[str, tuple[str, str]], dict[str, tuple[str, str, list[str]]]]:
    """The same of napari."""
    from qtpy.QtCore import Qt

    from tomolab.ui.napari import link, viewer
    from tomolab.ui.napari.inspector import InspectorPanel

    panel = InspectorPanel(work, link.link(viewer.model(), work))
    table, roles = panel.table.clusters, Qt.ItemDataRole
    columns = {}
    for place, column in enumerate(table.columns):
        head = (table.headerData(place, Qt.Orientation.Horizontal, role) for role in (roles.DisplayRole, roles.ToolTipRole))
        columns[column.name] = (*head, [table.data(table.index(row, place)) for row in range(table.rowCount())])
    return panel, {name: (one.text(), one.toolTip()) for name, one in panel.buttons.items()}, columns


@pytest.fixture(
    params=[
        "browser",
        pytest.param(
            "napari",
            marks=[pytest.mark.display, pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="needs an X display")],
        ),
    ]
)
def screen(request: pytest.FixtureRequest) -> Callable[[Inspection], Any]:
    if request.param == "browser":
        return browser
    request.getfixturevalue("qtbot")
    return napari


def keys(view: Any) -> list[str]:
    """Keys to which a screen listens."""
    if hasattr(view, "keyboard"):
        return list(view.keyboard.watched)
    from qtpy.QtGui import QKeySequence
    from qtpy.QtWidgets import QShortcut

    return [one.key().toString(QKeySequence.SequenceFormat.PortableText) for one in view.findChildren(QShortcut)]


def test_every_screen_shows_every_action_with_its_title_keys_and_tooltip(work: Inspection, screen: Callable) -> None:
    work.session.select(work.session.ids[:3])
    view, buttons, _ = screen(work)
    assert buttons == {name: (one.title, one.help(work, Choice())) for name, one in ACTIONS.items()}
    assert buttons["undo"][1] == "Undo the last step (U, Ctrl+Z)\nNow: select 3 particles (list, replace)"
    assert "Not now: tick two clusters or more" in buttons["merge"][1]
    assert sorted(keys(view)) == sorted(key for one in ACTIONS.values() for key in one.keys)


def test_an_action_needs_one_entry(work: Inspection, screen: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Choice] = []
    action = Action("Sort", "Put into order", "sort", ("O",), "clusters", lambda *_: "", lambda _, choice: said.append(choice))
    monkeypatch.setitem(ACTIONS, "sort", action)
    view, buttons, _ = screen(work)
    assert buttons["sort"] == ("Sort", "Put into order (O)")
    assert "O" in keys(view)
    view.buttons["sort"].click()
    assert said == [Choice()]


def test_a_column_needs_one_entry(work: Inspection, screen: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    work.split(0)
    mean = Column(
        "score",
        "Score",
        "Mean score of its particles",
        "number",
        lambda work: work.session.table().groupby("cluster")["score"].mean(),
        "{:.2f}".format,
    )
    monkeypatch.setattr(cluster_columns, "COLUMNS", (*COLUMNS, mean))
    _, _, columns = screen(work)
    assert {name: head[:2] for name, head in columns.items()} == {
        one.name: (one.title, one.tooltip) for one in (*COLUMNS, mean)
    }
    assert columns["name"][2] == ["cluster 0", "cluster 1"]
    assert columns["count"][2] == ["16", "16"]
    scores = work.session.table().groupby("cluster")["score"].mean()
    assert columns["score"][2] == [f"{score:.2f}" for score in scores]


def test_it_says_what_cannot_be_done_and_why(work: Inspection, boxes: Subtomograms) -> None:
    def problems(choice: Choice) -> dict[str, str]:
        return {name: action.problem(work, choice) for name, action in ACTIONS.items() if action.problem(work, choice)}

    assert problems(Choice()) == {
        "undo": "there is nothing to undo",
        "redo": "nothing was undone",
        "clear": "nothing is selected",
        "similar": "select a particle first",
        "only": "tick one cluster or more",
        "all": "no filter is set, and no cluster is hidden",
        "new_cluster": "select particles first",
        "merge": "tick two clusters or more",
        "split": "tick one cluster",
        "unassign": "tick one cluster or more",
        "accept": "tick one cluster or more",
        "send_back": "tick one cluster or more",
        "average": "the selection holds 0 particles, and an average needs 8",
        "quick": "the selection holds 0 particles, and an average needs 8",
    }
    assert set(problems(Choice([0]))) == {"undo", "redo", "clear", "similar", "all", "new_cluster", "merge"}
    work.session.select(boxes.ids[:3])
    assert set(problems(Choice([0]))) == {"redo", "all", "merge"}
    with pytest.raises(ValueError, match="tick two clusters or more"):
        ACTIONS["merge"].do(work, Choice([0]))
    work = Inspection(Session(boxes.particles), diameter=250)
    assert problems(Choice())["export"] == "there is no cluster, and nothing is selected"
    assert problems(Choice())["discover"] == "there are no boxes to compare"


def shown(view: Any, column: str) -> dict[int, str]:
    """Texts of a column of the table of a screen, by cluster."""
    if hasattr(view, "keyboard"):
        return {row["cluster"]: row["texts"][column] for row in view.table.rows}
    table = view.table.clusters
    place = [one.name for one in table.columns].index(column)
    return {number: table.data(table.index(row, place)) for row, number in enumerate(table.numbers)}


def press(view: Any, name: str, *ticked: int) -> None:
    """Tick these clusters only, and click a button."""
    if hasattr(view, "keyboard"):
        view.table.ticked = list(ticked)
    else:
        for one in view.inspection.session.clusters:
            view.table.clusters.tick(one, on=False)
        for one in ticked:
            view.table.clusters.tick(one)
    view.buttons[name].click()


def test_a_structure_is_accepted_merged_split_and_sent_back(work: Inspection, screen: Callable) -> None:
    session, volume = work.session, Volume(np.random.default_rng(0).normal(size=(8, 8, 8)), 20.0)
    _, second = work.split(0)
    fsc = pd.DataFrame({"resolution": [80.0, 40.0], "fsc": [1.0, 0.0]})
    identity = {"identity": {"sentence": "known: tric (r 0.98, p 0.001)"}}
    for number, name in ((0, "a"), (second, "b")):
        table = session.table([number]).assign(half=1)
        work.add_average(name, Average(volume, volume, volume, fsc, table, identity if name == "a" else {}), cluster=number)
    view, _, _ = screen(work)
    resolution = f"{work.averages['a'].resolution:.0f}"
    both = {0: resolution, second: resolution}
    assert shown(view, "resolution") == both
    assert shown(view, "identity") == {0: "tric", second: ""}
    press(view, "accept", 0)
    assert shown(view, "resolution") == both
    assert session.clusters[0].accepted
    assert not session.clusters[second].accepted
    assert ACTIONS["discover"].help(work, Choice()).endswith("Now: of the 1 clusters that are not accepted")
    # What is not of exactly these particles is not shown: another structure, or a part of it.
    press(view, "merge", 0, second)
    assert shown(view, "resolution") == shown(view, "identity") == {0: ""}
    assert not session.clusters[0].accepted
    press(view, "undo")
    assert shown(view, "resolution") == both
    press(view, "merge", 0, second)
    press(view, "send_back", 0)
    assert shown(view, "resolution") == both
    assert session.history.past[-1].what == "send back 16 particles of cluster 0"
    press(view, "send_back", second)
    assert shown(view, "resolution") == {0: ""}
    assert session.counts().to_dict() == {0: 32}
    press(view, "undo")
    assert shown(view, "resolution") == both
    session.split(0, pd.Series(np.arange(16) % 2, index=session.members(0).ids))
    assert shown(view, "resolution") == {0: "", second: resolution, 2: ""}
    press(view, "undo")
    assert shown(view, "identity")[0] == "tric"
    work.averages["b"].record["identity"] = {"sentence": "novel: nearest tric, mirrored (r 0.5, p 0.2)"}
    work.changed.emit({"averages"})
    assert shown(view, "identity")[second] == "novel"


def test_only_visible_particles_are_counted_averaged_and_exported(work: Inspection, screen: Callable, tmp_path: Path) -> None:
    session, ids = work.session, work.session.ids
    work.split(0)
    view, _, _ = screen(work)
    assert shown(view, "visible") == {0: "", 1: ""}
    low = session.particles["score"].to_numpy() > 5
    first = (session.labels == 0).to_numpy()
    session.select(ids[first | low])
    session.filter("score", 5.5)
    inside, other = int((low & first).sum()), int((low & ~first).sum())
    assert shown(view, "visible") == {0: str(inside), 1: str(other)}
    assert shown(view, "selected") == {0: str(inside), 1: str(other)}
    assert ACTIONS["average"].help(work, Choice([0])).endswith(f"Now: of cluster 0 ({inside} of 16, the others are hidden)")
    assert ACTIONS["export"].help(work, Choice()).endswith("Now: of the 26 selected")
    assert set(exports.taken(work, [])) == set(ids[low])
    written = tmp_path / "one.csv"
    told = exports.export_as(work, exports.FORMATS[10], written, chosen=[0])
    assert told == f"{inside} particles are in one.csv; {16 - inside} hidden particles left out"
    assert set(pd.read_csv(written)["particle_id"]) == set(ids[first & low])
    assert set(work._taking_part([]).index) == set(ids[low])
    job = work.average(0, quick=True)
    job.stop()
    assert job.name == f"cluster 0, {inside} of 16, quick"
    # A hidden cluster takes part in nothing, not even where its particles are selected.
    session.describe(1, hidden=True)
    assert shown(view, "visible")[1] == "0"
    assert "cluster 1 shows 0 particles, and an average needs 8" in ACTIONS["average"].problem(work, Choice([1]))
    with pytest.raises(ValueError, match="no particle is visible"):
        exports.export_as(work, exports.FORMATS[10], tmp_path / "none.csv", chosen=[1])
    number = session.new_cluster()
    assert set(session.members(number)) == set(ids[first & low])
    session.select([])
    assert ACTIONS["export"].help(work, Choice()).endswith(f"Now: the {inside} visible of 32")
    session.filter("score")
    session.describe(1, hidden=False)
    assert ACTIONS["export"].help(work, Choice()).endswith("Now: all 32")


def test_an_existing_file_is_not_written_over_unasked(work: Inspection, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("dear")
    for wanted in (exports.FORMATS[10], exports.FORMATS[11]):
        with pytest.raises(FileExistsError, match=r"mine\.csv is there already"):
            exports.export_as(work, wanted, tmp_path / "mine", source="other.csv")
    assert (tmp_path / "mine.csv").read_text() == "dear"
    exports.export_as(work, exports.FORMATS[10], tmp_path / "mine", replace=True)
    assert len(pd.read_csv(tmp_path / "mine.csv")) == 32


def test_actions_change_the_session(work: Inspection) -> None:
    session = work.session
    ACTIONS["split"].do(work, Choice([0], n_clusters=3))
    assert len(session.clusters) == 3
    # The first that was ticked keeps its name.
    session.describe(2, name="third")
    ACTIONS["merge"].do(work, Choice([2, 0]))
    assert [session.title(one) for one in session.clusters] == ["cluster 1", "third"]
    ACTIONS["unassign"].do(work, Choice([1, 2]))
    assert not session.clusters
    for _ in range(2):
        ACTIONS["undo"].do(work, Choice())
    assert len(session.clusters) == 3
    ACTIONS["redo"].do(work, Choice())
    assert len(session.clusters) == 2
    session.select(session.ids[:5])
    ACTIONS["new_cluster"].do(work, Choice())
    assert 5 in session.counts().tolist()
    ACTIONS["clear"].do(work, Choice())
    assert not session.selected.any()


def test_every_action_has_a_group_and_keys_of_its_own() -> None:
    assert {action.group for action in ACTIONS.values()} <= set(GROUPS)
    listed = [key for action in ACTIONS.values() for key in action.keys]
    assert len(set(listed)) == len(listed)
