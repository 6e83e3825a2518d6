"""Takes a function and many items, gives results in the order of the items, computed here or by workers of a Dask cluster.

Without a client an item is worked on here when its result is asked for. With a `distributed.Client` so many items are on their
way that no worker waits, and no more: memory is that of a few items and results, however many there are. A worker that dies
costs the time of what it was at, which another one does again. What is sent travels as pickles between the processes of the
user's own cluster, as Dask always has it; no file is ever read or written so. `Workers` do the same with tensors, each on its
own device, which `pick_device` chooses.

>>> client = Client(LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None))
>>> for image in each(prepare, images, client=client, shared=(lens,)): ...
>>> for found in Workers(client, "cuda").each(score, jobs, home=noise.device): ...
"""

import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The torch device of that name; by default the first GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        If a GPU is asked for and torch sees none.
    """
    chosen = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {str(chosen)!r} was asked for, but torch sees no GPU here; `tomolab doctor` says why, and 'cpu' works"
        )
    return chosen


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware: GPUs since 2020, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    information = Path("/proc/cpuinfo")
    return information.exists() and bool({"amx_bf16", "avx512_bf16"} & set(information.read_text().split()))


def use_bfloat16(device: torch.device, precision: str) -> bool:
    """Whether to compute in bfloat16: as `precision` says, and with "auto" where the device does it fast.

    Raises
    ------
    ValueError
        If `precision` is not "auto", "float32" or "bfloat16".
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f'precision is "auto", "float32" or "bfloat16", got {precision!r}')
    return precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))


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


@dataclass(frozen=True)
class Workers:
    """Who works.

    Parameters
    ----------
    client
        What `active` gave; None is this process.
    device
        Where workers compute, as of `pick_device`.
    """

    client: Any = None
    device: str | torch.device | None = None

    def each(self, function: Callable[[Any], Any], jobs: Iterable[Any], *, home: torch.device) -> Generator[Any]:
        """Yield ``function(job)`` of every job, in their order, with all tensors on the device `home`.

        Parameters
        ----------
        function
            As of `each`.
        jobs
            Tensors, or dictionaries or dataclasses that hold some; so is what the function returns.
        home
            Where the jobs are.
        """
        if self.client is None:
            yield from each(function, jobs)
            return
        packed = (to_device(job, torch.device("cpu")) for job in jobs)
        for found in each(_work, packed, client=self.client, shared=(function, self.device)):
            yield to_device(found, home)


def to_device(value: Any, device: torch.device) -> Any:
    """The same value with its tensors on a device, each with no more memory behind it than it shows.

    Parameters
    ----------
    value
        Tensor, dictionary or dataclass, or anything else, which stays what it is.
    device
        Where to.
    """
    if isinstance(value, Tensor):
        there = value.to(device)
        # A view would be sent with all that it is a view of.
        return there.contiguous() if there.untyped_storage().nbytes() == there.nbytes else there.contiguous().clone()
    if isinstance(value, dict):
        return {name: to_device(one, device) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: to_device(getattr(value, one.name), device) for one in fields(value)})
    return value


def _work(job: Any, function: Callable[[Any], Any], device: str | torch.device | None) -> Any:
    return to_device(function(to_device(job, pick_device(device))), torch.device("cpu"))
