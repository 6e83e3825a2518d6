"""Takes subtomograms and poses, writes a data folder of Dynamo: the particles and their table.

::

    crop.tbl                  table: poses, shifts from the centres of the boxes, tilts, pixel size (`tomolab.io.lists.dynamo`)
    crop.doc                  names of the tomograms, by their numbers; indices_column_20.doc is the same for Dynamo
    particle_00017.em         the particle with tag 17: float32, bright protein

Dynamo's wiki: "Table" and "Data folder" (a particle is found by its tag in the name of its file), "Volume center" (voxel
N/2 + 1 counted from 1, which is ours). Tags are counted from 1.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import io
from tomolab import particles as tables
from tomolab.conventions import POSITION
from tomolab.io.lists import dynamo, outdated
from tomolab.io.volumes import em
from tomolab.subtomograms.dataset import Subtomograms

TABLE = "crop.tbl"
LISTED = ("crop.doc", "indices_column_20.doc")
BATCH = 64
"""Subtomograms in memory at a time."""


def write(subtomograms: Subtomograms, folder: str | Path, *, poses: pd.DataFrame) -> int:
    """Write a data folder of Dynamo; whole or not at all.

    Parameters
    ----------
    subtomograms
        Boxes, bright on dark.
    folder
        The new folder.
    poses
        Table of the particles to write, with their angles and positions. The vector from the centre of its box to a position
        becomes the shift.

    Returns
    -------
    int
        Number added to the particle ids so that tags start at 1; 0 if all are positive.

    Raises
    ------
    FileExistsError
        If the folder exists.
    ValueError
        If an id is unknown, or a tilt axis is not along y.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; name another folder")
    poses = outdated.current(tables.check(poses), "dynamo_")
    ids = poses["particle_id"].to_numpy()
    chosen = subtomograms.choose(ids)
    added = tags_from(ids)
    size = subtomograms.voxel_size
    shifts = tables.positions(poses) - tables.positions(chosen.particles)
    centred = poses.assign(particle_id=ids + added, **chosen.particles[POSITION].reset_index(drop=True))
    text, listed = dynamo.text(centred, voxel_size=size, shifts=shifts)
    with io.atomic(folder) as temporary:
        temporary.mkdir()
        (temporary / TABLE).write_text(text)
        for name in LISTED:
            (temporary / name).write_text(listed)
        for some, volumes in chosen.batches(BATCH):
            for number, volume in zip(some + added, volumes, strict=True):
                (temporary / f"particle_{number:05d}.em").write_bytes(em.content(volume))
    return added


def tags_from(ids: np.ndarray) -> int:
    """Number to add to particle ids so that all are positive, as Dynamo needs."""
    return max(0, 1 - int(np.min(ids, initial=1)))
