"""Takes a path, writes a file or folder whole or not at all, one writer at a time; gives checked paths, texts and hashes.

>>> with atomic("labels.json") as temporary:
...     temporary.write_text("[]")
>>> with lock("runs/first/session.npz"):
...     write_it()
"""

import codecs
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from tomolab import memory

LARGEST = 2**32
"""Bytes of a text, such as a list of twenty million particles."""
SMALL = 2**24
"""Bytes of a file for which the free memory is not asked."""
TEXT_TIMES = 10
"""Bytes of memory for each byte of a text that becomes a table."""
LONGEST = 255
"""Largest number of bytes in the name of a file or folder on all common systems."""
PATIENCE = 10.0
"""Seconds to wait for another process that writes the same path."""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""Errors of file systems that have no locks."""
_WITHOUT_LOCKS: set[int] = set()
"""Devices of file systems without locks of which the user was told."""
LEASE = 30.0
"""Seconds without a sign of life after which the writer on another machine counts as dead, where there are no locks."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file or a folder whole or not at all.

    Yields a new path beside `path`, with its suffixes, for a file or folder. On success it replaces `path`; on an error it
    is removed and `path` stays as it was. The next writer removes what a killed process left.

    Raises
    ------
    FileNotFoundError
        If nothing was written.
    ValueError
        If a file would replace a folder or the other way round.
    BlockingIOError
        If another process is writing the same path (`lock`).

    >>> with atomic("labels.json") as temporary:
    ...     temporary.write_text("[]")
    """
    path = Path(path)
    temporary = _beside(path, f"tmp-{secrets.token_hex(4)}")
    with lock(path) as check:
        _recover(path)
        try:
            yield temporary
            check()
            _sync_tree(temporary)
            check()
            _replace(temporary, path)
        finally:
            _remove(temporary)
    _sync(path.parent)


def recovered(path: str | Path) -> Path:
    """The path, after a folder that a killed writer had moved aside was put back; every reader of a folder begins with this."""
    path = Path(path)
    # A folder that only may be read needs no lock to see that nothing lies beside it.
    if not path.exists() and path.parent.is_dir() and _left_over(path, "old"):
        with lock(path):
            _recover(path)
    return path


def recover_all(folder: Path) -> None:
    """Put back all folders in this one that killed writers had moved aside."""
    names = [re.fullmatch(r"\.(.+?)\.old-[0-9a-f]{8}(.*)", one.name) for one in (folder.iterdir() if folder.is_dir() else ())]
    for name in {found[1] + found[2] for found in names if found}:
        recovered(folder / name)


def inside(root: str | Path, name: str, *, tomogram: bool = False) -> Path:
    """Path of `name` under the folder `root`; what belongs to a project or a store must not lead out of it.

    This is the rule of all readers. A path that the user gives is followed wherever its links lead, and so is a tomogram,
    which is often a link to another disk and is only read. Whatever else lies in a run folder, a store, a project of copick
    or RELION, or is named by a file, must stay in its folder, by ``..`` as by links.

    Parameters
    ----------
    root, name
        The folder, and the path relative to it.
    tomogram
        Whether it is a tomogram, whose links are followed.

    Raises
    ------
    ValueError
        If the name is empty, absolute, longer than file names can be, contains ``..``, or leads out of `root` by a link.
    """
    names = Path(name).parts
    if not names or Path(name).is_absolute() or ".." in names or "\0" in name:
        raise ValueError(f"{name!r} cannot name a file under {root}: it must be relative and without '..'")
    if max(len(os.fsencode(one)) for one in names) > LONGEST:
        raise ValueError(f"{name[:80]!r} … cannot name a file under {root}: it is longer than file names can be")
    path = Path(root) / name
    if tomogram:
        return path
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name!r} cannot name a file under {root}: {error}") from error
    if not target.is_relative_to(Path(root).resolve()):
        raise ValueError(f"{name!r} leads out of {root}, to {target}; copy it there: only tomograms may lie elsewhere")
    return path


def file_name(name: str) -> str:
    """Name of a file for any name: different for different names, and `name_of_file` gives the name back.

    Letters, digits and ``. , + -`` stay, a space becomes ``_``, and all else ``%`` with two hexadecimal digits, as in web
    addresses. So no name is hidden, leads out of its folder, or means something to a shell but ``%``.
    """
    marks = {"_": "%5F", " ": "_", "~": "%7E"}
    out = "".join(marks.get(one) or (one if one.isalnum() or one in ".,+-" else quote(one, safe="")) for one in name)
    out = re.sub(r"^\.|\.$", "%2E", out)
    return re.sub(r"^-", "%2D", out) or "%"


def name_of_file(text: str) -> str:
    """The name for which `file_name` gave this one."""
    return "" if text == "%" else unquote(text.replace("_", " "))


def encoding(raw: bytes) -> str:
    """Encoding of a text: UTF-16 if it has a byte order mark or most characters have one zero byte; else UTF-8."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    first, last = raw[::2].count(0), raw[1::2].count(0)
    if last > len(raw) / 4 and not first:
        return "utf-16-le"
    if first > len(raw) / 4 and not last:
        return "utf-16-be"
    return "utf-8-sig"


def content(path: str | Path, *, most: int = LARGEST, times: int = TEXT_TIMES) -> bytes:
    """Bytes of a file, after `check_size`."""
    check_size(path, most=most, times=times)
    return Path(path).read_bytes()


def check_size(path: str | Path, *, most: int = LARGEST, times: int = TEXT_TIMES) -> None:
    """Refuse a file that is too large to be read whole.

    Parameters
    ----------
    path
        The file.
    most
        Bytes that it may have.
    times
        Bytes of memory for each of its bytes that its reader takes.

    Raises
    ------
    ValueError
        If it has more bytes or there is not enough memory; the message does not name the file.
    """
    size = Path(path).stat().st_size
    if size > most:
        raise ValueError(f"it has {size:,} bytes, expected at most {most:,}")
    if size > SMALL:
        memory.check(times * size, f"it has {size:,} bytes, and reading it takes about")


def text(path: str | Path, *, replace: bool = False, most: int = LARGEST) -> str:
    """Text of a file in UTF-8 or UTF-16, with Unix line ends.

    With `replace`, bytes that are not UTF-8 become the replacement character. A file of more than `most` bytes is refused.

    Raises
    ------
    ValueError
        If `check_size` refuses it, it has another encoding, or it holds NUL bytes, as incomplete files do. The message names
        the line.
    """
    raw = content(path, most=most)
    code = encoding(raw)
    try:
        read = raw.decode(code, "replace" if replace and code == "utf-8-sig" else "strict")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not {error.encoding.upper()} (byte {raw[error.start]:#04x}); save it as UTF-8"
        ) from error
    place = read.find("\0")
    if place >= 0:
        raise ValueError(f"line {read.count(chr(10), 0, place) + 1} holds NUL bytes, which no text does; the file is damaged")
    return read.replace("\r\n", "\n").replace("\r", "\n")


def data_folder() -> Path:
    """Folder of shipped data: inside an installed package, or beside the package in a checkout."""
    return _shipped("data", "catalogue.csv")


def notebook_folder() -> Path:
    """Folder of the notebooks, in the same places."""
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
    """The first 16 digits of the SHA-256 of a file, as text."""
    return f"sha256-{sha256(path)[:16]}"


def _beside(path: Path, mark: str) -> Path:
    """A hidden path beside a path, with the same suffixes."""
    suffix = "".join(path.suffixes)
    return path.with_name(f".{path.name.removesuffix(suffix)}.{mark}{suffix}")


def _left_over(path: Path, mark: str) -> list[Path]:
    """Files beside a path that killed writers left."""
    start, end = map(re.escape, _beside(path, f"{mark}-\0").name.split("\0"))
    return [one for one in path.parent.iterdir() if re.fullmatch(f"{start}[0-9a-f]{{8}}{end}", one.name)]


def _recover(path: Path) -> None:
    """Restore a folder that a killed writer had renamed, and remove all else that killed writers left."""
    for old in _left_over(path, "old"):
        if not path.exists():
            os.rename(old, path)
    for one in _left_over(path, "old") + _left_over(path, "tmp"):
        _remove(one)


def _replace(temporary: Path, path: Path) -> None:
    if path.exists() and path.is_dir() != temporary.is_dir():
        found, new = ("a folder" if one.is_dir() else "a file" for one in (path, temporary))
        raise ValueError(f"{path} is {found} and would be replaced by {new}")
    if not path.is_dir():
        os.replace(temporary, path)
        return
    # A folder cannot replace another in one step. After a kill between the two renames `_recover` restores the old one.
    old = _beside(path, f"old-{secrets.token_hex(4)}")
    os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        os.rename(old, path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_tree(path: Path) -> None:
    """Write a file or folder to disk, so that a power cut after the rename leaves no empty file."""
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


@contextmanager
def lock(path: str | Path, *, patience: float | None = None) -> Iterator[Callable[[], None]]:
    """Lock a path against other threads and processes while the block runs.

    The operating system locks the file ``.NAME.lock`` beside the path, in a folder that is created if needed. The lock ends
    when its process ends, in any way; the file is removed. On a file system without locks, as some network file systems are,
    the file ``.NAME.lease`` names the machine and the process instead, and shows every few seconds that it is alive.

    Parameters
    ----------
    path
        What the block writes.
    patience
        Seconds to wait for another writer; `PATIENCE` by default.

    Yields
    ------
    callable
        To call before something is replaced; raises BlockingIOError if another writer took the path over meanwhile.

    Raises
    ------
    BlockingIOError
        If another writer still holds the lock after that time, or, without locks, took it over because this process showed no
        sign of life for `LEASE` seconds, as on a computer that slept.
    """
    path, patience = Path(path), PATIENCE if patience is None else patience
    with _named(path, patience):
        held = _acquired(path, patience)
    check = partial(_check_lease, path, held.token) if isinstance(held, SoftFileLease) else lambda: None
    try:
        yield check
        check()
    finally:
        if not isinstance(held, SoftFileLease):
            # Removed before the release, so that a waiting process creates a new file.
            _lock_file(path).unlink(missing_ok=True)
        held.release()


def _acquired(path: Path, patience: float) -> BaseFileLock:
    """The lock of a path, or its lease where the file system has no locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.stat().st_dev in _WITHOUT_LOCKS:
        return _lease(path, patience)
    held = FileLock(_lock_file(path), timeout=patience, fallback_to_soft=False)
    try:
        held.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _lock_file(path).unlink(missing_ok=True)
        return _lease(path, patience)
    return held


def _check_lease(path: Path, token: str | None) -> None:
    """BlockingIOError if the lease of a path is no longer that of this token."""
    for _ in range(20):
        # Another process that waits puts the file aside for a moment, to see whether its writer is alive.
        with suppress(FileNotFoundError):
            if token is not None and token.encode() in _lease_file(path).read_bytes():
                return
        time.sleep(0.02)
    raise BlockingIOError(errno.EAGAIN, f"another process took {path} over while this one slept; do the work again")


def _empty_file(path: Path) -> int | None:
    """The number of the inode of an empty file; None if there is none."""
    with suppress(FileNotFoundError):
        about = path.stat()
        return None if about.st_size else about.st_ino
    return None


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _lease_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lease")


@contextmanager
def _named(path: Path, patience: float) -> Iterator[None]:
    """Errors of a lock file as errors of the path that it locks."""
    try:
        yield
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, f"another process has been writing {path} for {patience:g} s") from None
    except OSError as error:
        # The folder is read-only, full or gone.
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from None


def _lease(path: Path, patience: float) -> SoftFileLease:
    """Lock a path where the file system has no locks, of which the user is told once."""
    device = path.parent.stat().st_dev
    if device not in _WITHOUT_LOCKS:
        _WITHOUT_LOCKS.add(device)
        warnings.warn(
            f"the file system of {path.parent} has no locks; files beside what is written say who writes it, and a writer that "
            f"was killed on another machine is waited for {LEASE:g} s",
            stacklevel=7,
        )
    lease = SoftFileLease(_lease_file(path), lease_duration=LEASE, timeout=max(patience, 1.5 * LEASE))
    empty = _empty_file(_lease_file(path))
    try:
        lease.acquire()
    except Timeout:
        # A writer that was killed between creating its file and writing its name says nothing.
        if empty is None or _empty_file(_lease_file(path)) != empty:
            raise
        _lease_file(path).unlink(missing_ok=True)
        lease.acquire()
    return lease
