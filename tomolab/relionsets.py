"""RELION's optimisation sets and lists of tomograms: which particles belong to which tomograms, and how large those are.

A list of tomograms (tomograms.star) has a row for each series: ``rlnTomoName``, the pixel size of the tilt images
``rlnTomoTiltSeriesPixelSize``, and the voxels ``rlnTomoSizeX``, Y, Z of the tomogram at that pixel size, unbinned (RELION's
``tomogram_set.cpp``). In RELION 5 it names a file with the tilts of each series, ``rlnTomoTiltSeriesStarFile``. An
optimisation set names a list of particles and a list of tomograms. Paths count from the folder of the project.
"""

import re
from pathlib import Path

import pandas as pd

from tomolab import star
from tomolab.paths import inside

NAME = "rlnTomoName"
SIZES = {"z": "rlnTomoSizeZ", "y": "rlnTomoSizeY", "x": "rlnTomoSizeX"}
PARTICLES, TOMOGRAMS = "rlnTomoParticlesFile", "rlnTomoTomogramsFile"
SERIES, ANGLES = "rlnTomoTiltSeriesStarFile", ("rlnTomoYTilt", "rlnTomoNominalStageTiltAngle")
"""Column of a list of tomograms, and of the files that it names: the tilt as aligned, or else as set."""
BESIDE = "tomograms.star"
"""Name under which RELION keeps the list of tomograms."""


def tomograms(path: str | Path) -> pd.DataFrame:
    """Pixel size and size of the tomograms of a list.

    Returns
    -------
    DataFrame
        By name: ``pixel_size`` (Å), and voxels of that size along ``z``, ``y``, ``x`` if the list has them.

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
        return _tomograms(star.blocks(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _tomograms(blocks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    sizes = (star.TILT_SERIES, "rlnPixelSize")
    found = ((block, size) for block in blocks.values() for size in sizes if {NAME, size} <= set(block))
    block, size = next(found, (None, ""))
    if block is None:
        told = "; ".join(f"data_{name} has {', '.join(block)}" for name, block in blocks.items()) or "it has no tables"
        raise ValueError(f"this is no list of tomograms: no table has {NAME} and {star.TILT_SERIES}: {told}")
    columns = {"pixel_size": size, **(SIZES if set(SIZES.values()) <= set(block) else {})}
    numbers = star.numbers(block, list(columns.values()))
    out = pd.DataFrame(numbers, columns=list(columns), index=pd.Index(block[NAME], name="tomogram"))
    wrong = out.index[(out <= 0).any(axis=1)]
    if len(wrong):
        raise ValueError(f"sizes must be positive numbers, but those of {', '.join(wrong[:5])} are not")
    twice = out.index[out.index.duplicated()]
    if len(twice):
        raise ValueError(f"the list of tomograms has {', '.join(twice[:5])} more than once")
    return out


def tilts(path: str | Path) -> dict[str, tuple[float, float]]:
    """(Lowest, highest) tilt in degrees of each tomogram of a list, as far as it names files with tilts.

    Raises
    ------
    FileNotFoundError
        If a file that it names is not there.
    ValueError
        If a path leads out of the project, or a file has no tilts.
    """
    path = Path(path)
    found = {}
    for block in star.blocks(path).values():
        if {NAME, SERIES} <= set(block):
            for name, series in zip(block[NAME], block[SERIES], strict=True):
                place = _find(_roots(path), series)
                found[str(name)] = _range(place)
    return found


def _range(path: Path) -> tuple[float, float]:
    tables = star.blocks(path).values()
    column = next(((table, name) for name in ANGLES for table in tables if name in table), None)
    if column is None or column[0].empty:
        raise ValueError(f"{path} has neither {' nor '.join(ANGLES)}")
    angles = star.numbers(column[0], [column[1]])
    return float(angles.min()), float(angles.max())


def optimisation_set(path: Path, blocks: dict[str, pd.DataFrame]) -> tuple[Path, Path | None] | None:
    """Lists of particles and, if it is named, of tomograms that an optimisation set names; None if `blocks` are none.

    Paths count from the folder of the set, or from the project if the set lies in a folder of one of its jobs
    (``Refine3D/job012``).

    Raises
    ------
    FileNotFoundError
        If there is no file of such a name.
    ValueError
        If a path leads out of the folder or the project.
    """
    block = next((block for block in blocks.values() if PARTICLES in block), None)
    if block is None:
        return None
    if len(block) != 1:
        raise ValueError(f"an optimisation set has one row, this one {len(block)}")
    roots = _roots(path)
    listed = block[TOMOGRAMS].iloc[0] if TOMOGRAMS in block else None
    found = _find(roots, block[PARTICLES].iloc[0])
    return found, None if listed is None or pd.isna(listed) else _find(roots, listed)


def _roots(path: Path) -> list[Path]:
    """Folders from which the paths in a file of RELION may count."""
    whole = path.resolve()
    return [*([whole.parents[2]] if re.fullmatch(r"job\d+", whole.parent.name) else []), path.parent]


def _find(roots: list[Path], name: str) -> Path:
    places = [inside(root, str(name)) for root in roots]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"a file names {name}, which is not in {' or '.join(map(str, roots))}")
    return found
