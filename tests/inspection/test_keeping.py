"""What is accepted is there again after a restart, whatever comes between; what cannot be kept is told and kept later."""

import json
import os
import random
import signal
import threading
import unicodedata
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exports import average_of
from test_session import made, state

from tomolab import inspection
from tomolab.inspection import Inspection, Selection, Session, run_contents, selection
from tomolab.inspection import session as sessions
from tomolab.inspection.session_values import Cluster
from tomolab.io.run_folder import Run
from tomolab.ui import write_report


def again(session: Session, folder: Path) -> Session:
    """The session as a next start has it; a warning is an error."""
    return sessions.load(session.save(folder / "session.npz"), session.particles)


# Interrupts


def steps(session: Session, interrupt: threading.Timer) -> None:
    """Steps of all kinds, until they are interrupted."""
    rng = np.random.default_rng(0)
    interrupt.start()
    while True:
        session.select(rng.choice(session.ids, 300, replace=False))
        session.new_cluster()
        session.merge(list(session.clusters)[-2:])
        session.describe(0, note=str(rng.integers(1000)))
        session.undo()
        session.redo()


def raising(*_: object) -> None:
    raise KeyboardInterrupt


# An interrupt between the opening of a file and the block that closes it leaves it to the collector of garbage.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM], ids=["interrupt", "any signal that raises"])
def test_an_interrupt_at_any_moment_neither_forks_a_session_nor_divides_a_step(number: int, tmp_path: Path) -> None:
    """The environment variable TOMOLAB_INTERRUPTS sets how many there are."""
    # Workers of a test runner ignore interrupts.
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGALRM: raising}
    before, rng = {one: signal.signal(one, handler) for one, handler in handlers.items()}, random.Random(number)
    session = made(5000)
    first = state(session)
    work = Inspection(session, diameter=100.0, folder=tmp_path)
    try:
        for _ in range(int(os.environ.get("TOMOLAB_INTERRUPTS", "12"))):
            with pytest.raises(KeyboardInterrupt):
                steps(session, threading.Timer(rng.uniform(0, 0.03), os.kill, (os.getpid(), number)))
            session.select(session.ids[: rng.randrange(100)])
            assert [one.name for one in tmp_path.iterdir()] == ["session.npz"]
            assert work.unsaved == ""
            assert state(sessions.load(tmp_path / "session.npz", session.particles)) == state(session)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    while session.history.past:
        session.undo()
    assert state(session) == first


# What is accepted loads

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text(st.characters(categories=["Cs", "Cc", "Zs", "Lo"]), max_size=70),
    st.binary(),
    st.tuples(st.integers(0, 1)),
    st.sampled_from([np.True_, np.str_("a"), np.float32(1), np.int64(1), pd.NA, "red", "#FFF", "#0072B2", "x" * 300, "é" * 90]),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["name", "colour", "hidden", "note", "accepted", "Name", "size"]), ANYTHING)
def test_a_field_is_refused_or_there_again(tmp_path_factory: pytest.TempPathFactory, field: str, value: Any) -> None:
    session = made()
    try:
        session.describe(1, **{field: value})
    except ValueError:
        assert not session.history.past
        return
    found = again(session, tmp_path_factory.mktemp("a"))
    assert state(found) == state(session)
    if field != "name":
        assert getattr(found.clusters[1], field) == value
    else:
        assert not any(unicodedata.category(one) == "Cc" for one in found.clusters[1].name)


@settings(max_examples=25, deadline=None)
@given(ANYTHING, ANYTHING)
def test_so_is_every_other_argument(tmp_path_factory: pytest.TempPathFactory, one: Any, other: Any) -> None:
    session = made()
    session.select(session.ids[:3])
    for step in (
        lambda: session.new_cluster(one),
        lambda: session.filter(one, low=other),
        lambda: session.filter("score", one, other),
        lambda: session.filter_values("mine", [one, "kept"]),
        lambda: session.filter_values(one, [other]),
        lambda: session.delete_average(one),
        lambda: session.select(session.ids[:2], by=one),
    ):
        # A comparison of what cannot be compared is an error of the call, and changes nothing.
        with suppress(ValueError, TypeError):
            step()
        assert state(again(session, tmp_path_factory.mktemp("a"))) == state(session)


@pytest.mark.parametrize("label", [-2, -5, 2**31, 0.5, np.nan])
def test_labels_that_are_no_clusters_are_refused(label: float) -> None:
    session = made()
    with pytest.raises(ValueError, match=r"clusters are whole numbers from 0 to 2,147,483,647, and -1 for none; got"):
        Session(session.particles, pd.Series([label] + [0] * 11, index=session.ids))


def test_the_highest_number_is_kept_and_has_no_next(tmp_path: Path) -> None:
    session = made()
    high = Session(session.particles, pd.Series([2**31 - 1] + [0] * 11, index=session.ids))
    high.select(high.ids[:2])
    with pytest.raises(ValueError, match="no number above 2,147,483,647"):
        high.new_cluster()
    assert state(again(high, tmp_path)) == state(high)


def test_two_clusters_have_two_names() -> None:
    session = made()
    session.describe(1, name="ribo \n some")
    assert session.title(1) == "ribo some"
    session.select(session.ids[:3])
    with pytest.raises(ValueError, match="another cluster is called 'ribo some' already"):
        session.new_cluster("ribo  some")


# What is not valid in a file costs itself


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any], **arrays: np.ndarray) -> None:
    """Change the description in a file of a session."""
    with np.load(path) as file:
        held = {name: file[name] for name in file.files} | arrays
    about = json.loads(held["about"].tobytes())
    change(about)
    held["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(path, **held)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("note", lambda about: about["clusters"]["1"].update(note=5)),
        ("hidden", lambda about: about["clusters"]["1"].update(hidden=1)),
        ("colour", lambda about: about["clusters"]["1"].update(colour="nonsense")),
        ("size", lambda about: about["clusters"]["1"].update(size=5)),
        ("clusters: 2", lambda about: about["clusters"].update({"2": None})),
        ("clusters: x", lambda about: about["clusters"].update(x={})),
        ("clusters: -7", lambda about: about["clusters"].update({"-7": {}})),
        ("filters", lambda about: about["filters"].update(gone=[0, 1])),
        ("filters", lambda about: about.update(filters=[])),
        ("deleted", lambda about: about.pop("deleted")),
        ("top", lambda about: about.update(top="many")),
        ("the steps", lambda about: about.update(steps={"done": 3})),
        ("the steps", lambda about: about["steps"]["steps"].append("{}")),
        ("origin", lambda about: about.update(origin=None)),
    ],
)
def test_one_field_costs_one_field(what: str, change: Callable[[dict[str, Any]], Any], folder: Path) -> None:
    work = inspection.open(folder, diameter=250)
    work.split(0)
    work.session.describe(1, name="ribosomes", note="good")
    work.session.select(work.session.ids[:4])
    rewritten(folder / "session.npz", change)
    raw = (folder / "session.npz").read_bytes()
    with pytest.warns(UserWarning, match=f"session.npz: left out, because it is not valid: .*{what}"):
        found = inspection.open(folder, diameter=250)
    assert found.session.clusters[1].name == "ribosomes"
    assert found.session.selected.sum() == 4
    assert found.session.labels.equals(work.session.labels)
    # The file as it was stays beside it, and the session goes on.
    assert (folder / "session-1.npz").read_bytes() == raw
    found.session.select([])
    assert found.session_path == folder / "session.npz"
    assert not inspection.open(folder, diameter=250).session.selected.any()


def test_so_does_a_bad_selection_of_a_session(tmp_path: Path) -> None:
    session = made()
    session.describe(1, name="ribosomes")
    path = session.save(tmp_path / "session.npz")
    rewritten(path, lambda about: None, selected=np.ones(5))
    with pytest.warns(UserWarning, match="selected: expected 12 times True or False"):
        assert sessions.load(path, session.particles).clusters[1] == Cluster("ribosomes")


def test_what_a_selection_a_manifest_and_a_record_accept_they_load(folder: Path, tmp_path: Path) -> None:
    for name, ids, reason in (
        ("a", [1], 5),
        (5, [1], ""),
        ("a\ud800", [1], ""),
        ("a", [1], "\ud800"),
        ("a", np.array([2**63]), ""),
    ):
        with pytest.raises(ValueError, match=r"selection|particle id"):
            Selection(name, ids, reason)
    Selection("a $ _\n", [1, 2], "x\n\t").save(tmp_path / "a.json")
    assert selection.load(tmp_path / "a.json") == Selection("a $ _", [1, 2], "x\n\t")
    raw = (tmp_path / "a.json").read_bytes()
    (tmp_path / "a.json").write_bytes(raw.replace(b"reason", b"reaqon"))
    with pytest.raises(ValueError, match="it was damaged, or changed by hand"):
        selection.load(tmp_path / "a.json")
    content = {key: one for key, one in json.loads(raw).items() if key != "checksum"} | {"reason": 5, "name": None}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="it is left out"):
        assert selection.load(tmp_path / "a.json") == Selection("selection", [1, 2], "")
    run, deep = Run(tmp_path), 1
    for _ in range(200):
        deep = [deep]  # type: ignore[assignment]
    with pytest.raises(ValueError, match="nested deeper than 100"):
        run.record("deep", parameters={"deep": deep})
    run.record("first", parameters={"n": np.int64(3)}, files=["a.json"])
    stored = json.loads((tmp_path / "manifest.json").read_text())
    del stored["checksum"]
    stored["stages"] |= {"bad": 5, "worse": {"parameters": [1], "files": {"a.json": 5}, "seed": 1}}
    (tmp_path / "manifest.json").write_text(json.dumps(stored))
    with pytest.warns(
        UserWarning, match=r"left out, because it is not valid: stage bad; parameters of stage worse.*hash of a\.json"
    ):
        assert run.manifest()["stages"]["worse"] == {"files": {}, "seed": 1}
    run.record("second")
    stored = json.loads((tmp_path / "manifest.json").read_text())["stages"]
    assert set(stored) == {"first", "second", "bad", "worse"}
    assert stored["bad"] == 5
    work = inspection.open(folder, diameter=250)
    with pytest.raises(ValueError, match="its mask is 'wide'"):
        work.add_average("a", average_of(work.session.table(), turn=0.0, mask="wide"))
    work.add_average("a", average_of(work.session.table(), turn=0.0, seed=np.int64(3), by=(1, Path("x"))), cluster=np.int64(0))
    record = folder / "averages/a/record.json"
    assert inspection.open(folder, diameter=250).averages["a"].record["cluster"] == 0
    record.write_text(json.dumps(json.loads(record.read_text()) | {"cluster": "0", "quick": 1}))
    record.with_name("checksums.json").unlink()
    with pytest.warns(UserWarning, match=r"record\.json: cluster, quick left out"):
        assert inspection.open(folder, diameter=250).averages["a"].record["seed"] == 3
    work.add_average("b", average_of(work.session.table(), turn=0.0))
    record.write_text("{")
    with pytest.warns(UserWarning, match="this average is left out"):
        assert list(inspection.open(folder, diameter=250).averages) == ["b"]


def test_folders_that_a_killed_writer_had_moved_aside_come_back(folder: Path) -> None:
    work = inspection.open(folder, diameter=250)
    work.add_average("70S 3.5 Å", average_of(work.session.table(), turn=0.0))
    for name, aside in (
        ("embedding", ".embedding.old-01234567"),
        ("subtomograms.zarr", ".subtomograms.old-01234567.zarr"),
        ("averages/70S_3.5_Å", "averages/.70S_3.old-01234567.5_Å"),
    ):
        (folder / name).rename(folder / aside)
    found = inspection.open(folder, diameter=250)
    assert found.features is not None
    assert found.subtomograms is not None
    assert list(found.averages) == ["70S 3.5 Å"]


def test_texts_that_look_like_a_checksum_are_kept(folder: Path, tmp_path: Path) -> None:
    text = "checksum: tomolab-crc32c:00000000"
    session = made()
    session.describe(0, name=text, note=f'"{text}')
    session.select(session.ids[:2], text)
    (tmp_path / "other").mkdir()
    assert state(again(session, tmp_path / "other")) == state(session)
    Selection(text, [1], text).save(tmp_path / "a.json")
    assert selection.load(tmp_path / "a.json") == Selection(text, [1], text)
    run = Run(tmp_path)
    run.record(text, parameters={"a": text})
    assert run.manifest()["stages"][text]["parameters"] == {"a": text}
    work = inspection.open(folder, diameter=250)
    assert work.add_average(text, average_of(work.session.table(), turn=0.0, name=text)) == text
    assert list(inspection.open(folder, diameter=250).averages) == [text]


def test_a_name_of_a_file_that_is_no_text_does_not_stop_the_report(folder: Path) -> None:
    run = Run(folder)
    run.record("caf\udce9", parameters={"tomogram": Path("caf\udce9.mrc")})
    assert run.manifest()["stages"]["caf\\udce9"]["parameters"] == {"tomogram": "caf\\udce9.mrc"}
    work = inspection.open(folder, diameter=250)
    start = {"ab initio": {"particles": "many"}, "resolution": None}
    work.add_average("a", average_of(work.session.table(), turn=0.0, start=start))
    assert write_report(folder, verify=False).is_file()


def test_an_average_that_could_not_be_read_again_is_refused_or_waits(folder: Path) -> None:
    work, deep = inspection.open(folder, diameter=250), 1
    for _ in range(120):
        deep = [deep]  # type: ignore[assignment]
    average = average_of(work.session.table(), turn=0.0)
    with pytest.raises(ValueError, match="nested deeper than 100"):
        work.add_average("a", average_of(work.session.table(), turn=0.0, deep=deep))
    with pytest.raises(ValueError, match="cluster is '1', which is not valid"):
        work.add_average("a", average, cluster="1")  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="a could not be saved in .* hold"):
        work.add_average("a", replace(average, fsc=average.fsc.assign(fsc=np.nan)))
    assert work.unsaved
    assert list(work.averages) == ["a"]
    assert not run_contents.read_averages(folder)


# Averages


def test_two_kernels_never_replace_the_average_of_the_other(folder: Path) -> None:
    first, second = inspection.open(folder, diameter=250), inspection.open(folder, diameter=250)
    one, other = (average_of(first.session.table(), turn=turn) for turn in (10.0, 20.0))
    assert first.average_name() if first.session.chosen_rows.any() else True
    assert first.add_average("ribosomes", one) == "ribosomes"
    assert second.average_name(0) == "cluster 0"
    assert second.add_average("ribosomes", other) == "ribosomes (2)"
    assert second.add_average("ribosomes (2)", other) == "ribosomes (2)"
    assert list(second.averages) == ["ribosomes (2)"]
    # What this kernel read or wrote, and no other wrote since, it may replace.
    assert first.add_average("ribosomes", one) == "ribosomes"
    third = inspection.open(folder, diameter=250)
    assert {name: average.particles["rot"].iloc[0] for name, average in third.averages.items()} == {
        "ribosomes": 10.0,
        "ribosomes (2)": 20.0,
    }
    assert third.add_average("ribosomes", other) == "ribosomes"
    assert first.add_average("ribosomes", one) == "ribosomes (3)"
    assert len(inspection.open(folder, diameter=250).averages) == 3
    assert second._free("RIBOSOMES") == "RIBOSOMES (4)"


def test_many_threads_take_many_names(folder: Path) -> None:
    works = [inspection.open(folder, diameter=250) for _ in range(6)]
    average = average_of(works[0].session.table(), turn=0.0)
    threads = [threading.Thread(target=work.add_average, args=("a", average)) for work in works]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert set(run_contents.read_averages(folder)) == {"a", *(f"a ({number})" for number in range(2, 7))}
    assert {name for work in works for name in work.averages} == set(run_contents.read_averages(folder))


@pytest.mark.parametrize("name", ["x" * 300, "é" * 90, "🦠" * 20, "a\ud800", "a\x00" * 200, None, 5])
def test_names_are_checked_when_they_are_given(name: Any, folder: Path) -> None:
    work = inspection.open(folder, diameter=250)
    with pytest.raises(ValueError, match="the name of a cluster"):
        work.session.describe(0, name=name)
    # What an average adds to the name has room.
    longer = name * 2 if isinstance(name, str) else name
    with pytest.raises(ValueError, match="average"):
        work.add_average(longer, average_of(work.session.table(), turn=0.0))
    assert not work.averages
    with pytest.raises(ValueError, match=r"average|selection"):
        work.average(Selection(longer, work.session.ids, "all"))
    assert not work.jobs


@pytest.mark.parametrize("name", ["x" * 140, "é" * 70, "🦠" * 11, "$a_b$", "_hidden", "../../x", "CON", "a/b", ".", "%"])
def test_the_longest_and_oddest_names_are_kept(name: str, folder: Path) -> None:
    work = inspection.open(folder, diameter=250)
    work.session.describe(0, name=name)
    for quick in (False, True):
        title = work.average_name(0, quick=quick, engine="RELION")
        for _ in range(2):
            work._averages = type(work._averages)()
            work.add_average(f"{title}, class 10", average_of(work.session.table(), turn=0.0), cluster=0)
    found = inspection.open(folder, diameter=250)
    assert len(found.averages) == 4
    assert set(work.averages) < set(found.averages)
    assert found.session.title(0) == name


@pytest.mark.parametrize("error", [OSError("no space"), TypeError("odd"), RuntimeError("other"), MemoryError()])
def test_what_cannot_be_kept_is_told_and_kept_later(error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = inspection.open(folder, diameter=250)
    heard: list[set[str]] = []
    work.changed.connect(heard.append)
    average = average_of(work.session.table(), turn=0.0)
    with monkeypatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def full(*_: Any, **__: Any) -> None:
            raise error

        patched.setattr(np, "savez", full)
        patched.setattr(type(average), "save", full)
        work.session.select(work.session.ids[:3])
        assert work.unsaved
        assert work.add_average("a", average) == "a"
        with pytest.raises(type(error)):
            work.save()
    assert list(work.averages) == ["a"]
    assert (str(error) or "MemoryError") in work.unsaved
    assert heard == [{"selected"}, {"averages", "saved"}, {"saved"}]
    work.session.select(work.session.ids[:4])
    assert work.unsaved == ""
    found = inspection.open(folder, diameter=250)
    assert list(found.averages) == ["a"]
    assert found.session.selected.sum() == 4
