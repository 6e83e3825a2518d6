"""Training data give every subtomogram with its label, in an order that depends on nothing but seed and epoch."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import particles, subtomograms
from tomolab.learning import datasets
from tomolab.subtomograms import Subtomograms
from tomolab.subtomograms import store as stores

BOX = 8


def numbered(count: int, *, tomograms: int = 4, rare: int = 10) -> Subtomograms:
    """Volumes full of their own number; of class "rare" are the first, of "often" all others."""
    volumes = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, BOX, BOX, BOX))
    table = particles.table(
        np.zeros((count, 3)),
        ids=np.arange(count) * 3 + 5,
        tomogram=[f"t{i % tomograms}" for i in range(count)],
        label=["rare"] * rare + ["often"] * (count - rare),
    )
    return Subtomograms(volumes, table, 10.0)


def dealt(data: datasets.Labelled, number: int, **more: int) -> tuple[np.ndarray, np.ndarray]:
    batches = list(data.epoch(number, **more))
    return torch.cat([volumes[:, 0, 0, 0] for volumes, _ in batches]).numpy(), torch.cat([one for _, one in batches]).numpy()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subtomograms:
    """300 subtomograms on disk in chunks of 4, of which 40 are read together."""
    monkeypatch.setattr(stores, "BLOCK_BYTES", 4 * (2 * BOX**3 + 4))
    monkeypatch.setattr(datasets, "WINDOW_BYTES", 40 * 2 * BOX**3)
    return subtomograms.open(numbered(300).save(tmp_path / "numbered.zarr"))


def test_every_subtomogram_comes_once_with_its_label() -> None:
    data = datasets.Labelled(numbered(50), batch_size=8, seed=2)
    assert data.classes == ("often", "rare")
    numbers, labels = dealt(data, 0)
    assert sorted(numbers) == list(range(50))
    np.testing.assert_array_equal(labels, (numbers < 10).astype(int))
    np.testing.assert_array_equal(numbers, dealt(data, 0)[0])
    assert not np.array_equal(numbers, dealt(data, 1)[0])
    sizes = [len(labels) for _, labels in data.epoch(0)]
    assert len(sizes) == data.batches == 7
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("balanced", [False, True])
def test_a_store_is_dealt_out_in_order_of_windows_and_can_be_entered_anywhere(store: Subtomograms, balanced: bool) -> None:
    data = datasets.Labelled(store, batch_size=10, balanced=balanced, seed=1)
    numbers, labels = dealt(data, 3)
    np.testing.assert_array_equal(labels, (numbers < 10).astype(int))
    for start in (1, 4, 29):
        np.testing.assert_array_equal(dealt(data, 3, start=start)[0], numbers[10 * start :])
    if not balanced:
        assert sorted(numbers) == list(range(300))
        # Neighbours on disk are not neighbours in a batch, nor in windows that follow the order on disk.
        assert np.abs(np.diff(numbers)).mean() > 40
        assert np.corrcoef(numbers, np.arange(300))[0, 1] < 0.3


def test_a_store_is_read_in_chunks_and_never_as_a_whole(store: Subtomograms, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[np.ndarray] = []
    whole = stores.Volumes.__getitem__
    monkeypatch.setattr(
        stores.Volumes, "__getitem__", lambda volumes, rows: (asked.append(np.asarray(rows)), whole(volumes, rows))[1]
    )
    known, _ = datasets.split(store, 0.2, seed=1)
    assert not asked
    dealt(datasets.Labelled(known, batch_size=10, seed=1), 0)
    assert max(map(len, asked)) <= 40
    # A chunk of 4 is read for about 4 x 0.8 subtomograms that are wanted of it.
    assert sum(len(np.unique(rows // 4)) for rows in asked) < 0.5 * len(known)


def test_balanced_batches_hold_classes_evenly() -> None:
    data = datasets.Labelled(numbered(100, rare=6), batch_size=8, balanced=True, seed=1)
    seen = list(data.epoch(0))
    assert all(int(labels.sum()) == 4 for _, labels in seen)
    numbers, _ = dealt(data, 0)
    rare = np.bincount(numbers[numbers < 6].astype(int))
    assert rare.max() - rare.min() <= 1
    often = numbers[numbers >= 6]
    assert len(set(often)) == len(often)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_split_is_stratified_and_repeatable(store: Subtomograms, on_disk: bool) -> None:
    whole = store if on_disk else numbered(300)
    known, held = datasets.split(whole, 0.2, seed=1)
    assert held.particles["label"].value_counts().to_dict() == {"often": 58, "rare": 2}
    assert sorted([*known.ids, *held.ids]) == sorted(whole.ids)
    np.testing.assert_array_equal(held.ids, datasets.split(whole, 0.2, seed=1)[1].ids)
    assert set(held.ids) != set(datasets.split(whole, 0.2, seed=2)[1].ids)
    for part in (known, held, datasets.split(known, 0.5, seed=3)[0]):
        for ids, volumes in part.batches(64):
            np.testing.assert_array_equal(volumes[:, 0, 0, 0], (ids - 5) // 3)
        np.testing.assert_array_equal(np.asarray(part.take(part.ids[::-7]).volumes)[:, 1, 1, 1], (part.ids[::-7] - 5) // 3)


def test_a_split_by_tomogram_keeps_tomograms_whole_and_classes_on_both_sides() -> None:
    known, held = datasets.split(numbered(100, tomograms=10, rare=20), 0.3, seed=1, by_tomogram=True)
    assert not set(known.particles["tomogram"]) & set(held.particles["tomogram"])
    assert set(known.particles["label"]) == set(held.particles["label"]) == {"rare", "often"}
    assert len(held) == 30


def test_what_cannot_be_parted_or_dealt_is_refused() -> None:
    whole = numbered(20)
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        datasets.split(whole, 1.0, seed=1)
    with pytest.raises(ValueError, match="single member cannot be split: rare"):
        datasets.split(numbered(20, rare=1), 0.5, seed=1)
    with pytest.raises(ValueError, match=r"of one tomogram \(t0\)"):
        datasets.split(numbered(20, tomograms=1), 0.5, seed=1, by_tomogram=True)
    alone = whole.particles.assign(tomogram=np.where(whole.particles["label"] == "rare", "t1", "t0"))
    with pytest.raises(ValueError, match="no choice of whole tomograms"):
        datasets.split(Subtomograms(whole.volumes, alone, 10.0), 0.5, seed=1, by_tomogram=True)
    with pytest.raises(ValueError, match="batch_size=0"):
        datasets.Labelled(whole, batch_size=0)
    with pytest.raises(ValueError, match="labels often, rare are not among the classes ribosome"):
        datasets.Labelled(whole, classes=("ribosome",))
    bare = Subtomograms(whole.volumes, pd.DataFrame(whole.particles.drop(columns="label")), 10.0)
    with pytest.raises(ValueError, match="needs a column 'label'"):
        datasets.Labelled(bare)
