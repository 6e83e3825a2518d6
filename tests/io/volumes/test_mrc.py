"""MRC files come in as what they are, or are refused with both numbers."""

import bz2
import gzip
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from tomolab import __version__, io
from tomolab.volumes import Volume


def write(path: Path, data: np.ndarray, *, voxel_size: float | tuple = 10.0, **header: object) -> Path:
    """An MRC file with some of its header overwritten afterwards, however wrong that makes it."""
    with mrcfile.new(path, data, overwrite=True) as file:
        if data.ndim == 3:
            file.set_volume()
        file.voxel_size = voxel_size
    raw = bytearray(path.read_bytes())
    fields = np.frombuffer(raw, dtype=HEADER_DTYPE, count=1)
    for name, value in header.items():
        fields[name] = value
    path.write_bytes(raw)
    return path


def with_nan(path: Path) -> Path:
    raw = bytearray(write(path, ramp()).read_bytes())
    raw[1024:1028] = np.float32(np.nan).tobytes()
    path.write_bytes(raw)
    return path


def ramp(kind: type = np.float32) -> np.ndarray:
    return np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(kind)


@pytest.mark.parametrize("name", ["a.mrc", "a.mrc.gz", "a.map.bz2"])
def test_a_volume_comes_back(tmp_path, phantom: Volume, name: str) -> None:
    volume = Volume(phantom.data[:20, :24], 7.84)
    read = io.read_volume(io.write_volume(volume, tmp_path / name))
    np.testing.assert_array_equal(read.data, volume.data)
    assert read.voxel_size == pytest.approx(7.84, rel=1e-6)


@pytest.mark.parametrize("name", ["a.mrc", "a.mrc.gz", "a.mrc.bz2"])
def test_what_is_written_is_valid_and_says_who_wrote_it(tmp_path, phantom: Volume, name: str) -> None:
    path = io.write_volume(phantom, tmp_path / name)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        assert file.get_labels() == [f"tomolab {__version__}"]
        assert file.header.mode == 2
        assert file.is_volume()
        assert file.header.ispg == 1
        assert tuple(file.header.origin.tolist()) == (0, 0, 0)
        assert [int(file.header[key]) for key in ("nxstart", "nystart", "nzstart")] == [0, 0, 0]
        assert [int(file.header[key]) for key in ("mapc", "mapr", "maps")] == [1, 2, 3]
        assert [int(file.header[key]) for key in ("mx", "my", "mz")] == [32, 32, 32]
        assert tuple(file.voxel_size.tolist()) == (10, 10, 10)
        assert file.header.dmax == phantom.data.max()
        assert file.header.rms == pytest.approx(phantom.data.std(), rel=1e-4)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.float32, np.uint16, np.float16])
def test_modes(tmp_path, kind: type) -> None:
    read = io.read_volume(write(tmp_path / "a.mrc", ramp(kind)))
    assert read.data.dtype == np.float32
    np.testing.assert_array_equal(read.data, ramp())


def test_big_endian_and_an_extended_header(tmp_path) -> None:
    with mrcfile.new(tmp_path / "a.mrc", ramp().astype(">f4")) as file:
        file.set_volume()
        file.voxel_size = 10.0
        file.set_extended_header(np.frombuffer(b"abcd" * 20, dtype="V80"))
    read = io.read_volume(tmp_path / "a.mrc")
    np.testing.assert_array_equal(read.data, ramp())


def test_imod_wrote_mode_0_unsigned(tmp_path) -> None:
    data = np.array([[[0, 100, 200, 255]]], dtype=np.uint8)
    path = write(tmp_path / "a.mrc", data.view(np.int8))
    assert io.read_volume(path).data.min() == -56
    raw = bytearray(path.read_bytes())
    raw[152:160] = np.array([1146047817, 0], dtype="<i4").tobytes()
    path.write_bytes(raw)
    np.testing.assert_array_equal(io.read_volume(path).data, data)


def test_other_axis_orders_come_out_as_zyx(tmp_path) -> None:
    data = ramp()
    for order in [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)]:
        names = dict(zip(("maps", "mapr", "mapc"), (3 - axis for axis in order), strict=True))
        path = write(
            tmp_path / "a.mrc", np.ascontiguousarray(data.transpose(order)), mx=4, my=3, mz=2, cella=(40, 30, 20), **names
        )
        np.testing.assert_array_equal(io.read_volume(path).data, data)
    with pytest.raises(ValueError, match=r"columns, rows and sections are axes \[1, 1, 3\]"):
        io.read_volume(write(tmp_path / "a.mrc", data, mapr=1))
    unset = write(tmp_path / "a.mrc", data, mapc=0, mapr=0, maps=0)
    with pytest.raises(ValueError, match=r"axes \[0, 0, 0\]"):
        io.read_volume(unset)
    np.testing.assert_array_equal(io.read_volume(unset, permissive=True).data, data)


def test_a_truncated_file_names_both_numbers(tmp_path) -> None:
    path = write(tmp_path / "a.mrc", ramp())
    whole = path.read_bytes()
    for name, squeeze in (("a.mrc", bytes), ("b.mrc.gz", gzip.compress), ("c.mrc.bz2", bz2.compress)):
        (tmp_path / name).write_bytes(squeeze(whole[:-10]))
        with pytest.raises(
            ValueError, match=r"the header says 2 x 3 x 4 voxels \(z, y, x\), 96 bytes of data, but the file holds 86"
        ):
            io.read_volume(tmp_path / name, voxel_size=10.0)
    (tmp_path / "d.mrc.gz").write_bytes(gzip.compress(np.random.default_rng(0).bytes(1 << 16).join([whole]))[:-40])
    with pytest.raises(ValueError, match=r"bytes of data, but the file holds|cannot be read as MRC"):
        io.read_volume(tmp_path / "d.mrc.gz")
    (tmp_path / "a.mrc").write_bytes(whole[:500])
    with pytest.raises(ValueError, match="cannot be read as MRC"):
        io.read_volume(tmp_path / "a.mrc")


def test_absurd_dimensions_are_refused_before_memory_is_taken(tmp_path) -> None:
    absurd = dict.fromkeys(("nx", "ny", "nz", "mx", "my", "mz"), 100_000)
    path = write(tmp_path / "a.mrc", ramp(), cella=(1e6, 1e6, 1e6), **absurd)
    with pytest.raises(ValueError, match=r"4,000,000,000,000,000 bytes of data, but the file holds 96"):
        io.read_volume(path)
    (tmp_path / "a.mrc.bz2").write_bytes(bz2.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"needs 5,000,[0-9,]* bytes of memory, but only .* are free"):
        io.read_volume(tmp_path / "a.mrc.bz2")
    with pytest.raises(ValueError, match="a header of -1 x 3 x 2 voxels"):
        io.read_volume(write(tmp_path / "a.mrc", ramp(), nx=-1))


def test_more_data_than_the_header_says_is_noticed(tmp_path) -> None:
    path = write(tmp_path / "a.mrc", ramp())
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.warns(UserWarning, match="the file holds more"):
        np.testing.assert_array_equal(io.read_volume(path).data, ramp())


@pytest.mark.parametrize("unset", [0.0, 1.0])
def test_an_unset_voxel_size_must_be_stated(tmp_path, unset: float) -> None:
    path = write(tmp_path / "a.mrc", ramp(), voxel_size=unset)
    with pytest.raises(
        ValueError, match=rf"the header says {unset:g} x {unset:g} x {unset:g} Å per voxel \(x, y, z\), .* give voxel_size="
    ):
        io.read_volume(path)
    assert io.read_volume(path, voxel_size=13.48).voxel_size == 13.48


def test_a_stated_voxel_size_is_held_against_the_header(tmp_path) -> None:
    path = write(tmp_path / "a.mrc", ramp(), voxel_size=10.0)
    assert io.read_volume(path, voxel_size=10.05).voxel_size == 10.05
    with pytest.raises(ValueError, match=r"the header says 10 x 10 x 10 Å per voxel \(x, y, z\), but voxel_size=5 was given"):
        io.read_volume(path, voxel_size=5.0)
    with pytest.raises(ValueError, match="must be a positive number of Å, got -1"):
        io.read_volume(path, voxel_size=-1)
    with pytest.raises(ValueError, match=r"10 x 10 x 12 Å per voxel .* not the same along all axes"):
        io.read_volume(write(tmp_path / "a.mrc", ramp(), voxel_size=(10.0, 10.0, 12.0)))


BIG = np.arange(6 * 8 * 12, dtype=np.float32).reshape(6, 8, 12)
"""Of 12 x 8 x 6 voxels (x, y, z); with 10 Å each 120 x 80 x 60 Å."""


@pytest.mark.parametrize(
    "header",
    [
        {"mz": 1},
        {"mz": 0},
        {"mz": 0, "ispg": 0},
        {"mz": 1, "ispg": 0},
        {"mz": 3},
        {"mz": 12},
        {"mz": -1},
        {"mx": 1},
        {"my": 1, "mz": 1},
        {"mx": 1, "my": 1, "mz": 1},
        {"mx": 0, "my": 0, "mz": 0},
        {"cella": (120, 80, 0)},
        {"cella": (120, 80, np.nan)},
        {"cella": (0, 80, 60)},
        {"cella": (120, 80, 10)},
        {"cella": (120, 80, 10), "ispg": 0},
        {"cella": (120, 80, 777), "mz": 1},
        {"cella": (12, 8, 60), "mz": 1},
        {"cella": (10, 10, 10)},
        {"cella": (0, 0, 0), "mx": 0, "my": 0, "mz": 0},
    ],
    ids=str,
)
def test_where_the_header_contradicts_itself_the_user_says_the_voxel_size(tmp_path, header: dict) -> None:
    path = write(tmp_path / "a.mrc", BIG, **header)
    for read in (io.read_volume, io.open_volume):
        with pytest.raises(ValueError, match=r"the header says .* Å per voxel.*; give voxel_size=|not the same along all axes"):
            read(path)
        assert read(path, voxel_size=10.0).voxel_size == 10.0
    np.testing.assert_array_equal(io.read_volume(path, voxel_size=10.0).data, BIG)


@pytest.mark.parametrize(
    "header",
    [
        {"mz": 1, "cella": (120, 80, 10)},
        {"mz": 1, "cella": (120, 80, 10), "ispg": 0},
        {"mx": 1, "my": 1, "mz": 1, "cella": (10, 10, 10)},
        {"mx": 24, "my": 16, "mz": 12, "cella": (240, 160, 120)},
        {"mz": 12, "cella": (120, 80, 120)},
    ],
    ids=str,
)
def test_a_part_of_a_cell_or_a_stack_of_images_has_a_voxel_size(tmp_path, header: dict) -> None:
    path = write(tmp_path / "a.mrc", BIG, **header)
    assert io.read_volume(path).voxel_size == pytest.approx(10.0)
    assert io.read_volume(path, voxel_size=10.0).voxel_size == 10.0
    with pytest.raises(ValueError, match="but voxel_size=20 was given"):
        io.read_volume(path, voxel_size=20.0)


@pytest.mark.parametrize(
    "header",
    [
        {"mz": 1},
        {"mz": 0},
        {"cella": (120, 80, 0)},
        {"cella": (120, 80, 20)},
        {"mx": 1, "my": 1, "mz": 1},
        {"cella": (120, 80, 160)},
        {"cella": (120, 120, 120)},
    ],
    ids=str,
)
def test_what_is_known_is_held_against_the_user_all_the_same(tmp_path, header: dict) -> None:
    path = write(tmp_path / "a.mrc", BIG, **header)
    with pytest.raises(ValueError, match=r"but voxel_size=20 was given|not the same along all axes"):
        io.read_volume(path, voxel_size=20.0)


def test_a_length_that_was_left_is_overruled_with_a_word(tmp_path) -> None:
    """As after cropping along z with the old length kept."""
    path = write(tmp_path / "a.mrc", BIG, cella=(10 * BIG.shape[2], 10 * BIG.shape[1], 11 * BIG.shape[0]))
    with pytest.raises(ValueError, match=r"10 x 10 x 11 Å per voxel .* was cropped, give voxel_size="):
        io.read_volume(path)
    with pytest.warns(UserWarning, match=r"10 x 10 x 11 Å per voxel .*; voxel_size=10 is taken for all axes"):
        assert io.read_volume(path, voxel_size=10.0).voxel_size == 10.0
    with pytest.raises(ValueError, match="not the same along all axes, and voxel_size=12 was given"):
        io.read_volume(path, voxel_size=12.0)


def test_a_cube_of_one_step_could_be_either(tmp_path) -> None:
    """A length of 640 Å in one step: that of one voxel, or of all 64."""
    path = write(tmp_path / "a.mrc", np.ones((4, 4, 4), np.float32), mx=1, my=1, mz=1, cella=(40, 40, 40))
    with pytest.raises(ValueError, match=r"40 x 40 x 40 Å per voxel .* mx = 1 for 4 voxels .* 10 Å per voxel; .* voxel_size="):
        io.read_volume(path)
    assert [io.read_volume(path, voxel_size=size).voxel_size for size in (10.0, 40.0)] == [10.0, 40.0]
    with pytest.raises(ValueError, match="but voxel_size=20 was given"):
        io.read_volume(path, voxel_size=20.0)


def test_the_axis_that_is_in_doubt_is_found_in_any_order_of_axes(tmp_path) -> None:
    path = write(tmp_path / "a.mrc", BIG.transpose(2, 1, 0).copy(), mapc=3, maps=1, mx=12, mz=1, cella=(120, 80, 60))
    with pytest.raises(ValueError, match="mz = 1 for 6 voxels"):
        io.read_volume(path)
    np.testing.assert_array_equal(io.read_volume(path, voxel_size=10.0).data, BIG)


def test_a_stack_whose_header_contradicts_itself_is_asked_about(tmp_path) -> None:
    path = write(tmp_path / "a.st", BIG, my=1, ispg=0)
    with pytest.raises(ValueError, match=r"10 x 80 Å per voxel \(x, y\), but my = 1 for 8 voxels .* give pixel_size="):
        io.read_stack(path)
    assert io.read_stack(path, pixel_size=10.0)[1] == 10.0
    with pytest.raises(ValueError, match="but pixel_size=20 was given"):
        io.read_stack(path, pixel_size=20.0)


UNSET = {
    "stamp of tomoDRGN": {"machst": (0, 0, 0, 0)},
    "stamp of old IMOD": {"machst": (0x44, 0x20, 0x20, 0x20)},
    "no MAP": {"map": b""},
    "neither": {"map": b"", "machst": (0, 0, 0, 0)},
    "nothing": {"map": b"", "machst": (0, 0, 0, 0), "mapc": 0, "mapr": 0, "maps": 0},
}


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("name", UNSET)
@pytest.mark.parametrize("kind", [np.float32, np.int8, np.uint16])
def test_what_permissive_reads_is_told_and_read_right(tmp_path, name: str, big: bool, kind: type) -> None:
    data = (BIG % 100).astype(kind)
    order = ">" if big else "<"
    with mrcfile.new(tmp_path / "a.mrc", data.astype(data.dtype.newbyteorder(order))) as file:
        file.set_volume()
        file.voxel_size = 10.0
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order), count=1)
    for key, value in UNSET[name].items():
        header[key] = value
    for path, pack in ((tmp_path / "a.mrc", bytes), (tmp_path / "a.mrc.gz", gzip.compress)):
        path.write_bytes(pack(raw))
        for read in (io.read_volume, io.open_volume, io.read_stack):
            with pytest.raises(ValueError, match=r"permissive=True \(read_volume, .* reads it, as 12 x 8 x 6 voxels"):
                read(path)
        with pytest.warns(
            UserWarning, match=f"it is read as 12 x 8 x 6 .*{'high' if big and kind != np.int8 else 'low'} byte first"
        ):
            np.testing.assert_array_equal(io.read_volume(path, permissive=True).data, data)
        with pytest.warns(UserWarning, match="it is read as"):
            np.testing.assert_array_equal(io.open_volume(path, permissive=True).load().data, data)
        with pytest.warns(UserWarning, match="it is read as"):
            np.testing.assert_array_equal(io.read_stack(path, permissive=True)[0], data)


def test_a_stamp_of_the_other_byte_order_is_found_out(tmp_path) -> None:
    path = write(tmp_path / "a.mrc", BIG, machst=(0x11, 0x11, 0, 0))
    with pytest.raises(ValueError, match=r"stamp says high byte first, but .* make sense with the low byte .* permissive=True"):
        io.read_volume(path)
    with pytest.warns(UserWarning, match="low byte first"):
        np.testing.assert_array_equal(io.read_volume(path, permissive=True).data, BIG)


def test_no_hint_is_given_that_would_not_help(tmp_path) -> None:
    path = write(tmp_path / "a.mrc", BIG, map=b"")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cannot be read as MRC: Map ID string not found") as error:
        io.read_volume(path)
    assert "permissive" not in str(error.value)


def test_what_is_not_a_real_volume_is_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        io.read_volume(tmp_path / "none.mrc")
    with pytest.raises(ValueError, match=r"mode 4 \(complex\); modes 0, 1, 2, 6, 12 can be read"):
        io.read_volume(write(tmp_path / "a.mrc", ramp(np.complex64)))
    with pytest.raises(ValueError, match="holds 1 values that are NaN or infinite, of 24"):
        io.read_volume(with_nan(tmp_path / "a.mrc"))
    with pytest.raises(ValueError, match="stack of volumes"):
        io.read_volume(write(tmp_path / "a.mrc", ramp(), ispg=401))
    (tmp_path / "a.mrc").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ValueError, match="cannot be read as MRC: Map ID"):
        io.read_volume(tmp_path / "a.mrc")


def test_a_tilt_series_is_read_in_order(tmp_path) -> None:
    with mrcfile.new(tmp_path / "a.st", ramp(np.int16)) as file:
        file.set_image_stack()
        file.voxel_size = (5.0, 5.0, 1.0)
    images, pixel_size = io.read_stack(tmp_path / "a.st")
    np.testing.assert_array_equal(images, ramp())
    assert images.dtype == np.float32
    assert pixel_size == 5.0
    with pytest.raises(ValueError, match="but pixel_size=10 was given"):
        io.read_stack(tmp_path / "a.st", pixel_size=10.0)
    with pytest.raises(ValueError, match="the stack holds 1 values that are NaN"):
        io.read_stack(with_nan(tmp_path / "b.st"))
