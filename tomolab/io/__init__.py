"""Read and write files of other programs: maps (MRC, OME-Zarr), particle lists, and tilt series of IMOD, SerialEM, Warp,
AreTomo, RELION and STOPGAP; and the files of tomolab in a run folder.

The contrast stays as it is in the file; `tomolab.volumes.invert` inverts it. Order xyz, pixels and Euler angles exist only in
files; inside tomolab arrays are zyx, lengths are in Å and rotations are matrices.

>>> tomogram = volumes.invert(io.read_volume("TS_01.mrc", voxel_size=10.0))
>>> picks = io.read_particles("particles.star", voxel_size=10.0, tilts=(-60, 60))
>>> io.write_particles(picks, "picks.star", voxel_size=10.0)
"""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "atomic",
    "data_folder",
    "fetch_sample",
    "file_name",
    "filter_particles",
    "inside",
    "open_copick",
    "open_run",
    "open_volume",
    "read_particles",
    "read_stack",
    "read_volume",
    "run_scale",
    "sha256",
    "write_copick",
    "write_particles",
    "write_volume",
]

if TYPE_CHECKING:
    from tomolab.io import tilts as tilts
    from tomolab.io.download import fetch_sample
    from tomolab.io.lists.copick import open as open_copick
    from tomolab.io.lists.copick import write as write_copick
    from tomolab.io.lists.filtering import filter_particles
    from tomolab.io.lists.formats import read_particles, write_particles
    from tomolab.io.paths import atomic, data_folder, file_name, inside, sha256
    from tomolab.io.run_folder import open as open_run
    from tomolab.io.run_folder import scale as run_scale
    from tomolab.io.volumes.formats import open_volume, read_volume, write_volume
    from tomolab.io.volumes.mrc import read_stack
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "download": ["fetch_sample"],
            "lists.copick": ["open as open_copick", "write as write_copick"],
            "lists.filtering": ["filter_particles"],
            "lists.formats": ["read_particles", "write_particles"],
            "paths": ["atomic", "data_folder", "file_name", "inside", "sha256"],
            "run_folder": ["open as open_run", "scale as run_scale"],
            "tilts": [],
            "volumes.formats": ["open_volume", "read_volume", "write_volume"],
            "volumes.mrc": ["read_stack"],
        },
    )
