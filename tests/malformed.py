"""Good files of every kind that is read, small enough to be damaged in many ways, and how each is read."""

import bz2
import csv
import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
from test_aretomo import THREE, XF
from test_serialem import mdoc
from test_warp import defocus, xml

from tomolab import io as tomolab_io
from tomolab import particles
from tomolab.io import paths
from tomolab.io.lists import copick, imod
from tomolab.learning import read_features
from tomolab.volumes import Volume

SIZE = 8.0
SHAPE = (3, 4, 5)
Good = dict[str, bytes]
"""Files of a folder by their names."""
TOMOGRAMS = """data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesPixelSize #2
_rlnTomoSizeX #3
_rlnTomoSizeY #4
_rlnTomoSizeZ #5
_rlnTomoTiltSeriesStarFile #6
TS_01 8.0 400 300 100 tilt_series/TS_01.star
TS_02 8.0 400 300 100 tilt_series/TS_02.star
"""
SERIES = "data_TS\n\nloop_\n_rlnTomoYTilt #1\n_rlnMicrographName #2\n-51.0 a.mrc\n3.0 b.mrc\n54.0 c.mrc\n"
SET = "data_\n\n_rlnTomoParticlesFile particles.star\n_rlnTomoTomogramsFile tomograms.star\n"
M = "data_particles\n\nloop_\n" + "\n".join(
    ["_wrpCoordinateX", "_wrpCoordinateY", "_wrpCoordinateZ", "_wrpAngleRot", "_wrpAngleTilt", "_wrpAnglePsi", "_wrpSourceName"]
)
M += "\n" + "".join(f"{100 + i} {200 - i} {300 + 7 * i} {10 * i} 30 40 TS_0{1 + i % 2}.tomostar\n" for i in range(5))
TOMOSTAR = "data_\n\nloop_\n_wrpMovieName #1\n_wrpAngleTilt #2\n_wrpAxisAngle #3\n_wrpDose #4\n"
TOMOSTAR += "".join(f"../m/{i}.tif {3 * i - 6}.01 -4.5 {3.5 * i}\n" for i in range(5))
FOREIGN = "id,tomo_name,X,Y,Z,score,note\n" + "".join(
    f'{i},TS_01,{10 + i},{20 - i},{30.5 * i},0.{i},"a, ""b"""\n' for i in range(5)
)
OFFSET = "$tilt -StandardInput\nTILTFILE a.tlt\nOFFSET 2.5\nXAXISTILT 0.0\n"
WEDGE_LIST = "data_stopgap_wedgelist\n\nloop_\n_tomo_num\n_pixelsize\n_tilt_angle\n_defocus\n_exposure\n"
WEDGE_LIST += "".join(f"1 2.5 {3 * i - 6}.01 2.{i} {3.5 * i}\n" for i in range(5))
COMMAND = "$tilt -StandardInput\nInputProjections a.ali\nEXCLUDELIST2 1-2,4\nExcludeList 7\n"


@dataclass(frozen=True)
class Kind:
    """Files, which of them is read, which are damaged, how it is read, and what there must be of what is read."""

    make: Callable[[Path], Any]
    main: str
    read: Callable[[Path], Any]
    holds: Callable[[Any, Path], None]
    damaged: tuple[str, ...] = ()
    text: bool = True

    @property
    def targets(self) -> tuple[str, ...]:
        """Files that are damaged."""
        return self.damaged or (self.main,)


def some() -> pd.DataFrame:
    """Five particles in two tomograms, turned."""
    return particles.table(
        [[80.0 + 30 * i, 160.0 - 10 * i, 240.0 + 10 * i] for i in range(5)],
        tomogram=["TS_01", "TS_02", "TS_01", "TS_01", "TS_02"],
        ids=[3, 1, 7, 4, 5],
        angles=[[10.0 * i, 20 + i, 30 - i] for i in range(5)],
        label=["ribosome", "80S, x", "a", "a", "b"],
        score=[0.5, 0.25, 0.125, 1.0, 2.0],
    )


def put(folder: Path, **contents: str | bytes) -> None:
    """Write files; two underscores in a name stand for a point."""
    for name, content in contents.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def whole_volume(found: Any, _: Path) -> None:
    volume = found if isinstance(found, Volume) else Volume(*found)
    assert volume.data.size < 10**6
    assert np.isfinite(volume.data).all()
    assert volume.voxel_size > 0


def mrc(mode: type, name: str, *, big: bool = False) -> Kind:
    def make(folder: Path) -> None:
        data = (np.arange(60).reshape(SHAPE) + 1).astype(mode)
        with mrcfile.new(folder / "a.mrc") as file:
            file.set_data(data)
            file.set_image_stack() if name.endswith(".st") else file.set_volume()
            file.voxel_size = SIZE
        raw = (folder / "a.mrc").read_bytes()
        (folder / "a.mrc").unlink()
        if big:
            raw = swapped(raw)
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(name).suffix, bytes)
        (folder / name).write_bytes(pack(raw))

    def same(found: Any, path: Path) -> None:
        whole_volume(found, path)
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = zlib.decompressobj(47).decompress(raw, 1024)
        elif raw[:3] == b"BZh":
            raw = bz2.BZ2Decompressor().decompress(raw, 1024)
        shape = (found if isinstance(found, Volume) else Volume(*found)).shape
        orders = [struct.unpack(f"{order}3i", raw[:12]) for order in "<>"]
        assert sorted(shape) in [sorted(sizes) for sizes in orders]

    reader = tomolab_io.read_stack if name.endswith(".st") else tomolab_io.read_volume
    return Kind(make, name, reader, same, text=False)


def swapped(raw: bytes) -> bytes:
    """A file of numbers with four bytes each, in the order of other machines."""
    header = np.frombuffer(raw[:1024], "<i4").byteswap().tobytes()
    fixed = header[:208] + b"MAP \x11\x11\x00\x00" + header[216:224] + raw[224:1024]
    return fixed + np.frombuffer(raw[1024:], "<f4").byteswap().tobytes()


def zarr(version: str, target: str) -> Kind:
    def make(folder: Path) -> None:
        data = np.random.default_rng(0).normal(size=(3, 4, 70)).astype(np.float32)
        tomolab_io.write_volume(Volume(data, SIZE), folder / "a.zarr", version=version)

    return Kind(
        make,
        "a.zarr",
        lambda path: tomolab_io.open_volume(path).load(),
        whole_volume,
        (target,),
        target.endswith(("rs", "y", "n")),
    )


def table(name: str, *, rows: Callable[[bytes], int], damaged: tuple[str, ...] = (), **options: Any) -> Kind:
    """A list that our own writers make, or that `put` does where `text` is given."""
    given, known = options.pop("given", None), options.pop("known", {})

    def make(folder: Path) -> None:
        if given is not None:
            for one, content in given.items():
                put(folder, **{one: content})
        else:
            picks = some()
            if name.endswith((".ndjson", ".mod")):
                picks["tomogram"] = "TS_01"
            tomolab_io.write_particles(picks, folder / name, **options)

    def holds(found: pd.DataFrame, path: Path) -> None:
        pd.testing.assert_frame_equal(particles.check(found), found)
        assert len(found) == rows(path.read_bytes()), f"{len(found)} rows read, {rows(path.read_bytes())} written"
        assert not found["tomogram"].str.contains("\0").any()

    def read(path: Path) -> pd.DataFrame:
        told = {key: path.parent / value if key == "tomogram_list" else value for key, value in known.items()}
        return tomolab_io.read_particles(path, **{"tilts": (-60, 60), **told})

    return Kind(make, name, read, holds, damaged, not name.endswith((".em", ".mod")))


def lines(raw: bytes) -> list[str]:
    text = raw.decode(paths.encoding(raw)).replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip() and not line.strip().startswith("#")]


def star_rows(raw: bytes) -> int:
    """Rows of the table with coordinates."""
    count, wanted, out = 0, False, 0
    for line in map(str.strip, lines(raw)):
        if line.startswith("data_"):
            count, wanted = 0, False
        elif line.startswith("_"):
            wanted = wanted or "Coordinate" in line or "orig_" in line
        elif line != "loop_":
            count += 1
            out = count if wanted else out
    return out


def set_rows(_: bytes) -> int:
    return 5


def csv_rows(raw: bytes) -> int:
    text = raw.decode(paths.encoding(raw)).replace("\r\n", "\n").replace("\r", "\n")
    csv.field_size_limit(10**7)
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    assert {len(row) for row in rows} == {len(rows[0])}
    return len(rows) - 1


def em_rows(raw: bytes) -> int:
    return (len(raw) - 512) // 80


def mod_rows(raw: bytes) -> int:
    raw = raw.split(b"IEOF")[0]
    count, place = 0, raw.find(b"CONT")
    while place >= 0:
        count += struct.unpack(">i", raw[place + 4 : place + 8])[0]
        place = raw.find(b"CONT", place + 4)
    return count


def json_rows(raw: bytes) -> int:
    return len(json.loads(raw)["points"] or [])


def tilt_table(found: pd.DataFrame, _: Path) -> None:
    assert len(found) > 0
    assert (found["tilt"].abs() <= 90).all()
    assert not np.isinf(found.select_dtypes("number").to_numpy(dtype=float)).any()


def angles(found: np.ndarray, path: Path) -> None:
    raw = path.read_bytes()
    written = raw.decode(paths.encoding(raw), "replace").splitlines()
    assert len(found) == len([line for line in written if line.split("#")[0].strip()])
    assert (np.abs(found) <= 90).all()


def transforms(found: tuple, path: Path) -> None:
    angles(found[1][:, 0] * 0, path)
    assert all(np.isfinite(part).all() for part in found)


def alignment(found: Any, _: Path) -> None:
    assert len(found.tilts) == len(found.sections) == len(found.transforms[0]) > 0
    assert sorted([*found.sections, *found.dark]) == list(range(found.images))


def views(found: np.ndarray, _: Path) -> None:
    assert (np.diff(found) > 0).all()


def offset(found: tuple[str, float], _: Path) -> None:
    assert np.isfinite(found[1])


def project(folder: Path) -> None:
    copick.write(some(), folder / "overlay", session="1", objects="label")
    put(folder, config__json=json.dumps({"pickable_objects": [{"name": "a"}], "overlay_root": "overlay"}))


def read_project(path: Path) -> pd.DataFrame:
    found = copick.open(path)
    assert found.tomograms().empty
    return found.particles(tilts=(-60, 60))


def whole_project(found: pd.DataFrame, path: Path) -> None:
    places = (path.parent / "overlay").rglob("*_1_*.json")
    assert len(particles.check(found)) == sum(json_rows(place.read_bytes()) for place in places)


def simple(name: str, content: str, read: Callable, holds: Callable) -> Kind:
    return Kind(lambda folder: put(folder, **{name: content}), name, read, holds)


PICK = "overlay/ExperimentRuns/TS_01/Picks/tomolab_1_a.json"
MDOC = mdoc([-3.0, 0.0, 3.0], ExposureDose=[3.0] * 3, PriorRecordDose=[3, 0, 6], SubFramePath=["d:\\a.tif", "b.tif", "c.tif"])
XML = xml([-3.0, 0.0, 3.0], Dose=[6, 0, 3.5], UseTilt=["True"] * 3, MoviePath=["a.tif"] * 3, grid=defocus([2.0, 2.1, 2.2]))
CBOX = "\ndata_cryolo\n\nloop_\n" + "".join(
    f"_{name}\n" for name in ("CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height")
)
CBOX += (
    "".join(f" {10.5 * i} {20 - i} {30 + i} 25 25\n" for i in range(5)) + "\ndata_cryolo_include\n\nloop_\n_slice_index\n 30\n"
)
COORDS = "".join(f"{10.5 * i} {20 - i} {30 + i}\n" for i in range(5))
BOXES = json.dumps({"boxes_3d": [[10.5 * i, 20 - i, 30 + i, "manual", 0.5, 0] for i in range(5)], "apix_unbin": 2.0}, indent=1)
PYTOM = "".join(
    f'<Particle Filename="a.em">\n<Rotation Z1="{10 * i}.5" Z2="20.0" X="30.0" Paradigm="ZXZ"/>\n<Shift X="0.5" Y="0" Z="0"/>\n'
    f'<PickPosition X="{10.5 * i}" Y="20" Z="30" Origin="TS_01" Binning="1"/>\n</Particle>\n'
    for i in range(5)
)
PEET = "CCC,reserved,reserved,pIndex,wedgeWT,NA,NA,NA,NA,NA,xOffset,yOffset,zOffset,NA,NA,reserved,phi,psi,theta,reserved\n"
PEET += "".join(f"0.5,0,0,{i},1,0,0,0,0,0,0.5,0,0,0,0,0,{10 * i},20.5,30,1\n" for i in range(1, 6))
MODEL = imod.content(some().assign(tomogram="TS_01"), voxel_size=SIZE, shape=None)
ANGLES = [
    struct.pack(">ii6f32s", 60, 1, 10, 20, 30, *row, b"a") for row in some()[["x", "y", "z"]].to_numpy() / SIZE + [0.5, 0.5, 0]
]
SLICER = MODEL.removesuffix(b"IEOF") + b"".join(b"SLAN" + angles for angles in ANGLES) + b"IEOF"
OPTIMISATION = {
    "set__star": SET,
    "tomograms__star": TOMOGRAMS,
    "tilt_series/TS_01__star": SERIES,
    "tilt_series/TS_02__star": SERIES,
}
LISTED = dict(list(OPTIMISATION.items())[1:])
CENTRED = "data_particles\n\nloop_\n_rlnTomoName #1\n" + "".join(f"_rlnCenteredCoordinate{axis}Angst\n" for axis in "XYZ")
CENTRED += "_rlnOpticsGroup\n" + "".join(f"TS_0{1 + i % 2} {10 * i} {-7.5 * i} 3 1\n" for i in range(5))
MATCHED = "data_\n\nloop_\n_rlnMicrographName #1\n" + "".join(f"_rlnCoordinate{axis}\n" for axis in "XYZ")
MATCHED += "_rlnAutopickFigureOfMerit\n" + "".join(
    f"TS_0{1 + i % 2}.tomostar 0.{i + 1}5 0.{9 - i} 0.55 7.{i}\n" for i in range(5)
)
MATRICES = TOMOGRAMS.replace("_rlnTomoTiltSeriesStarFile", "_rlnOther").replace(" 8.0", ".tomostar 8.0")
MATRICES += "".join(
    f"\ndata_TS_0{i}.tomostar\n\nloop_\n_rlnTomoProjZ #1\n_rlnDefocusU #2\n[-0.777,0.0,0.629,9.5] 3.0\n[0.8,0,0.6,1] 6.0\n"
    for i in (1, 2)
)
OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n1 8.0\n\n"

NAMES_OF_FEATURES = [f"z{n}" for n in range(6)]
FEATURES = pd.DataFrame(np.arange(30.0).reshape(5, 6) / 7, columns=NAMES_OF_FEATURES).assign(particle_id=[3, 1, 7, 4, 5])


def features(name: str) -> Kind:
    """Features of another program."""

    def make(folder: Path) -> None:
        path = folder / name
        if name.endswith(".npz"):
            np.savez(path, ids=FEATURES["particle_id"], vectors=FEATURES[NAMES_OF_FEATURES])
        elif name.endswith(".parquet"):
            FEATURES.to_parquet(path)
        else:
            FEATURES.to_csv(path, index=False)

    def holds(found: Any, path: Path) -> None:
        assert found.vectors.shape[0] == len(found.ids) == len(np.unique(found.ids))
        assert np.isfinite(found.vectors).all()
        assert not name.endswith(".csv") or len(found) == csv_rows(path.read_bytes())

    return Kind(make, name, read_features, holds, text=name.endswith(".csv"))


def em_volume() -> Kind:
    def holds(found: Any, path: Path) -> None:
        whole_volume(found, path)
        assert found.shape in [struct.unpack(f"{order}3i", path.read_bytes()[4:16])[::-1] for order in "<>"]

    def make(folder: Path) -> None:
        tomolab_io.write_volume(Volume((np.arange(60).reshape(SHAPE) + 1).astype(np.float32), SIZE), folder / "a.em")

    return Kind(make, "a.em", lambda path: tomolab_io.read_volume(path, voxel_size=SIZE), holds, text=False)


KINDS: dict[str, Kind] = {
    **{f"MRC mode {mode}": mrc(kind, "a.mrc") for mode, kind in enumerate((np.int8, np.int16, np.float32))},
    "MRC mode 6": mrc(np.uint16, "a.mrc"),
    "MRC mode 12": mrc(np.float16, "a.rec"),
    "MRC, high byte first": mrc(np.float32, "a.mrc", big=True),
    "MRC gzip": mrc(np.float32, "a.mrc.gz"),
    "MRC bzip2": mrc(np.float32, "a.mrc.bz2"),
    "MRC stack": mrc(np.int16, "a.st"),
    "MRC, permissive": replace(mrc(np.float32, "a.mrc"), read=partial(tomolab_io.read_volume, permissive=True)),
    "EM volume": em_volume(),
    **{f"features {name}": features(name) for name in ("a.csv", "a.npz", "a.parquet")},
    "Zarr 2 chunk": zarr("0.4", "a.zarr/0/0/0/0"),
    "Zarr 2 array": zarr("0.4", "a.zarr/0/.zarray"),
    "Zarr 2 group": zarr("0.4", "a.zarr/.zattrs"),
    "Zarr 3 chunk": zarr("0.5", "a.zarr/0/c/0/0/0"),
    "Zarr 3 array": zarr("0.5", "a.zarr/0/zarr.json"),
    "Zarr 3 group": zarr("0.5", "a.zarr/zarr.json"),
    **{
        f"STAR {name}": table("a.star", rows=star_rows, voxel_size=SIZE, format=name, known={"voxel_size": SIZE})
        for name in ("relion30", "relion31", "relion4", "warp", "stopgap")
    },
    "STAR relion5": table(
        "a.star",
        rows=star_rows,
        given={"a__star": OPTICS + CENTRED, **LISTED},
        damaged=("a.star", "tomograms.star", "tilt_series/TS_01.star"),
        known={"tilts": None},
    ),
    "STAR Warp template matching": table(
        "a.star",
        rows=star_rows,
        given={"a__star": MATCHED, "b__star": MATRICES},
        damaged=("a.star", "b.star"),
        known={"tilts": None, "unit": "fraction", "tomogram_list": "b.star"},
    ),
    "STAR optimisation set": table(
        "set.star",
        rows=set_rows,
        given={**OPTIMISATION, "particles__star": OPTICS + CENTRED},
        known={"tilts": None},
    ),
    "STAR M": table("a.star", rows=star_rows, given={"a__star": M}),
    "Dynamo": table("a.tbl", rows=lambda raw: len(lines(raw)), voxel_size=SIZE, damaged=("a.tbl", "a.doc")),
    "EM AV3": table("a.em", rows=em_rows, voxel_size=SIZE, known={"voxel_size": SIZE}),
    "EM Artiatomi": table("a.em", rows=em_rows, voxel_size=SIZE, format="artiatomi", known={"voxel_size": SIZE}),
    "IMOD model": table("a.mod", rows=mod_rows, voxel_size=SIZE, known={"tomogram": "TS_01"}),
    "portal": table(
        "a.ndjson", rows=lambda raw: len(lines(raw)), voxel_size=SIZE, known={"voxel_size": SIZE, "tomogram": "TS_01"}
    ),
    "CSV of ours": table("a.csv", rows=csv_rows),
    "CSV of others": table("a.csv", rows=csv_rows, given={"a__csv": FOREIGN}, known={"unit": "voxel", "voxel_size": SIZE}),
    "crYOLO": table("a.cbox", rows=star_rows, given={"a__cbox": CBOX}, known={"voxel_size": SIZE, "tomogram": "TS_01"}),
    "coords": table(
        "a.coords",
        rows=lambda raw: len([line for line in raw.decode(paths.encoding(raw)).splitlines() if line.strip()]),
        given={"a__coords": COORDS},
        known={"voxel_size": SIZE, "tomogram": "TS_01"},
    ),
    "EMAN2": table(
        "a.json",
        rows=lambda raw: len(json.loads(raw)["boxes_3d"]),
        given={"a__json": BOXES},
        known={"voxel_size": SIZE, "tomogram_shape": SHAPE},
    ),
    "PyTom": table(
        "a.xml",
        rows=lambda raw: raw.decode(paths.encoding(raw), "replace").count("<Particle "),
        given={"a__xml": f"<ParticleList>\n{PYTOM}</ParticleList>\n"},
        known={"voxel_size": SIZE},
    ),
    "IMOD slicer angles": table(
        "a.mod", rows=mod_rows, given={"a__mod": SLICER}, known={"voxel_size": SIZE, "tomogram": "TS_01"}
    ),
    "PEET": table(
        "a.csv", rows=csv_rows, given={"a__csv": PEET, "a__mod": MODEL}, known={"voxel_size": SIZE, "tomogram": "TS_01"}
    ),
    "copick project": Kind(project, "config.json", read_project, whole_project, ("config.json", PICK)),
    "copick picks": Kind(
        lambda folder: project(folder) or (folder / PICK).rename(folder / "a.json"),
        "a.json",
        lambda path: tomolab_io.read_particles(path, tilts=(-60, 60)),
        lambda found, path: None if len(particles.check(found)) == json_rows(path.read_bytes()) else 1 / 0,
    ),
    "angles .tlt": simple("a.tlt", "-60.0\n-3.0\n0.00 1\n57.5\n", tomolab_io.tilts.read_tilts, angles),
    "angles .rawtlt": simple("a.rawtlt", " -60\n -3 # a\n\n 0\n 57.5\n", tomolab_io.tilts.read_tilts, angles),
    "transforms .xf": simple("a.xf", XF, tomolab_io.tilts.read_transforms, transforms),
    "command file .com": simple("a.com", COMMAND, tomolab_io.tilts.read_excluded, views),
    "offset in a .com": simple("a.com", OFFSET, tomolab_io.tilts.read_offset, offset),
    "tilt series of RELION": simple("a.star", SERIES, tomolab_io.tilts.read_tilt_star, tilt_table),
    "wedge list of STOPGAP": simple(
        "a.star", WEDGE_LIST, lambda path: tomolab_io.tilts.read_tilt_star(path, tomogram=1), tilt_table
    ),
    "SerialEM .mdoc": simple("a.mdoc", MDOC, tomolab_io.tilts.read_mdoc, tilt_table),
    "Warp .xml": simple("a.xml", XML, tomolab_io.tilts.read_warp, tilt_table),
    "Warp .tomostar": simple("a.tomostar", TOMOSTAR, tomolab_io.tilts.read_tomostar, tilt_table),
    "AreTomo .aln": simple("a.aln", THREE, tomolab_io.tilts.read_aretomo, alignment),
}
