"""Takes a tomogram, with a particle list or without one; writes the run folder of an inspection, and opens it.

Particles are picked if there is no list. They are cut out, embedded by a shipped network and divided into many small clusters,
from which `Inspection.discover` finds the structures.

>>> work = inspection.from_tomogram("TS_01.mrc", "runs/mine", contrast="dark", tilts=(-60, 60), diameter=250, seed=1)
>>> found = work.discover(seed=1).result()
>>> {name: average.resolution for name, average in found.averages.items()}
"""

from pathlib import Path
from typing import Literal

import pandas as pd

from tomolab import io, picking, volumes
from tomolab import particles as particle_tables
from tomolab.clusters import clustering
from tomolab.inspection import model
from tomolab.inspection.model import Inspection
from tomolab.inspection.run_contents import BOXES, EMBEDDING, PICKS, TABLE
from tomolab.io.run_folder import Run
from tomolab.io.volumes import tomogram as tomogram_files
from tomolab.learning import embedding, networks
from tomolab.subtomograms import contrast as contrasts
from tomolab.subtomograms import extraction
from tomolab.volumes import Volume

CLUSTERS = 16
"""Clusters of the features by default: more than there are structures, because a discovery merges what is one."""
PER_CLUSTER = 16
"""Particles that a cluster has on average at least."""
STAGE = "from_tomogram"
"""Name in the manifest of the run."""


def from_tomogram(
    tomogram: str | Path | Volume,
    folder: str | Path,
    *,
    contrast: Literal["bright", "dark"],
    tilts: tuple[float, float],
    diameter: float,
    check_contrast: bool = True,
    particles: pd.DataFrame | None = None,
    threshold: float = 3.0,
    network: str = "default",
    clusters: int = CLUSTERS,
    seed: int,
    progress: bool = True,
) -> Inspection:
    """Make the run folder of a tomogram: its particles, their boxes, features and first clusters; and open its inspection.

    Parameters
    ----------
    tomogram
        MRC file, OME-Zarr folder, or a volume in memory. The run folder gets a copy with bright protein.
    folder
        The run folder, which must have no particle table yet.
    contrast
        Whether protein is "bright" or "dark" in the tomogram.
    tilts
        Lowest and highest tilt in degrees, of which the missing wedge of every particle is computed.
    diameter
        Of a particle, in Å.
    check_contrast
        Measure the contrast of the tomogram where it can be told (`tomolab.subtomograms.contrast`), and refuse the other one.
    particles
        Particle table of this tomogram, positions in Å; by default particles are picked.
    threshold
        Of `picking.choose`. A low one takes more picks; those that are no particles are left out by a discovery.
    network
        Shipped network that makes the features (`learning.shipped_networks`); it sets the voxel size and the box.
    clusters
        Clusters of the features; fewer where there are few particles.
    seed
        Of the clusters and of the layout.
    progress
        Show bars.

    Raises
    ------
    FileExistsError
        If the folder has a particle table already.
    ValueError
        If `contrast` is neither, or clearly the wrong one, the tilts or the diameter make no sense, the table is of several
        tomograms, or there are fewer than 8 particles.
    """
    run = Run(Path(folder))
    if (run.folder / TABLE).exists():
        raise FileExistsError(f"{run.folder} has particles already: open it with inspection.open, or name another folder")
    if contrast not in ("bright", "dark"):
        raise ValueError(f'contrast must be "bright" or "dark", got {contrast!r}')
    if not -90 <= tilts[0] < tilts[1] <= 90:
        raise ValueError(f"tilts must be the lowest and the highest in degrees, got {tilts}")
    trained = networks.load(network)
    volume = tomogram if isinstance(tomogram, Volume) else io.read_volume(tomogram)
    if check_contrast:
        contrasts.check(tomogram_files.of(volume), contrast)
    bright = volumes.invert(volume) if contrast == "dark" else volume
    table = _picked(bright, diameter, tilts, threshold) if particles is None else _with_tilts(particles, tilts)
    if len(table) < model.FEWEST:
        hint = ": lower threshold=" if particles is None else ""
        raise ValueError(f"{model.FEWEST} particles or more are needed, got {len(table)}{hint}")
    boxes = extraction.extract(
        bright,
        table,
        box=trained.box,
        voxel_size=trained.voxel_size,
        path=run.path(BOXES),
        check_contrast=False,
        progress=progress,
    )
    features = embedding.embed(trained, boxes, progress=progress)
    labels = clustering.kmeans(features, max(1, min(clusters, len(boxes) // PER_CLUSTER)), seed=seed)
    io.write_volume(bright, run.path("tomogram.mrc"))
    io.write_particles(table, run.path(PICKS), voxel_size=bright.voxel_size)
    features.save(run.path(EMBEDDING))
    # The particle table comes last: with it the folder is whole.
    io.write_particles(boxes.particles.assign(cluster=labels.to_numpy(), diameter=float(diameter)), run.path(TABLE))
    about = {"contrast": contrast, "tilts": list(tilts), "diameter": diameter, "network": network, "clusters": clusters}
    about |= {"tomogram": str(tomogram), "picked": particles is None, "threshold": threshold}
    run.record(STAGE, parameters=about, files=["tomogram.mrc", PICKS, BOXES, EMBEDDING, TABLE], seed=seed)
    return model.open(run.folder, diameter=diameter, seed=seed)


def _picked(volume: Volume, diameter: float, tilts: tuple[float, float], threshold: float) -> pd.DataFrame:
    """Picks outside of gold beads."""
    found = picking.candidates(volume, diameter=diameter, tilts=tilts, exclude=picking.fiducial_mask(volume))
    return picking.choose(found, threshold=threshold)


def _with_tilts(particles: pd.DataFrame, tilts: tuple[float, float]) -> pd.DataFrame:
    names = particles["tomogram"].unique().tolist()
    if len(names) > 1:
        raise ValueError(
            f"the particles are of {len(names)} tomograms, {', '.join(map(str, names[:3]))}, ...: give one at a time"
        )
    return particle_tables.check(particles.assign(tilt_min=float(tilts[0]), tilt_max=float(tilts[1])))
