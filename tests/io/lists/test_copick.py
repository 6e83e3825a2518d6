"""Picks for copick: a particle lies and stands in the file as it does here, names are as copick takes them, nothing is lost."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomolab import io, particles
from tomolab.io.lists import copick


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


@pytest.fixture
def project(table: pd.DataFrame, tmp_path: Path) -> Path:
    """Configuration of a project: picks of the table in the overlay, others in the static root, tomograms in both."""
    copick.write(table, tmp_path / "overlay", session="first")
    copick.write(table[:1].assign(x=1.0), tmp_path / "static", session="first")
    copick.write(table[:1].assign(particle_id=50), tmp_path / "static", session="old")
    for place in ("static/ExperimentRuns/TS_1/VoxelSpacing10.000", "overlay/ExperimentRuns/TS_2/VoxelSpacing7.840"):
        for name in ("wbp.zarr", "wbp_net_features.zarr", ".hidden.zarr"):
            (tmp_path / place / name).mkdir(parents=True)
    (tmp_path / "static/ExperimentRuns/TS_3/Picks").mkdir(parents=True)
    (tmp_path / "static/ExperimentRuns/TS_3/Picks/.a_b_c.json").write_text("never read")
    return configure(tmp_path, static_root="static", overlay_root=f"local://{tmp_path / 'overlay'}")


def configure(folder: Path, **roots: str) -> Path:
    objects = [
        {"name": "my-ribosomes", "is_particle": True, "label": 1, "radius": 130},
        {"name": "membrane-protein", "label": 2},
    ]
    (folder / "config.json").write_text(json.dumps({"config_type": "filesystem", "pickable_objects": objects, **roots}))
    return folder / "config.json"


def test_a_project_lists_what_it_holds(project: Path) -> None:
    found = copick.open(project)
    assert found.objects["name"].tolist() == ["my-ribosomes", "membrane-protein"]
    assert found.objects["radius"].iloc[0] == 130
    assert found.runs() == ["TS_1", "TS_2", "TS_3"]
    tomograms = found.tomograms()
    assert tomograms[["run", "voxel_size", "kind"]].to_numpy().tolist() == [["TS_1", 10.0, "wbp"], ["TS_2", 7.84, "wbp"]]
    assert all(path.is_dir() for path in tomograms["path"])
    picks = found.picks()
    assert picks[["run", "session", "object"]].to_numpy().tolist() == [
        ["TS_1", "first", "membrane-protein"],
        ["TS_1", "first", "my-ribosomes"],
        ["TS_1", "old", "my-ribosomes"],
        ["TS_2", "first", "my-ribosomes"],
    ]
    # What is in the overlay stands for what is in the static root under the same name.
    assert picks["path"].iloc[1].is_relative_to(project.parent / "overlay")


def test_picks_come_back_as_they_were_written(table: pd.DataFrame, project: Path) -> None:
    read = copick.open(project).particles(tilts={"TS_1": (-50, 60), "TS_2": (-40, 40)}, sessions=["first"])
    read = read.set_index("particle_id").loc[table["particle_id"]].reset_index()
    np.testing.assert_allclose(particles.positions(read), particles.positions(table))
    np.testing.assert_allclose(particles.matrices(read), particles.matrices(table), atol=1e-12)
    assert read["tomogram"].tolist() == table["tomogram"].tolist()
    assert read["label"].tolist() == [name.replace(" ", "-").replace("_", "-") for name in table["cluster_name"]]
    assert read["score"].tolist() == table["score"].tolist()
    assert read["tilt_max"].tolist() == [60, 60, 40, 40, 60]
    assert set(read["copick_user"]) == {"tomolab"}
    one = io.read_particles(copick.open(project).picks()["path"].iloc[3], tilts=(-60, 60))
    assert sorted(one["particle_id"]) == [5, 11]
    some = copick.open(project).particles(tilts=(-60, 60), runs=["TS_1"], objects=["my-ribosomes"], sessions=["old"])
    assert some["particle_id"].tolist() == [50]


def test_shifts_are_added_and_equal_ids_are_numbered_anew(tmp_path: Path) -> None:
    turn = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = turn, [1, 2, 3]
    points = [{"location": {"x": 10, "y": 20, "z": 30}, "transformation_": move.tolist(), "instance_id": 0}] * 2
    content = {"pickable_object_name": "a", "user_id": "me", "session_id": 0, "run_name": "TS_1", "points": points}
    (tmp_path / "me_0_a.json").write_text(json.dumps(content))
    read = io.read_particles(tmp_path / "me_0_a.json", tilts=(-60, 60))
    assert particles.positions(read).tolist() == [[33, 22, 11]] * 2
    np.testing.assert_allclose(particles.matrices(read)[0][::-1, ::-1], turn, atol=1e-12)
    assert read["particle_id"].tolist() == [0, 1]
    assert read["original_id"].tolist() == [0, 0]
    assert read["score"].isna().all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "it holds a list, expected an object"),
        ({"pickable_objects": []}, "the configuration of a copick project; open it with io.open_copick"),
        ({"points": []}, "picks have a pickable_object_name and points, this file has points"),
        ({"pickable_object_name": "a", "points": [], "unit": "nm"}, "must be in angstrom, got 'nm'"),
        ({"pickable_object_name": "a", "points": []}, "do not name their run; give tomogram="),
        (
            {"pickable_object_name": "a", "run_name": "b", "points": [{"location": {"x": 1}}]},
            "a point has no location with x, y, z",
        ),
        (
            {
                "pickable_object_name": "a",
                "run_name": "b",
                "points": [{"location": {"x": 1, "y": 2, "z": 3}, "transformation_": (2 * np.eye(4)).tolist()}],
            },
            "must be finite and end with 0, 0, 0, 1",
        ),
    ],
)
def test_what_are_no_picks_is_named(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        io.read_particles(tmp_path / "a.json", tilts=(-60, 60))


def test_tomograms_may_be_links_to_another_disk_and_picks_may_not(project: Path) -> None:
    found = copick.open(project)
    disk = project.parent / "disk"
    tomogram, picks = found.tomograms()["path"].iloc[0], found.picks()["path"].iloc[0]
    for place in (tomogram, picks):
        disk.mkdir(exist_ok=True)
        place.rename(disk / place.name)
        place.symlink_to(disk / place.name)
        if place is tomogram:
            assert tomogram in found.tomograms()["path"].tolist()
            assert len(found.picks()) == 4
    said = rf"{picks.name}' leads out of {project.parent}/.*, to {disk / picks.name}; copy it there: only tomograms may"
    with pytest.raises(ValueError, match=said):
        found.picks()
    # Within the project links lead where they like.
    picks.unlink()
    picks.symlink_to(found.picks()["path"].iloc[-1])
    assert len(found.picks()) == 4


def test_a_project_that_cannot_be_opened_says_why(project: Path) -> None:
    found = copick.open(project)
    with pytest.raises(ValueError, match="no picks of the object virus; there are membrane-protein, my-ribosomes"):
        found.particles(tilts=(-60, 60), objects=["virus"])
    with pytest.raises(ValueError, match="each as a list of names; got objects='virus'"):
        found.particles(tilts=(-60, 60), objects="virus")
    with pytest.raises(ValueError, match="s3://bucket/data is not on this machine"):
        copick.open(configure(project.parent, static_root="s3://bucket/data"))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        copick.open(configure(project.parent, overlay_root="nowhere"))
    with pytest.raises(ValueError, match="names neither static_root nor overlay_root"):
        copick.open(configure(project.parent))
    project.write_text("[")
    with pytest.raises(ValueError, match=r"config\.json: "):
        copick.open(project)


def content(name: str = "ribosome", count: int = 2, **others: object) -> dict:
    """Picks of a user curation, in a run TS_1."""
    points = [{"location": {"x": 10.0 + 50 * i, "y": 20.0, "z": 30.0}, "instance_id": i} for i in range(count)]
    named = {"pickable_object_name": name, "user_id": "curation", "session_id": "0", "run_name": "TS_1"}
    return {**named, "voxel_spacing": None, "unit": "angstrom", "points": points, "trust_orientation": True, **others}


def lay(folder: Path, **contents: object) -> copick.Project:
    """A project with one run, and in it files of picks by their names."""
    places = folder / "overlay/ExperimentRuns/TS_1/Picks"
    places.mkdir(parents=True)
    for name, what in contents.items():
        (places / f"{name}.json").write_text(what if isinstance(what, str) else json.dumps(what))
    return copick.open(configure(folder, overlay_root="overlay"))


@pytest.mark.parametrize("odd", ["{}", "no JSON", "[1]", '{"points": []}', json.dumps(content("virus", user_id=""))])
@pytest.mark.parametrize("name", ["notes", "a_b", "a_b_c_d", "_b_c"])
def test_a_file_with_an_odd_name_is_left_out_and_named(tmp_path: Path, odd: str, name: str) -> None:
    found = lay(tmp_path, **{"curation_0_ribosome": content(), name: odd, ".hidden": "no JSON"})
    with pytest.warns(UserWarning, match=rf"left out.*1 of 2 files of picks, .*{name}\.json") as told:
        read = found.particles(tilts=(-60, 60))
    assert len(told) == 1
    assert read["label"].tolist() == ["ribosome"] * 2


def test_picks_that_are_called_by_their_object_are_what_stands_in_them(tmp_path: Path) -> None:
    """As the picks of the contest CZII are shipped."""
    found = lay(tmp_path, **{"ribosome": content(), "virus-like-particle": content("virus-like-particle", 3)})
    with pytest.warns(UserWarning, match="2 of 2 files of picks are not called USER_SESSION_OBJECT.json; user, session and ob"):
        read = found.particles(tilts=(-60, 60), users=["curation"], objects=["ribosome", "virus-like-particle"])
    assert read["label"].value_counts().to_dict() == {"virus-like-particle": 3, "ribosome": 2}
    assert read["particle_id"].tolist() == list(range(5))
    assert read["original_id"].tolist() == [0, 1, 0, 1, 2]


def test_the_same_picks_are_not_read_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"or the same as another file: 1 of 2 files of picks, .*/ribosome\.json"):
        assert len(lay(tmp_path, curation_0_ribosome=content(), ribosome=content()).particles(tilts=(-60, 60))) == 2


def test_damaged_picks_are_refused_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"curation_0_ribosome\.json: this is not JSON"):
        lay(tmp_path, curation_0_ribosome="{").particles(tilts=(-60, 60))


def test_names_of_folders_and_files_go_before_what_stands_inside(tmp_path: Path) -> None:
    lying = content("virus", run_name="TS_9")
    found = lay(tmp_path, **{"curation_0_my-ribosome": content("my_ribosome"), "curation_0_proteasome": lying})
    with pytest.warns(UserWarning, match=r"as in copick; otherwise say .*curation_0_proteasome\.json \(TS_9, virus\)"):
        read = found.particles(tilts=(-60, 60))
    assert read[["tomogram", "label"]].drop_duplicates().to_numpy().tolist() == [
        ["TS_1", "my_ribosome"],
        ["TS_1", "proteasome"],
    ]


def test_a_file_of_another_run_is_not_called_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content()))
    assert len(io.read_particles(tmp_path / "a.json", tilts=(-60, 60), tomogram="TS_1")) == 2
    with pytest.raises(ValueError, match="tomogram='TS_2' was given, but the picks are of the run 'TS_1'"):
        io.read_particles(tmp_path / "a.json", tilts=(-60, 60), tomogram="TS_2")


def test_orientations_that_are_not_to_be_trusted_are_left_out(tmp_path: Path) -> None:
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = Rotation.from_euler("x", 40, degrees=True).as_matrix(), [1, 2, 3]
    points = [{"location": {"x": 10, "y": 20, "z": 30}, "transformation_": move.tolist()}]
    (tmp_path / "a.json").write_text(json.dumps(content(points=points, trust_orientation=False)))
    with pytest.warns(UserWarning, match="TS_1, ribosome: trust_orientation is false, so the orientations are left out"):
        read = io.read_particles(tmp_path / "a.json", tilts=(-60, 60))
    np.testing.assert_array_equal(particles.matrices(read), [np.eye(3)])
    assert particles.positions(read).tolist() == [[33, 22, 11]]


def test_matrices_that_were_rounded_are_rotations(tmp_path: Path) -> None:
    turns = Rotation.random(20, rng=3).as_matrix()
    moves = np.tile(np.eye(4), (20, 1, 1))
    moves[:, :3, :3] = turns.round(3)
    points = [{"location": {"x": 1, "y": 2, "z": 3}, "transformation_": move.tolist()} for move in moves]
    (tmp_path / "a.json").write_text(json.dumps(content(points=points)))
    with pytest.warns(UserWarning, match="transformation_: 20 of 20 matrices are rotations to .* rounded") as told:
        read = io.read_particles(tmp_path / "a.json", tilts=(-60, 60))
    assert len(told) == 1
    np.testing.assert_allclose(particles.matrices(read), turns[:, ::-1, ::-1], atol=2e-3)
