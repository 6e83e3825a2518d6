"""Tomograms in, places of particles out: candidates without a template, masks, and thresholds to choose by."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "apart",
    "bead_mask",
    "candidates",
    "cell_mask",
    "choose",
    "difference_of_gaussians",
    "evaluate",
    "false_share",
    "fates",
    "find_slab",
    "inner_mask",
    "membrane_mask",
]

if TYPE_CHECKING:
    from tomolab.picking.dog import candidates, difference_of_gaussians
    from tomolab.picking.masks import beads as bead_mask
    from tomolab.picking.masks import cell as cell_mask
    from tomolab.picking.masks import find_slab
    from tomolab.picking.masks import inner as inner_mask
    from tomolab.picking.membranes import membranes as membrane_mask
    from tomolab.picking.thresholds import apart, choose, false_share, fates
    from tomolab.picking.thresholds import score as evaluate
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "dog": ["candidates", "difference_of_gaussians"],
            "masks": ["beads as bead_mask", "cell as cell_mask", "find_slab", "inner as inner_mask"],
            "membranes": ["membranes as membrane_mask"],
            "thresholds": ["apart", "choose", "false_share", "fates", "score as evaluate"],
        },
    )
