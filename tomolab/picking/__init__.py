"""Find particles in tomograms: candidates without a template, masks, and score thresholds."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "apart",
    "candidates",
    "cell_mask",
    "choose",
    "count_status",
    "difference_of_gaussians",
    "evaluate",
    "false_discovery",
    "fiducial_mask",
    "inner_mask",
    "membrane_mask",
]

if TYPE_CHECKING:
    from tomolab.picking.dog import candidates, difference_of_gaussians
    from tomolab.picking.masks import beads as fiducial_mask
    from tomolab.picking.masks import cell as cell_mask
    from tomolab.picking.masks import inner as inner_mask
    from tomolab.picking.membranes import membranes as membrane_mask
    from tomolab.picking.thresholds import apart, choose
    from tomolab.picking.thresholds import false_share as false_discovery
    from tomolab.picking.thresholds import fates as count_status
    from tomolab.picking.thresholds import score as evaluate
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "dog": ["candidates", "difference_of_gaussians"],
            "masks": ["beads as fiducial_mask", "cell as cell_mask", "inner as inner_mask"],
            "membranes": ["membranes as membrane_mask"],
            "thresholds": ["apart", "choose", "false_share as false_discovery", "fates as count_status", "score as evaluate"],
        },
    )
