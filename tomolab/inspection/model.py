"""Takes particles with their boxes, features and tomograms, gives an `Inspection`: a session and the averages of its clusters.

The inspectors of the browser and of napari show an inspection and change it by its methods.

>>> work = inspection.open("runs/first")
>>> work.session.select(drawn, "lasso")
>>> number = work.session.new_cluster("ribosomes")
>>> job = work.average(number, symmetry="C1")
>>> work.changed.connect(print)
{'jobs'}
{'averages'}
>>> work.discover().result()                 # everything that is in a cluster
>>> inspection.export(work, "ribosomes.star", [number])
"""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from psygnal import Signal

from tomolab import io, jobs, particles
from tomolab.averaging import half_maps
from tomolab.averaging import symmetry as symmetries
from tomolab.averaging.classification.discovery import check_limits
from tomolab.averaging.gold_standard import FIND
from tomolab.averaging.half_maps import Average
from tomolab.averaging.identification.catalogue import Catalogue
from tomolab.averaging.relion import job as relion_job
from tomolab.clusters import clustering
from tomolab.clusters import labels as cluster_labels
from tomolab.inspection import discovery, run_contents
from tomolab.inspection import session as sessions
from tomolab.inspection.averaging_task import FEWEST as FEWEST
from tomolab.inspection.averaging_task import MOST_BYTES, AveragingTask, KeptAverages
from tomolab.inspection.discovery import DiscoveryResult, DiscoveryTask
from tomolab.inspection.history import counted
from tomolab.inspection.run_contents import SESSION
from tomolab.inspection.selection import Selection
from tomolab.inspection.session import Session
from tomolab.inspection.session_values import NONE, checked_name
from tomolab.io import run_folder, safe_load
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.jobs import Job
from tomolab.learning import pca
from tomolab.learning.embedding import Embedding
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

ENGINES = ("tomolab", "RELION")
CLUSTER = "cluster"
"""What particles are coloured by at first."""
QUICK = 120
"""Particles of a quick average: the most typical ones of its cluster."""
COMPONENTS = 6
"""Number of principal components to plot."""
MOST = 20_000
"""Maximum number of particles to sort by their features, so that a lasso around a million stays fast."""


class Inspection:
    """Particles with their data, the session that groups them into clusters, and the averages of clusters.

    Parameters
    ----------
    session
        Clusters, selection and filters.
    points
        Columns ``particle_id``, ``x``, ``y`` (`layouts.flat`) of every particle.
    features
        Embedding of every particle; without it clusters cannot be split and particles cannot be sorted.
    subtomograms
        Boxes of the particles; without them there are no pictures and no averages.
    tomograms
        Tomograms, bright on dark, by the name in the column ``tomogram``.
    diameter
        Of a particle, in Å.
    folder
        Run folder, into which every change and every average is written at once; by default nothing is written.
    catalogue
        Known maps that name averages; the shipped ones by default.

    Raises
    ------
    ValueError
        If points, features or boxes lack particles of the session, a tomogram has no particles, or the diameter is not
        positive.
    """

    changed = Signal(set)
    """Sent with the names of what changed: those of `Session.changed`, colours, jobs, averages (in a job's thread), saved."""

    def __init__(
        self,
        session: Session,
        *,
        diameter: float,
        points: pd.DataFrame | None = None,
        features: Embedding | None = None,
        subtomograms: Subtomograms | None = None,
        tomograms: Mapping[str, Volume] | None = None,
        folder: str | Path | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        if not diameter > 0:
            raise ValueError(f"the diameter of a particle must be a positive number of Å, got {diameter}")
        self.session, self.diameter, self.features, self.subtomograms = session, float(diameter), features, subtomograms
        self.tomograms: Mapping[str, Volume] = {} if tomograms is None else tomograms
        self.folder = None if folder is None else Path(folder)
        self.catalogue = catalogue
        unknown = sorted(set(self.tomograms) - set(session.particles["tomogram"]))
        if unknown:
            raise ValueError(f"no particle lies in {', '.join(unknown)}; they lie in {', '.join(self.named)}")
        for what, ids in (
            ("points", None if points is None else points["particle_id"]),
            ("features", None if features is None else features.ids),
            ("subtomograms", None if subtomograms is None else subtomograms.ids),
        ):
            missing = np.array([]) if ids is None else session.ids[~pd.Index(session.ids).isin(ids)]
            if len(missing):
                raise ValueError(f"{what} lack {len(missing)} of {len(session.ids)} particles, such as {missing[:5].tolist()}")
        self.points = None if points is None else points.set_index("particle_id").loc[session.ids].reset_index()
        self._session_name = SESSION
        self.unsaved = ""
        """Why the last change could not be written into the run folder; empty if it was written or there is no folder."""
        self._averages = KeptAverages()
        self.jobs: list[Job] = []
        self._colour_by = CLUSTER
        session.changed.connect(self._save_session)

    def __repr__(self) -> str:
        return f"Inspection({self.session!r}, {len(self.averages)} averages)"

    @property
    def colour_by(self) -> str:
        """Column whose values colour the particles in all views, or "cluster"."""
        return self._colour_by

    @colour_by.setter
    def colour_by(self, column: str) -> None:
        if column != CLUSTER and column not in self.session.particles:
            raise ValueError(f"there is no column {column!r} to colour by; there are {', '.join(self.session.particles)}")
        if column != self._colour_by:
            self._colour_by = column
            self.changed.emit({"colours"})

    @property
    def averages(self) -> dict[str, Average]:
        """Averages by name, oldest first, without those that were deleted."""
        return {name: one for name, one in self._averages.by_name.items() if name not in self.session.deleted}

    def delete_average(self, name: str) -> None:
        """Delete an average, which `Session.undo` brings back: its files stay. ValueError if there is none of this name."""
        if name not in self.averages:
            raise ValueError(f"there is no average {name!r}; there are {', '.join(self.averages) or 'none'}")
        self.session.delete_average(name)

    @property
    def session_path(self) -> Path | None:
        """File of the session; None without a run folder."""
        return None if self.folder is None else self.folder / self._session_name

    @property
    def headers(self) -> Mapping[str, Volume | Tomogram]:
        """Tomograms by name, for their shapes and voxel sizes; no voxels are read."""
        return self.tomograms.headers if isinstance(self.tomograms, run_contents.StoredTomograms) else self.tomograms

    @property
    def named(self) -> list[str]:
        """Names of the tomograms that have particles."""
        return sorted(self.session.particles["tomogram"].unique().tolist())

    # Disabled actions

    def split_problem(self, clusters: Sequence[int]) -> str:
        """Why these clusters cannot be split: a split needs features and one cluster of two particles. Empty if they can."""
        if self.features is None:
            return "there is no embedding to split by"
        if len(clusters) != 1:
            return "tick one cluster"
        few = self.session.counts()[clusters[0]] < 2
        return f"{self.session.title(clusters[0])} has fewer than two particles" if few else ""

    def similar_problem(self) -> str:
        """Why no particles similar to the selected ones can be found; empty if they can."""
        if self.features is None:
            return "there is no embedding to compare"
        return "" if self.session.chosen_rows.any() else "select a particle first"

    def average_problem(self, clusters: Sequence[int | Selection], *, engine: str = "tomolab") -> str:
        """Why these clusters, or the selection if none is given, cannot be averaged with an engine; empty if they can."""
        if self.subtomograms is None:
            return "there are no boxes to average"
        session, counts = self.session, self.session.counts(visible=True)
        sets = {one.name: len(one) for one in clusters if isinstance(one, Selection)}
        sets |= {session.title(one): int(counts[one]) for one in clusters if not isinstance(one, Selection)}
        sets = sets or {"the selection": int(session.chosen_rows.sum())}
        held = "holds" if session.visible.all() else "shows"
        few = [
            f"{name} {held} {counted(count)}, and an average needs {FEWEST}" for name, count in sets.items() if count < FEWEST
        ]
        if few or engine != "RELION":
            return "; ".join(few)
        return self._no_relion if self.folder else "RELION works in files, and there is no run folder"

    def discover_problem(self, clusters: Sequence[int] = ()) -> str:
        """Why no structures can be searched for in these clusters, or in all where none is given; empty if they can."""
        if self.subtomograms is None:
            return "there are no boxes to compare"
        if self.session.clusters and not clusters and all(one.accepted for one in self.session.clusters.values()):
            return "all clusters are accepted: tick those to search in"
        labels = self._taking_part(clusters)
        if len(labels) < discovery.FEWEST:
            return f"a discovery needs {discovery.FEWEST} particles, and {len(labels):,} can take part"
        few = labels.value_counts().max() < FEWEST
        return f"a discovery needs a cluster of {FEWEST} particles to start from" if few else ""

    def _taking_part(self, clusters: Sequence[int]) -> pd.Series:
        """Cluster of the visible particles in some clusters, by default in all not accepted ones; without clusters, of all."""
        labels, known = self.session.labels[self.session.visible], self.session.clusters
        some = list(clusters) or [number for number, one in known.items() if not one.accepted]
        return labels[labels.isin(some)] if known else labels

    @cached_property
    def _no_relion(self) -> str:
        programs = relion_job.available()
        found = programs is not None and programs.refine_mpi and programs.mpirun and programs.reconstruct
        return "" if found else "RELION is not installed here (relion_refine_mpi, relion_reconstruct and mpirun)"

    # Actions

    def split(self, cluster: int, n_clusters: int = 2, *, seed: int = 0) -> list[int]:
        """Divide a cluster by k-means of the features of its particles; return the numbers of the clusters.

        ValueError if `split_problem` gives a reason, or there are fewer particles than clusters.
        """
        return self.session.split(cluster, self.split_labels(cluster, n_clusters, seed=seed))

    def split_labels(self, cluster: int, n_clusters: int, *, seed: int = 0) -> pd.Series:
        """Labels of the particles of a cluster for `split`, with its errors; changes nothing, so it may run in any thread."""
        _refuse(self.split_problem([cluster]), "split")
        assert self.features is not None
        inside = self.features.take(self.session.members(cluster).ids)
        return clustering.kmeans(inside, n_clusters, seed=seed)

    def components(self, first: int, second: int) -> pd.DataFrame:
        """Two principal components of the features, counted from 1, as columns ``particle_id``, ``x``, ``y``.

        Raises
        ------
        ValueError
            If there is no embedding, or no such component.
        """
        found = self._principal.vectors
        if not 1 <= first <= found.shape[1] or not 1 <= second <= found.shape[1]:
            raise ValueError(f"components are counted from 1 to {found.shape[1]}, got {first} and {second}")
        return pd.DataFrame({"particle_id": self.session.ids, "x": found[:, first - 1], "y": found[:, second - 1]})

    @cached_property
    def _principal(self) -> Embedding:
        if self.features is None:
            raise ValueError("there is no embedding to take components of")
        return pca.pca(self.features.take(self.session.ids), min(COMPONENTS, *self.features.vectors.shape))

    def typical(self, ids: Iterable[int]) -> np.ndarray:
        """Sort particle ids by distance of their features from the mean, nearest first; without features, keep the order.

        Of more than 20,000 particles a random 20,000 are sorted; the others follow in the given order.
        """
        given = particles.as_ids(ids, self.session.ids)
        if self.features is None or not len(given):
            return given
        if len(given) > MOST:
            drawn = np.zeros(len(given), dtype=bool)
            drawn[np.random.default_rng(0).choice(len(given), MOST, replace=False)] = True
            return np.concatenate([self.typical(given[drawn]), given[~drawn]])
        distance = cluster_labels.nearest(self.features, pd.Series(0, index=given))
        return given[np.argsort(distance.to_numpy(), kind="stable")]

    def similar(self, ids: Iterable[int], count: int) -> np.ndarray:
        """The visible particles whose features are nearest to the mean of some particles, nearest first, without these.

        Distances are between directions of features, as in the clusters. ValueError if `similar_problem` gives a reason, or no
        or an unknown particle is given.
        """
        given = self.session.rows(ids)
        if not len(given) or self.features is None:
            raise ValueError("give one particle or more, and an embedding, to find similar ones")
        labels = pd.Series(NONE, index=self.session.ids)
        labels.iloc[given] = 0
        middle = cluster_labels.centres(self.features, labels).to_numpy()[0]
        others = self.session.visible.copy()
        others[given] = False
        candidates = self.session.ids[others]
        distances = np.concatenate(
            [
                np.linalg.norm(clustering.directions(self.features.take(candidates[i : i + MOST]), True) - middle, axis=1)
                for i in range(0, len(candidates), MOST)
            ]
            or [np.empty(0)]
        )
        return candidates[np.argsort(distances, kind="stable")[:count]]

    def average(
        self,
        cluster: int | Selection | None = None,
        *,
        engine: str = "tomolab",
        quick: bool = False,
        classes: int = 1,
        symmetry: str = "C1",
        mask_diameter: float | None = None,
        seed: int = 0,
    ) -> Job[dict[str, Average]]:
        """Average a cluster, or the selection, in a background job; add the result to `averages` and the run folder.

        Particles outside of the filters and in hidden clusters do not take part, unless they are given as a `Selection`.

        Parameters
        ----------
        cluster
            Its number; the selection by default.
        engine
            "tomolab", or "RELION", which refines the average of tomolab.
        quick
            Average only the 120 most typical particles, in fewer iterations, without sorting.
        classes
            If more than one, sort the particles into classes first (`averaging.classify`) and average each class.
        symmetry, mask_diameter, seed
            As in `averaging.average`.

        Raises
        ------
        ValueError
            If `average_problem` gives a reason, or an option is out of range.
        """
        if engine not in ENGINES:
            raise ValueError(f"engine is one of {', '.join(ENGINES)}, got {engine!r}")
        if classes < 1:
            raise ValueError(f"there must be at least one class, got {classes}")
        _refuse(self.average_problem([] if cluster is None else [cluster], engine=engine), "average")
        name = _symmetry(symmetry)
        boxes = self.subtomograms
        assert boxes is not None
        _check_mask(mask_diameter, boxes)
        chosen, title = self._chosen(cluster), self.average_name(cluster, engine=engine, quick=quick)
        ids = self.typical(chosen.ids)[:QUICK] if quick else chosen.ids
        options = {"seed": seed, "symmetry": name, "mask_diameter": mask_diameter} | ({"iterations": 12} if quick else {})
        task = AveragingTask(
            title,
            boxes,
            ids,
            add=partial(
                self.add_average, cluster=cluster if isinstance(cluster, int) else None, members=chosen.ids, quick=quick
            ),
            classes=1 if quick else classes,
            folder=self.folder,
            name=None if quick else partial(discovery.named, catalogue=self.catalogue),
            refine_in=self.folder / "relion" if self.folder and engine == "RELION" else None,
            options=options,
        )
        job: Job[dict[str, Average]] = jobs.start(title, task)
        self._add_job(job)
        return job

    def average_name(self, cluster: int | Selection | None = None, *, engine: str = "tomolab", quick: bool = False) -> str:
        """Name that `average` would give now; those of classes add a number."""
        chosen = self._chosen(cluster)
        total = int(self.session.counts()[cluster]) if isinstance(cluster, int) else len(chosen)
        part = f", {len(chosen):,} of {total:,}" if len(chosen) < total else ""
        return self._free(chosen.name + part + (", quick" if quick else "") + (", RELION" if engine == "RELION" else ""))

    def _chosen(self, cluster: int | Selection | None) -> Selection:
        if isinstance(cluster, Selection):
            return cluster
        session = self.session
        return session.chosen("selection", "selected") if cluster is None else session.members(cluster, visible=True)

    def discover(
        self,
        clusters: Sequence[int] = (),
        *,
        seed: int = 0,
        iterations: int = 24,
        min_particles: int = FEWEST,
        max_particles: int | None = None,
        mask_diameter: float | None = None,
        symmetry: str = "C1",
    ) -> Job[DiscoveryResult]:
        """Find the structures of particles in a background job (`averaging.discover`).

        The clusters are the start; more of them than structures is normal. They stay as they are while it runs. Then new
        clusters replace them, one for each structure, in one step that can be undone; particles that are in none of the
        structures are in no cluster, and particles that were moved meanwhile stay where they are. At last each structure is
        averaged in two halves, as by `average`, and named. If the job is stopped, the best structures so far become clusters.
        If the kernel dies, the same discovery continues from a file in the run folder.

        Parameters
        ----------
        clusters
            Their visible particles take part; by default those of all clusters that are not accepted, and all where there is
            no cluster.
        seed
            Of the structures and the averages.
        iterations
            Of the discovery, at most; it ends when its structures no longer change.
        min_particles, max_particles
            As in `averaging.discover`: fewest of a structure, and most that are used to find the structures.
        mask_diameter, symmetry
            As in `averaging.average`; the symmetry is that of the averages.

        Raises
        ------
        ValueError
            If `discover_problem` gives a reason, a cluster is unknown, or an option is out of range.
        """
        for cluster in clusters:
            self.session.title(cluster)
        _refuse(self.discover_problem(clusters), "discover")
        boxes, before = self.subtomograms, self._taking_part(clusters)
        assert boxes is not None
        _check_mask(mask_diameter, boxes)
        check_limits(iterations, min_particles=min_particles, max_particles=max_particles)
        search = {"iterations": iterations, "min_particles": min_particles, "max_particles": max_particles}
        options = {"seed": seed, "symmetry": _symmetry(symmetry), "mask_diameter": mask_diameter}
        task = DiscoveryTask(
            self.session, before, boxes, self.features, self._add_free, self.catalogue, search, options, self.folder
        )
        job: Job[DiscoveryResult] = jobs.start(self._free("discovery"), task)
        self._add_job(job)
        return job

    def save(self) -> Path:
        """Write the session into the run folder, as every change does; ValueError without a run folder.

        If another kernel has written its session there meanwhile, that file stays: this session goes into a new file beside
        it from then on (`session_path`), with a warning. Averages that could not be written before are written too.
        """
        before = self.unsaved
        with jobs.uninterrupted():
            try:
                return self._save()
            finally:
                if self.unsaved != before:
                    self.changed.emit({"saved"})

    def _save(self) -> Path:
        if self.folder is None:
            raise ValueError("this inspection has no run folder to save the session in")
        self.unsaved = "the last change is being written"
        try:
            self._session_name = run_contents.save_session(self.session, self.folder, self._session_name)
            self._averages.write(self.folder)
        except BaseException as error:
            # Whatever it is, it is shown until all is written. The next change writes everything again.
            self.unsaved = str(error) or type(error).__name__
            raise
        self.unsaved = ""
        return self.folder / self._session_name

    def add_average(
        self,
        name: str,
        average: Average,
        *,
        cluster: int | None = None,
        members: np.ndarray | None = None,
        quick: bool = False,
    ) -> str:
        """Add an average of a cluster or of other particles, and write it into the run folder if there is one; return its name.

        It replaces an average of this name that this inspection read or wrote; beside one of another kernel it gets a number.
        If it cannot be written, it stays in memory (`unsaved`, with a warning), and the next change or `save` writes it.

        `members` are the ids of all particles that were in the cluster; by default those of the average. The cluster shows the
        average as long as it has these particles.

        ValueError if the name is not valid (`session_values.checked_name`), or the record could not be read again.
        """
        name = checked_name(name, "an average", longest=MOST_BYTES)
        if self.folder is not None:
            io.inside(self.folder, run_contents.AVERAGES)
        ids = average.particles["particle_id"].to_numpy() if members is None else members
        about = {"cluster": cluster, "members": sessions.digest(ids), "quick": quick}
        where = f"the record of {name}"
        # As it is read again.
        record = safe_load.parse_json(json.dumps(run_folder.plain(average.record | about, where)))
        if wrong := [field for field, valid in run_contents.VALID.items() if not valid(record[field])]:
            raise ValueError(f"{where}: {wrong[0]} is {record[wrong[0]]!r:.80}, which is not valid")
        average = replace(average, record=half_maps.checked_record(record, where))
        with jobs.uninterrupted():
            self._averages.add(name, average)
            if self.folder is not None:
                try:
                    name = self._averages.write(self.folder).get(name, name)
                except Exception as error:  # noqa: BLE001 - whatever it is: the average stays in memory, and it is shown
                    self._tell_unsaved(error, name)
        if name in self.session.deleted:
            self.session.delete_average(name, on=False)
        self.changed.emit({"averages", "saved"} if self.unsaved else {"averages"})
        return name

    # Helpers

    def remove_job(self, job: Job) -> None:
        """Take a job that has ended from `jobs`; its averages stay. ValueError if it has not ended."""
        if not job.over:
            raise ValueError(f"{job.name} has not ended: stop it first")
        self.jobs.remove(job)
        self.changed.emit({"jobs"})

    def _add_job(self, job: Job) -> None:
        self.jobs.append(job)
        self.changed.emit({"jobs"})

    def _add_free(self, title: str, average: Average, cluster: int, members: np.ndarray) -> str:
        return self.add_average(self._free(title), average, cluster=cluster, members=members)

    def _free(self, title: str) -> str:
        return self._averages.free(title, self.folder, (job.name for job in self.jobs))

    def _tell_unsaved(self, error: Exception, what: str) -> None:
        self.unsaved = f"{what}: {str(error) or type(error).__name__}"
        warnings.warn(f"{what} could not be saved in {self.folder}: {error}", stacklevel=3)

    def _save_session(self, changed: set[str]) -> None:
        try:
            if self.folder is not None:
                self._save()
        except Exception as error:  # noqa: BLE001 - whatever it is: the change stays, and it is shown
            self._tell_unsaved(error, "the session")
        self.changed.emit(changed | ({"averages"} if "deleted" in changed else set()))


def _refuse(problem: str, action: str) -> None:
    if problem:
        raise ValueError(f"cannot {action}: {problem}")


def _check_mask(diameter: float | None, boxes: Subtomograms) -> None:
    extent = boxes.box * boxes.voxel_size
    if diameter is not None and not 0 < diameter <= extent:
        raise ValueError(f"the mask is {diameter:g} Å wide, and must be over 0 and at most the box, {extent:g} Å")


def _symmetry(text: str) -> str:
    """Name of a symmetry as it was typed; ValueError if there is none of that name."""
    name = text.strip()
    if name.lower() == FIND:
        return FIND
    symmetries.group(name.upper())
    return name.upper()


def open(folder: str | Path, *, diameter: float | None = None, seed: int = 0) -> Inspection:  # noqa: A001 - inspection.open
    """Open the inspection of a run folder, with the saved session if there is one.

    Parameters
    ----------
    folder
        With ``clusters.csv`` (particles with a column ``cluster``) and optionally ``embedding``, ``subtomograms.zarr``,
        ``tomogram.mrc`` or ``tomograms/NAME.mrc``, ``averages/``, and the files of an earlier inspection: ``session.npz`` and
        ``layout.csv`` (if missing, it is computed from the embedding by UMAP). Tomograms, masks (`write_mask`) and layout give
        columns about the surroundings of each particle (`context.add`).
    diameter
        Of a particle, in Å; by default that of the table, or half of the box.
    seed
        Of the layout.

    Raises
    ------
    FileNotFoundError
        If the folder or its particle table is missing.
    ValueError
        If the files contradict each other, or no file has the diameter of a particle.
    """
    folder = Path(folder)
    table = run_contents.read_table(folder)
    features, boxes = run_contents.read_features(folder), run_contents.read_boxes(folder)
    points = run_contents.read_layout(folder, features, seed=seed)
    tomograms = run_contents.read_tomograms(folder, table)
    table = run_contents.read_context(folder, table, points, tomograms=tomograms)
    labels = table.set_index("particle_id")["cluster"] if "cluster" in table else None
    work = Inspection(
        run_contents.read_session(folder, Session(table, labels)),
        diameter=diameter or run_contents.particle_diameter(table, boxes),
        points=points,
        features=features,
        subtomograms=boxes,
        tomograms=tomograms,
        folder=folder,
    )
    work._averages.read(folder)
    return work
