"""What leaves an inspection: poses of averages and told from where, lists, folders; other readers find the particles."""

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import dynamotable
import emfile
import eulerangles
import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from scipy.ndimage import map_coordinates

from tomolab import inspection, io, particles, rotations, volumes
from tomolab.averaging import Average, alignment, relion
from tomolab.averaging.relion import programs
from tomolab.inspection import Inspection, exports
from tomolab.inspection.exports import ParticleClass
from tomolab.subtomograms import Subtomograms, to_dynamo
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
    work.add_average("whole", average_of(first[:12], turn=40.0))
    work.add_average("glance", average_of(first[8:14], turn=70.0), quick=True)
    return work


def test_particles_leave_in_the_poses_of_their_averages(work: Inspection, tmp_path: Path) -> None:
    done = inspection.export(work, tmp_path / "a.star", [1])
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
    plain = inspection.export(work, tmp_path / "b.star", [1], poses="table")
    assert dict(plain.poses) == {"table": 16}
    assert str(plain) == "16 particles are in b.star"
    found = io.read_particles(tmp_path / "b.star").set_index("particle_id")
    np.testing.assert_allclose(found["rot"], before["rot"].loc[found.index], atol=1e-4)
    assert "average" not in found
    with pytest.raises(ValueError, match="poses is one of average, table, got 'mine'"):
        inspection.export(work, tmp_path / "c.star", poses="mine")


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
    done = inspection.export(work, tmp_path / "a.tbl", [1])
    assert done.added == 1 - work.session.ids.min()
    listed = io.read_particles(tmp_path / "a.tbl", voxel_size=20.0)
    assert sorted(listed["particle_id"] - done.added) == work.session.members(1).ids.tolist()
    assert "tags are particle_id + 1" in str(done)
    inspection.export(work, tmp_path / "project", [1], format="copick")
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
    work.add_average("average", average_of(work.session.table([1]), turn=30.0))
    done = io.filter_particles(own, work.session.table([1]), tmp_path / "some.star")
    assert (done.kept, done.dropped, done.elsewhere) == (16, 16, 0)
    wanted = listed.loc[listed["cluster"] == 1, "theirNumber"]
    assert io.read_particles(done.path)["theirNumber"].tolist() == sorted(wanted, key=read["theirNumber"].tolist()[::-1].index)
    assert set(done.path.read_text().splitlines()) < set(own.read_text().splitlines())
    kind = next(kind for kind in exports.FORMATS if kind.format == exports.COPY)
    told = exports.export_as(work, kind, tmp_path / "again", chosen=[1], source=str(own))
    assert told == "16 of 32 particles of own.star are in again.star"
    assert (tmp_path / "again.star").read_bytes() == done.path.read_bytes()
    with pytest.raises(ValueError, match="give the list from which"):
        exports.export_as(work, kind, tmp_path / "again")


def test_a_folder_for_each_cluster_is_in_the_frame_of_one_average(work: Inspection, tmp_path: Path) -> None:
    kind = next(kind for kind in exports.FORMATS if kind.format == "RELION")
    told = exports.export_as(work, kind, tmp_path / "relion")
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


@pytest.mark.parametrize("kind", [one for one in exports.FORMATS if one.suffix], ids=lambda one: one.title)
def test_every_list_that_is_offered_comes_back_with_its_places(
    work: Inspection, tmp_path: Path, kind: exports.ExportFormat
) -> None:
    told = exports.export_as(work, kind, tmp_path / "list", chosen=[1], poses="table")
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
    done = inspection.export(work, tmp_path / "a.star", [1])
    assert done.left_out == ("rlnAngleTiltPrior", "rlnMaxValueProbDistribution", "rlnRandomSubset")
    assert "; without rlnAngleTiltPrior, rlnMaxValueProbDistribution, rlnRandomSubset, which describe other poses" in str(done)
    found = io.read_particles(tmp_path / "a.star")
    assert [name for name in told if name in found] == ["rlnImageName"]
    plain = inspection.export(work, tmp_path / "b.star", [1], poses="table")
    assert plain.left_out == ()
    assert set(told) <= set(io.read_particles(tmp_path / "b.star"))


SHIFTS = np.array([[20.0, -15.0, 10.0], [-12.0, 8.0, 25.0], [0.0, 18.0, -22.0]])
"""Å, zyx, of the particles from the centres of their boxes."""


@pytest.fixture
def phantoms(phantom: Volume) -> Subtomograms:
    """Three phantoms, turned and shifted, with ids from 0 and a grain of noise around them."""
    turns = rotations.random(3, torch.Generator().manual_seed(4))
    batch = torch.from_numpy(phantom.data).expand(3, -1, -1, -1)
    turned = volumes.transform(batch, turns, torch.from_numpy(SHIFTS / 10).float()).numpy()
    noise = np.random.default_rng(1).normal(size=turned.shape) * 0.01
    table = particles.table(
        np.array([[500.0, 600.0, 700.0], [510.0, 840.0, 900.0], [300.0, 310.0, 320.0]]), tomogram=["b", "a", "b"], ids=[0, 7, 3]
    )
    return Subtomograms((turned + noise).astype(np.float32), table, 10.0)


@pytest.fixture
def poses(phantoms: Subtomograms) -> pd.DataFrame:
    """Where they lie, and how."""
    turns = rotations.random(3, torch.Generator().manual_seed(4)).double().numpy()
    places = particles.positions(phantoms.particles) + SHIFTS
    names = phantoms.particles["tomogram"].tolist()
    return particles.table(places, tomogram=names, ids=phantoms.ids, rotations=turns, half=[1, 2, 1])


@pytest.fixture
def average(phantom: Volume, poses: pd.DataFrame) -> Average:
    """Of them, made elsewhere."""
    fsc = pd.DataFrame({"resolution": [100.0, 50.0], "fsc": [1.0, 0.0]})
    return Average(phantom, phantom, phantom, fsc, poses, {"mask": 240.0, "symmetry": "C2"})


def test_dynamo_finds_the_phantom(
    phantoms: Subtomograms, poses: pd.DataFrame, average: Average, phantom: Volume, tmp_path: Path
) -> None:
    (place,) = exports.write_class_folders(
        [ParticleClass("all", poses, average)], phantoms, tmp_path / "d", program="Dynamo", diameter=200
    )
    table = dynamotable.read(place / "data" / "crop.tbl", place / "data" / "indices_column_20.doc")
    assert table["tag"].tolist() == [1, 8, 4]
    assert table["tomo_file"].tolist() == ["b", "a", "b"]
    assert table["apix"].tolist() == [10.0] * 3
    points = np.argwhere(phantom.data > 0.3)[:, ::-1] - 16
    values = phantom.data[phantom.data > 0.3]
    for (_, row), box in zip(table.iterrows(), particles.positions(phantoms.particles), strict=True):
        header, data = emfile.read(place / "data" / f"particle_{int(row['tag']):05d}.em")
        assert (header["xdim"], header["ydim"], header["zdim"]) == (32, 32, 32)
        np.testing.assert_allclose(row[["z", "y", "x"]].to_numpy(dtype=float) - 0.5, box / 10)
        turn = eulerangles.euler2matrix(
            row[["tdrot", "tilt", "narot"]].to_numpy(dtype=float), axes="zxz", intrinsic=False, right_handed_rotation=True
        )
        middle = 16 + row[["dx", "dy", "dz"]].to_numpy(dtype=float)
        seen, wrong = (map_coordinates(data, (middle + points @ m)[:, ::-1].T, order=1) for m in (turn, turn.T))
        assert np.corrcoef(seen, values)[0, 1] > 0.95
        assert np.corrcoef(wrong, values)[0, 1] < 0.8
    _, template = emfile.read(place / "template.em")
    assert np.array_equal(template, phantom.data)
    assert "tag of a particle is its particle_id + 1" in (tmp_path / "d" / "README.txt").read_text()


def test_relion_has_all_that_its_command_names(
    phantoms: Subtomograms, poses: pd.DataFrame, average: Average, tmp_path: Path
) -> None:
    sets = [ParticleClass("my ribosomes", poses.iloc[[2, 0]], average, "about these"), ParticleClass("rest", poses.iloc[[1]])]
    places = exports.write_class_folders(sets, phantoms, tmp_path / "r", program="RELION", diameter=200)
    assert [one.name for one in places] == ["my_ribosomes", "rest"]
    rows = starfile.read(places[0] / "particles.star", always_dict=True)["particles"]
    np.testing.assert_allclose(
        rows.set_index("tomolabParticleId").loc[[0, 3], [f"rlnOrigin{axis}Angst" for axis in "ZYX"]], -SHIFTS[[0, 2]], atol=1e-5
    )
    assert rows["rlnRandomSubset"].tolist() == [1, 1]
    for name in ("reference.mrc", "mask.mrc", rows["rlnImageName"][0], rows["rlnCtfImage"][0]):
        assert mrcfile.validate(places[0] / name)
        with mrcfile.open(places[0] / name) as file:
            assert file.data.shape == (32, 32, 32)
            assert file.is_volume()
            assert (int(file.header.ispg), float(file.voxel_size.x)) == (1, 10.0)
            assert [float(file.header.origin[axis]) for axis in "xyz"] == [0, 0, 0]
    mask = io.read_volume(places[0] / "mask.mrc").data
    assert (mask.min(), mask.max()) == (0, 1)
    assert np.count_nonzero((mask > 0) & (mask < 1)) > 1000
    # As wide as the mask of the average.
    assert mask[16, 16].nonzero()[0][[0, -1]].tolist() == [16 - 11, 16 + 11]
    text = (tmp_path / "r" / "README.txt").read_text()
    commands = [shlex.split(line) for line in text.splitlines() if line.strip().startswith("cd ")]
    words = commands[0]
    assert words[:3] == ["cd", "my_ribosomes", "&&"]
    options = {words[n]: words[n + 1] for n in range(len(words) - 1) if words[n].startswith("--")}
    assert (options["--i"], options["--o"], options["--sym"]) == ("particles.star", "run/run", "C2")
    assert float(options["--particle_diameter"]) == 240
    for option in ("--i", "--ref", "--solvent_mask"):
        assert (places[0] / options[option]).is_file()
    assert "about these" in text
    assert "put a map of the same box there as reference.mrc" in text
    assert not (places[1] / "reference.mrc").exists()


@pytest.mark.relion
@pytest.mark.skipif(relion.available() is None, reason="RELION is not installed (apt-get install relion openmpi-bin)")
def test_relion_takes_the_command_as_it_stands(phantom: Volume, tmp_path: Path) -> None:
    small, generator = volumes.fit(volumes.resample(phantom, 20.0), 16), torch.Generator().manual_seed(0)
    turns, shifts = rotations.random(16, generator), torch.randn(16, 3, generator=generator)
    batch = volumes.transform(torch.from_numpy(small.data).expand(16, -1, -1, -1), turns, shifts)
    noisy = volumes.normalise(batch + 0.3 * batch.std() * torch.randn(batch.shape, generator=generator))
    cut = Subtomograms(noisy.numpy(), particles.table(np.arange(48).reshape(16, 3) * 20.0), 20.0)
    places = particles.positions(cut.particles) + 20 * shifts.numpy()
    poses = particles.table(places, rotations=turns.double().numpy())
    fsc = pd.DataFrame({"resolution": [100.0, 50.0], "fsc": [1.0, 0.0]})
    made = Average(small, small, small, fsc, poses, {"mask": 280.0})
    exports.write_class_folders(
        [ParticleClass("a $(b)\n    cd elsewhere", poses, made)], cut, tmp_path / "r", program="RELION", diameter=280
    )
    lines = [line for line in (tmp_path / "r" / "README.txt").read_text().splitlines() if line.startswith("    ")]
    assert len(lines) == 1
    first, _, rest = lines[0].partition(" && ")
    assert first.split() == ["cd", "a_b_cd_elsewhere"]
    words = shlex.split(rest.removeprefix("mkdir -p run && "))
    (tmp_path / "r" / "a_b_cd_elsewhere" / "run").mkdir()
    some = ["--auto_iter_max", "1", "--healpix_order", "1"]
    surroundings = os.environ | programs.environment()
    done = subprocess.run(
        [*words, *some], cwd=tmp_path / "r" / "a_b_cd_elsewhere", env=surroundings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = relion.read(tmp_path / "r" / "a_b_cd_elsewhere")
    assert found.record["iterations"] == 1
    assert alignment.align_map(found.volume, small).score > 0.85


def test_names_cannot_lead_anywhere_else_and_are_different() -> None:
    names = exports.folder_names(["../../etc", "a b", "a_b", "A B", "$(rm -rf)", "", "x" * 300, "..", "Ölbaum"])
    assert names == ["etc", "a_b", "a_b_2", "A_B_3", "rm_-rf", "class", "x" * 80, "class_2", "Ölbaum"]


def test_all_or_nothing(phantoms: Subtomograms, poses: pd.DataFrame, tmp_path: Path) -> None:
    flat = Subtomograms(np.concatenate([phantoms.volumes[:2], np.zeros((1, 32, 32, 32))]), phantoms.particles, 10.0)
    sets = [ParticleClass("first", poses.iloc[[0, 1]]), ParticleClass("second", poses.iloc[[2]])]
    with pytest.raises(ValueError, match="background of particle 3 is constant"):
        exports.write_class_folders(sets, flat, tmp_path / "r", program="RELION", diameter=200)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r").mkdir()
    for program in exports.PROGRAMS:
        with pytest.raises(FileExistsError, match="is there already; name another folder"):
            exports.write_class_folders(sets, phantoms, tmp_path / "r", program=program, diameter=200)
    with pytest.raises(FileExistsError, match="is there already"):
        to_dynamo.write(phantoms, tmp_path / "r", poses=poses)
    with pytest.raises(ValueError, match="no particles in none"):
        exports.write_class_folders(
            [ParticleClass("none", poses[:0])], phantoms, tmp_path / "s", program="RELION", diameter=200
        )
    with pytest.raises(ValueError, match="there is no class to write"):
        exports.write_class_folders([], phantoms, tmp_path / "s", program="RELION", diameter=200)
    with pytest.raises(ValueError, match="program is one of RELION, Dynamo, got 'EMAN2'"):
        exports.write_class_folders(sets, phantoms, tmp_path / "s", program="EMAN2", diameter=200)
