"""A map in; out come the point group that it has, the rotations of that group, and where its axes lie.

Groups are named as crystallographers do: C1, C2, ... about one axis; D2, D3, ... with two-fold axes across it; T, O, I. In the
standard frame the axis of C and D is z, a two-fold axis of D is x, those of T lie along the axes, as do the four-fold ones of
O and two-fold ones of I. Mirror images are no symmetry of proteins and not among them.

>>> group("D7").shape
(14, 3, 3)
>>> survey(average.half1, average.half2).index[0]
'D7'
>>> locate(average.volume, "D7")
"""

import re
from collections.abc import Sequence
from dataclasses import replace

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

MOST = 60
"""Largest number of axes of C and D that is taken as meant."""
CANDIDATES = ("C2", "C3", "C4", "C5", "C6", "C7", "C8", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "T", "O", "I")
"""Groups that `find` tries."""
STARTS = 4
"""Orientations from which the axes are refined, the best of those tried."""
SOME = 6
"""Rotations of a group by which its axes are looked for: they say where it is; all of them say how well it fits."""


def group(name: str) -> np.ndarray:
    """Rotations (g, 3, 3) of a group on zyx vectors, the identity first.

    Raises
    ------
    ValueError
        If there is no group of that name.
    """
    if not re.fullmatch(r"[CD][1-9]\d?|[TOI]", name) or int(name[1:] or 1) > MOST or name == "D1":
        raise ValueError(f"symmetry is C1 to C{MOST}, D2 to D{MOST}, T, O or I, got {name!r}")
    matrices = Rotation.create_group(name).as_matrix()[:, ::-1, ::-1]
    order = np.argsort(-np.trace(matrices, axis1=1, axis2=2), kind="stable")
    return matrices[order].copy()


def locate(volume: Volume, name: str, *, radius: float | None = None) -> Fit:
    """Find how to bring a map into the standard frame of a group: to where it is most alike after the rotations of that.

    Parameters
    ----------
    volume
        Cubic map of one particle.
    name
        Of the group (`group`), not C1.
    radius
        Detail used, in cycles per box; a quarter of the box by default.

    Returns
    -------
    Fit
        A point r of the map lies at R r + shift in the standard frame; ``score`` is the mean correlation of the map with
        itself after each rotation of the group but the identity.

    Raises
    ------
    ValueError
        If the map is no cube or constant, or the group unknown or C1.
    """
    turns = torch.from_numpy(group(name)[1:].copy()).float()
    if not len(turns):
        raise ValueError("C1 has no axes to locate")
    box = volume.shape[0]
    data, grid = _coefficients(volume, radius or box / 4)
    shift = torch.from_numpy(_middle(volume)).float()
    coarse = data.inside(min(5.0, radius or 5.0))
    tried, some = alignment.uniform(4000), turns[:SOME]
    scores = torch.cat([_alike(grid, coarse, part, shift.expand(len(part), 3), some) for part in tried.split(500)])
    frames = tried[scores.topk(STARTS).indices]
    middles = shift.expand(STARTS, 3)
    for part in (coarse, data):
        frames, middles = _climb(grid, part, frames, middles, some)
    scores = _alike(grid, data, frames, middles, turns)
    best = int(scores.argmax())
    turn = frames[best].double().numpy()
    return Fit(turn, -turn @ (middles[best].double().numpy() * volume.voxel_size), float(scores[best]))


def survey(half1: Volume, half2: Volume, *, names: Sequence[str] = CANDIDATES, radius: float | None = None) -> pd.DataFrame:
    """Try symmetries on two half maps in one frame: does a half tell more of the other after it was made symmetric?

    A symmetry that is there averages noise away and raises the correlation with the other half, one that is not there lowers
    it. What the detail in hand does not tell apart counts as alike: at 40 Å many a chaperonin is D8.

    Parameters
    ----------
    half1, half2
        Half maps.
    names
        Groups to try; C1 always is.
    radius
        Detail used, in cycles per box; a quarter of the box by default.

    Returns
    -------
    DataFrame
        Indexed by ``group``, best first: ``cross``, the correlation of half 1 with half 2 made symmetric; ``alike``, the mean
        correlation of their sum with itself after the rotations of the group; ``order`` of the group.
    """
    radius = radius or half1.shape[0] / 4
    whole = Volume(half1.data + half2.data, half1.voxel_size)
    (data, _), (_, grid) = (_coefficients(half, radius) for half in (half1, half2))
    rows = []
    for name in ("C1", *names):
        fit = locate(whole, name, radius=radius) if name != "C1" else Fit(np.eye(3), np.zeros(3), 1.0)
        frame = torch.from_numpy(fit.rotation).float()
        middle = torch.from_numpy(-fit.rotation.T @ fit.shift / half1.voxel_size).float()
        model = _rotated(grid, data, frame[None], middle[None], torch.from_numpy(group(name)).float())[0].mean(0)
        cross = (model.conj() * data.values[0]).real.sum() / model.abs().square().sum().sqrt()
        rows.append({"group": name, "cross": float(cross), "alike": fit.score, "order": len(group(name))})
    return pd.DataFrame(rows).set_index("group").sort_values("cross", ascending=False)


def _coefficients(volume: Volume, radius: float) -> tuple[Coefficients, Tensor]:
    """Coefficients of a whole map of power 1, and the grid that gives them at rotated points."""
    if len(set(volume.shape)) != 1 or np.ptp(volume.data) == 0:
        raise ValueError(f"symmetry is looked for in a cubic map that is not constant, got {volume}")
    density = apply_mask(torch.from_numpy(volume.data).float(), 0.95 * volume.shape[0])
    data = coefficients.transform(density[None], torch.tensor([-90.0]), torch.tensor([90.0]), radius=radius)
    norm = data.values.abs().square().sum().sqrt()
    data = replace(data, values=data.values / norm)
    return data, coefficients.oversample(density / norm)


def _middle(volume: Volume) -> np.ndarray:
    """Centre of mass, in voxels from the centre of the box, of what stands out."""
    data = apply_mask(torch.from_numpy(volume.data), 0.95 * volume.shape[0]).numpy()
    weight = np.where(data > 0.3 * data.max(), data, 0)
    axes = np.meshgrid(*(np.arange(n) - centre(n) for n in volume.shape), indexing="ij")
    return np.array([(axis * weight).sum() / weight.sum() for axis in axes])


def _alike(grid: Tensor, data: Coefficients, frames: Tensor, middles: Tensor, turns: Tensor) -> Tensor:
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
    return coefficients.sample(grid, about, data.points) * coefficients.phases(data.points, moved, data.box)


def _climb(grid: Tensor, data: Coefficients, frames: Tensor, middles: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Frames and middles after gradient steps (L-BFGS) from each."""
    found = []
    for frame, middle in zip(frames, middles, strict=True):
        move = torch.zeros(6, requires_grad=True)
        steps = torch.optim.LBFGS([move], max_iter=30, history_size=6, line_search_fn="strong_wolfe")

        def loss(move: Tensor = move, frame: Tensor = frame, middle: Tensor = middle) -> Tensor:
            there = alignment.turned(move[None, :3]) @ frame[None]
            return -_alike(grid, data, there, middle[None] + move[None, 3:], turns).sum()

        def closure(steps: torch.optim.LBFGS = steps, loss=loss) -> Tensor:  # type: ignore[no-untyped-def]
            steps.zero_grad()
            value = loss()
            value.backward()
            return value

        steps.step(closure)
        with torch.no_grad():
            found.append((alignment.turned(move[None, :3])[0] @ frame, middle + move[3:]))
    return tuple(torch.stack(part) for part in zip(*found, strict=True))  # type: ignore[return-value]
