"""Annotations of the CryoET Data Portal are read and written as the portal has them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tomolab import io, particles

KNOWN = {"voxel_size": 10.0, "tilts": (-60, 60), "tomogram": "TS_01"}
TURN = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
"""A quarter turn about z, x to y, on xyz vectors."""


def put(folder: Path, *points: dict | str) -> Path:
    lines = [point if isinstance(point, str) else json.dumps(point) for point in points]
    (folder / "a.ndjson").write_text("\n".join(lines) + "\n")
    return folder / "a.ndjson"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_points_of_all_kinds_are_read(tmp_path) -> None:
    place = {"x": 1.5, "y": 2, "z": 3}
    path = put(
        tmp_path,
        {"type": "point", "location": place},
        "",
        {"type": "orientedPoint", "location": place, "xyz_rotation_matrix": TURN},
        {"type": "instancePoint", "location": place, "instance_id": 4},
    )
    read = io.read_particles(path, **KNOWN)
    assert particles.positions(read).tolist() == [[30, 20, 15]] * 3
    # What lies along x in the object lies along y in the tomogram.
    np.testing.assert_allclose(particles.matrices(read)[1] @ [0, 0, 1], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(particles.matrices(read)[[0, 2]], [np.eye(3)] * 2, atol=1e-12)
    assert read["instance_id"].tolist()[2] == 4
    assert read["particle_id"].tolist() == [1, 2, 3]


def test_what_is_written_is_the_portals(tmp_path) -> None:
    table = particles.table([[30.0, 20.0, 15.0], [0, 0, 0]], angles=[[-90, 0, 0], [0, 0, 0]])
    first, second = lines(io.write_particles(table, tmp_path / "a.ndjson", voxel_size=10.0))
    assert first["type"] == second["type"] == "orientedPoint"
    assert first["location"] == {"x": 1.5, "y": 2, "z": 3}
    np.testing.assert_allclose(first["xyz_rotation_matrix"], TURN, atol=1e-12)
    plain = io.write_particles(table.assign(rot=0.0), tmp_path / "b.ndjson", voxel_size=10.0)
    assert {tuple(line) for line in lines(plain)} == {("type", "location")}
    counted = io.write_particles(table.assign(rot=0.0, instance_id=[3, 1]), tmp_path / "c.ndjson", voxel_size=10.0)
    assert [line["instance_id"] for line in lines(counted)] == [3, 1]
    assert io.read_particles(counted, **KNOWN)["instance_id"].tolist() == [3, 1]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("{", "line 1 is no annotated point"),
        ("[1]", "line 1 is no annotated point"),
        ({"type": "point"}, "KeyError.*location"),
        (
            {"type": "cloud", "location": {"x": 1, "y": 2, "z": 3}},
            "type 'cloud' is none of point, orientedPoint, instancePoint",
        ),
        ({"type": "point", "location": {"x": 1, "y": 2, "z": "far"}}, "could not convert string to float"),
        ('{"type": "point", "location": {"x": 1, "y": 2, "z": NaN}}', "a location is three numbers"),
        ({"type": "orientedPoint", "location": {"x": 1, "y": 2, "z": 3}, "xyz_rotation_matrix": [1, 2]}, "a rotation 3 x 3"),
        (
            {
                "type": "orientedPoint",
                "location": {"x": 1, "y": 2, "z": 3},
                "xyz_rotation_matrix": np.diag([1, 1, -1]).tolist(),
            },
            "expected proper rotations",
        ),
    ],
)
def test_what_is_no_point_is_named(tmp_path, point, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.read_particles(put(tmp_path, point), **KNOWN)


def test_what_is_needed_is_asked_for(tmp_path) -> None:
    path = put(tmp_path, {"type": "point", "location": {"x": 1, "y": 2, "z": 3}})
    for missing, message in (("voxel_size", "needs voxel_size="), ("tomogram", "give tomogram="), ("tilts", "give tilts=")):
        with pytest.raises(ValueError, match=message):
            io.read_particles(path, **{**KNOWN, missing: None})
    two = particles.table(np.zeros((2, 3)), tomogram=["a", "b"])
    with pytest.raises(ValueError, match="annotations is of one tomogram, but there are 2: a, b"):
        io.write_particles(two, tmp_path / "b.ndjson", voxel_size=10.0)
    path.write_text("")
    assert len(io.read_particles(path, **KNOWN)) == 0


def test_matrices_of_three_decimals_are_read(tmp_path) -> None:
    turn = np.array([[0.936, -0.275, 0.218], [0.29, 0.956, -0.037], [-0.198, 0.098, 0.975]])
    path = put(tmp_path, {"type": "orientedPoint", "location": {"x": 1, "y": 2, "z": 3}, "xyz_rotation_matrix": turn.tolist()})
    with pytest.warns(UserWarning, match="xyz_rotation_matrix: 1 of 1 matrices are rotations to .* only"):
        read = io.read_particles(path, **KNOWN)
    np.testing.assert_allclose(particles.matrices(read)[0, ::-1, ::-1], turn, atol=1e-3)
