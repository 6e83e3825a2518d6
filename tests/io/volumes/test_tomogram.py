"""Tomograms on disk give what numpy would, read no more than is asked for, and are refused for what they hold."""

import bz2
import gzip
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mrcfile.dtypes import HEADER_DTYPE

from tomolab import io
from tomolab.io.volumes import tomogram
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.volumes import Volume

KINDS = [np.int8, np.int16, np.float32, np.uint16, np.float16]


def write(path: Path, data: np.ndarray, *, order: tuple[int, int, int], endian: str, extended: int) -> Path:
    """An MRC file by mrcfile whose columns, rows and sections are other axes; `order` is the transposition of zyx."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.ascontiguousarray(data.transpose(order)).astype(data.dtype.newbyteorder(endian)))
        file.set_volume()
        if extended:
            file.set_extended_header(np.frombuffer(b"x" * extended, dtype=f"V{extended}"))
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(endian), count=1)
    z, y, x = data.shape
    header["mx"], header["my"], header["mz"] = x, y, z
    header["cella"] = (x * 10.0, y * 10.0, z * 10.0)
    for name, axis in zip(("maps", "mapr", "mapc"), order, strict=True):
        header[name] = 3 - axis
    path.write_bytes(raw)
    return path


@given(
    kind=st.sampled_from(KINDS),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    order=st.permutations([0, 1, 2]),
    endian=st.sampled_from("<>"),
    extended=st.sampled_from([0, 80]),
    pack=st.sampled_from(["", ".gz", ".bz2"]),
    cuts=st.tuples(*[st.tuples(st.integers(-7, 7), st.integers(-7, 7))] * 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_every_mode_byte_order_and_axis_order_is_read_as_it_is(
    tmp_path_factory, kind, shape, order, endian, extended, pack, cuts, seed
) -> None:
    data = np.random.default_rng(seed).uniform(-100, 100, shape)
    data = np.abs(data).astype(kind) if kind == np.uint16 else data.astype(kind)
    # Of single bytes mrcfile knows no order, and writes its header in that of the machine.
    endian = "<" if kind == np.int8 else endian
    path = write(tmp_path_factory.mktemp("a") / "a.rec", data, order=tuple(order), endian=endian, extended=extended)
    if pack:
        squeezed = path.with_suffix(f".rec{pack}")
        squeezed.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}[pack](path.read_bytes()))
        path = squeezed
    opened = io.open_volume(path, flipped=False)
    assert opened.shape == shape
    assert opened.voxel_size == pytest.approx(10.0)
    np.testing.assert_array_equal(opened.load().data, data.astype(np.float32))
    np.testing.assert_array_equal(io.read_volume(path, flipped=False).data, data.astype(np.float32))
    slices = tuple(slice(*pair) for pair in cuts)
    expected = data[slices].astype(np.float32)
    if expected.size:
        part = opened.read(slices)
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, expected)
    else:
        with pytest.raises(ValueError, match="holds no voxel"):
            opened.read(slices)


def test_what_is_no_block_is_refused(tmp_path) -> None:
    opened = io.open_volume(io.write_volume(Volume(np.ones((4, 5, 6)), 10.0), tmp_path / "a.mrc"))
    for wrong in (np.s_[::2, :, :], np.s_[:, :], np.s_[0, :, :]):
        with pytest.raises(ValueError, match="three slices with a step of 1"):
            opened.read(wrong)
    assert repr(opened).endswith("a.mrc: 4 x 5 x 6 voxels of 10 Å)")
    with pytest.raises(ValueError, match="at least one voxel"):
        Tomogram((0, 1, 1), 10.0, np.zeros(1).__getitem__)
    with pytest.raises(ValueError, match="positive number of Å"):
        Tomogram((1, 1, 1), 0.0, np.zeros(1).__getitem__)


def test_values_that_are_no_numbers_are_found_where_they_are_read(tmp_path) -> None:
    data = np.zeros((4, 5, 6), dtype=np.float32)
    path = io.write_volume(Volume(data, 10.0), tmp_path / "a.mrc")
    raw = bytearray(path.read_bytes())
    raw[1024 + 4 * (2 * 30 + 3 * 6) :][:4] = b""
    spoilt = data.copy()
    spoilt[2, 3, 0] = np.inf
    path.write_bytes(raw[:1024] + spoilt.tobytes())
    opened = io.open_volume(path)
    assert opened.read(np.s_[:2, :, :]).shape == (2, 5, 6)
    with pytest.raises(
        ValueError, match=r"from \(2, 0, 0\) to \(4, 5, 6\) \(z, y, x\) holds 1 values that are NaN or infinite"
    ):
        opened.read(np.s_[2:, :, :])
    with pytest.raises(ValueError, match="NaN or infinite"):
        opened.load()


def test_a_file_that_changes_under_us_is_an_error_not_a_crash(tmp_path) -> None:
    path = io.write_volume(Volume(np.ones((40, 50, 60)), 10.0), tmp_path / "a.mrc")
    opened = io.open_volume(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="has changed since it was opened"):
        opened.read(np.s_[30:, :, :])
    with pytest.raises(ValueError, match=r"480,000 bytes of data, but the file holds 3,976"):
        io.open_volume(path)
    path.unlink()
    with pytest.raises(ValueError, match="has changed since it was opened"):
        opened.read(np.s_[:1, :, :])


def test_headers_that_lie_are_refused_before_memory_is_taken(tmp_path, monkeypatch) -> None:
    path = io.write_volume(Volume(np.ones((4, 5, 6)), 10.0), tmp_path / "a.mrc")
    raw = path.read_bytes()

    def told(**fields: int) -> bytes:
        changed = bytearray(raw)
        header = np.frombuffer(changed, dtype=HEADER_DTYPE, count=1)
        for name, value in fields.items():
            header[name] = value
        return bytes(changed)

    path.write_bytes(told(nsymbt=2**30))
    with pytest.raises(ValueError, match="extended header has 1,073,741,824 bytes, expected at most 67,108,864"):
        io.open_volume(path)
    bomb = tmp_path / "a.mrc.gz"
    bomb.write_bytes(gzip.compress(told(nx=2000, ny=2000, nz=2000)))
    with pytest.raises(ValueError, match=r"32,000,000,000 bytes of data, but a gzipped file of \d+ bytes cannot hold so many"):
        io.open_volume(bomb)
    monkeypatch.setattr("tomolab.io.volumes.mrc.LARGE", 100)
    bomb.write_bytes(gzip.compress(raw))
    with pytest.warns(UserWarning, match="is compressed and must be read whole: 480 bytes of memory"):
        assert io.open_volume(bomb).load().shape == (4, 5, 6)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000, "total": 1000})())
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="but only 1,000 are free \\(of the machine\\); read it in blocks"):
        io.open_volume(path).load()


def test_a_part_of_a_voxel_is_moved_towards_higher_index(phantom: Volume) -> None:
    moved = tomogram.shift(phantom.data, np.array([0.3, -0.2, 0.5]))
    index = np.indices(phantom.shape)
    before, after = ((index * data).sum((1, 2, 3)) / data.sum() for data in (phantom.data, moved))
    np.testing.assert_allclose(after - before, [0.3, -0.2, 0.5], atol=0.01)
    loaded = Tomogram(phantom.shape, 10.0, phantom.data.__getitem__, origin=(3.0, -2.0, 5.0)).load()
    np.testing.assert_array_equal(loaded.data, moved)


def test_a_tomogram_larger_than_the_memory_is_cut_within_bounds(tmp_path) -> None:
    path = tmp_path / "large.mrc"
    with mrcfile.new_mmap(path, (300, 1200, 1200), mrc_mode=1) as file:
        file.set_volume()
        file.voxel_size = 10.0
        file.data[100:200, 500:700, 500:700] = np.random.default_rng(0).integers(-9, 9, (100, 200, 200))
    assert path.stat().st_size > 860e6
    script = textwrap.dedent(f"""
        import resource, sys
        import numpy as np, psutil
        from tomolab import io, particles, subtomograms
        table = particles.table(np.random.default_rng(1).uniform([1300, 5300, 5300], [1700, 6700, 6700], (24, 3)))
        tomogram = io.open_volume({str(path)!r})
        subtomograms.extract(tomogram, table[:2], box=32)
        # What the process may take beyond what it has; maps of files do not count.
        held = int(open("/proc/self/status").read().split("VmData:")[1].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (held + 300_000_000,) * 2)
        for size, box in ((10.0, 32), (20.0, 24), (7.0, 32)):
            cut = subtomograms.extract(tomogram, table, box=box, voxel_size=size)
            assert len(cut) == 24, len(cut)
        try:
            tomogram.load()
        except ValueError as error:
            print("bounded" if "bytes of memory" in str(error) else error)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "bounded", done.stderr
    assert resource.getrlimit(resource.RLIMIT_DATA)[1] == resource.RLIM_INFINITY
