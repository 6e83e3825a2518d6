"""The state of two refinements in, one file out, and back: it is always of one moment.

>>> checkpoint = Checkpoint("average.safetensors", {"seed": 1})
>>> checkpoint.restore(pair)          # goes on where the file was written, if there is one
>>> checkpoint.write(pair)
"""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_bytes

from tomolab import io
from tomolab.averaging.refinement import Refinement
from tomolab.io import paths, safe_load

EVERY = 5.0
"""Seconds between two writings."""


class Checkpoint:
    """A file in which refinements are kept; without a path nothing is written and nothing found.

    Parameters
    ----------
    path
        Ends in .safetensors.
    about
        What is refined, and how; a file about something else is refused.

    Raises
    ------
    ValueError
        If the path ends otherwise.
    """

    def __init__(self, path: str | Path | None, about: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None and self.path.suffix != ".safetensors":
            raise ValueError(f"a checkpoint is a .safetensors file, got {self.path.name}")
        self.about, self.written = json.dumps(about), -EVERY

    @property
    def begun(self) -> bool:
        """Whether there is a file to go on from, written after the first iteration or a later one."""
        return self.path is not None and self.path.exists()

    def alone(self) -> AbstractContextManager[object]:
        """Keep other processes from this file as long as the block runs: two would write over each other's state.

        Raises
        ------
        BlockingIOError
            If another one does not come to an end (`paths.lock`).
        """
        return nullcontext() if self.path is None else paths.lock(f"{self.path}.work")

    def restore(self, refinements: Sequence[Refinement]) -> None:
        """Bring refinements to where the file was written, or leave them at their beginning if there is none.

        Raises
        ------
        ValueError
            If the file is about something else.
        """
        if self.path is None or not self.begun:
            return
        tensors, metadata = safe_load.read_safetensors(self.path, "the state of refinements")
        about = metadata.get("about")
        if about != self.about:
            raise ValueError(f"{self.path} is of an average begun otherwise: {about}; this one is {self.about}")
        with safe_load.reading(self.path, "the state of refinements"):
            for number, one in enumerate(refinements):
                one.restore({name[2:]: tensor for name, tensor in tensors.items() if name.startswith(f"{number}.")})

    def write(self, refinements: Sequence[Refinement]) -> None:
        """Write the file, if the last time is some seconds ago."""
        if self.path is None or time.monotonic() - self.written < EVERY:
            return
        tensors = {f"{number}.{name}": tensor for number, one in enumerate(refinements) for name, tensor in one.saved().items()}
        with io.atomic(self.path) as temporary:
            temporary.write_bytes(to_bytes(tensors, metadata={"about": self.about}))
        self.written = time.monotonic()

    def remove(self) -> None:
        """Delete the file: what it was for is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
