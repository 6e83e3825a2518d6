"""Tilt series in, tomograms out: gold is filled, images are normalised and aligned, weighted back-projection."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "TiltSeries",
    "dose_symmetric",
    "reconstruct",
]

if TYPE_CHECKING:
    from tomolab.tomograms.reconstruction import reconstruct
    from tomolab.tomograms.tilt_series import TiltSeries, dose_symmetric
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "reconstruction": ["reconstruct"],
            "tilt_series": ["TiltSeries", "dose_symmetric"],
        },
    )
