"""Takes a session and a column of its particles, gives what a screen shows of the filter of that column, and sets the filter.

>>> chosen = ColumnFilter(session, "tomogram")
>>> [(one.title, one.count, one.on) for one in chosen.values()]
>>> chosen.set_values(["TS_01"])
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from tomolab.inspection import session_values
from tomolab.inspection.model import CLUSTER
from tomolab.inspection.session import Session
from tomolab.ui import style

BINS = 64
MOST = 1000
"""Maximum number of different values to list."""


@dataclass(frozen=True)
class Value:
    """A value of a column: how many particles have it and how many of them are shown, its colour, and whether it is on."""

    value: str
    title: str
    count: int
    shown: int
    ink: str
    on: bool


class ColumnFilter:
    """The filter of one column of a session; that of clusters hides them.

    Parameters
    ----------
    session
        Whose particles.
    column
        Of their table, or "cluster".
    """

    def __init__(self, session: Session, column: str) -> None:
        self.session, self.column = session, column

    @cached_property
    def is_range(self) -> bool:
        """Whether the filter is a range of numbers, not a list of values."""
        return self.column != CLUSTER and is_scale(self.session.particles[self.column])

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest number of the column."""
        return style.limits(self.session.particles[self.column].to_numpy(float, na_value=np.nan))

    @property
    def range(self) -> tuple[float, float]:
        """The range that is shown, within the limits."""
        low, high = np.clip(np.array(self.session.filters.get(self.column, self.limits), dtype=float), *self.limits).tolist()
        return low, high

    @cached_property
    def _bins(self) -> np.ndarray:
        numbers = self.session.particles[self.column].to_numpy(float, na_value=np.nan)
        low, high = self.limits
        shares = np.nan_to_num((numbers - low) / (high - low), nan=-1.0)
        return np.where(shares < 0, -1, np.minimum((BINS * shares).astype(int), BINS - 1))

    def histogram(self) -> tuple[list[int], list[int]]:
        """Numbers of particles in `BINS` equal bins between the limits: all, and those that are shown."""
        inside = self._bins >= 0
        every, shown = (
            np.bincount(self._bins[mask], minlength=BINS).tolist() for mask in (inside, inside & self.session.visible)
        )
        return every, shown

    def values(self) -> list[Value]:
        """The values of the column, at most `MOST`; the clusters in their order."""
        session = self.session
        if self.column == CLUSTER:
            inks, counts, shown = style.inks(session.clusters), session.counts(), session.counts(visible=True)
            return [
                Value(str(number), session.title(number), int(counts[number]), int(shown[number]), inks[number], not one.hidden)
                for number, one in session.clusters.items()
            ]
        texts = session_values.as_text(session.particles[self.column])
        counts, shown = texts.value_counts(), texts[session.visible].value_counts()
        kept = session.filters.get(self.column)
        return [
            Value(one, one, int(counts[one]), int(shown.get(one, 0)), "", kept is None or one in kept)
            for one in sorted(counts.index)[:MOST]
        ]

    def set_range(self, low: float, high: float) -> None:
        """Show only particles from `low` to `high`; the whole range removes the filter."""
        if not np.allclose(self.session.filters.get(self.column, self.limits), (low, high)):
            whole = low <= self.limits[0] and high >= self.limits[1]
            self.session.filter(self.column) if whole else self.session.filter(self.column, low, high)

    def set_values(self, values: Iterable[str]) -> None:
        """Show only particles with these values; all of them remove the filter. ValueError if there is none."""
        wanted = list(values)
        if self.column != CLUSTER:
            self.session.filter_values(self.column, None if len(wanted) == len(self.values()) else wanted)
        elif wanted:
            self.session.show_only(*map(int, wanted))
        else:
            raise ValueError("one cluster at least must be shown: tick another one first")

    def clear(self) -> None:
        """Remove the filter of this column, and keep those of others."""
        if self.column == CLUSTER:
            self.session.show_only(*self.session.clusters)
        elif self.is_range:
            self.session.filter(self.column)
        else:
            self.session.filter_values(self.column, None)


def described(session: Session) -> list[str]:
    """All filters and hidden clusters in words, one a line."""
    hidden = [session.title(number) for number, one in session.clusters.items() if one.hidden]
    lines = [session_values.describe(name, kept) for name, kept in session.filters.items()]
    return lines + ([f"hidden: {', '.join(hidden)}"] if hidden else [])


def is_scale(column: pd.Series) -> bool:
    """Whether a column is filtered by a range: numbers that differ, if they are whole more than `style.FEW` of them."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return False
    return style.varies(column) or (style.is_categorical(column) and column.nunique() > style.FEW)


def columns(table: pd.DataFrame) -> list[str]:
    """Columns to filter by: clusters, numbers that differ, and at most `MOST` different values."""
    names = [str(name) for name in table if name not in ("particle_id", CLUSTER)]
    return [CLUSTER, *(name for name in names if is_scale(table[name]) or 1 < table[name].nunique(dropna=False) <= MOST)]
