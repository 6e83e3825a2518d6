"""Parts: an array (n, d) that is filled from the top, in memory or in a folder from where a cut run goes on.

>>> with Part(1_000_000, dtype="float16", folder="embedding.npz.part", about={"network": digest}) as part:
...     for rows in compute(start=part.done):
...         part.add(rows)
>>> part.array, part.remove()
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Self

import numpy as np

from tomolab import io
from tomolab.io import safe_load
from tomolab.learning.vectors import release

KEEP = 1024
"""Rows after which a part in a folder notes how far it is."""


class Part:
    """Rows of an array as they come.

    Parameters
    ----------
    count
        Rows in the end.
    dtype
        "float32" or "float16".
    folder
        Where to keep the array, with a description of how far it is; None for memory. If a cut run left a folder there,
        the array goes on from it, when `about` is the same.
    about
        What the rows are of: plain values by name.

    Raises
    ------
    ValueError
        If the folder was begun with other values of `about`.
    """

    def __init__(
        self, count: int, *, dtype: str, folder: str | Path | None = None, about: dict[str, Any] | None = None
    ) -> None:
        self.about = {"dtype": dtype, "count": count, **(about or {})}
        self.folder = None if folder is None else Path(folder)
        self.array: np.ndarray = np.empty((count, 0), dtype)
        self.done = 0
        # A description without its array, as where the folder was deleted meanwhile, tells of nothing.
        if self.folder is not None and all(os.path.lexists(self.folder / name) for name in ("about.json", "array.npy")):
            self._resume(self.folder)

    def _resume(self, folder: Path) -> None:
        about, place = (io.inside(folder, name) for name in ("about.json", "array.npy"))
        begun = safe_load.mapping(about, "the description of a part")
        with safe_load.reading(about, "the description of a part"):
            safe_load.typed(begun, done=int)
        done = begun.pop("done")
        other = [name for name in sorted(self.about | begun) if begun.get(name) != self.about.get(name)]
        if other:
            told = ", ".join(f"{name} was {_short(begun.get(name))}, is {_short(self.about.get(name))}" for name in other)
            raise ValueError(f"{folder} was begun otherwise: {told}; delete the folder to begin anew")
        array = safe_load.array(place, mode="r+")
        if array.ndim != 2 or (len(array), array.dtype) != (len(self.array), self.array.dtype) or not 0 <= done <= len(array):
            raise ValueError(f"{folder} holds {done} rows of an array {array.shape} of {array.dtype}; delete it to begin anew")
        self.array, self.done = array, done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keep()

    def add(self, rows: np.ndarray) -> None:
        """Append rows (b, d).

        Raises
        ------
        ValueError
            If they are beyond the dtype, of another width than those before, or more than there is room for.
        OSError
            If the disk has no room for the whole array; told with the first rows.
        """
        shape = (len(self.array), rows.shape[1])
        if self.array.shape[1] == 0:
            self.array = self._room(shape)
        if self.array.shape != shape or self.done + len(rows) > len(self.array):
            raise ValueError(f"rows {rows.shape} do not fit after row {self.done} of {self.array.shape}")
        with np.errstate(over="ignore"):
            rounded = rows.astype(self.array.dtype)
        if (np.isinf(rounded) & np.isfinite(rows)).any():
            raise ValueError(f"some numbers are beyond float16 (±65504), up to {np.abs(rows).max():.3g}; use float32")
        start, self.done = self.done, self.done + len(rows)
        self.array[start : self.done] = rounded
        if start // KEEP < self.done // KEEP:
            self._keep()

    def _room(self, shape: tuple[int, int]) -> np.ndarray:
        if self.folder is None:
            return np.empty(shape, self.array.dtype)
        self.folder.mkdir(parents=True, exist_ok=True)
        # A link in its place would be written through.
        path = io.inside(self.folder, "array.npy")
        array = np.lib.format.open_memmap(path, mode="w+", dtype=self.array.dtype, shape=shape)
        _reserve(path)
        return array

    def _keep(self) -> None:
        """Note how far the array is, after what it holds has reached the disk."""
        if self.folder is not None and isinstance(self.array, np.memmap):
            self.array.flush()
            release(self.array)
            with io.atomic(self.folder / "about.json") as temporary:
                temporary.write_text(json.dumps(self.about | {"done": self.done}, indent=1) + "\n")

    def remove(self) -> None:
        """Remove the folder, once the array stands elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder)


def _reserve(path: Path) -> None:
    """Give a file all its room on the disk now: a page of a mapped file without any would end the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink()
        raise OSError(error.errno, f"no room for {size / 1e9:.2g} GB: {error.strerror}", str(path)) from None


def _short(value: Any) -> str:
    """A value as an error shows it; of a digest its first figures."""
    return str(value)[:12]
