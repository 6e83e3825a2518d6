"""Densities in, a specimen with its truth out: particles, membranes, soluble protein and gold fiducials, crowded in ice.

The result is clean density; `tomolab.simulation.tilt_series` then records it as a microscope does.

>>> maps = densities.load(["ribosome_70s", "apoferritin", "tric"])
>>> cell = Membrane(centre=(1000, 1000, 2500), radii=(2500, 2500, 2000))
>>> volume = accessible_volume(shape=(200, 512, 512), voxel_size=10.0, thickness=1500.0, cell=cell)
>>> counts = counts_for_crowding(maps, 0.2, volume=volume)
>>> specimen = build(maps, counts, shape=(200, 512, 512), thickness=1500.0, cell=cell, vesicles=3, soluble_protein=100.0,
...                  fiducials=8, seed=1)
>>> specimen.report
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tomolab import parallel
from tomolab.conventions import POSITION, centre
from tomolab.simulation import crowding
from tomolab.simulation import scene as scenes
from tomolab.simulation.crowding import molecular_volume
from tomolab.simulation.fiducials import Site
from tomolab.simulation.membranes import Membrane
from tomolab.simulation.rendering import check
from tomolab.simulation.scene import GOLD, MEMBRANE
from tomolab.volumes import Volume

AVOGADRO = 6.022e-10
"""Molecules per Å³ of 1 µM."""


@dataclass(frozen=True)
class Specimen:
    """A specimen and its truth.

    Parameters
    ----------
    density
        Da/Å³ of atoms other than hydrogen above ice; gold and lipids in the density of protein that would scatter as they do.
    labels
        Class of each voxel (z, y, x): 0 for nothing, i + 1 for ``names[i]``. A particle fills the voxels within its surface.
    instances
        Particle each voxel belongs to, (z, y, x): `particle_id` + 1; 0 for none.
    accessible
        Where particles and soluble protein may be, bool (z, y, x): in the ice, in the cell if there is one, and in no bilayer.
    names
        Classes: the species of particles, then "membrane" and "gold" where there are any.
    particles
        Table of the particles with their true angles, `label`, and `visibility`: the fraction of the particle in the volume.
    fiducials
        z, y, x and diameter of gold fiducials in Å.
    report
        For each class how many were `asked` and `placed`, and the `reason` why not all.
    thickness
        Å of ice, about the centre along z.
    """

    density: Volume
    labels: np.ndarray
    instances: np.ndarray
    accessible: np.ndarray
    names: tuple[str, ...]
    particles: pd.DataFrame
    fiducials: pd.DataFrame
    report: pd.DataFrame
    thickness: float

    def __repr__(self) -> str:
        return f"Specimen({self.density!r}, {len(self.particles)} particles, crowding {100 * self.crowding:.0f} %)"

    @property
    def crowding(self) -> float:
        """Fraction of the accessible volume that particles occupy."""
        return int(np.count_nonzero(self.instances)) / max(1, int(np.count_nonzero(self.accessible)))

    def within(self, shape: tuple[int, int, int]) -> "Specimen":
        """The middle of the specimen, of `shape` voxels (z, y, x), with the particles whose centre is in it.

        Raises
        ------
        ValueError
            If the shape is larger than the specimen.
        """
        old = self.density.shape
        if any(m > n or m < 1 for m, n in zip(shape, old, strict=True)):
            raise ValueError(f"a part of {shape} voxels is not within a specimen of {old}")
        start = [centre(n) - centre(m) for n, m in zip(old, shape, strict=True)]
        cut = tuple(slice(a, a + m) for a, m in zip(start, shape, strict=True))
        labels, instances, accessible = (
            np.ascontiguousarray(part[cut]) for part in (self.labels, self.instances, self.accessible)
        )
        size = int(self.particles["particle_id"].max()) + 2 if len(self.particles) else 1
        left, whole = (np.bincount(part.reshape(-1), minlength=size) for part in (instances, self.instances))
        ids = self.particles["particle_id"].to_numpy() + 1
        voxel_size = self.density.voxel_size
        density = Volume(self.density.data[cut], voxel_size)
        visible = self.particles.assign(visibility=self.particles["visibility"] * left[ids] / whole[ids].clip(1))
        return replace(
            self,
            density=density,
            labels=labels,
            instances=instances,
            accessible=accessible,
            particles=_cropped(visible, start, density),
            fiducials=_cropped(self.fiducials, start, density),
            thickness=min(self.thickness, float(density.extent[0])),
        )


def _cropped(table: pd.DataFrame, start: Sequence[int], volume: Volume) -> pd.DataFrame:
    """The rows within a volume that begins at voxel `start`, with their positions in it."""
    positions = table[POSITION].to_numpy(dtype=float) - np.array(start) * volume.voxel_size
    # Position 0 is the centre of voxel 0, so the volume begins half a voxel before it.
    half = volume.voxel_size / 2
    inside = ((positions >= -half) & (positions < volume.extent - half)).all(1)
    return table.assign(**dict(zip(POSITION, positions.T, strict=True)))[inside].reset_index(drop=True)


def counts_for_concentrations(concentrations: Mapping[str, float], *, volume: float) -> dict[str, int]:
    """Numbers of particles at concentrations in µM by class name, in a volume in Å³ (`accessible_volume`)."""
    return {name: round(value * AVOGADRO * volume) for name, value in concentrations.items()}


def counts_for_crowding(densities: Mapping[str, Volume], crowding: float, *, volume: float) -> dict[str, int]:
    """Equal numbers of particles of each class that together occupy a fraction of a volume.

    Parameters
    ----------
    densities
        Maps by class name, in Da/Å³.
    crowding
        Fraction of the volume, 0 to 1: a cell has 0.2 to 0.3. Much more than 0.3 finds no room.
    volume
        Å³, as `accessible_volume` gives it.

    Raises
    ------
    ValueError
        If the fraction is not from 0 to 1.
    """
    if not 0 <= crowding <= 1:
        raise ValueError(f"crowding is a fraction of the volume from 0 to 1, got {crowding}")
    return dict.fromkeys(densities, round(crowding * volume / sum(map(molecular_volume, densities.values()))))


def accessible_volume(
    *, shape: tuple[int, int, int], voxel_size: float, thickness: float | None = None, cell: Membrane | None = None
) -> float:
    """Å³ in which particles are placed: the ice, or the part of it in a cell. Vesicles are not taken off.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    voxel_size
        Å.
    thickness
        Å of ice; all of the volume by default.
    cell
        The border of a cell that particles are inside of.
    """
    accessible = np.zeros(shape, dtype=bool)
    accessible[slice(*scenes.ice_layers(shape, voxel_size, thickness))] = True
    if cell is not None:
        scenes.exclude_membrane(accessible, cell, voxel_size=voxel_size, cell=True, device=parallel.pick_device("cpu"))
    return float(np.count_nonzero(accessible) * voxel_size**3)


def build(
    densities: Mapping[str, Volume],
    counts: int | Mapping[str, int],
    *,
    shape: tuple[int, int, int],
    seed: int,
    thickness: float | None = None,
    cell: Membrane | None = None,
    vesicles: int | Sequence[Membrane] = 0,
    soluble_protein: float = 0.0,
    medium_protein: float = 0.0,
    fiducials: int = 0,
    fiducial_diameter: float = 100.0,
    fiducial_site: Site = "face",
    gap: float = 0.0,
    margin: float = 0.0,
    device: str | None = None,
    progress: bool = True,
) -> Specimen:
    """Build a specimen: membranes, then fiducials, then particles from large to small, then soluble protein.

    Particles lie whole within the ice, in random poses, and do not overlap; all free positions are equally likely. The report
    lists what found no room.

    Parameters
    ----------
    densities
        Maps by class name in Da/Å³, all of one voxel size, which is that of the specimen.
    counts
        Particles per class, or a number for each class name; see `counts_for_crowding` and `counts_for_concentrations`.
    shape
        Voxels along z, y, x.
    seed
        The same seed on the same device gives the same specimen.
    thickness
        Å of the slab of ice, about the centre along z; all of the volume by default.
    cell
        Border of a cell, which may reach beyond the volume; particles and soluble protein are inside only. The faces of the ice
        cut it flat.
    vesicles
        How many, of radii from 200 to 500 Å, at random; or the vesicles themselves, which are taken as they are.
    soluble_protein
        mg/ml of small soluble proteins (1 to 100 kDa) between the particles.
    medium_protein
        mg/ml of the same outside of a cell.
    fiducials
        Number of gold fiducials.
    fiducial_diameter
        Å.
    fiducial_site
        "face": against a face of the ice; "ice": anywhere in it outside of the cell.
    gap
        Å left free around each particle.
    margin
        Å along the faces of the volume that particles and soluble protein keep out of.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        If a value is outside what it can be, a class has no density, or no particle found room.
    """
    where = parallel.pick_device(device)
    voxel_size = check(densities)
    asked = check_counts(tuple(densities), counts)
    if min(soluble_protein, medium_protein, fiducials, gap) < 0:
        raise ValueError(
            f"soluble_protein, medium_protein, fiducials and gap must be 0 or more, got {soluble_protein} and {medium_protein} "
            f"mg/ml, {fiducials} and {gap} Å"
        )
    bilayers = cell is not None or bool(vesicles)
    names = (*densities, *([MEMBRANE] if bilayers else []), *([GOLD] if fiducials else []))
    scene = scenes.start(
        names, shape=shape, voxel_size=voxel_size, thickness=thickness, particles=sum(asked.values()), seed=seed, device=where
    )
    scenes.exclude_margin(scene, round(margin / voxel_size))
    species = crowding.prepare_species({name: densities[name] for name in asked}, where)
    rows = scenes.add_membranes(scene, cell, vesicles)
    table, gold_rows = scenes.add_fiducials(
        scene, fiducials, diameter=fiducial_diameter, site=fiducial_site, cell=cell is not None
    )
    found, particle_rows = crowding.add(scene, species, asked, gap=gap, progress=progress)
    if found.empty:
        raise ValueError(f"none of {sum(asked.values())} particles found room: {particle_rows[0][-1]} ({particle_rows[0][0]})")
    scenes.add_solvent(scene, soluble_protein, outside=medium_protein)
    return Specimen(
        density=Volume(scene.density, voxel_size),
        labels=scene.labels,
        instances=scene.instances,
        accessible=scene.accessible,
        names=names,
        particles=found,
        fiducials=table,
        report=pd.DataFrame([*particle_rows, *rows, *gold_rows], columns=["name", "asked", "placed", "reason"]),
        thickness=float((scene.layers[1] - scene.layers[0]) * voxel_size),
    )


def check_counts(names: tuple[str, ...], counts: int | Mapping[str, int]) -> dict[str, int]:
    """How many particles of each class are asked for, without classes of which there are none.

    Raises
    ------
    ValueError
        If a class is unknown, a number is negative, or all are 0.
    """
    found = dict.fromkeys(names, counts) if isinstance(counts, int) else dict(counts)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise ValueError(f"no density for {', '.join(unknown)}; there are {', '.join(names)}")
    if sum(found.values()) < 1 or min(found.values()) < 0:
        raise ValueError(f"counts must be 0 or more and not all 0, got {found}")
    return {name: count for name, count in found.items() if count}
