"""Killed or out of disk at any moment, nothing half is read as whole, and the same call made again ends as an unbroken one."""

from pathlib import Path

import bench_kills
import pytest


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the works start from."""
    bench_kills.preload()
    folder = tmp_path_factory.mktemp("given")
    bench_kills.inputs(folder)
    return folder


@pytest.mark.parametrize("work", list(bench_kills.WORKS))
def test_what_is_broken_goes_on(work: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    trial = bench_kills.Trial(work, given, tmp_path)
    moments = 1 if work in ("train", "average") else 4
    rows = [trial.killed(moments, seed=1), trial.filled(1, seed=1)]
    assert trial.complaints == []
    for row in rows:
        assert row["nothing"] + row["earlier"] + row["whole"] == row["resumed as unbroken"] == row["times"]
        assert row["damaged"] == row["left over"] == 0
        if bench_kills.WORKS[work].before is not None:
            assert row["nothing"] == 0
    assert rows[1]["clear errors"] == 1
    assert rows[1]["whole"] == 0
