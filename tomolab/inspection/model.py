"""Takes what is known of particles, gives an `Inspection`: a person looks at them, decides what they are, and averages them.

Nothing here is drawn: the browser's inspector and napari's show one inspection and change it by its methods.

>>> work = inspection.open("runs/first")
>>> work.session.select(drawn, "lasso")
>>> number = work.session.new_cluster("ribosomes")
>>> job = work.average(number, symmetry="C1")
>>> work.changed.connect(print)
{'jobs'}
{'averages'}
>>> inspection.export(work, "ribosomes.star", [number])
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from psygnal import Signal

from tomolab import io, jobs
from tomolab.averaging import classification, gold_standard
from tomolab.averaging import symmetry as symmetries
from tomolab.averaging.gold_standard import FIND
from tomolab.averaging.half_maps import Average
from tomolab.averaging.relion import job as relion_job
from tomolab.clusters import clustering
from tomolab.clusters import labels as cluster_labels
from tomolab.inspection import run_contents
from tomolab.inspection.run_contents import AVERAGES, SESSION, folder_name
from tomolab.inspection.session import Session
from tomolab.jobs import Job
from tomolab.learning import pca
from tomolab.learning.embedding import Embedding
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

ENGINES = ("tomolab", "RELION")
FEWEST = 8
"""Particles without which there is no average worth the name."""
QUICK = 120
"""Particles of a quick average: the most typical ones of its cluster."""
COMPONENTS = 6
"""Principal components that can be looked at."""
MOST = 20_000
"""Particles that are put in order by their features at once, so that a lasso around a million is answered."""


class AveragingTask:
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
        found = classification.classify(self.subtomograms, self.ids, classes=self.classes, **options, **controls).labels
        sets = {f"{self.title}, class {k + 1}": found.index[found == k].to_numpy() for k in range(self.classes)}
        for name, ids in sets.items():
            if len(ids) < FEWEST:
                warnings.warn(f"{name} holds {len(ids)} particles and is not averaged: that needs {FEWEST}", stacklevel=2)
        return {name: ids for name, ids in sets.items() if len(ids) >= FEWEST}

    def _one(self, name: str, ids: np.ndarray, controls: dict[str, Any]) -> Average:
        ours = gold_standard.average(self.subtomograms, ids, **self.options, **controls)
        if self.refine_in is None or controls["stop"]():
            return ours
        folder = relion_job.write(self.subtomograms, self.refine_in / folder_name(name), ids=ids, progress=False)
        diameter = self.options.get("mask_diameter") or ours.record["mask"]
        options = {key: self.options[key] for key in ("seed", "symmetry") if key in self.options}
        return relion_job.refine(folder, diameter=diameter, reference=ours.volume, **options, **controls)


class Inspection:
    """Particles, all that is known of them, the session of decisions about them, and their averages.

    Parameters
    ----------
    session
        The decisions.
    points
        Columns ``particle_id``, ``x``, ``y`` (`layouts.flat`) of every particle.
    features
        Embedding of every particle; without it nothing can be split or put in order.
    subtomograms
        Their boxes; without them there are no pictures and no averages.
    tomograms
        By the name in the column ``tomogram``, bright on dark.
    diameter
        Of a particle, in Å.
    folder
        Run folder, in which every decision and every average is kept at once; kept nowhere by default.

    Raises
    ------
    ValueError
        If points, features or boxes lack particles of the session, there is no such tomogram, or the diameter is not
        positive.
    """

    changed = Signal(set)
    """Sent with the names of what changed: those of the session, "jobs", and "averages" (in the thread that made them)."""

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
    ) -> None:
        if not diameter > 0:
            raise ValueError(f"the diameter of a particle must be a positive number of Å, got {diameter}")
        self.session, self.diameter, self.features, self.subtomograms = session, float(diameter), features, subtomograms
        self.tomograms, self.folder = dict(tomograms or {}), None if folder is None else Path(folder)
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
        self._kept = SESSION
        self.unkept = ""
        """Why the last change could not be written into the run folder; empty if it was, or is not to be."""
        self.averages: dict[str, Average] = {}
        """By name, in the order in which they were made."""
        self.jobs: list[Job] = []
        session.changed.connect(self._keep_session)

    def __repr__(self) -> str:
        return f"Inspection({self.session!r}, {len(self.averages)} averages)"

    @property
    def kept(self) -> Path | None:
        """Where the session is kept."""
        return None if self.folder is None else self.folder / self._kept

    @property
    def named(self) -> list[str]:
        """Names of the tomograms in which particles lie."""
        return sorted(self.session.particles["tomogram"].unique().tolist())

    # What cannot be done, and why

    def split_problem(self, clusters: Sequence[int]) -> str:
        """Why these clusters cannot be split: it needs an embedding and one cluster of two particles. Empty if they can."""
        if self.features is None:
            return "there is no embedding to split by"
        if len(clusters) != 1:
            return "tick one cluster"
        few = self.session.counts()[clusters[0]] < 2
        return f"{self.session.title(clusters[0])} has less than two particles" if few else ""

    def average_problem(self, clusters: Sequence[int], *, engine: str = "tomolab") -> str:
        """Why these clusters, or without any the selection, cannot be averaged with an engine; empty if they can."""
        if self.subtomograms is None:
            return "there are no boxes to average"
        counts, selected = self.session.counts(), int(self.session.selected.sum())
        sets = {self.session.title(one): int(counts[one]) for one in clusters} or {"the selection": selected}
        few = [
            f"{name} holds {count} particles, and an average needs {FEWEST}" for name, count in sets.items() if count < FEWEST
        ]
        if few or engine != "RELION":
            return "; ".join(few)
        return self._no_relion if self.folder else "RELION works in files, and there is no run folder"

    @cached_property
    def _no_relion(self) -> str:
        programs = relion_job.available()
        found = programs is not None and programs.refine_mpi and programs.mpirun and programs.reconstruct
        return "" if found else "RELION is not installed here (relion_refine_mpi, relion_reconstruct and mpirun)"

    # What can be done

    def split(self, cluster: int, parts: int = 2, *, seed: int = 0) -> list[int]:
        """Divide a cluster by k-means among its own particles; their numbers.

        Raises
        ------
        ValueError
            If `split_problem` says why not, or there are less particles than parts.
        """
        return self.session.split(cluster, self.parts(cluster, parts, seed=seed))

    def parts(self, cluster: int, count: int, *, seed: int = 0) -> pd.Series:
        """What `split` divides a cluster into, for `Session.split`: found without a change, so in any thread.

        Raises
        ------
        ValueError
            As `split`.
        """
        _refuse(self.split_problem([cluster]), "split")
        assert self.features is not None
        inside = self.features.take(self.session.members(cluster).ids)
        return clustering.kmeans(inside, count, seed=seed)

    def components(self, first: int, second: int) -> pd.DataFrame:
        """Particles along two principal components of their features, counted from 1: ``particle_id``, ``x``, ``y``.

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
        """Particles, those nearest to their common centre among the features first; without features, as they are.

        Of more than 20,000, as many are drawn at random and put in order, and the others follow as they are.
        """
        given = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), dtype=np.int64)
        if self.features is None or not len(given):
            return given
        if len(given) > MOST:
            drawn = np.zeros(len(given), dtype=bool)
            drawn[np.random.default_rng(0).choice(len(given), MOST, replace=False)] = True
            return np.concatenate([self.typical(given[drawn]), given[~drawn]])
        distance = cluster_labels.nearest(self.features, pd.Series(0, index=given))
        return given[np.argsort(distance.to_numpy(), kind="stable")]

    def average(
        self,
        cluster: int | None = None,
        *,
        engine: str = "tomolab",
        quick: bool = False,
        classes: int = 1,
        symmetry: str = "C1",
        mask_diameter: float | None = None,
        seed: int = 0,
    ) -> Job[dict[str, Average]]:
        """Average a cluster, or what is selected, in the background; the result lands in `averages` and in the run folder.

        Parameters
        ----------
        cluster
            Its number; what is selected by default.
        engine
            "tomolab", or "RELION", which starts from the average of ours and then refines that.
        quick
            Only so many as show what it is: the 120 most typical particles, in fewer iterations, and not sorted.
        classes
            More than one sorts the particles first (`classification.classify`) and averages each class.
        symmetry, mask_diameter, seed
            As in `averaging.average`.

        Raises
        ------
        ValueError
            If `average_problem` says why not, or an option is out of range.
        """
        if engine not in ENGINES:
            raise ValueError(f"engine is one of {', '.join(ENGINES)}, got {engine!r}")
        if classes < 1:
            raise ValueError(f"there must be at least one class, got {classes}")
        _refuse(self.average_problem([] if cluster is None else [cluster], engine=engine), "average")
        name = symmetry.strip()
        name = FIND if name.lower() == FIND else name.upper()
        if name != FIND:
            symmetries.group(name)
        boxes = self.subtomograms
        assert boxes is not None
        chosen = self.session.chosen("selection", "selected") if cluster is None else self.session.members(cluster)
        ids = self.typical(chosen.ids)[:QUICK] if quick else chosen.ids
        title = self._free(chosen.name + (", quick" if quick else "") + (", RELION" if engine == "RELION" else ""))
        options = {"seed": seed, "symmetry": name, "mask_diameter": mask_diameter} | ({"iterations": 12} if quick else {})
        task = AveragingTask(
            title,
            boxes,
            ids,
            keep=partial(self.keep, cluster=cluster, quick=quick),
            classes=1 if quick else classes,
            refine_in=self.folder / "relion" if self.folder and engine == "RELION" else None,
            options=options,
        )
        job: Job[dict[str, Average]] = jobs.start(title, task)
        self.jobs.append(job)
        self.changed.emit({"jobs"})
        return job

    def save(self) -> Path:
        """Write the session into the run folder, as every change does. ValueError if there is none.

        Where another kernel has written its own session there meanwhile, that one stays, and this one is kept beside it from
        then on (`kept`), with a warning.
        """
        if self.folder is None:
            raise ValueError("this inspection has no run folder to be kept in")
        while True:
            try:
                return self.session.save(self.folder / self._kept)
            except FileExistsError:
                beside = run_contents.free_session_path(self.folder)
                self.session.take_over(beside)
                told = f"another kernel works on {self.folder} and has kept its session as {self._kept}"
                warnings.warn(f"{told}; this one is kept as {beside.name}", stacklevel=2)
                self._kept = beside.name

    def keep(self, name: str, average: Average, *, cluster: int | None = None, quick: bool = False) -> None:
        """Take in an average, of a cluster or of some other particles, and write it into the run folder if there is one."""
        average = replace(average, record=average.record | {"name": name, "cluster": cluster, "quick": quick})
        if self.folder is not None:
            average.save(io.inside(self.folder, f"{AVERAGES}/{folder_name(name)}"))
        self.averages[name] = average
        self.changed.emit({"averages"})

    # Inside

    def _free(self, title: str) -> str:
        """A title that no average and no job has."""
        taken = {folder_name(name) for name in (*self.averages, *(job.name for job in self.jobs))}
        tries = (title if number == 1 else f"{title} ({number})" for number in range(1, len(taken) + 2))
        return next(name for name in tries if folder_name(name) not in taken)

    def _keep_session(self, changed: set[str]) -> None:
        self.unkept = ""
        try:
            if self.folder is not None:
                self.save()
        except OSError as error:
            # Nothing is lost by it but in a crash: the next change writes all of the session.
            self.unkept = str(error)
            warnings.warn(f"the session could not be kept in {self.folder}: {error}", stacklevel=2)
        self.changed.emit(changed)


def _refuse(problem: str, action: str) -> None:
    if problem:
        raise ValueError(f"cannot {action}: {problem}")


def open(folder: str | Path, *, diameter: float | None = None, seed: int = 0) -> Inspection:  # noqa: A001 - inspection.open
    """Inspect what a run folder holds; it goes on where it was left.

    Parameters
    ----------
    folder
        With ``clusters.csv`` (particles with a column ``cluster``), and as far as they are there ``embedding``,
        ``subtomograms.zarr``, ``tomogram.mrc`` or ``tomograms/NAME.mrc``, ``averages/`` and what an inspection left:
        ``session.npz`` and ``layout.csv``, which is made of the embedding where it is missing (UMAP).
    diameter
        Of a particle, in Å; by default that stated in the table, or half of the box.
    seed
        Of the layout.

    Raises
    ------
    FileNotFoundError
        If there is no folder or no particle table in it.
    ValueError
        If what is there does not fit together, or nothing says how large a particle is.
    """
    folder = Path(folder)
    table = run_contents.read_table(folder)
    features, boxes = run_contents.read_features(folder), run_contents.read_boxes(folder)
    labels = table.set_index("particle_id")["cluster"] if "cluster" in table else None
    work = Inspection(
        run_contents.read_session(folder, Session(table, labels)),
        diameter=diameter or run_contents.particle_diameter(table, boxes),
        points=run_contents.read_layout(folder, features, seed=seed),
        features=features,
        subtomograms=boxes,
        tomograms=run_contents.read_tomograms(folder, table),
        folder=folder,
    )
    work.averages |= run_contents.read_averages(folder)
    return work
