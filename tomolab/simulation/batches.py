"""Batches: simulated particles, made some at a time, here or on the workers of a cluster, each batch from a seed of its own.

So any of them can be made alone, and again: a simulation that was cut goes on, and workers need not know of one another.

>>> wanted = Batches(seed, labels, box, parallel.Made(partial(prepared, box=box, device="cpu"), (densities, imaging)))
>>> for volumes, table in wanted.made(): ...
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import parallel, particles, rotations
from tomolab.conventions import AXIS, WEDGE
from tomolab.simulation import microscope, rendering
from tomolab.simulation.imaging import Imaging
from tomolab.simulation.microscope import Exposure, Microscope
from tomolab.subtomograms import store
from tomolab.volumes import Volume

TABLED, VOXELS = 16, 2**24
"""Batches, and voxels of them, that get one table, at most."""


@dataclass(frozen=True, eq=False)
class Batches:
    """All that is to be made, some batches at a time, here or by workers.

    Parameters
    ----------
    seed
        Of all.
    labels
        Class (n,) of each, as its number among the densities.
    box
        Edge of the boxes in voxels.
    ready
        What `prepared` gives, made where it is needed.
    client
        Workers, as `parallel.active` gave them; None works here.
    """

    seed: int
    labels: np.ndarray
    box: int
    ready: parallel.Made
    client: Any = None

    @property
    def group(self) -> int:
        """Subtomograms made at a time: a table costs as much as a batch of small boxes, so there is one for several."""
        return rendering.BATCH * max(1, min(TABLED, VOXELS // (rendering.BATCH * self.box**3)))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.group)

    def made(self, first: int = 0) -> Generator[store.Part]:
        """Volumes and table of each group from number `first` on."""
        starts = range(first * self.group, len(self.labels), self.group)
        wanted = ((self.seed, start, self.labels[start : start + self.group]) for start in starts)
        return parallel.each(_part, wanted, client=self.client, shared=(self.ready,))


def prepared(
    densities: Mapping[str, Volume], imaging: Imaging, *, box: int, device: str | None
) -> tuple[rendering.Sources, Microscope]:
    """What all batches share.

    Parameters
    ----------
    densities
        Maps by class name.
    imaging
        How the particles are imaged.
    box
        Edge of their boxes in voxels.
    device
        "cpu", "cuda", or None for the GPU of the process that asks, if there is one.
    """
    where = parallel.pick_device(device)
    sources = rendering.prepare(densities, where)
    return sources, microscope.prepare(imaging, (box,) * 3, voxel_size=sources.voxel_size, device=where)


def _part(group: tuple[int, int, np.ndarray], ready: tuple[rendering.Sources, Microscope]) -> tuple[np.ndarray, pd.DataFrame]:
    """Volumes of some batches, each drawn from a seed of its own, with their table, whose index goes on from `start`."""
    (seed, start, labels), (sources, scope) = group, ready
    where = sources.data.device
    parts = torch.from_numpy(labels.copy()).to(where).split(rendering.BATCH)
    first = start // rendering.BATCH
    made = [image(sources, part, scope, generator=seeded(where, seed, first + number)) for number, part in enumerate(parts)]
    images = np.concatenate([one.cpu().numpy() for one, _, _ in made])
    turns, shifts = (torch.cat([pose[i] for _, pose, _ in made]) for i in range(2))
    exposures = microscope.join([one for _, _, one in made])
    truth = pd.concat([_truth(torch.cat(parts), turns, shifts), exposures.table(len(labels))], axis=1)
    table = _table(truth, sources, imaging=scope.imaging, box=scope.shape[0])
    numbers = np.arange(start, start + len(labels))
    return images, table.assign(particle_id=numbers).set_index(numbers)


def seeded(device: torch.device, *numbers: int) -> torch.Generator:
    """A source of random numbers for a batch, the same wherever and after whatever it is made."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0] >> 1))


def image(
    sources: rendering.Sources, labels: Tensor, scope: Microscope, *, generator: torch.Generator
) -> tuple[Tensor, tuple[Tensor, Tensor], Exposure]:
    """Normalised images (n, box, box, box) of the labelled complexes, their poses, and what was drawn for them."""
    box = scope.shape[0]
    clean, turns, shifts = rendering.render(sources, labels, box=box, imaging=scope.imaging, generator=generator)
    step = max(1, rendering.VOXELS // box**3) if clean.device.type == "cpu" else len(clean)
    exposures = []
    for part in clean.split(step):
        part[:], exposure = microscope.image(part, scope, generator, unit=True)
        exposures.append(exposure)
    return clean, (turns, shifts), microscope.join(exposures)


def _truth(labels: Tensor, turns: Tensor, shifts: Tensor) -> pd.DataFrame:
    angles = rotations.to_euler(turns.cpu().numpy())
    columns = {f"true_{name}": angles[:, i] for i, name in enumerate(("rot", "tilt", "psi"))}
    columns |= {f"true_{name}": shifts[:, i].cpu().numpy() for i, name in enumerate("zyx")}
    return pd.DataFrame({"label": labels.cpu().numpy()} | columns)


def _table(truth: pd.DataFrame, sources: rendering.Sources, *, imaging: Imaging, box: int) -> pd.DataFrame:
    middle = (box // 2) * sources.voxel_size
    table = particles.table(np.full((len(truth), 3), middle), tomogram="simulated", tilts=truth[WEDGE].to_numpy())
    for axis in "zyx":
        truth[f"true_{axis}"] = truth[f"true_{axis}"] * sources.voxel_size + middle
    truth["label"] = np.array(sources.names)[truth["label"].to_numpy()]
    # What was not asked for has no column.
    unused = [name for name, value in ((AXIS, imaging.tilt_axis), ("dose", imaging.dose)) if value in (None, 0.0)]
    return pd.concat([table, truth.drop(columns=[*WEDGE, *unused])], axis=1)
