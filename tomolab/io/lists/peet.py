"""PEET: motive lists (.csv) and the models beside them, to particle tables.

A motive list has a line for each point of a model of IMOD, which ``pIndex`` counts from 1. The offsets, in pixels, are added to
the point, and the angles phi, psi, theta, which are also called EulerZ(1), EulerZ(3), EulerX(2), turn the reference: in xyz by
``Rz(psi) Rx(theta) Rz(phi)`` (`PEETMotiveList` of TEMPy; cylindra, and scripts that make Dynamo's angles of it, agree).
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab import rotations
from tomolab.conventions import ANGLES, POSITION, SOURCE
from tomolab.io import paths
from tomolab.io.lists import dynamo, imod, star

HEAD = b"CCC,"
"""How a motive list of PEET begins."""
WIDTH = 20
"""Its columns."""
PLACES = {
    0: ("CCC",),
    3: ("pIndex",),
    **{10 + n: (f"{axis}Offset",) for n, axis in enumerate("xyz")},
    **{16 + n: names for n, names in enumerate((("phi", "EulerZ(1)"), ("psi", "EulerZ(3)"), ("theta", "EulerX(2)")))},
}
"""Names of those that are read, by their place, counted from 0."""
CLASS = 19


def is_motive_list(path: Path) -> bool:
    """Whether a .csv begins as a motive list of PEET."""
    with path.open("rb") as file:
        return file.read(16).removeprefix(b"\xef\xbb\xbf").startswith(HEAD)


def read(path: Path, *, voxel_size: float | None, tomogram: str | None) -> pd.DataFrame:
    """Read a motive list of PEET and the model beside it as particles, without tilts; ``score``, ``class`` and ``object`` too.

    Parameters
    ----------
    path
        .csv. The model is called alike, or like what stands before ``_MOTL`` or ``_initMOTL`` in the name.
    voxel_size
        As of a model (`imod.read`).
    tomogram
        Name of the tomogram; neither file says it.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If `imod.parse` refuses the model, this is no motive list, or it names a point twice or one that is not there.

    Warns
    -----
    UserWarning
        If points of the model are not in the list: they are left out.
    """
    rows = _motive_list(paths.text(path))
    stems = dict.fromkeys([path.stem, path.stem.split("_MOTL")[0], path.stem.split("_initMOTL")[0]])
    there = [place for stem in stems if (place := path.with_name(f"{stem}.mod")).is_file()]
    if not there:
        names = ", ".join(f"{stem}.mod" for stem in stems)
        raise FileNotFoundError(f"the points of a motive list of PEET stand in a model; there is none of {names} beside {path}")
    if tomogram is None:
        raise ValueError("neither a motive list of PEET nor its model names the tomogram; give tomogram=")
    model = imod.parse(there[0].read_bytes())
    if model.flags & imod.FLIPPED:
        raise ValueError(f"{there[0]} was last seen with y and z exchanged, which PEET does not know")
    size = imod.voxel_size_of(model, voxel_size)
    points = imod.table(model, size, tomogram)
    numbers = rows["pIndex"].to_numpy()
    strange = ~np.isin(numbers, points["particle_id"])
    if strange.any() or rows["pIndex"].duplicated().any():
        raise ValueError(
            f"pIndex must count the {len(points)} points of {there[0]} from 1, each once, got "
            f"{', '.join(f'{number:g}' for number in numbers[strange][:5]) or 'some twice'}"
        )
    if len(rows) < len(points):
        warnings.warn(f"{len(points) - len(rows)} of {len(points)} points of {there[0]} are not in {path}", stacklevel=2)
    out = points.iloc[numbers.astype(int) - 1].reset_index(drop=True)
    out[POSITION] += rows[["zOffset", "yOffset", "xOffset"]].to_numpy() * size
    angles = rows[["phi", "theta", "psi"]].to_numpy()
    out[ANGLES] = rotations.to_euler(dynamo.from_zxz(angles).transpose(0, 2, 1))
    out["score"], out["class"] = rows["CCC"], rows["class"]
    return out.assign(**{SOURCE[0]: paths.fingerprint(path), SOURCE[1]: np.arange(len(out))})


def _motive_list(text: str) -> pd.DataFrame:
    """Columns of a motive list that are read, by their first names, as numbers."""
    head, *lines = [line.strip().split(",") for line in text.split("\n") if line.strip()] or [[""]]
    head = [name.strip() for name in head]
    wrong = [names[0] for place, names in PLACES.items() if len(head) <= place or head[place] not in names]
    if wrong:
        told = ",".join(head)
        raise ValueError(
            f"a motive list of PEET has {', '.join(wrong)} at other places than this one, which begins {told[:200]!r}"
        )
    for number, line in enumerate(lines):
        if len(line) != WIDTH:
            raise ValueError(f"row {number} of the motive list has {len(line)} values, expected {WIDTH}")
    names = {place: names[0] for place, names in PLACES.items()} | {CLASS: "class"}
    rows = pd.DataFrame({name: [line[place] for line in lines] for place, name in names.items()}, dtype=str)
    return pd.DataFrame(star.numbers(rows, list(rows)), columns=list(rows))
