"""Histories keep what was changed in few bytes, give it back whatever it was, and forget the oldest beyond a limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomolab.inspection import history as histories
from tomolab.inspection.history import History, Patch, Step

KINDS = st.sampled_from([np.bool_, np.int32, np.int64, np.float32])


@given(KINDS, st.integers(1, 300), st.floats(0, 1), st.integers(0, 2**31))
def test_a_patch_leads_there_and_back(kind: type, count: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = (rng.normal(size=count) * 10 ** rng.integers(0, 5)).astype(kind)
    after = np.where(rng.uniform(size=count) < share, rng.permutation(before), before)
    patch = Patch.between(before, after)
    if patch is None:
        assert (before == after).all()
        return
    for one, other, forward in ((before, after, True), (after, before, False)):
        made = patch.applied(one, forward=forward)
        assert made.dtype == kind
        np.testing.assert_array_equal(made, other)


def test_a_lasso_around_a_tenth_of_a_million_takes_a_bit_for_each() -> None:
    rng = np.random.default_rng(0)
    before, after = (rng.uniform(size=1_000_000) < 0.1 for _ in range(2))
    patch = Patch.between(before, after)
    assert patch is not None
    assert patch.size < 1_000_000 / 8 + 2 * (before != after).sum() / 8 + 3
    labels = rng.integers(-1, 50, 1_000_000).astype(np.int32)
    patch = Patch.between(labels, np.where(after, 51, labels).astype(np.int32))
    assert patch is not None
    assert patch.size < 1_000_000 / 8 + after.sum() + 10


def test_beyond_the_limit_the_oldest_is_forgotten_but_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "LIMIT", 20 * histories.STEP)
    rng, history = np.random.default_rng(0), History()
    states = [np.zeros(4000, dtype=bool)]
    for number in range(30):
        states.append(rng.uniform(size=4000) < 0.5)
        history.add(Step.between(f"step {number}", {"selected": states[-2]}, {"selected": states[-1]}))
        assert history.size == sum(step.size for step in history.past) <= histories.LIMIT
    kept = len(history.past)
    assert 5 < kept < 15
    assert [(what, names) for what, _, names in history.older] == [(f"step {n}", ["selected"]) for n in range(30 - kept)]
    told, arrays = history.packed()
    again = History.unpacked(told, arrays)
    assert (again.older, again.size) == (history.older, history.size)
    values = {"selected": states[-1]}
    for expected in states[-2 : -2 - kept : -1]:
        values |= again.undo().applied(values, forward=False)
        np.testing.assert_array_equal(values["selected"], expected)
    with pytest.raises(IndexError, match="nothing to undo"):
        again.undo()
    assert again.size == history.size
    again.add(Step.between("another way", {"selected": states[-1]}, {"selected": states[0]}))
    assert again.size == again.past[0].size


def test_what_was_packed_at_first_is_still_read() -> None:
    before, after = np.zeros(6, dtype=bool), np.array([1, 0, 0, 1, 0, 0], dtype=bool)
    rows = np.flatnonzero(after).astype(np.int32)
    step = {"what": "select", "when": "2026-01-01T00:00:00+00:00", "entries": {}, "patches": ["selected"]}
    arrays = {
        f"past.0.selected.{key}": one for key, one in {"rows": rows, "before": before[rows], "after": after[rows]}.items()
    }
    history = History.unpacked({"past": [step], "future": []}, arrays)
    np.testing.assert_array_equal(history.undo().applied({"selected": after}, forward=False)["selected"], before)
