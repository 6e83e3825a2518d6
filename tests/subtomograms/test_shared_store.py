"""Shares of a store are filled in any order by any process, and make a store when all are there."""

import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomolab import particles, subtomograms
from tomolab.subtomograms import shared_store, store

BOX, SHARD = 4, 16


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.CHUNK_BYTES", 4 * 2 * BOX**3)
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", SHARD * 2 * BOX**3)


def parts(share: shared_store.Share, *, lacking: int = 0):
    """Volumes that tell their rows, in parts of seven."""
    for start in range(share.start, share.stop - lacking, 7):
        ids = np.arange(start, min(start + 7, share.stop - lacking))
        volumes = np.broadcast_to(ids[:, None, None, None], (len(ids), BOX, BOX, BOX))
        yield volumes, particles.table(np.zeros((len(ids), 3)), ids=ids)


def filling(path: Path, number: int) -> None:
    """Fill one share in a process of its own."""
    store.CHUNK_BYTES, store.SHARD_BYTES = 4 * 2 * BOX**3, SHARD * 2 * BOX**3
    share = shared_store.allot(path, 100, box=BOX, voxel_size=20.0, number=3)[number]
    shared_store.fill(share, parts(share))


def test_processes_fill_one_store(tmp_path: Path) -> None:
    path = tmp_path / "made.zarr"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(filling, [(path, number) for number in (2, 0, 1)])
    assert all(share.done for share in shared_store.allot(path, 100, box=BOX, voxel_size=20.0, number=3))
    shared_store.finish(path)
    found = subtomograms.open(path)
    assert found.ids.tolist() == list(range(100))
    np.testing.assert_array_equal(found.volumes[:, 0, 0, 0], np.arange(100, dtype=np.float16))
    assert sorted(one.name for one in path.iterdir()) == ["particles.parquet", "volumes", "zarr.json"]
    assert [one.name for one in tmp_path.iterdir()] == ["made.zarr"]


def test_shares_are_whole_shards(tmp_path: Path) -> None:
    for count, number, expected in ((100, 3, [32, 48, 20]), (100, 50, [16] * 6 + [4]), (5, 2, [5])):
        found = shared_store.allot(tmp_path / f"{count}-{number}.zarr", count, box=BOX, voxel_size=20.0, number=number)
        assert [len(share) for share in found] == expected
        assert all(share.start % SHARD == 0 for share in found)


def test_what_is_missing_or_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.zarr"
    with pytest.raises(FileNotFoundError, match="no store was begun in"):
        shared_store.finish(path)
    first, second = shared_store.allot(path, 30, box=BOX, voxel_size=20.0, number=2)
    shared_store.fill(first, parts(first))
    with pytest.raises(ValueError, match="1 of 2 shares are not filled: 1"):
        shared_store.finish(path)
    with pytest.raises(ValueError, match="share 1 holds 14 subtomograms, and 13 came"):
        shared_store.fill(second, parts(second, lacking=1))
    longer = shared_store.Share(path, 1, 16, 31, BOX, done=False)
    with pytest.raises(ValueError, match="share 1 holds 14 subtomograms, and more came"):
        shared_store.fill(second, parts(longer))
    assert [share.done for share in shared_store.allot(path, 30, box=BOX, voxel_size=20.0, number=2)] == [True, False]
    with pytest.raises(ValueError, match="was begun with count 30 and not 31"):
        shared_store.allot(path, 31, box=BOX, voxel_size=20.0, number=2)
    shared_store.fill(
        second, ((volumes, table.assign(particle_id=table["particle_id"] - 5)) for volumes, table in parts(second))
    )
    with pytest.raises(ValueError, match="an id that another row has too"):
        shared_store.finish(path)
    shared_store.fill(second, parts(second))
    assert len(subtomograms.open(shared_store.finish(path))) == 30


def test_a_disk_without_room_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.shutil.disk_usage", lambda _: pd.Series({"free": 10**9}))
    with pytest.raises(OSError, match=r"10,000,000 subtomograms of 20³ voxels need 161 GB, and 1 GB are free"):
        shared_store.allot(tmp_path / "made.zarr", 10**7, box=20, voxel_size=20.0, number=2)
    assert not list(tmp_path.iterdir())
