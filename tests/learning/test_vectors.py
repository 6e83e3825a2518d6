"""An embedding keeps ids and vectors together, in memory and in its file."""

import numpy as np
import pytest

from tomolab.learning import Embedding, vectors


def some(n: int = 40, d: int = 6, seed: int = 0) -> Embedding:
    rng = np.random.default_rng(seed)
    return Embedding(np.arange(n) + 100, rng.normal(size=(n, d)) * np.arange(d, 0, -1), "abc")


def test_an_embedding_must_be_consistent() -> None:
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3, 4\)"):
        Embedding([1, 2], np.zeros((3, 4)), "")
    with pytest.raises(ValueError, match=r"unique, but 1 are repeated: \[2\]"):
        Embedding([2, 2, 3], np.zeros((3, 4)), "")
    with pytest.raises(ValueError, match="ids must be integers, got float64"):
        Embedding([1.5, 2, 3], np.zeros((3, 4)), "")


def test_take_follows_the_ids_asked_for() -> None:
    whole = some()
    part = whole.take([120, 101])
    assert part.ids.tolist() == [120, 101]
    np.testing.assert_array_equal(part.vectors, whole.vectors[[20, 1]])
    with pytest.raises(KeyError, match=r"1 of 2 particles are not in the embedding, such as \[7\]"):
        whole.take([101, 7])


def test_save_and_load(tmp_path) -> None:
    whole = some()
    whole.save(tmp_path / "embedding.npz")
    read = vectors.load(tmp_path / "embedding.npz")
    np.testing.assert_array_equal(read.ids, whole.ids)
    np.testing.assert_array_equal(read.vectors, whole.vectors)
    assert read.network == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["embedding.npz"]


def test_load_refuses_other_files(tmp_path) -> None:
    np.savez(tmp_path / "other.npz", ids=np.arange(3))
    with pytest.raises(ValueError, match="not an embedding: it has no network, vectors"):
        vectors.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", ids=np.array([{}]), vectors=np.zeros((1, 2)), network="")
    with pytest.raises(ValueError, match="values of type object, expected numbers or text"):
        vectors.load(tmp_path / "pickled.npz")
    with pytest.raises(FileNotFoundError):
        vectors.load(tmp_path / "absent.npz")


def test_half_precision_is_kept_and_doubles_are_not() -> None:
    for given, kept in (("f2", "f2"), ("f4", "f4"), ("f8", "f4"), ("i8", "f4")):
        assert Embedding([1, 2], np.ones((2, 3), given), "").vectors.dtype == kept


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_mapped_vectors_stay_on_disk(tmp_path, dtype: str) -> None:
    whole = Embedding(some().ids, some().vectors.astype(dtype), "abc")
    whole.save(tmp_path / "embedding.npz")
    read = vectors.load(tmp_path / "embedding.npz", mapped=True)
    assert isinstance(read.vectors, np.memmap)
    np.testing.assert_array_equal(read.vectors, whole.vectors)
    assert read.vectors.dtype == dtype
    part = read.take([120, 101])
    assert not isinstance(part.vectors, np.memmap)
    np.testing.assert_array_equal(part.vectors, whole.vectors[[20, 1]])
    with pytest.raises(ValueError, match="read-only"):
        read.vectors[0, 0] = 1
    # What was mapped outlives the file that takes its place.
    some(seed=1).save(tmp_path / "embedding.npz")
    np.testing.assert_array_equal(read.vectors, whole.vectors)


def test_mapping_copes_with_nothing_and_refuses_compression(tmp_path) -> None:
    Embedding([], np.zeros((0, 5), np.float32), "").save(tmp_path / "none.npz")
    assert vectors.load(tmp_path / "none.npz", mapped=True).vectors.shape == (0, 5)
    np.savez_compressed(tmp_path / "small.npz", ids=[1], vectors=np.zeros((1, 2), np.float32), network="")
    assert len(vectors.load(tmp_path / "small.npz")) == 1
    with pytest.raises(ValueError, match="is compressed"):
        vectors.load(tmp_path / "small.npz", mapped=True)


def test_blocks_are_all_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "ROWS", 16)
    whole = Embedding(some().ids, some().vectors.astype(np.float16), "")
    parts = list(whole.blocks())
    assert [len(part) for _, part in parts] == [16, 16, 8]
    assert all(part.dtype == np.float32 for _, part in parts)
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), whole.vectors)
    broken = some().vectors.copy()
    broken[[3, 20, 39], 1] = np.nan
    with pytest.raises(ValueError, match=r"3 particles hold NaN or infinity, such as particles \[103, 120, 139\]"):
        Embedding(whole.ids, broken, "")
