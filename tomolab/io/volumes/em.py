"""Takes EM files of TOM, PyTom, AV3 and Artiatomi (.em, .vol), gives arrays (z, y, x) of their numbers; writes such files.

An EM file has a header of 512 bytes with the machine, the number type and three sizes. The numbers follow, x fastest. The
machine code states the byte order but is not always set, so the byte order is the one in which the sizes fit the file length.
Programs disagree on the unit of the pixel size in the header or leave it empty, so the user states the voxel size.
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
"""Code of a machine that writes the low byte first."""
MACHINES = range(7)
LIST_COLUMNS = 20
"""Numbers per particle in a motive list."""
MRC_ID = slice(208, 211)
"""Bytes of the map id in an MRC file."""


def recognised(path: Path) -> bool:
    """Whether a file is EM: it is no MRC file, and its name ends in .em or its sizes fit the file length."""
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
    """Map the numbers of an EM file (z, y, x) into memory, after a check of the header sizes against the file length.

    Raises
    ------
    ValueError
        If this is no EM file of real numbers; the message does not name the file.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER)
    if len(head) < HEADER:
        raise ValueError(f"this is no EM file: it has {length} bytes, and the header alone {HEADER}")
    number_type = TYPES.get(head[3])
    if number_type is None:
        raise ValueError(
            f"this is no EM file of real numbers: its type is {head[3]}, and {', '.join(map(str, TYPES))} are known"
        )
    # Not every program sets the machine code, so the file length decides the byte order.
    sizes = {order: struct.unpack(f"{order}3i", head[4:16]) for order in "<>"}
    fitting = [order for order in sizes if _length(sizes[order], number_type) == length - HEADER]
    if not fitting:
        stated = " x ".join(map(str, sizes["<"]))
        raise ValueError(
            f"the header names {stated} numbers of {np.dtype(number_type).itemsize} bytes, but {length - HEADER} bytes follow"
        )
    order, shape = fitting[0], sizes[fitting[0]][::-1]
    if 0 in shape:
        return np.empty(shape, dtype=f"{order}{number_type}")
    return np.memmap(path, dtype=f"{order}{number_type}", mode="r", offset=HEADER, shape=shape)


def open_volume(path: str | Path, *, voxel_size: float | None = None) -> Tomogram:
    """Open a volume, from which only the requested blocks are read.

    Parameters
    ----------
    path
        EM file.
    voxel_size
        Å; required, since the file does not state it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no EM file of real numbers, is a motive list, holds bytes that programs read differently, or `voxel_size`
        is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        found = numbers(path)
        _check(found)
        if voxel_size is None:
            raise ValueError("an EM file does not state its voxel size; give voxel_size= in Å")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Tomogram(found.shape, voxel_size, tomogram.unchanged(path, found), str(path))  # type: ignore[arg-type]


def content(data: np.ndarray) -> bytes:
    """Bytes of an EM file with these numbers (z, y, x) in single precision, low byte first."""
    head = struct.pack("<4B3i", PC, 0, 0, 5, *data.shape[::-1]).ljust(HEADER, b"\0")
    return head + np.ascontiguousarray(data, dtype="<f4").tobytes()


def write_volume(volume: Volume, path: str | Path) -> Path:
    """Write a volume as an EM file of single precision, whole or not at all; the file does not state the voxel size."""
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
    if found.dtype.itemsize == 1 and any((section < 0).any() for section in found):
        raise ValueError(
            "it holds bytes of more than 127, which TOM reads as 128 to 255 and other programs as -128 to -1; save it as float"
        )


def _length(sizes: tuple[int, ...], number_type: str) -> int:
    """Bytes of an array of these sizes; -1 if a size is negative."""
    return -1 if min(sizes) < 0 else sizes[0] * sizes[1] * sizes[2] * np.dtype(number_type).itemsize
