"""Takes our own files (JSON, .npy, .npz, Parquet, CSV, safetensors), gives what they hold, read without trust.

A file may be damaged, or come from somebody else. What it says of its size is held against its length before memory is taken,
nothing in it is run, and whatever is wrong with it is a ValueError that names it.

>>> about = mapping("runs/first/manifest.json")
>>> found = arrays("runs/first/session.npz")
"""

import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from torch import Tensor

DEEPEST = 100
"""Levels of JSON in JSON; averages begun from averages have two for each generation."""
PLENTY = 2**26
"""Bytes that any file may unpack to."""
RATIO = 100
"""Times its own bytes that a larger file may unpack to."""
WRONG = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    EOFError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    pa.ArrowException,
    SafetensorError,
)
"""What readers of other packages raise about a damaged file."""


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Turn whatever is raised about a damaged file into a ValueError that names it.

    Parameters
    ----------
    path
        The file or folder.
    what
        It was to be, such as "a session".

    Raises
    ------
    FileNotFoundError
        If that is raised.
    ValueError
        If anything else is raised that a damaged file can cause.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except WRONG as error:
        told = str(error) or type(error).__name__
        raise ValueError(told if str(path) in told else f"{path} cannot be read as {what}: {told}") from error
    except OSError as error:
        # Of a file that cannot be opened the system tells the name; the others are of readers that lost their way in it.
        if error.filename is not None:
            raise
        raise ValueError(f"{path} cannot be read as {what}: {error}") from error


def present(path: str | Path) -> Path:
    """The path, if a file is there; FileNotFoundError if nothing is, or a folder or device."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return Path(path)


def mapping(path: str | Path, what: str = "a record") -> dict[str, Any]:
    """Read a JSON object.

    Parameters
    ----------
    path
        The file, in UTF-8.
    what
        It is to be, for the message.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON, no object, or nested deeper than `DEEPEST`.
    """
    with reading(path, what):
        return parsed(present(path).read_bytes().decode("utf-8"))


def parsed(text: str | bytes) -> dict[str, Any]:
    """The JSON object of a text; ValueError if it is none, or nested deeper than `DEEPEST`."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, expected an object")
    _shallow(found, DEEPEST)
    return found


def typed(about: dict[str, Any], /, **kinds: type | tuple[type, ...]) -> None:
    """Refuse entries of other types than these; ValueError if one is missing too. A yes or no is no number here.

    Parameters
    ----------
    about
        The entries.
    **kinds
        Types by name.
    """
    for name, kind in kinds.items():
        if name not in about:
            raise ValueError(f"it has no {name}")
        if not isinstance(about[name], kind) or (isinstance(about[name], bool) and kind is not bool):
            wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise ValueError(f"its {name} is {str(about[name])[:40]!r}, expected {wanted}")


@dataclass(frozen=True)
class Claim:
    """What the header of an array says, and the bytes before its values."""

    shape: tuple[int, ...]
    dtype: np.dtype
    columns_first: bool
    start: int


def claim(file: IO[bytes], length: int, *, start: int = 0) -> Claim:
    """Read the header of a .npy file, and hold it against the length of the file.

    Parameters
    ----------
    file
        At its beginning.
    length
        Bytes of all of it.
    start
        Place in `file` where it begins.

    Raises
    ------
    ValueError
        If it asks for pickle or holds other values than numbers and text, or more or fewer than there are bytes.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}, expected (1, 0) or (2, 0)")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = header(file)
    if dtype.kind not in "biufU" or dtype.itemsize == 0:
        raise ValueError(f"values of type {dtype}, expected numbers or text")
    head, count = file.tell() - start, 1
    for n in shape:
        if type(n) is not int or n < 0:
            raise ValueError(f"an array of shape {str(shape)[:80]}")
        count *= n
    if head + count * dtype.itemsize != length:
        raise ValueError(f"an array {str(shape)[:80]} of {dtype} does not fit into its {length:,} bytes")
    return Claim(shape, dtype, columns_first, head)


def array(path: str | Path, *, mode: str | None = None) -> np.ndarray:
    """Read a .npy file.

    Parameters
    ----------
    path
        The file.
    mode
        "r" or "r+" maps it instead.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no array of numbers or text, or does not hold what it says.
    """
    with reading(path, "an array"):
        with present(path).open("rb") as file:
            claim(file, Path(path).stat().st_size)
        return np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]


def arrays(path: str | Path, what: str = "arrays", *, without: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read the arrays of a .npz file, by name.

    Parameters
    ----------
    path
        The file.
    what
        It is to be, for the message.
    without
        Names of arrays that are checked, but not read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no .npz file of numbers and text, or does not hold what it says.
    """
    found: dict[str, np.ndarray] = {}
    with reading(path, what), present(path).open("rb") as source, zipfile.ZipFile(source) as archive:
        entries, length = archive.infolist(), Path(path).stat().st_size
        if sum(one.compress_size for one in entries) > length:
            raise ValueError(f"its parts are said to be longer than its {length:,} bytes")
        if sum(one.file_size for one in entries) > max(PLENTY, RATIO * length):
            raise ValueError(f"its {length:,} bytes are said to unpack to more than {RATIO} times as many")
        for one in entries:
            name = one.filename.removesuffix(".npy")
            if name in found or name == one.filename:
                raise ValueError(f"a part {one.filename[:80]!r}, expected arrays of different names")
            with archive.open(one) as file:
                claim(file, one.file_size)
            if name not in without:
                with archive.open(one) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def table(place: str | Path | bytes, what: str = "a table", *, name: str | Path = "") -> pd.DataFrame:
    """Read a Parquet file.

    Parameters
    ----------
    place
        The file, or what is in it.
    what
        It is to be, for the message.
    name
        Of the file, where what is in it is given.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no Parquet file, or holds far more than its length allows.
    """
    if isinstance(place, bytes):
        with reading(name, what):
            return _table(pa.BufferReader(place), len(place))
    # Opened once: another process may put another file in its place meanwhile.
    with reading(place, what), pa.OSFile(str(present(place))) as file:
        return _table(file, file.size())


def _table(source: pa.NativeFile, length: int) -> pd.DataFrame:
    """A table from a file of pyarrow's own: threads that it leaves at work on a damaged one crash in a file of Python's."""
    most = max(PLENTY, RATIO * length)
    with pq.ParquetFile(source, memory_map=False) as file:
        rows, groups = file.metadata.num_rows, range(file.metadata.num_row_groups)
        said = sum(file.metadata.row_group(n).total_byte_size for n in groups)
        # Ids are unique: no row takes less than a byte.
        if not 0 <= rows <= length or not 0 <= said <= most:
            raise ValueError(f"{rows:,} rows of {said:,} bytes are said to be in {length:,} bytes")
        texts = [one.name for one in file.schema_arrow if _is_text(one.type)]
    # Of a text that is in many rows, the file holds one copy; in memory there would be one for each.
    with pq.ParquetFile(source, memory_map=False, read_dictionary=texts) as file:
        if texts and sum(map(_unpacked, file.read(columns=texts, use_threads=False).columns)) > most:
            raise ValueError(f"its {length:,} bytes would unpack to more than {most:,}")
    # Not by pandas, whose reader takes more threads.
    with pq.ParquetFile(source, memory_map=False, pre_buffer=False) as file:
        return file.read(use_threads=False).to_pandas(use_threads=False)


def listing(path: str | Path, columns: Sequence[str], what: str = "a table") -> pd.DataFrame:
    """Read a CSV file with these columns of finite numbers.

    Parameters
    ----------
    path
        The file.
    columns
        Those that must be there.
    what
        It is to be, for the message.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not UTF-8, lacks a column, or one holds something else.
    """
    with reading(path, what):
        found = pd.read_csv(present(path), encoding="utf-8-sig")
        missing = [name for name in columns if name not in found]
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        for name in columns:
            numbers = pd.to_numeric(found[name], errors="coerce").to_numpy(dtype=float)
            if not np.isfinite(numbers).all() or pd.api.types.is_bool_dtype(found[name]):
                raise ValueError(f"its column {name} holds something else than numbers")
        return found


def tensors(path: str | Path, what: str = "tensors") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and its metadata.

    Parameters
    ----------
    path
        The file.
    what
        It is to be, for the message.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such file.
    """
    with reading(path, what), safe_open(present(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}, file.metadata() or {}


def _shallow(value: Any, left: int) -> None:
    if not left:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, (dict, list)):
            _shallow(one, left - 1)


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, each value once or in every row."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(plain) or pa.types.is_large_string(plain)


def _unpacked(column: pa.ChunkedArray) -> int:
    """Bytes of a column of text that is kept as different values and which of them each row has."""
    total = 0
    for part in column.chunks:
        lengths = (
            pc.binary_length(part.dictionary).to_numpy(zero_copy_only=False) if pa.types.is_dictionary(part.type) else None
        )
        if lengths is None:
            total += part.nbytes
        elif len(lengths):
            rows = part.indices.drop_null().to_numpy(zero_copy_only=False)
            total += int(np.nan_to_num(lengths.astype(float))[rows].sum())
    return total
