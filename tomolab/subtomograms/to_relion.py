"""Takes subtomograms, writes a project folder of RELION 3.1: particles, missing wedges and their list.

::

    particles.star            optics and particles: angles, origins (minus the shift from the centre of the box), ids
    volumes/0000/000017.mrc   one particle each: float32, bright protein, background of mean 0 and standard deviation 1
    wedges/1.mrc              each different wedge as RELION's 3-D CTF image: full box, centred, 1 where it was observed

All names are relative: start RELION inside the folder. The layout is that of RELION 3.1 and of the three-dimensional
subtomograms that later versions still read.
"""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tomolab import fourier, io
from tomolab import particles as tables
from tomolab import volumes as densities
from tomolab.conventions import ANGLES, BOX, POSITION, READ_POSE
from tomolab.io.lists import outdated
from tomolab.io.lists.star import parsing, relion
from tomolab.io.lists.star.columns import SUBTOMOGRAM_EULER, VERSIONS
from tomolab.subtomograms.dataset import Subtomograms

LIST, VOLUMES, WEDGES = "particles.star", "volumes", "wedges"
BATCH = 64
"""Subtomograms in memory at a time."""
OURS = (*outdated.BOXES, "rlnMtfFileName", *SUBTOMOGRAM_EULER, *BOX)
"""Columns that describe the boxes; those of the user's own boxes are kept with the prefix `SOURCE`."""
SOURCE = "source_"
NOMINAL = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
"""RELION requires these columns even where a wedge image replaces the CTF."""
RESULTS = {"rlnRandomSubset": "half", "rlnLogLikeliContribution": "score"}
"""Columns of RELION and their names in a particle table."""


def write(
    subtomograms: Subtomograms,
    folder: str | Path,
    *,
    ids: Any = None,
    poses: pd.DataFrame | None = None,
    diameter: float | None = None,
    progress: bool = True,
) -> Path:
    """Write a folder in which RELION runs; whole or not at all. Subtomograms are read in batches.

    Parameters
    ----------
    subtomograms
        Boxes of an even edge, bright on dark, each with its own wedge.
    folder
        The folder. An earlier result of `write` is replaced, unless the folder also holds other files.
    ids
        Particles to write; all by default, or those of `poses`.
    poses
        Table with other angles and positions of these particles, such as ``average.particles``: the positions become
        origins relative to the centres of the boxes. By default the poses of the subtomograms. A column ``half`` of either
        table stays the half set of each particle.
    diameter
        Of the sphere, in Å, outside which is background; the edge of the box by default.
    progress
        Show a bar.

    Returns
    -------
    Path
        The folder. All columns of the table are in ``particles.star``, as `io.write_particles` writes them.

    Raises
    ------
    ValueError
        If the box is odd, an id is unknown or negative, a particle is outside its box, its background is constant, or the
        folder holds other files, such as those of a refinement.
    """
    folder = Path(folder)
    _check(subtomograms, folder)
    if ids is None and poses is not None:
        ids = poses["particle_id"].to_numpy()
    order = np.arange(len(subtomograms)) if ids is None else np.sort(tables.rows(subtomograms.particles, ids))
    table = subtomograms.particles.iloc[order].reset_index(drop=True)
    if (table["particle_id"] < 0).any():
        raise ValueError(f"volumes are named by particle_id, which must not be negative; got {table['particle_id'].min()}")
    edge = subtomograms.box * subtomograms.voxel_size if diameter is None else diameter
    outside = densities.sphere(subtomograms.box, edge / subtomograms.voxel_size).numpy() == 0
    if not outside.any():
        raise ValueError(f"a sphere of {edge:g} Å leaves no background in a box of {subtomograms.box} voxels")
    rows = _rows(table, poses, box=subtomograms.box, voxel_size=subtomograms.voxel_size)
    geometries, wedge_index = np.unique(tables.geometries(table).round(4), axis=0, return_inverse=True)
    rows["rlnCtfImage"] = [f"{WEDGES}/{number + 1}.mrc" for number in wedge_index.reshape(-1)]
    with io.atomic(folder) as temporary, tqdm(total=len(rows), unit="particle", disable=not progress, leave=False) as bar:
        for number, (low, high, axis) in enumerate(geometries):
            wedge = wedge_image(subtomograms.box, low, high, axis=axis)
            _put(wedge, temporary / WEDGES / f"{number + 1}.mrc", voxel_size=subtomograms.voxel_size)
        names = iter(rows["rlnImageName"])
        chosen = subtomograms if ids is None else subtomograms.choose(table["particle_id"])
        for some, volumes in chosen.batches(BATCH):
            for volume in _normalised(some, volumes, outside):
                _put(volume, temporary / next(names), voxel_size=subtomograms.voxel_size)
            bar.update(len(some))
        blocks = relion.star_tables(rows, voxel_size=subtomograms.voxel_size)
        (temporary / LIST).write_text(parsing.text(blocks, version=VERSIONS["relion31"]))
    return folder


def wedge_image(box: int, tilt_min: float, tilt_max: float, *, axis: float = 0.0) -> np.ndarray:
    """Observed frequencies of a tilt range as RELION's 3-D CTF image: (box, box, box) float32 of 0 and 1, zero at box // 2."""
    half = fourier.wedge(box, tilt_min, tilt_max, axis=axis)[0].numpy()
    z, y, x = np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij")
    # The other half of a real map's transform is point symmetric to the first.
    sign = np.where(x < 0, -1, 1)
    return half[(sign * z) % box, (sign * y) % box, np.abs(x)]


def particles(path: str | Path) -> pd.DataFrame:
    """Particle table of a list from `write` or RELION: original ids and columns, poses of RELION."""
    table = io.read_particles(path).drop(columns=list(OURS), errors="ignore")
    table = table.drop(columns=[ours for theirs, ours in RESULTS.items() if theirs in table], errors="ignore")
    names = RESULTS | {SOURCE + name: name for name in OURS}
    # READ_POSE refers to the unrotated boxes of `write`; the poses are now those of RELION.
    return outdated.noted(table.drop(columns=READ_POSE, errors="ignore").rename(columns=names))


def _check(subtomograms: Subtomograms, folder: Path) -> None:
    if subtomograms.box % 2:
        raise ValueError(f"RELION needs boxes of an even edge, got {subtomograms.box} voxels")
    if len(subtomograms) < 1:
        raise ValueError("there are no subtomograms to write")
    if folder.is_dir():
        others = sorted({path.name for path in folder.iterdir()} - {LIST, VOLUMES, WEDGES})
        if others:
            raise ValueError(f"{folder} also holds {', '.join(others[:5])}, which would be lost; name another folder")


def _rows(table: pd.DataFrame, poses: pd.DataFrame | None, *, box: int, voxel_size: float) -> pd.DataFrame:
    """The table with the poses of `poses` and RELION's columns of the boxes; their old values move to `SOURCE` columns."""
    rows, places = outdated.noted(table).copy(), tables.positions(table)
    if poses is not None:
        found = poses.iloc[tables.rows(poses, table["particle_id"])]
        rows[POSITION + ANGLES] = found[POSITION + ANGLES].to_numpy(dtype=float)
        if "half" in found:
            rows["half"] = found["half"].to_numpy()
    outside = np.abs(tables.positions(rows) - places).max(axis=1) > box * voxel_size / 2
    if outside.any():
        first = rows["particle_id"][outside].iloc[0]
        raise ValueError(f"{outside.sum()} of {len(rows)} particles lie outside of their boxes, first particle {first}")
    rows = _in_frame_of_tomogram(rows).rename(columns={name: SOURCE + name for name in OURS})
    if "half" in rows:
        rows["rlnRandomSubset"] = rows["half"]
    numbers = zip(np.arange(len(rows)) // 1000, rows["particle_id"], strict=True)
    rows[BOX] = places
    rows["rlnImageName"] = [f"{VOLUMES}/{thousand:04d}/{number:06d}.mrc" for thousand, number in numbers]
    rows["rlnImagePixelSize"], rows["rlnImageSize"], rows["rlnImageDimensionality"] = voxel_size, box, 3
    return rows.assign(**{name: value for name, value in NOMINAL.items() if name not in rows})


def _in_frame_of_tomogram(rows: pd.DataFrame) -> pd.DataFrame:
    """The table without columns that refer to other poses, other boxes or the angles of rotated subtomograms."""
    reasons = outdated.poses(rows)
    if outdated.frames(rows) is not None:
        priors = outdated.among(rows, outdated.ANGLE_PRIORS)
        reasons["they count from the angles of subtomograms, and these boxes are not turned"] = priors
    reasons["they count from the centres of other boxes"] = outdated.among(rows, outdated.ORIGIN_PRIORS)
    return outdated.without(rows, reasons).drop(columns=READ_POSE, errors="ignore")


def _normalised(ids: np.ndarray, volumes: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Volumes with a background of mean 0 and standard deviation 1."""
    background = volumes[:, outside].astype(np.float64)
    mean, deviation = background.mean(1), background.std(1)
    if (deviation <= 0).any():
        raise ValueError(f"the background of particle {ids[deviation <= 0][0]} is constant; RELION needs noise there")
    return ((volumes - mean[:, None, None, None]) / deviation[:, None, None, None]).astype(np.float32)


def _put(data: np.ndarray, path: Path, *, voxel_size: float) -> None:
    """Write one map into a folder that `io.atomic` puts into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path) as file:
        file.set_data(data)
        file.voxel_size = voxel_size
