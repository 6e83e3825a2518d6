"""napari finds tomolab by its manifest, opens its files, and shows its samples and its inspector, without Jupyter."""

import os
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from npe2 import PluginManager, PluginManifest

import tomolab
from tomolab import io, particles
from tomolab.inspection import Session, run_contents
from tomolab.subtomograms import Subtomograms
from tomolab.ui import style
from tomolab.ui.napari import link, plugin
from tomolab.volumes import Volume

MANIFEST = Path(tomolab.__file__).parent / "napari.yaml"


@pytest.fixture
def plugins() -> PluginManager:
    """A plugin manager that knows tomolab only."""
    found = PluginManager()
    found.register(PluginManifest.from_file(MANIFEST))
    return found


@pytest.fixture
def table() -> pd.DataFrame:
    return particles.table([[100, 200, 300], [110, 210, 310], [50, 60, 70]], ids=[7, 3, 9], cluster=[1, 0, 1])


@pytest.fixture
def folder(tmp_path: Path, table: pd.DataFrame) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    io.write_particles(table, place / "clusters.csv")
    io.write_volume(Volume(np.random.default_rng(0).normal(size=(20, 40, 50)), 12.0), place / "tomogram.mrc")
    return place


def test_the_manifest_is_valid_and_what_it_names_is_there(plugins: PluginManager) -> None:
    manifest = plugins.get_manifest("tomolab")
    manifest.validate_imports()
    commands = {one.id for one in manifest.contributions.commands}
    used = {one.command for kind in ("readers", "widgets", "sample_data") for one in getattr(manifest.contributions, kind)}
    assert used == commands
    project = tomllib.loads((MANIFEST.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["napari.manifest"] == {"tomolab": "tomolab:napari.yaml"}


def test_only_what_is_ours_is_claimed(plugins: PluginManager, tmp_path: Path) -> None:
    assert [one.command for one in plugins.iter_compatible_readers(["a.star"])] == ["tomolab.read"]
    assert [one.command for one in plugins.iter_compatible_readers(["a.mrc"])] == ["tomolab.read"]
    assert not list(plugins.iter_compatible_readers(["a.tif"]))
    for name, text in {"a.csv": "x,y\n1,2\n", "a.json": "{}", "a.xml": "<svg/>"}.items():
        (tmp_path / name).write_text(text)
        assert plugin.reader(str(tmp_path / name)) is None
    assert plugin.reader(str(tmp_path)) is None
    assert plugin.reader(["a.star", "b.star"]) is None
    (tmp_path / "zarr.json").write_text("{}")
    assert plugin.reader(str(tmp_path)) is None


def test_a_run_folder_opens_as_it_was_left(folder: Path, table: pd.DataFrame) -> None:
    read = plugin.reader(str(folder))
    assert read is not None
    (image, about, kind), (points, options, second) = read(str(folder))
    assert (kind, second) == ("image", "points")
    assert image.shape == (20, 40, 50)
    np.testing.assert_allclose(about["scale"], 12)
    np.testing.assert_allclose(points, particles.positions(table))
    assert about["metadata"][link.MARK] == options["metadata"][link.MARK] == str(folder)
    inks = [style.to_hex(ink[:3]) for ink in options["border_color"]]
    assert inks[0] == inks[2] != inks[1]
    session = Session(table, table.set_index("particle_id")["cluster"])
    session.merge([0, 1])
    session.save(folder / "session.npz")
    options = plugin.read_run(folder)[1][1]
    assert len({style.to_hex(ink[:3]) for ink in options["border_color"]}) == 1
    assert options["features"]["cluster"].tolist() == [0, 0, 0]
    (folder / "clusters.csv").unlink()
    assert len(plugin.read_run(folder)) == 1
    io.write_volume(io.read_volume(folder / "tomogram.mrc"), folder / "tomogram.zarr")
    (folder / "tomogram.mrc").unlink()
    ((other, _, _),) = plugin.read_run(folder)
    np.testing.assert_allclose(other, image, atol=1e-5)


def test_of_many_tomograms_the_first_is_shown_with_its_own_particles(folder: Path, table: pd.DataFrame) -> None:
    (folder / "tomograms").mkdir()
    (folder / "tomogram.mrc").rename(folder / "tomograms" / "TS_2.mrc")
    io.write_particles(table.assign(tomogram=["TS_1", "TS_2", "TS_2"]), folder / "clusters.csv")
    points = plugin.read_run(folder)[1]
    assert points[1]["features"]["particle_id"].tolist() == [3, 9]
    # Of two files of one name the same is taken whether or not there is a list of particles.
    other = io.write_volume(io.read_volume(folder / "tomograms" / "TS_2.mrc"), folder / "tomograms" / "TS_2.zarr")
    assert other.exists()
    assert run_contents.tomogram_files(folder) == run_contents.tomogram_files(folder, table.assign(tomogram="TS_2"))


def test_a_particle_list_takes_what_it_lacks_from_the_tomogram_beside_it(folder: Path, table: pd.DataFrame) -> None:
    alone = folder.parent / "warp.star"
    alone.write_text(
        "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n_rlnMicrographName #4\n"
        "25.0 16.0 8.0 TS_1.tomostar\n10.0 11.0 12.0 TS_1.tomostar\n"
    )
    with pytest.raises(ValueError, match="only one in the folder; there are 0"):
        plugin.read_list(alone)
    moved = alone.rename(folder / "warp.star")
    ((points, options, kind),) = plugin.reader(str(moved))(str(moved))
    assert (kind, options["name"]) == ("points", "warp")
    np.testing.assert_allclose(points, np.array([[8, 16, 25], [12, 11, 10]]) * 12.0)
    assert "tilt_min" not in options["features"]
    # OME-Zarr says it as well, and boxes beside it are no tomogram.
    volume = io.read_volume(folder / "tomogram.mrc")
    (folder / "tomogram.mrc").unlink()
    io.write_volume(volume, folder / "tomogram.zarr")
    Subtomograms(np.zeros((3, 8, 8, 8)), table, 10.0).save(folder / "boxes.zarr")
    np.testing.assert_allclose(plugin.read_list(moved)[0][0], points)
    own = io.write_particles(table, folder / "own.star", voxel_size=7.0)
    np.testing.assert_allclose(plugin.read_list(own)[0][0], particles.positions(table), atol=1e-3)


def test_a_tomogram_opens_in_its_own_size_and_one_without_voxel_size_with_a_warning(folder: Path) -> None:
    path = folder / "tomogram.mrc"
    ((data, options, kind),) = plugin.reader(str(path))(str(path))
    assert (kind, options["name"], list(options["scale"])) == ("image", "tomogram.mrc", [12.0] * 3)
    np.testing.assert_array_equal(data, io.read_volume(path).data)
    raw = bytearray(path.read_bytes())
    raw[40:52] = bytes(12)
    (folder / "bare.rec").write_bytes(raw)
    with pytest.warns(UserWarning, match="bare.rec does not say its voxel size, and is shown with voxels of 1 Å"):
        ((bare, options, _),) = plugin.read_tomogram(folder / "bare.rec")
    assert list(options["scale"]) == [1.0] * 3
    np.testing.assert_array_equal(bare, data)
    (folder / "text.mrc").write_text("no map")
    with pytest.raises(ValueError, match=r"text\.mrc"):
        plugin.read_tomogram(folder / "text.mrc")


@pytest.mark.parametrize("suffix", [".csv", ".tbl", ".em", ".mod", ".ndjson"])
def test_every_list_opens_at_the_places_of_its_particles(folder: Path, table: pd.DataFrame, suffix: str) -> None:
    path = folder / f"list{suffix}"
    whole = {} if suffix == ".csv" else {"voxel_size": 12.0}
    shape = {"tomogram_shape": (20, 40, 50)} if suffix == ".mod" else {}
    io.write_particles(table.assign(particle_id=[1, 2, 3]), path, **whole, **shape)
    ((points, _, kind),) = plugin.reader(str(path))(str(path))
    assert kind == "points"
    np.testing.assert_allclose(points, particles.positions(table), atol=12.0)


def test_subtomograms_open_as_a_stack_about_their_middle(tmp_path: Path, table: pd.DataFrame) -> None:
    boxes = np.random.default_rng(0).normal(size=(3, 8, 8, 8))
    boxes[:, 4, 4, 4] = 20
    path = Subtomograms(boxes, table, 10.0).save(tmp_path / "boxes.zarr")
    ((stack, options, kind),) = plugin.reader(str(path))(str(path))
    assert (kind, stack.shape) == ("image", (3, 8, 8, 8))
    peak = np.unravel_index(np.argmax(np.asarray(stack[1])), (8, 8, 8))
    np.testing.assert_allclose(np.array(peak) * options["scale"][1:] + options["translate"][1:], 0)


def test_the_samples_are_layers(plugins: PluginManager) -> None:
    plugins.activate("tomolab")
    image, points = plugins.commands.execute("tomolab.sample_tomogram")
    assert (image[2], points[2]) == ("image", "points")
    data, features = image[0], points[1]["features"]
    rows = np.round(points[0] / image[1]["scale"]).astype(int)
    # Ribosomes are dense in the middle: they are bright where the truth says that they are.
    solid = rows[(features["label"] == "ribosome_70s").to_numpy()]
    around = [data[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].mean() for z, y, x in solid]
    assert np.mean(around) > data.mean() + data.std()
    assert features["label"].nunique() == 3
    surfaces = plugins.commands.execute("tomolab.sample_densities")
    assert len(surfaces) == 16
    assert {kind for _, _, kind in surfaces} == {"surface"}


@pytest.mark.display
@pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="needs an X display")
def test_napari_opens_a_run_folder_and_its_inspector_by_itself(make_napari_viewer, npe2pm, qtbot, folder: Path) -> None:
    npe2pm.register(PluginManifest.from_file(MANIFEST))
    view = make_napari_viewer()
    view.open(folder, plugin="tomolab")
    assert [layer.name for layer in view.layers] == ["tomogram", "particles"]
    assert [str(axis) for axis in view.scene.camera.orientation] == ["away", "down", "right"]
    io.write_particles(io.read_particles(folder / "clusters.csv").assign(diameter=150.0), folder / "clusters.csv")
    _, dock = view.window.add_plugin_dock_widget("tomolab", "Inspector")
    qtbot.waitUntil(lambda: dock.panel is not None, timeout=20_000)
    # What the reader showed has given way to what follows the inspection.
    assert [layer.name for layer in view.layers] == ["tomogram", "particles"]
    dock.panel.inspection.session.select([7, 9])
    assert set(view.layers["particles"].selected_data) == {0, 2}
    dock.close_inspection()
