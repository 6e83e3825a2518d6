"""Averaging: the structure of a set of subtomograms, without a reference, with the missing wedge taken care of.

The subtomograms are split at random into two halves. Each is refined on its own from random orientations
(`tomolab.refinement`); nothing passes between the halves until both have their final poses. Then they become one average,
which says how far they agree (`tomolab.halves`).

>>> average = averaging.average(subtomograms, chosen.ids, seed=1, progress=print)
>>> average.resolution
>>> average.save("runs/tour/average")
"""

import hashlib
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tomolab import devices, guides, particles, refinement, runs
from tomolab import symmetry as groups
from tomolab.averages import Average, load
from tomolab.halves import Half
from tomolab.pairs import Pair
from tomolab.progress import Progress, told
from tomolab.reconstruction import with_poses
from tomolab.refinement import Settings
from tomolab.resolution import correlate
from tomolab.snapshots import Snapshot
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume, distance

__all__ = ["Average", "Progress", "average", "correlate", "load", "with_poses"]

FIND = "find"
STANDS_OUT = 5.0
"""Standard deviations by which the radial mean of a set must stand out of the noise somewhere to show how large it is."""


def average(
    subtomograms: Subtomograms,
    ids: Any = None,
    *,
    seed: int,
    iterations: int = 20,
    starts: int = 2,
    given: bool = False,
    start: Volume | None = None,
    start_resolution: float = 80.0,
    symmetry: str = "C1",
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    finest: float | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
) -> Average:
    """Align and average subtomograms without a reference, in two independent halves.

    Independent are: the split, the random starting orientations, every reference, noise estimate and pose. Shared are: the
    diameter of the mask (from the mean of all, unaligned) and, after the last iteration, the one rotation and shift that
    brings half 2 onto half 1, found on detail coarser than what they resolve; the FSC of pure noise can rise there by that.
    Where the halves agree on nothing beyond that detail a warning says so: then nothing in the average is to be believed.

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
    given
        Start from the angles in the particle table, with each particle at the centre of its box, and only refine locally.
        Half maps are then as independent as the angles are.
    start
        A map to start from instead of random orientations: shipped, one of yours, or an earlier average. Both halves are
        oriented by it, low-passed, and then searched and refined apart.
        What comes of it is no longer reference-free; the record says so.
    start_resolution
        Å: detail of `start` finer than this is not used, and only beyond it is the FSC that of independent halves.
    symmetry
        "C1", "C2", ..., "D2", ..., "T", "O", "I" (`symmetry.group`), or "find" for the one that makes a half tell most of the
        other (`symmetry.survey`). First all is refined without it; then its axes are located in the sum of both halves, and
        the poses refined on with it. The average comes in the standard frame of the group.
    mask_diameter
        Å, of the soft spherical mask on the reference; measured on the mean of the unaligned subtomograms by default.
    max_shift
        Longest distance of a particle from the centre of its box, in Å; a tenth of the box by default.
    finest
        Detail used in the alignment is no finer than this many Å; Nyquist by default.
    checkpoint
        File (.safetensors) in which the state is kept meanwhile, and a second one beside it where there is a symmetry. After
        a cut or a stop the same call goes on from there, with the result of an unbroken run on the same machine; when it is
        done they are removed.
    progress
        True shows a progress bar; a function is called after every iteration with a `Progress` instead.
    stop
        Asked after every iteration; when it answers True, the average of the best poses so far is returned.
    device
        "cpu", "cuda", or by default the GPU if there is one.

    Returns
    -------
    Average
        Its particles have refined positions and angles, ``score`` (log-likelihood against an empty reference),
        ``agreement`` (correlation with the structure of the other half) and ``half``.

    Raises
    ------
    ValueError
        If ids are unknown, fewer than 4 particles are left, a parameter is out of range, or the checkpoint is of another call.
    """
    where = devices.pick(device)
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    lengths = {"mask_diameter": mask_diameter, "max_shift": max_shift, "finest": finest}
    parameters: dict[str, Any] = {"iterations": iterations, "starts": starts, "given": given, **lengths}
    groups.group("C1" if symmetry == FIND else symmetry)
    if start is not None and given:
        raise ValueError("give either start= (a map) or given=True (angles), not both")
    model = None if start is None else guides.check(start, start_resolution, chosen)
    # More than one search from the same map would be the same search.
    box, settings = plan(chosen, **parameters | ({} if model is None else {"starts": 1}))
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed)).numpy()
    parts = [chosen.choose(chosen.ids[np.sort(rows)]) for rows in (order[::2], order[1::2])]
    origin: dict[str, Any] = {} if model is None else {"start": {"map": _digest_map(model), "resolution": start_resolution}}
    about = {"seed": seed, "parameters": parameters, "symmetry": symmetry, "particles": _digest(chosen)} | origin
    steps = settings.steps + (settings.local if symmetry != "C1" else 0)
    passes = [Snapshot(path, about) for path in _paths(checkpoint)]
    with told(progress, steps, "averaging") as tell:
        run = Pair(parts, box=box, seed=seed, device=where, told=tell, stop=stop, steps=steps)
        began = [_given(part) for part in parts] if given else None
        if model is not None:
            began = [_guided(part, model, start_resolution, box=box, settings=settings, device=where) for part in parts]
        result, pair = run.refine(settings, passes[0], given=began)
        name = "C1" if run.stopped else _named(symmetry, result)
        if name != "C1":
            turns = groups.group(name)
            found = groups.locate(result.volume, name)
            posed = [replace(half.onto(found), group=turns) for half in pair]
            again = replace(settings, starts=0, group=torch.from_numpy(turns).float().to(where))
            result, _ = run.refine(again, passes[1], given=posed)
    if not run.stopped:
        for one in passes:
            one.remove()
    record = {"mask": settings.diameter * chosen.voxel_size, "symmetry": name, "device": str(where), "machine": runs.machine()}
    record |= {"seed": seed, "parameters": parameters, "seconds": round(time.perf_counter() - run.began, 2)} | origin
    result = replace(result, particles=_in_order(result.particles, chosen.ids), record=result.record | record)
    if not result.believable and not run.stopped:
        warnings.warn(
            f"the two halves agree on nothing finer than the detail by which they were brought together "
            f"({result.record['together']:.0f} Å): do not believe this average",
            stacklevel=2,
        )
    return result


def _check(chosen: Subtomograms, *, iterations: int, starts: int, given: bool, **lengths: float | None) -> None:
    if len(chosen) < 4:
        raise ValueError(f"an average in two halves needs at least 4 particles, got {len(chosen)}")
    if chosen.box < 12:
        raise ValueError(f"averaging needs a box of at least 12 voxels, got {chosen.box}")
    if iterations < 2 or starts < 1:
        raise ValueError(f"at least 2 iterations and 1 start are needed, got {iterations} and {starts}")
    if given:
        particles.matrices(chosen.particles)
    extent = chosen.box * chosen.voxel_size
    for name, value in lengths.items():
        if value is not None and not 0 < value <= extent:
            raise ValueError(f"{name} must be over 0 and at most the box, {extent:g} Å, got {value}")


def plan(
    chosen: Subtomograms,
    *,
    iterations: int = 20,
    starts: int = 2,
    given: bool = False,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    finest: float | None = None,
) -> tuple[int, Settings]:
    """Voxels about the particle that are looked at, and how a set is refined; parameters as in `average`."""
    _check(
        chosen,
        iterations=iterations,
        starts=starts,
        given=given,
        mask_diameter=mask_diameter,
        max_shift=max_shift,
        finest=finest,
    )
    measured = mask_diameter is None
    diameter = _diameter(chosen) if mask_diameter is None else mask_diameter / chosen.voxel_size
    box = min(chosen.box, 2 * round((1.5 * diameter + 4) / 2))
    search = max(1, iterations * 2 // 3)
    return box, Settings(
        radius=max(4.0, 3 * box / diameter),
        finest=min(box / 2 - 1.1, box * chosen.voxel_size / finest if finest else np.inf),
        diameter=min(max(1.2 * diameter, 0.45 * chosen.box), 0.95 * box) if measured else diameter,
        reach=max_shift / chosen.voxel_size if max_shift else chosen.box / 10,
        starts=0 if given else starts,
        search=search,
        local=iterations - search,
    )


def _diameter(chosen: Subtomograms) -> float:
    """Voxels across which the mean of the unaligned subtomograms stands out of its surroundings by a tenth of its height.

    Where nothing stands out of the noise, nearly the whole box: in a small mask noise soon agrees with noise.
    """
    _, volumes = next(chosen.batches(refinement.FEW))
    mean = torch.from_numpy(volumes.mean(0))
    box = chosen.box
    shell = distance(box).round().long().flatten()
    count = torch.bincount(shell)[: box // 2]
    profile = torch.bincount(shell, weights=mean.flatten().double())[: box // 2] / count
    rim = int(0.38 * box)
    profile = profile - profile[rim:].median()
    scatter = mean.flatten()[(shell >= rim) & (shell < box // 2)].double().std() / count.sqrt()
    if not (profile > STANDS_OUT * scatter)[:rim].any():
        return 0.85 * box
    edge = float((profile > 0.1 * profile.max()).nonzero().max()) + 0.5
    return float(np.clip(2 * edge, 0.35 * box, 0.85 * box))


def _named(symmetry: str, result: Average) -> str:
    """The symmetry to use: the one that was asked for, or the one that makes a half tell most of the other."""
    return str(groups.survey(result.half1, result.half2).index[0]) if symmetry == FIND else symmetry


def _paths(checkpoint: str | Path | None) -> list[Path | None]:
    """Files of the first pass, and of the one with symmetry."""
    if checkpoint is None:
        return [None, None]
    path = Path(checkpoint)
    return [path, path.with_name(f"{path.stem}-symmetry{path.suffix}")]


def _given(part: Subtomograms) -> Half:
    """Particles at the centres of their boxes, turned as their table says."""
    turns, count = particles.matrices(part.particles), len(part)
    return Half(part, turns, np.zeros((count, 3)), np.zeros(count), np.eye(3)[None])


def _guided(
    part: Subtomograms, model: Volume, resolution: float, *, box: int, settings: Settings, device: torch.device
) -> Half:
    """Particles turned and placed by a map."""
    reach, diameter = settings.reach, settings.diameter
    return guides.orient(part, model, resolution=resolution, box=box, diameter=diameter, reach=reach, device=device)


def _in_order(table: pd.DataFrame, ids: np.ndarray) -> pd.DataFrame:
    places = pd.Index(ids).get_indexer(table["particle_id"])
    return table.iloc[np.argsort(places)].reset_index(drop=True)


def _digest_map(volume: Volume) -> str:
    return hashlib.sha256(np.ascontiguousarray(volume.data).tobytes()).hexdigest()


def _digest(chosen: Subtomograms) -> str:
    """Which particles, in which boxes."""
    total = hashlib.sha256(f"{chosen.box} {chosen.voxel_size}".encode())
    total.update(np.ascontiguousarray(chosen.ids).tobytes())
    total.update(np.ascontiguousarray(particles.positions(chosen.particles)).tobytes())
    return total.hexdigest()
