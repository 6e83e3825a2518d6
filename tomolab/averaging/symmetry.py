"""Takes a map; gives its point group, the rotations of the group, and how to align its axes to the standard frame.

Groups are named as crystallographers do: C1, C2, ... about one axis; D2, D3, ... with two-fold axes across it; T, O, I. In the
standard frame the axis of C and D is z, a two-fold axis of D is x, those of T lie along the axes, as do the four-fold ones of
O and two-fold ones of I. Mirror images are no symmetry of proteins and not among them.

>>> group("D7").shape
(14, 3, 3)
>>> compare(average.half1, average.half2).index[0]
'D7'
>>> align(average.volume, "D7")
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from tomolab.averaging import alignment, coefficients
from tomolab.averaging.alignment import Fit
from tomolab.averaging.coefficients import Coefficients
from tomolab.conventions import centre
from tomolab.volumes import Volume, apply_mask

MAX_FOLD = 60
"""Highest n of Cn and Dn that is accepted."""
CANDIDATES = ("C2", "C3", "C4", "C5", "C6", "C7", "C8", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "T", "O", "I")
"""Groups that `compare` tries."""
STARTS = 4
"""Orientations of the axes that are refined, the best of those tried."""
SEARCH_ROTATIONS = 6
"""Rotations of a group that the search for its axes uses; the final score uses all."""


def group(name: str) -> np.ndarray:
    """Rotations (g, 3, 3) of a group on zyx vectors, the identity first; ValueError if there is no group of that name."""
    if not re.fullmatch(r"[CD][1-9]\d?|[TOI]", name) or int(name[1:] or 1) > MAX_FOLD or name == "D1":
        raise ValueError(f"symmetry is C1 to C{MAX_FOLD}, D2 to D{MAX_FOLD}, T, O or I, got {name!r}")
    matrices = Rotation.create_group(name).as_matrix()[:, ::-1, ::-1]
    order = np.argsort(-np.trace(matrices, axis1=1, axis2=2), kind="stable")
    return matrices[order].copy()


def align(volume: Volume, name: str, *, radius_cycles: float | None = None) -> Fit:
    """Align the axes of a map to the standard frame of a group.

    Parameters
    ----------
    volume
        Cubic map of one particle.
    name
        Of the group (`group`), not C1.
    radius_cycles
        Finest detail used, in cycles per box; a quarter of the box by default.

    Returns
    -------
    Fit
        A point r of the map lies at R r + shift in the standard frame; ``score`` is the mean correlation of the map with
        itself after each rotation of the group but the identity.

    Raises
    ------
    ValueError
        If the map is not a cube or constant, or the group unknown or C1.
    """
    turns = torch.from_numpy(group(name)[1:].copy()).float()
    if not len(turns):
        raise ValueError("C1 has no axes to locate")
    data, grid = _coefficients(volume, radius_cycles or volume.shape[0] / 4)
    shift = torch.from_numpy(_centre_of_mass(volume)).float()
    coarse = data.inside(min(5.0, radius_cycles or 5.0))
    tried, some = alignment.uniform_rotations(4000), turns[:SEARCH_ROTATIONS]
    scores = [_self_correlation(grid, coarse, part, shift.expand(len(part), 3), some) for part in tried.split(500)]
    frames = tried[torch.cat(scores).topk(STARTS).indices]
    middles = shift.expand(STARTS, 3)
    for part in (coarse, data):
        refined = [_refine_axes(grid, part, *pose, some) for pose in zip(frames, middles, strict=True)]
        frames, middles = (torch.stack(values) for values in zip(*refined, strict=True))
    final = _self_correlation(grid, data, frames, middles, turns)
    best = int(final.argmax())
    turn = frames[best].double().numpy()
    return Fit(turn, -turn @ (middles[best].double().numpy() * volume.voxel_size), float(final[best]))


def compare(
    half1: Volume, half2: Volume, *, names: Sequence[str] = CANDIDATES, radius_cycles: float | None = None
) -> pd.DataFrame:
    """Compare symmetries on two half maps in one frame: which one makes a half correlate best with the other?

    A symmetry of the structure averages noise and raises the correlation with the other half; another one lowers it. Groups
    that the detail used does not distinguish score alike: at 40 Å many chaperonins are D8.

    Parameters
    ----------
    half1, half2
        Half maps.
    names
        Groups to try; C1 always is.
    radius_cycles
        Finest detail used, in cycles per box; a quarter of the box by default.

    Returns
    -------
    DataFrame
        Indexed by ``group``, best first: ``cross``, the correlation of half 1 with half 2 made symmetric; ``itself``, the mean
        correlation of their sum with itself after the rotations of the group; ``order`` of the group.
    """
    radius = radius_cycles or half1.shape[0] / 4
    whole = Volume(half1.data + half2.data, half1.voxel_size)
    (data, _), (_, grid) = (_coefficients(half, radius) for half in (half1, half2))
    rows = []
    for name in ("C1", *names):
        fit = align(whole, name, radius_cycles=radius) if name != "C1" else Fit(np.eye(3), np.zeros(3), 1.0)
        frame = torch.from_numpy(fit.rotation).float()
        middle = torch.from_numpy(-fit.rotation.T @ fit.shift / half1.voxel_size).float()
        model = _rotated(grid, data, frame[None], middle[None], torch.from_numpy(group(name)).float())[0].mean(0)
        cross = (model.conj() * data.values[0]).real.sum() / model.abs().square().sum().sqrt()
        rows.append({"group": name, "cross": float(cross), "itself": fit.score, "order": len(group(name))})
    return pd.DataFrame(rows).set_index("group").sort_values("cross", ascending=False)


def _coefficients(volume: Volume, radius_cycles: float) -> tuple[Coefficients, Tensor]:
    """Coefficients of a whole map of power 1, and the grid that gives them at rotated points."""
    if len(set(volume.shape)) != 1 or np.ptp(volume.data) == 0:
        raise ValueError(f"symmetry is looked for in a cubic map that is not constant, got {volume}")
    data, norm = alignment.map_coefficients(volume, radius_cycles)
    return data, coefficients.oversample(apply_mask(torch.from_numpy(volume.data), 0.95 * volume.shape[0]) / norm)


def _centre_of_mass(volume: Volume) -> np.ndarray:
    """Centre of mass, in voxels from the centre of the box, of the dense part."""
    data = apply_mask(torch.from_numpy(volume.data), 0.95 * volume.shape[0]).numpy()
    weight = np.where(data > 0.3 * data.max(), data, 0)
    axes = np.meshgrid(*(np.arange(n) - centre(n) for n in volume.shape), indexing="ij")
    return np.array([(axis * weight).sum() / weight.sum() for axis in axes])


def _self_correlation(grid: Tensor, data: Coefficients, frames: Tensor, middles: Tensor, turns: Tensor) -> Tensor:
    """Mean correlation (q,) of a map with itself after the rotations `turns` about axes in `frames` (q, 3, 3).

    The axes meet at `middles` (q, 3), in voxels from the centre of the box.
    """
    model = _rotated(grid, data, frames, middles, turns)
    power = model.abs().square().sum(-1) * data.values[0].abs().square().sum()
    return ((model.conj() * data.values[0]).real.sum(-1) / power.sqrt().clamp_min(1e-20)).mean(1)


def _rotated(grid: Tensor, data: Coefficients, frames: Tensor, middles: Tensor, turns: Tensor) -> Tensor:
    """Coefficients (q, g, m) of a map after rotations `turns` (g, 3, 3) about axes in `frames` that meet at `middles`."""
    # About a point c a rotation takes r to M r + (1 - M) c.
    about = frames.mT[:, None] @ turns @ frames[:, None]
    moved = middles[:, None] - (about @ middles[:, None, :, None])[..., 0]
    return coefficients.in_pose(grid, about, moved, points=data.points, box=data.box)


def _refine_axes(grid: Tensor, data: Coefficients, frame: Tensor, middle: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Frame and middle after gradient steps (L-BFGS) on the correlation."""
    move = torch.zeros(6, requires_grad=True)
    optimiser = torch.optim.LBFGS([move], max_iter=30, history_size=6, line_search_fn="strong_wolfe")

    def moved() -> tuple[Tensor, Tensor]:
        return alignment.from_rotation_vectors(move[None, :3])[0] @ frame, middle + move[3:]

    def closure() -> float:
        optimiser.zero_grad()
        at, about = moved()
        loss = -_self_correlation(grid, data, at[None], about[None], turns).sum()
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    with torch.no_grad():
        return moved()
