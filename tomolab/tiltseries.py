"""Tilt series: images of one specimen at many tilts, with what is known of each image.

>>> series = read("TS_01.mrc", tilts="TS_01.tlt", transforms="TS_01.xf", metadata="TS_01.mdoc")
>>> series = read("TS_01.mrc", alignment="TS_01.aln", exclude=[0, 40], pixel_size=2.7)
>>> table = dose_symmetric(-60, 60, step=3.0, dose=120.0)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tomolab import files
from tomolab.aretomo import Alignment
from tomolab.tilts import COLUMNS, check_transforms
from tomolab.tilts import table as tilt_table

EXCLUDED = ["number", "tilt", "reason"]
"""What is known of an image that was left out: its number in the stack, from 0, its tilt in degrees, and why."""
READERS = {".mdoc": files.read_mdoc, ".xml": files.read_warp, ".tomostar": files.read_tomostar}
TOLERANCE = 0.5
"""Degrees up to which tilts of two files are taken to be the same: stages are that exact, and refined tilts that close."""


@dataclass(frozen=True)
class TiltSeries:
    """Images of one specimen at many tilts.

    Parameters
    ----------
    images
        Grey values (n, y, x), float32, dark protein as a microscope records it.
    table
        A row an image, in order of `images`: tilt (degrees), order (of exposure, from 0), dose (e/Å² before the image),
        exposure (e/Å² of the image), defocus (µm underfocus); NaN where unknown. Further columns are kept.
    pixel_size
        Å.
    transforms
        IMOD's alignment, as `files.read_transforms` gives it, in pixels of `images`; None if the images are aligned.
    excluded
        A row for each image of the stack that was left out when it was read: number (from 0), tilt (degrees), reason.

    Raises
    ------
    ValueError
        If the images are not (n, y, x), their number is not that of rows or of transforms, a column is missing, a tilt
        is unknown or beyond ±90°, or the pixel size is not positive.
    """

    images: np.ndarray
    table: pd.DataFrame
    pixel_size: float
    transforms: tuple[np.ndarray, np.ndarray] | None = None
    excluded: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=EXCLUDED))

    def __post_init__(self) -> None:
        images = np.asarray(self.images, dtype=np.float32)
        if images.ndim != 3 or min(images.shape) < 1:
            raise ValueError(f"a tilt series needs images of shape (n, y, x), got shape {images.shape}")
        if not (np.isfinite(self.pixel_size) and self.pixel_size > 0):
            raise ValueError(f"pixel_size must be a positive number of Å, got {self.pixel_size}")
        _check_table(self.table, len(images))
        if self.transforms is not None:
            object.__setattr__(self, "transforms", check_transforms(self.transforms, len(images)))
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "table", self.table.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, y, x = self.images.shape
        low, high = self.tilts.min(), self.tilts.max()
        without = f", without {len(self.excluded)} of the stack" if len(self.excluded) else ""
        return f"TiltSeries({n} images of {y} x {x} pixels of {self.pixel_size:g} Å, {low:g}° to {high:g}°{without})"

    @property
    def tilts(self) -> np.ndarray:
        """Degrees, (n,)."""
        return self.table["tilt"].to_numpy(dtype=float, copy=True)

    @property
    def dose(self) -> np.ndarray:
        """Dose in e/Å² that the specimen had before each image, (n,)."""
        return self.table["dose"].to_numpy(dtype=float, copy=True)

    @property
    def defocus(self) -> np.ndarray:
        """Underfocus of each image in µm, (n,)."""
        return self.table["defocus"].to_numpy(dtype=float, copy=True)

    def take(self, rows: ArrayLike) -> "TiltSeries":
        """Some of the images, by number or by a mask, such as ``series.table["use"]``."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        moved = None if self.transforms is None else (self.transforms[0][chosen], self.transforms[1][chosen])
        return replace(self, images=self.images[chosen], table=self.table.iloc[chosen], transforms=moved)


def dose_symmetric(low: float, high: float, *, step: float, dose: float | None = None) -> pd.DataFrame:
    """Tilt table of a dose-symmetric scheme: untilted first, then +1, -1, -2, +2, +3, -3, … steps (Hagen et al. 2017).

    Parameters
    ----------
    low, high
        Lowest and highest tilt in degrees. Where one side is longer, its tilts come last.
    step
        Degrees between two tilts.
    dose
        e/Å² over the whole series, the same for every image; None leaves dose and exposure unknown.

    Returns
    -------
    DataFrame
        As `TiltSeries.table`, in order of tilt; defocus is unknown (NaN).

    Raises
    ------
    ValueError
        If the range is not within ±90°, the step not positive, or the dose negative.
    """
    if not -90 <= low <= high <= 90:
        raise ValueError(f"tilts must go from lowest to highest within ±90°, got {low} to {high}")
    if not step > 0 or (dose is not None and not dose >= 0):
        raise ValueError(f"step must be positive and dose not negative, got {step}° and {dose} e/Å²")
    # A hundredth of a step: 60 is reached from -60 in steps of 0.1, though 0.1 is not exact in binary.
    tilts = low + step * np.arange(int((high - low) / step + 0.01) + 1)
    turn = np.arange(len(tilts)) - int(np.argmin(np.abs(tilts)))
    # The side changes after every pair: +1 -1 | -2 +2 | +3 -3 | …; an odd step begins on the positive side.
    second = np.where(turn % 2 == 1, turn < 0, turn > 0)
    order = np.argsort(np.lexsort((second, np.abs(turn))))
    exposure = np.nan if dose is None else dose / len(tilts)
    return tilt_table(tilts, order=order, exposure=np.full(len(tilts), exposure))


def read(
    stack: str | Path,
    *,
    tilts: str | Path | None = None,
    transforms: str | Path | None = None,
    alignment: str | Path | None = None,
    metadata: str | Path | None = None,
    exclude: str | Path | Sequence[int] | None = None,
    pixel_size: float | None = None,
    invert_tilts: bool = False,
) -> TiltSeries:
    """Read a tilt series from its files.

    Parameters
    ----------
    stack
        Images, an MRC stack.
    tilts
        Angles, an IMOD .tlt or .rawtlt file in the order of the stack; by default those of the metadata.
    transforms
        Alignment, an IMOD .xf file; without it the images are taken to be aligned.
    alignment
        Instead of both, an .aln file of AreTomo, and the stack that it aligned or the same without dark images. A stack that
        was binned afterwards is recognised by its size. Local alignment is left aside.
    metadata
        Dose, defocus and more of each image: an .mdoc of SerialEM, or an .xml or .tomostar of Warp. Its rows are brought
        into the order of `tilts`, if those are given.
    exclude
        Images to leave out: their numbers in the stack, from 0, or an IMOD command file (.com) that names them. Dark images of
        AreTomo are left out, and so are images that Warp does not use (`use` is False) if the stack holds them.
    pixel_size
        Å; needed where the header of the stack does not know it, else held against the header.
    invert_tilts
        Turn the sign of all tilts, once the files are matched. No file says for sure which sign a stage counts with, and the
        wrong one gives the mirror image of the specimen; where Warp's AreAnglesInverted is True (column `inverted`), try True.
        Column `tilts_inverted` of the table records the answer.

    Returns
    -------
    TiltSeries
        Grey values as in the file; `excluded` tells what was left out and why.

    Raises
    ------
    FileNotFoundError
        If a file is absent.
    ValueError
        If neither tilts nor metadata are given, a file is not what its name says, numbers of images differ, no image is left,
        or two files contradict each other (tilts by more than 0.5°, pixel sizes by more than 1 %).
    """
    told = _alignment(tilts, transforms, alignment)
    source = next((path for path in (alignment, tilts, metadata) if path is not None), None)
    if source is None:
        raise ValueError(f"the tilts of {stack} are not known: give tilts=, alignment= or metadata=")
    images, found = files.read_stack(stack, pixel_size=pixel_size)
    table = pd.DataFrame(columns=COLUMNS) if metadata is None else _used(read_metadata(metadata), len(images))
    reasons: dict[int, str] = {}
    moves = None
    if told is not None:
        angles, moves, reasons = _placed(told, images.shape, names=(stack, source))
        table = _joined(angles, table, names=(source, metadata), offset=True)
    elif tilts is not None:
        table = _joined(files.read_tilts(tilts), table, names=(tilts, metadata))
    if len(images) != len(table):
        raise ValueError(f"{stack} holds {len(images)} images, but {source} {len(table)} tilts")
    if told is None and transforms is not None:
        moves = files.read_transforms(transforms)
        if len(moves[0]) != len(images):
            raise ValueError(f"{stack} holds {len(images)} images, but {transforms} {len(moves[0])} transforms")
    if "use" in table:
        reasons |= dict.fromkeys(np.flatnonzero(~table["use"].to_numpy(dtype=bool)).tolist(), "not used by Warp")
    reasons |= dict.fromkeys(_excluded(exclude, images=len(images), stack=stack), "excluded")
    if invert_tilts:
        table = table.assign(tilt=-table["tilt"], tilts_inverted=True)
    return _without(TiltSeries(images, table, found, moves), reasons, stack)


def _alignment(tilts: str | Path | None, transforms: str | Path | None, alignment: str | Path | None) -> Alignment | None:
    """AreTomo's alignment, if that is given, and nothing beside it."""
    if alignment is None:
        return None
    if tilts is not None or transforms is not None:
        raise ValueError(f"{alignment} holds tilts and transforms; leave out tilts= and transforms=")
    return files.read_aretomo(alignment)


def _placed(
    told: Alignment, shape: Sequence[int], *, names: tuple[str | Path, str | Path]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], dict[int, str]]:
    """Tilts and transforms of every image of a stack, and the reasons to leave some out."""
    if shape[0] not in (told.images, len(told.sections)):
        raise ValueError(
            f"{names[0]} holds {shape[0]} images, but {names[1]} is of {told.images}, of which {len(told.dark)} are dark"
        )
    ratio = 1.0 if told.size is None else shape[2] / told.size[0]
    if told.size is not None and not np.allclose(np.array(told.size) * ratio, shape[:0:-1], atol=1):
        raise ValueError(f"{names[0]} has images of {shape[2]} x {shape[1]} pixels, but {names[1]} is of {told.size}")
    dark = told.dark if shape[0] == told.images else told.dark[:0]
    # Without dark images the others close up.
    place = told.sections if len(dark) == len(told.dark) else np.argsort(np.argsort(told.sections))
    angles, matrices, shifts = np.empty(shape[0]), np.tile(np.eye(2), (shape[0], 1, 1)), np.zeros((shape[0], 2))
    angles[place], angles[dark] = told.tilts, told.dark_tilts[: len(dark)]
    matrices[place], shifts[place] = told.transforms[0], told.transforms[1] * ratio
    return angles, (matrices, shifts), dict.fromkeys(dark.tolist(), "dark (AreTomo)")


def _excluded(exclude: str | Path | Sequence[int] | None, *, images: int, stack: str | Path) -> list[int]:
    """Numbers of the images that the user leaves out."""
    if exclude is None:
        return []
    given = files.read_excluded(exclude) if isinstance(exclude, str | Path) else np.asarray(exclude)
    if given.ndim != 1 or (given.size and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= images)):
        source = exclude if isinstance(exclude, str | Path) else "exclude"
        raise ValueError(f"{source}: numbers of images of {stack} go from 0 to {images - 1}, got {given.tolist()[:20]}")
    return given.astype(int).tolist()


def _without(series: TiltSeries, reasons: dict[int, str], stack: str | Path) -> TiltSeries:
    """The series without the images that there is a reason to leave out."""
    if not reasons:
        return series
    numbers = np.array(sorted(reasons))
    if len(numbers) == len(series):
        raise ValueError(f"no image of {stack} is left: {', '.join(sorted(set(reasons.values())))}")
    rows = {"number": numbers, "tilt": series.tilts[numbers], "reason": [reasons[number] for number in numbers.tolist()]}
    kept = series.take(np.setdiff1d(np.arange(len(series)), numbers))
    return replace(kept, excluded=pd.DataFrame(rows)[EXCLUDED])


def read_metadata(path: str | Path) -> pd.DataFrame:
    """Tilt table of an .mdoc, .xml or .tomostar file, by the ending of its name.

    Raises
    ------
    ValueError
        If the name ends otherwise, or as the reader of that format.
    """
    ending = Path(path).suffix.lower()
    if ending not in READERS:
        raise ValueError(f"{path}: metadata of a tilt series end in {', '.join(READERS)}, not {ending!r}")
    return READERS[ending](path)


def _used(table: pd.DataFrame, images: int) -> pd.DataFrame:
    """Rows of a stack from which the images that are not used were left out; otherwise all rows."""
    return table[table["use"]] if len(table) != images and table["use"].sum() == images else table


def _joined(
    tilts: np.ndarray, table: pd.DataFrame, *, names: Sequence[str | Path | None], offset: bool = False
) -> pd.DataFrame:
    """Rows of a tilt table in the order of these tilts, which replace its own.

    With an offset, all of them may be off by the same angle, as AreTomo turns a lamella level.
    """
    if names[1] is None:
        return tilt_table(tilts)
    if len(tilts) != len(table):
        raise ValueError(f"{names[0]} holds {len(tilts)} tilts, but {names[1]} {len(table)}")
    told = table["tilt"].to_numpy(dtype=float)
    if offset:
        told = told + np.median(np.sort(tilts) - np.sort(told))
    if not (np.abs(told - tilts) <= TOLERANCE).all():
        # Files made by a microscope are in the order of exposure, many stacks in that of tilt.
        row = np.empty(len(tilts), dtype=int)
        row[np.argsort(tilts, kind="stable")] = np.argsort(told, kind="stable")
        table, told = table.iloc[row], told[row]
    far = np.flatnonzero(~(np.abs(told - tilts) <= TOLERANCE))
    if len(far):
        raise ValueError(
            f"{names[0]} and {names[1]} contradict each other: of {len(tilts)} tilts {len(far)} differ by more than "
            f"{TOLERANCE}°, first {tilts[far[0]]:g}° against {told[far[0]]:g}°"
        )
    return table.assign(tilt=tilts)


def _check_table(table: pd.DataFrame, images: int) -> None:
    """Raise ValueError unless the tilt table describes that many images."""
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(f"a tilt table has {', '.join(COLUMNS)}; there is no {', '.join(missing)}")
    if len(table) != images:
        raise ValueError(f"a row for every image is needed, got {len(table)} rows for {images} images")
    tilts = table["tilt"].to_numpy(dtype=float)
    bad = ~(np.abs(tilts) <= 90)
    if bad.any():
        raise ValueError(f"tilts must lie within ±90°, got {tilts[bad].tolist()}")
