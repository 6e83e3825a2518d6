"""Broken in whatever way, nothing half is read as whole, and the same call made again ends as an unbroken one."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bench_kills
import pytest
import record
import trials
import works


@contextlib.contextmanager
def shared() -> Iterator[Path]:
    """A folder for a while that a user who may write nowhere can read, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.fixture(scope="module")
def given() -> Iterator[Path]:
    """What the works start from."""
    works.preload()
    with shared() as folder:
        works.inputs(folder)
        yield folder


@pytest.fixture
def place() -> Iterator[Path]:
    """Where they work."""
    with shared() as folder:
        yield folder


@pytest.mark.parametrize("work", list(works.WORKS))
def test_what_is_broken_goes_on(work: str, given: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    trial = trials.Trial(work, given, place)
    times = {"killed": 1 if work in ("train", "average", "simulate") else 2}
    # A clock that jumps is left to the benchmark; other work at once without locks is harder than the same work.
    faults = [name for name in trials.faults(work) if name != "jumped"]
    if "mixed" in faults:
        faults.remove("unlocked")
    rows = {name: trials.FAULTS[name][0](trial, times.get(name, 1), seed=1) for name in faults}
    assert trial.complaints == []
    if flipped := rows.pop("flipped", None):
        assert flipped["damaged"] == 0
    for row in rows.values():
        assert row["nothing"] + row["earlier"] + row["whole"] == row["as unbroken"] == row["times"]
        assert row["damaged"] == row["left over"] == 0
        if works.WORKS[work].before is not None:
            assert row["nothing"] == 0 or row["broken by"] == "folder removed"
    for name in ("full", "forbidden"):
        assert rows[name]["clear errors"] == 1
        assert rows[name]["whole"] == 0


def test_rows_that_were_not_run_again_stay() -> None:
    old = [{"work": "embed", "broken by": "killed", "times": 1}, {"work": "simulate", "broken by": "killed", "times": 2}]
    new = [{"work": "embed", "broken by": "killed", "times": 3}, {"work": "embed", "broken by": "disk full", "times": 4}]
    assert [row["times"] for row in bench_kills.merged(old, new)] == [2, 3, 4]
    assert record.markdown(new, bench_kills.COLUMNS).splitlines()[2].startswith("| embed | killed | 3 |")
