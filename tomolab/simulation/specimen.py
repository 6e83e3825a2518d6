"""Densities in, a specimen with its truth out: complexes, membranes, solutes and gold beads, crowded as in a cell, in ice.

What is made here is clean density; `tomolab.simulation.tilt_series` then records it as a microscope does.

>>> maps = densities.load(["ribosome_70s", "apoferritin", "tric"])
>>> cell = Membrane(centre=(1000, 1000, 2500), radii=(2500, 2500, 2000))
>>> room = available(shape=(200, 512, 512), voxel_size=10.0, thickness=1500.0, cell=cell)
>>> specimen = build(maps, fill(maps, crowding=0.2, room=room), shape=(200, 512, 512), thickness=1500.0, cell=cell,
...                  vesicles=3, solutes=100.0, beads=8, seed=1)
>>> specimen.report
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import io, parallel
from tomolab.conventions import POSITION, centre
from tomolab.io import safe_load
from tomolab.simulation import crowding
from tomolab.simulation import scene as scenes
from tomolab.simulation.crowding import molecular_volume
from tomolab.simulation.fiducials import Site
from tomolab.simulation.membranes import Membrane
from tomolab.simulation.rendering import check
from tomolab.simulation.scene import GOLD, MEMBRANE
from tomolab.volumes import Volume

__all__ = ["GOLD", "MEMBRANE", "Specimen", "available", "build", "counts_of", "fill", "load", "wanted"]

AVOGADRO = 6.022e-10
"""Molecules per Å³ of 1 µM."""
TABLES = ("beads", "report")
MASKS = ("labels", "instances", "room")
TYPES = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
"""Numbers that a mask may be kept in."""


@dataclass(frozen=True)
class Specimen:
    """A specimen and all that is true of it.

    Parameters
    ----------
    density
        Da/Å³ of atoms other than hydrogen above ice; gold and lipids in the density of protein that would scatter as they do.
    labels
        Class of each voxel (z, y, x): 0 for nothing, i + 1 for ``names[i]``. A complex fills the voxels within its surface.
    instances
        Particle each voxel belongs to, (z, y, x): `particle_id` + 1; 0 for none.
    room
        Where complexes and solutes may be, bool (z, y, x): in the ice, in the cell if there is one, and in no bilayer.
    names
        Classes: the complexes, then "membrane" and "gold" where there are any.
    particles
        Table of the complexes with their true angles, `label`, and `visibility`: the share of the complex within the volume.
    beads
        z, y, x and diameter of gold beads in Å.
    report
        For each class how many were `asked` and `placed`, and the `reason` why not all.
    thickness
        Å of ice, about the centre along z.
    """

    density: Volume
    labels: np.ndarray
    instances: np.ndarray
    room: np.ndarray
    names: tuple[str, ...]
    particles: pd.DataFrame
    beads: pd.DataFrame
    report: pd.DataFrame
    thickness: float

    def __repr__(self) -> str:
        return f"Specimen({self.density!r}, {len(self.particles)} complexes, {100 * self.crowding:.0f} % of the room)"

    @property
    def crowding(self) -> float:
        """Share of the volume of `room` that complexes take."""
        return int(np.count_nonzero(self.instances)) / max(1, int(np.count_nonzero(self.room)))

    def within(self, shape: tuple[int, int, int]) -> "Specimen":
        """The middle of the specimen, of `shape` voxels (z, y, x): complexes whose centre is outside are no longer listed.

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
        voxel_size = self.density.voxel_size
        offset, extent = np.array(start) * voxel_size, np.array(shape) * voxel_size
        instances = np.ascontiguousarray(self.instances[cut])
        size = int(self.particles["particle_id"].max()) + 2 if len(self.particles) else 1
        left, whole = (np.bincount(part.reshape(-1), minlength=size) for part in (instances, self.instances))
        ids = self.particles["particle_id"].to_numpy() + 1
        moved = _moved(self.particles, offset).assign(visibility=self.particles["visibility"] * left[ids] / whole[ids].clip(1))
        return replace(
            self,
            density=Volume(self.density.data[cut], voxel_size),
            labels=np.ascontiguousarray(self.labels[cut]),
            instances=instances,
            room=np.ascontiguousarray(self.room[cut]),
            particles=_inside(moved, extent, voxel_size),
            beads=_inside(_moved(self.beads, offset), extent, voxel_size),
            thickness=min(self.thickness, float(extent[0])),
        )

    def save(self, folder: str | Path) -> Path:
        """Write density.mrc, labels, instances and room (.mrc.gz), three tables (.csv) and specimen.json, all or nothing."""
        with io.atomic(folder) as temporary:
            temporary.mkdir(parents=True)
            io.write_volume(self.density, temporary / "density.mrc")
            for name in MASKS:
                io.write_volume(Volume(getattr(self, name), self.density.voxel_size), temporary / f"{name}.mrc.gz")
            io.write_particles(self.particles, temporary / "particles.csv")
            for name in TABLES:
                getattr(self, name).to_csv(temporary / f"{name}.csv", index=False)
            told = {
                "names": self.names,
                "voxel_size": self.density.voxel_size,
                "thickness": self.thickness,
                "types": {n: str(getattr(self, n).dtype) for n in MASKS},
            }
            (temporary / "specimen.json").write_text(json.dumps(told, indent=1))
        return Path(folder)


def _moved(table: pd.DataFrame, offset: np.ndarray) -> pd.DataFrame:
    return table.assign(**{name: table[name] - shift for name, shift in zip(POSITION, offset, strict=True)})


def _inside(table: pd.DataFrame, extent: np.ndarray, voxel_size: float) -> pd.DataFrame:
    places = table[POSITION].to_numpy(dtype=float)
    # Position 0 is the centre of voxel 0, so the volume begins half a voxel before it.
    kept = ((places >= -voxel_size / 2) & (places < extent - voxel_size / 2)).all(1)
    return table[kept].reset_index(drop=True)


def load(folder: str | Path) -> Specimen:
    """Read what `Specimen.save` wrote.

    Raises
    ------
    FileNotFoundError
        If the folder or a file of it is missing.
    ValueError
        If a file is damaged.
    """
    folder = Path(folder)
    wanted = ["density.mrc", "particles.csv", "specimen.json", *(f"{n}.mrc.gz" for n in MASKS), *(f"{n}.csv" for n in TABLES)]
    missing = [name for name in wanted if not io.inside(folder, name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is not a saved specimen: it has no {', '.join(missing)}")
    told = safe_load.read_json(folder / "specimen.json", "a specimen")
    with safe_load.reading(folder, "a specimen"):
        safe_load.check_types(told, voxel_size=(int, float), names=list, types=dict, thickness=(int, float))
        safe_load.check_types(told["types"], **dict.fromkeys(MASKS, str))
        if not all(isinstance(name, str) for name in told["names"]) or not set(told["types"].values()) <= TYPES:
            raise ValueError(f"names are text, and types one of {', '.join(sorted(TYPES))}; it says {str(told)[:200]}")
        size = told["voxel_size"]
        return Specimen(
            density=io.read_volume(folder / "density.mrc", voxel_size=size),
            **{
                name: io.read_volume(folder / f"{name}.mrc.gz", voxel_size=size).data.astype(told["types"][name])
                for name in MASKS
            },
            names=tuple(told["names"]),
            particles=io.read_particles(folder / "particles.csv"),
            **{name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False) for name in TABLES},
            thickness=float(told["thickness"]),
        )


def counts_of(concentrations: Mapping[str, float], *, room: float) -> dict[str, int]:
    """Numbers of complexes at these concentrations.

    Parameters
    ----------
    concentrations
        µM by class name.
    room
        Å³, as `available` gives it.
    """
    return {name: round(value * AVOGADRO * room) for name, value in concentrations.items()}


def fill(densities: Mapping[str, Volume], *, crowding: float, room: float) -> dict[str, int]:
    """Equal numbers of each complex that together take a share of the room.

    Parameters
    ----------
    densities
        Maps by class name, in Da/Å³.
    crowding
        Share of the volume, 0 to 1: a cell has 0.2 to 0.3. Much more than 0.3 finds no room.
    room
        Å³, as `available` gives it.

    Raises
    ------
    ValueError
        If the share is not from 0 to 1.
    """
    if not 0 <= crowding <= 1:
        raise ValueError(f"crowding is a share of the volume from 0 to 1, got {crowding}")
    return dict.fromkeys(densities, round(crowding * room / sum(map(molecular_volume, densities.values()))))


def available(
    *, shape: tuple[int, int, int], voxel_size: float, thickness: float | None = None, cell: Membrane | None = None
) -> float:
    """Å³ in which complexes are placed: the ice, or what a cell encloses of it; vesicles take their share later.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    voxel_size
        Å.
    thickness
        Å of ice; all of the volume by default.
    cell
        The border of a cell that complexes are inside of.
    """
    space = np.zeros(shape, dtype=bool)
    space[slice(*scenes.ice(shape, voxel_size, thickness))] = True
    if cell is not None:
        scenes.confine(space, cell, voxel_size=voxel_size, cell=True, device=parallel.pick_device("cpu"))
    return float(np.count_nonzero(space) * voxel_size**3)


def build(
    densities: Mapping[str, Volume],
    counts: int | Mapping[str, int],
    *,
    shape: tuple[int, int, int],
    seed: int,
    thickness: float | None = None,
    cell: Membrane | None = None,
    vesicles: int | Sequence[Membrane] = 0,
    solutes: float = 0.0,
    medium: float = 0.0,
    beads: int = 0,
    bead_diameter: float = 100.0,
    bead_site: Site = "face",
    gap: float = 0.0,
    margin: float = 0.0,
    device: str | None = None,
    progress: bool = True,
) -> Specimen:
    """Build a specimen: membranes, then beads, then complexes from large to small, then solutes.

    Complexes lie whole within the ice, in random poses, and do not overlap; every place that is free is equally likely. What
    finds no room is left out and told in the report.

    Parameters
    ----------
    densities
        Maps by class name in Da/Å³, all of one voxel size, which is that of the specimen.
    counts
        Complexes per class, or a number for each class name; see `fill` and `counts_of`.
    shape
        Voxels along z, y, x.
    seed
        The same seed on the same device gives the same specimen.
    thickness
        Å of the slab of ice, about the centre along z; all of the volume by default.
    cell
        Border of a cell, which may reach beyond the volume; complexes and solutes are inside only. The faces of the ice cut
        it flat.
    vesicles
        How many, of radii from 200 to 500 Å, at random; or the vesicles themselves, which are taken as they are.
    solutes
        mg/ml of small soluble proteins (1 to 100 kDa) between the complexes.
    medium
        mg/ml of the same outside of a cell.
    beads
        Gold beads.
    bead_diameter
        Å.
    bead_site
        "face": against a face of the ice; "ice": anywhere in it outside of the cell.
    gap
        Å left free around each complex.
    margin
        Å along the faces of the volume that complexes and solutes keep out of.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        If a value is outside what it can be, a class has no density, a complex cannot lie in the ice in any orientation, or no
        complex found room.
    """
    where = parallel.pick_device(device)
    voxel_size = check(densities)
    asked = wanted(tuple(densities), counts)
    if min(solutes, medium, beads, gap) < 0:
        raise ValueError(f"solutes, medium, beads and gap are 0 or more, got {solutes} and {medium} mg/ml, {beads} and {gap} Å")
    some = cell is not None or bool(vesicles)
    names = (*densities, *([MEMBRANE] if some else []), *([GOLD] if beads else []))
    scene = scenes.start(
        names, shape=shape, voxel_size=voxel_size, thickness=thickness, particles=sum(asked.values()), seed=seed, device=where
    )
    scenes.keep_off(scene, round(margin / voxel_size))
    kinds = crowding.kinds({name: densities[name] for name in asked}, where)
    for kind in kinds.values():
        crowding.check_fits(kind, (scene.layers[1] - scene.layers[0], *shape[1:]))
    rows = scenes.bilayers(scene, cell, vesicles)
    table, gold_rows = scenes.gold(scene, beads, diameter=bead_diameter, site=bead_site, cell=cell is not None)
    found, complex_rows = crowding.add(scene, kinds, asked, gap=gap, progress=progress)
    if found.empty:
        raise ValueError(f"none of {sum(asked.values())} complexes found room: {complex_rows[0][-1]} ({complex_rows[0][0]})")
    scenes.solution(scene, solutes, medium=medium)
    return Specimen(
        density=Volume(scene.density, voxel_size),
        labels=scene.labels,
        instances=scene.instances,
        room=scene.room,
        names=names,
        particles=found,
        beads=table,
        report=pd.DataFrame([*complex_rows, *rows, *gold_rows], columns=["name", "asked", "placed", "reason"]),
        thickness=float((scene.layers[1] - scene.layers[0]) * voxel_size),
    )


def wanted(names: tuple[str, ...], counts: int | Mapping[str, int]) -> dict[str, int]:
    """How many of each class are asked for, without those of which there are none.

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
