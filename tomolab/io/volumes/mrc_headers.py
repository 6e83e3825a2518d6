"""Takes an MRC file, gives its byte order, value type, shape, axes and Å per voxel, checked against the file and the user.

The standard (Cheng et al. 2015, MRC2014): along each axis, ``cella`` is the length in Å of ``mx``, ``my``, ``mz`` steps, so Å
per voxel are length by steps, whatever the number of voxels. Where a program left 0 or 1 steps, or a number that makes the
axes differ, ``cella`` may also be the length of all voxels. Such a header is refused, not guessed.
"""

import bz2
import gzip
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

Order = Literal["<", ">"]
TYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}
OTHER_MODES = {3: "complex", 4: "complex", 101: "4-bit"}
HEADER_BYTES = 1024
EXTENSION_BYTES = 2**26
"""Largest extended header; those of microscopes and IMOD have less than a hundredth of it."""
TOLERANCE = 0.01
"""Relative difference up to which two voxel sizes count as equal."""
DEFLATE = 1032
"""Largest compression ratio of gzip (zlib's technical details)."""
BROKEN = (EOFError, OSError, zlib.error)
"""Errors of gzip and bz2 for a stream that is truncated or has another format."""
STAMPS: dict[bytes, Order] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
WORDS: dict[Order, str] = {"<": "low byte first", ">": "high byte first"}


def read(path: Path, *, permissive: bool) -> tuple[Any, Order]:
    """Read the header of an MRC file and its byte order.

    Parameters
    ----------
    path
        The file, also .gz or .bz2.
    permissive
        Also read a header whose map id or machine stamp is not set, or whose stamp states the other byte order. The byte order
        is then the one in which mode and sizes are valid, with a warning.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If this is no MRC file of real numbers, or its map id or machine stamp is not set. The message says whether
        ``permissive=True`` reads the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    raw = _start(path)
    header, order, wrong = _ordered(path, raw)
    if wrong:
        fault = f"{path} cannot be read as MRC: {'; '.join(wrong)}"
        if order is None:
            raise ValueError(fault)
        sizes = f"{header.nx} x {header.ny} x {header.nz} voxels (x, y, z) of mode {header.mode}, {WORDS[order]}"
        if not permissive:
            fits = int(header.mode) in TYPES and _holds(path, header, order)
            hint = f". permissive=True (read_volume, open_volume, read_stack) reads it, as {sizes}" if fits else ""
            raise ValueError(fault + hint)
        warnings.warn(f"{path}: {'; '.join(wrong)}; it is read as {sizes}", stacklevel=4)
    _check(path, header)
    return header, order or "<"


def opener(path: Path) -> Any:
    """`gzip.open`, `bz2.open` or `open`, by the first bytes of a file."""
    with path.open("rb") as file:
        start = file.read(3)
    return gzip.open if start[:2] == b"\x1f\x8b" else bz2.open if start == b"BZh" else open


def layout(header: Any, order: Order) -> tuple[np.dtype, tuple[int, int, int], int]:
    """Type of the values, (sections, rows, columns), and where they start."""
    dtype = np.dtype(TYPES[int(header.mode)]).newbyteorder(order)
    if dtype == np.int8 and _unsigned_bytes(header, order):
        dtype = np.dtype(np.uint8)
    return dtype, _shape(header), HEADER_BYTES + int(header.nsymbt)


def check_length(path: Path, header: Any, order: Order) -> tuple[str, int]:
    """Description of the data that the header states, and its bytes; ValueError if the file cannot hold them."""
    dtype, shape, start = layout(header, order)
    expected = shape[0] * shape[1] * shape[2] * dtype.itemsize
    stated = f"{path}: the header says {' x '.join(map(str, shape))} voxels (z, y, x), {expected:,} bytes of data,"
    size, opened = path.stat().st_size, opener(path)
    if opened is open and size < start + expected:
        raise ValueError(f"{stated} but the file holds {max(0, size - start):,}")
    if opened is gzip.open and expected > DEFLATE * size:
        raise ValueError(f"{stated} but a gzipped file of {size:,} bytes cannot hold so many")
    return stated, expected


def axis_order(header: Any, path: str | Path, *, permissive: bool) -> tuple[int, int, int]:
    """Transposition from (sections, rows, columns) to (z, y, x); ValueError unless the axes are 1, 2, 3 in some order."""
    order = [int(header.maps), int(header.mapr), int(header.mapc)]
    if order == [0, 0, 0] and permissive:
        return 0, 1, 2
    if sorted(order) != [1, 2, 3]:
        hint = "; permissive=True takes them to be x, y, z" if order == [0, 0, 0] else ""
        raise ValueError(f"{path}: columns, rows and sections are axes {order[::-1]}, expected each of 1, 2, 3 once{hint}")
    return order.index(3), order.index(2), order.index(1)


def voxel_size(
    header: Any, counts: dict[str, int], path: str | Path, *, stated: float | None, name: str = "voxel_size"
) -> float:
    """Å per voxel, on which the header and the user must agree.

    Parameters
    ----------
    header
        From `read`.
    counts
        Voxels along each axis in use: "x", "y" and, for volumes, "z".
    path, name
        The file and the name of the user's parameter, for messages.
    stated
        Value of the user, compared with all axes whose length and number of steps are known and agree; where the header
        contradicts itself, it counts alone.

    Raises
    ------
    ValueError
        If the header does not state it, contradicts itself or differs from `stated`.
    """
    if stated is not None and not (np.isfinite(stated) and stated > 0):
        raise ValueError(f"{name} must be a positive number of Å, got {stated}")
    axes = _Axes(
        list(counts),
        np.array([int(header[f"m{axis}"]) for axis in counts]),
        np.array([float(header.cella[axis]) for axis in counts]),
        np.array(list(counts.values())),
    )
    found = f"{path}: the header says {' x '.join(f'{size:.4g}' for size in axes.sizes)} Å per voxel ({', '.join(axes.names)})"
    if stated is None:
        _check_complete(found, axes, name)
        return float(axes.sizes[0])
    reliable = axes.known & ~axes.doubtful
    if not axes.alike:
        # A length that equals the stated voxel size is that of a single voxel, not of all of them.
        reliable &= ~(np.abs(axes.lengths / stated - 1) <= TOLERANCE)
    if reliable.any() and not _same(axes.sizes[reliable]):
        agree = np.abs(axes.sizes / stated - 1) <= TOLERANCE
        if 2 * (agree & reliable).sum() <= reliable.sum():
            raise ValueError(f"{found}, not the same along all axes, and {name}={stated:g} was given")
        # Programs that crop or bin may keep the old length of an axis.
        warnings.warn(f"{found}; {name}={stated:g} is taken for all axes, as it was given", stacklevel=3)
        reliable &= agree
    # Without a reliable axis, each reading in which all axes agree is compared with the user.
    consistent = [one for one in (axes.sizes, axes.wholes) if axes.known.any() and _same(one)]
    readings = [axes.sizes[reliable]] if reliable.any() else consistent
    if readings and not any((np.abs(one / stated - 1) <= TOLERANCE).all() for one in readings):
        raise ValueError(f"{found}, but {name}={stated:g} was given")
    return float(stated)


@dataclass(frozen=True)
class _Axes:
    """Axes of a header: their names, numbers of steps, lengths in Å and numbers of voxels."""

    names: list[str]
    steps: np.ndarray
    lengths: np.ndarray
    voxels: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Å per voxel by the standard, 0 where there are no steps."""
        out = np.zeros(len(self.steps))
        return np.divide(self.lengths, self.steps, out=out, where=self.steps > 0)

    @property
    def wholes(self) -> np.ndarray:
        """Å per voxel if the length is that of all voxels."""
        return self.lengths / self.voxels

    @property
    def known(self) -> np.ndarray:
        """Whether each size is neither 0 nor 1 Å, which programs write when it is unknown."""
        return np.isfinite(self.sizes) & (self.sizes > 0) & (np.abs(self.sizes - 1) > 1e-4)

    @property
    def alike(self) -> bool:
        """Whether all sizes are known and the same."""
        return bool(self.known.all()) and _same(self.sizes)

    @property
    def doubtful(self) -> np.ndarray:
        """Whether the number of steps may be wrong: it is not that of the voxels, and no other axis confirms the size."""
        odd = self.steps != self.voxels
        if self.alike:
            # Programs write a single step by default; if the other reading makes the axes equal too, both are possible.
            found: np.ndarray = odd & (self.steps == 1) & _same(self.wholes)
            return found
        stepped = self.known & (self.steps > 1)
        near = np.abs(self.sizes[:, None] - self.sizes[None, :]) <= TOLERANCE / 2 * np.abs(self.sizes[:, None])
        confirmed = stepped & ((near & stepped[None, :]).sum(axis=1) > 1)
        return odd & ~confirmed


def _start(path: Path) -> bytes:
    """The bytes of the header; ValueError if the file is shorter."""
    try:
        with opener(path)(path, "rb") as stream:
            raw: bytes = stream.read(HEADER_BYTES)
    except BROKEN as error:
        raise ValueError(f"{path} cannot be read as MRC: {error}") from error
    if len(raw) < HEADER_BYTES:
        raise ValueError(f"{path} cannot be read as MRC: it holds {len(raw)} bytes, and the header alone has {HEADER_BYTES}")
    return raw


def _ordered(path: Path, raw: bytes) -> tuple[Any, Order | None, list[str]]:
    """The header, the byte order in which it is valid or None, and the faults of its map id and stamp."""
    found = {order: _parsed(raw, order) for order in WORDS}
    stamp = STAMPS.get(raw[212:214])
    wrong = [] if raw[208:211] == b"MAP" else ["Map ID string not found - not an MRC file, or file is corrupt"]
    valid = [order for order in found if _valid(found[order])]
    # Sizes up to 65,535 are larger than that in the wrong byte order.
    best = min(valid, key=lambda order: sum(_shape(found[order])), default=None)
    if stamp is None:
        wrong.append(f"Unrecognised machine stamp: {raw[212:216].hex(' ')}")
    elif best is None or stamp == best or (stamp in valid and _holds(path, found[stamp], stamp)):
        return found[stamp], stamp if best else None, wrong
    else:
        wrong.append(f"its machine stamp says {WORDS[stamp]}, but its sizes and mode make sense with the {WORDS[best]}")
    return found[best or "<"], best, wrong


def _parsed(raw: bytes, order: Order) -> Any:
    return np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order)).reshape(()).view(np.recarray).copy()


def _valid(header: Any) -> bool:
    return int(header.mode) in {*TYPES, *OTHER_MODES} and min(_shape(header)) > 0 and 0 <= int(header.nsymbt) < 2**31


def _shape(header: Any) -> tuple[int, int, int]:
    return int(header.nz), int(header.ny), int(header.nx)


def _holds(path: Path, header: Any, order: Order) -> bool:
    """Whether the file can hold the data that a valid header states."""
    if int(header.mode) not in TYPES:
        return True
    try:
        check_length(path, header, order)
    except ValueError:
        return False
    return True


def _check(path: Path, header: Any) -> None:
    mode = int(header.mode)
    if mode not in TYPES:
        raise ValueError(
            f"{path} has mode {mode} ({OTHER_MODES.get(mode, 'unknown')}); modes {', '.join(map(str, TYPES))} can be read"
        )
    if min(_shape(header)) < 1 or int(header.nsymbt) < 0:
        raise ValueError(
            f"{path} has a header of {header.nx} x {header.ny} x {header.nz} voxels, {header.nsymbt} bytes of extension"
        )
    if int(header.nsymbt) > EXTENSION_BYTES:
        raise ValueError(
            f"{path} says that its extended header has {int(header.nsymbt):,} bytes, expected at most {EXTENSION_BYTES:,}"
        )
    if 401 <= int(header.ispg) <= 630:
        raise ValueError(f"{path} holds a stack of volumes (space group {header.ispg}); split it into single volumes")


def _unsigned_bytes(header: Any, order: Order) -> bool:
    """Whether IMOD wrote mode 0 as unsigned bytes: words 39 and 40 have its stamp and no flag for signed bytes."""
    stamp, flags = np.frombuffer(bytes(header.extra2)[40:48], dtype=np.dtype("i4").newbyteorder(order))
    return int(stamp) == 1146047817 and not int(flags) & 1


def _same(sizes: np.ndarray) -> bool:
    return bool(np.isfinite(sizes).all()) and float(np.ptp(sizes)) <= TOLERANCE / 2 * abs(float(sizes.mean()))


def _check_complete(found: str, axes: _Axes, name: str) -> None:
    """Raise ValueError if the header alone does not give one voxel size."""
    reasons = "; ".join(
        f"m{axis} = {step} for {count} voxels and a length of {length:.4g} Å: if that is the length of all of them, "
        f"{length / count:.4g} Å per voxel"
        for axis, length, step, count, one in zip(axes.names, axes.lengths, axes.steps, axes.voxels, axes.doubtful, strict=True)
        if one and np.isfinite(length) and length > 0
    )
    if reasons:
        raise ValueError(f"{found}, but {reasons}. The header does not say which is right; give {name}=")
    if not axes.known.all():
        raise ValueError(f"{found}, which programs write when it is unknown; give {name}=")
    if not axes.alike:
        raise ValueError(
            f"{found}, not the same along all axes; if the voxels are cubes, and a length was left from before the volume "
            f"was cropped, give {name}="
        )
