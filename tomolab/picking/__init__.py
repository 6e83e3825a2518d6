"""Find particles in tomograms: candidates without a template, masks, and score thresholds."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "candidates",
    "cell_mask",
    "choose",
    "count_status",
    "evaluate",
    "fiducial_mask",
    "inner_mask",
    "membrane_mask",
]

if TYPE_CHECKING:
    from tomolab.picking.dog import candidates
    from tomolab.picking.masks import cell as cell_mask
    from tomolab.picking.masks import fiducial_mask
    from tomolab.picking.masks import inner as inner_mask
    from tomolab.picking.masks import membranes as membrane_mask
    from tomolab.picking.thresholds import choose, count_status, evaluate
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "dog": ["candidates"],
            "masks": ["cell as cell_mask", "fiducial_mask", "inner as inner_mask", "membranes as membrane_mask"],
            "thresholds": ["choose", "count_status", "evaluate"],
        },
    )
