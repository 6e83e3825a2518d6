"""Takes the shape and labels of an MRC file, says whether its thickness lies along y as in IMOD, and reorders its axes.

IMOD's ``tilt`` writes one section for each position along the tilt axis. The thickness then runs along y of the file and
the tilt axis along z ("xzy"). Two conversions to x, y, z are in use, and they differ by a mirror:

- ``"swap"`` exchanges y and z, as ``trimvol -yz`` and ``clip flipyz``. A left-handed helix becomes right-handed.
- ``"rotate"`` rotates by -90° about x, as ``trimvol -rx`` and ``clip rotx``: y and z are exchanged and the new z runs
  backwards. The hand stays that of the file.

The particle lists, maps and tilts that belong to the tomogram decide which one is right. The file does not state it, so the
user must. The IMOD labels and the size ratio of 2 are those by which IMOD's ``tomocoords`` recognises such files.
"""

from typing import Literal

import numpy as np

Flip = Literal[False, "swap", "rotate"]
WAYS = (False, "swap", "rotate")
THIN = 2.0
"""Smallest ratio of the size along the tilt axis to the thickness."""
RECONSTRUCTED, OURS = "tilt: tomographic reconstruction", "tomolab"
ROTATED = ("clip: flipyz", "clip: flipzy", "clip: rotx")


def check(flipped: object) -> None:
    """Raise ValueError unless `flipped` is False, "swap", "rotate" or None (not stated)."""
    if not (flipped is None or flipped is False or (isinstance(flipped, str) and flipped in WAYS)):
        raise ValueError(f"flipped must be False, 'swap' or 'rotate', got {flipped!r}")


def reason_flipped(shape: tuple[int, int, int], labels: list[str]) -> str | None:
    """Why a volume seems to have its thickness along y, or None.

    It recognises IMOD's label of a reconstruction without a later label of a rotation, unless z is thin, and a y of less than
    half of both z and x. It does not recognise a block cut from a tomogram whose labels are lost. A volume with tomolab's own
    label is zyx.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    labels
        Labels of the header, oldest first.
    """
    z, y, x = shape
    lowered = [label.strip().lower() for label in labels]
    if any(label.startswith(OURS) for label in lowered):
        return None
    reconstructed = max((i for i, label in enumerate(lowered) if label.startswith(RECONSTRUCTED)), default=-1)
    rotations = [label for label in lowered[reconstructed + 1 :] if label.startswith(ROTATED)]
    thin = y * THIN < z and y * THIN < x
    if reconstructed >= 0 and len(rotations) % 2 == 0 and z * THIN >= y:
        label = labels[reconstructed].strip()[:32]
        return f"its header holds the label {label!r} with no turn after it, and has {z} x {y} x {x} voxels"
    if thin:
        return f"of {z} x {y} x {x} voxels (z, y, x) y is the thin axis" + (
            f", although its header holds the label {rotations[-1][:32]!r}" if rotations else ""
        )
    return None


def flip_error(name: object, why: str) -> ValueError:
    """The error for a volume that seems to be flipped: it asks the user to set `flipped`."""
    return ValueError(
        f"{name} seems to have its thickness along y (xzy, as IMOD's tilt writes it): {why}. Set flipped: flipped=False "
        "keeps its axes; flipped='rotate' rotates it about x, as trimvol -rx, and keeps its hand; flipped='swap' exchanges "
        "y and z, as trimvol -yz, and mirrors it. Take the one that was used for its particle lists"
    )


def turn(data: np.ndarray, flipped: Flip | None) -> np.ndarray:
    """A view of an array of a file (z, y, x) with its axes reordered.

    Parameters
    ----------
    data
        Its thickness lies along y, if it is flipped.
    flipped
        None and False keep the array; "swap" gives (y, z, x); "rotate" gives (y, z, x) with the new z backwards.
    """
    if not flipped:
        return data
    swapped = data.transpose(1, 0, 2)
    return swapped if flipped == "swap" else swapped[::-1]
