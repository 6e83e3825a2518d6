"""A run folder remembers how its files came about; the scale is read from the environment."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tomolab import __version__
from tomolab.io import run_folder


@pytest.fixture
def run(tmp_path, monkeypatch) -> run_folder.Run:
    monkeypatch.setenv("TOMOLAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TOMOLAB_SCALE", "tiny")
    return run_folder.open("test")


@dataclass(frozen=True)
class Settings:
    low: float = np.float32(0.5)
    name: Path = Path("a/b")


def test_a_stage_is_recorded(run: run_folder.Run) -> None:
    run.path("maps/a.txt").write_text("one")
    (run.folder / "store").mkdir()
    (run.folder / "store" / "part").write_text("two")
    parameters = {"settings": Settings(), "classes": ("b", "a"), "snr": np.inf}
    entry = run.record("01", parameters=parameters, files=["maps/a.txt", run.path("store")], seed=np.int64(3))
    stored = json.loads((run.folder / "manifest.json").read_text())["stages"]["01"]
    assert stored == entry
    assert stored["parameters"] == {"settings": {"low": 0.5, "name": "a/b"}, "classes": ["b", "a"], "snr": "inf"}
    assert set(stored["files"]) == {"maps/a.txt", "store"}
    assert (stored["seed"], stored["scale"]) == (3, "tiny")
    assert stored["machine"]["tomolab"] == __version__
    assert run.changed() == []
    run.path("maps/a.txt").write_text("other")
    (run.folder / "store" / "part").unlink()
    assert run.changed() == ["maps/a.txt", "store"]


def test_recording_again_replaces_and_keeps_other_stages(run: run_folder.Run) -> None:
    run.record("01", parameters={"a": 1})
    run.record("02", parameters={"a": 2})
    run.record("01", parameters={"a": 3})
    stages = run_folder.open("test").manifest()["stages"]
    assert {name: stage["parameters"]["a"] for name, stage in stages.items()} == {"01": 3, "02": 2}


def test_recording_refuses_what_is_not_there(run: run_folder.Run, tmp_path) -> None:
    (tmp_path / "outside").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"gone.txt is not there"):
        run.record("01", files=["gone.txt"])
    with pytest.raises(ValueError, match="outside the run folder"):
        run.record("01", files=[tmp_path / "outside"])
    with pytest.raises(ValueError, match=r"parameters.model is a object"):
        run.record("01", parameters={"model": object()})
    assert run.manifest()["stages"] == {}


def test_what_is_missing_names_the_notebook_that_makes_it(run: run_folder.Run) -> None:
    with pytest.raises(FileNotFoundError, match=r"a.zarr is not in .*test: run the notebook 03_subtomograms first"):
        run.require("a.zarr", made_by="03_subtomograms")
    run.path("a.zarr").mkdir()
    assert run.require("a.zarr", made_by="03_subtomograms") == run.folder / "a.zarr"


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "a/../../b", ""])
def test_names_stay_inside(run: run_folder.Run, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        run.path(name)
    with pytest.raises(ValueError, match="cannot name a file"):
        run_folder.open(name)


def test_writers_at_the_same_time_lose_nothing(run: run_folder.Run) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: run_folder.open("test").record(f"{i:02}"), range(20)))
    assert sorted(run.manifest()["stages"]) == [f"{i:02}" for i in range(20)]


def test_runs_lie_beside_the_notebooks(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("TOMOLAB_RUNS", raising=False)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert run_folder.root() == tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    assert run_folder.root() == tmp_path / "runs"


def test_the_machine_is_described() -> None:
    facts = run_folder.machine()
    assert {"python", "torch", "tomolab", "cpu", "cores", "gpu"} <= set(facts)
    assert facts["cores"] >= 1


def test_scales(monkeypatch) -> None:
    monkeypatch.delenv("TOMOLAB_SCALE", raising=False)
    assert run_folder.scale().name == "laptop"
    monkeypatch.setenv("TOMOLAB_SCALE", "paper")
    assert (run_folder.scale().voxel_size, run_folder.scale().box) == (10.0, 40)
    monkeypatch.setenv("TOMOLAB_SCALE", "huge")
    with pytest.raises(ValueError, match="'huge'; it can be tiny, laptop, paper"):
        run_folder.scale()
