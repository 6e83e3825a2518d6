"""Annotations of the CryoET Data Portal (.ndjson), to and from particle tables.

Each line is a point: ``type`` is point, orientedPoint or instancePoint, ``location`` its x, y, z in voxels of the annotated
tomogram, and ``xyz_rotation_matrix`` turns the object into the tomogram, on xyz vectors. As the portal's own conversion
from RELION leaves coordinates as they are, 0 is the centre of the first voxel.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION
from tomolab.io import paths, safe_load
from tomolab.io.lists.options import ReadOptions, check_voxel_size, only_tomogram
from tomolab.io.lists.star import parsing

KINDS = ("point", "orientedPoint", "instancePoint")
MATRIX, OLD_MATRIX = "xyz_rotation_matrix", "rotation_matrix"


def read(path: Path, options: ReadOptions) -> pd.DataFrame:
    """Read annotated points as particles, without tilts; what a line says besides is carried through, as ``instance_id``.

    Raises
    ------
    ValueError
        If a line is no point, its matrix is no rotation, or the voxel size or the name of the tomogram is not given.
    """
    tomogram, size = options.name("a file of annotations"), options.size("a file of annotations")
    places, matrices, others = [], [], []
    for number, line in enumerate(paths.text(path).split("\n"), 1):
        if line.strip():
            try:
                place, matrix, other = _point(line)
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
                raise ValueError(f"line {number} is no annotated point ({error!r}): {line[:80]!r}") from error
            places.append(place)
            matrices.append(matrix)
            others.append(other)
    out = pd.DataFrame({"particle_id": np.arange(1, len(places) + 1), "tomogram": tomogram})
    out[POSITION] = np.array(places, dtype=float).reshape(-1, 3) * size
    turns = rotations.nearest(np.array(matrices, dtype=float), MATRIX)
    out[ANGLES] = rotations.to_euler(turns[:, ::-1, ::-1])
    # A number of a thousand digits is more than some versions of pandas can take.
    with safe_load.reading(path, "a file of annotations"):
        carried = pd.DataFrame(others, index=out.index)
    return pd.concat([out, carried[[name for name in carried if name not in out]]], axis=1)


def text(particles: pd.DataFrame, *, voxel_size: float | None) -> str:
    """Give the lines of annotations: oriented points, or points where no particle was turned.

    Ids, tilts and all other columns but ``instance_id`` are left out.

    Raises
    ------
    ValueError
        If the voxel size is not known or the particles are in several tomograms.
    """
    size = check_voxel_size(voxel_size, "a file of annotations")
    only_tomogram(particles, "a file of annotations")
    matrices = tables.matrices(particles)[:, ::-1, ::-1]
    turned = not np.allclose(matrices, np.eye(3), atol=1e-6)
    numbers = parsing.numbers(particles, ["instance_id"])[:, 0] if "instance_id" in particles else None
    lines = []
    for row, (place, matrix) in enumerate(zip(tables.positions(particles) / size, matrices, strict=True)):
        point: dict[str, Any] = {"type": KINDS[1] if turned else KINDS[0 if numbers is None else 2]}
        point["location"] = dict(zip("xyz", place[::-1].tolist(), strict=True))
        if turned:
            point[MATRIX] = matrix.tolist()
        if numbers is not None:
            point["instance_id"] = int(numbers[row])
        lines.append(json.dumps(point) + "\n")
    return "".join(lines)


def _point(line: str) -> tuple[list[float], list[list[float]], dict[str, Any]]:
    """Location zyx, matrix, and what else is said in plain values."""
    point = json.loads(line)
    if point["type"] not in KINDS:
        raise ValueError(f"type {point['type']!r} is none of {', '.join(KINDS)}")
    place = [float(point["location"][axis]) for axis in "zyx"]
    matrix = np.array(point.get(MATRIX, point.get(OLD_MATRIX, np.eye(3))), dtype=float)
    if matrix.shape != (3, 3) or not np.isfinite([*place, *matrix.ravel()]).all():
        raise ValueError("a location is three numbers and a rotation 3 x 3")
    used = {"type", "location", MATRIX, OLD_MATRIX}
    return (
        place,
        matrix.tolist(),
        {name: value for name, value in point.items() if name not in used and isinstance(value, str | int | float | bool)},
    )
