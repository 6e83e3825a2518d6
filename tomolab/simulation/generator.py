"""Densities in, labelled subtomograms or a tomogram out, with their truth, in batches on a device.

A particle is a density in a random pose, somewhat off centre, perhaps with neighbours and a membrane beside it (`rendering`).
It is imaged with CTF, missing wedge and noise, perhaps in a solution of small proteins (`microscope`). Every batch is drawn
from a seed of its own and does not depend on the others, so that an interrupted simulation can go on, and workers of a cluster
can share one.

>>> maps = densities.load(["ribosome_70s", "apoferritin"], voxel_size=20, box=20)
>>> particles = subtomograms(maps, 100, imaging=Imaging(snr=0.1), box=20, seed=1)
"""

import hashlib
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
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
from tomolab.simulation.microscope import Conditions, Microscope
from tomolab.simulation.rendering import Templates
from tomolab.subtomograms import store, writer
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.subtomograms.dataset import open as open_store
from tomolab.tomograms import reconstruction
from tomolab.volumes import Volume

BATCHES_PER_TABLE, VOXELS_PER_TABLE = 16, 2**24
"""Largest number of batches, and of their voxels, that share one table."""
JOURNAL = 1000
"""Largest number of notes that a simulation to a store makes of its progress."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Subtomograms to simulate: `labels` (n,) index the densities, `prepared` is what `prepare` returns, made where it is
    needed.

    `client` are the workers, as `parallel.active` gave them; None simulates here.
    """

    seed: int
    labels: np.ndarray
    box: int
    prepared: parallel.OncePerProcess
    client: Any = None

    @property
    def group_size(self) -> int:
        """Subtomograms simulated at a time: several batches of small boxes share one table, which costs as much as a batch."""
        return rendering.BATCH * max(1, min(BATCHES_PER_TABLE, VOXELS_PER_TABLE // (rendering.BATCH * self.box**3)))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.group_size)

    def simulate(self, first: int = 0) -> Generator[store.Batch]:
        """Volumes and table of each group from number `first` on."""
        starts = range(first * self.group_size, len(self.labels), self.group_size)
        groups = ((self.seed, start, self.labels[start : start + self.group_size]) for start in starts)
        return parallel.each(_group, groups, client=self.client, shared=(self.prepared,))


@dataclass(frozen=True)
class Stream:
    """Training data that is simulated on the fly and never stored: ``Stream(...).epoch(3)`` yields the batches of epoch 3.

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

    Raises
    ------
    ValueError
        If an epoch holds no batch, voxel sizes differ, or the device is absent.
    """

    densities: Mapping[str, Volume]
    _: KW_ONLY
    imaging: Imaging
    box: int
    batch_size: int = 64
    epoch_size: int = 4096
    seed: int
    device: str | None = None

    def __post_init__(self) -> None:
        if self.epoch_size < self.batch_size or self.batch_size < 1:
            raise ValueError(f"an epoch of {self.epoch_size} subtomograms holds no batch of {self.batch_size}")
        rendering.check(self.densities)
        parallel.pick_device(self.device)

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return self.epoch_size // self.batch_size

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return tuple(self.densities)

    @property
    def voxel_size(self) -> float:
        """Edge of a voxel in Å."""
        return next(iter(self.densities.values())).voxel_size

    @cached_property
    def _prepared(self) -> tuple[Templates, Microscope]:
        return prepare(self.densities, self.imaging, box=self.box, device=self.device)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of volumes (b, box, box, box) and labels (b,) of epoch `number` from batch `start` on.

        The same number gives the same data, wherever it starts: every batch is drawn from a seed of its own.
        """
        templates, instrument = self._prepared
        for batch in range(start, self.batches):
            generator = batch_generator(templates.data.device, self.seed, number, batch)
            labels = torch.randint(len(templates.names), (self.batch_size,), generator=generator, device=generator.device)
            yield simulate(templates, labels, instrument, generator=generator)[0], labels


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
        Where to write them at once, if they are too many for memory (float16; `store`). After an interruption the same call
        continues after what was written, with the result of an uninterrupted run.
    resume
        False drops what an interrupted call left at `path`.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    progress
        Show a bar with subtomograms per second and the time left; only with a path.
    client
        Workers of a Dask cluster that simulate the batches, each on its own device, while this process writes them
        (`parallel`). By default the active `distributed.Client`, if there is one; False simulates here. The result is the same
        on devices of the same kind, up to rounding where they compute with other numbers of threads.

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
        If the disk has too little room; raised before any is simulated.
    BlockingIOError
        If another process simulates to the same path.
    """
    workers = parallel.active(client)
    if workers is None:
        parallel.pick_device(device)
    voxel_size, names = rendering.check(densities), tuple(densities)
    counts = specimens.check_counts(names, count)
    labels = np.repeat(np.arange(len(names)), [counts.get(name, 0) for name in names])
    if box < 8:
        raise ValueError(f"a box of at least 8 voxels is needed, got {box}")
    prepared = parallel.OncePerProcess(partial(prepare, box=box, device=device), (dict(densities), imaging))
    batches = Batches(seed, labels, box, prepared, workers)
    if path is not None:
        kind = parallel.pick_device(device).type if workers is None else "workers"
        key = _key(densities, labels, imaging, f"{box} {seed} {kind} {rendering.BATCH} {batches.group_size}")
        _store(path, key, batches, voxel_size=voxel_size, resume=resume, progress=progress)
        return open_store(path)
    volumes, tables = np.empty((len(labels), box, box, box), dtype=np.float32), []
    for images, table in batches.simulate():
        volumes[table.index] = images
        tables.append(table)
    return Subtomograms(volumes, pd.concat(tables), voxel_size=voxel_size)


def estimate(
    densities: Mapping[str, Volume], count: int, *, imaging: Imaging, box: int, device: str | None = None
) -> dict[str, float]:
    """The cost of simulating `count` subtomograms in all: ``per_second``, ``seconds``, and the ``bytes`` of a store.

    Some are simulated twice, and the second time counts; nothing is written. The other parameters are those of `subtomograms`.
    """
    prepared = parallel.OncePerProcess(partial(prepare, box=box, device=device), (dict(densities), imaging))
    labels = np.arange(4 * rendering.BATCH) % len(densities)
    for _ in range(2):
        start = time.perf_counter()
        done = sum(len(table) for _, table in Batches(0, labels, box, prepared).simulate())
        rate = done / (time.perf_counter() - start)
    return {"per_second": rate, "seconds": count / rate, "bytes": float(writer.size(count, box))}


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
    """Simulate a tomogram of particles in ice, and its truth: a specimen, its tilt series, and their reconstruction.

    SNR refers to the mean variance of the signal in boxes of the size of the densities about the particles, so that it means
    the same as in `subtomograms`. For membranes, fiducials and soluble protein, for the labels of voxels and the tilt series
    itself, call the three steps: `specimen.build`, `simulation.acquire`, `tomograms.reconstruct`.

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
        If not all particles found room.
    """
    box = max(max(volume.shape) for volume in densities.values())
    specimen = specimens.build(
        densities,
        counts,
        shape=shape,
        thickness=imaging.thickness or None,
        # With this margin, the boxes of most particles lie in the volume.
        margin=box / 4 * rendering.check(densities),
        seed=seed,
        device=device,
        progress=progress,
    )
    missing = specimen.report[specimen.report["placed"] < specimen.report["asked"]]
    if len(missing):
        placed = ", ".join(f"{row.placed} of {row.asked} {row.name}" for row in missing.itertuples(index=False))
        raise ValueError(f"not all particles found room in {shape} voxels ({placed}); ask for fewer or a larger volume")
    series = tilt_series.acquire(specimen, imaging, seed=seed + 1, box=box, device=device, progress=progress)
    volume = reconstruction.reconstruct(
        series.images,
        series.tilts,
        voxel_size=series.pixel_size,
        shape=shape,
        clip=None,
        # An SNR holds for the grey values as they are; counts of electrons fall with the tilt and are normalised.
        normalise=imaging.snr is None,
        device=device,
        progress=progress,
    )
    table = specimen.particles.assign(
        tilt_min=series.tilts.min(), tilt_max=series.tilts.max(), snr=series.table["snr"].iloc[0], defocus=series.defocus.mean()
    )
    return volume, table


def _store(path: str | Path, key: str, batches: Batches, *, voxel_size: float, resume: bool, progress: bool) -> None:
    """Write a store group by group; after an interruption go on with the groups that it lacks."""
    total, box = len(batches.labels), batches.box
    # About a shard at a time, but not so little that the journal gets long.
    step = max(-(-store.layout(box).shard // batches.group_size), -(-len(batches) // JOURNAL))
    with writer.lock(path):
        journal = writer.begin(path, key, box=box, voxel_size=voxel_size, total=total, resume=resume)
        begin = len(journal.done) * step
        bar = tqdm(
            total=total,
            initial=min(total, begin * batches.group_size),
            unit=" subtomograms",
            desc=Path(path).name,
            disable=not progress,
            leave=False,
        )
        with bar, closing(batches.simulate(begin)) as groups:
            for first in range(begin, len(batches), step):
                journal = writer.add(journal, str(first), writer.counted(islice(groups, step), bar), skipped=[])
        writer.finish(journal, path)


def _key(densities: Mapping[str, Volume], labels: np.ndarray, imaging: Imaging, settings: str) -> str:
    """A hash of everything that simulated subtomograms depend on."""
    digest = hashlib.sha256(f"{settings} {imaging}".encode())
    for name, volume in densities.items():
        digest.update(f"{name} {volume.voxel_size} {volume.shape}".encode())
        digest.update(np.ascontiguousarray(volume.data).tobytes())
    digest.update(labels.tobytes())
    return digest.hexdigest()


def prepare(densities: Mapping[str, Volume], imaging: Imaging, *, box: int, device: str | None) -> tuple[Templates, Microscope]:
    """What all batches share, on the device of the process that asks: maps ready to be rendered, and their imaging."""
    where = parallel.pick_device(device)
    templates = rendering.prepare(densities, where)
    return templates, microscope.prepare(imaging, (box,) * 3, voxel_size=templates.voxel_size, device=where)


def batch_generator(device: torch.device, *numbers: int) -> torch.Generator:
    """The random number generator of a batch, which depends on these numbers alone."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0] >> 1))


def simulate(
    templates: Templates, labels: Tensor, instrument: Microscope, *, generator: torch.Generator
) -> tuple[Tensor, tuple[Tensor, Tensor], list[tuple[int, Conditions]]]:
    """Normalised images (n, box, box, box) of the labelled particles, their poses, and the conditions of so many at a time."""
    box = instrument.shape[0]
    volumes, *poses = rendering.render(templates, labels, box=box, imaging=instrument.imaging, generator=generator)
    step = max(1, rendering.VOXELS // box**3) if volumes.device.type == "cpu" else len(volumes)
    drawn = []
    for part in volumes.split(step):
        part[:], conditions = microscope.image(part, instrument, generator, unit=True)
        drawn.append((len(part), conditions))
    return volumes, (poses[0], poses[1]), drawn


def _group(group: tuple[int, int, np.ndarray], prepared: tuple[Templates, Microscope]) -> tuple[np.ndarray, pd.DataFrame]:
    """Volumes of some batches with their table, whose index counts from the `start` of the group."""
    (seed, start, labels), (templates, instrument) = group, prepared
    device = templates.data.device
    first = start // rendering.BATCH
    batches = [
        simulate(templates, part, instrument, generator=batch_generator(device, seed, first + number))
        for number, part in enumerate(torch.from_numpy(labels.copy()).to(device).split(rendering.BATCH))
    ]
    images = np.concatenate([volumes.cpu().numpy() for volumes, _, _ in batches])
    matrices, shifts = (torch.cat([poses[i] for _, poses, _ in batches]).cpu().numpy() for i in range(2))
    drawn = [conditions.columns(count) for _, _, parts in batches for count, conditions in parts]
    columns = {name: np.concatenate([one[name] for one in drawn]) for name in drawn[0]}
    table = _table(labels, matrices, shifts, columns=columns, templates=templates, instrument=instrument)
    numbers = np.arange(start, start + len(labels))
    return images, table.assign(particle_id=numbers).set_index(numbers)


def _table(
    labels: np.ndarray,
    matrices: np.ndarray,
    shifts: np.ndarray,
    *,
    columns: dict[str, np.ndarray],
    templates: Templates,
    instrument: Microscope,
) -> pd.DataFrame:
    """Particle table with the truth: labels, poses and the `columns` of the imaging conditions."""
    voxel_size, imaging = templates.voxel_size, instrument.imaging
    middle = (instrument.shape[0] // 2) * voxel_size
    tilts = np.stack([columns.pop(name) for name in WEDGE], axis=1)
    table = particles.table(np.full((len(labels), 3), middle), tomogram="simulated", tilts=tilts)
    # What was not asked for has no column.
    unused = [name for name, value in ((AXIS, imaging.tilt_axis), ("dose", imaging.dose)) if value in (None, 0.0)]
    angles = dict(zip(("true_rot", "true_tilt", "true_psi"), rotations.to_euler(matrices).T, strict=True))
    positions = dict(zip(("true_z", "true_y", "true_x"), (shifts * voxel_size + middle).T, strict=True))
    known = {name: values for name, values in columns.items() if name not in unused}
    return table.assign(label=np.array(templates.names)[labels], **angles, **positions, **known)
