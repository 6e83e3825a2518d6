"""Cluster feature vectors: labels, number of clusters, validation, and novelty of clusters.

In all functions of this package

- `embedding` is an `Embedding`: particle ids and vectors (n, d).
- `labels` is the cluster of each particle, 0 for the largest and -1 for none: a Series named "cluster", indexed by particle id.
  A particle that is not in the embedding is a KeyError. Labels without any cluster are a ValueError where clusters are needed.
- `normalise` first scales every vector to length 1: the length of a feature vector depends mostly on signal to noise, its
  direction on structure.
- `seed` fixes all random numbers: the same seed gives the same result.
"""

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
    from tomolab.clusters.metrics import agreement, by_class
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
            "metrics": ["agreement", "by_class"],
            "novelty": ["reference as novelty_reference"],
            "validation": ["choose as propose_number", "criteria", "stability"],
        },
    )
