"""Takes the state of one or more refinements, writes it to one file, and restores it from there.

>>> checkpoint = Checkpoint("average.safetensors", {"seed": 1})
>>> checkpoint.restore(pair)          # continues from the file, if there is one
>>> checkpoint.write(pair)
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tomolab import io
from tomolab.io import checksums, paths, safe_load

WRITE_INTERVAL = 5.0
"""Seconds between two writes."""


class Stateful(Protocol):
    """A refinement or a discovery, whose state is tensors by name."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` needs to go on as if there had been no break."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a `state_dict` of the same work."""


class Checkpoint:
    """A .safetensors file with the state of refinements; without a path nothing is written or restored.

    `about` says what is refined, and how. A file about something else is refused.
    """

    def __init__(self, path: str | Path | None, about: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None and self.path.suffix != ".safetensors":
            raise ValueError(f"a checkpoint is a .safetensors file, got {self.path.name}")
        self.about, self.written = json.dumps(about), -WRITE_INTERVAL

    @property
    def exists(self) -> bool:
        """Whether there is a file to continue from."""
        return self.path is not None and self.path.exists()

    def lock(self) -> AbstractContextManager[object]:
        """Keep other processes from this file as long as the block runs (`paths.lock`), or raise BlockingIOError."""
        return nullcontext() if self.path is None else paths.lock(f"{self.path}.work")

    def restore(self, refinements: Sequence[Stateful]) -> None:
        """Restore refinements from the file, if there is one; ValueError if it is of another call."""
        if self.path is None or not self.exists:
            return
        tensors, metadata = safe_load.read_safetensors(self.path, "the state of refinements")
        about = metadata.get("about")
        if about != self.about:
            raise ValueError(f"{self.path} is of a call begun otherwise: {about}; this one is {self.about}")
        with safe_load.reading(self.path, "the state of refinements"):
            for number, one in enumerate(refinements):
                one.load_state_dict({name[2:]: tensor for name, tensor in tensors.items() if name.startswith(f"{number}.")})

    def write(self, refinements: Sequence[Stateful]) -> None:
        """Write the file, unless it was written a few seconds ago."""
        if self.path is None or time.monotonic() - self.written < WRITE_INTERVAL:
            return
        tensors = {
            f"{number}.{name}": tensor for number, one in enumerate(refinements) for name, tensor in one.state_dict().items()
        }
        with io.atomic(self.path) as temporary:
            temporary.write_bytes(checksums.safetensors_bytes(tensors, {"about": self.about}))
        self.written = time.monotonic()

    def remove(self) -> None:
        """Delete the file, when the work is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
