"""Atoms, or names of shipped complexes, in, densities out.

A density is in Da per Å³, so its sum times the volume of a voxel is the mass of the complex, and maps of different
complexes share one scale (protein is near 0.8, the solvent is 0).

>>> density = from_structure(structures.read("1of6.pdb.gz"), voxel_size=10.0, resolution=20.0)
>>> shipped = load(["ribosome_70s", "apoferritin"], voxel_size=20.0, box=20)
>>> catalogue()[["name", "mass_kda"]]
"""

import difflib
import functools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tomolab import fourier, io, volumes
from tomolab.conventions import centre
from tomolab.simulation.structures import Structure
from tomolab.volumes import Volume

SIGMA_PER_RESOLUTION = 0.225
"""Width of the Gaussian of an atom over the resolution: 1 / (π √2), at which the transform of the Gaussian falls to 1/e
at the frequency 1 / resolution (the convention of Chimera's molmap)."""
SHIPPED_RESOLUTION = 20.0
"""Resolution in Å of the shipped maps."""
_FINEST_EDGE = 768


def from_structure(structure: Structure, *, voxel_size: float, resolution: float, box: int | None = None) -> Volume:
    """Density of a structure at a resolution: a Gaussian of its atomic weight at every atom, its centre of mass at the centre.

    The atoms are spread trilinearly over a grid at least twice finer, whose transform is cropped, divided by that of
    the spreading kernel and multiplied by that of the Gaussian (sigma = 0.225 resolution). So the map does not depend
    on where atoms lie within voxels.

    Parameters
    ----------
    structure
        Atoms.
    voxel_size
        Å per voxel.
    resolution
        In Å; best at least twice the voxel size. Below that the grid cuts the Gaussians' spectra and ripples remain.
    box
        Edge of the cubic box in voxels. It must hold the sphere about the centre of mass with 99.9 % of the mass, so that
        the complex can be rotated in it; single atoms beyond the box are cut. By default the smallest even box that
        holds this sphere and every atom.

    Returns
    -------
    Volume
        In Da per Å³: the sum times the volume of a voxel is the mass.

    Raises
    ------
    ValueError
        If the box is too small, a length is not positive, or the finer grid would be too large to hold.
    """
    if not (np.isfinite([voxel_size, resolution]).all() and voxel_size > 0 and resolution > 0):
        raise ValueError(f"voxel size and resolution must be positive numbers of Å, got {voxel_size} and {resolution}")
    sigma = SIGMA_PER_RESOLUTION * resolution
    offsets = structure.positions - structure.centre
    sphere = _even_box(structure.diameter / 2 + sigma, voxel_size)
    if box is None:
        # The last voxel lies half a box less one voxel from the centre.
        box = max(sphere, _even_box(float(np.abs(offsets).max()) + voxel_size / 2, voxel_size))
    elif box < sphere:
        raise ValueError(
            f"{structure.name} is {structure.diameter:.0f} Å across and needs a box of {sphere} voxels "
            f"({sphere * voxel_size:g} Å), got {box} ({box * voxel_size:g} Å)"
        )
    oversampling = int(np.ceil(voxel_size / min(voxel_size / 2, resolution / 5)))
    edge = box * oversampling
    if edge > _FINEST_EDGE:
        raise ValueError(
            f"a {box}-voxel box at {resolution:g} Å needs a grid of {edge}³, above {_FINEST_EDGE}³; use a coarser resolution"
        )
    spacing = voxel_size / oversampling
    # Index 0 stays in place when a transform is cropped, so the centre is counted from it.
    fine = _spread(offsets / spacing + centre(box) * oversampling, structure.weights / spacing**3, edge)
    coarse = fourier.resize(fine, (box,) * 3)
    k = fourier.frequencies(coarse.shape)
    kernel = torch.sinc(k / oversampling).prod(dim=-1) ** 2
    gaussian = torch.exp(-2 * (torch.pi * sigma / voxel_size) ** 2 * (k**2).sum(-1))
    filtered = torch.fft.irfftn(torch.fft.rfftn(coarse) * gaussian / kernel, s=coarse.shape)
    return Volume(filtered.numpy(), voxel_size)


def catalogue() -> pd.DataFrame:
    """List the complexes known by name: those shipped as maps, and the 22 of the founding paper to fetch from the PDB.

    Returns
    -------
    DataFrame
        Columns name, title, pdb, mass_kda (of the modelled atoms, without hydrogens), diameter_angstrom (of the sphere
        with 99.9 % of the mass), source (the package that the atomic model came from), licence, sha256 and file (of the
        map, relative to the data folder), shipped (bool). Not shipped: mass, diameter, sha256 and file are missing;
        `structures.fetch(pdb)` brings the atomic model.
    """
    return _catalogue().copy()


def load(names: str | Iterable[str] | None = None, *, voxel_size: float = 10.0, box: int = 40) -> dict[str, Volume]:
    """Shipped densities by name, at a voxel size, in a cubic box, their centres of mass at the centre.

    Resampled by cropping or padding the transform; the maps hold detail to 20 Å whatever the voxel size.

    Parameters
    ----------
    names
        Names of the catalogue, or one name; all shipped ones by default.
    voxel_size
        Å per voxel.
    box
        Edge of the cubic box in voxels.

    Returns
    -------
    dict
        Volumes in Da per Å³, all on one scale, in the order of `names`.

    Raises
    ------
    ValueError
        If a name is unknown or not shipped, or the box is too small for a complex.
    """
    if not (np.isfinite(voxel_size) and voxel_size > 0 and box > 0):
        raise ValueError(f"voxel size and box must be positive, got {voxel_size} Å and {box} voxels")
    table = _catalogue().set_index("name")
    shipped = table[table["shipped"]]
    chosen = [names] if isinstance(names, str) else list(shipped.index if names is None else names)
    for name in chosen:
        _check_name(name, table)
    margin = 2 * SIGMA_PER_RESOLUTION * SHIPPED_RESOLUTION
    small = [f"{name} ({shipped.loc[name, 'diameter_angstrom']:.0f} Å)" for name in chosen
             if _even_box((shipped.loc[name, "diameter_angstrom"] + margin) / 2, voxel_size) > box]  # fmt: skip
    if small:
        raise ValueError(
            f"a box of {box} voxels of {voxel_size:g} Å ({box * voxel_size:g} Å) is too small for {', '.join(small)}"
        )
    return {name: volumes.fit(_resample(_shipped(name), voxel_size), box) for name in chosen}


@functools.cache
def _catalogue() -> pd.DataFrame:
    return pd.read_csv(io.data_folder() / "catalogue.csv", dtype={"shipped": bool, "pdb": str})


@functools.cache
def _shipped(name: str) -> Volume:
    row = _catalogue().set_index("name").loc[name]
    path = io.data_folder() / row["file"]
    found = io.sha256(path)
    if found != row["sha256"]:
        raise ValueError(
            f"{path} is not the map of {name} (SHA-256 {found[:12]}…, expected {row['sha256'][:12]}…); install tomolab again"
        )
    return io.read_volume(path)


def _check_name(name: str, table: pd.DataFrame) -> None:
    if name in table.index and table.loc[name, "shipped"]:
        return
    if name in table.index:
        raise ValueError(
            f"{name} is not shipped; simulation.fetch_structure({name!r}) brings its atomic model, "
            "simulation.density_from_structure makes the density"
        )
    shipped = list(table.index[table["shipped"]])
    close = difflib.get_close_matches(str(name).lower(), shipped, n=3)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    raise ValueError(f"no density is named {name!r}; {hint}shipped are {', '.join(shipped)}")


def _even_box(radius: float, voxel_size: float) -> int:
    """Smallest even number of voxels whose inscribed sphere has at least `radius` Å."""
    # The tolerance keeps a radius that fits exactly from being rounded up.
    return 2 * int(np.ceil(radius / voxel_size - 1e-6))


def _spread(points: np.ndarray, weights: np.ndarray, edge: int) -> Tensor:
    """Distribute `weights` (n,) over the 8 grid points around `points` (n, 3; voxels) of a grid of `edge`³; outside is cut."""
    position = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float64))
    low = position.floor().long()
    inside = ((low >= 0) & (low + 1 < edge)).all(dim=1)
    low, part = low[inside], (position - low)[inside]
    weight = torch.from_numpy(np.asarray(weights, dtype=np.float64))[inside]
    grid = torch.zeros(edge**3, dtype=torch.float32)
    for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
        fraction = torch.where(corner == 1, part, 1 - part).prod(dim=1)
        z, y, x = (low + corner).unbind(1)
        grid.index_add_(0, (z * edge + y) * edge + x, (weight * fraction).float())
    return grid.reshape(edge, edge, edge)


def _resample(volume: Volume, voxel_size: float) -> Volume:
    """Change the voxel size of a cubic map and keep its centre: both boxes are even and span the same extent to 0.1 %."""
    ratio = volume.voxel_size / voxel_size
    if abs(ratio - 1) < 1e-6:
        return volume
    old = volume.shape[0] + volume.shape[0] % 2
    while True:
        new = 2 * max(1, round(old * ratio / 2))
        if abs(new - old * ratio) <= 0.001 * old * ratio:
            break
        old += 2
    padded = torch.from_numpy(volumes.fit(volume, old).data)
    return Volume(fourier.resize(padded, (new,) * 3).numpy(), voxel_size)
