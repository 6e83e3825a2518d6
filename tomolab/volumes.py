"""Takes density maps; crops, pads, resamples, filters, masks, rotates and shifts them.

`Volume` is the value that passes between stages. The functions on torch tensors work in batches (n, z, y, x), on the device of
their input.

>>> volume = Volume(np.zeros((40, 40, 40)), voxel_size=10.0)
>>> smaller = resample(volume, 20.0)          # Fourier cropping, same field of view
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from tomolab import fourier
from tomolab.conventions import centre


@dataclass(frozen=True)
class Volume:
    """A density map or tomogram.

    Parameters
    ----------
    data
        Grey values, shape (z, y, x); converted to float32.
    voxel_size
        Edge of a voxel in Å, positive.

    Raises
    ------
    ValueError
        If the array is not three-dimensional, holds NaN or infinity, or the voxel size is not positive.
    """

    data: np.ndarray
    voxel_size: float

    def __post_init__(self) -> None:
        data = np.ascontiguousarray(self.data, dtype=np.float32)
        if data.ndim != 3 or min(data.shape) < 1:
            raise ValueError(f"a volume needs a (z, y, x) array with at least one voxel, got shape {data.shape}")
        if not np.isfinite(self.voxel_size) or self.voxel_size <= 0:
            raise ValueError(f"voxel size must be a positive number of Å, got {self.voxel_size}")
        bad = data.size - int(np.count_nonzero(np.isfinite(data)))
        if bad:
            raise ValueError(f"the volume holds {bad} values that are NaN or infinite, of {data.size}")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "voxel_size", float(self.voxel_size))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        return self.data.shape  # type: ignore[return-value]

    @property
    def extent(self) -> np.ndarray:
        """Size along z, y, x in Å."""
        return np.array(self.shape) * self.voxel_size

    def __repr__(self) -> str:
        z, y, x = self.shape
        return f"Volume({z} x {y} x {x} voxels of {self.voxel_size:g} Å)"


def fit(volume: Volume, shape: int | tuple[int, int, int]) -> Volume:
    """Pad with zeros or crop about the centre to `shape` (one number for a cube); the centre voxel stays the centre."""
    target = (shape,) * 3 if isinstance(shape, int) else tuple(shape)
    out = np.zeros(target, dtype=np.float32)
    source, place = [], []
    for n, m in zip(volume.shape, target, strict=True):
        start = centre(n) - centre(m)
        low, high = max(start, 0), min(start + m, n)
        source.append(slice(low, high))
        place.append(slice(low - start, high - start))
    out[tuple(place)] = volume.data[tuple(source)]
    return Volume(out, volume.voxel_size)


def invert(volume: Volume) -> Volume:
    """Turn dark-on-bright into bright-on-dark, or back, keeping the mean."""
    return Volume(2 * volume.data.mean() - volume.data, volume.voxel_size)


def mirror(volume: Volume) -> Volume:
    """The mirror image, by x about the centre voxel. An even length has a first layer without a pair; it stays."""
    x = np.arange(volume.shape[2])
    return Volume(volume.data[:, :, (2 * centre(len(x)) - x) % len(x)], volume.voxel_size)


def low_pass(volume: Volume, resolution: float) -> Volume:
    """Remove detail finer than `resolution` Å (Fourier mask with a soft edge)."""
    transform = torch.fft.rfftn(torch.from_numpy(volume.data))
    mask = fourier.low_pass(volume.shape, volume.voxel_size, resolution)
    return Volume(torch.fft.irfftn(transform * mask, s=volume.shape).numpy(), volume.voxel_size)


def resample(volume: Volume, voxel_size: float) -> Volume:
    """Change the voxel size in Å by Fourier cropping or padding; every position in Å stays.

    The Fourier series of each axis is evaluated at the new voxels, so any ratio of voxel sizes is exact, also far from the
    corner. Beyond its end the volume goes on with its mean. A relative difference of voxel sizes below 0.001 changes nothing.
    """
    ratio = volume.voxel_size / voxel_size
    if abs(ratio - 1) < 0.001:
        return volume
    mean = float(volume.data.mean())
    data = torch.from_numpy(volume.data - np.float32(mean))
    for axis in range(3):
        # Voxel sizes of files are of single precision.
        new = max(1, int(np.ceil(data.shape[axis] * ratio * (1 - 1e-6))))
        data = torch.movedim(torch.tensordot(_series(data.shape[axis], new, ratio), data, dims=([1], [axis])), 0, axis)
    return Volume(data.numpy() + np.float32(mean), voxel_size)


def _series(old: int, new: int, ratio: float) -> torch.Tensor:
    """Matrix (new, old) that evaluates the Fourier series of `old` voxels at the places of `ratio` times as many new ones."""
    places = np.arange(new) / ratio
    # Zeros behind the volume, if the last new voxel lies beyond it.
    period = max(old, int(np.ceil(new / ratio - 1e-9)))
    limit = period * min(1.0, ratio) / 2
    waves = np.arange(int(np.floor(limit + 1e-9)) + 1)
    # Each wave counts for its conjugate too; the zeroth has none, and that at Nyquist counts half.
    weight = np.where((waves == 0) | (np.abs(waves - limit) < 1e-9), 1.0, 2.0) / period
    there, here = (2j * np.pi / period * waves * at[:, None] for at in (places, np.arange(old)))
    return torch.from_numpy(((weight * np.exp(there)) @ np.exp(-here).T).real.astype(np.float32))


def block_mean(data: np.ndarray, step: int) -> np.ndarray:
    """Means of blocks of `step` voxels along each axis, float32; what is left over at the end of an axis is left out."""
    counts = [n // step for n in data.shape]
    whole = data[tuple(slice(n * step) for n in counts)]
    blocks = whole.reshape([length for n in counts for length in (n, step)])
    return blocks.mean(axis=tuple(range(1, 2 * data.ndim, 2)), dtype=np.float32)


def normalise(batch: torch.Tensor) -> torch.Tensor:
    """Shift and scale each volume of (n, z, y, x) to mean 0 and standard deviation 1; a constant volume becomes 0."""
    flat = batch.flatten(1)
    mean = flat.mean(1)[:, None, None, None]
    deviation = flat.std(1, correction=0)[:, None, None, None]
    return (batch - mean) / deviation.clamp_min(torch.finfo(batch.dtype).tiny)


def clip(values: torch.Tensor, deviations: float, *, rounds: int = 3) -> torch.Tensor:
    """Set values farther than `deviations` standard deviations from the mean to that limit; ValueError if it is not positive.

    This is repeated, since outliers raise the standard deviation. A few rounds are enough, and do not remove a sparse signal
    without noise, all of which are outliers.
    """
    if not deviations > 0:
        raise ValueError(f"deviations must be positive, got {deviations}")
    for _ in range(rounds):
        deviation, mean = torch.std_mean(values, correction=0)
        values = values.clamp(mean - deviations * deviation, mean + deviations * deviation)
    return values


def distance(box: int, *, device: torch.device | None = None) -> torch.Tensor:
    """Distance in voxels of every voxel of a cube (box, box, box) from its centre."""
    axis = torch.arange(box, dtype=torch.float32, device=device) - centre(box)
    return (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()


def sphere(
    box: int, diameter_voxels: float | None = None, *, edge_voxels: float = 0.0, device: torch.device | None = None
) -> torch.Tensor:
    """Mask (box, box, box): 1 inside a centred sphere (default: as wide as the box), with a cosine edge outside of it."""
    beyond = distance(box, device=device) - (box if diameter_voxels is None else diameter_voxels) / 2
    if edge_voxels <= 0:
        return (beyond <= 0).float()
    return 0.5 * (1 + torch.cos(torch.pi * (beyond / edge_voxels).clamp(0, 1)))


def apply_mask(density: torch.Tensor, diameter_voxels: float) -> torch.Tensor:
    """Apply a soft centred spherical mask to a cubic density (z, y, x), whose mean at the edge is subtracted first.

    Without that, a map without zero frequency, whose surroundings are not 0, would get a step there.
    """
    box = density.shape[-1]
    mask = sphere(box, diameter_voxels, edge_voxels=max(1.5, 0.06 * box), device=density.device)
    edge = (mask > 0.05) & (mask < 0.95)
    return (density - density[edge].mean()) * mask


def overlap(corner: np.ndarray, box: int, shape: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a box at `corner` that lies in a volume: as slices of the volume and of the box."""
    low, high = np.maximum(corner, 0), np.minimum(corner + box, shape)
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return inside, tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))


def transform(
    batch: torch.Tensor,
    rotations: torch.Tensor,
    shifts: torch.Tensor | None = None,
    *,
    box: int | None = None,
    step: float = 1.0,
) -> torch.Tensor:
    """Rotate volumes about their centres, then shift them: a point r moves to R r + shift (trilinear, zero outside).

    Parameters
    ----------
    batch
        Volumes, shape (n, z, y, x).
    rotations
        Matrices on zyx column vectors, shape (n, 3, 3), reference to tomogram.
    shifts
        Shape (n, 3), zyx, in voxels of the result; none by default.
    box
        Edge of the cubic result in voxels; the edge of the input by default.
    step
        Voxel of the result in voxels of the input: 2 samples an input of half the voxel size.
    """
    n, *shape = batch.shape
    edge = box or shape[-1]
    half = (edge - 1) / 2
    size = torch.tensor(shape, dtype=batch.dtype, device=batch.device)
    middle = torch.tensor([centre(m) for m in shape], dtype=batch.dtype, device=batch.device)
    # Torch counts positions from -1 to 1: voxel i of the result is at u = i / half - 1, so p = half u + half - centre.
    inverse = rotations.to(batch).transpose(1, 2) * step
    origin = torch.full((n, 3), half - centre(edge), dtype=batch.dtype, device=batch.device)
    if shifts is not None:
        origin = origin - shifts.to(batch)
    unit = (2 / (size - 1))[:, None]
    affine = torch.cat([inverse * half * unit, (inverse @ origin[..., None] + middle[:, None]) * unit - 1], dim=-1)
    xyz = torch.cat([affine[:, :, :3].flip(1, 2), affine[:, :, 3:].flip(1)], dim=-1)
    grid = affine_grid(xyz, [n, 1, edge, edge, edge], align_corners=True)
    return grid_sample(batch[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0]
