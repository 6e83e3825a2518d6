"""Particle lists of RELION 2 to 5, Warp and M (STAR), to and from particle tables.

All columns that `tomolab.io.lists.star` does not turn into positions and orientations are carried through under their names,
those of the optics table and of data_general too. Our own columns are written as ``tomolabLabel`` and the like, and read back.

A particle of RELION has a box that was cut at its coordinates, and turned by the angles of the subtomogram if there are any
(RELION 4 and 5). Both stay as they were read: what a particle was moved since goes into its origin, and its angles count from
those of the subtomogram. So names of images and priors hold as in RELION. What cannot hold is left out with a warning; which
columns tell of what, `tomolab.io.lists.outdated` lists.
"""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, BOX, POSITION, READ_POSE, SOURCE, TEXTS, WEDGE
from tomolab.io.lists import outdated, star
from tomolab.io.lists.star import TILT_SERIES, Shape, pixel_sizes, relion_boxes, relion_sets
from tomolab.io.lists.star.relion_boxes import FROM_SERIES, IMAGE, ONE_TABLE
from tomolab.io.lists.tomogram_names import nameless
from tomolab.io.paths import fingerprint

NAMES = ("rlnTomoName", "rlnMicrographName", "wrpSourceName")
"""Columns that name tomograms; the first that there is does."""
MICROGRAPH = "rlnMicrographPixelSize"
MAGNIFICATION = 10000.0
GENERAL = "general"
"""Block of RELION 5 that holds for all particles."""
FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1}


def read(
    path: Path,
    blocks: dict[str, pd.DataFrame],
    *,
    voxel_size: float | None,
    shape: Shape | None,
    tomogram: str | None,
    tomogram_list: str | Path | None,
    tilts: bool,
    unit: str | None = None,
) -> pd.DataFrame:
    """Make a particle table of a STAR file, without tilts unless tomolab wrote them into it or a list of tomograms tells.

    Parameters
    ----------
    path, blocks
        The file and what it holds. That may be an optimisation set, which names the file with the particles.
    voxel_size, shape, tomogram, tomogram_list
        As `voxel_size`, `tomogram_shape`, `tomogram` and `tomogram_list` of `io.read_particles`.
    tilts
        Look for the tilts of the series that a list of tomograms names.
    unit
        One of `star.UNITS`, of coordinates that count from the first voxel.

    Raises
    ------
    FileNotFoundError
        If a file that an optimisation set names is not there.
    ValueError
        If the file has no coordinates, a tomogram has no name, or something needed is not known.
    """
    named = relion_sets.optimisation_set(path, blocks)
    if named is not None:
        path, found = named
        blocks, tomogram_list = star.blocks(path), tomogram_list or found
    rows = star.joined(blocks)
    name, names = _names(rows, tomogram)
    out = pd.DataFrame({"tomogram": names}, index=rows.index)
    beside = relion_sets.beside(path) if tomogram_list is None and relion_sets.NAME in rows else None
    if beside is not None and (not _told(rows, voxel_size, shape) or _to_check(rows, voxel_size, beside)):
        tomogram_list = beside
    listed = None if tomogram_list is None else relion_sets.tomograms(tomogram_list)
    known: dict[str, Any] = {"voxel_size": voxel_size, "shape": shape, "listed": listed, "unit": unit}
    positions, matrices = star.geometry(rows, names, **known)
    out[POSITION] = positions
    out[ANGLES] = rotations.to_euler(matrices)
    for column in rows.columns.difference([*star.CONSUMED, name], sort=False):
        ours = _ours(column)
        out[ours] = rows[column] if ours in TEXTS else star.typed(rows[column])
    for column, values in _as_read(rows, blocks, names=out["tomogram"], positions=positions, known=known).items():
        out[column] = values
    if "particle_id" not in out:
        out["particle_id"] = np.arange(len(out))
    if named is not None:
        out[SOURCE[0]], out[SOURCE[1]] = fingerprint(path), np.arange(len(out))
    tomogram_list = tomogram_list or beside
    if tilts and tomogram_list is not None and not set(WEDGE) <= set(out):
        ranges = relion_sets.tilts(tomogram_list)
        if ranges:
            fitting = star.match_names(names.unique(), ranges, what="the table of tilts")
            out[WEDGE] = np.array([ranges[fitting[name]] for name in names]).reshape(-1, 2)
    return out


def _as_read(
    rows: pd.DataFrame, blocks: dict[str, pd.DataFrame], *, names: pd.Series, positions: np.ndarray, known: dict[str, Any]
) -> dict[str, Any]:
    """Columns from which a list can be written again: angles of subtomograms, centres of boxes, poses, and data_general."""
    found: dict[str, Any] = {}
    if set(star.SUBTOMOGRAM_EULER) & set(rows):
        found |= _columns(star.SUBTOMOGRAM_EULER, _numbers_of(rows, star.SUBTOMOGRAM_EULER))
    if outdated.of(rows, *outdated.OF_POSE):
        found |= _columns(READ_POSE, np.hstack([positions, _numbers_of(rows, star.EULER)]))
    if relion_boxes.has(rows):
        with warnings.catch_warnings():
            # What is to be said of the geometry was said when it was read whole.
            warnings.simplefilter("ignore")
            cut = rows.drop(columns=[*star.ORIGINS, *star.OLD_ORIGINS], errors="ignore")
            found |= _columns(BOX, star.geometry(cut, names, **known)[0])
    general = blocks.get(GENERAL)
    if general is not None and outdated.STACKS in general:
        said = general[outdated.STACKS].fillna("nothing").tolist()
        if len(said) != 1 or said[0].lower() not in FLAGS:
            raise ValueError(f"data_{GENERAL}: {outdated.STACKS} must be 0 or 1, got {', '.join(said) or 'nothing'}")
        found[outdated.STACKS] = FLAGS[said[0].lower()]
    return found


def _columns(names: list[str], values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(names, values.T, strict=True))


def _numbers_of(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Columns as numbers (n, columns); 0 where there is none, as in RELION."""
    return np.stack([star.numbers(rows, [name])[:, 0] if name in rows else np.zeros(len(rows)) for name in names], axis=1)


def _names(rows: pd.DataFrame, tomogram: str | None) -> tuple[str | None, pd.Series]:
    """Column that names the tomograms, if there is one, and the name of each row."""
    name = next((name for name in NAMES if name in rows), None)
    if name is None and tomogram is None:
        raise ValueError("there is neither rlnTomoName nor rlnMicrographName; give tomogram=")
    if name is None:
        return None, pd.Series(tomogram, index=rows.index, dtype=object)
    names = rows[name]
    missing = np.flatnonzero(nameless(names))
    if len(missing) == len(rows) and tomogram is not None:
        return name, pd.Series(tomogram, index=rows.index, dtype=object)
    if len(missing):
        some = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        way = "; give tomogram=, the name of the one of all rows" if len(missing) == len(rows) else ""
        raise ValueError(f"{name} names no tomogram in {len(missing)} of {len(rows)} rows (missing or nan), rows {some}{way}")
    tables.check_named(names, tomogram, name)
    return name, names


def _told(rows: pd.DataFrame, voxel_size: float | None, shape: Shape | None) -> bool:
    """Whether sizes are known without a list of tomograms."""
    if set(star.CENTRED) <= set(rows):
        return voxel_size is not None and shape is not None
    return voxel_size is not None or bool({TILT_SERIES, MICROGRAPH} & set(rows))


def _to_check(rows: pd.DataFrame, voxel_size: float | None, beside: Path) -> bool:
    """Whether the list of tomograms that Warp wrote with the particles can tell which of two pixel sizes is meant."""
    return voxel_size is None and beside.name != relion_sets.BESIDE and pixel_sizes.contradict(rows)


def star_tables(
    particles: pd.DataFrame,
    *,
    voxel_size: float | None,
    version: str = "relion31",
    shape: Shape | None = None,
    listed: pd.DataFrame | None = None,
) -> dict[str, pd.DataFrame]:
    """Tables of a STAR file with RELION's columns, by the names of their blocks.

    Parameters
    ----------
    particles
        A particle table that `particles.check` passed.
    voxel_size, shape
        As `voxel_size` and `tomogram_shape` of `io.write_particles`.
    version
        A key of `star.VERSIONS`.
    listed
        List of tomograms of `relion_sets.tomograms`: pixel sizes for ``"relion4"`` and ``"relion5"``, and shapes for the
        latter.

    Raises
    ------
    ValueError
        If something needed is not given, or the version is unknown.
    """
    if version not in star.VERSIONS:
        raise ValueError(f"unknown format {version!r}; there are {', '.join(star.VERSIONS)}")
    voxel_size = star.check_voxel_size(voxel_size, "a STAR file")
    particles = relion_boxes.holding(particles, voxel_size=voxel_size, version=version)
    sizes = _series_sizes(particles, voxel_size, listed) if version in FROM_SERIES else np.full((len(particles), 1), voxel_size)
    cut = outdated.boxes(particles) if relion_boxes.has(particles) else tables.positions(particles)
    rows = pd.DataFrame(index=particles.index)
    if version == "relion5":
        middles = _middles(particles, voxel_size=voxel_size, shape=shape, listed=listed)
        rows[star.CENTRED[::-1]] = (cut - middles)[:, ::-1].round(6)
    else:
        rows[star.PIXELS[::-1]] = (cut / sizes)[:, ::-1].round(6)
    columns, unit = (star.OLD_ORIGINS, voxel_size) if version in ONE_TABLE else (star.ORIGINS, 1.0)
    rows[columns[::-1]] = (relion_boxes.origins(particles, cut) / unit)[:, ::-1].round(6)
    rows[star.EULER] = relion_boxes.angles(particles, turned=version in FROM_SERIES).round(6)
    own = NAMES[0] if version in FROM_SERIES or (version != "warp" and NAMES[1] in particles) else NAMES[1]
    rows[own] = particles["tomogram"]
    # A list that is written is a source itself.
    used = [*star.CONSUMED, own, "tomogram", *POSITION, *ANGLES, *SOURCE, *READ_POSE, *BOX]
    for column in particles.columns.difference(used, sort=False):
        rows[_theirs(column)] = particles[column]
    if "half" in particles:
        # The poses are those of these halves, whatever the list said before.
        rows = rows.assign(**dict.fromkeys(["rlnRandomSubset", *outdated.of(particles, outdated.HALF)], particles["half"]))
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
    if set(star.SUBTOMOGRAM_EULER) & set(particles):
        rows[star.SUBTOMOGRAM_EULER] = particles.reindex(columns=star.SUBTOMOGRAM_EULER).fillna(0.0)
    if version == "relion4" and "rlnTomoParticleId" not in rows:
        rows["rlnTomoParticleId"] = particles["particle_id"]
    blocks = _with_optics(rows, voxel_size=voxel_size, unit=TILT_SERIES)
    if version == "relion4" or outdated.STACKS not in particles:
        return blocks
    return {GENERAL: pd.DataFrame({outdated.STACKS: [int(relion_boxes.stacks(particles))]}), **blocks}


def _series_sizes(particles: pd.DataFrame, voxel_size: float, listed: pd.DataFrame | None) -> np.ndarray:
    """Å per pixel of the tilt images of each particle, (n, 1)."""
    if listed is not None:
        return star.listed_for(listed, particles["tomogram"])[["pixel_size"]].to_numpy()
    if TILT_SERIES in particles:
        missing = int(particles[TILT_SERIES].isna().sum())
        if missing:
            raise ValueError(
                f"{TILT_SERIES} is not known for {missing} of {len(particles)} particles, which came from another list; give "
                "tomogram_list=, or remove the column, so that voxel_size= holds for all"
            )
        return star.numbers(particles, [TILT_SERIES])
    return np.full((len(particles), 1), voxel_size)


def _middles(particles: pd.DataFrame, *, voxel_size: float, shape: Shape | None, listed: pd.DataFrame | None) -> np.ndarray:
    names = particles["tomogram"]
    if shape is not None:
        return star.each(shape, names, "tomogram_shape").reshape(-1, 3) / 2 * voxel_size if len(names) else np.zeros((0, 3))
    if listed is None or not set("zyx") <= set(listed):
        raise ValueError(
            "RELION 5 counts from the middle of the tomogram; give tomogram_shape= (z, y, x), or tomogram_list=, a "
            "tomograms.star that has the sizes"
        )
    found = star.listed_for(listed, names)
    return found[["z", "y", "x"]].to_numpy() / 2 * found[["pixel_size"]].to_numpy()


def _one_table(rows: pd.DataFrame, *, voxel_size: float, version: str) -> pd.DataFrame:
    """Rows as RELION before 3.1 had them: the pixel size is that of the detector (µm) over the magnification."""
    rows = rows.drop(columns=[TILT_SERIES, MICROGRAPH, IMAGE, "rlnPixelSize", outdated.STACKS], errors="ignore")
    rows["rlnMagnification"], rows["rlnDetectorPixelSize"] = MAGNIFICATION, voxel_size * MAGNIFICATION / 1e4
    if version == "warp":
        rows["rlnPixelSize"] = voxel_size
        names = rows[NAMES[1]]
        rows[NAMES[1]] = names.where(names.str.endswith(".tomostar"), names + ".tomostar")
    return rows


def _with_optics(rows: pd.DataFrame, *, voxel_size: float, unit: str) -> dict[str, pd.DataFrame]:
    """Move what belongs to the optics group into its table; groups that came together under one number are parted."""
    # Both columns state the unit of coordinates; only the true one may stay. The optics table says the size of the boxes.
    gone = [MICROGRAPH if unit == TILT_SERIES else TILT_SERIES, outdated.STACKS, *relion_boxes.SIZES[1:]]
    rows = rows.drop(columns=gone, errors="ignore")
    if unit == MICROGRAPH:
        rows[unit] = voxel_size
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
        optics = pd.DataFrame({star.GROUP: [1], "rlnOpticsGroupName": "opticsGroup1", IMAGE: voxel_size, unit: voxel_size})
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
