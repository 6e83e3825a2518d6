"""Subtomograms in, an average out: refined without a reference in two independent halves, with the missing wedge counted in.

The subtomograms are split at random into two halves. Each is refined on its own from random orientations
(`tomolab.averaging.refinement`); nothing passes between the halves until both have their final poses. Then they become one
average, which says how far they agree (`tomolab.averaging.half_maps`).

>>> average = averaging.average(subtomograms, chosen.ids, seed=1, progress=print)
>>> average.resolution
>>> average.save("runs/tour/average")
"""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from tomolab.averaging.initial_model import Model
from tomolab.averaging.refinement import Refinement, Settings, State
from tomolab.io import run_folder
from tomolab.jobs import Progress, progress_after, reporting
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

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
    where, workers = parallel.pick_device(device), Workers(parallel.active(client), device)
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
    passes = [Checkpoint(path, about) for path in _paths(checkpoint)]
    with passes[0].alone(), reporting(progress, steps, "averaging") as tell:
        run = _HalfPair(parts, box=box, seed=seed, device=where, told=tell, stop=stop, steps=steps, workers=workers)
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


class _HalfPair:
    """Both halves side by side, through one or two passes of refinement.

    Parameters
    ----------
    parts
        The subtomograms of each half.
    box
        Voxels in the middle of their boxes that are looked at.
    seed
        Of all that is random; each half has a stream of its own.
    device
        Where to compute.
    told
        Called after every iteration.
    stop
        Asked after every iteration.
    steps
        Iterations of all passes.
    workers
        Who scores; with workers both halves are at it at the same time.
    """

    def __init__(
        self,
        parts: list[Subtomograms],
        *,
        box: int,
        seed: int,
        device: torch.device,
        told: Callable[[Progress], Any],
        stop: Callable[[], bool] | None,
        steps: int,
        workers: Workers,
    ) -> None:
        self.workers = workers
        self.parts, self.box, self.seed, self.device = parts, box, seed, device
        self.told, self.stop, self.steps = told, stop, steps
        self.began, self.before, self.made, self.stopped = time.perf_counter(), 0, 0, False

    def refine(self, settings: Settings, checkpoint: Checkpoint, *, given: list[Half] | None) -> tuple[Average, list[Half]]:
        """One pass: from random orientations, or from the poses of halves that are given; what `half_maps.join` gives."""
        pair = [self._refinement(number, settings, given[number] if given else None) for number in range(2)]
        checkpoint.restore(pair)
        states = self._states(pair, checkpoint)
        self.before += settings.steps
        done = [_half(part, state, settings.group) for part, state in zip(self.parts, states, strict=True)]
        resolved = min(state.resolved for state in states)
        radius, fine_radius = max(4.0, 0.7 * resolved), max(4.0, resolved)
        return half_maps.join(
            *done, box=self.box, mask=settings.diameter, radius=radius, fine_radius=fine_radius, device=self.device
        )

    def _refinement(self, number: int, settings: Settings, given: Half | None) -> Refinement:
        generator = torch.Generator(device=self.device).manual_seed(2 * self.seed + number)
        part = self.parts[number] if given is None else given.subtomograms
        data = coefficients.read(part, box=self.box, radius=settings.finest, device=self.device)
        if given is None:
            return Refinement(data, settings, generator=generator, workers=self.workers)
        poses = alignment.start(len(part), 1, generator=generator)
        poses.rotations[:, 0] = torch.from_numpy(given.turns).to(poses.rotations)
        poses.shifts[:, 0] = torch.from_numpy(given.shifts / part.voxel_size).to(poses.shifts)
        return Refinement(data, settings, generator=generator, given=poses, workers=self.workers)

    def _states(self, pair: list[Refinement], checkpoint: Checkpoint) -> list[State]:
        """Refine; the last state of each half, or the best one when stopped."""
        best: list[State] = []
        for states in self._together(pair):
            old = best or list(states)
            best = [_better(was, new) for was, new in zip(old, states, strict=True)]
            # The last state is not kept: without a step to go, there would be none to give.
            if pair[0].step < pair[0].settings.steps:
                checkpoint.write(pair)
            self.made += 1
            self.told(self._progress(self.before + pair[0].step, states))
            if self.stop is not None and self.stop():
                self.stopped = True
                break
        return best

    def _together(self, pair: list[Refinement]) -> Iterator[tuple[State, ...]]:
        """The states of both halves, iteration by iteration."""
        if self.workers.client is None:
            yield from zip(*pair, strict=True)
            return
        with ThreadPoolExecutor(len(pair)) as pool:
            while pair[0].step < pair[0].settings.steps:
                yield tuple(pool.map(Refinement.advance, pair))

    def _progress(self, step: int, states: tuple[State, ...]) -> Progress:
        return progress_after(
            states[0].stage,
            step,
            self.steps,
            density=states[0].density,
            resolved=min(state.resolved for state in states),
            fsc=states[0].fsc,
            extent=self.box * self.parts[0].voxel_size,
            seconds=time.perf_counter() - self.began,
            made=self.made,
        )


def _better(was: State, new: State) -> State:
    """What to give when stopped: in the search scores may fall, since every iteration draws other rotations."""
    return new if new.stage == "refine" or new.score > was.score else was


def _half(part: Subtomograms, state: State, group: torch.Tensor | None) -> Half:
    """The particles that a state has poses of, with the best pose of each."""
    rows, poses = state.rows.cpu().numpy(), state.poses
    return Half(
        part.choose(part.ids[rows]),
        poses.rotations[:, 0].cpu().double().numpy(),
        poses.shifts[:, 0].cpu().double().numpy() * part.voxel_size,
        poses.scores[:, 0].cpu().numpy(),
        np.eye(3)[None] if group is None else group.cpu().double().numpy(),
    )
