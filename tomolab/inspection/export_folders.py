"""Bundles: a folder for each class of particles with all that RELION or Dynamo needs to go on with it.

::

    README.txt                what is here, and the command for each class
    ribosomes/                for RELION: particles.star, volumes/, wedges/ (`tomolab.subtomograms.to_relion`)
        reference.mrc, mask.mrc
    proteasomes/              for Dynamo: data/ with particles and crop.tbl (`tomolab.subtomograms.to_dynamo`)
        template.em, mask.em

>>> export_folders.write([Bundle("ribosomes", table, average)], boxes, "runs/first/relion_classes", program="RELION",
...     diameter=280)
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tomolab import __version__, io
from tomolab import volumes as densities
from tomolab.averaging.half_maps import Average
from tomolab.averaging.relion import programs
from tomolab.inspection.orders import plain
from tomolab.subtomograms import to_dynamo, to_relion
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

PROGRAMS = ("RELION", "Dynamo")
LONGEST = 80
"""Characters of the name of a folder, at most."""
START = "Where there is a reference, both halves of a refinement start from it: low-pass it well beyond what you will claim."
EDGE = 3.0
"""Voxels over which a mask falls off."""


@dataclass(frozen=True)
class Bundle:
    """A class of particles: its name, their table with poses, and the average to start from with what is to be said of it."""

    name: str
    table: pd.DataFrame
    reference: Average | None = None
    about: str = ""


def write(
    sets: Sequence[Bundle], subtomograms: Subtomograms, folder: str | Path, *, program: str, diameter: float
) -> list[Path]:
    """Write a folder for each class; all of them or nothing.

    Parameters
    ----------
    sets
        The classes; each has a particle.
    subtomograms
        Boxes of their particles.
    folder
        Of all of them; it must not be there.
    program
        "RELION" or "Dynamo".
    diameter
        Of the mask, in Å, where a class has no average whose record says it.

    Returns
    -------
    list
        The folders, in the order of the classes; their names are those of the classes without characters that programs or
        shells take for something else.

    Raises
    ------
    FileExistsError
        If the folder is there.
    ValueError
        If there is no class, one is empty, the program is unknown, or as the program's own files say.
    """
    folder = Path(folder)
    if program not in PROGRAMS:
        raise ValueError(f"program is one of {', '.join(PROGRAMS)}, got {program!r}")
    empty = [one.name for one in sets if not len(one.table)]
    if empty or not sets:
        raise ValueError(f"there are no particles in {', '.join(empty)}" if empty else "there is no class to write")
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; name another folder")
    names = named([one.name for one in sets])
    way = _relion if program == "RELION" else _dynamo
    with io.atomic(folder) as temporary:
        told = [way(one, subtomograms, temporary / name, diameter) for one, name in zip(sets, names, strict=True)]
        many = "1 class" if len(sets) == 1 else f"{len(sets)} classes"
        head = f"{many} of particles for {program}, written by tomolab {__version__}.\n{START}\n"
        (temporary / "README.txt").write_text("\n".join([head, *told]), encoding="utf-8")
    return [folder / name for name in names]


def named(titles: Sequence[str]) -> list[str]:
    """Names of folders, all different, also where capitals do not count."""
    found: list[str] = []
    taken: set[str] = set()
    for title in titles:
        name = plain(title)[:LONGEST].strip("._") or "class"
        tries = (name if number == 1 else f"{name}_{number}" for number in range(1, len(titles) + 2))
        found.append(next(one for one in tries if one.casefold() not in taken))
        taken.add(found[-1].casefold())
    return found


def _relion(one: Bundle, subtomograms: Subtomograms, folder: Path, diameter: float) -> str:
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


def _dynamo(one: Bundle, subtomograms: Subtomograms, folder: Path, diameter: float) -> str:
    width = _width(one, subtomograms, diameter)
    added = to_dynamo.write(subtomograms, folder / "data", poses=one.table)
    mask, reference = _maps(one, subtomograms, width)
    to_dynamo.write_em(mask.data, folder / "mask.em")
    if reference is not None:
        to_dynamo.write_em(reference.data, folder / "template.em")
    tags = f"The tag of a particle is its particle_id + {added}.\n" if added else "The tag of a particle is its particle_id.\n"
    needed = "" if reference else "There is no average of this class: put a map of the same box there as template.em.\n"
    command = "dcp.new('project','d','data','t','data/crop.tbl','template','template.em','masks','default','show',0);"
    lines = [f"cd('{folder.name}')", command, "dvput('project','file_mask','mask.em');"]
    return f"{_head(one, folder, subtomograms)}{tags}{needed}\n" + "".join(f"    {line}\n" for line in lines)


def _head(one: Bundle, folder: Path, subtomograms: Subtomograms) -> str:
    size = f"{subtomograms.box} voxels of {subtomograms.voxel_size:g} Å"
    about = f"{one.about}\n" if one.about else ""
    title = " ".join(one.name.split())
    return f"{folder.name}: {title}\n{len(one.table)} particles in boxes of {size}, symmetry {_symmetry(one)}.\n{about}"


def _maps(one: Bundle, subtomograms: Subtomograms, width: float) -> tuple[Volume, Volume | None]:
    """Mask, and the average in the box and voxel size of the particles."""
    size, box = subtomograms.voxel_size, subtomograms.box
    inside = max(2.0, width / size - 2 * EDGE)
    mask = Volume(densities.sphere(box, inside, edge=EDGE).numpy(), size)
    if one.reference is None:
        return mask, None
    return mask, densities.fit(densities.resample(one.reference.volume, size), box)


def _width(one: Bundle, subtomograms: Subtomograms, diameter: float) -> float:
    """Å, of the mask: that of the average, or what was given; always inside the box."""
    told = diameter if one.reference is None else float(one.reference.record.get("mask", diameter))
    return min(told, 0.95 * subtomograms.box * subtomograms.voxel_size)


def _symmetry(one: Bundle) -> str:
    return "C1" if one.reference is None else str(one.reference.record.get("symmetry", "C1"))
