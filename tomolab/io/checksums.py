"""Takes what tomolab writes and puts its CRC-32C into it; compares it when it is read, so that damaged bits are noticed.

A file of JSON, Parquet or safetensors has the checksum in its own metadata, where other programs pass over it: `MARK` and
eight hexadecimal digits, of the file with zeros in their place. A folder has those of its files in ``checksums.json``. A file
without a checksum, as other programs write it, is not compared.
"""

import io
import json
import mmap
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save as to_bytes
from torch import Tensor

from tomolab.io.paths import content, inside

KEY, MARK = "checksum", b"tomolab-crc32c:"
EMPTY = MARK.decode() + 8 * "0"
"""Value of `KEY` before `stamp`."""
BEFORE = re.compile(rb'checksum(?:": ?"|\x18\x17)$')
"""What stands before `MARK` in JSON and safetensors, and in Parquet; a text of a user has it only with other quotes."""
SUMS = "checksums.json"
SUMS_BYTES = 2**26
"""Bytes of a file of checksums, at most."""
PIECE = 2**22
"""Bytes that are read at once."""


def crc32c(data: Any, start: int = 0) -> int:
    """CRC-32C (Castagnoli) of bytes or an array; `start` is that of what comes before."""
    return int(google_crc32c.extend(start, bytes(data)))


def file_crc32c(path: str | Path) -> str:
    """CRC-32C of a file as eight hexadecimal digits."""
    total = 0
    with Path(path).open("rb") as file:
        while piece := file.read(PIECE):
            total = crc32c(piece, total)
    return f"{total:08x}"


def stamp(data: bytes) -> bytes:
    """The content of a file with its checksum in place of that of `EMPTY`."""
    place = _place(data)
    return data[:place] + _sum(data, place) + data[place + 8 :]


def check(data: Any) -> None:
    """ValueError if the content of a file (bytes or mmap) does not have its checksum."""
    place = _place(data)
    if place and (found := data[place : place + 8]) != (real := _sum(data, place)):
        raise ValueError(
            f"it was damaged, or changed by hand: its CRC-32C is {real.decode()}, but it was written with "
            f"{found.decode(errors='replace')}; restore it from a copy, or delete "
            f"the entry {KEY} of a JSON file to take it as it is"
        )


def check_file(path: str | Path) -> None:
    """ValueError if a file does not have its checksum."""
    with Path(path).open("rb") as file:
        if Path(path).stat().st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                check(data)


def _place(data: Any) -> int:
    """Where the digits of a checksum begin; 0 without one. It is the last in a file, after all texts of a user."""
    mark = data.rfind(MARK)
    while mark >= 0 and not BEFORE.search(data[max(0, mark - 16) : mark]):
        mark = data.rfind(MARK, 0, mark)
    return mark + len(MARK) if mark >= 0 else 0


def _sum(data: Any, place: int) -> bytes:
    """CRC-32C, as digits, of bytes with zeros in the eight from `place` on."""
    total = 0
    for piece in (*_pieces(data, 0, place), 8 * b"0", *_pieces(data, place + 8, len(data))):
        total = crc32c(piece, total)
    return f"{total:08x}".encode()


def _pieces(data: Any, start: int, end: int) -> Iterator[bytes]:
    return (data[first : min(first + PIECE, end)] for first in range(start, end, PIECE))


def json_bytes(about: Mapping[str, Any]) -> bytes:
    """A JSON object as the content of a file, with its checksum."""
    return stamp((json.dumps({**about, KEY: EMPTY}, indent=1) + "\n").encode())


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """A table without its index as the content of a Parquet file, with its checksum."""
    arrow, file = pa.Table.from_pandas(table, preserve_index=False), io.BytesIO()
    pq.write_table(arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), KEY: EMPTY}), file)
    return stamp(file.getvalue())


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors by name as the content of a safetensors file, with its checksum."""
    return stamp(to_bytes({name: tensor.contiguous() for name, tensor in tensors.items()}, {**(metadata or {}), KEY: EMPTY}))


def write_folder(folder: Path) -> None:
    """Write ``checksums.json``: the checksums of all files in a folder."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / SUMS).write_bytes(json_bytes({"files": {name: file_crc32c(folder / name) for name in names}}))


def check_folder(folder: Path) -> None:
    """ValueError if a file in a folder is not what it was when ``checksums.json`` was written."""
    path = inside(folder, SUMS)
    if not path.is_file():
        return
    data = content(path, most=SUMS_BYTES)
    check(data)
    for name, written in json.loads(data)["files"].items():
        if inside(folder, name).is_file() and (real := file_crc32c(folder / name)) != written:
            raise ValueError(
                f"{folder / name} was damaged, or changed by another program: its CRC-32C is {real}, but it was written with "
                f"{written}; restore it from a copy, or delete {path} to take it as it is"
            )
