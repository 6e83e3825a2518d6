"""Files of a tilt series in, its images out, with the tilt, dose, defocus and alignment of each.

>>> series = read("TS_01.mrc", tilts="TS_01.tlt", transforms="TS_01.xf", metadata="TS_01.mdoc")
>>> series = read("TS_01.mrc", alignment="TS_01.aln", exclude=[0, 40], pixel_size=2.7)
>>> series = read("TS_01.st", alignment="TS_01.xml")                # Warp's own; dose and defocus come with it
>>> series = series.select(tilts=(-50, 50), dose=(0, 100))
>>> table = dose_symmetric(-60, 60, step=3.0, dose=120.0)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tomolab import io
from tomolab.io.tilts.imod import COLUMNS, check_transforms
from tomolab.io.tilts.imod import table as tilt_table
from tomolab.io.tilts.placement import Transforms, of_star, placed, used
from tomolab.io.tilts.tables import Order, joined, outliers, read_metadata, warn_outliers, warn_unaligned

__all__ = ["TiltSeries", "dose_symmetric", "outliers", "read", "read_metadata"]

EXCLUDED = ["number", "tilt", "reason"]
"""What is known of an image that was left out: its number in the stack, from 0, its tilt in degrees, and why."""


@dataclass(frozen=True)
class TiltSeries:
    """Images of one specimen at many tilts, and what is known of each.

    Parameters
    ----------
    images
        Grey values (n, y, x), float32, dark protein as a microscope records it.
    table
        A row an image, in order of `images`: tilt (degrees), order (of exposure, from 0), dose (e/Å² before the image),
        exposure (e/Å² of the image), defocus (µm underfocus); NaN where unknown. Further columns are kept; `read` adds
        `number`, that of the image in the stack, from 0.
    pixel_size
        Å.
    transforms
        IMOD's alignment, as `io.tilts.read_transforms` gives it, in pixels of `images`; None if the images are aligned.
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
    transforms: Transforms | None = None
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

    def select(self, *, tilts: tuple[float, float] | None = None, dose: tuple[float, float] | None = None) -> "TiltSeries":
        """Only images within limits; `excluded` lists the others, and why they were left out.

        Parameters
        ----------
        tilts
            Lowest and highest tilt in degrees, both included.
        dose
            Least and largest dose in e/Å² that the specimen had before the image, both included.

        Raises
        ------
        ValueError
            If the dose of an image is not known, a limit is not a number or above the other, or no image is left.
        """
        limits = {"tilt": tilts, "dose": dose}
        reasons: dict[int, str] = {}
        for name, limit in limits.items():
            if limit is None:
                continue
            values = self.table[name].to_numpy(dtype=float)
            if not limit[0] <= limit[1]:
                raise ValueError(f"{name}: limits go from the lower to the higher number, got {limit[0]} to {limit[1]}")
            if np.isnan(values).any():
                raise ValueError(
                    f"the {name} of {np.isnan(values).sum()} of {len(values)} images is not known; none can be chosen by it"
                )
            outside = np.flatnonzero((values < limit[0]) | (values > limit[1]))
            reasons |= {row: f"{name} {values[row]:g} not in {limit[0]:g} to {limit[1]:g}" for row in outside.tolist()}
        return self._without(reasons, "this series")

    def _without(self, reasons: dict[int, str], stack: str | Path) -> "TiltSeries":
        """The series without the rows that there is a reason to leave out."""
        if not reasons:
            return self
        rows = np.array(sorted(reasons))
        if len(rows) == len(self):
            raise ValueError(f"no image of {stack} is left: {', '.join(sorted(set(reasons.values()))[:5])}")
        table = self.table if "number" in self.table else self.table.assign(number=np.arange(len(self)))
        left = table.iloc[rows][["number", "tilt"]].assign(reason=[reasons[row] for row in rows.tolist()])
        excluded = left if self.excluded.empty else pd.concat([self.excluded, left]).sort_values("number")
        kept = replace(self, table=table, excluded=excluded[EXCLUDED].reset_index(drop=True))
        return kept.take(np.setdiff1d(np.arange(len(self)), rows))

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
    steps = np.arange(len(tilts)) - int(np.argmin(np.abs(tilts)))
    # The side changes after every pair: +1 -1 | -2 +2 | +3 -3 | …; an odd step begins on the positive side.
    second = np.where(steps % 2 == 1, steps < 0, steps > 0)
    order = np.argsort(np.lexsort((second, np.abs(steps))))
    exposure = np.nan if dose is None else dose / len(tilts)
    return tilt_table(tilts, order=order, exposure=np.full(len(tilts), exposure))


def read(
    stack: str | Path,
    *,
    tilts: str | Path | None = None,
    transforms: str | Path | None = None,
    alignment: str | Path | None = None,
    metadata: str | Path | None = None,
    metadata_order: Order | None = None,
    tomogram: str | int | None = None,
    exclude: str | Path | Sequence[int] | None = None,
    pixel_size: float | None = None,
    invert_tilts: bool = False,
    aligned: bool = False,
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
        was binned afterwards is recognised by its size. Or an .xml or .tomostar of Warp, or a tilt series of RELION 5 (.star),
        and a stack of these images in its order, which then need no `metadata`. Local alignment is left aside.
    metadata
        Dose, defocus and more of each image: an .mdoc of SerialEM, an .xml or .tomostar of Warp, a tilt series of RELION 5 or
        a wedge list of STOPGAP (.star).
    metadata_order
        Which row of the metadata is which image of `tilts` or `alignment`. By default they are matched by the names of the
        images, or by tilts that agree row by row, or by tilts of the same sign in another order, if all tilts differ. The
        angles of Warp have the opposite sign of IMOD's, but a .tlt beside them may have either. If the tilts also agree with
        the opposite sign, an answer is needed: "stack" if rows are in the order of the stack, "tilt" or "opposite tilt" if
        they belong to images at the same or at the opposite tilt.
    tomogram
        Which tomogram, where a .star file holds several.
    exclude
        Images to leave out: their numbers in the stack, from 0, or an IMOD command file (.com) that names them; what its
        OFFSET adds to the tilts of `tilts` is added. Dark images of AreTomo are left out, and so are images that Warp does not
        use (`use` is False) if the stack holds them.
    pixel_size
        Å; needed where the header of the stack does not know it, else held against the header.
    invert_tilts
        Invert the sign of all tilts, once the files are matched. Tilts of Warp are read with IMOD's sign. But no file says for
        sure with which sign a stage counts, and the wrong one gives the mirror image of the specimen;
        `handedness.compare_hands` finds out by a known structure. Column `tilts_inverted` of the table records the answer.
    aligned
        The images are aligned already, whatever the metadata say of the tilt axis; nothing is warned of.

    Returns
    -------
    TiltSeries
        Grey values as in the file; `excluded` tells what was left out and why.

    Warns
    -----
    UserWarning
        If metadata say that the images are not aligned, and nothing is given that aligns them; if an alignment has local
        parts, which are left aside; if defocus or exposure of an image is far from that of the others (`outliers`).

    Raises
    ------
    FileNotFoundError
        If a file is absent.
    ValueError
        If neither tilts nor metadata are given, a file is not what its name says, numbers of images differ, no image is left,
        two files contradict each other (tilts by more than 0.5°, pixel sizes by more than 1 %), nothing tells which row of the
        metadata is which image, or an alignment turns the specimen about x.
    """
    _check_tomogram(tomogram, (alignment, metadata))
    source = next((path for path in (alignment, tilts, metadata) if path is not None), None)
    if source is None:
        raise ValueError(f"the tilts of {stack} are not known: give tilts=, alignment= or metadata=")
    images, found = io.read_stack(stack, pixel_size=pixel_size)
    known = placed((stack, alignment), images.shape, found, tilts=tilts, transforms=transforms, tomogram=tomogram)
    table = known.table
    if metadata is not None and (alignment is None or Path(metadata) != Path(alignment)):
        table = used(read_metadata(metadata, tomogram=of_star(metadata, tomogram)), len(images))
        if known.table is not None:
            names = (source, metadata)
            table = joined(known.table, table, names=names, order=metadata_order, offset=known.loose, inverted=invert_tilts)
    if table is None or len(images) != len(table):
        raise ValueError(f"{stack} holds {len(images)} images, but {source} {0 if table is None else len(table)} tilts")
    if known.moves is not None and len(known.moves[0]) != len(images):
        raise ValueError(f"{stack} holds {len(images)} images, but {transforms} {len(known.moves[0])} transforms")
    table = table.assign(tilt=table["tilt"] + known.turn + _offset(exclude, tilts), number=np.arange(len(images)))
    if invert_tilts:
        table = table.assign(tilt=-table["tilt"], tilts_inverted=True)
    if known.moves is None and not aligned:
        warn_unaligned(table, stack=stack, pixel_size=found)
    reasons = known.reasons | _unused(table) | dict.fromkeys(_excluded(exclude, images=len(images), stack=stack), "excluded")
    series = TiltSeries(images, table, found, known.moves)._without(reasons, stack)
    warn_outliers(series.table, source=metadata or source, gaps=Path(metadata or source).suffix.lower() != ".mdoc")
    return series


def _check_tomogram(tomogram: str | int | None, paths: Sequence[str | Path | None]) -> None:
    """Raise ValueError if a tomogram is chosen, but no file holds several."""
    if tomogram is not None and not any(path is not None and Path(path).suffix.lower() == ".star" for path in paths):
        raise ValueError(f"tomogram={tomogram!r} chooses from a .star file of several tomograms, but there is none")


def _offset(exclude: str | Path | Sequence[int] | None, tilts: str | Path | None) -> float:
    """Degrees that a command file of IMOD adds to the tilts."""
    if not isinstance(exclude, str | Path):
        return 0.0
    name, offset = io.tilts.read_offset(exclude)
    if offset and (tilts is None or Path(tilts).name != name):
        raise ValueError(
            f"{exclude} adds {offset:g}° (OFFSET) to the tilts of {name or 'no file that it names'}; the tilts here are "
            f"{'not given by tilts=' if tilts is None else f'those of {tilts}'}; to leave views out without it, give their "
            "numbers, from 0, as exclude="
        )
    return offset


def _unused(table: pd.DataFrame) -> dict[int, str]:
    """Images that Warp does not use."""
    unused = np.flatnonzero(~table["use"].to_numpy(dtype=bool)) if "use" in table else np.empty(0, dtype=int)
    return dict.fromkeys(unused.tolist(), "not used by Warp")


def _excluded(exclude: str | Path | Sequence[int] | None, *, images: int, stack: str | Path) -> list[int]:
    """Numbers of the images that the user leaves out."""
    if exclude is None:
        return []
    given = io.tilts.read_excluded(exclude) if isinstance(exclude, str | Path) else np.asarray(exclude)
    if given.ndim != 1 or (given.size and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= images)):
        source = exclude if isinstance(exclude, str | Path) else "exclude"
        raise ValueError(f"{source}: numbers of images of {stack} go from 0 to {images - 1}, got {given.tolist()[:20]}")
    return given.astype(int).tolist()


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
