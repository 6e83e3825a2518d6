"""Histories keep what was changed in few bytes, give it back whatever it was, and forget the oldest beyond a limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomolab.inspection import history as histories
from tomolab.inspection.history import History, Step

KINDS = st.sampled_from([np.bool_, np.int32, np.int64])


def some(kind: type, count: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=count) * 1000).astype(np.int64).astype(kind)


@given(KINDS, st.integers(0, 300), st.floats(0, 1), st.integers(0, 2**31))
def test_a_step_leads_there_and_back(kind: type, count: int, share: float, seed: int) -> None:
    before = some(kind, count, seed)
    after = np.where(np.random.default_rng(seed).uniform(size=count) < share, some(kind, count, seed + 1), before)
    old, new = {"a": before, "b": {1: "x", 2: "y"}}, {"a": after, "b": {2: "z", 3: "w"}}
    step = Step.between("all", old, new)
    assert step.names == ({"a", "b"} if (before != after).any() else {"b"})
    for one, other, forward in ((old, new, True), (new, old, False)):
        made = one | step.applied(one, forward=forward)
        assert made["a"].dtype == kind
        np.testing.assert_array_equal(made["a"], other["a"])
        assert made["b"] == other["b"]
    assert not Step.between("nothing", old, dict(old)).names


def test_a_lasso_around_a_tenth_of_a_million_takes_a_bit_or_two_for_each() -> None:
    rng = np.random.default_rng(0)
    before, after = (rng.uniform(size=1_000_000) < 0.1 for _ in range(2))
    assert Step.between("select", {"selected": before}, {"selected": after}).size < 1_000_000 / 4
    labels = rng.integers(-1, 50, 1_000_000).astype(np.int32)
    step = Step.between("new cluster", {"labels": labels}, {"labels": np.where(after, 51, labels).astype(np.int32)})
    assert step.size < 1_000_000 / 3


def test_a_step_of_other_rows_is_refused() -> None:
    before, after = np.zeros(100, dtype=bool), np.arange(100) > 50
    step = Step.between("select", {"selected": before}, {"selected": after})
    with pytest.raises(IndexError):
        step.applied({"selected": before[:60]}, forward=True)
    with pytest.raises(ValueError, match="a step changes other selected than these 20"):
        step.applied({"selected": before[:20]}, forward=True)


def test_beyond_the_limit_the_oldest_is_forgotten_but_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "LIMIT", 20 * histories.OVERHEAD)
    rng, history = np.random.default_rng(0), History()
    states = [np.zeros(4000, dtype=bool)]
    for number in range(30):
        states.append(rng.uniform(size=4000) < 0.5)
        history = history.add(Step.between(f"step {number}", {"selected": states[-2]}, {"selected": states[-1]}))
        assert history.size == sum(step.size for step in history.past) <= histories.LIMIT
    kept = len(history.past)
    assert 5 < kept < 15
    assert [(what, names) for what, _, names in history.older] == [(f"step {n}", ["selected"]) for n in range(30 - kept)]
    about, bits = history.packed()
    again = History.unpacked(about, bits, values={"selected": states[-1]}, restored=lambda _, value: value)
    assert (again.older, again.size) == (history.older, history.size)
    values = {"selected": states[-1]}
    for expected in states[-2 : -2 - kept : -1]:
        step, again = again.undo()
        values |= step.applied(values, forward=False)
        np.testing.assert_array_equal(values["selected"], expected)
    with pytest.raises(IndexError, match="nothing to undo"):
        again.undo()
    assert again.size == history.size
    again = again.add(Step.between("another way", {"selected": states[-1]}, {"selected": states[0]}))
    assert again.size == again.past[0].size
