"""Takes a function that runs long, gives a `Job` with its progress, its result and a way to stop it; a notebook stays free.

Jobs run one after another in one thread beside the notebook's: each uses all cores, so that two at once would be slower
than one after the other, and arrays and open stores need not be sent to another process. Python that is left waits for them.

>>> job = jobs.start("cluster 3", averaging.average, subtomograms, chosen.ids, seed=1)
>>> job
Job('cluster 3', running: search 7 of 33, 52 Å, 00:09 left)
>>> job.stop()
>>> average = job.result()

`Progress` is what an average tells while it is made: to a bar, to a job, or to a function of the user.

>>> averaging.average(subtomograms, seed=1, progress=print)
search 7 of 33, 52 Å, 00:09 left
"""

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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


def progress_after(
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
def reporting(progress: bool | Callable[[Progress], Any], steps: int, name: str) -> Iterator[Callable[[Progress], Any]]:
    """What is to be called with progress: a bar with stage and resolution, the user's own function, or nothing that shows."""
    if not isinstance(progress, bool):
        yield progress
        return
    with tqdm(total=steps, desc=name, unit="iteration", disable=not progress) as bar:

        def tell(now: Progress) -> None:
            bar.set_postfix_str(f"{now.stage}, {now.resolution:.0f} Å", refresh=False)
            bar.update(now.iteration - bar.n)

        yield tell


Result = TypeVar("Result")

_thread = ThreadPoolExecutor(1, thread_name_prefix="tomolab")


class Job(Generic[Result]):
    """Work that waits, runs, or is over; `start` makes one.

    Parameters
    ----------
    name
        For people.
    work
        Called with `progress`, a function that it tells of its progress, and `stop`, a function that it asks whether to stop.
    """

    def __init__(self, name: str, work: Callable[..., Result]) -> None:
        self.name = name
        self.progress: Any = None
        """What the work last told; None before that."""
        self._asked, self._watchers = threading.Event(), list[Callable[[Job], Any]]()
        self._began = self._ended = 0.0
        # The thread may be at work before this one has got the future of it, which tells the state.
        self._known = threading.Event()
        self._future = _thread.submit(self._run, work)
        self._known.set()
        self._future.add_done_callback(lambda _: self._tell())

    def __repr__(self) -> str:
        error = self._future.exception() if self.state == "failed" else None
        about = error or (None if self.over else self.progress)
        return f"Job({self.name!r}, {self.state}{'' if about is None else f': {about}'})"

    @property
    def state(self) -> str:
        """One of "waiting", "running", "stopping", "done", "stopped" and "failed"."""
        if not self.over:
            return "waiting" if not self._future.running() else "stopping" if self._asked.is_set() else "running"
        if not self._future.cancelled() and self._future.exception():
            return "failed"
        return "stopped" if self._asked.is_set() else "done"

    @property
    def over(self) -> bool:
        """Whether it is done, stopped or failed."""
        return self._future.done()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return (self._ended or time.perf_counter()) - self._began if self._began else 0.0

    def stop(self) -> None:
        """Ask it to stop: one that waits never begins; one that runs ends soon, with what it has so far as its result."""
        if self.over:
            return
        self._asked.set()
        if not self._future.cancel():
            self._tell()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result. An interrupt ends the waiting, not the job.

        Parameters
        ----------
        timeout
            Seconds; as long as it takes by default.

        Raises
        ------
        TimeoutError
            If it takes longer.
        RuntimeError
            If the job was stopped before it began.
        Exception
            What the work raised.
        """
        try:
            return self._future.result(timeout)
        except CancelledError:
            raise RuntimeError(f"{self.name} was stopped before it began: there is no result") from None

    def watch(self, watcher: Callable[["Job"], Any]) -> None:
        """Call a function now and, in the thread of the work, whenever there is news."""
        self._watchers.append(watcher)
        watcher(self)

    def _run(self, work: Callable[..., Result]) -> Result:
        self._known.wait()
        self._began = time.perf_counter()
        try:
            return work(progress=self._tell, stop=self._asked.is_set)
        finally:
            self._ended = time.perf_counter()

    def _tell(self, progress: Any = None) -> None:
        self.progress = self.progress if progress is None else progress
        for watcher in tuple(self._watchers):
            try:
                watcher(self)
            except Exception as error:  # noqa: BLE001 - what looks on must not end what it looks at
                self._watchers.remove(watcher)
                warnings.warn(f"{self.name} is no longer watched by {watcher!r}, which failed: {error!r}", stacklevel=2)
        if self.over:
            # There will be no more news; what looked on may go.
            self._watchers.clear()


def start(name: str, work: Callable[..., Result], *arguments: Any, **options: Any) -> Job[Result]:
    """Do work in the background, after what was started before.

    Parameters
    ----------
    name
        For people.
    work
        A function that takes `progress` and `stop`, as `averaging.average`, `classification.classify` and `relion.refine` do.
    arguments, options
        What else it is called with.
    """
    return Job(name, lambda **controls: work(*arguments, **options, **controls))
