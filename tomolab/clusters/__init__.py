"""Feature vectors in, clusters out: labels, how many there are, how good they are, and what is new among them.

Everywhere in this package

- `embedding` is an `Embedding`: particle ids and vectors (n, d).
- `labels` is the cluster of each particle, 0 the largest and -1 for none: a Series named "cluster", indexed by particle id. A
  particle that is not in the embedding is a KeyError, and where clusters are needed, labels without any are a ValueError.
- `normalise` scales every vector to length 1 first: the length of a feature vector goes mostly with signal to noise, its
  direction with structure.
- `seed` decides whatever is drawn: the same seed gives the same result.
"""

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
    "split",
    "summary",
]

if TYPE_CHECKING:
    from tomolab.clusters.clustering import Mixture, gaussians, hdbscan, kmeans
    from tomolab.clusters.labels import became, centres, likeness, merge, nearest, split, summary
    from tomolab.clusters.layouts import flat
    from tomolab.clusters.metrics import agreement, by_class
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "clustering": ["Mixture", "gaussians", "hdbscan", "kmeans"],
            "labels": ["became", "centres", "likeness", "merge", "nearest", "split", "summary"],
            "layouts": ["flat"],
            "metrics": ["agreement", "by_class"],
        },
    )
