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
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import particles, rotations
from tomolab.conventions import ANGLES, POSITION, WEDGE
from tomolab.io import paths, safe_load
from tomolab.io.lists.options import MissingOptionError, ReadOptions
from tomolab.io.lists.tomogram_names import Tilts, tilts_of
from tomolab.io.paths import atomic, inside

USER = "tomolab"
COLUMNS = "particles.csv"
"""File in the root of the project with all columns of the particles, since picks have no place for them."""


def write(table: pd.DataFrame, folder: str | Path, *, session: str = "0", objects: str = "cluster_name") -> list[Path]:
    """Write particles into the overlay root of a copick project, a file for each tomogram and object, and list the files.

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
        Column that names the object of each particle; it must be among the pickable objects of the project to be seen there.

    Raises
    ------
    ValueError
        If it is no particle table, there is no such column, a name is empty without the characters that copick refuses, or
        two objects have the same name then.
    """
    table, folder = particles.check(table), Path(folder)
    if objects not in table:
        raise ValueError(f"there is no column {objects!r} that names the objects")
    names = {one: plain(str(one)) for one in table[objects].unique()}
    twice = sorted(str(one) for one, name in names.items() if list(names.values()).count(name) > 1)
    if twice:
        raise ValueError(f"copick knows no underscores, blanks and marks in names, and {', '.join(twice)} are the same without")
    written = []
    for (tomogram, one), some in table.groupby(["tomogram", objects], sort=True):
        run, name = plain(str(tomogram), keep="_"), names[one]
        picks = {
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
            temporary.write_text(json.dumps(picks, indent=1) + "\n", encoding="utf-8")
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


def read(content: dict[str, Any], options: ReadOptions) -> pd.DataFrame:
    """Make particles, without tilts, of the picks in the JSON of one file; the object is their ``label``.

    The id is the ``instance_id``, or where that repeats the place in the file, from 0; the ``instance_id`` is ``original_id``
    then. ``score``, ``copick_user`` and ``copick_session`` are read too. `options` name the run where the file does not.

    Raises
    ------
    ValueError
        If it is no such file, its unit is not Å, `options` name another run, or a transformation is no rotation with a shift.

    Warns
    -----
    UserWarning
        If the file says that its orientations are not to be used (``trust_orientation``), but has some: they are left out.
    """
    named, given = content.get("run_name"), options.tomogram
    if given is not None and named and str(named) != given:
        raise ValueError(f"tomogram={given!r} was given, but the picks are of the run {str(named)!r}; leave tomogram= out")
    return _table(content, given or named)


def _table(found: dict[str, Any], run: Any) -> pd.DataFrame:
    if "pickable_objects" in found:
        raise ValueError("this is the configuration of a copick project; open it with io.open_copick")
    if not {"pickable_object_name", "points"} <= set(found):
        raise ValueError(f"picks have a pickable_object_name and points, this file has {', '.join(found) or 'nothing'}")
    if found.get("unit", "angstrom") != "angstrom":
        raise ValueError(f"locations must be in angstrom, got {found['unit']!r}")
    if not run:
        raise MissingOptionError("the picks do not name their run; give tomogram=", "tomogram")
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
    turns = rotations.nearest(moves[:, :3, :3], "transformation_")
    if found.get("trust_orientation") is False and not np.allclose(turns, np.eye(3), atol=1e-6):
        name = found["pickable_object_name"]
        warnings.warn(f"{run}, {name}: trust_orientation is false, so the orientations are left out", stacklevel=2)
        turns = np.broadcast_to(np.eye(3), turns.shape)
    out = pd.DataFrame({"particle_id": numbers, "tomogram": str(run)})
    out[POSITION] = places + moves[:, :3, 3][:, ::-1]
    out[ANGLES] = rotations.to_euler(turns[:, ::-1, ::-1])
    out["label"], out["score"] = found["pickable_object_name"], scores
    out["copick_user"], out["copick_session"] = str(found.get("user_id", "")), str(found.get("session_id", ""))
    return out if out["particle_id"].is_unique else particles.renumber(out)


def open(path: str | Path) -> "Project":  # noqa: A001 - copick.open
    """Open the project of a configuration file, JSON with ``pickable_objects``, ``overlay_root`` and perhaps ``static_root``.

    Roots are folders of this machine, with or without ``local://`` or ``file://`` before them; relative ones count from the
    folder of the file.

    Raises
    ------
    FileNotFoundError
        If the file or a root is not there.
    ValueError
        If it is no configuration, or a root is not on this machine.
    """
    path = Path(path)
    try:
        found = content(path)
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
    with safe_load.reading(path, "a configuration"):
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

        A file that is not called USER_SESSION_OBJECT.json is taken for what ``user_id``, ``session_id`` and
        ``pickable_object_name`` in it say, if all three are there and no other file in the folder is the same.

        Raises
        ------
        ValueError
            If a file leads out of the project by a link.

        Warns
        -----
        UserWarning
            If there are such files, and if one is left out. They are named.
        """
        rows: dict[tuple[str, ...], Path] = {}
        inside, left = [], []
        for run in self._folders():
            found = [place for place in sorted(run.glob("Picks/*.json")) if not place.name.startswith(".")]
            root = run.parents[1]
            places = [paths.inside(root, place.relative_to(root).as_posix()) for place in found]
            named = {place: tuple(place.stem.split("_")) for place in places}
            odd = [place for place in places if len(named[place]) != 3 or not all(named[place])]
            here = {(run.name, *named[place]): place for place in places if place not in odd}
            for place in odd:
                key = (run.name, *_names_inside(place))
                if len(key) == 4 and key not in here:
                    here[key] = place
                    inside.append(place)
                else:
                    left.append(place)
            rows |= here
        if inside:
            warnings.warn(
                f"{len(inside)} of {len(rows)} files of picks are not called USER_SESSION_OBJECT.json; user, session and "
                f"object are what stands in them: {_some(inside)}",
                stacklevel=2,
            )
        if left:
            warnings.warn(
                f"left out, as they are not called USER_SESSION_OBJECT.json and do not name all three inside, or the same as "
                f"another file: {len(left)} of {len(rows) + len(left)} files of picks, {_some(left)}",
                stacklevel=2,
            )
        names = ["run", "user", "session", "object", "path"]
        return pd.DataFrame([(*key, place) for key, place in sorted(rows.items())], columns=names)

    def particles(self, *, tilts: Tilts, **chosen: Collection[str]) -> pd.DataFrame:
        """Particle table of the picks, as `read` reads each file.

        Ids are those of the picks where no two are the same, or else the places in the table, from 0; those of the picks are
        ``original_id`` then.

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
        files = _chosen(self.picks(), chosen)
        tables, strange = [], []
        for run, name, place in zip(files["run"], files["object"], files["path"], strict=True):
            try:
                picks = content(place)
                table = _table(picks, run)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
            inside = picks.get("run_name") or run, picks["pickable_object_name"]
            if _letters(*inside) != _letters(run, name):
                strange.append(f"{place} ({inside[0]}, {inside[1]})")
                table["label"] = name
            tables.append(table)
        if strange:
            warnings.warn(
                f"names of folders and files go before what stands inside, as in copick; otherwise say {_some(strange)}",
                stacklevel=2,
            )
        out = pd.concat(tables, ignore_index=True)
        if "original_id" in out or out["particle_id"].duplicated().any():
            old = out.get("original_id", out["particle_id"]).fillna(out["particle_id"]).astype("int64")
            out = particles.renumber(out.assign(original_id=old))
        out[WEDGE] = tilts_of(tilts, out["tomogram"])
        particles.check_apart(out, particles.CLOSE)
        return particles.check(out)

    def _folders(self) -> list[Path]:
        return [
            run
            for root in self.roots
            for run in sorted(root.glob("ExperimentRuns/*"))
            if run.is_dir() and not run.name.startswith(".")
        ]


def content(path: Path) -> dict[str, Any]:
    """JSON object of a file; a ValueError if it holds none."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return safe_load.parse_json(paths.text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"this is not JSON ({error})") from error


def _names_inside(place: Path) -> tuple[str, ...]:
    """User, session and object as they stand in a file of picks; nothing if one of them does not."""
    try:
        found = content(place)
    except (ValueError, FileNotFoundError):
        return ()
    names = tuple(found.get(name) for name in ("user_id", "session_id", "pickable_object_name"))
    named = all(isinstance(one, str | int) and not isinstance(one, bool) and str(one) for one in names)
    return tuple(map(str, names)) if named and "points" in found else ()


def _letters(*names: Any) -> str:
    """What is left of names where some programs write hyphens for blanks and underscores."""
    return " ".join(re.sub(r"[\W_]", "", str(name)) for name in names)


def _chosen(files: pd.DataFrame, chosen: dict[str, Collection[str]]) -> pd.DataFrame:
    for parameter, names in chosen.items():
        column = parameter.removesuffix("s")
        if column not in ("run", "user", "session", "object") or isinstance(names, str):
            raise ValueError(
                f"runs, users, sessions and objects can be chosen, each as a list of names; got {parameter}={names!r}"
            )
        strange = sorted(set(names) - set(files[column]))
        if strange:
            there = ", ".join(sorted(set(files[column])))
            raise ValueError(f"no picks of the {column} {', '.join(strange)}; there are {there}")
        files = files[files[column].isin(list(names))]
    if files.empty:
        raise ValueError("there are no such picks in this project")
    return files


def _some(named: Sequence[object]) -> str:
    return ", ".join(map(str, named[:5])) + (", …" if len(named) > 5 else "")


def _root(name: str, beside: Path) -> Path:
    """Folder of a root that stands in a configuration."""
    protocol, _, rest = name.rpartition("://")
    if protocol not in ("", "local", "file"):
        raise ValueError(f"the root {name} is not on this machine; copy the project, and name the folder of the copy")
    root = beside / rest
    try:
        there = root.is_dir()
    except OSError as error:
        raise ValueError(f"the root {name[:80]!r} is no name of a folder ({error.strerror})") from error
    if not there:
        raise FileNotFoundError(f"there is no folder {root}, which the configuration of the copick project names")
    return root
