"""Alignments of AreTomo, AreTomo2 and AreTomo3 (.aln): tilt, turn and shift of each image, and the images left out as dark.

>>> found = read_aretomo("TS_01.aln")
>>> matrices, shifts = found.transforms             # of images found.sections, as an .xf has them
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.io.tilts import imod

COLUMNS = "SEC ROT GMAG TX TY SMEAN SFIT SCALE BASE TILT"
PATCHES = ["image", "patch", "x", "y", "shift_x", "shift_y", "good"]
"""Local alignment: row of the image, number of the patch, its centre and its shift in pixels, and whether it is good."""
TAG = re.compile(r"#\s*(RawSize|NumPatches|DarkFrame|AlphaOffset|BetaOffset|Thickness)\s*=\s*(.*)$")
NUMBERS = {"RawSize": 3, "NumPatches": 1, "DarkFrame": 3, "AlphaOffset": 1, "BetaOffset": 1, "Thickness": 1}
"""Numbers that each line of the title holds."""

Row = tuple[int, list[float]]
"""Line and numbers."""


@dataclass(frozen=True)
class Alignment:
    """What stands in an .aln file.

    Parameters
    ----------
    tilts
        Degrees (n,), as AreTomo refined them, by whatever offset it found or was given.
    sections
        Number of each of these images in the stack that was aligned, from 0, (n,).
    transforms
        Matrices A (n, 2, 2) and shifts d (n, 2) in pixels of that stack, as `io.tilts.read_transforms` has them.
    dark
        Numbers, from 0, of the images of that stack that were left out as dark, (m,).
    dark_tilts
        Degrees (m,).
    size
        Pixels x and y of that stack; None if the file does not say it.
    patches
        Local alignment, as in the file; no rows if there was none. `tomograms.reconstruct` does not use it.
    offsets
        Degrees about the tilt axis (contained in `tilts`) and about x (contained in nothing).
    """

    tilts: np.ndarray
    sections: np.ndarray
    transforms: tuple[np.ndarray, np.ndarray]
    dark: np.ndarray
    dark_tilts: np.ndarray
    size: tuple[int, int] | None
    patches: pd.DataFrame
    offsets: tuple[float, float]

    @property
    def images(self) -> int:
        """Images of the stack that was aligned, with dark ones."""
        return len(self.sections) + len(self.dark)


def read_aretomo(path: str | Path) -> Alignment:
    """Read an .aln file.

    A point x from the centre of the aligned image comes from ``R x + T`` in the raw image, with R a turn by ROT (cos -sin; sin
    cos) and T = (TX, TY), so in IMOD's words A = R' and d = -R' T: that is how AreTomo's own correction reads its images and
    how it writes .xf (GCorrPatchShift.cu and CSaveXF.cpp of AreTomo2 and AreTomo3). GMAG, SMEAN, SFIT, SCALE and BASE are
    the same in every file of AreTomo.

    SEC counts from 0 in AreTomo2 and from 1 in newer AreTomo3; older AreTomo3 counts, in order of tilt, the images that are
    left. Which it is follows from the dark images and the number of images.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is not what it should be, images are missing or stand twice, or it is not clear which they are.
    """
    title, rows, local = _lines(path)
    if not rows:
        raise ValueError(f"{path} has no rows of {COLUMNS}")
    numbers = _table(rows, path)
    sizes = title.get("RawSize", [])
    dark = np.array([row for _, row in title.get("DarkFrame", [])]).reshape(-1, 3)
    total = len(numbers) + len(dark)
    if sizes and sizes[-1][1][2] != total:
        line, size = sizes[-1]
        raise ValueError(
            f"{path}, line {line}: a stack of {size[2]:g} images, but there are {len(numbers)} rows and {len(dark)} dark images"
        )
    if sizes and min(sizes[-1][1]) < 1:
        raise ValueError(f"{path}, line {sizes[-1][0]}: sizes are positive, got {sizes[-1][1]}")
    sections, left_out = _sections(numbers[:, 0], dark, path)
    return Alignment(
        tilts=numbers[:, 9],
        sections=sections,
        transforms=imod.about_axis(numbers[:, 1], numbers[:, 3:5]),
        dark=left_out,
        dark_tilts=dark[:, 2],
        size=(int(sizes[-1][1][0]), int(sizes[-1][1][1])) if sizes else None,
        patches=_patches(local, title, len(numbers), path),
        offsets=(_last(title, "AlphaOffset"), _last(title, "BetaOffset")),
    )


def _lines(path: str | Path) -> tuple[dict[str, list[Row]], list[Row], list[Row]]:
    """Numbers of the title by name, rows of images, and rows of patches."""
    title: dict[str, list[Row]] = {}
    rows: tuple[list[Row], list[Row]] = ([], [])
    local = False
    for line, written in enumerate(imod.text(path).splitlines(), start=1):
        words = written.strip()
        if words.startswith("#"):
            local = local or "Local Alignment" in words
            tag = TAG.match(words)
            if tag:
                title.setdefault(tag[1], []).append((line, _numbers(tag[2], NUMBERS[tag[1]], path=path, line=line)))
        elif words:
            rows[local].append((line, _numbers(words, 7 if local else 10, path=path, line=line)))
    return title, rows[0], rows[1]


def _numbers(words: str, count: int, *, path: str | Path, line: int) -> list[float]:
    try:
        row = [float(word) for word in words.split()]
    except ValueError:
        row = []
    if len(row) != count or not np.isfinite(row).all():
        raise ValueError(f"{path}, line {line}: expected {count} finite numbers, got {words.strip()[:80]!r}")
    return row


def _table(rows: list[Row], path: str | Path) -> np.ndarray:
    """Rows of images as an array, held against what they can be."""
    for line, row in rows:
        if row[2] != 1:
            raise ValueError(f"{path}, line {line}: GMAG is 1 in all that AreTomo writes, got {row[2]:g}")
        if row[0] != int(row[0]) or row[0] < 0:
            raise ValueError(f"{path}, line {line}: SEC is the number of an image, got {row[0]:g}")
    numbers = np.array([row for _, row in rows])
    imod.check_tilts(numbers[:, 9], lambda i: f"{path}, line {rows[i][0]}")
    return numbers


def _sections(counted: np.ndarray, dark: np.ndarray, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Numbers from 0, in the stack, of the images in the rows and of dark ones, however the file counts."""
    total = len(counted) + len(dark)
    every = np.sort(np.concatenate([counted, dark[:, 1]]))
    for first in (0, 1):
        if np.array_equal(every, np.arange(first, total + first)):
            return (counted - first).astype(int), (dark[:, 1] - first).astype(int)
    # The first number of a dark image is its place, from 0, among all images in order of tilt.
    left = np.setdiff1d(np.arange(total), dark[:, 0])
    for first in (0, 1):
        if len(left) == len(counted) and np.array_equal(np.sort(counted), np.arange(first, len(counted) + first)):
            return left[(counted - first).astype(int)], dark[:, 0].astype(int)
    raise ValueError(
        f"{path}: of {total} images, each must stand once in a row (SEC) or as a DarkFrame; got SEC "
        f"{_some(counted)} and dark images {_some(dark[:, 1])}"
    )


def _some(numbers: np.ndarray) -> str:
    first = ", ".join(f"{number:g}" for number in numbers[:8])
    return f"{first or 'none'}{' …' if len(numbers) > 8 else ''}"


def _patches(rows: list[Row], title: dict[str, list[Row]], images: int, path: str | Path) -> pd.DataFrame:
    table = pd.DataFrame([row for _, row in rows], columns=PATCHES, dtype=float)
    wanted = _last(title, "NumPatches") * images
    if len(table) != wanted:
        raise ValueError(f"{path}: NumPatches asks for {wanted:g} rows of local alignment of {images} images, got {len(table)}")
    return table.astype({"image": int, "patch": int})


def _last(title: dict[str, list[Row]], name: str) -> float:
    """Number of a line of the title; 0 where there is none."""
    return title[name][-1][1][0] if name in title else 0.0
