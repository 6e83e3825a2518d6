"""Takes subtomograms; gives an average, refined in two independent halves without a reference, corrected for the wedge.

The subtomograms are split at random into two halves. Each is refined on its own from random orientations
(`tomolab.averaging.refinement`) and gets its final poses without the other. Then both are combined in one average with their
Fourier shell correlation (`tomolab.averaging.half_maps`).

>>> average = averaging.average(subtomograms, chosen.ids, seed=1, progress=print)
>>> average.resolution
>>> average.save("runs/tour/average")
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tomolab import parallel, particles
from tomolab.averaging import alignment, coefficients, half_maps, pose_search, refinement
from tomolab.averaging import symmetry as groups
from tomolab.averaging.checkpoint import Checkpoint
from tomolab.averaging.half_maps import Average, Half
from tomolab.averaging.initial_model import InitialModel
from tomolab.averaging.refinement import Iteration, Monitor, Refinement, Settings
from tomolab.io import run_folder
from tomolab.jobs import Progress, reporting
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

FIND = "find"
FROM_RANDOM, FROM_KNOWN = 40, 20
"""Iterations by default, from random orientations, and from a map or from angles."""


def average(
    subtomograms: Subtomograms,
    ids: Any = None,
    *,
    seed: int,
    iterations: int | None = None,
    starts: int = 1,
    given: bool = False,
    start: Volume | InitialModel | Average | None = None,
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

    The halves have their own random orientations, references, noise estimates and poses. They share the diameter of the mask
    (from the mean of all, unaligned) and, after the last iteration, the rotation and shift that align half 2 to half 1. Only
    detail coarser than their resolution is used for that; the FSC of pure noise can rise there. A warning says if the halves
    agree on nothing beyond that detail: then the average is not reliable.

    Parameters
    ----------
    subtomograms
        In memory or on disk; each has its own wedge from `tilt_min`, `tilt_max` and, if there is such a column, `tilt_axis`.
    ids
        Particles to use; all by default.
    seed
        Of the split and all random orientations; the same seed gives the same average on the same machine.
    iterations
        Two thirds search, the rest refine locally. By default 40 from random orientations, and 20 from a map or from angles.
    starts
        Independent searches per half; the one with the best score is refined.
    given
        Start from the angles in the particle table, with each particle at the centre of its box, and only refine locally.
        Half maps are then as independent as the angles are.
    start
        Start from a structure of the particles (`initial_model.find`), an earlier average, or any map, instead of random
        orientations. Both halves are aligned to the low-passed map, and then searched and refined apart. With a map from
        elsewhere the result is no longer reference-free; the record says what it was.
    start_resolution
        Å: detail of `start` finer than this is not used, and only beyond it is the FSC that of independent halves.
    symmetry
        "C1", "C2", ..., "D2", ..., "T", "O", "I" (`symmetry.group`), or "find" for the best of `symmetry.compare`. All is first
        refined without it; then its axes are found in the sum of both halves, and the poses are refined with it. The average
        comes in the standard frame of the group.
    mask_diameter
        Å, of the soft spherical mask on the reference; measured on the mean of the unaligned subtomograms by default.
    max_shift
        Longest distance of a particle from the centre of its box, in Å; a tenth of the box by default.
    finest
        Detail used in the alignment is no finer than this many Å; Nyquist by default.
    checkpoint
        File (.safetensors) for the state, with a second one beside it for the pass with symmetry. After an interruption the
        same call continues from there, with the result of an unbroken run on the same machine. A finished run removes them.
    progress
        True shows a progress bar; a function is called after every iteration with a `Progress` instead.
    stop
        Asked after every iteration; when it answers True, the average of the best poses so far is returned.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    client
        Dask client whose workers score the subtomograms, in both halves at the same time (`parallel`); this process holds the
        coefficients and makes the references. By default the active `distributed.Client`, if there is one; False works here.
        The result is the same on devices of the same kind, with the same number of threads.

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
        If another process uses the same checkpoint.
    """
    where, workers = parallel.pick_device(device), Workers(parallel.active(client), device)
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    lengths = {"mask_diameter": mask_diameter, "max_shift": max_shift, "finest": finest}
    if iterations is None:
        iterations = FROM_RANDOM if start is None and not given else FROM_KNOWN
    parameters: dict[str, Any] = {"iterations": iterations, "starts": starts, "given": given, **lengths}
    groups.group("C1" if symmetry == FIND else symmetry)
    if start is not None and given:
        raise ValueError("give either start= (a map) or given=True (angles), not both")
    model = None if start is None else pose_search.match_box(_map(start), start_resolution, chosen)
    # Several searches from the same map would all be the same.
    box, settings = refinement.choose_settings(chosen, **parameters | ({} if model is None else {"starts": 1}))
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed)).numpy()
    parts = [chosen.choose(chosen.ids[np.sort(rows)]) for rows in (order[::2], order[1::2])]
    origin = _origin(start, start_resolution)
    about = {"seed": seed, "parameters": parameters, "symmetry": symmetry, "particles": chosen.digest()} | origin
    total = settings.iterations + (settings.local_iterations if symmetry != "C1" else 0)
    passes = [Checkpoint(path, about) for path in _paths(checkpoint)]
    with passes[0].lock(), reporting(progress, total, "averaging") as report:
        monitor = Monitor(report, stop, total, box * chosen.voxel_size)
        run = _HalfPair(parts, box, seed, where, workers, monitor)
        known = [_given(part) for part in parts] if given else None
        # Only the first iteration uses these poses.
        if model is not None and not passes[0].exists:
            known = [run.align_to_map(part, model, start_resolution, settings) for part in parts]
        result, pair = run.refine(settings, passes[0], given=known)
        name = "C1" if monitor.stopped else symmetry
        if name == FIND:
            name = str(groups.compare(result.half1, result.half2).index[0])
        if name != "C1":
            turns = groups.group(name)
            found = groups.align(result.volume, name)
            posed = [replace(half.transformed(found), group=turns) for half in pair]
            again = replace(settings, starts=0, group=torch.from_numpy(turns).float().to(where))
            result, _ = run.refine(again, passes[1], given=posed)
        if not monitor.stopped:
            for one in passes:
                one.remove()
    record = {"mask": settings.diameter_voxels * chosen.voxel_size, "symmetry": name, "device": str(where)}
    record |= {"machine": run_folder.machine(), "seed": seed, "parameters": parameters, "seconds": round(monitor.seconds, 2)}
    places = pd.Index(chosen.ids).get_indexer(result.particles["particle_id"])
    table = result.particles.iloc[np.argsort(places)].reset_index(drop=True)
    result = replace(result, particles=table, record=result.record | record | origin)
    if not result.reliable and not monitor.stopped:
        warnings.warn(
            f"the two halves agree on nothing finer than the detail with which they were aligned to each other "
            f"({result.record['together']:.0f} Å): this average is not reliable",
            stacklevel=2,
        )
    return result


def _paths(checkpoint: str | Path | None) -> list[Path | None]:
    """Files of the first pass, and of the one with symmetry."""
    if checkpoint is None:
        return [None, None]
    path = Path(checkpoint)
    return [path, path.with_name(f"{path.stem}-symmetry{path.suffix}")]


def _given(part: Subtomograms) -> Half:
    """Particles at the centres of their boxes, with the angles of their table."""
    turns, count = particles.matrices(part.particles), len(part)
    return Half(part, turns, np.zeros((count, 3)), np.zeros(count), np.eye(3)[None])


def _origin(start: Volume | InitialModel | Average | None, resolution: float) -> dict[str, Any]:
    """What the record says of a start: the map, its resolution, and its origin if it is known."""
    if start is None:
        return {}
    data = _map(start).data
    origin: dict[str, Any] = {"map": hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest(), "resolution": resolution}
    if isinstance(start, InitialModel):
        origin["ab initio"] = {key: start.record[key] for key in ("particles", "digest", "seed", "parameters")}
    elif isinstance(start, Average):
        origin["average"] = {"particles": len(start.particles)} | {key: start.record.get(key) for key in ("seed", "start")}
    return {"start": origin}


def _map(start: Volume | InitialModel | Average) -> Volume:
    return start if isinstance(start, Volume) else start.volume


@dataclass(frozen=True)
class _HalfPair:
    """Both halves side by side, through one or two passes of refinement.

    `parts` are the subtomograms of each half, `box` the voxels in the middle of their boxes that are used, and `seed` that of
    two random generators, one for each half. With a client in `workers` both halves are refined at the same time.
    """

    parts: list[Subtomograms]
    box: int
    seed: int
    device: torch.device
    workers: Workers
    monitor: Monitor

    def align_to_map(self, part: Subtomograms, model: Volume, resolution: float, settings: Settings) -> Half:
        """Particles with the poses in which they fit a map best."""
        data = pose_search.read(part, resolution=resolution, box=self.box, device=self.device)
        lengths: dict[str, Any] = {"diameter_voxels": settings.diameter_voxels, "max_shift_voxels": settings.max_shift_voxels}
        return pose_search.align_to_map(part, data, model, resolution=resolution, **lengths)

    def refine(self, settings: Settings, checkpoint: Checkpoint, *, given: list[Half] | None) -> tuple[Average, list[Half]]:
        """One pass: from random orientations, or from the poses of halves; returns what `half_maps.combine` does."""
        pair = [self._refinement(number, settings, given[number] if given else None) for number in range(2)]
        checkpoint.restore(pair)
        last = self._iterate(pair, checkpoint)
        halves = []
        for part, now in zip(self.parts, last, strict=True):
            halves.append(Half.of(part.choose(part.ids[now.rows.cpu().numpy()]), now.poses, settings.group))
        resolved = min(now.reference.resolved_cycles for now in last)
        radii: dict[str, Any] = {"radius_cycles": max(4.0, 0.7 * resolved), "fine_radius_cycles": max(4.0, resolved)}
        mask = settings.diameter_voxels
        return half_maps.combine(*halves, box=self.box, mask_voxels=mask, device=self.device, **radii)

    def _refinement(self, number: int, settings: Settings, given: Half | None) -> Refinement:
        generator = torch.Generator(device=self.device).manual_seed(2 * self.seed + number)
        part = self.parts[number] if given is None else given.subtomograms
        data = coefficients.read(part, box=self.box, radius_cycles=settings.max_radius_cycles, device=self.device)
        poses = None
        if given is not None:
            poses = alignment.random_poses(len(part), 1, generator=generator)
            poses.rotations[:, 0] = torch.from_numpy(given.turns).to(poses.rotations)
            poses.shifts[:, 0] = torch.from_numpy(given.shifts / part.voxel_size).to(poses.shifts)
        return Refinement(data, settings, generator=generator, given=poses, workers=self.workers)

    def _iterate(self, pair: list[Refinement], checkpoint: Checkpoint) -> list[Iteration]:
        """Refine; the last iteration of each half, or the best one if stopped."""
        best: list[Iteration] = []
        # A second pass counts on from the first.
        before = self.monitor.iterations - pair[0].settings.iterations if pair[0].settings.group is not None else 0
        for now in self._iterations(pair):
            best = [_better(*both) for both in zip(best or now, now, strict=True)]
            # The last state is not written: a run that continued from there would have no iteration left.
            if pair[0].step < pair[0].settings.iterations:
                checkpoint.write(pair)
            resolved = min(one.reference.resolved_cycles for one in now)
            if self.monitor.after(before + pair[0].step, now[0].stage, now[0].reference, resolved_cycles=resolved):
                break
        return best

    def _iterations(self, pair: list[Refinement]) -> Iterator[tuple[Iteration, ...]]:
        """The iterations of both halves."""
        if self.workers.client is None:
            yield from zip(*pair, strict=True)
            return
        with ThreadPoolExecutor(len(pair)) as pool:
            while pair[0].step < pair[0].settings.iterations:
                yield tuple(pool.map(Refinement.advance, pair))


def _better(old: Iteration, new: Iteration) -> Iteration:
    """The better of two: scores can fall in the search, since every iteration draws other rotations."""
    return new if new.stage == "refine" or new.score > old.score else old
