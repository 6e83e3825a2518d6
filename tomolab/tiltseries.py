"""Tilt series: images of one specimen at many tilts, with what is known of each image.

>>> series = read("TS_01.mrc", tilts="TS_01.tlt", transforms="TS_01.xf", metadata="TS_01.mdoc")
>>> table = dose_symmetric(-60, 60, step=3.0, dose=120.0)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tomolab import files
from tomolab.tilts import COLUMNS, check_transforms
from tomolab.tilts import table as tilt_table

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
        return f"TiltSeries({n} images of {y} x {x} pixels of {self.pixel_size:g} Å, {low:g}° to {high:g}°)"

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
    metadata: str | Path | None = None,
    pixel_size: float | None = None,
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
    metadata
        Dose, defocus and more of each image: an .mdoc of SerialEM, or an .xml or .tomostar of Warp. Its rows are brought
        into the order of `tilts`, if those are given. Rows that Warp does not use (`use` is False) are left out where the
        stack holds just as many images as are used; else ``series.take(series.table["use"])`` leaves them out.
    pixel_size
        Å; needed where the header of the stack does not know it, else held against the header.

    Returns
    -------
    TiltSeries
        Grey values as in the file.

    Raises
    ------
    FileNotFoundError
        If a file is absent.
    ValueError
        If neither tilts nor metadata are given, a file is not what its name says, numbers of images differ, or two files
        contradict each other (tilts by more than 0.5°, pixel sizes by more than 1 %).
    """
    if tilts is None and metadata is None:
        raise ValueError(f"the tilts of {stack} are not known: give tilts= or metadata=")
    images, found = files.read_stack(stack, pixel_size=pixel_size)
    table = pd.DataFrame(columns=COLUMNS) if metadata is None else _used(read_metadata(metadata), len(images))
    if tilts is not None:
        table = _joined(files.read_tilts(tilts), table, names=(tilts, metadata))
    if len(images) != len(table):
        raise ValueError(f"{stack} holds {len(images)} images, but {metadata if tilts is None else tilts} {len(table)} tilts")
    moves = None if transforms is None else files.read_transforms(transforms)
    if moves is not None and len(moves[0]) != len(images):
        raise ValueError(f"{stack} holds {len(images)} images, but {transforms} {len(moves[0])} transforms")
    return TiltSeries(images, table, found, moves)


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


def _joined(tilts: np.ndarray, table: pd.DataFrame, *, names: Sequence[str | Path | None]) -> pd.DataFrame:
    """Rows of a tilt table in the order of these tilts, which replace its own."""
    if names[1] is None:
        return tilt_table(tilts)
    if len(tilts) != len(table):
        raise ValueError(f"{names[0]} holds {len(tilts)} tilts, but {names[1]} {len(table)}")
    told = table["tilt"].to_numpy(dtype=float)
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
