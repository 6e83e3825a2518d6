"""The inspector in napari, from opening a run folder to an average on the screen, with the mouse and the keys of a user."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from tomolab import inspection, io, jobs, simulation, subtomograms
from tomolab.inspection import Inspection, Session, exports
from tomolab.inspection.actions import ACTIONS
from tomolab.inspection.cluster_columns import COLUMNS
from tomolab.learning import Embedding
from tomolab.simulation import Imaging, densities
from tomolab.ui import style

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.display,
    pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="needs an X display"),
    pytest.mark.filterwarnings("ignore:.*particles skipped"),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as the notebooks leave it: a tomogram with two kinds of particles, far apart in the embedding."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    folder.mkdir()
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=20.0, box=20)
    imaging = Imaging(snr=0.5, tilts=(-60.0, 60.0))
    volume, truth = simulation.tomogram(maps, 16, shape=(40, 128, 128), imaging=imaging, seed=3, device="cpu")
    cut = subtomograms.extract(volume, truth, box=20)
    kind = (cut.particles["label"] == "tric").to_numpy()
    vectors = np.random.default_rng(1).normal(size=(len(cut), 8)) * 0.1
    vectors[:, 0] += np.where(kind, 1.0, -1.0)
    cut.save(folder / "subtomograms.zarr")
    io.write_volume(volume, folder / "tomogram.mrc")
    io.write_particles(cut.particles.assign(cluster=0), folder / "clusters.csv")
    Embedding(cut.ids, vectors, "of a test").save(folder / "embedding")
    points = pd.DataFrame({"particle_id": cut.ids, "x": vectors[:, 0], "y": vectors[:, 1]})
    points.to_csv(folder / "layout.csv", index=False)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(original, tmp_path / "run"))


def opened(qtbot, view, folder: Path):
    """The inspector of a run folder, docked in a window."""
    from tomolab.ui.napari.dock import Inspector

    dock = Inspector(view)
    view.window.add_dock_widget(dock, name="tomolab", area="right")
    dock.open(folder)
    qtbot.waitUntil(lambda: dock.panel is not None, timeout=20_000)
    qtbot.waitUntil(lambda: dock.panel.canvas.width() > 150, timeout=5_000)
    return dock


def mouse(canvas, kind: str, at, *, button: str = "LeftButton", held: str = "NoModifier") -> None:
    """Send one event of the mouse to the canvas, at a place among the points, and wait: it hears at most 100 in a second."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    pixel = canvas.view.scene.transform.map([*at, 0, 1])[:2]
    place = QPointF(*map(float, pixel))
    native, which = canvas.scene.native, getattr(Qt.MouseButton, button)
    down = Qt.MouseButton.NoButton if kind == "MouseButtonRelease" else which
    keys = getattr(Qt.KeyboardModifier, held)
    event = QMouseEvent(getattr(QEvent.Type, kind), place, native.mapToGlobal(place), which, down, keys)
    QApplication.sendEvent(native, event)
    time.sleep(0.015)


def drag(canvas, corners, **options: str) -> None:
    """Press, move along the corners, and release."""
    mouse(canvas, "MouseButtonPress", corners[0], **options)
    for corner in corners[1:-1]:
        mouse(canvas, "MouseMove", corner, **options)
    mouse(canvas, "MouseButtonRelease", corners[-1], **options)


LEFT = [(-1.5, -0.6), (-0.4, -0.6), (-0.4, 0.6), (-1.5, 0.6)]
RIGHT = [(0.4, -0.6), (1.5, -0.6), (1.5, 0.6), (0.4, 0.6)]


def cells(dock) -> dict[str, str]:
    """Names and counts that the table shows."""
    model = dock.panel.table.clusters
    rows = range(model.rowCount())
    return {model.data(model.index(row, 0)): model.data(model.index(row, 1)) for row in rows}


def test_the_map_follows_the_theme(make_napari_viewer, qtbot, folder: Path) -> None:
    dock = opened(qtbot, make_napari_viewer(), folder)
    canvas, viewer = dock.panel.canvas, dock.viewer
    for theme, dark in (("light", False), ("dark", True)):
        viewer.theme = theme
        assert canvas.dark == dark
        shown = canvas.scene.render()
        assert (shown[..., :3].mean() < 128) == dark


def test_the_whole_journey_of_a_run_folder(make_napari_viewer, qtbot, folder: Path, tmp_path: Path) -> None:
    from qtpy.QtCore import Qt

    view = make_napari_viewer(show=True)
    dock = opened(qtbot, view, folder)
    panel, session = dock.panel, dock.panel.inspection.session
    assert [layer.name for layer in view.layers] == ["tomogram", "particles"]
    assert cells(dock) == {"cluster 0": str(len(session.ids))}
    assert not panel.buttons["new_cluster"].isEnabled()
    assert "Not now: select particles first" in panel.buttons["new_cluster"].toolTip()

    # A lasso is one step, seen in the tomogram too.
    drag(panel.canvas, LEFT)
    ribosomes = session.particles["label"].to_numpy() == "ribosome_70s"
    assert session.selected.tolist() == ribosomes.tolist()
    assert len(session.history.past) == 1
    assert set(view.layers["particles"].selected_data) == set(np.flatnonzero(ribosomes).tolist())
    drag(panel.canvas, RIGHT, held="ShiftModifier")
    assert session.selected.all()
    drag(panel.canvas, RIGHT, held="AltModifier")
    assert session.selected.tolist() == ribosomes.tolist()
    assert panel.counts.text().startswith(f"<b>{ribosomes.sum()} selected</b>")

    # A new cluster, by the button; its name, in the table; merged and taken back, by the keys.
    qtbot.mouseClick(panel.buttons["new_cluster"], Qt.MouseButton.LeftButton)
    model = panel.table.clusters
    assert model.setData(model.index(1, 0), "ribosomes")
    expected = {"cluster 0": str((~ribosomes).sum()), "ribosomes": str(ribosomes.sum())}
    assert cells(dock) == expected
    assert "tick two clusters" in panel.buttons["merge"].toolTip()
    for row in (0, 1):
        model.setData(model.index(row, 0), Qt.CheckState.Checked.value, Qt.ItemDataRole.CheckStateRole)
    view.window.activate()
    qtbot.waitUntil(lambda: panel.isActiveWindow(), timeout=5000)
    panel.setFocus()
    qtbot.keyClick(panel, Qt.Key.Key_M)
    qtbot.waitUntil(lambda: len(session.clusters) == 1, timeout=2000)
    assert "merge" in panel.buttons["undo"].toolTip()
    qtbot.keyClick(panel, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: cells(dock) == expected, timeout=2000)

    # What is exported is what is counted.
    panel.table.clusters.ticked = [1]
    panel.exports.export(exports.FORMATS[0], tmp_path / "ribosomes")
    qtbot.waitUntil(lambda: "are in ribosomes.star" in panel.message.text(), timeout=10_000)
    rows = io.read_particles(tmp_path / "ribosomes.star")
    assert len(rows) == session.counts()[1] == int(cells(dock)["ribosomes"])

    # A quick average lands as a surface in the colour of its cluster.
    panel._enable()
    qtbot.mouseClick(panel.buttons["quick"], Qt.MouseButton.LeftButton)
    (row,) = panel.jobs.rows
    qtbot.waitUntil(lambda: "ribosomes, quick" in dock.link.surfaces, timeout=60_000)
    qtbot.waitUntil(lambda: "halves agree" in row.text.text(), timeout=10_000)
    assert row.bar.value() == 1000
    assert row.button.text() == "Remove"
    assert row.slices.pixmap().width() > 100
    assert view.layers["ribosomes, quick"] is dock.link.surfaces["ribosomes, quick"]
    panel.map.setChecked(True)
    assert view.dims.ndisplay == 3
    kept = ROOT / "runs" / "napari" / "dock.png"
    kept.parent.mkdir(parents=True, exist_ok=True)
    pixels = view.screenshot(str(kept), canvas_only=False, flash=False)[..., :3].astype(float)
    ink = np.array(to_rgb(style.inks(session.clusters)[1])) * 255
    assert (np.abs(pixels - ink).max(axis=2) < 60).mean() > 0.005, "the average is not seen in the colour of its cluster"
    panel.map.setChecked(False)

    # Opened again, all is as it was.
    before = session.labels
    dock.open(folder)
    qtbot.waitUntil(lambda: dock.panel is not panel and dock.panel is not None, timeout=20_000)
    assert cells(dock) == expected
    assert dock.panel.inspection.session.labels.equals(before)
    assert sorted(layer.name for layer in view.layers) == ["particles", "ribosomes, quick", "tomogram"]
    assert dock.panel.buttons["undo"].isEnabled()
    dock.close_inspection()
    assert not view.layers


def test_a_split_runs_beside_the_window_and_faults_are_told(make_napari_viewer, qtbot, folder: Path) -> None:
    dock = opened(qtbot, make_napari_viewer(), folder)
    panel, session = dock.panel, dock.panel.inspection.session
    panel.table.clusters.tick(0)
    panel.do("split")
    assert panel.buttons["split"].toolTip() == "Split is at work"
    panel.do("split")
    assert "Split is at work" in panel.message.text()
    qtbot.waitUntil(lambda: len(session.clusters) == 2, timeout=20_000)
    assert session.table().groupby("cluster")["label"].nunique().tolist() == [1, 1]
    model = panel.table.clusters
    session.describe(0, name="one")
    assert not model.setData(model.index(1, 0), "one")
    assert "another cluster is called 'one' already" in panel.message.text()
    panel.do("redo")
    assert "nothing was undone" in panel.message.text()
    panel.do("undo")
    assert not panel.message.isVisibleTo(panel)
    dock.open(folder / "nowhere")
    qtbot.waitUntil(lambda: "there is no clusters.csv" in dock.fault.text(), timeout=10_000)
    assert dock.panel is panel


def test_hiding_and_colours_reach_the_scatter(make_napari_viewer, qtbot, folder: Path) -> None:
    from qtpy.QtCore import Qt

    dock = opened(qtbot, make_napari_viewer(), folder)
    panel, session = dock.panel, dock.panel.inspection.session
    panel.colour.setCurrentText("label")
    assert "ribosome_70s" in panel.legend.text()
    panel.colour.setCurrentText("z")
    assert len(np.unique(panel._inks(), axis=0)) > 10
    model = panel.table.clusters
    shown = [column.name for column in COLUMNS].index("shown")
    model.setData(model.index(0, shown), Qt.CheckState.Unchecked.value, Qt.ItemDataRole.CheckStateRole)
    assert session.clusters[0].hidden
    assert not len(panel.canvas.inside(np.array([(-9, -9), (9, -9), (9, 9), (-9, 9)])))
    assert f"{len(session.ids)} hidden" in panel.counts.text()
    assert not dock.link.points.shown.any()


def test_all_columns_of_the_clusters_fit_the_dock(qtbot, folder: Path) -> None:
    from tomolab.ui.napari.cluster_table import ClusterTable

    work = inspection.open(folder)
    work.split(0)
    work.session.select(work.session.ids[:3])
    work.session.filter("z", float(work.session.particles["z"].median()))
    work.session.accept(0)
    table = ClusterTable(work)
    qtbot.addWidget(table)
    table.resize(460, 200)
    table.show()
    assert [column.name for column, hidden in zip(table.clusters.columns, table.clusters.hidden, strict=True) if hidden] == [
        "resolution",
        "identity",
    ]
    assert table.horizontalScrollBar().maximum() == 0
    assert sum(table.columnWidth(place) for place in range(len(table.clusters.columns))) <= 460
    table.resize(290, 200)
    assert table.columnWidth(0) > 60


def test_the_wheel_zooms_and_the_right_button_moves(make_napari_viewer, qtbot, folder: Path) -> None:
    from qtpy.QtCore import QPoint, QPointF, Qt
    from qtpy.QtGui import QWheelEvent
    from qtpy.QtWidgets import QApplication

    dock = opened(qtbot, make_napari_viewer(), folder)
    canvas = dock.panel.canvas
    width = canvas.view.camera.rect.width
    place = QPointF(50, 50)
    held = canvas._places([[50, 50]])[0]
    native = canvas.scene.native
    none, still = Qt.MouseButton.NoButton, Qt.ScrollPhase.NoScrollPhase
    event = QWheelEvent(
        place, native.mapToGlobal(place), QPoint(), QPoint(0, 120), none, Qt.KeyboardModifier.NoModifier, still, False
    )
    QApplication.sendEvent(native, event)
    assert canvas.view.camera.rect.width == pytest.approx(width / 1.2, rel=0.01)
    np.testing.assert_allclose(canvas._places([[50, 50]])[0], held, atol=0.01)
    left = canvas.view.camera.rect.left
    mouse(canvas, "MouseButtonPress", (0, 0), button="RightButton")
    mouse(canvas, "MouseMove", (0.5, 0), button="RightButton")
    mouse(canvas, "MouseButtonRelease", (0.5, 0), button="RightButton")
    assert canvas.view.camera.rect.left == pytest.approx(left - 0.5, abs=0.02)
    assert not dock.panel.inspection.session.history.past


def test_a_dock_that_is_torn_off_draws_what_it_drew(make_napari_viewer, qtbot, folder: Path) -> None:
    from qtpy.QtWidgets import QDockWidget

    view = make_napari_viewer(show=True)
    dock = opened(qtbot, view, folder)
    panel = dock.panel
    # Where others work too, it may have its size before it is shown.
    qtbot.waitUntil(panel.canvas.isVisible, timeout=20_000)
    dock.panel.inspection.session.select(dock.panel.inspection.session.ids[:5])
    place = panel.canvas.view.camera.rect.left
    before = panel.canvas.scene
    (widget,) = (one for one in view.window._qt_window.findChildren(QDockWidget) if one.isAncestorOf(dock))
    widget.setFloating(True)
    qtbot.waitUntil(lambda: panel.canvas.scene is not before, timeout=5000)
    qtbot.waitUntil(lambda: panel.canvas.scene.native.isVisible(), timeout=5000)
    picture = panel.canvas.scene.native.grabFramebuffer()
    assert len({picture.pixel(x, y) for x in range(picture.width()) for y in range(picture.height())}) > 3
    assert panel.canvas.view.camera.rect.left == place
    drag(panel.canvas, LEFT)
    assert panel.inspection.session.selected.sum() > 5


def test_keys_are_those_of_the_panel_only_while_it_has_the_focus(make_napari_viewer, qtbot, folder: Path) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtGui import QKeySequence
    from qtpy.QtWidgets import QMenu

    view = make_napari_viewer(show=True)
    dock = opened(qtbot, view, folder)
    panel, session = dock.panel, dock.panel.inspection.session
    view.window.activate()
    qtbot.waitUntil(lambda: panel.isActiveWindow(), timeout=5000)
    # napari's own key for all points in the slice, and ours for an average.
    canvas = view.window._qt_viewer.canvas.native
    canvas.setFocus()
    qtbot.keyClick(canvas, Qt.Key.Key_A)
    assert not panel.inspection.jobs
    assert session.selected.any()
    drag(panel.canvas, LEFT)
    qtbot.waitUntil(lambda: panel.isAncestorOf(panel.window().focusWidget()), timeout=2000)
    qtbot.keyClick(panel.canvas.scene.native, Qt.Key.Key_N)
    assert len(session.clusters) == 2
    # What is typed into a field stays there.
    panel.symmetry.lineEdit().setFocus()
    qtbot.keyClick(panel.symmetry.lineEdit(), Qt.Key.Key_U)
    assert panel.symmetry.currentText().endswith("u")
    assert len(session.clusters) == 2
    # Keys of menus reach every part of the window: none of them may be ours.
    menus = view.window._qt_window.findChildren(QMenu)
    taken = {key.toString() for menu in menus for action in menu.actions() for key in action.shortcuts()}
    ours = {QKeySequence(key).toString() for action in ACTIONS.values() for key in action.keys}
    assert "Ctrl+O" in taken
    assert not ours & taken
    assert "" not in ours


def test_a_million_points_are_lassoed_without_a_stall(qtbot) -> None:
    from tomolab.ui.napari.scatter import Canvas

    points = np.random.default_rng(0).normal(size=(1_000_000, 2))
    canvas = Canvas(points)
    qtbot.addWidget(canvas)
    canvas._visible = np.ones(len(points), dtype=bool)
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    began = time.perf_counter()
    rows = canvas.inside(np.column_stack([np.cos(angles), np.sin(angles)]))
    assert time.perf_counter() - began < 3
    assert len(rows) == pytest.approx((np.hypot(*points.T) < 1).sum(), rel=0.01)


def test_without_an_embedding_or_a_tomogram_it_still_opens(make_napari_viewer, original: Path) -> None:
    from tomolab.ui.napari.dock import Inspector

    table = io.read_particles(original / "clusters.csv")
    view = make_napari_viewer()
    dock = Inspector(view, Inspection(Session(table), diameter=300))
    assert dock.panel.canvas is None
    assert [layer.name for layer in view.layers] == ["particles"]
    assert "there are no boxes to average" in dock.panel.buttons["average"].toolTip()
    dock.close_inspection()


def test_a_dock_that_is_closed_follows_nothing(make_napari_viewer, qtbot, folder: Path) -> None:
    from tomolab.ui.napari.dock import Inspector

    view = make_napari_viewer()
    work = inspection.open(folder)
    dock = Inspector(view, work)
    widget = view.window.add_dock_widget(dock, name="tomolab")
    assert len(work.changed)
    view.window.remove_dock_widget(widget)
    dock.deleteLater()
    qtbot.waitUntil(lambda: not len(work.changed), timeout=5000)
    work.session.select(work.session.ids[:3])


def test_picks_are_saved_from_the_dock_and_nothing_is_written_over(make_napari_viewer, qtbot, folder: Path) -> None:
    from qtpy.QtCore import Qt

    view = make_napari_viewer()
    dock = opened(qtbot, view, folder)
    panel, before = dock.panel, dock.panel.inspection.session.particles
    press = lambda button: qtbot.mouseClick(button, Qt.MouseButton.LeftButton)  # noqa: E731
    picking = panel.picking
    assert (picking.tomogram.currentText(), picking.voxel_size.value()) == (before["tomogram"].iloc[0], 20.0)
    press(picking.save)
    assert "there are no picks" in panel.message.text()
    press(picking.pick)
    layer = view.layers["picks"]
    assert (layer.mode, view.layers.selection.active) == ("add", layer)
    layer.add([[400.0, 500.5, 600.25], [420.0, 700.0, 800.0]])
    layer.add([440.0, 900.0, 1000.0])
    qtbot.keyClick(view.window._qt_viewer.canvas.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert len(layer.data) == 2
    qtbot.keyClick(
        view.window._qt_viewer.canvas.native,
        Qt.Key.Key_Z,
        Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier,
    )
    assert len(layer.data) == 3
    press(picking.undo)
    assert picking.count.text() == "<b>2 picks</b>"
    press(picking.save)
    path = folder / "picks" / "my_picks.star"
    assert f"saved 2 picks in {path}" in panel.message.text()
    found = io.read_particles(path)
    np.testing.assert_allclose(found[["z", "y", "x"]], [[400.0, 500.5, 600.25], [420.0, 700.0, 800.0]], atol=1e-4)
    path.write_text("of another program")
    press(picking.save)
    assert "is there already" in panel.message.text()
    assert path.read_text() == "of another program"
    picking.replace.setChecked(True)
    press(picking.save)
    assert len(io.read_particles(path)) == 2
    assert not picking.replace.isChecked()
    # A list of this run, changed and saved beside it.
    picking.load(folder / "clusters.csv")
    assert len(view.layers["picks"].data) == len(before)
    view.layers.remove("picks")
    press(picking.pick)
    assert len(view.layers["picks"].data) == len(before)
    assert panel.inspection.session.particles is before


def test_a_tomogram_without_a_run_folder_can_be_picked_in(make_napari_viewer, qtbot, folder: Path, tmp_path: Path) -> None:
    from qtpy.QtCore import Qt

    from tomolab.ui.napari import plugin
    from tomolab.ui.napari.dock import Inspector

    view = make_napari_viewer()
    dock = Inspector(view)
    view.window.add_dock_widget(dock, name="tomolab", area="right")
    assert not dock.picking.pick.isEnabled()
    (folder / "tomogram.mrc").rename(tmp_path / "TS_05.mrc")
    ((data, options, _),) = plugin.read_tomogram(tmp_path / "TS_05.mrc")
    view.add_image(data, **options)
    dock.picking.pick.click()
    view.layers["picks"].add([400.0, 500.0, 600.0])
    dock.open(folder)
    assert "there are picks that no list has" in dock.fault.text()
    dock.picking.save.click()
    assert "between which tilts was TS_05 recorded" in dock.fault.text()
    for box, tilt in ((dock.picking.low, "-54"), (dock.picking.high, "60")):
        box.selectAll()
        qtbot.keyClicks(box, tilt)
        qtbot.keyClick(box, Qt.Key.Key_Return)
    dock.picking.save.click()
    found = io.read_particles(tmp_path / "my_picks.star")
    assert found[["tomogram", "tilt_min", "tilt_max"]].to_numpy().tolist() == [["TS_05", -54.0, 60.0]]


def test_filters_and_boxes_follow_the_session_at_300_pixels(make_napari_viewer, qtbot, folder: Path) -> None:
    from qtpy.QtCore import QPoint, Qt

    view = make_napari_viewer(show=True)
    dock = opened(qtbot, view, folder)
    panel, session = dock.panel, dock.panel.inspection.session
    assert dock.minimumSizeHint().width() <= 300
    filters, labels = panel.filters, session.particles["label"]
    panel.tabs.setCurrentWidget(filters)
    filters.column.setCurrentText("label")
    shown = [filters.list.item(row).text() for row in range(filters.list.count())]
    assert shown == [f"{name} ({count})" for name, count in labels.value_counts().sort_index().items()]
    filters.list.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert session.visible.tolist() == (labels == "tric").tolist()
    filters.list.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert "holds none" in panel.message.text() or session.visible.any()
    filters.column.setCurrentText("z")
    low, high = filters.filter.limits
    filters.range.setValue((low, (low + high) / 2))
    filters.range.sliderReleased.emit()
    z = session.particles["z"].to_numpy()
    assert session.visible.tolist() == ((labels == "tric").to_numpy() & (z <= (low + high) / 2)).tolist()
    assert filters.text.text().splitlines()[0] == "label: tric"
    filters.all.click()
    session.undo()
    assert filters.range.value()[1] == pytest.approx((low + high) / 2)
    panel.do("all")

    gallery = panel.gallery
    panel.tabs.setCurrentWidget(gallery)
    qtbot.waitUntil(lambda: gallery.text.text() == "tick clusters or select particles to see their boxes", timeout=5000)
    panel.table.clusters.tick(0)
    assert set(gallery.pages.ids) == set(session.ids)
    assert gallery.text.text().startswith(f"1–20 of {len(session.ids)}")
    gallery.forth.click()
    assert len(gallery.boxes.frames) == len(session.ids) - 20
    wanted = gallery.pages.shown[2]
    qtbot.mouseClick(gallery.boxes, Qt.MouseButton.LeftButton, pos=gallery.boxes.cell(2).center() + QPoint(1, 1))
    assert session.ids[session.selected].tolist() == [wanted]
    assert [bool(ink) for ink in gallery.boxes.frames[:4]] == [False, False, True, False]
    assert view.dims.point[0] == pytest.approx(session.particles["z"][session.rows([wanted])[0]], abs=10)
    ink = gallery.boxes.grab().toImage().pixelColor(gallery.boxes.cell(2).topLeft() + QPoint(3, 20)).name()
    assert ink == gallery.boxes.frames[2].lower()


HOSTILE = "<img src='secret.png'> & <b>bold</b>"


def as_shown(text: str) -> str:
    """The letters of a text as Qt shows it; a picture is an object replacement character."""
    from qtpy.QtCore import Qt
    from qtpy.QtGui import QTextDocument

    document = QTextDocument()
    document.setHtml(text) if Qt.mightBeRichText(text) else document.setPlainText(text)
    return document.toPlainText()


def texts(dock) -> list[str]:
    """All that a dock and the bars of its window show in labels, tooltips and tables, as it is shown."""
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QLabel, QTableView, QWidget

    found = [one.toolTip() for one in dock.findChildren(QWidget)]
    for label in dock.window().findChildren(QLabel):
        plain = label.textFormat() == Qt.TextFormat.PlainText
        found.append("" if plain else label.text())
    for view in dock.findChildren(QTableView):
        model = view.model()
        for row in range(model.rowCount()):
            for column in range(model.columnCount()):
                found.append(model.data(model.index(row, column), Qt.ItemDataRole.ToolTipRole) or "")
    return [as_shown(text) for text in found if text]


def test_names_of_files_are_shown_letter_by_letter(make_napari_viewer, qtbot, folder: Path) -> None:
    """Names of run folders, clusters, labels, tomograms, columns and jobs may look like HTML that shows a file of the user."""
    from tomolab.ui.napari.jobs import JobRow

    wanted = folder.with_name("run <img src='secret.png'> & a")
    table = io.read_particles(folder / "clusters.csv")
    table = table.assign(label=table["label"].replace("tric", HOSTILE), tomogram=f"TS {HOSTILE}")
    io.write_particles(table.assign(**{f"column {HOSTILE}": ["a", HOSTILE] * (len(table) // 2)}), folder / "clusters.csv")
    folder.rename(wanted)
    view = make_napari_viewer()
    dock = opened(qtbot, view, wanted)
    panel, session = dock.panel, dock.panel.inspection.session
    session.describe(0, name=f"class {HOSTILE}", note=HOSTILE)
    panel.table.clusters.tick(0)
    column = next((name for name in session.particles if HOSTILE in name), "label")
    panel.filters.column.setCurrentText(column)
    panel.filters.list.item(0).setCheckState(panel.filters.list.item(1).checkState().__class__.Unchecked)
    panel.inspection.colour_by = "label"
    panel.tell(f"cannot be read: {HOSTILE}")
    dock._wait(f"opening {HOSTILE}")
    view.status = {"layer_name": HOSTILE, "layer_base": HOSTILE, "coordinates": HOSTILE, "source_type": "", "plugin": HOSTILE}
    done = jobs.start(f"average {HOSTILE}", lambda **_: HOSTILE)
    failed = jobs.start("another", lambda **_: (_ for _ in ()).throw(ValueError(HOSTILE)))
    rows = [JobRow(job, lambda _: None) for job in (done, failed)]
    for row in rows:
        qtbot.addWidget(row)
        qtbot.waitUntil(lambda row=row: HOSTILE in as_shown(row.text.text()), timeout=5000)
        row.setParent(dock)
    shown = texts(dock)
    assert not [text for text in shown if "\ufffc" in text]
    assert len({text for text in shown if HOSTILE in text}) >= 8, [text for text in shown if "secret" in text]
    assert any(wanted.name in text for text in shown)
    assert not [layer.name for layer in view.layers if "<" in layer.name]
