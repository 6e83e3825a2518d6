"""Takes subtomograms from several processes, or machines that see one disk, at the same time, and writes one store of them.

Each fills a share of its own, which is a range of whole shards, so that no two ever write the same file. A share counts when
all of it is there; one that was broken off is filled again. While it is filled, a store stands beside its place under a
hidden name.

>>> for share in shared_store.allot("many.zarr", 1_000_000, box=20, voxel_size=20.0, number=8): ...
>>> shared_store.fill(share, store.parts(made.volumes, made.particles))      # in a process of its own
>>> shared_store.finish("many.zarr")
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import particles
from tomolab.io import paths, safe_load
from tomolab.io.paths import atomic
from tomolab.subtomograms import object_storage, store
from tomolab.subtomograms.store import Part

PLAN = "shares.json"


@dataclass(frozen=True)
class Share:
    """Rows `start` to `stop` of the store that will stand at `path`, of boxes of `box` voxels; `done` if they are there."""

    path: Path
    number: int
    start: int
    stop: int
    box: int
    done: bool

    def __len__(self) -> int:
        return self.stop - self.start


def allot(path: str | Path, count: int, *, box: int, voxel_size: float, number: int) -> list[Share]:
    """Begin a store that is filled in shares, or come back to one.

    Parameters
    ----------
    path
        Where it stands at the end; a store that is there stays until then.
    count
        Subtomograms in all.
    box, voxel_size
        Edge in voxels, and Å.
    number
        How many shares are wanted. There are fewer where they would be less than a shard of the store.

    Returns
    -------
    list of Share
        With those that are done already, if the store was begun before.

    Raises
    ------
    ValueError
        If nothing is to be shared, or the store was begun with other numbers.
    OSError
        If the disk has less room than they need.
    """
    if count < 1 or number < 1:
        raise ValueError(f"at least one subtomogram and one share are needed, got {count} and {number}")
    folder = _folder(path)
    shard = store.layout(box)[1]
    shards = -(-count // shard)
    edges = np.linspace(0, shards, min(number, shards) + 1).round().astype(int) * shard
    plan = {"count": count, "box": box, "voxel_size": float(voxel_size), "edges": [*edges[:-1].tolist(), count]}
    with paths.lock(folder):
        if not (folder / PLAN).is_file():
            store.check_room(path, count, box)
            if folder.exists():
                shutil.rmtree(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            store.begin(folder, box, count=count)
            with atomic(folder / PLAN) as temporary:
                temporary.write_text(json.dumps(plan) + "\n")
    begun = _plan(path)
    if begun != plan:
        other = ", ".join(f"{name} {begun.get(name)} and not {plan[name]}" for name in plan if begun.get(name) != plan[name])
        raise ValueError(f"the store in {folder} was begun with {other}; delete the folder to begin anew")
    return _shares(path, plan)


def fill(share: Share, parts: Iterable[Part]) -> None:
    """Fill a share.

    Parameters
    ----------
    share
        From `allot`, in this or another process.
    parts
        Volumes with their rows, as many as the share has; particle ids must be unique over all shares.

    Raises
    ------
    ValueError
        If they are more or fewer, or not what they must be.
    BlockingIOError
        If another process fills this share.
    """
    folder = _folder(share.path)
    _plan(share.path)
    place = folder / f"rows-{share.number}.parquet"
    rows: list[pd.DataFrame] = []
    with paths.lock(folder / f"share-{share.number}"):
        # What is filled again does not count until it is whole again.
        place.unlink(missing_ok=True)
        array = store.growing(folder)
        start = share.start
        for block in store.blocks(parts, share.box, size=store.layout(share.box)[1], rows=rows):
            if start + len(block) > share.stop:
                raise ValueError(f"share {share.number} holds {len(share)} subtomograms, and more came")
            store.put(array, start, block, settle=folder)
            start += len(block)
        if start < share.stop:
            raise ValueError(f"share {share.number} holds {len(share)} subtomograms, and {start - share.start} came")
        with atomic(place) as temporary:
            pd.concat([one for one in rows if len(one)], ignore_index=True).to_parquet(temporary, index=False)


def finish(path: str | Path) -> Path:
    """Put the store into its place, when all shares are filled; one that exists is replaced.

    Parameters
    ----------
    path
        As given to `allot`.

    Raises
    ------
    FileNotFoundError
        If none was begun.
    ValueError
        If shares are missing, or particles have an id that others have too.
    """
    folder, plan = _folder(path), _plan(path)
    missing = [share.number for share in _shares(path, plan) if not share.done]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(plan['edges']) - 1} shares are not filled: {', '.join(map(str, missing[:10]))}"
        )
    with paths.lock(folder):
        places = [folder / f"rows-{number}.parquet" for number in range(len(plan["edges"]) - 1)]
        table = particles.check(pd.concat([safe_load.read_parquet(place) for place in places], ignore_index=True))
        if len(table) != plan["count"]:
            raise ValueError(f"{folder} holds {len(table)} particles, but was begun for {plan['count']}")
        store.finish(folder, table, box=plan["box"], voxel_size=plan["voxel_size"])
        store.tidy(folder)
        for left in (*places, folder / PLAN):
            left.unlink()
        with atomic(path) as temporary:
            os.rename(folder, temporary)
    return Path(path)


def _folder(path: str | Path) -> Path:
    place = object_storage.folder(path)
    return place.with_name(f".{place.name}.shares")


def _plan(path: str | Path) -> dict[str, Any]:
    place = _folder(path) / PLAN
    if not place.is_file():
        raise FileNotFoundError(f"no store was begun in {place.parent}; shared_store.allot begins one")
    return safe_load.read_json(place, "the plan of a store")


def _shares(path: str | Path, plan: dict[str, Any]) -> list[Share]:
    edges, folder = plan["edges"], _folder(path)
    done = [(folder / f"rows-{number}.parquet").is_file() for number in range(len(edges) - 1)]
    return [
        Share(Path(path), number, edges[number], edges[number + 1], plan["box"], done=one) for number, one in enumerate(done)
    ]
