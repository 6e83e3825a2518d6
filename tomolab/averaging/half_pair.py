"""Pairs: two halves refined side by side, so that both are at the same iteration, shown, kept and stopped together."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from tomolab.averaging import alignment, coefficients, half_sets
from tomolab.averaging.checkpoint import Snapshot
from tomolab.averaging.half_maps import Average
from tomolab.averaging.half_sets import Half
from tomolab.averaging.refinement import Refinement, Settings, State
from tomolab.jobs import Progress, progress_after
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms


class Pair:
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

    def refine(self, settings: Settings, snapshot: Snapshot, *, given: list[Half] | None) -> tuple[Average, list[Half]]:
        """One pass: from random orientations, or from the poses of halves that are given; what `half_sets.join` gives."""
        pair = [self._refinement(number, settings, given[number] if given else None) for number in range(2)]
        snapshot.restore(pair)
        states = self._states(pair, snapshot)
        self.before += settings.steps
        done = [_half(part, state, settings.group) for part, state in zip(self.parts, states, strict=True)]
        resolved = min(state.resolved for state in states)
        radius, judge = max(4.0, 0.7 * resolved), max(4.0, resolved)
        return half_sets.join(*done, box=self.box, mask=settings.diameter, radius=radius, judge=judge, device=self.device)

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

    def _states(self, pair: list[Refinement], snapshot: Snapshot) -> list[State]:
        """Refine; the last state of each half, or the best one when stopped."""
        best: list[State] = []
        for states in self._together(pair):
            old = best or list(states)
            best = [_better(was, new) for was, new in zip(old, states, strict=True)]
            # The last state is not kept: without a step to go, there would be none to give.
            if pair[0].step < pair[0].settings.steps:
                snapshot.write(pair)
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
