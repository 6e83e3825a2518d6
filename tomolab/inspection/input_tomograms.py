"""Takes tomograms as users have them (files, folders, a list, volumes in memory), gives a checked `InputTomogram` for each.

What no file says is asked for: an error names the argument of `inspection.import_data` that says it. No file is read whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from tomolab import volumes
from tomolab.conventions import WEDGE
from tomolab.io.lists.tomogram_names import Tilts, match_names
from tomolab.io.volumes import tomogram as tomogram_files
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.subtomograms import contrast as contrasts
from tomolab.subtomograms import tomogram_list
from tomolab.volumes import Volume

Tomograms: TypeAlias = (
    str | Path | Volume | pd.DataFrame | Mapping[str, str | Path | Volume] | list[str | Path] | tuple[str | Path, ...]
)
"""A file, folder or address of a tomogram, a folder of them, a list of tomograms (`subtomograms.read_tomogram_list`, or its CSV
file), several files, files by the names of the tomograms, or a volume in memory."""
IN_MEMORY = "tomogram"
"""Name of a volume in memory."""


@dataclass(frozen=True, eq=False)
class InputTomogram:
    """A tomogram to import.

    Parameters
    ----------
    name
        Its name in particle lists and in the run folder.
    voxels
        Reads them.
    contrast
        "bright" or "dark".
    tilts
        Lowest and highest in degrees; None if not known.
    row
        Of the list of tomograms, with the voxel size and the contrast.
    """

    name: str
    voxels: Tomogram
    contrast: str
    tilts: tuple[float, float] | None
    row: Mapping[str, Any]

    def bright(self) -> Volume:
        """The whole tomogram, with bright protein."""
        volume = self.voxels.load()
        return volumes.invert(volume) if self.contrast == "dark" else volume


def read_inputs(
    tomograms: Tomograms,
    *,
    contrast: str | None,
    tilts: Tilts | None,
    voxel_size: float | None,
    check_contrast: bool,
) -> list[InputTomogram]:
    """Open tomograms and check what is said of them; the parameters are those of `inspection.import_data`.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a contrast or voxel size is not known, or stated twice and differently, a tomogram has the other contrast, or tilts
        are not lowest < highest.
    """
    if contrast not in (None, "bright", "dark"):
        raise ValueError(f'contrast must be "bright" or "dark", got {contrast!r}')
    table = _table(tomograms)
    known = tomogram_list.check(table.drop(columns="tilts", errors="ignore") if tilts is not None else table)
    ranges = _tilts(known, tilts)
    memory = _volumes(tomograms)
    for name in known["tomogram"]:
        if not name or name.strip(". ") != name or any(mark in name for mark in "/\\\0"):
            raise ValueError(f"the tomogram {name!r} cannot name a file; give it another name: tomograms={{NAME: PATH}}")
    out = []
    for row in known.to_dict("records"):
        name = row["tomogram"]
        size = _agreed(name, "voxel_size", None if np.isnan(row["voxel_size"]) else row["voxel_size"], voxel_size)
        voxels = tomogram_files.of(memory[name]) if name in memory else _opened(known, name, size)
        stated = _agreed(name, "contrast", row["contrast"], contrast)
        if stated is None:
            raise ValueError(_ask_contrast(name, voxels))
        if check_contrast:
            contrasts.check(voxels, stated)
        row |= {"voxel_size": size, "contrast": stated}
        out.append(InputTomogram(name, voxels, stated, ranges[name], row))
    return out


def _table(given: Tomograms) -> pd.DataFrame:
    """Rows of a list of tomograms."""
    if isinstance(given, pd.DataFrame):
        return given
    if isinstance(given, str | Path) and str(given).lower().endswith(".csv"):
        return tomogram_list.read(given)
    if isinstance(given, Volume):
        return pd.DataFrame({"tomogram": [IN_MEMORY], "path": [IN_MEMORY]})
    if isinstance(given, Mapping):
        rows = []
        for name, one in given.items():
            if isinstance(one, Volume):
                rows.append(pd.DataFrame({"tomogram": [name], "path": [name]}))
                continue
            found = tomogram_list.find(one)
            if len(found) > 1:
                raise ValueError(f"{one}, given as {name}, is a folder with {len(found)} tomograms; name one")
            rows.append(found.assign(tomogram=str(name)))
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"tomogram": [], "path": []})
    places: list[str | Path] = [given] if isinstance(given, str | Path) else list(given)
    # The header is compared with what is stated when the tomogram is opened.
    return tomogram_list.find(places).drop(columns="voxel_size") if places else pd.DataFrame({"tomogram": [], "path": []})


def _volumes(given: Tomograms) -> dict[str, Volume]:
    if isinstance(given, Volume):
        return {IN_MEMORY: given}
    if isinstance(given, Mapping):
        return {str(name): one for name, one in given.items() if isinstance(one, Volume)}
    return {}


def _opened(known: pd.DataFrame, name: str, size: float | None) -> Tomogram:
    try:
        return tomogram_list.open_tomogram(known.assign(voxel_size=np.nan if size is None else size), name)
    except ValueError as error:
        if size is not None or "voxel" not in str(error):
            raise
        raise ValueError(f"{error} (voxel_size= in the call, or the column voxel_size of the list of tomograms)") from error


def _agreed(name: str, what: str, listed: Any, given: Any) -> Any:
    """What is stated, by the list or by the argument."""
    if listed is not None and given is not None and listed != given:
        raise ValueError(f"{name}: the list of tomograms says {what} {listed}, but {what}={given!r} was given; state one")
    return given if listed is None else listed


def _tilts(known: pd.DataFrame, given: Tilts | None) -> dict[str, tuple[float, float] | None]:
    """Lowest and highest tilt of each tomogram, None where they are not known."""
    names = known["tomogram"].tolist()
    listed = {name: None if np.isnan(low) else (low, high) for name, low, high in known[["tomogram", *WEDGE]].to_numpy()}
    if given is None:
        return listed
    if isinstance(given, Mapping):
        fitting = match_names([name for name in names if listed[name] is None], given, what="tilts=")
        stated = {name: given[other] for name, other in fitting.items()}
    else:
        stated = dict.fromkeys(names, given)
    for name, pair in stated.items():
        if len(pair) != 2 or not -90 <= pair[0] < pair[1] <= 90:
            raise ValueError(f"tilts must be the lowest and the highest in degrees, got {pair}")
        found = (float(pair[0]), float(pair[1]))
        listed[name] = _agreed(name, "tilts", listed[name], found)
    return listed


def require_tilts(inputs: Iterable[InputTomogram]) -> None:
    """Refuse tomograms whose tilts are not known: a ValueError that names the first."""
    lacking = [one.name for one in inputs if one.tilts is None]
    if lacking:
        raise ValueError(f"between which tilts was {lacking[0]} recorded? Give tilts=(lowest, highest) in degrees")


def _ask_contrast(name: str, voxels: Tomogram) -> str:
    measured = contrasts.measure(voxels)
    seems = f" Its densities look {measured}." if measured else ""
    return (
        f'is protein bright or dark in {name}? No file says it: give contrast="dark", as in most tomograms of IMOD and Warp, '
        f'or contrast="bright".{seems}'
    )


def stated(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    some = list(names)
    return ", ".join(map(str, some[:5])) + (f" and {len(some) - 5} more" if len(some) > 5 else "")
