"""IMOD's text files are read line by line, and a wrong line is named."""

import etomofiles
import numpy as np
import pytest

from tomolab import io


def test_angles_of_the_first_column(tmp_path) -> None:
    (tmp_path / "a.rawtlt").write_text("# made by hand\n -60.0  1 0.5\n\n0\n 6.0e1 \n")
    np.testing.assert_array_equal(io.tilts.read_tilts(tmp_path / "a.rawtlt"), [-60, 0, 60])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\nthree\n", "line 2: expected numbers, got 'three'"),
        ("-60 -57 -54\n", "holds 3 numbers in one line, expected a line for each tilt"),
        ("0\n-6,1\n", "line 2: expected numbers, with a point before the decimals, got '-6,1'"),
        ("0\n\n120\n", "line 3: a tilt lies within ±90°, got 120"),
        ("nan\n", "line 1: expected 1 finite numbers"),
        ("\n", "holds no numbers"),
    ],
)
def test_wrong_angles_are_named(tmp_path, text: str, message: str) -> None:
    (tmp_path / "a.tlt").write_text(text)
    with pytest.raises(ValueError, match=message):
        io.tilts.read_tilts(tmp_path / "a.tlt")
    with pytest.raises(FileNotFoundError, match="no file"):
        io.tilts.read_tilts(tmp_path / "b.tlt")


def test_transforms_keep_the_order_of_the_file(tmp_path) -> None:
    (tmp_path / "a.xf").write_text("1.0 0.1 -0.2 0.9 12.5 -3.25\n0 -1 1 0 0 0\n")
    matrices, shifts = io.tilts.read_transforms(tmp_path / "a.xf")
    np.testing.assert_array_equal(matrices, [[[1, 0.1], [-0.2, 0.9]], [[0, -1], [1, 0]]])
    np.testing.assert_array_equal(shifts, [[12.5, -3.25], [0, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 1 0 0\n1 0 0 1 0\n", "line 2: expected 6 finite numbers"),
        ("1 0 0 1 0 0 7\n", r"line 1: expected 6 numbers .* got 7"),
        ("1 1 1 1 0 0\n", "line 1: the matrix .* cannot be inverted"),
    ],
)
def test_wrong_transforms_are_named(tmp_path, text: str, message: str) -> None:
    (tmp_path / "a.xf").write_text(text)
    with pytest.raises(ValueError, match=message):
        io.tilts.read_transforms(tmp_path / "a.xf")


def test_views_that_imod_leaves_out_are_counted_from_0(tmp_path) -> None:
    lines = (
        "# a list: EXCLUDELIST 30",
        "$tilt -StandardInput",
        "EXCLUDELIST 2, 1",
        "ExcludeList\t7-9 # bad",
        "excludelist2=12,20-18",
        "X 5",
    )
    (tmp_path / "tilt.com").write_text("\n".join(lines))
    assert io.tilts.read_excluded(tmp_path / "tilt.com").tolist() == [0, 1, 6, 7, 8, 11, 17, 18, 19]
    (tmp_path / "tilt.com").write_text("$tilt\nMODE 2\nEXCLUDELIST2\n")
    assert io.tilts.read_excluded(tmp_path / "tilt.com").tolist() == []


@pytest.mark.parametrize("words", ["0", "1-", "one", "1,,2", "-3", "1-999999999", "9" * 5000, "1:3", "2.5", "١"])
def test_wrong_views_are_named(tmp_path, words: str) -> None:
    (tmp_path / "tilt.com").write_text(f"$tilt\nEXCLUDELIST {words}\n")
    with pytest.raises(ValueError, match="line 2: expected numbers of views from 1"):
        io.tilts.read_excluded(tmp_path / "tilt.com")
    (tmp_path / "tilt.com").write_text("EXCLUDELIST 1\n")
    with pytest.raises(ValueError, match="not a command file of IMOD"):
        io.tilts.read_excluded(tmp_path / "tilt.com")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_of_windows(tmp_path, encoding: str, end: str) -> None:
    texts = {
        "a.tlt": "-60.0\n0.00\n57.5\n",
        "a.xf": "1 0.1 -0.2 0.9 12.5 -3.25\n0 -1 1 0 0 0\n",
        "a.com": "$tilt\nOFFSET 2.5\nEXCLUDELIST 2\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.replace("\n", end).encode(encoding))
    assert io.tilts.read_tilts(tmp_path / "a.tlt").tolist() == [-60, 0, 57.5]
    assert io.tilts.read_transforms(tmp_path / "a.xf")[1].tolist() == [[12.5, -3.25], [0, 0]]
    assert io.tilts.read_excluded(tmp_path / "a.com").tolist() == [1]
    assert io.tilts.read_offset(tmp_path / "a.com") == ("", 2.5)


def test_another_reader_finds_the_same(tmp_path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "a.tlt").write_text("".join(f"{angle:8.2f}\n" for angle in rng.uniform(-60, 60, 9)))
    (tmp_path / "a.xf").write_text(
        "".join(" ".join(f"{value:12.7f}" for value in row) + "\n" for row in rng.normal(size=(9, 6)))
    )
    np.testing.assert_array_equal(io.tilts.read_tilts(tmp_path / "a.tlt"), etomofiles.read_tlt(tmp_path / "a.tlt"))
    matrices, shifts = io.tilts.read_transforms(tmp_path / "a.xf")
    found = np.concatenate([matrices.reshape(-1, 4), shifts], axis=1)
    np.testing.assert_array_equal(found, etomofiles.read_xf(tmp_path / "a.xf"))
