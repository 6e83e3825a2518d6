"""Takes two half sets with their poses; gives an average: a structure, its half maps, their FSC and a record.

The halves stay independent until both have their final poses. Then the second half map is rotated and shifted onto the first,
as a whole and with detail coarser than its resolution. What they agree on beyond that, they found independently.

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
from tomolab.averaging.alignment import Poses
from tomolab.averaging.fsc import THRESHOLD, correlate, fsc_weights, resolution_at
from tomolab.averaging.reconstruction import back_project, to_map
from tomolab.conventions import ANGLES, POSITION
from tomolab.io import checksums, paths, safe_load
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume, apply_mask, fit

LARGEST = 1e9
"""Å or seconds that a record may hold."""
MIN_FSC = 0.2
"""Mean FSC of three shells of a reliable average: over 0.143, since the FSC of noise scatters about 0."""
DEVIATIONS = 3.0
"""Standard deviations of the FSC of noise that the mean must exceed as well: a shell in a small mask has few coefficients."""


@dataclass(frozen=True, eq=False)
class Average:
    """A structure, and the half maps and particles that it was made of.

    Parameters
    ----------
    volume
        Sum of both halves over their summed wedges, FSC weighted by sqrt(2 FSC / (1 + FSC)).
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
        doubt = "" if self.reliable else ", not reliable"
        return f"Average({len(self.particles)} particles, {self.volume!r}, halves agree to {self.resolution:.0f} Å{doubt})"

    @property
    def resolution(self) -> float:
        """Å at which the FSC first falls to 0.143, interpolated in frequency; Nyquist if it never does."""
        return resolution_at(self.fsc, THRESHOLD)

    @property
    def reliable(self) -> bool:
        """Whether the halves agree on finer detail than they were aligned with, by more than noise does.

        They were aligned up to ``record["together"]`` in Å, and the mask (``record["mask"]`` in Å) spreads this a little. All
        detail of an average of another program counts, whose record does not have these values.
        """
        frequency = 1 / self.fsc["resolution"].to_numpy()
        mask = self.record.get("mask", np.inf)
        # A mask of this diameter mixes every shell with its neighbours.
        beyond = np.flatnonzero(frequency > 1.001 / self.record.get("together", np.inf) + 1 / mask)[:3]
        if not len(beyond):
            return False
        width = frequency[0]
        low, high = frequency[beyond[0]] - width / 2, frequency[beyond[-1]] + width / 2
        # The number of independent coefficients is the volume of the mask times that of the shells.
        numbers = (np.pi / 6 * mask**3) * (4 / 3 * np.pi * (high**3 - low**3))
        return bool(self.fsc["fsc"].iloc[beyond].mean() > max(MIN_FSC, DEVIATIONS / np.sqrt(numbers)))

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
            checksums.write_folder(temporary)
            # What could not be read again is refused now.
            load(temporary)
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

    @classmethod
    def of(cls, subtomograms: Subtomograms, poses: Poses, group: Tensor | None = None) -> "Half":
        """Subtomograms with the best pose of each."""
        turns, shifts = (one[:, 0].cpu().double().numpy() for one in (poses.rotations, poses.shifts))
        same = np.eye(3)[None] if group is None else group.cpu().double().numpy()
        return cls(subtomograms, turns, shifts * subtomograms.voxel_size, poses.scores[:, 0].cpu().numpy(), same)

    def transformed(self, found: alignment.Fit) -> "Half":
        """The same poses in the frame to which their map was aligned."""
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
    folder = paths.recovered(folder)
    for name in ("volume.mrc", "half1.mrc", "half2.mrc", "fsc.csv", "particles.parquet", "record.json"):
        if not io.inside(folder, name).is_file():
            raise FileNotFoundError(f"{folder} is not a saved average: it has no {name}")
    volume, half1, half2 = (io.read_volume(folder / f"{name}.mrc") for name in ("volume", "half1", "half2"))
    if not volume.shape == half1.shape == half2.shape or len({one.voxel_size for one in (volume, half1, half2)}) > 1:
        raise ValueError(f"{folder} is not a saved average: {volume!r} has halves {half1!r} and {half2!r}")
    with safe_load.reading(folder, "an average"):
        checksums.check_folder(folder)
        table = particles.check(safe_load.read_parquet(folder / "particles.parquet"))
        fsc = safe_load.read_csv(folder / "fsc.csv", ["resolution", "fsc"])
        if not len(fsc) or not (fsc["resolution"] > 0).all():
            raise ValueError("its Fourier shell correlation has no shells of positive resolution")
        if not len(table):
            raise ValueError("it is said to be of no particles")
        path = folder / "record.json"
        return Average(volume, half1, half2, fsc, table, checked_record(safe_load.read_json(path), path))


def checked_record(record: dict[str, Any], where: str | Path) -> dict[str, Any]:
    """The record of an average without missing values; ValueError, which says where, if a known value has a wrong type."""
    lengths = ("mask", "together", "seconds")
    types: dict[str, Any] = {"name": str, "symmetry": str, "program": str, "parameters": dict}
    types |= dict.fromkeys(lengths, (int, float))
    safe_load.check_types(record, **{key: one for key, one in types.items() if record.get(key) is not None})
    numbers = [key for key in lengths if record.get(key) is not None and not 0 < record[key] < LARGEST]
    if numbers:
        raise ValueError(f"{where}: {', '.join(numbers)} must be positive numbers up to {LARGEST:g}")
    return {key: value for key, value in record.items() if key not in types or value is not None}


def combine(
    first: Half,
    second: Half,
    *,
    box: int,
    mask_voxels: float,
    radius_cycles: float,
    fine_radius_cycles: float,
    device: torch.device,
) -> tuple[Average, list[Half]]:
    """Align the second half to the first, and combine both in an average; gives it, and both halves in its frame.

    The alignment uses the middle `box` voxels and detail up to the radii (`alignment.align_map`). `mask_voxels` is the diameter
    of the soft spherical mask for the alignment and the FSC. The particles of the average come half by half.
    """
    like = first.subtomograms
    unmoved = _sums(first, device)
    maps = [_masked(to_map(*one, like), box, mask_voxels) for one in (unmoved, _sums(second, device))]
    fit_second = alignment.align_map(maps[1], maps[0], radius_cycles=radius_cycles, fine_radius_cycles=fine_radius_cycles)
    second = second.transformed(fit_second)
    sums, seen = zip(unmoved, _sums(second, device), strict=True)
    half1, half2 = (to_map(*each, like) for each in zip(sums, seen, strict=True))
    fsc = correlate(half1, half2, weight=seen[0] * seen[1], diameter_voxels=mask_voxels)
    weights = fsc_weights(fsc["fsc"].to_numpy(), like.box)
    whole = to_map(sums[0] + sums[1], seen[0] + seen[1], like, filter_by=weights)
    below = np.flatnonzero(fsc["fsc"].to_numpy() < THRESHOLD)
    finest = max(4.0, float(below[0] if len(below) else len(fsc)))
    tables = []
    # Each particle is compared with the half that does not contain it.
    for number, half in enumerate((first, second), 1):
        other = to_map(sums[2 - number], seen[2 - number], like, filter_by=weights)
        correlations = agreement(half, other, radius_cycles=finest, mask_voxels=mask_voxels, device=device)
        table = half.subtomograms.particles.copy()
        table[POSITION] += half.shifts
        table[ANGLES] = rotations.to_euler(half.turns)
        tables.append(table.assign(score=half.scores, agreement=correlations, half=number))
    record = {"together": maps[0].extent[0] / radius_cycles}
    return Average(whole, half1, half2, fsc, pd.concat(tables), record), [first, second]


def _sums(half: Half, device: torch.device) -> tuple[Tensor, Tensor]:
    return back_project(half.subtomograms, half.turns, half.shifts, group=half.group, device=device)


def _masked(volume: Volume, box: int, mask_voxels: float) -> Volume:
    """The masked map of a half in a smaller box."""
    return fit(Volume(apply_mask(torch.from_numpy(volume.data), mask_voxels).numpy(), volume.voxel_size), box)


def agreement(half: Half, structure: Volume, *, radius_cycles: float, mask_voxels: float, device: torch.device) -> np.ndarray:
    """Correlation (n,) of each subtomogram with a structure in its pose, inside its wedge and up to a radius."""
    grid = coefficients.oversample(apply_mask(torch.from_numpy(structure.data).to(device), mask_voxels))
    out = []
    options: dict[str, Any] = {"radius_cycles": radius_cycles, "device": device}
    for data, turns, shifts in coefficients.read_with_poses(half.subtomograms, half.turns, half.shifts, **options):
        model = coefficients.in_pose(grid, turns, shifts, points=data.points, box=data.box) * data.wedges[data.wedge_index]
        power = data.values.abs().square().sum(1) * model.abs().square().sum(1)
        out.append((data.values * model.conj()).real.sum(1) / power.sqrt().clamp_min(1e-30))
    return torch.cat(out).cpu().numpy()
