"""Figures of everything the notebooks look at, under one name.

Each function returns a matplotlib Figure and needs no display; importing this module teaches a notebook to show them.

>>> from tomolab.ui import plots
>>> plots.slices(tomogram)
>>> plots.scatter(points, colour=labels)
"""

from tomolab.ui import style
from tomolab.ui.charts import cluster_sizes, composition, confusion, scatter
from tomolab.ui.conditions import conditions
from tomolab.ui.curves import fsc, histograms, power, profile, profiles, radial_profile
from tomolab.ui.discoveries import novelty
from tomolab.ui.learning import live_training, training
from tomolab.ui.outlines import picks, specimen, surface
from tomolab.ui.pictures import beside, gallery, projections, slices, tilt_images
from tomolab.ui.scoring import matched, scores
from tomolab.ui.subdivision import criteria, dendrogram, stability
from tomolab.ui.surfaces import mesh as volume_mesh
from tomolab.ui.twins import two_averages

__all__ = [
    "beside",
    "cluster_sizes",
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
    "volume_mesh",
]

style.show_in_notebook()
