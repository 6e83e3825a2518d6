"""CSV of other programs is read where it is clear, and refused with its columns where it is not."""

from pathlib import Path

import numpy as np
import pytest

from tomolab import files, particles

KNOWN = {"tilts": (-60, 60), "tomogram": "TS_01"}


def put(folder: Path, text: str | bytes) -> Path:
    (folder / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "a.csv"


@pytest.mark.parametrize(
    "text",
    [
        "x,y,z,radius\n1,2,3.5,30\n",
        "Z,Y,X,radius\n3.5,2,1,30\n",
        "x_coord;y_coord;z_coord;radius\n1;2;3.5;30\n",
        "pos_x\tpos_y\tpos_z\tradius\n1\t2\t3.5\t30\n",
        "index,axis-0,axis-1,axis-2,radius\n0,3.5,2,1,30\n",
        '"x","y","z","radius"\r\n"1","2","3.5","30"\r\n',
        "\ufeffx,y,z,radius\n1,2,3.5,30\n",
    ],
)
def test_coordinates_are_found(tmp_path, text: str) -> None:
    path = put(tmp_path, text)
    assert particles.positions(files.read_particles(path, unit="angstrom", **KNOWN)).tolist() == [[3.5, 2, 1]]
    read = files.read_particles(path, unit="voxel", voxel_size=10.0, **KNOWN)
    assert particles.positions(read).tolist() == [[35, 20, 10]]
    assert read["radius"].tolist() == [30]
    np.testing.assert_array_equal(particles.matrices(read), [np.eye(3)])


def test_names_ids_angles_and_other_columns_are_carried_through(tmp_path) -> None:
    path = put(
        tmp_path,
        "id,experiment,particle_type,x,y,z,rot,tilt,psi,note,label\n"
        '7,001,ribosome,1,2,3,137.7,1.1777,42.727,"a, b",12\n3,TS_02,,4,5,6,0,0,0,NA,b\n',
    )
    read = files.read_particles(path, unit="angstrom", tilts={"001": (-50, 50), "TS_02": (-60, 60)})
    assert read["particle_id"].tolist() == [7, 3]
    assert read["tomogram"].tolist() == ["001", "TS_02"]
    assert read["tilt_max"].tolist() == [50, 60]
    assert read["note"].tolist() == ["a, b", "NA"]
    assert read["label"].tolist() == ["12", "b"]
    assert read["particle_type"].iloc[0] == "ribosome"
    expected = particles.matrices(particles.table([[0, 0, 0]], angles=[[137.7, 1.1777, 42.727]]))
    np.testing.assert_allclose(particles.matrices(read)[0], expected[0])


def test_ids_that_are_names_are_no_numbers(tmp_path) -> None:
    read = files.read_particles(put(tmp_path, "id,x,y,z\nab12,1,2,3\n07,4,5,6\n"), unit="angstrom", **KNOWN)
    assert read["particle_id"].tolist() == [0, 1]
    assert read["id"].tolist() == ["ab12", "07"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("x,y,z\n1,2,3\n", {"unit": None}, r"give unit='angstrom', or unit='voxel' .* It has the columns x, y, z;"),
        ("x,y,z\n1,2,3\n", {"unit": None, "voxel_size": 10.0}, "does not say its unit"),
        ("x,y,z\n1,2,3\n", {"unit": "nm"}, "unit='nm'"),
        ("x,y,z\n1,2,3\n", {"unit": "voxel"}, "needs voxel_size="),
        ("x,y,z\n1,2,3\n", {"tomogram": None}, "no column names the tomogram; give tomogram=. The columns are x, y, z"),
        ("x,y,z,pos_x,pos_y,pos_z\n1,2,3,1,2,3\n", {}, "there are x/y/z and pos_x/pos_y/pos_z; the columns are x, y, z, pos_x"),
        ("x,y,depth\n1,2,3\n", {}, "there are none of x, y, z; the columns are x, y, depth"),
        ("1,2,3\n4,5,6\n", {}, "none of x, y, z; the columns are 1, 2, 3"),
        ("x,y,z,phi,theta,psi\n1,2,3,4,5,6\n", {}, "there is only psi, of a convention that is not known"),
        ("x,y,z,tomogram,run\n1,2,3,a,b\n", {}, "tomogram and run may mean the same; keep one of them"),
        ("x,y,z,id,particle_id\n1,2,3,4,5\n", {}, "particle_id and id may mean the same"),
        ("x,x,y,z\n1,1,2,3\n", {}, "must have different names, but these are there twice: x"),
        ("x;y;z\n1,5;2;3\n", {}, r"not numbers, first x of row 0: '1,5'"),
        ("x,y,z\n1,2\n", {}, "row 1 has 2 values, expected 3"),
        ("x,y,z\n1,2,3,4\n", {}, "this is not a table of values parted by ','"),
        ("x,y,z,id\n1,2,3,5\n4,5,6,5\n", {}, "2 of 2 particles .particle_id 5, 5. have an id that another row has too"),
        ("\nx,y,z\n", {}, "the first line must name the columns"),
        (b"x,y,z,note\n1,2,3,caf\xe9\n", {}, "line 2 is not UTF-8"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_columns(tmp_path, text: str | bytes, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        files.read_particles(put(tmp_path, text), **{"unit": "angstrom", **KNOWN, **arguments})


def test_our_own_list_needs_no_word(tmp_path) -> None:
    table = particles.table([[1.0, 2.0, 3.0]], tomogram="001", ids=[4], note="a")
    path = files.write_particles(table, tmp_path / "a.csv")
    assert files.read_particles(path).equals(table)
    assert files.read_particles(path, unit="angstrom").equals(table)
    with pytest.raises(ValueError, match="is in Å, but unit='voxel' was given"):
        files.read_particles(path, unit="voxel", voxel_size=10.0)
