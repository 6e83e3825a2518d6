"""Dynamo: tables (.tbl) of particles and the list of tomograms beside them, to and from particle tables.

Columns are counted from 1 (Dynamo's "Table convention"). Positions (24 to 26, pixels) are coordinates from the outer corner
of the first voxel, so its centre is at 0.5; shifts (4 to 6, pixels) are added ("Volume center"). The angles tdrot, tilt,
narot turn about the fixed axes z, x, z and take the particle to the reference: with
``M = Rotation.from_euler("zxz", [tdrot, tilt, narot]).as_matrix()`` a reference point r (xyz) lies at ``M.T @ r``.
"""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, AXIS, POSITION, VOXEL_SIZE, WEDGE
from tomolab.io import paths
from tomolab.io.lists import outdated
from tomolab.io.lists.options import MissingOptionError, ReadOptions, check_voxel_size
from tomolab.io.lists.star import parsing
from tomolab.io.volumes.mrc import TOLERANCE

COLUMNS = [
    *("tag", "aligned", "averaged", "dx", "dy", "dz", "tdrot", "tilt", "narot", "cc", "cc2", "cpu", "ftype"),
    *("ymintilt", "ymaxtilt", "xmintilt", "xmaxtilt", "fs1", "fs2", "tomo", "reg", "class", "annotation", "x", "y", "z"),
    *("dshift", "daxis", "dnarot", "dcc", "otag", "npar", "undefined", "ref", "sref", "apix", "def"),
]
"""Columns of a table, in order."""
NEEDED = COLUMNS.index("z") + 1
SHIFTS, ANGLES_ZXZ, PLACES, TILTS = ["dz", "dy", "dx"], ["tdrot", "tilt", "narot"], ["z", "y", "x"], ["ymintilt", "ymaxtilt"]
CONSUMED = ["tag", "tomo", "cc", "class", "apix", "ftype", *SHIFTS, *ANGLES_ZXZ, *PLACES, *TILTS]
"""Columns that a particle table has in its own words; the others are called ``dynamo_cc2`` and the like."""
USUAL = {"aligned": 1, "averaged": 1}
"""Values that a column without anything to say has, where that is not 0."""
CORNER = 0.5
"""Coordinate of the centre of the first voxel."""
MOST = 2**31
"""Numbers of tomograms are smaller."""
SINGLE = 1
"""Value of ``ftype`` for a series tilted about y."""


def read(path: Path, options: ReadOptions) -> pd.DataFrame:
    """Read a table, and the names of the tomograms from the list of the same name (.doc) where there is one.

    The voxel size is that of column 36, the tilts are those of columns 14 and 15, unless `options` have them. Without a list
    tomograms are called by their numbers, or as `options` say.

    Raises
    ------
    ValueError
        If there are too few columns, one is not a number, voxel size or tilts are needed and not known, or `names` refuses
        the tomograms.
    """
    rows = _rows(path)
    numbers = parsing.numbers(rows, [name for name in CONSUMED if name in rows])
    numbers = pd.DataFrame(numbers, columns=[name for name in CONSUMED if name in rows])
    size = _voxel_size(numbers, options.voxel_size)
    out = pd.DataFrame(
        {"particle_id": numbers["tag"], "tomogram": names(path.with_suffix(".doc"), numbers["tomo"], options.tomogram)}
    )
    out.attrs[VOXEL_SIZE] = size
    out[POSITION] = (numbers[PLACES].to_numpy() - CORNER + numbers[SHIFTS].to_numpy()) * size
    out[ANGLES] = rotations.to_euler(from_zxz(numbers[ANGLES_ZXZ].to_numpy()))
    if options.tilts is None:
        out[WEDGE] = _tilts(numbers)
    out["score"], out["class"] = numbers["cc"], numbers["class"]
    for name in rows.columns.difference(CONSUMED, sort=False):
        values = parsing.typed(rows[name])
        if not (pd.api.types.is_numeric_dtype(values) and (values == USUAL.get(name, 0)).all()):
            out[f"dynamo_{name}"] = values
    return out


def text(particles: pd.DataFrame, *, voxel_size: float | None, shifts: np.ndarray | None = None) -> tuple[str, str]:
    """Give the text of a table and of its list of tomograms.

    `shifts` (n, 3; zyx) in Å are what is to be added to the positions; none by default.

    Kept are particle_id (tag), tomogram, position, angles, tilts (single axis along y), ``score`` (cc), ``class`` and the
    ``dynamo_`` columns of a table that was read; all other columns, such as ``label``, are left out. What these say of the last
    alignment goes with a warning where particles were turned or moved since (`outdated`).

    Raises
    ------
    ValueError
        If the voxel size is not known, an id is under 1 (Dynamo counts from 1), a tilt axis is not along y, the name of a
        tomogram has a blank, or a column that is kept is no number.
    """
    size = check_voxel_size(voxel_size, "a Dynamo table")
    low = particles["particle_id"] < 1
    if low.any():
        raise ValueError(
            f"Dynamo counts particles from 1, but {low.sum()} of {len(low)} have a particle_id under 1; number them anew, "
            "such as by table.assign(particle_id=table['particle_id'] + 1)"
        )
    particles = outdated.current(particles, "dynamo_")
    turned = tables.geometries(particles)[:, 2] != 0
    if turned.any():
        raise ValueError(f"a Dynamo table knows tilt axes along y, but {turned.sum()} of {len(turned)} have another {AXIS}")
    tomo, listed = numbered(particles["tomogram"])
    rows = pd.DataFrame({name: USUAL.get(name, 0) for name in COLUMNS}, index=particles.index)
    for name in [name for name in particles if str(name).startswith("dynamo_")]:
        if name.removeprefix("dynamo_") in set(COLUMNS) - set(CONSUMED):
            rows[name.removeprefix("dynamo_")] = particles[name]
    rows["tag"], rows["tomo"], rows["ftype"], rows["apix"] = particles["particle_id"], tomo, SINGLE, size
    rows[PLACES] = (tables.positions(particles) / size + CORNER).round(6)
    rows[ANGLES_ZXZ] = to_zxz(tables.matrices(particles)).round(6)
    if shifts is not None:
        rows[SHIFTS] = (shifts / size).round(6)
    rows[TILTS] = particles[WEDGE]
    for ours, theirs in (("score", "cc"), ("class", "class")):
        if ours in particles:
            rows[theirs] = parsing.numbers(particles, [ours])[:, 0]
    return rows.to_csv(sep=" ", header=False, index=False), listed


def from_zxz(angles: np.ndarray) -> np.ndarray:
    """Matrices (n, 3, 3) on zyx vectors, reference to tomogram, from Dynamo's (n, 3) = tdrot, tilt, narot in degrees."""
    passive = Rotation.from_euler("zxz", np.asarray(angles, dtype=float).reshape(-1, 3), degrees=True).as_matrix()
    return np.ascontiguousarray(passive.transpose(0, 2, 1)[:, ::-1, ::-1])


def to_zxz(matrices: np.ndarray) -> np.ndarray:
    """Dynamo's angles (n, 3) = tdrot, tilt, narot in degrees from matrices (n, 3, 3) on zyx vectors."""
    rotations.check(matrices)
    passive = matrices[:, ::-1, ::-1].transpose(0, 2, 1)
    with warnings.catch_warnings():
        # At tilt 0 tdrot and narot are degenerate and scipy says so; the matrix they stand for is right all the same.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        return Rotation.from_matrix(passive).as_euler("zxz", degrees=True).reshape(-1, 3)


def numbered(tomograms: pd.Series) -> tuple[np.ndarray, str]:
    """Number tomograms from 1 in their order, or keep names that are numbers; with the text of their list (no blanks)."""
    different = list(dict.fromkeys(tomograms))
    wrong = [name for name in different if re.search(r"\s", name)]
    if wrong:
        raise ValueError(f"the list of tomograms cannot hold names with blanks, such as {wrong[0]!r}")
    counted = all(re.fullmatch(r"[1-9]\d{0,8}", name) for name in different)
    number = {name: int(name) if counted else place for place, name in enumerate(different, 1)}
    return tomograms.map(number).to_numpy(), "".join(f"{number[name]} {name}\n" for name in different)


def names(path: Path, numbers: pd.Series, tomogram: str | None) -> pd.Series:
    """Names of numbered tomograms from the list at `path`; without a list `tomogram`, or the number itself.

    A ValueError is raised if a number is not whole, the list does not give it one name, or `tomogram` does not fit.
    """
    strange = numbers[(numbers != np.round(numbers)) | (np.abs(numbers) > MOST)]
    if len(strange):
        raise ValueError(f"tomograms are called by whole numbers, got {strange.iloc[0]:g}")
    wanted = numbers.astype(int)
    different = sorted(set(wanted))
    if not path.is_file():
        if tomogram is not None and len(different) > 1:
            raise ValueError(
                f"tomogram={tomogram!r} names one tomogram, but the particles are in {len(different)}, numbered "
                f"{', '.join(map(str, different[:5]))}; name them in {path.name}, a number and a name in each line, or leave "
                "tomogram= out: they are called by their numbers then"
            )
        return wanted.astype(str) if tomogram is None else pd.Series(tomogram, index=numbers.index)
    listed = listing(path)
    strange = sorted(set(wanted) - set(listed))
    if strange:
        raise ValueError(f"{path} does not name the tomograms {', '.join(map(str, strange[:5]))}")
    found = wanted.map(listed)
    tables.check_named(found, tomogram, str(path))
    return found


def listing(path: Path) -> dict[int, str]:
    """Names of tomograms by their numbers, from a list with a number, blanks or tabs, and a name in each line."""
    listed: dict[int, str] = {}
    try:
        lines = paths.text(path).split("\n")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for line in filter(str.strip, lines):
        number, *rest = line.split(maxsplit=1)
        if not re.fullmatch(r"[0-9]{1,10}", number) or not rest:
            raise ValueError(f"{path}: a line must be a number and a name, got {line!r}")
        name = rest[0].strip()
        if len(name) > 2 and name[0] == name[-1] and name[0] in "'\"":
            name = name[1:-1]
        if listed.setdefault(int(number), name) != name:
            raise ValueError(f"{path} names tomogram {int(number)} twice: {listed[int(number)]!r} and {name!r}")
    return listed


def _rows(path: Path) -> pd.DataFrame:
    """The table as text, its columns named."""
    text = paths.text(path)
    width = len(parsing.words(text.strip().split("\n", 1)[0])) if text.strip() else len(COLUMNS)
    if not NEEDED <= width <= parsing.WIDEST:
        raise ValueError(f"a Dynamo table has at least {NEEDED} columns and at most {len(COLUMNS)}, this one {width}")
    names = [*COLUMNS, *map(str, range(len(COLUMNS), width))][:width]
    try:
        return parsing.rows(text, names)[COLUMNS[:width]]
    except ValueError as error:
        raise ValueError(f"the Dynamo table {error}") from error


def _voxel_size(numbers: pd.DataFrame, stated: float | None) -> float:
    sizes = sorted({float(size) for size in numbers["apix"] if size > 0}) if "apix" in numbers else []
    if stated is None and len(sizes) != 1:
        message = f"column 36 does not say one pixel size, but {sizes or 'none'}; give voxel_size="
        raise ValueError(message) if sizes else MissingOptionError(message, "voxel_size")
    if stated is not None and any(abs(size / stated - 1) > TOLERANCE for size in sizes):
        raise ValueError(f"column 36 is {', '.join(f'{size:g}' for size in sizes)} Å, but voxel_size={stated:g} was given")
    return sizes[0] if stated is None else stated


def _tilts(numbers: pd.DataFrame) -> np.ndarray:
    known = (numbers["ftype"] == SINGLE) & (numbers[TILTS[0]] < numbers[TILTS[1]])
    if not known.all():
        raise ValueError(
            f"columns 13 to 15 do not name a series tilted about y for {(~known).sum()} of {len(known)} particles; "
            "give tilts=(lowest, highest)"
        )
    return numbers[TILTS].to_numpy()
