"""Orders: averages that are asked for as one thing, of one set of particles or of each class that it falls into.

>>> order = Order("cluster 3", boxes, ids, keep=keep, classes=2, options={"seed": 0})
>>> job = jobs.start(order.title, order)
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tomolab.averaging import classification, gold_standard
from tomolab.averaging.half_maps import Average
from tomolab.averaging.relion import job
from tomolab.subtomograms.dataset import Subtomograms

FEWEST = 8
"""Particles without which there is no average worth the name."""


class Order:
    """One set of particles to average, as `jobs.start` calls it.

    Parameters
    ----------
    title
        Of the average; classes are numbered after it.
    subtomograms
        Where the particles are.
    ids
        Which of them.
    keep
        Called with the name of every average and with it, as soon as there is one.
    classes
        Into how many they are sorted first; 1 leaves them together.
    refine_in
        Folder in which RELION refines the average of ours; by default it does not.
    options
        For `averaging.average`: seed, and perhaps symmetry, mask_diameter and iterations.
    """

    def __init__(
        self,
        title: str,
        subtomograms: Subtomograms,
        ids: np.ndarray,
        *,
        keep: Callable[[str, Average], Any],
        options: dict[str, Any],
        classes: int = 1,
        refine_in: Path | None = None,
    ) -> None:
        self.title, self.subtomograms, self.ids, self.keep = title, subtomograms, ids, keep
        self.options, self.classes, self.refine_in = options, classes, refine_in

    def __call__(self, *, progress: Callable[[Any], Any], stop: Callable[[], bool]) -> dict[str, Average]:
        """Make the averages, by name; those that are made when it is stopped."""
        controls = {"progress": progress, "stop": stop}
        made: dict[str, Average] = {}
        for name, ids in self._sets(controls).items():
            made[name] = self._one(name, ids, controls)
            self.keep(name, made[name])
            if stop():
                break
        return made

    def _sets(self, controls: dict[str, Any]) -> dict[str, np.ndarray]:
        if self.classes == 1:
            return {self.title: self.ids}
        options: dict[str, Any] = {name: self.options.get(name) for name in ("seed", "mask_diameter")}
        found = classification.sort(self.subtomograms, self.ids, classes=self.classes, **options, **controls).labels
        sets = {f"{self.title}, class {k + 1}": found.index[found == k].to_numpy() for k in range(self.classes)}
        for name, ids in sets.items():
            if len(ids) < FEWEST:
                warnings.warn(f"{name} holds {len(ids)} particles and is not averaged: that needs {FEWEST}", stacklevel=2)
        return {name: ids for name, ids in sets.items() if len(ids) >= FEWEST}

    def _one(self, name: str, ids: np.ndarray, controls: dict[str, Any]) -> Average:
        ours = gold_standard.average(self.subtomograms, ids, **self.options, **controls)
        if self.refine_in is None or controls["stop"]():
            return ours
        folder = job.write(self.subtomograms, self.refine_in / plain(name), ids=ids, progress=False)
        diameter = self.options.get("mask_diameter") or ours.record["mask"]
        options = {key: self.options[key] for key in ("seed", "symmetry") if key in self.options}
        return job.refine(folder, diameter=diameter, reference=ours.volume, **options, **controls)


def plain(name: str) -> str:
    """A name for a folder: letters, digits, points and hyphens; all else becomes an underscore."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "average"
