"""Takes clusters of particles and their boxes, finds their structures in a job: new clusters, and an average of each.

The structures of `averaging.discover` replace the clusters in one step that can be undone. Then each is averaged in two halves,
and named by a catalogue of known maps.

>>> job = work.discover([0, 3])
>>> job
Job('discovery', running: 5 structures 7 of 30, 62 Å, 00:41 left; 12 % of the particles moved)
>>> job.result().averages
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import simulation
from tomolab.averaging import gold_standard
from tomolab.averaging.classification import discovery
from tomolab.averaging.classification.discovery import Discovery
from tomolab.averaging.classification.split_merge import MIN_PARTICLES
from tomolab.averaging.half_maps import Average
from tomolab.averaging.identification.catalogue import Catalogue
from tomolab.averaging.identification.fitting import MIN_MAPS
from tomolab.averaging.identification.identity import identify
from tomolab.averaging.initial_model import InitialModel
from tomolab.clusters import clustering
from tomolab.inspection import run_contents
from tomolab.inspection.session import Session
from tomolab.inspection.session_values import NONE
from tomolab.jobs import Progress
from tomolab.learning.embedding import Embedding
from tomolab.subtomograms.dataset import Subtomograms

FEWEST = 2 * MIN_PARTICLES
"""Minimum number of particles of a discovery: those of two structures."""
PARTICLES, MOST = 25, 24
"""Particles of a first cluster where there are none yet, and the maximum number of these clusters."""
START = 80.0
"""Å: detail of a structure that its average starts from."""


@dataclass(frozen=True)
class DiscoveryProgress(Progress):
    """Progress with the present structures, `found`; the map and its FSC are those of the largest."""

    found: Discovery

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.found.history['moved'].iloc[-1]:.0%} of the particles moved"


@dataclass(frozen=True, eq=False)
class DiscoveryResult:
    """The structures, the numbers of their new clusters, and the averages by name.

    `stayed` counts the particles that had left their cluster during the discovery, and are where they were moved to.
    """

    found: Discovery
    clusters: list[int]
    averages: dict[str, Average]
    stayed: int = 0

    def __str__(self) -> str:
        if self.found.history.empty:
            return "no cluster was changed"
        text = f"{len(self.clusters)} structure{'s' * (len(self.clusters) != 1)}"
        others = self.found.contaminants
        if others:
            count = sum(len(one.ids) for one in others)
            text += f"; {len(others)} more reach the border of the box: their {count:,} particles are in no cluster"
        return text + (f"; {self.stayed:,} particles had left their cluster meanwhile and stay" if self.stayed else "")


@dataclass(frozen=True, eq=False)
class DiscoveryTask:
    """A discovery, as `jobs.start` calls it.

    Parameters
    ----------
    session
        Its clusters are replaced.
    before
        Cluster of each particle that takes part, by particle id, from which the search starts; where all are -1 it starts from
        k-means of the features, or from one cluster without features.
    subtomograms, features
        Boxes and features of the particles.
    add
        Called with the title, the average, the number of the cluster and the ids of the particles of every structure as soon as
        it is averaged; returns the name of the average.
    catalogue
        Known maps, which name the averages that are reliable; None for the shipped ones.
    search
        Of `averaging.discover`: iterations, min_particles, max_particles.
    options
        Of `averaging.average`: seed, symmetry, mask_diameter.
    folder
        Run folder for the state of the discovery (`run_contents.checkpoint`). None keeps nothing.
    """

    session: Session
    before: pd.Series
    subtomograms: Subtomograms
    features: Embedding | None
    add: Callable[[str, Average, int, np.ndarray], str]
    catalogue: Catalogue | None
    search: dict[str, Any]
    options: dict[str, Any]
    folder: Path | None = None

    def __call__(self, *, progress: Callable[[Any], Any], stop: Callable[[], bool]) -> DiscoveryResult:
        """Find the structures, change the clusters and average; if stopped, the best structures without more averages.

        A discovery that is stopped before the end of its first iteration changes nothing.
        """
        found = self._discover(progress, stop)
        if found.history.empty and stop():
            return DiscoveryResult(found, [], {})
        moved = self.session.relabel(found.labels, before=self.before, name="structure", what="discover")
        stayed = len(found.labels) - len(moved)
        if stayed:
            warnings.warn(f"{stayed} particles left their cluster during the discovery, and stay where they are", stacklevel=2)
        averages: dict[str, Average] = {}
        clusters = sorted(set(moved) - {NONE})
        titles = {number: self.session.title(number) for number in clusters}
        for number, title in titles.items():
            ids = moved.index[moved == number].to_numpy()
            if stop():
                break
            if len(ids) < MIN_PARTICLES:
                continue
            average = self._average(ids, found.volumes[found.labels[ids[0]]], {"progress": progress, "stop": stop})
            average = named(average, self.catalogue)
            averages[self.add(title, average, number, ids)] = average
        return DiscoveryResult(found, clusters, averages, stayed)

    def _discover(self, progress: Callable[[Any], Any], stop: Callable[[], bool]) -> Discovery:
        ids, latest = self.before.index.to_numpy(), list[Progress]()
        features = None if self.features is None else self.features.take(ids)
        labels = self.before
        if (labels == NONE).all():
            count = int(np.clip(len(ids) // PARTICLES, 2, MOST))
            labels = labels * 0 if features is None else clustering.kmeans(features, count, seed=self.options["seed"])

        def report(now: Progress) -> None:
            latest[:] = [now]
            progress(now)

        options = {name: self.options[name] for name in ("seed", "mask_diameter")} | self.search
        about = self.subtomograms.choose(ids).digest(), labels.tolist(), None if features is None else features.network
        with run_contents.checkpoint(self.folder, "discovery", *about, options) as path:
            return discovery.discover(
                self.subtomograms,
                labels,
                features=None if features is None else features.vectors,
                checkpoint=path,
                progress=report,
                watch=lambda found: progress(DiscoveryProgress(**vars(latest[0]), found=found)),
                stop=stop,
                **options,
            )

    def _average(self, ids: np.ndarray, volume: Any, controls: dict[str, Any]) -> Average:
        boxes = self.subtomograms
        # The record of the average then tells that no reference from elsewhere was used.
        about = {"particles": len(ids), "digest": boxes.choose(ids).digest(), "parameters": {"program": "discover"}}
        start = InitialModel(volume, pd.Series(dtype=float), about | {"seed": self.options["seed"]})
        resolution = float(np.clip(START, 2 * boxes.voxel_size, boxes.box * boxes.voxel_size / 4))
        return gold_standard.average(boxes, ids, start=start, start_resolution=resolution, **self.options, **controls)


def named(average: Average, catalogue: Catalogue | None) -> Average:
    """The average with its name in a catalogue, by default of the shipped maps, if it is reliable and enough maps fit."""
    known = fitting(catalogue or shipped(), average.volume.shape[0] * average.volume.voxel_size)
    return identify(average, known).add_to(average) if average.reliable and len(known) >= MIN_MAPS else average


@cache
def shipped() -> Catalogue:
    """The catalogue of the shipped densities."""
    about = simulation.catalogue().set_index("name")
    return Catalogue.from_maps(simulation.load_densities(), about=about)


@lru_cache(maxsize=2)
def fitting(catalogue: Catalogue, extent: float) -> Catalogue:
    """The maps of a catalogue that are not larger than a box of this edge in Å.

    The same ones again for the next average: a catalogue keeps what `identify` prepared of its maps.
    """
    return catalogue.choose(catalogue.table.index[catalogue.table["diameter"] <= extent])
