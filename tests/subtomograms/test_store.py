"""Stores are written whole or not at all, opened only if they are what they say, and their rows are those that Zarr reads."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from zarr.codecs import ZstdCodec

from tomolab import particles
from tomolab.subtomograms import Subtomograms, store


def some(count: int = 40, box: int = 8, *, first_id: int = 100, seed: int = 0) -> Subtomograms:
    """Random boxes with ids that are not row numbers."""
    rng = np.random.default_rng(seed)
    ids = first_id + rng.permutation(count)
    table = particles.table(rng.uniform(0, 500, (count, 3)), ids=ids, label=[f"class {i % 3}" for i in range(count)])
    return Subtomograms(rng.standard_normal((count, box, box, box)).astype(np.float32), table, 20.0)


def test_an_interrupted_write_leaves_what_was_there(tmp_path) -> None:
    made = some()
    made.save(tmp_path / "made.zarr")

    def parts():
        yield made.volumes[:20], made.particles[:20]
        raise RuntimeError("the tomogram went away")

    with pytest.raises(RuntimeError, match="went away"):
        store.write(tmp_path / "made.zarr", parts(), box=8, voxel_size=20.0)
    assert len(store.read(tmp_path / "made.zarr")[1]) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["made.zarr"]


def test_writing_refuses_wrong_parts(tmp_path) -> None:
    made = some()
    for volumes, message in (
        (made.volumes[:, :4], r"40 particles need volumes \(40, 8, 8, 8\), got \(40, 4, 8, 8\)"),
        (made.volumes * 1e6, "beyond float16"),
    ):
        with pytest.raises(ValueError, match=message):
            store.write(tmp_path / "wrong.zarr", [(volumes, made.particles)], box=8, voxel_size=20.0)
    twice = [(made.volumes, made.particles)] * 2
    with pytest.raises(ValueError, match=r"80 of 80 particles .* have an id that another row has too"):
        store.write(tmp_path / "wrong.zarr", twice, box=8, voxel_size=20.0)
    with pytest.raises(ValueError, match="no subtomograms came"):
        store.write(tmp_path / "wrong.zarr", [], box=8, voxel_size=20.0)
    assert not list(tmp_path.iterdir())


def test_opening_something_else_says_so(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no subtomograms at"):
        store.read(tmp_path / "none.zarr")
    with pytest.raises(ValueError, match="not a store of subtomograms"):
        store.read(tmp_path)
    made = some()
    made.save(tmp_path / "made.zarr")
    made.particles[:-1].to_parquet(tmp_path / "made.zarr" / "particles.parquet")
    with pytest.raises(ValueError, match="written with 40 subtomograms, but holds 40 volumes and 39 particles"):
        store.read(tmp_path / "made.zarr")


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("format", 9, "has format 9"),
        ("tomolab", "no", "but not a store"),
        ("box", 4, "says box 4"),
        ("count", "40", "its count is '40', expected int"),
        ("count", 41, "was written with 41"),
    ],
)
def test_attributes_are_held_against_the_array(tmp_path, attribute: str, value: object, message: str) -> None:
    some().save(tmp_path / "made.zarr")
    zarr.open_group(tmp_path / "made.zarr").attrs[attribute] = value
    with pytest.raises(ValueError, match=message):
        store.read(tmp_path / "made.zarr")


def test_taking_keeps_the_order_across_chunks_and_shards(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.CHUNK_BYTES", 2048)
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 16384)
    made = some(100)
    array = store.read(made.save(tmp_path / "made.zarr"))[0]
    assert array.shards[0] == 16
    for count in (0, 1, 5, 100):
        rows = np.random.default_rng(count).permutation(100)[:count]
        np.testing.assert_array_equal(store.take(array, rows), made.volumes[rows].astype(np.float16))


def test_shards_are_written_once_whatever_the_parts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 16384)
    monkeypatch.setattr("tomolab.subtomograms.store.CHUNK_BYTES", 2048)
    made = some(40)
    cuts = [0, 1, 1, 30, 40]
    parts = [(torch.from_numpy(made.volumes[a:b]), made.particles[a:b]) for a, b in itertools.pairwise(cuts)]
    store.write(tmp_path / "made.zarr", iter(parts), box=8, voxel_size=20.0)
    array, table, voxel_size = store.read(tmp_path / "made.zarr")
    np.testing.assert_array_equal(array[:], made.volumes.astype(np.float16))
    assert table["particle_id"].tolist() == made.ids.tolist()
    assert voxel_size == 20.0
    assert len(list((tmp_path / "made.zarr" / "volumes" / "c").iterdir())) == 3


def sharded(folder: Path, count: int = 50, **options: object) -> tuple[zarr.Array, np.ndarray]:
    """Four rows in a chunk, four chunks in a shard; a chunk and a shard hold nothing but zeros, which are written too."""
    data = np.random.default_rng(0).standard_normal((count, 3, 3, 3)).astype(np.float16)
    data[4:8] = data[32:48] = 0
    about = {"shape": data.shape, "chunks": (4, 3, 3, 3), "shards": (16, 3, 3, 3), "dtype": "float16", "compressors": None}
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.create_group(folder, zarr_format=3).create_array("volumes", **about | options)
    array[:] = data
    return array, data


@pytest.mark.parametrize("together", [1, 3, 1000])
def test_rows_are_those_of_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr(store, "TOGETHER", together)
    array, data = sharded(tmp_path)
    assert store.is_plain(array)
    rng = np.random.default_rng(1)
    for rows in (np.arange(50), rng.permutation(50), rng.integers(0, 50, 200), np.array([49]), np.array([], dtype=int)):
        np.testing.assert_array_equal(store.read_rows(array, rows), data[rows])


def test_only_plain_numbers_on_a_disk_are_read_so(tmp_path: Path) -> None:
    assert not store.is_plain(sharded(tmp_path / "packed", compressors=ZstdCodec())[0])
    assert not store.is_plain(sharded(tmp_path / "unsharded", shards=None)[0])
    assert not store.is_plain(sharded(tmp_path / "cut", chunks=(4, 3, 3, 1))[0])
    assert not store.is_plain(
        zarr.create_array(zarr.storage.MemoryStore(), shape=(4, 2), shards=(4, 2), chunks=(2, 2), dtype="f2")
    )


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    array, _ = sharded(tmp_path)
    for rows in ([3, 50], [-1]):
        with pytest.raises(IndexError, match="were asked for, and there are 50"):
            store.read_rows(array, np.array(rows))
    path = tmp_path / "volumes/c/1/0/0/0"
    whole = path.read_bytes()
    for damaged, message in (
        (whole[:-3] + b"abc", "the checksum of its index does not hold"),
        (whole[:20], "the checksum of its index does not hold"),
        (whole[-68:], "its index tells of chunks elsewhere"),
        (whole[100:], "it ends"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"volumes/c/1/0/0/0 is damaged: {message}"):
            store.read_rows(array, np.arange(16, 32))
    path.unlink()
    with pytest.raises(ValueError, match="volumes/c/1/0/0/0 is not there"):
        store.read_rows(array, np.arange(16, 32))
    # Other shards are none the worse.
    assert store.read_rows(array, np.arange(16)).shape == (16, 3, 3, 3)
