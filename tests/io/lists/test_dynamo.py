"""Dynamo's tables mean what Dynamo means by them, and come back."""

from pathlib import Path

import dynamotable
import eulerangles
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomolab import io, particles
from tomolab.io.lists import dynamo

COLUMN = {name: number for number, name in enumerate(dynamo.COLUMNS, 1)}


def rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table by Dynamo's names of the columns."""
    return [dict(zip(dynamo.COLUMNS, line.split(), strict=True)) for line in path.read_text().splitlines()]


def foreign(folder: Path, *, columns: int = 35, **values: object) -> Path:
    """A table of one particle as another program writes it: zeros but for `values`."""
    row = ["0"] * columns
    for name, value in {"tag": 7, "tomo": 3, "ftype": 1, "ymintilt": -60, "ymaxtilt": 54, **values}.items():
        row[COLUMN[name.rstrip("_")] - 1] = str(value)
    (folder / "a.tbl").write_text(" ".join(row) + "\n")
    return folder / "a.tbl"


def test_columns_stand_where_dynamo_looks_for_them(tmp_path) -> None:
    assert {name: COLUMN[name] for name in ("tag", "dx", "tdrot", "cc", "ftype", "ymintilt", "tomo", "reg", "class", "x")} == {
        "tag": 1, "dx": 4, "tdrot": 7, "cc": 10, "ftype": 13, "ymintilt": 14, "tomo": 20, "reg": 21, "class": 22, "x": 24
    }  # fmt: skip
    assert {name: COLUMN[name] for name in ("otag", "npar", "ref", "sref", "apix")} == {
        "otag": 31, "npar": 32, "ref": 34, "sref": 35, "apix": 36
    }  # fmt: skip
    table = particles.table(
        [[30.0, 20.0, 10.0], [0, 0, 0]], tomogram=["TS_01", "b"], ids=[5, 9], tilts=(-50, 60), score=[0.25, 1], label="ribosome"
    )
    first, second = rows(io.write_particles(table, tmp_path / "a.tbl", voxel_size=10.0))
    # The centre of voxel 0 is at 0.5 of Dynamo's coordinates.
    assert [float(first[axis]) for axis in "xyz"] == [1.5, 2.5, 3.5]
    assert [float(second[axis]) for axis in "xyz"] == [0.5, 0.5, 0.5]
    assert (first["tag"], second["tag"], first["tomo"], second["tomo"]) == ("5", "9", "1", "2")
    assert [float(first[name]) for name in ("ftype", "ymintilt", "ymaxtilt", "cc", "apix")] == [1, -50, 60, 0.25, 10]
    assert (tmp_path / "a.doc").read_text() == "1 TS_01\n2 b\n"
    assert "ribosome" not in (tmp_path / "a.tbl").read_text()


def test_angles_are_dynamos(tmp_path) -> None:
    """Dynamo -47.2730, 1.1777, -132.3000 is RELION 137.7000, 1.1777, 42.7270."""
    path = foreign(tmp_path, tdrot=-47.2730, tilt=1.1777, narot=-132.3000, x=10.5, y=20.5, z=30.5)
    read = io.read_particles(path, voxel_size=8.0)
    expected = particles.matrices(particles.table([[0, 0, 0]], angles=[[137.7, 1.1777, 42.727]]))
    np.testing.assert_allclose(particles.matrices(read), expected, atol=2e-4)
    again = rows(io.write_particles(read, tmp_path / "b.tbl", voxel_size=8.0))[0]
    np.testing.assert_allclose(
        [float(again[name]) for name in ("tdrot", "tilt", "narot")], [-47.273, 1.1777, -132.3], atol=1e-3
    )


def test_angles_turn_as_dynamo_turns(phantom) -> None:
    """Turned about z by tdrot, about the new x by tilt, about the new z by narot, all of the axes, is the way back."""
    angles = np.array([[20.0, 50.0, -110.0], [10.0, 0.0, 0.0], [0.0, 30.0, 0.0]])

    def about(axis: int, degrees: float) -> np.ndarray:
        """Active rotation about x (0) or z (2), right-handed, on xyz vectors."""
        return Rotation.from_rotvec(np.radians(degrees) * np.eye(3)[axis]).as_matrix()

    for row, matrix in zip(angles, dynamo.from_zxz(angles), strict=True):
        tdrot, tilt, narot = row
        onto_reference = about(2, narot) @ about(0, tilt) @ about(2, tdrot)
        np.testing.assert_allclose(matrix[::-1, ::-1], np.linalg.inv(onto_reference), atol=1e-12)
    np.testing.assert_allclose(dynamo.to_zxz(dynamo.from_zxz(angles))[0], angles[0], atol=1e-9)


def test_dynamotable_reads_what_we_write_and_we_what_it_writes(tmp_path) -> None:
    table = particles.table(
        [[30.0, 20.0, 10.0], [0, 0, 0]], tomogram=["TS_02", "TS_01"], ids=[5, 9], angles=[[10, 20, 30], [40, 50, 60]]
    )
    path = io.write_particles(table, tmp_path / "a.tbl", voxel_size=10.0)
    theirs = dynamotable.read(path, path.with_suffix(".doc"))
    assert theirs[["tag", "x", "y", "z"]].to_numpy().tolist() == [[5, 1.5, 2.5, 3.5], [9, 0.5, 0.5, 0.5]]
    assert theirs["tomo_file"].tolist() == ["TS_02", "TS_01"]
    dynamotable.write(theirs, str(tmp_path / "b.tbl"))
    read = io.read_particles(tmp_path / "b.tbl", voxel_size=10.0)
    np.testing.assert_allclose(particles.positions(read), particles.positions(table))
    np.testing.assert_allclose(particles.matrices(read), particles.matrices(table), atol=1e-6)
    assert read["tomogram"].tolist() == ["TS_02", "TS_01"]


def test_angles_are_those_of_eulerangles() -> None:
    relion = np.random.default_rng(0).uniform(1, 179, (20, 3))
    theirs = eulerangles.convert_eulers(relion, source_meta="relion", target_meta="dynamo")
    expected = particles.matrices(particles.table(np.zeros((20, 3)), angles=relion))
    np.testing.assert_allclose(dynamo.from_zxz(theirs), expected, atol=1e-6)


def test_shifts_are_added(tmp_path) -> None:
    path = foreign(tmp_path, dx=1, dy=-2, dz=0.25, x=10.5, y=20.5, z=30.5)
    np.testing.assert_allclose(particles.positions(io.read_particles(path, voxel_size=8.0)), [[30.25 * 8, 18 * 8, 11 * 8]])


def test_what_a_table_says_besides_is_kept(tmp_path) -> None:
    path = foreign(tmp_path, cc=0.3, class_=4, reg=2, annotation=9, daxis="0+1.5i", x=1, y=2, z=3)
    read = io.read_particles(path, voxel_size=8.0)
    assert read.loc[0, ["particle_id", "tomogram", "score", "class", "tilt_min", "tilt_max"]].tolist() == [
        7,
        "3",
        0.3,
        4,
        -60,
        54,
    ]
    assert read.loc[0, ["dynamo_reg", "dynamo_annotation", "dynamo_daxis", "dynamo_aligned"]].tolist() == [2, 9, "0+1.5i", 0]
    assert "dynamo_cc2" not in read
    again = rows(io.write_particles(read, tmp_path / "b.tbl", voxel_size=8.0))[0]
    assert [again[name] for name in ("tomo", "class", "reg", "annotation", "daxis", "aligned")] == [
        "3",
        "4.0",
        "2",
        "9",
        "0+1.5i",
        "0",
    ]


def test_tomograms_are_named_by_the_list_beside_the_table(tmp_path) -> None:
    path = foreign(tmp_path)
    (tmp_path / "a.doc").write_text("1 tomograms/TS_01.mrc\n3 tomograms/TS_03.mrc\n")
    assert io.read_particles(path, voxel_size=8.0)["tomogram"].tolist() == ["tomograms/TS_03.mrc"]
    (tmp_path / "a.doc").write_text("1 TS_01\n")
    with pytest.raises(ValueError, match=r"a\.doc does not name the tomograms 3"):
        io.read_particles(path, voxel_size=8.0)
    (tmp_path / "a.doc").write_text("TS_01\n")
    with pytest.raises(ValueError, match="must be a number and a name, got 'TS_01'"):
        io.read_particles(path, voxel_size=8.0)
    (tmp_path / "a.doc").unlink()
    assert io.read_particles(path, voxel_size=8.0, tomogram="TS_07")["tomogram"].tolist() == ["TS_07"]


def test_what_is_not_known_must_be_given(tmp_path) -> None:
    path = foreign(tmp_path)
    with pytest.raises(ValueError, match=r"does not say one pixel size, but none; give voxel_size="):
        io.read_particles(path)
    path = foreign(tmp_path, columns=36, apix=5.5, ftype=0)
    with pytest.raises(ValueError, match=r"series tilted about y for 1 of 1 particles; give tilts="):
        io.read_particles(path)
    assert io.read_particles(path, tilts={"3": (-40, 50)})[["tilt_min", "tilt_max"]].to_numpy().tolist() == [[-40, 50]]
    with pytest.raises(ValueError, match=r"column 36 is 5\.5 Å, but voxel_size=8 was given"):
        io.read_particles(path, voxel_size=8.0)
    path.write_text("1 2 3\n")
    with pytest.raises(ValueError, match="at least 26 columns and at most 37, this one 3"):
        io.read_particles(path)


def test_what_a_table_cannot_hold_is_refused(tmp_path) -> None:
    good = particles.table([[1.0, 2.0, 3.0]], ids=[1])
    for table, message in (
        (good.assign(particle_id=0), "Dynamo counts particles from 1, but 1 of 1"),
        (good.assign(tomogram="two words"), "names with blanks, such as 'two words'"),
        (good.assign(tilt_axis=90.0), "tilt axes along y, but 1 of 1 have another tilt_axis"),
        (good.assign(score="high"), "score of row 0: 'high'"),
    ):
        with pytest.raises(ValueError, match=message):
            io.write_particles(table, tmp_path / "a.tbl", voxel_size=10.0)
    with pytest.raises(ValueError, match="a Dynamo table needs voxel_size="):
        io.write_particles(good, tmp_path / "a.tbl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "3\ttomo_ts03.mrc\n1\ttomo_ts01.mrc\n",
        "  3     tomo_ts03.mrc  \r\n",
        "\ufeff\n3 \t tomo_ts03.mrc",
        "003 tomo_ts03.mrc\n3 tomo_ts03.mrc\n",
    ],
)
def test_number_and_name_are_parted_by_blanks_or_tabs(tmp_path, text: str) -> None:
    path = foreign(tmp_path)
    (tmp_path / "a.doc").write_text(text)
    assert io.read_particles(path, voxel_size=8.0)["tomogram"].tolist() == ["tomo_ts03.mrc"]


def test_dynamotable_reads_the_same_names(tmp_path) -> None:
    path = foreign(tmp_path)
    (tmp_path / "a.doc").write_text("3\tfolder/TS_03.mrc\n")
    theirs = dynamotable.read(path, path.with_suffix(".doc"))["tomo_file"].tolist()
    assert io.read_particles(path, voxel_size=8.0)["tomogram"].tolist() == theirs == ["folder/TS_03.mrc"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3 a\n3 b\n", "names tomogram 3 twice: 'a' and 'b'"),
        ("3,TS_03\n", "must be a number and a name, got '3,TS_03'"),
        ("3\t\n", "must be a number and a name"),
        ("3.0 a\n", "must be a number and a name"),
        ("\u00b3 a\n", "must be a number and a name"),
    ],
)
def test_a_list_that_does_not_name_tomograms_is_refused(tmp_path, text: str, message: str) -> None:
    path = foreign(tmp_path)
    (tmp_path / "a.doc").write_text(text)
    with pytest.raises(ValueError, match=message):
        io.read_particles(path, voxel_size=8.0)


def test_one_name_is_not_given_to_several_tomograms(tmp_path) -> None:
    path = foreign(tmp_path)
    path.write_text(path.read_text() + path.read_text().replace("7 ", "8 ", 1).replace(" 3 ", " 5 ", 1))
    assert io.read_particles(path, voxel_size=8.0)["tomogram"].tolist() == ["3", "5"]
    with pytest.raises(ValueError, match=r"tomogram='TS_01' names one tomogram, but the particles are in 2, numbered 3, 5"):
        io.read_particles(path, voxel_size=8.0, tomogram="TS_01")
    (tmp_path / "a.doc").write_text("3 TS_03\n5 TS_03\n")
    assert io.read_particles(path, voxel_size=8.0, tomogram="TS_03")["tomogram"].tolist() == ["TS_03"] * 2
    with pytest.raises(ValueError, match=r"tomogram='TS_01' was given, but .*a\.doc names 'TS_03'"):
        io.read_particles(path, voxel_size=8.0, tomogram="TS_01")


@pytest.mark.parametrize("text", ["3 'tomo 3.mrc'\n", '3 "tomo 3.mrc"\n'])
def test_a_name_in_quotes_is_without_them(tmp_path, text: str) -> None:
    path = foreign(tmp_path)
    (tmp_path / "a.doc").write_text(text)
    assert set(io.read_particles(path, voxel_size=8.0)["tomogram"]) == {"tomo 3.mrc"}


def test_a_list_of_tomograms_may_be_utf_16_and_is_named_where_it_is_wrong(tmp_path) -> None:
    path = foreign(tmp_path)
    (tmp_path / "a.doc").write_bytes("3 TS_03\r\n".encode("utf-16"))
    assert set(io.read_particles(path, voxel_size=8.0)["tomogram"]) == {"TS_03"}
    (tmp_path / "a.doc").write_bytes(b"3 TS_\xe9\n")
    with pytest.raises(ValueError, match=r"a\.doc: line 1 is not UTF-8"):
        io.read_particles(path, voxel_size=8.0)
