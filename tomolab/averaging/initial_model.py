"""Subtomograms in, a first structure out, which all of them make together from random orientations.

`averaging.average` keeps two halves apart from the first guess on, so that each has to find the structure with half of the
signal. In a few hundred noisy particles of a real cell, many of them something else, one half often does not. Here all
search together, several times, and the search that explains them best is refined a little: a map to look at, and to start
both halves from, low-passed, so that what they agree on beyond that they found themselves.

>>> first = initial_model.model(subtomograms, chosen.ids, seed=1)
>>> average = averaging.average(subtomograms, chosen.ids, seed=1, start=first)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tomolab import fourier, parallel, volumes
from tomolab.averaging import coefficients, refinement
from tomolab.averaging.checkpoint import Checkpoint
from tomolab.averaging.refinement import Refinement, State
from tomolab.io import run_folder
from tomolab.jobs import Progress, progress_after, reporting
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

LOCAL = 5
"""Iterations by which the best search is refined: a map to start from needs no more."""


@dataclass(frozen=True, eq=False)
class Model:
    """A first structure.

    Parameters
    ----------
    volume
        The map, masked, in the box and at the voxel size of the subtomograms.
    scores
        Mean log-likelihood of a particle, against none, at the end of every search, by its number. Alike in several of them
        and higher than in the rest is a good sign.
    record
        Seed, parameters, number and digest of the particles, machine, seconds.
    """

    volume: Volume
    scores: pd.Series
    record: dict[str, Any]

    def __repr__(self) -> str:
        return f"Model({self.record['particles']} particles, {self.volume!r}, best of {len(self.scores)} searches)"


def model(
    subtomograms: Subtomograms,
    ids: Any = None,
    *,
    seed: int,
    starts: int = 4,
    iterations: int = 30,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
    client: Any = None,
) -> Model:
    """Find a first structure of subtomograms, without a reference.

    What it shows is not to be believed by itself: all particles saw each other. `averaging.average` tells how much of it is.

    Parameters
    ----------
    subtomograms
        In memory or on disk, with their wedges, as in `averaging.average`.
    ids
        Particles to use; all by default. Hundreds are better than few, and rather more with others among them than fewer.
    seed
        Of all random orientations.
    starts
        Independent searches, of which the best scored is refined. At most 400 particles, drawn anew for each, take part.
    iterations
        Of each search.
    mask_diameter, max_shift
        As in `averaging.average`. A mask that is too wide makes the search fail: keep it to the particle.
    checkpoint
        File (.safetensors) in which the state is kept meanwhile; after a cut the same call goes on from there.
    progress
        True shows a bar; a function is called with a `Progress` after every iteration.
    stop
        Asked after every iteration; when it answers True, the present map is returned.
    device, client
        As in `averaging.average`.

    Raises
    ------
    ValueError
        If ids are unknown, fewer than 4 particles are left, a parameter is out of range, or the checkpoint is of another call.
    BlockingIOError
        If another process works with the same checkpoint.
    """
    where, began = parallel.pick_device(device), time.perf_counter()
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    box, settings = refinement.plan(
        chosen, iterations=iterations, starts=starts, mask_diameter=mask_diameter, max_shift=max_shift
    )
    settings = replace(settings, search=iterations, local=LOCAL)
    parameters = {"starts": starts, "iterations": iterations, "mask_diameter": mask_diameter, "max_shift": max_shift}
    about = {"seed": seed, "parameters": parameters, "digest": chosen.digest()}
    saved = Checkpoint(checkpoint, {"model": True} | about)
    data = coefficients.read(chosen, box=box, radius=settings.finest, device=where)
    workers, generator = Workers(parallel.active(client), device), torch.Generator(device=where).manual_seed(seed)
    search = Refinement(data, settings, generator=generator, workers=workers)
    extent = box * chosen.voxel_size
    with saved.alone(), reporting(progress, settings.steps, "first structure") as tell:
        saved.restore([search])
        for made, state in enumerate(search, 1):
            if search.step < settings.steps:
                saved.write([search])
            tell(_news(state, search, extent=extent, seconds=time.perf_counter() - began, made=made))
            if stop is not None and stop():
                break
        else:
            saved.remove()
    scores = pd.Series(search.scores, name="score", dtype=float).rename_axis("search")
    record = about | {"particles": len(chosen), "mask": settings.diameter * chosen.voxel_size}
    record |= {"device": str(where), "machine": run_folder.machine(), "seconds": round(time.perf_counter() - began, 2)}
    return Model(_map(state, chosen), scores, record)


def _news(state: State, search: Refinement, *, extent: float, seconds: float, made: int) -> Progress:
    return progress_after(
        state.stage,
        search.step,
        search.settings.steps,
        density=state.density,
        resolved=state.resolved,
        fsc=state.fsc,
        extent=extent,
        seconds=seconds,
        made=made,
    )


def _map(state: State, like: Subtomograms) -> Volume:
    """The density, which lies on a coarser grid over the middle of the box, in the box and scale of the subtomograms."""
    # So many voxels hold what one of the coarser grid held.
    share = (len(state.density) / state.box) ** 3
    fine = share * fourier.resize(state.density, (state.box,) * 3).cpu().numpy()
    return volumes.fit(Volume(fine, like.voxel_size), like.box)
