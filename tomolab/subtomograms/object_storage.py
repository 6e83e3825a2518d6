"""Takes an address such as ``s3://bucket/many.zarr``, gives the objects under it, through obstore or fsspec.

Known are s3, gs (gcs), az (abfs, abfss), and memory, which ends with the process. Names, keys and endpoints come from where
the tools of the storage look for them: for S3 the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for a
server of one's own, AWS_ENDPOINT_URL and AWS_ALLOW_HTTP. An address that holds them is refused, so that none is written down.

>>> bucket = at("s3://bucket/many.zarr")
>>> bucket.get("particles.parquet")
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.abc.store import Store
from zarr.storage import FsspecStore, ObjectStore

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss")
MEMORY = "memory"


class Objects(Protocol):
    """What speaks to a kind of storage; names are those below one address."""

    def get(self, name: str) -> bytes:
        """What an object holds, or FileNotFoundError."""

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""

    def names(self) -> list[str]:
        """Names of all objects."""

    def remove(self, name: str) -> None:
        """Remove an object."""

    def store(self, read_only: bool) -> Store:
        """All of it as Zarr reads and writes it."""


class Obstore:
    """Objects through obstore.

    Parameters
    ----------
    address
        Of all that is meant.
    """

    def __init__(self, address: str) -> None:
        from obstore.store import from_url

        self._objects: Any = from_url(address)

    def get(self, name: str) -> bytes:
        """What an object holds, or FileNotFoundError."""
        return bytes(self._objects.get(name).bytes())

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        self._objects.put(name, data)

    def names(self) -> list[str]:
        """Names of all objects."""
        return [str(one["path"]) for some in self._objects.list() for one in some]

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._objects.delete(name)

    def store(self, read_only: bool) -> Store:
        """All of it as Zarr reads and writes it."""
        return ObjectStore(self._objects, read_only=read_only)


class Files:
    """Objects through fsspec.

    Parameters
    ----------
    address
        Of all that is meant.
    """

    def __init__(self, address: str) -> None:
        files, path = fsspec.core.url_to_fs(address)
        self._files: Any = files
        self._path = str(path).rstrip("/")

    def get(self, name: str) -> bytes:
        """What an object holds, or FileNotFoundError."""
        return bytes(self._files.cat_file(f"{self._path}/{name}"))

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        self._files.pipe_file(f"{self._path}/{name}", data)

    def names(self) -> list[str]:
        """Names of all objects."""
        try:
            return [str(one).removeprefix(f"{self._path}/") for one in self._files.find(self._path)]
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._files.rm_file(f"{self._path}/{name}")

    def store(self, read_only: bool) -> Store:
        """All of it as Zarr reads and writes it."""
        files = self._files
        if isinstance(files, AsyncFileSystem):
            files = type(files)(*files.storage_args, **files.storage_options | {"asynchronous": True})
        else:
            files = AsyncFileSystemWrapper(files, asynchronous=True)
        return FsspecStore(files, read_only=read_only, path=self._path)


class Bucket:
    """What lies under an address; made by `at`.

    Parameters
    ----------
    address
        Without credentials.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._objects = _objects(address)

    def __str__(self) -> str:
        return self.address

    def get(self, name: str) -> bytes | None:
        """What an object holds; None if there is none of this name."""
        try:
            return self._objects.get(name)
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes) -> None:
        """Write an object; whoever reads finds the old one or the new one, never half."""
        self._objects.put(name, data)

    def names(self) -> list[str]:
        """Names of all objects, sorted."""
        return sorted(self._objects.names())

    def remove(self, names: list[str]) -> None:
        """Remove objects, one after the other."""
        for name in names:
            self._objects.remove(name)

    def store(self, *, read_only: bool) -> Store:
        """All of it as Zarr reads and writes it."""
        return self._objects.store(read_only)


def at(place: str | Path) -> Path | Bucket:
    """The folder or file of this machine, or the bucket, that is meant.

    Raises
    ------
    ValueError
        If it is an address of another kind, names no object in a bucket, or holds a name, password or query.
    ModuleNotFoundError
        If what speaks to this kind of storage is not installed.
    """
    text = str(place)
    if isinstance(place, Path) or "://" not in text:
        return Path(place)
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if parts.username or parts.password or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"an address of {parts.scheme} holds a name, password or query; those come from the environment, "
            "so that they are not written down"
        )
    if parts.scheme not in (*SCHEMES, MEMORY):
        raise ValueError(f"{text}: a store lies in a folder or at an address of {', '.join(SCHEMES)}")
    path = f"{parts.netloc}/{parts.path.strip('/')}".strip("/")
    if ("/" not in path and parts.scheme != MEMORY) or not path or ".." in path.split("/"):
        raise ValueError(f"{text} names no place in a bucket, as {parts.scheme}://bucket/many.zarr does")
    return Bucket(f"{parts.scheme}://{path}")


def folder(place: str | Path) -> Path:
    """The path on this machine that is meant; a ValueError for an address of object storage."""
    found = at(place)
    if isinstance(found, Bucket):
        raise ValueError(f"{found}: a store grows in a folder of this machine; then .save writes it to object storage")
    return found


def _objects(address: str) -> Objects:
    scheme = address.split("://")[0]
    if scheme != MEMORY and find_spec("obstore") is not None:
        return Obstore(address)
    try:
        return Files(address)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"stores at {scheme}:// need the package obstore (pip install 'tomolab[objects]') or that of fsspec: {error}"
        ) from error
