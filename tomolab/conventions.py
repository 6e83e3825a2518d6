"""The conventions of the package, stated once.

- Arrays are (z, y, x). Lengths are in Å, angles at the doors in degrees; inside, rotations are matrices.
- The centre of n voxels is index ``n // 2``. Position (0, 0, 0) is the centre of voxel (0, 0, 0).
- A rotation maps the reference into the tomogram and acts on zyx column vectors: a reference point ``r`` (from the
  centre) of a particle at ``p`` lies at ``p + R @ r``. Only proper rotations (determinant +1).
- The tilt axis is y and the beam runs along z. At tilt ``t`` a point (x, z) about the axis projects to
  ``x cos t + z sin t``; so a tilt observes the Fourier plane whose direction in (kx, kz) is (cos t, sin t).
- At tilt ``t`` that point lies at height ``z cos t - x sin t``. Its underfocus is that of the image plus ``HAND`` times the
  height: of two points at one place, the one at larger z is farther under focus. Series of other microscopes may have
  the other hand.
- Density is bright on dark. Contrast is inverted at the door and recorded.
- SNR is the variance of the signal after CTF and wedge over the variance of the noise.

xyz order, Euler angles and pixel coordinates exist only at the file doors (`tomolab.io`, `tomolab.particles`).
"""

POSITION = ["z", "y", "x"]
"""Particle table: position in Å."""
ANGLES = ["rot", "tilt", "psi"]
"""Particle table: orientation as RELION Euler angles (intrinsic ZYZ) in degrees."""
WEDGE = ["tilt_min", "tilt_max"]
"""Particle table: the tilts, in degrees, between which the particle was observed."""
AXIS = "tilt_axis"
"""Particle table: direction of the tilt axis in degrees from y towards x; 0 where there is no such column."""
SOURCE = ["source_list", "source_row"]
"""Particle table: fingerprint of the list of another program from which a particle was read, and its row, counted from 0."""
READ_POSE = ["source_z", "source_y", "source_x", "source_rot", "source_tilt", "source_psi"]
"""Particle table: position in Å and angles, counted from those of the subtomogram, that the list had when it was read."""
BOX = ["source_box_z", "source_box_y", "source_box_x"]
"""Particle table: centre in Å of the box that another program cut for the particle."""
VOXEL_SIZE = "voxel_size"
"""In ``attrs`` of what a reader gives: Å per voxel of the coordinates, where the list says it."""
TEXTS = ("tomogram", "label", "cluster_name", "average")
"""Particle table: names, which stay text where all of them look like numbers."""

HAND = 1
"""Sign with which the underfocus of a point grows with its height."""


def centre(voxels: int) -> int:
    """Index of the centre of `voxels` voxels along one axis."""
    return voxels // 2
