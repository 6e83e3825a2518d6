"""Discovery in an inspection: the clusters become the structures in one step, each with its average, and all is kept."""

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from tomolab import inspection, io, jobs
from tomolab.averaging import half_maps
from tomolab.averaging.classification.contaminants import Contaminant
from tomolab.inspection import Inspection, Session, cluster_columns, run_contents
from tomolab.inspection.actions import ACTIONS, Choice
from tomolab.inspection.discovery import DiscoveryProgress, DiscoveryResult, DiscoveryTask, fitting, shipped
from tomolab.jobs import Job
from tomolab.learning import Embedding
from tomolab.subtomograms import Subtomograms
from tomolab.ui import job_summary


def write(folder: Path, mixed: Subtomograms, rough: pd.Series) -> Path:
    """A run folder with the rough clusters, and features that tell the complexes apart a little."""
    vectors = np.random.default_rng(1).normal(size=(len(mixed), 6))
    vectors[:, 0] += np.where(mixed.particles["label"] == "tric", 1.0, -1.0)
    Embedding(mixed.ids, vectors, "of a test").save(folder / "embedding")
    io.write_particles(mixed.particles.assign(cluster=rough.to_numpy()), folder / "clusters.csv")
    mixed.save(folder / "subtomograms.zarr")
    pd.DataFrame({"particle_id": mixed.ids, "x": vectors[:, 0], "y": vectors[:, 1]}).to_csv(folder / "layout.csv", index=False)
    return folder


@pytest.fixture
def work(tmp_path: Path, mixed: Subtomograms, rough: pd.Series) -> Inspection:
    return inspection.open(write(tmp_path, mixed, rough), diameter=200.0)


Discovered = tuple[Inspection, DiscoveryResult, pd.Series, list[Any], Job[DiscoveryResult]]


@pytest.fixture(scope="module")
def discovered(tmp_path_factory: pytest.TempPathFactory, mixed: Subtomograms, rough: pd.Series) -> Discovered:
    """An inspection after a discovery: it, the result, the labels before, all progress, and the job."""
    work = inspection.open(write(tmp_path_factory.mktemp("run"), mixed, rough), diameter=200.0)
    before, seen = work.session.labels.copy(), list[Any]()
    job = work.discover(mask_diameter=200.0, iterations=3)
    job.watch(lambda job: seen.append((job.progress, work.session.labels.copy())))
    return work, job.result(600), before, seen, job


def test_the_result_names_structures_that_are_no_particles(discovered: Discovered) -> None:
    result = discovered[1]
    other = Contaminant(result.found.volumes[0], result.found.labels.index[:5].to_numpy(), "it is a membrane")
    found = replace(result.found, contaminants=[other])
    assert str(result) == "2 structures"
    assert (
        str(replace(result, found=found))
        == "2 structures; 1 more reach the border of the box: their 5 particles are in no cluster"
    )


def test_the_clusters_become_the_structures_each_with_its_average(discovered: Discovered) -> None:
    work, result, before, _, job = discovered
    session, truth = work.session, work.session.particles["label"]
    assert adjusted_rand_score(truth, before) < 0.6
    assert adjusted_rand_score(truth, session.labels) > 0.9
    assert [session.title(one) for one in session.clusters] == ["structure 1", "structure 2"]
    assert list(session.clusters) == result.clusters == [3, 4]
    assert list(work.averages) == list(result.averages) == ["structure 1", "structure 2"]
    for number, average in zip(result.clusters, work.averages.values(), strict=True):
        assert average.record["cluster"] == number
        assert sorted(average.particles["particle_id"]) == session.members(number).ids.tolist()
        assert run_contents.average_start(average.record) == ""
        assert run_contents.average_lineage(average.record).startswith(
            f"a first structure of {len(average.particles)} particles"
        )
    assert job_summary.job_text(job).startswith("2 structures; 2")


def test_its_progress_shows_the_structures_and_the_clusters_change_at_the_end_only(discovered: Discovered) -> None:
    work, result, before, seen, _ = discovered
    live = [(now, labels) for now, labels in seen if isinstance(now, DiscoveryProgress)]
    assert [len(now.found.history) for now, _ in live] == list(range(1, len(result.found.history) + 1))
    assert all(labels.equals(before) for _, labels in live)
    last = live[-1][0]
    assert "of the particles moved" in str(last)
    shown = job_summary.structures(last)
    assert shown.count("<img") == len(last.found.volumes)
    assert shown.split(" &ensp; ")[0].endswith(f"&nbsp;{(last.found.labels == 0).sum()}")
    assert job_summary.structures(None) == ""
    assert work.session.history.past[-1].what == "discover: 2 clusters of 48 particles"


def test_one_undo_brings_the_clusters_back_and_the_run_folder_shows_all(discovered: Discovered) -> None:
    work, _, before, _, _ = discovered
    after = work.session.labels
    assert work.folder is not None
    again = inspection.open(work.folder, diameter=200.0)
    assert again.session.labels.equals(after)
    assert [again.session.title(one) for one in again.session.clusters] == ["structure 1", "structure 2"]
    assert {name: one.record["cluster"] for name, one in again.averages.items()} == {"structure 1": 3, "structure 2": 4}
    work.session.undo()
    assert work.session.labels.equals(before)
    assert list(work.session.clusters) == [0, 1, 2]
    assert not work.session.history.past
    work.session.redo()
    assert work.session.labels.equals(after)


def test_the_table_shows_resolution_and_identity_of_the_newest_average(discovered: Discovered, mixed: Subtomograms) -> None:
    work, _, _, _, _ = discovered
    columns = {column.name: column for column in cluster_columns.COLUMNS}
    resolutions = columns["resolution"].values(work)
    assert resolutions == {3: work.averages["structure 1"].resolution, 4: work.averages["structure 2"].resolution}
    for number, sentence in columns["identity"].values(work).items():
        average = cluster_columns.newest(work)[number][1]
        complexes = mixed.particles.set_index("particle_id")["label"].loc[average.particles["particle_id"]]
        assert (complexes.mode()[0] in sentence) == average.reliable
    average = half_maps.load(run_contents.io.inside(work.folder, "averages/structure_1"))
    average.record["identity"] = {"verdict": "known", "sentence": "known: ribosome_70s (r 0.98, p 0.001)"}
    other = Inspection(work.session, diameter=200.0)
    other.add_average("named", average, cluster=3)
    assert columns["identity"].values(other) == {3: "known: ribosome_70s (r 0.98, p 0.001)", 4: ""}
    assert columns["resolution"].format(columns["resolution"].values(other)[4]) == ""


def test_a_structure_can_be_accepted_merged_and_sent_back(discovered: Discovered) -> None:
    work, _, before, _, _ = discovered
    session, column = work.session, next(one for one in cluster_columns.COLUMNS if one.name == "resolution")

    def resolutions() -> dict[int, float]:
        return dict(column.values(work))

    both, found = resolutions(), session.labels
    assert math.isfinite(both[3] + both[4])
    session.accept(3)
    assert work.discover_problem() == ""
    session.accept(4)
    assert work.discover_problem() == "all clusters are accepted: tick those to search in"
    assert work.discover_problem([3]) == ""
    assert resolutions() == both
    session.merge([3, 4])
    assert resolutions() == {3: math.inf}
    session.send_back(3)
    assert resolutions() == both
    session.send_back(4)
    assert session.labels.equals(found.where(found == 3, before))
    session.send_back(3)
    assert session.labels.equals(before)
    assert resolutions() == dict.fromkeys([0, 1, 2], math.inf)
    for _ in range(6):
        session.undo()
    assert resolutions() == both


def stop_after(job: Job, iterations: int) -> None:
    """Stop a job after some iterations of its discovery."""

    def look(job: Job) -> None:
        now = job.progress
        if job.state == "running" and isinstance(now, DiscoveryProgress) and len(now.found.history) == iterations:
            job.stop()

    job.watch(look)


def test_a_stop_gives_the_best_so_far_and_particles_that_were_moved_stay(work: Inspection) -> None:
    session = work.session
    before = session.labels.copy()
    assert work.folder is not None
    job = work.discover([0, 1], mask_diameter=200.0)
    written: list[bool] = []
    job.watch(lambda _: written.append(any(work.folder.glob("discovery-*.safetensors"))))
    # The user works on: some particles of cluster 0 leave it while the job runs.
    moved = session.members(0).ids[:3]
    session.select(moved)
    mine = session.new_cluster("mine")
    stop_after(job, 1)
    with pytest.warns(UserWarning, match="3 particles left their cluster during the discovery, and stay where they are"):
        result = job.result(120)
    assert job.state == "stopped"
    assert any(written)
    assert not list(work.folder.glob("discovery-*"))
    assert not work.averages
    after = session.labels
    assert (after[moved] == mine).all()
    assert after[before == 2].eq(2).all()
    assert set(after[before < 2]) == {mine, *result.clusters}
    assert {2, mine, *result.clusters} == set(session.clusters)
    assert str(result).endswith("3 particles had left their cluster meanwhile and stay")
    assert session.history.past[-1].what.endswith("; 3 had left their cluster and stay")
    session.undo()
    assert session.labels.equals(before.where(~before.index.isin(moved), mine))


def test_a_stop_before_the_first_iteration_changes_nothing(work: Inspection) -> None:
    before = work.session.labels.copy()
    job = work.discover()
    job.watch(lambda job: job.stop() if job.progress and job.state == "running" else None)
    assert job.result(120).clusters == []
    assert work.session.labels.equals(before)
    assert not work.session.history.past
    assert job_summary.job_text(job).startswith("stopped; no cluster was changed")


def test_without_clusters_it_starts_from_the_features(mixed: Subtomograms, work: Inspection) -> None:
    bare = Inspection(Session(mixed.particles), subtomograms=mixed, features=work.features, diameter=200.0)
    assert ACTIONS["discover"].help(bare, Choice()).endswith("Now: of all 48 particles, which are in no cluster")
    job = bare.discover(mask_diameter=200.0)
    stop_after(job, 1)
    result = job.result(120)
    assert bare.session.labels.isin(result.clusters).all()
    assert adjusted_rand_score(mixed.particles["label"], bare.session.labels) > 0.5


def test_the_click_does_not_wait_for_the_catalogue_which_is_made_once(work: Inspection) -> None:
    shipped.cache_clear()
    gate = threading.Event()
    before = jobs.start("before", lambda progress, stop: gate.wait(30))
    work.discover().stop()
    assert shipped.cache_info().misses == 0
    gate.set()
    before.result(30)
    # A catalogue keeps what was prepared of its maps, so it must be the same one for every discovery.
    assert fitting(shipped(), 400.0) is fitting(shipped(), 400.0)


def test_it_says_why_it_cannot(work: Inspection, mixed: Subtomograms) -> None:
    assert work.discover_problem() == work.discover_problem([0, 2]) == ""
    work.session.select(mixed.ids[:9])
    few = work.session.new_cluster()
    with pytest.raises(ValueError, match="cannot discover: a discovery needs 16 particles, and 9 can take part"):
        work.discover([few])
    with pytest.raises(ValueError, match="there is no cluster"):
        work.discover([99])
    with pytest.raises(ValueError, match="symmetry is C1 to"):
        work.discover(symmetry="c0")
    with pytest.raises(ValueError, match="max_particles must be 16 or more, got 9"):
        work.discover(max_particles=9)
    cut = Session(mixed.particles, pd.Series(np.arange(48) % 12, index=mixed.ids))
    assert Inspection(cut, subtomograms=mixed, diameter=9).discover_problem() == (
        "a discovery needs a cluster of 8 particles to start from"
    )
    assert Inspection(cut, diameter=9).discover_problem() == "there are no boxes to compare"


def test_a_killed_discovery_continues_from_the_run_folder(work: Inspection, discovered: Discovered) -> None:
    assert work.folder is not None

    def killed(now: Any) -> None:
        if isinstance(now, DiscoveryProgress):
            raise KeyboardInterrupt

    names = ("session", "before", "subtomograms", "features", "catalogue", "search", "options")
    boxes, features = work.subtomograms, work.features
    options = {"seed": 0, "symmetry": "C1", "mask_diameter": 200.0}
    search = {"iterations": 3, "min_particles": 8, "max_particles": None}
    values = (work.session, work.session.labels, boxes, features, shipped(), search, options)
    task = DiscoveryTask(add=lambda title, *_: title, folder=work.folder, **dict(zip(names, values, strict=True)))
    with pytest.raises(KeyboardInterrupt):
        task(progress=killed, stop=lambda: False)
    assert len(list(work.folder.glob("discovery-*.safetensors"))) == 1
    seen: list[Any] = []
    result = work.discover(mask_diameter=200.0, iterations=3)
    result.watch(lambda job: seen.append(job.progress))
    found = result.result(600)
    stages = [now.stage for now in seen if now is not None]
    assert not any(stage.startswith("structure ") for stage in stages)
    pd.testing.assert_frame_equal(found.found.history, discovered[1].found.history)
    assert not list(work.folder.glob("discovery-*.safetensors"))
