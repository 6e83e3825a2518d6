"""Particle lists of RELION 2 to 5, Warp and M (STAR), to and from particle tables.

All columns that this package does not turn into positions and orientations are carried through under their names,
those of the optics table and of data_general too. Our own columns are written as ``tomolabLabel`` and the like, and read back.

A particle of RELION has a box that was cut at its coordinates, and turned by the angles of the subtomogram if there are any
(RELION 4 and 5). Both stay as they were read: what a particle was moved since goes into its origin, and its angles count from
those of the subtomogram. So names of images and priors hold as in RELION. What cannot hold is left out with a warning;
`tomolab.io.lists.outdated` lists which columns describe what.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, BOX, POSITION, READ_POSE, SOURCE, TEXTS, WEDGE
from tomolab.io.lists import outdated
from tomolab.io.lists.options import MissingOptionError, ReadOptions, Shape, check_voxel_size
from tomolab.io.lists.star import coordinates, parsing, pixel_sizes, relion_boxes, relion_sets
from tomolab.io.lists.star.columns import (
    CENTRED,
    CONSUMED,
    DETECTOR,
    EULER,
    GENERAL,
    GROUP,
    IMAGE,
    MAGNIFICATION,
    MICROGRAPH,
    MICROGRAPH_NAME,
    OLD_ORIGINS,
    OPTICS,
    ORIGINS,
    PIXELS,
    REFERENCE,
    STACKS,
    SUBTOMOGRAM_EULER,
    TILT_SERIES,
    TOMOGRAM,
    VERSIONS,
)
from tomolab.io.lists.star.relion_boxes import FROM_SERIES, ONE_TABLE
from tomolab.io.lists.tomogram_names import listed_for, match_names, nameless
from tomolab.io.paths import fingerprint

NAMES = (TOMOGRAM, MICROGRAPH_NAME, "wrpSourceName")
"""Columns that name tomograms; the first that there is counts."""
WRITTEN_MAGNIFICATION = 10000.0
FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1}


def read(path: Path, blocks: dict[str, pd.DataFrame], options: ReadOptions) -> pd.DataFrame:
    """Make a particle table of the blocks of a STAR file, without tilts unless the list or a list of tomograms has them.

    An optimisation set names the file with the particles, which is read instead.

    Raises
    ------
    FileNotFoundError
        If a file that an optimisation set names is not there.
    ValueError
        If the file has no coordinates, a tomogram has no name, or something needed is not known.
    """
    tomogram_list = options.tomogram_list
    named = relion_sets.optimisation_set(path, blocks)
    if named is not None:
        path, found = named
        blocks, tomogram_list = parsing.blocks(path), tomogram_list or found
    rows = coordinates.joined(blocks)
    name, names = _names(rows, options.tomogram)
    out = pd.DataFrame({"tomogram": names}, index=rows.index)
    beside = relion_sets.beside(path) if tomogram_list is None and TOMOGRAM in rows else None
    if beside is not None and (not _sizes_known(rows, options) or _to_check(rows, options, beside)):
        tomogram_list = beside
    listed = None if tomogram_list is None else relion_sets.tomograms(tomogram_list)
    poses = coordinates.geometry(rows, names, options, listed=listed)
    out[POSITION] = poses.positions
    out[ANGLES] = rotations.to_euler(poses.matrices)
    others = {column: _ours(column) for column in rows.columns.difference([*CONSUMED, name], sort=False)}
    # At once: a table takes longer for each further column, the more it has.
    columns = {ours: rows[column] if ours in TEXTS else parsing.typed(rows[column]) for column, ours in others.items()}
    out = pd.DataFrame(dict(out.items()) | columns).assign(**_as_read(rows, blocks, poses))
    if "particle_id" not in out:
        out["particle_id"] = np.arange(len(out))
    if named is not None:
        out[SOURCE[0]], out[SOURCE[1]] = fingerprint(path), np.arange(len(out))
    tomogram_list = tomogram_list or beside
    if options.tilts is None and tomogram_list is not None and not set(WEDGE) <= set(out):
        ranges = relion_sets.tilts(tomogram_list)
        if ranges:
            fitting = match_names(names.unique(), ranges, what="the table of tilts")
            out[WEDGE] = np.array([ranges[fitting[name]] for name in names]).reshape(-1, 2)
    return out


def _as_read(rows: pd.DataFrame, blocks: dict[str, pd.DataFrame], poses: coordinates.Geometry) -> dict[str, Any]:
    """Columns from which a list can be written again: angles of subtomograms, centres of boxes, poses, and data_general."""
    found: dict[str, Any] = {}
    if set(SUBTOMOGRAM_EULER) & set(rows):
        found |= zip(SUBTOMOGRAM_EULER, coordinates.numbers_or_zeros(rows, SUBTOMOGRAM_EULER).T, strict=True)
    if outdated.among(rows, outdated.POSES):
        angles = coordinates.numbers_or_zeros(rows, EULER)
        found |= zip(READ_POSE, np.hstack([poses.positions, angles]).T, strict=True)
    if relion_boxes.has(rows):
        found |= zip(BOX, poses.boxes.T, strict=True)
    general = blocks.get(GENERAL)
    if general is not None and STACKS in general:
        flags = general[STACKS].fillna("nothing").tolist()
        if len(flags) != 1 or flags[0].lower() not in FLAGS:
            raise ValueError(f"data_{GENERAL}: {STACKS} must be 0 or 1, got {', '.join(flags) or 'nothing'}")
        found[STACKS] = FLAGS[flags[0].lower()]
    return found


def _names(rows: pd.DataFrame, tomogram: str | None) -> tuple[str | None, pd.Series]:
    """Column that names the tomograms, if there is one, and the name of each row."""
    name = next((name for name in NAMES if name in rows), None)
    if name is None and tomogram is None:
        raise MissingOptionError("there is neither rlnTomoName nor rlnMicrographName; give tomogram=", "tomogram")
    if name is None:
        return None, pd.Series(tomogram, index=rows.index, dtype=object)
    names = rows[name]
    missing = np.flatnonzero(nameless(names))
    if len(missing) == len(rows) and tomogram is not None:
        return name, pd.Series(tomogram, index=rows.index, dtype=object)
    if len(missing):
        some = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        way = "; give tomogram=, the name of the one of all rows" if len(missing) == len(rows) else ""
        message = f"{name} names no tomogram in {len(missing)} of {len(rows)} rows (missing or nan), rows {some}{way}"
        raise MissingOptionError(message, "tomogram") if way else ValueError(message)
    tables.check_named(names, tomogram, name)
    return name, names


def _sizes_known(rows: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether sizes are known without a list of tomograms."""
    if set(CENTRED) <= set(rows):
        return options.voxel_size is not None and options.tomogram_shape is not None
    return options.voxel_size is not None or bool({TILT_SERIES, MICROGRAPH} & set(rows))


def _to_check(rows: pd.DataFrame, options: ReadOptions, beside: Path) -> bool:
    """Whether the list of tomograms that Warp wrote with the particles can tell which of two pixel sizes is meant."""
    return options.voxel_size is None and beside.name != relion_sets.BESIDE and pixel_sizes.contradict(rows)


def star_tables(
    particles: pd.DataFrame,
    *,
    voxel_size: float | None,
    version: str = "relion31",
    shape: Shape | None = None,
    listed: pd.DataFrame | None = None,
) -> dict[str, pd.DataFrame]:
    """Tables of a STAR file with RELION's columns, by the names of their blocks, as `io.write_particles` needs them.

    `particles` passed `particles.check`, `version` is one of `VERSIONS`, and `listed` is a list of tomograms of
    `relion_sets.tomograms`. A ValueError is raised if something needed is not given, or the version is unknown.
    """
    if version not in VERSIONS:
        raise ValueError(f"unknown format {version!r}; there are {', '.join(VERSIONS)}")
    voxel_size = check_voxel_size(voxel_size, "a STAR file")
    particles = relion_boxes.holding(particles, voxel_size=voxel_size, version=version)
    sizes = _series_sizes(particles, voxel_size, listed) if version in FROM_SERIES else np.full((len(particles), 1), voxel_size)
    cut = outdated.boxes(particles) if relion_boxes.has(particles) else tables.positions(particles)
    rows = pd.DataFrame(index=particles.index)
    if version == "relion5":
        names, what = particles["tomogram"], coordinates.FROM_MIDDLE
        extents = coordinates.extents(names, voxel_size=voxel_size, shape=shape, listed=listed, what=what)
        rows[CENTRED[::-1]] = (cut - extents / 2)[:, ::-1].round(6)
    else:
        rows[PIXELS[::-1]] = (cut / sizes)[:, ::-1].round(6)
    columns, unit = (OLD_ORIGINS, voxel_size) if version in ONE_TABLE else (ORIGINS, 1.0)
    rows[columns[::-1]] = (relion_boxes.origins(particles, cut) / unit)[:, ::-1].round(6)
    rows[EULER] = relion_boxes.angles(particles, turned=version in FROM_SERIES).round(6)
    own = TOMOGRAM if version in FROM_SERIES or (version != "warp" and MICROGRAPH_NAME in particles) else MICROGRAPH_NAME
    rows[own] = particles["tomogram"]
    # A list that is written is a source itself.
    used = [*CONSUMED, own, "tomogram", *POSITION, *ANGLES, *SOURCE, *READ_POSE, *BOX]
    for column in particles.columns.difference(used, sort=False):
        rows[_theirs(column)] = particles[column]
    if "half" in particles:
        # The poses are those of these halves, whatever the list said before.
        rows = rows.assign(
            **dict.fromkeys(["rlnRandomSubset", *outdated.among(particles, outdated.HALF_SETS)], particles["half"])
        )
    if version in ONE_TABLE:
        return {"": _one_table(rows, voxel_size=voxel_size, version=version)}
    if IMAGE not in rows:
        # Where no box is named, its pixels are those of the coordinates, so that a reader has one size to choose from.
        plain = pd.Series(sizes[:, 0], index=rows.index)
        rows[IMAGE] = relion_boxes.pixels(particles).fillna(plain) if relion_boxes.has(particles) else plain
    if version not in FROM_SERIES:
        return _with_optics(rows, voxel_size=voxel_size, unit=MICROGRAPH)
    return _of_series(rows.assign(**{TILT_SERIES: sizes[:, 0]}), particles, voxel_size=voxel_size, version=version)


def _of_series(rows: pd.DataFrame, particles: pd.DataFrame, *, voxel_size: float, version: str) -> dict[str, pd.DataFrame]:
    """Tables of RELION 4 and 5 with the angles of the subtomograms, and data_general where RELION 5 looks for it."""
    if set(SUBTOMOGRAM_EULER) & set(particles):
        rows[SUBTOMOGRAM_EULER] = particles.reindex(columns=SUBTOMOGRAM_EULER).fillna(0.0)
    if version == "relion4" and "rlnTomoParticleId" not in rows:
        rows["rlnTomoParticleId"] = particles["particle_id"]
    blocks = _with_optics(rows, voxel_size=voxel_size, unit=TILT_SERIES)
    if version == "relion4" or STACKS not in particles:
        return blocks
    return {GENERAL: pd.DataFrame({STACKS: [int(relion_boxes.stacks(particles))]}), **blocks}


def _series_sizes(particles: pd.DataFrame, voxel_size: float, listed: pd.DataFrame | None) -> np.ndarray:
    """Å per pixel of the tilt images of each particle, (n, 1)."""
    if listed is not None:
        return listed_for(listed, particles["tomogram"])[["pixel_size"]].to_numpy()
    if TILT_SERIES in particles:
        missing = int(particles[TILT_SERIES].isna().sum())
        if missing:
            raise ValueError(
                f"{TILT_SERIES} is not known for {missing} of {len(particles)} particles, which came from another list; give "
                "tomogram_list=, or remove the column, so that voxel_size= holds for all"
            )
        return parsing.numbers(particles, [TILT_SERIES])
    return np.full((len(particles), 1), voxel_size)


def _one_table(rows: pd.DataFrame, *, voxel_size: float, version: str) -> pd.DataFrame:
    """Rows as RELION before 3.1 had them: the pixel size is that of the detector (µm) over the magnification."""
    rows = rows.drop(columns=[TILT_SERIES, MICROGRAPH, IMAGE, REFERENCE, STACKS], errors="ignore")
    rows[MAGNIFICATION], rows[DETECTOR] = WRITTEN_MAGNIFICATION, voxel_size * WRITTEN_MAGNIFICATION / 1e4
    if version == "warp":
        rows[REFERENCE] = voxel_size
        names = rows[MICROGRAPH_NAME]
        rows[MICROGRAPH_NAME] = names.where(names.str.endswith(".tomostar"), names + ".tomostar")
    return rows


def _with_optics(rows: pd.DataFrame, *, voxel_size: float, unit: str) -> dict[str, pd.DataFrame]:
    """Move what belongs to the optics group into its table; groups that came together under one number are parted."""
    # Both columns state the unit of coordinates; only the true one may stay. The optics table says the size of the boxes.
    gone = [MICROGRAPH if unit == TILT_SERIES else TILT_SERIES, STACKS, REFERENCE, DETECTOR, MAGNIFICATION]
    rows = rows.drop(columns=gone, errors="ignore")
    if unit == MICROGRAPH:
        rows[unit] = voxel_size
    if GROUP not in rows:
        rows[GROUP] = 1
    if "rlnOpticsGroupName" not in rows:
        rows["rlnOpticsGroupName"] = "opticsGroup" + rows[GROUP].astype(str)
    columns = [name for name in OPTICS if name in rows]
    different = rows.groupby([GROUP, *columns], sort=True, dropna=False).ngroup()
    if different.nunique() != rows[GROUP].nunique():
        rows[GROUP] = different + 1
    optics = rows[[GROUP, *columns]].drop_duplicates(GROUP).sort_values(GROUP)
    if optics.empty:
        # A table without rows cannot be followed by another one.
        optics = pd.DataFrame({GROUP: [1], "rlnOpticsGroupName": "opticsGroup1", IMAGE: voxel_size, unit: voxel_size})
    return {"optics": optics, "particles": rows.drop(columns=columns)}


def _theirs(column: str) -> str:
    """Name of a column in a STAR file: ``tilt_min`` becomes tomolabTiltMin, a name that is not all lower case stays."""
    name = "tomolab" + "".join(word.capitalize() for word in column.split("_"))
    if re.search(r"\s", column) or not column:
        raise ValueError(f"column {column!r} cannot stand in a STAR file: its name has a blank")
    return name if re.fullmatch(r"[a-z][a-z0-9_]*", column) and _ours(name) == column else column


def _ours(column: str) -> str:
    if not re.fullmatch(r"tomolab[A-Z][A-Za-z0-9]*", column):
        return column
    return re.sub(r"(?<!^)([A-Z])", r"_\1", column.removeprefix("tomolab")).lower()
