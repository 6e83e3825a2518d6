"""Takes a folder or an address, gives the Zarr array in it, read-only, after what it says of itself was checked.

An address is http or https. No credentials are sent, neither from it nor from the user's files; cookies are not kept; a
redirect is followed up to `REDIRECTS` times, within the same host and never from https to http; every answer has a limit of
bytes and of time. A chunk that is missing is an error, since Zarr would give its fill value for it; so is one that would
unpack to more than a chunk holds. Only codecs that turn bytes into numbers are let through: numcodecs also knows ones that
run what they read.
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
"""Seconds that one object may take."""
STEP = 512
"""Bytes after which the clock is looked at: a server that sends one in a while shall not hold up for ever."""
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
        Name of the compression of its chunks, whose claims are checked; none by default.
    unpacked
        Bytes that a chunk holds.
    sharded
        Whether chunks are parts of objects.
    missing
        Whether chunks may be missing, so that they hold the fill value.
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
            Its name in the archive.
        wanted
            Which of its bytes; all by default.

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
        """An object as Zarr asks for it; a chunk is checked."""
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
        """Parts of objects."""
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
        """Refuse to list: a server does not tell what it holds."""
        return self.list_prefix("")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse to list."""
        raise ValueError(f"{self.place} is read by name, not listed: {prefix}*")

    list_dir = list_prefix


def remote(place: str) -> bool:
    """Whether a place is an address rather than a folder."""
    return place.lower().startswith(("http://", "https://"))


def locate(place: str | Path) -> str:
    """The folder or address that is meant, in the form that `Archive` takes.

    Raises
    ------
    ValueError
        If it is of another kind than http, https and file, or holds credentials or a query.
    """
    text = str(place)
    if isinstance(place, Path) or "://" not in text:
        return text
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return unquote(parts.path)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text}: addresses are http://, https:// or file://; those of a bucket have one of https, too")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"an address at {parts.hostname} holds a name, password or query; tomograms are read without")
    return text.rstrip("/")


def check_claim(codec: str, data: bytes, unpacked: int, *, name: str) -> None:
    """Refuse packed bytes that say, or of which it is found, that they unpack to more than `unpacked` bytes.

    Parameters
    ----------
    codec
        gzip, zlib, blosc, zstd or lz4; of others nothing is known.
    data
        As they lie in the archive.
    unpacked
        What a chunk holds.
    name
        For the message.

    Raises
    ------
    ValueError
        If it is more.
    """
    if codec in DEFLATED:
        try:
            told = len(zlib.decompressobj(47).decompress(data, unpacked + 1))
        except zlib.error as error:
            raise ValueError(f"{name} cannot be unpacked: {error}") from error
    else:
        told = COUNTED[codec](data) if codec in COUNTED else 0
    if told > unpacked:
        raise ValueError(f"{name} unpacks to {told:,} bytes or more, where a chunk holds {unpacked:,}")


def _zstd(data: bytes) -> int:
    """Bytes that a frame of zstd says that it holds (RFC 8878, 3.1.1), or holds at most by its blocks, but for 1 MB."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 6:
        return 0
    flags = data[4]
    kind, single, key = flags >> 6, flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    start = 5 + (not single) + key
    width = (single, 2, 4, 8)[kind]
    if width:
        return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
    total = 0
    while start + 3 <= len(data):
        head = int.from_bytes(data[start : start + 3], "little")
        kind, size = head >> 1 & 3, head >> 3
        # A packed block holds up to 128 kB, and its header does not say how much.
        total += size if kind in (0, 1) else 2**17
        start += 3 + (1 if kind == 1 else size)
        if head & 1:
            break
    return total - 2**20


COUNTED: dict[str, Callable[[bytes], int]] = {
    "blosc": lambda data: int.from_bytes(data[4:8], "little"),
    "lz4": lambda data: int.from_bytes(data[:4], "little"),
    "zstd": _zstd,
}
"""Bytes that packed bytes say they unpack to."""


def _session() -> requests.Session:
    session = requests.Session()
    session.auth = _unsigned
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["Accept-Encoding"] = "identity"
    for scheme in ("https://", "http://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=16))
    return session


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Given as the session's authentication, so that requests looks for none in the user's netrc.
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
                # A bucket that may not be listed answers 403 for what it does not hold.
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
                f"{url} leads to {then.scheme}://{then.hostname}, another place; give that address if it is right"
            )
        at = target
    raise ConnectionError(f"{url} leads on more than {REDIRECTS} times")


def _body(response: requests.Response, limit: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise ConnectionError(f"{response.url} came packed ({encoding}), which was not asked for")
    told: Any = response.headers.get("Content-Length", "")
    data, end = bytearray(), time.monotonic() + LONGEST
    for piece in response.iter_content(STEP):
        data += piece
        if len(data) > limit:
            raise ValueError(f"{response.url} holds more than the {limit:,} bytes expected at most")
        if time.monotonic() > end:
            raise ConnectionError(f"{response.url} took more than {LONGEST:g} seconds")
    if told.isdigit() and len(data) != int(told):
        raise ConnectionError(f"{response.url} broke off after {len(data):,} of {told} bytes")
    return bytes(data)
