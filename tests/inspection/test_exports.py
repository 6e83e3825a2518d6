"""What leaves an inspection: poses of averages where there are any and told from where, the user's own list, folders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomolab import inspection, io, particles
from tomolab.averaging import Average
from tomolab.inspection import Inspection, exports
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume


def average_of(table: pd.DataFrame, *, turn: float, **record: object) -> Average:
    """As if particles had been averaged: all turned by some angle and moved a little, in half sets."""
    moved = table.assign(
        rot=turn, tilt=turn / 2, psi=-turn, x=table["x"] + 12.5, z=table["z"] - 7.5, half=1 + np.arange(len(table)) % 2
    )
    volume = Volume(np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32), 20.0)
    fsc = pd.DataFrame({"resolution": [200.0, 100.0, 50.0], "fsc": [1.0, 0.5, 0.0]})
    return Average(volume, volume, volume, fsc, moved, {"mask": 300.0, "symmetry": "C1", **record})


@pytest.fixture
def work(folder: Path) -> Inspection:
    """Two clusters of 16: of the first 12 are in an average, and 4 of those in a later quick one."""
    work = inspection.open(folder, diameter=250)
    work.split(0)
    work.session.describe(1, name="ribosomes")
    table = work.session.particles
    first = table[table["particle_id"].isin(work.session.members(1).ids)]
    work.keep("whole", average_of(first[:12], turn=40.0))
    work.keep("glance", average_of(first[8:14], turn=70.0), quick=True)
    return work


def test_particles_leave_in_the_poses_of_their_averages(work: Inspection, tmp_path: Path) -> None:
    done = work.export(tmp_path / "a.star", [1])
    assert (done.count, dict(done.poses)) == (16, {"whole": 12, "glance": 2, "table": 2})
    assert str(done).startswith(
        '16 particles are in a.star, in the poses of "whole" (12) and of "glance" (2) and of the particle table (2)'
    )
    found = io.read_particles(tmp_path / "a.star").set_index("particle_id")
    before = work.session.particles.set_index("particle_id").loc[found.index]
    # A quick average gives way to a whole one, though it is newer.
    turns = found["average"].map({"whole": 40.0, "glance": 70.0, "table": 0.0})
    np.testing.assert_allclose(found["rot"], turns.where(turns > 0, before["rot"]), atol=1e-4)
    moved = np.where(found["average"] == "table", 0.0, 12.5)
    np.testing.assert_allclose(found["x"] - before["x"], moved, atol=1e-4)
    assert "half" not in found
    plain = work.export(tmp_path / "b.star", [1], poses="table")
    assert dict(plain.poses) == {"table": 16}
    assert str(plain) == "16 particles are in b.star"
    found = io.read_particles(tmp_path / "b.star").set_index("particle_id")
    np.testing.assert_allclose(found["rot"], before["rot"].loc[found.index], atol=1e-4)
    assert "average" not in found
    with pytest.raises(ValueError, match="poses is one of average, table, got 'mine'"):
        work.export(tmp_path / "c.star", poses="mine")


def test_the_latest_of_two_wins_and_another_particle_of_the_same_id_is_none(work: Inspection) -> None:
    table = work.session.table([1])
    ids = table["particle_id"].to_numpy()
    newer = average_of(table, turn=10.0)
    found, counts = exports.posed(table, {**work.averages, "newer": newer}, reach=250.0)
    assert counts == {"newer": 16}
    assert sorted(found["half"].unique()) == [1, 2]
    strange = newer.particles.copy()
    strange.loc[strange["particle_id"] == ids[0], "y"] += 900.0
    strange.loc[strange["particle_id"] == ids[1], "tomogram"] = "another"
    found, counts = exports.posed(table, {"newer": replace(newer, particles=strange)}, reach=250.0)
    assert counts == {"newer": 14, "table": 2}
    assert found.set_index("particle_id").loc[ids[:2], "average"].tolist() == ["table", "table"]
    np.testing.assert_array_equal(particles.positions(found)[:2], particles.positions(table)[:2])
    assert exports.posed(table[:0], {"newer": newer}, reach=250.0)[1] == {}


def test_dynamo_counts_from_1_and_copick_has_the_poses(work: Inspection, tmp_path: Path) -> None:
    done = work.export(tmp_path / "a.tbl", [1])
    assert done.added == 1 - work.session.ids.min()
    listed = io.read_particles(tmp_path / "a.tbl", voxel_size=20.0)
    assert sorted(listed["particle_id"] - done.added) == work.session.members(1).ids.tolist()
    assert "tags are particle_id + 1" in str(done)
    work.export(tmp_path / "project", [1], format="copick")
    kept = pd.read_csv(tmp_path / "project" / "particles.csv")
    assert kept["average"].value_counts().to_dict() == {"whole": 12, "glance": 2, "table": 2}


def test_the_users_own_list_comes_back_with_the_chosen_rows(folder: Path, boxes: Subtomograms, tmp_path: Path) -> None:
    # Their list has no ids; ours are other than its rows, since some were left out and all numbered anew.
    text = io.write_particles(boxes.particles, tmp_path / "theirs.star", voxel_size=20.0).read_text()
    own = tmp_path / "own.star"
    own.write_text(text.replace("tomolabParticleId", "theirNumber").replace("tomolabCluster", "other") + "\n# mine\n")
    read = io.read_particles(own).iloc[::-1].reset_index(drop=True)
    assert read["source_row"].tolist() == list(range(31, -1, -1))
    listed = read.assign(particle_id=boxes.ids, cluster=np.repeat([0, 1], 16))
    io.write_particles(listed, folder / "clusters.csv")
    work = inspection.open(folder, diameter=250)
    work.keep("average", average_of(work.session.table([1]), turn=30.0))
    done = exports.copy(work, own, tmp_path / "some.star", chosen=[1])
    assert (done.kept, done.dropped, done.elsewhere) == (16, 16, 0)
    wanted = listed.loc[listed["cluster"] == 1, "theirNumber"]
    assert io.read_particles(done.path)["theirNumber"].tolist() == sorted(wanted, key=read["theirNumber"].tolist()[::-1].index)
    assert set(done.path.read_text().splitlines()) < set(own.read_text().splitlines())
    kind = next(kind for kind in exports.KINDS if kind.format == exports.COPY)
    told = exports.make(work, kind, tmp_path / "again", chosen=[1], source=str(own))
    assert told == "16 of 32 particles of own.star are in again.star"
    assert (tmp_path / "again.star").read_bytes() == done.path.read_bytes()
    with pytest.raises(ValueError, match="say which list it is"):
        exports.make(work, kind, tmp_path / "again")


def test_a_folder_for_each_cluster_is_in_the_frame_of_one_average(work: Inspection, tmp_path: Path) -> None:
    kind = next(kind for kind in exports.KINDS if kind.format == "RELION")
    told = exports.make(work, kind, tmp_path / "relion")
    assert told == "32 particles are in 2 folders in relion; see README.txt there"
    assert sorted(path.name for path in (tmp_path / "relion").iterdir()) == ["README.txt", "cluster_0", "ribosomes"]
    found = io.read_particles(tmp_path / "relion" / "ribosomes" / "particles.star")
    # The quick one is in another frame.
    assert (found["rot"].round(3) == 40).sum() == 12
    assert not (found["rot"].round(3) == 70).any()
    assert (tmp_path / "relion" / "ribosomes" / "reference.mrc").is_file()
    assert not (tmp_path / "relion" / "cluster_0" / "reference.mrc").is_file()
    (done,) = exports.folders(work, tmp_path / "dynamo", [1], program="Dynamo")
    assert (done.path, done.count, dict(done.poses)) == (tmp_path / "dynamo" / "ribosomes", 16, {"whole": 12, "table": 4})
    bare = Inspection(work.session, diameter=250)
    with pytest.raises(ValueError, match="there are no boxes to write"):
        exports.folders(bare, tmp_path / "none", program="RELION")


@pytest.mark.parametrize("kind", [one for one in exports.KINDS if one.suffix], ids=lambda one: one.title)
def test_every_list_that_is_offered_comes_back_with_its_places(work: Inspection, tmp_path: Path, kind: exports.Kind) -> None:
    told = exports.make(work, kind, tmp_path / "list", chosen=[1], poses="table")
    path = tmp_path / f"list{kind.suffix}"
    assert told.startswith(f"16 particles are in {path.name}")
    shape = next(iter(work.tomograms.values())).shape
    options = {} if kind.suffix == ".csv" else {"voxel_size": 20.0, "tomogram_shape": shape, "tilts": (-60.0, 60.0)}
    # These two do not name their tomogram.
    options |= {"tomogram": "cell"} if kind.suffix in (".mod", ".ndjson") else {}
    found = io.read_particles(path, **options)
    wanted = work.session.table([1])
    # IMOD keeps its coordinates in 32 bits.
    np.testing.assert_allclose(particles.positions(found), particles.positions(wanted), atol=0.01)
    assert set(found["tomogram"].str.removesuffix(".tomostar")) == {wanted["tomogram"].iloc[0]}


def test_what_told_of_other_poses_and_halves_is_left_out_and_named(work: Inspection, tmp_path: Path) -> None:
    told = {"rlnAngleTiltPrior": 90.0, "rlnMaxValueProbDistribution": 0.5, "rlnRandomSubset": 1, "rlnImageName": "a.mrcs"}
    work.session.particles = work.session.particles.assign(**told)
    done = work.export(tmp_path / "a.star", [1])
    assert done.left_out == ("rlnAngleTiltPrior", "rlnMaxValueProbDistribution", "rlnRandomSubset")
    assert "; without rlnAngleTiltPrior, rlnMaxValueProbDistribution, rlnRandomSubset, which told of other poses" in str(done)
    found = io.read_particles(tmp_path / "a.star")
    assert [name for name in told if name in found] == ["rlnImageName"]
    plain = work.export(tmp_path / "b.star", [1], poses="table")
    assert plain.left_out == ()
    assert set(told) <= set(io.read_particles(tmp_path / "b.star"))
