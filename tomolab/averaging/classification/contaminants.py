"""Takes subtomograms in the poses of a structure; says whether its density goes on to the border of the box.

That of a particle does not: what lies around particles differs from box to box, and averages to nothing. That of a membrane, of
the edge of a gold bead, or of a particle half outside the box does. Averages of a quarter of the subtomograms each are
multiplied in pairs, so that their noise cancels on average; what is left is the power of the density that they share.

>>> share = border_share(data, poses, fold)
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab.averaging import coefficients, reconstruction
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import REFERENCE_FLOOR
from tomolab.volumes import Volume, distance

BORDER = 0.45
"""Distance from the middle of the box, in edges of the box, from which on density is at its border."""
MAX_SHARE = 0.07
"""Largest share of the power of a particle that lies at the border of its box."""
SIGNIFICANT = 5.0
"""Standard deviations of noise by which the power at the border may be too high by chance, or because poses follow noise."""
REASON = "density goes on to the border of the box: a membrane, gold, a neighbour, or a box that is too small"


@dataclass(frozen=True, eq=False)
class Contaminant:
    """A structure that is no particle.

    Parameters
    ----------
    volume
        Its map.
    ids
        Particle ids of its subtomograms.
    reason
        Why it is no particle.
    """

    volume: Volume
    ids: np.ndarray
    reason: str


def separate(labels: pd.Series, maps: list[Volume], shares: list[float]) -> tuple[pd.Series, list[Volume], list[Contaminant]]:
    """Take structures out of the classes whose `border_share` is too large: the classes that remain, and these structures.

    Their subtomograms have the label -1 afterwards, and the other classes are numbered from 0 in the same order.
    """
    kept = [number for number, share in enumerate(shares) if share <= MAX_SHARE]
    gone = [number for number in range(len(maps)) if number not in kept]
    numbers = {-1: -1} | dict.fromkeys(gone, -1) | {old: new for new, old in enumerate(kept)}
    contaminants = [Contaminant(maps[number], labels.index[labels == number].to_numpy(), REASON) for number in gone]
    return labels.map(numbers), [maps[number] for number in kept], contaminants


def border_share(data: Coefficients, poses: Poses, fold: Tensor) -> float:
    """Share of the power of a structure that lies at the border of the box for certain; 0 if it does not exceed noise.

    Only what differs along a sphere about the middle of the box counts there, because the CTF and the normalisation of the
    boxes put a ring or a constant around every particle.

    Parameters
    ----------
    data
        Subtomograms of the structure, with the detail that is resolved.
    poses
        Their poses.
    fold
        Number (n,) of the fold of each, from 0.
    """
    sums, sampling = reconstruction.back_project_folds(data, poses, fold)
    size, whole = sums.shape[-1], sampling.sum(0)
    radius = distance(size, device=sums.device)
    inside, border = radius <= float(data.points[-1].norm()) + 1e-3, radius >= BORDER * size
    floor = REFERENCE_FLOOR * whole[inside].mean() + 0.5
    # They add to the average of all.
    parts = torch.stack([coefficients.to_density(one / (whole + floor) * inside) for one in sums])
    shell, last = radius.round().long(), int(radius.max().round())
    uneven = torch.stack([one - reconstruction.grid_shell_means(one, shell, last)[shell] for one in parts])[:, border]
    total = _shared(parts - parts[:, border].mean(1)[:, None, None, None]).sum()
    power = uneven.square().mean(1)
    # Density with so much detail has fewer independent values than voxels.
    independent = border.sum() * inside.float().mean()
    scatter = (2 * (power.sum().square() - power.square().sum()) / independent).sqrt() * border.sum()
    certain = _shared(uneven).sum() - SIGNIFICANT * scatter
    return float(certain.clamp_min(0) / total) if total > 0 else 0.0


def _shared(parts: Tensor) -> Tensor:
    """Power of the sum of some parts without that of each part by itself."""
    return parts.sum(0).square() - parts.square().sum(0)
