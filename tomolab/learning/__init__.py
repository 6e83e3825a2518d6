"""Compute feature vectors of subtomograms: networks, their training, and baselines without training."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Embedding",
    "Labelled",
    "Network",
    "Recipe",
    "create_network",
    "embed",
    "estimate_training",
    "fit",
    "load_embedding",
    "load_network",
    "network_digest",
    "network_names",
    "principal_components",
    "read_features",
    "shipped_networks",
    "split",
]

if TYPE_CHECKING:
    from tomolab.learning.architectures import Network
    from tomolab.learning.datasets import Labelled, split
    from tomolab.learning.embedding import Embedding, embed
    from tomolab.learning.embedding import load as load_embedding
    from tomolab.learning.feature_files import read_features
    from tomolab.learning.networks import create as create_network
    from tomolab.learning.networks import digest as network_digest
    from tomolab.learning.networks import load as load_network
    from tomolab.learning.networks import names as network_names
    from tomolab.learning.networks import shipped as shipped_networks
    from tomolab.learning.pca import pca as principal_components
    from tomolab.learning.recipes import Recipe
    from tomolab.learning.training import estimate as estimate_training
    from tomolab.learning.training import fit
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "architectures": ["Network"],
            "datasets": ["Labelled", "split"],
            "embedding": ["Embedding", "embed", "load as load_embedding"],
            "feature_files": ["read_features"],
            "networks": [
                "create as create_network",
                "digest as network_digest",
                "load as load_network",
                "names as network_names",
                "shipped as shipped_networks",
            ],
            "pca": ["pca as principal_components"],
            "recipes": ["Recipe"],
            "training": ["estimate as estimate_training", "fit"],
        },
    )
