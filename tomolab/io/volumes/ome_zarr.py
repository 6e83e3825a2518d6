"""Takes a folder or an address of OME-Zarr, gives one of its levels as a tomogram; writes volumes as OME-Zarr.

It reads and writes versions 0.4 (Zarr v2) and 0.5 (Zarr v3) of ngff.openmicroscopy.org (`tomolab.io.volumes.multiscales`).
Axes are identified by name. A translation is the centre of voxel 0; positions count from that of the finest level, whose own
translation (such as that of the stage) is ignored. Plain Zarr arrays need a stated voxel size.

>>> tomogram = open_volume("https://server.org/TS_01.zarr", near=10.0)
>>> write_volume(tomogram.load(), "TS_01_10A.zarr")
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal
from warnings import warn

import numpy as np
import zarr

from tomolab import memory
from tomolab.io.paths import atomic, inside
from tomolab.io.volumes import multiscales
from tomolab.io.volumes.multiscales import OTHER_AXES, SPACE, Level
from tomolab.io.volumes.tomogram import Slices, Tomogram
from tomolab.io.volumes.zarr_arrays import COMPRESSIONS, METADATA_BYTES, Archive, codec_name, locate, remote, with_limits
from tomolab.volumes import Volume, block_mean

CACHE_BYTES = 2**28
"""Bytes of the cache of chunks, which holds at least one."""
READERS = 8
"""Chunks read in parallel."""
CODECS = {"bytes", "transpose", "crc32c", "sharding_indexed", "shuffle", "delta", *COMPRESSIONS}
"""Codecs that are applied to a chunk. numcodecs also has codecs that run code from the file."""
WIDEST = 8
"""Bytes of a number."""
NUMBERS = {f"{number}{bits}" for number in ("int", "uint", "float") for bits in (8, 16, 32, 64)} - {"float8"} | {"bool"}
CHUNK = (64, 128, 128)
"""Voxels of the written chunks: 4 MB."""
SMALLEST = 64
"""Voxels along the longest axis of the coarsest level; thinner volumes end earlier, before an axis has no voxel."""


def open_volume(
    path: str | Path,
    *,
    voxel_size: float | None = None,
    near: float | None = None,
    averaged: bool | None = None,
    permissive: bool = False,
    channel: int | None = None,
    time: int | None = None,
    axes: str | None = None,
) -> Tomogram:
    """Open a tomogram, from which only the requested chunks are read.

    Parameters
    ----------
    path
        Folder of an OME-Zarr group or a Zarr array, or its address with http:// or https://.
    voxel_size, near, averaged, permissive, channel, time, axes
        As in `tomolab.io.open_volume`; `voxel_size` is that of the finest level. If the file does not state the positions
        of a coarser level and `averaged` is None, its voxels count as not averaged, with a warning. An array without axis
        names is read as z, y, x after any axes of length 1.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`; on reading, also if a chunk is missing.
    ConnectionError
        If a server fails.
    ValueError
        If it is no tomogram of real numbers with axes z, y, x, has several channels or times and none is chosen, a parameter
        does not apply, the voxel size is unknown, differs between the axes or from `voxel_size`, or it needs a codec outside
        `CODECS` or more memory than is free.
    """
    place = locate(path)
    stated = multiscales.stated_axes(axes)
    version, attributes = _metadata(place)
    if attributes is None and averaged is not None:
        raise ValueError(f"{place} is a plain array without coarser levels, so averaged does not apply")
    levels = multiscales.levels(attributes, name=place, axes=stated)
    levels = multiscales.sized(levels, voxel_size, name=place)
    chosen = multiscales.choose(levels, near)
    level = levels[chosen]
    origin, unknown = multiscales.origin(levels, chosen, averaged=averaged)
    wanted = {"c": channel, "t": time}
    tomogram = _tomogram(place, level, version, origin=origin, permissive=permissive, wanted=wanted)
    if unknown:
        warn(
            f"{place} does not say where the voxels of level {level.path!r} lie; the first is taken to be centred on that of "
            f"the finest level. If they are averages of blocks, all positions are {unknown:.3g} Å larger; set "
            "averaged=True or False",
            stacklevel=2,
        )
    return tomogram


def write_volume(volume: Volume, path: str | Path, *, version: Literal["0.4", "0.5"] = "0.5") -> Path:
    """Write a volume as OME-Zarr in float32, whole or not at all, with coarser levels that are averages of blocks.

    Parameters
    ----------
    volume
        Its voxel size becomes the scale in Å; each level states the position of its voxels.
    path
        Folder, whose name should end in .zarr; an existing Zarr is replaced.
    version
        "0.4" (Zarr v2, for older programs) or "0.5" (Zarr v3).

    Raises
    ------
    ValueError
        If the version is another, or `path` exists and is no Zarr.
    """
    path = Path(path)
    if version not in ("0.4", "0.5"):
        raise ValueError(f"OME-Zarr is written in version '0.4' or '0.5', got {version!r}")
    if path.exists() and not any((path / key).is_file() for key in ("zarr.json", ".zgroup", ".zarray", ".zattrs")):
        raise ValueError(f"{path} exists and is no Zarr; it is not replaced")
    data, levels = volume.data, [volume.data]
    while max(data.shape) > SMALLEST and min(data.shape) > 1:
        data = block_mean(data, 2)
        levels.append(data)
    keys: Any = {"name": "v2", "separator": "/"} if version == "0.4" else None
    with atomic(path) as temporary, zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.create_group(temporary, zarr_format=2 if version == "0.4" else 3)
        for number, level in enumerate(levels):
            chunks = tuple(min(n, c) for n, c in zip(level.shape, CHUNK, strict=True))
            names = ["z", "y", "x"] if version == "0.5" else None
            array = group.create_array(
                str(number), shape=level.shape, chunks=chunks, dtype="float32", chunk_key_encoding=keys, dimension_names=names
            )
            array[:] = level
        group.attrs.update(multiscales.metadata(version, volume.voxel_size, count=len(levels), name=path.name.split(".")[0]))
    return path


@dataclass(frozen=True)
class _ArrayMetadata:
    """Shape and chunks of an array, bytes of a chunk and of an object, and whether an object holds several chunks."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    chunk_bytes: int
    object_bytes: int
    sharded: bool


def _metadata(place: str) -> tuple[Literal[2, 3], dict[str, Any] | None]:
    """Zarr format, and the attributes of a group or None for an array."""
    archive = Archive(place)
    node = document(archive, "zarr.json")
    if node is not None:
        return 3, None if node.get("node_type") == "array" else dict(node.get("attributes") or {})
    if document(archive, ".zarray") is not None:
        return 2, None
    attributes = document(archive, ".zattrs")
    if attributes is None and document(archive, ".zgroup") is None:
        if not remote(place) and not Path(place).exists():
            raise FileNotFoundError(f"no file or folder {place}")
        raise ValueError(f"{place} is no Zarr: it holds neither zarr.json nor .zattrs, .zgroup or .zarray")
    return 2, attributes or {}


def document(archive: Archive, key: str) -> dict[str, Any] | None:
    """The JSON object of this name in an archive, or None if there is none; ValueError if it is not a JSON object."""
    data = archive.fetch(key)
    if data is None:
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{archive.place}: {key} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{archive.place}: {key} holds {type(found).__name__}, expected an object")
    return found


def _tomogram(
    place: str,
    level: Level,
    version: Literal[2, 3],
    *,
    origin: tuple[float, float, float],
    permissive: bool,
    wanted: dict[str, int | None],
) -> Tomogram:
    at = f"{place.rstrip('/')}/{level.path}" if level.path else place
    if not remote(place) and level.path:
        at = str(inside(place, level.path))
    archive = Archive(at)
    node = document(archive, "zarr.json" if version == 3 else ".zarray")
    if node is None:
        raise ValueError(f"{place} names a level {level.path!r}, but there is no array")
    try:
        about = _metadata_v3(node) if version == 3 else _metadata_v2(node)
        names = node.get("dimension_names") if version == 3 else (document(archive, ".zattrs") or {}).get("_ARRAY_DIMENSIONS")
        chosen = _chosen(about.shape, level, names, wanted=wanted)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{at}: its metadata are no Zarr v{version} array of numbers ({error!r})") from error
    except ValueError as error:
        raise ValueError(str(error) if str(at) in str(error) else f"{at}: {error}") from error
    largest = max(about.chunk_bytes, about.object_bytes if about.sharded else 0)
    memory.check(3 * largest, f"{at} says that a chunk has {largest:,} bytes, and reading it takes")
    store = Archive(at, limit=about.object_bytes + about.object_bytes // 8 + METADATA_BYTES, missing=permissive)
    try:
        # A second compression makes random numbers longer.
        most = about.chunk_bytes + about.chunk_bytes // 8 + 1024
        array = with_limits(zarr.open_array(store, mode="r", zarr_format=version), most)
    except (ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError) as error:
        raise ValueError(f"{at} cannot be opened: {error}") from error
    reader = _Chunks(array, about, chosen, name=at)
    return Tomogram(reader.shape, level.voxel_size, reader.read, at, origin, reader.chunks)  # type: ignore[arg-type]


def _chosen(shape: tuple[int, ...], level: Level, names: Any, *, wanted: dict[str, int | None]) -> tuple[int | str, ...]:
    """For each dimension of an array its letter (z, y or x) or the index to read."""
    named = multiscales.dimension_names(names, needed=level.axes is None)
    axes = multiscales.agreed(level.axes, named, who="the array calls them") or _unnamed(shape)
    if level.path and len(shape) == len(SPACE):
        axes = tuple(axis for axis in axes if axis in SPACE)
    lead = max(0, len(shape) - len(axes))
    if len(axes) > len(shape) or any(n != 1 for n in shape[:lead]):
        raise ValueError(f"an array of shape {shape} has no axes {', '.join(axes)}")
    absent = [OTHER_AXES[axis] for axis, index in wanted.items() if index is not None and axis not in axes]
    if absent:
        raise ValueError(f"{' and '.join(absent)} was given, but its axes are {', '.join(axes)}; axes= says what they are")
    return (0,) * lead + tuple(
        axis if axis in SPACE else _index(axis, wanted[axis], shape, count=n)
        for axis, n in zip(axes, shape[lead:], strict=True)
    )


def _unnamed(shape: tuple[int, ...]) -> tuple[str, ...]:
    lead = len(shape) - len(SPACE)
    if lead < 0 or any(n != 1 for n in shape[:lead]):
        raise ValueError(
            f"it has shape {shape} and does not name its axes, expected z, y, x, with a single channel and time before them if "
            "any; say what they are, such as axes='czyx' with channel=0"
        )
    return SPACE


def _index(axis: str, given: int | None, shape: tuple[int, ...], *, count: int) -> int:
    name = OTHER_AXES[axis]
    if given is None and count > 1:
        raise ValueError(
            f"it has shape {shape}, expected z, y, x, with a single {name}; say which of the {count} along the axis {axis} is "
            f"meant, {name}=0 to {count - 1}"
        )
    if given is not None and (isinstance(given, bool) or given not in range(count)):
        raise ValueError(f"{name} must be a whole number from 0 to {count - 1}, got {given!r}")
    return int(given or 0)


def _metadata_v2(node: dict[str, Any]) -> _ArrayMetadata:
    """Metadata from .zarray (zarr-specs, v2)."""
    shape, chunks = _lengths(node["shape"], "shape"), _lengths(node["chunks"], "chunks")
    dtype = np.dtype(str(node["dtype"]))
    filters = [*(node.get("filters") or []), *([] if node.get("compressor") is None else [node["compressor"]])]
    _check([(str(entry["id"]), entry) for entry in filters], dtype.name, shape, chunks)
    size = int(np.prod([int(n) for n in chunks], dtype=object)) * dtype.itemsize
    return _ArrayMetadata(shape, chunks, size, size, sharded=False)


def _metadata_v3(node: dict[str, Any]) -> _ArrayMetadata:
    """Metadata from zarr.json (zarr-specs, v3, and ZEP 2 on sharding)."""
    if node.get("node_type") != "array" or node["chunk_grid"]["name"] != "regular" or node.get("storage_transformers"):
        raise ValueError("expected an array on a regular grid of chunks")
    shape, outer = _lengths(node["shape"], "shape"), _lengths(node["chunk_grid"]["configuration"]["chunk_shape"], "chunk_shape")
    codecs, chunks = list(node["codecs"]), outer
    sharded = codecs[0]["name"] == "sharding_indexed"
    known = _configurations(codecs)
    if sharded:
        inner = codecs[0]["configuration"]
        if len(codecs) > 1 or "sharding_indexed" in map(codec_name, inner["codecs"]):
            raise ValueError("shards in shards, or compressed shards, are not read")
        chunks = _lengths(inner["chunk_shape"], "chunk_shape of shards")
        known += _configurations(inner["codecs"])
        if set(map(codec_name, inner["index_codecs"])) - {"bytes", "crc32c"}:
            raise ValueError("a compressed index of shards is not read")
    _check(known, str(node["data_type"]), shape, outer)
    _check([], str(node["data_type"]), shape, chunks)
    each = np.dtype(str(node["data_type"])).itemsize
    size, whole = (each * int(np.prod([int(n) for n in lengths], dtype=object)) for lengths in (chunks, outer))
    objects = whole + (16 * whole // size + 4 if sharded else 0)
    return _ArrayMetadata(shape, chunks, size, objects, sharded)


def _configurations(codecs: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Names of codecs of Zarr v3 and their parameters."""
    return [(codec_name(codec), codec.get("configuration") or {}) for codec in codecs]


def _lengths(values: Any, name: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(n) is int and 0 < n < 2**40 for n in values):
        raise ValueError(f"{name} must be positive whole numbers, got {str(values)[:80]}")
    return tuple(values)


def _check(codecs: list[tuple[str, Any]], dtype: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    unknown = sorted({name for name, _ in codecs} - CODECS)
    if unknown:
        raise ValueError(f"it asks for the codecs {', '.join(unknown)}; {', '.join(sorted(CODECS))} can be read")
    if dtype not in NUMBERS:
        raise ValueError(f"its values are {dtype}, expected real numbers")
    wide = [about["dtype"] for name, about in codecs if name == "delta" and np.dtype(about["dtype"]).itemsize > WIDEST]
    if wide:
        raise ValueError(f"its codec delta gives values of type {wide[0]}, and its values are {dtype}")
    if len(shape) != len(chunks):
        raise ValueError(f"chunks {chunks} do not fit shape {shape}")


class _Chunks:
    """Chunks of an array, with a cache of those read last."""

    def __init__(self, array: Any, about: _ArrayMetadata, chosen: tuple[int | str, ...], *, name: str) -> None:
        dimensions = [chosen.index(axis) for axis in SPACE]
        self.shape, self.chunks = (tuple(one[dimension] for dimension in dimensions) for one in (about.shape, about.chunks))
        order = [sorted(dimensions).index(dimension) for dimension in dimensions]
        read = partial(_chunk, array, self.shape, self.chunks, chosen=chosen, order=order, name=name)
        self.chunk = lru_cache(max(1, CACHE_BYTES // (about.chunk_bytes or 1)))(read)

    def read(self, slices: Slices) -> np.ndarray:
        """Voxels of a block."""
        spans = [range(one.start // c, -(-one.stop // c)) for one, c in zip(slices, self.chunks, strict=True)]
        out = np.empty([one.stop - one.start for one in slices], dtype=np.float32)
        wanted = list(product(*spans))
        with ThreadPoolExecutor(min(READERS, len(wanted))) as readers:
            for some in (wanted[i : i + READERS] for i in range(0, len(wanted), READERS)):
                for place, chunk in zip(some, readers.map(self.chunk, some), strict=True):
                    corner = [i * c for i, c in zip(place, self.chunks, strict=True)]
                    low = [max(a, one.start) for a, one in zip(corner, slices, strict=True)]
                    high = [min(a + n, one.stop) for a, n, one in zip(corner, chunk.shape, slices, strict=True)]
                    to = tuple(slice(a - one.start, b - one.start) for a, b, one in zip(low, high, slices, strict=True))
                    out[to] = chunk[tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))]
        return out


def _chunk(
    array: Any,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    place: tuple[int, ...],
    *,
    chosen: tuple[int | str, ...],
    order: list[int],
    name: str,
) -> np.ndarray:
    """The chunk at `place` in the grid of chunks, (z, y, x)."""
    block = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(place, chunks, shape, strict=True))
    along = dict(zip(SPACE, block, strict=True))
    try:
        return np.asarray(array[tuple(along[one] if isinstance(one, str) else one for one in chosen)]).transpose(order)
    except (FileNotFoundError, ConnectionError):
        raise
    except (ValueError, RuntimeError, TypeError, LookupError, ArithmeticError, OSError, MemoryError) as error:
        raise ValueError(f"{name}: the chunk at {block} (z, y, x) cannot be read: {error}") from error
