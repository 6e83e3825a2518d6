"""Rows of metadata go to the images that they are of, or are refused; what metadata warn of is told, and nothing else."""

import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serialem import mdoc
from test_warp import defocus, xml

from tomolab.io.tilts import imod, tables
from tomolab.tomograms import TiltSeries, tilt_series

ANGLES = np.arange(-6.0, 7, 3)
ORDER = np.array([4, 2, 0, 1, 3])
NAMES = [f"TS_01_{turn:03d}.tif" for turn in ORDER]


@pytest.fixture
def folder(tmp_path) -> Path:
    with mrcfile.new(tmp_path / "a.st") as file:
        file.set_data(np.random.default_rng(0).normal(size=(5, 6, 8)).astype(np.float32))
        file.voxel_size = 4.0
    (tmp_path / "a.tlt").write_text("".join(f"{angle}\n" for angle in ANGLES))
    return tmp_path


def warp(folder: Path, angles, rows=range(5)) -> Path:
    """An .xml of these angles of Warp, whose rows are of these images."""
    dose = 3.0 * ORDER[list(rows)]
    path = folder / "a.xml"
    path.write_text(
        xml(list(angles), Dose=dose, MoviePath=[NAMES[row] for row in rows], grid=defocus(2 + 0.1 * np.array(rows)))
    )
    return path


def right(series: TiltSeries) -> bool:
    """Whether each image has its own dose, defocus and name."""
    return (
        series.table["image"].tolist() == NAMES
        and series.dose.tolist() == (3.0 * ORDER).tolist()
        and np.allclose(series.defocus, 2 + 0.1 * np.arange(5))
    )


def test_rows_that_agree_are_taken_whatever_the_range(folder) -> None:
    series = tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", metadata=warp(folder, -ANGLES))
    assert right(series)
    assert series.tilts.tolist() == ANGLES.tolist()
    # Refined tilts are a little off.
    (folder / "a.tlt").write_text("".join(f"{angle + 0.4}\n" for angle in ANGLES))
    assert right(tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", metadata=warp(folder, -ANGLES)))


@pytest.mark.parametrize(
    ("angles", "rows", "answer", "message"),
    [
        (ANGLES, range(5), "stack", "same sign in another order, and with the opposite sign, row by row"),
        (
            -ANGLES[[4, 0, 3, 1, 2]],
            [4, 0, 3, 1, 2],
            "tilt",
            "same sign in another order, and with the opposite sign in another one",
        ),
        (ANGLES[[4, 0, 3, 1, 2]], [4, 0, 3, 1, 2], "opposite tilt", "and with the opposite sign in another one"),
        (-ANGLES[::-1], range(4, -1, -1), "tilt", "and with the opposite sign, row by row"),
    ],
)
def test_a_symmetric_range_in_another_order_asks(folder, angles, rows, answer: str, message: str) -> None:
    given = {"tilts": folder / "a.tlt", "metadata": warp(folder, angles, rows)}
    with pytest.raises(ValueError, match=f"a.tlt and .*a.xml do not tell .*{message}.*metadata_order="):
        tilt_series.read(folder / "a.st", **given)
    options = {"metadata_order": answer}
    if answer == "tilt":
        assert right(tilt_series.read(folder / "a.st", **given, **options))
    else:
        with pytest.warns(UserWarning, match="have opposite signs; those of .*a.tlt count"):
            assert right(tilt_series.read(folder / "a.st", **given, **options))
        assert right(tilt_series.read(folder / "a.st", **given, **options, invert_tilts=True))


def test_a_range_that_fits_one_way_is_taken(folder) -> None:
    lopsided = ANGLES + 9
    (folder / "a.tlt").write_text("".join(f"{angle}\n" for angle in lopsided))
    rows = [2, 3, 1, 0, 4]
    assert right(tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", metadata=warp(folder, -lopsided[rows], rows)))
    for angles, order in ((lopsided, range(5)), (lopsided[rows], rows)):
        with pytest.raises(ValueError, match="agree with the opposite sign only"):
            tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", metadata=warp(folder, angles, order))


def test_answers_are_held_against_the_tilts(folder) -> None:
    given = {"tilts": folder / "a.tlt", "metadata": warp(folder, -ANGLES[[4, 0, 3, 1, 2]], [4, 0, 3, 1, 2])}
    with pytest.raises(ValueError, match=r"contradict each other: of 5 tilts .*first -6° against 6°"):
        tilt_series.read(folder / "a.st", **given, metadata_order="stack")
    with pytest.raises(ValueError, match="must be one of 'stack', 'tilt', 'opposite tilt', got 'rows'"):
        tilt_series.read(folder / "a.st", **given, metadata_order="rows")
    given["metadata"] = warp(folder, -ANGLES - 4)
    for order in (None, "stack", "tilt", "opposite tilt"):
        with pytest.raises(ValueError, match="contradict each other"):
            tilt_series.read(folder / "a.st", **given, metadata_order=order)


def test_serialem_has_the_sign_of_imod(folder) -> None:
    """No question is asked: tilts that are all different tell the images."""
    text = mdoc(ANGLES[[2, 3, 1, 0, 4]].tolist(), title="", PriorRecordDose=[0, 3, 6, 9, 12], ExposureDose=[3] * 5)
    (folder / "a.mdoc").write_text(text)
    series = tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", metadata=folder / "a.mdoc")
    assert series.dose.tolist() == [9, 6, 0, 3, 12]
    # Two images at one tilt, as of a series that ends where it began.
    (folder / "a.tlt").write_text("-6\n0\n0.01\n3\n6\n")
    (folder / "a.mdoc").write_text(mdoc([0.0, 3.0, -6.0, 6.0, 0.02], title="", PriorRecordDose=[0, 3, 6, 9, 12]))
    with pytest.raises(ValueError, match=r"there are several about 0°.*metadata_order='stack'"):
        tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", metadata=folder / "a.mdoc")
    (folder / "a.mdoc").write_text(mdoc([-6.0, 0.0, 0.02, 3.0, 6.0], title="", PriorRecordDose=[6, 0, 12, 3, 9]))
    series = tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", metadata=folder / "a.mdoc")
    assert series.dose.tolist() == [6, 0, 12, 3, 9]


def test_names_tell_more_than_tilts(folder) -> None:
    """Both files name the images, so that a symmetric range in another order is no question."""
    rows = [4, 0, 3, 1, 2]
    path = warp(folder, -ANGLES[rows], rows)
    path.write_text(path.read_text().replace("</Angles>", "</Angles>\n<AxisAngle>0\n0\n0\n0\n0</AxisAngle>"))
    series = tilt_series.read(folder / "a.st", alignment=path)
    assert series.table["image"].tolist() == [NAMES[row] for row in rows]
    movies = [f"X:\\frames\\{name[:-4]}.eer" for name in NAMES]
    for sign in (1, -1):
        (folder / "a.mdoc").write_text(mdoc((sign * ANGLES).tolist(), title="", SubFramePath=movies, PriorRecordDose=3 * ORDER))
        given = {"alignment": path, "metadata": folder / "a.mdoc"}
        series = tilt_series.read(folder / "a.st", **given, invert_tilts=sign < 0)
        assert series.dose.tolist() == (3.0 * ORDER[rows]).tolist()
    (folder / "a.mdoc").write_text(mdoc((ANGLES + 2).tolist(), title="", SubFramePath=movies))
    with pytest.raises(ValueError, match="contradict each other"):
        tilt_series.read(folder / "a.st", **given)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.floats(1.0, 4.0), min_size=2, max_size=12),
    low=st.floats(-60, 10),
    seed=st.randoms(use_true_random=False),
    sign=st.sampled_from([1, -1]),
)
def test_a_row_is_never_taken_for_another(steps, low, seed, sign: int) -> None:
    """In any order and with either sign, each image gets its own row, or the files are refused."""
    angles = np.round(low + np.cumsum([0, *steps]), 2)
    rows = list(range(len(angles)))
    seed.shuffle(rows)
    table = imod.table(sign * angles[rows], image=[str(row) for row in rows])
    known = imod.table(angles)
    try:
        found = tables.joined(known, table, names=("a.tlt", "a.xml"))
    except ValueError:
        return
    assert sign == 1
    assert found["image"].tolist() == [str(row) for row in range(len(angles))]


@pytest.mark.parametrize("axis", [0.0, 0.4, -0.9, 180.0, 179.5, -180.0, 4.3, 85.3, -94.6, 90.0, 175.0])
def test_an_axis_away_from_y_is_told(folder, axis: float) -> None:
    title = f"[T =     Tilt axis angle = {axis}, binning = 1  spot = 8  camera = 2]\n"
    (folder / "a.mdoc").write_text(mdoc(ANGLES.tolist(), title=title))
    (folder / "b.tomostar").write_text(
        "data_\n\nloop_\n_wrpAngleTilt #1\n_wrpAxisAngle #2\n" + "".join(f"{-angle} {axis}\n" for angle in ANGLES)
    )
    (folder / "a.xf").write_text("1 0 0 1 0 0\n" * 5)
    for metadata in (folder / "a.mdoc", folder / "b.tomostar"):
        if abs(axis) > 1:
            for way in ({}, {"tilts": folder / "a.tlt"}):
                with pytest.warns(
                    UserWarning, match=rf"the tilt axis lies at {axis:g}° from y.*transforms=.*alignment=.*aligned=True"
                ):
                    tilt_series.read(folder / "a.st", metadata=metadata, **way)
        else:
            tilt_series.read(folder / "a.st", metadata=metadata)
        # Nothing is told where the images are aligned.
        tilt_series.read(folder / "a.st", metadata=metadata, aligned=True)
        tilt_series.read(folder / "a.st", metadata=metadata, transforms=folder / "a.xf")


def test_an_axis_that_is_not_sure_is_told(folder) -> None:
    (folder / "a.mdoc").write_text(mdoc(ANGLES.tolist(), title="[T = TiltAxisAngle = -173.9 Binning = 1]\n"))
    with pytest.warns(UserWarning, match=r"do not say for sure where the tilt axis lies \(TiltAxisAngle = -173.9\)"):
        tilt_series.read(folder / "a.st", metadata=folder / "a.mdoc")
    (folder / "a.mdoc").write_text(mdoc(ANGLES.tolist(), title="", RotationAngle=[85.0] * 5))
    with pytest.warns(UserWarning, match=r"do not say for sure where the tilt axis lies \(RotationAngle = 85\)"):
        tilt_series.read(folder / "a.st", metadata=folder / "a.mdoc")


def test_outliers_are_named(folder) -> None:
    path = warp(folder, -ANGLES)
    path.write_text(xml(list(-ANGLES), grid=defocus([3.0, 3.1, 9.5, 2.9, 3.0])))
    with pytest.warns(
        UserWarning, match=r"in .*a.xml some images are far .*: image 2 at 0°: defocus 9.5 µm \(median 3\); leave"
    ):
        series = tilt_series.read(folder / "a.st", metadata=path)
    found = tilt_series.outliers(series.table)
    assert found.to_numpy().tolist() == [[2, 0.0, "defocus", 9.5, 3.0]]
    # One that is left out is not told; numbers are those of the stack.
    assert len(tilt_series.read(folder / "a.st", metadata=path, exclude=[2])) == 4
    (folder / "a.mdoc").write_text(mdoc(ANGLES.tolist(), title="", ExposureDose=[3, 3, 3, 3, 6.5]))
    with pytest.warns(UserWarning, match=r"image 4 at 6°: exposure 6.5 e/Å² \(median 3\)"):
        series = tilt_series.read(folder / "a.st", metadata=folder / "a.mdoc")
    assert tilt_series.outliers(series.take([0, 2, 4]).table).empty


def test_usual_series_have_no_outliers() -> None:
    angles = np.arange(-60, 61, 3.0)
    rng = np.random.default_rng(1)
    exposure = 3 / np.cos(np.radians(angles))
    usual = imod.table(angles, order=np.argsort(np.abs(angles)), exposure=exposure, defocus=rng.normal(2, 0.2, 41))
    assert tilt_series.outliers(usual).empty
    assert tilt_series.outliers(imod.table(angles)).empty
    # An image that is absent leaves a gap in the dose, which is no exposure of the one before it.
    dose = np.delete(3.0 * np.arange(42), 20)
    assert tilt_series.outliers(imod.table(angles, dose=dose), gaps=True).empty
    assert tilt_series.outliers(imod.table(angles, dose=dose))["value"].tolist() == [6]
    jump = np.where(np.arange(41) > 20, 50, 0) + 3.0 * np.arange(41)
    assert tilt_series.outliers(imod.table(angles, dose=jump), gaps=True)["value"].tolist() == [53]


def series(**columns) -> TiltSeries:
    images = np.zeros((5, 4, 4), dtype=np.float32) + np.arange(5)[:, None, None]
    return TiltSeries(images, imod.table(ANGLES, **columns), 4.0)


def test_images_are_chosen_by_tilt_and_dose() -> None:
    whole = series(dose=3.0 * ORDER)
    chosen = whole.select(tilts=(-3, 6), dose=(0, 6))
    assert chosen.tilts.tolist() == [-3, 0, 3]
    assert chosen.images[:, 0, 0].tolist() == [1, 2, 3]
    told = [[0, -6.0, "dose 12 not in 0 to 6"], [4, 6.0, "dose 9 not in 0 to 6"]]
    assert chosen.excluded.to_numpy().tolist() == told
    # What was left out before stays told, by its number in the stack.
    again = chosen.select(tilts=(0, 90))
    assert again.excluded["number"].tolist() == [0, 1, 4]
    assert again.excluded["reason"].tolist()[1] == "tilt -3 not in 0 to 90"
    assert len(whole.select()) == 5
    with pytest.raises(ValueError, match=r"no image of this series is left: tilt -3 not in 20 to 30"):
        whole.select(tilts=(20, 30))
    with pytest.raises(ValueError, match="limits go from the lower to the higher number, got 5 to 2"):
        whole.select(dose=(5, 2))
    with pytest.raises(ValueError, match="the dose of 5 of 5 images is not known"):
        series().select(dose=(0, 50))


def test_selection_counts_in_the_stack(folder) -> None:
    (folder / "a.mdoc").write_text(mdoc(ANGLES.tolist(), title="", PriorRecordDose=3 * ORDER))
    read = tilt_series.read(folder / "a.st", metadata=folder / "a.mdoc", exclude=[1])
    found = read.select(tilts=(-90, 0)).excluded
    assert found["number"].tolist() == [1, 3, 4]
    assert found["reason"].tolist()[0] == "excluded"
    # Also of images that were taken in another order.
    assert read.take([3, 0]).select(tilts=(0, 9)).excluded["number"].tolist() == [0, 1]


COMMAND = "$setenv IMOD_OUTPUT_FORMAT MRC\n$tilt -StandardInput\nTILTFILE {name}\n{lines}\n$if (-e ./savework) ./savework\n"


def test_what_tilt_com_adds_to_the_tilts(folder) -> None:
    com = folder / "tilt.com"
    (folder / "a.mdoc").write_text(mdoc(ANGLES.tolist(), title="", PriorRecordDose=3 * ORDER))
    given = {"tilts": folder / "a.tlt", "metadata": folder / "a.mdoc", "exclude": com}
    com.write_text(COMMAND.format(name="a.tlt", lines="OFFSET 4.5\nXAXISTILT 0.0\nEXCLUDELIST2 1"))
    series = tilt_series.read(folder / "a.st", **given)
    assert series.tilts.tolist() == (ANGLES[1:] + 4.5).tolist()
    assert series.dose.tolist() == (3.0 * ORDER[1:]).tolist()
    for name, lines, message in (
        ("b.tlt", "OFFSET 4.5", r"adds 4.5° \(OFFSET\) to the tilts of b.tlt; the tilts here are those of .*a.tlt"),
        ("a.tlt", "XAXISTILT 2.03", r"line 4: XAXISTILT 2.03 turns the specimen about x.*exclude="),
        ("a.tlt", "offset 0 12", r"line 4: OFFSET 0 12 moves the tilt axis"),
        ("a.tlt", "OFFSET far", "line 4: expected numbers after OFFSET, got 'far'"),
        ("a.tlt", "OFFSET 1 2 3", "line 4: expected one or two numbers after OFFSET"),
    ):
        com.write_text(COMMAND.format(name=name, lines=lines))
        with pytest.raises(ValueError, match=message):
            tilt_series.read(folder / "a.st", **given)
    com.write_text(COMMAND.format(name="a.tlt", lines="OFFSET 4.5"))
    with pytest.raises(ValueError, match="the tilts here are not given by tilts="):
        tilt_series.read(folder / "a.st", metadata=folder / "a.mdoc", exclude=com)
    # Zeros, and options of other programs, add nothing.
    com.write_text(
        "$tiltalign -StandardInput\nXAxisTilt 3\nOFFSET 2\n" + COMMAND.format(name="b.tlt", lines="OFFSET 0.0 0\nXAXISTILT 0")
    )
    assert tilt_series.read(folder / "a.st", **given).tilts.tolist() == ANGLES.tolist()


def test_what_moves_the_tomogram_of_the_other_program_is_told(folder) -> None:
    com = folder / "tilt.com"
    com.write_text(COMMAND.format(name="a.tlt", lines="SHIFT 0.0 -12.5"))
    with pytest.warns(UserWarning, match=r"line 4: SHIFT 0.0 -12.5 moves the tomogram of IMOD"):
        series = tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", exclude=com)
    assert series.tilts.tolist() == ANGLES.tolist()
    com.write_text(COMMAND.format(name="a.tlt", lines="SHIFT 0.0 0.0"))
    tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", exclude=com)
    rows = "".join(f"{row} 0 1 0 0 1 1 1 0 {angle}\n" for row, angle in enumerate(ANGLES))
    (folder / "a.aln").write_text(f"# BetaOffset = 1.25\n{rows}")
    with pytest.warns(UserWarning, match=r"turns the specimen about x by 1.25° \(BetaOffset\), which is left aside"):
        tilt_series.read(folder / "a.st", alignment=folder / "a.aln")


def test_a_tomogram_is_chosen_from_star_files_alone(folder) -> None:
    with pytest.raises(ValueError, match=r"tomogram='TS_01' chooses from a .star file of several tomograms, but there is none"):
        tilt_series.read(folder / "a.st", tilts=folder / "a.tlt", tomogram="TS_01")


def test_nothing_is_warned_of_without_need(folder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = tilt_series.read(folder / "a.st", tilts=folder / "a.tlt")
    assert isinstance(read.table, pd.DataFrame)
