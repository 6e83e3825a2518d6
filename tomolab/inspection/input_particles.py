"""Takes particle lists and features as users have them, and the tomograms of the particles; gives one checked particle table.

A value that could mean two things is asked for: an error names the argument of `inspection.import_data` that says it.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from tomolab import io
from tomolab import particles as particle_tables
from tomolab.conventions import WEDGE
from tomolab.inspection.input_tomograms import IN_MEMORY, InputTomogram, stated
from tomolab.io.lists import formats
from tomolab.io.lists.options import MissingOptionError
from tomolab.io.lists.tomogram_names import match_names, without_endings
from tomolab.learning.embedding import Embedding
from tomolab.learning.feature_files import read_features

Particles: TypeAlias = str | Path | pd.DataFrame | Mapping[str, str | Path] | Sequence[str | Path]
"""A list, a folder of lists, several lists, lists by the names of their tomograms, or a particle table."""
CORNER, FEW = 0.55, 8
"""Share of a tomogram along y and x that particles must exceed, and the number of particles from which on that is asked."""
BINNINGS = (2, 3, 4, 6, 8, 12, 16)
OWN = {"cluster": "list_cluster", "diameter": "list_diameter"}
"""Columns of a list that get another name, because the run folder has its own."""


@dataclass(frozen=True)
class ListOptions:
    """What the user says of particle lists; the names are those of `inspection.import_data`."""

    particles_voxel_size: float | None = None
    unit: str | None = None
    tomogram_list: str | Path | None = None
    skip_unknown: bool = False


def read_inputs(particles: Particles, tomograms: Sequence[InputTomogram], options: ListOptions) -> pd.DataFrame:
    """Read particle lists, and give one table with the names of the tomograms and their tilts.

    Raises
    ------
    FileNotFoundError
        If a list is missing.
    ValueError
        If a list cannot be read, names a tomogram that is not there, has positions outside of it, or a value that no file
        says is not given.
    """
    known = {one.name: one for one in tomograms}
    if isinstance(particles, pd.DataFrame):
        table = particle_tables.check(_with_tilts(particles, tomograms))
        table = _placed(_named_as(table, known, skip=options.skip_unknown), known, options)
    else:
        tables = [_read(path, name, known, options) for path, name in _lists(particles, known)]
        table = pd.concat(tables, ignore_index=True)
        if table["particle_id"].duplicated().any():
            table = particle_tables.renumber(table)
    tilts = {name: one.tilts for name, one in known.items() if one.tilts is not None}
    own = table["tomogram"].map(tilts)
    for column, side in zip(WEDGE, (0, 1), strict=True):
        table[column] = np.where(own.notna(), own.map(lambda pair, side=side: pair[side], na_action="ignore"), table[column])
    return particle_tables.check(table.rename(columns=OWN))


def match_features(features: str | Path | Embedding, table: pd.DataFrame, *, in_order: bool) -> Embedding:
    """Features of the particles of a table, by their ids, or in the order of the rows.

    Raises
    ------
    ValueError
        If `learning.read_features` refuses the file, a particle has no features, or ids are those of another numbering.
    """
    if isinstance(features, str | Path):
        try:
            features = read_features(features, ids=table["particle_id"] if in_order else None)
        except ValueError as error:
            hint = "; if the rows are in the order of the particles, give features_in_order=True"
            raise ValueError(f"{error}{'' if in_order else hint}") from error
    elif in_order and len(features) == len(table):
        features = Embedding(table["particle_id"].to_numpy(), features.vectors, features.network)
    if "original_id" in table and not in_order:
        raise ValueError(
            "the particles were numbered anew, because ids are repeated in the lists, so that features cannot be found by id; "
            "if they are in the order of the particles, give features_in_order=True"
        )
    lacking = table["particle_id"][~table["particle_id"].isin(features.ids)].tolist()
    if lacking:
        raise ValueError(f"{len(lacking)} of {len(table)} particles have no features, such as particles {stated(lacking)}")
    return features.take(table["particle_id"].to_numpy())


def _lists(given: Any, known: Mapping[str, InputTomogram]) -> list[tuple[Path, str | None]]:
    """Lists with the name of their tomogram, None where only the list itself can say it."""
    if isinstance(given, Mapping):
        fitting = match_names(given, known, what="the tomograms, beside the names of particles=,")
        return [(Path(path), fitting[name]) for name, path in given.items()]
    places = [Path(given)] if isinstance(given, str | Path) else [Path(one) for one in given]
    if len(places) == 1 and places[0].is_dir():
        folder = places[0]
        places = sorted(one for one in folder.iterdir() if one.suffix.lower() in formats.READERS and one.is_file())
        if not places:
            raise FileNotFoundError(f"the folder {folder} has no particle list: {', '.join(sorted(formats.READERS))}")
    if not places:
        raise ValueError("particles= is empty; leave it out to pick particles")
    return [(path, None) for path in places]


def _read(path: Path, name: str | None, known: dict[str, InputTomogram], options: ListOptions) -> pd.DataFrame:
    """Table of one list; `name` is the tomogram that the user gave it."""
    belongs = name or _by_file(path, known)
    given: dict[str, Any] = {"voxel_size": options.particles_voxel_size, "unit": options.unit}
    given |= {"tomogram_list": options.tomogram_list}
    if all(one.tilts is not None for one in known.values()):
        given["tilts"] = (-60.0, 60.0)  # the table gets those of its tomograms
    assumed: set[str] = set()
    while True:
        try:
            table = io.read_particles(path, **given)
            break
        except MissingOptionError as error:
            new = {one: _assumed(one, error, belongs, known) for one in error.names if given.get(one) is None}
            if not new:
                raise ValueError(_ours(str(error))) from error
            given |= new
            assumed |= set(new)
        except ValueError as error:
            raise ValueError(_ours(str(error))) from error
    if name is not None or (belongs is not None and _is_number(table)):
        _one_name(table, path, name)
        table["tomogram"] = belongs
    try:
        table = _named_as(table, known, skip=options.skip_unknown)
        return _placed(table, known, options, guessed="voxel_size" in assumed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _assumed(option: str, error: MissingOptionError, belongs: str | None, known: dict[str, InputTomogram]) -> Any:
    """Value of an option that a list does not say, by its tomograms."""
    if option == "renumber":
        return True
    if option == "tomogram_shape":
        return known[belongs].voxels.shape if belongs else {name: one.voxels.shape for name, one in known.items()}
    if option == "tomogram" and belongs is not None:
        return belongs
    if option == "voxel_size":
        some = [known[belongs]] if belongs else list(known.values())
        sizes = {one.voxels.voxel_size for one in some}
        if len(sizes) == 1:
            return sizes.pop()
    raise ValueError(_ours(str(error))) from error


def _ours(message: str) -> str:
    """A message of `io.read_particles` with the names of our arguments."""
    message = re.sub(r"\bvoxel_size=", "particles_voxel_size=", message)
    message = message.replace("give tomogram=", "name the list after its tomogram, or give particles={TOMOGRAM: LIST}")
    return message.replace("tomogram_shape= lacks", "the tomograms lack")


def _by_file(path: Path, known: Mapping[str, InputTomogram]) -> str | None:
    """Tomogram of a list by the name of the file; the only tomogram, if there is one."""
    if len(known) == 1:
        return next(iter(known))
    stem = without_endings(path.name).removesuffix(path.suffix)
    fitting = [name for name in known if stem == name or re.match(rf"{re.escape(name)}(?![0-9A-Za-z])", stem)]
    return max(fitting, key=len) if fitting else None


def _is_number(table: pd.DataFrame) -> bool:
    names = table["tomogram"].unique()
    return len(names) == 1 and str(names[0]).isdigit()


def _one_name(table: pd.DataFrame, path: Path, name: str | None) -> None:
    names = table["tomogram"].unique().tolist()
    if len(names) > 1:
        raise ValueError(
            f"{path} was given for the tomogram {name}, but has particles of {len(names)}, {stated(names)}; give particles= "
            "without names"
        )


def _named_as(table: pd.DataFrame, known: Mapping[str, InputTomogram], *, skip: bool = False) -> pd.DataFrame:
    """The table with the names of our tomograms."""
    names = table["tomogram"].unique().tolist()
    if list(known) == [IN_MEMORY] and len(names) == 1:
        # A volume in memory has no name that could contradict.
        return table.assign(tomogram=IN_MEMORY)
    try:
        fitting = match_names(names, known, what="the tomograms")
    except ValueError as error:
        fitting = _matching(names, known)
        if not fitting or not skip:
            lost = ~table["tomogram"].isin(fitting)
            way = "give tomograms={NAME_IN_LIST: PATH}, or a list of tomograms with these names (tomograms.csv)"
            way += ", or skip_unknown=True to leave these particles out" if fitting else ""
            raise ValueError(
                f"{lost.sum()} of {len(table)} particles are of {table['tomogram'][lost].nunique()} tomograms that were not "
                f"given, {stated(table['tomogram'][lost].unique())}; the tomograms are {stated(known)}. "
                f"{way[0].upper()}{way[1:]}"
            ) from error
    inside = table["tomogram"].isin(fitting)
    if not inside.all():
        warnings.warn(f"{(~inside).sum()} of {len(table)} particles are left out: their tomograms were not given", stacklevel=2)
    table = table[inside].reset_index(drop=True)
    return table.assign(tomogram=table["tomogram"].map(fitting))


def _matching(names: Sequence[str], known: Mapping[str, InputTomogram]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        try:
            found |= match_names([name], known, what="the tomograms")
        except ValueError:
            continue
    return found


def _with_tilts(table: pd.DataFrame, tomograms: Sequence[InputTomogram]) -> pd.DataFrame:
    """A table of the user, which may lack tilts that the tomograms have."""
    if set(WEDGE) <= set(table):
        return table
    if any(one.tilts is None for one in tomograms):
        raise ValueError("between which tilts were the particles observed? Give tilts=(lowest, highest)")
    return table.assign(**dict(zip(WEDGE, (-60.0, 60.0), strict=True)))


def _placed(
    table: pd.DataFrame, known: Mapping[str, InputTomogram], options: ListOptions, *, guessed: bool = False
) -> pd.DataFrame:
    """The table, if its particles lie in their tomograms; `guessed` if the list does not say its pixel size."""
    if table.empty:
        raise ValueError("there are no particles")
    extents = np.array([known[name].voxels.extent for name in table["tomogram"]])
    share = particle_tables.positions(table) / extents
    outside = ((share < -0.02) | (share > 1.02)).any(axis=1)
    size = known[table["tomogram"].iloc[0]].voxels.voxel_size
    if outside.mean() > 0.5:
        fits = [n for n in BINNINGS if np.quantile(share.max(axis=1), 0.99) / n <= 1.02]
        hint = f"; in pixels of {size / fits[0]:.4g} Å they would lie inside" if guessed and fits else ""
        raise ValueError(
            f"{outside.sum()} of {len(table)} particles lie outside of their tomograms. The list may count pixels of another "
            f'binning{hint}, or Å: give particles_voxel_size=, Å per pixel of its coordinates, or unit="angstrom"'
        )
    if outside.any():
        warnings.warn(f"{outside.sum()} of {len(table)} particles lie outside of their tomograms", stacklevel=2)
    reach = float(share[:, 1:].max())
    if guessed and options.unit is None and len(table) >= FEW and reach < CORNER:
        raise ValueError(
            f"all {len(table)} particles lie in the first {reach:.0%} of their tomograms along y and x, and the list does not "
            f"say its pixel size, so that it may count larger pixels: give particles_voxel_size=, {size:.4g} if these are the "
            "pixels of the tomogram"
        )
    return table
