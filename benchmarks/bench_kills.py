"""Every kind of long work, broken in every way and asked for again: what is left, what can be read, what comes of it.

    python benchmarks/bench_kills.py                             # all of it, some three quarters of an hour on two cores
    python benchmarks/bench_kills.py --works train --moments 5   # some of it; the other rows of the result stay
    python benchmarks/bench_kills.py --table                     # the result as the table of docs/reliability.md

Every piece of work runs in a process of its own on small inputs, first unbroken; then it is

- killed (SIGKILL) at moments drawn over the whole of its time, every other one from the time in which it writes,
- on a disk that is full: no file may grow beyond a size drawn up to that of the largest,
- in a folder that it may not write (as root it becomes nobody),
- robbed of its folder at a moment drawn from its time,
- killed, with a clock that goes back an hour and ahead a year in between, and files that bear such times,
- done by two processes at once in the same folder, also on a file system without locks,
- done beside other work in the same place, with and without locks,
- done, or killed, and then a bit of what it wrote is flipped: that must be noticed, or change nothing.

After each, everything is read: there may be nothing, what was there before, or the whole result. Then the same call is made
again, and its result compared with the unbroken one, number by number. At last all works run at once in one run folder.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import record
import trials
import works

Keep = Callable[[list[dict[str, Any]], list[str]], None]
NAME = "kills"
COLUMNS = [
    "work",
    "broken by",
    "times",
    "nothing",
    "earlier",
    "whole",
    "damaged",
    "as unbroken",
    "left over",
    "clear errors",
    "time spared",
]


def table(*, moments: int, seed: int, names: list[str], faults: list[str], keep: Keep) -> None:
    """Break works, and give `keep` the rows of each."""
    works.preload()
    with tempfile.TemporaryDirectory() as folder:
        # For everybody, also for nobody, to read.
        Path(folder).chmod(0o755)
        given = Path(folder) / "given"
        given.mkdir()
        works.inputs(given)
        made = []
        for name in names:
            trial = trials.Trial(name, given, Path(folder))
            possible = [trials.FAULTS[key] for key in trials.faults(name) if key in faults]
            how = [(fault, max(1, round(share * moments))) for fault, share in possible]
            keep([fault(trial, times, seed=seed) for fault, times in how], trial.complaints)
            made.append(trial)
        if set(names) == set(works.WORKS):
            row, complaints = trials.together(made, Path(folder), times=max(1, moments // 25))
            keep([row], complaints)


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of the works and faults, the new ones in place of the old ones of the same words."""
    held = {(row["work"], row["broken by"]): row for row in [*old, *new]}
    order = [*works.WORKS, "all in one folder"]
    return sorted(held.values(), key=lambda row: order.index(row["work"]))


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=50, help="how often each work is killed; by the rest it is broken less")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--works", nargs="+", choices=list(works.WORKS), default=list(works.WORKS))
    parser.add_argument("--faults", nargs="+", choices=list(trials.FAULTS), default=list(trials.FAULTS))
    parser.add_argument("--table", action="store_true", help="print the last result for a page, and do nothing")
    given = parser.parse_args()
    place = record.RESULTS / f"{NAME}.json"
    last: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {"rows": [], "settings": {}}
    if given.table:
        print(record.markdown(last["rows"], COLUMNS))
        return
    # Bars of hundreds of processes, which is for them to know before they begin.
    os.environ["TQDM_DISABLE"] = "1"
    rows: list[dict[str, Any]] = []
    run = {"works": given.works, "faults": given.faults, "moments": given.moments, "seed": given.seed}
    # What was not run again stands as it was.
    settings = {"runs": [*last["settings"].get("runs", []), run | {"time": datetime.now(UTC).isoformat(timespec="seconds")}]}

    def keep(some: list[dict[str, Any]], complaints: list[str]) -> None:
        """Add what came of a work to the result at once."""
        rows.extend(some)
        record.write(NAME, merged(last["rows"], rows), settings=settings)
        print(*complaints[:9], sep="\n", flush=True)

    table(moments=given.moments, seed=given.seed, names=given.works, faults=given.faults, keep=keep)


if __name__ == "__main__":
    main()
