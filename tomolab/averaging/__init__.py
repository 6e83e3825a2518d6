"""Compute structures from subtomograms: poses, half maps, Fourier shell correlation, symmetry, classes and handedness."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Average",
    "Catalogue",
    "Discovery",
    "Poses",
    "align_map",
    "apply_fit",
    "average",
    "classify",
    "compare_hands",
    "correlate",
    "discover",
    "find_initial_model",
    "identify",
    "load",
    "score_matches",
    "select_matches",
    "validate_cluster",
    "with_poses",
]

if TYPE_CHECKING:
    from tomolab.averaging import relion as relion
    from tomolab.averaging.alignment import Poses, align_map
    from tomolab.averaging.alignment import apply as apply_fit
    from tomolab.averaging.classification.classify import classify
    from tomolab.averaging.classification.discovery import Discovery, discover
    from tomolab.averaging.cluster_validation import validate_cluster
    from tomolab.averaging.fsc import correlate
    from tomolab.averaging.gold_standard import average
    from tomolab.averaging.half_maps import Average, load
    from tomolab.averaging.handedness import compare_hands
    from tomolab.averaging.identification.catalogue import Catalogue
    from tomolab.averaging.identification.identity import identify
    from tomolab.averaging.initial_model import find as find_initial_model
    from tomolab.averaging.matching import score as score_matches
    from tomolab.averaging.matching import select as select_matches
    from tomolab.averaging.reconstruction import with_poses
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "alignment": ["Poses", "align_map", "apply as apply_fit"],
            "classification.classify": ["classify"],
            "classification.discovery": ["Discovery", "discover"],
            "cluster_validation": ["validate_cluster"],
            "fsc": ["correlate"],
            "gold_standard": ["average"],
            "half_maps": ["Average", "load"],
            "handedness": ["compare_hands"],
            "identification.catalogue": ["Catalogue"],
            "identification.identity": ["identify"],
            "initial_model": ["find as find_initial_model"],
            "matching": ["select as select_matches", "score as score_matches"],
            "relion": [],
            "reconstruction": ["with_poses"],
        },
    )
