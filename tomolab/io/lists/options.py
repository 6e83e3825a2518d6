"""What the user says of a particle list beside the list, handed on to the reader of its format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.io.lists.tomogram_names import Tilts

Shape = tuple[int, int, int] | Mapping[str, tuple[int, int, int]]
"""Voxels (z, y, x) of all tomograms, or of each by name."""


class MissingOptionError(ValueError):
    """A list does not say something that it needs; `names` are the parameters of `io.read_particles` that can say it."""

    def __init__(self, message: str, *names: str) -> None:
        super().__init__(message)
        self.names = names


@dataclass(frozen=True)
class ReadOptions:
    """Parameters of `io.read_particles`; None where they are not given."""

    voxel_size: float | None = None
    tilts: Tilts | None = None
    tomogram_shape: Shape | None = None
    tomogram: str | None = None
    tomogram_list: str | Path | None = None
    unit: str | None = None
    renumber: bool | None = None

    def size(self, what: str) -> float:
        """Å per voxel, for a list that does not say it; a ValueError that names the list if it was not given."""
        return check_voxel_size(self.voxel_size, what)

    def name(self, what: str) -> str:
        """Name of the tomogram, for a list that does not say it; a ValueError that names the list if it was not given."""
        if self.tomogram is None:
            raise MissingOptionError(f"{what} does not name its tomogram; give tomogram=", "tomogram")
        return self.tomogram


def only_tomogram(particles: pd.DataFrame, what: str) -> str:
    """Name of the tomogram of all particles, empty without particles; a ValueError if there are several."""
    different = list(dict.fromkeys(particles["tomogram"]))
    if len(different) > 1:
        raise ValueError(
            f"{what} is of one tomogram, but there are {len(different)}: {', '.join(different[:5])}; write each apart"
        )
    return "".join(different)


def check_voxel_size(voxel_size: float | None, what: str) -> float:
    """Give the voxel size back; a ValueError that names `what` needs it if it is not a positive number."""
    if voxel_size is None or not (np.isfinite(voxel_size) and voxel_size > 0):
        message = f"{what} needs voxel_size=, the Å per voxel of the tomogram, got {voxel_size}"
        raise MissingOptionError(message, "voxel_size") if voxel_size is None else ValueError(message)
    return float(voxel_size)
