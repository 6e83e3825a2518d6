"""Particle lists of other programs and our own, to and from particle tables: one door, and behind it a module for each.

What a file is, its suffix says, and for .star what it holds:

=========  =====================================================================  ========================
.star      RELION 2 to 5, Warp, M, optimisation sets; STOPGAP                     `relion`, `stopgap`
.tbl       Dynamo                                                                 `dynamo`
.em        motive lists of AV3, TOM, Artiatomi                                    `em`
.mod       models of IMOD                                                         `imod`
.json      picks of copick (a project is opened by `io.open_copick`); EMAN2's boxes  `copick`, `eman2`
.ndjson    annotations of the CryoET Data Portal                                  `portal`
.csv       our own, exact; tables of other programs with columns x, y, z; PEET    `csv`, `imod`
.cbox      crYOLO; .coords of crYOLO and TomoTwin                                 `cryolo`
.xml       particle lists of PyTom                                                `pytom`
=========  =====================================================================  ========================

Each module says what its format means and what it cannot hold; ``docs/formats.md`` has them side by side.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab.conventions import SOURCE, VOXEL_SIZE, WEDGE
from tomolab.io.lists import copick, cryolo, csv, dynamo, em, eman2, imod, outdated, portal, pytom, stopgap
from tomolab.io.lists.options import MissingOptionError, ReadOptions, Shape
from tomolab.io.lists.star import parsing, relion, relion_sets
from tomolab.io.lists.star.columns import VERSIONS
from tomolab.io.lists.tomogram_names import Tilts, each, match_names, tilts_of
from tomolab.io.paths import atomic, fingerprint

Value = TypeVar("Value")

STOPGAP = "stopgap"
STAR_FORMATS = [*VERSIONS, STOPGAP]
"""What a .star file can be written for."""
DEFAULT = "relion31"
STAR_OPTIONS = {"relion4": frozenset({"tomogram_list"}), "relion5": frozenset({"tomogram_list", "tomogram_shape"})}
"""Parameters of `write_particles` that only some formats of .star files use."""
ALWAYS = frozenset({"voxel_size", "tilts", "tomogram_shape", "tomogram", "renumber"})
"""Parameters of `read_particles` that have a meaning for all lists: positions are held against the size of the tomogram."""


@dataclass(frozen=True)
class WriteOptions:
    """Parameters of `write_particles`; None where they are not given."""

    voxel_size: float | None
    format: str | None
    tomogram_shape: Shape | None
    tomogram_list: str | Path | None


def read_particles(
    path: str | Path,
    *,
    voxel_size: float | None = None,
    tilts: Tilts | None = None,
    tomogram_shape: Shape | None = None,
    tomogram: str | None = None,
    tomograms: Collection[str] | None = None,
    tomogram_list: str | Path | None = None,
    unit: str | None = None,
    renumber: bool = False,
) -> pd.DataFrame:
    """Read a particle table from a list of RELION, Warp, M, Dynamo, STOPGAP, AV3, Artiatomi, IMOD, copick, the portal or CSV.

    Parameters
    ----------
    path
        .star, .tbl, .em, .mod, .json, .ndjson or .csv; the head of this module says whose.
    voxel_size
        Å per pixel of the coordinates: of the tomogram they were picked in. Taken from the file where it says so.
    tilts
        Tilts between which the particles were observed; taken from the file if it is Dynamo's or tomolab wrote it, or from the
        tilt series that `tomogram_list` names.
    tomogram_shape
        Voxels (z, y, x) of `voxel_size` that the whole tomogram holds. Centred coordinates (RELION 5) and fractions of the
        volume (Warp) need it; the positions of all lists are held against it.
    tomogram
        Name of the tomogram, for a file that names none.
    tomograms
        Names that may occur; any other is refused. TS_1.tomostar and TS_1_10.00Apx.mrc are TS_1 if nothing else fits; a
        warning says so, and the table has the name that is given here.
    tomogram_list
        RELION's tomograms.star, which has pixel sizes and shapes; by default what an optimisation set names, or the file of
        this name beside a list that names tomograms by rlnTomoName and does not say them.
    unit
        Of coordinates that could be counted in several: ``"angstrom"``, ``"voxel"`` or, of a .star file, ``"fraction"`` of the
        volume.
    renumber
        Number the particles from 0 in the order of the file. Their ids stay in the column ``original_id``. Lists that were
        merged, or that count in each tomogram anew, repeat ids and need it; so do CSV files with ids that are no numbers.

    Returns
    -------
    DataFrame
        One row for each row of the file, in its order. ``source_list`` and ``source_row`` say from where each came, for
        `io.filter_particles`; a CSV file of ours keeps what it says of that.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or one that it names is not there.
    ValueError
        If the file is not what its suffix says, there are no coordinates, a tomogram is not among `tomograms`, the voxel
        size, tilts or tomogram shape are needed and not known, the file contradicts `voxel_size`, an id is repeated, most
        particles lie far outside of the tomogram, a parameter has no meaning for such a file, or `particles.check` finds a
        fault.

    Warns
    -----
    UserWarning
        If all particles of a tomogram lie in one voxel, or some lie far outside of it: then the unit may be another.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    given = ReadOptions(voxel_size, tilts, tomogram_shape, tomogram, tomogram_list, unit, renumber or None)
    try:
        found = _read(path, given)
        stated = found.attrs.pop(VOXEL_SIZE, tables.CLOSE)
        if tilts is not None:
            found[WEDGE] = tilts_of(tilts, found["tomogram"])
        elif not set(WEDGE) <= set(found):
            raise MissingOptionError(
                "the file does not say between which tilts the particles were observed; give tilts=(lowest, highest)", "tilts"
            )
        # A CSV file of ours keeps what it says; an optimisation set is not the list itself.
        if path.suffix.lower() != ".csv" and not set(SOURCE) <= set(found):
            found[SOURCE[0]], found[SOURCE[1]] = fingerprint(path), np.arange(len(found))
        found = outdated.noted(tables.check(tables.renumber(found) if renumber else _different(found)))
        tables.check_extent(found, _extents(found, voxel_size, tomogram_shape))
        if path.suffix.lower() != ".csv" or unit is not None:
            tables.check_apart(found, voxel_size or stated)
    except MissingOptionError as error:
        raise MissingOptionError(f"{path}: {error}", *error.names) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if tomograms is not None:
        try:
            fitting = match_names(found["tomogram"].unique(), tomograms, what="tomograms=")
        except ValueError as error:
            raise ValueError(f"{path} names tomograms that are not there: {error}") from error
        found["tomogram"] = found["tomogram"].map(fitting)
    return found


def write_particles(
    particles: pd.DataFrame,
    path: str | Path,
    *,
    voxel_size: float | None = None,
    format: str | None = None,  # noqa: A002 - the word users look for
    tomogram_shape: Shape | None = None,
    tomogram_list: str | Path | None = None,
) -> Path:
    """Write a particle table, whole or not at all, as the suffix says; CSV is exact.

    RELION's files carry all columns. The others but CSV drop those that they have no place for: ``text`` or ``content`` of
    `dynamo`, `stopgap`, `em`, `imod` and `portal` say what they keep. Where tomograms are numbered, a list of them is
    written beside: ``a.doc`` for ``a.tbl``, ``a_tomolist.txt`` for STOPGAP's ``a.star`` and for ``a.em``. Projects of copick
    are written by `copick.write`.

    Parameters
    ----------
    particles
        The table.
    path
        .star, .tbl (Dynamo), .em (motive list), .mod (IMOD), .ndjson (CryoET Data Portal) or .csv.
    voxel_size
        Å per voxel of the tomogram in which coordinates are counted; needed but for .csv, which is in Å.
    format
        Of a .star file: ``"relion31"`` (default; coordinates in pixels from 0), ``"relion30"`` (the same in one table),
        ``"warp"`` (that too, tomograms called NAME.tomostar), ``"relion4"`` (pixels of the tilt images), ``"relion5"`` (Å from
        the middle of the tomogram) or ``"stopgap"`` (a motive list). Of an .em file: ``"av3"`` (default) or ``"artiatomi"``.
    tomogram_shape
        For ``"relion5"`` and .mod: voxels (z, y, x) of the tomogram.
    tomogram_list
        For ``"relion4"`` and ``"relion5"``: RELION's tomograms.star, which has the pixel sizes of the tilt images and the
        shapes. Without it the pixel size is that of a column ``rlnTomoTiltSeriesPixelSize``, or `voxel_size`.

    Raises
    ------
    FileNotFoundError
        If `tomogram_list` is not there.
    ValueError
        If something needed is not given, the format is unknown, a parameter has no meaning for such a file, or something in
        the table cannot stand in it.
    """
    path = Path(path)
    particles = tables.check(particles)
    given = WriteOptions(voxel_size, format, tomogram_shape, tomogram_list)
    try:
        _refuse_unused(given, options(path, format))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    content, listed = _of_suffix(path, WRITERS).write(particles, given)
    if listed is not None:
        with atomic(companion(path)) as temporary:
            temporary.write_text(listed, encoding="utf-8")
    with atomic(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def companion(path: Path) -> Path:
    """The list of tomograms that is written beside a particle list whose tomograms are numbered."""
    # Motive lists name theirs alike; Dynamo goes by the suffix.
    return path.with_suffix(".doc") if path.suffix.lower() == ".tbl" else stopgap.companion(path)


def options(path: str | Path, format: str | None = None) -> frozenset[str]:  # noqa: A002 - as in `write_particles`
    """Names of the parameters of `write_particles` that have a meaning for a file of this name and format.

    Raises
    ------
    ValueError
        If no list has such a suffix, or a .star file no such format.
    """
    uses = _of_suffix(Path(path), WRITERS).uses
    if Path(path).suffix.lower() != ".star":
        return uses
    return uses | STAR_OPTIONS.get(_star_format(format), frozenset())


@dataclass(frozen=True)
class Writer:
    """What gives the content of a list and the text of the list of tomograms beside it, if there is one, and the parameters
    of `write_particles` that it uses.
    """

    write: Callable[[pd.DataFrame, WriteOptions], tuple[str | bytes, str | None]]
    uses: frozenset[str] = frozenset({"voxel_size"})


def _of_suffix(path: Path, there: dict[str, Value]) -> Value:
    """What stands for the suffix; a ValueError that lists the others if there is none."""
    if path.suffix.lower() not in there:
        names = sorted(there)
        got = f"{path.suffix} in {path}" if path.suffix else f"a name without suffix, {path}"
        raise ValueError(f"particle lists are {', '.join(names[:-1])} or {names[-1]}, got {got}")
    return there[path.suffix.lower()]


def _refuse_unused(options: Any, uses: frozenset[str]) -> None:
    """Refuse parameters that were given and have no meaning for the file."""
    given = [name for name, value in asdict(options).items() if value is not None and name not in uses]
    if given:
        raise ValueError(
            f"{', '.join(f'{name}=' for name in given)} has no meaning for such a file; what can be given is "
            f"{', '.join(f'{name}=' for name in sorted(uses)) or 'nothing'}"
        )


def _different(found: pd.DataFrame) -> pd.DataFrame:
    """The table, if its ids are different."""
    repeated = found["particle_id"].duplicated(keep=False)
    if repeated.any():
        some = ", ".join(str(number).removesuffix(".0") for number in found["particle_id"][repeated].head(5))
        raise MissingOptionError(
            f"column particle_id: {repeated.sum()} of {len(found)} particles (particle_id {some}) have an id that another row "
            "has too; give renumber=True to number all from 0 and keep the ids of the file in the column original_id",
            "renumber",
        )
    return found


def _extents(found: pd.DataFrame, voxel_size: float | None, shape: Shape | None) -> np.ndarray | None:
    """Lengths (n, 3) in Å, zyx, of the tomogram of each particle; None where they are not known."""
    if voxel_size is None or shape is None or found.empty:
        return None
    return np.broadcast_to(each(shape, found["tomogram"], "tomogram_shape"), (len(found), 3)) * voxel_size


def _read(path: Path, given: ReadOptions) -> pd.DataFrame:
    """Table of a list by what reads its suffix, without what `read_particles` adds."""
    read = _of_suffix(path, READERS)
    _refuse_unused(given, ALWAYS | STATED.get(path.suffix.lower(), frozenset()))
    return read(path, given)


def _read_star(path: Path, given: ReadOptions) -> pd.DataFrame:
    blocks = parsing.blocks(path)
    if stopgap.BLOCK not in blocks:
        return relion.read(path, blocks, given)
    _refuse_unused(given, ALWAYS)
    return stopgap.read(path, blocks[stopgap.BLOCK], given)


def _star_format(format: str | None) -> str:  # noqa: A002 - as in `write_particles`
    version = format or DEFAULT
    if version not in STAR_FORMATS:
        raise ValueError(f"unknown format {version!r} of a STAR file; there are {', '.join(STAR_FORMATS)}")
    return version


def _read_csv(path: Path, given: ReadOptions) -> pd.DataFrame:
    if not imod.is_motive_list(path):
        return csv.read(path, given)
    _refuse_unused(given, ALWAYS)
    return imod.read_motive_list(path, given)


def _read_json(path: Path, given: ReadOptions) -> pd.DataFrame:
    # copick's picks hold points, EMAN2's have boxes; what is neither, copick refuses.
    content = copick.content(path)
    return eman2.read(path, content, given) if eman2.BOXES in content else copick.read(content, given)


def _write_star(particles: pd.DataFrame, given: WriteOptions) -> tuple[str, str | None]:
    version = _star_format(given.format)
    if version == STOPGAP:
        return stopgap.text(particles, voxel_size=given.voxel_size)
    listed = None if given.tomogram_list is None else relion_sets.tomograms(given.tomogram_list)
    known: dict[str, Any] = {"voxel_size": given.voxel_size, "shape": given.tomogram_shape, "listed": listed}
    return parsing.text(relion.star_tables(particles, version=version, **known), version=VERSIONS[version]), None


READERS: dict[str, Callable[[Path, ReadOptions], pd.DataFrame]] = {
    ".cbox": cryolo.read,
    ".coords": cryolo.read,
    ".csv": _read_csv,
    ".em": em.read,
    ".json": _read_json,
    ".mod": imod.read,
    ".ndjson": portal.read,
    ".star": _read_star,
    ".tbl": dynamo.read,
    ".tloc": cryolo.read,
    ".xml": pytom.read,
}
"""What reads each suffix."""
STATED = {".csv": frozenset({"unit"}), ".star": frozenset({"unit", "tomogram_list"})}
"""Parameters of `read_particles` that only some suffixes use."""
WRITERS: dict[str, Writer] = {
    ".csv": Writer(lambda particles, _given: (csv.text(particles), None), frozenset()),
    ".em": Writer(
        lambda particles, given: em.content(particles, voxel_size=given.voxel_size, version=given.format or em.AV3),
        frozenset({"voxel_size", "format"}),
    ),
    ".mod": Writer(
        lambda particles, given: (imod.content(particles, voxel_size=given.voxel_size, shape=given.tomogram_shape), None),
        frozenset({"voxel_size", "tomogram_shape"}),
    ),
    ".ndjson": Writer(lambda particles, given: (portal.text(particles, voxel_size=given.voxel_size), None)),
    ".star": Writer(_write_star, frozenset({"voxel_size", "format"})),
    ".tbl": Writer(lambda particles, given: dynamo.text(particles, voxel_size=given.voxel_size)),
}
"""What gives the content for each suffix."""
