"""What is added to a store counts as a whole or not at all, whoever adds and whenever one is killed."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from tomolab import particles, subtomograms
from tomolab.subtomograms import Subtomograms, store, writer

BOX = 4


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen volumes in a shard."""
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 16 * 2 * BOX**3)


def some(count: int, first: int) -> Subtomograms:
    """Volumes that tell their ids."""
    ids = first + np.arange(count)
    volumes = np.broadcast_to(ids[:, None, None, None], (count, BOX, BOX, BOX)).astype(np.float32)
    return Subtomograms(volumes, particles.table(np.zeros((count, 3)), ids=ids, label="a"), 20.0)


def check(path: Path, ids: list[int]) -> None:
    """The store holds just these, each with its own volume, whole shards and nothing else."""
    found = subtomograms.open(path)
    assert found.ids.tolist() == ids
    np.testing.assert_array_equal(found.volumes[:, 0, 0, 0], np.array(ids, dtype=np.float16))
    rows = np.random.default_rng(0).permutation(len(ids))
    np.testing.assert_array_equal(found.volumes[rows][:, 1, 2, 3], np.array(ids)[rows])


@pytest.mark.parametrize("counts", [(5, 1, 30, 1), (16, 16), (40, 3, 3), (1, 100)])
def test_what_is_added_follows_what_is_there(tmp_path: Path, counts: tuple[int, ...]) -> None:
    path, done = tmp_path / "made.zarr", counts[0]
    some(done, 0).save(path)
    for count in counts[1:]:
        before = subtomograms.open(path)
        after = subtomograms.append(path, some(count, done))
        assert len(after) == done + count
        # Who has opened it before still reads what there was.
        np.testing.assert_array_equal(before.volumes[:, 0, 0, 0], np.arange(done, dtype=np.float16))
        done += count
        check(path, list(range(done)))
    assert zarr.open_group(path, mode="r").attrs["count"] == done
    assert len(list((path / "volumes" / "c").iterdir())) == -(-done // 16)


def test_ids_are_unique(tmp_path: Path) -> None:
    path = some(10, 5).save(tmp_path / "made.zarr")
    with pytest.raises(ValueError, match=r"3 of 6 particle ids are in .* already, such as \[12, 13, 14\]"):
        subtomograms.append(path, some(6, 12))
    with pytest.raises(ValueError, match="an id that another row has too"):
        writer.append(path, writer.batches(some(6, 12).volumes, some(6, 12).particles), box=BOX, voxel_size=20.0)
    check(path, list(range(5, 15)))
    found = subtomograms.append(path, some(6, 12), renumber=True)
    assert found.ids.tolist() == list(range(5, 21))
    assert found.particles["id_before_joining"].tolist() == [*range(5, 15), *range(12, 18)]
    np.testing.assert_array_equal(found.volumes[10:, 0, 0, 0], np.arange(12, 18, dtype=np.float16))


def test_only_like_is_added_to_like(tmp_path: Path) -> None:
    path = some(10, 0).save(tmp_path / "made.zarr")
    table = particles.table(np.zeros((2, 3)), ids=[20, 21])
    for wrong in (
        Subtomograms(np.zeros((2, 6, 6, 6)), table, 20.0),
        Subtomograms(np.zeros((2, BOX, BOX, BOX)), table, 10.0),
    ):
        with pytest.raises(ValueError, match="holds boxes of 4³ voxels of 20 Å, not of"):
            subtomograms.append(path, wrong)
    with pytest.raises(FileNotFoundError, match="no subtomograms at"):
        subtomograms.append(tmp_path / "none.zarr", some(2, 0))


def test_what_was_left_out_is_told_once(tmp_path: Path) -> None:
    path = some(4, 0).save(tmp_path / "made.zarr")
    lost = particles.table(np.zeros((2, 3)), ids=[90, 91]).assign(reason="too near")
    for first in (4, 7):
        found = subtomograms.append(path, Subtomograms(some(3, first).volumes, some(3, first).particles, 20.0, lost))
    assert found.skipped["particle_id"].tolist() == [90, 91]


@pytest.mark.parametrize("left", [1, 10, 40])
def test_an_addition_that_breaks_off_leaves_the_store_as_it_was(tmp_path: Path, left: int) -> None:
    path = some(20, 0).save(tmp_path / "made.zarr")

    def parts():
        for start in range(20, 20 + left):
            yield from writer.batches(some(1, start).volumes, some(1, start).particles)
        raise RuntimeError("the tomogram went away")

    with pytest.raises(RuntimeError, match="went away"):
        writer.append(path, parts(), box=BOX, voxel_size=20.0)
    check(path, list(range(20)))
    subtomograms.append(path, some(7, 50))
    check(path, [*range(20), *range(50, 57)])
    # An id of what broke off is free.
    subtomograms.append(path, some(7, 20))
    check(path, [*range(20), *range(50, 57), *range(20, 27)])


def test_a_folder_that_is_removed_meanwhile_is_no_store(tmp_path: Path) -> None:
    path = some(20, 0).save(tmp_path / "made.zarr")

    def parts():
        for start in (20, 40):
            shutil.rmtree(path, ignore_errors=True)
            yield from writer.batches(some(20, start).volumes, some(20, start).particles)

    with pytest.raises(FileNotFoundError, match="was removed while it was written"):
        writer.append(path, parts(), box=BOX, voxel_size=20.0)
    with pytest.raises(ValueError, match="not a store of subtomograms"):
        subtomograms.open(path)
    journal = writer.begin(path, "key", box=BOX, voxel_size=20.0)
    journal = writer.add(journal, "first", writer.batches(some(20, 0).volumes, some(20, 0).particles), skipped=[])
    shutil.rmtree(journal.folder)
    with pytest.raises(FileNotFoundError, match="is missing; the new volumes follow"):
        writer.add(journal, "cell", writer.batches(some(20, 0).volumes, some(20, 0).particles), skipped=[])
    journal = writer.begin(path, "key", box=BOX, voxel_size=20.0)
    shutil.rmtree(journal.folder)
    with pytest.raises(FileNotFoundError, match="was removed while it was written"):
        writer.add(journal, "cell", writer.batches(some(20, 0).volumes, some(20, 0).particles), skipped=[])


def adding(path: Path, first: int, times: int, begun: object) -> None:
    """Add three at a time."""
    store.SHARD_BYTES = 16 * 2 * BOX**3
    begun.set()
    for number in range(times):
        subtomograms.append(path, some(3, first + 3 * number))


@pytest.mark.parametrize("removed", range(4))
def test_a_finish_that_was_killed_while_it_tidied_goes_on(tmp_path: Path, monkeypatch, removed: int) -> None:
    path, unlink, left = tmp_path / "cut.zarr", Path.unlink, [removed]

    def killed(one: Path, **options: bool) -> None:
        if one.name.startswith("rows-") or one.name == writer.JOURNAL:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
        unlink(one, **options)

    def finish() -> None:
        journal = writer.begin(path, "key", box=BOX, voxel_size=20.0)
        for number in range(len(journal.done), 3):
            one = some(20, 20 * number)
            journal = writer.add(journal, str(number), [(one.volumes, one.particles)], skipped=[])
        writer.finish(journal, path)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        finish()
    monkeypatch.setattr(Path, "unlink", unlink)
    finish()
    check(path, list(range(60)))


def test_processes_take_turns_and_the_killed_one_adds_nothing_half(tmp_path: Path) -> None:
    path = some(10, 0).save(tmp_path / "made.zarr")
    context = multiprocessing.get_context("spawn")
    begun = [context.Event() for _ in range(3)]
    jobs = [(1000, 6), (2000, 6), (3000, 100_000)]
    many = [context.Process(target=adding, args=(path, *job, one)) for job, one in zip(jobs, begun, strict=True)]
    for process in many:
        process.start()
    assert all(one.wait(120) for one in begun)
    time.sleep(0.5)
    os.kill(many[2].pid, signal.SIGKILL)
    # Meanwhile every reader finds a store that is whole.
    sizes = [len(subtomograms.open(path))]
    while any(process.is_alive() for process in many):
        found = subtomograms.open(path)
        np.testing.assert_array_equal(found.volumes[:, 0, 0, 0].astype(np.int64), found.ids.astype(np.float16))
        sizes.append(len(found))
    for process in many:
        process.join()
    assert [process.exitcode for process in many] == [0, 0, -signal.SIGKILL]
    assert sizes == sorted(sizes)
    assert all((size - 10) % 3 == 0 for size in sizes)
    ids = subtomograms.open(path).ids
    assert set(ids) >= {*range(10), *range(1000, 1018), *range(2000, 2018)}
    subtomograms.append(path, some(3, 9000))
    assert not list(path.rglob(".*"))
    assert [one.name for one in tmp_path.iterdir()] == ["made.zarr"]


def test_a_disk_without_room_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = some(10, 0).save(tmp_path / "made.zarr")
    monkeypatch.setattr("tomolab.subtomograms.writer.shutil.disk_usage", lambda _: pd.Series({"free": 1000}))
    with pytest.raises(OSError, match=r"20 subtomograms of 4³ voxels need 5.12e-06 GB, and 1e-06 GB are free"):
        subtomograms.append(path, some(20, 10))
    check(path, list(range(10)))
