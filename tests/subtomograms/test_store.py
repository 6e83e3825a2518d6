"""Stores are written whole or not at all, opened only if they are what they say, and their rows are those that Zarr reads."""

import copy
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from zarr.codecs import ZstdCodec

from tomolab import particles
from tomolab.io import checksums
from tomolab.subtomograms import Subtomograms, store, writer


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
        writer.write(tmp_path / "made.zarr", parts(), box=8, voxel_size=20.0)
    assert len(store.read(tmp_path / "made.zarr")[1]) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["made.zarr"]


def test_writing_refuses_wrong_parts(tmp_path) -> None:
    made = some()
    for volumes, message in (
        (made.volumes[:, :4], r"40 particles need volumes \(40, 8, 8, 8\), got \(40, 4, 8, 8\)"),
        (made.volumes * 1e6, "beyond float16"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.write(tmp_path / "wrong.zarr", [(volumes, made.particles)], box=8, voxel_size=20.0)
    twice = [(made.volumes, made.particles)] * 2
    with pytest.raises(ValueError, match=r"80 of 80 particles .* have an id that another row has too"):
        writer.write(tmp_path / "wrong.zarr", twice, box=8, voxel_size=20.0)
    with pytest.raises(ValueError, match="there are no subtomograms to write"):
        writer.write(tmp_path / "wrong.zarr", [], box=8, voxel_size=20.0)
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
    with pytest.raises(ValueError, match="damaged, or changed by hand"):
        store.read(tmp_path / "made.zarr")
    del zarr.open_group(tmp_path / "made.zarr").attrs[checksums.KEY]
    with pytest.raises(ValueError, match=message):
        store.read(tmp_path / "made.zarr")


def test_taking_keeps_the_order_across_chunks_and_shards(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 16384)
    made = some(100)
    array = store.read(made.save(tmp_path / "made.zarr"))[0]
    assert array.layout.shard == 16
    for count in (0, 1, 5, 100):
        rows = np.random.default_rng(count).permutation(100)[:count]
        np.testing.assert_array_equal(array[rows], made.volumes[rows].astype(np.float16))


def test_shards_are_written_once_whatever_the_parts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 16384)
    made = some(40)
    cuts = [0, 1, 1, 30, 40]
    parts = [(torch.from_numpy(made.volumes[a:b]), made.particles[a:b]) for a, b in itertools.pairwise(cuts)]
    writer.write(tmp_path / "made.zarr", iter(parts), box=8, voxel_size=20.0)
    array, table, voxel_size = store.read(tmp_path / "made.zarr")
    np.testing.assert_array_equal(array[:], made.volumes.astype(np.float16))
    assert table["particle_id"].tolist() == made.ids.tolist()
    assert voxel_size == 20.0
    assert len(list((tmp_path / "made.zarr" / "volumes" / "c").iterdir())) == 3


def sharded(folder: Path, count: int = 50) -> tuple[store.Volumes, np.ndarray]:
    """Sixteen rows in a shard; half a shard and a whole one hold nothing but zeros, which are written too."""
    data = np.random.default_rng(0).standard_normal((count, 8, 8, 8)).astype(np.float16)
    data[8:16] = data[32:48] = 0
    Subtomograms(data, some(count).particles, 20.0).save(folder / "a.zarr")
    return store.read(folder / "a.zarr")[0], data


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 16 * 2 * 8**3)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("count", [1, 8, 48, 50])
def test_zarr_reads_the_same_rows(tmp_path: Path, count: int) -> None:
    volumes, data = sharded(tmp_path, count)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group.attrs["count"] == count
    array = group["volumes"]
    assert (array.shape, array.chunks, array.shards, array.dtype) == (volumes.shape, (1, 8, 8, 8), (16, 8, 8, 8), "float16")
    np.testing.assert_array_equal(array[:], data)
    rng = np.random.default_rng(1)
    for rows in (np.arange(count), rng.permutation(count), rng.integers(0, count, 200), np.array([], dtype=int)):
        np.testing.assert_array_equal(volumes[rows], data[rows])
    np.testing.assert_array_equal(volumes[::3, 4], data[::3, 4])
    np.testing.assert_array_equal(volumes[count - 1, :, 2], data[count - 1, :, 2])
    np.testing.assert_array_equal(copy.deepcopy(volumes), data)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_type", "float32"),
        ("data_type", "bytes"),
        ("fill_value", 1.0),
        ("shape", [10**13, 8, 8, 8]),
        ("shape", [50, 8, 8, 4]),
        ("shape", [True, 8, 8, 8]),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [2**39, 8, 8, 8]}}),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [16, 8, 8, 4]}}),
        ("codecs", [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {"level": 0}}]),
        ("storage_transformers", [{"name": "other"}]),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, key: str, value: object) -> None:
    sharded(tmp_path)
    path = tmp_path / "a.zarr" / "volumes" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=r"a\.zarr/volumes/zarr\.json cannot be read as the array of a store"):
        store.read(tmp_path / "a.zarr")


def test_what_zarr_writes_packed_is_refused(tmp_path: Path) -> None:
    some().save(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr")
    for options in ({"compressors": ZstdCodec()}, {"shards": None}, {"chunks": (4, 8, 8, 1)}):
        about = {
            "shape": (40, 8, 8, 8),
            "chunks": (4, 8, 8, 8),
            "shards": (16, 8, 8, 8),
            "dtype": "float16",
            "compressors": None,
        }
        group.create_array("volumes", **about | options, overwrite=True)[:] = 0
        with pytest.raises(ValueError, match=r"not of the layout of a store|cannot be read as the array of a store"):
            store.read(tmp_path / "a.zarr")


@pytest.mark.usefixtures("_small")
def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    volumes, _ = sharded(tmp_path)
    for rows in ([3, 50], [-1]):
        with pytest.raises(IndexError, match="are out of range: there are 50"):
            volumes[np.array(rows)]
    path = tmp_path / "a.zarr/volumes/c/1/0/0/0"
    whole = path.read_bytes()
    moved = store.Layout(8, 16).index(8) + whole[-260:]
    for damaged, message in (
        (whole[:-3] + b"abc", "its index is not that of 16 volumes"),
        (whole[:20], "its 20 bytes are not those of 16 volumes or more"),
        (whole[-260:], "its 260 bytes are not those of 16 volumes or more"),
        (whole[100:], "bytes are not those of 16 volumes or more"),
        (whole[8 * 1028 :], "bytes are not those of 16 volumes or more"),
        (whole[:-260] + moved[:260], "its index is not that of 16 volumes"),
        (whole + whole, "bytes are not those of 16 volumes or more"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"volumes/c/1/0/0/0 is damaged: .*{message}"):
            store.read(tmp_path / "a.zarr")[0][np.arange(20, 21)]
    path.unlink()
    volumes = store.read(tmp_path / "a.zarr")[0]
    for other in (tmp_path / "no", tmp_path / "a.zarr/volumes/c/0"):
        path.symlink_to(other)
        with pytest.raises(ValueError, match="1/0/0/0"):
            volumes[16:32]
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="volumes/c/1/0/0/0 is missing"):
        volumes[16:32]
    # Other shards are none the worse.
    assert volumes[:16].shape == (16, 8, 8, 8)


@pytest.mark.usefixtures("_small")
def test_a_shard_that_is_cut_after_it_was_checked_is_refused(tmp_path: Path) -> None:
    volumes, data = sharded(tmp_path)
    np.testing.assert_array_equal(volumes[16:32], data[16:32])
    os.truncate(tmp_path / "a.zarr/volumes/c/1/0/0/0", 5000)
    with pytest.raises(ValueError, match="1/0/0/0 is damaged: it ended while it was read"):
        volumes[16:32]


@pytest.mark.parametrize("shift", [0, 8])
def test_a_forked_process_reads_too(tmp_path: Path, shift: int) -> None:
    volumes, data = sharded(tmp_path)
    np.testing.assert_array_equal(volumes[:4], data[:4])
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(volumes[shift : shift + 8], data[shift : shift + 8]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_values_that_float16_would_lose_are_refused(tmp_path: Path) -> None:
    made = some()
    faint = made.volumes.astype(np.float32)
    faint[3] *= 1e-7
    with pytest.raises(ValueError, match=r"1 of 40 volumes have values up to .*too small for float16; .*stored normalised"):
        Subtomograms(faint, made.particles, 20.0).save(tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())
    # Nothing but zeros, as in a box of a mask, is kept.
    faint[3] = 0
    assert not store.read(Subtomograms(faint, made.particles, 20.0).save(tmp_path / "a.zarr"))[0][3].any()
