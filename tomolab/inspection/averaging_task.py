"""Takes particle ids with boxes, computes their average or one for each class, as a background job does.

>>> job = jobs.start("ribosomes", AveragingTask("ribosomes", boxes, ids, add=work.add_average, options={"seed": 1}))
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tomolab.averaging import gold_standard
from tomolab.averaging.classification.classify import classify
from tomolab.averaging.half_maps import Average
from tomolab.averaging.relion import job as relion_job
from tomolab.inspection import run_contents
from tomolab.io import paths
from tomolab.subtomograms.dataset import Subtomograms

FEWEST = 8
"""Minimum number of particles of an average."""


class AveragingTask:
    """One set of particles to average under a title, as `jobs.start` calls it; the names of classes add a number.

    Parameters
    ----------
    add
        Called with the name and the value of every average as soon as it is ready.
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
        add: Callable[[str, Average], Any],
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
        for name, ids in self._sets(controls).items():
            averages[name] = self._average(name, ids, controls)
            self.add(name, averages[name])
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
        folder = relion_job.write(self.subtomograms, self.refine_in / paths.file_name(name), ids=ids, progress=False)
        diameter = self.options.get("mask_diameter") or average.record["mask"]
        options = {key: self.options[key] for key in ("seed", "symmetry") if key in self.options}
        return relion_job.refine(folder, diameter=diameter, reference=average.volume, **options, **controls)
