"""Feature vectors in, clusters out: labels, how many there are, how good they are, and what is new among them."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Mixture",
    "agreement",
    "became",
    "by_class",
    "centres",
    "flat",
    "gaussians",
    "hdbscan",
    "kmeans",
    "likeness",
    "merge",
    "nearest",
    "purity",
    "split",
    "summary",
]

if TYPE_CHECKING:
    from tomolab.clusters.clustering import Mixture, gaussians, hdbscan, kmeans
    from tomolab.clusters.labels import became, centres, likeness, merge, nearest, split, summary
    from tomolab.clusters.layouts import flat
    from tomolab.clusters.metrics import agreement, by_class, purity
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "clustering": ["Mixture", "gaussians", "hdbscan", "kmeans"],
            "labels": ["became", "centres", "likeness", "merge", "nearest", "split", "summary"],
            "layouts": ["flat"],
            "metrics": ["agreement", "by_class", "purity"],
        },
    )
