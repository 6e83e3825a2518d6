"""Particle lists as CSV: our own, exact, and tables of other programs, to particle tables.

A table of another program has a line of names, and columns whose names say what they are, in any order: ``x``, ``y``, ``z``,
alone or with a word (``x_coord``, ``pos_x``) and a unit (``x_nm``, ``x_voxel``, ``X [Å]``); or ``axis-0``, ``axis-1``,
``axis-2``, as napari writes points, and ``centroid-0`` and so on of scikit-image, in the order of the axes of the array: z, y,
x. Where there are four axes, the first is time or a channel. Without a unit in the names it must be stated. The origin is not
said: 0 is the centre of the first voxel. Angles are read from ``rot``, ``tilt``, ``psi``, as RELION's, in degrees, or in
radians where the names say so (``rot_rad``). In the CSV of copick, ``x``, ``y``, ``z`` are Å, and ``transform_00`` to
``transform_33`` turn and move as in its picks (`write_picks_csv` of ``copick.util.formats``). Columns of shifts, and of
orientations by other names, are refused unless they turn and move nothing. All other columns are carried through.
"""

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION, SOURCE, TEXTS, WEDGE
from tomolab.io import paths
from tomolab.io.lists.options import MissingOptionError, ReadOptions
from tomolab.io.lists.star import parsing
from tomolab.io.lists.star.parsing import floats
from tomolab.io.lists.tomogram_names import NAMELESS, nameless
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
ANGLE_UNITS = {
    **dict.fromkeys(("deg", "degs", "degree", "degrees"), 1.0),
    **dict.fromkeys(("rad", "rads", "radian", "radians"), 180 / np.pi),
}
"""Degrees in a unit of angles that a name can say."""
FRAMES = {"t", "time", "frame", "frames", "timepoint", "timepoints", "frameindex", "framenumber", "timeindex"}
"""Names of columns, without marks, that count the frames of a film, such as napari's tracks have."""
WHOLE = r"[+-]?\d{1,18}(?:\.0*)?"
"""A whole number, also as pandas writes it beside missing ones: 11.0."""


@dataclass(frozen=True)
class Family:
    """Columns that together describe a shift or an orientation.

    `pattern` fits some words of a name, written together, or all of them where `whole`. The columns are of the family where
    there are `least` of them. `kind` says which values turn and move nothing.
    """

    kind: str
    pattern: str
    least: int = 1
    whole: bool = False


_ANGLE, _QUATERNION = "(?:angles?|ang)", "quat(?:ernion)?s?"
_MATRIX = "(?:rot|rotation|rotmat|rotationmatrix|matrix|mat|transform|transformation|affine|pose)"
_VECTOR = "(?:normals?|direction|dir|vec|vector|axis|orientation|orient)"
_MOVE = "(?:shifts?|offsets?|offs?|origins?|translations?|translate|trans|corrections?|displacements?|disp|deltas?|moves?)"
TURNS = (
    Family("angle", rf"{_ANGLE}?(?:phi|theta|psi){_ANGLE}?|tdrot|narot|azimuth|inplane(?:rot|rotation|{_ANGLE})?"),
    Family("angle", rf"euler{_ANGLE}?(?:\d|[xyz]|phi|theta|psi|rot|tilt|alpha|beta|gamma)?|rot(?:ation)?vec(?:tor)?[0-2xyz]?"),
    Family("angle", rf"(?:{_ANGLE}|rot|rotations?)[xyz]|[xyz](?:{_ANGLE}|rot|rotation)"),
    Family("angle", r"rotations?|orientations?|angles|rotmat|(?:xyz)?rotationmatrix", whole=True),
    Family("angle", rf"(?:rln|wrp|rlntomosubtomogram)?{_ANGLE}?(?:rot|tilt){_ANGLE}?", 2, whole=True),
    Family("angle", rf"(?:{_ANGLE}|rot|rotation)\d", 2),
    Family("angle", r"alpha|beta|gamma", 2),
    Family("angle", r"yaw|pitch|roll", 2),
    Family("angle", r"az|alt|el|elevation|inclination|altitude", 2),
    Family("angle", r"r[xyz]", 2),
    Family("quaternion", rf"{_QUATERNION}[wxyzijkr0-4]?"),
    Family("quaternion", r"q[wxyzijkr0-4]", 3),
    Family("matrix", rf"{_MATRIX}(?:[0-3][0-3]|[xyz][xyz])", 2),
    Family("matrix", r"[rm](?:[0-3][0-3]|[xyz][xyz])", 3),
    Family("matrix", r"t[0-3][0-3]", 9),
    Family("vector", rf"{_VECTOR}[xyz]|[xyz]{_VECTOR}[0-2xyz]?|(?:normals?|direction|vec|vector|orientation)[0-3]", 2),
    Family("normal", r"n[xyz]", 2),
)
"""Orientations but RELION's rot, tilt and psi."""
SHIFTS = (
    Family("shift", rf"{_MOVE}[xyz]|[xyz]{_MOVE}"),
    Family("shift", rf"{_MOVE}[0-3]", 2),
    Family("shift", r"[dt][xyz]", 2),
)
"""What may have to be added to the positions, or subtracted."""
NO_POSE = {
    *("score", "scores", "std", "sd", "stdev", "sigma", "error", "err", "prior", "min", "max", "variance", "var", "count"),
    *("weight", "confidence", "prob", "probability", "flip", "ratio", "range", "class", "cluster", "label", "id", "step"),
    *("beam", "stage", "image", "time", "frame", "dose", "defocus", "source", "number", "characteristic", "resolution", "diff"),
}
"""Words by which a column describes something else than the pose of a particle."""


@dataclass(frozen=True)
class Places:
    """Columns with coordinates zyx, the unit that their names say, and the column of frames before them."""

    columns: tuple[str, str, str]
    unit: str | None
    frame: str | None = None


def read(path: Path, options: ReadOptions) -> pd.DataFrame:
    """Read a particle table; a table of another program lacks the tilts.

    Values are parted by commas, or by semicolons or tabs if there are no commas in the first line. `options` say the unit of
    coordinates whose names do not say it, and the voxel size of voxels; where particles are numbered anew, ids that are
    missing, or no whole numbers, stay as they are.

    Raises
    ------
    ValueError
        If unit or voxel size are needed and not given, or contradict the names of the columns, it is not clear which columns
        are meant, orientations or shifts cannot be used, or an id or the name of a tomogram is missing. The message lists the
        columns.

    Warns
    -----
    UserWarning
        If there is an axis before z, y, x.
    """
    rows = _rows(paths.text(path))
    if not set(REQUIRED) <= set(rows):
        try:
            found = _foreign(rows, options)
        except ValueError as error:
            raise ValueError(f"{error}. The columns are {', '.join(rows)}") from error
        return found.assign(**{SOURCE[0]: paths.fingerprint(path), SOURCE[1]: np.arange(len(found))})
    if options.unit not in (None, "angstrom") or options.voxel_size is not None:
        given = f"voxel_size={options.voxel_size:g}" if options.unit in (None, "angstrom") else f"unit={options.unit!r}"
        raise ValueError(f"a list with the columns of tomolab is in Å, but {given} was given")
    _check_names(rows["tomogram"], options.tomogram)
    found = pd.DataFrame({name: rows[name] if name in TEXTS else parsing.typed(rows[name]) for name in rows})
    return found.assign(particle_id=_ids(rows["particle_id"], renumber=bool(options.renumber), own=True))


def text(particles: pd.DataFrame) -> str:
    """Text of a particle table, exact.

    Raises
    ------
    ValueError
        If the name of a tomogram is one by which programs say that there is none.
    """
    _check_names(particles["tomogram"], None)
    return particles.to_csv(index=False)


def _rows(text: str) -> pd.DataFrame:
    """All values as text, missing where there is nothing."""
    head = text.split("\n", 1)[0]
    if not head.strip():
        raise ValueError("the first line must name the columns, but it is empty")
    mark = next((mark for mark in ",;\t" if mark in head), ",")
    _check_comment(text, mark)
    if head.count(mark) >= parsing.WIDEST:
        raise ValueError(f"the first line names {head.count(mark) + 1} columns, expected at most {parsing.WIDEST}")
    try:
        found = [
            row for row in csv.reader(io.StringIO(text), delimiter=mark, strict=True) if len(row) > 1 or "".join(row).strip()
        ]
    except csv.Error as error:
        raise ValueError(f"this is not a table of values parted by {mark!r} ({error})") from error
    names = found[0]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"columns must have different names, but these are there twice: {', '.join(twice)}")
    wrong = next((number for number, row in enumerate(found) if len(row) != len(names)), None)
    if wrong is not None:
        row = found[wrong]
        raise ValueError(f"row {wrong} has {len(row)} values, expected {len(names)}: {mark.join(row)[:60]!r}")
    rows = pd.DataFrame(found[1:], columns=names, dtype=str)
    return rows.mask(rows == "")


def _check_comment(text: str, mark: str) -> None:
    """Refuse a comment in the first line; names of columns may stand behind a #, as numpy writes them."""
    if not text.lstrip().startswith("#"):
        return
    head, *lines = text.split("\n")
    following = next((line for line in lines if not line.lstrip().startswith("#")), "")
    values = pd.to_numeric(pd.Series(following.split(mark)), errors="coerce")
    parted = following.count(mark) == head.count(mark) and not any(one in following for one in ",;\t" if one not in head)
    if following.strip() and not (parted and values.notna().any()):
        raise ValueError(f"the first line must name the columns, but it is a comment: {head[:60]!r}; remove such lines")


def _places(rows: pd.DataFrame, unit: str | None) -> Places:
    """The coordinates; where several columns could be, those whose names say `unit`, or any unit."""
    found = [*_named_places(rows), *_array_places(rows)]
    stated = [one for one in found if one.unit is not None and unit in (None, one.unit)]
    chosen = stated if unit is not None or len(stated) == 1 else found
    chosen = chosen or [one for one in found if one.unit is None] or found
    if len(chosen) != 1:
        different = " and ".join("/".join(reversed(one.columns)) for one in chosen) or "none of x, y, z"
        raise ValueError(f"one set of columns must be the coordinates, but there are {different}{_unknown(rows)}")
    return chosen[0]


def _unknown(rows: pd.DataFrame) -> str:
    """What to say of columns that are called x, y or z with a word that is not known, such as x_um."""
    names = [name for name in rows if set(_split(name)) & set("xyz") and _axis(name) is None]
    if not names:
        return ""
    return (
        f". It is not known what {', '.join(names[:6])} count: beside x, y or z, a name may have a unit, angstrom, nm or voxel "
        "(pixel), or a word such as coord or pos; convert and rename them"
    )


def _split(name: str) -> list[str]:
    """Words of a name in lower case, parted at marks and blanks."""
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def _axis(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Which of x, y and z the name of a coordinate says, and its other words; None for other names."""
    words = _split(name)
    axes = [word for word in words if word in ("x", "y", "z")]
    rest = tuple(sorted(set(words) - set(axes)))
    return (axes[0], rest) if len(axes) == 1 and set(rest) <= WORDS | set(SPELLINGS) else None


def _named_places(rows: pd.DataFrame) -> list[Places]:
    """Columns called x, y and z, with the same words and unit."""
    sets: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in rows:
        if (found_axis := _axis(name)) is not None:
            axis, rest = found_axis
            sets.setdefault(rest, {}).setdefault(axis, []).append(name)
    found = []
    for rest, axes in sets.items():
        if set(axes) == {"x", "y", "z"}:
            twice = [name for names in axes.values() if len(names) > 1 for name in names]
            if twice:
                raise ValueError(f"{' and '.join(twice)} may mean the same; keep one of them")
            units = [SPELLINGS[word] for word in rest if word in SPELLINGS]
            found.append(Places((axes["z"][0], axes["y"][0], axes["x"][0]), units[0] if units else None))
    return found


def _array_places(rows: pd.DataFrame) -> list[Places]:
    """Columns called after the axes of an array, the last three of which are z, y and x."""
    lower, found = {name.strip().lower(): name for name in rows}, []
    for stem in ("axis", "centroid"):
        count = sum(re.fullmatch(rf"{stem}-\d+", name) is not None for name in lower)
        axes = [lower[name] for n in range(count) if (name := f"{stem}-{n}") in lower]
        if count and (len(axes) != count or count not in (3, 4)):
            raise ValueError(
                f"{stem}-0 and so on must be z, y, x, or time or channel and then z, y, x, but there are {count} such columns"
            )
        if count:
            found.append(Places((axes[-3], axes[-2], axes[-1]), None, axes[0] if count == 4 else None))
    return found


def _scale(places: Places, options: ReadOptions) -> float:
    """Å per unit of the coordinates."""
    unit = options.unit
    if (unit is None and places.unit is None) or unit not in (None, *UNITS):
        raise ValueError(
            f"a table of another program does not say its unit; give unit='angstrom', or unit='voxel' with voxel_size=, got "
            f"unit={unit!r}. A list of tomolab has {', '.join(REQUIRED)}"
        )
    if None not in (unit, places.unit) and unit != places.unit:
        names = ", ".join(reversed(places.columns))
        raise ValueError(f"unit={unit!r} was given, but the columns {names} are in {places.unit} by their names")
    unit = places.unit or str(unit)
    if unit == "voxel":
        return options.size("a list in voxels")
    if options.voxel_size is not None:
        raise ValueError(
            f"the coordinates are in {unit}, but voxel_size={options.voxel_size:g} was given; leave it out, or unit='voxel'"
        )
    return LENGTHS[unit]


def _foreign(rows: pd.DataFrame, options: ReadOptions) -> pd.DataFrame:
    """Particle table of the rows of another program."""
    moves = _moves(rows)
    places = _places(rows, options.unit)
    if moves is not None:
        rows, places = rows.drop(columns=MOVES), replace(places, unit="angstrom")
    scale = _scale(places, options)
    own = _tomogram(rows, options.tomogram)
    if own is None and options.tomogram is None:
        raise MissingOptionError("no column names the tomogram; give tomogram=", "tomogram")
    _check_frames(rows, places, named=own is not None)
    angles = _angles(rows)
    moving = _not_neutral(rows, SHIFTS)
    if moving:
        raise ValueError(
            f"{', '.join(moving)} are not 0, and describe a shift of the positions, of which unit and sign are not known; "
            "apply it and remove these columns, or rename or remove them"
        )
    numbers = _one(rows, IDS)
    ids = None if numbers is None else _ids(rows[numbers], renumber=bool(options.renumber))
    out = pd.DataFrame({"tomogram": options.tomogram if own is None else rows[own]}, index=rows.index)
    out["particle_id"] = np.arange(len(rows)) if ids is None else ids
    out[POSITION] = parsing.numbers(rows, list(places.columns)) * scale
    out[ANGLES] = parsing.numbers(rows, list(angles)) * list(angles.values()) if angles else 0.0
    if moves is not None:
        out[POSITION] += moves[:, :3, 3][:, ::-1]
        out[ANGLES] = rotations.to_euler(rotations.nearest(moves[:, :3, :3], "transform_00 and so on")[:, ::-1, ::-1])
    used = {*places.columns, *angles, own, *([] if ids is None else [numbers])}
    # Angles that are left here are 0.
    others = [name for name in rows if name not in used and name not in ANGLES]
    wrong = next((name for name in others if name in REQUIRED and name not in WEDGE), None)
    if wrong is not None:
        raise ValueError(f"column {wrong} is not what tomolab calls so; rename it")
    columns = {name: rows[name] if name in TEXTS else parsing.typed(rows[name]) for name in others}
    return pd.DataFrame(dict(out.items()) | columns)


def _moves(rows: pd.DataFrame) -> np.ndarray | None:
    """Transformations of copick (n, 4, 4), on xyz vectors in Å, if there are any."""
    if not any(name in rows for name in MOVES):
        return None
    lacking = [name for name in MOVES if name not in rows]
    turned = [name for name in rows if name.strip().lower() in ANGLES]
    if lacking or turned:
        fault = f"lacks {', '.join(lacking)}" if lacking else f"has {', '.join(turned)} too"
        raise ValueError(f"a transformation is transform_00 to transform_33 and no angles, but the list {fault}")
    moves = parsing.numbers(rows, MOVES).reshape(-1, 4, 4)
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
        _check_names(rows[own], tomogram)
    return own


def _check_names(names: pd.Series, tomogram: str | None) -> None:
    """Refuse rows without a tomogram, and names that are not that of the user."""
    places = np.flatnonzero(nameless(names))
    if len(places):
        written = "nothing" if pd.isna(names.iloc[places[0]]) else repr(names.iloc[places[0]])
        raise ValueError(
            f"column {names.name}: {len(places)} of {len(names)} particles have no name of a tomogram but {written}, "
            f"first rows {', '.join(map(str, places[:5]))}, counted from 0; name their tomograms, or remove these rows"
        )
    tables.check_named(names, tomogram, f"column {names.name}")


def _ids(column: pd.Series, *, renumber: bool, own: bool = False) -> pd.Series | None:
    """Particle ids; None for a column ``id`` of names, such as hashes, which is carried through."""
    written = column.astype("string").fillna("").str.strip()
    whole = written.str.fullmatch(WHOLE)
    if whole.all():
        return written.str.replace(r"\..*", "", regex=True).astype("int64")
    if not own and _split(str(column.name)) == ["id"] and _are_names(written):
        return None
    numbers = floats(written)
    # Ids of our own may have more digits.
    bad = ~(np.isfinite(numbers) & (numbers == np.round(numbers))) if own else ~whole.to_numpy(dtype=bool)
    if bad.any() and not renumber:
        first = int(np.argmax(bad))
        value = "nothing" if pd.isna(column.iloc[first]) else repr(column.iloc[first])
        raise MissingOptionError(
            f"column {column.name}: {bad.sum()} of {len(column)} ids are no whole numbers, first that of row {first}: {value}; "
            "give renumber=True to number all particles from 0 and keep these in the column original_id",
            "renumber",
        )
    return parsing.typed(column)


def _are_names(written: pd.Series) -> bool:
    """Whether texts are names and no numbers; of hashes, all of one length, some may have nothing but digits."""
    there = written[~written.str.lower().isin(NAMELESS)]
    plain = there.str.fullmatch(r"[+-]?(?:0|[1-9]\d{0,17})(?:\.0*)?")
    lengths = set(there.str.len())
    return not plain.any() or bool(plain.mean() <= 0.5 and len(lengths) == 1 and min(lengths) >= 4)


def _check_frames(rows: pd.DataFrame, places: Places, *, named: bool) -> None:
    """Refuse corners of shapes, and points of several frames that would come into one tomogram."""
    shapes = set(rows["shape-type"].dropna()) if "shape-type" in rows else set()
    if shapes & {"rectangle", "ellipse"}:
        raise ValueError(f"these are corners of shapes ({', '.join(sorted(shapes))}), no points; save a layer of points")
    counting = [places.frame] if places.frame else [name for name in rows if _counts_frames(rows[name])]
    for name in counting:
        frames = sorted(set(rows[name].fillna("nothing")))
        if len(frames) > 1 and not named:
            raise ValueError(
                f"the points are in {len(frames)} frames ({name}: {', '.join(frames[:5])}), and no column names their "
                "tomograms; add one, or save each frame apart"
            )
    if places.frame is not None:
        names = ", ".join(places.columns)
        warnings.warn(
            f"there are four axes: {names} are taken for z, y, x, and {places.frame} for time or a channel", stacklevel=2
        )


def _counts_frames(column: pd.Series) -> bool:
    """Whether a column is called after frames, and holds whole numbers; times of the day are none."""
    return _letters(str(column.name)) in FRAMES and bool(column.dropna().str.strip().str.fullmatch(WHOLE).all())


def _angles(rows: pd.DataFrame) -> dict[str, float]:
    """Columns with RELION's angles, and degrees in their unit; none where particles are not turned."""
    named = {angle: [name for name in rows if _degrees(name, angle)] for angle in ANGLES}
    doubled = [name for names in named.values() if len(names) > 1 for name in names]
    if doubled:
        raise ValueError(f"{' and '.join(doubled)} may mean the same; keep one of them")
    angles = {names[0]: _degrees(names[0], angle) for angle, names in named.items() if names}
    if len(angles) < 3 and _all_neutral(rows[list(angles)], "angle"):
        angles = {}
    if angles and len(angles) < 3:
        raise ValueError(
            f"angles are read as rot, tilt, psi (RELION's), but there is only {', '.join(angles)}, of a convention that is not "
            "known; rename or remove it"
        )
    turning = [] if angles else _not_neutral(rows, TURNS)
    if turning:
        raise ValueError(
            f"orientations are read from rot, tilt, psi (RELION's), but there are {', '.join(turning)}, of a convention "
            "that is not known; convert and rename them, or rename or remove them if they do not turn the particles"
        )
    return angles


def _degrees(name: str, angle: str) -> float:
    """Degrees in the unit of a column that is called after an angle of RELION; 0 for other names."""
    first, *unit = words(name) or [""]
    if first != angle or len(unit) > 1 or not set(unit) <= set(ANGLE_UNITS):
        return 0.0
    return ANGLE_UNITS[unit[0]] if unit else 1.0


def _not_neutral(rows: pd.DataFrame, families: Sequence[Family]) -> list[str]:
    """Columns of the first family that is there and turns or moves a particle, and of others of its kind."""
    members: dict[int, dict[str, str]] = {}
    for name in rows:
        found = _fitting(name, families)
        if found is not None:
            members.setdefault(found[0], {})[name] = found[1]
    for number, names in sorted(members.items()):
        family = families[number]
        if len(names) >= family.least and not _all_neutral(rows[list(names)], family.kind, list(names.values())):
            return [name for other, found in members.items() if families[other].kind == family.kind for name in found]
    return []


def _fitting(name: str, families: Sequence[Family]) -> tuple[int, str] | None:
    """Which family a column is of by its name, and the words that say so, written together; None for other names."""
    first, *others = words(name) or [""]
    kept = [first, *(word for word in others if word not in SPELLINGS and word not in ANGLE_UNITS and word != "a")]
    if set(kept) & NO_POSE:
        return None
    for width in range(min(4, len(kept)), 0, -1):
        for start in range(len(kept) - width + 1):
            together = "".join(kept[start : start + width])
            for number, family in enumerate(families):
                if (width == len(kept) or not family.whole) and re.fullmatch(family.pattern, together):
                    return number, together
    return None


def _all_neutral(rows: pd.DataFrame, kind: str, keys: Sequence[str] = ()) -> bool:
    """Whether all values are missing, 0, or those of a particle that is not turned."""
    values = np.array([_values(rows[name]) for name in rows]).reshape(rows.shape[1], len(rows)).T
    there = ~np.isnan(values)
    if kind == "normal" and np.isfinite(values).all() and (values >= 2).all() and (values == np.round(values)).all():
        # Numbers of voxels; the parts of a normal are at most 1.
        return True
    return any((np.abs(values - neutral) <= 1e-6)[there].all() for neutral in ([0.0] * rows.shape[1], *_neutral(kind, keys)))


def _neutral(kind: str, keys: Sequence[str]) -> list[list[float]]:
    """Values of a particle that is not turned, beside zeros; the scalar of a quaternion may be the first or the last."""
    if kind == "matrix":
        return [[float(key[-1] == key[-2]) for key in keys]]
    if kind == "quaternion":
        scalar = [key for key in keys if key[-1] in "wr"]
        if len(keys) == 4 and all(key[-1].isdigit() for key in keys):
            scalar = [min(keys), max(keys)]
        return [[sign * (key == one) for key in keys] for one in scalar for sign in (1.0, -1.0)]
    if kind in ("vector", "normal"):
        return [[float(key[-1] == (key[0] if key[0] in "xyz" else "z")) for key in keys]]
    return []


def _values(column: pd.Series) -> np.ndarray:
    """Values as floats; NaN for what is missing and for words, infinite for texts that hold numbers."""
    numbers = floats(column)
    texts = column.astype("string").str.contains(r"\d").fillna(False).to_numpy(dtype=bool)
    return np.where(np.isnan(numbers) & texts, np.inf, numbers)


def words(name: str) -> list[str]:
    """Words of a name in lower case, parted at marks, capitals and digits, and before a unit."""
    small, large = r"[a-zå]", r"[A-ZÅ]"
    borders = rf"(?<={small})(?={large})|(?<={large})(?={large}{small})|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
    parted = re.sub(borders, " ", name).lower()
    parted = re.sub(
        r"(?<=[a-z])(deg(?:rees?)?|rad(?:ians?)?|angst(?:roms?)?|nm|px|pix(?:els?)?|vox(?:els?)?)(?![^\W_])", r" \1", parted
    )
    return _split(parted)


def _letters(name: str) -> str:
    """A name in lower case without marks and blanks."""
    return re.sub(r"[\W_]", "", name.lower())


def _one(rows: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    """The column of one of these names, or None; a ValueError if there are several."""
    found = [name for one in names for name in rows if one in (name.strip().lower(), _letters(name))]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} may mean the same; keep one of them")
    return found[0] if found else None
