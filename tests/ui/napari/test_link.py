"""A viewer and an inspection show the same, and either follows the other without an echo; all without Qt."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

from tomolab import particles, rotations
from tomolab.averaging import Average
from tomolab.inspection import Inspection, Session
from tomolab.ui import style, surfaces
from tomolab.ui.napari import link, viewer
from tomolab.ui.napari.link import Link
from tomolab.volumes import Volume


@pytest.fixture
def table() -> pd.DataFrame:
    """Six particles in one tomogram, three in another."""
    rng = np.random.default_rng(5)
    turned = rotations.random(9, torch.Generator().manual_seed(0)).numpy()
    return particles.table(
        rng.uniform(100, 500, (9, 3)),
        rotations=turned,
        ids=[30, 5, 8, 11, 2, 77, 41, 42, 43],
        tomogram=["TS_1"] * 6 + ["TS_2"] * 3,
        score=np.linspace(0, 1, 9),
    )


@pytest.fixture
def work(table: pd.DataFrame) -> Inspection:
    labels = pd.Series([0, 0, 1, 1, 3, -1, 0, 1, 3], index=table["particle_id"])
    tomograms = {
        name: Volume(np.random.default_rng(0).normal(size=(40, 50, 60)).astype("f4"), 12.0) for name in ("TS_1", "TS_2")
    }
    return Inspection(Session(table, labels), diameter=150, tomograms=tomograms)


@pytest.fixture
def shown(work: Inspection) -> Link:
    return link.link(viewer.model(), work)


def average(volume: Volume, table: pd.DataFrame) -> Average:
    return Average(volume, volume, volume, pd.DataFrame({"resolution": [40.0], "fsc": [1.0]}), table, {})


def drawn(shown: Link) -> list[str]:
    """Outline of every particle as hexadecimal."""
    return [style.to_hex(ink[:3]) for ink in shown.points.border_color]


def steps(work: Inspection) -> list[str]:
    return [step.what for step in work.session.history.past]


def test_it_shows_the_particles_of_one_tomogram_in_the_colours_of_their_clusters(shown: Link, table: pd.DataFrame) -> None:
    assert [layer.name for layer in shown.viewer.layers] == ["tomogram", "particles"]
    here = table[:6]
    np.testing.assert_allclose(shown.points.data, particles.positions(here))
    assert shown.points.features["particle_id"].tolist() == here["particle_id"].tolist()
    assert shown.points.features["cluster"].tolist() == [0, 0, 1, 1, 3, -1]
    assert shown.points.features["cluster_name"].tolist()[-2:] == ["cluster 3", "none"]
    inks = {number: style.lighter(ink, 0.2) for number, ink in style.inks(shown.inspection.session.clusters).items()}
    assert drawn(shown) == [inks.get(number, style.lighter(style.FAINT, 0.2)) for number in (0, 0, 1, 1, 3, -1)]
    assert len(set(drawn(shown))) == 4


def test_what_happens_to_clusters_is_seen(shown: Link, work: Inspection) -> None:
    before = drawn(shown)
    work.session.merge([0, 1])
    assert drawn(shown)[:4] == [before[0]] * 4
    assert shown.points.features["cluster"].tolist() == [0, 0, 0, 0, 3, -1]
    work.session.describe(0, hidden=True, name="ribosomes")
    assert shown.points.shown.tolist() == [False] * 4 + [True] * 2
    work.session.filter("score", 0.6, 1.0)
    assert shown.points.shown.tolist() == [False] * 5 + [True]
    work.session.undo()
    work.session.undo()
    work.session.undo()
    assert drawn(shown) == before
    assert shown.points.shown.all()


def test_particles_are_coloured_by_a_column_in_every_view(shown: Link, work: Inspection) -> None:
    work.colour_by = "score"
    inks = style.lighten(style.particle_inks(work.session, "score")[:6], 0.2)
    np.testing.assert_allclose(shown.points.border_color, inks, atol=1e-6)
    assert len(set(drawn(shown))) == 6
    with pytest.raises(ValueError, match="there is no column 'kind' to colour by"):
        work.colour_by = "kind"
    work.colour_by = "cluster"
    assert len(set(drawn(shown))) == 4


def test_a_selection_goes_both_ways_once(shown: Link, work: Inspection) -> None:
    work.session.select([8, 2, 42], "scatter")
    assert set(shown.points.selected_data) == {2, 4}
    assert (shown.points.face_color[:, 3] > 0.5).tolist() == [False, False, True, False, True, False]
    assert len(steps(work)) == 1
    # What is selected in the other tomogram stays.
    shown.points.selected_data = {0, 1}
    assert work.session.ids[work.session.selected].tolist() == [30, 5, 42]
    assert steps(work)[1:] == ["select 3 particles (napari, replace)"]
    work.session.undo()
    assert set(shown.points.selected_data) == {2, 4}
    assert len(steps(work)) == 1
    shown.points.selected_data = set()
    assert work.session.ids[work.session.selected].tolist() == [42]


def test_hidden_particles_cannot_be_chosen(shown: Link, work: Inspection) -> None:
    work.session.select([30], "scatter")
    work.session.describe(0, hidden=True)
    shown.points.selected_data = set(range(6))
    assert work.session.ids[work.session.selected].tolist() == [30, 8, 11, 2, 77]
    assert set(shown.points.selected_data) == {0, 2, 3, 4, 5}
    shown.points.selected_data = {2}
    assert work.session.ids[work.session.selected].tolist() == [8]


def dragged(shown: Link, start: np.ndarray, end: np.ndarray, modifiers: tuple[str, ...] = ()) -> None:
    """Drag the left button from one place to another, as a window tells it to viewer and layer."""
    event = SimpleNamespace(
        type="mouse_press",
        is_dragging=False,
        modifiers=modifiers,
        position=start,
        view_direction=None,
        up_direction=None,
        dims_displayed=[1, 2],
    )
    both = (shown.viewer, shown.viewer.layers.selection.active)
    for one in both:
        mouse_press_callbacks(one, wrapped(event))
    event.type, event.is_dragging = "mouse_move", True
    for place in (0.5, 1.0):
        event.position = start + place * (end - start)
        for one in both:
            mouse_move_callbacks(one, event)
    event.type = "mouse_release"
    for one in both:
        mouse_release_callbacks(one, event)


class wrapped:  # noqa: N801 - stands in for napari's read-only event
    """An event that napari replaces behind the back of those who hold it."""

    def __init__(self, event: SimpleNamespace) -> None:
        self.__wrapped__ = event

    def __getattr__(self, name: str) -> object:
        return getattr(self.__wrapped__, name)


@pytest.fixture
def open_slice(shown: Link) -> Iterator[Link]:
    """All particles in one thick slice, and the tool that selects."""
    shown.viewer.dims.margin_left = shown.viewer.dims.margin_right = (1000, 0, 0)
    shown.points.size, shown.points.projection_mode = 10, "all"
    shown.points.mode = "select"
    return shown


def test_one_box_drawn_with_the_mouse_is_one_step(open_slice: Link, work: Inspection) -> None:
    work.session.select([77, 42], "scatter")
    low, high = np.array([0.0, 0, 0]), np.array([0.0, 600, 600])
    dragged(open_slice, low, high)
    assert work.session.selected.tolist() == [True] * 6 + [False, True, False]
    assert len(steps(work)) == 2
    # A click beside all particles deselects, in one step too.
    dragged(open_slice, low, low + 0.1)
    assert work.session.ids[work.session.selected].tolist() == [42]
    assert len(steps(work)) == 3
    dragged(open_slice, low, low + 0.1)
    assert len(steps(work)) == 3


def test_particles_stay_where_they_are(open_slice: Link, work: Inspection, table: pd.DataFrame) -> None:
    layer, start = open_slice.points, particles.positions(table)[:6]
    work.session.select([30, 5, 8], "scatter")
    middle = layer.data[0]
    dragged(open_slice, middle, middle + 50)
    np.testing.assert_allclose(layer.data, start)
    layer.remove_selected()
    np.testing.assert_allclose(layer.data, start)
    assert layer.features["particle_id"].tolist() == table["particle_id"].tolist()[:6]
    np.testing.assert_allclose(layer.size, 150)
    assert set(layer.selected_data) == {0, 1, 2}
    assert len(steps(work)) == 1
    assert "stay where they are" in open_slice.viewer.status
    # And the link still works.
    layer.selected_data = {5}
    assert len(steps(work)) == 2
    layer.add([1.0, 2, 3])
    np.testing.assert_allclose(layer.data, start)


def test_another_tomogram_can_be_shown(shown: Link, work: Inspection, table: pd.DataFrame) -> None:
    work.session.select([30, 42], "scatter")
    shown.show("TS_2")
    assert [layer.name for layer in shown.viewer.layers] == ["tomogram", "particles"]
    np.testing.assert_allclose(shown.points.data, particles.positions(table)[6:])
    assert set(shown.points.selected_data) == {1}
    assert len(steps(work)) == 1
    with pytest.raises(ValueError, match="no particle lies in 'TS_9'; they lie in TS_1, TS_2"):
        shown.show("TS_9")
    del work.tomograms["TS_1"]
    assert link.link(viewer.model(), work).tomogram == "TS_2"
    shown.show("TS_1")
    assert [layer.name for layer in shown.viewer.layers] == ["particles"]


def test_a_closed_link_leaves_nothing_behind(shown: Link, work: Inspection) -> None:
    kept = shown.viewer.add_points([[0, 0, 0]], name="of the user")
    layer = shown.points
    shown.close()
    shown.close()
    assert list(shown.viewer.layers) == [kept]
    assert not len(work.changed)
    work.session.merge([0, 1])
    layer.selected_data = {3}
    assert len(steps(work)) == 1


def test_an_average_lands_at_its_particles_as_they_lie(shown: Link, work: Inspection, phantom: Volume, table) -> None:
    thread = threading.Thread(
        target=lambda: work.add_average("first", average(phantom, table[table["score"] < 0.3]), cluster=1)
    )
    thread.start()
    thread.join()
    layer = shown.surfaces["first"]
    vertices = layer.data[0] * layer.scale + layer.translate
    reference = surfaces.mesh(phantom)[0] - surfaces.middle(phantom)
    for copy, row in zip(vertices.reshape(3, -1, 3), range(3), strict=True):
        turned = reference @ particles.matrices(table)[row].T + particles.positions(table)[row]
        np.testing.assert_allclose(copy, turned, atol=0.01)
    ink = style.lighter(style.inks(work.session.clusters)[1], 0.2)
    assert style.to_hex(layer.colormap.colors[0][:3]) == ink
    work.session.describe(1, colour="#ff0000")
    assert style.to_hex(layer.colormap.colors[0][:3]) == style.lighter("#ff0000", 0.2)
    work.add_average("second", average(phantom, table[2:8]), cluster=None)
    assert not layer.visible
    assert shown.surfaces["second"].visible
    shown.show("TS_2")
    assert list(shown.surfaces) == ["second"]
    assert len(shown.surfaces["second"].data[0]) == 2 * len(reference)


def test_an_average_is_only_at_the_visible_particles(shown: Link, work: Inspection, phantom: Volume, table) -> None:
    size = len(surfaces.mesh(phantom)[0])
    work.add_average("first", average(phantom, table[:4]), cluster=None)
    work.add_average("second", average(phantom, table[3:6]), cluster=None)
    assert [layer.visible for layer in shown.surfaces.values()] == [False, True]
    work.session.describe(1, hidden=True)
    assert {name: len(layer.data[0]) // size for name, layer in shown.surfaces.items()} == {"first": 2, "second": 2}
    work.session.filter("score", 0.6)
    assert {name: len(layer.data[0]) // size for name, layer in shown.surfaces.items()} == {"second": 1}
    work.session.undo()
    work.session.undo()
    assert {name: len(layer.data[0]) // size for name, layer in shown.surfaces.items()} == {"first": 4, "second": 3}
    assert {name: layer.visible for name, layer in shown.surfaces.items()} == {"first": False, "second": True}
    assert sum(layer.name in ("first", "second") for layer in shown.viewer.layers) == 2


def test_the_map_shows_averages_in_3d_and_back(shown: Link) -> None:
    shown.map(True)
    assert (shown.viewer.dims.ndisplay, shown.image.depiction, shown.points.visible) == (3, "plane", False)
    shown.map(False)
    assert (shown.viewer.dims.ndisplay, shown.image.depiction, shown.points.visible) == (2, "volume", True)


def test_many_copies_are_made_of_a_coarser_map(shown, work, phantom, table, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = len(surfaces.mesh(phantom)[0])
    monkeypatch.setattr(link, "VERTICES", 3 * fine)
    work.add_average("many", average(phantom, table), cluster=0)
    vertices, faces = shown.surfaces["many"].data[:2]
    assert len(vertices) < 0.7 * 6 * fine
    assert faces.max() == len(vertices) - 1


def test_levels_of_a_large_tomogram_are_means_and_lie_on_one_another() -> None:
    data = np.random.default_rng(0).normal(size=(9, 16, 31)).astype("f4")
    found = viewer.levels(data, largest=300)
    assert [level.shape for level in found] == [(9, 16, 31), (5, 8, 16), (3, 4, 8)]
    assert found[0] is data
    np.testing.assert_allclose(found[1][1, 2, 3], data[2:4, 4:6, 6:8].mean(), rtol=1e-5)
    np.testing.assert_allclose(found[1][4, 7, 15], data[8, 14:, 30].mean(), rtol=1e-5)
    assert len(viewer.levels(data)) == 1
    with pytest.raises(ValueError, match="at least one voxel, got 0"):
        viewer.levels(data, largest=0)


def test_a_large_tomogram_is_shown_in_levels_and_its_plane_lies_right(work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer.levels, "__kwdefaults__", {"largest": 20_000})
    shown = link.link(viewer.model(), work)
    assert shown.image.multiscale
    assert shown.image.level_shapes.tolist() == [[40, 50, 60], [20, 25, 30]]
    np.testing.assert_allclose(shown.image.extent.world, [[0, 0, 0], [39 * 12, 49 * 12, 59 * 12]])
    viewer.plane(shown.viewer, z=240)
    assert shown.image.plane.position[0] == 10


def test_it_works_where_no_qt_can_be_imported() -> None:
    script = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"PySide6", "PySide2", "PyQt5", "PyQt6", "qtpy", "shiboken6"}:
            raise ImportError(f"{name} is refused")

sys.meta_path.insert(0, Refusal())
import numpy as np
from tomolab import particles
from tomolab.inspection import Inspection
from tomolab.inspection import Session
from tomolab.ui.napari import link, viewer
from tomolab.volumes import Volume

table = particles.table([[10, 20, 30], [40, 50, 60]])
work = Inspection(Session(table), diameter=20, tomograms={"tomogram": Volume(np.random.rand(9, 9, 9), 10.0)})
shown = link.link(viewer.model(), work)
shown.points.selected_data = {1}
print(work.session.ids[work.session.selected], "PySide6" in sys.modules or "qtpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[1] False", done.stderr


def test_a_deleted_average_leaves_the_viewer_and_comes_back_by_undo(
    shown: Link, work: Inspection, phantom: Volume, table: pd.DataFrame
) -> None:
    work.add_average("first", average(phantom, table[:3]))
    assert list(shown.surfaces) == ["first"]
    work.delete_average("first")
    assert list(shown.surfaces) == []
    assert [layer.name for layer in shown.viewer.layers] == ["tomogram", "particles"]
    work.session.describe(0, colour="#123456")
    work.session.undo()
    work.session.undo()
    assert list(shown.surfaces) == ["first"]
