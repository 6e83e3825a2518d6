"""OME-Zarr comes in with its voxel size and its places, goes out so that others read it, and is refused where it lies."""

import copy
import json
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab import io
from tomolab.io.volumes import ome_zarr
from tomolab.volumes import Volume

SPACE = [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"]
PLACES = {"0.4": (".zattrs", lambda text: text["multiscales"][0]), "0.5": ("zarr.json", lambda text: text["attributes"]["ome"])}


def ramp(shape: tuple[int, ...] = (4, 5, 6), kind: type = np.float32) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(kind)


def level(path: str, scale: float | list, *, move: list | None = None) -> dict:
    steps = [{"type": "scale", "scale": scale if isinstance(scale, list) else [scale] * 3}]
    return {"path": path, "coordinateTransformations": steps + ([{"type": "translation", "translation": move}] if move else [])}


def group(path: Path, arrays: dict, datasets: list, *, version: str = "0.4", axes: list | None = None, **options) -> Path:
    """A group as another program writes it: by zarr itself."""
    shutil.rmtree(path, ignore_errors=True)
    made = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    for name, data in arrays.items():
        made.create_array(name, data=data, config={"write_empty_chunks": True}, **options)
    scales = {"axes": SPACE if axes is None else axes, "datasets": datasets}
    told = {"multiscales": [{"version": "0.4", **scales}]}
    made.attrs.update(told if version == "0.4" else {"ome": {"version": version, "multiscales": [scales]}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_written_comes_back_at_every_level(tmp_path, monkeypatch, version: str) -> None:
    monkeypatch.setattr(ome_zarr, "CHUNK", (8, 16, 32))
    volume = Volume(np.random.default_rng(0).standard_normal((21, 70, 133)), 7.84)
    path = io.write_volume(volume, tmp_path / "a.zarr", version=version)
    opened = io.open_volume(path, voxel_size=7.84)
    assert (opened.shape, opened.chunks, opened.voxel_size) == (volume.shape, (8, 16, 32), 7.84)
    np.testing.assert_array_equal(io.read_volume(path).data, volume.data)
    np.testing.assert_array_equal(opened.read(np.s_[3:20, 10:50, -30:]), volume.data[3:20, 10:50, -30:])
    half = io.open_volume(path, near=20.0)
    assert (half.shape, half.voxel_size) == ((10, 35, 66), pytest.approx(15.68))
    assert half.origin == pytest.approx((3.92,) * 3)
    blocks = volume.data[:20, :70, :132].reshape(10, 2, 35, 2, 66, 2).mean((1, 3, 5))
    np.testing.assert_allclose(half.read(np.s_[:, :, :]), blocks, atol=1e-6)
    key, find = PLACES[version]
    told = json.loads((path / key).read_text())
    scales = find(told) if version == "0.4" else find(told)["multiscales"][0]
    assert find(told)["version"] == version
    assert scales["axes"] == SPACE
    assert scales["datasets"][1]["coordinateTransformations"][1] == {"type": "translation", "translation": [3.92] * 3}
    array = zarr.open_group(path, mode="r")["0"]
    assert array.metadata.zarr_format == (2 if version == "0.4" else 3)
    np.testing.assert_array_equal(array[:], volume.data)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_another_reader_finds_what_is_written_valid_and_the_same(tmp_path, version: str) -> None:
    volume = Volume(np.random.default_rng(0).standard_normal((20, 70, 133)), 7.84)
    path = io.write_volume(volume, tmp_path / "a.zarr", version=version)
    assert io.open_volume(path, near=20.0).voxel_size == pytest.approx(15.68)
    found = yaozarrs.validate_zarr_store(str(path))
    (image,) = found.ome_metadata().multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in image.axes] == [(name, "space", "angstrom") for name in "zyx"]
    for one in image.datasets:
        scale, move = one.coordinateTransformations
        # Half of what the level is coarser: its voxels are averages of blocks.
        assert move.translation == pytest.approx([(step - 7.84) / 2 for step in scale.scale])
        opened = io.open_volume(path, near=scale.scale[0])
        assert opened.voxel_size == pytest.approx(scale.scale[0])
        np.testing.assert_array_equal(np.asarray(found[one.path].to_zarr_python()), opened.read(np.s_[:, :, :]))


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    volume = Volume(ramp(), 10.0)
    path = io.write_volume(volume, tmp_path / "a.zarr")
    io.write_volume(Volume(2 * ramp(), 10.0), path)
    np.testing.assert_array_equal(io.read_volume(path).data, 2 * ramp())
    monkeypatch.setattr("tomolab.io.volumes.multiscales.metadata", lambda *given, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        io.write_volume(volume, path)
    np.testing.assert_array_equal(io.read_volume(path).data, 2 * ramp())
    (tmp_path / "work.zarr").mkdir()
    with pytest.raises(ValueError, match="exists and is no Zarr; it is not replaced"):
        io.write_volume(volume, tmp_path / "work.zarr")
    with pytest.raises(ValueError, match=r"'0.4' or '0.5', got '0.3'"):
        io.write_volume(volume, path, version="0.3")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zarr", "work.zarr"]


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    chunks=st.tuples(*[st.integers(1, 5)] * 3),
    kind=st.sampled_from(["<f4", ">f4", "<f2", "<i2", ">u2", "|i1", "|u1", "<f8"]),
    form=st.sampled_from([(2, "."), (2, "/"), (3, "/"), (3, "shards")]),
    packing=st.sampled_from(["auto", None, "gzip"]),
    lead=st.integers(0, 2),
    cuts=st.tuples(*[st.tuples(st.integers(-9, 9), st.integers(-9, 9))] * 3),
)
@settings(max_examples=40, deadline=None)
def test_any_array_that_zarr_writes_is_read(tmp_path_factory, shape, chunks, kind, form, packing, lead, cuts) -> None:
    version, separator = form
    if version == 3:
        kind = kind.replace(">", "<")
    data = np.random.default_rng(1).uniform(0, 100, shape).astype(kind)
    front = (1,) * lead
    options: dict = {"chunks": front + chunks}
    if separator == "shards":
        options["shards"] = front + tuple(2 * n for n in chunks)
    if version == 2:
        options["chunk_key_encoding"] = {"name": "v2", "separator": separator}
    if packing == "gzip":
        options["compressors"] = zarr.codecs.GzipCodec() if version == 3 else numcodecs.GZip()
    elif packing is None:
        options["compressors"] = None
    path = tmp_path_factory.mktemp("a") / "a.zarr"
    axes = [{"name": name} for name in ("t", "c")[:lead]] + SPACE
    datasets = [level("0", [1.0] * lead + [12.5] * 3)]
    group(path, {"0": data.reshape(front + shape)}, datasets, version=f"0.{version + 2}", axes=axes, **options)
    opened = io.open_volume(path)
    assert (opened.shape, opened.voxel_size) == (shape, 12.5)
    np.testing.assert_array_equal(opened.load().data, data.astype(np.float32))
    slices = tuple(slice(*pair) for pair in cuts)
    if data[slices].size:
        np.testing.assert_array_equal(opened.read(slices), data[slices].astype(np.float32))


def test_units_become_angstrom_and_are_held_against_what_is_stated(tmp_path) -> None:
    nano = [{**axis, "unit": "nanometer"} for axis in SPACE]
    path = group(tmp_path / "a.zarr", {"0": ramp()}, [level("0", 1.3)], axes=nano)
    assert io.open_volume(path).voxel_size == pytest.approx(13.0)
    assert io.open_volume(path, voxel_size=13.05).voxel_size == 13.05
    with pytest.raises(ValueError, match=r"its levels have 13 Å per voxel, but voxel_size=1.3 was given for the finest"):
        io.open_volume(path, voxel_size=1.3)
    bare = [{"name": name} for name in "zyx"]
    path = group(tmp_path / "b.zarr", {"0": ramp(), "1": ramp((2, 2, 3))}, [level("0", 1), level("1", 2)], axes=bare)
    with pytest.raises(ValueError, match="its scale of 1 has no unit of length; give voxel_size="):
        io.open_volume(path)
    assert io.open_volume(path, voxel_size=8.0, near=16.0, averaged=False).voxel_size == 16.0
    for scale, message in (([10.0, 10.0, 12.0], "not the same along all axes"), (-1.0, "positive numbers")):
        with pytest.raises(ValueError, match=message):
            io.open_volume(group(tmp_path / "c.zarr", {"0": ramp()}, [level("0", scale)]))
    with pytest.raises(ValueError, match="voxel_size must be a positive number"):
        io.open_volume(path, voxel_size=float("nan"))


def test_the_level_is_the_coarsest_that_is_not_too_coarse(tmp_path) -> None:
    arrays = {name: ramp(shape) for name, shape in (("a", (8, 8, 8)), ("b", (4, 4, 4)), ("c", (2, 2, 2)), ("d", (8, 4, 4)))}
    datasets = [level("b", 20.0), level("a", 10.0), level("c", 40.0), level("d", [10.0, 20.0, 20.0])]
    path = group(tmp_path / "a.zarr", arrays, datasets)
    found = {
        near: io.open_volume(path, near=near, averaged=False).voxel_size
        for near in (None, 3.0, 10.0, 19.0, 19.9, 25.0, 40.0, 1e3)
    }
    assert found == {None: 10.0, 3.0: 10.0, 10.0: 10.0, 19.0: 10.0, 19.9: 20.0, 25.0: 20.0, 40.0: 40.0, 1e3: 40.0}
    with pytest.raises(ValueError, match="near must be a positive number"):
        io.open_volume(path, near=0)


def test_where_a_level_lies_is_told_or_asked(tmp_path) -> None:
    arrays = {"0": ramp((8, 8, 8)), "1": ramp((4, 4, 4))}
    path = tmp_path / "a.zarr"
    group(path, arrays, [level("0", 10.0, move=[500.0, 0.0, 7.0]), level("1", 20.0, move=[505.0, 5.0, 12.0])])
    assert io.open_volume(path).origin == (0.0, 0.0, 0.0)
    assert io.open_volume(path, near=20.0).origin == (5.0, 5.0, 5.0)
    for move in (None, [0.0] * 3):
        group(path, arrays, [level("0", 10.0, move=move), level("1", 20.0, move=move)])
        with pytest.warns(UserWarning, match=r"where the voxels of level '1' lie; .* all positions are 5 Å larger"):
            assert io.open_volume(path, near=20.0).origin == (0.0, 0.0, 0.0)
        assert io.open_volume(path, near=20.0, averaged=True).origin == (5.0, 5.0, 5.0)
        assert io.open_volume(path, near=20.0, averaged=False).origin == (0.0, 0.0, 0.0)
    group(path, arrays, [level("0", 10.0), level("1", 20.0, move=[0.0, 200.0, 0.0])])
    with pytest.raises(ValueError, match="does not show the same"):
        io.open_volume(path, near=20.0)
    scaled = group(path, arrays, [level("0", 1.0), level("1", 2.0, move=[0.5] * 3)])
    told = json.loads((scaled / ".zattrs").read_text())
    told["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [10.0] * 3}]
    (scaled / ".zattrs").write_text(json.dumps(told))
    opened = io.open_volume(scaled, near=20.0)
    assert (opened.voxel_size, opened.origin) == (20.0, (5.0, 5.0, 5.0))


def test_a_plain_array_needs_its_voxel_size(tmp_path) -> None:
    for version in (2, 3):
        zarr.create_array(tmp_path / f"{version}.zarr", data=1 + ramp(), zarr_format=version)
        with pytest.raises(ValueError, match="give voxel_size="):
            io.open_volume(tmp_path / f"{version}.zarr")
        np.testing.assert_array_equal(io.read_volume(tmp_path / f"{version}.zarr", voxel_size=10.0).data, 1 + ramp())


def test_metadata_that_make_no_sense_are_refused(tmp_path) -> None:
    path, key = group(tmp_path / "a.zarr", {"0": ramp()}, [level("0", 10.0)]), ".zattrs"
    good = (path / key).read_text()
    for old, new, message in (
        ('"0.4"', '"0.6"', "version 0.6; versions 0.4 and 0.5 can be read"),
        ('"multiscales"', '"labels"', "without multiscales"),
        ('"x"', '"w"', "its axes are z, y, w, expected z, y, x"),
        ('"path": "0"', '"path": "../../b.zarr/0"', "must name an array in the group"),
        ('"path": "0"', '"path": "/etc"', "must name an array in the group"),
        ('"path": "0"', '"path": "7"', "names a level '7', but there is no array"),
        ('"path": "0"', '"path": 0', "must name an array in the group"),
        ('"type": "scale"', '"type": "affine"', "a transformation of type 'affine' is not read"),
        ("10.0", "NaN", "needs 3 finite numbers"),
        ('"datasets"', '"data"', "its metadata are no OME-Zarr"),
        ('"angstrom"', '"parsec"', "in angstrom, ångström"),
        ("{", "", "is not JSON"),
        (good, "[" * 100_000, "is not JSON"),
        (good, "[1]", "holds list, expected an object"),
        (good, '{"multiscales": 3}', "no OME-Zarr"),
        (good, '{"multiscales": [{"axes": [], "datasets": []}]}', "its axes are"),
    ):
        (path / key).write_text(good.replace(old, new, 1) if old != '"x"' else good.replace(old, new))
        with pytest.raises(ValueError, match=message):
            io.open_volume(path)
    (path / key).write_text(" " * (2**24 + 1))
    with pytest.raises(ValueError, match="expected at most 16,777,216"):
        io.open_volume(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        io.open_volume(tmp_path / "none.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"is no Zarr: it holds neither zarr.json nor .zattrs"):
        io.open_volume(tmp_path / "empty")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_arrays_that_claim_what_cannot_be_are_refused(tmp_path, version: str) -> None:
    path = group(tmp_path / "a.zarr", {"0": ramp()}, [level("0", 10.0)], version=version)
    place = path / "0" / (".zarray" if version == "0.4" else "zarr.json")
    good = json.loads(place.read_text())
    grid = good if version == "0.4" else good["chunk_grid"]["configuration"]
    chunks, kind = ("chunks", "dtype") if version == "0.4" else ("chunk_shape", "data_type")
    strange = [{"id": "pickle"}] if version == "0.4" else [{"name": "numcodecs.pickle", "configuration": {}}]
    cases = [
        (grid, chunks, [2**20, 2**20, 2**10], "bytes of memory, but only"),
        (grid, chunks, [0, 5, 6], "must be positive whole numbers"),
        (grid, chunks, [4, 5], "do not fit shape"),
        (good, "shape", [2, 2, 4, 5, 6], "do not fit shape"),
        (good, "shape", [4, 5, 1e99], "must be positive whole numbers"),
        (good, kind, "|O" if version == "0.4" else "string", "its values are|no Zarr"),
        (good, kind, "<c8" if version == "0.4" else "complex64", "expected real numbers"),
        (good, "filters" if version == "0.4" else "codecs", strange, "codecs pickle"),
    ]
    for part, name, value, message in cases:
        before = part.get(name)
        part[name] = value
        place.write_text(json.dumps(good))
        with pytest.raises(ValueError, match=message):
            io.open_volume(path)
        part[name] = before
    place.write_text(json.dumps(good))
    np.testing.assert_array_equal(io.read_volume(path).data, ramp())


def test_channels_are_not_mixed_up_with_sections(tmp_path) -> None:
    axes = [{"name": "c", "type": "channel"}, *SPACE]
    data = ramp((2, 4, 5, 6))
    path = group(tmp_path / "a.zarr", {"0": data}, [level("0", [1.0, 10.0, 10.0, 10.0])], axes=axes)
    with pytest.raises(ValueError, match=r"has shape \(2, 4, 5, 6\), expected z, y, x, with a single channel.*channel=0 to 1"):
        io.open_volume(path)
    for channel in (0, 1):
        np.testing.assert_array_equal(io.read_volume(path, channel=channel).data, data[channel])
    for wrong in (2, -1, True, "a", 0.5):
        with pytest.raises(ValueError, match="channel must be a whole number from 0 to 1, got"):
            io.open_volume(path, channel=wrong)
    with pytest.raises(ValueError, match="time was given, but its axes are c, z, y, x"):
        io.open_volume(path, channel=0, time=0)


LETTERS = {
    "z": SPACE[0],
    "y": SPACE[1],
    "x": SPACE[2],
    "c": {"name": "c", "type": "channel"},
    "t": {"name": "T", "type": "time"},
}
SIZES = {"z": 4, "y": 5, "x": 6, "c": 2, "t": 3}


def put_in_order(order: str) -> tuple[np.ndarray, np.ndarray]:
    """An array whose axes are in some order, and the volume of channel 1 and time 2 in it, z, y, x."""
    data = ramp(tuple(SIZES[axis] for axis in order))
    one = data[tuple({"c": 1, "t": 2}.get(axis, slice(None)) for axis in order)]
    space = [axis for axis in order if axis in "zyx"]
    return data, one.transpose([space.index(axis) for axis in "zyx"])


@given(
    order=st.lists(st.sampled_from("ct"), unique=True).flatmap(lambda more: st.permutations(["z", "y", "x", *more])),
    version=st.sampled_from(["0.4", "0.5"]),
    chunk=st.integers(2, 6),
    named=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_an_axis_is_what_its_name_says(tmp_path_factory, order: list, version: str, chunk: int, named: bool) -> None:
    data, expected = put_in_order("".join(order))
    scale = [{"z": 10.0, "y": 10.0, "x": 10.0, "c": 3.0, "t": 7.0}[axis] for axis in order]
    move = [{"z": 5.0, "y": 6.0, "x": 7.0}.get(axis, 100.0) for axis in order]
    coarse = level("1", [2 * one for one in scale], move=move)
    axes = [LETTERS[axis] for axis in order]
    options = {"dimension_names": order} if version == "0.5" and named else {}
    path = tmp_path_factory.mktemp("a") / "a.zarr"
    chunks = tuple(min(n, chunk) for n in data.shape)
    group(path, {"0": data, "1": data}, [level("0", scale), coarse], version=version, axes=axes, chunks=chunks, **options)
    wanted = {"channel": 1} if "c" in order else {}
    wanted |= {"time": 2} if "t" in order else {}
    np.testing.assert_array_equal(io.read_volume(path, **wanted).data, expected)
    opened = io.open_volume(path, **wanted)
    assert opened.chunks == tuple(chunks[order.index(axis)] for axis in "zyx")
    np.testing.assert_array_equal(opened.read(np.s_[1:3, 2:, :4]), expected[1:3, 2:, :4])
    assert io.open_volume(path, near=20.0, **wanted).origin == (5.0, 6.0, 7.0)
    # Another process opens the same.
    np.testing.assert_array_equal(copy.copy(opened).load().data, expected)


@pytest.mark.parametrize("order", ["zyx", "xyz", "yzx", "czyx", "zyxc", "tczyx", "xyzct"])
def test_a_plain_array_is_read_by_the_names_of_its_dimensions(tmp_path, order: str) -> None:
    data, expected = put_in_order(order)
    wanted = {"voxel_size": 10.0} | ({"channel": 1} if "c" in order else {}) | ({"time": 2} if "t" in order else {})
    three = tmp_path / "three.zarr"
    names = [{"c": "channel", "t": "Time"}.get(axis, axis.upper()) for axis in order]
    zarr.create_array(three, data=data, zarr_format=3, dimension_names=names, config={"write_empty_chunks": True})
    two = tmp_path / "two.zarr"
    zarr.create_array(two, data=data, zarr_format=2, config={"write_empty_chunks": True}).attrs["_ARRAY_DIMENSIONS"] = names
    bare = tmp_path / "bare.zarr"
    zarr.create_array(bare, data=data, zarr_format=3, config={"write_empty_chunks": True})
    for path, options in ((three, {}), (two, {}), (bare, {"axes": order}), (three, {"axes": order})):
        np.testing.assert_array_equal(io.read_volume(path, **wanted, **options).data, expected)
    if order != "zyx":
        with pytest.raises(ValueError, match="but the array calls them"):
            io.open_volume(three, **wanted, axes="zyx")


def test_an_array_without_names_is_zyx_or_asked_about(tmp_path) -> None:
    for names, lead in ((None, ()), (["a", "b", "c0"], ()), ([None] * 3, ()), (None, (1,)), (None, (1, 1)), (None, (1, 1, 1))):
        path = tmp_path / "a.zarr"
        data = 1 + ramp((*lead, 4, 5, 6))
        zarr.create_array(path, data=data, zarr_format=3, dimension_names=names, overwrite=True)
        np.testing.assert_array_equal(io.read_volume(path, voxel_size=10.0).data, data.reshape(4, 5, 6))
    for shape in ((2, 4, 5, 6), (4, 5, 6, 1), (1, 2, 1, 4, 5, 6), (5, 6)):
        zarr.create_array(path, data=ramp(shape), zarr_format=3, overwrite=True)
        with pytest.raises(ValueError, match=r"does not name its axes, expected z, y, x, .* say what they are, such as axes="):
            io.open_volume(path, voxel_size=10.0)
    zarr.create_array(path, data=1 + ramp((4, 5, 6, 1)), zarr_format=3, overwrite=True)
    np.testing.assert_array_equal(io.read_volume(path, voxel_size=10.0, axes="zyxc").data, 1 + ramp((4, 5, 6)))
    for names in (["t", "y", "x"], ["z", "y", "section"], ["y", "y", "x"]):
        zarr.create_array(path, data=1 + ramp((4, 5, 6)), zarr_format=3, dimension_names=names, overwrite=True)
        with pytest.raises(ValueError, match=r"its axes are .*, expected z, y, x"):
            io.open_volume(path, voxel_size=10.0)
    np.testing.assert_array_equal(io.read_volume(path, voxel_size=10.0, axes="zyx").data, 1 + ramp((4, 5, 6)))
    for axes in ("zy", "zyxw", "zyxx", ""):
        with pytest.raises(ValueError, match=r"axes must name z, y, x"):
            io.open_volume(path, voxel_size=10.0, axes=axes)
    with pytest.raises(ValueError, match="no axes c, z, y, x"):
        io.open_volume(path, voxel_size=10.0, axes="czyx")
    with pytest.raises(ValueError, match="plain array without coarser levels"):
        io.open_volume(path, voxel_size=10.0, averaged=True)


def test_single_channels_may_lack_in_the_names_or_in_the_array(tmp_path) -> None:
    data = 1 + ramp()
    path = group(tmp_path / "a.zarr", {"0": data.reshape(1, 1, 4, 5, 6)}, [level("0", 10.0)])
    np.testing.assert_array_equal(io.read_volume(path).data, data)
    axes = [{"name": "c", "type": "channel"}, *SPACE]
    path = group(tmp_path / "a.zarr", {"0": data}, [level("0", [1.0, 10.0, 10.0, 10.0])], axes=axes)
    np.testing.assert_array_equal(io.read_volume(path).data, data)
    path = group(tmp_path / "a.zarr", {"0": ramp((2, 4, 5, 6))}, [level("0", 10.0)])
    with pytest.raises(ValueError, match="has no axes z, y, x"):
        io.open_volume(path)


def test_axes_of_multiscales_are_held_against_the_array_and_the_user(tmp_path) -> None:
    data = 1 + ramp()
    path = group(tmp_path / "a.zarr", {"0": data}, [level("0", 10.0)], version="0.5", dimension_names=["x", "y", "z"])
    with pytest.raises(ValueError, match="its axes are z, y, x, but the array calls them x, y, z"):
        io.open_volume(path)
    path = group(tmp_path / "a.zarr", {"0": data}, [level("0", 10.0)])
    with pytest.raises(ValueError, match="its axes are z, y, x, but axes= was given as x, y, z"):
        io.open_volume(path, axes="xyz")
    told = json.loads((path / ".zattrs").read_text())
    del told["multiscales"][0]["axes"]
    (path / ".zattrs").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="its multiscales name no axes; say what they are, such as axes='zyx'"):
        io.open_volume(path, voxel_size=10.0)
    np.testing.assert_array_equal(io.read_volume(path, voxel_size=10.0, axes="xyz").data, data.transpose())
    told["multiscales"][0]["axes"] = ["z", "y", "x"]
    (path / ".zattrs").write_text(json.dumps(told))
    np.testing.assert_array_equal(io.read_volume(path, voxel_size=10.0).data, data)
    told["multiscales"].append(told["multiscales"][0])
    (path / ".zattrs").write_text(json.dumps(told))
    with pytest.warns(UserWarning, match="2 images in it"):
        io.open_volume(path, voxel_size=10.0)


@pytest.mark.parametrize("unit", ["pixel", "micrometers", "", None, "unit", "Ang", "voxel", 3, "micrometer", "meter"])
def test_units_that_mean_nothing_leave_it_to_the_user(tmp_path, unit: object) -> None:
    axes = [{"name": name, "type": "space", "unit": unit} for name in "zyx"]
    path = group(tmp_path / "a.zarr", {"0": ramp(), "1": ramp()}, [level("0", 1.0), level("1", 2.0)], axes=axes)
    with pytest.raises(ValueError, match=r"give voxel_size= in Å") as error:
        io.open_volume(path)
    assert not unit or str(unit) in str(error.value)
    assert io.open_volume(path, voxel_size=8.0).voxel_size == 8.0
    assert io.open_volume(path, voxel_size=8.0, near=16.0, averaged=False).voxel_size == 16.0


def test_each_axis_has_its_own_unit(tmp_path) -> None:
    axes = [{**axis, "unit": unit} for axis, unit in zip(SPACE, ("nanometer", "angstrom", "Å"), strict=True)]
    path = group(tmp_path / "a.zarr", {"0": ramp()}, [level("0", [1.3, 13.0, 13.0])], axes=axes)
    assert io.open_volume(path).voxel_size == pytest.approx(13.0)
    with pytest.raises(ValueError, match="not the same along all axes"):
        io.open_volume(group(path, {"0": ramp()}, [level("0", 13.0)], axes=axes))
    axes = [{**axis, "unit": unit} for axis, unit in zip(SPACE, ("pixel", "angstrom", "angstrom"), strict=True)]
    group(path, {"0": ramp()}, [level("0", [1.0, 13.0, 13.0])], axes=axes)
    with pytest.raises(ValueError, match=r"its voxels measure 1 pixel, 13 angstrom, 13 angstrom .* give voxel_size="):
        io.open_volume(path)
    assert io.open_volume(path, voxel_size=13.0).voxel_size == 13.0
    with pytest.raises(ValueError, match="its levels have 13 Å per voxel, but voxel_size=12 was given"):
        io.open_volume(path, voxel_size=12.0)
    for unit, scale in (("millimeter", 1.3e-6), ("meter", 1.3e-9), ("picometer", 1300.0)):
        axes = [{**axis, "unit": unit} for axis in SPACE]
        assert io.open_volume(group(path, {"0": ramp()}, [level("0", scale)], axes=axes)).voxel_size == pytest.approx(13.0)


def test_what_the_file_says_of_places_is_not_overruled(tmp_path) -> None:
    arrays = {"0": ramp((8, 8, 8)), "1": ramp((4, 4, 4))}
    path = group(tmp_path / "a.zarr", arrays, [level("0", 10.0), level("1", 20.0, move=[5.0] * 3)])
    assert io.open_volume(path, near=20.0, averaged=True).origin == (5.0, 5.0, 5.0)
    with pytest.raises(ValueError, match=r"begins 5 x 5 x 5 Å .* but averaged=False was given"):
        io.open_volume(path, near=20.0, averaged=False)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_chunk_that_is_missing_or_broken_is_no_zeros(tmp_path, version: str) -> None:
    path = group(tmp_path / "a.zarr", {"0": 1 + ramp((8, 8, 8))}, [level("0", 10.0)], version=version, chunks=(4, 8, 8))
    chunk = path / "0" / ("1.0.0" if version == "0.4" else "c/1/0/0")
    whole = chunk.read_bytes()
    chunk.unlink()
    opened = io.open_volume(path)
    np.testing.assert_array_equal(opened.read(np.s_[:4, :, :]), 1 + ramp((4, 8, 8)))
    with pytest.raises(FileNotFoundError, match=r"lacks the chunk .*1.0.0; .* permissive=True fills them"):
        opened.load()
    assert not io.open_volume(path, permissive=True).load().data[4:].any()
    for broken in (whole[:20], whole[: len(whole) // 2], b"", b"x" * 50):
        chunk.write_bytes(broken)
        with pytest.raises(ValueError, match="cannot be read"):
            io.open_volume(path).load()
    chunk.write_bytes(b"x" * (2**24 + 10_000))
    with pytest.raises(ValueError, match="expected at most"):
        io.open_volume(path).load()


def test_options_of_the_other_kind_are_refused(tmp_path) -> None:
    volume = Volume(ramp(), 10.0)
    here = io.write_volume(volume, tmp_path / "a.zarr")
    for read in (io.open_volume, io.read_volume):
        with pytest.raises(ValueError, match="flipped has no meaning for files of this format"):
            read(here, flipped="swap")
        for there in (io.write_volume(volume, tmp_path / "a.mrc"), io.write_volume(volume, tmp_path / "a.em")):
            for name, value in {"near": 10.0, "averaged": False, "channel": 0, "time": 0, "axes": "zyx"}.items():
                with pytest.raises(ValueError, match=f"{name} has no meaning"):
                    read(there, voxel_size=10.0, **{name: value})
        for name, value in {"flipped": False, "permissive": True}.items():
            with pytest.raises(ValueError, match=f"{name} has no meaning"):
                read(tmp_path / "a.em", voxel_size=10.0, **{name: value})
    for name in ("b.mrc", "b.mrc.gz", "b.em"):
        with pytest.raises(ValueError, match="version has no meaning"):
            io.write_volume(volume, tmp_path / name, version="0.4")
        assert not (tmp_path / name).exists()
