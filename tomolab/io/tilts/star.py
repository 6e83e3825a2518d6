"""Tilt tables from STAR files: tilt series of RELION 5 and wedge lists of STOPGAP.

RELION projects a point to ``x cos(t) + z sin(t)``, t being rlnTomoYTilt (`Tomogram::setProjectionMatrix` of its source), as
IMOD does, so tilts keep their sign. STOPGAP's tilts are those of IMOD's .tlt files.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.io.lists.star import parsing
from tomolab.io.lists.star.columns import TOMOGRAM
from tomolab.io.lists.star.relion_sets import ANGLES, SERIES
from tomolab.io.tilts import imod

ALIGNED, STAGE = ANGLES
WEDGES = "stopgap_wedgelist"
FURTHER = {"axis": "rlnTomoZRot", "shift_x": "rlnTomoXShiftAngst", "shift_y": "rlnTomoYShiftAngst", "level_x": "rlnTomoXTilt"}
"""Our columns of the alignment, and those of RELION."""
DEFOCUS = ["rlnDefocusU", "rlnDefocusV"]
IMAGES = ("rlnMicrographName", "rlnMicrographMovieName", "rlnTomoMicrographName")


def read_tilt_star(path: str | Path, *, tomogram: str | int | None = None) -> pd.DataFrame:
    """Tilt table of a tilt series of RELION 5, or of a tomogram in a wedge list of STOPGAP, in the order of the file.

    From RELION comes `tilt` as it was aligned (rlnTomoYTilt), or else as it was set (rlnTomoNominalStageTiltAngle), which is
    also in column `stage_tilt`; dose is rlnMicrographPreExposure, defocus the mean of rlnDefocusU and V. Further columns are
    `axis` (degrees from y to x: rlnTomoZRot, or else rlnTomoNominalTiltAxisAngle), `shift_x` and `shift_y` (Å in the image),
    `level_x` (degrees about x, rlnTomoXTilt), `target_defocus` (µm underfocus), `image` (name of the micrograph) and `use`
    (True). Where all micrographs are sections of one stack (``3@TS_01.mrcs``), rows are in the order of the sections.

    A wedge list gives tilt, defocus (µm) and, if there is a column for it, `dose` (exposure). That is taken to be what the
    specimen had before each image only if it is 0 for one of them; otherwise it may hold the exposure of the image itself, and
    stands in column `stopgap_exposure` alone.

    Parameters
    ----------
    path
        The .star file.
    tomogram
        Name of the series, or tomo_num of a wedge list, where the file holds several.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is a list of tomograms or has no tilts, it holds several tomograms and none of them is chosen, or a value is
        not a number.
    """
    try:
        blocks = parsing.parsed(imod.text(path, strict=True))
        if WEDGES in blocks:
            return _wedges(blocks[WEDGES], tomogram)
        return _series(blocks, tomogram)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _series(blocks: Mapping[str, pd.DataFrame], tomogram: str | int | None) -> pd.DataFrame:
    """Tilt table of the block that holds a tilt series of RELION."""
    found = {name: rows for name, rows in blocks.items() if any(column in rows for column in ANGLES) and SERIES not in rows}
    if not found:
        raise ValueError(_other(blocks))
    rows = found[_chosen(list(found), tomogram)]
    if rows.empty:
        raise ValueError("the tilt series has no images")
    rows = rows.iloc[_sections(rows)]
    aligned, stage = _column(rows, ALIGNED), _column(rows, STAGE)
    angles = stage if ALIGNED not in rows else aligned
    imod.check_tilts(angles, lambda i: f"row {i}")
    further = {ours: _column(rows, theirs) for ours, theirs in FURTHER.items()}
    if FURTHER["axis"] not in rows:
        further["axis"] = _column(rows, "rlnTomoNominalTiltAxisAngle")
    names = next((rows[name] for name in IMAGES if name in rows), None)
    return imod.table(
        angles,
        order=_order(_column(rows, "rlnTomoTiltMovieIndex")),
        dose=_column(rows, "rlnMicrographPreExposure"),
        defocus=np.mean([_column(rows, name) for name in DEFOCUS], axis=0) * 1e-4,
        stage_tilt=stage,
        **further,
        target_defocus=-_column(rows, "rlnTomoNominalDefocus"),
        image="" if names is None else [re.split(r"[\\/]", str(name))[-1] for name in names],
        use=True,
    )


def _wedges(rows: pd.DataFrame, tomogram: str | int | None) -> pd.DataFrame:
    """Tilt table of one tomogram of a wedge list."""
    missing = [name for name in ("tomo_num", "tilt_angle") if name not in rows]
    if missing:
        raise ValueError(f"the wedge list lacks the columns {', '.join(missing)}; it has {', '.join(rows)}")
    if rows.empty:
        raise ValueError("the wedge list has no rows")
    numbers = [f"{number:g}" for number in parsing.numbers(rows, ["tomo_num"])[:, 0]]
    chosen = rows[np.array(numbers) == _chosen(list(dict.fromkeys(numbers)), tomogram)]
    angles = _column(chosen, "tilt_angle")
    imod.check_tilts(angles, lambda i: f"image {i} of the tomogram")
    exposure = _column(chosen, "exposure")
    if {"defocus1", "defocus2"} <= set(chosen):
        defocus = (_column(chosen, "defocus1") + _column(chosen, "defocus2")) / 2
    else:
        defocus = _column(chosen, "defocus")
    return imod.table(
        angles,
        dose=exposure if exposure.min() == 0 else None,
        defocus=defocus,
        stopgap_exposure=exposure,
        image="",
        use=True,
    )


def _chosen(names: list[str], tomogram: str | int | None) -> str:
    """Name of the series that is asked for, or of the only one."""
    if tomogram is None and len(names) == 1:
        return names[0]
    there = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    if tomogram is None:
        raise ValueError(f"the file holds the tilts of {len(names)} tomograms ({there}); say which with tomogram=")
    if str(tomogram) not in names:
        raise ValueError(f"there is no tomogram {tomogram!r} in the file; it holds {there}")
    return str(tomogram)


def _other(blocks: Mapping[str, pd.DataFrame]) -> str:
    """What is wrong with a file that holds no tilts."""
    listed = next((rows for rows in blocks.values() if {TOMOGRAM, SERIES} <= set(rows)), None)
    if listed is None:
        return f"there are no tilts ({' or '.join(ANGLES)}, or a {WEDGES}): {parsing.described(blocks)[:500]}"
    named = [f"{series} of {name}" for name, series in zip(listed[TOMOGRAM], listed[SERIES], strict=True)]
    more = " …" if len(named) > 5 else ""
    return f"this is a list of tomograms, not a tilt series; give the file that it names: {', '.join(named[:5])}{more}"


def _sections(rows: pd.DataFrame) -> np.ndarray:
    """Order of the rows: that of the sections, where all micrographs are sections of one stack; that of the file otherwise."""
    name = next((name for name in IMAGES if name in rows), None)
    sections = [re.fullmatch(r"0*([1-9]\d{0,8})@(.+)", str(value)) for value in rows[name]] if name else []
    found = [one for one in sections if one]
    if not found or len(found) < len(sections) or len({one[2] for one in found}) > 1:
        return np.arange(len(rows))
    numbers = [int(one[1]) for one in found]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{name} names a section of {found[0][2]} twice")
    return np.argsort(numbers)


def _column(rows: pd.DataFrame, name: str) -> np.ndarray:
    """A column as finite numbers; NaN where there is none."""
    return parsing.numbers(rows, [name])[:, 0] if name in rows else np.full(len(rows), np.nan)


def _order(index: np.ndarray) -> np.ndarray | None:
    """Place in the order of exposure, from 0, of images that are numbered in that order."""
    return None if np.isnan(index).any() or len(np.unique(index)) < len(index) else np.argsort(np.argsort(index))
