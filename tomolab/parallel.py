"""Workers: one function for many items, here or on the workers of a Dask cluster; results come in the order of the items.

Without a client an item is worked on here when its result is asked for. With a `distributed.Client` so many items are on their
way that no worker waits, and no more: memory is that of a few items and results, however many there are. A worker that dies
costs the time of what it was at, which another one does again. What is sent travels as pickles between the processes of the
user's own cluster, as Dask always has it; no file is ever read or written so.

>>> client = Client(LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None))
>>> for image in each(prepare, images, client=client, shared=(lens,)): ...
"""

import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

LATE = 1.0
"""Seconds between two questions how many workers there are."""
_LOCK = threading.RLock()

Item = TypeVar("Item")
Result = TypeVar("Result")


def active(client: Any = None) -> Any:
    """Where to work: the client that is given, else the one that is active in this process, else None, which is here.

    Parameters
    ----------
    client
        A `distributed.Client`; None for the active one, if there is one; or False to work here in any case. Inside of a task
        on a worker only a client that is given counts: a task that waits for others would keep its own worker from them.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If it is an asynchronous client.
    """
    # Whoever has a client has imported this; nobody else needs it.
    module = sys.modules.get("distributed")
    if client is False or (client is None and module is None):
        return None
    if client is None:
        client = _current(module)
    elif module is None or not isinstance(client, module.Client):
        raise TypeError(f"client is a distributed.Client, None for the active one, or False, got {client!r}")
    if client is not None and client.asynchronous:
        raise ValueError("the client is asynchronous; a Client that waits for its results is needed")
    return client


def _current(module: Any) -> Any:
    with suppress(ValueError):
        module.get_worker()
        return None
    with suppress(ValueError):
        return module.Client.current()
    return None


@dataclass(frozen=True, eq=False)
class Made:
    """A value that every process makes for itself, once, when it is needed there: only how it is made is sent.

    Parameters
    ----------
    make
        Makes it.
    arguments
        Of `make`.
    """

    make: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    @cached_property
    def _value(self) -> Any:
        return self.make(*self.arguments)

    @property
    def here(self) -> Any:
        """The value in this process."""
        with _LOCK:
            return self._value

    def __getstate__(self) -> dict[str, Any]:
        # What one process has made may lie on its GPU.
        return {"make": self.make, "arguments": self.arguments}


def each(
    function: Callable[..., Result],
    items: Iterable[Item],
    *,
    client: Any = None,
    shared: Sequence[Any] = (),
    ahead: int | None = None,
) -> Generator[Result]:
    """Yield ``function(item, *shared)`` of every item, in the order of the items.

    Parameters
    ----------
    function
        Of a module that the workers can import. What it returns depends on nothing but its arguments, so that it may be called
        again where a worker died.
    items
        Any number of them, also without end; drawn when there is room for one more.
    client
        What `active` gave; None works here, and takes an item when the result is asked for.
    shared
        Values that all items need. They are sent once, and kept by every worker until the last result is there. Of a `Made` the
        function gets the value.
    ahead
        Items that have been drawn and whose results have not been taken yet, at the most; by default twice as many as the
        workers have threads, and so more of them when workers come late.

    Raises
    ------
    Exception
        What the function raised, for the first item for which it did; nothing is on its way any more then, nor when the
        generator is closed.
    distributed.KilledWorker
        If an item has killed four workers, one after the other (``distributed.scheduler.allowed-failures``).
    """
    if ahead is not None and ahead < 1:
        raise ValueError(f"at least one item has to be on its way, got ahead={ahead}")
    return _here(function, items, shared) if client is None else _there(client, function, items, shared=shared, ahead=ahead)


def _here(function: Callable[..., Result], items: Iterable[Item], shared: Sequence[Any]) -> Generator[Result]:
    for item in items:
        yield function(item, *_unpacked(shared))


def _unpacked(shared: Iterable[Any]) -> list[Any]:
    return [value.here if isinstance(value, Made) else value for value in shared]


@dataclass(frozen=True)
class _Call:
    """A function and an item, closed to Dask, which would look for more work inside of what it can see."""

    function: Callable[..., Any]
    item: Any

    def __call__(self, *shared: Any) -> Any:
        return self.function(self.item, *_unpacked(shared))


@dataclass(frozen=True)
class _Kept:
    """A shared value, closed in the same way."""

    value: Any

    def __call__(self) -> Any:
        return self.value


def _there(
    client: Any, function: Callable[..., Result], items: Iterable[Item], *, shared: Sequence[Any], ahead: int | None
) -> Generator[Result]:
    name = f"{getattr(function, '__name__', 'call').strip('_')}-{uuid.uuid4().hex}"
    # Shared values are results of tasks, not scattered: then the scheduler knows how to get them back when a worker dies.
    sent = [_submit(client, _Kept(value), key=f"shared-{name}-{i}") for i, value in enumerate(shared)]
    running: deque[Any] = deque()
    rest, room = enumerate(items), _Room(client, ahead)
    # Where the scheduler is in this process, the workers can be reached from it, and nothing needs to go through the scheduler.
    direct = client.cluster is not None or None

    def fill() -> None:
        for number, item in _some(rest, lambda: len(running) < room.size()):
            running.append(_submit(client, _Call(function, item), *sent, key=f"{name}-{number}"))

    try:
        fill()
        while running:
            found = client.gather(running[0], direct=direct)
            running.popleft()
            fill()
            yield found
    finally:
        if client.status == "running":
            client.cancel([*running, *sent])


def _some(items: Iterator[Item], more: Callable[[], bool]) -> Iterator[Item]:
    """Items as long as there are any and more are wanted."""
    while more():
        try:
            yield next(items)
        except StopIteration:
            return


class _Room:
    """How many items may be on their way."""

    def __init__(self, client: Any, ahead: int | None) -> None:
        self.client, self.ahead, self.asked, self.threads = client, ahead, -LATE, 0

    def size(self) -> int:
        if self.ahead is not None:
            return self.ahead
        if time.monotonic() - self.asked >= LATE:
            self.asked, self.threads = time.monotonic(), sum(self.client.nthreads().values())
        return max(2, 2 * self.threads)


def _submit(client: Any, call: Any, *shared: Any, key: str) -> Any:
    # Only for those who have a client.
    import dask

    # An item is data, and it is meant to be sent; Dask would warn of what is over 10 MB.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
        return client.submit(call, *shared, key=key, pure=False)
