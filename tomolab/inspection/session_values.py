"""The values of a session: descriptions of clusters, and filters of columns with the particles that they keep.

A filter is a range of numbers, ends included, or a list of values as text. Values that come from a file are checked.

>>> keeps(table["score"], (0.2, 1.0))
>>> keeps(table["tomogram"], ("TS_01", "TS_03"))
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from tomolab.io import safe_load

NONE = -1
"""Label of particles in no cluster."""
DESCRIBED = ("clusters", "filters", "deleted")
"""Values that are dictionaries: clusters by number, filters by column, and deleted averages by name."""
Filter: TypeAlias = tuple[float, float] | tuple[str, ...]
"""The lowest and the highest number, or the values that are kept, as text."""


@dataclass(frozen=True)
class Cluster:
    """Description of a cluster; the colour is "#rrggbb", or empty for that of the palette.

    An `accepted` cluster is final: a discovery in all clusters leaves it out.
    """

    name: str = ""
    colour: str = ""
    hidden: bool = False
    note: str = ""
    accepted: bool = False


def is_range(kept: Filter) -> bool:
    """Whether a filter is a range of numbers, not a list of values."""
    return not isinstance(kept[0], str)


def keeps(values: pd.Series, kept: Filter) -> np.ndarray:
    """Whether a filter keeps each value (n,); a missing value is outside of every range, and "nan" in a list."""
    if is_range(kept):
        return values.between(*kept).to_numpy()
    return as_text(values).isin(kept).to_numpy()


def as_text(values: pd.Series) -> pd.Series:
    """Values as the text that a list of values holds."""
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    return pd.Series(np.array([str(one) for one in distinct], dtype=object)[codes], index=values.index)


def check_range(particles: pd.DataFrame, column: str, *, low: float, high: float) -> None:
    """Raise ValueError if there is no such column of numbers, or `low` is greater than `high`."""
    if not _is_number(particles, column):
        raise ValueError(f"there is no column of numbers called {column!r}")
    if not low <= high:
        raise ValueError(f"a range goes from low to high, got {low} to {high}")


def check_values(particles: pd.DataFrame, column: str, values: Sequence[str]) -> None:
    """Raise ValueError if there is no such column, no value is given, or the column has none of them."""
    if column not in particles:
        raise ValueError(f"there is no column called {column!r}")
    known = set(as_text(particles[column]).unique())
    if not known & set(values):
        raise ValueError(f"{column} holds none of {list(values)[:5]}; it holds {', '.join(sorted(known)[:10])}")


def describe(column: str, kept: Filter) -> str:
    """A filter in words."""
    if is_range(kept):
        low, high = kept
        return f"{column} from {low:.4g} to {high:.4g}"
    return f"{column}: {', '.join(map(str, kept[:4]))}" + (f" and {len(kept) - 4} more" if len(kept) > 4 else "")


def restored(name: str, value: Mapping[str, Any]) -> dict[Any, Any]:
    """The entries of a value from JSON, in which keys are text and pairs are lists."""
    if name == "clusters":
        for fields in value.values():
            safe_load.check_types(asdict(Cluster()) | fields, name=str, colour=str, hidden=bool, note=str, accepted=bool)
        return {int(number): Cluster(**fields) for number, fields in value.items()}
    if name == "deleted":
        return dict.fromkeys(value, True)
    if name != "filters":
        raise ValueError(f"{name[:40]!r} is none of {', '.join(DESCRIBED)}")
    return {column: _filter(kept) for column, kept in value.items()}


def check(values: Mapping[str, Any], particles: pd.DataFrame, *, top: int) -> None:
    """Refuse values of a file that contradict each other; `top` is the highest number that a cluster has or had."""
    numbers = {*values["clusters"], *np.unique(values["labels"]).tolist()} - {NONE}
    if not numbers <= set(values["clusters"]) or not all(0 <= number <= top < 2**31 for number in numbers):
        raise ValueError(f"particles are in clusters {str(sorted(numbers))[:80]}, but not all of these are listed, up to {top}")
    for column, kept in values["filters"].items():
        if not (_is_number(particles, column) if is_range(kept) else column in particles):
            raise ValueError(f"it filters by {column[:40]!r}, which the table does not have, or not as numbers")
    selected = values["selected"]
    if selected.dtype != bool or selected.shape != (len(particles),):
        got = f"{selected.dtype} of shape {selected.shape}"
        raise ValueError(f"the selection is {got}, expected {len(particles)} times yes or no")


def _is_number(particles: pd.DataFrame, column: str) -> bool:
    return column in particles and pd.api.types.is_numeric_dtype(particles[column])


def _filter(kept: Any) -> Filter:
    if kept and all(isinstance(one, str) for one in kept):
        return tuple(kept)
    low, high = kept
    return float(low), float(high)
