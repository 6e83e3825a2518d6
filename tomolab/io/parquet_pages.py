"""Takes an open Parquet file, gives the bytes to which its pages unpack, by the headers that Arrow allocates memory by.

The footer of a file may say anything of the size of a column. Arrow unpacks page after page, each into memory of the size that
stands before the page, and never writes more. Format: apache/parquet-format (PageHeader), in the compact protocol of Thrift.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HEADER_BYTES = 2**24
"""Largest header of a page that Arrow reads."""
UNPACKED, PACKED = 2, 3
"""Fields of a PageHeader: bytes of the page."""


def unpacked_bytes(source: pa.NativeFile, metadata: pq.FileMetaData) -> int:
    """Bytes of all pages of all columns, unpacked; ValueError if a header is damaged."""
    return sum(_column_bytes(source, column) for column in columns(metadata))


def columns(metadata: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    """Metadata of each column of each row group."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        yield from map(group.column, range(metadata.num_columns))


def _column_bytes(source: pa.NativeFile, column: pq.ColumnChunkMetaData) -> int:
    place = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < place:
        place = column.dictionary_page_offset
    end, total = place + column.total_compressed_size, 0
    while place < end:
        fields, length = _header(source, place)
        unpacked, packed = (value if isinstance(value := fields.get(number), int) else -1 for number in (UNPACKED, PACKED))
        if min(unpacked, packed) < 0:
            raise ValueError(f"the page at byte {place:,} of column {column.path_in_schema!r} has no valid header")
        total += unpacked
        place += length + packed
    return total


def _header(source: pa.NativeFile, place: int) -> tuple[dict[int, Any], int]:
    """Fields of the header at a place of the file, and its length."""
    for length in (2**10, HEADER_BYTES):
        source.seek(place)
        header = _Compact(source.read(length))
        try:
            return header.struct(), header.place
        except IndexError:
            continue
    raise ValueError(f"the page at byte {place:,} has no complete header")


class _Compact:
    """Bytes in Thrift's compact protocol, read from the start; an IndexError where they end too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self) -> dict[int, Any]:
        """Values of a structure by the numbers of its fields."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            # A truth value stands in the head.
            fields[number] = head & 15 == 1 if head & 15 in (1, 2) else self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 12:
            return self.struct()
        if kind in (9, 10):
            head = self._byte()
            count = self._unsigned() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15) for _ in range(count)]
        if kind not in (1, 2, 3, 7, 8):
            raise ValueError(f"a header of a page holds a value of the unknown kind {kind}")
        self._skip(self._unsigned() if kind == 8 else 8 if kind == 7 else 1)
        return None

    def _skip(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise IndexError

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _unsigned(self) -> int:
        out = shift = 0
        while True:
            byte = self._byte()
            out |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return out

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
