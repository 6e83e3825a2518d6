"""Takes boxes of any shape; gives their frequencies, masks and wedges, and resizes and correlates volumes in Fourier space.

Masks have the shape of ``torch.fft.rfftn`` of the box, so they multiply a transform directly. Frequencies are in
cycles per voxel, Nyquist is 0.5.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def frequencies(shape: Sequence[int], *, device: torch.device | None = None) -> Tensor:
    """Frequency vectors of the rfftn grid, shape (z, y, x // 2 + 1, 3), zyx, in cycles per voxel."""
    z, y, x = shape
    axes = (torch.fft.fftfreq(z, device=device), torch.fft.fftfreq(y, device=device), torch.fft.rfftfreq(x, device=device))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def frequencies_2d(shape: Sequence[int], pixel: float, *, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Frequencies of the rfft2 grid of an image (y, x) with pixels in Å: ky (y, 1) and kx (x // 2 + 1,) in 1/Å."""
    y, x = shape
    return torch.fft.fftfreq(y, d=pixel, device=device)[:, None], torch.fft.rfftfreq(x, d=pixel, device=device)


def radius(shape: Sequence[int], *, device: torch.device | None = None) -> Tensor:
    """Length of the frequency vectors of the rfftn grid, in cycles per voxel."""
    return frequencies(shape, device=device).norm(dim=-1)


def low_pass(shape: Sequence[int], voxel_size: float, resolution: float, *, device: torch.device | None = None) -> Tensor:
    """Mask that keeps detail coarser than `resolution` Å, with a cosine edge of 0.02 cycles per voxel."""
    beyond = (radius(shape, device=device) - voxel_size / resolution) / 0.02
    return 0.5 * (1 + torch.cos(torch.pi * beyond.clamp(0, 1)))


def tilts(k: Tensor, axis: Tensor | float = 0.0) -> Tensor:
    """Tilt in degrees, -90 to 90, at which frequency vectors (..., 3), zyx, are observed.

    It is NaN on the tilt axis, which every tilt observes. `axis` is the direction of that in degrees from y towards x; it
    broadcasts with k without its last dimension.
    """
    turn = torch.deg2rad(torch.as_tensor(axis, dtype=k.dtype, device=k.device))
    kz = k[..., 0]
    across = k[..., 2] * torch.cos(turn) - k[..., 1] * torch.sin(turn)
    # Points of the axis are not exactly on it after rounding.
    on_axis = (kz.abs() < 1e-6) & (across.abs() < 1e-6)
    return torch.rad2deg(torch.atan(kz / across)).masked_fill(on_axis, torch.nan)


def wedge(
    box: int | Sequence[int],
    tilt_min: Tensor | float,
    tilt_max: Tensor | float,
    *,
    axis: Tensor | float = 0.0,
) -> Tensor:
    """The Fourier coefficients that a tilt range observes, as a mask on the rfftn grid inside the sphere up to Nyquist.

    Parameters
    ----------
    box
        Edge of the cubic box in voxels, or its (z, y, x) shape.
    tilt_min, tilt_max
        Degrees; numbers, or tensors of shape (n,) for a mask per particle.
    axis
        Direction of the tilt axis in the plane of the tomogram, in degrees from y towards x; a number or shape (n,).

    Returns
    -------
    Tensor
        Float mask of 0 and 1, shape (n, z, y, x // 2 + 1); zero frequency is observed. n is 1 for numbers.

    Raises
    ------
    ValueError
        If a range is empty or wider than 180°.
    """
    low = torch.as_tensor(tilt_min, dtype=torch.float32).reshape(-1)
    high = torch.as_tensor(tilt_max, dtype=torch.float32, device=low.device).reshape(-1)
    if bool((high <= low).any()) or bool((high - low > 180).any()):
        raise ValueError(f"a tilt range must be wider than 0° and at most 180°, got {low.tolist()} to {high.tolist()}")
    shape = (box,) * 3 if isinstance(box, int) else tuple(box)
    k = frequencies(shape, device=low.device)
    inside = k.norm(dim=-1) <= 0.5
    turn = torch.as_tensor(axis, dtype=torch.float32, device=low.device).reshape(-1)
    angle = tilts(k[None], turn[:, None, None, None])
    middle, half = (((low + high) / 2)[:, None, None, None], ((high - low) / 2)[:, None, None, None])
    # A plane through the origin: angles are equal modulo 180°.
    off = torch.remainder(angle - middle + 90, 180) - 90
    return ((off.abs() <= half + 1e-3) | angle.isnan()).float() * inside


def resize(batch: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample (..., z, y, x) to `shape` over the same extent by cropping or padding its transform.

    Index 0 stays where it is and grey values are kept (a constant stays the same constant).
    """
    axes = (-3, -2, -1)
    old = batch.shape[-3:]
    transform = torch.fft.fftshift(torch.fft.fftn(batch, dim=axes), dim=axes)
    out = torch.zeros(*batch.shape[:-3], *shape, dtype=transform.dtype, device=batch.device)
    source, place = [], []
    for n, m in zip(old, shape, strict=True):
        common = min(n, m)
        source.append(slice(n // 2 - common // 2, n // 2 - common // 2 + common))
        place.append(slice(m // 2 - common // 2, m // 2 - common // 2 + common))
    out[(..., *place)] = transform[(..., *source)]  # type: ignore[index]
    scale = float(torch.tensor(shape).prod()) / float(torch.tensor(old).prod())
    return torch.fft.ifftn(torch.fft.ifftshift(out, dim=axes), dim=axes).real * scale


def shift_phases(shape: Sequence[int], shifts: Tensor) -> Tensor:
    """Factors, shape (n, z, y, x // 2 + 1), that move volumes by `shifts` (n, 3; zyx, voxels, towards higher index)."""
    z, y, x = shape
    shifts = shifts.to(torch.promote_types(shifts.dtype, torch.float32))
    axes = (torch.fft.fftfreq(z), torch.fft.fftfreq(y), torch.fft.rfftfreq(x))
    # A product of exponentials over the axes takes a tenth of the time of one exponential per point.
    fz, fy, fx = (torch.exp(-2j * torch.pi * shifts[:, i, None] * axis.to(shifts)) for i, axis in enumerate(axes))
    return fz[:, :, None, None] * fy[:, None, :, None] * fx[:, None, None, :]


def shells(shape: Sequence[int], *, device: torch.device | None = None) -> Tensor:
    """Index of the spherical shell of each point of the rfftn grid; one shell per 1 / max(shape) cycles per voxel."""
    return (radius(shape, device=device) * max(shape)).round().long()


def shell_sums(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Sums of values on the rfftn grid of a box over the shells of its whole grid, from shell 0 to Nyquist; float64."""
    # A point of the half grid counts for its conjugate too, except in the planes x = 0 and x = Nyquist.
    twice = torch.full(values.shape, 2.0, dtype=torch.float64, device=values.device)
    twice[..., 0] = 1
    if shape[-1] % 2 == 0:
        twice[..., -1] = 1
    index = shells(shape, device=values.device).flatten()
    sums = torch.zeros(int(index.max()) + 1, dtype=torch.float64, device=values.device)
    return sums.index_add_(0, index, (twice * values).flatten())[: max(shape) // 2 + 1]


def shell_correlation(first: Tensor, second: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Fourier shell correlation of two volumes (z, y, x) of one shape, from shell 0 to Nyquist.

    FSC = Re sum(w F1 F2*) / sqrt(sum(w |F1|^2) sum(w |F2|^2)) in every shell, with a non-negative weight w on the rfftn grid,
    such as the product of two sampling maps; 1 by default.
    """
    if first.shape != second.shape:
        raise ValueError(f"shell correlation needs volumes of one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    a, b = torch.fft.rfftn(first.double()), torch.fft.rfftn(second.double())
    w = 1.0 if weight is None else weight
    products = ((a * b.conj()).real, a.abs() ** 2, b.abs() ** 2)
    cross, one, other = (shell_sums(w * values, first.shape) for values in products)
    power = (one * other).sqrt()
    return torch.where(power > 0, cross / power.clamp_min(1e-300), torch.zeros_like(cross)).float()
