"""Killed at any moment, nothing half is read as whole, and the same call made again ends as if nothing had been."""

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
def test_what_is_killed_goes_on(work: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    moments = 1 if work in ("train", "average") else 4
    row = bench_kills.killed(work, given, tmp_path, moments=moments, seed=1)
    assert row["nothing"] + row["earlier"] + row["whole"] == row["resumed as unbroken"] == moments
    assert row["damaged"] == row["left over"] == 0
    if bench_kills.WORKS[work].before is not None:
        assert row["nothing"] == 0
