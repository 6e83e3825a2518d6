"""Rows that are read straight from the files are those that Zarr reads."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

from tomolab.subtomograms import shards


def made(folder: Path, count: int = 50, **options: object) -> tuple[zarr.Array, np.ndarray]:
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
    monkeypatch.setattr(shards, "TOGETHER", together)
    array, data = made(tmp_path)
    assert shards.plain(array)
    rng = np.random.default_rng(1)
    for rows in (np.arange(50), rng.permutation(50), rng.integers(0, 50, 200), np.array([49]), np.array([], dtype=int)):
        np.testing.assert_array_equal(shards.read(array, rows), data[rows])


def test_only_plain_numbers_on_a_disk_are_read_so(tmp_path: Path) -> None:
    assert not shards.plain(made(tmp_path / "packed", compressors=ZstdCodec())[0])
    assert not shards.plain(made(tmp_path / "unsharded", shards=None)[0])
    assert not shards.plain(made(tmp_path / "cut", chunks=(4, 3, 3, 1))[0])
    assert not shards.plain(
        zarr.create_array(zarr.storage.MemoryStore(), shape=(4, 2), shards=(4, 2), chunks=(2, 2), dtype="f2")
    )


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    array, _ = made(tmp_path)
    for rows in ([3, 50], [-1]):
        with pytest.raises(IndexError, match="were asked for, and there are 50"):
            shards.read(array, np.array(rows))
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
            shards.read(array, np.arange(16, 32))
    path.unlink()
    with pytest.raises(ValueError, match="volumes/c/1/0/0/0 is not there"):
        shards.read(array, np.arange(16, 32))
    # Other shards are none the worse.
    assert shards.read(array, np.arange(16)).shape == (16, 3, 3, 3)
