"""Takes a folder or an address, gives a read-only Zarr store that checks the size of each object and chunk.

An address is http or https. No credentials are sent, neither from the address nor from the user's files; no cookies are kept.
A redirect is followed up to `REDIRECTS` times, within the same host and port, or from http to https of one host; every object
has a limit of bytes and of time. A missing chunk is an error, since Zarr would give its fill value; so is one that decompresses
to more than a chunk holds.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
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
DEFLATED = ("gzip", "zlib")


class Archive(Store):
    """A read-only Zarr store in a folder or at an address.

    Parameters
    ----------
    place
        Folder, or address that begins with http:// or https://.
    limit
        Bytes of the largest object.
    codec
        Compression of its chunks, whose decompressed size is checked; none by default.
    trailing
        Bytes of checksums after the compressed bytes of a chunk.
    unpacked
        Bytes of a decompressed chunk.
    sharded
        Whether an object holds several chunks.
    missing
        Whether chunks may be missing, which then have the fill value.
    """

    def __init__(
        self,
        place: str,
        *,
        limit: int = METADATA_BYTES,
        codec: str | None = None,
        trailing: int = 0,
        unpacked: int = 0,
        sharded: bool = False,
        missing: bool = False,
    ) -> None:
        super().__init__(read_only=True)
        self.place, self.limit, self.missing = place, limit, missing
        self.codec, self.trailing, self.unpacked, self.sharded = codec, trailing, unpacked, sharded

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
        """An object, as Zarr requests it; a chunk is checked."""
        data = await self._fetch(key, byte_range)
        if data is None:
            if self.missing or key.rsplit("/", 1)[-1] in METADATA:
                return None
            raise FileNotFoundError(
                f"{self.place} lacks the chunk {key}; if chunks of one value were left out on purpose, "
                "permissive=True fills them"
            )
        if self.codec and isinstance(byte_range, RangeByteRequest) == self.sharded and not key.endswith(METADATA):
            packed = data[: len(data) - self.trailing]
            check_claim(self.codec, packed, self.unpacked, name=f"{self.place}: chunk {key}")
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


def check_claim(codec: str, data: bytes, unpacked: int, *, name: str) -> None:
    """Raise ValueError if compressed bytes decompress, or state that they decompress, to more than `unpacked` bytes.

    Parameters
    ----------
    codec
        gzip, zlib, blosc, zstd or lz4; others are not checked.
    data
        Compressed bytes.
    unpacked
        Bytes of a decompressed chunk.
    name
        For the message.
    """
    if codec in DEFLATED:
        try:
            size = _deflated(data, unpacked + 1)
        except zlib.error as error:
            raise ValueError(f"{name} cannot be unpacked: {error}") from error
    else:
        size = STATED_SIZE[codec](data) if codec in STATED_SIZE else 0
    if size > unpacked:
        raise ValueError(f"{name} unpacks to {size:,} bytes or more, where a chunk holds {unpacked:,}")


def _deflated(data: bytes, most: int) -> int:
    """Decompressed size of all members of a gzip file, or of a zlib stream, up to `most`."""
    size = 0
    while data and size < most:
        stream = zlib.decompressobj(47)
        size += len(stream.decompress(data, most - size))
        # gzip allows zeros after a member.
        data = stream.unused_data.lstrip(b"\0")
    return size


def _zstd(data: bytes) -> int:
    """Decompressed size of all zstd frames (RFC 8878, 3.1): as stated, else the most that their blocks hold, less 1 MB."""
    total, estimated, start = 0, False, 0
    while start + 8 <= len(data):
        magic = int.from_bytes(data[start : start + 4], "little")
        if magic >> 4 == 0x184D2A5:
            # A frame to skip.
            start += 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        elif magic == 0xFD2FB528:
            stated, held, start = _zstd_frame(data, start)
            estimated |= stated is None
            total += held if stated is None else stated
        else:
            break
    return total - 2**20 * estimated


def _zstd_frame(data: bytes, start: int) -> tuple[int | None, int, int]:
    """Size that the zstd frame at `start` states, if it does, the most that its blocks hold, and where it ends."""
    flags = data[start + 4]
    size_flag, single, checksum, key = flags >> 6, flags >> 5 & 1, flags >> 2 & 1, (0, 1, 2, 4)[flags & 3]
    start += 5 + (not single) + key
    width = (single, 2, 4, 8)[size_flag]
    stated = int.from_bytes(data[start : start + width], "little") + 256 * (width == 2) if width else None
    start += width
    held = last = 0
    while not last and start + 3 <= len(data):
        head = int.from_bytes(data[start : start + 3], "little")
        last, block_type, size = head & 1, head >> 1 & 3, head >> 3
        # A compressed block holds up to 128 kB, and its header does not say how much.
        held += size if block_type in (0, 1) else 2**17
        start += 3 + (1 if block_type == 1 else size)
    return stated, held, start + 4 * checksum


STATED_SIZE: dict[str, Callable[[bytes], int]] = {
    "blosc": lambda data: int.from_bytes(data[4:8], "little"),
    "lz4": lambda data: int.from_bytes(data[:4], "little"),
    "zstd": _zstd,
}
"""Decompressed size that the header of compressed bytes states."""


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
