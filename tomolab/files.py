"""The only door to files of other programs: maps (MRC, OME-Zarr), particle lists, and tilt series of IMOD, SerialEM, Warp,
AreTomo, RELION and STOPGAP.

Contrast is left as it is in the file; `tomolab.volumes.invert` turns it. Order xyz, pixels and Euler angles stay on the
far side of this door.

>>> tomogram = volumes.invert(files.read_volume("TS_01.mrc", voxel_size=10.0))
>>> picks = files.read_particles("particles.star", voxel_size=10.0, tilts=(-60, 60))
>>> files.write_particles(picks, "picks.star", voxel_size=10.0)
"""

from tomolab.aretomo import read_aretomo
from tomolab.copies import filter_particles
from tomolab.lists import read_particles, write_particles
from tomolab.maps import open_volume, read_volume, write_volume
from tomolab.mdoc import read_mdoc
from tomolab.mrc import read_stack
from tomolab.paths import atomic, data_folder, inside, sha256
from tomolab.tilts import read_excluded, read_offset, read_tilts, read_transforms
from tomolab.tiltstar import read_tilt_star
from tomolab.warp import read_tomostar, read_warp

__all__ = [
    "atomic",
    "data_folder",
    "filter_particles",
    "inside",
    "open_volume",
    "read_aretomo",
    "read_excluded",
    "read_mdoc",
    "read_offset",
    "read_particles",
    "read_stack",
    "read_tilt_star",
    "read_tilts",
    "read_tomostar",
    "read_transforms",
    "read_volume",
    "read_warp",
    "sha256",
    "write_particles",
    "write_volume",
]
