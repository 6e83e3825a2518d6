"""PyTom: particle lists (XML), to particle tables.

``PickPosition`` is X, Y, Z in voxels from 0 of the tomogram ``Origin``, ``Shift`` is added to it, in voxels too. ``Rotation``
turns the reference into the tomogram: in xyz it is ``Rz(Z2) Rx(X) Rz(Z1)``, as in a motive list of AV3 the angles phi (Z1), psi
(Z2) and theta (X), from which PyTom reads them with a position less by 1 (`zxzToMat`, `ParticleList.fromMOTL` and `pl2star` of
PyTom).
"""

from pathlib import Path
from xml.etree.ElementTree import Element

import defusedxml.ElementTree
import numpy as np
import pandas as pd
from defusedxml.common import DefusedXmlException

from tomolab import particles as tables
from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION
from tomolab.io import paths
from tomolab.io.lists import dynamo, star

PARADIGM = "ZXZ"
PLACES = ("Z", "Y", "X")


def read(path: Path, *, voxel_size: float | None, tomogram: str | None) -> pd.DataFrame:
    """Read a particle list, without tilts; ``score``, ``class`` and ``pytom_filename`` are read too.

    Parameters
    ----------
    path
        .xml.
    voxel_size
        Å per voxel of the tomogram in which the positions are counted.
    tomogram
        Name of the tomogram where the list does not say it.

    Raises
    ------
    ValueError
        If it is no such list, a position is missing, a rotation is of another paradigm than ZXZ, positions count voxels of
        several binnings, or something needed is not given.
    """
    size = star.check_voxel_size(voxel_size, "a particle list of PyTom")
    rows = pd.DataFrame(
        [_row(one, number) for number, one in enumerate(_root(path).findall("Particle"))],
        columns=[*_axes("place"), *_axes("shift"), "phi", "theta", "psi", "origin", "binning", "filename", "class", "score"],
        dtype=str,
    )
    binnings = sorted(set(rows["binning"]))
    if len(binnings) > 1:
        raise ValueError(f"the positions are of several binnings ({', '.join(binnings[:5])}); keep the particles of one")
    out = pd.DataFrame({"particle_id": np.arange(1, len(rows) + 1), "tomogram": _tomograms(rows["origin"], tomogram)})
    out[POSITION] = (star.numbers(rows, _axes("place")) + star.numbers(rows, _axes("shift"))) * size
    angles = star.numbers(rows, ["phi", "theta", "psi"])
    out[ANGLES] = rotations.to_euler(dynamo.from_zxz(angles).transpose(0, 2, 1))
    out["score"], out["class"] = star.numbers(rows, ["score"])[:, 0], star.typed(rows["class"])
    out["pytom_filename"] = rows["filename"]
    return out


def _axes(stem: str) -> list[str]:
    return [f"{stem}_{axis}" for axis in PLACES]


def _tomograms(origins: pd.Series, tomogram: str | None) -> pd.Series:
    """Names of the tomograms; where the list names them, no other may be given."""
    nameless = origins.isin(["", "None"])
    if nameless.any() and tomogram is None:
        raise ValueError(f"{nameless.sum()} of {len(origins)} particles do not name their tomogram; give tomogram=")
    tables.check_named(origins[~nameless], tomogram, "PickPosition")
    return origins.where(~nameless, tomogram)


def _row(one: Element, number: int) -> list[str]:
    """What one particle says, as texts; a missing shift or rotation is none."""
    place, shift, turn = one.find("PickPosition"), one.find("Shift"), one.find("Rotation")
    if place is None:
        raise ValueError(f"particle {number}, counted from 0, has no PickPosition")
    if turn is not None and turn.get("Paradigm", PARADIGM) != PARADIGM:
        raise ValueError(f"a Rotation must be of the paradigm {PARADIGM}, got {turn.get('Paradigm')!r} of particle {number}")
    score, kind = one.find("Score"), one.find("Class")
    return [
        *(place.get(axis, "") for axis in PLACES),
        *("0" if shift is None else shift.get(axis, "") for axis in PLACES),
        *("0" if turn is None else turn.get(axis, "") for axis in ("Z1", "X", "Z2")),
        place.get("Origin", ""),
        place.get("Binning", "1"),
        one.get("Filename", ""),
        "0" if kind is None else kind.get("Name", "0"),
        "0" if score is None else score.get("Value", "0"),
    ]


def _root(path: Path) -> Element:
    text = paths.text(path)
    try:
        root = defusedxml.ElementTree.fromstring(text.encode(), forbid_dtd=True)
    except LookupError as error:
        raise ValueError(f"this is not XML ({error})") from error
    except DefusedXmlException as error:
        raise ValueError("it declares a document type or entities, which PyTom does not write") from error
    except defusedxml.ElementTree.ParseError as error:
        raise ValueError(f"line {error.position[0]}: this is not XML ({error})") from error
    if root.tag != "ParticleList":
        raise ValueError(f"this describes a {root.tag!r}; expected a 'ParticleList' of PyTom")
    return root
