"""Takes a tomogram and particles, gives a normalised box around each at any voxel size, cut to a fraction of a voxel.

At the voxel size of the tomogram a box is cut at the nearest voxel and moved by the rest with a Fourier shift. At another, the
Fourier series of a block around the particle is cut at the lower of the two Nyquist frequencies and evaluated at the new
voxels, one axis after the other. With L voxels in the block and K the highest kept frequency, a voxel at distance d has the
weight sin(π (2K + 1) d / L) / (L sin(π d / L)), Dirichlet's kernel. The ratio of the voxel sizes may be any number, and a
position in Å is the same at every voxel size.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from tomolab import fourier
from tomolab import particles as tables
from tomolab import volumes as densities
from tomolab.conventions import centre
from tomolab.io.volumes.tomogram import Tomogram

BATCH = 64
BATCH_BYTES = 2**26
"""Bytes of the blocks in a batch."""
WINDOW_BYTES = 2**26
"""Bytes of the boxes that are cut together; their blocks are read in the order of the chunks of the file."""
MARGIN = 4
"""Voxels added around a box for its sub-voxel shift, so that opposite faces do not ring into each other."""
WIDE = 8
"""The same for a change of voxel size, in voxels of the coarser grid."""
SAME = 0.001
"""Relative difference up to which two voxel sizes count as equal."""


@dataclass(frozen=True)
class Cut:
    """How boxes are cut.

    Parameters
    ----------
    box, voxel_size
        Edge in voxels and voxel size in Å of the result.
    contrast
        Of the tomogram; "dark" density is inverted.
    normalise
        Mean and deviation of the whole "box", or "outside" a centred sphere.
    diameter
        Of that sphere, in Å.
    edges
        "skip" boxes that leave the tomogram, or "flag" them.

    Raises
    ------
    ValueError
        If a value is invalid, or no voxel is outside the sphere.
    """

    box: int
    voxel_size: float
    contrast: Literal["bright", "dark"] = "bright"
    normalise: Literal["box", "outside"] = "box"
    diameter: float | None = None
    edges: Literal["skip", "flag"] = "skip"

    def __post_init__(self) -> None:
        for name, ways in (("contrast", ("bright", "dark")), ("normalise", ("box", "outside")), ("edges", ("skip", "flag"))):
            if getattr(self, name) not in ways:
                raise ValueError(f"{name} must be {' or '.join(map(repr, ways))}, got {getattr(self, name)!r}")
        if not np.isfinite(self.voxel_size) or self.voxel_size <= 0:
            raise ValueError(f"voxel size must be a positive number of Å, got {self.voxel_size}")
        if (self.normalise == "outside") != (self.diameter is not None):
            raise ValueError(f"normalise='outside' and a diameter in Å go together, got {self.normalise!r} and {self.diameter}")
        if self.diameter is not None and not 0 < self.diameter <= self.box * self.voxel_size:
            raise ValueError(
                f"a diameter of {self.diameter:g} Å leaves nothing outside of it in a box of {self.box * self.voxel_size:g} Å"
            )


def measured(tomogram: Tomogram, voxel_size: float) -> np.ndarray:
    """Whole voxels of `voxel_size` Å along z, y, x in a tomogram."""
    return np.floor(np.array(tomogram.shape) * tomogram.voxel_size / voxel_size + 0.01).astype(int)


def inside(tomogram: Tomogram, particles: pd.DataFrame, *, cut: Cut) -> np.ndarray:
    """Whether the box of each particle, or with edges="flag" its centre, is inside the tomogram, (n,) of bool."""
    whole = measured(tomogram, cut.voxel_size)
    offset = tables.positions(particles) - np.array(tomogram.origin)
    if cut.edges == "flag":
        places = offset / tomogram.voxel_size
        return ((places >= -0.5) & (places < np.array(tomogram.shape) - 0.5)).all(axis=1)
    corners = np.floor(offset / cut.voxel_size + 0.5).astype(int) - centre(cut.box)
    return ((corners >= 0) & (corners + cut.box <= whole)).all(axis=1)


def count_together(cut: Cut) -> int:
    """Number of boxes that are cut together."""
    return max(1, WINDOW_BYTES // (2 * cut.box**3))


def boxes(tomogram: Tomogram, particles: pd.DataFrame, *, cut: Cut) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Cut the boxes of some particles and normalise them.

    Parameters
    ----------
    tomogram
        Only the blocks around the particles are read.
    particles
        With positions in Å.
    cut
        Parameters of the boxes.

    Returns
    -------
    volumes, rows, skipped
        Boxes (n, box, box, box) in float16 with their rows, in the order of the table, and the other particles with the
        column ``reason``.
    """
    within = inside(tomogram, particles, cut=cut)
    rows = particles[within]
    data, share, fault = _cut(tomogram, rows, cut)
    good = fault == ""
    reason = "the box leaves the tomogram" if cut.edges == "skip" else "its centre lies outside the tomogram"
    skipped = [particles[~within].assign(reason=reason), rows[~good].assign(reason=fault[~good])]
    rows = rows[good]
    if cut.edges == "flag":
        rows = rows.assign(edge=share[good])
    if cut.contrast == "dark":
        rows = rows.assign(contrast="dark")
    return data[good], rows, pd.concat([one for one in skipped if len(one)] or skipped[:1])


def _cut(tomogram: Tomogram, rows: pd.DataFrame, cut: Cut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, box, box, box), the fraction of each inside the tomogram, and why it cannot be normalised, or ""."""
    n, box = len(rows), cut.box
    places = (tables.positions(rows) - np.array(tomogram.origin)) / tomogram.voxel_size
    same = abs(tomogram.voxel_size / cut.voxel_size - 1) < SAME
    step = 1.0 if same else cut.voxel_size / tomogram.voxel_size
    first, edge = _blocks(places, box, step=step, same=same)
    data, share, fault = np.zeros((n, box, box, box), dtype=np.float16), np.ones(n), np.full(n, "", dtype=object)
    order = np.lexsort((np.floor(places) // np.array(tomogram.chunks)).T[::-1])
    batch = max(1, min(BATCH, BATCH_BYTES // (4 * edge**3)))
    for some in (order[start : start + batch] for start in range(0, n, batch)):
        blocks = torch.from_numpy(np.stack([_read(tomogram, first[i], edge) for i in some]))
        cubes = _shifted(blocks, places[some], box) if same else _resampled(blocks, places[some] - first[some], box, step=step)
        known = _known(places[some], tomogram.shape, box, step=step) if cut.edges == "flag" else None
        core = blocks if not same else blocks[:, *(slice(MARGIN, MARGIN + box),) * 3]
        flat = core.flatten(1)
        equal = (flat.amax(1) <= flat.amin(1)).numpy()
        normal, level = _normalise(cubes, cut, known)
        fault[some] = np.where(
            equal, "all values in the box are equal", np.where(level, "all values outside the sphere are equal", "")
        )
        data[some] = (-normal if cut.contrast == "dark" else normal).half().numpy()
        if known is not None:
            share[some] = known.flatten(1).float().mean(1).numpy()
    return data, share, fault


def _blocks(places: np.ndarray, box: int, *, step: float, same: bool) -> tuple[np.ndarray, int]:
    """First voxels (n, 3) of the blocks around places (voxels), and their edge."""
    if same:
        return np.floor(places + 0.5).astype(int) - centre(box) - MARGIN, box + 2 * MARGIN
    reach = WIDE * max(1.0, step)
    first = np.floor(places - centre(box) * step - reach).astype(int)
    # Odd, so that the series has no Nyquist frequency, whose phase is unknown.
    return first, int(np.ceil((box - 1) * step + 2 * reach)) // 2 * 2 + 3


def _read(tomogram: Tomogram, first: np.ndarray, edge: int) -> np.ndarray:
    """A block (edge, edge, edge); beyond the tomogram the last voxel is repeated."""
    index = [np.clip(np.arange(a, a + edge), 0, n - 1) for a, n in zip(first, tomogram.shape, strict=True)]
    low = [int(i[0]) for i in index]
    data = tomogram.read(tuple(slice(int(i[0]), int(i[-1]) + 1) for i in index))
    if data.shape == (edge,) * 3:
        return data
    z, y, x = (i - a for i, a in zip(index, low, strict=True))
    return data[z[:, None, None], y[:, None], x]


def _shifted(blocks: torch.Tensor, places: np.ndarray, box: int) -> torch.Tensor:
    edge = blocks.shape[-1]
    nearest = np.floor(places + 0.5)
    phases = fourier.shift_phases((edge,) * 3, torch.from_numpy(nearest - places).float())
    moved = torch.fft.irfftn(torch.fft.rfftn(blocks, dim=(1, 2, 3)) * phases, s=(edge,) * 3, dim=(1, 2, 3))
    return moved[:, *(slice(MARGIN, MARGIN + box),) * 3]


def _resampled(blocks: torch.Tensor, places: np.ndarray, box: int, *, step: float) -> torch.Tensor:
    """Boxes around places (n, 3; voxels of the blocks), a new voxel every `step` old ones."""
    edge = blocks.shape[-1]
    at = torch.from_numpy(places)[:, :, None] + (torch.arange(box, dtype=torch.float64) - centre(box)) * step
    distance = at[..., None] - torch.arange(edge, dtype=torch.float64)
    # Of the frequencies k / edge those below the Nyquist frequency of the coarser grid.
    kept = int(np.ceil(edge * 0.5 * min(1.0, 1 / step))) - 1
    angle = torch.pi * distance / edge
    below = torch.sin(angle)
    at_voxel = below.abs() < 1e-9
    kernel = torch.sin((2 * kept + 1) * angle) / torch.where(at_voxel, 1.0, below) / edge
    kernel = torch.where(at_voxel, torch.full_like(kernel, (2 * kept + 1) / edge), kernel).float()
    for axis in range(3):
        # The sum removes the first axis and the new one comes last, so three rounds restore the order.
        blocks = torch.einsum("nzyx,nbz->nyxb", blocks, kernel[:, axis])
    return blocks


def _known(places: np.ndarray, shape: tuple[int, int, int], box: int, *, step: float) -> torch.Tensor:
    """Whether each voxel of the boxes is inside the tomogram, (n, box, box, box) of bool."""
    at = places[:, :, None] + (np.arange(box) - centre(box)) * step
    within = torch.from_numpy((at >= -0.5 - 1e-6) & (at <= np.array(shape)[:, None] - 0.5 + 1e-6))
    return within[:, 0, :, None, None] & within[:, 1, None, :, None] & within[:, 2, None, None, :]


def _normalise(cubes: torch.Tensor, cut: Cut, known: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
    """Boxes of mean 0 and deviation 1 in the chosen voxels, 0 outside the tomogram; and whether each has no deviation."""
    if cut.normalise == "box" and known is None:
        return densities.normalise(cubes), np.zeros(len(cubes), dtype=bool)
    used = torch.ones_like(cubes, dtype=torch.bool) if known is None else known
    if cut.diameter is not None:
        used = used & (densities.distance(cut.box) > cut.diameter / cut.voxel_size / 2)
    count = used.flatten(1).sum(1).clamp_min(1)[:, None, None, None]
    zero = torch.zeros((), dtype=cubes.dtype)
    total = torch.where(used, cubes, zero).double().sum((1, 2, 3), keepdim=True)
    mean = (total / count).float()
    variance = torch.where(used, cubes - mean, zero).double().square().sum((1, 2, 3), keepdim=True) / count
    deviation = variance.sqrt().float()
    normal = (cubes - mean) / deviation.clamp_min(torch.finfo(cubes.dtype).tiny)
    if known is not None:
        normal = torch.where(known, normal, zero)
    # Rounding gives equal values a small deviation.
    level = ~(deviation > 1e-5 * cubes.abs().amax((1, 2, 3), keepdim=True))
    return torch.where(level, zero, normal), level.flatten().numpy()
