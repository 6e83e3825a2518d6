"""Cluster feature vectors: labels, number of clusters, validation, and novelty of clusters."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Mixture",
    "agreement",
    "became",
    "by_class",
    "centres",
    "criteria",
    "cut_tree",
    "gaussians",
    "hdbscan",
    "kmeans",
    "layout",
    "likeness",
    "merge",
    "merge_tree",
    "nearest",
    "novelty_reference",
    "propose_number",
    "purity",
    "split",
    "stability",
    "summary",
]

if TYPE_CHECKING:
    from tomolab.clusters.clustering import Mixture, gaussians, hdbscan, kmeans
    from tomolab.clusters.hierarchy import cut as cut_tree
    from tomolab.clusters.hierarchy import merges as merge_tree
    from tomolab.clusters.labels import became, centres, likeness, merge, nearest, split, summary
    from tomolab.clusters.layouts import flat as layout
    from tomolab.clusters.metrics import agreement, by_class, purity
    from tomolab.clusters.novelty import reference as novelty_reference
    from tomolab.clusters.validation import choose as propose_number
    from tomolab.clusters.validation import criteria, stability
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "clustering": ["Mixture", "gaussians", "hdbscan", "kmeans"],
            "hierarchy": ["cut as cut_tree", "merges as merge_tree"],
            "labels": ["became", "centres", "likeness", "merge", "nearest", "split", "summary"],
            "layouts": ["flat as layout"],
            "metrics": ["agreement", "by_class", "purity"],
            "novelty": ["reference as novelty_reference"],
            "validation": ["choose as propose_number", "criteria", "stability"],
        },
    )
