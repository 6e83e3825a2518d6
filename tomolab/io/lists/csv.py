"""Particle lists as CSV: our own, exact, and tables of other programs, to particle tables.

A table of another program has a line of names, and columns whose names say what they are, in any order: ``x``, ``y``, ``z``,
alone or with a word (``x_coord``, ``pos_x``) and a unit (``x_nm``, ``x_voxel``, ``X [Å]``); or ``axis-0``, ``axis-1``,
``axis-2``, as napari writes points, and ``centroid-0`` and so on of scikit-image, in the order of the axes of the array: z, y,
x. Where there are four axes, the first is time or a channel. Without a unit in the names it must be stated. The origin is not
said: 0 is the centre of the first voxel. Angles are read from ``rot``, ``tilt``, ``psi``, as RELION's. In the CSV of copick,
``x``, ``y``, ``z`` are Å, and ``transform_00`` to ``transform_33`` turn and move as in its picks (`write_picks_csv` of
``copick.util.formats``). All other columns are carried through.
"""

import csv
import io
import re
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION, SOURCE, TEXTS, WEDGE
from tomolab.io import paths
from tomolab.io.lists import star
from tomolab.particles import REQUIRED

UNITS = ("angstrom", "voxel")
LENGTHS = {"angstrom": 1.0, "nm": 10.0}
"""Å in a unit that a name can say."""
SPELLINGS = {
    **dict.fromkeys(("angstrom", "angstroms", "angst", "ang", "å"), "angstrom"),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), "nm"),
    **dict.fromkeys(("voxel", "voxels", "vox", "vx", "pixel", "pixels", "px", "pix"), "voxel"),
}
"""Units as they stand in names of columns, in lower case."""
WORDS = {"coord", "coords", "coordinate", "coordinates", "pos", "position", "center", "centre", "centroid", "location", "loc"}
"""Words that may stand beside x, y or z."""
TOMOGRAMS = ("tomogram", "tomo_name", "tomo_id", "tomo", "experiment", "run_name", "run")
"""Names of the column that names the tomogram."""
FURTHER = (
    *("tomogramname", "tomogramid", "tomoname", "tomoid", "tomonum", "tomonumber", "runid", "experimentname", "experimentid"),
    *("tiltseries", "tiltseriesname", "tiltseriesid", "tsname", "tsid", "micrograph", "micrographname", "rlntomoname"),
    "rlnmicrographname",
)
"""More of them, which are asked where there is none of those, without marks."""
IDS = ("particle_id", "id")
MOVES = [f"transform_{row}{column}" for row in range(4) for column in range(4)]
"""Columns of copick."""
ORIENTATIONS = [
    *("phi theta", "phi the", "tdrot narot", "alpha beta gamma", "yaw pitch roll", "euler1 euler2 euler3", "ang1 ang2 ang3"),
    *("angle1 angle2 angle3", "eulerx eulery eulerz", "eulerphi eulertheta eulerpsi", "anglex angley anglez"),
    *("rotx roty rotz", "rotationx rotationy rotationz", "anglerot angletilt anglepsi", "rlnanglerot rlnangletilt rlnanglepsi"),
    *("q0 q1 q2 q3", "qx qy qz", "r00 r11 r22", "r11 r22 r33", "m00 m11 m22", "m11 m22 m33"),
]
"""Names of columns, without marks, that turn particles by a convention that is not known."""
SHIFTS = ["shiftx shifty shiftz", "xshift yshift zshift", "offsetx offsety offsetz", "xoffset yoffset zoffset", "dx dy dz"]
"""Names of columns, without marks, that may have to be added to the positions."""


@dataclass(frozen=True)
class Places:
    """Columns with coordinates zyx, the unit that their names say, and the column of frames before them."""

    columns: tuple[str, str, str]
    unit: str | None
    frame: str | None = None


def read(path: Path, *, unit: str | None, voxel_size: float | None, tomogram: str | None) -> pd.DataFrame:
    """Read a particle table; a table of another program lacks the tilts.

    Parameters
    ----------
    path
        .csv, its values parted by commas, or by semicolons or tabs if there are no commas in the first line.
    unit
        ``"angstrom"`` or ``"voxel"``, of the coordinates of another program whose names do not say it.
    voxel_size
        Å per voxel, for coordinates in voxels.
    tomogram
        Name of the tomogram where no column names it.

    Raises
    ------
    ValueError
        If unit or voxel size are needed and not given, or contradict the names of the columns, it is not clear which columns
        are meant, or orientations or shifts cannot be used. The message lists the columns.

    Warns
    -----
    UserWarning
        If there is an axis before z, y, x.
    """
    rows = _rows(paths.text(path))
    if set(REQUIRED) <= set(rows):
        if unit not in (None, "angstrom") or voxel_size is not None:
            told = f"unit={unit!r}" if unit not in (None, "angstrom") else f"voxel_size={voxel_size:g}"
            raise ValueError(f"a list with the columns of tomolab is in Å, but {told} was given")
        tables.check_named(rows["tomogram"].dropna(), tomogram, "column tomogram")
        return pd.DataFrame({name: rows[name] if name in TEXTS else star.typed(rows[name]) for name in rows})
    found = _foreign(rows, unit=unit, voxel_size=voxel_size, tomogram=tomogram)
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


def _places(rows: pd.DataFrame, unit: str | None) -> Places:
    """The coordinates; where several columns could be, those whose names say `unit`, or any unit."""
    found = [*_named_places(rows), *_array_places(rows)]
    stated = [one for one in found if one.unit is not None and unit in (None, one.unit)]
    chosen = stated if unit is not None or len(stated) == 1 else found
    chosen = chosen or [one for one in found if one.unit is None] or found
    if len(chosen) != 1:
        told = " and ".join("/".join(reversed(one.columns)) for one in chosen) or "none of x, y, z"
        raise ValueError(f"one set of columns must be the coordinates, but there are {told}; the columns are {_list(rows)}")
    return chosen[0]


def _named_places(rows: pd.DataFrame) -> list[Places]:
    """Columns called x, y and z, with the same words and unit."""
    kinds: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in rows:
        words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
        axes = [word for word in words if word in ("x", "y", "z")]
        rest = tuple(sorted(set(words) - set(axes)))
        if len(axes) == 1 and set(rest) <= WORDS | set(SPELLINGS):
            kinds.setdefault(rest, {}).setdefault(axes[0], []).append(name)
    found = []
    for rest, kind in kinds.items():
        if set(kind) == {"x", "y", "z"}:
            twice = [name for names in kind.values() if len(names) > 1 for name in names]
            if twice:
                raise ValueError(f"{' and '.join(twice)} may mean the same; keep one of them. The columns are {_list(rows)}")
            units = [SPELLINGS[word] for word in rest if word in SPELLINGS]
            found.append(Places((kind["z"][0], kind["y"][0], kind["x"][0]), units[0] if units else None))
    return found


def _array_places(rows: pd.DataFrame) -> list[Places]:
    """Columns called after the axes of an array, the last three of which are z, y and x."""
    lower, found = {name.strip().lower(): name for name in rows}, []
    for stem in ("axis", "centroid"):
        count = sum(re.fullmatch(rf"{stem}-\d+", name) is not None for name in lower)
        axes = [lower[name] for n in range(count) if (name := f"{stem}-{n}") in lower]
        if count and (len(axes) != count or count not in (3, 4)):
            raise ValueError(
                f"{stem}-0 and so on must be z, y, x, or time or channel and then z, y, x, but there are {count} such columns; "
                f"the columns are {_list(rows)}"
            )
        if count:
            found.append(Places((axes[-3], axes[-2], axes[-1]), None, axes[0] if count == 4 else None))
    return found


def _scale(places: Places, rows: pd.DataFrame, *, unit: str | None, voxel_size: float | None) -> float:
    """Å per unit of the coordinates."""
    if (unit is None and places.unit is None) or unit not in (None, *UNITS):
        raise ValueError(
            f"a table of another program does not say its unit; give unit='angstrom', or unit='voxel' with voxel_size=, got "
            f"unit={unit!r}. It has the columns {_list(rows)}; a list of tomolab has {', '.join(REQUIRED)}"
        )
    if None not in (unit, places.unit) and unit != places.unit:
        told = ", ".join(reversed(places.columns))
        raise ValueError(f"unit={unit!r} was given, but the columns {told} are in {places.unit} by their names")
    told = places.unit or str(unit)
    if told == "voxel":
        return star.check_voxel_size(voxel_size, "a list in voxels")
    if voxel_size is not None:
        raise ValueError(
            f"the coordinates are in {told}, but voxel_size={voxel_size:g} was given; leave it out, or unit='voxel'"
        )
    return LENGTHS[told]


def _foreign(rows: pd.DataFrame, *, unit: str | None, voxel_size: float | None, tomogram: str | None) -> pd.DataFrame:
    moves = _moves(rows)
    places = _places(rows, unit)
    if moves is not None:
        rows, places = rows.drop(columns=MOVES), replace(places, unit="angstrom")
    scale = _scale(places, rows, unit=unit, voxel_size=voxel_size)
    own = _tomogram(rows, tomogram)
    if own is None and tomogram is None:
        raise ValueError(f"no column names the tomogram; give tomogram=. The columns are {_list(rows)}")
    _check_frames(rows, places, named=own is not None)
    angles = _angles(rows)
    numbers = _one(rows, IDS)
    out = pd.DataFrame({"tomogram": tomogram if own is None else rows[own]}, index=rows.index)
    # Ids that are text, such as hashes, are carried through under their name.
    counted = numbers is not None and rows[numbers].astype(str).str.fullmatch(r"\d{1,18}").all()
    out["particle_id"] = rows[numbers].astype("int64") if counted else np.arange(len(rows))
    out[POSITION] = star.numbers(rows, list(places.columns)) * scale
    out[ANGLES] = star.numbers(rows, angles) if angles else 0.0
    if moves is not None:
        out[POSITION] += moves[:, :3, 3][:, ::-1]
        out[ANGLES] = rotations.to_euler(rotations.nearest(moves[:, :3, :3], "transform_00 and so on")[:, ::-1, ::-1])
    used = {*places.columns, *angles, own, *([numbers] if counted else [])}
    for name in rows:
        if name not in used:
            if name in REQUIRED and name not in WEDGE:
                raise ValueError(f"column {name} is not what tomolab calls so; rename it. The columns are {_list(rows)}")
            out[name] = rows[name] if name in TEXTS else star.typed(rows[name])
    return out


def _moves(rows: pd.DataFrame) -> np.ndarray | None:
    """Transformations of copick (n, 4, 4), on xyz vectors in Å, if there are any."""
    if not any(name in rows for name in MOVES):
        return None
    lacking = [name for name in MOVES if name not in rows]
    turned = [name for name in rows if name.strip().lower() in ANGLES]
    if lacking or turned:
        told = f"lacks {', '.join(lacking)}" if lacking else f"has {', '.join(turned)} too"
        raise ValueError(f"a transformation is transform_00 to transform_33 and no angles, but the list {told}")
    moves = star.numbers(rows, MOVES).reshape(-1, 4, 4)
    if not np.allclose(moves[:, 3], [0, 0, 0, 1], atol=1e-6):
        raise ValueError("a transformation must end with 0, 0, 0, 1 (transform_30 to transform_33)")
    return moves


def _tomogram(rows: pd.DataFrame, tomogram: str | None) -> str | None:
    """The column that names the tomograms, if there is one that does not leave that to `tomogram`."""
    own = _one(rows, TOMOGRAMS)
    if own is None:
        own = _one(rows, FURTHER)
        if own is not None and tomogram is not None and len(set(rows[own].fillna(""))) <= 1:
            return None
    if own is not None:
        tables.check_named(rows[own].dropna(), tomogram, f"column {own}")
    return own


def _check_frames(rows: pd.DataFrame, places: Places, *, named: bool) -> None:
    """Refuse corners of shapes, and points of several frames that would come into one tomogram."""
    shapes = set(rows["shape-type"].dropna()) if "shape-type" in rows else set()
    if shapes & {"rectangle", "ellipse"}:
        raise ValueError(f"these are corners of shapes ({', '.join(sorted(shapes))}), no points; save a layer of points")
    if places.frame is None:
        return
    frames = sorted(set(rows[places.frame].fillna("nothing")))
    if len(frames) > 1 and not named:
        raise ValueError(
            f"the points are in {len(frames)} frames ({places.frame}: {', '.join(frames[:5])}), and no column names their "
            f"tomograms; add one, or save each frame apart. The columns are {_list(rows)}"
        )
    told = ", ".join(places.columns)
    warnings.warn(f"there are four axes: {told} are taken for z, y, x, and {places.frame} for time or a channel", stacklevel=2)


def _angles(rows: pd.DataFrame) -> list[str]:
    """Columns with RELION's angles; none where particles are not turned."""
    angles = [name for angle in ANGLES for name in rows if name.strip().lower() == angle]
    if len(angles) not in (0, 3):
        raise ValueError(
            f"angles are read as rot, tilt, psi (RELION's), but there is only {', '.join(angles)}, of a convention that is not "
            f"known; rename or remove it. The columns are {_list(rows)}"
        )
    turning = [] if angles else _not_zero(rows, ORIENTATIONS)
    if turning:
        raise ValueError(
            f"orientations are read from rot, tilt, psi (RELION's), but there are {', '.join(turning)}, of a convention "
            f"that is not known; convert and rename them, or remove them. The columns are {_list(rows)}"
        )
    moving = _not_zero(rows, SHIFTS)
    if moving:
        raise ValueError(
            f"{', '.join(moving)} are not 0, and it is not known whether they belong to the positions; add them and remove "
            f"these columns, or rename them. The columns are {_list(rows)}"
        )
    return angles


def _not_zero(rows: pd.DataFrame, groups: list[str]) -> list[str]:
    """Columns of the first group all of which are there, if one of them is anywhere not 0."""
    plain = {_letters(name): name for name in rows}
    for group in groups:
        names = [plain[name] for name in group.split() if name in plain]
        if len(names) == len(group.split()) and (rows[names].apply(pd.to_numeric, errors="coerce").fillna(1) != 0).any(
            axis=None
        ):
            return names
    return []


def _letters(name: str) -> str:
    """A name in lower case without marks and blanks."""
    return re.sub(r"[\W_]", "", name.lower())


def _one(rows: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    """The column of one of these names, or None; a ValueError if there are several."""
    found = [name for one in names for name in rows if one in (name.strip().lower(), _letters(name))]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} may mean the same; keep one of them. The columns are {_list(rows)}")
    return found[0] if found else None


def _list(rows: pd.DataFrame) -> str:
    return ", ".join(map(str, rows)) or "nothing"
