"""Finds tomograms of IMOD whose sections lie along the tilt axis instead of the beam, and turns them.

IMOD's ``tilt`` writes one section for each place along the tilt axis, so that the thickness of the specimen runs along y of
the file and the tilt axis along z ("xzy"). Two ways of making x, y, z of it are in use, and they differ by a mirror:

- ``"swap"`` exchanges y and z, as ``trimvol -yz`` and ``clip flipyz``. What was a left-handed helix is right-handed then.
- ``"rotate"`` turns by -90° about x, as ``trimvol -rx`` and ``clip rotx``: y and z are exchanged and the new z runs
  backwards. The hand stays that of the file.

Which of the two is right depends on what was done to everything else that belongs to this tomogram (particle lists, maps of
the same data, the sign of the tilts), and nothing in the file tells. So it is asked for, and not guessed.

Labels of IMOD and the ratio of 2 between the sizes are those by which IMOD's own ``tomocoords`` tells the kinds apart.
"""

from typing import Literal

import numpy as np

Flip = Literal[False, "swap", "rotate"]
WAYS = (False, "swap", "rotate")
THIN = 2.0
"""The thickness of a tomogram is taken to be less than its size along the tilt axis by at least this."""
MADE, TURNED, OURS = "tilt: tomographic reconstruction", ("clip: flipyz", "clip: flipzy", "clip: rotx"), "tomolab"


def check(flipped: object) -> None:
    """Refuse what is neither False, "swap" nor "rotate", nor None, with which the user leaves it open; a ValueError."""
    if not (flipped is None or flipped is False or (isinstance(flipped, str) and flipped in WAYS)):
        raise ValueError(f"flipped must be False, 'swap' or 'rotate', got {flipped!r}")


def suspicion(shape: tuple[int, int, int], labels: list[str]) -> str | None:
    """Why a volume seems to have its thickness along y, or None.

    What can be recognised: IMOD's label of a reconstruction with none of a turn after it, unless z is thin; and a y that is
    less than half of both z and x, whoever wrote it. What cannot: a block cut from a tomogram whose labels are lost, and
    which of the two turns is right. What carries tomolab's own label is zyx.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    labels
        Of the header, the oldest first.
    """
    z, y, x = shape
    told = [label.strip().lower() for label in labels]
    if any(label.startswith(OURS) for label in told):
        return None
    made = max((i for i, label in enumerate(told) if label.startswith(MADE)), default=-1)
    turns = [label for label in told[made + 1 :] if label.startswith(TURNED)]
    thin = y * THIN < z and y * THIN < x
    if made >= 0 and len(turns) % 2 == 0 and z * THIN >= y:
        return f"its header holds the label {labels[made].strip()[:32]!r} with no turn after it, and has {z} x {y} x {x} voxels"
    if thin:
        return f"of {z} x {y} x {x} voxels (z, y, x) y is the thin axis" + (
            f", although its header holds the label {turns[-1][:32]!r}" if turns else ""
        )
    return None


def ask(name: object, why: str) -> ValueError:
    """The question to the user about a volume that seems to be flipped."""
    return ValueError(
        f"{name} seems to have its thickness along y (xzy, as IMOD's tilt writes it): {why}. Say what it is: flipped=False "
        "leaves it as it is; flipped='rotate' turns it about x, as trimvol -rx, and keeps its hand; flipped='swap' exchanges "
        "y and z, as trimvol -yz, and mirrors it. Take what was done to the particle lists that belong to it"
    )


def turn(data: np.ndarray, flipped: Flip | None) -> np.ndarray:
    """A view of an array (z, y, x) as it lies in the file, turned.

    Parameters
    ----------
    data
        With the thickness along y, if it is flipped.
    flipped
        None and False leave it; "swap" gives (y, z, x); "rotate" gives (y, z, x) with the new z backwards.
    """
    if not flipped:
        return data
    swapped = data.transpose(1, 0, 2)
    return swapped if flipped == "swap" else swapped[::-1]
