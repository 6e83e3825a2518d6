"""Benchmarks: a figure that got worse is named, in its own sense; all results stand in one table."""

import json
from typing import Any

import pytest
import record
import summary

MACHINE = {"cpu": "a", "cores": 2, "gpu": None, "torch": "2"}


def result(time: str, **figures: float) -> dict[str, Any]:
    rows = [
        {"step": "read", "believed": True, "succeeded": "3 of 3", **figures},
        {"step": "read", **figures},
        {"what": "open (s)", "value": 3.0},
    ]
    return {"time": time, "machine": dict(MACHINE), "settings": {}, "rows": rows}


@pytest.mark.parametrize(
    ("column", "sense"),
    [
        *(("seconds", -1), ("first (s)", -1), ("minutes", -1), ("peak GB", -1), ("memory (GB)", -1), ("worst (Å)", -1)),
        *(("ARI lost, mean", -1), ("per_second", 1), ("training (1/s)", 1), ("subtomograms/s, median", 1), ("ari", 1)),
        *(("accuracy, known", 1), ("AUC by linear probe", 1), ("inference, times plain", 1), ("time spared", 1)),
        *(("particles", 0), ("mirror image", 0), ("snr", 0), ("benefit", 0)),
    ],
)
def test_columns_have_a_sense(column: str, sense: int) -> None:
    assert record.sense("a row", column) == sense


def test_every_result_has_its_bound_in_the_readme() -> None:
    """`benchmarks/README.md` says of every result what bounds it; experiments stand there as one."""
    told = (record.RESULTS.parent / "README.md").read_text()
    results = {path.stem for path in record.RESULTS.glob("*.json")}
    assert {name for name in results if f"`{name}`" not in told and not name.startswith("experiments")} == set()


def test_what_is_worse_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = result("monday", seconds=10.0, per_second=100.0, particles=50)
    monkeypatch.setattr(record, "committed", lambda name: before)
    assert record.worse("some", before) == []
    assert record.worse("some", result("today", seconds=11.9, per_second=84.0, particles=5)) == []
    assert record.worse("some", result("today", seconds=1.0, per_second=900.0, particles=5)) == []
    lines = record.worse("some", result("today", seconds=12.1, per_second=100.0, particles=50))
    assert lines == [f"WORSE some: read #{n}: seconds 10 -> 12.1 (1.21 times)" for n in (1, 2)]
    lines = record.worse("some", result("today", seconds=10.0, per_second=80.0, particles=50))
    assert lines[0] == "WORSE some: read #1: per_second 100 -> 80 (0.80 times)"
    now = result("today", seconds=10.0)
    now["rows"][2]["value"] = 4.0
    assert record.worse("some", now) == ["WORSE some: open (s) #1: value 3 -> 4 (1.33 times)"]


def test_the_first_damage_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "committed", lambda name: result("monday", damaged=0, particles=0))
    lines = record.worse("some", result("today", damaged=2, particles=2))
    assert lines == [f"WORSE some: read #{n}: damaged 0 -> 2" for n in (1, 2)]


def test_other_machines_and_new_benchmarks_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    before = result("monday", seconds=10.0)
    before["machine"]["cores"] = 64
    monkeypatch.setattr(record, "committed", lambda name: before)
    (line,) = record.worse("some", result("today", seconds=100.0))
    assert "another machine" in line
    monkeypatch.undo()
    assert record.committed("no_such_benchmark") is None
    assert record.worse("no_such_benchmark", before) == []


def test_all_results_are_in_the_table() -> None:
    table = summary.table()
    missing = {path.stem for path in record.RESULTS.glob("*.json")} - set(table["benchmark"])
    assert missing <= {"realism"}  # a ratio that should be 1
    assert table[["day", "machine", "torch", "of", "figure", "median"]].notna().all(axis=None)
    one = table[(table["benchmark"] == "ribosome") & (table["figure"] == "known (Å)")].iloc[0]
    assert one["rows"] == len(json.loads((record.RESULTS / "ribosome.json").read_text())["rows"])
    steps = table[table["benchmark"] == "tilt_series"].set_index("of")["median"]
    assert len(steps) == 9
    assert 30 < one["median"] < 55
