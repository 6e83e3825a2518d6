"""Picks of crYOLO and TomoTwin: a .cbox has the corner of a box along x and y and its middle along z, a .coords the middle."""

from pathlib import Path

import numpy as np
import pytest

from tomolab import io, particles

KNOWN = {"voxel_size": 10.0, "tomogram": "TS_01", "tilts": (-60, 60)}
NAMES = [
    "CoordinateX",
    "CoordinateY",
    "CoordinateZ",
    "Width",
    "Height",
    "Depth",
    "EstWidth",
    "EstHeight",
    "Confidence",
    "NumBoxes",
]
MISSING = "<NA>"


def cbox(folder: Path, *rows: str, names: list[str] = NAMES, more: str = "") -> Path:
    """A .cbox as crYOLO and the box manager write it."""
    loop = "\n".join(f"_{name} #{n}" for n, name in enumerate(names, 1))
    body = "\n".join(f" {row}" for row in rows)
    text = f"\ndata_global\n\n_cbox_format_version   1.0 \n\ndata_cryolo\n\nloop_\n{loop}\n{body}\n\n{more}"
    (folder / "a.cbox").write_text(text + "data_cryolo_include\n\nloop_\n_slice_index #1\n 50.0 \n 60.0 \n")
    return folder / "a.cbox"


def test_the_middle_of_a_box_is_the_particle(tmp_path: Path) -> None:
    """A box of 25 voxels from x 12.25 and y 27.75, seen in slice 50: as the box manager shows it, at 24.75, 40.25, 50."""
    path = cbox(tmp_path, f"12.25 27.75 50 25 25 25 {MISSING} nan 0.75 2", f"65.5 39.5 60.5 25 21 25 {MISSING} nan 0.5 3")
    read = io.read_particles(path, **KNOWN)
    np.testing.assert_allclose(particles.positions(read), [[500, 402.5, 247.5], [605, 500, 780]])
    np.testing.assert_array_equal(particles.matrices(read), [np.eye(3)] * 2)
    assert read["score"].tolist() == [0.75, 0.5]
    assert read["cryolo_NumBoxes"].tolist() == [2, 3]
    assert "cryolo_EstWidth" not in read
    assert read["particle_id"].tolist() == [1, 2]
    assert set(read["tomogram"]) == {"TS_01"}


def test_a_filament_keeps_its_number(tmp_path: Path) -> None:
    names = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "filamentid", "Depth"]
    vertices = "data_filament_vertices\n\nloop_\n_CoordinateX #1\n_CoordinateY #2\n 1 2\n\n"
    read = io.read_particles(cbox(tmp_path, "1 2 3 10 10 7 10", names=names, more=vertices), **KNOWN)
    np.testing.assert_allclose(particles.positions(read), [[30, 70, 60]])
    assert read["cryolo_filamentid"].tolist() == [7]


@pytest.mark.parametrize("text", ["1 2 3.5\n10 20 35\n", "\n 1.0\t2.00   3.5 \r\n10 20 35", "\ufeff1 2 35e-1\n\n10 20 35\n\n"])
def test_each_line_is_x_y_z(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.coords").write_text(text)
    read = io.read_particles(tmp_path / "a.coords", **KNOWN)
    np.testing.assert_allclose(particles.positions(read), [[35, 20, 10], [350, 200, 100]])


def test_no_picks_are_no_particles(tmp_path: Path) -> None:
    (tmp_path / "a.coords").write_text("\n")
    assert len(io.read_particles(tmp_path / "a.coords", **KNOWN)) == 0
    assert len(io.read_particles(cbox(tmp_path), **KNOWN)) == 0


def test_what_is_not_clear_is_refused(tmp_path: Path) -> None:
    coords = tmp_path / "a.coords"
    for text, message in (
        ("1 2\n", "the list of x, y and z has 3 columns, but 2 values in row 0: '1 2'"),
        ("1 2 3\n1 1 4 5 6\n", "has 3 columns, but 5 values in row 1"),
        ("x y z\n1 2 3\n", "not numbers, first z of row 0: 'z'"),
        ("1,2,3\n", "has 3 columns, but 1 values in row 0"),
        ("1 2 nan\n", "not numbers"),
    ):
        coords.write_text(text)
        with pytest.raises(ValueError, match=message):
            io.read_particles(coords, **KNOWN)
    for missing, message in (("voxel_size", "needs voxel_size="), ("tomogram", "give tomogram="), ("tilts", "give tilts=")):
        for path in (coords, cbox(tmp_path, f"1 2 3 4 4 4 {MISSING} {MISSING} 1 1")):
            coords.write_text("1 2 3\n")
            with pytest.raises(ValueError, match=message):
                io.read_particles(path, **{**KNOWN, missing: None})
    flat = cbox(tmp_path, f"1 2 {MISSING} 4 4 {MISSING} {MISSING} {MISSING} 1 1")
    with pytest.raises(ValueError, match="no _CoordinateZ: they are of images, not of a tomogram"):
        io.read_particles(flat, **KNOWN)
    with pytest.raises(ValueError, match="a _Width and _Height over 0, got 0"):
        io.read_particles(cbox(tmp_path, "1 2 3 0 4 4 1 1 1 1"), **KNOWN)
    (tmp_path / "a.cbox").write_text("10 20 30 30 0.5\n")
    with pytest.raises(ValueError, match=r"a .cbox has data_cryolo with _CoordinateZ, .*: it has no tables"):
        io.read_particles(tmp_path / "a.cbox", **KNOWN)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.tloc").write_bytes(b"\x80\x04]\x94K\x01a.")
    with pytest.raises(ValueError, match=r"a\.tloc: a \.tloc is a pickle of TomoTwin, which is not opened.*tomotwin_pick\.py"):
        io.read_particles(tmp_path / "a.tloc", **KNOWN)
