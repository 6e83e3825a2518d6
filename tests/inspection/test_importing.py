"""Tomograms and lists become a run folder with boxes, features and clusters; what could mean two things is asked for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tomolab import inspection, io, simulation, subtomograms, volumes
from tomolab.inspection import input_particles, input_tomograms, run_contents
from tomolab.io import paths
from tomolab.simulation import Imaging, densities
from tomolab.volumes import Volume

OPTIONS: dict[str, Any] = {"contrast": "bright", "tilts": (-60.0, 60.0), "diameter": 250.0, "seed": 1, "progress": False}
EDGES = "ignore:.*the box leaves the tomogram"


@pytest.fixture(scope="module")
def simulated() -> tuple[Volume, pd.DataFrame]:
    """A small tomogram with particles of two species, and where they are."""
    maps = densities.load(["ribosome_70s", "spliceosome"], voxel_size=20.0, box=20)
    tomogram, truth = simulation.tomogram(maps, 40, shape=(40, 120, 120), imaging=Imaging(snr=0.5), seed=1)
    return tomogram, truth.drop(columns=["tilt_min", "tilt_max"])


@pytest.fixture
def place(simulated: tuple[Volume, pd.DataFrame], tmp_path: Path) -> Path:
    """Two dark tomograms as files of two kinds, and lists of their particles."""
    tomogram, truth = simulated
    dark = volumes.invert(tomogram)
    (tmp_path / "data").mkdir()
    io.write_volume(dark, tmp_path / "data" / "TS_1.mrc")
    io.write_volume(Volume(dark.data[:, :100], 20.0), tmp_path / "data" / "TS_2.zarr")
    first = truth.assign(tomogram="TS_1", tilt_min=-60.0, tilt_max=60.0)
    second = first[first["y"] < 1900].assign(tomogram="TS_2")
    both = pd.concat([first, second.assign(particle_id=second["particle_id"] + 1000)], ignore_index=True)
    io.write_particles(both, tmp_path / "both.star", voxel_size=20.0)
    io.write_particles(first, tmp_path / "TS_1.star", voxel_size=20.0)
    io.write_particles(second, tmp_path / "TS_2.star", voxel_size=20.0)
    return tmp_path


def test_a_tomogram_becomes_a_run_folder_with_its_particles(simulated: tuple[Volume, pd.DataFrame], tmp_path: Path) -> None:
    tomogram, truth = simulated
    io.write_volume(volumes.invert(tomogram), tmp_path / "dark.mrc")
    with pytest.warns(UserWarning, match="the box leaves the tomogram"):
        work = inspection.import_data(tmp_path / "dark.mrc", tmp_path / "run", **OPTIONS | {"contrast": "dark"})
    there = truth[["z", "y", "x"]].to_numpy()
    picked = work.session.particles[["z", "y", "x"]].to_numpy()
    nearest = np.linalg.norm(there[:, None] - picked, axis=2).min(1)
    inside = ((there > 200) & (there < np.array(tomogram.extent) - 200)).all(1)
    assert inside.sum() > 20
    assert (nearest[inside] < 100).mean() > 0.8
    assert work.subtomograms is not None
    assert len(work.subtomograms) == len(work.session.particles)
    assert len(work.session.clusters) == len(picked) // 16
    # Dark density was inverted: what was picked is bright.
    assert work.subtomograms.take(work.subtomograms.ids[:20]).volumes[:, 9:12, 9:12, 9:12].mean() > 0.5
    assert set(work.tomograms) == {"dark"}
    # It opens again, with its numbers for the report.
    again = inspection.open(tmp_path / "run")
    assert again.session.labels.equals(work.session.labels)
    assert again.diameter == 250.0
    contents = run_contents.read(tmp_path / "run")
    steps = {step.title: step.count for step in contents.steps}
    assert steps["picked"] >= steps["cut out"] == steps["embedded"] == len(picked)
    assert (contents.changed, contents.faults) == ([], [])
    # The same call opens it with what was done since; another call is refused.
    work.session.select(work.session.ids, "all")
    work.session.new_cluster("mine")
    same = inspection.import_data(tmp_path / "dark.mrc", tmp_path / "run", **OPTIONS | {"contrast": "dark"})
    assert same.session.labels.equals(work.session.labels)
    with pytest.raises(FileExistsError, match=r"has an import with other seed: open that folder as it is, give the same"):
        inspection.import_data(tmp_path / "dark.mrc", tmp_path / "run", **OPTIONS | {"contrast": "dark", "seed": 2})


@pytest.mark.filterwarnings(EDGES)
def test_a_table_is_taken_as_it_is(simulated: tuple[Volume, pd.DataFrame], tmp_path: Path) -> None:
    tomogram, truth = simulated
    work = inspection.import_data(tomogram, tmp_path, particles=truth.assign(cluster=7), **OPTIONS)
    assert set(work.session.particles["particle_id"]) <= set(truth["particle_id"])
    assert (work.session.particles["tilt_max"] == 60.0).all()
    assert {"label", "list_cluster"} <= set(work.session.particles)


@pytest.mark.filterwarnings(EDGES, "ignore:no particle")
def test_many_tomograms_and_lists_are_one_run(place: Path) -> None:
    options = OPTIONS | {"contrast": "dark"}
    one = inspection.import_data(place / "data", place / "a", particles=place / "both.star", **options)
    assert one.named == ["TS_1", "TS_2"]
    assert one.subtomograms is not None
    assert one.tomograms["TS_2"].shape == (40, 100, 120)
    # A list for each, by the names of the files, by the names in a mapping, and a list of tomograms as a table.
    files = [place / "data" / "TS_1.mrc", place / "data" / "TS_2.zarr"]
    lists = [place / "TS_1.star", place / "TS_2.star"]
    two = inspection.import_data(files, place / "b", particles=lists, **options)
    subtomograms.write_tomogram_list(subtomograms.find_tomograms(place / "data"), place / "tomograms.csv")
    text = (place / "tomograms.csv").read_text()
    assert text == "tomogram,path,voxel_size,tilts,contrast\nTS_1,data/TS_1.mrc,20.0,,\nTS_2,data/TS_2.zarr,20.0,,\n"
    (place / "tomograms.csv").write_text(text.replace(",,\n", ",,dark\n"))
    listed = {key: value for key, value in OPTIONS.items() if key != "contrast"}
    three = inspection.import_data(
        place / "tomograms.csv", place / "c", particles=dict(zip(["TS_1", "TS_2"], lists, strict=True)), **listed
    )
    columns = ["tomogram", "z", "y", "x", "tilt_min", "label"]
    for other in (two, three):
        assert other.session.particles[columns].equals(one.session.particles[columns])
        assert other.subtomograms is not None
        assert np.array_equal(other.subtomograms.volumes[:], one.subtomograms.volumes[:])
        assert other.session.labels.to_numpy().tolist() == one.session.labels.to_numpy().tolist()
    assert two.session.particles["original_id"].duplicated().any()
    # Particles of one tomogram alone.
    with pytest.raises(ValueError, match=r"tomograms that were not given, TS_2; the tomograms are TS_1\. .*skip_unknown=True"):
        inspection.import_data(files[0], place / "d", particles=place / "both.star", **options)
    assert not (place / "d").exists()
    with pytest.warns(UserWarning, match="their tomograms were not given"):
        part = inspection.import_data(files[0], place / "d", particles=place / "both.star", skip_unknown=True, **options)
    assert part.named == ["TS_1"]


@pytest.mark.filterwarnings(EDGES)
def test_features_of_others_come_by_the_same_call(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tomogram, table = place / "data" / "TS_1.mrc", io.read_particles(place / "TS_1.star")
    values = np.random.default_rng(1).normal(size=(len(table), 6)).astype(np.float32)
    np.savez(place / "z.npz", ids=table["particle_id"].to_numpy()[::-1], vectors=values[::-1])
    np.save(place / "z.npy", values)
    options = OPTIONS | {"contrast": "dark", "particles": place / "TS_1.star", "tilts": None}
    work = inspection.import_data(tomogram, place / "a", features=place / "z.npz", **options)
    assert work.features is not None
    for one in (0, -1):
        number = work.features.ids[one]
        assert np.array_equal(work.features.vectors[one], values[table["particle_id"] == number][0])
    again = inspection.import_data(tomogram, place / "b", features=place / "z.npy", features_in_order=True, **options)
    assert again.features is not None
    assert np.array_equal(again.features.vectors, work.features.vectors)
    with pytest.raises(ValueError, match=r"has no ids.*features_in_order=True"):
        inspection.import_data(tomogram, place / "c", features=place / "z.npy", **options)
    with pytest.raises(ValueError, match="give particles="):
        inspection.import_data(tomogram, place / "c", features=place / "z.npz", **options | {"particles": None})
    np.savez(place / "few.npz", ids=table["particle_id"].to_numpy()[1:], vectors=values[1:])
    with pytest.raises(ValueError, match="1 of 80 particles have no features"):
        inspection.import_data(tomogram, place / "c", features=place / "few.npz", **options)
    assert not (place / "c").exists()


@pytest.mark.filterwarnings(EDGES)
def test_boxes_for_averages_may_be_finer(simulated: tuple[Volume, pd.DataFrame], tmp_path: Path) -> None:
    tomogram, truth = simulated
    fine = volumes.resample(tomogram, 10.0)
    options = OPTIONS | {"particles": truth[:20]}
    work = inspection.import_data(fine, tmp_path / "fine", box_voxel_size=10.0, **options)
    assert work.subtomograms is not None
    assert (work.subtomograms.box, work.subtomograms.voxel_size) == (40, 10.0)
    coarse = inspection.import_data(fine, tmp_path / "coarse", **options)
    assert work.features is not None
    assert coarse.features is not None
    shared = np.intersect1d(work.features.ids, coarse.features.ids)
    assert len(shared) >= 8
    assert np.allclose(work.features.take(shared).vectors, coarse.features.take(shared).vectors, atol=1e-4)


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def coords(path: Path, truth: pd.DataFrame, size: float) -> Path:
    """A list of voxels that says nothing else."""
    return put(path, "".join(f"{x:g} {y:g} {z:g}\n" for z, y, x in truth[["z", "y", "x"]].to_numpy() / size))


def test_what_could_mean_two_things_is_asked_for(simulated: tuple[Volume, pd.DataFrame], place: Path) -> None:
    truth = simulated[1]
    tomogram, other = place / "data" / "TS_1.mrc", place / "data" / "TS_2.zarr"
    nameless = put(place / "picks.csv", "x,y,z\n" + "1,2,3\n" * 9)
    unsized = place / "unsized.mrc"
    io.write_volume(Volume(np.ones((30, 30, 30)), 1.0), unsized)
    for changes, message in (
        ({"contrast": None}, r'bright or dark in TS_1\? .*give contrast="dark".*Its densities look dark'),
        ({"contrast": "bright"}, r'protein is dark in .*TS_1\.mrc.*: state contrast="dark"'),
        ({"contrast": "grey"}, "contrast must be"),
        ({"tilts": None}, r"between which tilts was TS_1 recorded\? Give tilts="),
        ({"tilts": (60, -60)}, "tilts must be the lowest and the highest"),
        ({"tilts": {"TS_9": (-60, 60)}}, "tilts= lacks TS_1; it has TS_9"),
        ({"voxel_size": 10.0}, "20 .*but voxel_size=10 was given"),
        ({"tomograms": unsized}, r"give voxel_size= .*or the column voxel_size"),
        ({"tomograms": place / "none.mrc"}, "there is no tomogram .*none.mrc"),
        ({"tomograms": place}, "unsized|occur"),
        ({"tomograms": []}, "at least one row"),
        ({"tomograms": {"a/b": tomogram}}, r"'a/b' cannot name a file"),
        ({"diameter": -1.0}, "diameter must be a positive number"),
        ({"box_voxel_size": 40.0}, "box_voxel_size must lie above 0 and up to the 20 Å"),
        ({"particles": nameless}, "give unit='angstrom', or unit='voxel'"),
        (
            {"particles": coords(place / "a.coords", truth, 5.0)},
            "in pixels of 5 Å they would lie inside.*particles_voxel_size=",
        ),
        ({"particles": coords(place / "b.coords", truth, 40.0)}, "lie in the first 46%.*particles_voxel_size=, 20 if"),
        ({"particles": place / "TS_1.star", "particles_voxel_size": 10.0}, "but particles_voxel_size=10 was given"),
        ({"particles": place / "TS_2.star"}, r"TS_2; the tomograms are TS_1\. Give tomograms=\{NAME_IN_LIST: PATH\}"),
        ({"tomograms": [tomogram, other], "particles": put(place / "c.coords", "1 2 3\n")}, "name the list after its tomogram"),
        ({"particles": {"TS_1": place / "both.star"}}, "has particles of 2, TS_1, TS_2"),
        ({"particles": place / "data"}, "has no particle list"),
        ({"particles": []}, "leave it out to pick particles"),
        ({"particles": truth[:3].assign(tomogram="TS_1")}, "8 particles or more are needed, got 3"),
    ):
        given = {"tomograms": tomogram, "folder": place / "run"} | OPTIONS | {"contrast": "dark"} | changes
        given["check_contrast"] = "contrast" in changes
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            inspection.import_data(**given)
        assert not (place / "run").exists(), changes
    work = place / "work"
    work.mkdir()
    put(work / "clusters.csv", "")
    with pytest.raises(FileExistsError, match=r"has clusters\.csv already: open that folder"):
        inspection.import_data(tomogram, work, **OPTIONS | {"contrast": "dark"})
    # Tomograms of the user that lie where the copies would go.
    (place / "data").rename(place / "tomograms")
    with pytest.raises(FileExistsError, match="has tomograms already"):
        inspection.import_data(place / "tomograms", place, **OPTIONS | {"contrast": "dark"})


def test_lists_of_voxels_are_taken_where_they_can_mean_one_thing(simulated: tuple[Volume, pd.DataFrame], place: Path) -> None:
    truth = simulated[1]
    known = input_tomograms.read_inputs(
        [place / "data" / "TS_1.mrc", place / "data" / "TS_2.zarr"],
        contrast="dark",
        tilts=(-60, 60),
        voxel_size=None,
        check_contrast=False,
    )
    table = input_particles.read_inputs(coords(place / "TS_1_picks.coords", truth, 20.0), known, input_particles.ListOptions())
    assert set(table["tomogram"]) == {"TS_1"}
    assert np.allclose(table[["z", "y", "x"]], truth[["z", "y", "x"]], atol=0.1)
    fine = input_particles.ListOptions(particles_voxel_size=5.0)
    table = input_particles.read_inputs(coords(place / "TS_1.coords", truth, 5.0), known, fine)
    assert np.allclose(table[["z", "y", "x"]], truth[["z", "y", "x"]], atol=0.1)


def test_too_few_picks_leave_the_folder_empty(tmp_path: Path) -> None:
    empty = Volume(np.random.default_rng(1).normal(size=(24, 24, 24)), 20.0)
    with pytest.raises(ValueError, match=r"8 particles or more are needed, got \d: lower threshold="):
        inspection.import_data(empty, tmp_path, **OPTIONS)
    assert not list(tmp_path.iterdir())


SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from tomolab import inspection
inspection.import_data(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
"""


@pytest.mark.filterwarnings(EDGES)
def test_a_killed_import_ends_the_same(place: Path) -> None:
    options = OPTIONS | {"contrast": "dark", "box_voxel_size": 10.0}
    for until in ("tomograms/TS_1.mrc", "embedding*"):
        given = [str(place / "data"), str(place / "killed"), json.dumps(options)]
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, *given])
        while process.poll() is None and not list((place / "killed").glob(until)):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    for name in ("straight", "killed"):
        inspection.import_data(place / "data", place / name, **options)
    for name in ("clusters.csv", "picks.star", "subtomograms.zarr", "embedding", "tomograms", "import.json", "layout.csv"):
        assert paths.sha256(place / "killed" / name) == paths.sha256(place / "straight" / name), name
    assert sorted(one.name for one in (place / "killed").iterdir()) == sorted(
        one.name for one in (place / "straight").iterdir()
    )
