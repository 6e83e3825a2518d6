"""Takes a function and many items, gives results in the order of the items, computed here or by workers of a Dask cluster.

Without a client each item is computed here when its result is asked for. With a `distributed.Client` enough items are with
the workers to keep all of them busy, and no more: memory is that of a few items and results, however many there are. If a
worker dies, another computes its items again. Items travel as pickles between the processes of the user's own cluster, as
Dask always sends them; no file is ever read or written so. `Workers` do the same with tensors, each on its own device, which
`pick_device` chooses.

>>> client = Client(LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None))
>>> for image in each(prepare, images, client=client, shared=(lens,)): ...
>>> for found in Workers(client, "cuda").each(score, jobs, home=noise.device): ...
"""

import os
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The torch device of that name, by default the first GPU, else the CPU; ValueError if torch sees no such GPU.

    On the CPU, torch then uses the cores that other processes leave free (`use_free_cores`).
    """
    chosen = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {str(chosen)!r} was asked for, but torch sees no GPU here; `tomolab doctor` says why, and 'cpu' works"
        )
    if chosen.type == "cpu":
        use_free_cores()
    return chosen


_LOCK = threading.RLock()
LOOK_AGAIN = 30.0
"""Seconds for which a choice of threads holds."""
LOOK_TIME = 0.2
"""Seconds for which the processor is watched to choose the threads."""


@dataclass
class _Threads:
    """Threads of torch: those that it began with, and those that were last set here, and when."""

    most: int
    chosen: int
    looked: float = -LOOK_AGAIN


_threads = _Threads(torch.get_num_threads(), torch.get_num_threads())


def use_free_cores() -> int:
    """Set the threads of torch to the cores that other processes leave free, at least 1, and return them.

    Threads that share a core wait for each other: beside three busy processes on two cores, an average took 3 times as long
    with two threads as with one. Threads that ``OMP_NUM_THREADS`` or ``torch.set_num_threads`` set stay. Results of different
    numbers of threads differ by rounding.
    """
    with _LOCK:
        now = torch.get_num_threads()
        if "OMP_NUM_THREADS" in os.environ or now != _threads.chosen or _threads.most == 1:
            return now
        if time.monotonic() - _threads.looked >= LOOK_AGAIN:
            free = round((os.cpu_count() or 1) - busy_elsewhere())
            _threads.chosen = min(max(free, 1), _threads.most)
            torch.set_num_threads(_threads.chosen)
            _threads.looked = time.monotonic()
        return _threads.chosen


def busy_elsewhere(seconds: float = LOOK_TIME) -> float:
    """Watch for some seconds how many cores of this machine processes other than this one keep busy."""
    own = psutil.Process()

    def used() -> np.ndarray:
        all_cores, this = psutil.cpu_times(), own.cpu_times()
        busy = all_cores.user + all_cores.system + getattr(all_cores, "nice", 0.0)
        return np.array([busy - this.user - this.system, time.monotonic()])

    before = used()
    time.sleep(seconds)
    spent, passed = used() - before
    return max(float(spent / passed), 0.0)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware: GPUs since 2020, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    information = Path("/proc/cpuinfo")
    return information.exists() and bool({"amx_bf16", "avx512_bf16"} & set(information.read_text().split()))


def use_bfloat16(device: torch.device, precision: str) -> bool:
    """Whether to compute in bfloat16: `precision` is "bfloat16", or "auto" and the device does it fast; or it is "float32"."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f'precision is "auto", "float32" or "bfloat16", got {precision!r}')
    return precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))


REFRESH = 1.0
"""Seconds between two questions to the cluster how many threads it has."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def active(client: Any = None) -> Any:
    """The client to work with: the one that is given, else the one that is active in this process; None works here.

    Parameters
    ----------
    client
        A `distributed.Client`; None for the active one, if there is one; or False to work here in any case. Inside a task on
        a worker only a client that is given counts: a task that waits for others would keep its worker from them.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If it is an asynchronous client.
    """
    # If there is a client, its module has been imported.
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
class OncePerProcess:
    """A value that every process computes for itself, once, as ``make(*arguments)``: the value itself is never sent."""

    make: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    @cached_property
    def _value(self) -> Any:
        return self.make(*self.arguments)

    @property
    def value(self) -> Any:
        """The value in this process."""
        with _LOCK:
            return self._value

    def __getstate__(self) -> dict[str, Any]:
        # The value of this process may lie on its GPU.
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
        Of a module that the workers can import. Its result depends on its arguments alone, so that it may be called again
        after a worker died.
    items
        Any number of them, also without end; one is drawn when there is room for it.
    client
        What `active` gave; None works here, and takes an item when its result is asked for.
    shared
        Values that all items need. They are sent once, and every worker keeps them until the last result is there. For a
        `OncePerProcess` the function gets its value.
    ahead
        At most so many items are drawn before their results are taken; by default two for each thread of the workers,
        also of those that come later.

    Raises
    ------
    Exception
        What the function raised, for the first item for which it did. Then, and when the generator is closed, all other
        items are cancelled.
    distributed.KilledWorker
        If an item has killed four workers, one after the other (``distributed.scheduler.allowed-failures``).
    """
    if ahead is not None and ahead < 1:
        raise ValueError(f"ahead must be at least 1, got {ahead}")
    if client is None:
        return (_Call(function, (item,))(*shared) for item in items)
    return _submitted(client, function, items, shared=shared, ahead=ahead)


@dataclass(frozen=True)
class _Call:
    """A call whose first arguments Dask does not see; it would look for more tasks inside of them."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self, *shared: Any) -> Any:
        values = (value.value if isinstance(value, OncePerProcess) else value for value in shared)
        return self.function(*self.arguments, *values)


def _same(value: Any) -> Any:
    return value


def _submitted(
    client: Any, function: Callable[..., Result], items: Iterable[Item], *, shared: Sequence[Any], ahead: int | None
) -> Generator[Result]:
    name = f"{getattr(function, '__name__', 'call').strip('_')}-{uuid.uuid4().hex}"
    # Shared values are results of tasks, not scattered: so the scheduler can recover them when a worker dies.
    sent = [_submit(client, _Call(_same, (value,)), key=f"shared-{name}-{i}") for i, value in enumerate(shared)]
    running: deque[Any] = deque()
    numbered, room = enumerate(items), _room(client, ahead)
    # Where the scheduler is in this process, it can reach the workers, and results need not go through the scheduler.
    direct = client.cluster is not None or None

    def fill() -> None:
        while len(running) < room():
            number, item = next(numbered, (None, None))
            if number is None:
                return
            running.append(_submit(client, _Call(function, (item,)), *sent, key=f"{name}-{number}"))

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


def _room(client: Any, ahead: int | None) -> Callable[[], int]:
    """A function that gives how many items may be with the workers: `ahead`, or two for each of their threads."""
    asked, threads = -REFRESH, 0

    def room() -> int:
        nonlocal asked, threads
        if ahead is not None:
            return ahead
        if time.monotonic() - asked >= REFRESH:
            asked, threads = time.monotonic(), sum(client.nthreads().values())
        return max(2, 2 * threads)

    return room


def _submit(client: Any, call: Any, *shared: Any, key: str) -> Any:
    # Imported only where there is a client.
    import dask

    # Dask would warn of an item of more than 10 MB; it is data, and meant to be sent.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
        return client.submit(call, *shared, key=key, pure=False)


@dataclass(frozen=True)
class Workers:
    """Processes that compute with tensors: those of `client` (None is this process), each on `device` (`pick_device`)."""

    client: Any = None
    device: str | torch.device | None = None

    def each(self, function: Callable[[Any], Any], jobs: Iterable[Any], *, home: torch.device) -> Generator[Any]:
        """Yield ``function(job)`` of every job, in their order, with all tensors on the device `home`, where the jobs are.

        A job, and what the function returns, is a tensor, or a dictionary or dataclass that holds some.
        """
        if self.client is None:
            yield from each(function, jobs)
            return
        packed = (to_device(job, torch.device("cpu")) for job in jobs)
        for found in each(_work, packed, client=self.client, shared=(function, self.device)):
            yield to_device(found, home)


def to_device(value: Any, device: torch.device) -> Any:
    """The same value with the tensors in it on a device; a view becomes a tensor of its own.

    A dictionary or dataclass is searched for tensors; anything else stays what it is.
    """
    if isinstance(value, Tensor):
        there = value.to(device)
        # A view would be sent with all the memory that it is a view of.
        return there.contiguous() if there.untyped_storage().nbytes() == there.nbytes else there.contiguous().clone()
    if isinstance(value, dict):
        return {name: to_device(one, device) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: to_device(getattr(value, one.name), device) for one in fields(value)})
    return value


def _work(job: Any, function: Callable[[Any], Any], device: str | torch.device | None) -> Any:
    return to_device(function(to_device(job, pick_device(device))), torch.device("cpu"))
