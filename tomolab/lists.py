"""Particle lists of other programs and our own, to and from particle tables: one door, and behind it a module for each.

What a file is, its suffix says, and for .star what it holds:

=========  =====================================================================  ========================
.star      RELION 2 to 5, Warp, M, optimisation sets; STOPGAP                     `relionlists`, `stopgap`
.tbl       Dynamo                                                                 `dynamo`
.em        motive lists of AV3, TOM, Artiatomi                                    `motl`
.mod       models of IMOD                                                         `imod`
.json      picks of copick (a project is opened by `copick.open`); EMAN2's boxes  `copick`, `eman2`
.ndjson    annotations of the CryoET Data Portal                                  `portal`
.csv       our own, exact; tables of other programs with columns x, y, z; PEET    `spreadsheets`, `peet`
.cbox      crYOLO; .coords of crYOLO and TomoTwin                                 `cryolo`
.xml       particle lists of PyTom                                                `pytom`
=========  =====================================================================  ========================

Each module says what its format means and what it cannot hold; ``docs/formats.md`` has them side by side.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import (
    copick,
    cryolo,
    dynamo,
    eman2,
    imod,
    motl,
    peet,
    portal,
    pytom,
    relionlists,
    relionsets,
    spreadsheets,
    star,
    stopgap,
)
from tomolab import particles as tables
from tomolab.conventions import SOURCE, WEDGE
from tomolab.paths import atomic, fingerprint, text
from tomolab.star import Shape, Tilts

STOPGAP = "stopgap"
FORMATS = [*star.VERSIONS, STOPGAP]
"""What a .star file can be written for."""


@dataclass(frozen=True)
class Known:
    """What is known of a list beside the list."""

    voxel_size: float | None
    tilts: Tilts | None
    shape: Shape | None
    tomogram: str | None
    tomogram_list: str | Path | None
    unit: str | None


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
        tilt series that `tomogram_list` names (RELION 5).
    tomogram_shape
        For centred coordinates (RELION 5): voxels of `voxel_size` that the whole tomogram holds.
    tomogram
        Name of the tomogram, for a file that names none.
    tomograms
        Names that may occur; any other is refused.
    tomogram_list
        RELION's tomograms.star, which has pixel sizes and shapes; by default what an optimisation set names, or the file of
        this name beside a list that does not say them.
    unit
        ``"angstrom"`` or ``"voxel"``, for a table of another program (.csv).

    Returns
    -------
    DataFrame
        One row for each row of the file, in its order. ``source_list`` and ``source_row`` say from where each came, for
        `copies.filter_particles`; a CSV file of ours keeps what it says of that.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or one that it names is not there.
    ValueError
        If the file is not what its suffix says, there are no coordinates, a tomogram is not among `tomograms`, the voxel
        size, tilts or tomogram shape are needed and not known, the file contradicts `voxel_size`, or `particles.check` finds
        a fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    known = Known(voxel_size, tilts, tomogram_shape, tomogram, tomogram_list, unit)
    try:
        if path.suffix.lower() not in READERS:
            raise ValueError(_unknown(path, READERS))
        found = READERS[path.suffix.lower()](path, known)
        if tilts is not None:
            found[WEDGE] = star.tilts_of(tilts, found["tomogram"])
        elif not set(WEDGE) <= set(found):
            raise ValueError(
                "the file does not say between which tilts the particles were observed; give tilts=(lowest, highest)"
            )
        # A CSV file of ours keeps what it says; an optimisation set is not the list itself.
        if path.suffix.lower() != ".csv" and not set(SOURCE) <= set(found):
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
    tomogram_list: str | Path | None = None,
) -> Path:
    """Write a particle table, whole or not at all, as the suffix says; CSV is exact.

    RELION's files carry all columns. The others but CSV drop those that they have no place for: ``text`` or ``content`` of
    `dynamo`, `stopgap`, `motl`, `imod` and `portal` say what they keep. Where tomograms are numbered, a list of them is
    written beside: ``a.doc`` for ``a.tbl``, ``a_tomolist.txt`` for STOPGAP's ``a.star`` and for ``a.em``. Projects of copick
    are written by `copick.write`.

    Parameters
    ----------
    particles
        The table.
    path
        .star, .tbl (Dynamo), .em (motive list), .mod (IMOD), .ndjson (CryoET Data Portal) or .csv.
    voxel_size
        Å per voxel of the tomogram in which coordinates are counted; needed but for .csv.
    format
        Of a .star file: ``"relion31"`` (coordinates in pixels from 0), ``"relion30"`` (the same in one table), ``"warp"``
        (that too, tomograms called NAME.tomostar), ``"relion4"`` (pixels of the tilt images), ``"relion5"`` (Å from the
        middle of the tomogram) or ``"stopgap"`` (a motive list). Of an .em file: ``"artiatomi"``, else AV3's.
    tomogram_shape
        For ``"relion5"``: voxels of the tomogram.
    tomogram_list
        For ``"relion4"`` and ``"relion5"``: RELION's tomograms.star, which has the pixel sizes of the tilt images and the
        shapes. Without it the pixel size is that of a column ``rlnTomoTiltSeriesPixelSize``, or `voxel_size`.

    Raises
    ------
    FileNotFoundError
        If `tomogram_list` is not there.
    ValueError
        If something needed is not given, the format is unknown, or something in the table cannot stand in such a file.
    """
    path = Path(path)
    particles = tables.check(particles)
    known = Known(voxel_size, None, tomogram_shape, None, tomogram_list, None)
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"{_unknown(path, WRITERS)} in {path}")
    content, listed = WRITERS[path.suffix.lower()](particles, known, format)
    if listed is not None:
        # Motive lists name theirs alike; Dynamo goes by the suffix.
        beside = path.with_suffix(".doc") if path.suffix.lower() == ".tbl" else stopgap.companion(path)
        with atomic(beside) as temporary:
            temporary.write_text(listed, encoding="utf-8")
    with atomic(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def _read_star(path: Path, known: Known) -> pd.DataFrame:
    blocks = star.blocks(path)
    if stopgap.BLOCK in blocks:
        rows = blocks[stopgap.BLOCK]
        return stopgap.table(rows, path, voxel_size=known.voxel_size, tilts=known.tilts, tomogram=known.tomogram)
    return relionlists.read(
        path,
        blocks,
        voxel_size=known.voxel_size,
        shape=known.shape,
        tomogram=known.tomogram,
        tomogram_list=known.tomogram_list,
        tilts=known.tilts is None,
    )


def _read_csv(path: Path, known: Known) -> pd.DataFrame:
    if peet.is_motive_list(path):
        if known.unit is not None:
            raise ValueError(
                f"a motive list of PEET counts pixels of its model, but unit={known.unit!r} was given; leave it out"
            )
        return peet.read(path, voxel_size=known.voxel_size, tomogram=known.tomogram)
    return spreadsheets.read(path, unit=known.unit, voxel_size=known.voxel_size, tomogram=known.tomogram)


def _read_json(path: Path, known: Known) -> pd.DataFrame:
    # copick's picks hold points, EMAN2's have boxes; what is neither, copick refuses.
    if f'"{eman2.BOXES}"' in text(path):
        return eman2.read(path, voxel_size=known.voxel_size, shape=known.shape, tomogram=known.tomogram)
    return copick.read(path, tomogram=known.tomogram)


def _write_star(particles: pd.DataFrame, known: Known, version: str) -> tuple[str, str | None]:
    if version == STOPGAP:
        return stopgap.text(particles, voxel_size=known.voxel_size)
    if version not in star.VERSIONS:
        raise ValueError(f"unknown format {version!r}; there are {', '.join(FORMATS)}")
    listed = None if known.tomogram_list is None else relionsets.tomograms(known.tomogram_list)
    blocks = relionlists.star_tables(particles, voxel_size=known.voxel_size, version=version, shape=known.shape, listed=listed)
    return star.text(blocks, version=star.VERSIONS[version]), None


def _write_em(particles: pd.DataFrame, known: Known, version: str) -> tuple[bytes, str]:
    kind = motl.ARTIATOMI if version == motl.ARTIATOMI else motl.AV3
    return motl.content(particles, voxel_size=known.voxel_size, kind=kind)


def _unknown(path: Path, there: Collection[str]) -> str:
    names = sorted(there)
    return f"particle lists are {', '.join(names[:-1])} or {names[-1]}, got {path.suffix or 'a name without suffix'}"


READERS: dict[str, Callable[[Path, Known], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".em": lambda path, known: motl.read(path, voxel_size=known.voxel_size, tomogram=known.tomogram),
    ".cbox": lambda path, known: cryolo.read(path, voxel_size=known.voxel_size, tomogram=known.tomogram),
    ".coords": lambda path, known: cryolo.read(path, voxel_size=known.voxel_size, tomogram=known.tomogram),
    ".json": _read_json,
    ".tloc": lambda path, known: cryolo.read(path, voxel_size=known.voxel_size, tomogram=known.tomogram),
    ".xml": lambda path, known: pytom.read(path, voxel_size=known.voxel_size, tomogram=known.tomogram),
    ".mod": lambda path, known: imod.read(path, voxel_size=known.voxel_size, tomogram=known.tomogram),
    ".ndjson": lambda path, known: portal.read(path, voxel_size=known.voxel_size, tomogram=known.tomogram),
    ".star": _read_star,
    ".tbl": lambda path, known: dynamo.read(path, voxel_size=known.voxel_size, tilts=known.tilts, tomogram=known.tomogram),
}
"""What reads each suffix."""

WRITERS: dict[str, Callable[[pd.DataFrame, Known, str], tuple[str | bytes, str | None]]] = {
    ".csv": lambda particles, _known, _format: (particles.to_csv(index=False), None),
    ".em": _write_em,
    ".mod": lambda particles, known, _format: (
        imod.content(particles, voxel_size=known.voxel_size, shape=known.shape),
        None,
    ),
    ".ndjson": lambda particles, known, _format: (portal.text(particles, voxel_size=known.voxel_size), None),
    ".star": _write_star,
    ".tbl": lambda particles, known, _format: dynamo.text(particles, voxel_size=known.voxel_size),
}
"""What gives the content for each suffix, and the text of the list of tomograms beside it where there is one."""
