"""SerialEM's .mdoc files come back as they were written, and a wrong line is named."""

from datetime import datetime, timedelta
from pathlib import Path

import mdocfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab import io

TITLE = """PixelSpacing = 1.7
Voltage = 300
ImageFile = TS_01.mrc

[T = SerialEM: Digitized on a microscope]

[T =     Tilt axis angle = -86.7, binning = 1  spot = 8  camera = 2]
"""


def mdoc(tilts, *, title: str = TITLE, **keys) -> str:
    """Sections with a value of each key for each image; None leaves the key out."""
    parts = [title]
    for i, tilt in enumerate(tilts):
        lines = [f"[ZValue = {i}]", f"TiltAngle = {tilt!r}", "StagePosition = 1.5 -2.5"]
        lines += [f"{key} = {values[i]}" for key, values in keys.items() if values[i] is not None]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def read(folder: Path, text: str, **options):
    (folder / "TS_01.mdoc").write_text(text, **options)
    return io.tilts.read_mdoc(folder / "TS_01.mdoc")


def test_what_is_known_of_each_image(tmp_path) -> None:
    movies = ["D:\\frames\\a_0.tif", "/data/frames/b_3.tif", "c_-3.tif"]
    doses = {"ExposureDose": [3.0, 3.0, 3.5], "PriorRecordDose": [0, 3, 6]}
    found = read(tmp_path, mdoc([0.0, 3.01, -2.99], SubFramePath=movies, TargetDefocus=[-4, -4, -4.5], **doses))
    assert found["tilt"].tolist() == [0.0, 3.01, -2.99]
    assert found["order"].tolist() == [0, 1, 2]
    assert found["dose"].tolist() == [0, 3, 6]
    assert found["exposure"].tolist() == [3.0, 3.0, 3.5]
    assert found["defocus"].isna().all()
    assert found["target_defocus"].tolist() == [4, 4, 4.5]
    assert found["axis"].tolist() == [-86.7] * 3
    assert found["image"].tolist() == ["a_0.tif", "b_3.tif", "c_-3.tif"]
    assert found["use"].all()


def test_dates_give_the_order_of_a_sorted_stack(tmp_path) -> None:
    dates = ["25-Mar-21  17:02:46", "25-Mar-21  17:00:46", "2021-Mar-25  17:01:46"]
    found = read(tmp_path, mdoc([-3.0, 0.0, 3.0], DateTime=dates, ExposureDose=[2, 2, 2]))
    assert found["order"].tolist() == [2, 0, 1]
    assert found["dose"].tolist() == [4, 0, 2]


def test_what_the_file_does_not_say_is_unknown(tmp_path) -> None:
    """A dose of 0 means that the camera was not calibrated."""
    found = read(
        tmp_path, mdoc([-3.0, 0.0, 3.0], title="", ExposureDose=[0, 0, 0], DateTime=["soon", None, "25-Mar-21 17:00:46"])
    )
    assert found[["order", "dose", "exposure", "axis", "target_defocus"]].isna().all(axis=None)
    assert found["image"].tolist() == ["", "", ""]


def test_the_stack_is_in_the_order_of_its_numbers(tmp_path) -> None:
    headings = (("ZValue = 2", 3), ("ZValue = 0", -3), ("FrameSet = 0", 70), ("ZValue = 1", 0))
    text = "".join(f"[{heading}]\nTiltAngle = {tilt}\n" for heading, tilt in headings)
    found = read(tmp_path, text, encoding="utf-8-sig", newline="\r\n")
    assert found["tilt"].tolist() == [-3, 0, 3]


FEI = """DataMode = 1
ImageSize = 4096 4096
ImageFile = Position_1.mrc
PixelSpacing = 1.54
Voltage = 300.00

{open}T = Tomography: KRIOS-1234   20-Feb-2026 16:58:06{close}
{open}T =     TiltAxisAngle = {axis}  Binning = 1  SpotSize = 6{close}

"""


@pytest.mark.parametrize("brackets", ["[]", ("", "")])
@pytest.mark.parametrize(
    ("title", "rotation", "axis"),
    [
        # As Tomography 5 writes it, as SerialEM does, and with the other sign: IMOD's program header tells them apart.
        (-174.09, 84.09, 84.09),
        (175.0, 95.0, 95.0),
        (-5.9, 84.1, -5.9),
        (5.9, 84.1, -5.9),
        (-173.94, 3.0, np.nan),
        (-91.81, None, np.nan),
    ],
)
def test_the_axis_in_tomography_5(tmp_path, brackets, title: float, rotation: float | None, axis: float) -> None:
    head = FEI.format(open=brackets[0], close=brackets[1], axis=title)
    found = read(tmp_path, mdoc([-3.0, 0.0], title=head, RotationAngle=[rotation] * 2), newline="\r\n")
    np.testing.assert_allclose(found["axis"], axis)
    np.testing.assert_allclose(found["title_axis"], title)
    np.testing.assert_allclose(found["rotation"], np.nan if rotation is None else rotation)


def test_the_axis_in_serialem(tmp_path) -> None:
    """RotationAngle is a right angle from it, and stands in where a title is lost."""
    bare = "T = SerialEM: Krios\nT =    Tilt axis angle = 85.3, binning = 1\n\n"
    assert read(tmp_path, mdoc([0.0], title=bare, RotationAngle=[175.3]))["axis"].tolist() == [85.3]
    lost = "Version = SerialEM Version 4.1.6 64-bit\n\n"
    assert read(tmp_path, mdoc([0.0], title=lost, RotationAngle=[175.25]))["axis"].tolist() == [85.25]
    assert read(tmp_path, mdoc([0.0], title=lost, RotationAngle=[-91.5]))["axis"].tolist() == [178.5]
    # Whose RotationAngle it is, nobody says.
    assert read(tmp_path, mdoc([0.0], title="", RotationAngle=[85.0]))["axis"].isna().all()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_files_of_windows(tmp_path, encoding: str, end: str) -> None:
    text = mdoc([-3.0, 0.25], SubFramePath=["D:\\Büro\\a_é.tif", "b.tif"]).replace("\n", end)
    (tmp_path / "a.mdoc").write_bytes(text.encode(encoding))
    found = io.tilts.read_mdoc(tmp_path / "a.mdoc")
    assert found["tilt"].tolist() == [-3, 0.25]
    assert found["image"].tolist() == ["a_é.tif", "b.tif"]
    assert found["axis"].tolist() == [-86.7, -86.7]


def test_another_reader_finds_the_same(tmp_path) -> None:
    dates = ["25-Mar-21  17:02:46", "25-Mar-21  17:00:46", "25-Mar-21  17:01:46"]
    doses = {"ExposureDose": [3.0, 3.0, 3.5], "PriorRecordDose": [6, 0, 3]}
    further = {"RotationAngle": [3.3] * 3, "TargetDefocus": [-4, -4, -4.5], "SubFramePath": ["D:\\f\\a.tif", "b.tif", "c.tif"]}
    ours = read(tmp_path, mdoc([-3.0, 0.01, 3.0], DateTime=dates, **doses, **further))
    theirs = mdocfile.read(tmp_path / "TS_01.mdoc")
    for name, other in {"tilt": "TiltAngle", "dose": "PriorRecordDose", "exposure": "ExposureDose"}.items():
        np.testing.assert_allclose(ours[name], theirs[other].astype(float))
    np.testing.assert_allclose(ours["target_defocus"], -theirs["TargetDefocus"].astype(float))
    np.testing.assert_allclose(ours["rotation"], theirs["RotationAngle"].astype(float))
    assert ours["image"].tolist() == [str(path).replace("\\", "/").rsplit("/", 1)[-1] for path in theirs["SubFramePath"]]


@settings(max_examples=40, deadline=None)
@given(
    tilts=st.lists(st.floats(-90, 90, allow_subnormal=False), min_size=1, max_size=60),
    seed=st.randoms(use_true_random=False),
    exposure=st.floats(0.01, 20),
)
def test_any_series_comes_back(tmp_path_factory, tilts, seed, exposure) -> None:
    order = list(range(len(tilts)))
    seed.shuffle(order)
    start = datetime(2024, 2, 28, 23, 59, 30)
    dates = [(start + timedelta(seconds=45 * turn)).strftime("%d-%b-%Y  %H:%M:%S") for turn in order]
    found = read(tmp_path_factory.mktemp("mdoc"), mdoc(tilts, DateTime=dates, ExposureDose=[exposure] * len(tilts)))
    np.testing.assert_array_equal(found["tilt"], tilts)
    assert found["order"].tolist() == order
    np.testing.assert_allclose(found["dose"], np.array(order) * exposure, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=300) | st.text("[]=ZValueTiltAng 0123456789.-\n", max_size=300))
def test_what_is_no_mdoc_is_refused_by_name(tmp_path_factory, text) -> None:
    path = tmp_path_factory.mktemp("mdoc") / "TS_01.mdoc"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found, told = None, ""
    try:
        found = io.tilts.read_mdoc(path)
    except ValueError as error:
        told = str(error)
    assert "TS_01.mdoc" in told if found is None else (found["tilt"].abs() <= 90).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PixelSpacing = 1\n", r"no sections \[ZValue"),
        ("[ZValue = 0]\nDefocus = 1\n", "line 1: a tilt lies within ±90°, got nan"),
        ("[ZValue = 0]\nTiltAngle = 120\n", "line 2: a tilt lies within ±90°, got 120"),
        ("[ZValue = 0]\nTiltAngle = x\n", "line 2: expected a number for TiltAngle, got 'x'"),
        ("[ZValue = 0]\nTiltAngle = inf\n", "line 2: expected a finite number for TiltAngle"),
        ("[ZValue = 0]\nTiltAngle = 0\n\n[ZValue = 0]\nTiltAngle = 3\n", "line 4: ZValue 0 stands already in line 1"),
        ("[ZValue = one]\n", "line 1: ZValue is the number of an image, got 'one'"),
    ],
)
def test_wrong_lines_are_named(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_a_file_of_unlikely_size_is_not_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.io.tilts.imod.LARGEST", 100)
    with pytest.raises(ValueError, match="it has 101 bytes, expected at most 100"):
        read(tmp_path, "x" * 101)
    with pytest.raises(FileNotFoundError, match="no file"):
        io.tilts.read_mdoc(tmp_path / "absent.mdoc")
