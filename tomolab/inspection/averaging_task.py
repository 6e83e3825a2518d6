"""Takes particle ids with boxes, computes their average or one for each class, as a background job does; keeps averages.

>>> job = jobs.start("ribosomes", AveragingTask("ribosomes", boxes, ids, add=work.add_average, options={"seed": 1}))
>>> kept = KeptAverages()
>>> kept.add("ribosomes", average, folder="runs/first")
"""

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tomolab import io
from tomolab.averaging import gold_standard
from tomolab.averaging.classification.classify import classify
from tomolab.averaging.half_maps import Average
from tomolab.averaging.relion import job as relion_job
from tomolab.inspection import run_contents
from tomolab.inspection.run_contents import AVERAGES, RECORD
from tomolab.inspection.session import Identity, identity
from tomolab.inspection.session_values import checked_name
from tomolab.io import paths
from tomolab.subtomograms.dataset import Subtomograms

FEWEST = 8
"""Minimum number of particles of an average."""
MOST_BYTES, ROOM = 215, 25
"""Bytes of the name of an average as that of a folder, beside which a number and the mark of a hidden folder have room; and
those of them that are for the number of a class."""


class AveragingTask:
    """One set of particles to average under a title, as `jobs.start` calls it; the names of classes add a number.

    Parameters
    ----------
    add
        Called with a name and the value of every average as soon as it is ready; returns the name that the average has then.
    classes
        Number of classes into which the particles are sorted first; 1 does not sort.
    folder
        Run folder for the state of an unfinished average (`run_contents.checkpoint`). None keeps nothing.
    name
        Gives an average its name in a catalogue; by default it gets none.
    refine_in
        Folder in which RELION refines the average of tomolab; by default RELION does not run.
    options
        Of `averaging.average`: seed, and optionally symmetry, mask_diameter and iterations.
    """

    def __init__(
        self,
        title: str,
        subtomograms: Subtomograms,
        ids: np.ndarray,
        *,
        add: Callable[[str, Average], str],
        options: dict[str, Any],
        classes: int = 1,
        folder: Path | None = None,
        name: Callable[[Average], Average] | None = None,
        refine_in: Path | None = None,
    ) -> None:
        self.title, self.subtomograms, self.ids, self.add = title, subtomograms, ids, add
        self.options, self.classes, self.folder, self.name, self.refine_in = options, classes, folder, name, refine_in

    def __call__(self, *, progress: Callable[[Any], Any], stop: Callable[[], bool]) -> dict[str, Average]:
        """Compute the averages, by name; if stopped, return those that are ready."""
        controls = {"progress": progress, "stop": stop}
        averages: dict[str, Average] = {}
        for title, ids in self._sets(controls).items():
            average = self._average(title, ids, controls)
            name = self.add(title, average)
            averages[name] = average
            if stop():
                break
            # The first name of a kernel takes long, and the average is shown without it meanwhile.
            named = averages[name] if self.name is None else self.name(averages[name])
            if named is not averages[name]:
                averages[name] = named
                self.add(name, named)
        return averages

    def _sets(self, controls: dict[str, Any]) -> dict[str, np.ndarray]:
        if self.classes == 1:
            return {self.title: self.ids}
        options: dict[str, Any] = {name: self.options.get(name) for name in ("seed", "mask_diameter")}
        found = classify(self.subtomograms, self.ids, classes=self.classes, **options, **controls).labels
        sets = {f"{self.title}, class {k + 1}": found.index[found == k].to_numpy() for k in range(self.classes)}
        for name, ids in sets.items():
            if len(ids) < FEWEST:
                warnings.warn(f"{name} holds {len(ids)} particles and is not averaged: that needs {FEWEST}", stacklevel=2)
        return {name: ids for name, ids in sets.items() if len(ids) >= FEWEST}

    def _average(self, name: str, ids: np.ndarray, controls: dict[str, Any]) -> Average:
        with run_contents.checkpoint(self.folder, "average", self.subtomograms.choose(ids).digest(), self.options) as path:
            average = gold_standard.average(self.subtomograms, ids, checkpoint=path, **self.options, **controls)
        if self.refine_in is None or controls["stop"]():
            return average
        place = self.refine_in / paths.file_name(run_contents.claim(self.refine_in, name))
        folder = relion_job.write(self.subtomograms, place, ids=ids, progress=False)
        diameter = self.options.get("mask_diameter") or average.record["mask"]
        options = {key: self.options[key] for key in ("seed", "symmetry") if key in self.options}
        return relion_job.refine(folder, diameter=diameter, reference=average.volume, **options, **controls)


class KeptAverages:
    """Averages by name, oldest first, in memory and in a run folder, where another kernel may write averages too.

    An average replaces one of its name only if that was read or written here; beside one of another kernel it gets a number.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Average] = {}
        self._unwritten: set[str] = set()
        self._own: dict[str, Identity | None] = {}
        self._lock = threading.RLock()

    def read(self, folder: Path) -> None:
        """Read the averages of a run folder."""
        for name, average in run_contents.read_averages(folder).items():
            self.by_name[name], self._own[name] = average, identity(_place(folder, name) / RECORD)

    def add(self, name: str, average: Average) -> None:
        """Add an average in memory."""
        with self._lock:
            self.by_name[name] = average
            self._unwritten.add(name)

    def write(self, folder: Path) -> dict[str, str]:
        """Write the averages that are not in the folder yet; return their names there by the names that they had."""
        with self._lock:
            return {name: self._write(name, folder) for name in [one for one in self.by_name if one in self._unwritten]}

    def free(self, title: str, folder: Path | None, taken: Iterable[str]) -> str:
        """A title that no average, here or in the folder, has, and that is not taken; ValueError if none can have it."""
        there = [] if folder is None else io.inside(folder, AVERAGES).glob("*")
        names = (*self.by_name, *taken, *(paths.name_of_file(one.name) for one in there))
        # Names that differ in case only are one file on some systems.
        used = {name.casefold() for name in names}
        name = next(one for one in run_contents.titles(title) if one.casefold() not in used)
        return checked_name(name, "an average", longest=MOST_BYTES - ROOM)

    def _write(self, name: str, folder: Path) -> str:
        average, title = self.by_name[name], name
        known = identity(_place(folder, name) / RECORD)
        if known is None or known != self._own.get(name):
            title = run_contents.claim(io.inside(folder, AVERAGES), name)
        average = replace(average, record=average.record | {"name": title})
        try:
            average.save(_place(folder, title))
        except BaseException:
            with contextlib.suppress(OSError):
                # The name is free again where nothing was written under it.
                _place(folder, title).rmdir()
            raise
        self._own[title] = identity(_place(folder, title) / RECORD)
        self.by_name = {title if one == name else one: average if one == name else kept for one, kept in self.by_name.items()}
        self._unwritten.discard(name)
        return title


def _place(folder: Path, name: str) -> Path:
    return io.inside(folder, f"{AVERAGES}/{paths.file_name(name)}")
