"""An inspection acts on clusters, says what cannot be done and why, averages in the background, and reopens as it was left."""

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from tomolab import inspection, io
from tomolab.averaging import Average, gold_standard
from tomolab.averaging.relion import job as relion_job
from tomolab.clusters import layouts
from tomolab.inspection import Inspection, Session, averaging_task, run_contents, session
from tomolab.inspection.averaging_task import AveragingTask
from tomolab.learning import Embedding
from tomolab.subtomograms import Subtomograms, to_relion
from tomolab.volumes import Volume


def test_a_split_tells_apart_what_the_features_tell_apart(folder: Path, boxes: Subtomograms) -> None:
    work = inspection.open(folder)
    parts = work.split(0)
    found = work.session.table().groupby("cluster")["label"].agg(["nunique", "size"])
    assert len(parts) == 2
    assert found["nunique"].tolist() == [1, 1]
    assert found["size"].sum() == len(boxes)


def test_what_is_typical_comes_first(folder: Path) -> None:
    work = inspection.open(folder)
    odd = int(work.session.ids[3])
    vectors = np.zeros((len(work.session.ids), 4))
    vectors[:, 0] = 1.0
    vectors[3] = [0.0, 1.0, 0.0, 0.0]
    work.features = Embedding(work.session.ids, vectors, "of a test")
    assert work.typical(work.session.ids)[-1] == odd
    assert sorted(work.typical(work.session.ids)) == sorted(work.session.ids)


def test_it_says_what_cannot_be_split_or_averaged_and_why(folder: Path, boxes: Subtomograms) -> None:
    work = inspection.open(folder)
    assert work.split_problem([0]) == work.average_problem([0]) == ""
    assert work.split_problem([]) == "tick one cluster"
    assert work.average_problem([]) == "the selection holds 0 particles, and an average needs 8"
    work.session.select(boxes.ids[:3])
    with pytest.raises(ValueError, match="cannot average: the selection holds 3 particles"):
        work.average()
    with pytest.raises(ValueError, match="symmetry is C1 to"):
        work.average(0, symmetry="c0")
    bare = Inspection(Session(boxes.particles), diameter=250)
    assert bare.average_problem([]) == "there are no boxes to average"
    assert bare.split_problem([]) == "there is no embedding to split by"


def test_particles_that_are_lacking_are_named(boxes: Subtomograms) -> None:
    some = Embedding(boxes.ids[:-2], np.ones((len(boxes) - 2, 3)), "of a test")
    with pytest.raises(ValueError, match=rf"features lack 2 of 32 particles, such as \[{boxes.ids[-2]}, {boxes.ids[-1]}\]"):
        Inspection(Session(boxes.particles), features=some, diameter=250)
    with pytest.raises(ValueError, match="positive number of Å, got 0"):
        Inspection(Session(boxes.particles), diameter=0)


def test_an_average_lands_beside_its_cluster_and_in_the_run_folder_and_all_reopens(folder: Path) -> None:
    work = inspection.open(folder)
    first, second = work.split(0)
    work.session.describe(second, name="ribosomes")
    work.session.select(work.session.members(first).ids, "list")
    told: list[set[str]] = []
    landed = threading.Event()

    def watcher(changed: set[str]) -> None:
        told.append(changed)
        if changed == {"averages"}:
            landed.set()

    work.changed.connect(watcher)
    job = work.average(second, quick=True)
    other = work.average(second, quick=True)
    (name,) = job.result(120)
    assert landed.wait(5)
    assert name == "ribosomes, quick"
    assert list(other.result(120)) == ["ribosomes, quick (2)"]
    assert {"jobs"} in told
    average = work.averages[name]
    assert sorted(average.particles["particle_id"]) == work.session.members(second).ids.tolist()
    again = inspection.open(folder)
    assert list(again.averages) == ["ribosomes, quick", "ribosomes, quick (2)"]
    assert again.averages[name].record["cluster"] == second
    assert (again.averages[name].volume.data == average.volume.data).all()
    assert again.session.labels.equals(work.session.labels)
    assert again.session.selected.tolist() == work.session.selected.tolist()
    assert again.session.undo().startswith("select")
    assert again.session.title(second) == "ribosomes"


def test_a_killed_average_continues_and_a_stopped_one_leaves_no_file(folder: Path) -> None:
    work = inspection.open(folder)
    _, second = work.split(0)
    assert work.subtomograms is not None

    def killed(now: Any) -> None:
        if now.iteration == 2:
            raise KeyboardInterrupt

    def files() -> list[Path]:
        return list(folder.glob("average-*.safetensors"))

    options = {"seed": 0, "symmetry": "C2", "mask_diameter": 250.0}
    ids = work.session.members(second).ids
    task = AveragingTask("killed", work.subtomograms, ids, add=Mock(), folder=folder, options=options)
    with pytest.raises(KeyboardInterrupt):
        task(progress=killed, stop=lambda: False)
    assert len(files()) == 1
    seen: list[int] = []
    job = work.average(second, symmetry="C2", mask_diameter=250.0)
    job.watch(lambda job: seen.append(job.progress.iteration) if job.progress else None)
    (name,) = job.result(180)
    assert min(seen) > 1
    assert work.averages[name].record["symmetry"] == "C2"
    assert not files()
    with pytest.raises(KeyboardInterrupt):
        task(progress=killed, stop=lambda: False)
    job = work.average(second, symmetry="C2", mask_diameter=250.0)
    job.watch(lambda job: job.stop() if job.progress else None)
    assert len(job.result(180)) == 1
    assert job.state == "stopped"
    assert not files()


def test_new_clusters_begin_a_new_session_and_the_old_one_is_kept(folder: Path) -> None:
    work = inspection.open(folder)
    work.split(0)
    table = io.read_particles(folder / "clusters.csv")
    io.write_particles(table.assign(cluster=7), folder / "clusters.csv")
    with pytest.warns(
        UserWarning, match=r"clusters\.csv is not what it began with\. A new one begins; the old one is saved as session-1\.npz"
    ):
        again = inspection.open(folder)
    assert list(again.session.clusters) == [7]
    assert not again.session.history.past
    old = session.load(folder / "session-1.npz", table)
    assert old.labels.equals(work.session.labels)
    assert old.origin == work.session.origin != again.session.origin


def test_two_kernels_in_one_run_folder_keep_both_sessions(folder: Path) -> None:
    first, second = inspection.open(folder), inspection.open(folder)
    first.split(0)
    with pytest.warns(UserWarning, match=r"has saved its session as session\.npz; this one is saved as session-1\.npz"):
        second.session.select(second.session.ids[:3])
    second.session.select(second.session.ids[:4])
    first.session.merge([0, 1])
    assert (first.session_path, second.session_path) == (folder / "session.npz", folder / "session-1.npz")
    for one in (first, second):
        kept = session.load(one.session_path, one.session.particles)
        assert len(kept.history.past) == 2
        assert kept.selected.tolist() == one.session.selected.tolist()


def test_a_run_folder_may_come_later_and_one_that_takes_nothing_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = inspection.open(folder)
    work = inspection.Inspection(there.session, diameter=100.0)
    assert work.session_path is None
    assert work.average_problem([0], engine="RELION") == "there are no boxes to average"
    with pytest.raises(ValueError, match="no run folder"):
        work.save()
    work.folder = folder / "later"
    work.folder.mkdir()
    work.session.select(work.session.ids[:3])
    assert work.session_path == folder / "later" / "session.npz"
    seen = []
    work.changed.connect(seen.append)
    with monkeypatch.context() as patched:
        patched.setattr(Session, "save", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.warns(UserWarning, match="could not be saved in .*No space left"):
            work.session.select(work.session.ids[:5])
    assert "No space left on device" in work.unsaved
    assert seen == [{"selected"}]
    work.session.select(work.session.ids[:4])
    assert work.unsaved == ""
    assert session.load(work.session_path, work.session.particles).selected.sum() == 4


def test_a_layout_of_another_embedding_is_made_anew_whatever_the_clock_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def flat(found: Embedding, *, seed: int) -> pd.DataFrame:
        made.append(seed)
        return pd.DataFrame({"particle_id": found.ids, "x": found.vectors[:, 0], "y": 0.0})

    monkeypatch.setattr(layouts, "flat", flat)
    inspection.open(folder)
    assert not made
    (folder / "layout.csv").unlink()
    inspection.open(folder)
    inspection.open(folder)
    assert len(made) == 1
    features = run_contents.read_features(folder)
    assert features is not None
    Embedding(features.ids, -features.vectors, "another").save(folder / "embedding")
    # As if the clock had gone back an hour since the layout was made.
    then = (folder / "layout.csv").stat().st_mtime - 3600
    os.utime(folder / "embedding/vectors.npy", (then, then))
    points = inspection.open(folder).points
    assert points is not None
    np.testing.assert_allclose(points["x"], -features.take(points["particle_id"].to_numpy()).vectors[:, 0], rtol=1e-6)
    assert len(made) == 2


def test_classes_are_sorted_first_and_averaged_each(folder: Path, boxes: Subtomograms, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = pd.Series((boxes.particles["label"] == "tric").astype(int).to_numpy(), index=boxes.ids)
    labels.iloc[[0, 1, 2]] = 2
    sizes = labels.value_counts()

    def classify(*arguments: Any, **options: Any) -> SimpleNamespace:
        assert options["classes"] == 3
        return SimpleNamespace(labels=labels)

    monkeypatch.setattr(averaging_task, "classify", classify)
    with pytest.warns(UserWarning, match="cluster 0, class 3 holds 3 particles and is not averaged: that needs 8"):
        made = inspection.open(folder).average(0, classes=3).result(180)
    assert {name: len(average.particles) for name, average in made.items()} == {
        "cluster 0, class 1": sizes[0],
        "cluster 0, class 2": sizes[1],
    }


def test_relion_refines_what_ours_began_with_and_its_average_lands_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    made: list[Average] = []
    real = gold_standard.average

    def average(*arguments: Any, **options: Any) -> Average:
        made.append(real(*arguments, **options))
        return made[-1]

    def refine(place: Path, **options: Any) -> Average:
        asked.update(options, place=place)
        return replace(made[0], record={"program": "RELION"})

    monkeypatch.setattr(gold_standard, "average", average)
    monkeypatch.setattr(relion_job, "refine", refine)
    monkeypatch.setattr(relion_job, "available", lambda: None)
    assert "RELION is not installed here" in inspection.open(folder).average_problem([0], engine="RELION")
    programs = SimpleNamespace(refine_mpi="mpi", mpirun="run", reconstruct="make")
    monkeypatch.setattr(relion_job, "available", lambda: programs)
    work = inspection.open(folder)
    # Of one kind: the average of two may warn that it is not reliable.
    _, second = work.split(0)
    (name,) = work.average(second, engine="RELION", quick=True, symmetry="C1").result(120)
    assert name == "cluster 1, quick, RELION"
    assert asked["reference"] is made[0].volume
    assert asked["diameter"] == made[0].record["mask"]
    assert asked["symmetry"] == "C1"
    assert asked["place"] == folder / "relion" / "cluster_1,_quick,_RELION"
    assert len(to_relion.particles(asked["place"] / "particles.star")) == 16
    about = {"name": name, "cluster": second, "members": work.session.digest(second), "quick": True}
    assert work.averages[name].record == {"program": "RELION"} | about
    bare = Inspection(work.session, subtomograms=work.subtomograms, diameter=250)
    assert bare.average_problem([0], engine="RELION") == "RELION works in files, and there is no run folder"


def test_what_is_exported_is_what_is_counted(folder: Path, tmp_path: Path) -> None:
    work = inspection.open(folder)
    _, second = work.split(0)
    counts = work.session.counts()
    assert inspection.export(work, tmp_path / "one.star", [second]).count == counts[second]
    written = io.read_particles(tmp_path / "one.star")
    assert sorted(written["particle_id"]) == work.session.members(second).ids.tolist()
    assert set(written["cluster"]) == {second}
    assert inspection.export(work, tmp_path / "all.csv").count == 32


def test_a_folder_without_clusters_says_which_notebook_makes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the notebook 05_clusters first"):
        inspection.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["tomogram.rec", "tomogram.mrc.gz", "tomogram.zarr", "tomograms/cell.zarr", "tomograms/cell.rec.bz2"]
)
def test_a_tomogram_of_any_kind_is_found(folder: Path, name: str) -> None:
    volume = io.read_volume(folder / "tomogram.mrc")
    (folder / "tomogram.mrc").unlink()
    (folder / "tomograms").mkdir(exist_ok=True)
    io.write_volume(volume, folder / name.replace(".rec", ".mrc"))
    (folder / name.replace(".rec", ".mrc")).rename(folder / name)
    table = run_contents.read_table(folder)
    found = run_contents.read_tomograms(folder, table)
    assert list(found) == ["cell"]
    np.testing.assert_array_equal(found["cell"].data, volume.data)
    assert list(run_contents.tomogram_files(folder)) == ["cell" if "/" in name else ""]


def test_tomograms_are_read_when_they_are_shown_and_the_latest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name: tmp_path / f"{name}.mrc" for name in ("a", "b", "c")}
    for number, path in enumerate(files.values()):
        io.write_volume(Volume(np.full((4, 4, 4), number, dtype=np.float32), 10.0), path)
    found = run_contents.StoredTomograms(files)
    assert [one.shape for one in found.headers.values()] == [(4, 4, 4)] * 3
    monkeypatch.setattr(run_contents, "MEMORY", 2 * 4 * 64)
    kept = found["a"]
    assert found["b"].data[0, 0, 0] == 1
    assert found["a"] is kept
    assert found["c"].data[0, 0, 0] == 2  # and "b" goes, the one that was not used for longest
    assert found["a"] is kept
    (tmp_path / "b.mrc").unlink()
    with pytest.raises(FileNotFoundError):
        found["b"]
