"""Takes a density, gives its isosurface as a mesh for napari, or as a shaded picture that needs no display.

The picture is rendered by ray marching through the density (it is band-limited, so fine sampling is exact), with one light from
above left; hollows and deeper surfaces are darker.

>>> vertices, faces, values = mesh(volume)
>>> picture = shade(volume, rotation=VIEWS["side"])      # (pixels, pixels, 4)
"""

import numpy as np
import torch
from matplotlib.colors import to_rgb
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.filters import threshold_otsu
from skimage.measure import marching_cubes

from tomolab import fourier
from tomolab.conventions import centre
from tomolab.volumes import Volume, transform

VIEWS = {
    "front": np.eye(3),
    "side": np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
    "top": np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
}
"""Rotations (zyx) after which a viewer who looks along z sees the volume along z, along x and along y."""


def level(volume: Volume, threshold: float | None = None) -> float:
    """Find the threshold that divides dense from empty (Otsu 1979, over the voxels above the mean), or check a given one.

    Raises
    ------
    ValueError
        If all voxels are equal, or the given threshold is outside the grey values of the volume.
    """
    data, low, high = volume.data, float(volume.data.min()), float(volume.data.max())
    if low == high:
        raise ValueError(f"a constant volume (all {low:g}) has no surface")
    cut = float(threshold_otsu(data[data > data.mean()])) if threshold is None else float(threshold)
    if not low < cut < high:
        raise ValueError(f"the threshold must lie between the grey values {low:g} and {high:g} of the volume, got {cut:g}")
    return cut


def mesh(volume: Volume, threshold: float | None = None, *, detail: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Isosurface of a density by marching cubes (Lewiner 2003).

    Parameters
    ----------
    volume
        Bright on dark.
    threshold
        Grey value of the isosurface; `level` of the volume by default.
    detail
        Factor by which the density is sampled finer first, for a smoother surface.

    Returns
    -------
    tuple
        Vertices (n, 3) in Å, zyx, from the centre of voxel (0, 0, 0); faces (m, 3); grey values (n,) at the vertices.

    Raises
    ------
    ValueError
        If the threshold is outside the grey values of the volume.
    """
    cut = level(volume, threshold)
    fine = finer(volume, detail)
    # A margin closes surfaces that touch the edge of the box.
    padded = np.pad(fine, 1, constant_values=min(float(fine.min()), cut - abs(cut) - 1))
    vertices, faces, _, values = marching_cubes(padded, cut)
    return (vertices - 1) * (volume.voxel_size / detail), faces, values


def finer(volume: Volume, detail: int) -> np.ndarray:
    """Density sampled `detail` times as finely, (z, y, x); exact, since it is band-limited."""
    if detail == 1:
        return volume.data
    return fourier.resize(torch.from_numpy(volume.data), tuple(n * detail for n in volume.shape)).numpy()


def shade(
    volume: Volume,
    *,
    threshold: float | None = None,
    colour: str = "#8fb4d9",
    rotation: np.ndarray | None = None,
    pixels: int = 280,
) -> np.ndarray:
    """Render the isosurface of a density, seen along z from z = 0, as in napari: x right, y down, hand kept.

    Parameters
    ----------
    volume
        Cubic, bright on dark.
    threshold
        Grey value of the isosurface; `level` of the volume by default.
    colour
        Name or hexadecimal code, as matplotlib knows it.
    rotation
        Matrix (3, 3) on zyx vectors that rotates the volume first.
    pixels
        Edge of the picture; the box fills it.

    Returns
    -------
    ndarray
        (pixels, pixels, 4), RGBA, 0 to 1, with a transparent background. Rows are y, columns x.

    Raises
    ------
    ValueError
        If the volume is not cubic, or the threshold is outside its grey values.
    """
    if len(set(volume.shape)) != 1:
        raise ValueError(f"only a cubic volume can be shaded, got {volume.shape}")
    cut = level(volume, threshold)
    box, over = volume.shape[0], 2
    rays = over * pixels
    dense = _turned(volume, rotation)
    detail = dense.shape[0] / box
    depth, hit = _march(dense, cut, rays)
    y, x = np.meshgrid(*[(np.arange(rays) + 0.5) * dense.shape[0] / rays - 0.5] * 2, indexing="ij")
    at = np.stack([depth, y, x])[:, hit]
    smooth = gaussian_filter(dense, 0.5 * detail)
    normal = np.stack([map_coordinates(slope, at, order=1, mode="nearest") for slope in np.gradient(smooth)])
    normal /= -np.maximum(np.linalg.norm(normal, axis=0), 1e-12)
    picture = np.zeros((rays, rays, 4), dtype=np.float32)
    picture[hit] = np.column_stack([_light(dense, cut, at, normal, np.asarray(to_rgb(colour))), np.ones(int(hit.sum()))])
    return _average(picture, over)


def _turned(volume: Volume, rotation: np.ndarray | None) -> np.ndarray:
    """Sample finely, so that no facets show, and rotate."""
    fine = finer(volume, max(1, round(100 / volume.shape[0])))
    if rotation is None:
        return fine
    return transform(torch.from_numpy(fine)[None], torch.from_numpy(np.asarray(rotation)).float()[None])[0].numpy()


def _march(dense: np.ndarray, cut: float, rays: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth (rays, rays) in voxels along z at which a ray from low z first hits the surface, and whether it hits."""
    planes = torch.nn.functional.interpolate(torch.from_numpy(dense)[None], size=(rays, rays), mode="bilinear")[0].numpy()
    inside = planes > cut
    first, hit = inside.argmax(axis=0), np.asarray(inside.any(axis=0))
    before = np.maximum(first - 1, 0)
    there, ahead = (np.take_along_axis(planes, index[None], axis=0)[0] for index in (first, before))
    rise = np.maximum(there - ahead, 1e-12)
    return np.where(first > 0, before + np.clip((cut - ahead) / rise, 0, 1), 0.0), hit


def _light(dense: np.ndarray, cut: float, at: np.ndarray, normal: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Colour (n, 3) of surface points `at` (3, n) with outward normals (3, n)."""
    key, fill, halfway = (np.array(v) / np.linalg.norm(v) for v in ((-0.8, -0.5, -0.4), (-0.5, 0.4, 0.7), (-1.9, -0.5, -0.4)))
    diffuse = 0.30 + 0.75 * np.clip(key @ normal, 0, 1) + 0.20 * np.clip(fill @ normal, 0, 1)
    shine = 0.20 * np.clip(halfway @ normal, 0, 1) ** 40
    # A point in a hollow has more density around it than one on a flat surface, where half the surroundings are dense.
    around = gaussian_filter((dense > cut).astype(np.float32), dense.shape[0] / 20)
    open_sky = np.clip(1.75 - 1.5 * map_coordinates(around, at + normal, order=1, mode="nearest"), 0.30, 1.15)
    far = at[0] - at[0].min()
    haze = 1.0 - 0.25 * far / max(float(far.max()), 1e-6)
    return np.clip((diffuse * open_sky * haze)[:, None] * colour + (shine * open_sky)[:, None], 0, 1)


def _average(picture: np.ndarray, over: int) -> np.ndarray:
    """Average `over` x `over` samples per pixel, weighted by their opacity."""
    rays = picture.shape[0] // over
    cells = picture.reshape(rays, over, rays, over, 4)
    alpha = cells[..., 3].mean((1, 3))
    rgb = (cells[..., :3] * cells[..., 3:]).sum((1, 3)) / np.maximum(cells[..., 3].sum((1, 3)), 1e-6)[..., None]
    return np.concatenate([rgb, alpha[..., None]], axis=-1)


def middle(volume: Volume) -> np.ndarray:
    """Centre of the volume in Å, zyx."""
    return np.array([centre(n) for n in volume.shape]) * volume.voxel_size
