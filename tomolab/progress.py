"""Progress: where an average stands, for a bar, a panel or a function of the user.

>>> averaging.average(subtomograms, seed=1, progress=print)
search 7 of 33, 52 Å, 00:09 left
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from tomolab.volumes import Volume


@dataclass(frozen=True)
class Progress:
    """After an iteration: `iteration` of `of`, `resolution` in Å, the present map (of the first half), seconds.

    `left` are the seconds that it may still take.
    """

    stage: str
    iteration: int
    of: int
    resolution: float
    volume: Volume
    seconds: float
    left: float

    def __str__(self) -> str:
        return f"{self.stage} {self.iteration} of {self.of}, {self.resolution:.0f} Å, {tqdm.format_interval(self.left)} left"


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
