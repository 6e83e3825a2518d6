"""Random damage of every kind of file that tomolab reads: crashes, hangs, memory, and what is taken that is not whole.

    python benchmarks/bench_fuzz.py --minutes 10
    python benchmarks/bench_fuzz.py --minutes 2 --kinds store network "copick"

Good files of every kind, of other programs and of run folders, are damaged by one to three changes drawn at random from
those of the tests (`tests/damage.py`, `tests/kept.py`): bits flipped, parts cut, doubled or moved, numbers replaced, header
fields set. Checksums are taken out first, as by somebody who can make them fit. Each kind is read in a process of its own,
whose addresses may grow by 2 GB. A complaint is an error of another kind than ValueError and FileNotFoundError, one that does
not name the file, more than 300 MB or some seconds for a small file, or a result that does not hold what it should; its seed
makes it again.
"""

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import record

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("tests", "tests/inspection", "tests/io/tilts"))

import damage
import kept
import malformed
from test_hostile import attempt

ROOM = 2 * 2**30
"""Bytes of addresses that a reader may take beyond what the process has."""
SECONDS = 20
KINDS = {f"a run folder's {name}": (kind, kept.damages(name, kind)) for name, kind in kept.KINDS.items()}
KINDS |= {name: (kind, damage.damages(name, kind)) for name, kind in malformed.KINDS.items()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all")
    parser.add_argument("--kinds", nargs="+", default=[""], help="those whose names hold one of these words")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = [name for name in KINDS if any(word.lower() in name.lower() for word in options.kinds)]
    # The good files are made in the child too, so that no thread of a library is there at the fork.
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in names:
        number, (mine, theirs) = context.Value("q", 0), context.Pipe(duplex=False)
        child = context.Process(target=_fuzz, args=(name, options.seed, 60 * options.minutes / len(names), number, theirs))
        child.start()
        theirs.close()
        try:
            found = mine.recv()
        except EOFError:
            found = {"inputs": number.value, "complaints": 0, "peak (GB)": float("nan")}
        child.join()
        crashed = child.exitcode != 0
        rows.append({"kind": name, **found, "crashes": int(crashed)})
        if crashed:
            print(f"{name}: ended with {child.exitcode} at seed '{options.seed} {name} {number.value}'", flush=True)
    total: dict[str, Any] = {key: sum(row[key] for row in rows) for key in ("inputs", "complaints", "crashes")}
    rows.append({"kind": "all", **total, "peak (GB)": max(row["peak (GB)"] for row in rows)})
    record.write("fuzz", rows, settings={"minutes": options.minutes, "kinds": options.kinds, "seed": options.seed})


def _fuzz(name: str, seed: int, seconds: float, number: "Synchronized[int]", tell: Any) -> None:
    """Damage and read one kind of file for some seconds."""
    os.environ["TQDM_DISABLE"] = "1"
    kind, changes = KINDS[name]
    complaints = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kind.make(folder)
        kept.without_checksums(folder)
        good = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        kind.holds(kind.read(folder / kind.main), folder / kind.main)
        _confine()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            number.value += 1
            rng = random.Random(f"{seed} {name} {number.value}")
            _damage(folder, list(changes.values()), rng)
            fault = attempt(kind, folder / kind.main, folder, "random damage", seconds=SECONDS)
            for path, content in good.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if fault:
                complaints.append(fault)
                print(f"{name}, seed '{seed} {name} {number.value}': {fault}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    tell.send({"inputs": number.value, "complaints": len(complaints), "peak (GB)": peak})


def _damage(folder: Path, changes: list[tuple[str, damage.Change]], rng: random.Random) -> None:
    """Make one to three changes to files in a folder."""
    for target, change in rng.sample(changes, rng.randint(1, 3)):
        try:
            (folder / target).write_bytes(change((folder / target).read_bytes(), rng))
        except Exception:  # noqa: BLE001 - what one change leaves may be nothing that another can change
            continue


def _confine() -> None:
    """Addresses have a limit, so that memory that is asked for and never touched counts too."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
