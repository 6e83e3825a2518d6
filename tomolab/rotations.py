"""Takes Euler angles, quaternions or rounded matrices, gives rotations as matrices on zyx vectors, reference to tomogram.

RELION's angles (rot, tilt, psi) are intrinsic ZYZ and describe the passive rotation (tomogram to reference): with
``M = Rotation.from_euler("ZYZ", [rot, tilt, psi]).as_matrix()`` a reference point r (xyz) lies at ``M.T @ r``.
"""

import warnings

import numpy as np
import torch
from scipy.spatial.transform import Rotation

PRINTED, ROUNDED = 1e-4, 5e-3
"""How far an element may be from that of the nearest proper rotation: without and with a warning."""


def from_euler(angles: np.ndarray) -> np.ndarray:
    """Matrices (n, 3, 3) on zyx vectors from RELION angles (n, 3) = rot, tilt, psi in degrees."""
    passive = Rotation.from_euler("ZYZ", np.asarray(angles, dtype=float).reshape(-1, 3), degrees=True).as_matrix()
    return np.ascontiguousarray(passive.transpose(0, 2, 1)[:, ::-1, ::-1])


def to_euler(matrices: np.ndarray) -> np.ndarray:
    """RELION angles (n, 3) = rot, tilt, psi in degrees from matrices (n, 3, 3) on zyx vectors.

    Raises
    ------
    ValueError
        If a matrix is not a proper rotation (orthonormal, determinant +1).
    """
    matrices = np.asarray(matrices, dtype=float).reshape(-1, 3, 3)
    check(matrices)
    passive = matrices[:, ::-1, ::-1].transpose(0, 2, 1)
    with warnings.catch_warnings():
        # At tilt 0 rot and psi are degenerate and scipy warns; their matrix is right all the same.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        return Rotation.from_matrix(passive).as_euler("ZYZ", degrees=True)


def check(matrices: np.ndarray) -> None:
    """Raise ValueError unless all matrices (n, 3, 3) are proper rotations."""
    unit = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
    lowest = np.linalg.det(matrices).min(initial=1.0)
    if unit > 1e-3 or lowest < 0:
        raise ValueError(
            f"expected proper rotations, got matrices with determinant down to {lowest:.3f} and {unit:.2g} off orthonormal"
        )


def nearest(matrices: np.ndarray, what: str) -> np.ndarray:
    """The nearest proper rotations (n, 3, 3) to matrices that were rounded when they were written.

    The nearest one is U V^T of the singular value decomposition U S V^T (P. H. Schönemann, Psychometrika 31, 1 (1966)).

    Parameters
    ----------
    matrices
        (n, 3, 3), on xyz or zyx vectors.
    what
        What the matrices are, for the messages.

    Raises
    ------
    ValueError
        If a matrix has determinant -1, or an element is farther than `ROUNDED` from that of the nearest rotation.

    Warns
    -----
    UserWarning
        If an element is farther than `PRINTED`.
    """
    matrices = np.asarray(matrices, dtype=float).reshape(-1, 3, 3)
    left, _, right = np.linalg.svd(matrices)
    found = left @ right
    mirrored = np.linalg.det(found) < 0
    if mirrored.any():
        raise ValueError(
            f"{what}: expected proper rotations, but {mirrored.sum()} of {len(found)} matrices mirror (determinant -1), first "
            f"that of point {int(np.argmax(mirrored))}, counted from 0; a mirrored particle has the wrong hand"
        )
    far = np.abs(matrices - found).max(axis=(1, 2), initial=0.0)
    bad = far > ROUNDED
    if bad.any():
        raise ValueError(
            f"{what}: expected proper rotations, but {bad.sum()} of {len(found)} matrices are none: that of point "
            f"{int(np.argmax(bad))}, counted from 0, is {far[bad][0]:.2g} off the nearest one; rounding explains {ROUNDED:g}"
        )
    if (far > PRINTED).any():
        warnings.warn(
            f"{what}: {(far > PRINTED).sum()} of {len(found)} matrices are rotations to {far.max():.1g} only, as if they were "
            "rounded when they were written; the nearest rotations are taken",
            stacklevel=2,
        )
    return found


def random(count: int, generator: torch.Generator | None = None, *, device: torch.device | None = None) -> torch.Tensor:
    """Uniform random rotations, shape (count, 3, 3), from normalised Gaussian quaternions.

    The generator must live on `device`.
    """
    return from_quaternions(torch.randn(count, 4, generator=generator, device=device))


def from_quaternions(quaternions: torch.Tensor) -> torch.Tensor:
    """Matrices (n, 3, 3) from quaternions (n, 4), scalar first; they are normalised here."""
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def angle_between(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Angle in degrees of the rotation that takes `first` to `second`, both (n, 3, 3)."""
    trace = (first * second).sum((-2, -1))
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))
