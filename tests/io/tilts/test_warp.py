"""Warp's .xml and .tomostar files come back as they were written; XML that could do harm is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab import io


def xml(tilts, *, inverted: str = "False", grid: str = "", **lists) -> str:
    """A tilt series as Warp writes it: an element for each quantity, a line for each image."""
    parts = [f'<?xml version="1.0" encoding="utf-8"?>\n<TiltSeries DataDirectory="/data" AreAnglesInverted="{inverted}">']
    parts += [f"\t<{name}>" + "\n".join(map(str, values)) + f"</{name}>" for name, values in {"Angles": tilts, **lists}.items()]
    return "\n".join([*parts, grid, "</TiltSeries>"])


def defocus(values, *, columns: int = 1) -> str:
    nodes = [
        f'\t\t<Node X="{x}" Y="0" Z="{z}" Value="{value + x - (columns - 1) / 2}" />'
        for z, value in enumerate(values)
        for x in range(columns)
    ]
    return "\n".join([f'\t<GridCTF Width="{columns}" Height="1" Depth="{len(values)}">', *nodes, "\t</GridCTF>"])


def read(folder: Path, text: str, **options):
    (folder / "TS_01.xml").write_text(text, **options)
    return io.tilts.read_warp(folder / "TS_01.xml")


def test_what_is_known_of_each_image(tmp_path) -> None:
    text = xml(
        [-3.0, 0.0, 3.0],
        Dose=[6, 0, 3.5],
        UseTilt=["True", "True", "False"],
        AxisAngle=[-4.3, -4.3, -4.2],
        MoviePath=["../2/a.tif", "b.tif", "..\\2\\c.tif"],
        grid=defocus([2.1, 2.0, 2.2]),
        inverted="True",
    )
    found = read(tmp_path, text, encoding="utf-8-sig")
    # Warp's sign is the opposite of IMOD's, whatever it says of heights.
    assert found["tilt"].tolist() == [3, 0, -3]
    assert found["dose"].tolist() == [6, 0, 3.5]
    assert found["order"].tolist() == [2, 0, 1]
    assert found["exposure"].tolist() == [2.5, 3.5, 2.5]
    assert found["defocus"].tolist() == [2.1, 2.0, 2.2]
    assert found["axis"].tolist() == [-4.3, -4.3, -4.2]
    assert found["image"].tolist() == ["a.tif", "b.tif", "c.tif"]
    assert found["use"].tolist() == [True, True, False]
    assert found["inverted"].all()
    assert found["defocus_hand"].tolist() == [-1, -1, -1]
    turned = read(tmp_path, text.replace('Inverted="True"', 'Inverted="False"'))
    assert turned["tilt"].tolist() == [3, 0, -3]
    assert turned["defocus_hand"].tolist() == [1, 1, 1]


def test_defocus_that_varies_over_the_image_is_averaged(tmp_path) -> None:
    assert read(tmp_path, xml([0, 3], grid=defocus([2, 3], columns=3)))["defocus"].tolist() == [2, 3]
    assert read(tmp_path, xml([0, 3], grid=defocus([2.5])))["defocus"].tolist() == [2.5, 2.5]
    found = read(tmp_path, xml([0, 3]))
    assert found[["order", "dose", "exposure", "defocus", "axis"]].isna().all(axis=None)
    assert found["use"].all()


numbers = st.floats(-90, 90, allow_subnormal=False)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(numbers, st.floats(0, 500), st.floats(-10, 10), st.booleans()), min_size=1, max_size=60))
def test_any_series_comes_back(tmp_path_factory, rows) -> None:
    tilts, dose, focus, use = (list(column) for column in zip(*rows, strict=True))
    found = read(tmp_path_factory.mktemp("warp"), xml(tilts, Dose=dose, UseTilt=use, grid=defocus(focus)))
    for name, expected in (("tilt", [-tilt for tilt in tilts]), ("dose", dose), ("use", use)):
        np.testing.assert_array_equal(found[name], expected)
    np.testing.assert_allclose(found["defocus"], focus, atol=1e-12)
    if len(set(dose)) == len(dose):
        assert found["dose"].to_numpy()[found["order"].argsort()].tolist() == sorted(dose)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("declared", ["utf-8", "utf-16", "UTF-16LE", None])
def test_any_encoding_of_windows(tmp_path, encoding: str, end: str, declared: str | None) -> None:
    """Warp 1 and M write UTF-16; editors change the encoding and leave the declaration."""
    text = xml([-3.0, 0.0, 3.5], MoviePath=["a.tif", "Bücher/ü.tif", "c.tif"], grid=defocus([3.1, 3.2, 3.3]))
    first, rest = text.split("\n", 1)
    text = rest if declared is None else f"{first.replace('utf-8', declared)}\n{rest}"
    (tmp_path / "a.xml").write_bytes(text.replace("\n", end).encode(encoding))
    found = io.tilts.read_warp(tmp_path / "a.xml")
    assert found["tilt"].tolist() == [3, 0, -3.5]
    assert found["defocus"].tolist() == [3.1, 3.2, 3.3]
    assert found["image"].tolist() == ["a.tif", "ü.tif", "c.tif"]
    (tmp_path / "a.xml").write_bytes(text.replace("-3.0", "far").replace("\n", end).encode(encoding))
    with pytest.raises(ValueError, match=rf"line {3 - (declared is None)} \(Angles\): expected a number, got 'far'"):
        io.tilts.read_warp(tmp_path / "a.xml")


def test_damaged_utf_16_is_refused(tmp_path) -> None:
    whole = xml([-3.0, 0.0]).encode("utf-16")
    for damaged in (whole[:-1], whole[:40] + b"\x00\xd8" + whole[42:], b"\xff\xfe\x00\x00", whole[:30] + b"\0\0" + whole[32:]):
        (tmp_path / "a.xml").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.xml"):
            io.tilts.read_warp(tmp_path / "a.xml")


def test_alignment_that_warp_holds(tmp_path) -> None:
    """Some of its numbers are written as the language of the computer has them."""
    offsets = {"AxisOffsetX": ["262,72888", "-1,5E-05"], "AxisOffsetY": ["-19.5", "3"]}
    found = read(tmp_path, xml([-3.0, 0.0], AxisAngle=["-4,2999988", "85"], **offsets))
    assert found["axis"].tolist() == [-4.2999988, 85]
    assert found["shift_x"].tolist() == [262.72888, -1.5e-5]
    assert found["shift_y"].tolist() == [-19.5, 3]
    assert found[["level_x", "level_y"]].eq(0).all(axis=None)
    assert not found["local"].any()


BOMB = """<?xml version="1.0"?>
<!DOCTYPE TiltSeries [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<TiltSeries><Angles>&b;</Angles></TiltSeries>"""
OUTSIDE = '<!DOCTYPE TiltSeries [<!ENTITY a SYSTEM "file:///etc/hostname">]><TiltSeries><Angles>&a;</Angles></TiltSeries>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "declares a document type"),
        (OUTSIDE, "declares a document type"),
        ("<TiltSeries>\n<Angles>0</Angle>\n</TiltSeries>", "line 2: this is not XML"),
        ("", "line 1: this is not XML"),
        ("<Movie></Movie>", "describes a 'Movie'; expected a 'TiltSeries'"),
        ("<TiltSeries></TiltSeries>", "has no angles"),
        (xml([0, "x", 3]), r"line 4 \(Angles\): expected a number, got 'x'"),
        (xml([0, 99]), r"line 4 \(Angles\): a tilt lies within ±90°, got 99"),
        (xml([0, 3], Dose=[0, 3, 6]), r"line 5 \(Dose\): 3 values of Dose for 2 angles"),
        (xml([0, 3], Dose=[0, "nan"]), r"line 6 \(Dose\): expected a number, got 'nan'"),
        (xml([0, 3], UseTilt=["True", "yes"]), r"line 6 \(UseTilt\): expected True or False, got 'yes'"),
        (xml([0, 3], inverted="1"), r"line 2 \(TiltSeries\): expected True or False, got '1'"),
        (xml([0, 3], grid=defocus([1, 2, 3])), r"line 5 \(GridCTF\): expected one defocus, or one for each of 2 images, got 3"),
        (xml([0, 3], grid=defocus([1, 2]).replace("2.0", "far")), r"line 7 \(GridCTF\): expected a number, got 'far'"),
    ],
)
def test_wrong_files_are_refused_by_line(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


HEADER = "data_\n\nloop_\n_wrpMovieName #1\n_wrpAngleTilt #2\n_wrpAxisAngle #3\n_wrpDose #4\n_wrpAverageIntensity #5\n"


def test_tomostar(tmp_path) -> None:
    path = tmp_path / "TS_01.tomostar"
    path.write_text(HEADER + "../frames/a.tif -3.0 -4.3 3.5 2.25\n../frames/b.tif 0.01 -4.3 0 2.5\n")
    found = io.tilts.read_tomostar(path)
    assert found["tilt"].tolist() == [3.0, -0.01]
    assert found["dose"].tolist() == [3.5, 0]
    assert found["order"].tolist() == [1, 0]
    assert found["exposure"].tolist() == [3.5, 3.5]
    assert found["axis"].tolist() == [-4.3, -4.3]
    assert found["image"].tolist() == ["a.tif", "b.tif"]
    assert found["wrpAverageIntensity"].tolist() == [2.25, 2.5]
    assert found["defocus"].isna().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing here\n", "TS_01.tomostar"),
        ("data_\n\nloop_\n_wrpDose #1\n1\n2\n", "no column wrpAngleTilt: data_ has wrpDose"),
        (HEADER + "a.tif x -4.3 0 1\nb.tif 0 -4.3 3 1\n", r"row 0 \(wrpAngleTilt\): expected a number, got 'x'"),
        (HEADER + "a.tif 0 -4.3 0 1\nb.tif 95 -4.3 3 1\n", "row 1: a tilt lies within ±90°, got 95"),
    ],
)
def test_wrong_tomostars_are_refused(tmp_path, text: str, message: str) -> None:
    (tmp_path / "TS_01.tomostar").write_text(text)
    with pytest.raises(ValueError, match=message):
        io.tilts.read_tomostar(tmp_path / "TS_01.tomostar")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tomostars_of_windows(tmp_path, encoding: str, end: str) -> None:
    text = HEADER + "../frames/a.tif -3.0 -4.3 3.5 2.25\nD:\\ü\\b.tif 0.01 -4.3 0 2.5\n"
    (tmp_path / "a.tomostar").write_bytes(text.replace("\n", end).encode(encoding))
    found = io.tilts.read_tomostar(tmp_path / "a.tomostar")
    assert found["tilt"].tolist() == [3.0, -0.01]
    assert found["image"].tolist() == ["a.tif", "b.tif"]


def test_a_tomostar_of_one_image(tmp_path) -> None:
    """Without a loop, in another order, with an alignment."""
    text = "data_\n\n_wrpAxisOffsetY -2.5\n_wrpAngleTilt 12.5\n_wrpAxisOffsetX 10\n_wrpAxisAngle 84.1\n_wrpMovieName a.eer\n"
    (tmp_path / "a.tomostar").write_text(text)
    found = io.tilts.read_tomostar(tmp_path / "a.tomostar")
    assert found[["tilt", "axis", "shift_x", "shift_y", "image"]].to_numpy().tolist() == [[-12.5, 84.1, 10, -2.5, "a.eer"]]
    assert found["dose"].isna().all()
