"""Takes a path, writes a file or folder there whole or not at all, one writer at a time; checks names, reads text, hashes.

A lock is one of the system: what a process held that is gone is free again at once.

>>> with atomic("labels.json") as temporary:
...     temporary.write_text("[]")
>>> with lock("runs/first/session.npz"):
...     write_it()
"""

import codecs
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import string
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LONGEST = 255
"""Bytes of the name of a file or folder, on all common systems."""
TOKEN = 4
"""Random bytes in the name of what is being written."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of renameat2(2): paths as they are, and that both change places."""
PATIENCE = 10.0
"""Seconds to wait for another process that writes the same path."""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""Errors of file systems that have no locks."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file or a folder whole or not at all.

    Yields a path beside `path`, with its suffixes, where nothing exists yet. Write a file there, or make a folder. On
    success it takes the place of `path`; on an error it is removed and whatever was at `path` stays. What a process left
    that was killed while it wrote there is removed by the next one.

    Raises
    ------
    FileNotFoundError
        If nothing was written.
    ValueError
        If a file would replace a folder or the other way round.
    BlockingIOError
        If another process writes the same path, and does not come to an end (`lock`).

    >>> with atomic("labels.json") as temporary:
    ...     temporary.write_text("[]")
    """
    path = Path(path)
    suffix = "".join(path.suffixes)
    name = path.name.removesuffix(suffix) if suffix else path.name
    temporary = path.with_name(f".{name}.tmp-{secrets.token_hex(TOKEN)}{suffix}")
    with lock(path) as alone:
        if alone:
            _clean(path, f".{name}.tmp-", suffix)
        try:
            yield temporary
            _settle(temporary)
            _replace(temporary, path)
        finally:
            _remove(temporary)
    _sync(path.parent)


def inside(root: str | Path, name: str) -> Path:
    """Path of `name` under the folder `root`; a name taken from a file must not lead out of it.

    Raises
    ------
    ValueError
        If the name is empty, absolute, longer than names of files are, contains ``..``, or leads out of `root` by a link.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise ValueError(f"{name!r} cannot name a file under {root}: it must be relative and without '..'")
    if max(len(os.fsencode(part)) for part in parts) > LONGEST:
        raise ValueError(f"{name[:80]!r} … cannot name a file under {root}: it is longer than names of files are")
    path = Path(root) / name
    try:
        led = path.resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name!r} cannot name a file under {root}: {error}") from error
    if not led.is_relative_to(Path(root).resolve()):
        raise ValueError(f"{name!r} leads out of {root}")
    return path


def encoding(raw: bytes) -> str:
    """UTF-8, or UTF-16 where there is its mark, or where most characters have a first or a last byte of 0."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    first, last = raw[::2].count(0), raw[1::2].count(0)
    if last > len(raw) / 4 and not first:
        return "utf-16-le"
    if first > len(raw) / 4 and not last:
        return "utf-16-be"
    return "utf-8-sig"


def text(path: str | Path) -> str:
    """Text of a file in UTF-8 or UTF-16, its lines ended as on Unix.

    Raises
    ------
    ValueError
        If it is of another encoding, or holds NUL bytes; the message names the line.
    """
    raw = Path(path).read_bytes()
    try:
        read = raw.decode(encoding(raw))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not {error.encoding.upper()} (byte {raw[error.start]:#04x}); save the list as UTF-8"
        ) from error
    check_text(read)
    return read.replace("\r\n", "\n").replace("\r", "\n")


def check_text(text: str) -> None:
    """Refuse what has NUL bytes, as files have that were not written to their end; a ValueError names the line."""
    place = text.find("\0")
    if place >= 0:
        raise ValueError(f"line {text.count(chr(10), 0, place) + 1} holds NUL bytes, which no text does; the file is damaged")


def data_folder() -> Path:
    """Find the folder of shipped data: inside an installed package, or beside the package in a checkout.

    Raises
    ------
    FileNotFoundError
        If neither is there.
    """
    return _shipped("data", "catalogue.csv")


def notebook_folder() -> Path:
    """Find the folder of the notebooks, in the same way.

    Raises
    ------
    FileNotFoundError
        If neither is there.
    """
    return _shipped("notebooks", "00_tour.ipynb")


def _shipped(name: str, member: str) -> Path:
    here = Path(__file__).resolve().parents[1]
    for folder in (here / name, here.parent / name):
        if (folder / member).is_file():
            return folder
    raise FileNotFoundError(f"tomolab's {name} are neither at {here / name} nor at {here.parent / name}; install tomolab again")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, or of a folder's files with their relative names, as hexadecimal text."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder {path}")
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file_path.relative_to(path).as_posix()}\0{sha256(file_path)}\n".encode())
    return digest.hexdigest()


def fingerprint(path: str | Path) -> str:
    """Short mark of what a file holds, as text: the first 16 digits of its SHA-256."""
    return f"sha256-{sha256(path)[:16]}"


def _settle(path: Path) -> None:
    """Bring what was written to disk, so that a power cut after the rename leaves no empty file."""
    if path.is_dir():
        for child in path.rglob("*"):
            _sync(child)
    elif not path.exists():
        raise FileNotFoundError(f"nothing was written to {path}")
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clean(path: Path, start: str, end: str) -> None:
    """Remove what earlier writers of a path left that were killed; nobody writes it now."""
    for one in path.parent.iterdir():
        token = one.name.removeprefix(start).removesuffix(end)
        if one.name == f"{start}{token}{end}" and len(token) == 2 * TOKEN and set(token) <= set(string.hexdigits):
            _remove(one)


def _replace(temporary: Path, path: Path) -> None:
    if path.exists() and path.is_dir() != temporary.is_dir():
        kinds = {True: "a folder", False: "a file"}
        raise ValueError(f"{path} is {kinds[path.is_dir()]} and would be replaced by {kinds[temporary.is_dir()]}")
    if path.is_dir():
        # The old one takes the name of the temporary one, and is removed as such.
        _exchange(temporary, path)
    else:
        os.replace(temporary, path)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places; on Linux at once, so that there is no moment without either."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        if library.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one), None, str(other))
    aside = other.with_name(f".{other.name}.old-{secrets.token_hex(TOKEN)}")
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def lock(path: str | Path, *, patience: float | None = None) -> Iterator[bool]:
    """Lock a path against other threads and processes while the block runs.

    The operating system locks the file ``.NAME.lock`` beside the path. The lock ends with its process, however that ends.
    The file is removed at the end; the folder of the path is made.

    Parameters
    ----------
    path
        What the block writes.
    patience
        Seconds to wait for another writer; `PATIENCE` by default.

    Yields
    ------
    bool
        False on a file system without locks, where nothing is locked.

    Raises
    ------
    BlockingIOError
        If another writer still holds the lock after that time.
    """
    path, patience = Path(path), PATIENCE if patience is None else patience
    place = path.with_name(f".{path.name}.lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(place, timeout=patience, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, f"another process has been writing {path} for {patience:g} s") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            # A folder that is read-only, full or gone: the message names what was to be written there.
            raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from None
        place.unlink(missing_ok=True)
    try:
        yield held.is_locked
    finally:
        if held.is_locked:
            # Removed before the release: a waiting process then finds it gone and makes a new one.
            place.unlink(missing_ok=True)
            held.release()
