"""Trials: pieces of work that are broken in every way, looked at, asked for again, and held beside the unbroken ones.

>>> trial = Trial("train", given, place)
>>> trial.killed(50, seed=0)                  # a row of a table
>>> trial.complaints                          # what was not as it should be
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import works
from works import Begun, Ended

from tomolab.io import run_folder

COUNTS = ("nothing", "earlier", "whole", "damaged", "as unbroken", "left over", "clear errors")
"""Of what is read after a break, of what the second time gives, and of errors that say what was wrong."""


class Trial:
    """A work that was done unbroken, beside which those are held that were not.

    Parameters
    ----------
    name
        One of `works.WORKS`.
    given
        What `works.inputs` made.
    place
        Folder for all that is written.
    """

    def __init__(self, name: str, given: Path, place: Path) -> None:
        self.name, self.given, self.place, self.count = name, given, place / name, 0
        self.complaints: list[str] = []
        whole = self.fresh()
        self.before = works.look(name, whole)
        self.first, ended = self._timed(whole)
        # The second time is without what the first has warmed.
        self.first, again = self._timed(self.fresh())
        self.seconds, self.computed = min(ended.seconds, again.seconds), min(ended.computed, again.computed)
        self.wanted, self.names = works.look(name, whole), {path.name for path in whole.rglob("*")}
        self.largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())

    def _timed(self, folder: Path) -> tuple[float, Ended]:
        begun = Begun(self.name, self.given, folder)
        return begun.wait_for_writing(), begun.end()

    def fresh(self) -> Path:
        """A folder in which there is what was there before."""
        folder = self.place / str(self.count)
        folder.mkdir(parents=True)
        self.count += 1
        before = works.WORKS[self.name].before
        if before is not None:
            Begun(self.name, self.given, folder, **before).end()
        return folder

    def judge(self, folder: Path, row: dict[str, Any]) -> float:
        """Count what can be read in a folder, do the work again there, and count what came of it; the share that was spared."""
        found = works.look(self.name, folder)
        known = {self.before: "earlier", "nothing": "nothing", self.wanted: "whole"}
        row[known.get(found, "damaged")] += 1
        if found not in known:
            self.complaints.append(f"{row['broken by']}: {found}")
        computed = Begun(self.name, self.given, folder).end().computed
        row["as unbroken"] += works.look(self.name, folder) == self.wanted
        left = sorted({path.name for path in folder.rglob("*")} - self.names)
        row["left over"] += len(left)
        self.complaints += [f"{row['broken by']}: left over {', '.join(left)}"] if left else []
        shutil.rmtree(folder)
        return 1 - computed / self.computed

    def killed(self, times: int, *, seed: int) -> dict[str, Any]:
        """Killed at moments drawn from the time that it takes."""
        row, spared = self._row("killed", times), []
        for number, share in enumerate(np.random.default_rng(seed).uniform(0, 1, times)):
            spared.append(self._killed(row, number, float(share)))
        return row | {"seconds": self.seconds, "time spared": float(np.median(spared))}

    def _killed(self, row: dict[str, Any], number: int, share: float, **trouble: Any) -> float:
        folder = self.fresh()
        begun = Begun(self.name, self.given, folder, trouble=trouble)
        # Every other one while it writes, which may be a small part of its time.
        writing = number % 2 == 0
        first = begun.wait_for_writing() if writing else 0.0
        begun.end(max(0.0, share * (self.seconds - first)))
        if trouble:
            _touch(folder, works.AHEAD if number % 4 < 2 else works.BACK)
        return self.judge(folder, row)

    def filled(self, times: int, *, seed: int) -> dict[str, Any]:
        """On a disk that is full: no file may grow beyond a share of the largest."""
        row = self._row("disk full", times)
        for share in np.random.default_rng(seed).uniform(0.02, 0.98, times):
            folder = self.fresh()
            ended = Begun(self.name, self.given, folder, trouble={"full": int(share * self.largest)}).end()
            self._refused(row, ended, folder)
            self.judge(folder, row)
        return row

    def forbidden(self, times: int, *, seed: int) -> dict[str, Any]:
        """In a folder that may only be read."""
        del seed  # nothing is drawn
        row = self._row("read-only folder", times)
        for _ in range(times):
            folder = self.fresh()
            before = works.seen(folder)
            folder.chmod(0o555)
            ended = Begun(self.name, self.given, folder, trouble={"nobody": True}).end()
            folder.chmod(0o755)
            self._refused(row, ended, folder)
            if works.seen(folder) != before:
                self.complaints.append("read-only folder: something in it changed")
            self.judge(folder, row)
        return row

    def removed(self, times: int, *, seed: int) -> dict[str, Any]:
        """Its folder is taken away while it works, moved at once or file by file."""
        row = self._row("folder removed", times)
        for number, share in enumerate(np.random.default_rng(seed).uniform(0, 0.95, times)):
            folder = self.fresh()
            begun = Begun(self.name, self.given, folder, trouble={"others": 0})
            begun.process.join(float(share) * self.seconds)
            if number % 2:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.rename(folder.with_name("gone"))
                shutil.rmtree(folder.with_name("gone"), ignore_errors=True)
            ended = begun.end()
            if ended.code:
                self._refused(row, ended, folder)
            folder.mkdir(exist_ok=True)
            self.judge(folder, row)
        return row

    def jumped(self, times: int, *, seed: int) -> dict[str, Any]:
        """Killed, with a clock that went back an hour and ahead a year meanwhile; the files bear such times, too."""
        row = self._row("clock jumps", times)
        for number, (share, *jumps) in enumerate(np.random.default_rng(seed).uniform(0, 1, (times, 3))):
            moments = tuple(sorted(float(jump) * self.seconds for jump in jumps))
            self._killed(row, number, float(share), jumps=moments)
        return row

    def doubled(self, times: int, *, seed: int) -> dict[str, Any]:
        """Two processes do the same in the same folder at the same time."""
        return self._doubled(self._row("two at once", times), seed=seed)

    def unlocked(self, times: int, *, seed: int) -> dict[str, Any]:
        """The same on a file system without locks."""
        return self._doubled(self._row("two at once, no locks", times), seed=seed, locks=False)

    def _doubled(self, row: dict[str, Any], *, seed: int, **trouble: Any) -> dict[str, Any]:
        for share in np.random.default_rng(seed).uniform(0, 1, row["times"]):
            folder = self.fresh()
            both = [Begun(self.name, self.given, folder, trouble={"others": 1, **trouble})]
            both[0].process.join(float(share) * self.seconds / 2)
            both.append(Begun(self.name, self.given, folder, trouble={"others": 1, **trouble}))
            ended = [one.end() for one in both]
            for one in ended:
                if one.code:
                    self._refused(row, one, folder)
            if all(one.code for one in ended):
                self.complaints.append("two at once: both were refused")
            if works.look(self.name, folder) != self.wanted:
                self.complaints.append("two at once: one said that it was done, and it is not")
            self.judge(folder, row)
        return row

    def mixed(self, times: int, *, seed: int) -> dict[str, Any]:
        """Two processes do different work in the same place at the same time, every other time without locks."""
        row = self._row("another at once", times)
        other = works.WORKS[self.name].other or {}
        folder = self.fresh()
        Begun(self.name, self.given, folder, **other).end()
        wanted = {self.wanted, works.look(self.name, folder)}
        for number, share in enumerate(np.random.default_rng(seed).uniform(0, 1, times)):
            folder = self.fresh()
            trouble = {"others": 1, "locks": number % 2 == 0}
            both = [Begun(self.name, self.given, folder, trouble=trouble)]
            both[0].process.join(float(share) * self.seconds)
            both.append(Begun(self.name, self.given, folder, trouble=trouble, **other))
            for one in both:
                ended = one.end()
                if ended.code:
                    self._refused(row, ended, folder)
            found = works.look(self.name, folder)
            row["whole" if found in wanted else "damaged"] += 1
            if found not in wanted:
                self.complaints.append(f"another at once: {found}")
            left = sorted({path.name for path in folder.rglob("*")} - self.names)
            row["left over"] += len(left)
            row["as unbroken"] += found in wanted
            shutil.rmtree(folder)
        return row

    def flipped(self, times: int, *, seed: int) -> dict[str, Any]:
        """A bit is flipped in what it wrote, every other time in what it had written when it was killed."""
        row, rng = self._row("bit flipped", times), np.random.default_rng(seed)
        for number in range(times):
            folder = self.fresh()
            begun = Begun(self.name, self.given, folder)
            if number % 2:
                begun.wait_for_writing()
                begun.end(float(rng.uniform(0, 0.9)) * (self.seconds - self.first))
            else:
                begun.end()
            name = _flip(folder, rng)
            found = works.look(self.name, folder)
            again = Begun(self.name, self.given, folder, trouble={"damaged": 1}).end()
            self._noticed(row, name, found, again, works.look(self.name, folder))
            shutil.rmtree(folder)
        return row

    def _noticed(self, row: dict[str, Any], name: str, found: str, again: Ended, then: str) -> None:
        """Count what is read in a damaged folder, and what comes of the same call there: the right result, or an error."""
        kind = {self.before: "earlier", "nothing": "nothing", self.wanted: "whole"}.get(found, "")
        told = found.startswith("damaged: ") and (str(self.place) in found or "checksum" in found)
        row["clear errors"] += told or (again.code == works.REFUSED and str(self.place) in again.error)
        if kind:
            row[kind] += 1
        elif not told:
            row["damaged"] += 1
            self.complaints.append(f"bit flipped in {name}: read as {found}")
        row["as unbroken"] += then == self.wanted
        if then != self.wanted and not again.code:
            self.complaints.append(f"bit flipped in {name}: the second time ended well with {then}")

    def _row(self, what: str, times: int) -> dict[str, Any]:
        return {"work": self.name, "broken by": what, "times": times} | dict.fromkeys(COUNTS, 0)

    def _refused(self, row: dict[str, Any], ended: Ended, folder: Path) -> None:
        clear = ended.clear(folder)
        row["clear errors"] += clear
        if not clear:
            self.complaints.append(f"{row['broken by']}: ended with {ended.code}, {ended.error or 'no error'}")


FAULTS: dict[str, tuple[Callable[..., dict[str, Any]], float]] = {
    "killed": (Trial.killed, 1.0),
    "full": (Trial.filled, 0.2),
    "forbidden": (Trial.forbidden, 0.04),
    "removed": (Trial.removed, 0.2),
    "jumped": (Trial.jumped, 0.2),
    "doubled": (Trial.doubled, 0.1),
    "unlocked": (Trial.unlocked, 0.1),
    "mixed": (Trial.mixed, 0.2),
    "flipped": (Trial.flipped, 0.4),
}
"""How a work is broken, and how often for each time that it is killed."""


def faults(work: str) -> list[str]:
    """How this work can be broken."""
    kind = works.WORKS[work]
    return [name for name in FAULTS if (name != "mixed" or kind.other) and (name != "flipped" or kind.sums)]


def together(trials: list[Trial], place: Path, *, times: int) -> tuple[dict[str, Any], list[str]]:
    """All works at once in one run folder, each recorded in its manifest: a row, and complaints."""
    row: dict[str, Any] = {"work": "all in one folder", "broken by": "one another", "times": times} | dict.fromkeys(COUNTS, 0)
    complaints = []
    for number in range(times):
        folder = place / f"together-{number}"
        folder.mkdir()
        for begun in [Begun(one.name, one.given, folder, stage=one.name) for one in trials]:
            begun.end()
        wrong = [one.name for one in trials if works.look(one.name, folder) != one.wanted]
        lost = {one.name for one in trials} - set(run_folder.Run(folder).manifest()["stages"])
        left = sorted(
            {os.fspath(path.name) for path in folder.rglob("*")}
            - set().union(*(one.names for one in trials))
            - {run_folder.MANIFEST}
        )
        row["whole"] += not wrong
        row["as unbroken"] += not wrong and not lost
        row["left over"] += len(left)
        complaints += [f"all in one folder: {wrong} are wrong, the manifest lacks {lost}"] if wrong or lost else []
        shutil.rmtree(folder)
    return row, complaints


def _touch(folder: Path, jump: float) -> None:
    """Let all files be of another time."""
    for path in folder.rglob("*"):
        told = path.stat().st_mtime + jump
        os.utime(path, (told, told))


def _flip(folder: Path, rng: np.random.Generator) -> str:
    """Flip a bit in a file of a folder, each as likely as the others; its name."""
    # A history is for people, and nothing reads it.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size and path.name != "history.csv")
    if not files:
        return "nothing"
    path = files[rng.integers(len(files))]
    place = int(rng.integers(path.stat().st_size))
    with path.open("r+b") as file:
        file.seek(place)
        [old] = file.read(1)
        file.seek(place)
        file.write(bytes([old ^ 1 << int(rng.integers(8))]))
    return path.name
