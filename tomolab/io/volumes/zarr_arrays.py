"""Takes a folder or an address, gives a read-only Zarr store with a limit of bytes; limits what a chunk decompresses to.

An address is http or https. No credentials are sent, neither from the address nor from the user's files; no cookies are kept.
A redirect is followed up to `REDIRECTS` times, within the same host and port, or from http to https of one host; every object
has a limit of bytes and of time. A missing chunk is an error, since Zarr would give its fill value. No decoder of compressed
bytes decides how much memory it takes: it stops at the size of a chunk, which follows from its shape and type (`with_limits`).
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import numcodecs
import numpy as np
import pyarrow as pa
import zarr
from numcodecs.abc import Codec
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import ShardingCodec
from zarr.core.array import AsyncArray
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.metadata import ArrayV2Metadata
from zarr.core.sync import sync

from tomolab.io.paths import inside

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
METADATA_BYTES = 2**24
REDIRECTS = 3
TIMEOUT = httpx.Timeout(30.0, connect=10.0, pool=None)
"""Seconds to connect, and to wait for bytes."""
LONGEST = 600.0
"""Seconds to read one object, from the first request to the last byte."""
PORTS = {"http": 80, "https": 443}
DECODERS: dict[str, Callable[[bytes], bytes]] = {"blosc": numcodecs.Blosc().decode, "lz4": numcodecs.LZ4().decode}
"""Decoders that take as much memory as the compressed bytes say first, and write no more."""
COMPRESSIONS = {"gzip", "zlib", "zstd", *DECODERS}


class Archive(Store):
    """A read-only Zarr store in a folder or at an address.

    Parameters
    ----------
    place
        Folder, or address that begins with http:// or https://.
    limit
        Bytes of the largest object.
    missing
        Whether chunks may be missing, which then have the fill value.
    """

    def __init__(self, place: str, *, limit: int = METADATA_BYTES, missing: bool = False) -> None:
        super().__init__(read_only=True)
        self.place, self.limit, self.missing = place, limit, missing

    supports_writes = supports_deletes = supports_listing = False

    def fetch(self, key: str, wanted: ByteRequest | None = None) -> bytes | None:
        """Bytes of an object, or None if there is none.

        Parameters
        ----------
        key
            Name of the object in the archive.
        wanted
            Range of its bytes; all by default.

        Raises
        ------
        ConnectionError
            If the server fails or takes too long.
        ValueError
            If the name leads out of the archive or the object is larger than the limit.
        """
        return sync(self._fetch(key, wanted))

    async def _fetch(self, key: str, wanted: ByteRequest | None) -> bytes | None:
        limit = METADATA_BYTES if key.rsplit("/", 1)[-1] in METADATA else self.limit
        if not remote(self.place):
            return await asyncio.to_thread(_from_folder, self.place, key, wanted, limit)
        return await _from_address(f"{self.place.rstrip('/')}/{quote(key)}", wanted, limit)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object, as Zarr requests it."""
        data = await self._fetch(key, byte_range)
        if data is None:
            if self.missing or key.rsplit("/", 1)[-1] in METADATA:
                return None
            raise FileNotFoundError(
                f"{self.place} lacks the chunk {key}; if chunks of one value were left out on purpose, "
                "permissive=True fills them"
            )
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Byte ranges of objects."""
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return await self._fetch(key, RangeByteRequest(0, 1)) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Archive) and self.place == other.place

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002 - the interface of Zarr
        """Refuse to write."""
        raise ValueError(f"{self.place} is read, not written: {key}")

    async def delete(self, key: str) -> None:
        """Refuse to delete."""
        raise ValueError(f"{self.place} is read, not written: {key}")

    def list(self) -> AsyncIterator[str]:
        """Refuse to list: an http server has no list of its objects."""
        return self.list_prefix("")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse to list."""
        raise ValueError(f"{self.place} is read by name, not listed: {prefix}*")

    list_dir = list_prefix


def remote(place: str) -> bool:
    """Whether a place is an address rather than a folder."""
    return place.lower().startswith(("http://", "https://"))


def locate(place: str | Path) -> str:
    """A folder or address in the form that `Archive` takes.

    Raises
    ------
    ValueError
        If the scheme is not http, https or file, or the address holds credentials or a query.
    """
    text = str(place)
    if isinstance(place, Path) or "://" not in text:
        return text
    url = urlsplit(text)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return unquote(url.path)
    if url.scheme not in PORTS or not url.hostname:
        raise ValueError(f"{text}: addresses are http://, https:// or file://; those of a bucket have one of https, too")
    if url.username or url.password or url.query or url.fragment:
        raise ValueError(f"an address at {url.hostname} holds a name, password or query; tomograms are read without")
    return text.rstrip("/")


def with_limits(array: Any, most: int) -> Any:
    """An opened array, with decoders that stop at `most` bytes, whatever the compressed bytes say or hold."""
    about = array.metadata
    if isinstance(about, ArrayV2Metadata):
        filters = tuple(_limited_v2(one, most) for one in about.filters or ())
        compressor = None if about.compressor is None else _limited_v2(about.compressor, most)
        about = replace(about, filters=filters or None, compressor=compressor)
    else:
        about = replace(about, codecs=tuple(_limited_v3(one, most) for one in about.codecs))
    return zarr.Array(AsyncArray(metadata=about, store_path=array.store_path))


def decompressed(codec: str, data: bytes, most: int) -> memoryview:
    """What compressed bytes hold; memory takes no more than `most` bytes of it.

    Parameters
    ----------
    codec
        gzip, zlib, blosc, zstd or lz4.
    data
        Compressed bytes.
    most
        Bytes that they may hold.

    Raises
    ------
    ValueError
        If they hold more, or are damaged.
    """
    out: bytes | bytearray | pa.Buffer
    try:
        if codec in DECODERS:
            size = int.from_bytes(data[4:8] if codec == "blosc" else data[:4], "little")
            if codec == "blosc" and int.from_bytes(data[12:16], "little") > len(data):
                raise RuntimeError("it ends too early")
            out = DECODERS[codec](data) if size <= most else bytes(most + 1)
        elif codec == "zstd":
            with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
                out = stream.read_buffer(most + 1)
        else:
            out = _inflated(data, most + 1)
    except (zlib.error, OSError, RuntimeError) as error:
        raise ValueError(f"its {codec} is damaged: {error}") from error
    if len(out) > most:
        raise ValueError(f"its {len(data):,} bytes of {codec} unpack to more than {most:,}, and a chunk has less")
    return memoryview(out).cast("B")


def _inflated(data: bytes, most: int) -> bytearray:
    """Content of all members of a gzip file, or of a zlib stream, up to `most` bytes."""
    out = bytearray()
    while data and len(out) < most:
        stream = zlib.decompressobj(47)
        out += stream.decompress(data, most - len(out))
        if not stream.eof and len(out) < most:
            raise zlib.error("it ends too early")
        # gzip allows zeros after a member.
        data = stream.unused_data.lstrip(b"\0")
    return out


class _LimitedV2(Codec):
    """A compression of Zarr v2, to decode up to `most` bytes."""

    codec_id = "limited"

    def __init__(self, codec: str, most: int) -> None:
        self.codec, self.most = codec, most

    def decode(self, buf: Any, out: Any = None) -> memoryview:  # noqa: ARG002 - the interface of numcodecs
        return decompressed(self.codec, bytes(buf), self.most)

    def encode(self, buf: Any) -> bytes:
        """Refuse to write."""
        raise NotImplementedError(f"chunks are read, not written ({type(buf).__name__})")


@dataclass(frozen=True)
class _LimitedV3(BytesBytesCodec):
    """A compression of Zarr v3, to decode up to `most` bytes."""

    codec: str
    most: int
    is_fixed_size = False

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        found = await asyncio.to_thread(decompressed, self.codec, chunk_data.to_bytes(), self.most)
        return chunk_spec.prototype.buffer.from_array_like(np.frombuffer(found, dtype="B"))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Refuse to write."""
        raise NotImplementedError(f"chunks are read, not written ({input_byte_length} bytes of {chunk_spec.shape})")


def _limited_v2(codec: Any, most: int) -> Any:
    return _LimitedV2(codec.codec_id, most) if codec.codec_id in COMPRESSIONS else codec


def _limited_v3(codec: Any, most: int) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(_limited_v3(one, most) for one in codec.codecs))
    name = codec_name(codec.to_dict())
    return _LimitedV3(name, most) if name in COMPRESSIONS else codec


def codec_name(codec: dict[str, Any]) -> str:
    """Name of a codec of Zarr v3, without the prefix of those that come from numcodecs."""
    return str(codec["name"]).removeprefix("numcodecs.")


@cache
def _client() -> httpx.AsyncClient:
    """The client of all archives, in Zarr's event loop. It reads no netrc, and keeps no cookies."""
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(headers={"Accept-Encoding": "identity"}, cookies=cookies, timeout=TIMEOUT)


def _from_folder(place: str, key: str, wanted: ByteRequest | None, limit: int) -> bytes | None:
    path = inside(place, key)
    if not path.is_file():
        return None
    size = path.stat().st_size
    start, end = _span(wanted, size)
    if end - start > limit:
        raise ValueError(f"{path} has {size:,} bytes, expected at most {limit:,}")
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _span(wanted: ByteRequest | None, size: int) -> tuple[int, int]:
    if isinstance(wanted, RangeByteRequest):
        return min(wanted.start, size), min(wanted.end, size)
    if isinstance(wanted, OffsetByteRequest):
        return min(wanted.offset, size), size
    if isinstance(wanted, SuffixByteRequest):
        return max(0, size - wanted.suffix), size
    return 0, size


def _range(wanted: ByteRequest) -> str:
    if isinstance(wanted, RangeByteRequest):
        return f"{wanted.start}-{wanted.end - 1}"
    return f"{wanted.offset}-" if isinstance(wanted, OffsetByteRequest) else f"-{wanted.suffix}"


async def _from_address(url: str, wanted: ByteRequest | None, limit: int) -> bytes | None:
    headers = {} if wanted is None else {"Range": f"bytes={_range(wanted)}"}
    try:
        async with asyncio.timeout(LONGEST):
            status, data = await _answer(url, headers, limit)
    except TimeoutError as error:
        raise ConnectionError(f"{url} took more than {LONGEST:g} seconds") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(f"{url} could not be fetched: {error or type(error).__name__}") from error
    if status in (403, 404, 410):
        # A bucket that may not be listed answers 403 for a missing object.
        return None
    if status not in (200, 206):
        raise ConnectionError(f"{url} failed with HTTP {status}")
    if headers and status == 200:
        start, end = _span(wanted, len(data))
        return data[start:end]
    return data


async def _answer(url: str, headers: dict[str, str], limit: int) -> tuple[int, bytes]:
    """Status and body of the answer, after redirects."""
    at = httpx.URL(url)
    for _ in range(REDIRECTS + 1):
        async with _client().stream("GET", at, headers=headers) as response:
            if not response.has_redirect_location:
                return response.status_code, await _body(response, limit)
            target = at.join(response.headers["location"])
        if not _may_follow(at, target):
            raise ConnectionError(
                f"{url} redirects to {target.scheme}://{target.netloc.decode()}, which is not followed; give that address if "
                "it is right"
            )
        at = target
    raise ConnectionError(f"{url} redirects more than {REDIRECTS} times")


def _may_follow(now: httpx.URL, then: httpx.URL) -> bool:
    """Whether a redirect stays with the host and port, or goes from http to https of a host, and holds no password."""
    ports = [url.port or PORTS.get(url.scheme) for url in (now, then)]
    upgraded = (now.scheme, then.scheme) == ("http", "https") and ports == list(PORTS.values())
    same = now.scheme == then.scheme and ports[0] == ports[1]
    return now.host == then.host and not then.userinfo and (same or upgraded)


async def _body(response: httpx.Response, limit: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise ConnectionError(f"{response.url} came compressed ({encoding}), expected uncompressed bytes")
    data = bytearray()
    async for block in response.aiter_raw():
        data += block
        if len(data) > limit:
            raise ValueError(f"{response.url} holds more than the {limit:,} bytes expected at most")
    return bytes(data)
