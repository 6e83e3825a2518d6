"""Takes MRC files, gives maps, tomograms and tilt series, after the header was checked against the file; writes MRC.

Modes 0 (int8), 1 (int16), 2 (float32), 6 (uint16) and 12 (float16) are read, plain, gzipped or bzip2ed; axes come out as
(z, y, x) whatever their order in the file; `tomolab.io.volumes.flips` treats files of IMOD with other axes. The content of a
file decides its format, not its name. Offsets in the header (nxstart, origin) are ignored: position 0 is the centre of
voxel 0. Format: Cheng et al. 2015, MRC2014.
"""

import warnings
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import mrcfile
import numpy as np

from tomolab import __version__, memory
from tomolab.io.paths import atomic
from tomolab.io.volumes import flips, mrc_headers, tomogram
from tomolab.io.volumes.flips import Flip
from tomolab.io.volumes.mrc_headers import TOLERANCE as TOLERANCE
from tomolab.io.volumes.mrc_headers import Order
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.volumes import Volume

STEP = 2**24
LARGE = 2**30
"""Bytes of memory above which reading a compressed tomogram gives a warning."""


def open_volume(
    path: str | Path, *, voxel_size: float | None = None, permissive: bool = False, flipped: Flip | None = None
) -> Tomogram:
    """Open a map or tomogram, from which only the requested blocks are read.

    An uncompressed file is mapped into memory. A compressed one is read whole at the first block, with a warning if that takes
    more than 1 GB.

    Parameters
    ----------
    path
        MRC file, also .gz or .bz2.
    voxel_size
        Å; required where the header does not state it (0 or 1 Å), else compared with the header.
    permissive
        Also read files whose map id, machine stamp or axis order are not set; a warning says how they are read.
    flipped
        How the axes of a tomogram with its thickness along y are reordered: False, "swap" or "rotate"
        (`tomolab.io.volumes.flips`). By default a file that seems to be one is refused.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not MRC, is shorter than its header says, is complex or a stack of volumes, its voxel size is unknown,
        differs between the axes or from `voxel_size`, or it seems to be flipped and `flipped` is None. On reading, also if it
        does not fit into memory or holds NaN.
    """
    path = Path(path)
    header, order = mrc_headers.read(path, permissive=permissive)
    perm, found = _geometry(header, path, voxel_size=voxel_size, permissive=permissive, flipped=flipped)
    dtype, shape, start = mrc_headers.layout(header, order)
    stated, size = mrc_headers.check_length(path, header, order)
    if mrc_headers.opener(path) is not open:

        @cache
        def whole() -> np.ndarray:
            needed = 4 * size // dtype.itemsize
            if needed > LARGE:
                warnings.warn(f"{path} is compressed and must be read whole: {needed:,} bytes of memory", stacklevel=2)
            return flips.turn(_data(path, header, order).transpose(perm), flipped)

        z, y, x = (shape[axis] for axis in perm)
        return Tomogram((y, z, x) if flipped else (z, y, x), found, lambda slices: whole()[slices], str(path))
    if path.stat().st_size > start + size:
        warnings.warn(f"{stated} and the file holds more; the rest is ignored", stacklevel=2)
    mapped = flips.turn(np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape).transpose(perm), flipped)
    return Tomogram(mapped.shape, found, tomogram.unchanged(path, mapped), str(path))


def read_stack(path: str | Path, *, pixel_size: float | None = None, permissive: bool = False) -> tuple[np.ndarray, float]:
    """Read a tilt series: images (n, y, x) float32 in the order of the file, and the pixel size in Å.

    Parameters
    ----------
    path
        MRC file (.mrc, .st, .ali), also .gz or .bz2.
    pixel_size
        Å; required where the header does not state it (0 or 1 Å), else compared with the header.
    permissive
        Also read files whose map id or machine stamp are not set.

    Raises
    ------
    FileNotFoundError, ValueError
        As `open_volume`.
    """
    header, order = mrc_headers.read(Path(path), permissive=permissive)
    counts = {"x": int(header.nx), "y": int(header.ny)}
    found = mrc_headers.voxel_size(header, counts, path, stated=pixel_size, name="pixel_size")
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
        The file; an existing one is replaced.
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


def _data(path: Path, header: Any, order: Order) -> np.ndarray:
    """Grey values as float32, (sections, rows, columns), after a check of the header sizes against the file."""
    dtype, shape, start = mrc_headers.layout(header, order)
    stated, expected = mrc_headers.check_length(path, header, order)
    voxels, opener = expected // dtype.itemsize, mrc_headers.opener(path)
    memory.check(expected + 4 * voxels, f"{stated} and reading it takes")
    # Only decompression shows how much a compressed file holds, so the buffer grows with it.
    raw, done = np.empty(expected if opener is open else min(expected, STEP), dtype=np.uint8), 0
    try:
        with opener(path, "rb") as stream:
            _skip(stream, start)
            while done < expected:
                if done == len(raw):
                    raw.resize(min(2 * done, expected), refcheck=False)
                count = stream.readinto(raw[done : done + STEP])
                if not count:
                    raise ValueError(f"{stated} but the file holds {done:,}")
                done += count
            if stream.read(1):
                warnings.warn(f"{stated} and the file holds more; the rest is ignored", stacklevel=3)
    except mrc_headers.BROKEN as error:
        raise ValueError(f"{stated} but the file holds {done:,} that can be read ({error})") from error
    return raw.view(dtype).reshape(shape).astype(np.float32, copy=False)


def _geometry(
    header: Any, path: str | Path, *, voxel_size: float | None, permissive: bool, flipped: Flip | None
) -> tuple[tuple[int, int, int], float]:
    """Transposition to (z, y, x) and Å per voxel; ValueError if the volume seems to be flipped and `flipped` is None."""
    flips.check(flipped)
    perm = mrc_headers.axis_order(header, path, permissive=permissive)
    lengths = (int(header.nz), int(header.ny), int(header.nx))
    z, y, x = (lengths[axis] for axis in perm)
    found = mrc_headers.voxel_size(header, {"x": x, "y": y, "z": z}, path, stated=voxel_size)
    count = min(max(int(header.nlabl), 0), 10)
    labels = [bytes(label).decode("ascii", "replace") for label in header.label[:count]]
    reason = flips.reason_flipped((z, y, x), labels)
    if reason and flipped is None:
        raise flips.flip_error(path, reason)
    return perm, found


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0 and (got := len(stream.read(min(count, STEP)))):
        count -= got
