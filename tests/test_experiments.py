"""Trials are made once, tables say what they should, and structures are recovered."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomolab import experiments, volumes
from tomolab.experiments import METHODS, PLANS, SPLITS, Plan
from tomolab.learning import Embedding
from tomolab.simulation import densities
from tomolab.subtomograms import Subtomograms
from tomolab.trials import STANDARD, Condition, Method, Ready
from tomolab.volumes import Volume

PLAN = Plan(splits=(("a",), ("b",)), snrs=(1.0, 0.1), tilts=(60.0,))


@pytest.fixture
def maps(phantom: Volume) -> dict[str, Volume]:
    return dict.fromkeys("abcd", phantom)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Trials that were made, instead of making them."""
    calls: list[tuple[str, int]] = []

    def trial(plan: Plan, method: Method, *, number: int, **_: object) -> list[dict[str, object]]:
        calls.append((method.network or str(method.baseline), number))
        return [{"split": str(number), "snr": 0.1, "tilt": 60.0, "accuracy": 0.5}]

    monkeypatch.setattr(experiments, "_trial", trial)
    monkeypatch.setattr(experiments.trials, "speed", lambda *_, **__: 10.0)
    return calls


def test_a_trial_is_made_once(maps: dict[str, Volume], made: list, tmp_path: Path) -> None:
    methods = {"ours": Method(network="compact"), "plain": Method(baseline="invariants")}
    first = experiments.run(PLAN, methods, maps=maps, folder=tmp_path, progress=False)
    assert sorted(made) == [("compact", 1), ("compact", 2), ("invariants", 1), ("invariants", 2)]
    again = experiments.run(PLAN, methods, maps=maps, folder=tmp_path, progress=False)
    assert len(made) == 4
    pd.testing.assert_frame_equal(first, again)
    next(tmp_path.glob("2-ours*")).unlink()
    experiments.run(PLAN, methods, maps=maps, folder=tmp_path, progress=False)
    assert made[4:] == [("compact", 2)]
    other = Plan(splits=PLAN.splits, snrs=PLAN.snrs, tilts=PLAN.tilts, seconds=1.0)
    experiments.run(other, methods, maps=maps, folder=tmp_path, progress=False)
    assert len(made) == 9


def test_trials_side_by_side_are_the_same_trials(tmp_path: Path) -> None:
    maps = densities.load(["apoferritin", "ribosome_30s", "ruvab", "tric"], voxel_size=20.0, box=20)
    plan = Plan(splits=(("apoferritin",), ("tric",)), snrs=(1.0,), tilts=(60.0,), counts=(10, 20))
    methods = {"plain": Method(baseline="invariants, masked", reference=20)}
    one, two = (
        experiments.run(plan, methods, maps=maps, folder=tmp_path / str(workers), workers=workers, progress=False)
        for workers in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two)


def test_speeds_are_measured_once_and_give_every_network_its_time(
    maps: dict[str, Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str | None] = []
    speeds = {"compact": iter([100.0, 300.0, 200.0, 210.0, 190.0]), "dsrf3d": iter([10.0, 10.0, 1.0, 10.0, 90.0])}

    def speed(method: Method, *_: object, **__: object) -> float:
        measured.append(method.network)
        return next(speeds[str(method.network)])

    monkeypatch.setattr(experiments.trials, "speed", speed)
    methods = {"ours": Method(network="compact"), "old": Method(network="dsrf3d"), "plain": Method(baseline="invariants")}
    found = [experiments.budgets(PLAN, methods, maps=maps, folder=tmp_path) for _ in range(2)]
    assert found[0] == found[1] == {"ours": 20_000, "old": 1000}
    # In turn, so that a slow moment does not meet one of them alone.
    assert measured == ["compact", "dsrf3d"] * 5


def test_what_is_left_out_must_be_there(maps: dict[str, Volume], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no maps of ribosome, which are to be left out"):
        experiments.run(Plan(splits=(("ribosome", "a"),)), METHODS, maps=maps, folder=tmp_path, progress=False)


def test_the_summary_has_intervals_of_student() -> None:
    rows = pd.DataFrame({"method": ["x"] * 3 + ["y"] * 3, "accuracy": [0.1, 0.2, 0.3, 0.5, 0.5, 0.5]})
    table = experiments.summary(rows, measures=["accuracy"])
    assert table.loc["x"].tolist() == pytest.approx([0.2, 4.3027 * 0.1 / np.sqrt(3)], abs=1e-4)
    assert table.loc["y"].tolist() == pytest.approx([0.5, 0.0])
    assert np.isnan(experiments.summary(rows[::3], measures=["accuracy"])["accuracy ±"]).all()


def test_an_advantage_is_taken_split_by_split() -> None:
    rows = pd.DataFrame(
        [
            {"method": method, "split": split, "snr": 0.1, "tilt": 60.0, "accuracy": base + extra}
            for split, base in (("1", 0.2), ("2", 0.5), ("3", 0.7))
            for method, extra in (("ours", 0.1), ("theirs", 0.0))
        ]
    )
    table = experiments.advantage(rows, "ours", measures=["accuracy"])
    assert table.loc["theirs"].tolist() == pytest.approx([0.1, 0.0], abs=1e-9)
    assert list(table.index) == ["theirs"]


def test_splits_leave_out_different_shipped_complexes() -> None:
    names = [name for split in SPLITS for name in split]
    assert len(names) == len(set(names)) == 15
    assert set(names) <= set(densities.catalogue().query("shipped")["name"])
    assert set(PLANS) == {"tiny", "laptop", "paper"}


def test_slow_methods_are_judged_under_the_standard_condition_only() -> None:
    assert Plan().conditions(METHODS["yopo"]) == [STANDARD]
    assert len(Plan().conditions(METHODS["compact"])) == 18
    assert STANDARD in Plan().conditions(METHODS["compact"])


def test_a_structure_is_recovered_from_its_cluster(phantom: Volume) -> None:
    class Oracle(Ready):
        def embed(self, *sets: Subtomograms) -> list[Embedding]:
            kinds = [(one.particles["label"] == "half").to_numpy(int) for one in sets]
            ids = [one.particles["particle_id"].to_numpy() for one in sets]
            return [Embedding(i, np.eye(2)[kind], "oracle") for i, kind in zip(ids, kinds, strict=True)]

    coarse = volumes.resample(phantom, 20.0)
    half = coarse.data.copy()
    half[8:] = 0
    unknown = {"whole": coarse, "half": Volume(half, coarse.voxel_size)}
    found = experiments.recover(
        Oracle(method=Method(baseline="invariants")),
        unknown,
        box=16,
        seed=1,
        count=24,
        condition=Condition(snr=2.0, tilt=60),
        progress=False,
    )
    assert sorted(found["class"]) == ["half", "whole"]
    assert found["purity"].tolist() == [1.0, 1.0]
    whole = found.set_index("class").loc["whole"]
    assert whole["fit"] > 0.8
    assert whole["fit"] > whole["mirror"]
    assert 40 <= whole["resolution"] < 120
