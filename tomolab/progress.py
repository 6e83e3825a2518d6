"""Progress: where an average stands, for a bar, a panel or a function of the user.

>>> averaging.average(subtomograms, seed=1, progress=print)
search 7 of 33, 52 Å, 00:09 left
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from tomolab.volumes import Volume


@dataclass(frozen=True)
class Progress:
    """After an iteration: `iteration` of `of`, `resolution` in Å, the present map and `fsc` (of the first half), seconds.

    `fsc` is a table of ``resolution`` in Å and ``fsc``, between odd and even folds of the particles of that half: they share
    their references, so it tells how the work goes on, and not what may be believed. `left` are the seconds that it may
    still take.
    """

    stage: str
    iteration: int
    of: int
    resolution: float
    volume: Volume
    fsc: pd.DataFrame
    seconds: float
    left: float

    def __str__(self) -> str:
        return f"{self.stage} {self.iteration} of {self.of}, {self.resolution:.0f} Å, {tqdm.format_interval(self.left)} left"


def after(
    stage: str,
    iteration: int,
    of: int,
    *,
    density: Tensor,
    resolved: float,
    fsc: Tensor,
    extent: float,
    seconds: float,
    made: int,
) -> Progress:
    """What to tell after an iteration.

    Parameters
    ----------
    stage, iteration, of, seconds
        As in `Progress`.
    density
        The present map, (n, n, n), of any number of voxels.
    resolved
        Cycles per box that are resolved.
    fsc
        Of the shells from one cycle per box.
    extent
        Of the box, in Å.
    made
        Iterations since the clock was started, which are fewer where work goes on from a checkpoint.
    """
    volume = Volume(density.cpu().numpy(), extent / len(density))
    curve = pd.DataFrame({"resolution": extent / np.arange(1, len(fsc) + 1), "fsc": fsc.cpu().numpy()})
    left = seconds / made * (of - iteration)
    return Progress(stage, iteration, of, extent / max(1.0, resolved), volume, curve, seconds, left)


@contextmanager
def told(progress: bool | Callable[[Progress], Any], steps: int, name: str) -> Iterator[Callable[[Progress], Any]]:
    """What is to be called with progress: a bar with stage and resolution, the user's own function, or nothing that shows."""
    if not isinstance(progress, bool):
        yield progress
        return
    with tqdm(total=steps, desc=name, unit="iteration", disable=not progress) as bar:

        def tell(now: Progress) -> None:
            bar.set_postfix_str(f"{now.stage}, {now.resolution:.0f} Å", refresh=False)
            bar.update(now.iteration - bar.n)

        yield tell
