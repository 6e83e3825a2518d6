"""Densities in, labelled subtomograms or a tomogram out, with the truth, in batches on the device of your choice.

A particle is a density in a random pose, off centre by a little, perhaps with neighbours and a membrane beside it
(`rendering`), imaged with CTF, missing wedge and noise, perhaps in a solution of small proteins (`microscope`). Every batch is
drawn from a seed of its own, so any of them can be made alone, and again, here or on the workers of a cluster: a simulation
that was cut goes on, and workers need not know of one another.

>>> maps = densities.load(["ribosome_70s", "apoferritin"], voxel_size=20, box=20)
>>> particles = subtomograms(maps, 100, imaging=Imaging(snr=0.1), box=20, seed=1)
"""

import hashlib
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tomolab import parallel, particles, rotations
from tomolab.conventions import AXIS, WEDGE
from tomolab.simulation import microscope, rendering, tilt_series
from tomolab.simulation import specimen as specimens
from tomolab.simulation.imaging import Imaging
from tomolab.simulation.microscope import Exposure, Microscope
from tomolab.subtomograms import store, writer
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.subtomograms.dataset import open as opened
from tomolab.tomograms import reconstruction
from tomolab.volumes import Volume

BATCHES_PER_TABLE, VOXELS_PER_TABLE = 16, 2**24
"""Batches, and voxels of them, that get one table, at most."""
JOURNAL = 1000
"""Times, at most, that a long simulation to a store notes how far it is."""


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
        What `prepare` gives, made where it is needed.
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
        return rendering.BATCH * max(1, min(BATCHES_PER_TABLE, VOXELS_PER_TABLE // (rendering.BATCH * self.box**3)))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.group)

    def made(self, first: int = 0) -> Generator[store.Part]:
        """Volumes and table of each group from number `first` on."""
        starts = range(first * self.group, len(self.labels), self.group)
        wanted = ((self.seed, start, self.labels[start : start + self.group]) for start in starts)
        return parallel.each(_part, wanted, client=self.client, shared=(self.ready,))


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Simulated training data that never touches a disk; made by `stream`."""

    densities: Mapping[str, Volume]
    imaging: Imaging
    box: int
    batch_size: int
    batches: int
    seed: int
    device: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return tuple(self.densities)

    @property
    def voxel_size(self) -> float:
        """Edge of a voxel in Å."""
        return next(iter(self.densities.values())).voxel_size

    @cached_property
    def _prepared(self) -> tuple[rendering.Sources, Microscope]:
        """What all epochs share."""
        return prepare(self.densities, self.imaging, box=self.box, device=self.device)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of volumes (b, box, box, box) and labels (b,) of epoch `number` from batch `start` on.

        The same number gives the same data, wherever it starts: every batch is drawn from a seed of its own.
        """
        sources, scope = self._prepared
        for batch in range(start, self.batches):
            drawn = seeded(sources.data.device, self.seed, number, batch)
            labels = torch.randint(len(sources.names), (self.batch_size,), generator=drawn, device=drawn.device)
            yield image(sources, labels, scope, generator=drawn)[0], labels


def subtomograms(
    densities: Mapping[str, Volume],
    count: int | Mapping[str, int],
    *,
    imaging: Imaging,
    box: int,
    seed: int,
    path: str | Path | None = None,
    resume: bool = True,
    device: str | None = None,
    progress: bool = True,
    client: Any = None,
) -> Subtomograms:
    """Simulate labelled subtomograms, each normalised to mean 0 and standard deviation 1.

    Parameters
    ----------
    densities
        Maps by class name, all of one voxel size, which is that of the result.
    count
        Subtomograms per class, or a number for each class name.
    imaging
        How the particles are imaged.
    box
        Edge of the subtomograms in voxels.
    seed
        The same seed on the same device gives the same subtomograms.
    path
        Where to write them as they are made, if they are too many for memory (float16; `store`). After a cut the same call
        goes on after what was written, with the result of an unbroken run.
    resume
        False drops what a cut call left at `path`.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    progress
        Show a bar with subtomograms per second and the time left; only with a path.
    client
        Workers of a Dask cluster that make the batches, each on its own device, while this process writes them (`parallel`).
        By default the active `distributed.Client`, if there is one; False works here. The result is the same on devices of the
        same kind, up to rounding where they compute with other numbers of threads.

    Returns
    -------
    Subtomograms
        In memory, or opened from `path`. The table has `label`, `snr`, `defocus` (µm), if asked for also `dose` (e/Å²) and
        `tilt_axis` (degrees), and the truth: `true_rot true_tilt true_psi` (degrees) and `true_z true_y true_x` (Å); z, y, x
        are the centre of the box, as an extraction would have it.

    Raises
    ------
    ValueError
        If `count` names classes without a density, the box is too small, or the device is absent.
    OSError
        If the disk has less room than they need; told before any is made.
    BlockingIOError
        If another process simulates to the same path.
    """
    helpers = parallel.active(client)
    if helpers is None:
        parallel.pick_device(device)
    voxel_size, labels = rendering.check(densities), _labels(tuple(densities), count)
    if box < 8:
        raise ValueError(f"a box of at least 8 voxels is needed, got {box}")
    ready = parallel.Made(partial(prepare, box=box, device=device), (dict(densities), imaging))
    batches = Batches(seed, labels, box, ready, helpers)
    if path is not None:
        kind = parallel.pick_device(device).type if helpers is None else "workers"
        key = _key(densities, labels, imaging, f"{box} {seed} {kind} {rendering.BATCH} {batches.group}")
        _store(path, key, batches, voxel_size=voxel_size, resume=resume, progress=progress)
        return opened(path)
    volumes, tables = np.empty((len(labels), box, box, box), dtype=np.float32), []
    for images, table in batches.made():
        volumes[table.index] = images
        tables.append(table)
    return Subtomograms(volumes, pd.concat(tables), voxel_size=voxel_size)


def estimate(
    densities: Mapping[str, Volume], count: int, *, imaging: Imaging, box: int, device: str | None = None
) -> dict[str, float]:
    """What it will take to simulate `count` subtomograms in all: ``per_second``, ``seconds``, and the ``bytes`` of a store.

    Some are made, after as many that are not counted; writing is not. The other parameters are those of `subtomograms`.
    """
    ready = parallel.Made(partial(prepare, box=box, device=device), (dict(densities), imaging))
    labels = np.arange(4 * rendering.BATCH) % len(densities)
    for _ in range(2):
        start = time.perf_counter()
        made = sum(len(table) for _, table in Batches(0, labels, box, ready).made())
        rate = made / (time.perf_counter() - start)
    return {"per_second": rate, "seconds": count / rate, "bytes": float(writer.size(count, box))}


def stream(
    densities: Mapping[str, Volume],
    *,
    imaging: Imaging,
    box: int,
    batch_size: int = 64,
    epoch_size: int = 4096,
    seed: int,
    device: str | None = None,
) -> Stream:
    """Training data simulated on the fly: ``stream(...).epoch(3)`` yields the batches of epoch 3.

    Parameters
    ----------
    densities
        Maps by class name, all of one voxel size.
    imaging
        How the particles are imaged.
    box
        Edge of the subtomograms in voxels.
    batch_size
        Subtomograms per batch, classes drawn uniformly.
    epoch_size
        Subtomograms per epoch, rounded down to whole batches.
    seed
        Decides all that is drawn.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    """
    if epoch_size < batch_size or batch_size < 1:
        raise ValueError(f"an epoch of {epoch_size} subtomograms holds no batch of {batch_size}")
    rendering.check(densities)
    parallel.pick_device(device)
    return Stream(
        densities=densities,
        imaging=imaging,
        box=box,
        batch_size=batch_size,
        batches=epoch_size // batch_size,
        seed=seed,
        device=device,
    )


def tomogram(
    densities: Mapping[str, Volume],
    counts: int | Mapping[str, int],
    *,
    shape: tuple[int, int, int],
    imaging: Imaging,
    seed: int,
    device: str | None = None,
    progress: bool = False,
) -> tuple[Volume, pd.DataFrame]:
    """Simulate a tomogram of complexes in ice, and its truth: a specimen, its tilt series, and their reconstruction.

    SNR refers to the mean variance of the signal in boxes of the densities' size about the particles, so that it means the
    same as in `subtomograms`. For membranes, beads and soluble protein, for the labels of voxels and the tilt series itself,
    take the three steps one by one: `specimen.build`, `simulation.acquire`, `tomograms.reconstruct`.

    Parameters
    ----------
    densities
        Maps by class name, all of one voxel size, which is that of the result; in Da/Å³.
    counts
        Particles per class, or a number for each class name.
    shape
        Voxels along z, y, x.
    imaging
        How the specimen is imaged. Its `thickness` is that of the ice; 0 fills the volume.
    seed
        Decides all that is drawn.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    progress
        Show progress bars.

    Returns
    -------
    volume, particles
        The tomogram, and the true particle table (positions, angles, `label`, `visibility`, `snr`, `defocus`).

    Raises
    ------
    ValueError
        If the particles do not fit, saying how many did.
    """
    box = max(max(volume.shape) for volume in densities.values())
    specimen = specimens.build(
        densities,
        counts,
        shape=shape,
        thickness=imaging.thickness or None,
        # With this much around them, most complexes have room for the box that they are cut out in.
        margin=box / 4 * rendering.check(densities),
        seed=seed,
        device=device,
        progress=progress,
    )
    missing = specimen.report[specimen.report["placed"] < specimen.report["asked"]]
    if len(missing):
        told = ", ".join(f"{row.placed} of {row.asked} {row.name}" for row in missing.itertuples(index=False))
        raise ValueError(f"not all particles found room in {shape} voxels ({told}); ask for fewer or a larger volume")
    series = tilt_series.acquire(specimen, imaging, seed=seed + 1, box=box, device=device, progress=progress)
    volume = reconstruction.reconstruct(
        series.images,
        series.tilts,
        voxel_size=series.pixel_size,
        shape=shape,
        clip=None,
        # An SNR is reached with the grey values as they are; counts fall with the tilt and have to be made alike.
        normalise=imaging.snr is None,
        device=device,
        progress=progress,
    )
    table = specimen.particles.assign(
        tilt_min=series.tilts.min(), tilt_max=series.tilts.max(), snr=series.table["snr"].iloc[0], defocus=series.defocus.mean()
    )
    return volume, table


def _store(path: str | Path, key: str, batches: Batches, *, voxel_size: float, resume: bool, progress: bool) -> None:
    """Write a store, some groups after the other; after a cut go on with those that it lacks."""
    total, box = len(batches.labels), batches.box
    # About a shard at a time, but not so little that the journal gets long.
    step = max(-(-store.layout(box).shard // batches.group), -(-len(batches) // JOURNAL))
    with writer.lock(path):
        journal = writer.begin(path, key, box=box, voxel_size=voxel_size, total=total, resume=resume)
        begin = len(journal.done) * step
        bar = tqdm(
            total=total,
            initial=min(total, begin * batches.group),
            unit=" subtomograms",
            desc=Path(path).name,
            disable=not progress,
            leave=False,
        )
        with bar, closing(batches.made(begin)) as coming:
            for first in range(begin, len(batches), step):
                journal = writer.add(journal, str(first), writer.counted(islice(coming, step), bar), skipped=[])
        writer.finish(journal, path)


def _key(densities: Mapping[str, Volume], labels: np.ndarray, imaging: Imaging, told: str) -> str:
    """A hash of all on which simulated subtomograms depend."""
    digest = hashlib.sha256(f"{told} {imaging}".encode())
    for name, volume in densities.items():
        digest.update(f"{name} {volume.voxel_size} {volume.shape}".encode())
        digest.update(np.ascontiguousarray(volume.data).tobytes())
    digest.update(labels.tobytes())
    return digest.hexdigest()


def _labels(names: tuple[str, ...], count: int | Mapping[str, int]) -> np.ndarray:
    counts = specimens.wanted(names, count)
    return np.repeat(np.arange(len(names)), [counts.get(name, 0) for name in names])


def prepare(
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
