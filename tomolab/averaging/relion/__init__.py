"""RELION: refine subtomograms with it where it is installed, and read its result as an average."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "available",
    "read",
    "reconstruct",
    "refine",
    "write",
]

if TYPE_CHECKING:
    from tomolab.averaging.relion.job import available, read, reconstruct, refine, write
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "job": ["available", "read", "reconstruct", "refine", "write"],
        },
    )
