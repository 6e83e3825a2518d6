"""A tilt series holds together, is read from its files, and files that contradict each other are refused."""

import mrcfile
import numpy as np
import pytest

from tomolab import tomograms
from tomolab.io import download
from tomolab.io.tilts import imod
from tomolab.tomograms import TiltSeries, dose_symmetric, tilt_series

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
    series = tilt_series.read(folder / "stack.mrc", **paths)
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
    series = tilt_series.read(folder / "stack.mrc", metadata=folder / "stack.mdoc")
    assert series.tilts.tolist() == [0.01, 3.2, -3.1]
    assert series.transforms is None
    assert tilt_series.read(folder / "stack.mrc", tilts=folder / "stack.tlt").table["dose"].isna().all()


def test_images_that_warp_does_not_use_are_not_in_its_stacks(folder) -> None:
    lists = {"Angles": "3\n1\n0\n-3", "Dose": "9\n3\n0\n6", "UseTilt": "True\nFalse\nTrue\nTrue"}
    text = "".join(f"<{name}>{values}</{name}>" for name, values in lists.items())
    (folder / "stack.xml").write_text(f"<TiltSeries>{text}</TiltSeries>")
    for given in ({}, {"tilts": folder / "stack.tlt"}):
        series = tilt_series.read(folder / "stack.mrc", metadata=folder / "stack.xml", **given)
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
        tilt_series.read(folder / "stack.mrc", **paths)


def test_what_is_missing_is_asked_for(folder) -> None:
    with pytest.raises(ValueError, match="give tilts=, alignment= or metadata="):
        tilt_series.read(folder / "stack.mrc")
    with pytest.raises(ValueError, match=r"end in .mdoc, .xml, .tomostar, .star, not '.txt'"):
        tilt_series.read(folder / "stack.mrc", metadata=folder / "stack.txt")
    (folder / "stack.mdoc").write_text(MDOC + "[ZValue = 3]\nTiltAngle = 6\n")
    with pytest.raises(ValueError, match=r"stack.mrc holds 3 images, but .*stack.mdoc 4 tilts"):
        tilt_series.read(folder / "stack.mrc", metadata=folder / "stack.mdoc")
    with pytest.raises(ValueError, match=r"pixel_size=1\.7 was given"):
        tilt_series.read(folder / "stack.mrc", tilts=folder / "stack.tlt", pixel_size=1.7)


ALN = "# RawSize = 16 12 3\n# DarkFrame = 2 2 5.00\n# SEC ROT\n"


def test_aretomo_brings_tilts_transforms_and_dark_images(folder) -> None:
    rows = "  1  90.0 1.0  4.0 -2.0 1 1 1 0   2.0\n  0  0.0 1.0  6.0 8.0 1 1 1 0  -1.0\n"
    (folder / "stack.aln").write_text(ALN + rows)
    series = tilt_series.read(folder / "stack.mrc", alignment=folder / "stack.aln", metadata=folder / "stack.mdoc")
    # The tilts of the .mdoc are 0.01, 3.2 and -3.1: two degrees lower, and the dark image had the highest.
    assert series.tilts.tolist() == [-1, 2]
    assert series.dose.tolist() == [6, 0]
    np.testing.assert_array_equal(series.images, IMAGES[:2])
    # The stack is binned twofold.
    np.testing.assert_allclose(series.transforms[1], [[-3, -4], [1, 2]], atol=1e-12)
    np.testing.assert_allclose(series.transforms[0][1], [[0, 1], [-1, 0]], atol=1e-12)
    assert series.excluded.to_numpy().tolist() == [[2, 5.0, "dark (AreTomo)"]]
    assert repr(series).endswith("-1° to 2°, without 1 of the stack)")


def test_a_stack_without_its_dark_images_is_taken_as_it_is(folder) -> None:
    rows = "3 0 1 2 0 1 1 1 0 3\n1 0 1 0 0 1 1 1 0 -3\n2 0 1 4 0 1 1 1 0 0\n"
    (folder / "stack.aln").write_text("# RawSize = 8 6 4\n# DarkFrame = 3 4 6.0\n# SEC ROT\n" + rows)
    series = tilt_series.read(folder / "stack.mrc", alignment=folder / "stack.aln")
    assert series.tilts.tolist() == [-3, 0, 3]
    assert series.transforms[1].tolist() == [[0, 0], [-4, 0], [-2, 0]]
    assert len(series.excluded) == 0


@pytest.mark.parametrize(
    ("title", "given", "message"),
    [
        ("# RawSize = 16 20 3\n# DarkFrame = 2 2 3.0\n", {}, r"8 x 6 pixels, but .*stack.aln is of \(16, 20\)"),
        ("# DarkFrame = 2 2 3.0\n# DarkFrame = 3 3 6.0\n", {"images": 4}, ""),
        ("# DarkFrame = 2 2 3.0\n# DarkFrame = 3 3 6.0\n", {}, "holds 3 images, but .*stack.aln is of 4, of which 2 are dark"),
        ("# DarkFrame = 2 2 3.0\n", {"tilts": "stack.tlt"}, "stack.aln holds tilts and transforms; leave out"),
        ("# DarkFrame = 2 2 9.0\n", {"metadata": "stack.mdoc"}, "stack.aln and .*stack.mdoc contradict each other"),
    ],
)
def test_an_alignment_of_another_stack_is_refused(folder, title: str, given: dict, message: str) -> None:
    (folder / "stack.aln").write_text(title + "1 0 1 0 0 1 1 1 0 0\n0 0 1 0 0 1 1 1 0 -3\n")
    if given.pop("images", 3) == 4:
        with mrcfile.new(folder / "stack.mrc", overwrite=True) as file:
            file.set_data(np.concatenate([IMAGES, IMAGES[:1]]))
            file.voxel_size = 4.0
        series = tilt_series.read(folder / "stack.mrc", alignment=folder / "stack.aln")
        assert series.excluded["number"].tolist() == [2, 3]
        return
    paths = {name: folder / value for name, value in given.items()}
    with pytest.raises(ValueError, match=message):
        tilt_series.read(folder / "stack.mrc", alignment=folder / "stack.aln", **paths)


def test_a_binned_aretomo_series_becomes_the_volume_that_it_was_made_of(tmp_path) -> None:
    """Raw images are made by AreTomo's own words, a spot at R x + T; the spot is found where it was in the volume."""
    rng = np.random.default_rng(6)
    angles = np.arange(-50, 51, 2.5)
    place, size = np.array([-7.0, 5.0, 11.0]), 64
    turns, shifts = rng.uniform(80, 90, len(angles)), rng.uniform(-6, 6, (len(angles), 2))
    row, column = np.indices((size, size)) - (size - 1) / 2
    images, lines = [], ["# AreTomo Alignment / Priims bprmMn\n", f"# RawSize = {4 * size} {4 * size} {len(angles)}\n"]
    for i, (tilt, turn, shift) in enumerate(zip(angles, turns, shifts, strict=True)):
        z, y, x = place
        ax, ay = x * np.cos(np.radians(tilt)) + z * np.sin(np.radians(tilt)), y
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        raw = np.array([c * ax - s * ay, s * ax + c * ay]) + shift
        images.append(np.exp(-((column - raw[0]) ** 2 + (row - raw[1]) ** 2) / 4))
        lines.append(f"{i:5d} {turn:9.4f} 1.00000 {4 * shift[0]:9.3f} {4 * shift[1]:9.3f} 1 1 1 0 {tilt:8.2f}\n")
    order = rng.permutation(len(angles))
    with mrcfile.new(tmp_path / "s.mrc") as file:
        file.set_data(np.array(images, dtype=np.float32))
        file.voxel_size = 10.0
    (tmp_path / "s.aln").write_text("".join(lines[:2] + [lines[2 + i] for i in order]))
    series = tilt_series.read(tmp_path / "s.mrc", alignment=tmp_path / "s.aln", exclude=[0, 5])
    options = {"transforms": series.transforms, "voxel_size": 10.0, "shape": (40, size, size), "progress": False}
    found = tomograms.reconstruct(series.images, series.tilts, invert=False, **options)
    bright = np.where(found.data > found.data.max() / 2, found.data, 0)
    middle = (np.indices(found.shape) * bright).sum((1, 2, 3)) / bright.sum() - np.array(found.shape) // 2
    np.testing.assert_allclose(middle, place, atol=0.2)


def test_images_are_left_out_and_told(folder) -> None:
    (folder / "tilt.com").write_text("$tilt -StandardInput\nTILTFILE stack.tlt\nEXCLUDELIST2 3\n")
    given = {"tilts": folder / "stack.tlt", "transforms": folder / "stack.xf", "metadata": folder / "stack.mdoc"}
    for exclude in (folder / "tilt.com", str(folder / "tilt.com"), [2], np.array([2, 2])):
        series = tilt_series.read(folder / "stack.mrc", exclude=exclude, **given)
        assert series.tilts.tolist() == [-3, 0]
        assert series.dose.tolist() == [6, 0]
        assert series.transforms[1].tolist() == [[0, 0], [2, 0]]
        assert series.excluded.to_numpy().tolist() == [[2, 3.0, "excluded"]]
    assert len(tilt_series.read(folder / "stack.mrc", exclude=[], **given)) == 3
    for wrong, message in (([3], "go from 0 to 2, got"), ([-1], "go from 0 to 2"), ([0.5], "go from"), ([[1]], "go from")):
        with pytest.raises(ValueError, match=message):
            tilt_series.read(folder / "stack.mrc", exclude=wrong, **given)
    (folder / "tilt.com").write_text("$tilt\nEXCLUDELIST 4\n")
    with pytest.raises(ValueError, match=r"tilt.com: numbers of images of .*stack.mrc go from 0 to 2, got \[3\]"):
        tilt_series.read(folder / "stack.mrc", exclude=folder / "tilt.com", **given)
    with pytest.raises(ValueError, match=r"no image of .* is left: excluded"):
        tilt_series.read(folder / "stack.mrc", exclude=range(3), **given)


def test_images_that_warp_does_not_use_are_left_out_of_the_whole_stack(folder) -> None:
    lists = {"Angles": "3\n0\n-3", "Dose": "6\n0\n3", "UseTilt": "True\nTrue\nFalse"}
    text = "".join(f"<{name}>{values}</{name}>" for name, values in lists.items())
    (folder / "stack.xml").write_text(f"<TiltSeries>{text}</TiltSeries>")
    series = tilt_series.read(folder / "stack.mrc", metadata=folder / "stack.xml")
    assert series.tilts.tolist() == [-3, 0]
    assert series.excluded["reason"].tolist() == ["not used by Warp"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES[0]}, r"shape \(n, y, x\), got shape \(6, 8\)"),
        ({"images": IMAGES[:2]}, "got 3 rows for 2 images"),
        ({"table": imod.table(ANGLES).drop(columns=["dose", "order"])}, "there is no order, dose"),
        ({"table": imod.table([0.0, np.nan, 100.0])}, r"within ±90°, got \[nan, 100.0\]"),
        ({"pixel_size": 0.0}, "pixel_size must be a positive number of Å, got 0.0"),
        ({"transforms": (np.ones((3, 2, 2)), np.ones((3, 2)))}, "cannot be inverted"),
    ],
)
def test_a_series_that_does_not_hold_together_is_refused(change: dict, message: str) -> None:
    whole = {"images": IMAGES, "table": imod.table(ANGLES), "pixel_size": 4.0}
    with pytest.raises(ValueError, match=message):
        TiltSeries(**(whole | change))


def test_a_tilt_table_fills_in_what_follows() -> None:
    table = imod.table(ANGLES, order=[2, 0, 1], exposure=[5, 3, 4], colour="red")
    assert table["dose"].tolist() == [7, 0, 3]
    assert table["colour"].tolist() == ["red"] * 3
    # Doses that are equal do not tell an order.
    assert imod.table(ANGLES, dose=[0, 0, 0])[["order", "exposure"]].isna().all(axis=None)


@pytest.mark.network
def test_a_measured_series_was_dose_symmetric() -> None:
    sample = download.fetch_sample("empiar_10499_ts01")
    paths = {"transforms": sample.transforms, "metadata": sample.metadata}
    series = tilt_series.read(sample.stack, **paths, pixel_size=sample.pixel_size)
    scheme = dose_symmetric(-60, 60, step=3.0, dose=123.0)
    assert len(series) == 41
    # Its first image is at -60° of the stage, which Warp took for 60° of IMOD.
    np.testing.assert_allclose(series.tilts, -scheme["tilt"], atol=0.05)
    np.testing.assert_array_equal(series.table["order"], scheme["order"])
    np.testing.assert_allclose(series.dose, scheme["dose"], atol=1e-6)
    assert (np.abs(series.defocus - 1.8) < 0.4).all()
    assert series.table["image"].iloc[0] == "TS_01_041_-60.0.tif"
    # Warp went on from the alignment of the .xf.
    warp = tilt_series.read(sample.stack, alignment=sample.metadata, pixel_size=sample.pixel_size)
    np.testing.assert_array_equal(warp.tilts, series.tilts)
    np.testing.assert_allclose(warp.transforms[0], series.transforms[0], atol=1e-5)
    np.testing.assert_allclose(warp.transforms[1], series.transforms[1], atol=6)
    with pytest.raises(ValueError, match="the opposite sign, row by row"):
        tilt_series.read(sample.stack, **paths, tilts=sample.tilts, pixel_size=sample.pixel_size)
