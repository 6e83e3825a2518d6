"""Particle lists of RELION (STAR), Warp (STAR), Dynamo, STOPGAP and our own (CSV), to and from particle tables.

Read: RELION 3.1 to 5 with an optics table, and the one table of RELION 3.0 and Warp (`tomolab.star` has the geometry). All
other columns are carried through under their names, those of the optics table too. Our own columns are written as
``tomolabLabel`` and the like, and read back. Dynamo and STOPGAP know certain columns only; `tomolab.dynamo` and
`tomolab.stopgap` say which, and keep the names of the tomograms in a list beside the file.
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import dynamo, rotations, star, stopgap
from tomolab import particles as tables
from tomolab.conventions import ANGLES, POSITION, SOURCE, WEDGE
from tomolab.paths import atomic, fingerprint
from tomolab.star import Shape, Tilts

STOPGAP = "stopgap"
FORMATS = [*star.VERSIONS, STOPGAP]
"""What a .star file can be written for."""


def read_particles(
    path: str | Path,
    *,
    voxel_size: float | None = None,
    tilts: Tilts | None = None,
    tomogram_shape: Shape | None = None,
    tomogram: str | None = None,
    tomograms: Collection[str] | None = None,
) -> pd.DataFrame:
    """Read a particle table from a STAR file, a Dynamo table, or a CSV file that `write_particles` made.

    Parameters
    ----------
    path
        .star (RELION, Warp or STOPGAP, by what it holds), .tbl (Dynamo) or .csv.
    voxel_size
        Å per pixel of the coordinates: of the tomogram they were picked in. Taken from the file where it says so.
    tilts
        Tilts between which the particles were observed; taken from the file if it is Dynamo's or tomolab wrote it.
    tomogram_shape
        For centred coordinates (RELION 5): voxels of `voxel_size` that the whole tomogram holds.
    tomogram
        Name of the tomogram, for a file that names none.
    tomograms
        Names that may occur; any other is refused.

    Returns
    -------
    DataFrame
        One row for each row of the file, in its order. ``source_list`` and ``source_row`` say from where each came, for
        `copies.filter_particles`; a CSV file of ours keeps what it says of that.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If there are no coordinates, a tomogram is not among `tomograms`, the voxel size, tilts or tomogram shape are
        needed and not known, the file contradicts `voxel_size`, or `particles.check` finds a fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        if path.suffix == ".csv":
            found = _read_csv(path)
        elif path.suffix == ".tbl":
            found = dynamo.read(path, voxel_size=voxel_size, tilts=tilts, tomogram=tomogram)
        elif path.suffix == ".star":
            found = _read_star(path, voxel_size=voxel_size, tilts=tilts, shape=tomogram_shape, tomogram=tomogram)
        else:
            raise ValueError(f"particle lists are .star, .tbl or .csv, got {path.suffix or 'a name without suffix'}")
        if path.suffix != ".csv":
            found[SOURCE[0]], found[SOURCE[1]] = fingerprint(path), np.arange(len(found))
        found = tables.check(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if tomograms is not None:
        strange = sorted(set(found["tomogram"]) - set(tomograms))
        if strange:
            there = ", ".join(sorted(tomograms)[:5])
            raise ValueError(f"{path} names tomograms that are not there: {', '.join(strange[:5])}; there are {there}")
    return found


def write_particles(
    particles: pd.DataFrame,
    path: str | Path,
    *,
    voxel_size: float | None = None,
    format: str = "relion31",  # noqa: A002 - the word users look for
    tomogram_shape: Shape | None = None,
) -> Path:
    """Write a particle table, whole or not at all: STAR for RELION or STOPGAP, for Dynamo, or CSV (exact), by the suffix.

    RELION's file carries all columns. Dynamo's and STOPGAP's drop those that they have no place for (`dynamo.text` and
    `stopgap.text` name what they keep), and a list of tomograms is written beside them: ``a.doc`` for ``a.tbl``,
    ``a_tomolist.txt`` for ``a.star``.

    Parameters
    ----------
    particles
        The table.
    path
        .star, .tbl (Dynamo) or .csv.
    voxel_size
        Å per voxel of the tomogram in which coordinates are counted; needed but for .csv.
    format
        Of a .star file: ``"relion31"`` (coordinates in pixels from 0), ``"relion5"`` (Å from the middle of the tomogram) or
        ``"stopgap"`` (a motive list).
    tomogram_shape
        For ``"relion5"``: voxels of the tomogram.

    Raises
    ------
    ValueError
        If something needed is not given, the format is unknown, or something in the table cannot stand in such a file.
    """
    path = Path(path)
    particles = tables.check(particles)
    listed = None
    if path.suffix == ".csv":
        text = particles.to_csv(index=False)
    elif path.suffix == ".tbl":
        text, tomograms = dynamo.text(particles, voxel_size=voxel_size)
        listed = path.with_suffix(".doc"), tomograms
    elif path.suffix == ".star" and format == STOPGAP:
        text, tomograms = stopgap.text(particles, voxel_size=voxel_size)
        listed = stopgap.companion(path), tomograms
    elif path.suffix == ".star":
        blocks = star_tables(particles, voxel_size=voxel_size, version=format, shape=tomogram_shape)
        text = star.text(blocks, version=star.VERSIONS[format])
    else:
        raise ValueError(f"particle lists are .star, .tbl or .csv, got {path.suffix or 'a name without suffix'} in {path}")
    if listed is not None:
        with atomic(listed[0]) as temporary:
            temporary.write_text(listed[1])
    with atomic(path) as temporary:
        temporary.write_text(text)
    return path


def _read_csv(path: Path) -> pd.DataFrame:
    found = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    return pd.DataFrame({name: found[name] if name in ("tomogram", "label") else star.typed(found[name]) for name in found})


def _read_star(
    path: Path, *, voxel_size: float | None, tilts: Tilts | None, shape: Shape | None, tomogram: str | None
) -> pd.DataFrame:
    blocks = star.blocks(path)
    if stopgap.BLOCK in blocks:
        return stopgap.table(blocks[stopgap.BLOCK], path, voxel_size=voxel_size, tilts=tilts, tomogram=tomogram)
    rows = star.joined(blocks)
    named = next((name for name in ("rlnTomoName", "rlnMicrographName") if name in rows), None)
    if named is None and tomogram is None:
        raise ValueError("there is neither rlnTomoName nor rlnMicrographName; give tomogram=")
    out = pd.DataFrame({"tomogram": tomogram if named is None else rows[named]}, index=rows.index)
    positions, matrices = star.geometry(rows, out["tomogram"], voxel_size=voxel_size, shape=shape)
    out[POSITION] = positions
    out[ANGLES] = rotations.to_euler(matrices)
    for column in rows.columns.difference([*star.CONSUMED, named], sort=False):
        ours = _ours(column)
        out[ours] = rows[column] if ours == "label" else star.typed(rows[column])
    if "particle_id" not in out:
        out["particle_id"] = np.arange(len(out))
    if tilts is not None:
        out[WEDGE] = star.tilts_of(tilts, out["tomogram"])
    elif not set(WEDGE) <= set(out):
        raise ValueError("the file does not say between which tilts the particles were observed; give tilts=(lowest, highest)")
    return out


def star_tables(
    particles: pd.DataFrame, *, voxel_size: float | None, version: str = "relion31", shape: Shape | None = None
) -> dict[str, pd.DataFrame]:
    """Optics and particles with RELION's columns.

    Parameters
    ----------
    particles
        A particle table that `particles.check` passed.
    voxel_size, shape
        As `voxel_size` and `tomogram_shape` of `write_particles`.
    version
        ``"relion31"`` or ``"relion5"``.

    Raises
    ------
    ValueError
        If something needed is not given, or the version is unknown.
    """
    if version not in star.VERSIONS:
        raise ValueError(f"unknown format {version!r}; there are {', '.join(FORMATS)}")
    voxel_size = star.check_voxel_size(voxel_size, "a STAR file")
    rows = pd.DataFrame(index=particles.index)
    positions = tables.positions(particles)
    if version == "relion5":
        if shape is None:
            raise ValueError("RELION 5 counts from the middle of the tomogram; give tomogram_shape= (z, y, x)")
        sizes = np.array([star.of(shape, name, "tomogram_shape") for name in particles["tomogram"]], dtype=float)
        rows[star.CENTRED[::-1]] = (positions - sizes.reshape(-1, 3) / 2 * voxel_size)[:, ::-1].round(6)
    else:
        rows[star.PIXELS[::-1]] = (positions / voxel_size)[:, ::-1].round(6)
    rows[star.ORIGINS[::-1]] = 0.0
    rows[star.EULER] = particles[ANGLES].to_numpy().round(6)
    own_name = "rlnTomoName" if version == "relion5" or "rlnMicrographName" in particles else "rlnMicrographName"
    rows[own_name] = particles["tomogram"]
    # A list that is written is a source itself.
    known = [*star.CONSUMED, own_name, "tomogram", *POSITION, *ANGLES, *SOURCE]
    for column in particles.columns.difference(known, sort=False):
        rows[_theirs(column)] = particles[column]
    return _with_optics(rows, voxel_size=voxel_size, version=version)


def _with_optics(rows: pd.DataFrame, *, voxel_size: float, version: str) -> dict[str, pd.DataFrame]:
    """Move what belongs to the optics group into its table; groups that came together under one number are parted."""
    # Both columns state the unit of coordinates; only the true one may stay.
    unit, other = "rlnMicrographPixelSize", "rlnTomoTiltSeriesPixelSize"
    if version == "relion5":
        unit, other = other, unit
    rows = rows.drop(columns=[other], errors="ignore")
    if version == "relion31" or unit not in rows:
        rows[unit] = voxel_size
    if "rlnImagePixelSize" not in rows:
        rows["rlnImagePixelSize"] = voxel_size
    if star.GROUP not in rows:
        rows[star.GROUP] = 1
    if "rlnOpticsGroupName" not in rows:
        rows["rlnOpticsGroupName"] = "opticsGroup" + rows[star.GROUP].astype(str)
    columns = [name for name in star.OPTICS if name in rows]
    kinds = rows.groupby([star.GROUP, *columns], sort=True, dropna=False).ngroup()
    if kinds.nunique() != rows[star.GROUP].nunique():
        rows[star.GROUP] = kinds + 1
    optics = rows[[star.GROUP, *columns]].drop_duplicates(star.GROUP).sort_values(star.GROUP)
    if optics.empty:
        # A table without rows cannot be followed by another one.
        optics = pd.DataFrame(
            {star.GROUP: [1], "rlnOpticsGroupName": "opticsGroup1", "rlnImagePixelSize": voxel_size, unit: voxel_size}
        )
    return {"optics": optics, "particles": rows.drop(columns=columns)}


def _theirs(column: str) -> str:
    """Name of a column in a STAR file: ``tilt_min`` becomes tomolabTiltMin, a name that is not all lower case stays."""
    name = "tomolab" + "".join(part.capitalize() for part in column.split("_"))
    if re.search(r"\s", column) or not column:
        raise ValueError(f"column {column!r} cannot stand in a STAR file: its name has a blank")
    return name if re.fullmatch(r"[a-z][a-z0-9_]*", column) and _ours(name) == column else column


def _ours(column: str) -> str:
    if not re.fullmatch(r"tomolab[A-Z][A-Za-z0-9]*", column):
        return column
    return re.sub(r"(?<!^)([A-Z])", r"_\1", column.removeprefix("tomolab")).lower()
