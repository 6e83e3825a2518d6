"""Tomograms in, places of particles out: candidates without a template, masks, and thresholds to choose by."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "apart",
    "beads",
    "candidates",
    "choose",
    "difference_of_gaussians",
    "false_share",
    "fates",
    "score",
]

if TYPE_CHECKING:
    from tomolab.picking.dog import candidates, difference_of_gaussians
    from tomolab.picking.masks import beads
    from tomolab.picking.thresholds import apart, choose, false_share, fates, score
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "dog": ["candidates", "difference_of_gaussians"],
            "masks": ["beads"],
            "thresholds": ["apart", "choose", "false_share", "fates", "score"],
        },
    )
