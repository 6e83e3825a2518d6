"""Averaging: the structure of a set of subtomograms, without a reference, with the missing wedge taken care of.

The subtomograms are split at random into two halves. Each is refined on its own from random orientations
(`tomolab.averaging.refinement`); nothing passes between the halves until both have their final poses. Then they become one
average, which says how far they agree (`tomolab.averaging.half_sets`).

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

from tomolab import devices, parallel, particles
from tomolab.averaging import pose_search, refinement
from tomolab.averaging import symmetry as groups
from tomolab.averaging.checkpoint import Snapshot
from tomolab.averaging.fsc import correlate
from tomolab.averaging.half_maps import Average, load
from tomolab.averaging.half_pair import Pair
from tomolab.averaging.half_sets import Half
from tomolab.averaging.initial_model import Model
from tomolab.averaging.reconstruction import with_poses
from tomolab.averaging.refinement import Settings
from tomolab.io import run_folder
from tomolab.progress import Progress, told
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.tensor_workers import Crew
from tomolab.volumes import Volume

__all__ = ["Average", "Progress", "average", "correlate", "load", "with_poses"]

FIND = "find"


def average(
    subtomograms: Subtomograms,
    ids: Any = None,
    *,
    seed: int,
    iterations: int = 20,
    starts: int = 2,
    given: bool = False,
    start: Volume | Model | Average | None = None,
    start_resolution: float = 80.0,
    symmetry: str = "C1",
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    finest: float | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
    client: Any = None,
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
        What to start from instead of random orientations: a structure that the particles made together (`initial_model.model`),
        an earlier average, or any map. Both halves are oriented by it, low-passed, and then searched and refined apart. From a
        map of elsewhere, what comes of it is no longer reference-free; the record says what it was.
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
    client
        Workers of a Dask cluster that score the subtomograms, in both halves at the same time (`parallel`); this process holds
        their coefficients and makes the references. By default the active `distributed.Client`, if there is one; False works
        here. The result is the same on devices of the same kind, with the same number of threads.

    Returns
    -------
    Average
        Its particles have refined positions and angles, ``score`` (log-likelihood against an empty reference),
        ``agreement`` (correlation with the structure of the other half) and ``half``.

    Raises
    ------
    ValueError
        If ids are unknown, fewer than 4 particles are left, a parameter is out of range, or the checkpoint is of another call.
    BlockingIOError
        If another process averages with the same checkpoint.
    """
    where, crew = devices.pick(device), Crew(parallel.active(client), device)
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    lengths = {"mask_diameter": mask_diameter, "max_shift": max_shift, "finest": finest}
    parameters: dict[str, Any] = {"iterations": iterations, "starts": starts, "given": given, **lengths}
    groups.group("C1" if symmetry == FIND else symmetry)
    if start is not None and given:
        raise ValueError("give either start= (a map) or given=True (angles), not both")
    model = None if start is None else pose_search.check(_map(start), start_resolution, chosen)
    # More than one search from the same map would be the same search.
    box, settings = refinement.plan(chosen, **parameters | ({} if model is None else {"starts": 1}))
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed)).numpy()
    parts = [chosen.choose(chosen.ids[np.sort(rows)]) for rows in (order[::2], order[1::2])]
    origin = _origin(start, start_resolution)
    about = {"seed": seed, "parameters": parameters, "symmetry": symmetry, "particles": chosen.digest()} | origin
    steps = settings.steps + (settings.local if symmetry != "C1" else 0)
    passes = [Snapshot(path, about) for path in _paths(checkpoint)]
    with passes[0].alone(), told(progress, steps, "averaging") as tell:
        run = Pair(parts, box=box, seed=seed, device=where, told=tell, stop=stop, steps=steps, crew=crew)
        began = [_given(part) for part in parts] if given else None
        # Only the first iteration looks at these poses.
        if model is not None and not passes[0].begun:
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
    record = {
        "mask": settings.diameter * chosen.voxel_size,
        "symmetry": name,
        "device": str(where),
        "machine": run_folder.machine(),
    }
    record |= {"seed": seed, "parameters": parameters, "seconds": round(time.perf_counter() - run.began, 2)} | origin
    result = replace(result, particles=_in_order(result.particles, chosen.ids), record=result.record | record)
    if not result.believable and not run.stopped:
        warnings.warn(
            f"the two halves agree on nothing finer than the detail by which they were brought together "
            f"({result.record['together']:.0f} Å): do not believe this average",
            stacklevel=2,
        )
    return result


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
    return pose_search.orient(part, model, resolution=resolution, box=box, diameter=diameter, reach=reach, device=device)


def _in_order(table: pd.DataFrame, ids: np.ndarray) -> pd.DataFrame:
    places = pd.Index(ids).get_indexer(table["particle_id"])
    return table.iloc[np.argsort(places)].reset_index(drop=True)


def _origin(start: Volume | Model | Average | None, resolution: float) -> dict[str, Any]:
    """What the record says of a start: which map, to which detail, and where it came from, as far as it is known."""
    if start is None:
        return {}
    data = _map(start).data
    told: dict[str, Any] = {"map": hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest(), "resolution": resolution}
    if isinstance(start, Model):
        told["ab initio"] = {key: start.record[key] for key in ("particles", "digest", "seed", "parameters")}
    elif isinstance(start, Average):
        told["average"] = {
            "particles": len(start.particles),
            "seed": start.record.get("seed"),
            "start": start.record.get("start"),
        }
    return {"start": told}


def _map(start: Volume | Model | Average) -> Volume:
    return start if isinstance(start, Volume) else start.volume
