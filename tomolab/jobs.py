"""Jobs: long work in the background, so that a notebook stays free; its progress, a way to stop it, and its result.

Jobs run one after another in one thread beside the notebook's: each uses all cores, so that two at once would be slower
than one after the other, and arrays and open stores need not be sent to another process. Python that is left waits for them.

>>> job = jobs.start("cluster 3", averaging.average, subtomograms, chosen.ids, seed=1)
>>> job
Job('cluster 3', running: search 7 of 33, 52 Å, 00:09 left)
>>> job.stop()
>>> average = job.result()
"""

import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

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
        A function that takes `progress` and `stop`, as `averaging.average`, `classification.sort` and `relion.refine` do.
    arguments, options
        What else it is called with.
    """
    return Job(name, lambda **controls: work(*arguments, **options, **controls))
