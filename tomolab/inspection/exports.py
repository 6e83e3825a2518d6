"""Exports: the particles of an inspection for other programs, as lists, as a copy of the user's own list, as folders.

Particles leave in the poses of the averages that they are part of, where there are any; what was taken from where is told.

>>> done = exports.write(work, "ribosomes.star", [3])
>>> print(done)
310 particles are in ribosomes.star, in the poses of "ribosomes" (280) and of the particle table (30)
>>> exports.copy(work, "ours.star", "ours_ribosomes.star", [3])
>>> exports.folders(work, "relion_classes", [3, 5], program="RELION")
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tomolab import io
from tomolab.averaging.half_maps import Average
from tomolab.conventions import ANGLES, POSITION
from tomolab.inspection import export_folders
from tomolab.inspection.export_folders import PROGRAMS, Bundle
from tomolab.io.lists import copick, formats, outdated
from tomolab.io.lists.filtering import Copy
from tomolab.subtomograms import to_dynamo

if TYPE_CHECKING:
    from tomolab.inspection.model import Inspection

TABLE = "table"
"""In place of the name of an average, for particles in the poses of the particle table."""
POSES = ("average", TABLE)
COPY = "copy"


@dataclass(frozen=True)
class Kind:
    """What can be exported: what it is called, the suffix of the file (none for folders), and which of its formats."""

    title: str
    suffix: str
    format: str | None = None


KINDS = (
    Kind("RELION 3.1 (.star)", ".star", "relion31"),
    Kind("RELION 4 (.star)", ".star", "relion4"),
    Kind("RELION 5 (.star)", ".star", "relion5"),
    Kind("Warp (.star)", ".star", "warp"),
    Kind("STOPGAP (.star)", ".star", "stopgap"),
    Kind("Dynamo (.tbl)", ".tbl"),
    Kind("AV3 motive list (.em)", ".em"),
    Kind("IMOD model (.mod)", ".mod"),
    Kind("CryoET Data Portal (.ndjson)", ".ndjson"),
    Kind("copick (project folder)", "", "copick"),
    Kind("all columns (.csv)", ".csv"),
    Kind("your own list, these only", "", COPY),
    Kind("RELION, a folder a class", "", "RELION"),
    Kind("Dynamo, a folder a class", "", "Dynamo"),
)
"""What the inspectors offer."""


@dataclass(frozen=True)
class Exported:
    """What was written: where, how many particles, and how many of them in the poses of which average or of the "table"."""

    path: Path
    count: int
    poses: Mapping[str, int] = field(default_factory=dict)
    added: int = 0
    """To the particle ids, for Dynamo, which counts from 1."""
    left_out: tuple[str, ...] = ()
    """Columns that told of the poses before, or of other half sets."""

    def __str__(self) -> str:
        told = f"{self.count:,} particles are in {self.path.name}"
        names = {name: "the particle table" if name == TABLE else f'"{name}"' for name in self.poses}
        if set(self.poses) - {TABLE}:
            told += ", in the poses of " + " and of ".join(f"{names[name]} ({count:,})" for name, count in self.poses.items())
        if len(self.poses.keys() - {TABLE}) > 1:
            told += "; each average has a frame of its own, which the column average tells"
        told += f"; tags are particle_id + {self.added}" if self.added else ""
        return told + (f"; without {', '.join(self.left_out)}, which told of other poses or half sets" if self.left_out else "")


def write(
    work: "Inspection",
    path: str | Path,
    chosen: Iterable[int] | None = None,
    *,
    format: str | None = None,  # noqa: A002 - as in files
    poses: str = "average",
) -> Exported:
    """Write the particles of some clusters, by default of all, as a particle list.

    Parameters
    ----------
    work
        The inspection.
    path
        As of `io.write_particles`; with the format "copick" the overlay root of a project (`copick.write`).
    chosen
        Clusters.
    format
        As in `io.write_particles`, or "copick".
    poses
        "average": positions and angles of the averages (`posed`), whose names stand in the column ``average``; or "table":
        those of the particle table.

    Raises
    ------
    ValueError
        If the list needs a voxel size and there is neither a tomogram nor a box, a cluster is unknown, or `poses` is neither.
    """
    path = Path(path)
    if poses not in POSES:
        raise ValueError(f"poses is one of {', '.join(POSES)}, got {poses!r}")
    averages = work.averages if poses == "average" else {}
    listed = work.session.table(chosen)
    table, used = posed(listed, averages, reach=work.diameter)
    left_out = _left_out(listed, table)
    if format == "copick":
        copick.write(table, path)
        return Exported(path, len(table), used, left_out=left_out)
    added = to_dynamo.tags_from(work.session.ids) if path.suffix == ".tbl" else 0
    io.write_particles(
        table.assign(particle_id=table["particle_id"] + added), path, format=format, **_known(work, path, format)
    )
    return Exported(path, len(table), used, added, left_out)


def copy(
    work: "Inspection", source: str | Path, to: str | Path, *, chosen: Iterable[int] | None = None, classes: bool = False
) -> Copy:
    """Copy the user's own list with the particles of some clusters only, all else as it is (`io.filter_particles`).

    Parameters
    ----------
    work
        The inspection.
    source
        The list from which the particles were read.
    to
        The copy.
    chosen
        Clusters; all by default.
    classes
        Whether the numbers of the clusters take the place of the classes in the list.

    Raises
    ------
    FileNotFoundError, ValueError
        As `io.filter_particles`.
    """
    return io.filter_particles(source, work.session.table(chosen), to, classes="cluster" if classes else None)


def folders(work: "Inspection", folder: str | Path, chosen: Iterable[int] | None = None, *, program: str) -> list[Exported]:
    """Write a folder for each cluster with all that RELION or Dynamo needs (`export_folders.write`); all of them or nothing.

    The average that holds most particles of a cluster is its reference, and the only one whose poses are used, so that all
    of a folder is in one frame. A quick average is taken where there is no other.

    Parameters
    ----------
    work
        The inspection; it has boxes.
    folder
        Of all of them; it must not be there.
    chosen
        Clusters; all with particles by default.
    program
        "RELION" or "Dynamo".

    Raises
    ------
    FileExistsError
        If the folder is there.
    ValueError
        If there are no boxes, or as `export_folders.write`.
    """
    if work.subtomograms is None:
        raise ValueError("there are no boxes to write")
    counts = work.session.counts()
    wanted = counts.index[counts > 0].tolist() if chosen is None else list(chosen)
    sets, told = [], []
    for cluster in wanted:
        table = work.session.table([cluster])
        name, reference = _best(table, work.averages)
        found, used = posed(table, {} if reference is None else {name: reference}, reach=work.diameter)
        about = "" if reference is None else f"Average {name!r}: it is the reference, and {used.get(name, 0)} have its poses."
        left_out = _left_out(table, found)
        about += f"\nLeft out: {', '.join(left_out)}, which told of other poses or half sets." if left_out else ""
        sets.append(Bundle(work.session.title(cluster), found, reference, about))
        told.append((used, left_out))
    places = export_folders.write(sets, work.subtomograms, folder, program=program, diameter=1.2 * work.diameter)
    return [
        Exported(place, len(one.table), used, left_out=gone)
        for place, one, (used, gone) in zip(places, sets, told, strict=True)
    ]


def make(
    work: "Inspection",
    kind: Kind,
    path: str | Path,
    *,
    chosen: Iterable[int] | None = None,
    poses: str = "average",
    source: str = "",
) -> str:
    """Export one of `KINDS`, and say in words what was done.

    Parameters
    ----------
    work
        The inspection.
    kind
        What is wanted.
    path
        File or folder; a missing suffix is added.
    chosen
        Clusters; all by default.
    poses
        As of `write`.
    source
        The user's own list, for a copy of it.

    Raises
    ------
    OSError, ValueError
        As `write`, `copy` and `folders`.
    """
    path, own = Path(path), Path(source).expanduser()
    suffix = own.suffix if kind.format == COPY else kind.suffix
    path = path if path.suffix == suffix else path.with_name(path.name + suffix)
    if kind.format == COPY:
        if not source:
            raise ValueError("say which list it is that the particles were read from")
        done = copy(work, own, path, chosen=chosen)
        other = f"; {done.elsewhere:,} are of other lists" if done.elsewhere else ""
        return f"{done.kept:,} of {done.kept + done.dropped:,} particles of {own.name} are in {path.name}{other}"
    if kind.format in PROGRAMS:
        found = folders(work, path, chosen, program=kind.format)
        many = f"{len(found)} folder{'s' * (len(found) > 1)}"
        return f"{sum(one.count for one in found):,} particles are in {many} in {path.name}; see README.txt there"
    return str(write(work, path, chosen, format=kind.format, poses=poses))


def posed(table: pd.DataFrame, averages: Mapping[str, Average], *, reach: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """A particle table in the poses of averages, and how many particles are in those of which.

    A particle that is in several averages has the pose of the latest; quick ones count only where there is no other.

    Parameters
    ----------
    table
        Particle table.
    averages
        By name, the latest last.
    reach
        Å; one that lies farther from where the table has it, or in another tomogram, is not the same particle, though it
        has the same id.

    Returns
    -------
    table
        With the column ``average`` and, where all of them have one, ``half``, if any is in the pose of an average; then without
        columns that tell of other poses or half sets (`outdated`).
    counts
        By the name of the average; "table" for those that stay as they were. None is 0.
    """
    if not len(table):
        return table, {}
    out = table.reset_index(drop=True)
    index, poses = pd.Index(out["particle_id"]), out[POSITION + ANGLES].to_numpy(dtype=float)
    half = out["half"].to_numpy(dtype=float) if "half" in out else np.full(len(out), np.nan)
    used = np.full(len(out), TABLE, dtype=object)
    for name in sorted(averages, key=lambda name: not averages[name].record.get("quick", False)):
        found = averages[name].particles
        rows = index.get_indexer(found["particle_id"])
        moved = np.linalg.norm(found[POSITION].to_numpy(dtype=float) - out[POSITION].to_numpy(dtype=float)[rows], axis=1)
        same = (rows >= 0) & (moved <= reach) & (found["tomogram"].to_numpy() == out["tomogram"].to_numpy()[rows])
        rows, found = rows[same], found[same]
        poses[rows], used[rows] = found[POSITION + ANGLES].to_numpy(dtype=float), name
        half[rows] = found["half"].to_numpy(dtype=float) if "half" in found else np.nan
    counts = {str(name): int(count) for name, count in pd.Series(used).value_counts().items()}
    if set(counts) <= {TABLE}:
        return table, counts
    out[POSITION + ANGLES] = poses
    gone = outdated.of(out, *outdated.OF_POSE, outdated.HALF)
    out = out.assign(average=used).drop(columns=["half", *gone], errors="ignore")
    return (out if np.isnan(half).any() else out.assign(half=half.astype(int))), counts


def _known(work: "Inspection", path: Path, version: str | None) -> dict[str, Any]:
    """What `io.write_particles` needs to know for a list of this kind, and nothing else."""
    sizes = [one.voxel_size for one in (*work.tomograms.values(), work.subtomograms) if one is not None]
    shapes = {name: volume.shape for name, volume in work.tomograms.items()}
    known = {"voxel_size": sizes[0] if sizes else None, "tomogram_shape": shapes or None}
    return {name: value for name, value in known.items() if name in formats.options(path, version)}


def _left_out(before: pd.DataFrame, after: pd.DataFrame) -> tuple[str, ...]:
    return tuple(name for name in before if name not in after and name != "half")


def _best(table: pd.DataFrame, averages: Mapping[str, Average]) -> tuple[str, Average | None]:
    """The average with most particles of a table, of those alike the latest; a quick one only if there is no other."""
    held = {name: int(table["particle_id"].isin(one.particles["particle_id"]).sum()) for name, one in averages.items()}
    order = {name: (not averages[name].record.get("quick", False), count, n) for n, (name, count) in enumerate(held.items())}
    some = [name for name, count in held.items() if count]
    if not some:
        return "", None
    name = max(some, key=order.__getitem__)
    return name, averages[name]
