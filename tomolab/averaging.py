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
from tqdm.auto import tqdm

from tomolab import alignment, devices, particles, refinement, rotations, runs, spectra
from tomolab.averages import Average, load
from tomolab.conventions import ANGLES, POSITION, centre
from tomolab.reconstruction import BATCH, correlate, density_of, sums_of, trust, with_poses
from tomolab.refinement import Settings, State
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume, distance, fit, isolate

__all__ = ["Average", "Progress", "average", "correlate", "load", "with_poses"]


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
    starts: int = 2,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    finest: float | None = None,
    progress: bool | Callable[[Progress], Any] = True,
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
        In memory or on disk; each has its own wedge from `tilt_min`, `tilt_max` and, if there is such a column, `tilt_axis`.
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
        True shows a progress bar; a function is called after every iteration with a `Progress` instead.
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
    diameter = _diameter(chosen) if mask_diameter is None else mask_diameter / chosen.voxel_size
    box = min(chosen.box, 2 * round((1.5 * diameter + 4) / 2))
    settings = Settings(
        radius=max(4.0, 3 * box / diameter),
        finest=min(box / 2 - 1.1, box * chosen.voxel_size / finest if finest else np.inf),
        diameter=min(max(1.2 * diameter, 0.45 * chosen.box), 0.95 * box) if measured else diameter,
        reach=(max_shift or extent / 10) / chosen.voxel_size,
        starts=starts,
        search=max(1, iterations * 2 // 3),
        local=iterations - max(1, iterations * 2 // 3),
    )
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
    data = _spectra(chosen, box, settings.finest, where)
    halves = [order[::2].sort().values, order[1::2].sort().values]
    told = _bar(settings.steps) if progress is True else progress or None
    states = _refine(data, halves, settings, seed=seed, voxel_size=chosen.voxel_size, progress=told, stop=stop, began=began)
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


def _bar(steps: int) -> Callable[[Progress], Any]:
    """A progress bar that says stage and resolution."""
    bar = tqdm(total=steps, desc="averaging", unit="iteration")

    def tell(now: Progress) -> None:
        bar.set_postfix_str(f"{now.stage}, {now.resolution:.0f} Å", refresh=False)
        bar.update(now.iteration - bar.n)
        if now.iteration == now.of:
            bar.close()

    return tell


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
    shell = distance(box).round().long().flatten()
    profile = torch.bincount(shell, weights=mean.flatten().double()) / torch.bincount(shell)
    profile = profile[: box // 2]
    profile = profile - profile[int(0.38 * box) :].median()
    edge = float((profile > 0.1 * profile.max()).nonzero().max()) + 0.5
    return float(np.clip(2 * edge, 0.35 * box, 0.85 * box))


def _spectra(chosen: Subtomograms, box: int, finest: float, device: torch.device) -> spectra.Spectra:
    """Coefficients of the middle `box` voxels of every subtomogram."""
    first = centre(chosen.box) - centre(box)
    middle = slice(first, first + box)
    wedges = torch.from_numpy(particles.geometries(chosen.particles)).float().to(device)
    parts = [
        spectra.transform(
            torch.from_numpy(volumes[:, middle, middle, middle]).to(device), low, high, tilt_axis=axis, radius=finest
        )
        for (_, volumes), (low, high, axis) in zip(chosen.batches(BATCH), (part.T for part in wedges.split(BATCH)), strict=True)
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
    parts = [data.take(rows.to(device)) for rows in halves]
    steps = [refinement.run(part, settings, generator=generator) for part, generator in zip(parts, generators, strict=True)]
    best: list[State] = []
    for step, states in enumerate(zip(*steps, strict=True), 1):
        pairs = zip(best or states, states, strict=True)
        best = [new if new.stage == "refine" or new.score > old.score else old for old, new in pairs]
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
    first, second = (
        fit(Volume(isolate(torch.from_numpy(volume.data), mask).numpy(), volume.voxel_size), box) for volume in maps
    )
    onto = alignment.align_map(second, first, radius=max(4.0, min(state.resolved for state in states)))
    turns[1] = turns[1] @ onto.rotation.T
    shifts[1] = shifts[1] - turns[1] @ onto.shift
    sums, seen = zip(*(sums_of(*each, device=device) for each in zip(parts, turns, shifts, strict=True)), strict=True)
    half1, half2 = (density_of(*each, chosen) for each in zip(sums, seen, strict=True))
    fsc = correlate(half1, half2, weight=seen[0] * seen[1], diameter=mask)
    whole = density_of(sums[0] + sums[1], seen[0] + seen[1], chosen, filter_by=trust(fsc["fsc"].to_numpy(), chosen.box))
    table = pd.concat([part.particles for part in parts], ignore_index=True)
    table[POSITION] += np.concatenate(shifts)
    table[ANGLES] = rotations.to_euler(np.concatenate(turns))
    table["score"] = np.concatenate([state.poses.scores[:, 0].cpu().numpy() for state in states])
    table["half"] = np.repeat([1, 2], [len(one) for one in rows])
    table = table.iloc[np.argsort(np.concatenate(rows))].reset_index(drop=True)
    return Average(whole, half1, half2, fsc, table, {})
