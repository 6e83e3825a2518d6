"""Takes the steps of a session, undoes and redoes them; a step stores what it changed, compressed.

All steps together take at most `LIMIT` bytes. Beyond that the oldest can no longer be undone; their descriptions stay.

>>> history = History().add(Step.between("merge 3 and 5", values, {"labels": merged}))
>>> step, history = history.undo()
>>> values |= step.applied(values, forward=False)
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from tomolab.io import safe_load

LIMIT = 2**26
"""Bytes that the steps of a history may take."""
OVERHEAD = 1024
"""Bytes counted for the description of a step and its changes of clusters."""


def counted(number: int, things: str = "particles") -> str:
    """A number of things in words: "1 particle", "1,200 particles"."""
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


@dataclass(frozen=True, eq=False)
class Step:
    """One change: its description, its time (UTC) and the values that it changed.

    `arrays` holds by name the changed rows and the bits that differ there between before and after, compressed; `entries` holds
    by name the entries of a dictionary before the change and those that replaced them.
    """

    what: str
    when: str
    arrays: Mapping[str, bytes]
    entries: Mapping[str, tuple[Mapping[Any, Any], Mapping[Any, Any]]]

    @classmethod
    def between(cls, what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> "Step":
        """The step from some values to others of the same names, shapes and types; empty if they are equal."""
        arrays: dict[str, bytes] = {}
        entries: dict[str, Any] = {}
        for name, new in after.items():
            old = before[name]
            if not isinstance(old, np.ndarray):
                gone = {key: value for key, value in old.items() if key not in new or new[key] != value}
                come = {key: value for key, value in new.items() if key not in old or old[key] != value}
                entries |= {name: (gone, come)} if gone or come else {}
            elif len(rows := np.flatnonzero(old != new).astype(np.int32)):
                # Distances between rows are smaller numbers than the rows.
                arrays[name] = zlib.compress(np.diff(rows, prepend=np.int32(0)).tobytes() + (old ^ new)[rows].tobytes(), 1)
        return cls(what, datetime.now(UTC).isoformat(timespec="seconds"), arrays, entries)

    @property
    def names(self) -> set[str]:
        """Names of the changed values."""
        return {*self.arrays, *self.entries}

    @cached_property
    def size(self) -> int:
        """Bytes, approximately."""
        return OVERHEAD + sum(map(len, self.arrays.values()))

    @cached_property
    def text(self) -> str:
        """The step without its arrays, as JSON; computed once, since every save writes it again."""
        sizes = {name: len(bits) for name, bits in self.arrays.items()}
        return json.dumps({"what": self.what, "when": self.when, "arrays": sizes, "entries": self.entries}, default=asdict)

    def applied(self, values: Mapping[str, Any], *, forward: bool) -> dict[str, Any]:
        """The changed values after the step (forward) or before it.

        Raises
        ------
        ValueError, IndexError
            If it changes rows that do not exist.
        """
        found: dict[str, Any] = {}
        for name, bits in self.arrays.items():
            found[name] = value = values[name].copy()
            size = 4 + value.itemsize
            raw = zlib.decompressobj().decompress(bits, size * len(value) + 1)
            count, rest = divmod(len(raw), size)
            if rest or count > len(value):
                raise ValueError(f"a step changes other {name} than these {len(value)}")
            rows = np.cumsum(np.frombuffer(raw, np.int32, count))
            value[rows] ^= np.frombuffer(raw, value.dtype, count, 4 * count)
        for name, (before, after) in self.entries.items():
            old, new = (before, after) if forward else (after, before)
            found[name] = {key: one for key, one in values[name].items() if key not in old} | dict(new)
        return found


@dataclass(frozen=True)
class History:
    """Steps in `past`, oldest first, and undone steps in `future`, the next to redo last; never changed, but replaced.

    `older` holds what, when and names of steps that can no longer be undone. `size` is the number of bytes of all steps.
    """

    past: Sequence[Step] = ()
    future: Sequence[Step] = ()
    older: Sequence[tuple[str, str, list[str]]] = ()
    size: int = -1

    def __post_init__(self) -> None:
        if self.size < 0:
            object.__setattr__(self, "size", sum(step.size for step in (*self.past, *self.future)))

    def add(self, step: Step) -> "History":
        """The history with a step more, without the undone steps and without the oldest steps beyond the limit."""
        past, older = [*self.past, step], list(self.older)
        size, gone = self.size + step.size - sum(one.size for one in self.future), 0
        while size > LIMIT and gone < len(past) - 1:
            first = past[gone]
            size, gone = size - first.size, gone + 1
            older.append((first.what, first.when, sorted(first.names)))
        return History(past[gone:], (), older, size)

    def undo(self) -> tuple[Step, "History"]:
        """The last step, and the history in which it is undone; IndexError if there is none."""
        if not self.past:
            raise IndexError("there is nothing to undo")
        return self.past[-1], replace(self, past=self.past[:-1], future=[*self.future, self.past[-1]])

    def redo(self) -> tuple[Step, "History"]:
        """The step that was undone last, and the history in which it is done; IndexError if there is none."""
        if not self.future:
            raise IndexError("there is nothing to redo")
        return self.future[-1], replace(self, past=[*self.past, self.future[-1]], future=self.future[:-1])

    def packed(self) -> tuple[dict[str, Any], np.ndarray]:
        """The arguments of `unpacked`: a value for JSON, and all arrays in one, since many would take seconds to write."""
        steps = [*self.past, *self.future]
        bits = np.frombuffer(b"".join(bits for step in steps for bits in step.arrays.values()), np.uint8)
        return {"older": self.older, "done": len(self.past), "steps": [step.text for step in steps]}, bits

    @classmethod
    def unpacked(
        cls, about: Mapping[str, Any], bits: np.ndarray, *, values: Mapping[str, Any], restored: Callable[[str, Any], Any]
    ) -> "History":
        """The history that was packed.

        Parameters
        ----------
        about, bits
            The result of `packed`.
        values
            The values after the last step.
        restored
            Restores the types of the entries of a dictionary after JSON; called with the name of the value and the entries.

        Raises
        ------
        KeyError, ValueError, zlib.error
            If something is missing, or a step does not fit the values.
        """
        safe_load.check_types(dict(about), done=int, steps=list, older=list)
        steps, raw, place = [], bits.tobytes(), 0
        for text in about["steps"]:
            one = safe_load.parse_json(text)
            safe_load.check_types(one, what=str, when=str, arrays=dict, entries=dict)
            arrays = {}
            for name, size in one["arrays"].items():
                arrays[name], place = raw[place : place + size], place + size
            entries = {name: (restored(name, old), restored(name, new)) for name, (old, new) in one["entries"].items()}
            steps.append(Step(one["what"], one["when"], arrays, entries))
        done, older = about["done"], [(str(what), str(when), list(names)) for what, when, names in about["older"]]
        found = cls(steps[:done], steps[done:], older)
        for some, forward in ((found.past, False), (found.future, True)):
            now = dict(values)
            for step in reversed(some):
                now |= step.applied(now, forward=forward)
        return found
