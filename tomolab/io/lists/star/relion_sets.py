"""RELION's and Warp's optimisation sets and lists of tomograms: particles, tomograms, their sizes and tilts.

A list of tomograms (tomograms.star) has a row for each series: ``rlnTomoName``, the pixel size of the tilt images
``rlnTomoTiltSeriesPixelSize``, and the voxels ``rlnTomoSizeX``, Y, Z of the tomogram at that pixel size, unbinned (RELION's
``tomogram_set.cpp``). In RELION 5 it names a file with the tilts of each series, ``rlnTomoTiltSeriesStarFile``; in RELION 4 and
Warp it has a block for each series with the matrices that project a tomogram into its tilt images. An optimisation set names a
list of particles and a list of tomograms. Paths count from the folder of the project, or from that in which WarpTools ran.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.io.lists.star import parsing
from tomolab.io.lists.star.columns import TILT_SERIES, TOMOGRAM
from tomolab.io.paths import inside

SIZES = {"z": "rlnTomoSizeZ", "y": "rlnTomoSizeY", "x": "rlnTomoSizeX"}
PARTICLES, TOMOGRAMS = "rlnTomoParticlesFile", "rlnTomoTomogramsFile"
SERIES, ANGLES = "rlnTomoTiltSeriesStarFile", ("rlnTomoYTilt", "rlnTomoNominalStageTiltAngle")
"""Column of a list of tomograms, and of the files that it names: the tilt as aligned, or else as set."""
PROJECTION = "rlnTomoProjZ"
"""Third row of the matrix that projects a tomogram: the direction of the beam, (x, y, z), and the depth."""
VECTOR = re.compile(r"\[([^\[\]]*)\]")
STEEPEST = 30.0
"""Degrees by which the beam may lean out of the plane of a tilt about y."""
BESIDE = "tomograms.star"
"""Name under which RELION keeps the list of tomograms; Warp puts the name of the list of particles before it."""


def beside(path: Path) -> Path | None:
    """List of tomograms beside a list of particles, under the name that Warp or RELION gives it; None if there is none."""
    places = (path.with_name(f"{path.stem}_{BESIDE}"), path.with_name(BESIDE))
    return next((place for place in places if place.is_file()), None)


def tomograms(path: str | Path) -> pd.DataFrame:
    """Tomograms of a list by name: ``pixel_size`` (Å), and voxels of that size along ``z``, ``y``, ``x`` if it has them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If there is no table of tomograms, a tomogram is in it twice, or something is not a positive number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list of tomograms {path}")
    try:
        return _tomograms(parsing.blocks(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _tomograms(blocks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    sizes = (TILT_SERIES, "rlnPixelSize")
    found = ((block, size) for block in blocks.values() for size in sizes if {TOMOGRAM, size} <= set(block))
    block, size = next(found, (None, ""))
    if block is None:
        needed = f"{TOMOGRAM} and {TILT_SERIES}"
        raise ValueError(f"this is no list of tomograms: no table has {needed}: {parsing.described(blocks)}")
    columns = {"pixel_size": size, **(SIZES if set(SIZES.values()) <= set(block) else {})}
    missing = np.flatnonzero(block[TOMOGRAM].isna())
    if len(missing):
        raise ValueError(f"{TOMOGRAM} has no value in {len(missing)} of {len(block)} rows, first row {missing[0]}")
    numbers = parsing.numbers(block, list(columns.values()))
    out = pd.DataFrame(numbers, columns=list(columns), index=pd.Index(block[TOMOGRAM], name="tomogram"))
    wrong = out.index[(out <= 0).any(axis=1)]
    if len(wrong):
        raise ValueError(f"sizes must be positive numbers, but those of {', '.join(wrong[:5])} are not")
    twice = out.index[out.index.duplicated()]
    if len(twice):
        raise ValueError(f"the list of tomograms has {', '.join(twice[:5])} more than once")
    return out


def tilts(path: str | Path) -> dict[str, tuple[float, float]]:
    """(Lowest, highest) tilt in degrees of each tomogram of a list, as far as it names files with tilts or has matrices.

    Raises
    ------
    FileNotFoundError
        If a file that it names is not there.
    ValueError
        If a path leads out of the project, a file has no tilts, or the tilt axis is not y.
    """
    path = Path(path)
    found: dict[str, tuple[float, float]] = {}
    blocks = parsing.blocks(path)
    for block in (block for block in blocks.values() if TOMOGRAM in block):
        names = block[TOMOGRAM].dropna()
        if SERIES in block:
            found |= {name: _range(_find(path, series)) for name, series in zip(block[TOMOGRAM], block[SERIES], strict=True)}
        for name in names[names.isin([name for name in blocks if PROJECTION in blocks[name]]) & ~names.isin(found)]:
            found[name] = _extremes(_projected(blocks[name], f"{path}: data_{name}"))
    return found


def _range(path: Path) -> tuple[float, float]:
    tables = parsing.blocks(path).values()
    projected = next((table for table in tables if PROJECTION in table and not table.empty), None)
    if projected is not None:
        # RELION takes the matrices where there are both (tomogram_set.cpp).
        return _extremes(_projected(projected, str(path)))
    column = next(((table, name) for name in ANGLES for table in tables if name in table), None)
    if column is None or column[0].empty:
        raise ValueError(f"{path} has neither {' nor '.join(ANGLES)}")
    return _extremes(parsing.numbers(column[0], [column[1]]))


def _extremes(angles: np.ndarray) -> tuple[float, float]:
    return float(angles.min()), float(angles.max())


def _projected(table: pd.DataFrame, where: str) -> np.ndarray:
    """Tilts (n,) in degrees from the third rows of the matrices.

    At tilt t a point at (x, z) lies at the depth z cos t - x sin t, in RELION (``tomogram.cpp``) as in ours, and in the third
    row stand -sin t and cos t, however images are turned. Warp writes matrices of this form with its own angle, which is -t.
    """
    rows = np.array([_vector(text, where) for text in table[PROJECTION]]).reshape(-1, 4)
    x, y, z = rows[:, :3].T * np.where(rows[:, 2] < 0, -1, 1)
    if not len(rows) or (np.hypot(x, z) <= np.abs(y) / np.tan(np.radians(STEEPEST))).any():
        raise ValueError(f"{where}: {PROJECTION} is not that of a tilt about y in {len(rows)} images; give tilts=")
    return np.degrees(np.arctan2(-x, z))


def _vector(text: object, where: str) -> list[float]:
    """Four numbers in brackets."""
    inside_brackets = VECTOR.fullmatch(str(text).strip())
    words = [] if inside_brackets is None else inside_brackets[1].split(",")
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != 4 or not np.isfinite(values).all():
        raise ValueError(f"{where}: {PROJECTION} must be [x,y,z,w] with four numbers, got {str(text)[:60]!r}")
    return values


def optimisation_set(path: Path, blocks: dict[str, pd.DataFrame]) -> tuple[Path, Path | None] | None:
    """Lists of particles and, if it is named, of tomograms that an optimisation set names; None if `blocks` are none.

    Paths count from the project if the set lies in a folder of one of its jobs (``Refine3D/job012``), as RELION counts them.
    Else they count from the folder of the set, one of those above it, or the working folder, whichever has the file.

    Raises
    ------
    FileNotFoundError
        If there is no file of such a name.
    ValueError
        If a path leads out of these folders, or different ones have such a file.
    """
    block = next((block for block in blocks.values() if PARTICLES in block), None)
    if block is None:
        return None
    if len(block) != 1:
        raise ValueError(f"an optimisation set has one row, this one {len(block)}")
    listed = block[TOMOGRAMS].iloc[0] if TOMOGRAMS in block else None
    found = _find(path, block[PARTICLES].iloc[0])
    return found, None if listed is None or pd.isna(listed) else _find(path, listed)


def _find(path: Path, name: object) -> Path:
    """File that a file of RELION or Warp names."""
    if pd.isna(name):
        raise ValueError(f"{path} has no value where it should name a file")
    whole, name = path.resolve(), str(name)
    in_job = re.fullmatch(r"job\d+", whole.parent.name) and len(whole.parents) > 2
    # RELION runs in the folder of the project; the root of all folders is none.
    first = [whole.parents[2]] if in_job else []
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(
            f"a file names {name}, which may lie outside of its folder, and is not followed; read that list itself, and give "
            "tomogram_list="
        )
    for root in (*first, path.parent):
        found = inside(root, name)
        if root in first and found.is_file():
            return found
    above = [root for root in (*whole.parents[1:], Path.cwd()) if root != Path(root.anchor)]
    there = {place.resolve(): place for root in above if (place := _under(root, name)) is not None}
    # The way in which the file was asked for goes before its resolved one.
    there |= {found.resolve(): found} if found.is_file() else {}
    if len(there) > 1:
        raise ValueError(
            f"a file names {name}, and there are several: {', '.join(map(str, there))}; read the list that you mean itself, "
            "and give tomogram_list="
        )
    if not there:
        looked = " or ".join(map(str, [*first, path.parent]))
        raise FileNotFoundError(f"a file names {name}, which is not in {looked}, a folder above, or the working folder")
    return next(iter(there.values()))


def _under(root: Path, name: str) -> Path | None:
    """File of this name under a folder, if there is one that no link leads out of it."""
    place = root / name
    return place if place.is_file() and place.resolve().is_relative_to(root.resolve()) else None
