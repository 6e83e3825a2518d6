"""Subtomograms in, an `Embedding` out, without training: the features that networks were first compared with (Xu et al. 2017).

What works on features of networks works on these too.

- `invariants`: powers of the spherical harmonics of the Fourier amplitudes, which neither rotation nor shift changes.
- `normalised`: the volumes themselves, each turned into a pose of its own, which comes from its shape without a reference: what
  is bright is outlined by a level set of two phases (Chan and Vese 2001), its centre of mass goes to the centre of the box,
  and its principal axes along z, y and x. The missing wedge, neighbours and noise pull at the outline; at low signal to
  noise a pose is a guess.

Both scale by what is typical of the particles they are given: embed those that shall be compared in one go.

>>> everything = subtomograms.join([known, measured])
>>> features = invariants(everything)
>>> predicted = classify(features.take(known_ids), labels, features.take(other_ids))
>>> turned = normalise_pose(volumes, outline(smooth(volumes, 1.0), diffusion_voxels=1.5))
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor
from tqdm.auto import tqdm

from tomolab import fourier, parallel
from tomolab.conventions import centre
from tomolab.learning import spherical_harmonics
from tomolab.learning.embedding import Embedding
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import sphere, transform

DEGREE = 8
"""Highest degree of the spherical harmonics."""
EDGE = 0.15
"""Share of the box over which the mask about a particle falls to 0."""
LEVEL_SET_ROUNDS = 5
"""Rounds of the level set; ten find the same poses of simulated particles."""
FARTHEST_CENTRE = 0.2
"""Share of the box beyond which a centre of mass is not reliable: noise or a neighbour was outlined."""


def invariants(
    subtomograms: Subtomograms,
    *,
    mask_fraction: float = 0.7,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Embedding:
    """Features that do not depend on pose: sum_m a_lm(r) a_lm(s) of the Fourier amplitudes (Xu, Zhang and Alber 2009).

    The square root, with its sign, brings powers to the scale of amplitudes; then every feature is scaled to mean 0 and
    variance 1 over the particles given. Shells reach to two thirds of Nyquist. The missing wedge turns with the tomogram and
    not with the particle, so what the features lose to it does depend on pose.

    Parameters
    ----------
    subtomograms
        What to embed; read in batches, in order.
    mask_fraction
        Diameter of the soft mask, as a share of the box; the noise beyond it would drown the particle. 2 keeps the corners, and
        then a shift changes the features only as far as it moves density out of the box.
    batch_size
        Subtomograms per batch.
    device
        Where to compute; on a GPU if there is one by default.
    progress
        Show a bar.

    Raises
    ------
    ValueError
        If there is nothing to embed, or a parameter is outside what it can be.
    """
    plan = spherical_harmonics.plan_shells(subtomograms.box, degree=DEGREE, shells=max(1, subtomograms.box // 3))
    where = parallel.pick_device(device)
    mask = _mask(subtomograms.box, mask_fraction, where)

    def features(batch: Tensor) -> Tensor:
        found = spherical_harmonics.coefficients(spherical_harmonics.amplitudes(batch * mask, plan), plan)
        power = spherical_harmonics.power(found, plan)
        return power.sign() * power.abs().sqrt()

    table = _each(features, subtomograms, batch_size=batch_size, device=where, progress=progress)
    scaler = StandardScaler().fit(table)
    name = _digest("invariants", subtomograms, {"mask_fraction": mask_fraction}, scaler.mean_, scaler.scale_)
    return Embedding(subtomograms.ids, scaler.transform(table), name)


def normalised(
    subtomograms: Subtomograms,
    *,
    components: int = 50,
    smoothing: float = 20.0,
    mask_fraction: float = 0.7,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Embedding:
    """Volumes in a pose of their own (`normalise_pose`), reduced to their directions of greatest variance (PCA).

    The pose comes from the smoothed volume, and the volume as it is is moved. The volumes within the mask are held in
    memory: 4 bytes per voxel, 60 MB for 10,000 boxes of 20³.

    Parameters
    ----------
    subtomograms
        What to embed; read in batches, in order.
    components
        Principal components to keep.
    smoothing
        Å, width of the Gaussian before a particle is outlined; its outline is smoothed by one and a half times as much.
    mask_fraction
        Diameter of the mask, as a share of the box: soft before a particle is outlined, sharp about what is kept.
    batch_size, device, progress
        As in `invariants`.

    Raises
    ------
    ValueError
        If there is nothing to embed, a parameter is outside what it can be, or there are fewer particles or voxels than
        components.
    """
    if not (np.isfinite(smoothing) and smoothing > 0):
        raise ValueError(f"smoothing must be a positive number of Å, got {smoothing}")
    where, box = parallel.pick_device(device), subtomograms.box
    mask, width = _mask(box, mask_fraction, where), smoothing / subtomograms.voxel_size
    kept = sphere(box, mask_fraction * box, device=where) > 0
    most = min(len(subtomograms), int(kept.sum()))
    if not 1 <= components <= most:
        raise ValueError(
            f"{len(subtomograms)} volumes of {int(kept.sum())} voxels have 1 to {most} components, got {components}"
        )

    def features(batch: Tensor) -> Tensor:
        centred = batch - batch.mean((1, 2, 3), keepdim=True)
        weights = outline(smooth(centred, width) * mask, diffusion_voxels=1.5 * width)
        return normalise_pose(centred, weights)[:, kept]

    table = _each(features, subtomograms, batch_size=batch_size, device=where, progress=progress)
    # The solver may draw: it is given a seed to be repeatable.
    directions = PCA(components, random_state=0).fit(table)
    settings = {"components": components, "smoothing": smoothing, "mask_fraction": mask_fraction}
    name = _digest("normalised", subtomograms, settings, directions.mean_, directions.components_)
    return Embedding(subtomograms.ids, directions.transform(table), name)


def _mask(box: int, mask_fraction: float, device: torch.device) -> Tensor:
    if not 0 < mask_fraction <= 2:
        raise ValueError(f"mask_fraction is a diameter as a share of the box, above 0 and up to 2, got {mask_fraction}")
    return sphere(box, mask_fraction * box, edge_voxels=EDGE * box, device=device)


def _each(
    features: Callable[[Tensor], Tensor], subtomograms: Subtomograms, *, batch_size: int, device: torch.device, progress: bool
) -> np.ndarray:
    """Features (n, d) of all subtomograms, batch by batch."""
    if len(subtomograms) == 0:
        raise ValueError("there are no subtomograms to embed")
    batches: Iterator[tuple[np.ndarray, np.ndarray]] = subtomograms.batches(batch_size)
    table, done = np.empty((0, 0), np.float32), 0
    with tqdm(total=len(subtomograms), desc="features", unit=" subtomograms", disable=not progress) as bar:
        for ids, data in batches:
            found = features(torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32)).to(device)).cpu().numpy()
            if not done:
                table = np.empty((len(subtomograms), found.shape[1]), np.float32)
            table[done : done + len(ids)] = found
            done += len(ids)
            bar.update(len(ids))
    return table


def _digest(method: str, subtomograms: Subtomograms, settings: dict[str, Any], *fitted: np.ndarray) -> str:
    """SHA-256 of all that decides what a feature means."""
    data = {"method": method, "box": subtomograms.box, "voxel_size": subtomograms.voxel_size} | settings
    total = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
    for part in fitted:
        total.update(np.ascontiguousarray(part, dtype=np.float32).tobytes())
    return total.hexdigest()


def smooth(volumes: Tensor, sigma_voxels: float) -> Tensor:
    """Convolve volumes (n, z, y, x) with a Gaussian of `sigma_voxels` voxels."""
    return _filter(volumes, _gaussian(volumes, sigma_voxels))


def _gaussian(volumes: Tensor, sigma_voxels: float) -> Tensor:
    """Transform of a Gaussian of `sigma_voxels` voxels."""
    return torch.exp(-2 * (np.pi * sigma_voxels * fourier.radius(volumes.shape[1:], device=volumes.device)) ** 2)


def _filter(volumes: Tensor, factors: Tensor) -> Tensor:
    axes = (1, 2, 3)
    return torch.fft.irfftn(torch.fft.rfftn(volumes, dim=axes) * factors, s=volumes.shape[1:], dim=axes)


def outline(volumes: Tensor, *, diffusion_voxels: float) -> Tensor:
    """Weight (n, z, y, x) of every voxel: the positive part of a level set around what is bright.

    The piecewise constant model of Chan and Vese (2001), minimised by threshold dynamics (Esedoglu and Tsai 2006): smooth
    the region, add how much better its mean fits a voxel than the mean outside, and cut at one half. It takes a few
    convolutions of whole batches, where a contour that creeps takes hundreds of steps of single volumes.

    Parameters
    ----------
    volumes
        Shape (n, z, y, x), mean 0, particle bright, smoothed.
    diffusion_voxels
        Width in voxels of the Gaussian that smooths the region: details of the outline below it vanish.
    """
    kernel, axes = _gaussian(volumes, diffusion_voxels), (1, 2, 3)
    unit = volumes / volumes.std(axes, keepdim=True).clamp_min(1e-12)
    region = (unit > unit.abs().mean(axes, keepdim=True)).float()
    for _ in range(LEVEL_SET_ROUNDS):
        inside = (unit * region).sum(axes, keepdim=True) / region.sum(axes, keepdim=True).clamp_min(1)
        outside = (unit * (1 - region)).sum(axes, keepdim=True) / (1 - region).sum(axes, keepdim=True).clamp_min(1)
        level = _filter(region, kernel) - 0.5 + (unit - outside) ** 2 - (unit - inside) ** 2
        region = (level > 0).float()
    return level.clamp_min(0)


def normalise_pose(volumes: Tensor, weights: Tensor) -> Tensor:
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
    middles, axes = principal_axes(weights, farthest_voxels=FARTHEST_CENTRE * box)
    # A reference point is E.T (r - c) of a point r: the principal axes become z, y, x.
    turns = axes.transpose(1, 2)
    return transform(volumes, turns, -(turns @ middles[..., None])[..., 0])


def principal_axes(weights: Tensor, *, farthest_voxels: float) -> tuple[Tensor, Tensor]:
    """Centres of mass (n, 3) from the centre of the box, in voxels, and principal axes as columns (n, 3, 3), proper.

    Parameters
    ----------
    weights
        Not negative, shape (n, box, box, box).
    farthest_voxels
        Voxels from the centre of the box beyond which the centre itself is taken.
    """
    box = weights.shape[-1]
    axis = torch.arange(box, dtype=weights.dtype, device=weights.device) - centre(box)
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    share = weights.flatten(1) / weights.flatten(1).sum(1, keepdim=True).clamp_min(1e-12)
    middles = share @ places
    middles = middles * (middles.norm(dim=1, keepdim=True) <= farthest_voxels)
    offsets = places - middles[:, None]
    moments = (share[..., None] * offsets).transpose(1, 2) @ offsets
    axes = torch.linalg.eigh(moments)[1].flip(-1)
    skew = (share[..., None] * (offsets @ axes) ** 3).sum(1)
    first, second = (axes * torch.where(skew < 0, -1.0, 1.0)[:, None])[..., :2].unbind(-1)
    return middles, torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def classify(known: Embedding, labels: pd.Series, embedding: Embedding, *, cost: float = 1.0) -> pd.Series:
    """Name the class of every particle with a support vector machine trained on known ones (radial basis functions).

    Parameters
    ----------
    known
        Features of the particles to learn from; time grows with the square of their number.
    labels
        Class of each known particle, indexed by particle id; may name more particles.
    embedding
        Features of the particles to classify, made together with the known ones or by the same network.
    cost
        Of a particle on the wrong side of the margin (C); larger follows the known particles more closely.

    Returns
    -------
    Series
        Predicted class of every particle of `embedding`, named "class" and indexed by particle id.

    Raises
    ------
    ValueError
        If the two embeddings are not comparable, known particles have no label or several, or there are fewer than two classes.
    """
    embedding.check_network(known.network)
    truth = known.match_labels(labels)
    classes = np.unique(truth)
    if len(classes) < 2:
        raise ValueError(f"a classifier needs at least two classes, got {classes.tolist()}")
    machine = make_pipeline(StandardScaler(), SVC(C=cost, class_weight="balanced"))
    machine.fit(known.vectors, truth)
    index = pd.Index(embedding.ids, name="particle_id")
    return pd.Series(machine.predict(embedding.vectors), index=index, name="class")
