"""copick: picks and tomograms in the layout of a copick project, shared with ChimeraX, napari and whatever else reads that.

A project keeps picks as ``ExperimentRuns/RUN/Picks/USER_SESSION_OBJECT.json``: a run is a tomogram, an object a kind of
particle. Locations are Å from the corner of the tomogram, which is our position 0; a transformation turns the object into
the tomogram, on xyz vectors, and its translation (Å) is added to the location (``copick.models.CopickPicksFile`` of
copick 1.31). Tomograms lie beside, as ``VoxelSpacing10.000/KIND.zarr``. A configuration (JSON) names the objects and one
or two roots: a static one, which is read only, and an overlay, whose picks of the same name stand in for it.

>>> write(session.table(), "project/overlay", session="first")
>>> picks = open("project/config.json").particles(tilts=(-60, 60), objects=["ribosome"])
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import particles, paths, records, rotations, star
from tomolab.conventions import ANGLES, POSITION, WEDGE
from tomolab.paths import atomic, inside

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


def read(path: str | Path, *, tomogram: str | None = None) -> pd.DataFrame:
    """Read the picks of one file as particles, without tilts; the object is their ``label``.

    The id is the ``instance_id``, or where that repeats the place in the file, from 0. ``score``, ``copick_user`` and
    ``copick_session`` are read too, and where the id is another, ``copick_instance``.

    Raises
    ------
    ValueError
        If it is no such file, its unit is not Å, or a transformation is no rotation with a shift.
    """
    found = _content(Path(path))
    if "pickable_objects" in found:
        raise ValueError("this is the configuration of a copick project; open it with copick.open")
    if not {"pickable_object_name", "points"} <= set(found):
        raise ValueError(f"picks have a pickable_object_name and points, this file has {', '.join(found) or 'nothing'}")
    if found.get("unit", "angstrom") != "angstrom":
        raise ValueError(f"locations must be in angstrom, got {found['unit']!r}")
    run = tomogram or found.get("run_name")
    if not run:
        raise ValueError("the picks do not name their run; give tomogram=")
    points = found["points"] or []
    try:
        places = np.array([[point["location"][axis] for axis in "zyx"] for point in points], dtype=float).reshape(-1, 3)
        moves = np.array([point.get("transformation_") or np.eye(4) for point in points], dtype=float).reshape(-1, 4, 4)
        numbers = np.array([point.get("instance_id") or 0 for point in points], dtype=np.int64)
        scores = np.array([np.nan if point.get("score") is None else point["score"] for point in points], dtype=float)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"a point has no location with x, y, z, or a transformation that is not 4 x 4 ({error!r})") from error
    if not np.isfinite(moves).all() or not np.allclose(moves[:, 3], [0, 0, 0, 1], atol=1e-6):
        raise ValueError("a transformation must be finite and end with 0, 0, 0, 1")
    unique = len(np.unique(numbers)) == len(numbers)
    out = pd.DataFrame({"particle_id": numbers if unique else np.arange(len(numbers)), "tomogram": str(run)})
    out[POSITION] = places + moves[:, :3, 3][:, ::-1]
    out[ANGLES] = rotations.to_euler(moves[:, :3, :3][:, ::-1, ::-1])
    out["label"], out["score"] = found["pickable_object_name"], scores
    out["copick_user"], out["copick_session"] = str(found.get("user_id", "")), str(found.get("session_id", ""))
    return out if unique else out.assign(copick_instance=numbers)


def open(path: str | Path) -> "Project":  # noqa: A001 - copick.open
    """Open the project of a configuration file.

    Parameters
    ----------
    path
        JSON with ``pickable_objects``, ``overlay_root`` and perhaps ``static_root``: folders of this machine, with or without
        ``local://`` or ``file://`` before them; relative ones count from the folder of the file.

    Raises
    ------
    FileNotFoundError
        If the file or a root is not there.
    ValueError
        If it is no configuration, or a root is not on this machine.
    """
    path = Path(path)
    try:
        found = _content(path)
        objects = found.get("pickable_objects")
        if not isinstance(objects, list) or not all(isinstance(one, dict) and "name" in one for one in objects):
            raise ValueError(
                f"a configuration lists pickable_objects that have names; this has {', '.join(found) or 'nothing'}"
            )
        named = [str(found[name]) for name in ("static_root", "overlay_root") if found.get(name)]
        if not named:
            raise ValueError("the configuration names neither static_root nor overlay_root")
        roots = tuple(_root(name, path.parent) for name in named)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with records.reading(path, "a configuration"):
        return Project(pd.DataFrame(objects), roots)


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


@dataclass(frozen=True)
class Project:
    """A copick project in folders of this machine.

    Attributes
    ----------
    objects
        What can be picked: ``name``, and as far as they are given ``label``, ``radius`` (Å) and the like.
    roots
        Its folders; what lies in a later one goes before what lies in an earlier one.
    """

    objects: pd.DataFrame
    roots: tuple[Path, ...]

    def runs(self) -> list[str]:
        """Names of the runs, in order."""
        return sorted({run.name for run in self._folders()})

    def tomograms(self) -> pd.DataFrame:
        """Tomograms: ``run``, ``voxel_size`` in Å, ``kind`` and ``path`` of the OME-Zarr folder, a row each."""
        rows = {}
        for run in self._folders():
            for folder in sorted(run.glob("VoxelSpacing*")):
                size = pd.to_numeric(folder.name.removeprefix("VoxelSpacing"), errors="coerce")
                for place in sorted(folder.glob("*.zarr")) if np.isfinite(size) else []:
                    if not place.name.startswith(".") and not place.name.endswith("_features.zarr"):
                        rows[run.name, float(size), place.stem] = place
        return pd.DataFrame(
            [(*key, place) for key, place in sorted(rows.items())], columns=["run", "voxel_size", "kind", "path"]
        )

    def picks(self) -> pd.DataFrame:
        """Files of picks: ``run``, ``user``, ``session``, ``object`` and ``path``, a row each.

        Raises
        ------
        ValueError
            If a file is not called USER_SESSION_OBJECT.json.
        """
        rows = {}
        for run in self._folders():
            for place in sorted(run.glob("Picks/*.json")):
                parts = place.stem.split("_")
                if place.name.startswith("."):
                    continue
                if len(parts) != 3 or not all(parts):
                    raise ValueError(f"{place}: picks are called USER_SESSION_OBJECT.json, each part without underscores")
                rows[run.name, *parts] = place
        names = ["run", "user", "session", "object", "path"]
        return pd.DataFrame([(*key, place) for key, place in sorted(rows.items())], columns=names)

    def particles(self, *, tilts: star.Tilts, **chosen: Collection[str]) -> pd.DataFrame:
        """Particle table of the picks, as `read` reads each file.

        Ids are those of the picks where no two are the same, or else the places in the table, from 0.

        Parameters
        ----------
        tilts
            (Lowest, highest) tilt in degrees of all tomograms, or of each by name.
        **chosen
            ``runs``, ``users``, ``sessions`` or ``objects``: names of those that are wanted; all by default.

        Raises
        ------
        ValueError
            If something is chosen that there is not, nothing is left, or a file is not as copick has it.
        """
        files = self.picks()
        for kind, names in chosen.items():
            column = kind.removesuffix("s")
            if column not in ("run", "user", "session", "object") or isinstance(names, str):
                raise ValueError(
                    f"runs, users, sessions and objects can be chosen, each as a list of names; got {kind}={names!r}"
                )
            strange = sorted(set(names) - set(files[column]))
            if strange:
                raise ValueError(
                    f"no picks of the {column} {', '.join(strange)}; there are {', '.join(sorted(set(files[column])))}"
                )
            files = files[files[column].isin(list(names))]
        if files.empty:
            raise ValueError("there are no such picks in this project")
        tables = []
        for run, place in zip(files["run"], files["path"], strict=True):
            try:
                tables.append(read(place, tomogram=run))
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
        out = pd.concat(tables, ignore_index=True)
        if out["particle_id"].duplicated().any():
            out["copick_instance"] = out.get("copick_instance", out["particle_id"]).fillna(out["particle_id"])
            out["particle_id"] = np.arange(len(out))
        out[WEDGE] = star.tilts_of(tilts, out["tomogram"])
        return particles.check(out)

    def _folders(self) -> list[Path]:
        return [
            run
            for root in self.roots
            for run in sorted(root.glob("ExperimentRuns/*"))
            if run.is_dir() and not run.name.startswith(".")
        ]


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        found = json.loads(paths.text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"this is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"copick's files hold an object of JSON, this one a {type(found).__name__}")
    return found


def _root(name: str, beside: Path) -> Path:
    """Folder of a root that stands in a configuration."""
    kind, _, rest = name.rpartition("://")
    if kind not in ("", "local", "file"):
        raise ValueError(f"the root {name} is not on this machine; copy the project, and name the folder of the copy")
    root = beside / rest
    try:
        there = root.is_dir()
    except OSError as error:
        raise ValueError(f"the root {name[:80]!r} is no name of a folder ({error.strerror})") from error
    if not there:
        raise FileNotFoundError(f"there is no folder {root}, which the configuration of the copick project names")
    return root
