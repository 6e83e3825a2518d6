"""Points of IMOD's models lie where 3dmod showed them, and imodmodel reads what we write."""

import struct
from pathlib import Path

import eulerangles
import imodmodel
import numpy as np
import pandas as pd
import pytest
from imodmodel.models import MINX, Contour, ImodModel, ModelFlags, Object, ObjectHeader
from scipy.spatial.transform import Rotation

from tomolab import io, particles
from tomolab.io.lists import imod

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
    read = io.read_particles(put(tmp_path), voxel_size=10.0, **KNOWN)
    # The centre of the first voxel is at 0.5 along x and y, at 0 along z.
    expected = [[300, 200, 100], [35, 15, 5], [60, 45, 35], [90, 75, 65]]
    np.testing.assert_allclose(particles.positions(read), expected)
    assert read[["object", "contour"]].to_numpy().tolist() == [[1, 1], [1, 1], [1, 2], [2, 1]]
    assert read["label"].tolist() == ["", "", "", "filament"]
    assert read["particle_id"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(particles.matrices(read), np.tile(np.eye(3), (4, 1, 1)))
    assert "label" not in io.read_particles(put(tmp_path, names=("", "")), voxel_size=10.0, **KNOWN)


def test_a_part_that_was_loaded_lies_in_the_whole(tmp_path) -> None:
    """Model coordinates of a part that begins at x 100, y 50, z 20 of a volume of 8 Å whose origin is (1, 2, 3)."""
    image = {"cscale": (8, 8, 8), "otrans": (1, 2, 3), "ctrans": (1 - 800, 2 - 400, 3 - 160)}
    read = io.read_particles(put(tmp_path, flags=1 << 14, image=image), **KNOWN)
    np.testing.assert_allclose(particles.positions(read)[0], [(30 + 20) * 8, (20 + 50) * 8, (10 + 100) * 8])
    # Without the flag nobody knows where the whole begins.
    read = io.read_particles(put(tmp_path, image=image), **KNOWN)
    np.testing.assert_allclose(particles.positions(read)[0], [30 * 8, 20 * 8, 10 * 8])
    with pytest.raises(ValueError, match=r"the model says 8 Å per pixel, but voxel_size=10 was given"):
        io.read_particles(tmp_path / "a.mod", voxel_size=10.0, **KNOWN)


def test_a_flipped_volume_is_turned_back(tmp_path) -> None:
    read = io.read_particles(put(tmp_path, flags=1 << 16), voxel_size=10.0, **KNOWN)
    # Seen at x 10.5, y 20.5, z 30: voxels 10, 20 and 30 of what was shown, and y and z were exchanged.
    np.testing.assert_allclose(particles.positions(read)[0], [200, 300, 100])


def test_the_voxel_size_is_told_or_asked_for(tmp_path) -> None:
    with pytest.raises(ValueError, match="a model that does not say its pixel size needs voxel_size="):
        io.read_particles(put(tmp_path, image={}), **KNOWN)
    nanometres = io.read_particles(put(tmp_path, pixelsize=1.2, units=-9), **KNOWN)
    np.testing.assert_allclose(particles.positions(nanometres)[0], [360, 240, 120])
    with pytest.raises(ValueError, match="voxels of the volume are not cubes: 8, 8, 16"):
        io.read_particles(put(tmp_path, image={"cscale": (8, 8, 16)}), **KNOWN)
    with pytest.raises(ValueError, match="does not name its tomogram; give tomogram="):
        io.read_particles(put(tmp_path), voxel_size=10.0, tilts=(-60, 60))


def test_imodmodel_reads_what_we_write(tmp_path) -> None:
    table = particles.table([[30.0, 20.0, 10.0], [1, 2, 3], [4, 5, 6]], tomogram="TS_01", label=["a", "b", "a"])
    path = io.write_particles(table, tmp_path / "a.mod", voxel_size=10.0, tomogram_shape=(100, 200, 300))
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
    read = io.read_particles(path, **KNOWN)
    assert read["label"].tolist() == ["a", "a", "b"]
    order = [0, 2, 1]
    np.testing.assert_allclose(particles.positions(read), particles.positions(table)[order], atol=1e-4)
    again = io.write_particles(read, tmp_path / "b.mod", voxel_size=10.0, tomogram_shape=(100, 200, 300))
    pd.testing.assert_frame_equal(io.read_particles(again, **KNOWN), read)


def test_other_pieces_are_passed_over(tmp_path) -> None:
    path = io.write_particles(particles.table([[30.0, 20.0, 10.0]]), tmp_path / "a.mod", voxel_size=10.0)
    raw = path.read_bytes()[:-4]
    mesh = b"MESH" + struct.pack(">iiIhh", 2, 3, 0, 0, 0) + bytes(2 * 12 + 3 * 4)
    path.write_bytes(raw + b"SIZE" + struct.pack(">if", 4, 1.0) + mesh + b"VIEW" + struct.pack(">i", 3) + b"abc" + b"IEOF")
    np.testing.assert_allclose(particles.positions(io.read_particles(path, **KNOWN)), [[30, 20, 10]], atol=1e-4)


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
    path = io.write_particles(particles.table([[30.0, 20.0, 10.0]]), tmp_path / "a.mod", voxel_size=10.0)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        io.read_particles(path, **KNOWN)


def test_what_a_model_cannot_hold_is_refused(tmp_path) -> None:
    table = particles.table([[1.0, 2.0, 3.0], [4, 5, 6]], tomogram=["a", "b"])
    with pytest.raises(ValueError, match="a model is of one tomogram, but there are 2: a, b"):
        io.write_particles(table, tmp_path / "a.mod", voxel_size=10.0)
    with pytest.raises(ValueError, match="column object must count from 1, got 0, 2"):
        io.write_particles(table.assign(tomogram="a", object=[0, 2]), tmp_path / "a.mod", voxel_size=10.0)
    assert not list(tmp_path.iterdir())
    empty = io.write_particles(table[:0], tmp_path / "a.mod", voxel_size=10.0)
    assert imod.parse(empty.read_bytes()).points.shape == (0, 3)
    assert len(io.read_particles(empty, **KNOWN)) == 0


def slicer(path: Path, *rows: tuple) -> Path:
    """The model with slicer angles x, y, z and a centre x, y, z each."""
    pieces = b"".join(b"SLAN" + struct.pack(">ii6f32s", 60, 1, *row, b"a") for row in rows)
    path.write_bytes(path.read_bytes()[:-4] + pieces + b"IEOF")
    found = ImodModel.from_file(path).slicer_angles
    assert [(*one.angles, *one.center) for one in found] == [tuple(np.float32(row).tolist()) for row in rows]
    return path


def seen(x: float, y: float, z: float) -> np.ndarray:
    """Rotation on xyz vectors from the volume to the Slicer, as IMOD composes it: about z, then y, then x."""

    def about(axis: int, degrees: float) -> np.ndarray:
        return Rotation.from_rotvec(np.radians(degrees) * np.eye(3)[axis]).as_matrix()

    return about(0, x) @ about(1, y) @ about(2, z)


AT = [(10.0, 20.0, 30.0, 10.5, 20.5, 30.0), (0, 0, 0, 1, 2, 3.5), (-41.4, 5.0, -47.7, 4, 5, 6.5), (90, 0, 0, 7, 8, 9)]
"""At the points of the model that `put` makes."""


def test_slicer_angles_turn_the_points_at_which_they_were_saved(tmp_path) -> None:
    read = io.read_particles(slicer(put(tmp_path), *[AT[n] for n in (2, 0, 3, 1)]), voxel_size=10.0, **KNOWN)
    np.testing.assert_allclose(particles.positions(read)[0], [300, 200, 100])
    expected = np.array([seen(*row[:3]).T for row in AT])
    np.testing.assert_allclose(particles.matrices(read)[:, ::-1, ::-1], expected, atol=1e-6)
    # Turned by 90 degrees about x, what lies along y of the volume is seen along z.
    np.testing.assert_allclose(particles.matrices(read)[3] @ [1, 0, 0], [0, 1, 0], atol=1e-6)
    # As 3dmod sets the angles that lay a line along the axis that is looked along.
    line = np.array([0.3, 0.5, 0.8]) / np.linalg.norm([0.3, 0.5, 0.8])
    about_z = np.arctan2(line[0], line[1])
    about_x = np.arctan2(line[0] * np.sin(about_z) + line[1] * np.cos(about_z), line[2])
    path = slicer(put(tmp_path), *[(np.degrees(about_x), 0, np.degrees(about_z), *row[3:]) for row in AT])
    read = io.read_particles(path, voxel_size=10.0, **KNOWN)
    np.testing.assert_allclose(particles.matrices(read)[0] @ [1, 0, 0], line[::-1], atol=1e-6)


def test_a_model_of_slicer_angles_only_gives_particles(tmp_path) -> None:
    ImodModel(objects=[Object(header=ObjectHeader(name="a"), contours=[])]).to_file(tmp_path / "a.mod")
    read = io.read_particles(slicer(tmp_path / "a.mod", *AT), voxel_size=10.0, **KNOWN)
    np.testing.assert_allclose(particles.positions(read)[0], [300, 200, 100])
    np.testing.assert_allclose(particles.matrices(read)[2, ::-1, ::-1], seen(*AT[2][:3]).T, atol=1e-6)
    assert len(read) == 4


@pytest.mark.parametrize("rows", [AT[:3], [*AT[:3], (1, 2, 3, 70, 80, 90)], [*AT[:3], AT[0]], [*AT, AT[0]]])
def test_slicer_angles_that_are_not_at_the_points_are_named(tmp_path, rows: list) -> None:
    path = slicer(put(tmp_path), *rows)
    with pytest.warns(UserWarning, match=rf"a.mod has {len(rows)} slicer angles that are not at its 4 points, one at each"):
        read = io.read_particles(path, voxel_size=10.0, **KNOWN)
    np.testing.assert_array_equal(particles.matrices(read), np.tile(np.eye(3), (4, 1, 1)))
    with pytest.raises(ValueError, match="slicer angles of a volume with y and z exchanged"):
        io.read_particles(slicer(put(tmp_path, flags=1 << 16), *rows), voxel_size=10.0, **KNOWN)


OLD = "CCC,reserved,reserved,pIndex,wedgeWT,NA,NA,NA,NA,NA,xOffset,yOffset,zOffset,NA,NA,reserved,phi,psi,theta,reserved"
NEW = "CCC,reserved,reserved,pIndex,wedgeWT,adjCCC,NA,NA,NA,NA,xOffset,yOffset,zOffset,NA,NA,oldClass,"
NEW += "EulerZ(1),EulerZ(3),EulerX(2),class"


def motive(folder: Path, *rows: str, head: str = OLD, name: str = "a_MOTL.csv") -> Path:
    """A motive list of PEET; each row tells point, offsets and angles."""
    lines = []
    for row in rows:
        number, *rest = row.split()
        lines.append(",".join(["0.5", "0", "0", number, "1", *"00000", *rest[:3], *"000", *rest[3:], "2"]))
    (folder / name).write_text("\n".join([head, *lines]) + "\n")
    return folder / name


@pytest.mark.parametrize("head", [OLD, NEW, f"{NEW},CREATED WITH PEET Version 1.18.2 11-Sept-2025"])
@pytest.mark.parametrize("name", ["a.csv", "a_MOTL.csv", "a_initMOTL.csv", "a_MOTL_Tom1_Iter3.csv"])
def test_a_motive_list_of_peet_turns_and_moves_the_points_of_a_model(tmp_path, head: str, name: str) -> None:
    put(tmp_path)
    rows = ["2 1 0 0 10 20 30", "1 0.5 -1 2 0 0 0", "3 0 0 0 0 0 90", "4 0 0 0 -50 170 12"]
    read = io.read_particles(motive(tmp_path, *rows, head=head, name=name), voxel_size=10.0, **KNOWN)
    np.testing.assert_allclose(particles.positions(read), [[35, 15, 15], [320, 190, 105], [60, 45, 35], [90, 75, 65]])
    angles = np.array([[float(word) for word in row.split()[4:]] for row in rows])
    # Dynamo's angles, as scripts make them: psi, theta and phi with the other sign.
    theirs = eulerangles.convert_eulers(-angles[:, [1, 2, 0]], source_meta="dynamo", target_meta="relion")
    expected = particles.matrices(particles.table(np.zeros((4, 3)), angles=theirs))
    np.testing.assert_allclose(particles.matrices(read)[[0, 1, 3]], expected[[0, 1, 3]], atol=1e-9)
    # Turned by 90 degrees about x, what lies along y in the reference lies along z.
    np.testing.assert_allclose(particles.matrices(read)[2] @ [0, 1, 0], [1, 0, 0], atol=1e-9)
    assert read["particle_id"].tolist() == [2, 1, 3, 4]
    assert read["object"].tolist() == [1, 1, 1, 2]
    assert read[["score", "class"]].to_numpy().tolist() == [[0.5, 2.0]] * 4


def test_points_without_a_line_are_named(tmp_path) -> None:
    path = put(tmp_path)
    with pytest.warns(UserWarning, match="3 of 4 points of .*a.mod are not in .*a_MOTL.csv"):
        read = io.read_particles(motive(tmp_path, "2 0 0 0 0 0 0"), voxel_size=10.0, **KNOWN)
    assert len(read) == 1
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is none of a_MOTL.mod, a.mod beside .*a_MOTL.csv"):
        io.read_particles(tmp_path / "a_MOTL.csv", voxel_size=10.0, **KNOWN)


@pytest.mark.parametrize(
    ("rows", "head", "known", "message"),
    [
        (["1 0 0 0 0 0 0", "1 0 0 0 0 0 0"], OLD, {}, "each once, got some twice"),
        (["5 0 0 0 0 0 0"], OLD, {}, "must count the 4 points of .*a.mod from 1, each once, got 5"),
        (["1.5 0 0 0 0 0 0"], OLD, {}, "got 1.5"),
        (["1 0 0 0 0 far 0"], OLD, {}, "not numbers, first psi of row 0: 'far'"),
        (["1 0 0 0 0 0"], OLD, {}, "row 0 of the motive list has 19 values, expected 20"),
        ([], OLD.replace("phi,psi,theta", "phi,theta,psi"), {}, "has psi, theta at other places"),
        ([], "CCC,pIndex", {}, "has pIndex, xOffset"),
        (["1 0 0 0 0 0 0"], OLD, {"tomogram": None}, "give tomogram="),
        (["1 0 0 0 0 0 0"], OLD, {"voxel_size": None}, "needs voxel_size="),
        (["1 0 0 0 0 0 0"], OLD, {"unit": "voxel"}, "unit= has no meaning for such a file"),
    ],
)
def test_what_is_no_motive_list_is_named(tmp_path, rows: list[str], head: str, known: dict, message: str) -> None:
    put(tmp_path)
    with pytest.raises(ValueError, match=message):
        io.read_particles(motive(tmp_path, *rows, head=head), **{"voxel_size": 10.0, **KNOWN, **known})


def test_peet_knows_no_exchanged_axes(tmp_path) -> None:
    put(tmp_path, flags=1 << 16)
    with pytest.raises(ValueError, match="was last seen with y and z exchanged"):
        io.read_particles(motive(tmp_path, "1 0 0 0 0 0 0"), voxel_size=10.0, **KNOWN)


def test_particles_without_a_label_are_written_too(tmp_path) -> None:
    table = particles.table([[10, 20, 30], [40, 50, 60], [70, 80, 90]], label=["a", None, np.nan])
    io.write_particles(table, tmp_path / "a.mod", voxel_size=10.0, tomogram_shape=(20, 20, 20))
    found = io.read_particles(tmp_path / "a.mod", **KNOWN)
    np.testing.assert_allclose(particles.positions(found), particles.positions(table), atol=0.01)
