"""Takes a file of tomolab (JSON, .npy, .npz, Parquet, CSV, safetensors), checks it as untrusted input, gives its content.

A file may be damaged or hostile. The sizes that it states are compared with its length before memory is allocated, and
nothing in it is run. Every function raises FileNotFoundError if there is no file, and ValueError with the name of the file if
it has a fault. `what` is the expected content, for that message.

>>> about = read_json("runs/first/manifest.json", "a manifest")
>>> found = read_npz("runs/first/session.npz")
"""

import json
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tomolab.io import checksums
from tomolab.io.parquet_pages import columns, unpacked_bytes
from tomolab.io.paths import content

MAX_DEPTH = 100
"""Levels of nesting in JSON; averages that start from averages need two per generation."""
MAX_JSON = 2**28
"""Bytes of a JSON file."""
MAX_HEADER = 2**24
"""Bytes of the header of a safetensors file."""
MAX_UNPACKED = 2**26
"""Bytes to which any file may decompress."""
MAX_RATIO = 100
"""Compression ratio that a larger file may have."""
ERRORS = (
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
"""Errors that readers of other packages raise for a damaged file."""


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Convert `ERRORS` of a damaged file or folder to a ValueError that names it; FileNotFoundError stays."""
    try:
        yield
    except FileNotFoundError:
        raise
    except ERRORS as error:
        message = str(error) or type(error).__name__
        raise ValueError(message if str(path) in message else f"{path} cannot be read as {what}: {message}") from error
    except OSError as error:
        # The system names a file that it cannot open; other errors come from readers of a damaged file.
        if error.filename is not None:
            raise
        raise ValueError(f"{path} cannot be read as {what}: {error}") from error


def existing_file(path: str | Path) -> Path:
    """The path of a regular file; FileNotFoundError if there is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return Path(path)


def read_json(path: str | Path, what: str = "a record") -> dict[str, Any]:
    """Read a JSON object in UTF-8."""
    with reading(path, what):
        return parse_json(content(existing_file(path), most=MAX_JSON, times=25))


def parse_json(text: str | bytes) -> dict[str, Any]:
    """The JSON object of a text; ValueError if it is no object, nested deeper than `MAX_DEPTH` or lacks its checksum."""
    data = text.encode() if isinstance(text, str) else text
    checksums.check(data)
    found = json.loads(data.decode("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, expected an object")
    _check_depth(found, MAX_DEPTH)
    found.pop(checksums.KEY, None)
    return found


def _check_depth(value: Any, left: int) -> None:
    if not left:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, (dict, list)):
            _check_depth(one, left - 1)


def check_types(about: dict[str, Any], /, **types: type | tuple[type, ...]) -> None:
    """Raise ValueError unless these entries exist and have these types. A bool does not count as a number."""
    for name, expected in types.items():
        if name not in about:
            raise ValueError(f"it has no {name}")
        if not isinstance(about[name], expected) or (isinstance(about[name], bool) and expected is not bool):
            names = " or ".join(one.__name__ for one in (expected if isinstance(expected, tuple) else (expected,)))
            raise ValueError(f"its {name} is {str(about[name])[:40]!r}, expected {names}")


def npy_header(file: IO[bytes], length: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of a .npy file of `length` bytes, up to its values: shape, Fortran order and dtype.

    Raises
    ------
    ValueError
        If the array needs pickle, holds other values than numbers and text, or has more or fewer bytes than the file.
    """
    start = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}, expected (1, 0) or (2, 0)")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = header(file)
    if dtype.kind not in "biufU" or dtype.itemsize == 0:
        raise ValueError(f"values of type {dtype}, expected numbers or text")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"an array of shape {str(shape)[:80]}")
    if file.tell() - start + math.prod(shape) * dtype.itemsize != length:
        raise ValueError(f"an array {str(shape)[:80]} of {dtype} does not fit into its {length:,} bytes")
    return shape, fortran_order, dtype


def read_npy(path: str | Path, *, mode: Literal["r", "r+"] | None = None) -> np.ndarray:
    """Read a .npy file of numbers or text; `mode` "r" or "r+" maps it into memory instead."""
    with reading(path, "an array"):
        with existing_file(path).open("rb") as file:
            npy_header(file, Path(path).stat().st_size)
        return np.load(path, mmap_mode=mode, allow_pickle=False)


def read_npz(path: str | Path, what: str = "arrays", *, without: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read the arrays of a .npz file by name; those in `without` are only checked."""
    found: dict[str, np.ndarray] = {}
    with reading(path, what), existing_file(path).open("rb") as source, zipfile.ZipFile(source) as archive:
        entries, length = archive.infolist(), Path(path).stat().st_size
        if sum(one.compress_size for one in entries) > length:
            raise ValueError(f"its arrays claim to be longer than its {length:,} bytes")
        if sum(one.file_size for one in entries) > max(MAX_UNPACKED, MAX_RATIO * length):
            raise ValueError(f"its {length:,} bytes claim to unpack to more than {MAX_RATIO} times as many")
        for one in entries:
            if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(
                    f"{one.filename[:80]!r} is compressed by method {one.compress_type}, expected stored or deflated"
                )
            name = one.filename.removesuffix(".npy")
            if name in found or name == one.filename:
                raise ValueError(f"an entry {one.filename[:80]!r}, expected arrays of different names")
            with archive.open(one) as file:
                npy_header(file, one.file_size)
            if name not in without:
                with archive.open(one) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def read_parquet(source: str | Path | bytes, what: str = "a table", *, name: str | Path = "") -> pd.DataFrame:
    """Read a Parquet file, or its bytes with a `name` for the message."""
    if isinstance(source, bytes):
        with reading(name, what):
            checksums.check(source)
            return _parquet(pa.BufferReader(source), len(source))
    # Opened once: another process may replace the file meanwhile.
    with reading(source, what), pa.OSFile(str(existing_file(source))) as file:
        checksums.check_file(source)
        return _parquet(file, file.size())


def _parquet(source: pa.NativeFile, length: int) -> pd.DataFrame:
    """A table from a pyarrow file: on a Python file, pyarrow's threads can crash after an error."""
    most = max(MAX_UNPACKED, MAX_RATIO * length)
    with pq.ParquetFile(source, memory_map=False) as file:
        metadata, schema = file.metadata, file.schema_arrow
    for one in schema:
        if not _is_number(one.type) and not _is_text(one.type):
            raise ValueError(
                f"its column {one.name!r} holds {one.type}, expected a number or text in each row; save lists as columns, with "
                f"pandas.DataFrame(table[{one.name!r}].tolist(), index=table.index)"
            )
    # Columns of one value, or of none, take no room in a file. Ids are unique: no row takes less than a byte.
    rows, needed = metadata.num_rows, metadata.num_rows * sum(_row_bytes(one.type) for one in schema)
    unpacked = unpacked_bytes(source, metadata)
    if not 0 <= rows <= length or max(needed, unpacked) > most:
        raise ValueError(
            f"its {length:,} bytes claim to hold {rows:,} rows of {len(schema)} columns, which take {max(needed, unpacked):,} "
            f"bytes of memory, expected at most {most:,}"
        )
    if any("DELTA_BYTE_ARRAY" in column.encodings for column in columns(metadata)):
        raise ValueError("its texts are written by what each shares with the one before, and no size is known; save it without")
    texts = [one.name for one in schema if _is_text(one.type)]
    # The file holds a text that many rows share once, memory a copy for each row.
    with pq.ParquetFile(source, memory_map=False, read_dictionary=texts) as file:
        if texts and sum(map(_text_bytes, file.read(columns=texts, use_threads=False).columns)) > most:
            raise ValueError(f"its {length:,} bytes would unpack to more than {most:,}")
    # pandas would use more threads.
    with pq.ParquetFile(source, memory_map=False, pre_buffer=False) as file:
        return file.read(use_threads=False).to_pandas(use_threads=False)


def _row_bytes(column_type: pa.DataType) -> int:
    """Bytes of a value of a column in pandas, without those of a text."""
    plain = _plain(column_type)
    # Others become objects of Python.
    return 8 if _is_text(plain) or pa.types.is_integer(plain) or pa.types.is_floating(plain) else 64


def _is_number(column_type: pa.DataType) -> bool:
    """Whether each value of a column has the same few bytes; a list or a binary value can have any number."""
    plain = _plain(column_type)
    return pa.types.is_primitive(plain) or pa.types.is_null(plain)


def _is_text(column_type: pa.DataType) -> bool:
    plain = _plain(column_type)
    return pa.types.is_string(plain) or pa.types.is_large_string(plain)


def _plain(column_type: pa.DataType) -> pa.DataType:
    """Type of the values of a column, which may be in a dictionary."""
    return column_type.value_type if pa.types.is_dictionary(column_type) else column_type


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a text column with one copy of the text per row."""
    total = 0
    for chunk in column.chunks:
        if not pa.types.is_dictionary(chunk.type):
            total += chunk.nbytes
        elif len(chunk.dictionary):
            lengths = pc.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False)
            rows = chunk.indices.drop_null().to_numpy(zero_copy_only=False)
            total += int(np.nan_to_num(lengths.astype(float))[rows].sum())
    return total


def read_csv(path: str | Path, columns: Sequence[str], what: str = "a table") -> pd.DataFrame:
    """Read a CSV file in UTF-8 that has these columns of finite numbers."""
    with reading(path, what):
        found = pd.read_csv(BytesIO(content(existing_file(path))), encoding="utf-8-sig")
        missing = [name for name in columns if name not in found]
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        for name in columns:
            numbers = pd.to_numeric(found[name], errors="coerce").to_numpy(dtype=float)
            if not np.isfinite(numbers).all() or pd.api.types.is_bool_dtype(found[name]):
                raise ValueError(f"its column {name} holds something else than numbers")
        return found


def read_safetensors(path: str | Path, what: str = "tensors") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and its metadata."""
    with reading(path, what):
        with existing_file(path).open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if header > MAX_HEADER:
            raise ValueError(f"its header has {header:,} bytes, expected at most {MAX_HEADER:,}")
        checksums.check_file(path)
        with safe_open(path, framework="pt") as file:
            about = {key: value for key, value in (file.metadata() or {}).items() if key != checksums.KEY}
            return {name: file.get_tensor(name) for name in sorted(file.keys())}, about
