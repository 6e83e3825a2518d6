"""Figures of everything the notebooks look at, under one name.

Each function returns a matplotlib Figure and needs no display; importing this module teaches a notebook to show them.

>>> from tomolab.ui import plots
>>> plots.slices(tomogram)
>>> plots.scatter(points, colour=labels)
"""

from tomolab.ui import style
from tomolab.ui.charts import cluster_sizes, composition, confusion, scatter
from tomolab.ui.curves import fsc, profile, radial_profile, training
from tomolab.ui.outlines import picks, surface
from tomolab.ui.pictures import gallery, projections, slices
from tomolab.ui.surfaces import mesh as volume_mesh

__all__ = [
    "cluster_sizes",
    "composition",
    "confusion",
    "fsc",
    "gallery",
    "picks",
    "profile",
    "projections",
    "radial_profile",
    "scatter",
    "slices",
    "surface",
    "training",
    "volume_mesh",
]

style.show_in_notebook()
