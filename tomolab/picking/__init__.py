"""Tomograms in, positions of particles out: candidates without a template, masks, and thresholds to choose by."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "candidates",
    "choose",
    "count_status",
    "evaluate",
    "false_discovery",
    "fiducial_mask",
]

if TYPE_CHECKING:
    from tomolab.picking.dog import candidates
    from tomolab.picking.masks import fiducial_mask
    from tomolab.picking.thresholds import choose, count_status, evaluate, false_discovery
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "dog": ["candidates"],
            "masks": ["fiducial_mask"],
            "thresholds": ["choose", "count_status", "evaluate", "false_discovery"],
        },
    )
