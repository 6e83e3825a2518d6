"""Downloads into a cache, checked whenever they are used again.

>>> path = cached("https://files.rcsb.org/download/1kp8.cif.gz", folder() / "structures" / "1kp8.cif.gz")
"""

import json
import logging
import os
from pathlib import Path

import pooch
import requests

from tomolab import io
from tomolab.io import safe_load


def folder() -> Path:
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
