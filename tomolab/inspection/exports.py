"""Takes the particles of an inspection, writes lists, a filtered copy of the user's list, or folders for other programs.

A particle in an average is written in the pose of that average; the message says how many are.

>>> done = exports.export(work, "ribosomes.star", [3])
>>> print(done)
310 particles are in ribosomes.star, in the poses of "ribosomes" (280) and of the particle table (30)
>>> exports.folders(work, "relion_classes", [3, 5], program="RELION")

`folders` writes a folder for each class of particles with all files that RELION or Dynamo needs::

    README.txt                the content and the command of each class
    ribosomes/                for RELION: particles.star, volumes/, wedges/ (`tomolab.subtomograms.to_relion`)
        reference.mrc, mask.mrc
    proteasomes/              for Dynamo: data/ with particles and crop.tbl (`tomolab.subtomograms.to_dynamo`)
        template.em, mask.em
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import __version__, io
from tomolab import volumes as densities
from tomolab.averaging.half_maps import Average
from tomolab.averaging.relion import programs
from tomolab.conventions import ANGLES, POSITION
from tomolab.inspection.history import counted
from tomolab.inspection.model import Inspection
from tomolab.inspection.selection import Selection
from tomolab.io import run_folder
from tomolab.io.lists import copick, formats, outdated
from tomolab.io.volumes import em
from tomolab.subtomograms import to_dynamo, to_relion
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

TABLE = "table"
"""Stands for the name of an average where particles have the poses of the particle table."""
POSES = ("average", TABLE)
COPY, COPICK = "copy", "copick"
PROGRAMS = ("RELION", "Dynamo")
LONGEST = 80
"""Maximum number of characters of a folder name."""
START = "Where there is a reference, both halves of a refinement start from it: low-pass it well beyond what you will claim."
EDGE = 3.0
"""Width of the soft edge of a mask, in voxels."""


@dataclass(frozen=True)
class ExportFormat:
    """An export format: its title, the suffix of its file (empty for folders), and its name where a suffix has several."""

    title: str
    suffix: str
    format: str | None = None


FORMATS = (
    ExportFormat("RELION 3.1 (.star)", ".star", "relion31"),
    ExportFormat("RELION 4 (.star)", ".star", "relion4"),
    ExportFormat("RELION 5 (.star)", ".star", "relion5"),
    ExportFormat("Warp (.star)", ".star", "warp"),
    ExportFormat("STOPGAP (.star)", ".star", "stopgap"),
    ExportFormat("Dynamo (.tbl)", ".tbl"),
    ExportFormat("AV3 motive list (.em)", ".em"),
    ExportFormat("IMOD model (.mod)", ".mod"),
    ExportFormat("CryoET Data Portal (.ndjson)", ".ndjson"),
    ExportFormat("copick (project folder)", "", COPICK),
    ExportFormat("all columns (.csv)", ".csv"),
    ExportFormat("your own list, these only", "", COPY),
    ExportFormat("RELION, a folder a class", "", "RELION"),
    ExportFormat("Dynamo, a folder a class", "", "Dynamo"),
)
"""The formats that the inspectors offer."""


@dataclass(frozen=True)
class Exported:
    """Path and number of the written particles, and the number in the poses of each average or of the "table"."""

    path: Path
    count: int
    poses: Mapping[str, int] = field(default_factory=dict)
    added: int = 0
    """Number added to the particle ids, for Dynamo, which counts from 1."""
    left_out: tuple[str, ...] = ()
    """Columns that were dropped because they describe other poses or half sets."""
    earlier: Sequence[Path] = ()
    """Where the files are that were replaced."""

    def __str__(self) -> str:
        text = f"{counted(self.count)} {'is' if self.count == 1 else 'are'} in {self.path.name}"
        names = {name: "the particle table" if name == TABLE else f'"{name}"' for name in self.poses}
        if set(self.poses) - {TABLE}:
            text += ", in the poses of " + " and of ".join(f"{names[name]} ({count:,})" for name, count in self.poses.items())
        if len(self.poses.keys() - {TABLE}) > 1:
            text += "; each average has its own frame: see the column average"
        text += f"; tags are particle_id + {self.added}" if self.added else ""
        text += f"; without {', '.join(self.left_out)}, which describe other poses or half sets" if self.left_out else ""
        return text + run_folder.earlier_text(self.earlier)


@dataclass(frozen=True)
class ParticleClass:
    """A class of particles: its name, table with poses, the average to start from, and a comment for the README."""

    name: str
    table: pd.DataFrame
    reference: Average | None = None
    about: str = ""


def taken(work: Inspection, ticked: Sequence[int]) -> Sequence[int] | Selection | None:
    """What an inspector exports: the ticked clusters, or else the selection, or else None for all clusters."""
    return ticked or (work.session.chosen("selection", "selected") if work.session.chosen_rows.any() else None)


def taken_text(work: Inspection, ticked: Sequence[int], *, every: bool = False) -> str:
    """The same in words, with numbers of particles; `every` if all clusters are meant where nothing is ticked or selected."""
    session, selected = work.session, int(work.session.chosen_rows.sum())
    counts, shown = session.counts(), session.counts(visible=True)

    def number(few: int, of: int) -> str:
        return f"{few:,}" if few == of else f"{few:,} of {of:,}, the others are hidden"

    if ticked:
        return "of " + ", ".join(f"{session.title(one)} ({number(shown[one], counts[one])})" for one in ticked)
    if selected or not every:
        return f"of the {selected:,} selected"
    return f"all {shown.sum():,}" if shown.sum() == counts.sum() else f"the {shown.sum():,} visible of {counts.sum():,}"


def problem(work: Inspection, wanted: ExportFormat | None = None) -> str:
    """Why nothing can be exported now, or not in one of `FORMATS`; empty if it can be."""
    if not work.session.clusters and not work.session.chosen_rows.any():
        return "there is no cluster, and nothing is selected"
    if wanted is None:
        return ""
    return "there are no boxes to write" if wanted.format in PROGRAMS and work.subtomograms is None else ""


def export(
    work: Inspection,
    path: str | Path,
    chosen: Iterable[int] | Selection | None = None,
    *,
    format: str | None = None,  # noqa: A002 - as in files
    poses: str = "average",
    replace: bool = True,
) -> Exported:
    """Write the visible particles of some clusters, by default of all, or of a `Selection`, as a particle list.

    A file that is replaced stays beside the new one as ``NAME.~1~``, or with the next free number.

    Parameters
    ----------
    work
        The inspection.
    path
        As in `io.write_particles`; for the format "copick", the overlay root of a project (`copick.write`).
    chosen
        Clusters, or a `Selection`. Particles outside of the filters and in hidden clusters are left out.
    format
        As in `io.write_particles`, or "copick".
    poses
        "average": positions and angles of the averages (`posed`), with their names in the column ``average``. "table":
        positions and angles of the particle table.
    replace
        Whether files that are there may be replaced.

    Raises
    ------
    FileExistsError
        If a file is there and may not be replaced, or is one that a run folder is made of.
    ValueError
        If the list needs a voxel size and there is neither a tomogram nor a box, or a cluster or `poses` is unknown.
    """
    path = Path(path)
    if poses not in POSES:
        raise ValueError(f"poses is one of {', '.join(POSES)}, got {poses!r}")
    averages = work.averages if poses == "average" else {}
    listed = work.session.table(chosen, visible=True)
    table, used = posed(listed, averages, reach=work.diameter)
    left_out = _left_out(listed, table)
    with run_folder.replacing(*_files(path, format), folder=work.folder, replace=replace) as earlier:
        if format == COPICK:
            copick.write(table, path)
            return Exported(path, len(table), used, left_out=left_out, earlier=earlier)
        added = to_dynamo.tags_from(work.session.ids) if path.suffix == ".tbl" else 0
        table = table.assign(particle_id=table["particle_id"] + added)
        io.write_particles(table, path, format=format, **_known(work, path, format))
        return Exported(path, len(table), used, added, left_out, earlier)


def folders(
    work: Inspection, folder: str | Path, chosen: Iterable[int] | Selection | None = None, *, program: str
) -> list[Exported]:
    """Write a folder for each cluster, or one for a selection, with all files that RELION or Dynamo needs; all or nothing.

    The reference of a cluster is the average with most of its particles. Only its poses are used, so that a folder has one
    frame. A quick average is the reference only where there is no other.

    Parameters
    ----------
    work
        The inspection, with boxes.
    folder
        The folder to write; it must not exist.
    chosen
        Clusters, by default all that have visible particles, or a `Selection`. Hidden particles are left out.
    program
        "RELION" or "Dynamo".

    Raises
    ------
    FileExistsError
        If the folder exists, or has a name of something that a run folder is made of.
    ValueError
        If there are no boxes, or as in `write_class_folders`.
    """
    if work.subtomograms is None:
        raise ValueError("there are no boxes to write")
    run_folder.refuse_own(Path(folder), work.folder)
    session, counts = work.session, work.session.counts(visible=True)
    wanted: list[tuple[str, Selection | list[int]]]
    if isinstance(chosen, Selection):
        wanted = [(chosen.name, chosen)]
    else:
        clusters = counts.index[counts > 0].tolist() if chosen is None else chosen
        wanted = [(session.title(number), [number]) for number in clusters]
    sets, written = [], []
    for title, members in wanted:
        table = session.table(members, visible=True)
        name, reference = _best(table, work.averages)
        found, used = posed(table, {} if reference is None else {name: reference}, reach=work.diameter)
        about = "" if reference is None else f"Average {name!r} is the reference; {used.get(name, 0)} particles have its poses."
        left_out = _left_out(table, found)
        about += f"\nLeft out: {', '.join(left_out)}, which describe other poses or half sets." if left_out else ""
        sets.append(ParticleClass(title, found, reference, about))
        written.append((used, left_out))
    places = write_class_folders(sets, work.subtomograms, folder, program=program, diameter=1.2 * work.diameter)
    return [
        Exported(place, len(one.table), used, left_out=left_out)
        for place, one, (used, left_out) in zip(places, sets, written, strict=True)
    ]


def export_as(
    work: Inspection,
    wanted: ExportFormat,
    path: str | Path,
    *,
    chosen: Iterable[int] | Selection | None = None,
    poses: str = "average",
    source: str = "",
    replace: bool = False,
) -> str:
    """Export one of `FORMATS`; return a message for the user.

    Parameters
    ----------
    work
        The inspection.
    wanted
        One of `FORMATS`.
    path
        File or folder; a missing suffix is added (`place`).
    chosen, poses
        As in `export`.
    source
        The user's own list, for the format `COPY`.
    replace
        Whether files that are there may be replaced; they stay beside the new ones (`export`).

    Raises
    ------
    FileExistsError
        If a file is there already and may not be replaced, or is one that a run folder is made of.
    OSError, ValueError
        If no particle is visible, or as in `export`, `io.filter_particles` and `folders`.
    """
    if wanted.format == COPY and not source:
        raise ValueError("give the list from which the particles were read")
    path = place(wanted, path, source)
    table = work.session.table(chosen, visible=True)
    if not len(table):
        raise ValueError("no particle is visible: filters or hidden clusters leave out all of them")
    hidden = len(work.session.table(chosen)) - len(table)
    text = f"; {counted(hidden, 'hidden particles')} left out" if hidden else ""
    if wanted.format == COPY:
        return _copy(work, Path(source).expanduser(), path, table, replace=replace) + text
    if wanted.format in PROGRAMS:
        found = folders(work, path, chosen, program=wanted.format)
        many, count = counted(len(found), "folders"), sum(one.count for one in found)
        return f"{counted(count)} are in {many} in {path.name}; see README.txt there{text}"
    return f"{export(work, path, chosen, format=wanted.format, poses=poses, replace=replace)}{text}"


def place(wanted: ExportFormat, path: str | Path, source: str = "") -> Path:
    """File or folder that `export_as` writes: `path` with the suffix of the format, or of the user's own list."""
    path, suffix = Path(path), Path(source).suffix if wanted.format == COPY else wanted.suffix
    return path if path.suffix == suffix else path.with_name(path.name + suffix)


def there_already(wanted: ExportFormat, path: str | Path, source: str = "") -> list[Path]:
    """Files that `export_as` would replace, for a screen to ask the user."""
    return [one for one in _files(place(wanted, path, source), wanted.format) if os.path.lexists(one)]


def _files(path: Path, version: str | None) -> list[Path]:
    """Files that an export writes; of a copick project those that are there and would be replaced."""
    if version == COPICK:
        return [path / copick.COLUMNS, *path.glob(f"ExperimentRuns/*/Picks/{copick.USER}_0_*.json")]
    listed = path.suffix.lower() in (".tbl", ".em") or version == "stopgap"
    return [*([formats.companion(path)] if listed and version != COPY else []), path]


def _copy(work: Inspection, own: Path, path: Path, table: pd.DataFrame, *, replace: bool) -> str:
    if path.exists() and own.exists() and path.samefile(own):
        raise FileExistsError(f"{path.name} is your own list, from which this one is copied: choose another name")
    with run_folder.replacing(path, folder=work.folder, replace=replace) as earlier:
        done = io.filter_particles(own, table, path)
    other = f"; {done.elsewhere:,} are of other lists" if done.elsewhere else ""
    text = f"{done.kept:,} of {counted(done.kept + done.dropped)} of {own.name} are in {path.name}{other}"
    return text + run_folder.earlier_text(earlier)


def posed(table: pd.DataFrame, averages: Mapping[str, Average], *, reach: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """Give particles the poses of averages; count the particles of each.

    A particle in several averages takes the pose of the latest; a quick average is used only where there is no other.

    Parameters
    ----------
    table
        Particle table.
    averages
        By name, the latest last.
    reach
        Å. A particle of an average that lies farther than this from its position in the table, or in another tomogram, is
        another particle with the same id.

    Returns
    -------
    table
        As given if no particle has the pose of an average. Otherwise with the column ``average`` and, where all particles
        have one, ``half``, and without columns that describe other poses or half sets (`outdated`).
    counts
        Number of particles by the name of the average; "table" for unchanged poses. Counts of 0 are left out.
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
    gone = outdated.among(out, (*outdated.POSES, *outdated.HALF_SETS))
    out = out.assign(average=used).drop(columns=["half", *gone], errors="ignore")
    return (out if np.isnan(half).any() else out.assign(half=half.astype(int))), counts


def _known(work: Inspection, path: Path, version: str | None) -> dict[str, Any]:
    """The options that `io.write_particles` takes for a list of this format."""
    sizes = [one.voxel_size for one in (*work.headers.values(), work.subtomograms) if one is not None]
    shapes = {name: one.shape for name, one in work.headers.items()}
    known = {"voxel_size": sizes[0] if sizes else None, "tomogram_shape": shapes or None}
    return {name: value for name, value in known.items() if name in formats.options(path, version)}


def _left_out(before: pd.DataFrame, after: pd.DataFrame) -> tuple[str, ...]:
    return tuple(name for name in before if name not in after and name != "half")


def _best(table: pd.DataFrame, averages: Mapping[str, Average]) -> tuple[str, Average | None]:
    """The average with most particles of a table, the latest of equals; a quick one only if there is no other."""
    held = {name: int(table["particle_id"].isin(one.particles["particle_id"]).sum()) for name, one in averages.items()}
    order = {name: (not averages[name].record.get("quick", False), count, n) for n, (name, count) in enumerate(held.items())}
    name = max((name for name, count in held.items() if count), key=order.__getitem__, default=None)
    return ("", None) if name is None else (name, averages[name])


def write_class_folders(
    sets: Sequence[ParticleClass], subtomograms: Subtomograms, folder: str | Path, *, program: str, diameter: float
) -> list[Path]:
    """Write a folder for each class; all or nothing.

    Parameters
    ----------
    sets
        The classes; none may be empty.
    subtomograms
        Boxes of their particles.
    folder
        The folder to write; it must not exist.
    program
        "RELION" or "Dynamo".
    diameter
        Of the mask, in Å, for a class without an average or with an average whose record has none.

    Returns
    -------
    list
        The folders, in the order of the classes; their names are those of the classes without characters that programs or
        shells treat specially.

    Raises
    ------
    FileExistsError
        If the folder exists.
    ValueError
        If there is no class, a class is empty, the program is unknown, or as in `to_relion.write` and `to_dynamo.write`.
    """
    folder = Path(folder)
    if program not in PROGRAMS:
        raise ValueError(f"program is one of {', '.join(PROGRAMS)}, got {program!r}")
    empty = [one.name for one in sets if not len(one.table)]
    if empty or not sets:
        raise ValueError(f"there are no particles in {', '.join(empty)}" if empty else "there is no class to write")
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; name another folder")
    names = folder_names([one.name for one in sets])
    write = _relion if program == "RELION" else _dynamo
    with io.atomic(folder) as temporary:
        texts = [write(one, subtomograms, temporary / name, diameter) for one, name in zip(sets, names, strict=True)]
        many = "1 class" if len(sets) == 1 else f"{len(sets)} classes"
        head = f"{many} of particles for {program}, written by tomolab {__version__}.\n{START}\n"
        (temporary / "README.txt").write_text("\n".join([head, *texts]), encoding="utf-8")
    return [folder / name for name in names]


def folder_names(titles: Sequence[str]) -> list[str]:
    """Folder names for titles: letters, digits and ``_ . -``, as programs need; different even where case is ignored."""
    found: list[str] = []
    taken: set[str] = set()
    for title in titles:
        name = re.sub(r"[^\w.-]+", "_", title).strip("._")[:LONGEST].strip("._") or "class"
        tries = (name if number == 1 else f"{name}_{number}" for number in range(1, len(titles) + 2))
        found.append(next(one for one in tries if one.casefold() not in taken))
        taken.add(found[-1].casefold())
    return found


def _relion(one: ParticleClass, subtomograms: Subtomograms, folder: Path, diameter: float) -> str:
    width, symmetry = _width(one, subtomograms, diameter), _symmetry(one)
    to_relion.write(subtomograms, folder, poses=one.table, diameter=width, progress=False)
    mask, reference = _maps(one, subtomograms, width)
    io.write_volume(mask, folder / "mask.mrc")
    extra = ["--ref", "reference.mrc", "--solvent_mask", "mask.mrc"]
    if reference is not None:
        io.write_volume(reference, folder / "reference.mrc")
    words = programs.command(diameter=width, symmetry=symmetry, extra=extra, seed=1, reach=subtomograms.box / 10)
    needed = "" if reference else "There is no average of this class: put a map of the same box there as reference.mrc.\n"
    command = f"cd {shlex.quote(folder.name)} && mkdir -p run && {shlex.join(words)}"
    return f"{_head(one, folder, subtomograms)}{needed}\n    {command}\n"


def _dynamo(one: ParticleClass, subtomograms: Subtomograms, folder: Path, diameter: float) -> str:
    width = _width(one, subtomograms, diameter)
    added = to_dynamo.write(subtomograms, folder / "data", poses=one.table)
    mask, reference = _maps(one, subtomograms, width)
    (folder / "mask.em").write_bytes(em.content(mask.data))
    if reference is not None:
        (folder / "template.em").write_bytes(em.content(reference.data))
    tags = f"The tag of a particle is its particle_id + {added}.\n" if added else "The tag of a particle is its particle_id.\n"
    needed = "" if reference else "There is no average of this class: put a map of the same box there as template.em.\n"
    command = "dcp.new('project','d','data','t','data/crop.tbl','template','template.em','masks','default','show',0);"
    lines = [f"cd('{folder.name}')", command, "dvput('project','file_mask','mask.em');"]
    return f"{_head(one, folder, subtomograms)}{tags}{needed}\n" + "".join(f"    {line}\n" for line in lines)


def _head(one: ParticleClass, folder: Path, subtomograms: Subtomograms) -> str:
    size = f"{subtomograms.box} voxels of {subtomograms.voxel_size:g} Å"
    about = f"{one.about}\n" if one.about else ""
    title = " ".join(one.name.split())
    return f"{folder.name}: {title}\n{len(one.table)} particles in boxes of {size}, symmetry {_symmetry(one)}.\n{about}"


def _maps(one: ParticleClass, subtomograms: Subtomograms, width: float) -> tuple[Volume, Volume | None]:
    """The mask, and the average in the box and voxel size of the particles."""
    size, box = subtomograms.voxel_size, subtomograms.box
    inside = max(2.0, width / size - 2 * EDGE)
    mask = Volume(densities.sphere(box, inside, edge_voxels=EDGE).numpy(), size)
    if one.reference is None:
        return mask, None
    return mask, densities.fit(densities.resample(one.reference.volume, size), box)


def _width(one: ParticleClass, subtomograms: Subtomograms, diameter: float) -> float:
    """Diameter of the mask in Å: that of the average, or the given one; at most 95 % of the box."""
    wanted = diameter if one.reference is None else float(one.reference.record.get("mask", diameter))
    return min(wanted, 0.95 * subtomograms.box * subtomograms.voxel_size)


def _symmetry(one: ParticleClass) -> str:
    return "C1" if one.reference is None else str(one.reference.record.get("symmetry", "C1"))
