"""STOPGAP's motive lists mean what STOPGAP means by them, and come back."""

from pathlib import Path

import numpy as np
import pytest

from tomolab import io, particles
from tomolab.io.lists import stopgap

HEAD = "\ndata_stopgap_motivelist\n\nloop_\n" + "".join(f"_{name}\n" for name in stopgap.COLUMNS) + "\n"
ROW = "  1   4   1   12 B   101.0   51.0   11.0   0.25   0.5   -1.0   0.0   20.0   -30.0   40.0   2 \n"
"""Particle 12 of tomogram 4 in half B, in class 2."""


def write(folder: Path, text: str = HEAD + ROW) -> Path:
    (folder / "a.star").write_text(text)
    return folder / "a.star"


def turn(axis: str, degrees: float) -> np.ndarray:
    """Right-handed rotation of xyz vectors about x or z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]] if axis == "x" else [[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_a_motive_list_is_read(tmp_path) -> None:
    read = io.read_particles(write(tmp_path), voxel_size=8.0, tilts=(-50, 60))
    np.testing.assert_allclose(particles.positions(read), [[10 * 8, 49 * 8, 100.5 * 8]])
    # phi about z first, then the about x, then psi about z.
    np.testing.assert_allclose(
        particles.matrices(read)[0][::-1, ::-1], turn("z", -30) @ turn("x", 40) @ turn("z", 20), atol=1e-9
    )
    expected = {"particle_id": 12, "tomogram": "4", "half": 2, "score": 0.25, "class": 2, "tilt_min": -50, "tilt_max": 60}
    assert read.loc[0, list(expected)].to_dict() == expected


def test_a_motive_list_is_written_as_stopgap_reads_it(tmp_path) -> None:
    read = io.read_particles(write(tmp_path), voxel_size=8.0, tilts=(-50, 60)).assign(label="ribosome")
    path = io.write_particles(read, tmp_path / "b.star", voxel_size=8.0, format="stopgap")
    lines = path.read_text().splitlines()
    # No comments, and no numbers behind the columns: STOPGAP compares the whole line.
    assert lines[:-1] == HEAD.splitlines()
    row = dict(zip(stopgap.COLUMNS, lines[-1].split(), strict=True))
    names = ("motl_idx", "tomo_num", "object", "subtomo_num", "halfset", "class")
    assert [row[name] for name in names] == ["1", "4", "1", "12", "B", "2"]
    # A subtomogram is cut at a whole voxel; what is left is the shift.
    np.testing.assert_allclose([float(row[f"orig_{axis}"]) + float(row[f"{axis}_shift"]) for axis in "xyz"], [101.5, 50, 11])
    assert all(float(row[f"orig_{axis}"]).is_integer() and abs(float(row[f"{axis}_shift"])) <= 0.5 for axis in "xyz")
    np.testing.assert_allclose([float(row[name]) for name in ("phi", "psi", "the")], [20, -30, 40], atol=1e-5)
    assert (tmp_path / "b_tomolist.txt").read_text() == "4 4\n"
    assert "ribosome" not in path.read_text()


def test_tomograms_keep_their_names(tmp_path) -> None:
    table = particles.table(np.zeros((3, 3)), tomogram=["TS_02", "TS_01", "TS_02"], ids=[0, 3, 4])
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=8.0, format="stopgap")
    assert (tmp_path / "a_tomolist.txt").read_text() == "1 TS_02\n2 TS_01\n"
    tilts = {"TS_01": (-40, 50), "TS_02": (-60, 60)}
    read = io.read_particles(path, voxel_size=8.0, tilts=tilts)
    assert read["tomogram"].tolist() == ["TS_02", "TS_01", "TS_02"]
    assert read["tilt_max"].tolist() == [60, 50, 60]


def test_what_is_not_known_must_be_given(tmp_path) -> None:
    path = write(tmp_path)
    with pytest.raises(ValueError, match="a STOPGAP motive list needs voxel_size="):
        io.read_particles(path, tilts=(-60, 60))
    with pytest.raises(ValueError, match="does not say between which tilts"):
        io.read_particles(path, voxel_size=8.0)
    with pytest.raises(ValueError, match="halfset must be A or B, got 'C'"):
        io.read_particles(write(tmp_path, HEAD + ROW.replace(" B ", " C ")), voxel_size=8.0, tilts=(-60, 60))
    with pytest.raises(ValueError, match="lacks the columns the"):
        io.read_particles(write(tmp_path, (HEAD + ROW).replace("_the\n", "_theta\n")), voxel_size=8.0, tilts=(-60, 60))


def test_what_a_motive_list_cannot_hold_is_refused(tmp_path) -> None:
    good = particles.table([[1.0, 2.0, 3.0]])
    for table, message in (
        (good.assign(particle_id=-1), "negative ids, such as -1"),
        (good.assign(half=3), "half must be 1 or 2, got 3"),
        (good.assign(tomogram="two words"), "names with blanks"),
    ):
        with pytest.raises(ValueError, match=message):
            io.write_particles(table, tmp_path / "a.star", voxel_size=8.0, format="stopgap")
    assert not list(tmp_path.iterdir())


def test_the_list_of_tomograms_may_have_tabs(tmp_path) -> None:
    table = particles.table(np.ones((2, 3)), tomogram=["a", "b"])
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=8.0, format="stopgap")
    (tmp_path / "a_tomolist.txt").write_text("1\tTS_01.rec\r\n 2   TS_02.rec\r\n")
    known = {"voxel_size": 8.0, "tilts": (-60, 60)}
    assert io.read_particles(path, **known)["tomogram"].tolist() == ["TS_01.rec", "TS_02.rec"]
    with pytest.raises(ValueError, match=r"tomogram='TS_03' was given, but .*a_tomolist.txt names 'TS_01.rec', 'TS_02.rec'"):
        io.read_particles(path, tomogram="TS_03", **known)
