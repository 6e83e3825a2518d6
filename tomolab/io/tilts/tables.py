"""Tilt tables of metadata files: read by the ending of the name, brought into the order of a stack, and looked through.

>>> table = read_metadata("TS_01.mdoc")
>>> outliers(table)                 # images whose defocus or exposure is far from that of the others
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from tomolab import io

Order = Literal["stack", "tilt", "opposite tilt"]
READERS: dict[str, Callable[..., pd.DataFrame]] = {
    ".mdoc": io.tilts.read_mdoc,
    ".xml": io.tilts.read_warp,
    ".tomostar": io.tilts.read_tomostar,
    ".star": io.tilts.read_tilt_star,
}
WARP = (".xml", ".tomostar")
TOLERANCE = 0.5
"""Degrees up to which tilts of two files are taken to be the same: stages are that exact, and refined tilts that close."""
REPEATED = 0.05
"""Degrees up to which two images of one series are at the same tilt."""
UPRIGHT = 1.0
"""Degrees up to which a tilt axis lies along y."""
OUTLYING = ["number", "tilt", "quantity", "value", "median"]
"""What is known of an outlier: number in the stack, from 0, degrees, "defocus" or "exposure", its value, that of the others."""
FLOORS = {"defocus": (0.5, 0.25), "exposure": (0.0, 0.3)}
"""Difference that is never far: in the unit of the quantity, and as a share of the median."""
FAR = 6.0
"""Deviations, made robust, from which on a value is far from the others."""
FEWEST = 5
"""Values that it takes to say what is usual."""


def read_metadata(path: str | Path, *, tomogram: str | int | None = None) -> pd.DataFrame:
    """Tilt table of an .mdoc, .xml, .tomostar or .star file, by the ending of its name.

    `tomogram` says which, where a .star file holds several. A ValueError is raised if the name ends otherwise, or by the
    reader of the format.
    """
    ending = Path(path).suffix.lower()
    if ending not in READERS:
        raise ValueError(f"{path}: metadata of a tilt series end in {', '.join(READERS)}, not {ending!r}")
    return READERS[ending](path, tomogram=tomogram) if ending == ".star" else READERS[ending](path)


def joined(
    known: pd.DataFrame,
    table: pd.DataFrame,
    *,
    names: tuple[str | Path, str | Path],
    order: Order | None = None,
    offset: bool = False,
    inverted: bool = False,
) -> pd.DataFrame:
    """Rows of a tilt table for the images of a stack, with the tilts that are known of these.

    Rows are matched to images by what there is first: names of the images in both files; tilts that agree row by row; tilts
    of the same sign that are all different, and in files of which one is Warp's do not agree with the opposite sign as well.

    Parameters
    ----------
    known
        Column `tilt` of each image, in the order of the stack, and `image` if the names are known.
    table
        Rows in any order.
    names
        The files of both.
    order
        How rows are matched to images instead: "stack" for rows in the order of the stack, "tilt" or "opposite tilt" for
        rows at the same or the opposite tilt.
    offset
        All tilts may be off by the same angle, as AreTomo turns a lamella level.
    inverted
        The tilts will be turned, so that it does not matter which sign counts where those of both files are opposite.

    Raises
    ------
    ValueError
        If numbers of images differ, tilts contradict each other by more than 0.5°, or rows cannot be matched to images.
    """
    if order is not None and order not in get_args(Order):
        raise ValueError(f"metadata_order must be one of {', '.join(map(repr, get_args(Order)))}, got {order!r}")
    if len(known) != len(table):
        raise ValueError(f"{names[0]} holds {len(known)} tilts, but {names[1]} {len(table)}")
    tilts = known["tilt"].to_numpy(dtype=float)
    warp = [Path(name).suffix.lower() in WARP for name in names]
    fits = [_Fit(tilts, stated, names=names, offset=offset, both=warp[0] != warp[1]) for stated in _angles(table)]
    fit = next((fit for fit in fits if fit.possible), fits[0])
    rows = _named(known, table) if order is None else None
    if rows is None:
        rows = fit.chosen(order) if order else fit.identified()
    elif not (fit.agree(rows, 1) or fit.agree(rows, -1)):
        raise fit.contradiction(rows)
    if fit.both and not inverted and not fit.agree(rows, 1):
        warnings.warn(
            f"the tilts of {names[0]} and {names[1]} have opposite signs; those of {names[0]} count, and the tomogram is the "
            "mirror image of the one by the other file. Warp's angles have the opposite sign of IMOD's, also in the .rawtlt of "
            "Warp and in what is made of it. With invert_tilts=True the tilts are turned",
            stacklevel=4,
        )
    return table.iloc[rows].assign(tilt=tilts).reset_index(drop=True)


def _angles(table: pd.DataFrame) -> list[np.ndarray]:
    """Tilts of the rows, and those at which the stage was set if these are known, too."""
    names = [name for name in ("tilt", "stage_tilt") if name in table and table[name].notna().all()]
    return [table[name].to_numpy(dtype=float) for name in names]


def _named(known: pd.DataFrame, table: pd.DataFrame) -> np.ndarray | None:
    """Row of each image by the name of its movie, whatever that ends in; None where names do not tell."""
    if "image" not in known or "image" not in table:
        return None
    ours, theirs = ([str(name).rsplit(".", 1)[0] for name in rows["image"]] for rows in (known, table))
    if len(set(ours)) < len(ours) or set(ours) != set(theirs) or len(set(theirs)) < len(theirs):
        return None
    place = {name: row for row, name in enumerate(theirs)}
    return np.array([place[name] for name in ours])


class _Fit:
    """How the tilts of two files agree."""

    def __init__(
        self, tilts: np.ndarray, stated: np.ndarray, *, names: tuple[str | Path, str | Path], offset: bool, both: bool
    ) -> None:
        self.tilts, self.stated, self.names, self.offset, self.both = tilts, stated, names, offset, both
        self.stack = np.arange(len(tilts))
        self.sorted = {sign: self._sorted(sign) for sign in (1, -1)}

    @property
    def possible(self) -> bool:
        """Whether the tilts agree in any order."""
        return any(self.agree(self.sorted[sign], sign) for sign in ((1, -1) if self.both else (1,)))

    def differences(self, rows: np.ndarray, sign: int) -> np.ndarray:
        """Degrees by which each image is off its row."""
        off = self.tilts - sign * self.stated[rows]
        return off - np.median(off) if self.offset else off

    def agree(self, rows: np.ndarray, sign: int) -> bool:
        return bool((np.abs(self.differences(rows, sign)) <= TOLERANCE).all())

    def identified(self) -> np.ndarray:
        """Row of each image, if the tilts tell it."""
        if self.agree(self.stack, 1):
            return self.stack
        same = self.agree(self.sorted[1], 1)
        opposite = self.both and self.agree(self.sorted[-1], -1)
        if opposite:
            raise self._undecided(same)
        return self._by_tilt(1)

    def chosen(self, order: Order) -> np.ndarray:
        """Row of each image as the caller says."""
        if order != "stack":
            return self._by_tilt(1 if order == "tilt" else -1)
        if not (self.agree(self.stack, 1) or self.agree(self.stack, -1)):
            raise self.contradiction(self.stack)
        return self.stack

    def contradiction(self, rows: np.ndarray, sign: int = 1) -> ValueError:
        off = self.differences(rows, sign)
        far = np.flatnonzero(~(np.abs(off) <= TOLERANCE))
        first = far[0] if len(far) else 0
        return ValueError(
            f"{self.names[0]} and {self.names[1]} contradict each other: of {len(off)} tilts {len(far)} differ by more than "
            f"{TOLERANCE}°, first {self.tilts[first]:g}° against {sign * self.stated[rows][first]:g}°"
        )

    def _sorted(self, sign: int) -> np.ndarray:
        """Row of each image where both are sorted by tilt."""
        rows = np.empty(len(self.tilts), dtype=int)
        rows[np.argsort(self.tilts, kind="stable")] = np.argsort(sign * self.stated, kind="stable")
        return rows

    def _by_tilt(self, sign: int) -> np.ndarray:
        rows = self.sorted[sign]
        if not self.agree(rows, sign):
            raise self.contradiction(rows, sign)
        first = np.argsort(self.tilts, kind="stable")
        off = np.abs(self.differences(rows, sign))[first]
        steps = np.minimum(np.diff(self.tilts[first]), np.diff((sign * self.stated[rows])[first]))
        # Neighbours that are as close to each other as the files are may be exchanged.
        close = np.flatnonzero((steps < REPEATED) | (steps < np.minimum(off[:-1] + off[1:], TOLERANCE)))
        if len(close):
            tilt = self.tilts[first][close[0]]
            raise ValueError(
                f"{self.names[0]} and {self.names[1]} have their images in different orders, and tilts do not tell them apart: "
                f"there are several about {tilt:g}°. Bring the rows of {self.names[1]} into the order of the stack, which "
                "metadata_order='stack' then says"
            )
        return rows

    def _undecided(self, same: bool) -> ValueError:
        rows = ", row by row" if self.agree(self.stack, -1) else ""
        if same:
            how = f"with the same sign in another order, and with the opposite sign{rows or ' in another one'}"
        else:
            how = f"with the opposite sign only{rows}"
        return ValueError(
            f"{self.names[0]} and {self.names[1]} do not tell which image is which: their tilts agree {how} (Warp's angles "
            "turned to IMOD's sign, against those of the other file). Say with metadata_order= which rows of "
            f"{self.names[1]} are meant: 'stack' if row i is image i of the stack, 'tilt' or 'opposite tilt' if rows belong "
            "to images at the same or at the opposite tilt"
        )


def warn_unaligned(table: pd.DataFrame, *, stack: str | Path, pixel_size: float) -> None:
    """Warn where metadata say that the images of a stack are not aligned."""
    reasons = [*_axis(table), *_moves(table, pixel_size)]
    if reasons:
        warnings.warn(
            f"{stack} is taken to be aligned, with the tilt axis along y, but its metadata say otherwise: "
            f"{'; '.join(reasons)}. Give its alignment, transforms= (.xf) or alignment= (.aln, .xml, .tomostar, .star), or say "
            "aligned=True if it is aligned already",
            stacklevel=3,
        )


def _axis(table: pd.DataFrame) -> list[str]:
    """What the metadata say of a tilt axis away from y."""
    axis = table["axis"].dropna().to_numpy(dtype=float) if "axis" in table else np.empty(0)
    if len(axis):
        worst = axis[np.argmax(_off_y(axis))]
        return [f"the tilt axis lies at {worst:g}° from y"] if _off_y(worst) > UPRIGHT else []
    columns = {"TiltAxisAngle": "title_axis", "RotationAngle": "rotation"}
    found = {name: float(table[column].iloc[0]) for name, column in columns.items() if column in table}
    known = {name: value for name, value in found.items() if np.isfinite(value)}
    # One of them, or a right angle from it, is the axis.
    if not known or all(_off_y(value) <= UPRIGHT for value in known.values()):
        return []
    values = ", ".join(f"{name} = {value:g}" for name, value in known.items())
    return [f"they do not say for sure where the tilt axis lies ({values})"]


def _off_y(axis: np.ndarray | float) -> np.ndarray:
    """Degrees between an axis and y; images turned by 180° would give the specimen of the other hand."""
    return np.abs((np.asarray(axis) + 180) % 360 - 180)


def _moves(table: pd.DataFrame, pixel_size: float) -> list[str]:
    """What the metadata say of shifts of more than a pixel, and of turns."""
    shifts = [np.abs(table[name].to_numpy(dtype=float)) for name in ("shift_x", "shift_y") if name in table]
    largest = np.nanmax(shifts) if shifts and not np.isnan(shifts).all() else 0.0
    moves = [f"images are shifted by up to {largest:.4g} Å"] if largest > pixel_size else []
    for name, axis in (("level_x", "x (LevelAngleX, rlnTomoXTilt)"), ("level_y", "the tilt axis (LevelAngleY)")):
        angles = table[name].dropna().to_numpy(dtype=float) if name in table else np.empty(0)
        if angles.any():
            moves.append(f"the specimen is turned by {angles[np.argmax(np.abs(angles))]:g}° about {axis}")
    return moves


def outliers(table: pd.DataFrame, *, gaps: bool = False) -> pd.DataFrame:
    """Images whose defocus or exposure is far from that of the others, which often means that a fit or a file is wrong.

    A value is far if it is off the median by more than 6 median absolute deviations (times 1.4826, which makes a standard
    deviation of them), and by more than half a µm and a quarter of the median for defocus, or 30 % of it for exposure.

    Parameters
    ----------
    table
        Tilt table; images are numbered by its column `number`, or else by row.
    gaps
        Exposures follow from growing doses, so that two or three times the median is that of an image that is absent from the
        table, and not an outlier.

    Returns
    -------
    DataFrame
        A row for each: number, tilt, quantity ("defocus" in µm or "exposure" in e/Å²), value, median.
    """
    number = table["number"].to_numpy() if "number" in table else np.arange(len(table))
    found = []
    for name, (least, share) in FLOORS.items():
        values = table[name].to_numpy(dtype=float)
        known = values[np.isfinite(values)]
        if len(known) < FEWEST:
            continue
        middle = float(np.median(known))
        limit = max(FAR * 1.4826 * float(np.median(np.abs(known - middle))), least, share * abs(middle))
        far = np.abs(values - middle) > limit
        if gaps and name == "exposure" and middle > 0:
            far &= np.min([np.abs(values / middle - times) for times in (2, 3)], axis=0) > 0.05
        rows = {"number": number[far], "tilt": table["tilt"].to_numpy(dtype=float)[far], "quantity": name}
        found.append(pd.DataFrame(rows | {"value": values[far], "median": middle}))
    return pd.concat(found, ignore_index=True)[OUTLYING] if found else pd.DataFrame(columns=OUTLYING)


def warn_outliers(table: pd.DataFrame, *, source: str | Path, gaps: bool) -> None:
    """Warn of images whose defocus or exposure is far from that of the others."""
    found = outliers(table, gaps=gaps)
    if found.empty:
        return
    units = {"defocus": "µm", "exposure": "e/Å²"}
    images = [
        f"image {row.number} at {row.tilt:g}°: {row.quantity} {row.value:.4g} {units[row.quantity]} (median {row.median:.4g})"
        for row in found.head(10).itertuples()
    ]
    more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
    warnings.warn(
        f"in {source} some images are far from the others: {'; '.join(images)}{more}; leave them out (exclude=), or mend it",
        stacklevel=3,
    )
