"""The inspector: what is drawn around in one view is selected in all, counts are true, and nothing echoes; no browser."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tomolab import inspection, particles
from tomolab import io as tomolab_io
from tomolab.inspection import Inspection, Session, exports
from tomolab.subtomograms import Subtomograms
from tomolab.ui import style
from tomolab.ui.notebook import inspector
from tomolab.ui.notebook.inspector import Inspector
from tomolab.ui.notebook.slices import Section
from tomolab.volumes import Volume

# jupyter-scatter 1.0 sets pandas tables in place while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


@pytest.fixture
def view(folder: Path) -> Inspector:
    return inspector.open(folder)


def tell(widget: Any, **message: Any) -> None:
    """What the browser sends."""
    widget._handle_custom_msg(message, [])


def draw(view: Inspector, rows: Any, *, how: str = "replace") -> None:
    """What the browser sets when points of the map are drawn around."""
    view.keyboard.how = how
    view.lasso.widget.selection = np.asarray(rows, dtype=np.uint32)


def said(view: Inspector) -> str:
    return view.status.value


def until(question: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def circles(section: Section) -> tuple[np.ndarray, np.ndarray]:
    """Places and radii (n, 3), and colours and flags (n, 4)."""
    marks = np.frombuffer(section.slice.marks, dtype=np.float32).reshape(-1, 3)
    return marks, np.frombuffer(section.slice.inks, dtype=np.uint8).reshape(-1, 4)


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=float)


@pytest.fixture
def beads() -> Inspection:
    """Three beads in a tomogram without symmetry, 10 voxels of 10 Å deep, 40 high, 60 wide; one more in another tomogram."""
    places = np.array([[50.0, 100.0, 400.0], [70.0, 300.0, 200.0], [20.0, 300.0, 500.0], [50.0, 100.0, 400.0]])
    data = np.zeros((10, 40, 60), dtype=np.float32)
    for z, y, x in (places[:3] / 10).astype(int):
        data[z, y, x] = 1.0
    table = particles.table(places, tomogram=["a", "a", "a", "b"])
    labels = pd.Series([0, 1, 1, 0], index=table["particle_id"])
    return Inspection(Session(table, labels), tomograms={"a": Volume(data, 10.0)}, diameter=60.0)


def test_a_particle_is_seen_where_it_is_and_as_large_as_it_is_cut(beads: Inspection) -> None:
    section = Section(beads)
    section.at.value = 50.0
    marks, inks = circles(section)
    # Middle of voxel (10, 40) and of (30, 20); the second lies 20 Å off the slice, the third just beyond half a diameter.
    np.testing.assert_allclose(marks, [[40.5, 10.5, 3.0], [20.5, 30.5, np.sqrt(900 - 400) / 10]], rtol=1e-5)
    palette = [style.lighter(ink, 0.2) for ink in style.inks(beads.session.clusters).values()]
    assert [style.to_hex(ink[:3] / 255) for ink in inks] == palette
    bright = picture(section.slice.picture)
    assert bright.shape == (40, 60) == tuple(section.slice.size)
    assert np.unravel_index(bright.argmax(), bright.shape) == (10, 40)


def test_slices_across_every_axis_keep_x_right_and_z_down(beads: Inspection) -> None:
    section = Section(beads)
    section.axis.value = "y"
    section.at.value = 300.0
    marks, _ = circles(section)
    np.testing.assert_allclose(marks[:, :2], [[20.5, 7.5], [50.5, 2.5]])
    bright = picture(section.slice.picture)
    assert bright.shape == (10, 60)
    assert bright[7, 20] == bright[2, 50] == bright.max()
    section.axis.value = "x"
    section.at.value = 400.0
    marks, _ = circles(section)
    np.testing.assert_allclose(marks[:, :2], [[10.5, 5.5]])
    assert picture(section.slice.picture).shape == (10, 40)


def test_slices_across_z_are_read_alone_and_one_that_cannot_be_read_is_black_with_a_reason(folder: Path) -> None:
    whole, told = tomolab_io.read_volume(folder / "tomogram.mrc"), []
    np.memmap(folder / "tomogram.mrc", dtype="<f4", mode="r+", offset=1024)[-1] = np.nan
    section = Section(inspection.open(folder), say=told.append)
    section.thickness.value = 0
    section.at.value = 300.0
    seen = picture(section.slice.picture)
    assert np.corrcoef(seen.ravel(), whole.data[15].clip(*np.percentile(whole.data[20], [1, 99.8])).ravel())[0, 1] > 0.999
    assert told == []
    section.at.value = section.at.max
    assert picture(section.slice.picture).tolist() == [[0]]
    section.axis.value = "x"
    assert len(told) == 2
    assert all("NaN or infinite" in one for one in told)


def test_what_is_drawn_around_in_a_slice_is_selected(beads: Inspection) -> None:
    section, session = Section(beads), beads.session
    section.at.value = 50.0
    tell(section.slice, type="lasso", at=[[35, 5], [45, 5], [45, 15], [35, 15]], how="replace")
    assert session.selected.tolist() == [True, False, False, False]
    assert circles(section)[1][:, 3].tolist() == [1, 0]
    tell(section.slice, type="click", at=[[21, 31]], how="add")
    assert session.selected.tolist() == [True, True, False, False]
    # Beside every particle: nothing is meant.
    tell(section.slice, type="click", at=[[5, 5]], how="replace")
    assert session.selected.sum() == 2
    tell(section.slice, type="lasso", at=[[35, 5], [45, 5], [45, 15], [35, 15]], how="remove")
    assert session.selected.tolist() == [False, True, False, False]
    tell(section.slice, type="step", by=-2)
    assert section.at.value == 30.0
    section.look(int(session.ids[1]))
    assert section.at.value == 70.0
    with pytest.raises(ValueError, match="there is no particle 99"):
        section.look(99)


def test_a_lasso_in_the_map_is_one_step_and_is_seen_in_every_view(view: Inspector) -> None:
    session = view.session
    told: list[set[str]] = []
    session.changed.connect(told.append)
    draw(view, [3, 4, 5])
    assert told == [{"selected"}]
    assert len(session.history.past) == 1
    assert np.flatnonzero(session.selected).tolist() == [3, 4, 5]
    assert view.table.rows[0]["selected"] == 3
    assert "<b>3</b> of 32 particles selected" in said(view)
    assert "of 3, typical first" in view.gallery.text.value
    section = view.section
    assert circles(section)[1][:, 3].sum() == np.isin(section.rows, [3, 4, 5]).sum()
    draw(view, [8], how="add")
    assert np.flatnonzero(session.selected).tolist() == [3, 4, 5, 8]
    assert sorted(view.lasso.widget.selection.tolist()) == [3, 4, 5, 8]
    assert told == [{"selected"}] * 2
    session.undo()
    assert sorted(view.lasso.widget.selection.tolist()) == [3, 4, 5]
    assert len(session.history.past) == 1


def test_keys_and_buttons_do_the_same_and_say_why_they_cannot(view: Inspector) -> None:
    assert view.buttons["new_cluster"].disabled
    assert view.buttons["new_cluster"].tooltip.endswith("\nNot now: select particles first")
    tell(view.keyboard, key="N")
    assert "select particles first" in said(view)
    draw(view, range(10))
    assert not view.buttons["new_cluster"].disabled
    tell(view.keyboard, key="N")
    assert view.session.counts().tolist() == [22, 10]
    view.table.ticked = [0, 1]
    assert view.buttons["split"].tooltip.endswith("tick one cluster")
    view.buttons["merge"].click()
    assert view.session.counts().tolist() == [32]
    assert view.table.ticked == [0]
    tell(view.keyboard, key="Ctrl+Z")
    assert view.session.counts().tolist() == [22, 10]
    tell(view.keyboard, key="Ctrl+Shift+Z")
    view.buttons["split"].click()
    assert sorted(view.session.counts()) == [16, 16]
    view.table.ticked = [0]
    tell(view.keyboard, key="X")
    assert len(view.session.clusters) == 1
    tell(view.keyboard, key="Esc")
    assert not view.session.selected.any()


def test_the_table_of_clusters_names_colours_hides_and_selects(view: Inspector) -> None:
    view.inspection.split(0)
    table, session = view.table, view.session
    tell(table, cluster=0, column="name", value="ribosomes")
    tell(table, cluster=1, colour="#123456")
    assert session.title(0) == "ribosomes"
    assert [row["ink"] for row in table.rows][1] == "#123456"
    tell(table, cluster=1, column="name", value="ribosomes")
    assert "another cluster is called" in said(view)
    assert [row["name"] for row in table.rows] == ["ribosomes", "cluster 1"]
    tell(table, cluster=1, select="replace")
    assert session.selected.sum() == 16
    tell(table, cluster=1, column="shown", value=False)
    assert len(view.lasso.widget.filter) == 16
    labels = session.labels.to_numpy()
    assert set(labels[view.section.rows]) == {0}
    assert "16 hidden" in said(view)


def test_a_cluster_without_an_average_is_sent_as_json(view: Inspector) -> None:
    # JSON has no infinity, which is the resolution of a cluster without an average.
    assert json.loads(json.dumps(view.table.rows, allow_nan=False))[0]["resolution"] is None


def test_filters_leave_out_and_are_undone(view: Inspector) -> None:
    filters = view.filters
    filters.column.value = "score"
    filters.range.value = (0.0, 9.0)
    assert view.session.visible.sum() == 10
    assert len(view.lasso.widget.filter) == 10
    tell(view.keyboard, key="U")
    assert filters.range.value == (0.0, 31.0)
    assert view.session.visible.all()
    assert view.lasso.widget.filter is None


def test_what_is_hidden_is_in_no_view_and_no_count(view: Inspector) -> None:
    session, low = view.session, np.arange(32) < 10
    view.table.ticked = [0]
    assert len(view.gallery.pages.ids) == 32
    view.filters.column.value = "score"
    view.filters.range.value = (0.0, 9.0)
    assert set(view.gallery.pages.ids) == set(session.ids[low])
    assert "of 10, typical" in view.gallery.text.value
    assert "of cluster 0 (10 of 32, the others are hidden)" in view.averages.text.value
    assert "of cluster 0 (10 of 32, the others are hidden)" in view.export.subject.value
    tell(view.table, cluster=0, select="replace")
    assert set(session.ids[session.selected]) == set(session.ids[low])
    assert "<b>10</b> of 10 particles selected, 22 hidden" in said(view)


def test_boxes_are_those_of_the_particles_the_most_typical_first(view: Inspector, boxes: Subtomograms) -> None:
    went: list[int] = []
    view.gallery.went = went.append
    view.table.ticked = [0]
    shown = view.gallery.pages.shown
    assert len(shown) == 24
    assert shown.tolist() == view.inspection.typical(view.session.ids)[:24].tolist()
    assert view.gallery.text.value.startswith("1–24 of 32")
    view.gallery.forth.click()
    assert len(view.gallery.pages.shown) == 8
    assert view.gallery.forth.disabled
    view.gallery.detail.value = 0.0
    sheet = picture(view.gallery.boxes.picture)
    assert sheet.shape == (20, 160)
    volume = boxes.take([view.gallery.pages.shown[2]]).volumes[0]
    seen = sheet[1:, 41:60].ravel()
    assert (
        np.corrcoef(seen, np.clip(volume[9:12].mean(0), *np.percentile(volume[9:12].mean(0), [1, 99.8]))[1:, 1:].ravel())[0, 1]
        > 0.99
    )
    tell(view.gallery.boxes, index=2, how="replace")
    assert went == [view.gallery.pages.shown[2]]
    assert view.session.ids[view.session.selected].tolist() == went
    assert [bool(flag) for flag in view.gallery.boxes.flags] == [False, False, True, *[False] * 5]


def test_an_average_is_launched_watched_and_lands_beside_its_cluster(view: Inspector, folder: Path) -> None:
    view.inspection.split(0)
    assert "an average needs 8" in view.averages.text.value
    assert view.buttons["average"].disabled
    view.table.ticked = [1]
    view.averages.symmetry.value = "C0"
    view.buttons["quick"].click()
    assert "symmetry is C1 to" in said(view)
    view.averages.symmetry.value = "c1"
    view.buttons["quick"].click()
    (job,) = view.inspection.jobs
    panel = view.averages.queue.children[0]
    job.result(120)
    until(lambda: panel.button.description == "Remove" and "halves agree" in panel.text.value)
    until(lambda: bool(view.table.rows[1].get("image")))
    assert view.table.rows[0].get("image") is None
    results = view.averages.results
    assert results.choice.value == "cluster 1, quick"
    assert picture(results.curve.value).std() > 1
    again = inspector.open(folder)
    assert again.averages.results.choice.value == "cluster 1, quick"
    assert again.table.rows == view.table.rows
    assert again.session.labels.equals(view.session.labels)
    assert "split cluster 0" in said(again)


def test_a_failed_job_says_why_and_is_removed_and_an_error_leaves_with_a_success(view: Inspector) -> None:
    view.table.ticked = [0]
    view.averages.classes.value = 9
    view.buttons["average"].click()
    (panel,) = view.averages.queue.children
    until(lambda: panel.button.description == "Remove")
    assert "failed: a classification needs 2 classes or more with 8 particles each" in panel.text.value
    assert style.ERROR_TEXT in panel.text.value
    assert panel.bar.style.bar_color == style.ERROR
    panel.button.click()
    assert not view.averages.queue.children
    assert not view.inspection.jobs
    # The mask is refused before the job begins, in the words of the screen.
    view.averages.mask.value = 900
    view.buttons["average"].click()
    assert "the mask is 900 Å wide, and must be over 0 and at most the box, 400 Å" in said(view)
    assert not view.inspection.jobs
    view.averages.mask.value, view.averages.classes.value = 0, 9
    view.buttons["average"].click()
    assert "of 32 particles selected" in said(view)
    (job,) = view.inspection.jobs
    with pytest.raises(ValueError, match="a classification needs"):
        job.result(60)


def test_what_is_shown_is_what_is_exported(view: Inspector, folder: Path) -> None:
    view.inspection.split(0)
    export = view.export
    view.table.ticked = [1]
    formats = {one.title: one for one in exports.FORMATS}
    export.name.value = "lists/one"
    export.button.click()
    assert "16 particles are in one.star" in export.text.value
    listed = tomolab_io.read_particles(folder / "lists" / "one.star")
    assert sorted(listed["particle_id"]) == view.session.members(1).ids.tolist()
    export.format.value, export.name.value = formats["copick (project folder)"], "overlay"
    export.button.click()
    (picks,) = (folder / "overlay").glob("ExperimentRuns/cell/Picks/*.json")
    assert picks.name == "tomolab_0_cluster-1.json"
    assert len(json.loads(picks.read_text())["points"]) == 16
    export.format.value, export.name.value = formats["RELION 5 (.star)"], "lists/one"
    export.button.click()
    assert "one.star is there already" in said(view)
    assert listed.equals(tomolab_io.read_particles(folder / "lists" / "one.star"))
    export.replace.value = True
    export.button.click()
    assert len(tomolab_io.read_particles(folder / "lists" / "one.star", voxel_size=20.0, tomogram_shape=(40, 60, 80))) == 16
    # A copy of one's own list asks which that is, and only that.
    assert (export.source.layout.display, export.poses.layout.display) == ("none", None)
    export.format.value = formats["your own list, these only"]
    assert (export.source.layout.display, export.poses.layout.display) == (None, "none")
    assert export.format.layout.display is export.name.layout.display is None
    export.button.click()
    assert "give the list from which" in said(view)
    export.source.value, export.name.value = str(folder / "clusters.csv"), "mine"
    export.button.click()
    assert "copies are made of .star and .tbl, got .csv" in said(view)
    export.format.value, export.name.value = formats["Dynamo, a folder a class"], "dynamo"
    export.button.click()
    assert "16 particles are in 1 folder in dynamo" in export.text.value
    assert (folder / "dynamo" / "cluster_1" / "data" / "crop.tbl").is_file()
    export.button.click()
    assert "dynamo is there already" in said(view)
    export.report_button.click()
    assert "the report is" in export.text.value
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_colours_are_those_of_the_clusters_or_of_a_column(view: Inspector) -> None:
    view.inspection.split(0)
    widget, inks = view.lasso.widget, {key: ink.lower() for key, ink in style.inks(view.session.clusters).items()}

    def drawn() -> list[str]:
        return [style.to_hex(widget.color[int(point[2])][:3]) for point in widget.points]

    assert drawn() == [inks[label] for label in view.session.labels]
    view.session.merge([0, 1])
    assert set(drawn()) == {inks[0]}
    view.colour.value = "label"
    palette = style.categories(view.session.particles["label"])
    assert drawn() == [palette[label].lower() for label in view.session.particles["label"]]
    # In the slice and around boxes too.
    section = view.section
    assert [style.to_hex(ink[:3] / 255) for ink in circles(section)[1]] == [
        style.lighter(palette[label], 0.2) for label in view.session.particles["label"].to_numpy()[section.rows]
    ]
    view.session.select(view.session.ids[:2])
    assert set(view.gallery.boxes.flags) == {palette[view.session.particles["label"].iloc[0]].lower()}
    view.inspection.colour_by = "score"
    assert view.colour.value == "score"
    np.testing.assert_allclose(widget.points[:, 2], np.arange(32) / 31)
    assert widget.color_title == "score"


def test_the_map_shows_any_two_components(view: Inspector) -> None:
    widget = view.lasso.widget
    draw(view, [1, 2])
    view.table.ticked = [0]
    before, colours = widget.points[:, :2].copy(), widget.points[:, 2].copy()
    view.axes.value = (1, 2)
    along = view.inspection.components(1, 2)
    for number, axis in enumerate("xy"):
        assert np.corrcoef(widget.points[:, number], along[axis])[0, 1] > 0.9999
    # The kinds lie apart along the first component, as they do in the features.
    kind = (view.session.particles["label"] == "tric").to_numpy()
    assert (
        widget.points[kind, 0].min() > widget.points[~kind, 0].max()
        or widget.points[kind, 0].max() < widget.points[~kind, 0].min()
    )
    assert sorted(widget.selection.tolist()) == [1, 2]
    assert len(view.session.history.past) == 1
    np.testing.assert_array_equal(widget.points[:, 2], colours)
    view.axes.value = ()
    np.testing.assert_allclose(widget.points[:, :2], before)
    with pytest.raises(ValueError, match="components are counted from 1 to 6, got 0 and 9"):
        view.inspection.components(0, 9)


def test_a_selection_of_150_000_out_of_a_million_is_the_same_wherever_it_is_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = particles.table(rng.uniform(0, 4000, (1_000_000, 3)), ids=rng.permutation(1_000_000) + 7)
    labels = pd.Series(rng.integers(0, 50, len(table)), index=table["particle_id"])
    points = pd.DataFrame({"particle_id": table["particle_id"], "x": rng.normal(size=len(table)), "y": 0.0})
    work = Inspection(Session(table, labels), points=points, diameter=250.0, folder=tmp_path)
    view = Inspector(work)
    rows = rng.choice(len(table), 150_000, replace=False)
    start = time.perf_counter()
    draw(view, rows)
    view.act("new_cluster")
    assert time.perf_counter() - start < 5
    assert "<b>150,000</b> of 1,000,000 particles selected" in said(view)
    number = max(work.session.clusters)
    assert view.table.rows[-1]["count"] == view.table.rows[-1]["selected"] == 150_000
    assert inspection.export(work, tmp_path / "chosen.csv", [number]).count == 150_000
    written = pd.read_csv(tmp_path / "chosen.csv", usecols=["particle_id"])["particle_id"]
    assert set(written) == set(table["particle_id"].to_numpy()[rows])
    assert sum(row["count"] for row in view.table.rows) == 1_000_000


def test_what_there_is_not_is_left_out(boxes: Subtomograms) -> None:
    view = Inspector(Inspection(Session(boxes.particles), diameter=250.0))
    assert view.lasso is None
    assert view.section is None
    assert view.gallery.text.value == "there are no boxes to show"
    assert view.buttons["undo"].disabled
    with pytest.raises(ValueError, match="there is no tomogram to show"):
        Section(view.inspection)
    with pytest.raises(FileNotFoundError, match="run tomolab import, or the notebook 05_clusters, first"):
        inspection.open("nowhere")
