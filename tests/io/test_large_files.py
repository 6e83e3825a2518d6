"""Files that are too large are refused with both numbers; large ones are read in a time that grows as they do."""

import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tomolab import io
from tomolab.io import paths, safe_load
from tomolab.io.lists import formats
from tomolab.io.tilts import tables
from tomolab.subtomograms import tomogram_list

LISTS = sorted(set(formats.READERS) - {".em", ".tloc"})
"""Lists that are read whole; an .em is as long as its header says, and .tloc is refused by its suffix."""
KNOWN: dict[str, Any] = {"voxel_size": 10.0, "tilts": (-60, 60), "tomogram": "TS_01"}
RECORDS: dict[str, Callable[[Path], Any]] = {
    ".json": safe_load.read_json,
    ".csv": lambda path: safe_load.read_csv(path, ["x"]),
}


def sparse(path: Path, size: int) -> Path:
    """A file of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("suffix", LISTS)
def test_a_list_that_is_too_large_is_not_read(tmp_path: Path, suffix: str) -> None:
    path = sparse(tmp_path / f"a{suffix}", paths.LARGEST + 1)
    with pytest.raises(ValueError, match=rf"a\{suffix}: it has 4,294,967,297 bytes, expected at most 4,294,967,296"):
        io.read_particles(path, **{name: value for name, value in KNOWN.items() if suffix != ".csv" or name != "voxel_size"})


def test_a_motive_list_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = sparse(tmp_path / "a.em", 512 + 80 * 2**26)
    with path.open("r+b") as file:
        file.write(struct.pack("<4B3i", 6, 0, 0, 5, 20, 2**26, 1))
    with pytest.raises(ValueError, match=r"a\.em: it has 5,368,709,632 bytes, expected at most 4,294,967,296"):
        io.read_particles(path, **KNOWN)


@pytest.mark.parametrize("suffix", [*tables.READERS, ".tlt"])
def test_metadata_that_are_too_large_are_not_read(tmp_path: Path, suffix: str) -> None:
    path = sparse(tmp_path / f"a{suffix}", 2**33)
    with pytest.raises(ValueError, match=rf"a\{suffix}.* it has 8,589,934,592 bytes, expected at most 67,108,864"):
        (io.tilts.read_tilts if suffix == ".tlt" else tables.read_metadata)(path)


@pytest.mark.parametrize("suffix", RECORDS)
def test_a_record_that_is_too_large_is_not_read(tmp_path: Path, suffix: str) -> None:
    path = sparse(tmp_path / f"a{suffix}", 2**33)
    with pytest.raises(ValueError, match=rf"a\{suffix} .* it has 8,589,934,592 bytes, expected at most \d"):
        RECORDS[suffix](path)


@pytest.mark.parametrize("suffix", [".star", ".mod", ".xml"])
def test_a_list_for_which_memory_does_not_suffice_is_not_read(tmp_path: Path, suffix: str, monkeypatch) -> None:
    free = type("Memory", (), {"available": 10**9, "total": 2 * 10**9})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    said = (
        r"it has 200,000,000 bytes, and reading it takes about 2,000,000,000 bytes of memory, but only 1,000,000,000 are free"
    )
    with pytest.raises(ValueError, match=said):
        io.read_particles(sparse(tmp_path / f"a{suffix}", 200_000_000), **KNOWN)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_arrays_are_compressed_as_numpy_does(tmp_path: Path, method: int) -> None:
    """Other decoders give all that a block holds at once, whatever the archive says of its size."""
    np.save(tmp_path / "a.npy", np.zeros(100))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    with pytest.raises(ValueError, match=rf"'a.npy' is compressed by method {method}, expected stored or deflated"):
        safe_load.read_npz(tmp_path / "a.npz")


def test_a_header_of_tensors_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**26) + b'{"__metadata__": {}}'.ljust(2**26))
    with pytest.raises(ValueError, match="its header has 67,108,864 bytes, expected at most 16,777,216"):
        safe_load.read_safetensors(tmp_path / "a.safetensors")


def warp(folder: Path, size: int) -> Callable[[], Any]:
    angles = "\n".join(f"{angle:.4f}" for angle in np.linspace(-60, 60, size))
    nodes = "".join(f'<Node X="0" Y="0" Z="{z}" Value="2" />\n' for z in range(size))
    path = folder / "a.xml"
    path.write_text(f"<TiltSeries><Angles>{angles}</Angles><GridCTF>{nodes}</GridCTF></TiltSeries>")
    return lambda: io.tilts.read_warp(path)


def columns_of_star(folder: Path, size: int) -> Callable[[], Any]:
    names = ["rlnMicrographName", *(f"rlnCoordinate{axis}" for axis in "XYZ"), *(f"c{n}" for n in range(size // 8))]
    rows = "".join(f"TS_01 {row} {row} {row}{' 1' * (size // 8)}\n" for row in range(9))
    path = folder / "a.star"
    path.write_text("\ndata_particles\n\nloop_\n" + "".join(f"_{name}\n" for name in names) + rows)
    return lambda: io.read_particles(path, **KNOWN)


def blocks_of_star(folder: Path, size: int) -> Callable[[], Any]:
    head = "\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
    path = folder / "a.star"
    path.write_text("".join(f"\ndata_TS_{n}{head}TS_{n} 1 2 3\n" for n in range(size // 40)))
    return lambda: io.read_particles(path, **KNOWN | {"tomogram": None})


def tomograms(folder: Path, size: int) -> Callable[[], Any]:
    path = folder / "a.csv"
    path.write_text("tomogram,path,contrast\n" + "".join(f"TS_{n},TS_{n}.mrc,dark\n" for n in range(size)))
    return lambda: tomogram_list.read(path)


@pytest.mark.parametrize("make", [warp, columns_of_star, blocks_of_star, tomograms])
def test_the_time_grows_as_the_file(tmp_path: Path, make: Callable[[Path, int], Callable[[], Any]]) -> None:
    spent = []
    for size in (500, 4000, 32000):
        read = make(tmp_path, size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = time.process_time()
            read()
            spent.append(time.process_time() - before)
    # Eight times the size; what takes the square of it would take 64 times as long.
    assert spent[2] < 24 * spent[1] + 0.2
