"""Takes subtomograms; gives a first structure of all of them together, from random orientations.

`averaging.average` keeps two halves apart from the start, so each half must find the structure with half of the signal. In a
few hundred noisy particles of a real cell, many of them something else, one half often fails. Here all subtomograms search
together, several times, and the search with the best score is refined a little. Both halves can start from this map,
low-passed: what they agree on beyond that, they found independently.

>>> first = initial_model.find(subtomograms, chosen.ids, seed=1)
>>> average = averaging.average(subtomograms, chosen.ids, seed=1, start=first)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tomolab import fourier, parallel, volumes
from tomolab.averaging import coefficients, refinement
from tomolab.averaging.checkpoint import Checkpoint
from tomolab.averaging.refinement import Iteration, Monitor, Refinement
from tomolab.io import run_folder
from tomolab.jobs import Progress, reporting
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

LOCAL = 5
"""Iterations of the local refinement of the best search."""


@dataclass(frozen=True, eq=False)
class InitialModel:
    """A first structure.

    Parameters
    ----------
    volume
        The map, masked, in the box and at the voxel size of the subtomograms.
    scores
        Mean log-likelihood of a particle, against no structure, at the end of every search, by its number. Several similar
        values that are higher than the rest are a good sign.
    record
        Seed, parameters, number and digest of the particles, machine, seconds.
    """

    volume: Volume
    scores: pd.Series
    record: dict[str, Any]

    def __repr__(self) -> str:
        return f"InitialModel({self.record['particles']} particles, {self.volume!r}, best of {len(self.scores)} searches)"


def find(
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
) -> InitialModel:
    """Find a first structure of subtomograms, without a reference.

    All particles share one reference, so the map itself does not show what is reliable; `averaging.average` tells.

    Parameters
    ----------
    ids
        Particles to use; all by default. Hundreds are better than few, even with others among them.
    seed
        Of all random orientations.
    starts
        Independent searches, of which the best is refined. At most 400 particles, drawn anew for each, take part.
    iterations
        Of each search.
    mask_diameter
        Å, as in `averaging.average`. The search fails with a mask that is too wide: keep it close to the particle.
    stop
        Asked after every iteration; when it answers True, the present map is returned.
    subtomograms, max_shift, checkpoint, progress, device, client
        As in `averaging.average`.

    Raises
    ------
    ValueError, BlockingIOError
        As in `averaging.average`.
    """
    where = parallel.pick_device(device)
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    parameters: dict[str, Any] = {
        "starts": starts,
        "iterations": iterations,
        "mask_diameter": mask_diameter,
        "max_shift": max_shift,
    }
    box, settings = refinement.choose_settings(chosen, **parameters)
    settings = replace(settings, search_iterations=iterations, local_iterations=LOCAL)
    about = {"seed": seed, "parameters": parameters, "digest": chosen.digest()}
    saved = Checkpoint(checkpoint, {"model": True} | about)
    workers, generator = Workers(parallel.active(client), device), torch.Generator(device=where).manual_seed(seed)
    with saved.lock(), reporting(progress, settings.iterations, "first structure") as report:
        monitor = Monitor(report, stop, settings.iterations, box * chosen.voxel_size)
        data = coefficients.read(chosen, box=box, radius_cycles=settings.max_radius_cycles, device=where)
        search = Refinement(data, settings, generator=generator, workers=workers)
        saved.restore([search])
        for now in search:
            if search.step < settings.iterations:
                saved.write([search])
            if monitor.after(search.step, now.stage, now.reference):
                break
        else:
            saved.remove()
    scores = pd.Series(search.scores, name="score", dtype=float).rename_axis("search")
    record = about | {"particles": len(chosen), "mask": settings.diameter_voxels * chosen.voxel_size}
    record |= {"device": str(where), "machine": run_folder.machine(), "seconds": round(monitor.seconds, 2)}
    return InitialModel(_map(now, chosen), scores, record)


def _map(now: Iteration, like: Subtomograms) -> Volume:
    """The density, which is on a coarser grid over the middle of the box, in the box and scale of the subtomograms."""
    density = now.reference.density
    # Many fine voxels share the density of one coarse voxel.
    share = (len(density) / now.box) ** 3
    fine = share * fourier.resize(density, (now.box,) * 3).cpu().numpy()
    return volumes.fit(Volume(fine, like.voxel_size), like.box)
