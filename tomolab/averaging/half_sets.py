"""Halves: two half sets, each with poses of its own, become one average that says how far they agree.

Nothing passes between the halves until both have their final poses. Then the second half map is rotated and shifted onto the
first, as a whole and by detail coarser than what it resolves; what they agree on beyond that, they found independently.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import rotations
from tomolab.averaging import alignment, coefficients
from tomolab.averaging.fsc import THRESHOLD, correlate, trust
from tomolab.averaging.half_maps import Average
from tomolab.averaging.reconstruction import back_project, to_map
from tomolab.conventions import ANGLES, POSITION
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume, fit, isolate


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


def join(
    first: Half, second: Half, *, box: int, mask: float, radius: float, judge: float, device: torch.device
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
    judge
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
    second = second.onto(alignment.align_map(maps[1], maps[0], radius=radius, judge=judge))
    # The first half does not move, so it is gathered once.
    sums, seen = zip(still, _sums(second, device), strict=True)
    half1, half2 = (to_map(*each, like) for each in zip(sums, seen, strict=True))
    fsc = correlate(half1, half2, weight=seen[0] * seen[1], diameter=mask)
    weights = trust(fsc["fsc"].to_numpy(), like.box)
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
    return fit(Volume(isolate(torch.from_numpy(volume.data), mask).numpy(), volume.voxel_size), box)


def agreement(half: Half, structure: Volume, *, radius: float, mask: float, device: torch.device) -> np.ndarray:
    """Correlation (n,) of each subtomogram with a structure in its pose, where its wedge saw, up to `radius` cycles per box."""
    grid = coefficients.oversample(isolate(torch.from_numpy(structure.data).to(device), mask))
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
