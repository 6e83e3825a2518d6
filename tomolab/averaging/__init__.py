"""Subtomograms in, structures out: poses, half maps, Fourier shell correlation, symmetry, classes and handedness."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Average",
    "Poses",
    "align_map",
    "average",
    "correlate",
    "load",
    "with_poses",
]

if TYPE_CHECKING:
    from tomolab.averaging.alignment import Poses, align_map
    from tomolab.averaging.fsc import correlate
    from tomolab.averaging.gold_standard import average
    from tomolab.averaging.half_maps import Average, load
    from tomolab.averaging.reconstruction import with_poses
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "alignment": ["Poses", "align_map"],
            "fsc": ["correlate"],
            "gold_standard": ["average"],
            "half_maps": ["Average", "load"],
            "reconstruction": ["with_poses"],
        },
    )
