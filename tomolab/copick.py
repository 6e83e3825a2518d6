"""copick: picks in the layout of a copick project, for ChimeraX, napari and whatever else reads that.

A project keeps picks as ``ExperimentRuns/RUN/Picks/USER_SESSION_OBJECT.json``: a run is a tomogram, an object a kind of
particle. Locations are Å from the corner of the tomogram; a transformation turns the object into the tomogram, on xyz
vectors (``copick.models.CopickPicksFile`` of copick 1.31).

>>> write(session.table(), "project/overlay", session="first")
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import particles
from tomolab.files import atomic, inside

USER = "tomolab"
COLUMNS = "particles.csv"
"""File in the root of the project with all columns of the particles, since picks have no place for them."""


def write(table: pd.DataFrame, folder: str | Path, *, session: str = "0", objects: str = "cluster_name") -> list[Path]:
    """Write particles into the overlay root of a copick project, a file for each tomogram and kind.

    Picks of the same user, session, tomogram and object are replaced; all else that is there stays.

    Parameters
    ----------
    table
        Particle table; ``instance_id`` of a pick is its particle id, ``score`` that of the table or else 1.
    folder
        The overlay root.
    session
        Of the picks.
    objects
        Column that names the kind of each particle; it must be among the pickable objects of the project to be seen there.

    Returns
    -------
    list
        The files.

    Raises
    ------
    ValueError
        If it is no particle table, there is no such column, a name is empty without the characters that copick refuses, or
        two kinds have the same name then.
    """
    table, folder = particles.check(table), Path(folder)
    if objects not in table:
        raise ValueError(f"there is no column {objects!r} that names the kinds of particles")
    names = {kind: plain(str(kind)) for kind in table[objects].unique()}
    twice = sorted(str(kind) for kind, name in names.items() if list(names.values()).count(name) > 1)
    if twice:
        raise ValueError(f"copick knows no underscores, blanks and marks in names, and {', '.join(twice)} are the same without")
    written = []
    for (tomogram, kind), some in table.groupby(["tomogram", objects], sort=True):
        run, name = plain(str(tomogram), keep="_"), names[kind]
        content = {
            "pickable_object_name": name,
            "user_id": USER,
            "session_id": plain(session),
            "run_name": run,
            "unit": "angstrom",
            "trust_orientation": _turned(some),
            "points": _points(some),
        }
        path = inside(folder, f"ExperimentRuns/{run}/Picks/{USER}_{plain(session)}_{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        written.append(path)
    with atomic(folder / COLUMNS) as temporary:
        table.to_csv(temporary, index=False)
    return written


def plain(name: str, *, keep: str = "") -> str:
    """A name as copick takes it, with hyphens for blanks, underscores and marks of paths; ValueError if nothing is left."""
    found = re.sub(rf"[<>:\"/\\|?*\x00-\x1f\x7f\s{'' if keep else '_'}]", "-", name).strip("-.")
    if not found:
        raise ValueError(f"{name!r} leaves no name for copick")
    return found


def _points(some: pd.DataFrame) -> list[dict[str, Any]]:
    places = particles.positions(some)[:, ::-1]
    transformations = np.tile(np.eye(4), (len(some), 1, 1))
    # Ours turn zyx vectors.
    transformations[:, :3, :3] = particles.matrices(some)[:, ::-1, ::-1]
    scores = some["score"].fillna(0).tolist() if "score" in some else [1.0] * len(some)
    rows = zip(places.tolist(), transformations.tolist(), some["particle_id"].tolist(), scores, strict=True)
    return [
        {"location": dict(zip("xyz", place, strict=True)), "transformation_": turn, "instance_id": number, "score": score}
        for place, turn, number, score in rows
    ]


def _turned(some: pd.DataFrame) -> bool:
    """Whether orientations say anything: not where all particles stand as they were picked."""
    return not np.allclose(particles.matrices(some), np.eye(3), atol=1e-6)
