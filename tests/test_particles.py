"""Particle tables hold what was put in and refuse what cannot be."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomolab import particles


def some() -> pd.DataFrame:
    return particles.table(np.arange(12.0).reshape(4, 3), tomogram=["a", "a", "b", "001"], ids=[7, 3, 9, 1], label=list("wxyz"))


def test_a_table_has_its_columns_in_order_and_type() -> None:
    table = some()
    assert list(table)[:10] == ["particle_id", "tomogram", "z", "y", "x", "rot", "tilt", "psi", "tilt_min", "tilt_max"]
    assert list(table)[10:] == ["label"]
    assert table["particle_id"].dtype == np.int64
    assert table["tomogram"].tolist() == ["a", "a", "b", "001"]
    np.testing.assert_array_equal(particles.positions(table), np.arange(12).reshape(4, 3))
    assert (table["tilt_min"] == -60).all()
    assert (table["tilt_max"] == 60).all()


@given(st.integers(0, 2**32 - 1))
def test_rotations_come_back_as_they_went_in(seed: int) -> None:
    matrices = Rotation.random(5, rng=np.random.default_rng(seed)).as_matrix()
    table = particles.table(np.zeros((5, 3)), rotations=matrices)
    np.testing.assert_allclose(particles.matrices(table), matrices, atol=1e-9)


def test_angles_and_tilts_for_each_particle() -> None:
    angles = [[10, 20, 30], [40, 50, 60]]
    table = particles.table(np.zeros((2, 3)), angles=angles, tilts=[[-60, 60], [-40, 50]])
    assert table[["rot", "tilt", "psi"]].to_numpy().tolist() == angles
    assert table["tilt_max"].tolist() == [60, 50]


def test_rows_follow_the_ids_asked_for() -> None:
    table = some()
    assert particles.rows(table, [9, 7]).tolist() == [2, 0]
    assert particles.rows(table, []).tolist() == []
    assert particles.rows(table, table["particle_id"] > 7).tolist() == [
        n for n in range(len(table)) if table["particle_id"][n] > 7
    ]
    with pytest.raises(ValueError, match=rf"one boolean for each of the {len(table)} particles, got 1"):
        particles.rows(table, [True])
    with pytest.raises(ValueError, match=r"2 of 3 particle ids are not in this table of 4: 100, -1"):
        particles.rows(table, [9, 100, -1])
    with pytest.raises(ValueError, match="more than once: 9"):
        particles.rows(table, [9, 9])
    with pytest.raises(ValueError, match="whole numbers"):
        particles.rows(table, [0.5])


def test_an_empty_table_is_a_table() -> None:
    table = particles.table([])
    assert len(particles.check(table)) == 0
    assert particles.matrices(table).shape == (0, 3, 3)


def test_check_leaves_its_argument_alone() -> None:
    table = some()[["label", *particles.REQUIRED]].iloc[::-1].astype({"z": int})
    before = table.copy()
    particles.check(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("z", [np.nan, 1, np.inf, 2], r"column z: 2 of 4 particles \(particle_id 7, 9\) have no finite number"),
        ("rot", ["a", 1, 2, 3], r"column rot: 1 of 4 particles \(particle_id 7\) have no finite number"),
        ("particle_id", [1, 1, 2, 3], r"column particle_id: 2 of 4 particles \(particle_id 1, 1\) have an id that another"),
        ("particle_id", [1, 2.5, 2, 3], r"column particle_id: 1 of 4 are not whole numbers: 2.5"),
        ("tomogram", ["a", None, "b", ""], r"column tomogram: 2 of 4 particles \(particle_id 3, 1\) have no name"),
        ("tilt_min", [-60, 60, -95, -60], r"tilt_min, tilt_max: 2 of 4 particles .* such as 60 to 60"),
    ],
)
def test_faults_are_named(column: str, values: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        particles.check(some().assign(**{column: values}))


def test_missing_columns_are_named() -> None:
    with pytest.raises(ValueError, match="needs the columns z, psi; this one has particle_id"):
        particles.check(some().drop(columns=["z", "psi"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotations": np.zeros((2, 3, 3))}, "proper rotations"),
        ({"rotations": np.eye(3)}, r"expected matrices of shape \(2, 3, 3\), got \(3, 3\)"),
        ({"rotations": np.eye(3), "angles": [[0, 0, 0]]}, "not both"),
        ({"tomogram": ["a"]}, r"2 positions were given, but another number of tomogram \(1\)"),
        ({"ids": [1, 2, 3]}, r"another number of particle_id \(3\)"),
        ({"tilts": [[-60, 60]]}, "another number of tilt_min"),
    ],
)
def test_building_refuses_shapes_that_disagree(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        particles.table(np.zeros((2, 3)), **arguments)
    with pytest.raises(ValueError, match=r"positions_zyx: expected shape \(n, 3\), got \(2, 2\)"):
        particles.table(np.zeros((2, 2)))


def test_geometries_have_an_axis_where_the_table_has_one() -> None:
    plain = particles.table([[1.0, 2, 3], [4, 5, 6]], tilts=[[-60, 60], [-50, 40]])
    assert particles.geometries(plain).tolist() == [[-60, 60, 0], [-50, 40, 0]]
    assert particles.geometries(plain.assign(tilt_axis=[5, -7.5]))[:, 2].tolist() == [5, -7.5]
    with pytest.raises(ValueError, match="tilt_axis: 1 of 2 particles"):
        particles.geometries(plain.assign(tilt_axis=["5", "no"]))


def test_particles_are_numbered_anew_and_keep_their_old_ids() -> None:
    merged = pd.concat([particles.table(np.zeros((2, 3)), ids=[4, 5])] * 2, ignore_index=True)
    with pytest.raises(ValueError, match="an id that another row has too"):
        particles.check(merged)
    found = particles.check(particles.renumber(merged))
    assert found["particle_id"].tolist() == [0, 1, 2, 3]
    assert found["original_id"].tolist() == [4, 5, 4, 5]
    assert particles.renumber(found[::-1])["original_id"].tolist() == [5, 4, 5, 4]
