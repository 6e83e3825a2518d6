"""Parts keep what was done, and refuse to go on with something else."""

import errno
import json

import numpy as np
import pytest

from tomolab.learning import partial_array
from tomolab.learning.partial_array import Part


def test_a_part_notes_its_progress_for_when_it_is_killed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_array, "KEEP", 4)
    first = Part(10, dtype="float32", folder=tmp_path / "part", about={"of": "a"})
    for row in range(7):
        first.add(np.full((1, 2), row))
    # No orderly end: what was noted last counts.
    assert json.loads((tmp_path / "part/about.json").read_text())["done"] == 4
    second = Part(10, dtype="float32", folder=tmp_path / "part", about={"of": "a"})
    assert second.done == 4
    with second:
        second.add(np.full((6, 2), 9))
    np.testing.assert_array_equal(second.array[:, 0], [0, 1, 2, 3, 9, 9, 9, 9, 9, 9])
    third = Part(10, dtype="float32", folder=tmp_path / "part", about={"of": "a"})
    assert third.done == 10
    third.remove()
    assert not (tmp_path / "part").exists()


def test_a_part_holds_rows_of_one_width_and_no_more_than_its_count(tmp_path) -> None:
    part = Part(3, dtype="float16")
    part.add(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"rows \(1, 5\) do not fit after row 2 of \(3, 4\)"):
        part.add(np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"rows \(2, 4\) do not fit"):
        part.add(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"beyond float16 .*up to 7e\+04"):
        part.add(np.full((1, 4), 7e4))


def test_a_part_of_something_else_is_refused(tmp_path) -> None:
    with Part(3, dtype="float32", folder=tmp_path / "part", about={"of": "a"}) as part:
        part.add(np.ones((1, 2)))
    with pytest.raises(ValueError, match="count was 3, is 4, of was a, is b; delete the folder"):
        Part(4, dtype="float32", folder=tmp_path / "part", about={"of": "b"})


def test_room_for_all_is_taken_first(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(100_000, dtype="float32", folder=tmp_path / "part")
    part.add(np.ones((1, 10)))
    assert (tmp_path / "part/array.npy").stat().st_blocks * 512 >= 4_000_000

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(partial_array.os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match=r"no room for 0.004 GB: No space left on device: '.*array.npy'"):
        Part(100_000, dtype="float32", folder=tmp_path / "other").add(np.ones((1, 10)))
    assert list((tmp_path / "other").iterdir()) == []


def test_a_description_without_its_array_is_begun_anew(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_array, "KEEP", 4)
    first = Part(8, dtype="float32", folder=tmp_path / "part")
    first.add(np.ones((5, 2)))
    # As when the folder is deleted while it is filled: its description comes again, its array does not.
    (tmp_path / "part/array.npy").unlink()
    second = Part(8, dtype="float32", folder=tmp_path / "part")
    assert second.done == 0
    second.add(np.full((8, 2), 2.0))
    assert (second.array == 2).all()
