"""EM files of TOM, PyTom, AV3 and Artiatomi (.em, .vol): in come volumes and tables of numbers, out go arrays (z, y, x).

An EM file is a header of 512 bytes, in which stand the machine, the type of number and three sizes, and the numbers, x
fastest. The machine tells which byte comes first, but is not always set; the size of the file tells it too. There is a place
for the size of a pixel, but programs do not agree on its unit or leave it, so it is not read: the user states the voxel size.
"""

import struct
from pathlib import Path

import numpy as np

from tomolab.io.paths import atomic
from tomolab.io.volumes import tomogram
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.volumes import Volume

HEADER = 512
TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}
PC = 6
"""Number of the machine that writes the low byte first."""
MACHINES = range(7)
LIST_COLUMNS = 20
"""Numbers of a particle in a motive list."""
MRC_ID = slice(208, 211)
"""Where an MRC file says what it is."""


def recognised(path: Path) -> bool:
    """Whether a file is EM: by its sizes, which are those of the file, or by its name if it is no MRC file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEADER)
    if head[MRC_ID] == b"MAP":
        return False
    if path.suffix.lower() == ".em":
        return True
    if len(head) < HEADER or head[0] not in MACHINES or head[3] not in TYPES:
        return False
    sizes = [struct.unpack(f"{order}3i", head[4:16]) for order in "<>"]
    return path.stat().st_size - HEADER in [_length(one, TYPES[head[3]]) for one in sizes]


def numbers(path: Path) -> np.ndarray:
    """Numbers of an EM file (z, y, x), mapped from the file, after its sizes were held against that of the file.

    Raises
    ------
    ValueError
        If this is no EM file of real numbers; the message does not name it.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER)
    if len(head) < HEADER:
        raise ValueError(f"this is no EM file: it has {length} bytes, and the header alone {HEADER}")
    kind = TYPES.get(head[3])
    if kind is None:
        raise ValueError(
            f"this is no EM file of real numbers: its type is {head[3]}, and {', '.join(map(str, TYPES))} are known"
        )
    # Not every program states the machine; which byte is first shows in the size of the file.
    sizes = {order: struct.unpack(f"{order}3i", head[4:16]) for order in "<>"}
    fitting = [order for order in sizes if _length(sizes[order], kind) == length - HEADER]
    if not fitting:
        told = " x ".join(map(str, sizes["<"]))
        raise ValueError(
            f"the header names {told} numbers of {np.dtype(kind).itemsize} bytes, but {length - HEADER} bytes follow"
        )
    order, shape = fitting[0], sizes[fitting[0]][::-1]
    if 0 in shape:
        return np.empty(shape, dtype=f"{order}{kind}")
    return np.memmap(path, dtype=f"{order}{kind}", mode="r", offset=HEADER, shape=shape)


def open_volume(path: str | Path, *, voxel_size: float | None = None) -> Tomogram:
    """Open a volume, of which only what is asked for is read.

    Parameters
    ----------
    path
        EM file.
    voxel_size
        Å; needed, since the file does not tell.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no EM file of real numbers, is a motive list, holds bytes that programs read differently, or its voxel size
        is not given.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        found = numbers(path)
        _check(found)
        if voxel_size is None:
            raise ValueError("an EM file does not tell the size of its voxels; give voxel_size= in Å")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Tomogram(found.shape, voxel_size, tomogram.unchanged(path, found), str(path))  # type: ignore[arg-type]


def content(data: np.ndarray) -> bytes:
    """Bytes of an EM file that holds numbers (z, y, x) in single precision, low byte first."""
    head = struct.pack("<4B3i", PC, 0, 0, 5, *data.shape[::-1]).ljust(HEADER, b"\0")
    return head + np.ascontiguousarray(data, dtype="<f4").tobytes()


def write_volume(volume: Volume, path: str | Path) -> Path:
    """Write a volume as an EM file of single precision, whole or not at all; its voxel size has no place in the file."""
    path = Path(path)
    with atomic(path) as temporary:
        temporary.write_bytes(content(volume.data))
    return path


def _check(found: np.ndarray) -> None:
    z, y, x = found.shape
    if min(found.shape) < 1:
        raise ValueError(f"it holds {x} x {y} x {z} numbers, no volume")
    if z == 1 and x == LIST_COLUMNS:
        raise ValueError(f"it holds {x} numbers for each of {y} rows, as a motive list does; io.read_particles reads it")
    if found.dtype.itemsize == 1 and any((part < 0).any() for part in found):
        raise ValueError(
            "it holds bytes of more than 127, which TOM reads as 128 to 255 and other programs as -128 to -1; save it as float"
        )


def _length(sizes: tuple[int, ...], kind: str) -> int:
    """Bytes of so many numbers; -1 if a size is negative."""
    return -1 if min(sizes) < 0 else sizes[0] * sizes[1] * sizes[2] * np.dtype(kind).itemsize
