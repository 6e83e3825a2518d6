"""Parquet files whose footer, or whose pages, hold more than a file of their size should."""

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tomolab.io import safe_load
from tomolab.io.parquet_pages import columns, unpacked_bytes

BYTES = 100_000_000
TABLE = pa.table({"particle_id": np.arange(5000), "name": pa.array(["TS_01", "TS_02"] * 2500), "score": np.arange(5000) / 7})
PACKED = ("zstd", "gzip", "brotli", "lz4", "snappy", "none")


def number(value: int, width: int) -> bytes:
    """A number of Thrift in so many bytes."""
    return bytes([(2 * value >> 7 * i & 127) | 128 * (i < width - 1) for i in range(width)])


def hide(path: Path) -> None:
    """Let the footer say that the second column holds a thousand bytes, in a file of the same length."""
    group, raw = pq.ParquetFile(path).metadata.row_group(0), path.read_bytes()
    start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    foot = raw[start:-8]
    for size in (group.total_byte_size, group.column(1).total_uncompressed_size):
        width = ((2 * size).bit_length() + 6) // 7
        foot = foot.replace(number(size, width), number(1000, width))
    path.write_bytes(raw[:start] + foot + raw[-8:])
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size == 1000


def peak(path: Path, said: str) -> int:
    """Bytes that Arrow and Python took at most until the file was refused."""
    old = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(old)
    pa.set_memory_pool(pool)
    tracemalloc.start(1)
    try:
        with pytest.raises(ValueError, match=said):
            safe_load.read_parquet(path)
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(old)


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("compression", PACKED[:4])
def test_a_page_that_the_footer_hides_is_not_unpacked(tmp_path: Path, compression: str, dictionary: bool) -> None:
    options = {"use_dictionary": dictionary, "dictionary_pagesize_limit": 2**31 - 1, "write_statistics": False}
    table = pa.table({"particle_id": [1], "name": ["x" * BYTES]})
    pq.write_table(table, tmp_path / "a.parquet", compression=compression, **options)
    hide(tmp_path / "a.parquet")
    assert peak(tmp_path / "a.parquet", r"claim to hold 1 rows of 2 columns, which take 100,0.* bytes of memory") < BYTES // 3


@pytest.mark.parametrize("value", [None, 1.5, 7, "TS_01"])
def test_columns_that_take_no_room_in_a_file_are_counted(tmp_path: Path, value: object) -> None:
    rows, some = 100_000, pa.array([value] * 100_000, pa.int64() if value is None else None)
    ids = np.random.default_rng(0).permutation(rows)
    pq.write_table(pa.table({"particle_id": ids} | {f"c{n}": some for n in range(200)}), tmp_path / "a.parquet")
    assert peak(tmp_path / "a.parquet", "100,000 rows of 201 columns, which take 160,800,000 bytes of memory") < BYTES // 3


def test_texts_that_share_their_beginning_are_refused(tmp_path: Path) -> None:
    table = pa.table({"particle_id": np.arange(1000), "name": pa.array(["x" * 100_000] * 1000)})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, column_encoding={"name": "DELTA_BYTE_ARRAY"})
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    assert (
        peak(tmp_path / "a.parquet", "what each shares with the one before, and no size is known; save it without") < BYTES // 3
    )


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", PACKED)
def test_pages_are_as_long_as_their_writer_says(tmp_path: Path, compression: str, version: str) -> None:
    path = tmp_path / "a.parquet"
    options = {"data_page_version": version, "data_page_size": 1000, "row_group_size": 1500, "write_page_checksum": True}
    pq.write_table(TABLE, path, compression=compression, **options)
    metadata = pq.ParquetFile(path).metadata
    stated = sum(one.total_uncompressed_size for one in columns(metadata))
    # They count the headers, too.
    assert 0.8 * stated < unpacked_bytes(pa.OSFile(str(path)), metadata) < stated
    pd.testing.assert_frame_equal(safe_load.read_parquet(path), TABLE.to_pandas())


def test_damaged_headers_of_pages_are_refused_or_read(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.parquet", random.Random(0)
    pq.write_table(TABLE, path, data_page_size=1000, compression="none")
    raw = path.read_bytes()
    starts = [one.dictionary_page_offset or one.data_page_offset for one in columns(pq.ParquetFile(path).metadata)]
    for _ in range(300):
        place = rng.choice(starts) + rng.randrange(30)
        path.write_bytes(raw[:place] + rng.randbytes(rng.randrange(1, 9)) + raw[place + 8 :])
        said = refused(path)
        assert said is None or str(path) in said


def refused(path: Path) -> str | None:
    """What was said against a file; None if it was read."""
    try:
        safe_load.read_parquet(path)
    except ValueError as error:
        return str(error)
    return None
