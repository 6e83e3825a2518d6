"""Selections are sets of known particles."""

import json

import numpy as np
import pandas as pd
import pytest

from tomolab.inspection import Selection, selection


def test_ids_become_sorted_unique_and_fixed() -> None:
    chosen = Selection("a", [5, 1, 5, 3], "by hand")
    assert chosen.ids.tolist() == [1, 3, 5]
    assert chosen.ids.dtype == np.int64
    assert (len(chosen), 3 in chosen, 4 in chosen, 9 in chosen, list(chosen)) == (3, True, False, False, [1, 3, 5])
    with pytest.raises(ValueError, match="read-only"):
        chosen.ids[0] = 2
    assert len(Selection("none", [], "empty")) == 0


def test_algebra_is_that_of_sets() -> None:
    rng = np.random.default_rng(0)
    one, two = (set(rng.integers(0, 50, 30).tolist()) for _ in range(2))
    a, b = Selection("a", list(one), "first"), Selection("b", list(two), "second")
    assert set(a | b) == one | two
    assert set(a & b) == one & two
    assert set(a - b) == one - two
    assert (a - b).name == "a - b"
    assert (a - b).reason == "(first) - (second)"


@pytest.mark.parametrize("ids", [[1.5, 2], [[1, 2]], ["1"], [True, False]])
def test_ids_must_be_whole_numbers(ids: list) -> None:
    with pytest.raises(ValueError, match="integer particle ids, got"):
        Selection("a", ids, "")
    with pytest.raises(ValueError, match="needs a name, got ''"):
        Selection("", [1], "")


def test_check_names_unknown_particles() -> None:
    particles = pd.DataFrame({"particle_id": [1, 2, 3]})
    chosen = Selection("a", [3, 1], "")
    assert chosen.check(particles) is chosen
    with pytest.raises(ValueError, match=r"'b' holds 2 of 3 particles that are not in the table of 3, such as \[7, 9\]"):
        Selection("b", [1, 7, 9], "").check(particles)


def test_save_and_load_large_selections(tmp_path) -> None:
    ids = np.random.default_rng(0).choice(10**7, 150_000, replace=False)
    chosen = Selection("Ribosomen ≥ 70S", ids, "Lasso im Å-Bild")
    chosen.save(tmp_path / "selection.json")
    assert selection.load(tmp_path / "selection.json") == chosen
    assert len(selection.load(tmp_path / "selection.json")) == 150_000


def test_load_refuses_other_files(tmp_path) -> None:
    path = tmp_path / "selection.json"
    Selection("a", [1, 2], "").save(path)
    path.write_text(json.dumps({"name": "a", "reason": "", "count": 2, "ids": [1]}))
    with pytest.raises(ValueError, match="says it holds 2 particles, but lists 1"):
        selection.load(path)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="cannot be read as a selection: it holds a list"):
        selection.load(path)
    with pytest.raises(FileNotFoundError):
        selection.load(tmp_path / "absent.json")


def test_from_cluster() -> None:
    labels = pd.Series([0, 1, 0, 2], index=[10, 20, 30, 40], name="cluster")
    assert selection.from_cluster(labels, 0) == Selection("cluster 0", [10, 30], "cluster 0 of 3")
    assert selection.from_cluster(labels, [1, 2], name="rest").ids.tolist() == [20, 40]
    with pytest.raises(ValueError, match=r"no cluster \[5\]; the labels hold \[0, 1, 2\]"):
        selection.from_cluster(labels, 5)
