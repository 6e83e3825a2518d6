"""Reconstruct tomograms from tilt series: read, clean and align images, erase gold beads, weighted back-projection."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "TiltSeries",
    "dose_symmetric",
    "erase_fiducials",
    "histograms",
    "mean_profile",
    "moments",
    "outliers",
    "power_ratio",
    "radial_power",
    "read_tilt_series",
    "reconstruct",
]

if TYPE_CHECKING:
    from tomolab.tomograms.fiducials import erase as erase_fiducials
    from tomolab.tomograms.reconstruction import reconstruct
    from tomolab.tomograms.statistics import histograms, moments
    from tomolab.tomograms.statistics import power as radial_power
    from tomolab.tomograms.statistics import profile as mean_profile
    from tomolab.tomograms.statistics import ratio as power_ratio
    from tomolab.tomograms.tilt_series import TiltSeries, dose_symmetric, outliers
    from tomolab.tomograms.tilt_series import read as read_tilt_series
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "fiducials": ["erase as erase_fiducials"],
            "reconstruction": ["reconstruct"],
            "statistics": ["histograms", "moments", "power as radial_power", "profile as mean_profile", "ratio as power_ratio"],
            "tilt_series": ["TiltSeries", "dose_symmetric", "outliers", "read as read_tilt_series"],
        },
    )
