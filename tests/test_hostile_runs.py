"""Damaged and hostile run folders: stores, manifests, sessions, records, weights and tables that claim what is not so.

The corpus is made anew from good files each time, always the same. A reader gives what is whole or refuses it with an error
that names it; it takes neither long nor much memory, and nothing outside of the run folder is read or written.
"""

import json
import random
import resource
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kept
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kept import KINDS
from malformed import Kind
from test_exports import average_of as turned
from test_hostile import attempt, opened, watched

from tomolab import averaging, inspection, io, particles, subtomograms
from tomolab.inspection import run_contents, selection
from tomolab.io.run_folder import Run
from tomolab.learning.embedding import PartialArray
from tomolab.subtomograms import writer
from tomolab.ui import report
from tomolab.volumes import Volume

CORPUS = {(name, what): damage for name, kind in KINDS.items() for what, damage in kept.damages(name, kind).items()}
SECONDS = 20
ROOM = 3 * 2**30
"""Bytes of addresses that a reader may take beyond what the process has."""
SCRIPT = "<script>alert('1')</script>\"'><img src=x onerror=alert(1)>"


@contextmanager
def confined() -> Iterator[None]:
    """Addresses have a limit, so that memory that is asked for and never touched counts too."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def watching(*folders: Path) -> Iterator[None]:
    """Fail if a file named bait is opened."""
    watched.extend(folders)
    opened.clear()
    try:
        yield
    finally:
        watched.clear()
    assert not opened


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_refused_or_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, folder = KINDS[name], tmp_path / "run"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (tmp_path / "bait.star").write_text("data_\n")
    kind.make(folder)
    kept.without_checksums(folder)
    good = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    kind.holds(kind.read(folder / kind.main), folder / kind.main)
    wrong = []
    with watching(folder), confined():
        for (_, what), (target, change) in ((key, damage) for key, damage in CORPUS.items() if key[0] == name):
            raw = change(good[target], random.Random(f"{name} {what}"))
            (folder / target).write_bytes(raw.replace(b"{outside}", str(tmp_path).encode()))
            wrong.append(attempt(kind, folder / kind.main, folder, what, seconds=SECONDS))
            for path, content in good.items():
                if not (folder / path).is_file() or (folder / path).read_bytes() != content:
                    (folder / path).write_bytes(content)
    found = [one for one in wrong if one]
    assert not found, f"{len(found)} of {len(wrong)}:\n" + "\n".join(found)
    assert not list(tmp_path.rglob("bait"))


@pytest.mark.parametrize(
    "name", [name for name in KINDS if name not in ("checkpoint", "snapshot", "layout", "download", "part json", "manifest")]
)
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    """A folder, nothing, and links to nothing, to itself, and out of the folder, to what is as good."""
    kind = KINDS[name]
    for n, place in enumerate(("a folder", "nothing", "a link to nothing", "a link to itself", "a link out")):
        folder = tmp_path / str(n)
        folder.mkdir()
        kind.make(folder)
        target = folder / kind.targets[0]
        if place == "a link out" and folder / kind.main == target:
            # Who names a link means where it leads.
            continue
        target.rename(tmp_path / f"bait {n}")
        if place == "a folder":
            target.mkdir()
        elif place != "nothing":
            target.symlink_to({"a link to nothing": "no", "a link to itself": target.name}.get(place, tmp_path / f"bait {n}"))
        if name == "store skipped" and place != "a link out":
            continue
        if name == "network weights" or name == "network json":
            continue
        if name == "part array" and place == "nothing":
            # As after the folder was removed meanwhile: it is begun anew (test_parts).
            continue
        with watching(folder):
            assert attempt(kind, folder / kind.main, folder, place, seconds=SECONDS) is None
            with pytest.raises((ValueError, FileNotFoundError)):
                kind.read(folder / kind.main)


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 1000
    assert {name for name, _ in CORPUS} == set(KINDS)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../../x", 10**30, SCRIPT]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, here: tuple = ()) -> Iterator[tuple]:
    """Where there is something in JSON."""
    if here:
        yield here
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(one, (*here, key))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.targets[0].endswith(".json")])
def test_anything_in_the_place_of_anything_is_refused_or_whole(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    kind.make(tmp_path)
    kept.without_checksums(tmp_path)
    target = tmp_path / kind.targets[0]
    good = target.read_text()
    everywhere = list(places(json.loads(good)))

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(everywhere), ANY)
    def tried(place: tuple, value: Any) -> None:
        target.write_bytes(kept.valued(list(place), value)(good.encode(), random.Random(0)))
        assert attempt(kind, tmp_path / kind.main, tmp_path, f"{place} is {value!r}", seconds=SECONDS) is None

    with confined():
        tried()


@pytest.mark.parametrize("number", [0, 1])
def test_a_shard_that_is_missing_is_told_and_zeros_are_kept(number: int, tmp_path: Path) -> None:
    with kept.small_shards():
        subtomograms.Subtomograms(np.zeros((12, 8, 8, 8)), kept.some(), 10.0).save(tmp_path / "a.zarr")
    whole = subtomograms.open(tmp_path / "a.zarr")
    assert np.asarray(whole.volumes[:]).shape == (12, 8, 8, 8)
    (tmp_path / f"a.zarr/volumes/c/{number}/0/0/0").unlink()
    cut = subtomograms.open(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=rf"c/{number}/0/0/0 is missing"):
        cut.take(cut.ids[[0, -1]])
    with pytest.raises(ValueError, match="is missing"):
        next(iter(cut.batches(12)))
    assert cut.take(cut.ids[:2] if number else cut.ids[-2:]).volumes.shape == (2, 8, 8, 8)


@pytest.mark.filterwarnings("ignore:the unfinished store")
@pytest.mark.parametrize(
    "target", ["journal.json", "volumes/zarr.json", "rows-0.parquet", "volumes/c/0/0/0/0", "volumes/c/1/0/0/0"]
)
def test_a_damaged_journal_is_begun_anew_or_refused(target: str, tmp_path: Path) -> None:
    def begun(path: Path) -> writer.Journal:
        return writer.begin(path, "key", box=8, voxel_size=10.0)

    def make(path: Path) -> None:
        with kept.small_shards():
            journal = begun(path)
        data = np.random.default_rng(1).normal(size=(12, 8, 8, 8))
        writer.add(journal, "cell", [(data, kept.some())], skipped=[])

    make(tmp_path / "good.zarr")
    kept.without_checksums(tmp_path)
    [whole] = tmp_path.glob(".good.zarr.*.partial")
    kind = {
        "journal.json": "part json",
        "volumes/zarr.json": "store array",
        "rows-0.parquet": "store particles",
    }
    changes = kept.damages(
        kind.get(target, "store shard"), Kind(make, "a", len, lambda *_: None, ("a",), target.endswith("json"))
    )
    names = random.Random(target).sample(sorted(changes), min(30, len(changes)))
    for number, what in enumerate([*names, "a link"]):
        path = tmp_path / str(number) / "a.zarr"
        folder = path.with_name(whole.name.replace("good", "a"))
        shutil.copytree(whole, folder)
        raw = (folder / target).read_bytes()
        if what == "a link":
            (folder / target).rename(tmp_path / "bait")
            (folder / target).symlink_to(tmp_path / "bait")
        else:
            try:
                (folder / target).write_bytes(changes[what][1](raw, random.Random(what)))
            except (KeyError, IndexError, TypeError):
                continue
        journal = begun(path)
        if not journal.done:
            continue
        try:
            writer.finish(journal, path)
            taken = subtomograms.open(path)
            assert np.asarray(taken.volumes[:]).shape == (12, 8, 8, 8), what
        except (ValueError, FileNotFoundError) as error:
            assert "a.zarr" in str(error), what  # noqa: PT017 - or whole
    assert not (tmp_path / "bait").exists() or (tmp_path / "bait").read_bytes() == raw


def average_of(work: inspection.Inspection) -> averaging.Average:
    return turned(work.session.particles[:8], turn=10.0)


OUT = ("../x", "../../../etc/x", "/etc/x", "a/../../x", "..", "con\0x", "x" * 300, "~/x", "$(touch x)", "`x`;x", "-rf", "")


def test_a_manifest_reads_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    folder, bait = tmp_path / "run", tmp_path / "bait"
    bait.write_text("secret")
    (folder / "deep").mkdir(parents=True)
    (folder / "link").symlink_to(bait)
    (folder / "deep/link").symlink_to(bait)
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "here").write_text("x")
    told = {
        "here": io.sha256(folder / "here"),
        **dict.fromkeys(("../bait", str(bait), "link", "zero", "deep"), io.sha256(bait)),
    }
    (folder / "manifest.json").write_text(json.dumps({"stages": {"a": {"files": told}}}))
    with watching(tmp_path):
        assert set(Run(folder).changed()) == set(told) - {"here"}
        assert "secret" not in report.page(run_contents.read(folder))


@pytest.mark.parametrize("name", ["clusters.csv", "embedding", "subtomograms.zarr", "session.npz", "layout.csv", "averages"])
def test_what_an_inspection_finds_does_not_lead_out(name: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    work = inspection.open(folder, diameter=250)
    work.session.select(work.session.ids[:3], "list")
    work.add_average("a", average_of(work))
    (folder / name).rename(outside / f"bait {name}")
    (folder / name).symlink_to(outside / f"bait {name}")
    before = sorted(outside.rglob("*"))
    with watching(folder), pytest.raises(ValueError, match="leads out of"):
        inspection.open(folder, diameter=250)
    with watching(folder):
        assert any("leads out of" in fault for fault in run_contents.read(folder).faults)
    assert sorted(outside.rglob("*")) == before
    if name == "averages":
        with pytest.raises(ValueError, match="leads out of"):
            work.add_average("b", average_of(work))


@pytest.mark.parametrize("name", ["tomogram.mrc", "tomograms/cell.mrc", "tomograms/cell.zarr", "tomograms"])
def test_a_tomogram_may_be_a_link_to_another_disk(name: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It is only read; all else must lie in the run folder."""
    outside = tmp_path_factory.mktemp("disk")
    volume = Volume(np.random.default_rng(0).normal(size=(8, 9, 10)), 10.0)
    for one in folder.glob("tomogram*"):
        one.unlink() if one.is_file() else shutil.rmtree(one)
    (folder / name).parent.mkdir(exist_ok=True)
    target = outside / Path(name).name
    io.write_volume(volume, target if target.suffix else target / "cell.mrc")
    (folder / name).symlink_to(target)
    (tomogram,) = inspection.open(folder, diameter=250).named
    found = run_contents.tomogram_files(folder, io.read_particles(folder / "clusters.csv"))
    np.testing.assert_array_equal(io.read_volume(found[tomogram]).data, volume.data)


def test_a_part_does_not_write_through_a_link(tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    with PartialArray(4, dtype="float32", folder=tmp_path / "a.part") as part:
        part.add(np.ones((2, 3)))
    (tmp_path / "a.part/vectors.npy").rename(bait)
    (tmp_path / "a.part/vectors.npy").symlink_to(bait)
    before = bait.read_bytes()
    with pytest.raises(ValueError, match="leads out of"):
        PartialArray(4, dtype="float32", folder=tmp_path / "a.part")
    (tmp_path / "a.part/about.json").unlink()
    with pytest.raises(ValueError, match="leads out of"), PartialArray(4, dtype="float32", folder=tmp_path / "a.part") as part:
        part.add(np.ones((2, 3)))
    assert bait.read_bytes() == before


def test_names_lead_nowhere_else(folder: Path) -> None:
    """Averages and classes that are called like paths land in the folder of the run."""
    outside = {path for path in folder.parent.rglob("*") if folder not in path.parents}
    work = inspection.open(folder, diameter=250)
    made = average_of(work)
    for name in OUT:
        if len(name) < 200:
            work.add_average(name, made)
    with pytest.raises(ValueError, match="longer than file names can be"):
        work.add_average("x" * 300, made)
    assert {path for path in folder.parent.rglob("*") if folder not in path.parents} == outside
    assert {path.parent for path in folder.rglob("record.json")} == set((folder / "averages").iterdir())


@pytest.mark.parametrize("name", OUT)
def test_a_name_of_a_run_does_not_lead_out(name: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    if name in ("~/x", "$(touch x)", "`x`;x", "-rf"):
        assert run.path(name).resolve().is_relative_to(tmp_path)
    else:
        with pytest.raises(ValueError, match="cannot name a file"):
            run.path(name)
        with pytest.raises(ValueError, match="cannot name a file"):
            run.require(name, made_by="01")


def test_a_report_of_a_hostile_folder_holds_no_markup_of_it(folder: Path) -> None:
    """Whatever can hold text holds a script; the folder is one of somebody else."""
    work = inspection.open(folder, diameter=250)
    made = average_of(work)
    work.add_average(
        SCRIPT,
        averaging.Average(
            made.volume,
            made.half1,
            made.half2,
            made.fsc,
            made.particles,
            made.record
            | {
                "symmetry": SCRIPT,
                "program": SCRIPT,
                "start": {SCRIPT: SCRIPT},
                "seed": SCRIPT,
                "parameters": {"given": False},
            },
        ),
    )
    work.session.describe(0, name=SCRIPT, note=SCRIPT)
    work.session.select(work.session.ids[:3], "list")
    work.session.chosen(SCRIPT, SCRIPT).save(folder / "a.json")
    stage = {"files": {SCRIPT: SCRIPT}, "parameters": {SCRIPT: [SCRIPT, {SCRIPT: SCRIPT}]}, "seed": SCRIPT, "time": SCRIPT}
    stage |= {"versions": {SCRIPT: SCRIPT}, "machine": {"cpu": SCRIPT, "tomolab": SCRIPT}, "scale": SCRIPT}
    (folder / "manifest.json").write_text(json.dumps({"stages": {SCRIPT: stage}}))
    (folder / "selections").mkdir()
    (folder / "selections/b.json").write_text(f'{{"reason": "{SCRIPT[:20]}')
    page = report.write(folder).read_text()
    assert page.count(SCRIPT.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;").replace("'", "&#39;")) > 10
    assert "<script" not in page
    assert "onerror=alert" not in page.replace("&gt;&lt;img src=x onerror=alert", "")
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    "name", ["session", "selection", "manifest", "average record", "average particles", "store array", "embedding"]
)
def test_a_report_tells_what_could_not_be_read(name: str, folder: Path) -> None:
    """A damaged file of a folder is a fault on the page, and all else is there."""
    work = inspection.open(folder, diameter=250)
    work.add_average("a", average_of(work))
    work.session.chosen("b", "c") if work.session.selected.any() else selection.Selection("b", [1], "c").save(folder / "b.json")
    place = {
        "session": "session.npz",
        "selection": "b.json",
        "manifest": "manifest.json",
        "average record": "averages/a/record.json",
        "average particles": "averages/a/particles.parquet",
        "store array": "subtomograms.zarr/volumes/zarr.json",
        "embedding": "embedding/about.json",
    }[name]
    work.save()
    (folder / place).write_bytes(b'{"reason": [')
    if name == "manifest":
        with pytest.raises(ValueError, match=r"manifest\.json cannot be read as a manifest"):
            run_contents.read(folder)
        return
    found = run_contents.read(folder)
    assert any(place.split("/")[0] in fault for fault in found.faults), found.faults
    assert found.table is not None
    assert report.page(found)


def test_clusters_of_a_table_can_have_any_number(folder: Path) -> None:
    """A huge number costs no memory, and one that is none is told."""
    table = io.read_particles(folder / "clusters.csv")
    io.write_particles(table.assign(cluster=2**31 - 1), folder / "clusters.csv")
    with confined():
        assert run_contents.read(folder).session.counts().to_dict() == {2**31 - 1: len(table)}
    for value in ("x", 2**40, 0.5):
        io.write_particles(table.assign(cluster=value), folder / "clusters.csv")
        assert any("clusters are whole numbers" in fault for fault in run_contents.read(folder).faults)


def test_the_particles_of_the_corpus_are_good() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pd.testing.assert_frame_equal(particles.check(kept.some()), kept.some())
