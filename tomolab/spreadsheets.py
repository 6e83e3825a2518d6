"""Particle lists as CSV: our own, exact, and tables of other programs, to particle tables.

A table of another program has a line of names and columns ``x``, ``y``, ``z`` (or ``x_coord``, ``pos_x`` and the like, or
``axis-2``, ``axis-1``, ``axis-0``, as napari writes points). It says neither its unit nor its origin: the unit must be
stated, and 0 is the centre of the first voxel. Angles are read from ``rot``, ``tilt``, ``psi``, as RELION's. All other
columns are carried through.
"""

import csv
import io
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import paths, star
from tomolab.conventions import ANGLES, POSITION, SOURCE, TEXTS, WEDGE
from tomolab.particles import REQUIRED

UNITS = ("angstrom", "voxel")
FAMILIES = [
    *((f"{before}z{after}", f"{before}y{after}", f"{before}x{after}") for before, after in (("", ""), ("", "_coord"))),
    *((f"{before}_z", f"{before}_y", f"{before}_x") for before in ("coord", "pos", "position", "center", "centroid")),
    ("axis-0", "axis-1", "axis-2"),
]
"""Names of columns with coordinates zyx, in lower case."""
TOMOGRAMS = ("tomogram", "tomo_name", "tomo_id", "tomo", "experiment", "run_name", "run")
"""Names of the column that names the tomogram."""
IDS = ("particle_id", "id")


def read(path: Path, *, unit: str | None, voxel_size: float | None, tomogram: str | None) -> pd.DataFrame:
    """Read a particle table; a table of another program lacks the tilts.

    Parameters
    ----------
    path
        .csv, its values parted by commas, or by semicolons or tabs if there are no commas in the first line.
    unit
        ``"angstrom"`` or ``"voxel"``, of the coordinates of another program.
    voxel_size
        Å per voxel, for ``"voxel"``.
    tomogram
        Name of the tomogram where no column names it.

    Raises
    ------
    ValueError
        If unit or voxel size are needed and not given, or it is not clear which columns are meant. The message lists them.
    """
    rows = _rows(paths.text(path))
    if set(REQUIRED) <= set(rows):
        if unit not in (None, "angstrom"):
            raise ValueError(f"a list with the columns of tomolab is in Å, but unit={unit!r} was given")
        return pd.DataFrame({name: rows[name] if name in TEXTS else star.typed(rows[name]) for name in rows})
    found = _foreign(rows, scale=_scale(unit, voxel_size, rows), tomogram=tomogram)
    return found.assign(**{SOURCE[0]: paths.fingerprint(path), SOURCE[1]: np.arange(len(found))})


def _rows(text: str) -> pd.DataFrame:
    """All values as text, missing where there is nothing."""
    head = text.split("\n", 1)[0]
    if not head.strip():
        raise ValueError("the first line must name the columns, but it is empty")
    mark = next((mark for mark in ",;\t" if mark in head), ",")
    if head.count(mark) >= star.WIDEST:
        raise ValueError(f"the first line names {head.count(mark) + 1} columns, expected at most {star.WIDEST}")
    try:
        with warnings.catch_warnings():
            # pandas would cut a row that is too long, with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            rows = pd.read_csv(io.StringIO(text), sep=mark, dtype=str, keep_default_na=False, na_values=[""], index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ValueError(f"this is not a table of values parted by {mark!r} ({str(error).strip()})") from error
    # pandas would call the second of two columns x "x.1".
    names = next(iter(pd.read_csv(io.StringIO(head), sep=mark, header=None, dtype=str, keep_default_na=False).to_numpy()))
    names = [str(name) for name in names]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"columns must have different names, but these are there twice: {', '.join(twice)}")
    if rows.iloc[:, -1].isna().any():
        _check_widths(text, mark, len(names))
    return rows


def _check_widths(text: str, mark: str, width: int) -> None:
    """Refuse rows with too few values, which pandas would fill up, as the last of a file is that was cut."""
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=mark)):
            if row and len(row) != width:
                raise ValueError(f"row {number} has {len(row)} values, expected {width}: {mark.join(row)[:60]!r}")
    except csv.Error as error:
        raise ValueError(f"this is not a table of values parted by {mark!r} ({error})") from error


def _scale(unit: str | None, voxel_size: float | None, rows: pd.DataFrame) -> float:
    """Å per unit of the coordinates."""
    if unit not in UNITS:
        raise ValueError(
            f"a table of another program does not say its unit; give unit='angstrom', or unit='voxel' with voxel_size=, got "
            f"unit={unit!r}. It has the columns {_list(rows)}; a list of tomolab has {', '.join(REQUIRED)}"
        )
    return 1.0 if unit == "angstrom" else star.check_voxel_size(voxel_size, "a list in voxels")


def _foreign(rows: pd.DataFrame, *, scale: float, tomogram: str | None) -> pd.DataFrame:
    lower = {name.strip().lower(): name for name in rows}
    families = [names for names in FAMILIES if set(names) <= set(lower)]
    if len(families) != 1:
        told = " and ".join("/".join(reversed(names)) for names in families) or "none of x, y, z"
        raise ValueError(f"one set of columns must be the coordinates, but there are {told}; the columns are {_list(rows)}")
    places = [lower[name] for name in families[0]]
    own, numbers = _one(lower, TOMOGRAMS, rows), _one(lower, IDS, rows)
    if own is None and tomogram is None:
        raise ValueError(f"no column names the tomogram; give tomogram=. The columns are {_list(rows)}")
    angles = [lower[name] for name in ANGLES if name in lower]
    if len(angles) not in (0, 3):
        raise ValueError(
            f"angles are read as rot, tilt, psi (RELION's), but there is only {', '.join(angles)}, of a convention that is not "
            f"known; rename or remove it. The columns are {_list(rows)}"
        )
    out = pd.DataFrame({"tomogram": tomogram if own is None else rows[own]}, index=rows.index)
    # Ids that are text, such as hashes, are carried through under their name.
    counted = numbers is not None and rows[numbers].astype(str).str.fullmatch(r"\d{1,18}").all()
    out["particle_id"] = rows[numbers].astype("int64") if counted else np.arange(len(rows))
    out[POSITION] = star.numbers(rows, places) * scale
    out[ANGLES] = star.numbers(rows, angles) if angles else 0.0
    used = {*places, *angles, own, *([numbers] if counted else [])}
    for name in rows:
        if name not in used:
            if name in REQUIRED and name not in WEDGE:
                raise ValueError(f"column {name} is not what tomolab calls so; rename it. The columns are {_list(rows)}")
            out[name] = rows[name] if name in TEXTS else star.typed(rows[name])
    return out


def _one(lower: dict[str, str], names: tuple[str, ...], rows: pd.DataFrame) -> str | None:
    """The column of one of these names, or None; a ValueError if there are several."""
    found = [lower[name] for name in names if name in lower]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} may mean the same; keep one of them. The columns are {_list(rows)}")
    return found[0] if found else None


def _list(rows: pd.DataFrame) -> str:
    return ", ".join(map(str, rows)) or "nothing"
