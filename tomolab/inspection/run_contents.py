"""Takes a run folder at any stage, gives its contents (particles, boxes, session, averages) and the count of each step.

Reading changes no file, with two exceptions: `read_layout` computes a missing layout, and `read_session` renames a session that
does not fit the particles. `write_mask` adds a mask; its columns are saved beside it (`context`).

>>> table = run_contents.read_table("runs/first")
>>> session = run_contents.read_session("runs/first", Session(table))
>>> found = run_contents.read("runs/first")
>>> [(step.title, step.count) for step in found.steps]
[('picked', 412), ('cut out', 400), ('embedded', 400), ('in clusters', 391), ('averaged', 120)]
"""

import contextlib
import hashlib
import itertools
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import io
from tomolab.averaging import half_maps
from tomolab.averaging.half_maps import Average
from tomolab.clusters import layouts
from tomolab.inspection import context, selection
from tomolab.inspection import session as sessions
from tomolab.inspection.selection import Selection
from tomolab.inspection.session import Session
from tomolab.io import paths, safe_load
from tomolab.io.lists import filtering
from tomolab.io.run_folder import AVERAGES as AVERAGES
from tomolab.io.run_folder import BOXES as BOXES
from tomolab.io.run_folder import EMBEDDING as EMBEDDING
from tomolab.io.run_folder import LAYOUT, LAYOUT_OF, MANIFEST, MASKS, Run
from tomolab.io.run_folder import PICKS as PICKS
from tomolab.io.run_folder import SESSION as SESSION
from tomolab.io.run_folder import TABLE as TABLE
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.learning import embedding
from tomolab.learning.embedding import Embedding
from tomolab.subtomograms import dataset, store
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.subtomograms.tomogram_list import ENDINGS
from tomolab.volumes import Volume

RECORD = "record.json"
NOTHING = ("", "none", "random", "reference-free")
"""Values of ``start`` in the record of an average that had no start."""
POINTS = ("particle_id", "x", "y")
"""Columns of a layout."""
VALID: dict[str, Callable[[Any], bool]] = {
    "cluster": lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool)),
    "members": lambda value: value is None or isinstance(value, str),
    "quick": lambda value: value is None or isinstance(value, bool),
}
"""Whether the record of an average can have a value, by the fields that an inspection adds."""
MEMORY = 2**31
"""Bytes of tomograms that stay in memory after they were read."""


@dataclass(frozen=True)
class ParticleCount:
    """Number of particles that reached a step, and a comment."""

    title: str
    count: int
    about: str = ""


@dataclass(frozen=True, eq=False)
class RunContents:
    """Contents of a run folder.

    Parameters
    ----------
    folder
        The run folder.
    stages
        Entries of its manifest, by stage.
    changed
        Files whose hash is no longer the recorded one.
    steps
        Numbers of particles, in the order of the work.
    table
        Particle table of the clusters, or else of the boxes.
    session
        The clusters.
    features, boxes, points, averages, selections
        None or empty where missing.
    faults
        Messages of files that could not be read.
    """

    folder: Path
    stages: Mapping[str, Any]
    changed: list[str]
    steps: list[ParticleCount]
    table: pd.DataFrame | None = None
    session: Session | None = None
    features: Embedding | None = None
    boxes: Subtomograms | None = None
    points: pd.DataFrame | None = None
    averages: Mapping[str, Average] = field(default_factory=dict)
    selections: list[Selection] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_table(folder: Path) -> pd.DataFrame:
    """Read the particle table; FileNotFoundError, naming what writes it, if there is none."""
    if not io.inside(folder, TABLE).is_file():
        raise FileNotFoundError(f"there is no {TABLE} in {folder}: run tomolab import, or the notebook 05_clusters, first")
    return io.read_particles(folder / TABLE)


def read_features(folder: Path) -> Embedding | None:
    """Read the embedding, if there is one."""
    path = paths.recovered(io.inside(folder, EMBEDDING))
    return embedding.load(path) if path.exists() else None


def read_boxes(folder: Path) -> Subtomograms | None:
    """Read the subtomograms, if there are any."""
    path = paths.recovered(io.inside(folder, BOXES))
    return dataset.open(path) if path.exists() else None


def read_session(folder: Path, fresh: Session) -> Session:
    """Read the saved session; return `fresh` if there is none.

    If the saved session has other particles or first clusters than `fresh`, rename its file, warn, and return `fresh`. Of one
    that is not valid in part, a copy stays beside it.
    """
    kept = io.inside(folder, SESSION)
    fresh.take_over(kept)
    if not kept.is_file():
        return fresh
    try:
        saved = sessions.load(kept, fresh.particles)
        saved.origin = saved.origin or fresh.origin
        if saved.origin == fresh.origin:
            if saved.faults:
                shutil.copyfile(kept, _new_session_file(folder))
            return saved
        why = f"{TABLE} is not what it began with"
    except ValueError as error:
        why = str(error)
    aside = kept.rename(_new_session_file(folder))
    fresh.take_over(kept)
    warnings.warn(
        f"the session in {folder} cannot go on: {why}. A new one begins; the old one is saved as {aside.name}", stacklevel=3
    )
    return fresh


def save_session(session: Session, folder: Path, name: str) -> str:
    """Save a session under a name in a run folder, or in a new file, with a warning, if another kernel did; return the name."""
    while True:
        try:
            return session.save(folder / name).name
        except FileExistsError:
            beside = free_session_path(folder)
            session.take_over(beside)
            other = f"another kernel works on {folder} and has saved its session as {name}"
            warnings.warn(f"{other}; this one is saved as {beside.name}", stacklevel=2)
            name = beside.name


def free_session_path(folder: Path) -> Path:
    """The first path ``session-N.npz`` that does not exist."""
    return next(place for n in itertools.count(1) if not (place := folder / f"session-{n}.npz").exists())


def _new_session_file(folder: Path) -> Path:
    """The first path ``session-N.npz``, as an empty file, which no other kernel takes."""
    while True:
        place = free_session_path(folder)
        with contextlib.suppress(FileExistsError):
            place.touch(exist_ok=False)
            return place


def read_layout(folder: Path, found: Embedding | None, *, seed: int) -> pd.DataFrame | None:
    """Read the layout; if it is missing or of another embedding, compute it from this one and save it. None without either.

    ``layout.json`` holds the hashes of the embedding. A layout without it counts as current unless the embedding is newer.
    """
    kept, mark, source = io.inside(folder, LAYOUT), io.inside(folder, LAYOUT_OF), folder / EMBEDDING
    if kept.is_file() and (found is None or _is_layout_of(mark, kept, source)):
        return safe_load.read_csv(kept, POINTS, "a layout")
    if found is None:
        return None
    layout = layouts.flat(found, seed=seed)
    mark.unlink(missing_ok=True)
    with io.atomic(kept) as temporary:
        layout.to_csv(temporary, index=False)
    with io.atomic(mark) as temporary:
        temporary.write_text(json.dumps(_hashes(source)) + "\n")
    return layout


def _is_layout_of(mark: Path, kept: Path, source: Path) -> bool:
    """Whether a layout was computed from an embedding."""
    if mark.is_file():
        return safe_load.read_json(mark) == _hashes(source)
    return kept.stat().st_mtime >= (source / embedding.VECTORS).stat().st_mtime


def _hashes(source: Path) -> dict[str, str]:
    return {name: io.sha256(io.inside(source, name)) for name in (embedding.IDS, embedding.VECTORS)}


class StoredTomograms(Mapping[str, Volume]):
    """Tomograms by name that are read when they are asked for; memory holds the latest ones, up to `MEMORY` bytes.

    Parameters
    ----------
    files
        Their files by name.

    Raises
    ------
    ValueError
        If a file is no tomogram.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files, self._read = dict(files), dict[str, Volume]()
        self.headers: dict[str, Tomogram] = {name: io.open_volume(path) for name, path in self._files.items()}
        """The opened files by name, which say shapes and voxel sizes."""

    def __getitem__(self, name: str) -> Volume:
        volume = self._read.pop(name, None)
        volume = io.read_volume(self._files[name]) if volume is None else volume
        while self._read and sum(one.data.nbytes for one in self._read.values()) + volume.data.nbytes > MEMORY:
            self._read.pop(next(iter(self._read)))
        self._read[name] = volume
        return volume

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read_tomograms(folder: Path, particles: pd.DataFrame) -> StoredTomograms:
    """Find the tomograms of these particles that are in the folder, by name."""
    return StoredTomograms(tomogram_files(folder, particles))


def tomogram_files(folder: Path, particles: pd.DataFrame | None = None) -> dict[str, Path]:
    """Files of tomograms in the folder by name: ``tomograms/NAME.mrc``, or ``tomogram.mrc`` for a single one.

    Other suffixes are accepted (`ENDINGS`). Only the tomograms of the particles, if these are given; otherwise all, and the
    name of ``tomogram.mrc`` is empty.
    """
    single = _tomogram(folder, "tomogram")
    if particles is None:
        if single is not None:
            return {"": single}
        # The first suffix wins: its file comes last and replaces the others.
        here = {path.name.removesuffix(end): path for end in ENDINGS[::-1] for path in folder.glob(f"tomograms/*{end}")}
        return dict(sorted(here.items()))
    names = particles["tomogram"].unique().tolist()
    if len(names) == 1 and single is not None:
        return {names[0]: single}
    found = {name: _tomogram(folder, f"tomograms/{name}") for name in names}
    return {name: path for name, path in found.items() if path is not None}


def read_context(folder: Path, table: pd.DataFrame, points: pd.DataFrame | None, *, tomograms: StoredTomograms) -> pd.DataFrame:
    """Particle table with the columns about the surroundings of each particle (`context.add`) for which there are files."""
    return context.add(table, shapes=tomograms.headers, masks=mask_files(folder, table), points=points, save=True)


def mask_files(folder: Path, particles: pd.DataFrame) -> dict[str, dict[str, Path]]:
    """Files of masks by the name of the mask, then by tomogram; the suffixes are those of tomograms."""
    found: dict[str, dict[str, Path]] = {}
    names = particles["tomogram"].unique().tolist()
    for tomogram in names:
        places = [io.inside(folder, f"{MASKS}/{tomogram}"), *([io.inside(folder, MASKS)] if len(names) == 1 else [])]
        for place in places:
            for path in map_files(place):
                found.setdefault(_stem(path), {}).setdefault(tomogram, path)
    return found


def write_mask(
    folder: str | Path, name: str, mask: np.ndarray | Callable[[Volume], np.ndarray], *, tomogram: str | None = None
) -> list[Path]:
    """Write a mask of the tomograms of a run folder; the next `inspection.open` gives its columns to every particle.

    Parameters
    ----------
    folder
        Run folder.
    name
        Of the mask: letters, digits, underscores.
    mask
        Bool (z, y, x) of a tomogram, or a function that finds it in one, such as `picking.membrane_mask`.
    tomogram
        Its name; by default the only one, or all for a function.

    Raises
    ------
    ValueError
        If the name is not such a word, the tomogram is unknown or not the only one, or the shapes differ.
    """
    if not name.isidentifier():
        raise ValueError(f"the name of a mask is letters, digits and underscores, such as membrane, got {name!r}")
    table = read_table(Path(folder))
    files = tomogram_files(Path(folder), table)
    if tomogram is not None and tomogram not in files:
        raise ValueError(f"there is no tomogram {tomogram!r} in {folder}; there are {', '.join(files) or 'none'}")
    chosen = files if tomogram is None else {tomogram: files[tomogram]}
    if not chosen or (len(chosen) > 1 and not callable(mask)):
        raise ValueError(f"{folder} has {len(files)} tomograms with particles: name one by tomogram=")
    written = []
    for one, path in chosen.items():
        volume = io.read_volume(path)
        found = np.asarray(mask(volume) if callable(mask) else mask)
        if found.shape != volume.shape:
            raise ValueError(f"the mask of {one} has shape {found.shape}, but the tomogram {volume.shape}")
        place = io.inside(Path(folder), f"{MASKS}/{one}/{name}.mrc")
        place.parent.mkdir(parents=True, exist_ok=True)
        io.write_volume(Volume((found > 0.5).astype(np.float32), volume.voxel_size), place)
        # So that the next opening need not read the mask.
        context.add(table, shapes={one: volume}, masks={name: {one: place}}, save=True)
        written.append(place)
    return written


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(end) for end in ENDINGS if path.name.endswith(end))


def map_files(folder: Path) -> list[Path]:
    """Maps and tomograms in a folder, sorted; stores of subtomograms are left out."""
    found = {path for end in ENDINGS for path in folder.glob(f"*{end}") if not (path / "particles.parquet").exists()}
    return sorted(found)


def _tomogram(folder: Path, name: str) -> Path | None:
    """The map of this name, if there is one."""
    candidates = (io.inside(folder, f"{name}{end}", tomogram=True) for end in ENDINGS)
    return next((path for path in candidates if path.exists()), None)


def particle_diameter(particles: pd.DataFrame, cut: Subtomograms | None) -> float:
    """Diameter of a particle in Å, of the table or half of the box; ValueError if there is neither."""
    if "diameter" in particles:
        return float(particles["diameter"].median())
    if cut is None:
        raise ValueError("the diameter of a particle is unknown: give diameter= in Å")
    return cut.box * cut.voxel_size / 2


def read_averages(folder: Path, refused: Callable[[str], Any] = warnings.warn) -> dict[str, Average]:
    """Read the averages, by name, oldest first; `refused` is called with a message for each that cannot be read."""
    found = {}
    paths.recover_all(io.inside(folder, AVERAGES))
    for place in sorted(folder.glob(f"{AVERAGES}/[!.]*/{RECORD}"), key=lambda one: one.lstat().st_mtime):
        try:
            average = half_maps.load(place.parent)
        except (ValueError, OSError) as error:
            refused(f"{error}; this average is left out")
            continue
        wrong = [field for field, valid in VALID.items() if not valid(average.record.get(field))]
        if wrong:
            refused(f"{place}: {', '.join(wrong)} left out, because not valid")
        record = {field: value for field, value in average.record.items() if field not in wrong}
        found[paths.name_of_file(place.parent.name)] = replace(average, record=record)
    return found


def claim(folder: Path, name: str) -> str:
    """Create an empty folder for a name, or where that exists for the first "NAME (2)" that does not; return the name.

    The system lets only one process create a folder, also where it has no locks.
    """
    for title in titles(name):
        with contextlib.suppress(FileExistsError):
            io.inside(folder, paths.file_name(title)).mkdir(parents=True)
            return title
    raise AssertionError("titles do not end")


def titles(name: str) -> Iterator[str]:
    """A name, and then the same with the numbers from 2."""
    return (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))


def read(folder: str | Path, *, verify: bool = True) -> RunContents:
    """Read the contents of a run folder.

    Parameters
    ----------
    folder
        The run folder, at any stage.
    verify
        Compare the recorded files with their hashes, which takes as long as reading them.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If its manifest cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    faults: list[str] = []

    def tried(reader: Callable[[], Any]) -> Any:
        """Result of a reader; if it fails, None, and the message goes to `faults`."""
        try:
            return reader()
        except (ValueError, OSError, KeyError) as error:
            faults.append(str(error))
            return None

    run = Run(folder)
    stages = run.manifest()["stages"]
    boxes, features = tried(lambda: read_boxes(folder)), tried(lambda: read_features(folder))
    table = tried(lambda: read_table(folder)) if (folder / TABLE).is_file() else None
    points = tried(lambda: _layout(folder))
    if (plain := table) is not None:
        wider = tried(lambda: read_context(folder, plain, points, tomograms=read_tomograms(folder, plain)))
        table = plain if wider is None else wider
    session = None if table is None else tried(lambda: _saved_session(folder, table)) or tried(lambda: _first_session(table))
    faults += [] if session is None else [f"{SESSION}: {one}" for one in dict.fromkeys(session.faults)]
    deleted = set() if session is None else set(session.deleted)
    averages = {
        name: one for name, one in (tried(lambda: _averages(folder, faults.append)) or {}).items() if name not in deleted
    }
    listed = tried(lambda: _selections(folder)) or []
    chosen = [one for one in (tried(partial(selection.load, place)) for place in listed) if one is not None]
    picked = tried(lambda: _picked(folder))
    skipped = tried(lambda: store.read_skipped(folder / BOXES)) if boxes is not None else None
    steps = [
        *([] if picked is None else [ParticleCount("picked", picked, f"{PICKS}")]),
        *([] if boxes is None else [ParticleCount("cut out", len(boxes), _cut(picked, boxes, skipped))]),
        *([] if features is None else [ParticleCount("embedded", len(features.ids), _embedded(features))]),
        *([] if session is None else [_clustered(session)]),
        *([] if not chosen else [_selected(chosen)]),
        *([] if not averages else [_averaged(averages)]),
    ]
    return RunContents(
        folder,
        stages,
        run.changed() if verify else [],
        steps,
        table=table if table is not None else None if boxes is None else boxes.particles,
        session=session,
        features=features,
        boxes=boxes,
        points=points,
        averages=averages,
        selections=chosen,
        faults=faults,
    )


@contextlib.contextmanager
def checkpoint(folder: Path | None, name: str, *what: Any) -> Iterator[Path | None]:
    """A file in a run folder for the state of a job; after the block it is removed. None without a folder.

    A job that is done or stopped has its result. Only that of a job that failed or was killed stays, for the same job to
    continue from. `what` tells one job from another, so that none meets the state of another.
    """
    if folder is None:
        yield None
        return
    path = folder / f"{name}-{hashlib.sha256(repr(what).encode()).hexdigest()[:12]}.safetensors"
    yield path
    # An average with symmetry has a second file beside the first.
    for one in folder.glob(f"{path.stem}*.safetensors"):
        one.unlink(missing_ok=True)


def average_start(record: Mapping[str, Any]) -> str:
    """Start of an average by its record; empty if it started from particles in random orientations."""
    start = record.get("start")
    if isinstance(start, Mapping) and "ab initio" in start:
        return ""
    if isinstance(start, Mapping) and isinstance(start.get("average"), Mapping):
        # An average that started from another one has the reference of that one.
        return average_start(start["average"])
    if isinstance(start, Mapping):
        start = ", ".join(f"{key}: {value}" for key, value in start.items() if value and str(value) not in NOTHING)
    if start is not None and start is not False and str(start) not in NOTHING:
        return "a given start" if start is True else str(start)
    parameters = record.get("parameters") or {}
    if parameters.get("given"):
        return "the angles of the particle table"
    return "a map that was given to RELION" if parameters.get("reference") else ""


def average_lineage(record: Mapping[str, Any]) -> str:
    """The averages and the ab-initio structure from which an average without a reference started; empty without valid ones."""
    with contextlib.suppress(TypeError, ValueError, KeyError):
        return _lineage(record)
    return ""


def _lineage(record: Mapping[str, Any]) -> str:
    start = record.get("start")
    if not isinstance(start, Mapping):
        return ""
    limit = f"to {start['resolution']:g} Å" if "resolution" in start else ""
    if isinstance(start.get("ab initio"), Mapping):
        return f"a first structure of {start['ab initio']['particles']:,} particles, ab initio, {limit}"
    if isinstance(start.get("average"), Mapping) and not average_start(record):
        before = _lineage(start["average"])
        return f"an average of {start['average']['particles']:,} particles, {limit}" + f", from {before}" * bool(before)
    return ""


def average_hand(record: Mapping[str, Any]) -> str:
    """Hand of an average by its record, if it was compared with a known map (`handedness.compare_hands`)."""
    hand = record.get("hand")
    if not isinstance(hand, Mapping) or not {"verdict", "resolution", "mirrored"} <= set(hand):
        return ""
    return f"{hand['verdict']} (FSC 0.5 with a known map: {hand['resolution']} Å, with its mirror image: {hand['mirrored']} Å)"


def _saved_session(folder: Path, table: pd.DataFrame) -> Session | None:
    kept = io.inside(folder, SESSION)
    return sessions.load(kept, table) if kept.is_file() else None


def _first_session(table: pd.DataFrame) -> Session | None:
    return Session(table, table.set_index("particle_id")["cluster"]) if "cluster" in table else None


def _averages(folder: Path, refused: Callable[[str], Any]) -> dict[str, Average]:
    single = paths.recovered(io.inside(folder, "average"))
    alone = {"average": half_maps.load(single)} if (single / RECORD).is_file() else {}
    return alone | read_averages(folder, refused)


def _selections(folder: Path) -> list[Path]:
    listed = [*sorted((folder / "selections").glob("*.json")), *sorted(folder.glob("*.json"))]
    places = [io.inside(folder, one.relative_to(folder).as_posix()) for one in listed]
    return [one for one in places if one.is_file() and (one.parent != folder or _is_selection(one))]


def _is_selection(path: Path) -> bool:
    with path.open("rb") as file:
        return path.name != MANIFEST and b'"reason"' in file.read(4096)


def _picked(folder: Path) -> int | None:
    path = io.inside(folder, PICKS)
    return len(filtering.lines_of(path).rows) if path.is_file() else None


def _layout(folder: Path) -> pd.DataFrame | None:
    path = io.inside(folder, LAYOUT)
    return safe_load.read_csv(path, POINTS, "a layout") if path.is_file() else None


def _cut(picked: int | None, boxes: Subtomograms, skipped: pd.DataFrame | None) -> str:
    text = f"boxes of {boxes.box}³ voxels of {boxes.voxel_size:g} Å"
    if skipped is not None and len(skipped):
        reasons = skipped["reason"].value_counts()
        return f"{text}; {len(skipped):,} skipped: " + ", ".join(f"{reason} ({count:,})" for reason, count in reasons.items())
    if picked is not None and picked > len(boxes):
        return f"{text}; {picked - len(boxes):,} have no box, for an unrecorded reason"
    return text


def _embedded(features: Embedding) -> str:
    text = f"{features.vectors.shape[1]} numbers each"
    return f"{text}, by the network {features.network[:16]}" if features.network else text


def _clustered(session: Session) -> ParticleCount:
    counts = session.counts()
    inside = int(counts.sum())
    out = len(session.ids) - inside
    return ParticleCount("in clusters", inside, f"{len(counts)} clusters" + (f"; {out:,} in none" if out else ""))


def _selected(chosen: list[Selection]) -> ParticleCount:
    ids = np.unique(np.concatenate([one.ids for one in chosen]))
    return ParticleCount("selected", len(ids), f"in {len(chosen)} selection{'s' * (len(chosen) > 1)}")


def _averaged(averages: Mapping[str, Average]) -> ParticleCount:
    ids = np.unique(np.concatenate([one.particles["particle_id"].to_numpy() for one in averages.values()]))
    return ParticleCount("averaged", len(ids), f"in {len(averages)} average{'s' * (len(averages) > 1)}")
