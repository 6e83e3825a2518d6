"""Tomograms in, statistics to compare them by out: power spectra, histograms, moments, profiles about particles.

>>> measured_power = power(measured, inside)
>>> ratio(measured_power, power(simulated, inside_too), between=(400, 40))["ratio"]      # 1 where they agree
"""

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from tomolab import fourier, particles
from tomolab.volumes import Volume


def power(volume: Volume, region: np.ndarray | None = None, *, edge: float = 100.0) -> pd.DataFrame:
    """Radial power spectrum of a volume, or of a region of it.

    Parameters
    ----------
    volume
        What to measure.
    region
        Boolean (z, y, x); everything by default. Outside it grey values are set to its mean.
    edge
        Å over which the region is tapered inside its border, so that the border adds no power.

    Returns
    -------
    DataFrame
        frequency (1/Å), resolution (Å), power: the mean of the squared moduli over a shell, per voxel of the region.

    Raises
    ------
    ValueError
        If the region has another shape than the volume, or is empty.
    """
    weight = _tapered(volume, region, edge)
    mean = float((volume.data * weight).sum() / weight.sum())
    data = torch.from_numpy((volume.data - mean) * weight)
    transform = torch.fft.rfftn(data)
    sums, number = (fourier.shell_sums(values, data.shape) for values in (transform.abs() ** 2, torch.ones(transform.shape)))
    frequency = np.arange(len(sums)) / max(data.shape) / volume.voxel_size
    with np.errstate(divide="ignore"):
        resolution = 1 / frequency
    spectrum = (sums / number).numpy() / float((weight**2).sum())
    return pd.DataFrame({"frequency": frequency, "resolution": resolution, "power": spectrum})


def _tapered(volume: Volume, region: np.ndarray | None, edge: float) -> np.ndarray:
    """Weights (z, y, x), 1 in the region and tapered to 0 at its border."""
    inside = np.ones(volume.shape, dtype=bool) if region is None else np.asarray(region, dtype=bool)
    if inside.shape != volume.shape or not inside.any():
        raise ValueError(
            f"a region needs the shape {volume.shape} of its volume and some voxels, got {inside.shape} with {inside.sum()}"
        )
    # Beyond the faces of the volume is outside.
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1, 1:-1] * volume.voxel_size
    return np.sin(np.pi / 2 * np.clip(depth / edge, 0, 1)).astype(np.float32) ** 2


def ratio(first: pd.DataFrame, second: pd.DataFrame, *, between: tuple[float, float], bands: int = 12) -> pd.DataFrame:
    """Compare two power spectra after one global scale.

    Parameters
    ----------
    first, second
        What `power` returned.
    between
        Coarsest and finest resolution in Å.
    bands
        Bands of equal width in frequency that the spectra are averaged over.

    Returns
    -------
    DataFrame
        resolution (Å, of the middle of the band), ratio of the second to the first, scaled so that its logarithm averages
        0 over the bands.

    Raises
    ------
    ValueError
        If a band has no shell in one of the spectra.
    """
    edges = np.linspace(1 / between[0], 1 / between[1], bands + 1)
    means = []
    for spectrum in (first, second):
        band = np.digitize(spectrum["frequency"], edges)
        mean = spectrum["power"].groupby(band).mean().reindex(range(1, bands + 1))
        if mean.isna().any():
            raise ValueError(f"{bands} bands from {between[0]:g} to {between[1]:g} Å are finer than the shells of a spectrum")
        means.append(mean.to_numpy())
    logarithm = np.log(means[1] / means[0])
    return pd.DataFrame({"resolution": 2 / (edges[1:] + edges[:-1]), "ratio": np.exp(logarithm - logarithm.mean())})


def histograms(volume: Volume, regions: dict[str, np.ndarray], *, bins: int = 80, limit: float = 5.0) -> pd.DataFrame:
    """Histograms of grey values in regions, in standard deviations of the last region about its mean.

    Parameters
    ----------
    volume
        What to measure.
    regions
        Boolean (z, y, x) by name; the last is the reference, such as empty ice.
    bins, limit
        Number of bins, and the largest value to either side.

    Returns
    -------
    DataFrame
        `value`, and for every region the density of its histogram.
    """
    reference = volume.data[list(regions.values())[-1]]
    scaled = (volume.data - reference.mean()) / reference.std()
    edges = np.linspace(-limit, limit, bins + 1)
    columns = {name: np.histogram(scaled[region], edges, density=True)[0] for name, region in regions.items()}
    return pd.DataFrame({"value": (edges[1:] + edges[:-1]) / 2} | columns)


def moments(volume: Volume, regions: dict[str, np.ndarray]) -> pd.DataFrame:
    """Mean, standard deviation and skewness in regions, in standard deviations of the last region about its mean."""
    reference = volume.data[list(regions.values())[-1]].astype(float)
    rows = {}
    for name, region in regions.items():
        values = (volume.data[region].astype(float) - reference.mean()) / reference.std()
        centred = values - values.mean()
        rows[name] = {"mean": values.mean(), "deviation": values.std(), "skewness": (centred**3).mean() / values.std() ** 3}
    return pd.DataFrame.from_dict(rows, orient="index")


def profile(volume: Volume, table: pd.DataFrame, *, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean grey value at every distance from the particles of a table.

    Parameters
    ----------
    volume
        Tomogram.
    table
        Particles; those closer to a face than `radius` are left out.
    radius
        Å, the largest distance.

    Returns
    -------
    radii, values
        Å, and grey values in standard deviations of the tomogram about its mean.

    Raises
    ------
    ValueError
        If no particle is far enough from the faces.
    """
    radius_voxels = int(np.ceil(radius / volume.voxel_size))
    centres = np.rint(particles.positions(table) / volume.voxel_size).astype(int)
    within = ((centres >= radius_voxels) & (centres < np.array(volume.shape) - radius_voxels)).all(1)
    if not within.any():
        raise ValueError(f"none of {len(table)} particles is {radius:g} Å from the faces of a volume of {volume.shape} voxels")
    total = np.zeros((2 * radius_voxels + 1,) * 3)
    for centre in centres[within]:
        total += volume.data[tuple(slice(c - radius_voxels, c + radius_voxels + 1) for c in centre)]
    radii = np.sqrt(sum(axis**2 for axis in np.ogrid[tuple([slice(-radius_voxels, radius_voxels + 1)] * 3)]))
    shell = np.rint(radii).astype(int)
    sums, numbers = (np.bincount(shell.ravel(), weights)[: radius_voxels + 1] for weights in (total.ravel(), None))
    values = (sums / numbers / within.sum() - volume.data.mean()) / volume.data.std()
    return np.arange(radius_voxels + 1) * volume.voxel_size, values
