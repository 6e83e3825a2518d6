"""Damaged and hostile files of every kind: each is refused with a clear error that names it, or gives what is whole in it.

The corpus is made anew from good files each time, always the same. Nothing else than ValueError and FileNotFoundError comes
out of a reader; none takes long, asks for much memory, or opens a file outside of the folder.
"""

import random
import signal
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import damages
from malformed import KINDS, SERIES, Good, Kind

SECONDS = 5
BYTES = 300 * 2**20
CORPUS = {(name, what): damage for name, kind in KINDS.items() for what, damage in damages(name, kind).items()}
watched: list[Path] = []
opened: list[str] = []


def note(event: str, arguments: tuple) -> None:
    if event == "open" and watched and isinstance(arguments[0], str) and Path(arguments[0]).name.startswith("bait"):
        opened.append(arguments[0])


sys.addaudithook(note)


class Late(BaseException):
    """Raised where a reader takes too long; no Exception, so that it is not taken for an error of the file."""


def attempt(kind: Kind, path: Path, folder: Path, what: str, *, seconds: int = SECONDS) -> str | None:
    """Read a file; what is wrong with how it was refused or taken, None if nothing."""

    def late(*_: object) -> None:
        raise Late(f"more than {seconds} seconds")

    # Seconds of the processor, since others may be at work too; and many more of the clock, for what waits for ever.
    before = {one: signal.signal(one, late) for one in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(20 * seconds)
    # Single values ask for no memory, and tracing takes time.
    traced = ": column" not in what and "a number" not in what
    if traced:
        tracemalloc.start(1)
    found = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kind.read(path)
    except (ValueError, FileNotFoundError) as error:
        if str(folder) not in str(error):
            return f"{what}: the file is not named: {error}"[:300]
    except (Exception, Late) as error:  # noqa: BLE001 - told, whatever it is
        return f"{what}: {type(error).__name__}: {error}"[:300]
    finally:
        peak = tracemalloc.get_traced_memory()[1] if traced else 0
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for one, was in before.items():
            signal.signal(one, was)
    if peak > BYTES:
        return f"{what}: {peak:,} bytes of memory"
    if found is not None:
        try:
            kind.holds(found, path)
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            return f"{what}: taken, but not whole: {type(error).__name__}: {error}"[:300]
    return None


def lay(folder: Path, good: Good) -> None:
    for name, content in good.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "bait.star").write_text(SERIES)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_refused_or_whole(name: str, tmp_path: Path, outside: Path) -> None:
    kind = KINDS[name]
    kind.make(tmp_path)
    good = {str(path.relative_to(tmp_path)): path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    kind.holds(kind.read(tmp_path / kind.main), tmp_path / kind.main)
    (tmp_path.parent / "bait.star").write_text(SERIES)
    (tmp_path / "link.star").symlink_to(outside / "bait.star")
    wrong = []
    watched.append(tmp_path)
    opened.clear()
    for (_, what), (target, change) in ((key, damage) for key, damage in CORPUS.items() if key[0] == name):
        raw = change(good[target], random.Random(f"{name} {what}"))
        (tmp_path / target).write_bytes(raw.replace(b"{outside}", str(outside).encode()))
        wrong.append(attempt(kind, tmp_path / kind.main, tmp_path, what))
        (tmp_path / target).write_bytes(good[target])
    watched.clear()
    found = [one for one in wrong if one]
    assert not found, f"{len(found)} of {len(wrong)}:\n" + "\n".join(found)
    assert not opened


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_file_is_refused(name: str, tmp_path: Path, outside: Path) -> None:
    """A folder, nothing, a link to nothing and to itself, in the place of each file."""
    kind = KINDS[name]
    for n, (what, change) in enumerate(
        {
            "a folder": Path.mkdir,
            "nothing": lambda path: None,
            "a link to nothing": lambda path: path.symlink_to(path.parent / "no"),
            "a link to itself": lambda path: path.symlink_to(path),
        }.items()
    ):
        for m, target in enumerate(kind.targets):
            folder = tmp_path / f"{n} {m}"
            folder.mkdir()
            kind.make(folder)
            (folder / target).unlink()
            change(folder / target)
            assert attempt(kind, folder / kind.main, folder, f"{target}: {what}") is None


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("Zarr 2 chunk", "a.zarr/0/0/0/0"),
        ("Zarr 3 chunk", "a.zarr/0/c/0/0/0"),
        ("Zarr 3 array", "a.zarr/0/zarr.json"),
        ("STAR relion5", "tilt_series/TS_01.star"),
        ("STAR optimisation set", "particles.star"),
    ],
)
def test_a_link_in_a_folder_does_not_lead_out(name: str, inner: str, tmp_path: Path) -> None:
    """What lies outside is as good as what lay inside, and all the same not read."""
    folder, kind = tmp_path / "in", KINDS[name]
    folder.mkdir()
    kind.make(folder)
    kind.read(folder / kind.main)
    (folder / inner).rename(tmp_path / "bait")
    (folder / inner).symlink_to(tmp_path / "bait")
    with pytest.raises(ValueError, match="leads out of"):
        kind.read(folder / kind.main)


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 3000
    assert len({name for name, _ in CORPUS}) == len(KINDS) >= 40


def test_a_faulty_reader_is_found_out(tmp_path: Path) -> None:
    """What is wrong with a reader is told: other errors, no name of the file, much memory, half a result, and no end."""

    def fails(read: Callable[[Path], Any], holds: Callable[[Any, Path], None] = lambda found, path: None) -> str | None:
        return attempt(Kind(lambda folder: None, "a", read, holds), tmp_path / "a", tmp_path, "cut", seconds=1)

    def refuse(path: Path) -> None:
        raise ValueError(f"{path}: no")

    assert fails(refuse) is None
    assert "KeyError" in str(fails(lambda path: {}["a"]))
    assert "not named" in str(fails(lambda path: int("a")))
    assert "of memory" in str(fails(lambda path: len(bytes(BYTES + 1))))
    assert "not whole" in str(fails(lambda path: [1], lambda found, path: found[1]))
    assert "more than 1 seconds" in str(fails(lambda path: time.sleep(20)))
