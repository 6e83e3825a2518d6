"""PyTom: particle lists (XML), to particle tables.

``PickPosition`` is X, Y, Z in voxels from 0 of the tomogram ``Origin``, ``Shift`` is added to it, in voxels too. ``Rotation``
turns the reference into the tomogram: in xyz it is ``Rz(Z2) Rx(X) Rz(Z1)``, as in a motive list of AV3 the angles phi (Z1), psi
(Z2) and theta (X), from which PyTom reads them with a position less by 1 (`zxzToMat`, `ParticleList.fromMOTL` and `pl2star` of
PyTom).
"""

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION
from tomolab.io import paths
from tomolab.io.lists import dynamo
from tomolab.io.lists.options import MissingOptionError, ReadOptions
from tomolab.io.lists.star import parsing
from tomolab.io.lists.tomogram_names import nameless
from tomolab.io.xml import parsed

PARADIGM = "ZXZ"
PLACES = ("Z", "Y", "X")


def read(path: Path, options: ReadOptions) -> pd.DataFrame:
    """Read a particle list, without tilts; ``score``, ``class`` and ``pytom_filename`` are read too.

    Raises
    ------
    ValueError
        If it is no such list, a position is missing, a rotation is of another paradigm than ZXZ, positions count voxels of
        several binnings, or the voxel size, or the name of a tomogram that the list does not say, is not given.
    """
    size = options.size("a particle list of PyTom")
    rows = pd.DataFrame(
        [_row(one, number) for number, one in enumerate(parsed(paths.text(path), "ParticleList").findall("Particle"))],
        columns=[*_axes("place"), *_axes("shift"), "phi", "theta", "psi", "origin", "binning", "filename", "class", "score"],
        dtype=str,
    )
    binnings = sorted(set(rows["binning"]))
    if len(binnings) > 1:
        raise ValueError(f"the positions are of several binnings ({', '.join(binnings[:5])}); keep the particles of one")
    out = pd.DataFrame({"particle_id": np.arange(1, len(rows) + 1), "tomogram": _tomograms(rows["origin"], options.tomogram)})
    out[POSITION] = (parsing.numbers(rows, _axes("place")) + parsing.numbers(rows, _axes("shift"))) * size
    angles = parsing.numbers(rows, ["phi", "theta", "psi"])
    out[ANGLES] = rotations.to_euler(dynamo.from_zxz(angles).transpose(0, 2, 1))
    out["score"], out["class"] = parsing.numbers(rows, ["score"])[:, 0], parsing.typed(rows["class"])
    out["pytom_filename"] = rows["filename"]
    return out


def _axes(stem: str) -> list[str]:
    return [f"{stem}_{axis}" for axis in PLACES]


def _tomograms(origins: pd.Series, tomogram: str | None) -> pd.Series:
    """Names of the tomograms; where the list names them, no other may be given."""
    unknown = nameless(origins)
    if unknown.any() and tomogram is None:
        message = f"{unknown.sum()} of {len(origins)} particles do not name their tomogram; give tomogram="
        raise MissingOptionError(message, "tomogram")
    tables.check_named(origins[~unknown], tomogram, "PickPosition")
    return origins.where(~unknown, tomogram)


def _row(one: Element, number: int) -> list[str]:
    """What one particle says, as texts; a missing shift or rotation is none."""
    place, shift, turn = one.find("PickPosition"), one.find("Shift"), one.find("Rotation")
    if place is None:
        raise ValueError(f"particle {number}, counted from 0, has no PickPosition")
    if turn is not None and turn.get("Paradigm", PARADIGM) != PARADIGM:
        raise ValueError(f"a Rotation must be of the paradigm {PARADIGM}, got {turn.get('Paradigm')!r} of particle {number}")
    score, number_of_class = one.find("Score"), one.find("Class")
    return [
        *(place.get(axis, "") for axis in PLACES),
        *("0" if shift is None else shift.get(axis, "") for axis in PLACES),
        *("0" if turn is None else turn.get(axis, "") for axis in ("Z1", "X", "Z2")),
        place.get("Origin", ""),
        place.get("Binning", "1"),
        one.get("Filename", ""),
        "0" if number_of_class is None else number_of_class.get("Name", "0"),
        "0" if score is None else score.get("Value", "0"),
    ]
