"""Takes an inspection, gives the columns of its table of clusters (titles, tooltips, values); both inspectors show them.

A new column needs one entry in `COLUMNS`.

>>> column = Column("score", "Score", "Mean score of its particles", "number", mean_scores, "{:.2f}".format)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tomolab.averaging.half_maps import Average
from tomolab.inspection.model import Inspection
from tomolab.inspection.session import Session
from tomolab.inspection.session_values import NONE, as_text


@dataclass(frozen=True)
class Column:
    """A column of the table of clusters.

    Parameters
    ----------
    name, title, tooltip
        Its key, its header, and what it means.
    type
        Of its cells: "text", "number" or "check" (yes or no).
    values
        Value of every cluster, by its number.
    format
        Text of a value.
    write
        Changes the value of a cluster, by its number; None for a read-only column.
    optional
        Whether the column is hidden while the texts of all clusters are empty.
    """

    name: str
    title: str
    tooltip: str
    type: str
    values: Callable[[Inspection], Mapping[int, Any]]
    format: Callable[[Any], str] = str
    write: Callable[[Session, int, Any], None] | None = None
    optional: bool = False


def _names(work: Inspection) -> dict[int, str]:
    return {number: work.session.title(number) for number in work.session.clusters}


def _selected(work: Inspection) -> dict[int, int]:
    session = work.session
    counts = session.labels[session.chosen_rows].value_counts()
    return {number: int(counts.get(number, 0)) for number in session.clusters}


def _visible(work: Inspection) -> Mapping[int, int | None]:
    """Number of visible particles, or None while nothing is hidden."""
    session = work.session
    return dict.fromkeys(session.clusters) if session.visible.all() else session.counts(visible=True).to_dict()


def counts_by(session: Session, column: str) -> pd.DataFrame:
    """Number of visible particles of every cluster (rows) by the values of a column as text; ValueError as `_clustered`."""
    labels, values = _clustered(session, column)
    counts = pd.crosstab(labels, as_text(values).to_numpy())
    return counts.reindex(index=list(session.clusters), fill_value=0).rename_axis(index="cluster", columns=column)


def quartiles_by(session: Session, column: str) -> pd.DataFrame:
    """Quartiles and median of a column of numbers over the visible particles of every cluster (rows); missing without any."""
    labels, values = _clustered(session, column)
    groups = pd.Series(values.to_numpy(float, na_value=math.nan)).groupby(labels)
    shares = {"quarter below": 0.25, "median": 0.5, "quarter above": 0.75}
    found = pd.DataFrame({name: groups.quantile(share) for name, share in shares.items()})
    return found.reindex(list(session.clusters)).rename_axis(index="cluster")


def _clustered(session: Session, column: str) -> tuple[np.ndarray, pd.Series]:
    """Cluster and value of a column of the visible particles that are in a cluster; a ValueError if there is no such column."""
    if column not in session.particles:
        raise ValueError(f"there is no column called {column!r}")
    labels = session.labels.to_numpy()
    inside = session.visible & (labels != NONE)
    return labels[inside], session.particles[column][inside]


def newest(work: Inspection) -> dict[int, tuple[str, Average]]:
    """Name and value of the newest average of each cluster that has one, of exactly the particles that are in it now."""
    found = {(one.record.get("cluster"), one.record.get("members")): (name, one) for name, one in work.averages.items()}
    averaged = [number for number in work.session.clusters if any(number == cluster for cluster, _ in found)]
    keys = {number: (number, work.session.digest(number)) for number in averaged}
    return {number: found[key] for number, key in keys.items() if key in found}


def _resolutions(work: Inspection) -> dict[int, float]:
    averages = newest(work)
    return {number: averages[number][1].resolution if number in averages else math.inf for number in work.session.clusters}


def _identities(work: Inspection) -> dict[int, str]:
    averages = newest(work)
    return {number: _identity(averages[number][1]) if number in averages else "" for number in work.session.clusters}


def _identity(average: Average) -> str:
    """What an average is, in a sentence, if it was compared with a catalogue (`averaging.identify`)."""
    identity = average.record.get("identity")
    return str(identity.get("sentence", "")) if isinstance(identity, Mapping) else ""


def _short(sentence: str) -> str:
    """The names that an identity gives, or its verdict if it is not known."""
    verdict, _, names = sentence.partition(" (")[0].partition(": ")
    return {"known": names, "novel": verdict}.get(verdict, sentence.partition(" (")[0])


COLUMNS = (
    Column(
        "name",
        "Cluster",
        "Type a name; tick clusters to merge, split, unassign, average or export them",
        "text",
        _names,
        write=lambda session, number, text: session.describe(number, name=text.strip()),
    ),
    Column("count", "Particles", "Particles in the cluster", "number", lambda work: work.session.counts(), "{:,}".format),
    Column(
        "visible",
        "Visible",
        "Particles in it that are within the filters and not hidden: averages and exports take only these",
        "number",
        _visible,
        lambda count: "" if count is None else f"{count:,}",
        optional=True,
    ),
    Column(
        "selected",
        "Selected",
        "Selected particles in it",
        "number",
        _selected,
        lambda count: f"{count:,}" if count else "",
        optional=True,
    ),
    Column(
        "resolution",
        "Å",
        "Resolution of the newest average of these particles",
        "number",
        _resolutions,
        lambda value: f"{value:.0f}" if math.isfinite(value) else "",
        optional=True,
    ),
    Column(
        "identity",
        "Identity",
        "The newest average of these particles in a catalogue of known structures",
        "text",
        _identities,
        _short,
        optional=True,
    ),
    Column(
        "note",
        "Note",
        "Anything worth remembering",
        "text",
        lambda work: {number: one.note for number, one in work.session.clusters.items()},
        write=lambda session, number, text: session.describe(number, note=text.strip()),
    ),
    Column(
        "accepted",
        "Accepted",
        "Whether it is final, so that Discover leaves it out where no cluster is ticked",
        "check",
        lambda work: {number: one.accepted for number, one in work.session.clusters.items()},
        lambda on: "yes" if on else "",
        write=lambda session, number, on: session.describe(number, accepted=on),
        optional=True,
    ),
    Column(
        "shown",
        "Shown",
        "Whether its particles are drawn, in all views",
        "check",
        lambda work: {number: not one.hidden for number, one in work.session.clusters.items()},
        write=lambda session, number, on: session.describe(number, hidden=not on),
    ),
)
"""The columns, from left to right."""
