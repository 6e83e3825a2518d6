"""Takes a list of tomograms with their files, voxel sizes, tilts and contrasts, and particles; gives one store of boxes.

The list is a table with a row for each tomogram: ``tomogram`` (its name in particle lists) and ``path``, and where
needed ``voxel_size`` (Å), ``tilt_min`` and ``tilt_max`` (degrees) or ``tilts`` (a file of angles), ``contrast`` ("bright" or
"dark"), ``flipped`` (see `tomolab.io.volumes.flips`), ``near`` and ``averaged`` (see `tomolab.io.volumes.ome_zarr`). As CSV:

    tomogram,path,voxel_size,tilts,contrast,flipped
    TS_01,TS_01.rec,13.48,TS_01.tlt,dark,rotate
    TS_02,https://server.org/TS_02.zarr,,TS_02.tlt,dark,

>>> write(find("tomograms"), "tomograms.csv")      # then fill in contrast and tilts
>>> tomograms = read("tomograms.csv")
>>> cut = extract(tomograms, picks, box=40, voxel_size=20.0, path="subtomograms.zarr")
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tomolab import io, parallel
from tomolab import particles as tables
from tomolab.conventions import WEDGE
from tomolab.io.lists.tomogram_names import match_names, without_endings
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.subtomograms import contrast as contrasts
from tomolab.subtomograms import extraction
from tomolab.subtomograms.cropping import Cut
from tomolab.subtomograms.dataset import Subtomograms

COLUMNS = ["tomogram", "path", "voxel_size", *WEDGE, "contrast", "flipped", "near", "averaged"]
"""Columns of a list of tomograms; unknown values are None or NaN."""
LARGEST = 2**26
"""Largest file of a list of tomograms, in bytes."""
EMPTY = ("", "none", "nan", "null")
ENDINGS = (".mrc", ".rec", ".map", ".mrc.gz", ".rec.gz", ".mrc.bz2", ".rec.bz2", ".zarr")
"""Suffixes of tomograms."""
TILT_FILES = (".tlt", ".rawtlt")
"""Suffixes of files of tilts beside a tomogram, the first that is there counts."""


def find(places: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """List tomograms with what is known of them: a template of a list, for `write`.

    Parameters
    ----------
    places
        A folder with tomograms (`ENDINGS`), one tomogram, or several files, folders or addresses.

    Returns
    -------
    DataFrame
        Columns ``tomogram`` (the name of the file without its ending), ``path``, ``voxel_size`` (Å by the header, NaN if it
        does not say it), ``tilts`` (the file NAME.tlt or NAME.rawtlt beside it, else empty) and ``contrast`` (empty).

    Raises
    ------
    FileNotFoundError
        If there is no such file, or the folder has no tomogram.
    """
    rows = []
    for place in [places] if isinstance(places, str | Path) else places:
        for path in _files(place):
            name = without_endings(path)
            beside = [] if "://" in path else [Path(path).with_name(name + end) for end in TILT_FILES]
            tilts = next((str(one) for one in beside if one.is_file()), "")
            rows.append({"tomogram": name, "path": path, "voxel_size": _stated_size(path), "tilts": tilts, "contrast": ""})
    return pd.DataFrame(rows)


def write(tomograms: pd.DataFrame, path: str | Path) -> Path:
    """Write a list of tomograms as CSV, with paths relative to its folder; FileExistsError if there is a file already."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already: name another file, or delete it")

    def relative(one: Any) -> str:
        return str(one) if _unset(one) or "://" in str(one) else os.path.relpath(one, path.parent)

    named = {name: tomograms[name].map(relative) for name in ("path", "tilts") if name in tomograms}
    with io.atomic(path) as temporary:
        tomograms.assign(**named).to_csv(temporary, index=False)
    return path


def read(path: str | Path) -> pd.DataFrame:
    """Read a list of tomograms from CSV.

    Parameters
    ----------
    path
        The file. Paths in it are relative to its folder.

    Raises
    ------
    FileNotFoundError
        If the file, or a file of tilts in it, does not exist.
    ValueError
        If it is no such list, or `check` finds a fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; a list of tomograms has less than {LARGEST:,}")
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a list of tomograms: {error}") from error
    if "path" not in found:
        raise ValueError(f"{path} has no column path; it has {', '.join(map(str, found.columns)) or 'none'}")
    if "tomogram" not in found:
        found["tomogram"] = found["name"] if "name" in found else [without_endings(str(one)) for one in found["path"]]
    for name in {"path", "tilts"} & set(found.columns):
        found[name] = [one if _unset(one) else _beside(path.parent, str(one)) for one in found[name]]
    try:
        return check(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check(tomograms: pd.DataFrame) -> pd.DataFrame:
    """The list with all of `COLUMNS` first, in their types; files of tilts are read into tilt_min and tilt_max.

    Parameters
    ----------
    tomograms
        The list.

    Raises
    ------
    FileNotFoundError
        If a file of tilts does not exist.
    ValueError
        If a name or path is missing, a name occurs twice, or a value is invalid.
    """
    missing = [name for name in ("tomogram", "path") if name not in tomograms]
    if missing or not len(tomograms):
        raise ValueError(
            "a list of tomograms needs the columns tomogram and path, and at least one row; "
            f"it lacks {', '.join(missing) or 'rows'}"
        )
    rows = [_row(row) for row in tomograms.to_dict("records")]
    names = [row["tomogram"] for row in rows]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(
            f"{len(twice)} tomograms occur more than once: {', '.join(twice[:5])}; give each its own name, or leave out the "
            "files that are the same tomogram in another format"
        )
    rest = [name for name in tomograms.columns if name not in (*COLUMNS, "tilts")]
    out = pd.DataFrame(rows, columns=COLUMNS)
    for name in ("voxel_size", *WEDGE, "near"):
        out[name] = out[name].astype(float)
    for name in ("flipped", "averaged"):
        out[name] = pd.Series([row[name] for row in rows], dtype=object)
    return out.assign(**{name: tomograms[name].to_numpy() for name in rest})


def open_tomogram(tomograms: pd.DataFrame, name: str) -> Tomogram:
    """Open a tomogram of a list.

    Parameters
    ----------
    tomograms
        The list.
    name
        Name of the tomogram.

    Raises
    ------
    ValueError
        If there is none of this name, or `io.open_volume` refuses it.
    """
    found = check(tomograms)
    found = found[found["tomogram"] == name]
    if not len(found):
        raise ValueError(f"there is no tomogram {name!r} among {len(tomograms)}")
    row = found.iloc[0]
    options = {key: row[key] for key in ("flipped", "averaged") if row[key] is not None}
    options |= {key: float(row[key]) for key in ("voxel_size", "near") if np.isfinite(row[key])}
    return io.open_volume(row["path"] if "://" in row["path"] else Path(row["path"]), **options)


def extract(
    tomograms: pd.DataFrame,
    particles: pd.DataFrame,
    *,
    box: int,
    path: str | Path,
    voxel_size: float | None = None,
    check_contrast: bool = True,
    normalise: Literal["box", "outside"] = "box",
    diameter: float | None = None,
    edges: Literal["skip", "flag"] = "skip",
    resume: bool = True,
    progress: bool = True,
    client: Any = None,
) -> Subtomograms:
    """Cut the particles of many tomograms into one store, one tomogram after the other.

    It first checks that every particle has its tomogram and that each tomogram can be opened and holds a box. After an
    interruption the same call resumes.

    Parameters
    ----------
    tomograms
        The list. Its tilts become those of the particles of each tomogram. "dark" contrast is inverted, and the column
        ``contrast`` keeps the contrast of each particle's tomogram.
    particles
        Particles of these tomograms, positions in Å.
    box, voxel_size, normalise, diameter, edges
        As in `subtomograms.extract`; without `voxel_size` all tomograms must have the same.
    path
        The store; an existing one is replaced when the new one is whole.
    check_contrast
        Measure the contrast of every tomogram where it can be told (`tomolab.subtomograms.contrast`), and refuse the other one.
    resume
        Resume interrupted work on `path` if particles, tomograms and parameters are the same.
    progress
        Show a bar.
    client
        As in `subtomograms.extract`: workers of a Dask cluster cut, several tomograms at a time, and this process writes.

    Returns
    -------
    Subtomograms
        The opened store, grouped by tomogram in the order of the table. ``.particles`` and ``.skipped`` together have all rows
        of `particles`.

    Raises
    ------
    ValueError
        If particles belong to unknown tomograms, a tomogram clearly has the other contrast than the list says (where the list
        says nothing, it is "bright"), `subtomograms.extract` would refuse, or no particle can be cut.
    """
    tomograms, particles = check(tomograms).fillna({"contrast": "bright"}), tables.check(particles)
    groups = _groups(tomograms, particles)
    opened = {name: open_tomogram(tomograms, name) for name in groups}
    size = _size(opened) if voxel_size is None else voxel_size
    known = tomograms.set_index("tomogram")
    cuts = {
        name: Cut(box, size, contrast=known.loc[name, "contrast"], normalise=normalise, diameter=diameter, edges=edges)
        for name in groups
    }
    if check_contrast:
        for name in groups:
            # Opened for this alone: a compressed tomogram stays in memory after it was read.
            contrasts.check(open_tomogram(tomograms, name), known.loc[name, "contrast"])
    own = {name: _own(rows, known.loc[name]) for name, rows in groups.items()}
    used = tomograms.loc[tomograms["tomogram"].isin(groups), COLUMNS]
    parameters = used.to_csv() + repr((box, size, normalise, diameter, edges))
    key = extraction.key(parameters, particles, opened.values())
    # Popped, so that a compressed tomogram is released from memory after its last box.
    work = (one for name in groups for one in extraction.tasks(name, opened.pop(name), own[name], cut=cuts[name]))
    store = extraction.store(path, work, key=key, resume=resume, progress=progress, client=parallel.active(client))
    return extraction.warn_skipped(store)


def _groups(tomograms: pd.DataFrame, particles: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Particles of each tomogram, in the order of the table, by the names of the list."""
    if not len(particles):
        raise ValueError("the table of particles is empty")
    names = particles["tomogram"]
    try:
        fitting = match_names(names.unique(), tomograms["tomogram"], what="the list of tomograms")
    except ValueError as error:
        unknown = names[~names.isin(tomograms["tomogram"])]
        counts = [f"{name} ({count})" for name, count in unknown.value_counts(sort=False).items()]
        raise ValueError(
            f"{len(unknown)} of {len(particles)} particles are of {len(counts)} tomograms that the list does not hold, "
            f"{', '.join(counts[:5])}: {error}"
        ) from error
    named = particles.assign(tomogram=names.map(fitting))
    return {str(name): rows for name, rows in named.groupby("tomogram", sort=False)}


def _own(particles: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """Particles with the tilts and the contrast of their tomogram."""
    tilts = {name: float(row[name]) for name in WEDGE if np.isfinite(row[name])}
    return particles.assign(**tilts, contrast=row["contrast"])


def _size(opened: dict[str, Tomogram]) -> float:
    sizes = sorted({tomogram.voxel_size for tomogram in opened.values()})
    if len(sizes) > 1:
        found = ", ".join(f"{size:g}" for size in sizes[:5])
        raise ValueError(f"the tomograms have {len(sizes)} voxel sizes, {found} Å; give the one of the result as voxel_size=")
    return sizes[0]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    name = "" if _unset(row["tomogram"]) else str(row["tomogram"])
    if not name or _unset(row["path"]):
        raise ValueError(f"a tomogram has no {'path' if name else 'name'}: {str(row)[:120]}")
    out: dict[str, Any] = {"tomogram": name, "path": str(row["path"])}
    for key in ("voxel_size", "near"):
        out[key] = _number(row.get(key), f"{name}: {key}")
        if not (np.isnan(out[key]) or out[key] > 0):
            raise ValueError(f"{name}: {key} must be a positive number of Å, got {out[key]:g}")
    out |= dict(zip(WEDGE, _tilts(row, name), strict=True))
    contrasts_known = {"bright": "bright", "dark": "dark"}
    out["contrast"] = _word(row.get("contrast"), contrasts_known, f"{name}: contrast must be 'bright' or 'dark'")
    flips = {"false": False, "no": False, "swap": "swap", "rotate": "rotate"}
    out["flipped"] = _word(row.get("flipped"), flips, f"{name}: flipped must be False, 'swap' or 'rotate'")
    out["averaged"] = _word(row.get("averaged"), {"true": True, "false": False}, f"{name}: averaged must be True or False")
    return out


def _tilts(row: dict[str, Any], name: str) -> tuple[float, float]:
    if not _unset(row.get("tilts")):
        angles = io.tilts.read_tilts(row["tilts"])
        return float(angles.min()), float(angles.max())
    low, high = (_number(row.get(key), f"{name}: {key}") for key in WEDGE)
    if np.isnan(low) != np.isnan(high) or (not np.isnan(low) and not -90 <= low < high <= 90):
        raise ValueError(f"{name}: tilt_min and tilt_max must be lowest < highest within ±90°, got {low:g} and {high:g}")
    return low, high


def _unset(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value)) or str(value).strip().lower() in EMPTY


def _number(value: Any, name: str) -> float:
    if _unset(value):
        return float("nan")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("inf")
    if not np.isfinite(number):
        raise ValueError(f"{name} must be a number, got {str(value)[:40]!r}")
    return number


def _word(value: Any, words: dict[str, Any], fault: str) -> Any:
    if _unset(value):
        return None
    text = str(value).strip().lower()
    if text not in words:
        raise ValueError(f"{fault}, got {text[:40]!r}")
    return words[text]


def _files(place: str | Path) -> list[str]:
    """A tomogram itself, or the tomograms in a folder, one for each name."""
    folder = Path(place)
    if "://" in str(place) or folder.is_file() or (folder.is_dir() and _is_zarr(folder)):
        return [str(place)]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no tomogram {place}")
    # A store of subtomograms is no tomogram.
    found = {path for end in ENDINGS for path in folder.glob(f"*{end}") if not (path / "particles.parquet").exists()}
    if not found:
        raise FileNotFoundError(f"the folder {place} has no tomograms: files that end in {', '.join(ENDINGS)}")
    return sorted(map(str, found))


def _is_zarr(folder: Path) -> bool:
    return folder.suffix == ".zarr" or any((folder / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray"))


def _stated_size(path: str) -> float:
    try:
        return io.open_volume(path).voxel_size
    except ValueError:
        # It is asked for when the tomogram is opened for work.
        return float("nan")


def _beside(folder: Path, place: str) -> str:
    return place if "://" in place else str(folder / place)
