"""Takes the path of a map or tomogram in any known format, gives its volume; writes volumes.

A folder or an address is OME-Zarr (`tomolab.io.volumes.ome_zarr`), a file whose header is that of TOM or PyTom EM
(`tomolab.io.volumes.em`), any other file MRC (`tomolab.io.volumes.mrc`), whatever its name ends in: .mrc, .rec, .map, .ali,
.st, with .gz or .bz2 or without.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tomolab.io.volumes import em, mrc, ome_zarr
from tomolab.io.volumes.flips import Flip
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.io.volumes.zarr_arrays import locate, remote
from tomolab.volumes import Volume


def open_volume(
    path: str | Path,
    *,
    voxel_size: float | None = None,
    permissive: bool = False,
    flipped: Flip | None = None,
    near: float | None = None,
    averaged: bool | None = None,
    channel: int | None = None,
    time: int | None = None,
    axes: str | None = None,
) -> Tomogram:
    """Open a map or tomogram; ``.read(slices)`` reads a block, ``.load()`` the whole.

    Parameters
    ----------
    path
        MRC or EM file, OME-Zarr folder, or the http or https address of one.
    voxel_size
        Å; required where the file does not state it (EM never does), else compared with the file.
    permissive
        MRC: also files whose map id, machine stamp or axis order are not set. Zarr: missing chunks hold the fill value.
    flipped
        MRC: how the axes of a tomogram with its thickness along y are reordered (`tomolab.io.volumes.flips`). A file that
        seems to be one is refused until this is given.
    near
        Zarr: take the coarsest level whose voxels are not larger than this, in Å.
    averaged
        Zarr: whether voxels of coarser levels are averages of blocks, where the file does not state their positions.
    channel, time
        Zarr: index of the one to read, from 0, where there are several.
    axes
        Zarr: names of the axes in the order of the file, such as "xyz" or "czyx", where the file does not name them.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ConnectionError
        If a server fails.
    ValueError
        If it has another format, contradicts its header, its voxel size is unknown or differs from `voxel_size`, or a
        parameter is given that does not apply to its format.
    """
    options: dict[str, Any] = {"voxel_size": voxel_size}
    pyramid = {"near": near, "averaged": averaged, "channel": channel, "time": time, "axes": axes}
    place = locate(path)
    if remote(place) or Path(place).is_dir():
        _unused(path, flipped=flipped)
        options |= {"permissive": permissive, **pyramid}
        found = ome_zarr.open_volume(place, **options)
    elif em.recognised(Path(place)):
        _unused(path, flipped=flipped, permissive=permissive or None, **pyramid)
        found = em.open_volume(place, **options)
    else:
        _unused(path, **pyramid)
        options |= {"permissive": permissive, "flipped": flipped}
        found = mrc.open_volume(place, **options)
    # Another process may have another working directory.
    return replace(found, again=partial(open_volume, place if remote(place) else Path(place).absolute(), **options))


def read_volume(path: str | Path, *, voxel_size: float | None = None, permissive: bool = False, **options: Any) -> Volume:
    """Read a map or tomogram whole.

    Parameters
    ----------
    path, voxel_size, permissive
        As in `open_volume`.
    **options
        Its further parameters: `flipped`, `near`, `averaged`, `channel`, `time`, `axes`.

    Raises
    ------
    FileNotFoundError, ConnectionError, ValueError
        As `open_volume`; also if it does not fit into memory or holds NaN.
    """
    return open_volume(path, voxel_size=voxel_size, permissive=permissive, **options).load()


def write_volume(volume: Volume, path: str | Path, *, version: Literal["0.4", "0.5"] | None = None) -> Path:
    """Write a volume, whole or not at all: OME-Zarr where the name ends in .zarr, EM in .em, else MRC, also .gz and .bz2.

    Parameters
    ----------
    volume
        Its voxel size is written into the file, except for EM.
    path
        The file or folder; an existing volume is replaced.
    version
        Of OME-Zarr: "0.5", the default, or "0.4" for programs that know only Zarr v2.

    Raises
    ------
    ValueError
        If the version is another or the file is no OME-Zarr, or if a path that ends in .zarr exists and is no Zarr.
    """
    if Path(path).suffix == ".zarr":
        return ome_zarr.write_volume(volume, path, version="0.5" if version is None else version)
    _unused(path, version=version)
    if Path(path).suffix.lower() == ".em":
        return em.write_volume(volume, path)
    return mrc.write_volume(volume, path)


def _unused(path: str | Path, **options: Any) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{path}: {', '.join(given)} has no meaning for files of this format")
