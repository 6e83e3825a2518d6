"""Picks for copick: a particle lies and stands in the file as it does here, names are as copick takes them, nothing is lost."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomolab import copick, particles


@pytest.fixture
def table() -> pd.DataFrame:
    """Five particles in two tomograms, of two kinds, all turned differently; a column of the user's own."""
    turns = Rotation.random(5, random_state=1).as_matrix()
    places = np.random.default_rng(2).uniform(0, 4000, (5, 3))
    return particles.table(
        places,
        ids=[8, 3, 5, 11, 2],
        tomogram=["TS_1", "TS_1", "TS_2", "TS_2", "TS_1"],
        rotations=turns,
        cluster_name=["my ribosomes", "membrane_protein", "my ribosomes", "my ribosomes", "my ribosomes"],
        score=np.arange(5.0),
        mine=list("abcde"),
    )


def test_a_particle_lies_and_stands_as_it_does_here(table: pd.DataFrame, tmp_path: Path) -> None:
    written = copick.write(table, tmp_path, session="first try")
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "ExperimentRuns/TS_1/Picks/tomolab_first-try_membrane-protein.json",
        "ExperimentRuns/TS_1/Picks/tomolab_first-try_my-ribosomes.json",
        "ExperimentRuns/TS_2/Picks/tomolab_first-try_my-ribosomes.json",
    ]
    matrices = dict(zip(table["particle_id"], particles.matrices(table), strict=True))
    rows = table.set_index("particle_id")
    bead = np.array([30.0, -20.0, 10.0])  # Å from the centre of the particle, zyx
    seen = []
    for path in written:
        content = json.loads(path.read_text())
        assert content["unit"] == "angstrom"
        assert content["trust_orientation"] is True
        for point in content["points"]:
            number = point["instance_id"]
            seen.append(number)
            at = [point["location"][axis] for axis in "zyx"]
            np.testing.assert_allclose(at, rows.loc[number, ["z", "y", "x"]].astype(float))
            moved = np.array(point["transformation_"]) @ [*bead[::-1], 1.0]
            np.testing.assert_allclose(moved[:3][::-1], matrices[number] @ bead, atol=1e-9)
            assert moved[3] == 1.0
            assert point["score"] == rows.loc[number, "score"]
            assert content["run_name"] == rows.loc[number, "tomogram"]
    assert sorted(seen) == sorted(table["particle_id"])
    assert pd.read_csv(tmp_path / "particles.csv")["mine"].tolist() == list("abcde")


def test_picks_that_were_never_turned_say_so(tmp_path: Path) -> None:
    flat = particles.table(np.ones((2, 3)), tomogram="a").assign(cluster_name="x")
    (path,) = copick.write(flat, tmp_path)
    content = json.loads(path.read_text())
    assert content["trust_orientation"] is False
    assert [point["score"] for point in content["points"]] == [1.0, 1.0]


def test_names_that_become_the_same_or_nothing_are_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a b, a_b are the same without"):
        copick.write(table.assign(cluster_name=["a b", "a_b", "c", "c", "c"]), tmp_path)
    with pytest.raises(ValueError, match="leaves no name for copick"):
        copick.write(table.assign(cluster_name="__"), tmp_path)
    with pytest.raises(ValueError, match="there is no column 'kind'"):
        copick.write(table, tmp_path, objects="kind")
    assert not list(tmp_path.iterdir())


@given(st.text(min_size=1))
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    try:
        found = copick.plain(name)
    except ValueError:
        return
    assert found
    assert not set(found) & set('_<>:"/\\|?* \t\n')
    assert Path(found).name == found
