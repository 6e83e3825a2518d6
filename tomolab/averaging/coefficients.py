"""Coefficients: the Fourier coefficients of subtomograms, read batch by batch, in memory or, where they are many, in a file.

>>> data = read(subtomograms, box=32, radius=12.0, device=torch.device("cpu"))
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tomolab import particles
from tomolab.averaging import spectra
from tomolab.averaging.spectra import Spectra
from tomolab.conventions import centre
from tomolab.subtomograms.dataset import Subtomograms

BATCH = 64
"""Subtomograms read at a time."""
MOST = 2**30
"""Bytes of coefficients that are held in memory; more lie in a file that is mapped, of which the machine keeps what it can."""


def read(subtomograms: Subtomograms, *, box: int, radius: float, device: torch.device) -> Spectra:
    """Read the coefficients of the middle `box` voxels of every subtomogram, up to `radius` cycles per box.

    On a GPU they lie in its memory, on a CPU in memory up to 1 GiB, or else in a temporary file, which needs so much space
    there and is gone with the result.
    """
    first = centre(subtomograms.box) - centre(box)
    middle = slice(first, first + box)
    wedges = torch.from_numpy(particles.geometries(subtomograms.particles)).float().to(device)
    values, parts, done = None, [], 0
    for (_, volumes), some in zip(subtomograms.batches(BATCH), wedges.split(BATCH), strict=True):
        low, high, axis = some.T
        batch = torch.from_numpy(np.ascontiguousarray(volumes[:, middle, middle, middle])).to(device)
        part = spectra.transform(batch, low, high, tilt_axis=axis, radius=radius)
        if values is None:
            values = _room(len(subtomograms), len(part.points), device)
        values[done : done + len(part)] = part.values
        done += len(part)
        parts.append(replace(part, values=part.values[:, :0]))
    if values is None:
        raise ValueError("there are no subtomograms to read")
    return replace(spectra.join(parts), values=values)


def _room(count: int, points: int, device: torch.device) -> Tensor:
    if device.type != "cpu" or 8 * count * points <= MOST:
        return torch.empty(count, points, dtype=torch.complex64, device=device)
    # The file has no name, so nothing is left behind however a run ends; the map lives on when it is closed.
    with tempfile.TemporaryFile(prefix="tomolab-") as file:
        return torch.from_numpy(np.memmap(file, dtype=np.complex64, mode="w+", shape=(count, points)))


def posed(
    subtomograms: Subtomograms, turns: np.ndarray, shifts: np.ndarray, *, radius: float, device: torch.device
) -> Iterator[tuple[Spectra, Tensor, Tensor]]:
    """Read subtomograms with their poses, batch by batch: coefficients, rotations (b, 3, 3), shifts (b, 3) in voxels.

    Given are rotations (n, 3, 3) and shifts (n, 3) in Å.
    """
    tables = (turns, shifts / subtomograms.voxel_size, particles.geometries(subtomograms.particles))
    parts = (torch.from_numpy(one).float().to(device).split(BATCH) for one in tables)
    for (_, volumes), turn, shift, tilts in zip(subtomograms.batches(BATCH), *parts, strict=True):
        low, high, axis = tilts.T
        batch = torch.from_numpy(volumes).to(device)
        yield spectra.transform(batch, low, high, tilt_axis=axis, radius=radius), turn, shift
