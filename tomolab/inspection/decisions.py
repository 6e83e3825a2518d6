"""Decisions: what a person says of clusters of particles, and how it is read again from a file that may be damaged.

>>> restored("clusters", {"3": {"name": "ribosomes"}})
{3: Cluster(name='ribosomes', colour='', hidden=False, note='')}
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tomolab.io import safe_load

NONE = -1
"""Cluster of particles that are in none."""


@dataclass(frozen=True)
class Cluster:
    """What is said of a cluster; the colour is "#rrggbb", or empty for that of the palette."""

    name: str = ""
    colour: str = ""
    hidden: bool = False
    note: str = ""


def restored(name: str, value: Mapping[str, Any]) -> dict[Any, Any]:
    """What JSON made text and lists of: of "clusters" or "filters".

    Parameters
    ----------
    name
        Which of them.
    value
        By number or by column, as text.

    Raises
    ------
    ValueError
        If it is neither, a number is none, or something else is said of a cluster.
    """
    if name == "clusters":
        for said in value.values():
            safe_load.typed(asdict(Cluster()) | said, name=str, colour=str, hidden=bool, note=str)
        return {int(number): Cluster(**said) for number, said in value.items()}
    if name != "filters":
        raise ValueError(f"{name[:40]!r} is neither clusters nor filters")
    return {column: (float(low), float(high)) for column, (low, high) in value.items()}


def check(values: Mapping[str, Any], particles: pd.DataFrame, *, top: int) -> None:
    """Refuse what does not belong together.

    Parameters
    ----------
    values
        ``labels`` (n,), ``selected`` (n,), ``clusters`` and ``filters``.
    particles
        Their table of n rows.
    top
        Highest number that a cluster has or had.

    Raises
    ------
    ValueError
        If a particle is in a cluster that is not there, a number is above `top`, a filter is of no column of numbers, or the
        selection is not a yes or no for each particle.
    """
    numbers = {*values["clusters"], *np.unique(values["labels"]).tolist()} - {NONE}
    if not numbers <= set(values["clusters"]) or not all(0 <= number <= top < 2**31 for number in numbers):
        raise ValueError(
            f"particles are in the clusters {str(sorted(numbers))[:80]}, not all of which are told of, up to {top}"
        )
    columns = [name for name in values["filters"] if name in particles and pd.api.types.is_numeric_dtype(particles[name])]
    if len(columns) < len(values["filters"]):
        raise ValueError(f"it filters by {str(list(values['filters']))[:80]}, not all of which are columns of numbers")
    selected = values["selected"]
    if selected.shape != (len(particles),) or selected.dtype != bool:
        raise ValueError(
            f"the selection is {selected.dtype} of shape {selected.shape}, expected {len(particles)} times yes or no"
        )
