"""Takes tomograms, with particle lists or without, and features if there are any; writes the run folder of an inspection.

One call copies the tomograms with bright protein, picks where there is no list, cuts boxes, embeds them with a shipped network
and divides the features into many small clusters, from which `Inspection.discover` finds the structures.

>>> work = inspection.import_data("TS_01.mrc", "runs/mine", contrast="dark", tilts=(-60, 60), diameter=250, seed=1)
>>> work = inspection.import_data("tomograms.csv", "runs/all", particles="picks.star", diameter=250, seed=1)
>>> found = work.discover(seed=1).result()
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tomolab import io, picking
from tomolab.clusters import clustering
from tomolab.inspection import input_particles, input_tomograms, model
from tomolab.inspection.input_particles import ListOptions, Particles
from tomolab.inspection.input_tomograms import InputTomogram, Tomograms
from tomolab.inspection.model import Inspection
from tomolab.inspection.run_contents import BOXES, EMBEDDING, PICKS, SESSION, TABLE
from tomolab.io import paths, safe_load
from tomolab.io.lists.tomogram_names import Tilts
from tomolab.io.run_folder import Run
from tomolab.learning import embedding, networks
from tomolab.learning.embedding import Embedding
from tomolab.subtomograms import dataset, extraction
from tomolab.subtomograms import tomogram_list as tomogram_lists
from tomolab.subtomograms.cropping import Cut
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

CLUSTERS = 16
"""Clusters of the features by default: more than there are structures, because a discovery merges what is one."""
PER_CLUSTER = 16
"""Particles that a cluster has on average at least."""
STAGE = "import_data"
"""Name in the manifest of the run."""
REQUEST, COPIES, UNFINISHED = "import.json", "tomograms", "import"
"""File of what was asked for, folder of the tomograms, and folder of picks and boxes of an import that has not ended."""
RESULTS = (TABLE, BOXES, EMBEDDING, PICKS, SESSION, COPIES, "tomogram.mrc")
"""What a folder must not hold in which an import begins."""


def import_data(
    tomograms: Tomograms,
    folder: str | Path,
    *,
    diameter: float,
    seed: int,
    contrast: Literal["bright", "dark"] | None = None,
    tilts: Tilts | None = None,
    voxel_size: float | None = None,
    check_contrast: bool = True,
    particles: Particles | None = None,
    particles_voxel_size: float | None = None,
    unit: str | None = None,
    tomogram_list: str | Path | None = None,
    skip_unknown: bool = False,
    features: str | Path | Embedding | None = None,
    features_in_order: bool = False,
    threshold: float = 3.0,
    network: str = "default",
    box_voxel_size: float | None = None,
    clusters: int = CLUSTERS,
    progress: bool = True,
) -> Inspection:
    """Make a run folder of tomograms: their particles, boxes, features and first clusters; and open its inspection.

    All arguments and headers are checked before work starts. After an interruption the same call continues, with the same
    result; if everything is there already, it opens the inspection, with the saved session.

    Parameters
    ----------
    tomograms
        A tomogram (MRC file, OME-Zarr folder or address), a folder of them, several, files by the names of the tomograms, a
        list of tomograms (`subtomograms.read_tomogram_list`, or its CSV file), or a volume in memory. The run folder gets a
        copy of each with bright protein.
    folder
        The run folder, empty or with an import that was begun by the same call.
    diameter
        Of a particle, in Å.
    seed
        Of the clusters and of the layout.
    contrast
        Whether protein is "bright" or "dark", where the list of tomograms does not say it.
    tilts
        Lowest and highest tilt in degrees of all tomograms, or of each by name, of which the missing wedge is computed; by
        default those of the list of tomograms, of a file NAME.tlt beside the tomogram, or of the particle list.
    voxel_size
        Å, of tomograms that do not say it.
    check_contrast
        Measure the contrast of every tomogram where it can be told (`tomolab.subtomograms.contrast`), and refuse the other one.
    particles
        A particle list, a folder of lists, several, lists by the names of their tomograms, or a particle table with positions
        in Å (`io.read_particles`); by default particles are picked.
    particles_voxel_size
        Å per pixel of the coordinates in the lists, where that is not the voxel size of the tomograms and the lists do not
        say it.
    unit, tomogram_list
        Of the lists, as in `io.read_particles`.
    skip_unknown
        Leave out the particles of other tomograms, which are refused by default.
    features
        Features that another program made of the particles: a file for `learning.read_features`, or its result. Then no
        network is used.
    features_in_order
        The rows of `features` are in the order of the particles, instead of having their ids.
    threshold
        Of `picking.choose`. A low one takes more picks; those that are no particles are left out by a discovery.
    network
        Shipped network that makes the features (`learning.shipped_networks`); it sets the voxel size and the box.
    box_voxel_size
        Å, of the boxes for averages, which are as large as those of the network; by default they are the same.
    clusters
        Clusters of the features; fewer where there are few particles.
    progress
        Show bars.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    FileExistsError
        If the folder has other particles already, or an import by another call.
    ValueError
        If a value that no file says is not given, values contradict each other, a list names other tomograms or has positions
        outside of them, or there are fewer than 8 particles. The message names the argument to give.
    OSError
        If the disk has no room.
    """
    trained = networks.load(network)
    seen_size = trained.voxel_size
    if seen_size is None:
        raise ValueError(
            f"the network {network!r} does not say the voxel size of its boxes; {', '.join(networks.shipped())} do"
        )
    box_size = seen_size if box_voxel_size is None else float(box_voxel_size)
    _check_numbers(diameter, box_size, seen_size)
    if features is not None and particles is None:
        raise ValueError("features= are those of particles: give particles=, the list that they belong to")
    box = 2 * round(trained.box * seen_size / box_size / 2)
    inputs = input_tomograms.read_inputs(
        tomograms, contrast=contrast, tilts=tilts, voxel_size=voxel_size, check_contrast=check_contrast
    )
    for one in inputs:
        extraction.tasks(one.name, one.voxels, pd.DataFrame(), cut=Cut(box, box_size))
    options = ListOptions(particles_voxel_size, unit, tomogram_list, skip_unknown)
    listed = None if particles is None else input_particles.read_inputs(particles, inputs, options)
    inputs = _in_use(inputs, listed)
    given = None
    if features is not None and listed is not None:
        given = input_particles.match_features(features, listed, in_order=features_in_order)
    about = {"diameter": diameter, "seed": seed, "threshold": threshold, "network": network, "clusters": clusters}
    about |= {"box_voxel_size": box_size, "picked": listed is None}
    run = Run(Path(folder))
    with paths.lock(run.folder / UNFINISHED):
        _begin(run, about | _digests(inputs, listed, given))
        work = _Import(run, inputs, diameter=diameter, seed=seed, progress=progress)
        if STAGE not in run.manifest()["stages"]:
            try:
                table = work.copy(listed, threshold=threshold)
                boxes = work.cut(table, box=box, voxel_size=box_size)
                work.cluster(boxes, work.embed(trained, boxes) if given is None else given.take(boxes.ids), clusters)
            except ValueError:
                # These data cannot work: other arguments shall find the folder empty.
                work.remove()
                raise
            files = [*(f"{COPIES}/{one.name}.mrc" for one in inputs), PICKS, BOXES, EMBEDDING, TABLE]
            run.record(STAGE, parameters=about | {"tomograms": _about(inputs)}, files=files, seed=seed)
        shutil.rmtree(run.folder / UNFINISHED, ignore_errors=True)
    return model.open(run.folder, diameter=diameter, seed=seed)


def pick(
    volume: Volume,
    one: InputTomogram,
    *,
    diameter: float | tuple[float, float],
    threshold: float,
    keep_gold: bool = False,
) -> pd.DataFrame:
    """Picks in a tomogram with bright protein, outside of gold beads unless these are kept (`picking.candidates`, `choose`)."""
    gold = None if keep_gold else picking.fiducial_mask(volume)
    options: dict[str, Any] = {"tilts": one.tilts, "tomogram": one.name, "exclude": gold}
    return picking.choose(picking.candidates(volume, diameter=diameter, **options), threshold=threshold)


@dataclass(frozen=True)
class _Import:
    """The steps of an import. A step that is done already is not done again."""

    run: Run
    inputs: Sequence[InputTomogram]
    diameter: float
    seed: int
    progress: bool

    def copy(self, listed: pd.DataFrame | None, *, threshold: float) -> pd.DataFrame:
        """Copy the tomograms with bright protein, and write the particles: those of the list, or picks."""
        if listed is not None:
            # First, because a column may have a name that cannot stand there.
            self._write_picks(listed)
        picks = []
        for one in tqdm(self.inputs, desc="tomograms", unit="tomogram", disable=not self.progress):
            place = self.run.path(f"{COPIES}/{one.name}.mrc")
            if not place.exists():
                io.write_volume(one.bright(), place)
            if listed is None:
                picks.append(self._picked(one, place, threshold))
        if listed is not None:
            return listed
        table = pd.concat(picks, ignore_index=True)
        table["particle_id"] = np.arange(len(table))
        _check_number(len(table), ": lower threshold=")
        self._write_picks(table)
        return table

    def _write_picks(self, table: pd.DataFrame) -> None:
        io.write_particles(table, self.run.path(PICKS), voxel_size=self.inputs[0].voxels.voxel_size)

    def _picked(self, one: InputTomogram, place: Path, threshold: float) -> pd.DataFrame:
        """Picks outside of gold beads. They are those of the copy, so that an import that was cut ends the same."""
        kept = self.run.path(f"{UNFINISHED}/{one.name}.csv")
        if not kept.exists():
            found = pick(io.read_volume(place), one, diameter=self.diameter, threshold=threshold)
            io.write_particles(found, kept)
        return io.read_particles(kept)

    def cut(self, table: pd.DataFrame, *, box: int, voxel_size: float) -> Subtomograms:
        """Cut the boxes of the particles."""
        path = self.run.path(BOXES)
        boxes = dataset.open(path) if path.exists() else self._extract(table, path, box=box, voxel_size=voxel_size)
        _check_number(len(boxes), " with a box inside of their tomogram")
        return boxes

    def embed(self, network: networks.Network, boxes: Subtomograms) -> Embedding:
        """Features of the boxes, cut again where the network has other voxels."""
        path = self.run.path(EMBEDDING)
        if path.exists():
            return embedding.load(path)
        if (boxes.box, boxes.voxel_size) != (network.box, network.voxel_size):
            seen = self.run.path(f"{UNFINISHED}/network.zarr")
            options: dict[str, Any] = {"box": network.box, "voxel_size": network.voxel_size, "edges": "flag"}
            boxes = dataset.open(seen) if seen.exists() else self._extract(boxes.particles, seen, **options)
        return embedding.embed(network, boxes, path=path, progress=self.progress)

    def cluster(self, boxes: Subtomograms, features: Embedding, clusters: int) -> None:
        """Write features and clusters."""
        if not self.run.path(EMBEDDING).exists():
            features.save(self.run.path(EMBEDDING))
        labels = clustering.kmeans(features, max(1, min(clusters, len(boxes) // PER_CLUSTER)), seed=self.seed)
        # The particle table comes last: with it the folder is whole.
        table = boxes.particles.assign(cluster=labels.to_numpy(), diameter=float(self.diameter))
        io.write_particles(table, self.run.path(TABLE))

    def _extract(self, table: pd.DataFrame, path: Path, **options: Any) -> Subtomograms:
        names = [one.name for one in self.inputs]
        copies = pd.DataFrame({"tomogram": names, "path": [str(self.run.path(f"{COPIES}/{name}.mrc")) for name in names]})
        return tomogram_lists.extract(copies, table, path=path, check_contrast=False, progress=self.progress, **options)

    def remove(self) -> None:
        """Remove what was written."""
        for name in (COPIES, UNFINISHED, BOXES, EMBEDDING):
            shutil.rmtree(self.run.folder / name, ignore_errors=True)
        for name in (REQUEST, PICKS, TABLE):
            (self.run.folder / name).unlink(missing_ok=True)


def _check_numbers(diameter: float, box_size: float, network_size: float) -> None:
    if not (np.isfinite(diameter) and diameter > 0):
        raise ValueError(f"diameter must be a positive number of Å, that of a particle, got {diameter}")
    if not 0 < box_size <= network_size:
        raise ValueError(f"box_voxel_size must lie above 0 and up to the {network_size:g} Å of the network, got {box_size:g}")


def _check_number(count: int, hint: str) -> None:
    if count < model.FEWEST:
        raise ValueError(f"{model.FEWEST} particles or more are needed, got {count}{hint}")


def _in_use(inputs: list[InputTomogram], listed: pd.DataFrame | None) -> list[InputTomogram]:
    """Tomograms that have particles, or in which they can be picked."""
    if listed is None:
        input_tomograms.require_tilts(inputs)
        return inputs
    _check_number(len(listed), "")
    return [one for one in inputs if (listed["tomogram"] == one.name).any()]


def _about(inputs: Sequence[InputTomogram]) -> dict[str, Any]:
    """What is known of the tomograms, by name, with the size and time of their files."""
    out = {}
    for one in inputs:
        path = Path(one.voxels.name)
        if one.voxels.again is None:
            source = hashlib.sha256(one.voxels.load().data.tobytes()).hexdigest()
        elif path.is_file():
            source = f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}"
        else:
            source = one.voxels.name
        known = {"source": source, "contrast": one.contrast, "tilts": None if one.tilts is None else list(one.tilts)}
        out[one.name] = known | {"shape": list(one.voxels.shape), "voxel_size": one.voxels.voxel_size}
    return out


def _digests(inputs: Sequence[InputTomogram], listed: pd.DataFrame | None, features: Embedding | None) -> dict[str, Any]:
    """What an import is made from, to be compared."""
    out: dict[str, Any] = {"tomograms": _about(inputs), "particles": None, "features": None}
    if listed is not None:
        out["particles"] = hashlib.sha256(listed.to_csv().encode()).hexdigest()
    if features is not None:
        out["features"] = hashlib.sha256(np.ascontiguousarray(features.vectors).tobytes()).hexdigest()
    return out


def _begin(run: Run, request: dict[str, Any]) -> None:
    """Write down what was asked for; refuse a folder with other results, and a disk without room."""
    path = run.folder / REQUEST
    if path.is_file():
        begun = safe_load.read_json(io.inside(run.folder, REQUEST), "a request for an import")
        other = [name for name in request if begun.get(name) != request[name]]
        if other:
            raise FileExistsError(
                f"{run.folder} has an import with other {', '.join(other)}: open that folder as it is, give the same "
                "arguments to continue, or name another folder"
            )
        return
    there = [name for name in RESULTS if (run.folder / name).exists()]
    if there:
        raise FileExistsError(f"{run.folder} has {', '.join(there)} already: open that folder as it is, or name another folder")
    needed, free = 4 * sum(prod(one["shape"]) for one in request["tomograms"].values()), shutil.disk_usage(run.folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"the tomograms need {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free", str(run.folder)
        )
    with io.atomic(path) as temporary:
        temporary.write_text(json.dumps(request, indent=1) + "\n")
