"""IMOD: models (.mod), whose points are particles, and PEET's motive lists (.csv) of such points, to and from particle tables.

A binary model is a header, objects with contours of points, and chunks of other data (IMOD's "Binary File Format"), all
with the high byte first. Coordinates are pixels of the volume on which the model was last seen, or of the part of it that
was loaded. Along x and y they run from 0 at the outer edge of the first pixel, along z from -0.5: the centre of the first
voxel is (0.5, 0.5, 0). A chunk MINX holds the pixel size of that volume (``cscale``) and, where bit 14 of the flags is set,
that ``(otrans - ctrans) / cscale`` leads from the part to the whole. Where bit 16 is set, the volume was seen with y and z
exchanged; the half pixels are then taken as they were seen.

A chunk SLAN is an orientation that was saved in the Slicer: a centre, and angles about x, y and z that turn the volume by
``Rx(x) Ry(y) Rz(z)`` into what was seen; so ``Rz(-z) Ry(-y) Rx(-x)`` turns what was seen into the tomogram
(`SlicerFuncs::setInverseMatrix` of 3dmod).

A motive list of PEET has a line for each point of a model, which ``pIndex`` counts from 1. The offsets, in pixels, are added to
the point, and the angles phi, psi, theta, which are also called EulerZ(1), EulerZ(3), EulerX(2), turn the reference: in xyz by
``Rz(psi) Rx(theta) Rz(phi)`` (`PEETMotiveList` of TEMPy; cylindra, and scripts that make Dynamo's angles of it, agree).
"""

import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION, SOURCE, VOXEL_SIZE
from tomolab.io import paths
from tomolab.io.lists import dynamo
from tomolab.io.lists.options import ReadOptions, Shape, check_voxel_size, only_tomogram
from tomolab.io.lists.star import parsing
from tomolab.io.volumes.mrc import TOLERANCE

MAGIC = b"IMODV1.2"
CORNER = np.array([0.5, 0.5, 0.0])
"""Coordinates xyz of the centre of the first voxel."""
MODEL = struct.Struct(">128s4iI4i6f5ifii3f")
OBJECT = struct.Struct(">64s64siIii3fi8Bii")
CONTOUR = struct.Struct(">iIii")
MESH = struct.Struct(">iiIhh")
ORIGIN, FLIPPED, UNTOUCHED = 1 << 14, 1 << 16, 1 << 11
"""Flags of a model: ``otrans`` is that of the image, y and z were exchanged, and 3dmod has not written it yet."""
SCATTERED = 1 << 9
"""Flag of an object: its points are apart."""
UNITS = {-12: 1e-2, -10: 1.0, -9: 10.0, -6: 1e4, -3: 1e7, -2: 1e8, 1: 1e10, 3: 1e13}
"""Å in the units of the pixel size, by their number."""
ANGSTROM = -10
CHUNKS = {b"MINX": (0, 18), b"SLAN": (4, 6)}
"""Chunks that are read: bytes that are passed over, and numbers that follow."""
NEAR = 1.0
"""Pixels that the centre of slicer angles may be off the point that they turn."""
HEAD = b"CCC,"
"""How a motive list of PEET begins."""
WIDTH = 20
"""Its columns."""
PLACES = {
    0: ("CCC",),
    3: ("pIndex",),
    **{10 + n: (f"{axis}Offset",) for n, axis in enumerate("xyz")},
    **{16 + n: names for n, names in enumerate((("phi", "EulerZ(1)"), ("psi", "EulerZ(3)"), ("theta", "EulerX(2)")))},
}
"""Names of those that are read, by their place, counted from 0."""
CLASS = 19


@dataclass(frozen=True)
class Model:
    """What a model file says: points xyz (n, 3), the object and the contour of each, counted from 1, names of the objects."""

    points: np.ndarray
    objects: np.ndarray
    contours: np.ndarray
    names: tuple[str, ...]
    flags: int
    pixel_size: float | None
    image: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    """``otrans``, ``cscale`` and ``ctrans`` of MINX."""
    slicer: np.ndarray
    """Slicer angles (n, 6): x, y, z in degrees, and the centre x, y, z."""


def read(path: Path, options: ReadOptions) -> pd.DataFrame:
    """Read the points of a model as particles, without tilts; they are turned where slicer angles were saved at each.

    A model without points gives a particle for each of its slicer angles. Columns ``object`` and ``contour`` name those of
    each point, ``label`` is the name of the object where any has one.

    Raises
    ------
    ValueError
        If this is no binary model, it ends early, it contradicts the voxel size, or it does not say that and it is not given,
        or the name of the tomogram is not given.

    Warns
    -----
    UserWarning
        If slicer angles are not one at each point: they are left out.
    """
    tomogram = options.name("a model")
    model = parse(paths.content(path))
    size = _voxel_size(model, options.voxel_size)
    if not len(model.slicer):
        return _table(model, size, tomogram)
    if model.flags & FLIPPED:
        raise ValueError(f"{path} has slicer angles of a volume with y and z exchanged; save the model on the volume as it is")
    turns = Rotation.from_euler("ZYX", -model.slicer[:, 2::-1], degrees=True).as_matrix()[:, ::-1, ::-1]
    if not len(model.points):
        ones = np.ones(len(turns), dtype=int)
        only = replace(model, points=model.slicer[:, 3:], objects=ones, contours=ones, names=("",))
        return _table(only, size, tomogram).assign(**dict(zip(ANGLES, rotations.to_euler(turns).T, strict=True)))
    out = _table(model, size, tomogram)
    far, nearest = cKDTree(model.slicer[:, 3:]).query(model.points)
    if far.max() > NEAR or not np.array_equal(np.sort(nearest), np.arange(len(turns))):
        warnings.warn(
            f"{path} has {len(turns)} slicer angles that are not at its {len(out)} points, one at each; they are left out",
            stacklevel=2,
        )
        return out
    out[ANGLES] = rotations.to_euler(turns[nearest])
    return out


def _table(model: Model, size: float, tomogram: str) -> pd.DataFrame:
    """Points of a model, seen with voxels of `size` Å, as particles that are not turned, numbered from 1, without tilts."""
    places = model.points - CORNER
    if model.flags & FLIPPED:
        places = places[:, [0, 2, 1]]
    if model.image is not None and model.flags & ORIGIN:
        origin, scale, loaded = model.image
        places = places + (origin - loaded) / scale
    out = pd.DataFrame({"particle_id": np.arange(1, len(places) + 1), "tomogram": tomogram})
    out.attrs[VOXEL_SIZE] = size
    out[POSITION] = places[:, ::-1] * size
    out[ANGLES] = 0.0
    out["object"], out["contour"] = model.objects, model.contours
    if any(model.names):
        out["label"] = np.array(model.names, dtype=object)[model.objects - 1]
    return out


def parse(raw: bytes) -> Model:
    """Read the bytes of a binary model; a ValueError if they are none, end early, or hold numbers that are not finite."""
    if not raw.startswith(MAGIC):
        shown = raw[:8].decode("ascii", "replace")
        raise ValueError(f"this is no binary model of IMOD: it begins with {shown!r}, not {MAGIC.decode()!r}")
    source = _Source(raw, len(MAGIC))
    header = source.take(MODEL)
    count, flags, pixel, unit = header[4], header[5], header[21], header[22]
    found_points: list[tuple[np.ndarray, int, int]] = []
    names: list[str] = []
    contours = 0
    found: dict[bytes, list[np.ndarray]] = {mark: [] for mark in CHUNKS}
    while (mark := source.mark()) != b"IEOF":
        if mark == b"OBJT":
            names.append(source.take(OBJECT)[0].split(b"\0")[0].decode("utf-8", "replace").strip())
            contours = 0
        elif mark == b"CONT":
            if not names:
                raise ValueError("the model has a contour before its first object")
            contours += 1
            found_points.append((source.floats(3 * source.take(CONTOUR)[0]).reshape(-1, 3), len(names), contours))
        elif mark == b"MESH":
            vertices, indices = source.take(MESH)[:2]
            source.skip(12 * vertices + 4 * indices)
        else:
            length = source.length()
            passed, numbers = CHUNKS.get(mark, (0, 0))
            if numbers and length >= passed + 4 * numbers:
                source.skip(passed)
                found[mark].append(source.floats(numbers))
                length -= passed + 4 * numbers
            source.skip(length)
    if len(names) != count:
        raise ValueError(f"the model names {count} objects and holds {len(names)}")
    points = np.concatenate([np.zeros((0, 3)), *(one[0] for one in found_points)])
    slicer = np.array(found[b"SLAN"], dtype=float).reshape(-1, 6)
    whole = found[b"MINX"][-1].reshape(6, 3) if found[b"MINX"] else None
    if not (np.isfinite(points).all() and np.isfinite(slicer).all()):
        raise ValueError("the model has points that are no finite numbers")
    sizes = np.array([len(one[0]) for one in found_points], dtype=int)
    return Model(
        points=points,
        objects=np.repeat(np.array([one[1] for one in found_points], dtype=int), sizes),
        contours=np.repeat(np.array([one[2] for one in found_points], dtype=int), sizes),
        names=tuple(names),
        flags=flags,
        pixel_size=pixel * UNITS[unit] if unit in UNITS and pixel > 0 else None,
        image=None if whole is None else (whole[1], whole[3], whole[4]),
        slicer=slicer,
    )


def is_motive_list(path: Path) -> bool:
    """Whether a .csv begins as a motive list of PEET."""
    with path.open("rb") as file:
        return file.read(16).removeprefix(b"\xef\xbb\xbf").startswith(HEAD)


def read_motive_list(path: Path, options: ReadOptions) -> pd.DataFrame:
    """Read a motive list of PEET and the model beside it as particles, without tilts; ``score``, ``class`` and ``object`` too.

    The model is called as the list, or as what stands before ``_MOTL`` or ``_initMOTL`` in its name.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If `parse` refuses the model, this is no motive list, or it names a point twice or one that is not there.

    Warns
    -----
    UserWarning
        If points of the model are not in the list: they are left out.
    """
    rows = _motive_list(paths.text(path))
    stems = dict.fromkeys([path.stem, path.stem.split("_MOTL")[0], path.stem.split("_initMOTL")[0]])
    there = [place for stem in stems if (place := path.with_name(f"{stem}.mod")).is_file()]
    if not there:
        names = ", ".join(f"{stem}.mod" for stem in stems)
        raise FileNotFoundError(f"the points of a motive list of PEET stand in a model; there is none of {names} beside {path}")
    tomogram = options.name("a motive list of PEET, with its model,")
    model = parse(paths.content(there[0]))
    if model.flags & FLIPPED:
        raise ValueError(f"{there[0]} was last seen with y and z exchanged, which PEET does not know")
    size = _voxel_size(model, options.voxel_size)
    points = _table(model, size, tomogram)
    numbers = rows["pIndex"].to_numpy()
    strange = ~np.isin(numbers, points["particle_id"])
    if strange.any() or rows["pIndex"].duplicated().any():
        raise ValueError(
            f"pIndex must count the {len(points)} points of {there[0]} from 1, each once, got "
            f"{', '.join(f'{number:g}' for number in numbers[strange][:5]) or 'some twice'}"
        )
    if len(rows) < len(points):
        warnings.warn(f"{len(points) - len(rows)} of {len(points)} points of {there[0]} are not in {path}", stacklevel=2)
    out = points.iloc[numbers.astype(int) - 1].reset_index(drop=True)
    out[POSITION] += rows[["zOffset", "yOffset", "xOffset"]].to_numpy() * size
    angles = rows[["phi", "theta", "psi"]].to_numpy()
    out[ANGLES] = rotations.to_euler(dynamo.from_zxz(angles).transpose(0, 2, 1))
    out["score"], out["class"] = rows["CCC"], rows["class"]
    return out.assign(**{SOURCE[0]: paths.fingerprint(path), SOURCE[1]: np.arange(len(out))})


def _motive_list(text: str) -> pd.DataFrame:
    """Columns of a motive list that are read, by their first names, as numbers."""
    head, *lines = [line.strip().split(",") for line in text.split("\n") if line.strip()] or [[""]]
    head = [name.strip() for name in head]
    wrong = [names[0] for place, names in PLACES.items() if len(head) <= place or head[place] not in names]
    if wrong:
        begin = ",".join(head)[:200]
        raise ValueError(f"a motive list of PEET has {', '.join(wrong)} at other places than this one, which begins {begin!r}")
    for number, line in enumerate(lines):
        if len(line) != WIDTH:
            raise ValueError(f"row {number} of the motive list has {len(line)} values, expected {WIDTH}")
    names = {place: names[0] for place, names in PLACES.items()} | {CLASS: "class"}
    rows = pd.DataFrame({name: [line[place] for line in lines] for place, name in names.items()}, dtype=str)
    return pd.DataFrame(parsing.numbers(rows, list(rows)), columns=list(rows))


def content(particles: pd.DataFrame, *, voxel_size: float | None, shape: Shape | None) -> bytes:
    """Give a model of scattered points, one contour for each ``object`` and ``contour``, or an object for each ``label``.

    Orientations, ids, tilts and all other columns are left out. Points are in the order of objects and contours. There is no
    MINX, so that 3dmod takes the points as pixels of the volume it shows, whose size is `shape`, or as far as they reach.

    Raises
    ------
    ValueError
        If the voxel size is not known or the particles are in several tomograms.
    """
    size = check_voxel_size(voxel_size, "a model of IMOD")
    tomogram = only_tomogram(particles, "a model")
    points = (tables.positions(particles)[:, ::-1] / size + CORNER).astype(">f4")
    known = shape.get(tomogram) if isinstance(shape, Mapping) else shape
    reach = np.ceil(points.max(axis=0, initial=0)) + 1 if known is None else np.array(known)[::-1]
    objects, contours, names = _groups(particles)
    count = int(objects.max(initial=0))
    written = [_object(points, objects == number, contours, names.get(number, "")) for number in range(1, count + 1)]
    shown, levels, offsets, scales, chosen = (1, 1), (0, 255), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0, 0, -1, 3, 128)
    size_xyz = [int(voxels) for voxels in reach]
    values = (*size_xyz, count, UNTOUCHED, *shown, *levels, *offsets, *scales, *chosen, size, ANGSTROM, 0, *offsets)
    return MAGIC + MODEL.pack(b"tomolab", *values) + b"".join(written) + b"IEOF"


def _groups(particles: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Object and contour of each particle, counted from 1, and names of objects."""
    contours = np.ones(len(particles), dtype=int)
    labels = particles["label"].fillna("").astype(str).to_numpy() if "label" in particles else np.full(len(particles), "")
    if "object" not in particles:
        place, _ = pd.factorize(labels)
        objects = place + 1
    else:
        objects = _counted(particles, "object")
        contours = _counted(particles, "contour") if "contour" in particles else contours
    # An object with particles of several labels has no name.
    found = pd.Series(labels).groupby(objects).unique()
    return objects, contours, {int(number): one[0] for number, one in found.items() if len(one) == 1}


def _counted(particles: pd.DataFrame, name: str) -> np.ndarray:
    numbers = parsing.numbers(particles, [name])[:, 0]
    if (numbers < 1).any() or (numbers != np.round(numbers)).any() or (numbers > len(numbers) + 1e4).any():
        raise ValueError(
            f"column {name} must count from 1, got {', '.join(f'{number:g}' for number in np.unique(numbers)[:5])}"
        )
    return numbers.astype(int)


def _object(points: np.ndarray, chosen: np.ndarray, contours: np.ndarray, name: str) -> bytes:
    numbers = contours[chosen]
    last = int(numbers.max(initial=0))
    green, drawn = (0.0, 1.0, 0.0), (3, 1, 3, 1, 1, 0, 0, 0, 0)
    head = OBJECT.pack(name.encode()[:63], b"", last, SCATTERED, 0, 1, *green, *drawn, 0, 0)
    lines = [points[chosen][numbers == number] for number in range(1, last + 1)]
    return b"OBJT" + head + b"".join(b"CONT" + CONTOUR.pack(len(line), 0, 0, 0) + line.tobytes() for line in lines)


def _voxel_size(model: Model, stated: float | None) -> float:
    """Å per pixel of a model; a ValueError if it says none and none is stated, or another than is stated."""
    size = model.pixel_size
    if model.image is not None:
        scale = model.image[1]
        if not (scale > 0).all():
            raise ValueError(f"the model says pixel sizes of {', '.join(f'{size:g}' for size in scale)} Å")
        # IMOD writes 1 where the header of the image does not know.
        if (np.abs(scale - 1) > TOLERANCE).any():
            if (np.abs(scale / scale[0] - 1) > TOLERANCE).any():
                raise ValueError(
                    f"the voxels of the volume are not cubes: {', '.join(f'{size:g}' for size in scale)} Å along x, y, z"
                )
            size = float(scale[0])
    if size is not None and stated is not None and abs(size / stated - 1) > TOLERANCE:
        raise ValueError(f"the model says {size:g} Å per pixel, but voxel_size={stated:g} was given")
    return check_voxel_size(size if stated is None else stated, "a model that does not say its pixel size")


class _Source:
    """Bytes that are taken one after the other, never more than there are."""

    def __init__(self, raw: bytes, place: int) -> None:
        self.raw, self.place = raw, place

    def some(self, count: int) -> bytes:
        if count < 0 or count > len(self.raw) - self.place:
            raise ValueError(f"the model ends at byte {len(self.raw)}, but {count} bytes should follow byte {self.place}")
        self.place += count
        return self.raw[self.place - count : self.place]

    def take(self, layout: struct.Struct) -> tuple:
        return layout.unpack(self.some(layout.size))

    def floats(self, count: int) -> np.ndarray:
        return np.frombuffer(self.some(4 * count), dtype=">f4").astype(float)

    def mark(self) -> bytes:
        return self.some(4)

    def length(self) -> int:
        return struct.unpack(">i", self.some(4))[0]

    def skip(self, count: int) -> None:
        self.some(count)
