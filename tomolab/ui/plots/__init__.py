"""Take volumes, particles, clusters and curves; give matplotlib figures for the notebooks.

Each function returns a matplotlib Figure and needs no display. After the import a notebook shows the figures.

>>> from tomolab.ui import plots
>>> plots.slices(tomogram)
>>> plots.scatter(points, colour=labels)
"""

from tomolab.ui import style
from tomolab.ui.plots.cluster_validation import criteria, dendrogram, stability
from tomolab.ui.plots.clusters import composition, confusion, scatter
from tomolab.ui.plots.comparison import two_averages
from tomolab.ui.plots.curves import fsc, histograms, power, profile, profiles, radial_profile
from tomolab.ui.plots.experiment_curves import conditions
from tomolab.ui.plots.learning import live_training, training
from tomolab.ui.plots.novelty_chart import novelty
from tomolab.ui.plots.particles import picks, specimen, surface
from tomolab.ui.plots.picking import ThresholdSlider, matched, scores
from tomolab.ui.plots.volumes import beside, gallery, projections, slices, tilt_images

__all__ = [
    "ThresholdSlider",
    "beside",
    "composition",
    "conditions",
    "confusion",
    "criteria",
    "dendrogram",
    "fsc",
    "gallery",
    "histograms",
    "live_training",
    "matched",
    "novelty",
    "picks",
    "power",
    "profile",
    "profiles",
    "projections",
    "radial_profile",
    "scatter",
    "scores",
    "slices",
    "specimen",
    "stability",
    "surface",
    "tilt_images",
    "training",
    "two_averages",
]

style.show_in_notebook()
