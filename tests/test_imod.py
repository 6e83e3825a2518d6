"""Points of IMOD's models lie where 3dmod showed them, and imodmodel reads what we write."""

import struct
from pathlib import Path

import imodmodel
import numpy as np
import pandas as pd
import pytest
from imodmodel.models import MINX, Contour, ImodModel, ModelFlags, Object, ObjectHeader

from tomolab import files, imod, particles

POINTS = [[[10.5, 20.5, 30.0], [1, 2, 3.5]], [[4, 5, 6]]]
"""Two contours."""
KNOWN = {"tilts": (-60, 60), "tomogram": "TS_01"}


def put(folder: Path, *, flags: int = 0, names: tuple = ("", "filament"), image: dict | None = None, **header) -> Path:
    """A model that imodmodel writes: the contours in the first object, a point in the second."""
    objects = [
        Object(header=ObjectHeader(name=names[0]), contours=[Contour(points=np.array(points)) for points in POINTS]),
        Object(header=ObjectHeader(name=names[1]), contours=[Contour(points=np.array([[7.0, 8, 9]]))]),
    ]
    model = ImodModel(objects=objects)
    model.header.flags = ModelFlags(flags)
    for name, value in header.items():
        setattr(model.header, name, value)
    if image is not None:
        usual = {
            "oscale": (1, 1, 1),
            "otrans": (0, 0, 0),
            "orot": (0, 0, 0),
            "cscale": (1, 1, 1),
            "ctrans": (0, 0, 0),
            "crot": (0, 0, 0),
        }
        model.minx = MINX(**{**usual, **image})
    model.to_file(folder / "a.mod")
    return folder / "a.mod"


def test_points_of_contours_are_particles(tmp_path) -> None:
    read = files.read_particles(put(tmp_path), voxel_size=10.0, **KNOWN)
    # The centre of the first voxel is at 0.5 along x and y, at 0 along z.
    expected = [[300, 200, 100], [35, 15, 5], [60, 45, 35], [90, 75, 65]]
    np.testing.assert_allclose(particles.positions(read), expected)
    assert read[["object", "contour"]].to_numpy().tolist() == [[1, 1], [1, 1], [1, 2], [2, 1]]
    assert read["label"].tolist() == ["", "", "", "filament"]
    assert read["particle_id"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(particles.matrices(read), np.tile(np.eye(3), (4, 1, 1)))
    assert "label" not in files.read_particles(put(tmp_path, names=("", "")), voxel_size=10.0, **KNOWN)


def test_a_part_that_was_loaded_lies_in_the_whole(tmp_path) -> None:
    """Model coordinates of a part that begins at x 100, y 50, z 20 of a volume of 8 Å whose origin is (1, 2, 3)."""
    image = {"cscale": (8, 8, 8), "otrans": (1, 2, 3), "ctrans": (1 - 800, 2 - 400, 3 - 160)}
    read = files.read_particles(put(tmp_path, flags=1 << 14, image=image), **KNOWN)
    np.testing.assert_allclose(particles.positions(read)[0], [(30 + 20) * 8, (20 + 50) * 8, (10 + 100) * 8])
    # Without the flag nobody knows where the whole begins.
    read = files.read_particles(put(tmp_path, image=image), **KNOWN)
    np.testing.assert_allclose(particles.positions(read)[0], [30 * 8, 20 * 8, 10 * 8])
    with pytest.raises(ValueError, match=r"the model says 8 Å per pixel, but voxel_size=10 was given"):
        files.read_particles(tmp_path / "a.mod", voxel_size=10.0, **KNOWN)


def test_a_flipped_volume_is_turned_back(tmp_path) -> None:
    read = files.read_particles(put(tmp_path, flags=1 << 16), voxel_size=10.0, **KNOWN)
    # Seen at x 10.5, y 20.5, z 30: voxels 10, 20 and 30 of what was shown, and y and z were exchanged.
    np.testing.assert_allclose(particles.positions(read)[0], [200, 300, 100])


def test_the_voxel_size_is_told_or_asked_for(tmp_path) -> None:
    with pytest.raises(ValueError, match="a model that does not say its pixel size needs voxel_size="):
        files.read_particles(put(tmp_path, image={}), **KNOWN)
    nanometres = files.read_particles(put(tmp_path, pixelsize=1.2, units=-9), **KNOWN)
    np.testing.assert_allclose(particles.positions(nanometres)[0], [360, 240, 120])
    with pytest.raises(ValueError, match="voxels of the volume are not cubes: 8, 8, 16"):
        files.read_particles(put(tmp_path, image={"cscale": (8, 8, 16)}), **KNOWN)
    with pytest.raises(ValueError, match="does not name its tomogram; give tomogram="):
        files.read_particles(put(tmp_path), voxel_size=10.0, tilts=(-60, 60))


def test_imodmodel_reads_what_we_write(tmp_path) -> None:
    table = particles.table([[30.0, 20.0, 10.0], [1, 2, 3], [4, 5, 6]], tomogram="TS_01", label=["a", "b", "a"])
    path = files.write_particles(table, tmp_path / "a.mod", voxel_size=10.0, tomogram_shape=(100, 200, 300))
    model = imodmodel.ImodModel.from_file(path)
    assert [len(one.contours) for one in model.objects] == [1, 1]
    assert [one.header.name for one in model.objects] == [b"a", b"b"] or [one.header.name for one in model.objects] == [
        "a",
        "b",
    ]
    assert all(one.header.flags.scattered for one in model.objects)
    assert (model.header.xmax, model.header.ymax, model.header.zmax) == (300, 200, 100)
    assert (model.header.pixelsize, model.header.units) == (10, -10)
    found = imodmodel.read(path)
    np.testing.assert_allclose(found[["x", "y", "z"]], [[1.5, 2.5, 3], [1.1, 1, 0.4], [0.8, 0.7, 0.1]], rtol=1e-6)
    read = files.read_particles(path, **KNOWN)
    assert read["label"].tolist() == ["a", "a", "b"]
    order = [0, 2, 1]
    np.testing.assert_allclose(particles.positions(read), particles.positions(table)[order], atol=1e-4)
    again = files.write_particles(read, tmp_path / "b.mod", voxel_size=10.0, tomogram_shape=(100, 200, 300))
    pd.testing.assert_frame_equal(files.read_particles(again, **KNOWN), read)


def test_other_pieces_are_passed_over(tmp_path) -> None:
    path = files.write_particles(particles.table([[30.0, 20.0, 10.0]]), tmp_path / "a.mod", voxel_size=10.0)
    raw = path.read_bytes()[:-4]
    mesh = b"MESH" + struct.pack(">iiIhh", 2, 3, 0, 0, 0) + bytes(2 * 12 + 3 * 4)
    path.write_bytes(raw + b"SIZE" + struct.pack(">if", 4, 1.0) + mesh + b"VIEW" + struct.pack(">i", 3) + b"abc" + b"IEOF")
    np.testing.assert_allclose(particles.positions(files.read_particles(path, **KNOWN)), [[30, 20, 10]], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: b"imod 1\n", "no binary model of IMOD: it begins with 'imod 1.n', not 'IMODV1.2'"),
        (lambda raw: raw[:300], "the model ends at byte 300, but 176 bytes should follow byte 244"),
        (lambda raw: raw[:-4], "but 4 bytes should follow"),
        (lambda raw: raw[:424] + struct.pack(">i", 2**30) + raw[428:], "but 12884901888 bytes should follow"),
        (lambda raw: raw[:424] + struct.pack(">i", -1) + raw[428:], "but -12 bytes should follow"),
        (lambda raw: raw[:148] + struct.pack(">i", 3) + raw[152:], "names 3 objects and holds 1"),
        (lambda raw: raw[:440] + struct.pack(">f", np.inf) + raw[444:], "points that are no finite numbers"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, change, message: str) -> None:
    path = files.write_particles(particles.table([[30.0, 20.0, 10.0]]), tmp_path / "a.mod", voxel_size=10.0)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        files.read_particles(path, **KNOWN)


def test_what_a_model_cannot_hold_is_refused(tmp_path) -> None:
    table = particles.table([[1.0, 2.0, 3.0], [4, 5, 6]], tomogram=["a", "b"])
    with pytest.raises(ValueError, match="a model is of one tomogram, but there are 2: a, b"):
        files.write_particles(table, tmp_path / "a.mod", voxel_size=10.0)
    with pytest.raises(ValueError, match="column object must count from 1, got 0, 2"):
        files.write_particles(table.assign(tomogram="a", object=[0, 2]), tmp_path / "a.mod", voxel_size=10.0)
    assert not list(tmp_path.iterdir())
    empty = files.write_particles(table[:0], tmp_path / "a.mod", voxel_size=10.0)
    assert imod.parse(empty.read_bytes()).points.shape == (0, 3)
    assert len(files.read_particles(empty, **KNOWN)) == 0
