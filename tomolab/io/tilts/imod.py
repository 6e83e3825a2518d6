"""What is known of each image of a tilt series: the tilt table, and IMOD's angles (.tlt, .rawtlt), alignments (.xf) and command
files (.com), which name views to leave out and turn the specimen.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tomolab.io import paths

COLUMNS = ["tilt", "order", "dose", "exposure", "defocus"]
"""Tilt table: degrees; place in the order of exposure, from 0; e/Å² before the image; e/Å² of the image; µm underfocus."""
EXCLUDE = re.compile(r"EXCLUDELIST2?[\s=]+(\S.*)$", re.IGNORECASE)
"""Line of a command file that names views, such as ``EXCLUDELIST2 1-3,40``."""
VIEWS = 100_000
"""Numbers of views are smaller."""
TURNS = re.compile(r"(TILTFILE|OFFSET|XAXISTILT|SHIFT)[\s=]+(\S.*)$", re.IGNORECASE)
"""Line of IMOD's program tilt about the angles at which it takes the views."""
LARGEST = 2**26
"""Bytes of a metadata file; those of a tilt series hold less than a hundredth of it."""


def table(
    tilts: ArrayLike,
    *,
    order: ArrayLike | None = None,
    dose: ArrayLike | None = None,
    exposure: ArrayLike | None = None,
    defocus: ArrayLike | None = None,
    **further: Any,
) -> pd.DataFrame:
    """Make a tilt table, a row an image; what follows from the rest is filled in, what is not known is NaN.

    Parameters
    ----------
    tilts
        n angles in degrees.
    order
        Place of each image in the order of exposure, from 0; by default that of growing dose.
    dose
        e/Å² that the specimen had before each image; by default the sum of the exposures before it.
    exposure
        e/Å² of each image; by default the growth of the dose to the next image. The last image, which has none, is taken
        to be exposed as the one before it.
    defocus
        Underfocus in µm.
    **further
        More columns.
    """
    angles = np.asarray(tilts, dtype=float)
    known = [
        np.full(len(angles), np.nan) if given is None else np.asarray(given, dtype=float) for given in (order, dose, exposure)
    ]
    turn, before, each = known
    if np.isnan(turn).any() and not np.isnan(before).any() and len(np.unique(before)) == len(before):
        turn = np.argsort(np.argsort(before)).astype(float)
    if not np.isnan(turn).any():
        first = np.argsort(turn, kind="stable")
        if np.isnan(before).all():
            before = np.empty(len(angles))
            before[first] = np.cumsum(each[first]) - each[first]
        if np.isnan(each).all() and len(angles) > 1:
            growth = np.diff(before[first])
            each = np.empty(len(angles))
            each[first] = np.append(growth, growth[-1])
    focus = np.nan if defocus is None else defocus
    columns = dict(zip(COLUMNS, (angles, turn, before, each, focus), strict=True))
    return pd.DataFrame(columns | further)


def check_transforms(transforms: tuple[ArrayLike, ArrayLike], images: int) -> tuple[np.ndarray, np.ndarray]:
    """Transforms as arrays (n, 2, 2) and (n, 2).

    Raises
    ------
    ValueError
        If there is not one for every image, or one holds NaN or cannot be inverted.
    """
    matrices, shifts = (np.asarray(part, dtype=float) for part in transforms)
    if matrices.shape != (images, 2, 2) or shifts.shape != (images, 2):
        raise ValueError(
            f"transforms must be matrices ({images}, 2, 2) and shifts ({images}, 2), one for every image; "
            f"got shapes {matrices.shape} and {shifts.shape}"
        )
    good = np.isfinite(matrices).all((1, 2)) & np.isfinite(shifts).all(1)
    good[good] = np.abs(np.linalg.det(matrices[good])) > 1e-3
    if not good.all():
        raise ValueError(f"the transforms of images {np.flatnonzero(~good).tolist()} hold NaN or cannot be inverted")
    return matrices, shifts


def about_axis(axis: ArrayLike, shifts: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Transforms, as `read_transforms` gives them, of images whose tilt axis and shifts are known.

    A point x from the centre of the aligned image is taken from ``R x + shift`` in the raw image, with R a turn by `axis`
    (cos -sin; sin cos). So A = R' and d = -R' shift. AreTomo, Warp and RELION 5 all state alignments in this way.

    Parameters
    ----------
    axis
        Degrees (n,).
    shifts
        Pixels x and y of the raw image (n, 2).
    """
    turn = np.radians(np.asarray(axis, dtype=float))
    cos, sin = np.cos(turn), np.sin(turn)
    matrices = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=1)
    return matrices, -(matrices @ np.asarray(shifts, dtype=float)[..., None])[..., 0]


def text(path: str | Path, *, strict: bool = False) -> str:
    """Text of a metadata file, as `paths.text` reads it; bytes in comments and titles that are not UTF-8 are replaced.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is larger than metadata are, or `paths.text` refuses it; with `strict`, also where bytes are not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return paths.text(path, replace=not strict, most=LARGEST)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_tilts(angles: np.ndarray, place: Callable[[int], str]) -> None:
    """Refuse tilts that are not within ±90°; the message names the place of the first."""
    wrong = np.flatnonzero(~(np.abs(angles) <= 90))
    if len(wrong):
        raise ValueError(f"{place(int(wrong[0]))}: a tilt lies within ±90°, got {angles[wrong[0]]:g}")


def read_tilts(path: str | Path) -> np.ndarray:
    """Tilt angles (n,) in degrees, in the order of the images; of several columns the first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line does not begin with a number within ±90°, or there is no line.
    """
    rows = _numbers(path, least=1)
    if len(rows) == 1 and len(rows[0][1]) > 2:
        raise ValueError(f"{path} holds {len(rows[0][1])} numbers in one line, expected a line for each tilt")
    angles = np.array([row[0] for _, row in rows])
    check_tilts(angles, lambda i: f"{path}, line {rows[i][0]}")
    return angles


def read_transforms(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Alignment of each image from an IMOD .xf file: matrices A (n, 2, 2) and shifts d (n, 2) in pixels of the stack.

    A point x = (x, y) from the centre of the raw image, at pixel (size - 1) / 2 counted from 0, goes to x' = A x + d from
    the centre of the aligned image. Order (x, y) and numbers are those of the file: A11 A12 A21 A22 DX DY on each line.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line does not hold six numbers, a matrix is singular, or there is no line.
    """
    rows = _numbers(path, least=6)
    for line, row in rows:
        if len(row) != 6:
            raise ValueError(f"{path}, line {line}: expected 6 numbers (A11 A12 A21 A22 DX DY), got {len(row)}")
        if abs(row[0] * row[3] - row[1] * row[2]) < 1e-6:
            raise ValueError(f"{path}, line {line}: the matrix {row[:4]} cannot be inverted")
    numbers = np.array([row for _, row in rows])
    return numbers[:, :4].reshape(-1, 2, 2), numbers[:, 4:]


def read_excluded(path: str | Path) -> np.ndarray:
    """Numbers, from 0, of the views that an IMOD command file (tilt.com, align.com) leaves out.

    They stand after EXCLUDELIST, EXCLUDELIST2 or ExcludeList as numbers from 1 and ranges of them, ``1-3,40``; several lines
    add up (manual of IMOD's tilt). They count in the stack that the command works on: all of it, unless images were cut out.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no command file, or a list holds what is not a number or a range of them.
    """
    lines = text(path).splitlines()
    if not any(written.lstrip().startswith("$") for written in lines):
        raise ValueError(f"{path} is not a command file of IMOD: no line begins with $")
    # Where ranges begin and end, since there may be many that overlap.
    edges = np.zeros(VIEWS + 1, dtype=int)
    for line, written in enumerate(lines, start=1):
        listed = EXCLUDE.match(written.split("#")[0].strip())
        for word in listed[1].split(",") if listed else []:
            ends = re.fullmatch(r"\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?", word)
            low, high = sorted((int(ends[1]), int(ends[2] or ends[1]))) if ends and len(word) < 20 else (0, 0)
            if not 1 <= low <= high < VIEWS:
                raise ValueError(f"{path}, line {line}: expected numbers of views from 1, as 1-3,40, got {word.strip()[:40]!r}")
            edges[low - 1] += 1
            edges[high] -= 1
    return np.flatnonzero(np.cumsum(edges))


def read_offset(path: str | Path) -> tuple[str, float]:
    """File of tilts that an IMOD command file names for the program tilt, and the degrees that are added to all of them.

    These are TILTFILE and the first number of OFFSET (IMOD's tilt.f90); "" and 0 where the file has none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a value is not a number, or the program also turns the specimen about x (XAXISTILT) or moves the tilt axis (second
        number of OFFSET), which `tomograms.reconstruct` does not.

    Warns
    -----
    UserWarning
        If SHIFT moves IMOD's tomogram against the one that is made here.
    """
    name, offset, program = "", 0.0, ""
    for line, written in enumerate(text(path).splitlines(), start=1):
        words = written.split("#")[0].strip()
        if words.startswith("$"):
            program = words[1:].split()[0].rsplit("/", 1)[-1].lower() if words[1:].split() else ""
        option = TURNS.match(words) if program == "tilt" else None
        if option and option[1].upper() == "TILTFILE":
            name = re.split(r"[\\/]", option[2].strip())[-1]
        elif option:
            numbers = _turn(option[1].upper(), option[2], place=f"{path}, line {line}")
            offset = numbers[0] if numbers else offset
    return name, offset


def _turn(option: str, words: str, *, place: str) -> list[float]:
    """Degrees that OFFSET adds to the tilts, nothing of XAXISTILT and SHIFT; what cannot be used must be 0, or is warned of."""
    try:
        numbers = [float(word) for word in re.split(r"[\s,]+", words.strip())]
    except ValueError as error:
        raise ValueError(f"{place}: expected numbers after {option}, got {words[:60]!r}") from error
    if len(numbers) > 2 or not np.isfinite(numbers).all():
        raise ValueError(f"{place}: expected one or two numbers after {option}, got {words[:60]!r}")
    if option == "SHIFT":
        if any(numbers):
            warnings.warn(
                f"{place}: SHIFT {words.strip()} moves the tomogram of IMOD by so many pixels of the raw stack along x and z; "
                "places in it are moved against the one that is made here",
                stacklevel=4,
            )
        return []
    used = numbers[:1] if option == "OFFSET" else []
    if any(numbers[len(used) :]):
        what = "moves the tilt axis" if used else "turns the specimen about x"
        raise ValueError(
            f"{place}: {option} {words.strip()} {what}, which is not done here; to leave views out without it, give their "
            "numbers, from 0, as exclude="
        )
    return used


def _numbers(path: str | Path, *, least: int) -> list[tuple[int, list[float]]]:
    """Line number and finite numbers of each line that is neither empty nor a comment (#)."""
    rows = []
    for line, written in enumerate(text(path).splitlines(), start=1):
        words = written.split("#")[0].split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            hint = ", with a point before the decimals" if "," in written else ""
            raise ValueError(f"{path}, line {line}: expected numbers{hint}, got {written.strip()[:60]!r}") from error
        if len(row) < least or not np.isfinite(row).all():
            raise ValueError(f"{path}, line {line}: expected {least} finite numbers, got {written.strip()[:60]!r}")
        rows.append((line, row))
    if not rows:
        raise ValueError(f"{path} holds no numbers")
    return rows
