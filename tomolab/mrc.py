"""MRC files: maps, tomograms and tilt series, read with their header held against the file and the user's word.

Modes 0 (int8), 1 (int16), 2 (float32), 6 (uint16) and 12 (float16) are read, plain, gzipped or bzip2ed; axes come out as
(z, y, x) whatever their order in the file, and `tomolab.flips` tells of those of IMOD whose axes mean something else. What a
file is, its content says, not its name. Offsets in the header (nxstart, origin) are ignored: position 0 is the centre of
voxel 0. Format: Cheng et al. 2015, MRC2014.
"""

import bz2
import gzip
import sys
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import mrcfile
import numpy as np
import psutil

from tomolab import __version__, flips
from tomolab.flips import Flip
from tomolab.paths import atomic
from tomolab.sources import Slices, Tomogram
from tomolab.volumes import Volume

TYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}
HEADER_BYTES = 1024
STEP = 2**24
EXTENSION_BYTES = 2**26
"""Of an extended header; those of microscopes and IMOD hold less than a hundredth of it."""
LARGE = 2**30
"""Bytes of a compressed tomogram from which on its memory is told before it is read."""
DEFLATE = 1032
"""What gzip can shrink at most (zlib's technical details)."""
TOLERANCE = 0.01
"""Relative difference up to which two voxel sizes are taken to be the same."""
BROKEN = (EOFError, OSError, zlib.error)
"""What gzip and bz2 raise for a stream that is cut short or is not theirs."""


def read_volume(
    path: str | Path, *, voxel_size: float | None = None, permissive: bool = False, flipped: Flip | None = None
) -> Volume:
    """Read a map or tomogram.

    Parameters
    ----------
    path
        MRC file, also .gz or .bz2.
    voxel_size
        Å; needed where the header does not know it (0 or 1 Å), else held against the header.
    permissive
        Also read files whose map id, machine stamp or axis order are not set; mrcfile warns of what it guessed.
    flipped
        How a tomogram with its thickness along y is turned, False, "swap" or "rotate", see `tomolab.flips`. By default what
        seems to be one is refused with the question.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not MRC, is shorter than its header says, does not fit into memory, is complex or a stack of
        volumes, holds NaN, its voxel size is unknown, not the same along all axes or unlike the one given, or it seems to be
        flipped and nobody said whether it is.
    """
    header, order = _header(Path(path), permissive)
    perm, found = _geometry(header, path, voxel_size=voxel_size, permissive=permissive, flipped=flipped)
    data = flips.turn(_data(Path(path), header, order).transpose(perm), flipped)
    try:
        return Volume(np.ascontiguousarray(data), found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def open_volume(
    path: str | Path, *, voxel_size: float | None = None, permissive: bool = False, flipped: Flip | None = None
) -> Tomogram:
    """Open a map or tomogram and read of it what is asked for.

    A plain file is mapped into memory. A compressed one must be read whole when the first block is asked for; if that takes
    more than 1 GB, a warning says how much before.

    Parameters
    ----------
    path, voxel_size, permissive, flipped
        As of `read_volume`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_volume`; values that are NaN are found when they are read.
    """
    path = Path(path)
    header, order = _header(path, permissive)
    perm, found = _geometry(header, path, voxel_size=voxel_size, permissive=permissive, flipped=flipped)
    kind, shape, start = _layout(header, order)
    _, size = _enough(path, kind, shape, start)
    if _opener(path) is not open:
        needed = 4 * size // kind.itemsize
        if needed > LARGE:
            warnings.warn(f"{path} is compressed and must be read whole: {needed:,} bytes of memory", stacklevel=2)

        @cache
        def whole() -> np.ndarray:
            return flips.turn(_data(path, header, order).transpose(perm), flipped)

        return Tomogram(_turned(shape, perm, flipped), found, lambda slices: whole()[slices], str(path))
    mapped = flips.turn(np.memmap(path, dtype=kind, mode="r", offset=start, shape=shape).transpose(perm), flipped)
    told = path.stat()

    def fetch(slices: Slices) -> np.ndarray:
        # A file that shrinks under its map would end the process, not raise an error.
        now = path.stat() if path.is_file() else None
        if now is None or (now.st_size, now.st_mtime_ns) != (told.st_size, told.st_mtime_ns):
            raise ValueError(f"{path} is not the file any more that was opened; open it again")
        return mapped[slices]

    return Tomogram(mapped.shape, found, fetch, str(path))


def read_stack(path: str | Path, *, pixel_size: float | None = None, permissive: bool = False) -> tuple[np.ndarray, float]:
    """Read a tilt series: images (n, y, x) float32 in the order of the file, and the pixel size in Å.

    Parameters
    ----------
    path
        MRC file (.mrc, .st, .ali), also .gz or .bz2.
    pixel_size
        Å; needed where the header does not know it (0 or 1 Å), else held against the header.
    permissive
        Also read files whose map id or machine stamp are not set.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_volume`.
    """
    header, order = _header(Path(path), permissive)
    found = _voxel_size(header, ("x", "y"), path, stated=pixel_size, name="pixel_size")
    data = _data(Path(path), header, order)
    bad = data.size - int(np.count_nonzero(np.isfinite(data)))
    if bad:
        raise ValueError(f"{path}: the stack holds {bad} values that are NaN or infinite, of {data.size}")
    return data, found


def write_volume(volume: Volume, path: str | Path) -> Path:
    """Write a volume as MRC mode 2 (float32), whole or not at all; compressed where the name ends in .gz or .bz2.

    Parameters
    ----------
    volume
        Its voxel size goes into the header, together with statistics and a label with the version of tomolab.
    path
        Where the file stands at the end; one that exists is replaced.
    """
    path = Path(path)
    compression = {".gz": "gzip", ".bz2": "bzip2"}.get(path.suffix)
    with atomic(path) as temporary, mrcfile.new(temporary, compression=compression) as file:
        file.set_data(volume.data)
        file.set_volume()
        file.voxel_size = volume.voxel_size
        file.header.label = b""
        file.header.label[0] = f"tomolab {__version__}".encode()
        file.header.nlabl = 1
    return path


def _header(path: Path, permissive: bool) -> tuple[Any, Literal["<", ">"]]:
    """Header as mrcfile reads it, and the byte order of the file."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    _check_extension(path)
    try:
        with mrcfile.open(path, header_only=True, permissive=permissive) as file:
            header = file.header.copy()
    except (ValueError, *BROKEN) as error:
        raise ValueError(f"{path} cannot be read as MRC: {error}") from error
    mode = int(header.mode)
    if mode not in TYPES:
        kinds = {3: "complex", 4: "complex", 101: "4-bit"}
        raise ValueError(
            f"{path} has mode {mode} ({kinds.get(mode, 'unknown')}); modes {', '.join(map(str, TYPES))} can be read"
        )
    if min(int(header.nx), int(header.ny), int(header.nz)) < 1 or int(header.nsymbt) < 0:
        raise ValueError(
            f"{path} has a header of {header.nx} x {header.ny} x {header.nz} voxels, {header.nsymbt} bytes of extension"
        )
    if 401 <= int(header.ispg) <= 630:
        raise ValueError(f"{path} holds a stack of volumes (space group {header.ispg}); split it into single volumes")
    return header, _byte_order(header)


def _data(path: Path, header: Any, order: Literal["<", ">"]) -> np.ndarray:
    """Grey values as float32, (sections, rows, columns), after the sizes in the header are found to be true."""
    kind, shape, start = _layout(header, order)
    told, expected = _enough(path, kind, shape, start)
    voxels, opener = expected // kind.itemsize, _opener(path)
    free = psutil.virtual_memory().available
    if expected + 4 * voxels > free:
        raise ValueError(f"{told} but only {free:,} bytes of memory are free")
    # What a packed file holds shows only as it is unpacked, so its memory grows with that.
    raw, done = np.empty(expected if opener is open else min(expected, STEP), dtype=np.uint8), 0
    try:
        with opener(path, "rb") as stream:
            _skip(stream, start)
            while done < expected:
                if done == len(raw):
                    raw.resize(min(2 * done, expected), refcheck=False)
                count = stream.readinto(raw[done : done + STEP])
                if not count:
                    raise ValueError(f"{told} but the file holds {done:,}")
                done += count
            if stream.read(1):
                warnings.warn(f"{told} and the file holds more; the rest is ignored", stacklevel=3)
    except BROKEN as error:
        raise ValueError(f"{told} but the file holds {done:,} that can be read ({error})") from error
    return raw.view(kind).reshape(shape).astype(np.float32, copy=False)


def _layout(header: Any, order: Literal["<", ">"]) -> tuple[np.dtype, tuple[int, int, int], int]:
    """Type of the values, (sections, rows, columns), and where they start."""
    kind = np.dtype(TYPES[int(header.mode)]).newbyteorder(order)
    if kind == np.int8 and _unsigned_bytes(header):
        kind = np.dtype(np.uint8)
    return kind, (int(header.nz), int(header.ny), int(header.nx)), HEADER_BYTES + int(header.nsymbt)


def _enough(path: Path, kind: np.dtype, shape: tuple[int, int, int], start: int) -> tuple[str, int]:
    """What the header says, in words and in bytes, after it is found that the file can hold as much."""
    expected = shape[0] * shape[1] * shape[2] * kind.itemsize
    told = f"{path}: the header says {' x '.join(map(str, shape))} voxels (z, y, x), {expected:,} bytes of data,"
    size, opener = path.stat().st_size, _opener(path)
    if opener is open and size < start + expected:
        raise ValueError(f"{told} but the file holds {max(0, size - start):,}")
    if opener is gzip.open and expected > DEFLATE * size:
        raise ValueError(f"{told} but a gzipped file of {size:,} bytes cannot hold so many")
    return told, expected


def _turned(shape: tuple[int, int, int], perm: tuple[int, int, int], flipped: Flip | None) -> tuple[int, int, int]:
    """(z, y, x) of what lies in the file as (sections, rows, columns)."""
    z, y, x = (shape[axis] for axis in perm)
    return (y, z, x) if flipped else (z, y, x)


def _check_extension(path: Path) -> None:
    """Refuse an extended header that is larger than any, before it is read."""
    try:
        with _opener(path)(path, "rb") as stream:
            header = stream.read(HEADER_BYTES)
    except BROKEN:
        return
    size = int.from_bytes(header[92:96], "big" if header[212:213] == b"\x11" else "little")
    if EXTENSION_BYTES < size < 2**31:
        raise ValueError(f"{path} says that its extended header has {size:,} bytes, expected at most {EXTENSION_BYTES:,}")


def _geometry(
    header: Any, path: str | Path, *, voxel_size: float | None, permissive: bool, flipped: Flip | None
) -> tuple[tuple[int, int, int], float]:
    """Transposition to (z, y, x) and Å per voxel, after it is clear whether the volume is flipped."""
    flips.check(flipped)
    perm = _axis_order(header, path, permissive)
    found = _voxel_size(header, ("x", "y", "z"), path, stated=voxel_size)
    lengths = (int(header.nz), int(header.ny), int(header.nx))
    count = min(max(int(header.nlabl), 0), 10)
    labels = [bytes(label).decode("ascii", "replace") for label in header.label[:count]]
    why = flips.suspicion((lengths[perm[0]], lengths[perm[1]], lengths[perm[2]]), labels)
    if why and flipped is None:
        raise flips.ask(path, why)
    return perm, found


def _byte_order(header: Any) -> Literal["<", ">"]:
    order = header.mode.dtype.byteorder
    return ">" if order == ">" or (order == "=" and sys.byteorder == "big") else "<"


def _opener(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(3)
    return gzip.open if start[:2] == b"\x1f\x8b" else bz2.open if start == b"BZh" else open


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0 and (got := len(stream.read(min(count, STEP)))):
        count -= got


def _unsigned_bytes(header: Any) -> bool:
    """Whether IMOD wrote mode 0 as unsigned bytes: its stamp is there (words 39, 40) and the flag for signed bytes is not."""
    extra = bytes(header.extra2)
    stamp, flags = np.frombuffer(extra[40:48], dtype=np.dtype("i4").newbyteorder(_byte_order(header)))
    return int(stamp) == 1146047817 and not int(flags) & 1


def _axis_order(header: Any, path: str | Path, permissive: bool) -> tuple[int, int, int]:
    """Transposition from (sections, rows, columns) to (z, y, x)."""
    order = [int(header.maps), int(header.mapr), int(header.mapc)]
    if order == [0, 0, 0] and permissive:
        return 0, 1, 2
    if sorted(order) != [1, 2, 3]:
        raise ValueError(f"{path}: columns, rows and sections are axes {order[::-1]}, expected each of 1, 2, 3 once")
    return order.index(3), order.index(2), order.index(1)


def _voxel_size(
    header: Any, axes: tuple[str, ...], path: str | Path, *, stated: float | None, name: str = "voxel_size"
) -> float:
    """Å per voxel from the header and from the user, who must agree."""
    if stated is not None and not (np.isfinite(stated) and stated > 0):
        raise ValueError(f"{name} must be a positive number of Å, got {stated}")
    steps = {axis: int(header[f"m{axis}"]) for axis in axes}
    sizes = np.array([float(header.cella[axis]) / steps[axis] if steps[axis] > 0 else 0.0 for axis in axes])
    told = " x ".join(f"{size:.4g}" for size in sizes)
    known = np.isfinite(sizes) & (sizes > 0) & (np.abs(sizes - 1) > 1e-4)
    if not known.all():
        if stated is None:
            raise ValueError(
                f"{path}: the header says {told} Å per voxel, which is what programs leave when they do not know; give {name}="
            )
        sizes = sizes[known]
    elif np.ptp(sizes) > TOLERANCE / 2 * sizes.mean():
        raise ValueError(f"{path}: the header says {told} Å per voxel ({', '.join(axes)}), not the same along all axes")
    if stated is None:
        return float(sizes[0])
    if (np.abs(sizes / stated - 1) > TOLERANCE).any():
        raise ValueError(f"{path}: the header says {told} Å per voxel, but {name}={stated:g} was given")
    return float(stated)
