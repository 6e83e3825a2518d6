"""Averages: a structure, its half maps, their Fourier shell correlation, and the particles and record it rests on.

>>> average = averaging.load("runs/tour/averages/ribosome")
>>> average.volume, average.resolution
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import io, particles
from tomolab.averaging.fsc import THRESHOLD, crossing
from tomolab.io import safe_load
from tomolab.volumes import Volume

MOST = 1e9
"""Å or seconds that a record may speak of."""
BELIEF = 0.2
"""Mean FSC of three shells from which structure is believed: over 0.143, since noise scatters about 0 in so few numbers."""
DEVIATIONS = 3.0
"""Standard deviations of the FSC of noise that the mean must exceed as well: in a small mask a shell holds few numbers."""


@dataclass(frozen=True, eq=False)
class Average:
    """A structure and what it rests on.

    Parameters
    ----------
    volume
        Sum of both halves over their summed wedges, weighted in Fourier space by sqrt(2 FSC / (1 + FSC)).
    half1, half2
        Half maps, not filtered, in the frame of `volume`.
    fsc
        Table of the Fourier shell correlation of the half maps (`averaging.correlate`), from coarse to fine.
    particles
        Table of the particles used, with their refined positions and angles, `score` and `half` (1 or 2).
    record
        Seed, parameters, versions, seconds.
    """

    volume: Volume
    half1: Volume
    half2: Volume
    fsc: pd.DataFrame
    particles: pd.DataFrame
    record: dict[str, Any]

    def __repr__(self) -> str:
        belief = "" if self.believable else ", not to be believed"
        return f"Average({len(self.particles)} particles, {self.volume!r}, halves agree to {self.resolution:.0f} Å{belief})"

    @property
    def resolution(self) -> float:
        """Å at which the FSC first falls to 0.143, interpolated in frequency; Nyquist if it never does."""
        return crossing(self.fsc, THRESHOLD)

    @property
    def believable(self) -> bool:
        """Whether the halves agree where noise would not: beyond the detail by which they were brought together.

        That is ``record["together"]`` in Å, and a little finer, for the mask (``record["mask"]`` in Å) smears the shells. For
        an average made elsewhere, whose record does not say, all detail counts.
        """
        frequency = 1 / self.fsc["resolution"].to_numpy()
        mask = self.record.get("mask", np.inf)
        # A mask of this diameter smears every shell over its neighbours.
        beyond = np.flatnonzero(frequency > 1.001 / self.record.get("together", np.inf) + 1 / mask)[:3]
        if not len(beyond):
            return False
        width = frequency[0]
        low, high = frequency[beyond[0]] - width / 2, frequency[beyond[-1]] + width / 2
        # As many numbers are independent as the volume of the mask times that of the shells.
        numbers = (np.pi / 6 * mask**3) * (4 / 3 * np.pi * (high**3 - low**3))
        return bool(self.fsc["fsc"].iloc[beyond].mean() > max(BELIEF, DEVIATIONS / np.sqrt(numbers)))

    def save(self, folder: str | Path) -> Path:
        """Write volume.mrc, half1.mrc, half2.mrc, fsc.csv, particles.parquet and record.json, all or nothing."""
        with io.atomic(folder) as temporary:
            temporary = Path(temporary)
            temporary.mkdir(parents=True, exist_ok=True)
            for name in ("volume", "half1", "half2"):
                io.write_volume(getattr(self, name), temporary / f"{name}.mrc")
            self.fsc.to_csv(temporary / "fsc.csv", index=False)
            self.particles.to_parquet(temporary / "particles.parquet", index=False)
            (temporary / "record.json").write_text(json.dumps(self.record, indent=1))
        return Path(folder)


def load(folder: str | Path) -> Average:
    """Read what `Average.save` wrote.

    Raises
    ------
    FileNotFoundError
        If the folder or a file of it is missing.
    ValueError
        If a file is damaged, or the files are not of one average.
    """
    folder = Path(folder)
    for name in ("volume.mrc", "half1.mrc", "half2.mrc", "fsc.csv", "particles.parquet", "record.json"):
        if not io.inside(folder, name).is_file():
            raise FileNotFoundError(f"{folder} is not a saved average: it has no {name}")
    volume, half1, half2 = (io.read_volume(folder / f"{name}.mrc") for name in ("volume", "half1", "half2"))
    if not volume.shape == half1.shape == half2.shape or len({one.voxel_size for one in (volume, half1, half2)}) > 1:
        raise ValueError(f"{folder} is not a saved average: {volume!r} has halves {half1!r} and {half2!r}")
    with safe_load.reading(folder, "an average"):
        table = particles.check(safe_load.table(folder / "particles.parquet"))
        fsc = safe_load.listing(folder / "fsc.csv", ["resolution", "fsc"])
        if not len(fsc) or not (fsc["resolution"] > 0).all():
            raise ValueError("its Fourier shell correlation has no shells of positive resolution")
        if not len(table):
            raise ValueError("it is said to be of no particles")
        return Average(volume, half1, half2, fsc, table, _record(folder / "record.json"))


def _record(path: Path) -> dict[str, Any]:
    """The record of an average, in which what is known has the type that it should have."""
    record = safe_load.mapping(path)
    kinds: dict[str, Any] = {"name": str, "symmetry": str, "program": str, "parameters": dict}
    kinds |= dict.fromkeys(("mask", "together", "seconds"), (int, float))
    safe_load.typed(record, **{key: kind for key, kind in kinds.items() if key in record and record[key] is not None})
    numbers = [key for key in ("mask", "together", "seconds") if record.get(key) is not None and not 0 < record[key] < MOST]
    if numbers:
        raise ValueError(f"{path}: {', '.join(numbers)} must be positive numbers up to {MOST:g}")
    return {key: value for key, value in record.items() if key not in kinds or value is not None}
