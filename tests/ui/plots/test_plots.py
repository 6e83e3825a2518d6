"""Figures show what they are given, in Å, without a display."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tomolab import particles, tomograms
from tomolab.inspection import Session
from tomolab.simulation import specimen
from tomolab.subtomograms import Subtomograms
from tomolab.tomograms import TiltSeries, statistics
from tomolab.ui import plots, style
from tomolab.volumes import Volume


def drawn(figure: Figure) -> np.ndarray:
    """Pixels (height, width, 4) of the figure as saved."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="raw", dpi=60)
    width, height = (figure.get_size_inches() * 60).astype(int)
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)


@pytest.fixture
def tomogram() -> Volume:
    data = np.random.default_rng(0).normal(size=(12, 40, 60))
    data[4, 10, 45] = 30
    return Volume(data, 10.0)


@pytest.fixture
def table() -> pd.DataFrame:
    return particles.table([[40, 100, 450], [70, 300, 200], [110, 50, 50]], label=["a", "b", "a"])


def test_colours_are_distinct_and_do_not_depend_on_their_number() -> None:
    assert len(set(style.colours(100))) == 100
    assert style.colours(40)[:12] == style.colours(12)
    assert list(style.categories(pd.Series([10, 2, 2, None]))) == [2, 10]


def test_slices_cut_through_the_point_in_angstrom(tomogram: Volume) -> None:
    figure = plots.slices(tomogram, at=(40, 100, 450))
    drawn(figure)
    xy, zy, _, _ = figure.axes
    assert xy.images[0].get_extent() == [-5, 595, 395, -5]
    for ax in (xy, zy):
        image = ax.images[0].get_array()
        row, column = np.unravel_index(image.argmax(), image.shape)
        left, right, bottom, top = ax.images[0].get_extent()
        assert top + (row + 0.5) * (bottom - top) / image.shape[0] == pytest.approx(100)
        assert left + (column + 0.5) * (right - left) / image.shape[1] == pytest.approx(450 if ax is xy else 40)
    with pytest.raises(ValueError, match="outside the volume"):
        plots.slices(tomogram, at=(0, 0, 600))


def test_projections_of_one_and_of_many(phantom: Volume) -> None:
    one = plots.projections(phantom)
    assert [ax.get_title() for ax in one.axes] == ["along z", "along y", "along x"]
    np.testing.assert_allclose(one.axes[1].images[0].get_array(), phantom.data.sum(axis=1))
    small = Volume(phantom.data[8:24, 8:24, 8:24], 10.0)
    many = plots.projections({"whole": phantom, "part": small})
    drawn(many)
    assert [ax.get_title() for ax in many.axes] == ["whole", "part"]
    assert many.axes[0].get_xlim() == many.axes[1].get_xlim()
    with pytest.raises(ValueError, match="no volume to show"):
        plots.projections({})


def test_gallery_shows_the_middle_of_each_box() -> None:
    volumes = np.random.default_rng(0).normal(size=(5, 16, 16, 16)).astype(np.float32)
    boxes = Subtomograms(volumes, particles.table(np.zeros((5, 3))), 10.0)
    figure = plots.gallery(boxes, titles=list("abcde"), columns=3, limit=4)
    drawn(figure)
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == list("abcd")
    np.testing.assert_allclose(shown[2].images[0].get_array(), volumes[2, 7:10].mean(0), rtol=1e-5)
    smooth = plots.gallery(volumes, voxel_size=10.0, low_pass=60)
    assert smooth.axes[0].images[0].get_array().std() < 0.5 * shown[0].images[0].get_array().std()
    with pytest.raises(ValueError, match="array needs its voxel_size"):
        plots.gallery(volumes)
    with pytest.raises(ValueError, match="5 panels need as many titles, got 1"):
        plots.gallery(boxes, titles=["a"])
    with pytest.raises(ValueError, match="no subtomograms"):
        plots.gallery(boxes.take([]))


def test_picks_are_circles_where_the_slice_cuts_the_spheres(tomogram: Volume, table: pd.DataFrame) -> None:
    figure = plots.picks(tomogram, table, diameter=100, z=60, colour=table.set_index("particle_id")["label"])
    drawn(figure)
    circles = [item for item in figure.axes[0].collections if isinstance(item, EllipseCollection)]
    assert [item.get_offsets().tolist() for item in circles] == [[[450, 100]], [[200, 300]]]
    assert circles[0].get_widths()[0] == pytest.approx(2 * np.sqrt(50**2 - 20**2))
    assert figure.axes[0].get_title(loc="left") == "2 of 3 particles at z = 60 Å"


def test_picks_choose_the_slice_that_cuts_most_particles(tomogram: Volume, table: pd.DataFrame) -> None:
    figure = plots.picks(tomogram, table, diameter=100)
    # Spheres of 50 Å about 40, 70 and 110 Å: all three are cut from 60 to 90 Å.
    assert figure.axes[0].get_title(loc="left") in ("3 of 3 particles at z = 70 Å", "3 of 3 particles at z = 80 Å")
    with pytest.raises(ValueError, match="z = 500 Å is outside"):
        plots.picks(tomogram, table, diameter=100, z=500)
    with pytest.raises(ValueError, match=r"colour is unknown for 2 of 3 particles, such as \[1, 2\]"):
        plots.picks(tomogram, table, diameter=100, colour=pd.Series(["a"], index=[0]))


def test_surface_of_one_and_of_many(phantom: Volume) -> None:
    one = plots.surface(phantom, size=1)
    assert [ax.get_title() for ax in one.axes] == ["front", "side", "top"]
    many = plots.surface({"a": phantom, "b": phantom}, threshold={"a": 0.3}, colours={"b": "tab:red"}, size=1)
    assert [ax.get_title() for ax in many.axes] == ["a", "b"]
    assert drawn(many)[..., :3].min() < 100
    with pytest.raises(ValueError, match="threshold must lie between"):
        plots.surface(phantom, threshold=99)


def test_training_curves() -> None:
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3, 2, 1], "loss": [3, 2.5, 2], "accuracy": [0.3, 0.6, 0.5]})
    figure = plots.training(history)
    drawn(figure)
    assert figure.axes[1].get_title(loc="left") == "Validation accuracy (best 0.60, epoch 2)"
    assert figure.axes[0].lines[1].get_ydata().tolist() == [3, 2.5, 2]
    with pytest.raises(ValueError, match="needs the columns epoch, train_loss, loss, accuracy; accuracy is missing"):
        plots.training(history.drop(columns="accuracy"))
    with pytest.raises(ValueError, match="no epoch yet"):
        plots.training(history[:0])


def test_confusion_shows_shares_of_the_true_class() -> None:
    figure = plots.confusion(np.array([[8, 2], [0, 0]]), ["a", "b"])
    drawn(figure)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.8, 0.2], [0, 0]])
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["20", "80"]
    assert figure.axes[0].get_title(loc="left") == "80.0 % of 10 right"
    with pytest.raises(ValueError, match=r"3 classes need a confusion matrix of 3 x 3, got \(2, 2\)"):
        plots.confusion(np.eye(2), ["a", "b", "c"])


def test_scatter_colours_particles_by_id() -> None:
    points = pd.DataFrame({"particle_id": [5, 6, 7], "x": [0.0, 1, 2], "y": [0.0, 1, 2]})
    figure = plots.scatter(points, colour=pd.Series(["b", "a", "b"], index=[7, 5, 6], name="label"))
    drawn(figure)
    dots = figure.axes[0].collections[0]
    inks = {x: tuple(ink) for (x, _), ink in zip(dots.get_offsets().tolist(), dots.get_facecolors(), strict=True)}
    assert inks[1] == inks[2] != inks[0]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a  (1)", "b  (2)"]
    assert len(plots.scatter(points, colour=pd.Series([0.1, 0.2, 0.3], index=[5, 6, 7])).axes) == 2
    with pytest.raises(ValueError, match=r"colour is unknown for 1 of 3 particles, such as \[7\]"):
        plots.scatter(points, colour=pd.Series(["a", "b"], index=[5, 6]))
    with pytest.raises(ValueError, match="y is missing"):
        plots.scatter(points[["particle_id", "x"]])


def test_composition_of_clusters() -> None:
    labels = pd.Series([0, 0, 0, 1], index=[1, 2, 3, 4], name="cluster")
    figure = plots.composition(labels, pd.Series(list("aabb"), index=[1, 2, 3, 4]))
    drawn(figure)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [2, 0, 1, 1]
    assert figure.axes[0].get_title(loc="left") == "Purity 0.75"
    with pytest.raises(ValueError, match="truth is unknown for 3 of 4"):
        plots.composition(labels, pd.Series(["a"], index=[1]))


def test_fsc_reads_off_the_resolution() -> None:
    frequency = np.linspace(0.001, 0.05, 50)
    curve = pd.DataFrame({"resolution": 1 / frequency, "fsc": 1 - frequency / 0.05})
    figure = plots.fsc({"map": pd.concat([pd.DataFrame({"resolution": [np.inf], "fsc": [1.0]}), curve])})
    drawn(figure)
    # 1 - f / 0.05 = 0.143 at f = 0.04285.
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "map  23.3 Å"
    with pytest.raises(ValueError, match="an FSC curve needs the columns resolution, fsc; fsc is missing"):
        plots.fsc(curve[["resolution"]])


def test_radial_profile_of_a_shell() -> None:
    axes = np.meshgrid(*[np.arange(32) - 16] * 3, indexing="ij")
    shell = Volume(np.exp(-((np.sqrt(sum(a**2 for a in axes)) - 9) ** 2)), 5.0)
    radius, mean = plots.profile(shell)
    assert radius[mean.argmax()] == 45
    assert len(drawn(plots.radial_profile({"shell": shell, "same": shell})))


def test_figures_leave_the_users_settings_alone(phantom: Volume) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.projections(phantom)
    assert dict(matplotlib.rcParams) == before


def test_a_notebook_shows_a_returned_figure(phantom: Volume) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        style.show_in_notebook()
        shown, size = shell.display_formatter.format(plots.projections(phantom))
    finally:
        InteractiveShell.clear_instance()
    assert shown["image/png"].startswith(b"\x89PNG")
    assert size["image/png"]["width"] > 100


def test_slices_stand_beside_each_other() -> None:
    rng = np.random.default_rng(0)
    both = {"measured": Volume(rng.normal(size=(8, 20, 30)), 10.0), "simulated": Volume(rng.normal(size=(8, 20, 30)), 10.0)}
    figure = plots.beside(both, z=30.0)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["measured", "simulated"]
    assert np.array_equal(figure.axes[1].images[0].get_array(), both["simulated"].data[3])
    with pytest.raises(ValueError, match="z = 90 Å is outside measured of 80 Å"):
        plots.beside(both, z=90.0)


def test_tilt_images_are_the_nearest_ones() -> None:
    table = tomograms.dose_symmetric(-60, 60, step=3.0).assign(defocus=np.nan)
    images = np.arange(41, dtype=np.float32)[:, None, None] + np.random.default_rng(0).normal(0, 0.1, (41, 8, 9))
    series = TiltSeries(images, table, 10.0)
    figure = plots.tilt_images(series, at=(-61, 1, 29))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["-60°", "0°", "30°"]
    assert [round(float(ax.images[0].get_array().mean())) for ax in figure.axes] == [0, 20, 30]


def test_a_specimen_is_drawn_in_the_colours_of_its_legend(phantom: Volume) -> None:
    maps = {"zebra": phantom, "ant": Volume(phantom.data[8:24, 8:24, 8:24], 10.0)}
    model = specimen.build(maps, {"zebra": 6, "ant": 12}, shape=(32, 60, 60), seed=1, progress=False)
    figure = plots.specimen(model)
    picture = np.asarray(figure.axes[1].images[0].get_array())
    legend = {line.get_label().split()[0]: to_rgb(line.get_color()) for line in figure.axes[1].lines}
    for number, name in enumerate(model.names, start=1):
        here = model.labels[16] == number
        assert here.any()
        assert np.allclose(picture[here], legend[name])
    with pytest.raises(ValueError, match="outside the specimen, which is 320 Å high"):
        plots.specimen(model, z=400.0)


def test_comparisons_show_every_name() -> None:
    rng = np.random.default_rng(1)
    volumes = {name: Volume(rng.normal(size=(40, 60, 60)), 10.0) for name in ("measured", "simulated")}
    regions = {"left": np.indices((40, 60, 60))[2] < 30, "right": np.indices((40, 60, 60))[2] >= 30}
    power = plots.power({name: statistics.power(one) for name, one in volumes.items()}, between=(200, 25))
    assert [line.get_label() for line in power.axes[0].lines] == list(volumes)
    assert np.allclose(power.axes[1].lines[0].get_ydata(), 1)
    bars = plots.histograms({name: statistics.histograms(one, regions) for name, one in volumes.items()})
    assert [ax.get_title(loc="left") for ax in bars.axes] == ["left", "right"]
    highest = max(line.get_ydata().max() for ax in bars.axes for line in ax.lines)
    assert bars.axes[0].get_ylim()[1] > highest
    curves = plots.profiles({name: (np.arange(5.0), np.arange(5.0)) for name in volumes})
    assert [line.get_label() for line in curves.axes[0].lines[:2]] == list(volumes)


@pytest.mark.parametrize("kinds", [pd.Series(["a", None, "b"]), pd.Series(["a", None, "b"], dtype="category")])
def test_particles_without_a_kind_are_drawn_in_grey(tomogram: Volume, table: pd.DataFrame, kinds: pd.Series) -> None:
    points = pd.DataFrame({"particle_id": [0, 1, 2], "x": [0.0, 1, 2], "y": [0.0, 1, 0]})
    figure = plots.scatter(points, colour=kinds)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["a  (1)", "b  (1)", "missing  (1)"]
    inks = figure.axes[0].collections[0].get_facecolor()
    assert sorted(map(tuple, inks[:, :3])) == sorted(to_rgb(ink) for ink in (*style.OKABE_ITO[:2], style.LACKING))
    outlined = plots.picks(tomogram, table, diameter=100, z=70, colour=kinds)
    assert [text.get_text() for text in outlined.axes[0].get_legend().get_texts()] == ["a  (1)", "b  (1)", "missing  (1)"]


def test_particles_without_a_number_are_drawn_in_grey() -> None:
    points = pd.DataFrame({"particle_id": [0, 1, 2], "x": [0.0, 1, 2], "y": [0.0, 1, 0]})
    figure = plots.scatter(points, colour=pd.Series([1.0, None, 2.0], dtype="Float64"))
    drawn(figure)
    inks = figure.axes[0].collections[0].get_facecolor()
    assert [tuple(ink) == to_rgb(style.LACKING) for ink in inks[:, :3]] == [False, True, False]


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_the_canvas_has_a_grey_kind_for_what_is_missing(dtype: object) -> None:
    pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
    from tomolab.ui.napari import scatter

    table = particles.table(np.zeros((3, 3))).assign(kind=pd.Series(["a", None, "<b>"]).astype(dtype))
    session = Session(table.assign(number=pd.Series([1.0, None, 2.0], dtype="Float64")))
    inks, legend = style.particle_inks(session, "kind"), scatter.legend(session.particles["kind"])
    np.testing.assert_allclose(inks[:, :3], [to_rgb(ink) for ink in (style.OKABE_ITO[1], style.LACKING, style.OKABE_ITO[0])])
    assert legend.endswith("missing")
    assert "&lt;b&gt;" in legend
    inks = style.particle_inks(session, "number")
    assert [tuple(ink) == to_rgb(style.LACKING) for ink in inks[:, :3]] == [False, True, False]


def test_a_cluster_has_the_colour_of_the_inspector_in_figures() -> None:
    table = particles.table(np.zeros((4, 3)))
    session = Session(table, pd.Series([2, 5, -1, 7], index=table["particle_id"]))
    session.describe(7, colour="#123456")
    wanted = {-1: style.FAINT} | style.inks(session.clusters)
    assert style.categories(session.labels) == wanted
    found, palette = style.to_categorical(style.aligned(session.labels, table["particle_id"].to_numpy()[::-1], name="colour"))
    assert [palette[name] for name in found] == [wanted[number] for number in (7, -1, 5, 2)]
    assert [style.hexadecimal(ink) for ink in style.particle_inks(session, "cluster")] == [
        wanted[number].lower() for number in (2, 5, -1, 7)
    ]
