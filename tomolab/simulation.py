"""Simulation: labelled subtomograms and tomograms from densities, in batches on the device of your choice.

A particle is a density in a random pose, off centre by a little, perhaps with neighbours, imaged with CTF and missing
wedge; noise is added so that SNR = variance of the signal after CTF and wedge / variance of the noise, half of it
before the CTF and half through the detector (the recipe of Förster et al. 2008).

>>> maps = densities.load(["ribosome_70s", "apoferritin"], voxel_size=20, box=20)
>>> particles = subtomograms(maps, 100, imaging=Imaging(snr=0.1), box=20, seed=1)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import devices, particles, rotations, specimens
from tomolab.imaging import Exposure, Imaging, image
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume, normalise


def subtomograms(
    densities: Mapping[str, Volume],
    count: int | Mapping[str, int],
    *,
    imaging: Imaging,
    box: int,
    seed: int,
    device: str | None = None,
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
    device
        "cpu", "cuda", or by default the GPU if there is one.

    Returns
    -------
    Subtomograms
        In memory. The table has `label`, `snr`, `defocus` (µm) and the truth: `true_rot true_tilt true_psi` (degrees) and
        `true_z true_y true_x` (Å); z, y, x are the centre of the box, as an extraction would have it.

    Raises
    ------
    ValueError
        If `count` names classes without a density, the box is too small, or the device is absent.
    """
    where = devices.pick(device)
    sources = specimens.prepare(densities, where)
    labels = torch.from_numpy(_labels(sources.names, count)).to(where)
    if box < 8:
        raise ValueError(f"a box of at least 8 voxels is needed, got {box}")
    generator = torch.Generator(device=where).manual_seed(seed)
    volumes, tables = [], []
    for part in labels.split(specimens.BATCH):
        clean, turns, shifts = specimens.render(sources, part, box=box, imaging=imaging, generator=generator)
        images, exposure = image(clean, imaging, generator, voxel_size=sources.voxel_size)
        volumes.append(normalise(images).cpu().numpy())
        tables.append(_truth(part, turns, shifts, exposure))
    truth = pd.concat(tables, ignore_index=True)
    table = _table(truth, sources, imaging=imaging, box=box)
    return Subtomograms(np.concatenate(volumes), table, voxel_size=sources.voxel_size)


def _labels(names: tuple[str, ...], count: int | Mapping[str, int]) -> np.ndarray:
    counts = dict.fromkeys(names, count) if isinstance(count, int) else dict(count)
    unknown = sorted(set(counts) - set(names))
    if unknown:
        raise ValueError(f"no density for {', '.join(unknown)}; there are {', '.join(names)}")
    if sum(counts.values()) < 1 or min(counts.values()) < 0:
        raise ValueError(f"counts must be 0 or more and not all 0, got {counts}")
    return np.repeat(np.arange(len(names)), [counts.get(name, 0) for name in names])


def _truth(labels: Tensor, turns: Tensor, shifts: Tensor, exposure: Exposure) -> pd.DataFrame:
    angles = rotations.to_euler(turns.cpu().numpy())
    columns = {f"true_{name}": angles[:, i] for i, name in enumerate(("rot", "tilt", "psi"))}
    columns |= {f"true_{name}": shifts[:, i].cpu().numpy() for i, name in enumerate("zyx")}
    return pd.DataFrame(
        {"label": labels.cpu().numpy(), "snr": exposure.snr.cpu().numpy(), "defocus": exposure.defocus.cpu().numpy()} | columns
    )


def _table(truth: pd.DataFrame, sources: specimens.Sources, *, imaging: Imaging, box: int) -> pd.DataFrame:
    middle = (box // 2) * sources.voxel_size
    table = particles.table(np.full((len(truth), 3), middle), tomogram="simulated", tilts=imaging.tilts)
    for axis in "zyx":
        truth[f"true_{axis}"] = truth[f"true_{axis}"] * sources.voxel_size + middle
    truth["label"] = np.array(sources.names)[truth["label"].to_numpy()]
    return pd.concat([table, truth], axis=1)


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

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of volumes (b, box, box, box) and labels (b,) of epoch `number`: the same number gives the same data."""
        where = devices.pick(self.device)
        sources = specimens.prepare(self.densities, where)
        # A stride far beyond any number of epochs keeps the epochs of two seeds apart.
        generator = torch.Generator(device=where).manual_seed(self.seed * 1_000_003 + number)
        for _ in range(self.batches):
            labels = torch.randint(len(sources.names), (self.batch_size,), generator=generator, device=where)
            clean, _, _ = specimens.render(sources, labels, box=self.box, imaging=self.imaging, generator=generator)
            images, _ = image(clean, self.imaging, generator, voxel_size=sources.voxel_size)
            yield normalise(images), labels


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
    specimens.check(densities)
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
) -> tuple[Volume, pd.DataFrame]:
    """Simulate a tomogram of complexes at random poses whose bounding spheres do not overlap, and its truth.

    The whole volume is imaged at once, with one SNR, one defocus and one tilt range. SNR refers to the mean variance of the
    signal in boxes of the densities' size about the particles, so that it means the same as in `subtomograms`.

    Parameters
    ----------
    densities
        Maps by class name, all of one voxel size, which is that of the result.
    counts
        Particles per class, or a number for each class name.
    shape
        Voxels along z, y, x.
    imaging
        How the specimen is imaged.
    seed
        Decides all that is drawn.
    device
        "cpu", "cuda", or by default the GPU if there is one.

    Returns
    -------
    volume, particles
        The tomogram, and the true particle table (positions, angles, `label`).

    Raises
    ------
    ValueError
        If the particles do not fit, saying how many did.
    """
    where = devices.pick(device)
    sources = specimens.prepare(densities, where)
    labels = _labels(sources.names, counts)
    radii = sources.radii.cpu().numpy()
    # Large ones first: small ones find room between them, not the other way round.
    labels = labels[np.argsort(-radii[labels], kind="stable")]
    places = specimens.places(radii[labels], shape, np.random.default_rng(seed))
    generator = torch.Generator(device=where).manual_seed(seed)
    turns = rotations.random(len(labels), generator, device=where)
    specimen = torch.zeros(shape, device=where)
    specimens.paste(specimen, sources, torch.from_numpy(labels).to(where), rotations=turns, places=places)
    box = sources.data.shape[-1] // 2
    corners = np.floor(places).astype(int) - box // 2

    def variance(images: Tensor) -> Tensor:
        return torch.stack(
            [images[0][specimens.overlap(corner, box, shape)[0]].var(correction=0) for corner in corners]
        ).mean()[None]

    images, exposure = image(specimen[None], imaging, generator, voxel_size=sources.voxel_size, variance=variance)
    table = particles.table(
        places * sources.voxel_size,
        tomogram="simulated",
        rotations=turns.cpu().numpy(),
        tilts=imaging.tilts,
        label=np.array(sources.names)[labels],
        snr=float(exposure.snr),
        defocus=float(exposure.defocus),
    )
    return Volume(images[0].cpu().numpy(), sources.voxel_size), table
