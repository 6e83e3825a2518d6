"""EM volumes of TOM and PyTom come in as emfile reads them, and go out so that it reads them."""

import struct
from pathlib import Path

import emfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab import io, particles
from tomolab.volumes import Volume

DATA = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)


def put(path: Path, data: np.ndarray, *, order: str = "<", kind: str = "f4", machine: int = 6) -> Path:
    number = {"i1": 1, "i2": 2, "i4": 4, "f4": 5, "c8": 8, "f8": 9}[kind]
    head = struct.pack("4B", machine, 0, 0, number) + struct.pack(f"{order}3i", *data.shape[::-1])
    path.write_bytes(head.ljust(512, b"\0") + data.astype(f"{order}{kind}").tobytes())
    return path


@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    order=st.sampled_from("<>"),
    kind=st.sampled_from(["i1", "i2", "i4", "f4", "f8"]),
    machine=st.sampled_from([0, 3, 5, 6]),
    name=st.sampled_from(["a.em", "a.EM", "a.vol", "a"]),
)
@settings(max_examples=40, deadline=None)
def test_a_volume_of_any_machine_is_read(tmp_path_factory, shape, order, kind, machine, name) -> None:
    data = np.random.default_rng(1).integers(0, 100, shape)
    path = put(tmp_path_factory.mktemp("a") / name, data, order=order, kind=kind, machine=machine)
    np.testing.assert_array_equal(io.read_volume(path, voxel_size=10.0).data, data)
    opened = io.open_volume(path, voxel_size=10.0)
    assert (opened.shape, opened.voxel_size) == (shape, 10.0)
    np.testing.assert_array_equal(
        opened.read(np.s_[-1:, :2, 1:] if shape[2] > 1 else np.s_[-1:, :2, :]), data[-1:, :2, shape[2] > 1 :]
    )


def test_emfile_reads_what_we_write_and_we_what_it_writes(tmp_path) -> None:
    path = io.write_volume(Volume(DATA, 10.0), tmp_path / "a.em")
    header, data = emfile.read(path)
    assert (header["xdim"], header["ydim"], header["zdim"], header["dtype"]) == (6, 5, 4, 5)
    np.testing.assert_array_equal(data, DATA)
    emfile.write(tmp_path / "b.em", DATA)
    for one in (path, tmp_path / "b.em"):
        read = io.read_volume(one, voxel_size=13.5)
        np.testing.assert_array_equal(read.data, DATA)
        assert read.voxel_size == 13.5


def test_what_cannot_be_read_right_is_refused(tmp_path) -> None:
    path = put(tmp_path / "a.em", DATA)
    with pytest.raises(ValueError, match="does not state its voxel size; give voxel_size="):
        io.open_volume(path)
    with pytest.raises(ValueError, match="positive number of Å, got -1"):
        io.open_volume(path, voxel_size=-1.0)
    with pytest.raises(ValueError, match="bytes of more than 127, which TOM reads as 128 to 255"):
        io.read_volume(put(tmp_path / "b.em", np.full((2, 2, 2), -3), kind="i1"), voxel_size=10.0)
    with pytest.raises(ValueError, match="no EM file of real numbers: its type is 8"):
        io.read_volume(put(tmp_path / "b.em", DATA, kind="c8"), voxel_size=10.0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a.em: the header names 6 x 5 x 4 numbers of 4 bytes, but 479 bytes follow"):
        io.read_volume(path, voxel_size=10.0)
    with pytest.raises(FileNotFoundError, match="no file"):
        io.read_volume(tmp_path / "no.em", voxel_size=10.0)
    io.write_particles(particles.table(np.ones((3, 3)), ids=[1, 2, 3]), tmp_path / "list.em", voxel_size=10.0)
    with pytest.raises(ValueError, match=r"20 numbers for each of 3 rows, as a motive list does; io.read_particles reads it"):
        io.open_volume(tmp_path / "list.em", voxel_size=10.0)


def test_a_file_that_changes_is_not_read_on(tmp_path) -> None:
    path = put(tmp_path / "a.em", DATA)
    opened = io.open_volume(path, voxel_size=10.0)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="has changed since it was opened"):
        opened.load()


def test_the_content_says_what_a_file_is(tmp_path) -> None:
    """An MRC file that is called .em, as older versions wrote it."""
    path = io.write_volume(Volume(DATA, 10.0), tmp_path / "a.mrc").rename(tmp_path / "a.em")
    assert io.read_volume(path).voxel_size == 10.0
