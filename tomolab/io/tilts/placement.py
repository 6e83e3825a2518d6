"""Where the images of a stack lie: tilts and transforms from the files of IMOD, AreTomo, Warp and RELION, as one table."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import io
from tomolab.io.tilts.aretomo import Alignment
from tomolab.io.tilts.imod import about_axis
from tomolab.io.tilts.imod import table as tilt_table
from tomolab.io.tilts.tables import WARP, read_metadata

Transforms = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Placed:
    """What is known of the images of a stack, in its order, but for metadata.

    Rows of the table are those of the tilt file or of the alignment; `turn` is added to the tilts; `loose` says that an unknown
    angle was added to all of them.
    """

    table: pd.DataFrame | None
    moves: Transforms | None = None
    turn: np.ndarray | float = 0.0
    reasons: dict[int, str] = field(default_factory=dict)
    loose: bool = False


def placed(
    names: tuple[str | Path, str | Path | None],
    shape: Sequence[int],
    pixel_size: float,
    *,
    tilts: str | Path | None,
    transforms: str | Path | None,
    tomogram: str | int | None,
) -> Placed:
    """What the tilts and transforms of a stack say, or instead of both its alignment."""
    alignment = names[1]
    if alignment is None:
        moves = None if transforms is None else io.tilts.read_transforms(transforms)
        return Placed(None if tilts is None else tilt_table(io.tilts.read_tilts(tilts)), moves)
    if tilts is not None or transforms is not None:
        raise ValueError(f"{alignment} holds tilts and transforms; leave out tilts= and transforms=")
    if Path(alignment).suffix.lower() in (*WARP, ".star"):
        table = read_metadata(alignment, tomogram=of_star(alignment, tomogram))
        return _by_axis(used(table, shape[0]), shape, pixel_size, name=alignment)
    return _by_aretomo(io.tilts.read_aretomo(alignment), shape, names=(names[0], alignment))


def _by_axis(table: pd.DataFrame, shape: Sequence[int], pixel_size: float, *, name: str | Path) -> Placed:
    """Alignment of Warp or RELION: tilt axis, and shifts in Å in the image.

    Both count from the middle of the image, at pixel n / 2 for Warp (`TiltSeries.GetPositionInAllTilts`), n // 2 for RELION
    (`Tomogram::setProjectionMatrix`); transforms count from (n - 1) / 2.
    """
    axis = table["axis"] if "axis" in table else pd.Series(np.nan, index=table.index)
    if axis.isna().any():
        raise ValueError(f"{name} holds no alignment: the tilt axis is not known")
    if "level_x" in table and (table["level_x"].fillna(0).abs() > 0).any():
        worst = table["level_x"].abs().max()
        raise ValueError(
            f"{name} turns the specimen about x, by up to {worst:g}° (LevelAngleX of Warp, rlnTomoXTilt of RELION), which a "
            "reconstruction about one tilt axis cannot; align without it"
        )
    if "local" in table and table["local"].any():
        warnings.warn(
            f"{name} moves parts of the images or of the specimen, too (GridMovement, GridVolumeWarp); "
            "this is left aside, so that the tomogram is less sharp than Warp's",
            stacklevel=4,
        )
    size = np.array([shape[2], shape[1]])
    middle = size / 2 if Path(name).suffix.lower() in WARP else size // 2
    shifts = table[["shift_x", "shift_y"]].fillna(0.0).to_numpy(dtype=float) / pixel_size + middle - (size - 1) / 2
    turn = -table["level_y"].to_numpy(dtype=float) if "level_y" in table else 0.0
    return Placed(table, about_axis(axis, shifts), turn)


def _by_aretomo(found: Alignment, shape: Sequence[int], *, names: tuple[str | Path, str | Path]) -> Placed:
    """Tilts and transforms of every image of a stack, and the reasons to leave some out."""
    if shape[0] not in (found.images, len(found.sections)):
        raise ValueError(
            f"{names[0]} holds {shape[0]} images, but {names[1]} is of {found.images}, of which {len(found.dark)} are dark"
        )
    ratio = 1.0 if found.size is None else shape[2] / found.size[0]
    if found.size is not None and not np.allclose(np.array(found.size) * ratio, shape[:0:-1], atol=1):
        raise ValueError(f"{names[0]} has images of {shape[2]} x {shape[1]} pixels, but {names[1]} is of {found.size}")
    dark = found.dark if shape[0] == found.images else found.dark[:0]
    # Without dark images the others close up.
    place = found.sections if len(dark) == len(found.dark) else np.argsort(np.argsort(found.sections))
    angles, matrices, shifts = np.empty(shape[0]), np.tile(np.eye(2), (shape[0], 1, 1)), np.zeros((shape[0], 2))
    angles[place], angles[dark] = found.tilts, found.dark_tilts[: len(dark)]
    matrices[place], shifts[place] = found.transforms[0], found.transforms[1] * ratio
    if found.offsets[1]:
        warnings.warn(
            f"{names[1]} turns the specimen about x by {found.offsets[1]:g}° (BetaOffset), which is left aside: places in the "
            "tomogram of AreTomo are turned by as much against the one that is made here",
            stacklevel=4,
        )
    reasons = dict.fromkeys(dark.tolist(), "dark (AreTomo)")
    return Placed(tilt_table(angles), (matrices, shifts), reasons=reasons, loose=True)


def of_star(path: str | Path, tomogram: str | int | None) -> str | int | None:
    """The tomogram that is asked for, if this is a file that may hold several."""
    return tomogram if Path(path).suffix.lower() == ".star" else None


def used(table: pd.DataFrame, images: int) -> pd.DataFrame:
    """Rows of a stack from which the images that Warp does not use were left out; otherwise all rows."""
    return table[table["use"]].reset_index(drop=True) if len(table) != images and table["use"].sum() == images else table
