"""Takes a folder or an address, gives a read-only Zarr store that checks the size of each object and chunk.

An address is http or https. No credentials are sent, neither from the address nor from the user's files; no cookies are kept.
A redirect is followed up to `REDIRECTS` times, within the same host and never from https to http; every response has a limit
of bytes and of time. A missing chunk is an error, since Zarr would give its fill value; so is one that decompresses to more
than a chunk holds.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from tomolab.io.paths import inside

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
METADATA_BYTES = 2**24
REDIRECTS = 3
TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and to wait for bytes."""
LONGEST = 600.0
"""Seconds to read one object."""
STEP = 512
"""Bytes between two checks of the time, so that a slow server is noticed."""
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
        unpacked: int = 0,
        sharded: bool = False,
        missing: bool = False,
    ) -> None:
        super().__init__(read_only=True)
        self.place, self.limit, self.missing = place, limit, missing
        self.codec, self.unpacked, self.sharded = codec, unpacked, sharded
        self.session = _session() if remote(place) else None

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
        limit = METADATA_BYTES if key.rsplit("/", 1)[-1] in METADATA else self.limit
        if self.session is None:
            return _from_folder(self.place, key, wanted, limit)
        return _from_address(self.session, f"{self.place.rstrip('/')}/{quote(key)}", wanted, limit)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object, as Zarr requests it; a chunk is checked."""
        data = await asyncio.to_thread(self.fetch, key, byte_range)
        if data is None:
            if self.missing or key.rsplit("/", 1)[-1] in METADATA:
                return None
            raise FileNotFoundError(
                f"{self.place} lacks the chunk {key}; if chunks of one value were left out on purpose, "
                "permissive=True fills them"
            )
        if self.codec and isinstance(byte_range, RangeByteRequest) == self.sharded and not key.endswith(METADATA):
            check_claim(self.codec, data, self.unpacked, name=f"{self.place}: chunk {key}")
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Byte ranges of objects."""
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return await asyncio.to_thread(self.fetch, key, RangeByteRequest(0, 1)) is not None

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
    if url.scheme not in ("http", "https") or not url.hostname:
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
            size = len(zlib.decompressobj(47).decompress(data, unpacked + 1))
        except zlib.error as error:
            raise ValueError(f"{name} cannot be unpacked: {error}") from error
    else:
        size = STATED_SIZE[codec](data) if codec in STATED_SIZE else 0
    if size > unpacked:
        raise ValueError(f"{name} unpacks to {size:,} bytes or more, where a chunk holds {unpacked:,}")


def _zstd(data: bytes) -> int:
    """Decompressed size that a zstd frame states (RFC 8878, 3.1.1), else the most that its blocks can hold, less 1 MB."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 6:
        return 0
    flags = data[4]
    size_flag, single, key = flags >> 6, flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    start = 5 + (not single) + key
    width = (single, 2, 4, 8)[size_flag]
    if width:
        return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
    total = 0
    while start + 3 <= len(data):
        head = int.from_bytes(data[start : start + 3], "little")
        block_type, size = head >> 1 & 3, head >> 3
        # A compressed block holds up to 128 kB, and its header does not say how much.
        total += size if block_type in (0, 1) else 2**17
        start += 3 + (1 if block_type == 1 else size)
        if head & 1:
            break
    return total - 2**20


STATED_SIZE: dict[str, Callable[[bytes], int]] = {
    "blosc": lambda data: int.from_bytes(data[4:8], "little"),
    "lz4": lambda data: int.from_bytes(data[:4], "little"),
    "zstd": _zstd,
}
"""Decompressed size that the header of compressed bytes states."""


def _session() -> requests.Session:
    session = requests.Session()
    session.auth = _unsigned
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["Accept-Encoding"] = "identity"
    for scheme in ("https://", "http://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=16))
    return session


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # As the session's authentication, it keeps requests from reading the user's netrc.
    request.headers.pop("Authorization", None)
    return request


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


def _from_address(session: requests.Session, url: str, wanted: ByteRequest | None, limit: int) -> bytes | None:
    headers = {} if wanted is None else {"Range": f"bytes={_range(wanted)}"}
    try:
        with _follow(session, url, headers) as response:
            if response.status_code in (403, 404, 410):
                # A bucket that may not be listed answers 403 for a missing object.
                return None
            if response.status_code not in (200, 206):
                raise ConnectionError(f"{url} failed with HTTP {response.status_code}")
            data = _body(response, limit)
    except requests.RequestException as error:
        raise ConnectionError(f"{url} could not be fetched: {error}") from error
    if headers and response.status_code == 200:
        start, end = _span(wanted, len(data))
        return data[start:end]
    return data


def _follow(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    at = url
    for _ in range(REDIRECTS + 1):
        response = session.get(at, headers=headers, timeout=TIMEOUT, stream=True, allow_redirects=False)
        if not response.is_redirect:
            return response
        response.close()
        target = urljoin(at, response.headers["location"])
        now, then = urlsplit(at), urlsplit(target)
        if (
            then.scheme not in ("http", "https")
            or then.hostname != now.hostname
            or (now.scheme, then.scheme) == ("https", "http")
        ):
            raise ConnectionError(
                f"{url} redirects to {then.scheme}://{then.hostname}, which is not followed; give that address if it is right"
            )
        at = target
    raise ConnectionError(f"{url} redirects more than {REDIRECTS} times")


def _body(response: requests.Response, limit: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise ConnectionError(f"{response.url} came compressed ({encoding}), expected uncompressed bytes")
    length: Any = response.headers.get("Content-Length", "")
    data, end = bytearray(), time.monotonic() + LONGEST
    for block in response.iter_content(STEP):
        data += block
        if len(data) > limit:
            raise ValueError(f"{response.url} holds more than the {limit:,} bytes expected at most")
        if time.monotonic() > end:
            raise ConnectionError(f"{response.url} took more than {LONGEST:g} seconds")
    if length.isdigit() and len(data) != int(length):
        raise ConnectionError(f"{response.url} ended after {len(data):,} of {length} bytes")
    return bytes(data)
