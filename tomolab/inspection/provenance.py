"""Accounts: what a run folder holds and how it came about, counted; at any stage, and nothing that is not there.

Nothing is changed by looking, and nothing computed again but hashes.

>>> found = provenance.of("runs/first")
>>> [(step.title, step.count) for step in found.steps]
[('picked', 412), ('cut out', 400), ('embedded', 400), ('in clusters', 391), ('averaged', 120)]
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import io
from tomolab.averaging import half_maps
from tomolab.averaging.half_maps import Average
from tomolab.inspection import run_contents, selection
from tomolab.inspection import session as sessions
from tomolab.inspection.selection import Selection
from tomolab.inspection.session import Session
from tomolab.io import safe_load
from tomolab.io.lists import filtering
from tomolab.io.run_folder import Run
from tomolab.learning.embedding import Embedding
from tomolab.subtomograms import store
from tomolab.subtomograms.dataset import Subtomograms

PICKS = "picks.star"
NOTHING = ("", "none", "random", "reference-free")
"""What a record may say of the start of an average that had none."""


@dataclass(frozen=True)
class Step:
    """How many particles came to a point, and what is to be said of it."""

    title: str
    count: int
    about: str = ""


@dataclass(frozen=True, eq=False)
class Account:
    """What a run folder holds.

    Parameters
    ----------
    folder
        The run folder.
    stages
        Entries of its manifest, by stage.
    changed
        Files that are not what they were when they were recorded.
    steps
        Counts of particles, in the order of the work.
    table
        Particles: of the clusters, or else of the boxes.
    session
        The clusters, with what was decided about them.
    features, boxes, points, averages, selections
        As far as they are there.
    faults
        What could not be read, and why.
    """

    folder: Path
    stages: Mapping[str, Any]
    changed: list[str]
    steps: list[Step]
    table: pd.DataFrame | None = None
    session: Session | None = None
    features: Embedding | None = None
    boxes: Subtomograms | None = None
    points: pd.DataFrame | None = None
    averages: Mapping[str, Average] = field(default_factory=dict)
    selections: list[Selection] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def of(folder: str | Path, *, verify: bool = True) -> Account:
    """Read what a run folder holds.

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

    def tried(read: Callable[[], Any]) -> Any:
        """What can be read; of what cannot, the reason is kept."""
        try:
            return read()
        except (ValueError, OSError, KeyError) as error:
            faults.append(str(error))
            return None

    run = Run(folder)
    stages = run.manifest()["stages"]
    boxes, features = tried(lambda: run_contents.boxes(folder)), tried(lambda: run_contents.features(folder))
    table = tried(lambda: run_contents.table(folder)) if (folder / run_contents.TABLE).is_file() else None
    session = None if table is None else tried(lambda: _left(folder, table)) or tried(lambda: _begun(table))
    made = tried(lambda: _averages(folder)) or {}
    listed = tried(lambda: _selections(folder)) or []
    chosen = [one for one in (tried(partial(selection.load, place)) for place in listed) if one is not None]
    picked = tried(lambda: _picked(folder))
    skipped = tried(lambda: store.read_skipped(folder / run_contents.BOXES)) if boxes is not None else None
    steps = [
        *([] if picked is None else [Step("picked", picked, f"{PICKS}")]),
        *([] if boxes is None else [Step("cut out", len(boxes), _cut(picked, boxes, skipped))]),
        *([] if features is None else [Step("embedded", len(features.ids), _embedded(features))]),
        *([] if session is None else [_clustered(session)]),
        *([] if not chosen else [_selected(chosen)]),
        *([] if not made else [_averaged(made)]),
    ]
    return Account(
        folder,
        stages,
        run.changed() if verify else [],
        steps,
        table=table if table is not None else None if boxes is None else boxes.particles,
        session=session,
        features=features,
        boxes=boxes,
        points=tried(lambda: _points(folder)),
        averages=made,
        selections=chosen,
        faults=faults,
    )


def start(record: Mapping[str, Any]) -> str:
    """What an average was started from, by its record, if that was anything but particles in random orientations."""
    told = record.get("start")
    if isinstance(told, Mapping) and "ab initio" in told:
        return ""
    if isinstance(told, Mapping) and isinstance(told.get("average"), Mapping):
        # An average is as free of references as the one it was started from.
        return start(told["average"])
    if isinstance(told, Mapping):
        told = ", ".join(f"{key}: {value}" for key, value in told.items() if value and str(value) not in NOTHING)
    if told is not None and told is not False and str(told) not in NOTHING:
        return "a given start" if told is True else str(told)
    parameters = record.get("parameters") or {}
    if parameters.get("given"):
        return "the angles of the particle table"
    return "a map that was given to RELION" if parameters.get("reference") else ""


def lineage(record: Mapping[str, Any]) -> str:
    """The road from random orientations to an average that has no reference, where there are stations on it."""
    told = record.get("start")
    if not isinstance(told, Mapping):
        return ""
    share = f"to {told['resolution']:g} Å" if "resolution" in told else ""
    if isinstance(told.get("ab initio"), Mapping):
        return f"a first structure of {told['ab initio']['particles']:,} particles, ab initio, {share}"
    if isinstance(told.get("average"), Mapping) and not start(record):
        before = lineage(told["average"])
        return f"an average of {told['average']['particles']:,} particles, {share}" + f", from {before}" * bool(before)
    return ""


def hand(record: Mapping[str, Any]) -> str:
    """Which hand an average has, by its record, if it was held against a known map (`handedness.judge`)."""
    told = record.get("hand")
    if not isinstance(told, Mapping) or not {"verdict", "resolution", "mirrored"} <= set(told):
        return ""
    return f"{told['verdict']} (FSC 0.5 with a known map: {told['resolution']} Å, with its mirror image: {told['mirrored']} Å)"


def _left(folder: Path, table: pd.DataFrame) -> Session | None:
    """The session that was left here, if there is one."""
    kept = io.inside(folder, run_contents.SESSION)
    return sessions.load(kept, table) if kept.is_file() else None


def _begun(table: pd.DataFrame) -> Session | None:
    """The clusters as the table has them."""
    return Session(table, table.set_index("particle_id")["cluster"]) if "cluster" in table else None


def _averages(folder: Path) -> dict[str, Average]:
    single = io.inside(folder, "average")
    alone = {"average": half_maps.load(single)} if (single / "record.json").is_file() else {}
    return alone | run_contents.made(folder)


def _selections(folder: Path) -> list[Path]:
    listed = [*sorted((folder / "selections").glob("*.json")), *sorted(folder.glob("*.json"))]
    places = [io.inside(folder, one.relative_to(folder).as_posix()) for one in listed]
    return [one for one in places if one.is_file() and (one.parent != folder or _is_selection(one))]


def _is_selection(path: Path) -> bool:
    with path.open("rb") as file:
        return path.name != "manifest.json" and b'"reason"' in file.read(4096)


def _picked(folder: Path) -> int | None:
    path = io.inside(folder, PICKS)
    return len(filtering.cut(path.read_bytes(), path.suffix).rows) if path.is_file() else None


def _points(folder: Path) -> pd.DataFrame | None:
    path = io.inside(folder, run_contents.LAYOUT)
    return safe_load.listing(path, run_contents.POINTS, "a layout") if path.is_file() else None


def _cut(picked: int | None, boxes: Subtomograms, skipped: pd.DataFrame | None) -> str:
    told = f"boxes of {boxes.box}³ voxels of {boxes.voxel_size:g} Å"
    if skipped is not None and len(skipped):
        reasons = skipped["reason"].value_counts()
        return f"{told}; {len(skipped):,} skipped: " + ", ".join(f"{reason} ({count:,})" for reason, count in reasons.items())
    if picked is not None and picked > len(boxes):
        return f"{told}; {picked - len(boxes):,} have no box, and why was not kept"
    return told


def _embedded(features: Embedding) -> str:
    told = f"{features.vectors.shape[1]} numbers each"
    return f"{told}, by the network {features.network[:16]}" if features.network else told


def _clustered(session: Session) -> Step:
    counts = session.counts()
    inside = int(counts.sum())
    out = len(session.ids) - inside
    return Step("in clusters", inside, f"{len(counts)} clusters" + (f"; {out:,} in none" if out else ""))


def _selected(chosen: list[Selection]) -> Step:
    ids = np.unique(np.concatenate([one.ids for one in chosen]))
    return Step("selected", len(ids), f"in {len(chosen)} selection{'s' * (len(chosen) > 1)}")


def _averaged(made: Mapping[str, Average]) -> Step:
    ids = np.unique(np.concatenate([one.particles["particle_id"].to_numpy() for one in made.values()]))
    return Step("averaged", len(ids), f"in {len(made)} average{'s' * (len(made) > 1)}")
