"""Histories: steps that can be undone and done again, without limit, each as small as what it changed.

A step of a million particles that changes ten of them keeps ten.

>>> history = History()
>>> history.add(Step.between("merge 3 and 5", values, {"labels": merged}))
>>> values |= history.undo().applied(values, forward=False)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Patch:
    """Change of an array (n,): in `rows`, from `before` to `after`."""

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def applied(self, array: np.ndarray, *, forward: bool) -> np.ndarray:
        """The array with the change made, or taken back; it is copied."""
        out = array.copy()
        out[self.rows] = self.after if forward else self.before
        return out


@dataclass(frozen=True, eq=False)
class Entries:
    """Change of a dictionary: the entries that were there before, and those that took their place."""

    before: Mapping[Any, Any]
    after: Mapping[Any, Any]

    def applied(self, value: Mapping[Any, Any], *, forward: bool) -> dict[Any, Any]:
        """A dictionary with the change made, or taken back."""
        old, new = (self.before, self.after) if forward else (self.after, self.before)
        return {key: one for key, one in value.items() if key not in old} | dict(new)


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
    rows = np.flatnonzero(before != after)
    return Patch(rows.astype(np.int32), before[rows], after[rows]) if len(rows) else None


@dataclass(frozen=True)
class Step:
    """Something that was done: in words, when (UTC), and what it changed, by the name of the value."""

    what: str
    when: str
    changes: Mapping[str, Patch | Entries]

    @classmethod
    def between(cls, what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> "Step":
        """The step from some values to others of the same names; without changes if they are alike."""
        found = {name: difference(before[name], value) for name, value in after.items()}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(what, when, {name: change for name, change in found.items() if change is not None})

    def applied(self, values: Mapping[str, Any], *, forward: bool) -> dict[str, Any]:
        """The values that it changed, with the change made or taken back."""
        return {name: change.applied(values[name], forward=forward) for name, change in self.changes.items()}


@dataclass
class History:
    """Steps that were done, oldest first, and those that were undone and can be done again, next one last."""

    past: list[Step] = field(default_factory=list)
    future: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Note a step; what had been undone is gone then."""
        self.past.append(step)
        self.future.clear()

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
        told: dict[str, Any] = {}
        arrays: dict[str, np.ndarray] = {}
        for title, steps in {"past": self.past, "future": self.future}.items():
            told[title] = []
            for number, step in enumerate(steps):
                whole = {name: vars(change) for name, change in step.changes.items() if isinstance(change, Entries)}
                parts = {name: change for name, change in step.changes.items() if isinstance(change, Patch)}
                told[title].append({"what": step.what, "when": step.when, "entries": whole, "patches": list(parts)})
                arrays |= {
                    f"{title}.{number}.{name}.{key}": array for name, one in parts.items() for key, array in vars(one).items()
                }
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

        def step(title: str, number: int, one: Mapping[str, Any]) -> Step:
            changes: dict[str, Patch | Entries] = {
                name: Entries(*(restored(name, change[key]) for key in ("before", "after")))
                for name, change in one["entries"].items()
            }
            for name in one["patches"]:
                changes[name] = Patch(*(arrays[f"{title}.{number}.{name}.{key}"] for key in ("rows", "before", "after")))
            return Step(one["what"], one["when"], changes)

        return cls(*([step(title, number, one) for number, one in enumerate(told[title])] for title in ("past", "future")))
