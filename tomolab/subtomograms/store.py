"""Takes the path of a store of subtomograms, a folder or an address of object storage, gives its volumes and tables.

A store is a Zarr v3 group with the array ``volumes`` (n, box, box, box) in float16, the particle table ``particles.parquet``
and, if there are any, the particles that could not be cut in ``skipped.parquet``. The array is sharded: a shard is one file
of about 16 MB. Each volume in it is a chunk with its CRC-32C, which is compared at every read; an index follows.

``benchmarks/bench_stores.py`` compares layouts. Noise hardly compresses: zstd saves 8 % of the disk, LZ4 nothing. So nothing is
compressed, and rows are read in random order as fast as in sequence. float16 rounds a voxel by 0.0002 of its standard
deviation; int8 would halve the disk, round by 0.013 and clip strong density such as gold. Larger shards write no faster,
smaller ones make more files. Only this layout is read: the metadata of a store are compared with it before memory is allocated.

Addresses are those of s3, gs (gcs) and az (abfs, abfss), through obstore. Credentials and endpoints come from the environment:
for S3 the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for another server, AWS_ENDPOINT_URL and
AWS_ALLOW_HTTP. An address with credentials is refused, so that none is written down.

>>> volumes, table, voxel_size = read("s3://bucket/many.zarr")
>>> volumes[:10]
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd

from tomolab import particles
from tomolab.io import checksums, safe_load
from tomolab.io.paths import atomic, inside, recovered

TABLE, SKIPPED, GROUP, ARRAY = "particles.parquet", "skipped.parquet", "zarr.json", "volumes/zarr.json"
SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss")
FORMAT = 2
"""Version of the layout."""
READERS = 8
"""Shards read in parallel."""
BLOCK_BYTES, SHARD_BYTES = 256 * 1024, 16 * 1024 * 1024
"""Neighbouring volumes that a training reads together, and a file of volumes."""
LARGEST_SHARD = 2**12
"""Most volumes in a shard, whose index takes 16 bytes for each."""
SUM_BYTES = 4
"""Bytes of a checksum."""
ABSENT = 2**64 - 1
"""Offset and length of an absent chunk in the index of a shard (Zarr's sharding codec, version 1.0)."""
Batch = tuple[Any, pd.DataFrame]
"""Volumes (b, box, box, box), array or tensor, with their particle table of b rows."""


class Folder:
    """Files in a folder, which need not exist yet; no name and no link leads out of it."""

    def __init__(self, path: str | Path) -> None:
        # Absolute: another process may have another working directory.
        self.path = Path(path).absolute()

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether the folder exists."""
        return self.path.exists()

    def size(self, name: str) -> int | None:
        """Length of a file in bytes; None if there is none of this name."""
        path = inside(self.path, name)
        return path.stat().st_size if path.is_file() else None

    def get(self, name: str) -> bytes | None:
        """Content of a file; None if there is none of this name."""
        path = inside(self.path, name)
        return path.read_bytes() if path.is_file() else None

    def ranges(self, name: str, starts: Sequence[int], lengths: Sequence[int]) -> Sequence[Any]:
        """Byte ranges of a file, shorter at its end."""
        with inside(self.path, name).open("rb", buffering=0) as file:
            return [os.pread(file.fileno(), length, start) for start, length in zip(starts, lengths, strict=True)]

    def put(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all; it survives a power cut."""
        with atomic(inside(self.path, name)) as temporary:
            temporary.write_bytes(data)


class Bucket:
    """The objects under an address; `at` checks it.

    Parameters
    ----------
    address
        Without credentials.

    Raises
    ------
    ModuleNotFoundError
        If obstore is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            from obstore.store import from_url
        except ImportError as error:
            message = f"stores at {address.split('://')[0]}:// need the package obstore (pip install 'tomolab[objects]')"
            raise ModuleNotFoundError(message) from error
        self.address = address
        self._objects: Any = from_url(address)

    def __reduce__(self) -> tuple[Any, ...]:
        return Bucket, (self.address,)

    def __str__(self) -> str:
        return self.address

    def exists(self) -> bool:
        """Whether there is any object."""
        return bool(self.names())

    def size(self, name: str) -> int | None:
        """Length of an object in bytes; None if there is none of this name."""
        try:
            return int(self._objects.head(name)["size"])
        except FileNotFoundError:
            return None

    def get(self, name: str) -> bytes | None:
        """Content of an object; None if there is none of this name."""
        try:
            return bytes(self._objects.get(name).bytes())
        except FileNotFoundError:
            return None

    def ranges(self, name: str, starts: Sequence[int], lengths: Sequence[int]) -> Sequence[Any]:
        """Byte ranges of an object; neighbouring ones are requested together, the others in parallel."""
        return list(self._objects.get_ranges(name, starts=starts, lengths=lengths))

    def put(self, name: str, data: bytes) -> None:
        """Write an object; a reader finds the old or the new one, never half."""
        self._objects.put(name, data)

    def names(self) -> list[str]:
        """Names of all objects, sorted."""
        return sorted(str(one["path"]) for some in self._objects.list() for one in some)

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._objects.delete(name)


def at(path: str | Path) -> Folder | Bucket:
    """The folder or the bucket at a path or address.

    Raises
    ------
    ValueError
        If the scheme is unknown, or the address names no object in a bucket or holds a name, password or query.
    ModuleNotFoundError
        If obstore is needed and not installed.
    """
    text = str(path)
    if isinstance(path, Path) or "://" not in text:
        return Folder(path)
    url = urlsplit(text)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return Folder(unquote(url.path))
    if url.username or url.password or "@" in url.netloc or url.query or url.fragment:
        raise ValueError(
            f"an address of {url.scheme} holds a name, password or query; those come from the environment, "
            "so that they are not written down"
        )
    if url.scheme not in SCHEMES:
        raise ValueError(f"{text}: a store is a folder or an address of {', '.join(SCHEMES)}")
    name = url.path.strip("/")
    if not url.netloc or not name or ".." in name.split("/"):
        raise ValueError(f"{text} names no place in a bucket, as {url.scheme}://bucket/many.zarr does")
    return Bucket(f"{url.scheme}://{url.netloc}/{name}")


def folder(path: str | Path) -> Path:
    """The folder at a path; ValueError for an address of object storage."""
    found = at(path)
    if isinstance(found, Bucket):
        raise ValueError(f"{found}: a store grows in a folder of this machine; then .save writes it to object storage")
    return found.path


@dataclass(frozen=True)
class Layout:
    """Voxels of a volume along each axis (`box`), and the number of volumes in a `shard`."""

    box: int
    shard: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a volume with its checksum."""
        return 2 * self.box**3 + SUM_BYTES

    @property
    def index_bytes(self) -> int:
        """Bytes of the index of a shard."""
        return 16 * self.shard + SUM_BYTES

    def metadata(self, count: int) -> dict[str, Any]:
        """Content of ``zarr.json`` for an array of `count` volumes (specification of Zarr v3)."""
        cube, little = [self.box] * 3, {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": [1, *cube],
            "codecs": [little, {"name": "crc32c"}],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [count, *cube],
            "data_type": "float16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.shard, *cube]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
        }

    def index(self, count: int) -> bytes:
        """Index of a shard of `count` volumes: offset and length of each, and a checksum."""
        entries = np.full((self.shard, 2), ABSENT, dtype="<u8")
        entries[:count, 0] = np.arange(count) * self.row_bytes
        entries[:count, 1] = self.row_bytes
        return entries.tobytes() + checksums.crc32c(entries.tobytes()).to_bytes(SUM_BYTES, "little")

    def encode(self, block: np.ndarray) -> bytes:
        """File of a shard: volumes in float16, each with its checksum, and the index."""
        rows = [volume.tobytes() for volume in block.astype("<f2", copy=False)]
        sums = [checksums.crc32c(row).to_bytes(SUM_BYTES, "little") for row in rows]
        return b"".join((*chain.from_iterable(zip(rows, sums, strict=True)), self.index(len(block))))

    def decode(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Volumes (n, box, box, box) in the bytes of whole rows, and whether each is damaged (n,)."""
        rows = np.frombuffer(data, np.uint8).reshape(-1, self.row_bytes)
        sums = np.array([checksums.crc32c(row) for row in rows[:, :-SUM_BYTES]], dtype="<u4")
        volumes = rows[:, :-SUM_BYTES].view("<f2").reshape(-1, *[self.box] * 3)
        return volumes, (rows[:, -SUM_BYTES:] != sums[:, None].view(np.uint8)).any(axis=1)


def layout(box: int) -> Layout:
    """The layout of a new store."""
    return Layout(box, max(1, min(LARGEST_SHARD, SHARD_BYTES // (2 * box**3))))


class Volumes:
    """The volumes of a store (n, box, box, box), read on demand as ``volumes[a:b]`` or ``volumes[rows]``.

    Each shard is compared with the layout at its first read, and each volume with its checksum at every read.

    Parameters
    ----------
    place, layout
        Of the store.
    count
        Number of volumes; a store that grows meanwhile may hold more.
    """

    ndim, dtype = 4, np.dtype(np.float16)

    def __init__(self, place: Folder | Bucket, layout: Layout, count: int) -> None:
        self.place, self.layout = place, layout
        self.shape = (count, *[layout.box] * 3)
        self.block = max(1, BLOCK_BYTES // layout.row_bytes)
        self._checked: set[int] = set()

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        first, *rest = index if isinstance(index, tuple) else (index,)
        rows = np.arange(*first.indices(len(self))) if isinstance(first, slice) else np.asarray(first, dtype=int)
        found = self._read(rows.reshape(-1))
        return (found if rows.ndim else found[0])[(slice(None),) * rows.ndim + tuple(rest)]

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Volumes of these rows, in this order."""
        if not len(rows):
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} are out of range: there are {len(self)} volumes")
        order = np.argsort(rows, kind="stable")
        spans = np.split(order, np.flatnonzero(np.diff(rows[order] // self.layout.shard)) + 1)
        with safe_load.reading(str(self.place), "volumes"), ThreadPoolExecutor(READERS) as readers:
            list(readers.map(self.check_shard, np.unique(rows // self.layout.shard).tolist()))
            out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)

            def read(wanted: np.ndarray) -> None:
                out[wanted] = self._of_shard(rows[wanted])

            list(readers.map(read, spans))
        return out

    def check_shard(self, number: int) -> None:
        """Compare the size and the index of a shard with its layout; a ValueError if it is missing or damaged."""
        if number in self._checked:
            return
        size, fault = self._look_at_shard(number)
        # Another process may have put a larger shard in its place after its size was read.
        while fault and self.place.size(shard_name(number)) != size:
            size, fault = self._look_at_shard(number)
        if fault:
            raise ValueError(f"{self.place}/{shard_name(number)} is {fault}")
        self._checked.add(number)

    def _look_at_shard(self, number: int) -> tuple[int | None, str]:
        """The size of a shard in bytes, and what is wrong with it, or nothing."""
        name, index = shard_name(number), self.layout.index_bytes
        size = self.place.size(name)
        if size is None:
            return None, f"missing; it holds some of the {len(self)} volumes"
        found, rest = divmod(size - index, self.layout.row_bytes)
        needed = min(self.layout.shard, len(self) - number * self.layout.shard)
        if rest or not needed <= found <= self.layout.shard:
            return size, f"damaged: its {size:,} bytes are not those of {needed} volumes or more"
        if bytes(self.place.ranges(name, [size - index], [index])[0]) != self.layout.index(found):
            return size, f"damaged: its index is not that of {found} volumes"
        return size, ""

    def _of_shard(self, rows: np.ndarray) -> np.ndarray:
        """Volumes of rows in one shard; consecutive ones are read together."""
        number, each = int(rows[0]) // self.layout.shard, self.layout.row_bytes
        inside, places = np.unique(rows - number * self.layout.shard, return_inverse=True)
        ends = np.flatnonzero(np.diff(inside, append=-1) != 1) + 1
        lengths = np.diff(ends, prepend=0)
        starts = inside[ends - lengths]
        found = b"".join(self.place.ranges(shard_name(number), (starts * each).tolist(), (lengths * each).tolist()))
        if len(found) != len(inside) * each:
            raise ValueError(f"{self.place}/{shard_name(number)} is damaged: it ended while it was read")
        volumes, damaged = self.layout.decode(found)
        if damaged.any():
            rows = inside[damaged] + number * self.layout.shard
            raise ValueError(
                f"{self.place}/{shard_name(number)} is damaged: {len(rows)} volumes do not have their checksum, such as "
                f"rows {rows[:5].tolist()}; restore the store from a copy, or open it with skip_damaged=True"
            )
        return volumes[places]

    def damaged(self) -> np.ndarray:
        """Rows, ascending, of all volumes that cannot be read or do not have their checksum; reads the whole store."""
        return np.concatenate([np.empty(0, dtype=int), *map(self._damaged, range(-(-len(self) // self.layout.shard)))])

    def _damaged(self, number: int) -> np.ndarray:
        first, each = number * self.layout.shard, self.layout.row_bytes
        rows = np.arange(first, min(first + self.layout.shard, len(self)))
        try:
            self.check_shard(number)
            data = bytes(self.place.ranges(shard_name(number), [0], [len(rows) * each])[0])
            return rows[self.layout.decode(data)[1]]
        except (OSError, ValueError):
            return rows


class Rows:
    """Chosen volumes of an array, in any order, read on demand as ``rows[a:b]``."""

    def __init__(self, array: Any, rows: np.ndarray) -> None:
        # A choice from chosen rows refers to the whole array.
        inside = isinstance(array, Rows)
        self.array: Any = array.array if inside else array
        self.rows: np.ndarray = array.rows[rows] if inside else rows
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype
        self.block = getattr(self.array, "block", 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self.array[self.rows[rows]])


def shard_name(number: int) -> str:
    """Name of the file of a shard in a store."""
    return f"volumes/c/{number}/0/0/0"


def read(path: str | Path) -> tuple[Volumes, pd.DataFrame, float]:
    """Open a store: its volumes, not yet read, its particle table, and the voxel size in Å.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If it is not a store, has another format, or its array, table and attributes disagree.
    """
    place = at(path)
    if isinstance(place, Folder):
        recovered(place.path)
    about = _attributes(place)
    # The table before the array: a process that appends writes volumes before the table and the count after it.
    with safe_load.reading(str(place), "a store of subtomograms"):
        table = particles.check(read_table(place, TABLE))
        found, stored = layout_of(place)
    if not about["count"] <= len(table) <= stored:
        raise ValueError(
            f"{path} was written with {about['count']} subtomograms, but holds {stored} volumes and {len(table)} particles"
        )
    if found.box != about["box"]:
        raise ValueError(f"{path} says box {about['box']}, but its volumes have {found.box} voxels along each axis")
    return Volumes(place, found, len(table)), table, float(about["voxel_size"])


def read_skipped(path: str | Path) -> pd.DataFrame:
    """The particles that could not be cut, with the column ``reason``, if the store has a table of them."""
    place = at(path)
    if place.size(SKIPPED) is None:
        return pd.DataFrame()
    table = read_table(place, SKIPPED)
    if "reason" not in table:
        raise ValueError(f"{path} does not say why particles were skipped: {SKIPPED} has no column reason")
    return table


def _attributes(place: Folder | Bucket) -> dict[str, Any]:
    """Attributes of the group of a store, checked."""
    if place.size(GROUP) is None or place.size(TABLE) is None:
        if not place.exists():
            raise FileNotFoundError(f"no subtomograms at {place}")
        raise ValueError(f"{place} is not a store of subtomograms: it lacks {GROUP} or {TABLE}")
    with safe_load.reading(f"{place}/{GROUP}", "a Zarr group"):
        node = safe_load.parse_json(place.get(GROUP) or b"")
        about = node.get("attributes")
        if (node.get("node_type"), node.get("zarr_format")) != ("group", 3) or not isinstance(about, dict):
            raise ValueError(f"it is no Zarr group with attributes, but {str(node.get('node_type'))[:40]}")
    if about.get("tomolab") != "subtomograms":
        raise ValueError(f"{place} is a Zarr group, but not a store of subtomograms")
    if about.get("format") != FORMAT:
        raise ValueError(f"{place} has format {about.get('format')}, this version of tomolab reads format {FORMAT}")
    with safe_load.reading(str(place), "a store of subtomograms"):
        safe_load.check_types(about, count=int, box=int, voxel_size=(int, float))
        if not 0 < about["voxel_size"] < 1e9:
            raise ValueError(f"its voxel_size is {about['voxel_size']}, expected a positive number of Å")
    return about


def layout_of(place: Folder | Bucket) -> tuple[Layout, int]:
    """Layout and number of volumes that the metadata of the array state; ValueError if the layout is another."""
    with safe_load.reading(f"{place}/{ARRAY}", "the array of a store"):
        data = place.get(ARRAY)
        if data is None:
            raise FileNotFoundError(f"there is no file {place}/{ARRAY}")
        node = safe_load.parse_json(data)
        count, box = node["shape"][:2]
        shard = node["chunk_grid"]["configuration"]["chunk_shape"][0]
        if not all(type(n) is int and 0 <= n < 2**40 for n in (count, box, shard)) or 0 in (box, shard):
            raise ValueError(f"its lengths are {str([count, box, shard])[:80]}, expected whole numbers")
        found = Layout(box, shard)
        if shard > LARGEST_SHARD or node != found.metadata(count):
            raise ValueError(
                "it is not of the layout of a store: float16 in shards, each volume with its CRC-32C, not compressed"
            )
        return found, count


def read_table(place: Folder | Bucket, name: str) -> pd.DataFrame:
    """A table in a store; a ValueError if it is missing or damaged."""
    return safe_load.read_parquet(place.get(name) or b"", name=f"{place}/{name}")


_Item = TypeVar("_Item")


def ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Read or compute each item, such as a batch, in another thread while the caller works on the one before."""
    rest = iter(items)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(lambda: list(islice(rest, 1)))
        while found := coming.result():
            coming = reader.submit(lambda: list(islice(rest, 1)))
            yield found[0]
