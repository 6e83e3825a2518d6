"""Every door: a bead at a known place goes in by each format and is there, turned as it was, to a small part of a voxel.

The lists of other programs are written here by their own rules, not by tomolab's; ours are written by tomolab.
"""

import json
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import emfile
import eulerangles
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from imodmodel.models import Contour, ImodModel, Object, ObjectHeader
from scipy.spatial.transform import Rotation

from tomolab import io, particles, subtomograms
from tomolab.io.lists import copick
from tomolab.volumes import Volume

NAME = "TS_01"
BEADS = np.array([[5.0, 1.0, 0.0], [0.0, -4.0, 2.0], [-1.0, 0.0, 5.0]])
"""Of a particle, from its centre, zyx in voxels; they weigh 1, 2 and 3."""
WIDTH = 1.4
ORIGIN = np.array([1.5, -2.25, 0.75])
"""Shift xyz in pixels that lists keep beside the place."""
CORNER = np.array([0.5, 0.5, 0.0])
"""The centre of the first voxel in coordinates xyz of IMOD."""
CHECK, DYNAMO = (137.7000, 1.1777, 42.7270), (-47.2730, 1.1777, -132.3000)
"""The same pose in RELION's angles and in Dynamo's."""
AXES, ANGLES = "XYZ", ("Rot", "Tilt", "Psi")


@dataclass(frozen=True)
class Scene:
    """Particles in a tomogram: voxels of `size` Å, `shape` zyx, `places` (n, 3) in voxels and RELION's `angles` (n, 3)."""

    size: float
    shape: tuple[int, int, int]
    places: np.ndarray
    angles: np.ndarray

    @property
    def pixels(self) -> np.ndarray:
        """Places xyz, the centre of the first voxel being 0."""
        return self.places[:, ::-1]

    @property
    def turns(self) -> np.ndarray:
        """Rotations on xyz vectors, particle to tomogram: the inverse of what RELION's angles mean."""
        return Rotation.from_euler("ZYZ", self.angles, degrees=True).as_matrix().transpose(0, 2, 1)

    @property
    def table(self) -> pd.DataFrame:
        return particles.table(
            self.places * self.size, ids=np.arange(len(self.places)) + 1, tomogram=NAME, angles=self.angles, score=0.5
        )


Door = Callable[[Scene, Path], tuple[Path, dict[str, Any]]]
"""Writes a list into a folder; gives its path and what has to be said when it is read."""
KNOWN: dict[str, Any] = {"tilts": (-60, 60)}


def loop(block: str, **columns: Any) -> str:
    """Text of a table of a STAR file."""
    rows = pd.DataFrame(columns).to_csv(sep=" ", header=False, index=False)
    return f"\ndata_{block}\n\nloop_\n" + "".join(f"_{name}\n" for name in columns) + rows + "\n"


def along(stem: str, values: np.ndarray, end: str = "", names: Any = AXES) -> dict[str, np.ndarray]:
    """Three columns called after axes or angles."""
    return {f"{stem}{name}{end}": values[:, i] for i, name in enumerate(names)}


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def shifted(scene: Scene) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Coordinates in pixels from which an origin has to be subtracted, and the origin in pixels."""
    origin = np.tile(ORIGIN, (len(scene.places), 1))
    return scene.pixels + origin, along("rlnOrigin", origin)


def ours(name: str, **options: Any) -> Door:
    def write(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
        sizes = {"tomogram_shape": scene.shape} if options.get("format") == "relion5" or name.endswith(".mod") else {}
        if name.endswith(".csv"):
            return io.write_particles(scene.table, folder / name), KNOWN
        path = io.write_particles(scene.table, folder / name, voxel_size=scene.size, **options, **sizes)
        said = {"tomogram": NAME} if path.suffix in (".mod", ".ndjson") else {}
        return path, {"voxel_size": scene.size, **KNOWN, **said} | (sizes if path.suffix == ".star" else {})

    return write


def our_copick(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = copick.write(scene.table.assign(cluster_name="bead"), folder)
    return path, KNOWN


def relion2(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    at, origin = shifted(scene)
    named = {"rlnMicrographName": NAME, "rlnMagnification": 10000.0, "rlnDetectorPixelSize": scene.size}
    columns = named | along("rlnCoordinate", at) | origin | along("rlnAngle", scene.angles, names=ANGLES)
    return put(folder / "two.star", loop("images", **columns)), KNOWN


def warp(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    columns = {"rlnMicrographName": f"{NAME}.tomostar", "rlnPixelSize": scene.size}
    columns |= along("rlnCoordinate", scene.pixels) | along("rlnAngle", scene.angles, names=ANGLES)
    return put(folder / "warp.star", loop("", **columns)), KNOWN


def m(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    columns = along("wrpCoordinate", scene.pixels * scene.size, "1") | along("wrpAngle", scene.angles, "1", ANGLES)
    return put(folder / "m.star", loop("particles", wrpSourceName=f"{NAME}.tomostar", **columns)), KNOWN


def relion31(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    at, origin = shifted(scene)
    optics = loop("optics", rlnOpticsGroup=[1], rlnImagePixelSize=2 * scene.size, rlnMicrographPixelSize=scene.size)
    columns = {"rlnMicrographName": NAME, "rlnOpticsGroup": 1} | along("rlnCoordinate", at)
    columns |= {f"{name}Angst": values * scene.size for name, values in origin.items()}
    columns |= along("rlnAngle", scene.angles, names=ANGLES)
    return put(folder / "new.star", optics + loop("particles", **columns)), KNOWN


def zxz(turns: np.ndarray) -> np.ndarray:
    """Angles of turns about z, x and z, the first about the last axis."""
    with warnings.catch_warnings():
        # Where the middle one is 0, the others are one angle; the matrix is right all the same.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        return Rotation.from_matrix(turns).as_euler("ZXZ", degrees=True)


def parted(scene: Scene) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Orientations as those of a subtomogram and of the particle in it, and the origin that is turned by the former, in Å."""
    subtomogram = np.tile([25.0, 70.0, -140.0], (len(scene.places), 1))
    turn = Rotation.from_euler("ZYZ", subtomogram, degrees=True).as_matrix().transpose(0, 2, 1)
    inside = Rotation.from_matrix((turn.transpose(0, 2, 1) @ scene.turns).transpose(0, 2, 1))
    origin = np.tile(ORIGIN * scene.size, (len(scene.places), 1))
    columns = along("rlnTomoSubtomogram", subtomogram, names=ANGLES)
    columns |= along("rlnAngle", inside.as_euler("ZYZ", degrees=True), names=ANGLES) | along("rlnOrigin", origin, "Angst")
    return np.einsum("nij,nj->ni", turn, origin), columns


def relion4(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    pixel = scene.size / 4
    moved, columns = parted(scene)
    optics = loop("optics", rlnOpticsGroup=[1], rlnTomoTiltSeriesPixelSize=pixel, rlnTomoSubtomogramBinning=4)
    columns |= along("rlnCoordinate", (scene.pixels * scene.size + moved) / pixel)
    return put(folder / "four.star", optics + loop("particles", rlnTomoName=NAME, rlnOpticsGroup=1, **columns)), KNOWN


def relion5(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    moved, columns = parted(scene)
    sizes = along("rlnTomoSize", np.array([scene.shape[::-1]]))
    listed = loop("global", rlnTomoName=[NAME], rlnTomoTiltSeriesPixelSize=scene.size, **sizes)
    put(folder / "tomograms.star", listed)
    middle = np.array(scene.shape[::-1]) / 2 * scene.size
    columns |= along("rlnCenteredCoordinate", scene.pixels * scene.size + moved - middle, "Angst")
    general = "\ndata_general\n\n_rlnTomoSubTomosAre2DStacks 1\n"
    return put(folder / "five.star", general + loop("particles", rlnTomoName=NAME, **columns)), KNOWN


def optimisation_set(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    path, known = relion5(scene, folder)
    text = f"data_\n_rlnTomoParticlesFile {path.name}\n_rlnTomoTomogramsFile tomograms.star\n"
    return put(folder / "optimisation_set.star", text), known


def stopgap(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    count = np.arange(len(scene.places)) + 1
    angles = zxz(scene.turns)
    whole = np.round(scene.pixels)
    columns = {"motl_idx": count, "tomo_num": 1, "object": 1, "subtomo_num": count, "halfset": "A", "score": 0.1, "class": 1}
    columns |= along("orig_", whole + 1, names="xyz") | along("", scene.pixels - whole, "_shift", "xyz")
    columns |= {"psi": angles[:, 0], "the": angles[:, 1], "phi": angles[:, 2]}
    path = put(folder / "motl.star", loop("stopgap_motivelist", **columns))
    return path, {"voxel_size": scene.size, "tomogram": NAME, **KNOWN}


def dynamo(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    rows = np.zeros((len(scene.places), 35))
    rows[:, 0], rows[:, [12, 19]], rows[:, [13, 14]] = np.arange(len(rows)) + 1, 1, [-60, 60]
    rows[:, 3:6] = ORIGIN
    rows[:, 6:9] = eulerangles.convert_eulers(scene.angles, source_meta="relion", target_meta="dynamo")
    rows[:, 23:26] = scene.pixels - ORIGIN + 0.5
    np.savetxt(folder / "a.tbl", rows, fmt="%.9g")
    return folder / "a.tbl", {"voxel_size": scene.size, "tomogram": NAME}


def motl(row: int) -> Door:
    def write(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
        numbers = np.zeros((len(scene.places), 20), dtype=np.float32)
        numbers[:, row - 1], numbers[:, 4], numbers[:, 19] = np.arange(len(numbers)) + 1, 1, 1
        numbers[:, 7:10] = np.round(scene.pixels) + 1
        numbers[:, 10:13] = scene.pixels - np.round(scene.pixels)
        # The rows are phi, psi, theta.
        psi, theta, phi = zxz(scene.turns).T
        numbers[:, 16], numbers[:, 17], numbers[:, 18] = phi, psi, theta
        emfile.write(str(folder / "a.em"), numbers[None], overwrite=True)
        return folder / "a.em", {"voxel_size": scene.size, "tomogram": NAME, **KNOWN}

    return write


def imod(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    contour = Contour(points=scene.pixels + CORNER)
    ImodModel(objects=[Object(header=ObjectHeader(name="bead"), contours=[contour])]).to_file(folder / "a.mod")
    return folder / "a.mod", {"voxel_size": scene.size, "tomogram": NAME, **KNOWN}


def slicer(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Points, and at each the angles x, y, z that turn the volume into what the Slicer shows."""
    path, known = imod(scene, folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles = -Rotation.from_matrix(scene.turns).as_euler("ZYX", degrees=True)[:, ::-1]
    rows = np.column_stack([angles, scene.pixels + CORNER])
    pieces = b"".join(b"SLAN" + struct.pack(">ii6f32s", 60, 1, *row, b"") for row in rows)
    path.write_bytes(path.read_bytes()[:-4] + pieces + b"IEOF")
    return path, known


def peet(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Points of a model, and beside it offsets that are added, and phi, psi and theta."""
    contour = Contour(points=scene.pixels - ORIGIN + CORNER)
    ImodModel(objects=[Object(header=ObjectHeader(name="bead"), contours=[contour])]).to_file(folder / "p.mod")
    rows = np.zeros((len(scene.places), 20))
    rows[:, 3], rows[:, 10:13], rows[:, 16:19] = np.arange(len(rows)) + 1, ORIGIN, zxz(scene.turns)[:, [2, 0, 1]]
    head = "CCC,reserved,reserved,pIndex,wedgeWT,adjCCC,NA,NA,NA,NA,xOffset,yOffset,zOffset,NA,NA,oldClass"
    np.savetxt(
        folder / "p_MOTL.csv",
        rows,
        fmt="%.9g",
        delimiter=",",
        header=f"{head},EulerZ(1),EulerZ(3),EulerX(2),class",
        comments="",
    )
    return folder / "p_MOTL.csv", {"voxel_size": scene.size, "tomogram": NAME, **KNOWN}


def picks(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    points = []
    for place, turn in zip(scene.pixels * scene.size, scene.turns, strict=True):
        move = np.eye(4)
        move[:3, :3], move[:3, 3] = turn, ORIGIN
        at = dict(zip("xyz", (place - ORIGIN).tolist(), strict=True))
        points.append({"location": at, "transformation_": move.tolist(), "instance_id": 0})
    content = {"pickable_object_name": "bead", "run_name": NAME, "unit": "angstrom", "points": points}
    return put(folder / "user_0_bead.json", json.dumps(content)), KNOWN


def portal(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    lines = [
        {"type": "orientedPoint", "location": dict(zip("xyz", place, strict=True)), "xyz_rotation_matrix": turn}
        for place, turn in zip(scene.pixels.tolist(), scene.turns.tolist(), strict=True)
    ]
    path = put(folder / "a.ndjson", "".join(json.dumps(line) + "\n" for line in lines))
    return path, {"voxel_size": scene.size, "tomogram": NAME, **KNOWN}


def sheet(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    columns = along("", scene.pixels, names="xyz") | along("", scene.angles, names=("rot", "tilt", "psi"))
    pd.DataFrame(columns).to_csv(folder / "theirs.csv", index=False)
    return folder / "theirs.csv", {"voxel_size": scene.size, "unit": "voxel", "tomogram": NAME, **KNOWN}


def cbox(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A box of crYOLO: its corner along x and y, its middle along z."""
    side = 21.0
    corners = scene.pixels - [side / 2, side / 2, 0]
    columns = along("Coordinate", corners) | dict.fromkeys(("Width", "Height", "Depth"), side) | {"Confidence": 0.5}
    text = "\ndata_global\n\n_cbox_format_version 1.0\n" + loop("cryolo", **columns) + loop("cryolo_include", slice_index=[1])
    return put(folder / "a.cbox", text), {"voxel_size": scene.size, "tomogram": NAME, **KNOWN}


def coords(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    pd.DataFrame(scene.pixels).to_csv(folder / "a.coords", index=False, header=False, sep=" ")
    return folder / "a.coords", {"voxel_size": scene.size, "tomogram": NAME, **KNOWN}


def eman2(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Pixels of the tilt images, a quarter of a voxel, from voxel n // 2."""
    unbinned = scene.size / 4
    middle = np.array(scene.shape[::-1]) // 2
    boxes = [[*((place - middle) * scene.size / unbinned).tolist(), "manual", 0.0, 0] for place in scene.pixels]
    content = {"apix_unbin": unbinned, "boxes_3d": boxes, "class_list": {"0": {"name": "bead", "boxsize": 80}}}
    path = put(folder / f"{NAME}_info.json", json.dumps(content))
    return path, {"voxel_size": scene.size, "tomogram_shape": scene.shape, **KNOWN}


def pytom(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The last angle of the turn about its axes is the first about the fixed ones."""
    rows = []
    for place, (z2, x, z1) in zip(scene.pixels - ORIGIN, zxz(scene.turns), strict=True):
        at, shift = (
            " ".join(f'{axis}="{value!r}"' for axis, value in zip(AXES, v.tolist(), strict=True)) for v in (place, ORIGIN)
        )
        turn = f'<Rotation Z1="{z1}" Z2="{z2}" X="{x}" Paradigm="ZXZ"/>'
        rows.append(f'<Particle Filename="a.em">{turn}<Shift {shift}/><PickPosition {at} Origin="{NAME}"/></Particle>')
    return put(folder / "a.xml", f"<ParticleList>{''.join(rows)}</ParticleList>"), {"voxel_size": scene.size, **KNOWN}


DOORS: dict[str, Door] = {
    **{f"our {one}": ours("a.star", format=one) for one in ("relion30", "warp", "relion31", "relion4", "relion5", "stopgap")},
    **{f"our {name}": ours(f"a{name}") for name in (".csv", ".tbl", ".em", ".mod", ".ndjson")},
    "our Artiatomi": ours("b.em", format="artiatomi"),
    "our copick": our_copick,
    "RELION 2": relion2,
    "Warp": warp,
    "M": m,
    "RELION 3.1": relion31,
    "RELION 4": relion4,
    "RELION 5": relion5,
    "optimisation set": optimisation_set,
    "STOPGAP": stopgap,
    "Dynamo": dynamo,
    "AV3": motl(4),
    "Artiatomi": motl(6),
    "IMOD": imod,
    "copick": picks,
    "data portal": portal,
    "CSV": sheet,
    "crYOLO": cbox,
    "TomoTwin": coords,
    "EMAN2": eman2,
    "PyTom": pytom,
    "PEET": peet,
    "IMOD's Slicer": slicer,
}
FLAT = ("our .mod", "IMOD", "crYOLO", "TomoTwin", "EMAN2")
"""Formats without orientations."""


def drawn(shape: tuple[int, int, int], place: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The beads of a particle at a place in voxels, turned by a matrix on zyx vectors."""
    out = np.zeros(shape)
    for weight, bead in zip((1.0, 2.0, 3.0), place + BEADS @ turn.T, strict=True):
        z, y, x = (np.exp(-((np.arange(n) - at) ** 2) / (2 * WIDTH**2)) for n, at in zip(shape, bead, strict=True))
        out += weight * z[:, None, None] * y[:, None] * x
    return out


def misfit(scene: Scene, read: pd.DataFrame, box: int) -> float:
    """How far the box at the place that was read is from the beads, turned as was read, in standard deviations of the box."""
    volume = Volume(drawn(scene.shape, scene.places[0], scene.turns[0][::-1, ::-1]), scene.size)
    seen = subtomograms.extract(volume, read, box=box).volumes[0]
    expected = drawn((box,) * 3, np.full(3, box // 2), particles.matrices(read)[0])
    return float(np.abs(seen - (expected - expected.mean()) / expected.std()).max())


@pytest.mark.parametrize("door", DOORS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(where=(0.5, 0.25, 0.75), angles=CHECK, odd=(0, 1, 0), size=10.0, box=20)
@given(
    where=st.tuples(*[st.floats(0, 1)] * 3),
    angles=st.tuples(st.floats(-180, 180), st.sampled_from([0.0, 180.0, 1.1777, 77.0]), st.floats(-180, 180)),
    odd=st.tuples(*[st.integers(0, 1)] * 3),
    size=st.sampled_from([1.0, 7.84, 13.328]),
    box=st.sampled_from([20, 21]),
)
def test_a_bead_stays_where_it_is(tmp_path, door: str, where: tuple, angles: tuple, odd: tuple, size: float, box: int) -> None:
    shape = (32 + odd[0], 36 + odd[1], 42 + odd[2])
    place = 12 + np.array(where) * (np.array(shape) - 25)
    scene = Scene(size, shape, place[None], np.array([(0.0, 0.0, 0.0) if door in FLAT else angles]))
    path, known = DOORS[door](scene, tmp_path)
    read = io.read_particles(path, **known)
    np.testing.assert_allclose(particles.positions(read) / size, scene.places, atol=1e-3)
    np.testing.assert_allclose(particles.matrices(read), scene.turns[:, ::-1, ::-1], atol=1e-5)
    assert read["tomogram"].str.removesuffix(".tomostar").tolist() == [NAME]
    assert misfit(scene, read, box) < 0.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_a_voxel_would_be_seen(axis: int) -> None:
    scene = Scene(10.0, (32, 37, 42), np.array([[15.3, 17.6, 20.2]]), np.array([[20.0, 40.0, 60.0]]))
    table = scene.table
    assert misfit(scene, table, 20) < 0.1
    for wrong in (-0.5, 0.5):
        assert misfit(scene, table.assign(**{"zyx"[axis]: table["zyx"[axis]] + wrong * scene.size}), 20) > 0.5
    assert misfit(scene, table.assign(rot=-table["psi"], psi=-table["rot"], tilt=-table["tilt"]), 20) > 1


def test_the_check_value_is_dynamos(tmp_path) -> None:
    """What another library makes of it, our table of Dynamo holds, to the digits that are given."""
    theirs = eulerangles.convert_eulers(np.array(CHECK), source_meta="relion", target_meta="dynamo")
    np.testing.assert_allclose(theirs, DYNAMO, atol=1e-3)
    path, known = DOORS["our .tbl"](Scene(10.0, (40, 40, 40), np.full((1, 3), 20.0), np.array([CHECK])), tmp_path)
    np.testing.assert_allclose(np.loadtxt(path)[6:9], DYNAMO, atol=1e-3)
    np.testing.assert_allclose(io.read_particles(path, **known)[["rot", "tilt", "psi"]], [CHECK], atol=1e-3)


@pytest.mark.parametrize("door", DOORS)
def test_who_came_in_goes_out_or_is_named(tmp_path, door: str) -> None:
    """Of nine particles, two with a box that leaves the tomogram: all are read, seven cut, two named; a copy keeps four."""
    rng = np.random.default_rng(5)
    places = np.concatenate([rng.uniform(11, 30, (7, 3)), [[3.0, 20.0, 20.0], [20.0, 20.0, 38.5]]])
    angles = np.zeros((9, 3)) if door in FLAT else rng.uniform(5, 85, (9, 3))
    scene = Scene(10.0, (40, 41, 42), places, angles)
    path, known = DOORS[door](scene, tmp_path)
    read = io.read_particles(path, **known)
    np.testing.assert_allclose(particles.positions(read), scene.places * 10, atol=2e-2)
    np.testing.assert_allclose(particles.matrices(read), scene.turns[:, ::-1, ::-1], atol=1e-5)
    assert read["particle_id"].is_unique
    with pytest.warns(UserWarning, match="2 of 9 particles skipped"):
        cut = subtomograms.extract(Volume(rng.normal(size=scene.shape), 10.0), read, box=20)
    assert sorted([*cut.ids, *cut.skipped["particle_id"]]) == sorted(read["particle_id"])
    assert cut.skipped["reason"].notna().all()
    if path.suffix not in (".star", ".tbl") or door == "optimisation set":
        return
    copy = io.filter_particles(path, cut.particles.iloc[[6, 0, 3, 1]], tmp_path / f"copy{path.suffix}")
    assert (copy.kept, copy.dropped, copy.elsewhere) == (4, 5, 0)
    again = io.read_particles(copy.path, **known)
    kept = read[read["particle_id"].isin(cut.ids[[0, 1, 3, 6]])]
    np.testing.assert_array_equal(particles.positions(again), particles.positions(kept))
    np.testing.assert_array_equal(particles.matrices(again), particles.matrices(kept))
