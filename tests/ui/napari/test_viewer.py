"""The viewer puts things where they are, in Å, and gives particle ids back; almost all without Qt."""

import os
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from tomolab import particles, rotations
from tomolab.ui import style, surfaces
from tomolab.ui.napari import viewer
from tomolab.volumes import Volume


@pytest.fixture
def table() -> pd.DataFrame:
    turned = rotations.random(4, torch.Generator().manual_seed(0)).numpy()
    positions = [[40, 100, 450], [70, 300, 200], [110, 50, 50], [60, 200, 300]]
    return particles.table(positions, rotations=turned, ids=[11, 5, 8, 30], label=["a", "b", "a", "b"])


@pytest.fixture
def tomogram() -> Volume:
    return Volume(np.random.default_rng(0).normal(size=(12, 40, 60)), 13.0)


def world(layer) -> np.ndarray:
    """Vertices of a surface layer where they are shown, in Å."""
    return layer.data[0] * layer.scale + layer.translate


def test_a_tomogram_and_its_particles_lie_in_angstrom(tomogram: Volume, table: pd.DataFrame) -> None:
    view = viewer.model()
    labels = pd.Series([1, 0, 7, 7], index=[5, 8, 11, 30], name="cluster")
    image, points = viewer.tomogram(view, tomogram, table, colour=labels, diameter=250)
    assert [layer.name for layer in view.layers] == ["tomogram", "particles"]
    np.testing.assert_allclose(image.scale, 13)
    assert {str(unit) for layer in view.layers for unit in layer.units} == {"angstrom"}
    assert image.contrast_limits[0] < 0 < image.contrast_limits[1]
    np.testing.assert_allclose(points.data, particles.positions(table))
    np.testing.assert_allclose(points.size, 250)
    assert points.features["particle_id"].tolist() == [11, 5, 8, 30]
    assert points.features["cluster"].tolist() == [7, 1, 0, 7]
    palette = style.categories(labels)
    for ink, kind in zip(points.border_color, [7, 1, 0, 7], strict=True):
        np.testing.assert_allclose(ink[:3], to_rgb(style.lighter(palette[kind], 0.2)), atol=1e-6)


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_particles_without_a_kind_are_grey(tomogram: Volume, table: pd.DataFrame, dtype: object) -> None:
    kinds = pd.Series(["a", None, "b", None], index=[11, 5, 8, 30], name="kind").astype(dtype)
    _, points = viewer.tomogram(viewer.model(), tomogram, table, colour=kinds, diameter=250)
    expected = [style.lighter(ink, 0.2) for ink in (style.OKABE_ITO[0], style.LACKING, style.OKABE_ITO[1], style.LACKING)]
    np.testing.assert_allclose(points.border_color[:, :3], [to_rgb(ink) for ink in expected], atol=1e-6)
    assert points.features["kind"].isna().tolist() == [False, True, False, True]


def test_particles_without_colour_or_table_are_refused(tomogram: Volume, table: pd.DataFrame) -> None:
    view = viewer.model()
    with pytest.raises(ValueError, match=r"colour is unknown for 3 of 4 particles, such as \[5, 8, 30\]"):
        viewer.tomogram(view, tomogram, table, colour=pd.Series([0], index=[11]), diameter=250)
    with pytest.raises(ValueError, match="particle_id"):
        viewer.tomogram(view, tomogram, table.drop(columns="particle_id"), diameter=250)
    assert len(view.layers) == 0


def test_averages_side_by_side_do_not_touch(phantom: Volume) -> None:
    view = viewer.model()
    first, second = viewer.averages(view, {"a": phantom, "b": phantom})
    assert [layer.name for layer in view.layers] == ["a", "b"]
    assert world(first)[:, 2].max() < world(second)[:, 2].min()
    vertices, _, _ = surfaces.mesh(phantom, detail=2)
    np.testing.assert_allclose(np.ptp(world(second), axis=0), np.ptp(vertices, axis=0), atol=1e-3)


def test_an_average_is_put_at_every_particle_as_it_lies(phantom: Volume, table: pd.DataFrame) -> None:
    view = viewer.model()
    (layer,) = viewer.averages(view, {"a": phantom, "b": phantom}, at={"a": table[table["label"] == "a"]})
    reference = surfaces.mesh(phantom)[0] - surfaces.middle(phantom)
    copies = world(layer).reshape(2, -1, 3)
    for copy, row in zip(copies, (0, 2), strict=True):
        turned = reference @ particles.matrices(table)[row].T + particles.positions(table)[row]
        np.testing.assert_allclose(copy, turned, atol=0.01)
    assert layer.data[1].max() == len(layer.data[0]) - 1
    with pytest.raises(ValueError, match="no density called c; there are a, b"):
        viewer.averages(view, {"a": phantom, "b": phantom}, at={"c": table})


def test_the_camera_keeps_the_hand(phantom: Volume) -> None:
    view = viewer.model()
    viewer.averages(view, {"a": phantom})
    # x right, y down, z away is a right-handed frame; (z, y, x) in napari's own default is not.
    assert [str(axis) for axis in view.scene.camera.orientation] == ["away", "down", "right"]


@pytest.mark.skipif(sys.platform != "linux", reason="X displays are a matter of Linux")
def test_without_a_display_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match=r"neither DISPLAY nor WAYLAND_DISPLAY is set.*xvfb-run"):
        viewer.open()
    for display, problem in ((":987", "the display :987 does not answer"), ("nonsense", "names no display")):
        monkeypatch.setenv("DISPLAY", display)
        with pytest.raises(RuntimeError, match=problem):
            viewer.open()


def test_a_model_takes_no_screenshot(tmp_path) -> None:
    with pytest.raises(ValueError, match="without a window shows nothing"):
        viewer.screenshot(viewer.model(), tmp_path / "view.png")


@pytest.mark.display
@pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="needs an X display")
def test_a_window_shows_particles_and_averages(make_napari_viewer, tomogram, table, phantom, tmp_path) -> None:
    from skimage.io import imread

    assert viewer.display_problem() == ""
    view = make_napari_viewer(show=True)
    viewer.tomogram(view, tomogram, table, diameter=120)
    view.dims.set_point(0, 70)
    flat = imread(viewer.screenshot(view, tmp_path / "slice.png"))
    assert flat[..., :3].std() > 10
    # The outlines are the only coloured things.
    coloured = np.ptp(flat[..., :3].astype(int), axis=-1) > 60
    assert coloured.any()
    view.layers["particles"].visible = False
    assert not (np.ptp(imread(viewer.screenshot(view, tmp_path / "bare.png"))[..., :3].astype(int), axis=-1) > 60).any()
    view.layers.clear()
    view.dims.ndisplay = 3
    viewer.averages(view, {"a": phantom})
    view.reset_view()
    lit = imread(viewer.screenshot(view, tmp_path / "average.png"))[..., 2]
    # Lit from the front: most of the surface is bright, not only its rim.
    assert np.median(lit[lit > 20]) > 80
    assert sorted(path.name for path in tmp_path.iterdir()) == ["average.png", "bare.png", "slice.png"]


def test_a_plane_of_the_tomogram_lies_at_its_height(tomogram: Volume, table: pd.DataFrame) -> None:
    view = viewer.model()
    with pytest.raises(ValueError, match="no layer 'tomogram'"):
        viewer.plane(view)
    image, points = viewer.tomogram(view, tomogram, table, diameter=250)
    viewer.plane(view, z=39.0)
    assert view.dims.ndisplay == 3
    assert (image.depiction, image.plane.position[0], points.visible) == ("plane", 3.0, False)
    with pytest.raises(ValueError, match="reaches from 0 to 143 Å in z, not to 500 Å"):
        viewer.plane(view, z=500)
