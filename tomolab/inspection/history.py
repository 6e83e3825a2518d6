"""Takes the steps of a session, undoes and redoes them; each step keeps only what it changed.

A step of a million particles that changes ten of them keeps ten. What all steps keep has a limit in bytes, so that hours of
work take no more memory than minutes: beyond it the oldest can no longer be undone, and only what they did is remembered.

>>> history = History()
>>> history.add(Step.between("merge 3 and 5", values, {"labels": merged}))
>>> values |= history.undo().applied(values, forward=False)
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

LIMIT = 2**26
"""Bytes that the steps of a history keep."""
INTEGERS = (np.int8, np.int16, np.int32, np.int64)
PARTS = ("rows", "before", "after")
STEP = 1024
"""Bytes counted for the words of a step, and for what it says of clusters."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Change of an array (n,): in `rows`, from `before` to `after`.

    Rows are numbers (int32) or, where that is smaller, one bit (uint8 of eight) for each row of the array. Values are of the
    smallest type that holds them, truth values one bit each, and only one where they are all the same.
    """

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @classmethod
    def between(cls, before: np.ndarray, after: np.ndarray) -> "Patch | None":
        """What turns an array into another of the same length; None if they are alike."""
        differs = before != after
        rows = np.flatnonzero(differs).astype(np.int32)
        bits = np.packbits(differs)
        held = (_small(values[rows]) for values in (before, after))
        return cls(bits if bits.nbytes < rows.nbytes else rows, *held) if len(rows) else None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.nbytes for part in (self.rows, self.before, self.after))

    def applied(self, array: np.ndarray, *, forward: bool) -> np.ndarray:
        """The array with the change made, or taken back; it is copied."""
        out = array.copy()
        rows = _bits(self.rows, len(array)) if self.rows.dtype == np.uint8 else self.rows
        values = self.after if forward else self.before
        if array.dtype == bool and values.dtype == np.uint8:
            values = _bits(values, int(np.count_nonzero(rows)) if rows.dtype == bool else len(rows))
        out[rows] = values
        return out


def _small(values: np.ndarray) -> np.ndarray:
    """Values in as few bytes as is simple."""
    if (values == values[:1]).all():
        return values[:1].copy()
    if values.dtype == bool:
        return np.packbits(values)
    if values.dtype.kind != "i":
        return values
    low, high = values.min(), values.max()
    return values.astype(next(kind for kind in INTEGERS if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))


def _bits(packed: np.ndarray, count: int) -> np.ndarray:
    return np.unpackbits(packed, count=count).view(bool)


@dataclass(frozen=True, eq=False)
class Entries:
    """Change of a dictionary: the entries that were there before, and those that took their place."""

    before: Mapping[Any, Any]
    after: Mapping[Any, Any]

    def applied(self, value: Mapping[Any, Any], *, forward: bool) -> dict[Any, Any]:
        """A dictionary with the change made, or taken back."""
        old, new = (self.before, self.after) if forward else (self.after, self.before)
        return {key: one for key, one in value.items() if key not in old} | dict(new)


def _kinds(changes: Mapping[str, Patch | Entries]) -> dict[str, list[tuple[str, int]]]:
    """Types and lengths of the arrays of patches, by the name of the value."""
    patches = {name: change for name, change in changes.items() if isinstance(change, Patch)}
    return {name: [(part.dtype.str, len(part)) for part in vars(one).values()] for name, one in patches.items()}


def _views(packed: bytes, kinds: Mapping[str, Any]) -> dict[str, Patch]:
    """The patches of which the arrays were packed."""
    found, place = {}, 0
    for name, parts in kinds.items():
        held = []
        for kind, count in parts:
            held.append(np.frombuffer(packed, kind, count, place))
            place += held[-1].nbytes
        found[name] = Patch(*held)
    return found


def difference(before: Any, after: Any) -> Patch | Entries | None:
    """What turns an array or a dictionary into another; None if they are alike.

    Raises
    ------
    ValueError
        If they are arrays of different length.
    """
    if not isinstance(before, np.ndarray):
        old, new = (
            {key: value for key, value in one.items() if key not in other or other[key] != value}
            for one, other in ((before, after), (after, before))
        )
        return Entries(old, new) if old or new else None
    if before.shape != after.shape:
        raise ValueError(f"an array of {len(before)} cannot become one of {len(after)}")
    return Patch.between(before, after)


@dataclass(frozen=True)
class Step:
    """Something that was done: in words, when (UTC), and what it changed, by the name of the value.

    Arrays of patches are views of `packed`, in their order, so that a file is written of few pieces.
    """

    what: str
    when: str
    changes: Mapping[str, Patch | Entries]
    packed: bytes = b""

    @classmethod
    def between(cls, what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> "Step":
        """The step from some values to others of the same names; without changes if they are alike."""
        found = {name: difference(before[name], value) for name, value in after.items()}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        return cls.of(what, when, {name: change for name, change in found.items() if change is not None})

    @classmethod
    def of(cls, what: str, when: str, changes: Mapping[str, Patch | Entries]) -> "Step":
        """A step with its arrays packed."""
        kinds = _kinds(changes)
        packed = b"".join(vars(changes[name])[part].data for name in kinds for part in PARTS)
        return cls(what, when, {**changes, **_views(packed, kinds)}, packed)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return STEP + len(self.packed)

    @cached_property
    def told(self) -> str:
        """All of it but its arrays, as JSON; made once, however often it is written."""
        whole = {name: vars(change) for name, change in self.changes.items() if isinstance(change, Entries)}
        about = {"what": self.what, "when": self.when, "entries": whole, "patches": _kinds(self.changes)}
        return json.dumps(about, default=asdict)

    def applied(self, values: Mapping[str, Any], *, forward: bool) -> dict[str, Any]:
        """The values that it changed, with the change made or taken back."""
        return {name: change.applied(values[name], forward=forward) for name, change in self.changes.items()}


@dataclass
class History:
    """Steps that were done, oldest first, and those that were undone and can be done again, next one last.

    `older` are steps from before these, which have left their words and the names of what they changed only.
    """

    past: list[Step] = field(default_factory=list)
    future: list[Step] = field(default_factory=list)
    older: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size = sum(step.size for step in (*self.past, *self.future))
        """Bytes that all steps keep."""

    def add(self, step: Step) -> None:
        """Note a step; what had been undone is gone then, and of the oldest what is beyond the limit."""
        self.past.append(step)
        self.size += step.size - sum(gone.size for gone in self.future)
        self.future.clear()
        while self.size > LIMIT and len(self.past) > 1:
            first = self.past.pop(0)
            self.size -= first.size
            self.older.append((first.what, first.when, sorted(first.changes)))

    def undo(self) -> Step:
        """The last step, to be taken back.

        Raises
        ------
        IndexError
            If there is none.
        """
        if not self.past:
            raise IndexError("there is nothing to undo")
        self.future.append(self.past.pop())
        return self.future[-1]

    def redo(self) -> Step:
        """The step that was undone last, to be done again.

        Raises
        ------
        IndexError
            If there is none.
        """
        if not self.future:
            raise IndexError("there is nothing to do again")
        self.past.append(self.future.pop())
        return self.past[-1]

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse steps that could not have been taken, such as those of a damaged file.

        Parameters
        ----------
        values
            As the last step left them.

        Raises
        ------
        ValueError
            If a step has no words, or cannot be undone or done again.
        """
        for steps, forward in ((self.past, False), (self.future, True)):
            now = dict(values)
            for step in reversed(steps):
                if not isinstance(step.what, str) or not isinstance(step.when, str):
                    raise ValueError("a step says neither what it is nor when it was")
                for name, value in step.applied(now, forward=forward).items():
                    kinds = [(getattr(one, "shape", None), getattr(one, "dtype", dict)) for one in (value, now[name])]
                    if kinds[0] != kinds[1]:
                        raise ValueError(f"a step makes {kinds[0]} of {name}, which was {kinds[1]}")
                    now[name] = value

    def packed(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `unpacked` makes it of again: a value for JSON, and arrays by name."""
        told: dict[str, Any] = {"older": self.older}
        arrays: dict[str, np.ndarray] = {}
        for title, steps in {"past": self.past, "future": self.future}.items():
            told[title] = [step.told for step in steps]
            # One array of all: thousands of small ones in a file would take seconds.
            arrays[f"{title}.changes"] = np.frombuffer(b"".join(step.packed for step in steps), np.uint8)
        return told, arrays

    @classmethod
    def unpacked(
        cls,
        told: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        restored: Callable[[str, Any], Any] = lambda _, value: value,
    ) -> "History":
        """The history that was packed.

        Parameters
        ----------
        told, arrays
            What `packed` gave.
        restored
            Gives a value back what JSON took from it, by the name of the value.

        Raises
        ------
        KeyError
            If something is missing.
        """

        def steps(title: str) -> list[Step]:
            found, place = [], 0
            for number, text in enumerate(told[title]):
                one = json.loads(text) if isinstance(text, str) else text
                changes: dict[str, Patch | Entries] = {
                    name: Entries(*(restored(name, change[key]) for key in ("before", "after")))
                    for name, change in one["entries"].items()
                }
                kinds = one["patches"]
                if isinstance(kinds, list):  # as they were written at first
                    held = {name: [arrays[f"{title}.{number}.{name}.{part}"] for part in PARTS] for name in kinds}
                    patches = {name: Patch(*parts) for name, parts in held.items()}
                else:
                    size = sum(np.dtype(kind).itemsize * count for parts in kinds.values() for kind, count in parts)
                    patches = _views(arrays[f"{title}.changes"][place : place + size].tobytes(), kinds)
                    place += size
                found.append(Step.of(one["what"], one["when"], changes | patches))
            return found

        older = [(what, when, list(names)) for what, when, names in told.get("older", [])]
        return cls(steps("past"), steps("future"), older)
