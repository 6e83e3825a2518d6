"""Poses: where a particle lies and how it is turned, from its own shape and without a reference.

In come volumes, out come the same volumes in a pose of their own: what is bright is outlined by a level set of two phases
(Chan and Vese 2001), its centre of mass goes to the centre of the box, and its principal axes along z, y and x. The
missing wedge, neighbours and noise pull at the outline; at low signal to noise a pose is a guess.

>>> turned = normalise(volumes, outline(smooth(volumes, 1.0), diffusion=1.5))
"""

import numpy as np
import torch
from torch import Tensor

from tomolab import fourier
from tomolab.conventions import centre
from tomolab.volumes import transform

ROUNDS = 5
"""Rounds of the level set; ten find the same poses of simulated particles."""
FARTHEST = 0.2
"""Share of the box beyond which a centre of mass is not believed: noise or a neighbour was outlined."""


def smooth(volumes: Tensor, sigma: float) -> Tensor:
    """Convolve volumes (n, z, y, x) with a Gaussian of `sigma` voxels."""
    return _filter(volumes, _gaussian(volumes, sigma))


def _gaussian(volumes: Tensor, sigma: float) -> Tensor:
    """Transform of a Gaussian of `sigma` voxels."""
    return torch.exp(-2 * (np.pi * sigma * fourier.radius(volumes.shape[1:], device=volumes.device)) ** 2)


def _filter(volumes: Tensor, factors: Tensor) -> Tensor:
    axes = (1, 2, 3)
    return torch.fft.irfftn(torch.fft.rfftn(volumes, dim=axes) * factors, s=volumes.shape[1:], dim=axes)


def outline(volumes: Tensor, *, diffusion: float) -> Tensor:
    """Weight (n, z, y, x) of every voxel: the positive part of a level set around what is bright.

    The piecewise constant model of Chan and Vese (2001), minimised by threshold dynamics (Esedoglu and Tsai 2006): smooth
    the region, add how much better its mean fits a voxel than the mean outside, and cut at one half. It takes a few
    convolutions of whole batches, where a contour that creeps takes hundreds of steps of single volumes.

    Parameters
    ----------
    volumes
        Shape (n, z, y, x), mean 0, particle bright, smoothed.
    diffusion
        Width in voxels of the Gaussian that smooths the region: details of the outline below it vanish.
    """
    kernel, axes = _gaussian(volumes, diffusion), (1, 2, 3)
    unit = volumes / volumes.std(axes, keepdim=True).clamp_min(1e-12)
    region = (unit > unit.abs().mean(axes, keepdim=True)).float()
    for _ in range(ROUNDS):
        inside = (unit * region).sum(axes, keepdim=True) / region.sum(axes, keepdim=True).clamp_min(1)
        outside = (unit * (1 - region)).sum(axes, keepdim=True) / (1 - region).sum(axes, keepdim=True).clamp_min(1)
        level = _filter(region, kernel) - 0.5 + (unit - outside) ** 2 - (unit - inside) ** 2
        region = (level > 0).float()
    return level.clamp_min(0)


def normalise(volumes: Tensor, weights: Tensor) -> Tensor:
    """Move volumes (n, box, box, box) so that the weighted density is centred and lies along the axes (trilinear).

    The axes are the eigenvectors of the matrix of second moments, greatest along z. Of their four senses that keep the hand
    the one is taken in which the third moments along z and y are positive.

    Parameters
    ----------
    volumes
        What to move.
    weights
        Where the particle is, not negative, of the same shape. Without any, or with the centre of mass farther than a fifth of
        the box from its centre, a volume is turned about the centre of the box.
    """
    box = volumes.shape[-1]
    middles, axes = principal(weights, farthest=FARTHEST * box)
    # A reference point is E.T (r - c) of a point r: the principal axes become z, y, x.
    turns = axes.transpose(1, 2)
    return transform(volumes, turns, -(turns @ middles[..., None])[..., 0])


def principal(weights: Tensor, *, farthest: float) -> tuple[Tensor, Tensor]:
    """Centres of mass (n, 3) from the centre of the box, in voxels, and principal axes as columns (n, 3, 3), proper.

    Parameters
    ----------
    weights
        Not negative, shape (n, box, box, box).
    farthest
        Voxels from the centre of the box beyond which the centre itself is taken.
    """
    box = weights.shape[-1]
    axis = torch.arange(box, dtype=weights.dtype, device=weights.device) - centre(box)
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    share = weights.flatten(1) / weights.flatten(1).sum(1, keepdim=True).clamp_min(1e-12)
    middles = share @ places
    middles = middles * (middles.norm(dim=1, keepdim=True) <= farthest)
    offsets = places - middles[:, None]
    moments = (share[..., None] * offsets).transpose(1, 2) @ offsets
    axes = torch.linalg.eigh(moments)[1].flip(-1)
    skew = (share[..., None] * (offsets @ axes) ** 3).sum(1)
    first, second = (axes * torch.where(skew < 0, -1.0, 1.0)[:, None])[..., :2].unbind(-1)
    return middles, torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
