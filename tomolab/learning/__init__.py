"""Subtomograms in, feature vectors out: networks, their training, and baselines without training."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Embedding",
    "Labelled",
    "Network",
    "Recipe",
    "embed",
    "fit",
    "read_features",
]

if TYPE_CHECKING:
    from tomolab.learning.architectures import Network
    from tomolab.learning.datasets import Labelled
    from tomolab.learning.embedding import Embedding, embed
    from tomolab.learning.feature_files import read_features
    from tomolab.learning.recipes import Recipe
    from tomolab.learning.training import fit
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "architectures": ["Network"],
            "datasets": ["Labelled"],
            "embedding": ["Embedding", "embed"],
            "feature_files": ["read_features"],
            "recipes": ["Recipe"],
            "training": ["fit"],
        },
    )
