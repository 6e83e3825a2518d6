"""Averaging: the structure of a set of subtomograms, without a reference, with the missing wedge taken care of.

The subtomograms are split at random into two halves. Each is refined on its own from random orientations
(`tomolab.refinement`); nothing passes between the halves until both have their final poses. Then the second half map is
rotated and shifted onto the first, as a whole, and the two are compared by Fourier shell correlation and added.

>>> average = averaging.average(subtomograms, chosen.ids, seed=1, progress=print)
>>> average.resolution
>>> average.save("runs/tour/average")
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import alignment, devices, fourier, refinement, rotations, runs, spectra
from tomolab.averages import THRESHOLD, Average, load
from tomolab.conventions import ANGLES, POSITION, WEDGE, centre
from tomolab.refinement import Settings, State
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume, fit, sphere

__all__ = ["Average", "Progress", "average", "load", "with_poses"]

BATCH = 64
"""Subtomograms read at a time."""
FLOOR = 0.05
"""A map divides by its sampling plus this part of the mean sampling, so that what is hardly seen is damped."""


@dataclass(frozen=True)
class Progress:
    """Where an average stands: `iteration` of `of`, `resolution` in Å, the present map of the first half, seconds."""

    stage: str
    iteration: int
    of: int
    resolution: float
    volume: Volume
    seconds: float


def average(
    subtomograms: Subtomograms,
    ids: Any = None,
    *,
    seed: int,
    iterations: int = 20,
    starts: int = 1,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    finest: float | None = None,
    progress: Callable[[Progress], Any] | None = None,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
) -> Average:
    """Align and average subtomograms without a reference, in two independent halves.

    Independent are: the split, the random starting orientations, every reference, noise estimate and pose. Shared are: the
    diameter of the mask (from the mean of all, unaligned) and, after the last iteration, the one rotation and shift that
    brings half 2 onto half 1, found on their coarse detail; the FSC of pure noise can rise in its first shells by that.

    Parameters
    ----------
    subtomograms
        In memory or on disk; each has its own wedge from `tilt_min` and `tilt_max`.
    ids
        Particles to use; all by default.
    seed
        Of the split and all random orientations; the same seed gives the same average on the same machine.
    iterations
        Two thirds search from random orientations, the rest refine locally.
    starts
        Independent searches per half, of which the best scored is refined.
    mask_diameter
        Å, of the soft spherical mask on the reference; measured on the mean of the unaligned subtomograms by default.
    max_shift
        Longest distance of a particle from the centre of its box, in Å; a tenth of the box by default.
    finest
        Detail used in the alignment is no finer than this many Å; Nyquist by default.
    progress
        Called after every iteration with a `Progress`.
    stop
        Asked after every iteration; when it answers True, the average of the best poses so far is returned.
    device
        "cpu", "cuda", or by default the GPU if there is one.

    Returns
    -------
    Average

    Raises
    ------
    ValueError
        If ids are unknown, fewer than 4 particles are left, or a parameter is out of range.
    """
    began = time.perf_counter()
    where = devices.pick(device)
    chosen = subtomograms if ids is None else subtomograms.take(ids)
    _check(chosen, iterations, starts, mask_diameter, max_shift, finest)
    extent = chosen.box * chosen.voxel_size
    measured = mask_diameter is None
    diameter = _diameter(chosen) if measured else mask_diameter / chosen.voxel_size
    box = min(chosen.box, 2 * round((1.5 * diameter + 4) / 2))
    settings = Settings(
        radius=max(4.0, 3 * box / diameter),
        finest=min(box / 2 - 1.1, box * chosen.voxel_size / finest if finest else np.inf),
        diameter=min(1.35 * diameter + 2, 0.95 * box) if measured else diameter,
        reach=(max_shift or extent / 10) / chosen.voxel_size,
        starts=starts,
        search=max(1, iterations * 2 // 3),
        local=iterations - max(1, iterations * 2 // 3),
    )
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
    data = _spectra(chosen, box, settings.finest, where)
    halves = [order[::2].sort().values, order[1::2].sort().values]
    states = _refine(data, halves, settings, seed=seed, voxel_size=chosen.voxel_size, progress=progress, stop=stop, began=began)
    record = {
        "seed": seed,
        "parameters": {
            "iterations": iterations,
            "starts": starts,
            "mask_diameter": mask_diameter,
            "max_shift": max_shift,
            "finest": finest,
        },
        "mask": settings.diameter * chosen.voxel_size,
        "device": str(where),
        "machine": runs.machine(),
    }
    result = _join(chosen, halves, states, box=box, mask=settings.diameter, device=where)
    result.record.update(record, seconds=round(time.perf_counter() - began, 2))
    return result


def _check(chosen: Subtomograms, iterations: int, starts: int, *lengths: float | None) -> None:
    if len(chosen) < 4:
        raise ValueError(f"an average in two halves needs at least 4 particles, got {len(chosen)}")
    if chosen.box < 12:
        raise ValueError(f"averaging needs a box of at least 12 voxels, got {chosen.box}")
    if iterations < 2 or starts < 1:
        raise ValueError(f"at least 2 iterations and 1 start are needed, got {iterations} and {starts}")
    extent = chosen.box * chosen.voxel_size
    for name, value in zip(("mask_diameter", "max_shift", "finest"), lengths, strict=True):
        if value is not None and not 0 < value <= extent:
            raise ValueError(f"{name} must be over 0 and at most the box, {extent:g} Å, got {value}")


def _diameter(chosen: Subtomograms) -> float:
    """Voxels across which the mean of the unaligned subtomograms stands out of its surroundings by a tenth of its height."""
    _, volumes = next(chosen.batches(refinement.FEW))
    mean = torch.from_numpy(volumes.mean(0))
    box = chosen.box
    axis = torch.arange(box) - centre(box)
    shell = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).float().sqrt().round().long().flatten()
    profile = torch.bincount(shell, weights=mean.flatten().double()) / torch.bincount(shell)
    profile = profile[: box // 2]
    profile = profile - profile[int(0.38 * box) :].median()
    edge = float((profile > 0.1 * profile.max()).nonzero().max()) + 0.5
    return float(np.clip(2 * edge, 0.35 * box, 0.85 * box))


def _spectra(chosen: Subtomograms, box: int, finest: float, device: torch.device) -> spectra.Spectra:
    """Coefficients of the middle `box` voxels of every subtomogram."""
    first = centre(chosen.box) - centre(box)
    middle = slice(first, first + box)
    wedges = torch.from_numpy(chosen.particles[WEDGE].to_numpy(dtype=np.float32, copy=True))
    parts = [
        spectra.transform(torch.from_numpy(volumes[:, middle, middle, middle]).to(device), *tilts.T.to(device), radius=finest)
        for (_, volumes), tilts in zip(chosen.batches(BATCH), wedges.split(BATCH), strict=True)
    ]
    return spectra.join(parts)


def _refine(
    data: spectra.Spectra,
    halves: list[Tensor],
    settings: Settings,
    *,
    seed: int,
    voxel_size: float,
    progress: Callable[[Progress], Any] | None,
    stop: Callable[[], bool] | None,
    began: float,
) -> list[State]:
    """Refine both halves side by side; the last state of each, or the best one when stopped."""
    device = data.values.device
    generators = [torch.Generator(device=device).manual_seed(2 * seed + i) for i in range(2)]
    runs = [
        refinement.run(data.take(rows.to(device)), settings, generator=g) for rows, g in zip(halves, generators, strict=True)
    ]
    best: list[State] = []
    for step, states in enumerate(zip(*runs, strict=True), 1):
        best = [
            new if not best or new.stage == "refine" or new.score > old.score else old
            for new, old in zip(states, best or states, strict=True)
        ]
        if progress is not None:
            extent = data.box * voxel_size
            density = states[0].density.cpu().numpy()
            resolution = extent / max(1.0, min(state.resolved for state in states))
            volume = Volume(density, extent / len(density))
            progress(Progress(states[0].stage, step, settings.steps, resolution, volume, time.perf_counter() - began))
        if stop is not None and stop():
            break
    return best


def _join(
    chosen: Subtomograms, halves: list[Tensor], states: list[State], *, box: int, mask: float, device: torch.device
) -> Average:
    """Half maps from the final poses, the second brought onto the first; their FSC; their sum."""
    rows = [half[state.rows.cpu()].numpy() for half, state in zip(halves, states, strict=True)]
    parts = [chosen.take(chosen.ids[one]) for one in rows]
    turns = [state.poses.rotations[:, 0].cpu().double().numpy() for state in states]
    shifts = [state.poses.shifts[:, 0].cpu().double().numpy() * chosen.voxel_size for state in states]
    maps = [with_poses(*each, device=device)[0] for each in zip(parts, turns, shifts, strict=True)]
    first, second = (fit(_soft(volume, mask), box) for volume in maps)
    onto = alignment.align_map(second, first, radius=max(4.0, min(state.resolved for state in states)))
    turns[1] = turns[1] @ onto.rotation.T
    shifts[1] = shifts[1] - turns[1] @ onto.shift
    sums, seen = zip(*(_sums(*each, device=device) for each in zip(parts, turns, shifts, strict=True)), strict=True)
    half1, half2 = (_volume(*each, chosen) for each in zip(sums, seen, strict=True))
    fsc = correlate(half1, half2, weight=seen[0] * seen[1], diameter=mask)
    whole = _volume(sums[0] + sums[1], seen[0] + seen[1], chosen, filter_by=_trust(fsc["fsc"].to_numpy(), chosen.box))
    table = pd.concat([part.particles for part in parts], ignore_index=True)
    table[POSITION] += np.concatenate(shifts)
    table[ANGLES] = rotations.to_euler(np.concatenate(turns))
    table["score"] = np.concatenate([state.poses.scores[:, 0].cpu().numpy() for state in states])
    table["half"] = np.repeat([1, 2], [len(one) for one in rows])
    table = table.iloc[np.argsort(np.concatenate(rows))].reset_index(drop=True)
    return Average(whole, half1, half2, fsc, table, {})


def with_poses(
    subtomograms: Subtomograms, turns: np.ndarray, shifts: np.ndarray, *, device: str | torch.device | None = None
) -> tuple[Volume, np.ndarray]:
    """Average subtomograms whose poses are known: sum of the data turned back, over the sum of their wedges turned back.

    Parameters
    ----------
    subtomograms
        n of them.
    turns
        Rotations (n, 3, 3) on zyx vectors, reference to tomogram.
    shifts
        Places (n, 3) of the particles from the centres of their boxes, zyx, in Å.
    device
        As in `average`.

    Returns
    -------
    volume, sampling
        The map, without zero frequency; and how many subtomograms saw each point of its rfftn grid.

    Raises
    ------
    ValueError
        If there are no subtomograms, their number is not that of the poses, or a matrix is no proper rotation.
    """
    turns, shifts = np.asarray(turns, dtype=float), np.asarray(shifts, dtype=float)
    n = len(subtomograms)
    if n < 1 or turns.shape != (n, 3, 3) or shifts.shape != (n, 3):
        raise ValueError(
            f"{n} subtomograms need rotations ({n}, 3, 3) and shifts ({n}, 3), got {turns.shape} and {shifts.shape}"
        )
    rotations.check(turns)
    sums, sampling = _sums(subtomograms, turns, shifts, device=device)
    return _volume(sums, sampling, subtomograms), sampling.cpu().numpy()


def _sums(
    subtomograms: Subtomograms, turns: np.ndarray, shifts: np.ndarray, *, device: str | torch.device | None
) -> tuple[Tensor, Tensor]:
    """Sums of the turned-back data and of their wedges on the rfftn grid; reads the subtomograms in batches."""
    where, box = devices.pick(device), subtomograms.box
    poses = torch.from_numpy(turns).float().to(where), torch.from_numpy(shifts / subtomograms.voxel_size).float().to(where)
    tilts = torch.from_numpy(subtomograms.particles[WEDGE].to_numpy(dtype=np.float32, copy=True)).to(where)
    size = spectra.grid_size(box / 2)
    total = torch.zeros(size, size, size, dtype=torch.complex64, device=where), torch.zeros(size, size, size, device=where)
    batches = zip(subtomograms.batches(BATCH), poses[0].split(BATCH), poses[1].split(BATCH), tilts.split(BATCH), strict=True)
    for (_, volumes), turn, shift, tilt in batches:
        data = spectra.transform(torch.from_numpy(volumes).to(where), *tilt.T, radius=box / 2)
        values = data.values * spectra.phases(data.points, -shift, box)
        part = spectra.insert(values, data.wedges[data.kind], turn, points=data.points, size=size)
        total = total[0] + part[0], total[1] + part[1]
    sums, sampling = spectra.condense(*total)
    k = (fourier.frequencies((box,) * 3, device=where) * box).round().long()
    at = tuple((k + centre(sums.shape[0])).unbind(-1))
    return sums[at] * (k.float().norm(dim=-1) <= box / 2), sampling[at]


def _volume(sums: Tensor, sampling: Tensor, like: Subtomograms, *, filter_by: Tensor | None = None) -> Volume:
    box = like.box
    seen = fourier.radius((box,) * 3, device=sums.device) <= 0.5
    transform = sums / (sampling + FLOOR * sampling[seen].mean() + 1e-6)
    if filter_by is not None:
        transform = transform * filter_by.to(transform.device)
    place = torch.full((1, 3), float(centre(box)), device=sums.device)
    density = torch.fft.irfftn(transform * fourier.shift_phases((box,) * 3, place)[0], s=(box,) * 3)
    return Volume(density.cpu().numpy(), like.voxel_size)


def correlate(half1: Volume, half2: Volume, *, weight: Tensor | None = None, diameter: float | None = None) -> pd.DataFrame:
    """Fourier shell correlation of two maps as a table of `resolution` (Å) and `fsc`, inside a soft sphere of `diameter` voxels.

    Each point counts by `weight` (on the rfftn grid), such as the product of the sampling of both maps.
    """
    first, second = (torch.from_numpy(_soft(volume, diameter or half1.shape[0]).data) for volume in (half1, half2))
    values = fourier.shell_correlation(first, second, weight=None if weight is None else weight.cpu())[1:].numpy()
    return pd.DataFrame({"resolution": half1.extent[0] / np.arange(1, len(values) + 1), "fsc": values})


def _soft(volume: Volume, diameter: float) -> Volume:
    """The map inside a soft sphere of `diameter` voxels, its edge brought to 0 first."""
    mask = sphere(volume.shape[0], diameter, edge=max(1.5, 0.06 * volume.shape[0])).numpy()
    edge = (mask > 0.05) & (mask < 0.95)
    return Volume((volume.data - volume.data[edge].mean()) * mask, volume.voxel_size)


def _trust(fsc: np.ndarray, box: int) -> Tensor:
    """Weights sqrt(2 FSC / (1 + FSC)) on the rfftn grid, 0 from where the FSC first falls to 0.143."""
    below = np.flatnonzero(fsc < THRESHOLD)
    kept = np.where(np.arange(len(fsc)) < (below[0] if len(below) else len(fsc)), fsc, 0).clip(0)
    weights = np.sqrt(2 * kept / (1 + kept))
    # The first shell is always shown, lest an average without signal be an empty map.
    weights[0] = max(weights[0], 0.1)
    radius = (fourier.radius((box,) * 3) * box).numpy()
    return torch.from_numpy(np.interp(radius, np.arange(len(fsc) + 1), np.append(weights[0], weights))).float()
