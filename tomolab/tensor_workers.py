"""Crews: who works on tensors: this process where they are, or the workers of a Dask cluster, each on its own device.

>>> for found in Crew(client, "cuda").each(score, jobs, home=noise.device): ...
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tomolab import devices, parallel


@dataclass(frozen=True)
class Crew:
    """Who works.

    Parameters
    ----------
    client
        What `parallel.active` gave; None is this process.
    device
        Where workers compute, as of `devices.pick`.
    """

    client: Any = None
    device: str | torch.device | None = None

    def each(self, function: Callable[[Any], Any], jobs: Iterable[Any], *, home: torch.device) -> Generator[Any]:
        """Yield ``function(job)`` of every job, in their order, with all tensors on the device `home`.

        Parameters
        ----------
        function
            As of `parallel.each`.
        jobs
            Tensors, or dictionaries or dataclasses that hold some; so is what the function returns.
        home
            Where the jobs are.
        """
        if self.client is None:
            yield from parallel.each(function, jobs)
            return
        packed = (carried(job, torch.device("cpu")) for job in jobs)
        for found in parallel.each(_work, packed, client=self.client, shared=(function, self.device)):
            yield carried(found, home)


def carried(value: Any, device: torch.device) -> Any:
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
        return {name: carried(one, device) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: carried(getattr(value, one.name), device) for one in fields(value)})
    return value


def _work(job: Any, function: Callable[[Any], Any], device: str | torch.device | None) -> Any:
    return carried(function(carried(job, devices.pick(device))), torch.device("cpu"))
