"""Takes particle ids (of a lasso, a cluster, a list), gives a `Selection`: a named set of particles and how they were chosen.

Selections combine like sets and are saved as JSON.

>>> ribosomes = Selection("ribosomes", [4, 8, 15], "lasso in the embedding")
>>> rest = from_cluster(labels, 2) - ribosomes
>>> rest.check(particles).save("rest.json")
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import io
from tomolab.inspection.session_values import checked_name, checked_text
from tomolab.io import checksums, safe_load


@dataclass(frozen=True, eq=False)
class Selection:
    """A named set of particles.

    Parameters
    ----------
    name
        Its name; not empty.
    ids
        Particle ids, whole numbers in any order; kept as a sorted, unique, read-only int64 array (n,).
    reason
        How the particles were chosen.

    Raises
    ------
    ValueError
        If the name is empty, name or reason is not valid (`session_values.checked_name`, `checked_text`), or the ids are not a
        list of whole numbers.
    """

    name: str
    ids: np.ndarray
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"a selection needs a name, got {self.name!r}")
        object.__setattr__(self, "name", checked_name(self.name, "a selection", longest=math.inf))
        object.__setattr__(self, "reason", checked_text(self.reason, "the reason of a selection"))
        given = np.asarray(self.ids)
        if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
            raise ValueError(f"a selection needs a list of integer particle ids, got {given.dtype} of shape {given.shape}")
        if given.size and given.max() > np.iinfo(np.int64).max:
            raise ValueError(f"a particle id is at most {np.iinfo(np.int64).max}, got {given.max()}")
        # pd.unique, then sort: for a million ids this is 50 times as fast as np.unique.
        ids = np.sort(pd.unique(given.astype(np.int64)))
        ids.setflags(write=False)
        object.__setattr__(self, "ids", ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __contains__(self, particle_id: int) -> bool:
        place = int(np.searchsorted(self.ids, particle_id))
        return place < len(self.ids) and bool(self.ids[place] == particle_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Selection):
            return NotImplemented
        return (self.name, self.reason) == (other.name, other.reason) and np.array_equal(self.ids, other.ids)

    def __or__(self, other: "Selection") -> "Selection":
        return self._combine(other, "|", np.concatenate([self.ids, other.ids]))

    def __and__(self, other: "Selection") -> "Selection":
        return self._combine(other, "&", self.ids[pd.Index(self.ids).isin(other.ids)])

    def __sub__(self, other: "Selection") -> "Selection":
        return self._combine(other, "-", self.ids[~pd.Index(self.ids).isin(other.ids)])

    def _combine(self, other: "Selection", sign: str, ids: np.ndarray) -> "Selection":
        return Selection(f"{self.name} {sign} {other.name}", ids, f"({self.reason}) {sign} ({other.reason})")

    def __repr__(self) -> str:
        return f"Selection({self.name!r}, {len(self)} particles, {self.reason!r})"

    def check(self, particles: pd.DataFrame) -> "Selection":
        """Return the selection if all its particles are in the table.

        Parameters
        ----------
        particles
            Particle table with a column ``particle_id``.

        Raises
        ------
        ValueError
            If the table lacks some of the particles; names them.
        """
        unknown = self.ids[~pd.Index(self.ids).isin(particles["particle_id"])]
        if len(unknown):
            raise ValueError(
                f"selection {self.name!r} holds {len(unknown)} of {len(self)} particles that are not in the table of "
                f"{len(particles)}, such as {unknown[:5].tolist()}"
            )
        return self

    def save(self, path: str | Path) -> None:
        """Write the selection to `path` as JSON, whole or not at all."""
        content = {"name": self.name, "reason": self.reason, "count": len(self), "ids": self.ids.tolist()}
        with io.atomic(path) as temporary:
            temporary.write_bytes(checksums.json_bytes(content))


def load(path: str | Path) -> Selection:
    """Read a selection written by `Selection.save`; a name or reason that is not valid is left out, with a warning.

    Parameters
    ----------
    path
        The JSON file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a selection, or its count differs from its number of ids.
    """
    content = safe_load.read_json(path, "a selection")
    expected = {"name", "reason", "count", "ids"}
    if not expected <= set(content):
        raise ValueError(f"{path} is not a selection: expected the entries {', '.join(sorted(expected))}")
    with safe_load.reading(path, "a selection"):
        safe_load.check_types(content, count=int, ids=list)
        selection = Selection(_valid(content, "name", path) or "selection", content["ids"], _valid(content, "reason", path))
    if len(selection) != content["count"]:
        raise ValueError(f"{path} says it holds {content['count']} particles, but lists {len(selection)}")
    return selection


def _valid(content: dict[str, Any], field: str, path: str | Path) -> str:
    """Name or reason of a selection; empty, with a warning, if a selection cannot have it."""
    try:
        return str(getattr(Selection(**{"name": "selection", "ids": [], "reason": "", field: content[field]}), field))
    except ValueError as error:
        warnings.warn(f"{path}: {error}; it is left out", stacklevel=3)
        return ""


def from_cluster(
    labels: pd.Series, cluster: int | Sequence[int], *, name: str | None = None, reason: str | None = None
) -> Selection:
    """Select the particles of one cluster, or of several together.

    Parameters
    ----------
    labels
        Cluster of every particle, indexed by particle id (`clusters.kmeans`).
    cluster
        The cluster, or a list of them.
    name, reason
        Of the selection; from the cluster numbers by default.

    Raises
    ------
    ValueError
        If there is no such cluster.
    """
    wanted = np.atleast_1d(np.asarray(cluster))
    unknown = sorted(set(wanted.tolist()) - set(labels.unique().tolist()))
    if unknown:
        raise ValueError(f"there is no cluster {unknown}; the labels hold {sorted(labels.unique().tolist())}")
    title = ("cluster " if len(wanted) == 1 else "clusters ") + ", ".join(str(number) for number in wanted.tolist())
    chosen = labels.index[labels.isin(wanted)].to_numpy()
    return Selection(name or title, chosen, reason or f"{title} of {labels.nunique()}")
