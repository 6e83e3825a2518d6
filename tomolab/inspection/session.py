"""Takes particles and clusters, gives a `Session`: the user's clusters, selection and filters, with undo, saved as a file.

Screens show a session and change it by its methods. The signal `changed` sends the names of what changed; nothing is sent where
nothing changed, so that two views that follow each other do not loop.

Changes may come from any thread, and no interrupt divides one. Two kernels may work on one run folder. A session replaces only
files that it has read or written itself.

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
import operator
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import pandas as pd
from psygnal import Signal

from tomolab import io, jobs
from tomolab import particles as tables
from tomolab.inspection import session_values
from tomolab.inspection.history import History, Step, counted
from tomolab.inspection.selection import Selection
from tomolab.inspection.session_values import HIGHEST, NONE, Cluster, Filter
from tomolab.io import safe_load

FORMAT = 3
"""Version of the file."""
SEND_BACK = "send back"
"""How the description of such a step begins."""


Change = TypeVar("Change", bound=Callable[..., Any])
Identity: TypeAlias = tuple[int, ...]


def _one_at_a_time(change: Change) -> Change:
    """Let a change wait until the change of another thread is done, and an interrupt until this one is done and saved."""

    @wraps(change)
    def locked(session: "Session", *arguments: Any, **options: Any) -> Any:
        with jobs.uninterrupted(), session._lock:
            return change(session, *arguments, **options)

    return cast(Change, locked)


class Session:
    """Clusters, selection and filters of particles, and the history of changes.

    Parameters
    ----------
    particles
        Particle table; its ``particle_id`` are unique. It is not changed.
    labels
        Cluster of each particle, indexed by particle id, -1 for no cluster; all -1 by default.

    Raises
    ------
    ValueError
        If ids are repeated, or the labels are not of these particles or no numbers of clusters.
    """

    changed = Signal(set)
    """Sent after every change with the names of the changed values: labels, selected, clusters, filters, deleted."""

    def __init__(self, particles: pd.DataFrame, labels: pd.Series | None = None) -> None:
        self.particles, self._lock = particles, threading.RLock()
        self._index = pd.Index(particles["particle_id"].to_numpy(dtype=np.int64))
        if not self._index.is_unique:
            raise ValueError(f"particle ids must be unique, but {self._index.duplicated().sum()} are repeated")
        size = len(self._index)
        given = np.full(size, NONE, dtype=np.int32) if labels is None else self._aligned(labels)
        clusters = {int(number): Cluster() for number in np.unique(given[given != NONE])}
        self._values: dict[str, Any] = {"labels": given, "selected": np.zeros(size, dtype=bool)}
        self._values |= {"clusters": clusters, "filters": {}, "deleted": {}}
        self.origin = hashlib.sha256(self.ids.tobytes() + given.tobytes()).hexdigest()
        """SHA-256 of the particle ids and their first labels."""
        self.history = History()
        self.faults: list[str] = []
        """What was left out of the file that the session was read from, because it was not valid."""
        self._own_files: dict[Path, tuple[Identity | None, ...]] = {}
        # No number is used twice, so that an average of cluster 7 is never of another cluster 7.
        self._top = max(clusters, default=NONE)
        self._digests: tuple[np.ndarray, dict[int, str]] = given, {}
        self._visible: tuple[list[Any], np.ndarray] = [None] * 3, np.empty(0, dtype=bool)

    def __repr__(self) -> str:
        return f"Session({len(self._index):,} particles, {len(self.clusters)} clusters, {self.selected.sum():,} selected)"

    # State

    @property
    def ids(self) -> np.ndarray:
        """Particle ids (n,), in the order of the table."""
        return self._index.to_numpy()

    @property
    def labels(self) -> pd.Series:
        """Cluster of each particle, named "cluster", indexed by particle id; -1 for none. Figures take their own colours."""
        labels = pd.Series(self._values["labels"], index=self._index.rename("particle_id"), name="cluster")
        labels.attrs["colours"] = {number: one.colour for number, one in self.clusters.items() if one.colour}
        return labels

    @property
    def selected(self) -> np.ndarray:
        """Whether each particle is selected, (n,)."""
        return self._values["selected"]

    @property
    def visible(self) -> np.ndarray:
        """Whether each particle is within all filters and in no hidden cluster, (n,); kept until one of these is replaced."""
        state = [self._values[name] for name in ("labels", "clusters", "filters")]
        if not all(map(operator.is_, state, self._visible[0])):
            shown = ~np.isin(self._values["labels"], [number for number, one in self.clusters.items() if one.hidden])
            for column, kept in self.filters.items():
                shown &= session_values.keeps(self.particles[column], kept)
            shown.setflags(write=False)
            self._visible = state, shown
        return self._visible[1]

    @property
    def chosen_rows(self) -> np.ndarray:
        """Whether each particle is selected and visible, (n,): those that actions on the selection take."""
        return self.selected & self.visible

    @property
    def clusters(self) -> Mapping[int, Cluster]:
        """Description of each cluster, by its number."""
        return self._values["clusters"]

    @property
    def filters(self) -> Mapping[str, Filter]:
        """Range of numbers, ends included, or values that are shown, by column of the particle table."""
        return self._values["filters"]

    @property
    def deleted(self) -> Mapping[str, bool]:
        """Names of deleted averages."""
        return self._values["deleted"]

    def title(self, cluster: int) -> str:
        """Name of a cluster, or its number where it has none."""
        return self._known([cluster])[0][1].name or f"cluster {cluster}"

    def counts(self, *, visible: bool = False) -> pd.Series:
        """Number of particles, or of the visible ones, of every cluster, by its number; empty clusters count 0."""
        labels = self._values["labels"][self.visible] if visible else self._values["labels"]
        # Not bincount: the cluster numbers of a table may be huge.
        sizes = pd.Series(labels).value_counts().to_dict()
        return pd.Series({number: sizes.get(number, 0) for number in self.clusters}, name="particles", dtype=np.int64)

    def table(self, chosen: Iterable[int] | Selection | None = None, *, visible: bool = False) -> pd.DataFrame:
        """Particle table of some clusters, by default of all, or of a `Selection`; with ``cluster`` and ``cluster_name`` added.

        `visible` leaves out particles outside of the filters and in hidden clusters.
        """
        if isinstance(chosen, Selection):
            inside = np.isin(np.arange(len(self._index)), self.rows(chosen))
        else:
            wanted = list(self.clusters) if chosen is None else [number for number, _ in self._known(chosen)]
            inside = np.isin(self._values["labels"], wanted)
        inside = inside & self.visible if visible else inside
        labels = self._values["labels"][inside]
        names = {NONE: "none"} | {number: self.title(number) for number in self.clusters}
        return self.particles[inside].assign(cluster=labels, cluster_name=pd.Series(labels).map(names).to_numpy())

    def chosen(self, name: str, reason: str) -> Selection:
        """The selected particles that are visible as a `Selection`; ValueError if there are none."""
        return Selection(name, self._some(), reason)

    def members(self, cluster: int, *, visible: bool = False) -> Selection:
        """The particles of a cluster, or only the visible ones, as a `Selection`."""
        inside = (self._values["labels"] == cluster) & (self.visible if visible else True)
        return Selection(self.title(cluster), self.ids[inside], f"cluster {cluster} of a session")

    def digest(self, cluster: int) -> str:
        """The `digest` of the particle ids of a cluster; computed once while no particle moves."""
        labels = self._values["labels"]
        if self._digests[0] is not labels:
            self._digests = labels, {}
        known = self._digests[1]
        if cluster not in known:
            known[cluster] = digest(self.ids[labels == cluster])
        return known[cluster]

    # Changes

    @_one_at_a_time
    def select(self, ids: Iterable[int], by: str = "list", *, how: str = "replace") -> None:
        """Select particles.

        Parameters
        ----------
        ids
            Particle ids, a mask of all particles, or a `Selection`.
        by
            How they were chosen, such as "lasso".
        how
            "replace" the selection, "add" to it, "remove" from it, or "intersect" with it.

        Raises
        ------
        ValueError
            If a particle is unknown, a mask has another length, or `how` is none of these.
        """
        mask = np.zeros(len(self._index), dtype=bool)
        mask[self.rows(ids)] = True
        now = self.selected
        ways = {"replace": mask, "add": now | mask, "remove": now & ~mask, "intersect": now & mask}
        if how not in ways:
            raise ValueError(f"how must be one of {', '.join(ways)}, got {how!r}")
        self._do(f"select {counted(ways[how].sum())} ({by}, {how})", selected=ways[how])

    @_one_at_a_time
    def new_cluster(self, name: str = "") -> int:
        """Move the selected particles that are visible to a new cluster; return its number.

        ValueError if there are none, or the name is not valid or that of another cluster.
        """
        rows, labels = self.rows(self._some()), self._values["labels"].copy()
        (number,) = self._new()
        labels[rows] = number
        self._do(f"new cluster of {counted(len(rows))}", labels=labels, clusters=self._with({number: Cluster(name)}))
        return number

    @_one_at_a_time
    def merge(self, clusters: Iterable[int]) -> int:
        """Merge clusters into the first of them, which keeps its name but is not accepted; return its number.

        ValueError if there are less than two, or one is unknown.
        """
        known = dict(self._known(clusters))
        if len(known) < 2:
            raise ValueError(f"merging needs two clusters, got {list(known)}")
        first, *others = known
        labels = self._values["labels"].copy()
        labels[np.isin(labels, others)] = first
        rest = {number: one for number, one in self.clusters.items() if number not in others}
        rest[first] = replace(rest[first], accepted=False)
        self._do(f"merge {', '.join(map(self.title, known))}", labels=labels, clusters=rest)
        return first

    @_one_at_a_time
    def split(self, cluster: int, labels: pd.Series) -> list[int]:
        """Divide a cluster; return the numbers of the clusters, the largest first, which keeps the old number.

        Parameters
        ----------
        cluster
            Its number.
        labels
            Label of each of its particles, indexed by particle id, such as the result of `clusters.kmeans`.

        Raises
        ------
        ValueError
            If the cluster is unknown, the labels are of other particles, or all labels are equal.
        """
        self._known([cluster])
        held = self.members(cluster).ids
        if not np.array_equal(np.sort(labels.index.to_numpy()), held):
            raise ValueError(
                f"{self.title(cluster)} has {len(held)} particles, but {len(labels)} or other particles have labels"
            )
        distinct = labels.value_counts().index.tolist()
        if len(distinct) < 2:
            raise ValueError(f"all particles of {self.title(cluster)} have the same label: a split needs two")
        numbers = [cluster, *self._new(len(distinct) - 1)]
        after = self._values["labels"].copy()
        after[self._index.get_indexer(labels.index)] = labels.map(dict(zip(distinct, numbers, strict=True))).to_numpy()
        new = {cluster: replace(self.clusters[cluster], accepted=False)} | {number: Cluster() for number in numbers[1:]}
        self._do(f"split {self.title(cluster)} in {len(distinct)}", labels=after, clusters=self._with(new))
        return numbers

    @_one_at_a_time
    def relabel(self, labels: pd.Series, *, before: pd.Series, name: str, what: str) -> pd.Series:
        """Move particles to new clusters, one for each label; return the new cluster of each moved particle, by its id.

        Clusters that become empty are removed.

        Parameters
        ----------
        labels
            Label of each particle, by its id; particles of label -1 are then in no cluster.
        before
            Cluster of each of these particles when the labels were computed; a particle that is in another one now stays there.
        name
            Of the new clusters, followed by the first numbers that are free.
        what
            Reason, for the history.

        Raises
        ------
        ValueError
            If a particle is unknown.
        """
        rows, after = self.rows(labels.index), self._values["labels"].copy()
        same = after[rows] == before[labels.index].to_numpy()
        some = labels[same]
        wanted = sorted(set(some) - {NONE})
        numbers = dict(zip(wanted, self._new(len(wanted)), strict=True))
        moved = some.map(numbers | {NONE: NONE}).astype(np.int32)
        after[rows[same]] = moved.to_numpy()
        empty = set(before) - set(after.tolist())
        rest = {number: one for number, one in self.clusters.items() if number not in empty}
        taken = {one.name for one in rest.values()}
        free = (title for number in count(1) if (title := f"{name} {number}") not in taken)
        new = {number: Cluster(title) for number, title in zip(numbers.values(), free, strict=False)}
        stay = f"; {len(labels) - len(some):,} had left their cluster and stay" if len(some) < len(labels) else ""
        self._do(f"{what}: {counted(len(new), 'clusters')} of {counted(len(some))}{stay}", labels=after, clusters=rest | new)
        return moved

    @_one_at_a_time
    def unassign(self, *clusters: int) -> None:
        """Remove clusters; their particles are then in no cluster."""
        title, labels = ", ".join(map(self.title, clusters)), self._values["labels"].copy()
        labels[np.isin(labels, clusters)] = NONE
        rest = {number: one for number, one in self.clusters.items() if number not in clusters}
        self._do(f"unassign {title}", labels=labels, clusters=rest)

    @_one_at_a_time
    def send_back(self, *clusters: int) -> None:
        """Return particles to the clusters from which the last step that brought some into these clusters took them.

        So a structure of a discovery gives its particles back to the clusters before it, whatever was done since. Clusters that
        are needed again come back as they were; those that become empty are removed.

        Raises
        ------
        ValueError
            If a cluster is unknown, or no step that can be undone brought particles into it.
        """
        labels, described, came = self._values["labels"].copy(), dict(self.clusters), 0
        for number, _ in self._known(clusters):
            rows, earlier, then = self._arrived(number)
            labels[rows], came = earlier, came + len(rows)
            taken = {one.name for one in described.values()}
            for key in sorted(set(earlier.tolist()) - {NONE, *described}):
                one = then.get(key, Cluster())
                described[key] = replace(one, name="") if one.name in taken else one
        empty = set(clusters) - set(labels.tolist())
        rest = {number: one for number, one in described.items() if number not in empty}
        title = ", ".join(map(self.title, clusters))
        self._do(f"{SEND_BACK} {counted(came)} of {title}", labels=labels, clusters=rest)

    def _arrived(self, cluster: int) -> tuple[np.ndarray, np.ndarray, Mapping[int, Cluster]]:
        """Rows that the last step that brought any brought into a cluster; their labels and all clusters before that step."""
        now = dict(self._values)
        present = now["labels"] == cluster
        for step in reversed(self.history.past):
            if step.names & {"labels", "clusters"}:
                before = now | step.applied(now, forward=False)
                rows = np.flatnonzero(present & (now["labels"] == cluster) & (before["labels"] != cluster))
                # Particles that were sent back do not return to where they were sent from.
                if len(rows) and not step.what.startswith(SEND_BACK):
                    return rows, before["labels"][rows], before["clusters"]
                now = before
        raise ValueError(f"no step brought particles into {self.title(cluster)}, so they cannot be sent back")

    @_one_at_a_time
    def accept(self, *clusters: int) -> None:
        """Mark clusters as accepted, or as not accepted if all of them are."""
        known = dict(self._known(clusters))
        on = not all(one.accepted for one in known.values())
        changed = {number: replace(one, accepted=on) for number, one in known.items()}
        self._do(f"{'' if on else 'no longer '}accept {', '.join(map(self.title, known))}", clusters=self._with(changed))

    @_one_at_a_time
    def describe(self, cluster: int, **fields: Any) -> None:
        """Name, colour, hide or annotate a cluster.

        Parameters
        ----------
        cluster
            Its number.
        fields
            Of `Cluster`: name, colour, hidden, note, accepted.

        Raises
        ------
        ValueError
            If the cluster is unknown, another one has that name, or a field is unknown or not valid (`session_values.checked`).
        """
        ((number, one),) = self._known([cluster])
        good = {key: session_values.checked(key, value) for key, value in fields.items()}
        words = ", ".join(f"{key} {value!r}" for key, value in good.items())
        self._do(f"{self.title(cluster)}: {words}", clusters=self._with({number: replace(one, **cast(Any, good))}))

    @_one_at_a_time
    def filter(self, column: str, low: float = -np.inf, high: float = np.inf) -> None:
        """Show only particles with numbers from `low` to `high` in a column of the table; without limits, remove the filter.

        ValueError if there is no such column of numbers, or `low` is greater than `high`.
        """
        kept = float(low), float(high)
        session_values.check_filter(self.particles, column, kept)
        self._filter(column, None if kept == (-np.inf, np.inf) else kept)

    @_one_at_a_time
    def filter_values(self, column: str, values: Iterable[Any] | None) -> None:
        """Show only particles with some values in a column of the table; with None, remove the filter.

        ValueError if there is no such column, or it has none of these values.
        """
        kept = None if values is None else tuple(sorted({str(one) for one in values}))
        if kept is not None:
            session_values.check_filter(self.particles, column, kept)
        self._filter(column, kept)

    def _filter(self, column: str, kept: Filter | None) -> None:
        rest = {name: one for name, one in self.filters.items() if name != column}
        what = f"{column}: all" if kept is None else session_values.describe(column, kept)
        self._do(f"show {what}", filters=rest if kept is None else rest | {column: kept})

    @_one_at_a_time
    def show_only(self, *clusters: int) -> None:
        """Hide all clusters but these; without any, show all particles: no cluster is hidden, and there is no filter."""
        shown = dict(self._known(clusters or self.clusters))
        changed = {number: replace(one, hidden=number not in shown) for number, one in self.clusters.items()}
        what = f"show only {', '.join(map(self.title, clusters))}" if clusters else "show all"
        self._do(what, clusters=changed, filters=self.filters if clusters else {})

    @_one_at_a_time
    def delete_average(self, name: str, *, on: bool = True) -> None:
        """Mark an average as deleted, or not; its files stay, so that the step can be undone."""
        name = session_values.checked_text(name, "the name of an average")
        names = set(self.deleted) | {name} if on else set(self.deleted) - {name}
        self._do(f"{'delete' if on else 'restore'} the average {name}", deleted=dict.fromkeys(sorted(names), True))

    @_one_at_a_time
    def undo(self) -> str:
        """Undo the last step; return its description. IndexError if there is none."""
        return self._apply(*self.history.undo(), forward=False)

    @_one_at_a_time
    def redo(self) -> str:
        """Redo the step that was undone last; return its description. IndexError if there is none."""
        return self._apply(*self.history.redo(), forward=True)

    # File

    @_one_at_a_time
    def save(self, path: str | Path) -> Path:
        """Write the session with its history as .npz (arrays and one JSON text), whole or not at all.

        Raises
        ------
        FileExistsError
            If another program, such as another kernel, has written the file since this session read or wrote it.
        """
        steps, bits = self.history.packed()
        about = {"format": FORMAT, "origin": self.origin, "top": self._top, "steps": steps}
        about |= {name: self._values[name] for name in session_values.DESCRIBED}
        text = json.dumps(about, default=asdict).encode()
        arrays = {"ids": self.ids, "labels": self._values["labels"], "selected": self.selected, "steps": bits}
        place = Path(path).absolute()
        with io.atomic(path) as temporary:
            # `io.atomic` holds the lock: no other session writes the file now.
            there = identity(place)
            if there is not None and there not in self._own_files.get(place, (there,)):
                why = "another program wrote this file after this session read or wrote it; save the session under another name"
                raise FileExistsError(errno.EEXIST, why, str(path))
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, about=np.frombuffer(text, dtype=np.uint8), **arrays)
            # Noted before the file is replaced: whatever happens between the two, neither file is that of another program.
            self._own_files[place] = there, identity(temporary)
        return Path(path)

    def take_over(self, path: str | Path) -> None:
        """Let `save` replace the file that is at a path now, if any, but not a file that another program writes there later."""
        self._own_files[Path(path).absolute()] = (identity(Path(path)),)

    # Helpers

    def _do(self, what: str, **after: Any) -> None:
        step = Step.between(what, self._values, after)
        if step.names:
            self._become({name: after[name] for name in step.names}, self.history.add(step))

    def _apply(self, step: Step, history: History, *, forward: bool) -> str:
        self._become(step.applied(self._values, forward=forward), history)
        return step.what

    def _become(self, after: dict[str, Any], history: History) -> None:
        values = self._values | after
        # Together: whatever ends a change early, it does so at a call.
        self._values, self.history = values, history
        self.changed.emit(set(after))

    def _aligned(self, labels: pd.Series) -> np.ndarray:
        rows = pd.Index(labels.index).get_indexer(self._index)
        if len(labels) != len(self._index) or (rows < 0).any():
            missing = (rows < 0).sum()
            raise ValueError(f"{len(labels)} labels for {len(self._index)} particles, {missing} of which have none")
        numbers = pd.to_numeric(labels, errors="coerce").to_numpy(dtype=float, na_value=np.nan)[rows]
        wrong = numbers[~((numbers == np.round(numbers)) & (numbers >= NONE) & (numbers <= HIGHEST))]
        if len(wrong):
            raise ValueError(f"clusters are whole numbers from 0 to {HIGHEST:,}, and {NONE} for none; got {wrong[0]:g}")
        return numbers.astype(np.int32)

    def rows(self, ids: Iterable[int]) -> np.ndarray:
        """Rows of particles in the table, in the order of the ids, or of a mask; ValueError if one is unknown."""
        wanted = tables.as_ids(ids.ids if isinstance(ids, Selection) else ids, self.ids)
        rows = self._index.get_indexer(wanted)
        unknown = wanted[rows < 0]
        if len(unknown):
            raise ValueError(f"{len(unknown)} of {len(wanted)} particles are unknown here, such as {unknown[:5].tolist()}")
        return rows

    def _some(self) -> np.ndarray:
        ids = self.ids[self.chosen_rows]
        if not len(ids):
            raise ValueError("all selected particles are hidden" if self.selected.any() else "nothing is selected")
        return ids

    def _known(self, clusters: Iterable[int]) -> list[tuple[int, Cluster]]:
        wanted = [number.item() if isinstance(number, np.generic) else number for number in clusters]
        unknown = [number for number in wanted if isinstance(number, bool) or number not in self.clusters]
        if unknown:
            raise ValueError(f"there is no cluster {unknown}; there are {sorted(self.clusters)}")
        return [(int(number), self.clusters[number]) for number in wanted]

    def _new(self, count: int = 1) -> list[int]:
        """Numbers that no cluster has or had."""
        if self._top + count > HIGHEST:
            raise ValueError(f"there is no number above {self._top:,} for a new cluster: number the clusters of the table anew")
        self._top += count
        return list(range(self._top - count + 1, self._top + 1))

    def _with(self, new: Mapping[int, Cluster]) -> dict[int, Cluster]:
        """The clusters with new descriptions; ValueError if two have one name."""
        others = {one.name for number, one in self.clusters.items() if number not in new} - {""}
        if taken := [one.name for one in new.values() if one.name in others]:
            raise ValueError(f"another cluster is called {taken[0]!r} already")
        return dict(self.clusters) | dict(new)


def digest(ids: np.ndarray) -> str:
    """SHA-256 of particle ids, in any order."""
    return hashlib.sha256(np.sort(ids).astype(np.int64).tobytes()).hexdigest()


def load(path: str | Path, particles: pd.DataFrame) -> Session:
    """Read a session of these particles written by `Session.save`; leave out, with a warning, what is not valid (`faults`).

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is not a session, or belongs to other particles.
    """
    what = f"a session of these {len(particles)} particles"
    # Identity first: if another program writes before the arrays are read, `save` will not replace its file.
    there = identity(safe_load.existing_file(path))
    arrays = safe_load.read_npz(path, what)
    with safe_load.reading(path, what):
        about = safe_load.parse_json(arrays["about"].tobytes())
        safe_load.check_types(about, format=int)
        if about["format"] != FORMAT:
            raise ValueError(f"it has format {about['format']}, and {FORMAT} is read")
        session = Session(particles, pd.Series(arrays["labels"], index=arrays["ids"]))
        if not np.array_equal(session.ids, arrays["ids"]):
            raise ValueError("it is of the same particles in another order")
    found = session_values.Restored(about, particles, session._values["labels"])
    session._values |= found.values | {"selected": found.selected(arrays.get("selected"))}
    session.history = found.history(about.get("steps"), arrays.get("steps"), session._values)
    session._top, session.origin = found.top, found.origin(about.get("origin"))
    session.faults, session._own_files = found.faults, {Path(path).absolute(): (there,)}
    if found.faults:
        warnings.warn(
            f"{path}: left out, because it is not valid: {'; '.join(dict.fromkeys(found.faults))[:2000]}", stacklevel=2
        )
    return session


def identity(path: Path) -> Identity | None:
    """Device, inode, size and time of a file, which a file that replaces it does not share; None if there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
