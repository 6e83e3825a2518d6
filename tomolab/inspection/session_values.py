"""The values of a session: descriptions of clusters, and filters of columns with the particles that they keep.

A filter is a range of numbers, ends included, or a list of values as text. Values of a user and of a file pass the same checks.

>>> keeps(table["score"], (0.2, 1.0))
>>> keeps(table["tomogram"], ("TS_01", "TS_03"))
"""

import operator
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from tomolab.inspection.history import History
from tomolab.io import paths, safe_load

NONE = -1
"""Label of particles in no cluster."""
HIGHEST = 2**31 - 1
"""Highest number of a cluster."""
LONGEST = 140
"""Bytes of a name as that of a file (`paths.file_name`), which leaves room for the names of its averages and hidden files."""
DESCRIBED = ("clusters", "filters", "deleted")
"""Values that are dictionaries: clusters by number, filters by column, and deleted averages by name."""
FIELDS = {"name": str, "colour": str, "hidden": bool, "note": str, "accepted": bool}
"""Fields of a `Cluster` with their types."""
Filter: TypeAlias = tuple[float, float] | tuple[str, ...]
"""The lowest and the highest number, or the values that are kept, as text."""


@dataclass(frozen=True)
class Cluster:
    """Description of a cluster; the colour is "#rrggbb", or empty for that of the palette.

    An `accepted` cluster is final: a discovery in all clusters leaves it out. ValueError if a field is not valid (`checked`).
    """

    name: str = ""
    colour: str = ""
    hidden: bool = False
    note: str = ""
    accepted: bool = False

    def __post_init__(self) -> None:
        for field in FIELDS:
            object.__setattr__(self, field, checked(field, getattr(self, field)))


def checked(field: str, value: Any) -> str | bool:
    """The value of a field of a `Cluster` as it is kept; ValueError if there is no such field or it cannot have this value."""
    if field not in FIELDS:
        raise ValueError(f"a cluster has no {str(field)[:40]!r}; it has {', '.join(FIELDS)}")
    if FIELDS[field] is bool:
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{field} of a cluster is True or False, got {value!r:.80}")
        return bool(value)
    if field == "name":
        return checked_name(value, "a cluster")
    if field == "colour" and not (isinstance(value, str) and re.fullmatch("(#[0-9a-fA-F]{6})?", value)):
        raise ValueError(
            f"the colour of a cluster is written like #0072B2, or empty for that of the palette; got {value!r:.80}"
        )
    return checked_text(value, f"the {field} of a cluster")


def checked_name(value: Any, what: str, *, longest: float = LONGEST) -> str:
    """A name as it is kept, with single spaces and without control characters; ValueError if it is too long for a file."""
    text = checked_text(value, f"the name of {what}")
    name = " ".join(re.sub(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]", "", text).split())
    size = len(os.fsencode(paths.file_name(name)))
    if size > longest:
        raise ValueError(
            f"the name of {what} is longer than file names can be: it takes {size} bytes, and {longest:g} leave room for what "
            f"is added; give a shorter one than {name[:40]}…"
        )
    return name


def checked_text(value: Any, what: str) -> str:
    """A text as it is kept; ValueError if it is none, or holds half a character, which no file can."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is a text, got {value!r:.80}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half a character, which cannot be written: {value!r:.80}") from None
    return str(value)


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


def check_filter(particles: pd.DataFrame, column: str, kept: Filter) -> None:
    """Raise ValueError if the table has no such column, or the filter does not fit to it.

    A range fits to a column of numbers, and goes from low to high; of a list of values, the column has at least one.
    """
    numbers = bool(kept) and is_range(kept)
    known = isinstance(column, str) and column in particles
    if not known or (numbers and not pd.api.types.is_numeric_dtype(particles[column])):
        raise ValueError(f"there is no column {'of numbers ' * numbers}called {column!r:.80}")
    if numbers and not operator.le(*kept):
        raise ValueError(f"a range goes from low to high, got {kept[0]:g} to {kept[1]:g}")
    held = set() if numbers else set(as_text(particles[column]).unique())
    if not numbers and not held & set(kept):
        raise ValueError(f"{column} holds none of {list(kept)[:5]}; it holds {', '.join(sorted(held)[:10])}")


def describe(column: str, kept: Filter) -> str:
    """A filter in words."""
    if is_range(kept):
        low, high = kept
        return f"{column} from {low:.4g} to {high:.4g}"
    return f"{column}: {', '.join(map(str, kept[:4]))}" + (f" and {len(kept) - 4} more" if len(kept) > 4 else "")


class Restored:
    """Values of a session from the JSON of a file; `faults` says what was left out because it is not valid.

    Parameters
    ----------
    about
        The JSON object.
    particles
        The particle table of the session.
    labels
        Cluster of each particle (n,); clusters that are not described have no name.
    """

    def __init__(self, about: Mapping[str, Any], particles: pd.DataFrame, labels: np.ndarray) -> None:
        self.particles, self.faults = particles, list[str]()
        self.values = {name: self.entries(name, about.get(name)) for name in DESCRIBED}
        present = {number: Cluster() for number in np.unique(labels[labels != NONE]).tolist()}
        self.values["clusters"] = present | self.values["clusters"]
        self.top = max([NONE, *self.values["clusters"]])
        """The highest number that a cluster has or had."""
        with self._or_fault("top"):
            safe_load.check_types(dict(about), top=int)
            self.top = max(self.top, _number(about["top"], NONE))

    def entries(self, name: str, found: Any, *, whole: bool = False) -> dict[Any, Any]:
        """The valid entries of one of `DESCRIBED`, in which keys of JSON are text and pairs are lists.

        If they must be `whole`, a cluster that is not valid is an error.
        """
        kept: dict[Any, Any] = {}
        with nullcontext() if whole else self._or_fault(name):
            if name not in DESCRIBED or not isinstance(found, Mapping):
                raise ValueError(f"expected entries of {', '.join(DESCRIBED)}, got {found!r:.80}")
            for key, value in found.items():
                with nullcontext() if whole and name == "clusters" else self._or_fault(f"{name}: {key[:40]}"):
                    kept |= self._entry(name, key, value, kept)
        return kept

    def selected(self, found: Any) -> np.ndarray:
        """Whether each particle is selected, (n,); none if the array is not valid."""
        size = len(self.particles)
        if not isinstance(found, np.ndarray) or found.dtype != bool or found.shape != (size,):
            self.faults.append(f"selected: expected {size} times True or False, got {found!r:.80}")
            return np.zeros(size, dtype=bool)
        return found

    def origin(self, found: Any) -> str:
        """The hash of ids and first labels; empty if it is not valid."""
        with self._or_fault("origin"):
            return str(checked_text(found, "the hash of the first labels"))
        return ""

    def history(self, about: Any, bits: Any, values: Mapping[str, Any]) -> History:
        """The steps, or none if they do not fit to the values."""
        with self._or_fault("the steps, which cannot be undone"):
            # A label of a cluster that is left out would have no cluster.
            return History.unpacked(about, bits, values=values, restored=partial(self.entries, whole=True))
        return History()

    def _entry(self, name: str, key: str, value: Any, kept: Mapping[Any, Any]) -> dict[Any, Any]:
        if name == "deleted":
            return {checked_text(key, "the name of an average"): True}
        if name == "filters":
            try:
                check_filter(self.particles, key, _filter(value))
            except ValueError as error:
                raise ValueError(f"it filters by {key[:40]!r}, which the table does not have, or not so: {error}") from error
            return {key: _filter(value)}
        if not isinstance(value, Mapping):
            raise ValueError(f"a cluster is described by its fields, got {value!r:.80}")
        good: dict[str, Any] = {}
        for field, one in value.items():
            with self._or_fault(f"{name}: {key[:40]}"):
                good[field] = checked(field, one)
        if good.get("name") in {one.name for one in kept.values()}:
            good["name"] = ""
        return {_number(key, 0): Cluster(**good)}

    @contextmanager
    def _or_fault(self, what: str) -> Iterator[None]:
        """Note an error of the block as a fault."""
        try:
            yield
        except safe_load.ERRORS as error:
            self.faults.append(f"{what}: {error}")


def _number(text: Any, lowest: int) -> int:
    number = int(text)
    if not lowest <= number <= HIGHEST:
        raise ValueError(f"the number of a cluster is {lowest} to {HIGHEST:,}, got {number}")
    return number


def _filter(kept: Any) -> Filter:
    if kept and all(isinstance(one, str) for one in kept):
        return tuple(kept)
    low, high = kept
    return float(low), float(high)
