"""A tilt series holds together, is read from its files, and files that contradict each other are refused."""

import mrcfile
import numpy as np
import pytest

from tomolab import samples, tilts, tiltseries
from tomolab.tiltseries import TiltSeries, dose_symmetric

ANGLES = [-3.0, 0.0, 3.0]
IMAGES = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
MDOC = "".join(
    f"[ZValue = {i}]\nTiltAngle = {tilt}\nExposureDose = 3\nPriorRecordDose = {3 * i}\n"
    for i, tilt in enumerate((0.01, 3.2, -3.1))
)


@pytest.fixture
def folder(tmp_path):
    with mrcfile.new(tmp_path / "stack.mrc") as file:
        file.set_data(IMAGES)
        file.voxel_size = 4.0
    (tmp_path / "stack.tlt").write_text("-3\n0\n3\n")
    (tmp_path / "stack.xf").write_text("1 0 0 1 0 0\n1 0 0 1 2 0\n1 0 0 1 0 3\n")
    (tmp_path / "stack.mdoc").write_text(MDOC)
    return tmp_path


def test_dose_symmetric_goes_to_the_other_side_after_every_pair() -> None:
    table = dose_symmetric(-12, 12, step=3.0, dose=90.0)
    assert table.sort_values("order")["tilt"].tolist() == [0, 3, -3, -6, 6, 9, -9, -12, 12]
    assert table["tilt"].tolist() == sorted(table["tilt"])
    assert table["exposure"].tolist() == [10] * 9
    assert table.sort_values("order")["dose"].tolist() == [10 * i for i in range(9)]
    assert table["defocus"].isna().all()


@pytest.mark.parametrize(
    ("low", "high", "step", "count"), [(-60, 60, 3, 41), (-60, 51, 3, 38), (10, 60, 2, 26), (-1, 1, 0.1, 21)]
)
def test_dose_adds_up_and_grows_away_from_the_start(low, high, step, count) -> None:
    table = dose_symmetric(low, high, step=step, dose=120.0)
    assert len(table) == count
    assert table["exposure"].sum() == pytest.approx(120)
    assert sorted(table["order"]) == list(range(count))
    last = table.loc[table["order"].idxmax()]
    assert last["dose"] + last["exposure"] == pytest.approx(120)
    first = table.loc[table["order"].idxmin(), "tilt"]
    far = (table.sort_values("order")["tilt"] - first).abs().to_numpy()
    assert (np.diff(far) > -1e-9).all()


def test_a_dose_that_is_not_given_is_unknown() -> None:
    assert dose_symmetric(-3, 3, step=3.0)[["dose", "exposure"]].isna().all(axis=None)
    for wrong in ({"step": 0}, {"step": 3, "dose": -1}):
        with pytest.raises(ValueError, match="step must be positive and dose not negative"):
            dose_symmetric(-3, 3, **wrong)
    with pytest.raises(ValueError, match="within ±90°, got 3 to -3"):
        dose_symmetric(3, -3, step=1)


def test_reading_brings_the_metadata_into_the_order_of_the_stack(folder) -> None:
    paths = {name: folder / f"stack.{end}" for name, end in (("tilts", "tlt"), ("transforms", "xf"), ("metadata", "mdoc"))}
    series = tiltseries.read(folder / "stack.mrc", **paths)
    np.testing.assert_array_equal(series.images, IMAGES)
    assert series.tilts.tolist() == ANGLES
    assert series.dose.tolist() == [6, 0, 3]
    assert np.isnan(series.defocus).all()
    assert series.pixel_size == 4.0
    np.testing.assert_array_equal(series.transforms[1], [[0, 0], [2, 0], [0, 3]])
    assert repr(series) == "TiltSeries(3 images of 6 x 8 pixels of 4 Å, -3° to 3°)"
    chosen = series.take(series.table["order"] < 2)
    assert (len(chosen), chosen.tilts.tolist(), chosen.transforms[1].tolist()) == (2, [0, 3], [[2, 0], [0, 3]])
    np.testing.assert_array_equal(chosen.images, IMAGES[1:])


def test_without_tilts_those_of_the_metadata_are_used(folder) -> None:
    series = tiltseries.read(folder / "stack.mrc", metadata=folder / "stack.mdoc")
    assert series.tilts.tolist() == [0.01, 3.2, -3.1]
    assert series.transforms is None
    assert tiltseries.read(folder / "stack.mrc", tilts=folder / "stack.tlt").table["dose"].isna().all()


def test_images_that_warp_does_not_use_are_not_in_its_stacks(folder) -> None:
    lists = {"Angles": "-3\n-1\n0\n3", "Dose": "9\n3\n0\n6", "UseTilt": "True\nFalse\nTrue\nTrue"}
    text = "".join(f"<{name}>{values}</{name}>" for name, values in lists.items())
    (folder / "stack.xml").write_text(f"<TiltSeries>{text}</TiltSeries>")
    for given in ({}, {"tilts": folder / "stack.tlt"}):
        series = tiltseries.read(folder / "stack.mrc", metadata=folder / "stack.xml", **given)
        assert series.tilts.tolist() == ANGLES
        assert series.dose.tolist() == [9, 0, 6]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("stack.tlt", "-3\n0\n3.8\n", "stack.tlt and .*stack.mdoc contradict each other.*1 differ.*first 3.8° against 3.2°"),
        ("stack.tlt", "-3\n0\n", "stack.tlt holds 2 tilts, but .*stack.mdoc 3"),
        ("stack.xf", "1 0 0 1 0 0\n", "stack.mrc holds 3 images, but .*stack.xf 1 transforms"),
        ("stack.mdoc", MDOC + "[ZValue = 3]\nTiltAngle = 6\n", "stack.tlt holds 3 tilts, but .*stack.mdoc 4"),
    ],
)
def test_contradictions_name_both_files(folder, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    paths = {name: folder / f"stack.{end}" for name, end in (("tilts", "tlt"), ("transforms", "xf"), ("metadata", "mdoc"))}
    with pytest.raises(ValueError, match=message):
        tiltseries.read(folder / "stack.mrc", **paths)


def test_what_is_missing_is_asked_for(folder) -> None:
    with pytest.raises(ValueError, match="give tilts= or metadata="):
        tiltseries.read(folder / "stack.mrc")
    with pytest.raises(ValueError, match=r"end in .mdoc, .xml, .tomostar, not '.txt'"):
        tiltseries.read(folder / "stack.mrc", metadata=folder / "stack.txt")
    (folder / "stack.mdoc").write_text(MDOC + "[ZValue = 3]\nTiltAngle = 6\n")
    with pytest.raises(ValueError, match=r"stack.mrc holds 3 images, but .*stack.mdoc 4 tilts"):
        tiltseries.read(folder / "stack.mrc", metadata=folder / "stack.mdoc")
    with pytest.raises(ValueError, match=r"pixel_size=1\.7 was given"):
        tiltseries.read(folder / "stack.mrc", tilts=folder / "stack.tlt", pixel_size=1.7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES[0]}, r"shape \(n, y, x\), got shape \(6, 8\)"),
        ({"images": IMAGES[:2]}, "got 3 rows for 2 images"),
        ({"table": tilts.table(ANGLES).drop(columns=["dose", "order"])}, "there is no order, dose"),
        ({"table": tilts.table([0.0, np.nan, 100.0])}, r"within ±90°, got \[nan, 100.0\]"),
        ({"pixel_size": 0.0}, "pixel_size must be a positive number of Å, got 0.0"),
        ({"transforms": (np.ones((3, 2, 2)), np.ones((3, 2)))}, "cannot be inverted"),
    ],
)
def test_a_series_that_does_not_hold_together_is_refused(change: dict, message: str) -> None:
    whole = {"images": IMAGES, "table": tilts.table(ANGLES), "pixel_size": 4.0}
    with pytest.raises(ValueError, match=message):
        TiltSeries(**(whole | change))


def test_a_tilt_table_fills_in_what_follows() -> None:
    table = tilts.table(ANGLES, order=[2, 0, 1], exposure=[5, 3, 4], colour="red")
    assert table["dose"].tolist() == [7, 0, 3]
    assert table["colour"].tolist() == ["red"] * 3
    # Doses that are equal do not tell an order.
    assert tilts.table(ANGLES, dose=[0, 0, 0])[["order", "exposure"]].isna().all(axis=None)


@pytest.mark.network
def test_a_measured_series_was_dose_symmetric() -> None:
    sample = samples.fetch("empiar_10499_ts01")
    paths = {"tilts": sample.tilts, "transforms": sample.transforms, "metadata": sample.metadata}
    series = tiltseries.read(sample.stack, **paths, pixel_size=sample.pixel_size)
    scheme = dose_symmetric(-60, 60, step=3.0, dose=123.0)
    assert len(series) == 41
    np.testing.assert_allclose(series.tilts, scheme["tilt"], atol=0.05)
    np.testing.assert_array_equal(series.table["order"], scheme["order"])
    np.testing.assert_allclose(series.dose, scheme["dose"], atol=1e-6)
    assert (np.abs(series.defocus - 1.8) < 0.4).all()
    assert series.table["image"].iloc[0] == "TS_01_041_-60.0.tif"
