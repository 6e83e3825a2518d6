"""Read the metadata of tilt series, one module for each program."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "read_aretomo",
    "read_excluded",
    "read_mdoc",
    "read_offset",
    "read_tilt_star",
    "read_tilts",
    "read_tomostar",
    "read_transforms",
    "read_warp",
]

if TYPE_CHECKING:
    from tomolab.io.tilts.aretomo import read_aretomo
    from tomolab.io.tilts.imod import read_excluded, read_offset, read_tilts, read_transforms
    from tomolab.io.tilts.serialem import read_mdoc
    from tomolab.io.tilts.star import read_tilt_star
    from tomolab.io.tilts.warp import read_tomostar, read_warp
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "aretomo": ["read_aretomo"],
            "imod": ["read_excluded", "read_offset", "read_tilts", "read_transforms"],
            "serialem": ["read_mdoc"],
            "star": ["read_tilt_star"],
            "warp": ["read_tomostar", "read_warp"],
        },
    )
