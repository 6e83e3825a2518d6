"""Bombs: small files of every format that would unpack to gigabytes; how each is answered, and the memory that it took.

Each is read in a process of its own, which may take 6 GB; a file that needs more than that ends in a MemoryError. Memory is
what the process held at most, less what it held before.
"""

import bz2
import gzip
import json
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import record

from tomolab import io
from tomolab.io import safe_load
from tomolab.io.tilts import tables

GIGABYTE = 2**30
MOST = 6 * GIGABYTE
"""Bytes that a process may hold."""
STEP = bytes(2**24)


@dataclass(frozen=True)
class Bomb:
    """Makes a bomb in a folder, and reads it there."""

    make: Callable[[Path], object]
    read: Callable[[Path], Any]


def pieces(pack: Any, size: int = GIGABYTE) -> bytes:
    """Zeros as one stream of a compressor that takes them piece by piece."""
    return b"".join([pack.compress(STEP) for _ in range(size // len(STEP))] + [pack.flush()])


@cache
def gzipped(size: int = GIGABYTE) -> bytes:
    return pieces(zlib.compressobj(1, zlib.DEFLATED, 31), size)


@cache
def zstd_stream(size: int = GIGABYTE) -> bytes:
    """A zstd frame that does not state its size."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for _ in range(size // len(STEP)):
            stream.write(STEP)
    return sink.getvalue().to_pybytes()


def _number(value: int) -> bytes:
    return struct.pack("<I", value)


CHUNKS: dict[str, tuple[dict[str, Any], Callable[[], bytes]]] = {
    "gzip, one member": ({"id": "gzip", "level": 5}, gzipped),
    "gzip, 2,000 members": ({"id": "gzip", "level": 5}, lambda: gzipped(2**24) * 64),
    "zlib": ({"id": "zlib", "level": 5}, lambda: pieces(zlib.compressobj(1))),
    "zstd, size not stated": ({"id": "zstd", "level": 1}, zstd_stream),
    "zstd, 64 frames": ({"id": "zstd", "level": 1}, lambda: numcodecs.Zstd().encode(STEP) * 64),
    "zstd, a frame to skip first": (
        {"id": "zstd", "level": 1},
        lambda: struct.pack("<II", 0x184D2A50, 4) + b"abcd" + zstd_stream(),
    ),
    "blosc, size of 2 GB": (
        {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
        lambda: (lambda one: one[:4] + _number(2**31 - 17) + one[8:])(bytes(numcodecs.Blosc().encode(STEP))),
    ),
    "lz4, size of 2 GB": (
        {"id": "lz4", "acceleration": 1},
        lambda: _number(2**31 - 1) + bytes(numcodecs.LZ4().encode(STEP))[4:],
    ),
}
"""Compressor of Zarr v2, and the bytes of a chunk."""


def zarr2(compressor: dict[str, Any] | None, filters: list[dict[str, Any]] | None, content: Callable[[], bytes]) -> Bomb:
    def make(folder: Path) -> None:
        node = {"zarr_format": 2, "shape": [8, 8, 8], "chunks": [8, 8, 8], "dtype": "<f4", "order": "C", "fill_value": 0}
        (folder / ".zarray").write_text(json.dumps(node | {"compressor": compressor, "filters": filters}))
        (folder / "0.0.0").write_bytes(content())

    return Bomb(make, lambda folder: io.read_volume(folder, voxel_size=10.0))


def zarr3(codecs: list[dict[str, Any]], content: Callable[[], bytes], shard: int = 0) -> Bomb:
    """A chunk of 8³ voxels, or `shard` of them in a shard, each the same."""

    def make(folder: Path) -> None:
        inner = [{"name": "bytes", "configuration": {"endian": "little"}}, *codecs]
        outer = 8 * max(1, shard)
        if shard:
            index = [inner[0], {"name": "crc32c"}]
            about = {"chunk_shape": [8, 8, 8], "codecs": inner, "index_codecs": index, "index_location": "end"}
            inner = [{"name": "sharding_indexed", "configuration": about}]
        grid = {"name": "regular", "configuration": {"chunk_shape": [8, 8, outer]}}
        node = {"zarr_format": 3, "node_type": "array", "shape": [8, 8, outer], "data_type": "float32", "chunk_grid": grid}
        node |= {"chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": inner, "attributes": {}}
        (folder / "zarr.json").write_text(json.dumps(node))
        (folder / "c/0/0").mkdir(parents=True)
        data = content()
        if shard:
            places = np.array([[0, len(data)]] * shard, dtype="<u8").tobytes()
            data += bytes(numcodecs.CRC32C(location="end").encode(places))
        (folder / "c/0/0/0").write_bytes(data)

    return Bomb(make, lambda folder: io.read_volume(folder, voxel_size=10.0))


def summed(data: bytes) -> bytes:
    return bytes(numcodecs.CRC32C(location="end").encode(data))


GZIP, ZSTD = {"name": "gzip", "configuration": {"level": 5}}, {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
ZARR: dict[str, Bomb] = {
    **{f"2, {name}": zarr2(compressor, None, content) for name, (compressor, content) in CHUNKS.items()},
    **{f"2, filter {name}": zarr2(None, [CHUNKS[name][0]], CHUNKS[name][1]) for name in ("gzip, one member", "zlib")},
    "2, gzip in gzip": zarr2({"id": "gzip", "level": 5}, [{"id": "gzip", "level": 5}], lambda: gzip.compress(gzipped())),
    "2, delta of wide values": zarr2(
        {"id": "gzip", "level": 5},
        [{"id": "delta", "dtype": "S1000000", "astype": "|i1"}],
        lambda: gzip.compress(bytes(2048)),
    ),
    "3, gzip": zarr3([GZIP], gzipped),
    "3, zstd, size not stated": zarr3([ZSTD], zstd_stream),
    "3, gzip and crc32c": zarr3([GZIP, {"name": "crc32c"}], lambda: summed(gzipped())),
    "3, gzip in zstd": zarr3([GZIP, ZSTD], lambda: numcodecs.Zstd().encode(gzipped())),
    "3, shards of 4 chunks": zarr3([ZSTD], zstd_stream, 4),
    "3, shards of 1 chunk": zarr3([GZIP], gzipped, 1),
    "3, shards of 4 chunks, crc32c": zarr3([GZIP, {"name": "crc32c"}], lambda: summed(gzipped()), 4),
}


def varint(value: int, width: int) -> bytes:
    """A number of Thrift in so many bytes."""
    return bytes([(value >> 7 * i & 127) | 128 * (i < width - 1) for i in range(width)])


def parquet(table: Callable[[], pa.Table], *, hidden: bool = False, **options: Any) -> Bomb:
    """A table as Parquet; where `hidden`, the footer says that its pages hold a thousand bytes."""

    def make(folder: Path) -> None:
        path = folder / "a.parquet"
        pq.write_table(table(), path, **options)
        if hidden:
            found = pq.ParquetFile(path).metadata.row_group(0)
            raw = path.read_bytes()
            start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
            foot = raw[start:-8]
            for size in {found.total_byte_size, *(found.column(n).total_uncompressed_size for n in range(found.num_columns))}:
                plain = varint(2 * size, (2 * size).bit_length() // 7 + 1)
                foot = foot.replace(plain, varint(2000, len(plain)))
            path.write_bytes(raw[:start] + foot + raw[-8:])

    return Bomb(make, lambda folder: safe_load.read_parquet(folder / "a.parquet"))


def texts(rows: int, length: int) -> pa.Table:
    return pa.table({"particle_id": np.arange(rows), "name": pa.array(["x" * length] * rows)})


def nothing(columns: int, rows: int) -> pa.Table:
    """Columns without a value, which take no room in the file."""
    some = {f"c{n}": pa.nulls(rows, pa.int64()) for n in range(columns)}
    return pa.table({"particle_id": np.random.default_rng(0).permutation(rows)} | some)


PARQUET: dict[str, Bomb] = {
    "a text that all rows share": parquet(lambda: texts(20_000, 100_000)),
    "texts by what they share with the one before": parquet(
        lambda: texts(20_000, 100_000), use_dictionary=False, column_encoding={"name": "DELTA_BYTE_ARRAY"}
    ),
    "the same, in one row group that the footer makes small": parquet(
        lambda: texts(20_000, 100_000), hidden=True, use_dictionary=False, column_encoding={"name": "DELTA_BYTE_ARRAY"}
    ),
    "a page whose size the footer hides, zstd": parquet(
        lambda: texts(1, 2**30), hidden=True, compression="zstd", use_dictionary=False, write_statistics=False
    ),
    "a page whose size the footer hides, gzip": parquet(
        lambda: texts(1, 2**30), hidden=True, compression="gzip", use_dictionary=False, write_statistics=False
    ),
    "a dictionary whose size the footer hides": parquet(
        lambda: texts(1, 2**30), hidden=True, compression="zstd", write_statistics=False, dictionary_pagesize_limit=2**31 - 1
    ),
    "4,000 columns without a value": parquet(lambda: nothing(4000, 300_000), compression="zstd", write_statistics=False),
}


def packed_mrc(pack: Any, name: str, *, shape: tuple[int, int, int] = (8, 8, 8), extra: int = 0) -> Bomb:
    """An MRC file of zeros whose header says `shape`, with 1 GB after it."""

    def make(folder: Path) -> None:
        head = bytearray(1024)
        head[:16] = struct.pack("<4i", *shape[::-1], 2)
        head[28:52] = struct.pack("<3i3f", *shape[::-1], *(10.0 * n for n in shape[::-1]))
        head[64:76], head[92:96] = struct.pack("<3i", 1, 2, 3), struct.pack("<i", extra)
        head[208:216] = b"MAP DD\0\0"
        stream = pack()
        (folder / name).write_bytes(stream.compress(bytes(head)) + pieces(stream))

    return Bomb(make, lambda folder: io.read_volume(folder / name))


def deflater() -> Any:
    return zlib.compressobj(1, zlib.DEFLATED, 31)


MRC: dict[str, Bomb] = {
    "gzip, more than the header says": packed_mrc(deflater, "a.mrc.gz"),
    "bzip2, more than the header says": packed_mrc(bz2.BZ2Compressor, "a.mrc.bz2"),
    "gzip, an extended header of 64 MB": packed_mrc(deflater, "a.mrc.gz", extra=2**26),
    "gzip, a header of 200 GB": packed_mrc(deflater, "a.mrc.gz", shape=(5000, 4000, 2500)),
    "bzip2, a header of 200 GB": packed_mrc(bz2.BZ2Compressor, "a.mrc.bz2", shape=(5000, 4000, 2500)),
}


def npz(method: int, stated: int | None = None) -> Bomb:
    """An archive of one array of 1 GB of zeros; `stated` is the size that its directory says."""

    def make(folder: Path) -> None:
        path = folder / "a.npz"
        size = GIGABYTE if stated is None else stated
        head = b"\x93NUMPY\1\0" + struct.pack("<H", 118)
        head += f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size - 128},), }}".encode().ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w", method) as archive, archive.open("a.npy", "w", force_zip64=True) as file:
            file.write(head)
            for _ in range(GIGABYTE // len(STEP)):
                file.write(STEP)
        if stated is not None:
            raw = bytearray(path.read_bytes())
            place = raw.rindex(b"PK\1\2")
            raw[place + 24 : place + 28] = _number(stated)
            path.write_bytes(raw)

    return Bomb(make, lambda folder: safe_load.read_npz(folder / "a.npz"))


NPZ: dict[str, Bomb] = {
    "deflate": npz(zipfile.ZIP_DEFLATED),
    "deflate, the directory says 4 kB": npz(zipfile.ZIP_DEFLATED, 4096),
    "bzip2": npz(zipfile.ZIP_BZIP2, 4096),
    "lzma": npz(zipfile.ZIP_LZMA, 4096),
}


def written(name: str, content: Callable[[], bytes], read: Callable[[Path], Any]) -> Bomb:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content())

    return Bomb(make, lambda folder: read(folder / name))


def sparse(name: str, read: Callable[[Path], Any], start: bytes = b"", size: int = 8 * GIGABYTE) -> Bomb:
    """A file of many bytes that takes no room on the disk."""

    def make(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.write(start)
            file.truncate(size)

    return Bomb(make, lambda folder: read(folder / name))


OTHER: dict[str, Bomb] = {
    "safetensors: a header of 90 MB": written(
        "a.safetensors",
        lambda: (lambda text: struct.pack("<Q", len(text)) + text)(b'{"__metadata__": {"a": "' + b"x" * 90_000_000 + b'"}}'),
        safe_load.read_safetensors,
    ),
    "JSON: 8 GB": sparse("a.json", safe_load.read_json),
    "JSON: 20 million lists": written("a.json", lambda: b'{"a": [' + b"[]," * 20_000_000 + b"[]]}", safe_load.read_json),
    "CSV: 8 GB": sparse("a.csv", lambda path: safe_load.read_csv(path, ["x"]), b"x\n1\n"),
}


def lists(path: Path) -> Any:
    return io.read_particles(path, voxel_size=10.0, tilts=(-60, 60), tomogram="TS_01")


LISTS: dict[str, Bomb] = {
    f"list {end}: 8 GB": sparse(f"a{end}", lists)
    for end in (".star", ".tbl", ".csv", ".mod", ".json", ".ndjson", ".cbox", ".coords", ".xml")
}
META: dict[str, Bomb] = {
    f"metadata {end}: 8 GB": sparse(f"a{end}", tables.read_metadata) for end in (".mdoc", ".xml", ".tomostar", ".star")
}
ALL: dict[str, dict[str, Bomb]] = {"Zarr": ZARR, "Parquet": PARQUET, "MRC": MRC, "npz": NPZ, "other": OTHER | LISTS | META}


def made(folder: Path, wanted: list[str]) -> None:
    """Make the bombs of these formats, each in a folder of its own; what they hold is shared."""
    for title, bombs in ((one, ALL[one]) for one in wanted):
        for number, bomb in enumerate(bombs.values()):
            place = folder / title / str(number)
            place.mkdir(parents=True)
            bomb.make(place)


def answer(title: str, name: str, folder: Path) -> dict[str, Any]:
    """Read a bomb: how long it took, the memory that it took, and what came of it."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))
    before, start = record.peak_memory(), time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ALL[title][name].read(folder)
        said = "read"
    except (ValueError, FileNotFoundError) as error:
        said = str(error).replace(str(folder), "…")
    except MemoryError as error:
        said = f"MemoryError {error}"
    return {
        "own MB": 1024 * (record.peak_memory() - before),
        "seconds": time.perf_counter() - start,
        "result": said[:200],
    }


def main() -> None:
    """Make and read them all, or those of the formats that are named."""
    wanted, rows = sys.argv[1:] or list(ALL), []
    with tempfile.TemporaryDirectory() as place:
        record.apart(made, Path(place), wanted)
        for title in wanted:
            for number, name in enumerate(ALL[title]):
                folder = Path(place) / title / str(number)
                size = sum(one.stat().st_blocks * 512 for one in folder.rglob("*") if one.is_file())
                rows.append({"format": title, "bomb": name, "kB": size / 1000} | record.apart(answer, title, name, folder))
                print(rows[-1], flush=True)
    if not sys.argv[1:]:
        record.write("bombs", rows, settings={"a process may hold (GB)": MOST / GIGABYTE})


if __name__ == "__main__":
    main()
