"""Safes: arrays and what is said of them in one .npz file, over which nobody writes who does not know what it holds.

Two kernels may work on one run folder. Each knows what it has read or written itself; what it finds instead is of somebody
else, and stays.

>>> safe = Safe()
>>> about, arrays = safe.read("session.npz", "a session")
>>> safe.write("session.npz", about, arrays)
"""

import errno
from pathlib import Path
from typing import Any

import numpy as np

from tomolab import io
from tomolab.io import safe_load


class Safe:
    """Knows what its owner has read or written where."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, ...] | None] = {}

    def meet(self, path: str | Path) -> None:
        """Take note of what is at a path now, if anything: what anybody else writes there later is not written over."""
        self._known[Path(path).absolute()] = _mark(Path(path))

    def write(self, path: str | Path, about: str, arrays: dict[str, np.ndarray]) -> Path:
        """Write a JSON text and arrays, whole or not at all.

        Raises
        ------
        FileExistsError
            If somebody else has written there since it was met, read or written here.
        """
        place, text = Path(path).absolute(), np.frombuffer(about.encode(), dtype=np.uint8)
        with io.atomic(path) as temporary:
            # Nobody else writes it now.
            there = _mark(place)
            if there is not None and self._known.get(place, there) != there:
                why = "somebody else has written there since this session was read or written; save it under another name"
                raise FileExistsError(errno.EEXIST, why, str(path))
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, about=text, **arrays)
            written = _mark(temporary)
        self._known[place] = written
        return Path(path)

    def read(self, path: str | Path, what: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What the text says, and the arrays.

        Parameters
        ----------
        path
            The file.
        what
            It is to be, for the message.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is none of ours, or damaged.
        """
        # Should somebody else write between the two, that is taken for unknown, and stays.
        self.meet(safe_load.present(path))
        arrays = safe_load.arrays(path, what)
        with safe_load.reading(path, what):
            return safe_load.parsed(arrays.pop("about").tobytes()), arrays


def _mark(path: Path) -> tuple[int, ...] | None:
    """What tells a file from any that takes its place, whatever the clock says; None if there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
