"""Picks that a user clicks in napari are saved where they were clicked, in every format, and can be imported."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks

from tomolab import inspection, io, particles, subtomograms
from tomolab.inspection import Inspection
from tomolab.ui.napari import link, plugin, viewer
from tomolab.ui.napari.picks import NEW, PLACE, Picks
from tomolab.volumes import Volume

SIZE = 13.48
PLACES = np.array([[40.3, 500.125, 300.875], [210.0, 101.5, 612.25], [0.0, 0.0, 0.0], [19 * SIZE, 49 * SIZE, 59 * SIZE]])


def opened(path: Path) -> tuple[ViewerModel, Picks]:
    """A viewer with what the plugin gives of a path, and picks in its tomogram."""
    view = viewer.model()
    read = plugin.reader(str(path))
    assert read is not None
    for data, options, kind in read(str(path)):
        view.add_layer(Layer.create(data, options, kind))
    picks = Picks(view, diameter=250.0)
    picks.show(next(layer for layer in view.layers if PLACE in layer.metadata))
    return view, picks


@pytest.fixture
def tomogram(tmp_path: Path) -> Path:
    data = np.random.default_rng(0).normal(size=(20, 50, 60)).astype("f4")
    io.write_volume(Volume(data, SIZE), tmp_path / "TS_01.mrc")
    (tmp_path / "TS_01.tlt").write_text("-54\n0\n57\n")
    return tmp_path / "TS_01.mrc"


@pytest.mark.parametrize("name", ["mine", "mine.star", "mine.csv", "mine.tbl", "mine.em", "mine.mod", "mine.ndjson"])
def test_a_list_has_the_places_that_were_clicked(tomogram: Path, name: str) -> None:
    _, picks = opened(tomogram)
    layer = picks.start()
    for place in PLACES:
        layer.add(place)
    path = picks.save(name)
    assert path == tomogram.parent / (name if "." in name else "mine.star")
    says = {".csv": [], ".star": [], ".tbl": ["voxel_size"]}.get(path.suffix, ["voxel_size", "tilts"])
    says += ["tomogram"] if path.suffix in (".mod", ".ndjson") else []
    known = {"voxel_size": SIZE, "tilts": (-54, 57), "tomogram": "TS_01"}
    found = io.read_particles(path, **{key: known[key] for key in says})
    np.testing.assert_allclose(particles.positions(found), PLACES, atol=0.02 if path.suffix == ".mod" else 1e-4)
    assert set(found["tomogram"]) == {"TS_01"}
    assert found[["tilt_min", "tilt_max"]].to_numpy().tolist() == [[-54.0, 57.0]] * 4
    assert (found[["rot", "tilt", "psi"]] == 0).all(axis=None)


def test_a_click_in_a_slice_is_a_pick_at_the_voxel_under_it(tomogram: Path) -> None:
    view, picks = opened(tomogram)
    layer, image = picks.start(), picks.image
    view.dims.set_point(0, 7 * SIZE)
    voxel = np.array([7.0, 12.25, 33.5])
    event = SimpleNamespace(type="mouse_press", pos=np.array([5, 5]), position=image.data_to_world(voxel), modifiers=())
    mouse_press_callbacks(layer, event)
    event.type = "mouse_release"
    mouse_release_callbacks(layer, event)
    np.testing.assert_allclose(layer.data, [voxel * SIZE], atol=1e-3)


def test_a_box_around_a_click_has_the_voxel_that_was_clicked_in_its_centre(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(20, 50, 60)).astype("f4")
    data[9, 12, 33] = 50
    io.write_volume(Volume(data, SIZE), tmp_path / "a.mrc")
    _, picks = opened(tmp_path / "a.mrc")
    picks.state_tilts(-60, 60)
    picks.start().add(picks.image.data_to_world([9, 12, 33]))
    table = io.read_particles(picks.save("mine"))
    boxes = subtomograms.extract(io.read_volume(tmp_path / "a.mrc"), table, box=8)
    assert np.unravel_index(np.argmax(boxes.volumes[0]), (8, 8, 8)) == (4, 4, 4)


def test_every_change_is_undone_and_redone(tomogram: Path) -> None:
    _, picks = opened(tomogram)
    layer = picks.start()
    layer.add(PLACES[0])
    layer.add(PLACES[1])
    layer.selected_data = {0}
    layer.remove_selected()
    assert picks.counts == {"TS_01": 1}
    picks.undo()
    np.testing.assert_allclose(layer.data, PLACES[:2])
    picks.undo()
    picks.undo()
    assert not picks.can_undo
    assert picks.counts == {}
    for _ in range(3):
        picks.redo()
    np.testing.assert_allclose(layer.data, PLACES[1:2])
    picks.undo()
    layer.add(PLACES[2])
    assert not picks.can_redo
    assert layer.features["particle_id"].tolist() == [NEW] * 3
    assert picks.table()["particle_id"].tolist() == [1, 2, 3]


def test_picks_that_lie_nowhere_are_not_taken(tomogram: Path) -> None:
    view, picks = opened(tomogram)
    told: list[str] = []
    picks.refused.connect(told.append)
    layer = picks.start()
    layer.add(PLACES[0])
    layer.add([0.0, 0.0, 60 * SIZE])
    view.dims.ndisplay = 3
    layer.add(PLACES[1])
    np.testing.assert_allclose(layer.data, PLACES[:1])
    assert ["inside of the tomogram" in told[0], "3-D" in told[1]] == [True, True]
    assert picks.counts == {"TS_01": 1}


def test_a_file_is_not_written_over_unasked(tomogram: Path) -> None:
    _, picks = opened(tomogram)
    with pytest.raises(ValueError, match="there are no picks"):
        picks.save("mine")
    layer = picks.start()
    layer.add(PLACES[0])
    path = picks.save("mine")
    layer.add(PLACES[1])
    assert len(io.read_particles(picks.save("mine"))) == 2
    path.write_text("of another program\n")
    with pytest.raises(FileExistsError, match="is there already"):
        picks.save("mine")
    assert path.read_text() == "of another program\n"
    assert len(io.read_particles(picks.save("mine", replace=True))) == 2
    with pytest.raises(ValueError, match="name the list"):
        picks.save(" ")


def test_what_no_file_says_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    io.write_volume(Volume(np.zeros((10, 10, 10), dtype="f4"), 1.0), path)
    with pytest.warns(UserWarning, match="voxels of 1 Å"):
        _, picks = opened(path)
    with pytest.raises(ValueError, match="does not say its voxel size"):
        picks.start()
    picks.state_voxel_size(8.0)
    picks.start().add([8.0, 16.0, 40.0])
    with pytest.raises(ValueError, match="between which tilts was a recorded"):
        picks.save("a")
    with pytest.raises(ValueError, match="the lowest and the highest"):
        picks.state_tilts(60, -60)
    picks.state_tilts(-60, 60)
    found = io.read_particles(picks.save("a"))
    assert found[["z", "y", "x"]].to_numpy().tolist() == [[8.0, 16.0, 40.0]]
    assert "\n5.0\t2.0\t1.0\t" in (tmp_path / "a.star").read_text()


@pytest.fixture
def run(tmp_path: Path) -> Inspection:
    """A run folder of two tomograms with ten particles each."""
    folder, rng = tmp_path / "run", np.random.default_rng(3)
    (folder / "tomograms").mkdir(parents=True)
    for name in ("TS_1", "TS_2"):
        io.write_volume(Volume(rng.normal(size=(40, 60, 60)).astype("f4"), 20.0), folder / "tomograms" / f"{name}.mrc")
    table = particles.table(rng.uniform(250, 550, (20, 3)), tomogram=["TS_1"] * 10 + ["TS_2"] * 10, tilts=(-48, 51))
    io.write_particles(table.assign(cluster=0, diameter=250.0), folder / "clusters.csv")
    return inspection.open(folder)


@pytest.mark.filterwarnings("ignore:.*the box leaves the tomogram")
def test_picks_in_the_tomograms_of_a_run_are_one_list_that_can_be_imported(run: Inspection, tmp_path: Path) -> None:
    shown = link.link(viewer.model(), run)
    picks = Picks(shown.viewer, diameter=250.0)
    picks.show(shown.image)
    wanted = {name: np.random.default_rng(k).uniform(250, 550, (5, 3)) for k, name in enumerate(("TS_1", "TS_2"))}
    for name, places in wanted.items():
        shown.show(name)
        picks.show(shown.image)
        assert not len(picks.start().data)
        picks.start().add(places)
    assert shown.viewer.layers[-1] is picks.layer
    path = picks.save("mine")
    assert path == run.folder / "picks" / "mine.star"
    assert not run.session.history.past
    for words in ({"tomograms": run.folder / "tomograms", "contrast": "bright", "check_contrast": False},):
        again = inspection.import_data(
            folder=tmp_path / "second", particles=path, diameter=250, seed=1, progress=False, **words
        )
    for name, places in wanted.items():
        rows = again.session.particles[again.session.particles["tomogram"] == name]
        np.testing.assert_allclose(particles.positions(rows), places, atol=1e-3)
        assert rows[["tilt_min", "tilt_max"]].drop_duplicates().to_numpy().tolist() == [[-48.0, 51.0]]


def test_a_list_is_opened_changed_and_saved_with_all_that_it_says(run: Inspection, tmp_path: Path) -> None:
    table = particles.table(
        np.full((3, 3), 400.0),
        ids=[4, 7, 9],
        angles=[[10, 20, 30]] * 3,
        tomogram=["TS_1", "TS_1", "TS_2"],
        score=[1.0, 2.0, 3.0],
    )
    io.write_particles(table.assign(cluster=[5, 5, 6]), tmp_path / "theirs.star", voxel_size=20.0)
    shown = link.link(viewer.model(), run)
    picks = Picks(shown.viewer, diameter=250.0)
    picks.show(shown.image)
    layer = picks.start()
    picks.load(tmp_path / "theirs.star")
    assert picks.counts == {"TS_1": 2, "TS_2": 1}
    layer.selected_data = {0}
    layer.remove_selected()
    layer.add([100.0, 110.0, 120.0])
    with pytest.raises(FileExistsError):
        picks.save(str(tmp_path / "theirs.star"))
    found = io.read_particles(picks.save(str(tmp_path / "ours.star"))).set_index("particle_id")
    assert found.index.tolist() == [7, 10, 9]
    np.testing.assert_allclose(
        found.loc[[7, 9], ["rot", "tilt", "psi", "score", "cluster"]], [[10, 20, 30, 2, 5], [10, 20, 30, 3, 6]]
    )
    assert pd.isna(found.loc[10, "score"])
    np.testing.assert_allclose(found.loc[10, ["z", "y", "x"]].astype(float), [100, 110, 120], atol=1e-4)
    picks.undo()
    picks.undo()
    picks.undo()
    assert picks.counts == {}
    layer.add([50.0, 50, 50])
    assert picks.counts == {"TS_1": 1}
