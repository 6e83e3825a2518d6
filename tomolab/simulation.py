"""Simulation: labelled subtomograms and tomograms from densities, in batches on the device of your choice.

A particle is a density in a random pose, off centre by a little, perhaps with neighbours and a membrane beside it
(`complexes`), imaged with CTF, missing wedge and noise, perhaps in a solution of small proteins (`microscope`).

>>> maps = densities.load(["ribosome_70s", "apoferritin"], voxel_size=20, box=20)
>>> particles = subtomograms(maps, 100, imaging=Imaging(snr=0.1), box=20, seed=1)
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tomolab import acquisition, complexes, devices, journals, microscope, particles, rotations, specimens, stores, tomograms
from tomolab.conventions import AXIS, WEDGE
from tomolab.imaging import Imaging
from tomolab.microscope import Exposure, Microscope
from tomolab.subtomograms import Subtomograms
from tomolab.subtomograms import open as opened
from tomolab.volumes import Volume

JOURNAL = 1000
"""Times, at most, that a long simulation to a store notes how far it is."""
TABLED, VOXELS = 16, 2**24
"""Batches, and voxels of them, that get one table, at most."""


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
        Where to write them as they are made, if they are too many for memory (float16; `stores`). After a cut the same call
        goes on after what was written, with the result of an unbroken run.
    resume
        False drops what a cut call left at `path`.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    progress
        Show a bar with subtomograms per second and the time left; only with a path.

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
    where = devices.pick(device)
    sources = complexes.prepare(densities, where)
    labels = torch.from_numpy(_labels(sources.names, count)).to(where)
    if box < 8:
        raise ValueError(f"a box of at least 8 voxels is needed, got {box}")
    scope = microscope.prepare(imaging, (box,) * 3, voxel_size=sources.voxel_size, device=where)
    if path is not None:
        key = _key(densities, labels, imaging, f"{box} {seed} {where.type} {complexes.BATCH}")
        _store(path, key, sources=sources, labels=labels, scope=scope, seed=seed, resume=resume, progress=progress)
        return opened(path)
    volumes, tables = np.empty((len(labels), box, box, box), dtype=np.float32), []
    for images, table in _parts(sources, labels, scope, seed=seed):
        volumes[table.index] = images
        tables.append(table)
    return Subtomograms(volumes, pd.concat(tables), voxel_size=sources.voxel_size)


def estimate(
    densities: Mapping[str, Volume], count: int, *, imaging: Imaging, box: int, device: str | None = None
) -> dict[str, float]:
    """What it will take to simulate `count` subtomograms in all: ``per_second``, ``seconds``, and the ``bytes`` of a store.

    Some are made, after as many that are not counted; writing is not. The other parameters are those of `subtomograms`.
    """
    sources = complexes.prepare(densities, devices.pick(device))
    scope = microscope.prepare(imaging, (box,) * 3, voxel_size=sources.voxel_size, device=sources.data.device)
    labels = torch.arange(4 * complexes.BATCH, device=sources.data.device) % len(sources.names)
    for _ in range(2):
        start = time.perf_counter()
        made = sum(len(table) for _, table in _parts(sources, labels, scope, seed=0))
        rate = made / (time.perf_counter() - start)
    return {"per_second": rate, "seconds": count / rate, "bytes": float(stores.size(count, box))}


def _store(
    path: str | Path,
    key: str,
    *,
    sources: complexes.Sources,
    labels: Tensor,
    scope: Microscope,
    seed: int,
    resume: bool,
    progress: bool,
) -> None:
    """Write a store, some batches after the other; after a cut go on with those that it lacks."""
    box, voxel, batches = scope.shape[0], sources.voxel_size, -(-len(labels) // complexes.BATCH)
    # About a shard at a time, but not so little that the journal gets long.
    step = max(-(-stores.layout(box)[1] // complexes.BATCH), -(-batches // JOURNAL))
    with journals.held(path):
        journal = journals.begin(path, key, box=box, voxel_size=voxel, total=len(labels), resume=resume)
        made = min(len(labels), len(journal.done) * step * complexes.BATCH)
        show = {"unit": " subtomograms", "desc": Path(path).name, "disable": not progress, "leave": False}
        with tqdm(total=len(labels), initial=made, **show) as bar:
            for first in range(len(journal.done) * step, batches, step):
                coming = _parts(sources, labels, scope, seed=seed, batches=range(first, min(batches, first + step)))
                journal = journals.add(journal, str(first), _counted(coming, bar), skipped=[])
        journals.finish(journal, path)


def _counted(parts: Iterator[stores.Part], bar: Any) -> Iterator[stores.Part]:
    for volumes, table in parts:
        yield volumes, table
        bar.update(len(table))


def _key(densities: Mapping[str, Volume], labels: Tensor, imaging: Imaging, told: str) -> str:
    """A hash of all on which simulated subtomograms depend."""
    digest = hashlib.sha256(f"{told} {imaging}".encode())
    for name, volume in densities.items():
        digest.update(f"{name} {volume.voxel_size} {volume.shape}".encode())
        digest.update(np.ascontiguousarray(volume.data).tobytes())
    digest.update(labels.cpu().numpy().tobytes())
    return digest.hexdigest()


def _parts(
    sources: complexes.Sources, labels: Tensor, scope: Microscope, *, seed: int, batches: range | None = None
) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    """Volumes with their table, some batches at a time, each drawn from a seed of its own; the index of the table runs on.

    A table costs as much as a batch of small boxes, so there is one for several.
    """
    wanted = range(-(-len(labels) // complexes.BATCH)) if batches is None else batches
    together = max(1, min(TABLED, VOXELS // (complexes.BATCH * scope.shape[0] ** 3)))
    for begin in range(wanted.start, wanted.stop, together):
        numbers = range(begin, min(begin + together, wanted.stop))
        rows = np.arange(begin * complexes.BATCH, min(numbers.stop * complexes.BATCH, len(labels)))
        parts = labels[rows[0] : rows[-1] + 1].split(complexes.BATCH)
        made = [
            _made(sources, part, scope, _generator(labels.device, seed, batch))
            for batch, part in zip(numbers, parts, strict=True)
        ]
        images = np.concatenate([one.cpu().numpy() for one, _, _ in made])
        turns, shifts = (torch.cat([pose[i] for _, pose, _ in made]) for i in range(2))
        exposures = microscope.join([one for _, _, one in made])
        truth = pd.concat([_truth(torch.cat(parts), turns, shifts), exposures.table(len(rows))], axis=1)
        table = _table(truth, sources, imaging=scope.imaging, box=scope.shape[0])
        yield images, table.assign(particle_id=rows).set_index(rows)


def _generator(device: torch.device, *numbers: int) -> torch.Generator:
    """A source of random numbers for a batch, the same wherever and after whatever it is made."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0] >> 1))


def _made(
    sources: complexes.Sources, labels: Tensor, scope: Microscope, generator: torch.Generator
) -> tuple[Tensor, tuple[Tensor, Tensor], Exposure]:
    """Normalised images (n, box, box, box) of the labelled complexes, their poses, and what was drawn for them."""
    box = scope.shape[0]
    clean, turns, shifts = complexes.render(sources, labels, box=box, imaging=scope.imaging, generator=generator)
    step = max(1, complexes.VOXELS // box**3) if clean.device.type == "cpu" else len(clean)
    exposures = []
    for part in clean.split(step):
        part[:], exposure = microscope.image(part, scope, generator, unit=True)
        exposures.append(exposure)
    return clean, (turns, shifts), microscope.join(exposures)


def _labels(names: tuple[str, ...], count: int | Mapping[str, int]) -> np.ndarray:
    counts = specimens.wanted(names, count)
    return np.repeat(np.arange(len(names)), [counts.get(name, 0) for name in names])


def _truth(labels: Tensor, turns: Tensor, shifts: Tensor) -> pd.DataFrame:
    angles = rotations.to_euler(turns.cpu().numpy())
    columns = {f"true_{name}": angles[:, i] for i, name in enumerate(("rot", "tilt", "psi"))}
    columns |= {f"true_{name}": shifts[:, i].cpu().numpy() for i, name in enumerate("zyx")}
    return pd.DataFrame({"label": labels.cpu().numpy()} | columns)


def _table(truth: pd.DataFrame, sources: complexes.Sources, *, imaging: Imaging, box: int) -> pd.DataFrame:
    middle = (box // 2) * sources.voxel_size
    table = particles.table(np.full((len(truth), 3), middle), tomogram="simulated", tilts=truth[WEDGE].to_numpy())
    for axis in "zyx":
        truth[f"true_{axis}"] = truth[f"true_{axis}"] * sources.voxel_size + middle
    truth["label"] = np.array(sources.names)[truth["label"].to_numpy()]
    # What was not asked for has no column.
    unused = [name for name, value in ((AXIS, imaging.tilt_axis), ("dose", imaging.dose)) if value in (None, 0.0)]
    return pd.concat([table, truth.drop(columns=[*WEDGE, *unused])], axis=1)


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
    def _ready(self) -> tuple[complexes.Sources, Microscope]:
        """What all epochs share."""
        where = devices.pick(self.device)
        sources = complexes.prepare(self.densities, where)
        scope = microscope.prepare(self.imaging, (self.box,) * 3, voxel_size=sources.voxel_size, device=where)
        return sources, scope

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of volumes (b, box, box, box) and labels (b,) of epoch `number` from batch `start` on.

        The same number gives the same data, wherever it starts: every batch is drawn from a seed of its own.
        """
        sources, scope = self._ready
        for batch in range(start, self.batches):
            generator = _generator(sources.data.device, self.seed, number, batch)
            labels = torch.randint(len(sources.names), (self.batch_size,), generator=generator, device=generator.device)
            yield _made(sources, labels, scope, generator)[0], labels


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
    complexes.check(densities)
    devices.pick(device)
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
    take the three steps one by one: `specimens.build`, `acquisition.acquire`, `tomograms.reconstruct`.

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
        margin=box / 4 * complexes.check(densities),
        seed=seed,
        device=device,
        progress=progress,
    )
    missing = specimen.report[specimen.report["placed"] < specimen.report["asked"]]
    if len(missing):
        told = ", ".join(f"{row.placed} of {row.asked} {row.name}" for row in missing.itertuples(index=False))
        raise ValueError(f"not all particles found room in {shape} voxels ({told}); ask for fewer or a larger volume")
    series = acquisition.acquire(specimen, imaging, seed=seed + 1, box=box, device=device, progress=progress)
    volume = tomograms.reconstruct(
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
