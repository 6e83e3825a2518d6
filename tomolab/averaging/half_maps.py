"""Two half sets with their poses in; an average out: a structure, its half maps, their Fourier shell correlation, its record.

Nothing passes between the halves until both have their final poses. Then the second half map is rotated and shifted onto the
first, as a whole and by detail coarser than what it resolves; what they agree on beyond that, they found independently.

>>> average = averaging.load("runs/tour/averages/ribosome")
>>> average.volume, average.resolution
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import io, particles, rotations
from tomolab.averaging import alignment, coefficients
from tomolab.averaging.fsc import THRESHOLD, correlate, crossing, fsc_weights
from tomolab.averaging.reconstruction import back_project, to_map
from tomolab.conventions import ANGLES, POSITION
from tomolab.io import safe_load
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume, apply_mask, fit

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


@dataclass(frozen=True, eq=False)
class Half:
    """Subtomograms and their poses: rotations (n, 3, 3) on zyx vectors, shifts (n, 3) in Å, scores (n,).

    `group` (g, 3, 3) are the rotations of the symmetry of the structure.
    """

    subtomograms: Subtomograms
    turns: np.ndarray
    shifts: np.ndarray
    scores: np.ndarray
    group: np.ndarray

    def onto(self, found: alignment.Fit) -> "Half":
        """The same poses in the frame onto which its map was fitted."""
        turns = self.turns @ found.rotation.T
        group = found.rotation @ self.group @ found.rotation.T
        return replace(self, turns=turns, shifts=self.shifts - turns @ found.shift, group=group)


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
        table = particles.check(safe_load.read_parquet(folder / "particles.parquet"))
        fsc = safe_load.read_csv(folder / "fsc.csv", ["resolution", "fsc"])
        if not len(fsc) or not (fsc["resolution"] > 0).all():
            raise ValueError("its Fourier shell correlation has no shells of positive resolution")
        if not len(table):
            raise ValueError("it is said to be of no particles")
        return Average(volume, half1, half2, fsc, table, _record(folder / "record.json"))


def _record(path: Path) -> dict[str, Any]:
    """The record of an average, in which what is known has the type that it should have."""
    record = safe_load.read_json(path)
    kinds: dict[str, Any] = {"name": str, "symmetry": str, "program": str, "parameters": dict}
    kinds |= dict.fromkeys(("mask", "together", "seconds"), (int, float))
    safe_load.check_types(record, **{key: kind for key, kind in kinds.items() if key in record and record[key] is not None})
    numbers = [key for key in ("mask", "together", "seconds") if record.get(key) is not None and not 0 < record[key] < MOST]
    if numbers:
        raise ValueError(f"{path}: {', '.join(numbers)} must be positive numbers up to {MOST:g}")
    return {key: value for key, value in record.items() if key not in kinds or value is not None}


def join(
    first: Half, second: Half, *, box: int, mask: float, radius: float, fine_radius: float, device: torch.device
) -> tuple[Average, list[Half]]:
    """Bring the second half onto the first, and make of both an average.

    Parameters
    ----------
    first, second
        The halves.
    box
        Voxels in the middle of the boxes that hold the particle: what the halves are brought together by.
    mask
        Voxels, of the soft spherical mask within which they are compared.
    radius
        Detail by which they are brought together, in cycles per box.
    fine_radius
        Detail that decides between orientations that are alike up to `radius` (`alignment.align_map`).
    device
        Where to compute.

    Returns
    -------
    average, halves
        With its particles half by half; and both halves in its frame.
    """
    like = first.subtomograms
    still = _sums(first, device)
    maps = [_middle(to_map(*one, like), box, mask) for one in (still, _sums(second, device))]
    second = second.onto(alignment.align_map(maps[1], maps[0], radius=radius, fine_radius=fine_radius))
    # The first half does not move, so it is gathered once.
    sums, seen = zip(still, _sums(second, device), strict=True)
    half1, half2 = (to_map(*each, like) for each in zip(sums, seen, strict=True))
    fsc = correlate(half1, half2, weight=seen[0] * seen[1], diameter=mask)
    weights = fsc_weights(fsc["fsc"].to_numpy(), like.box)
    whole = to_map(sums[0] + sums[1], seen[0] + seen[1], like, filter_by=weights)
    below = np.flatnonzero(fsc["fsc"].to_numpy() < THRESHOLD)
    finest = max(4.0, float(below[0] if len(below) else len(fsc)))
    tables = []
    # Each particle is compared with the half that it had no part in.
    for number, half in enumerate((first, second), 1):
        other = to_map(sums[2 - number], seen[2 - number], like, filter_by=weights)
        likeness = agreement(half, other, radius=finest, mask=mask, device=device)
        tables.append(_table(half, number, likeness))
    record = {"together": maps[0].extent[0] / radius}
    return Average(whole, half1, half2, fsc, pd.concat(tables), record), [first, second]


def _sums(half: Half, device: torch.device) -> tuple[Tensor, Tensor]:
    return back_project(half.subtomograms, half.turns, half.shifts, group=half.group, device=device)


def _middle(volume: Volume, box: int, mask: float) -> Volume:
    """The map of a half, masked, in a box of its size."""
    return fit(Volume(apply_mask(torch.from_numpy(volume.data), mask).numpy(), volume.voxel_size), box)


def agreement(half: Half, structure: Volume, *, radius: float, mask: float, device: torch.device) -> np.ndarray:
    """Correlation (n,) of each subtomogram with a structure in its pose, where its wedge saw, up to `radius` cycles per box."""
    grid = coefficients.oversample(apply_mask(torch.from_numpy(structure.data).to(device), mask))
    out = []
    for data, turns, shifts in coefficients.posed(half.subtomograms, half.turns, half.shifts, radius=radius, device=device):
        model = (
            coefficients.sample(grid, turns, data.points)
            * coefficients.phases(data.points, shifts, data.box)
            * data.wedges[data.kind]
        )
        power = data.values.abs().square().sum(1) * model.abs().square().sum(1)
        out.append((data.values * model.conj()).real.sum(1) / power.sqrt().clamp_min(1e-30))
    return torch.cat(out).cpu().numpy()


def _table(half: Half, number: int, likeness: np.ndarray) -> pd.DataFrame:
    table = half.subtomograms.particles.copy()
    table[POSITION] += half.shifts
    table[ANGLES] = rotations.to_euler(half.turns)
    return table.assign(score=half.scores, agreement=likeness, half=number)
