"""Takes a function that runs long, gives a `Job` with its progress and result that can be stopped; the notebook stays free.

Jobs run one after another in one thread beside the notebook's. Each uses all cores, so two at once would be slower, and
arrays and open stores need not be sent to another process. Python waits for them before it exits.

>>> job = jobs.start("cluster 3", averaging.average, subtomograms, chosen.ids, seed=1)
>>> job
Job('cluster 3', running: search 7 of 33, 52 Å, 00:09 left)
>>> job.stop()
>>> average = job.result()

A refinement reports its `Progress` to a bar, a job or a function of the user.

>>> averaging.average(subtomograms, seed=1, progress=print)
search 7 of 33, 52 Å, 00:09 left
"""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from tomolab.volumes import Volume


@dataclass(frozen=True)
class Progress:
    """State after an iteration: `iteration` of `of`, `resolution` in Å, the present map and `fsc` of the first half, seconds.

    `fsc` is a table of ``resolution`` in Å and ``fsc`` between odd and even folds of the particles of that half. The folds
    share their references, so it shows progress and does not prove a resolution. `left` estimates the remaining seconds.
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
    """The `Progress` after an iteration.

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
        Iterations since the clock was started; fewer than `iteration` after a checkpoint.
    """
    volume = Volume(density.cpu().numpy(), extent / len(density))
    curve = pd.DataFrame({"resolution": extent / np.arange(1, len(fsc) + 1), "fsc": fsc.cpu().numpy()})
    left = seconds / made * (of - iteration)
    return Progress(stage, iteration, of, extent / max(1.0, resolved), volume, curve, seconds, left)


@contextmanager
def reporting(progress: bool | Callable[[Progress], Any], steps: int, name: str) -> Iterator[Callable[[Progress], Any]]:
    """A function to call with progress: it updates a bar with stage and resolution, or is the user's own, or shows nothing."""
    if not isinstance(progress, bool):
        yield progress
        return
    with tqdm(total=steps, desc=name, unit="iteration", disable=not progress) as bar:

        def show(now: Progress) -> None:
            bar.set_postfix_str(f"{now.stage}, {now.resolution:.0f} Å", refresh=False)
            bar.update(now.iteration - bar.n)

        yield show


Result = TypeVar("Result")

_thread = ThreadPoolExecutor(1, thread_name_prefix="tomolab")


class Job(Generic[Result]):
    """Work in the background, from `start`.

    Parameters
    ----------
    name
        Shown to the user.
    work
        Called with `progress`, a function to call with its progress, and `stop`, a function that returns whether to stop.
    """

    def __init__(self, name: str, work: Callable[..., Result]) -> None:
        self.name = name
        self.progress: Any = None
        """The latest progress; None before the first."""
        self._asked, self._watchers = threading.Event(), list[Callable[[Job], Any]]()
        self._began = self._ended = 0.0
        # The thread may start the work before this one has its future, which holds the state.
        self._known = threading.Event()
        self._future = _thread.submit(self._run, work)
        self._known.set()
        self._future.add_done_callback(lambda _: self._notify())

    def __repr__(self) -> str:
        about = self.error or (None if self.over else self.progress)
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
    def error(self) -> BaseException | None:
        """What the work raised, if it failed."""
        return self._future.exception() if self.state == "failed" else None

    @property
    def over(self) -> bool:
        """Whether it is done, stopped or failed."""
        return self._future.done()

    @property
    def seconds(self) -> float:
        """Seconds that it has run."""
        return (self._ended or time.perf_counter()) - self._began if self._began else 0.0

    def stop(self) -> None:
        """Ask it to stop: a waiting job never begins, a running one ends soon with the result so far.

        It may be called more than once, also by a watcher.
        """
        if self.over or self._asked.is_set():
            return
        self._asked.set()
        if not self._future.cancel():
            self._notify()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result, at most `timeout` seconds. An interrupt ends the waiting, not the job.

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
        """Call a function with this job now and, in the thread of the work, after every change."""
        self._watchers.append(watcher)
        watcher(self)

    def _run(self, work: Callable[..., Result]) -> Result:
        self._known.wait()
        self._began = time.perf_counter()
        try:
            return work(progress=self._notify, stop=self._asked.is_set)
        finally:
            self._ended = time.perf_counter()

    def _notify(self, progress: Any = None) -> None:
        self.progress = self.progress if progress is None else progress
        for watcher in tuple(self._watchers):
            # A watcher that stops the job comes here again, and so does another thread: a watcher may be gone meanwhile.
            if watcher not in self._watchers:
                continue
            try:
                watcher(self)
            except Exception as error:  # noqa: BLE001 - a watcher that fails must not end the work
                with suppress(ValueError):
                    self._watchers.remove(watcher)
                warnings.warn(f"{self.name} is no longer watched by {watcher!r}, which failed: {error!r}", stacklevel=2)
        if self.over:
            # No change follows: the watchers can be freed.
            self._watchers.clear()


def start(name: str, work: Callable[..., Result], *arguments: Any, **options: Any) -> Job[Result]:
    """Run a function in the background, after the jobs that were started before.

    Parameters
    ----------
    name
        Shown to the user.
    work
        A function that takes `progress` and `stop`, as `averaging.average`, `averaging.classify` and `relion.refine` do.
    arguments, options
        Its other arguments.
    """
    return Job(name, lambda **controls: work(*arguments, **options, **controls))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back an interrupt (Ctrl-C, "interrupt the kernel") until the end of the block, for what must not be half done.

    Python interrupts the main thread only; in other threads this does nothing.
    """
    before, came = signal.getsignal(signal.SIGINT), list[int]()
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
