"""Additions: subtomograms that are added to a store, which is not written again.

What is added stands behind what there is, and counts from the moment at which the particle table is replaced: a reader sees
all of it or none. Processes that add to one store take turns. One that is killed leaves the store as it was; what it had
written behind the end is written over by the next.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from tomolab import particles
from tomolab.io import locks
from tomolab.io.paths import atomic
from tomolab.subtomograms import object_storage, store
from tomolab.subtomograms.store import Part

PATIENCE = 3600.0
"""Seconds to wait while others add."""
BEFORE = "id_before_joining"
"""Column with the ids of particles that were numbered anew."""


def append(
    path: str | Path,
    parts: Iterable[Part],
    *,
    box: int,
    voxel_size: float,
    total: int | None = None,
    skipped: Sequence[pd.DataFrame] = (),
    renumber: bool = False,
) -> None:
    """Add a stream of parts to a store, all of it or nothing.

    Parameters
    ----------
    path
        Of the store.
    parts
        Any number of parts of any length; particle ids must be unique over all of them, and other than those in the store.
    box, voxel_size
        Edge in voxels, and Å: those of the store.
    total
        How many subtomograms will come, if that is known.
    skipped
        Tables of particles that are not among them, with a column ``reason``; asked for when all parts have come.
    renumber
        Give new ids, that follow the highest in the store, and keep the old ones in the column ``id_before_joining``.

    Raises
    ------
    FileNotFoundError
        If there is no store.
    ValueError
        If it is not a store, has another box or voxel size, or the parts are not what they must be.
    OSError
        If the disk has less room than `total` need.
    BlockingIOError
        If others add for longer than an hour.
    """
    place = object_storage.folder(path)
    with locks.held(place, patience=PATIENCE):
        old, table, size = store.read(place)
        if old.shape[1] != box or abs(size - voxel_size) > 1e-6 * size:
            raise ValueError(
                f"{place} holds boxes of {old.shape[1]}³ voxels of {size:g} Å, not of {box}³ voxels of {voxel_size:g} Å"
            )
        store.check_room(place, total or 0, box)
        store.tidy(place)
        rows = _write(place, old, parts)
        joined = _joined(table, rows, renumber=renumber)
        _skip(place, skipped)
        with atomic(place / store.TABLE) as temporary:
            joined.to_parquet(temporary, index=False)
        zarr.open_group(place, mode="r+").attrs["count"] = len(joined)


def _write(place: Path, old: zarr.Array, parts: Iterable[Part]) -> list[pd.DataFrame]:
    """Write volumes behind the last of the store; their rows. What stood there of an addition that was killed is gone."""
    rows: list[pd.DataFrame] = []
    array = store.growing(place)
    shard = (array.shards or array.chunks)[0]
    # The last shard, where it is not full, is put down anew with the same volumes at the same places, in one step.
    start = old.shape[0] // shard * shard
    tail = np.asarray(old[start:])
    for block in store.blocks(
        chain([(tail, pd.DataFrame(index=range(len(tail))))], parts), old.shape[1], size=shard, rows=rows
    ):
        store.put(array, start, block, settle=place)
        start += len(block)
    array.resize((start, *array.shape[1:]))
    return rows[1:]


def _joined(table: pd.DataFrame, rows: list[pd.DataFrame], *, renumber: bool) -> pd.DataFrame:
    more = [one for one in rows if len(one)]
    if more and renumber:
        added = pd.concat(more, ignore_index=True)
        first = int(table["particle_id"].max()) + 1 if len(table) else 0
        new = np.arange(first, first + len(added))
        more = [added.assign(particle_id=new, **{BEFORE: added["particle_id"]})]
        table = table if BEFORE in table else table.assign(**{BEFORE: table["particle_id"]})
    return particles.check(pd.concat([table, *more], ignore_index=True))


def _skip(place: Path, skipped: Sequence[pd.DataFrame]) -> None:
    """Note what was left out; the same again, after an addition that was killed, is noted once."""
    left = [one for one in skipped if len(one)]
    if left:
        told = pd.concat([store.read_skipped(place), *left], ignore_index=True)
        with atomic(place / store.SKIPPED) as temporary:
            told.drop_duplicates(ignore_index=True).to_parquet(temporary, index=False)
