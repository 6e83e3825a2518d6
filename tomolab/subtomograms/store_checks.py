"""Takes a store of subtomograms, compares what it says with what it holds before memory is taken, gives its array.

Only the layout that `tomolab.subtomograms.store` writes is let through: uncompressed numbers in shards. Zarr itself would run
any codec that is installed, give zeros for what is missing, and follow links out of the folder.

>>> array = volumes("runs/first/subtomograms.zarr")
>>> array[:10]                       # a ValueError if the shard is not what it is said to be
"""

import os
from math import prod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import psutil
import zarr

from tomolab.io import paths, safe_load

NODE = "zarr.json"
NUMBERS = {"float16": 2, "float32": 4}
PLAIN = {"bytes", "crc32c"}
"""Codecs that give as many bytes as they take, or four less."""
CHECKSUM = 4
"""Bytes of a CRC-32C."""
ENTRY = 16
"""Bytes of a chunk in the index of a shard: where it begins, and how long it is."""
ABSENT = 2**64 - 1
"""In the index, offset and length of a chunk that was never written (Zarr's sharding codec, version 1.0)."""


class Volumes(zarr.Array):
    """The array of a store; a shard is checked when it is read for the first time."""

    place: Path
    checked: set[int]

    def __init__(self, array: zarr.Array, place: Path) -> None:
        super().__init__(array._async_array)
        # Zarr's arrays are frozen in some of its versions.
        object.__setattr__(self, "place", place)
        object.__setattr__(self, "checked", set())

    def __getitem__(self, selection: Any) -> Any:
        with safe_load.reading(self.place, "volumes"):
            for number in self._touched(selection):
                if number not in self.checked:
                    self._check(number)
                    self.checked.add(number)
            return super().__getitem__(selection)

    def _touched(self, selection: Any) -> range:
        """Shards that hold some rows; all of them where it is not simply a range."""
        rows = selection[0] if isinstance(selection, tuple) and selection else selection
        count, shard = self.shape[0], (self.shards or self.chunks)[0]
        if isinstance(rows, slice) and (rows.step or 1) > 0:
            start, stop, _ = rows.indices(count)
            return range(start // shard, -(-stop // shard)) if start < stop else range(0)
        return range(-(-count // shard))

    def _check(self, number: int) -> None:
        """Hold the index of a shard, or the length of a chunk where there are no shards, against the file."""
        path = paths.inside(self.place, "/".join(["c", str(number), *["0"] * (len(self.shape) - 1)]))
        if not path.is_file():
            raise ValueError(f"{path} is not there, which holds some of its {self.shape[0]} volumes")
        size, each = path.stat().st_size, prod(self.chunks) * self.dtype.itemsize
        if self.shards is None:
            if size not in (each, each + CHECKSUM):
                raise ValueError(f"{path} has {size:,} bytes, expected {each:,}")
            return
        count = self.shards[0] // self.chunks[0]
        index = ENTRY * count
        # Of the last shard only what is filled is written.
        used = -(-min(self.shards[0], self.shape[0] - number * self.shards[0]) // self.chunks[0])
        if not used * each + index <= size <= count * (each + CHECKSUM) + index + CHECKSUM:
            raise ValueError(f"{path} has {size:,} bytes, expected {used * each + index + CHECKSUM:,}")
        with path.open("rb") as file:
            told = index_of(file.fileno(), count, path)[:used]
        wrong = (
            (told == ABSENT).any(1) | (told.astype(float).sum(1) > size) | (told[:, 1] < each) | (told[:, 1] > each + CHECKSUM)
        )
        if wrong.any():
            raise ValueError(f"{path} lacks {wrong.sum()} of {used} chunks, or says that they lie elsewhere")


def index_of(file: int, chunks: int, path: Path) -> np.ndarray:
    """Where each chunk of a shard begins and how long it is, (chunks, 2), from the end of its file.

    Parameters
    ----------
    file
        Descriptor.
    chunks
        In a shard.
    path
        Of the file, for messages.

    Raises
    ------
    ValueError
        If it is not whole.
    """
    length = ENTRY * chunks + CHECKSUM
    data = os.pread(file, length, max(0, os.fstat(file).st_size - length))
    if len(data) != length or google_crc32c.value(data[:-CHECKSUM]) != int.from_bytes(data[-CHECKSUM:], "little"):
        raise ValueError(f"{path} is damaged: the checksum of its index does not hold")
    return np.frombuffer(data[:-CHECKSUM], "<u8").reshape(chunks, 2)


def volumes(folder: str | Path) -> Volumes:
    """Open the array ``volumes`` of a group, read-only.

    Parameters
    ----------
    folder
        Of the group.

    Raises
    ------
    FileNotFoundError
        If there is no group.
    ValueError
        If the array is not of the layout of a store, or a chunk of it does not fit into the memory that is free.
    """
    folder = Path(folder)
    with safe_load.reading(folder, "a store of subtomograms"):
        check(folder)
        return Volumes(zarr.open_array(folder / "volumes", mode="r", zarr_format=3), folder / "volumes")


def attributes(node: dict[str, Any], name: str | Path) -> dict[str, Any]:
    """Attributes of a group by what its ``zarr.json`` holds; a ValueError with its name if it is no group of Zarr v3."""
    if node.get("node_type") != "group" or node.get("zarr_format") != 3:
        raise ValueError(f"{name} is not a Zarr group, but {str(node.get('node_type'))[:40]}")
    about = node.get("attributes") or {}
    if not isinstance(about, dict):
        raise ValueError(f"the attributes of {name} are a {type(about).__name__}, expected an object")
    return about


def check(folder: str | Path) -> None:
    """Refuse an array ``volumes`` of a group that is not of the layout of a store.

    Parameters
    ----------
    folder
        Of the group.

    Raises
    ------
    FileNotFoundError
        If there is no array.
    ValueError
        If it has another kind of numbers, other codecs or other chunks, or a chunk does not fit into the memory that is free.
    """
    place = Path(folder) / "volumes"
    with safe_load.reading(place, "an array of volumes"):
        paths.inside(Path(folder), "volumes")
        fits(safe_load.read_json(paths.inside(place, NODE)))


def fits(node: dict[str, Any]) -> None:
    """Refuse an array, by what its ``zarr.json`` holds, that is not of the layout of a store.

    Parameters
    ----------
    node
        What it says of itself.

    Raises
    ------
    ValueError
        As `check` says; or another error, where something else is missing or wrong.
    """
    if node.get("node_type") != "array" or node.get("zarr_format") != 3 or node.get("storage_transformers"):
        raise ValueError(f"it is {str(node.get('node_type'))[:40]}, expected an array")
    if node["chunk_grid"]["name"] != "regular" or node["chunk_key_encoding"] != _KEYS:
        raise ValueError("its chunks lie or are named otherwise than those of a store")
    if node["data_type"] not in NUMBERS:
        raise ValueError(f"its values are {str(node['data_type'])[:80]}, expected {' or '.join(NUMBERS)}")
    shape, outer = _lengths(node["shape"], least=0), _lengths(node["chunk_grid"]["configuration"]["chunk_shape"])
    codecs, inner = node["codecs"], outer
    if codecs[0]["name"] == "sharding_indexed":
        about = codecs[0]["configuration"]
        if len(codecs) > 1 or about.get("index_location", "end") != "end":
            raise ValueError("its shards are packed, or begin with their index")
        _plain(about["index_codecs"])
        codecs, inner = about["codecs"], _lengths(about["chunk_shape"])
    _plain(codecs)
    if not shape[1:] == outer[1:] == inner[1:] or outer[0] % inner[0]:
        raise ValueError(f"volumes {shape} do not fit into shards {outer} of chunks {inner}")
    needed, free = prod(outer) * NUMBERS[node["data_type"]], psutil.virtual_memory().available
    if needed > free:
        raise ValueError(f"a shard is said to have {needed:,} bytes, but only {free:,} bytes of memory are free")


_KEYS = {"name": "default", "configuration": {"separator": "/"}}


def _lengths(values: Any, *, least: int = 1) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) != 4 or not all(type(n) is int and least <= n < 2**40 for n in values):
        raise ValueError(f"lengths of four axes are whole numbers, got {str(values)[:80]}")
    return tuple(values)


def _plain(codecs: list[dict[str, Any]]) -> None:
    strange = sorted({str(one["name"])[:40] for one in codecs} - PLAIN)
    if strange or codecs[0]["name"] != "bytes":
        raise ValueError(f"it asks for the codecs {', '.join(strange) or 'in another order'}; a store has {', '.join(PLAIN)}")
