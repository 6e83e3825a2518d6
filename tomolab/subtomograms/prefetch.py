"""Streams: subtomograms on their way, in parts of any length, regrouped and made ahead."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

Part = tuple[Any, pd.DataFrame]
"""Volumes (b, box, box, box), array or tensor, with their particle table of b rows."""


def blocks(parts: Iterable[Part], box: int, *, size: int, rows: list[pd.DataFrame]) -> Iterator[np.ndarray]:
    """Regroup a stream into blocks of volumes, so that every shard is written once.

    Parameters
    ----------
    parts
        The stream.
    box
        Edge in voxels.
    size
        Volumes of a block; the last may have fewer.
    rows
        Takes the tables.

    Raises
    ------
    ValueError
        If a part has another box, other rows than volumes, or values that float16 cannot hold.
    """
    waiting: list[np.ndarray] = []
    for volumes, table in parts:
        data = volumes.detach().cpu().numpy() if isinstance(volumes, torch.Tensor) else np.asarray(volumes)
        if data.shape != (len(table), box, box, box):
            raise ValueError(f"{len(table)} particles need volumes ({len(table)}, {box}, {box}, {box}), got {data.shape}")
        with np.errstate(over="ignore"):
            data = data.astype(np.float16, copy=False)
        wrong = data.size - int(np.count_nonzero(np.isfinite(data)))
        if wrong:
            raise ValueError(f"{wrong} values are not finite or beyond float16 (±65504); subtomograms are stored normalised")
        rows.append(table)
        waiting.append(data)
        if sum(map(len, waiting)) >= size:
            stack = np.concatenate(waiting)
            whole = len(stack) // size * size
            yield from (stack[start : start + size] for start in range(0, whole, size))
            waiting = [stack[whole:].copy()]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


_Item = TypeVar("_Item")


def ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Read or make each item, such as a batch, in a thread of its own while the one before is worked on."""
    rest = iter(items)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(lambda: list(islice(rest, 1)))
        while found := coming.result():
            coming = reader.submit(lambda: list(islice(rest, 1)))
            yield found[0]
