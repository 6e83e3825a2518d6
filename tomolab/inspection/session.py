"""Takes particles and clusters, gives a `Session`: what a person decides about them, step by step, with undo, and its file.

Screens show a session and change it by its methods; `changed` tells them the names of what changed. What changes nothing tells
nobody, so that two views that follow one another come to rest.

Two kernels may work on one run folder. A session knows which files it has read or written itself, and replaces no others.

>>> session = Session(particles, labels)
>>> session.changed.connect(print)
>>> session.select([4, 8, 15], "lasso")
{'selected'}
>>> session.new_cluster("ribosomes")
>>> session.merge([0, 3]); session.undo(); session.redo()
>>> session.save("runs/first/session.npz")
>>> load("runs/first/session.npz", particles)
"""

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from psygnal import Signal

from tomolab import io
from tomolab.inspection.history import History, Step
from tomolab.inspection.selection import Selection
from tomolab.io import safe_load

NONE = -1
"""Cluster of particles that are in none."""
FORMAT = 2
"""Version of the file."""


@dataclass(frozen=True)
class Cluster:
    """What is said of a cluster; the colour is "#rrggbb", or empty for that of the palette."""

    name: str = ""
    colour: str = ""
    hidden: bool = False
    note: str = ""


class Session:
    """Clusters, selection and filters of particles, and the steps that led there.

    Parameters
    ----------
    particles
        Particle table; its ``particle_id`` are unique. It is not changed.
    labels
        Cluster of each of them, indexed by particle id, -1 for none; all in none by default.

    Raises
    ------
    ValueError
        If ids are repeated, or the labels are not of these particles.
    """

    changed = Signal(set)
    """Sent after every change, with the names of what changed: labels, selected, clusters, filters."""

    def __init__(self, particles: pd.DataFrame, labels: pd.Series | None = None) -> None:
        self.particles = particles
        self._index = pd.Index(particles["particle_id"].to_numpy(dtype=np.int64))
        if not self._index.is_unique:
            raise ValueError(f"particle ids must be unique, but {self._index.duplicated().sum()} are repeated")
        count = len(self._index)
        given = np.full(count, NONE, dtype=np.int32) if labels is None else self._aligned(labels)
        clusters = {int(number): Cluster() for number in np.unique(given[given != NONE])}
        self._values: dict[str, Any] = {"labels": given, "selected": np.zeros(count, dtype=bool)}
        self._values |= {"clusters": clusters, "filters": {}}
        self.origin = hashlib.sha256(self.ids.tobytes() + given.tobytes()).hexdigest()
        """Digest of the particles and of the clusters that they began with."""
        self.history = History()
        self._own_files: dict[Path, tuple[int, ...] | None] = {}
        # No number is given twice, so that an average of cluster 7 is never of another cluster 7.
        self._top = max(clusters, default=NONE)

    def __repr__(self) -> str:
        return f"Session({len(self._index):,} particles, {len(self.clusters)} clusters, {self.selected.sum():,} selected)"

    # What there is

    @property
    def ids(self) -> np.ndarray:
        """Particle ids (n,), in the order of the table."""
        return self._index.to_numpy()

    @property
    def labels(self) -> pd.Series:
        """Cluster of each particle, named "cluster", indexed by particle id; -1 for none."""
        return pd.Series(self._values["labels"], index=self._index.rename("particle_id"), name="cluster")

    @property
    def selected(self) -> np.ndarray:
        """Whether each particle is selected, (n,)."""
        return self._values["selected"]

    @property
    def visible(self) -> np.ndarray:
        """Whether each particle is within all filters and in no hidden cluster, (n,)."""
        shown = ~np.isin(self._values["labels"], [number for number, one in self.clusters.items() if one.hidden])
        for column, (low, high) in self.filters.items():
            shown &= self.particles[column].between(low, high).to_numpy()
        return shown

    @property
    def clusters(self) -> Mapping[int, Cluster]:
        """What is said of each cluster, by its number."""
        return self._values["clusters"]

    @property
    def filters(self) -> Mapping[str, tuple[float, float]]:
        """Range of values, ends included, by column of the particle table."""
        return self._values["filters"]

    def title(self, cluster: int) -> str:
        """Name of a cluster, or its number where it has none."""
        return self._known([cluster])[0][1].name or f"cluster {cluster}"

    def counts(self) -> pd.Series:
        """Particles of every cluster, indexed by its number, also of those that have become empty."""
        labels = self._values["labels"]
        # Not bincount: numbers that a table brings along may be huge.
        sizes = pd.Series(labels).value_counts().to_dict()
        return pd.Series({number: sizes.get(number, 0) for number in self.clusters}, name="particles", dtype=np.int64)

    def table(self, clusters: Iterable[int] | None = None) -> pd.DataFrame:
        """The particles of some clusters, by default of all, with their own columns, ``cluster`` and ``cluster_name``."""
        wanted = list(self.clusters) if clusters is None else [number for number, _ in self._known(clusters)]
        inside = np.isin(self._values["labels"], wanted)
        labels = self._values["labels"][inside]
        names = {number: self.title(number) for number in wanted}
        return self.particles[inside].assign(cluster=labels, cluster_name=pd.Series(labels).map(names).to_numpy())

    def chosen(self, name: str, reason: str) -> Selection:
        """What is selected, as a `Selection`; ValueError if nothing is."""
        return Selection(name, self._some(), reason)

    def members(self, cluster: int) -> Selection:
        """The particles of a cluster, as a `Selection`."""
        self._known([cluster])
        return Selection(self.title(cluster), self.ids[self._values["labels"] == cluster], f"cluster {cluster} of a session")

    # What can be done

    def select(self, ids: Iterable[int], by: str = "list", *, how: str = "replace") -> None:
        """Select particles.

        Parameters
        ----------
        ids
            Particle ids, or a `Selection`.
        by
            What chose them, such as "lasso".
        how
            "replace" what is selected, "add" to it, "remove" from it, or keep only what is in both ("intersect").

        Raises
        ------
        ValueError
            If a particle is unknown, or `how` is none of these.
        """
        mask = np.zeros(len(self._index), dtype=bool)
        mask[self._rows(ids)] = True
        now = self.selected
        ways = {"replace": mask, "add": now | mask, "remove": now & ~mask, "intersect": now & mask}
        if how not in ways:
            raise ValueError(f"how must be one of {', '.join(ways)}, got {how!r}")
        self._do(f"select {ways[how].sum():,} particles ({by}, {how})", selected=ways[how])

    def new_cluster(self, name: str = "") -> int:
        """Make a new cluster of what is selected, out of the clusters where it was; its number. ValueError if nothing is."""
        rows, labels = self._rows(self._some()), self._values["labels"].copy()
        (number,) = self._new()
        labels[rows] = number
        self._do(
            f"new cluster of {self.selected.sum():,} particles", labels=labels, clusters=self._with({number: Cluster(name)})
        )
        return number

    def merge(self, clusters: Iterable[int]) -> int:
        """Make clusters one: the first of them, which keeps its name; its number.

        Raises
        ------
        ValueError
            If there are less than two, or one is unknown.
        """
        known = dict(self._known(clusters))
        if len(known) < 2:
            raise ValueError(f"merging needs two clusters, got {list(known)}")
        first, *others = known
        labels = self._values["labels"].copy()
        labels[np.isin(labels, others)] = first
        rest = {number: one for number, one in self.clusters.items() if number not in others}
        self._do(f"merge {', '.join(map(self.title, known))}", labels=labels, clusters=rest)
        return first

    def split(self, cluster: int, parts: pd.Series) -> list[int]:
        """Divide a cluster; their numbers, of which the part of most particles keeps the old one.

        Parameters
        ----------
        cluster
            Its number.
        parts
            Part of each of its particles, indexed by particle id, as of `clusters.kmeans` of their features.

        Raises
        ------
        ValueError
            If the cluster is unknown, the parts are not of just its particles, or there is only one.
        """
        self._known([cluster])
        held = self.members(cluster).ids
        if not np.array_equal(np.sort(parts.index.to_numpy()), held):
            raise ValueError(f"{self.title(cluster)} has {len(held)} particles, but the parts are of {len(parts)} or of others")
        kinds = parts.value_counts().index.tolist()
        if len(kinds) < 2:
            raise ValueError(f"{self.title(cluster)} falls into one part only")
        numbers = [cluster, *self._new(len(kinds) - 1)]
        labels = self._values["labels"].copy()
        labels[self._index.get_indexer(parts.index)] = parts.map(dict(zip(kinds, numbers, strict=True))).to_numpy()
        new = {number: Cluster() for number in numbers[1:]}
        self._do(f"split {self.title(cluster)} in {len(kinds)}", labels=labels, clusters=self._with(new))
        return numbers

    def dissolve(self, *clusters: int) -> None:
        """Put the particles of clusters into none."""
        title, labels = ", ".join(map(self.title, clusters)), self._values["labels"].copy()
        labels[np.isin(labels, clusters)] = NONE
        rest = {number: one for number, one in self.clusters.items() if number not in clusters}
        self._do(f"dissolve {title}", labels=labels, clusters=rest)

    def describe(self, cluster: int, **said: Any) -> None:
        """Name, colour, hide or annotate a cluster.

        Parameters
        ----------
        cluster
            Its number.
        said
            Fields of `Cluster`: name, colour, hidden, note.

        Raises
        ------
        ValueError
            If the cluster is unknown, or another one has that name.
        """
        ((number, one),) = self._known([cluster])
        name = said.get("name", "")
        if name and any(other.name == name for key, other in self.clusters.items() if key != number):
            raise ValueError(f"another cluster is called {name!r} already")
        words = ", ".join(f"{key} {value!r}" for key, value in said.items())
        self._do(f"{self.title(cluster)}: {words}", clusters=self._with({number: replace(one, **said)}))

    def filter(self, column: str, low: float = -np.inf, high: float = np.inf) -> None:
        """Show only particles with values from `low` to `high` in a column of the table; without limits, all again.

        Raises
        ------
        ValueError
            If there is no such column of numbers, or `low` is over `high`.
        """
        if not _is_number(self.particles, column):
            raise ValueError(f"there is no column of numbers called {column!r}")
        if not low <= high:
            raise ValueError(f"a range goes from low to high, got {low} to {high}")
        rest = {name: limits for name, limits in self.filters.items() if name != column}
        limits = {} if np.isinf(low) and np.isinf(high) else {column: (float(low), float(high))}
        self._do(f"show {column} from {low:g} to {high:g}", filters=rest | limits)

    def undo(self) -> str:
        """Take the last step back; what it was. IndexError if there is none."""
        return self._apply(self.history.undo(), forward=False)

    def redo(self) -> str:
        """Do again what was undone last; what it was. IndexError if there is nothing."""
        return self._apply(self.history.redo(), forward=True)

    # How it is kept

    def save(self, path: str | Path) -> Path:
        """Write all of it, with every step, as .npz: arrays and one JSON text; whole or not at all.

        Raises
        ------
        FileExistsError
            If somebody else, such as another kernel, has written there since this session was read or written there.
        """
        steps, bits = self.history.packed()
        about = {"format": FORMAT, "origin": self.origin, "top": self._top, "steps": steps}
        text = json.dumps(about | {"clusters": self.clusters, "filters": self.filters}, default=asdict).encode()
        arrays = {"ids": self.ids, "labels": self._values["labels"], "selected": self.selected, "steps": bits}
        place = Path(path).absolute()
        with io.atomic(path) as temporary:
            # Nobody else writes it now.
            there = _identity(place)
            if there is not None and self._own_files.get(place, there) != there:
                why = "somebody else has written there since this session was read or written; save it under another name"
                raise FileExistsError(errno.EEXIST, why, str(path))
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, about=np.frombuffer(text, dtype=np.uint8), **arrays)
            written = _identity(temporary)
        self._own_files[place] = written
        return Path(path)

    def take_over(self, path: str | Path) -> None:
        """Let `save` replace what is at a path now, if anything, but not what anybody else writes there later."""
        self._own_files[Path(path).absolute()] = _identity(Path(path))

    # Inside

    def _do(self, what: str, **after: Any) -> None:
        step = Step.between(what, self._values, after)
        if step.names:
            self.history.add(step)
            self._values |= {name: after[name] for name in step.names}
            self.changed.emit(step.names)

    def _apply(self, step: Step, *, forward: bool) -> str:
        self._values |= step.applied(self._values, forward=forward)
        self.changed.emit(step.names)
        return step.what

    def _aligned(self, labels: pd.Series) -> np.ndarray:
        rows = pd.Index(labels.index).get_indexer(self._index)
        if len(labels) != len(self._index) or (rows < 0).any():
            missing = (rows < 0).sum()
            raise ValueError(f"{len(labels)} labels for {len(self._index)} particles, {missing} of which have none")
        whole = np.iinfo(np.int32)
        numbers = pd.to_numeric(labels, errors="coerce").to_numpy(dtype=float, na_value=np.nan)[rows]
        if not ((numbers == np.round(numbers)) & (numbers >= whole.min) & (numbers <= whole.max)).all():
            raise ValueError(f"clusters are whole numbers up to {whole.max:,}, got {labels.dtype}")
        return numbers.astype(np.int32)

    def _rows(self, ids: Iterable[int]) -> np.ndarray:
        given = ids.ids if isinstance(ids, Selection) else ids
        wanted = np.asarray(given if isinstance(given, np.ndarray) else list(given), dtype=np.int64)
        rows = self._index.get_indexer(wanted)
        unknown = wanted[rows < 0]
        if len(unknown):
            raise ValueError(f"{len(unknown)} of {len(wanted)} particles are unknown here, such as {unknown[:5].tolist()}")
        return rows

    def _some(self) -> np.ndarray:
        ids = self.ids[self.selected]
        if not len(ids):
            raise ValueError("nothing is selected")
        return ids

    def _known(self, clusters: Iterable[int]) -> list[tuple[int, Cluster]]:
        wanted = [int(number) for number in clusters]
        unknown = [number for number in wanted if number not in self.clusters]
        if unknown:
            raise ValueError(f"there is no cluster {unknown}; there are {sorted(self.clusters)}")
        return [(number, self.clusters[number]) for number in wanted]

    def _new(self, count: int = 1) -> list[int]:
        """Numbers that no cluster has or had."""
        self._top += count
        return list(range(self._top - count + 1, self._top + 1))

    def _with(self, new: Mapping[int, Cluster]) -> dict[int, Cluster]:
        return dict(self.clusters) | dict(new)


def load(path: str | Path, particles: pd.DataFrame) -> Session:
    """Read what `Session.save` wrote.

    Parameters
    ----------
    path
        The file.
    particles
        The particle table that it was about.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no session, or one of other particles.
    """
    what = f"a session of these {len(particles)} particles"
    # Should somebody else write between the two, that is taken for unknown, and stays.
    identity = _identity(safe_load.existing_file(path))
    arrays = safe_load.read_npz(path, what)
    with safe_load.reading(path, what):
        about = safe_load.parse_json(arrays["about"].tobytes())
        safe_load.check_types(about, format=int, origin=str, top=int, clusters=dict, filters=dict, steps=dict)
        if about["format"] != FORMAT:
            raise ValueError(f"it has format {about['format']}, and {FORMAT} is read")
        session = Session(particles, pd.Series(arrays["labels"], index=arrays["ids"]))
        if not np.array_equal(session.ids, arrays["ids"]):
            raise ValueError("it is of the same particles in another order")
        values = session._values
        values |= {name: _restored(name, about[name]) for name in ("clusters", "filters")} | {"selected": arrays["selected"]}
        _check(values, particles, top=about["top"])
        session.history = History.unpacked(about["steps"], arrays["steps"], values=values, restored=_restored)
    session._top, session.origin, session._own_files = about["top"], about["origin"], {Path(path).absolute(): identity}
    return session


def _identity(path: Path) -> tuple[int, ...] | None:
    """What distinguishes a file from any that takes its place, whatever the clock says; None if there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _restored(name: str, value: Mapping[str, Any]) -> dict[Any, Any]:
    """The entries of "clusters" or "filters" from JSON, which makes text of numbers and lists of pairs."""
    if name == "clusters":
        for said in value.values():
            safe_load.check_types(asdict(Cluster()) | said, name=str, colour=str, hidden=bool, note=str)
        return {int(number): Cluster(**said) for number, said in value.items()}
    if name != "filters":
        raise ValueError(f"{name[:40]!r} is neither clusters nor filters")
    return {column: (float(low), float(high)) for column, (low, high) in value.items()}


def _check(values: Mapping[str, Any], particles: pd.DataFrame, *, top: int) -> None:
    """Refuse values of a file that do not belong together; `top` is the highest number that a cluster has or had."""
    numbers = {*values["clusters"], *np.unique(values["labels"]).tolist()} - {NONE}
    if not numbers <= set(values["clusters"]) or not all(0 <= number <= top < 2**31 for number in numbers):
        raise ValueError(f"particles are in clusters {str(sorted(numbers))[:80]}, but not all of these are listed, up to {top}")
    columns = [name for name in values["filters"] if _is_number(particles, name)]
    if len(columns) < len(values["filters"]):
        raise ValueError(f"it filters by {str(list(values['filters']))[:80]}, not all of which are columns of numbers")
    selected = values["selected"]
    if selected.dtype != bool or selected.shape != (len(particles),):
        got = f"{selected.dtype} of shape {selected.shape}"
        raise ValueError(f"the selection is {got}, expected {len(particles)} times yes or no")


def _is_number(particles: pd.DataFrame, column: str) -> bool:
    return column in particles and pd.api.types.is_numeric_dtype(particles[column])
