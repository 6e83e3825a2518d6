"""Locks: one process at a time writes a path; what a process held that is gone is free again at once.

>>> with locks.held("runs/first/session.npz"):
...     write_it()
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EAGAIN
from pathlib import Path

PATIENCE = 10.0
"""Seconds to wait for another process that writes the same path."""
PAUSE = 0.05
"""Seconds between two looks at a lock."""


@contextmanager
def held(path: str | Path, *, patience: float | None = None) -> Iterator[bool]:
    """Keep all others, threads and processes, from a path as long as the block runs.

    The lock is one of the system (``flock``) on the file ``.NAME.lock`` beside the path, whose folder is made; the file is
    removed with the block. The lock ends with its process, however that ends, so that none is ever left over.

    Parameters
    ----------
    path
        What the block writes.
    patience
        Seconds to wait for another one that writes it; `PATIENCE` by default.

    Yields
    ------
    bool
        False on a file system that knows no locks, where nobody is kept away.

    Raises
    ------
    BlockingIOError
        If another one still holds it after that.
    """
    place = Path(path).with_name(f".{Path(path).name}.lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _taken(place, Path(path), PATIENCE if patience is None else patience)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        # Removed before it is let go: who waits for it finds out that it is gone, and makes a new one.
        place.unlink(missing_ok=True)
        os.close(descriptor)


def _taken(place: Path, path: Path, patience: float) -> int | None:
    """Descriptor of the locked file, or None where there are no locks."""
    end = time.monotonic() + patience
    while True:
        descriptor = _opened(place, path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands(place, descriptor):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (EACCES, EAGAIN):
                place.unlink(missing_ok=True)
                return None
            if time.monotonic() > end:
                raise BlockingIOError(EAGAIN, f"another process has been writing {path} for {patience:g} s") from None
            time.sleep(PAUSE)


def _opened(place: Path, path: Path) -> int:
    try:
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        # A folder that is read-only, full or gone: what matters is what was to be written there.
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from None


def _stands(place: Path, descriptor: int) -> bool:
    """Whether the file at the place is the one that is open."""
    try:
        return os.path.samestat(os.stat(place), os.fstat(descriptor))
    except FileNotFoundError:
        return False
