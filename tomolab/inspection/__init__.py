"""Take particles and labels; select, name, merge, split and average clusters with undo; save sessions in the run folder."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Inspection",
    "Selection",
    "Session",
    "add_context",
    "export",
    "import_data",
    "load_selection",
    "open",
    "selection_from_cluster",
    "write_mask",
]

if TYPE_CHECKING:
    from tomolab.inspection.context import add as add_context
    from tomolab.inspection.exports import export
    from tomolab.inspection.importing import import_data
    from tomolab.inspection.model import Inspection, open  # noqa: A004
    from tomolab.inspection.run_contents import write_mask
    from tomolab.inspection.selection import Selection
    from tomolab.inspection.selection import from_cluster as selection_from_cluster
    from tomolab.inspection.selection import load as load_selection
    from tomolab.inspection.session import Session
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "context": ["add as add_context"],
            "exports": ["export"],
            "importing": ["import_data"],
            "model": ["Inspection", "open"],
            "run_contents": ["write_mask"],
            "selection": ["Selection", "from_cluster as selection_from_cluster", "load as load_selection"],
            "session": ["Session"],
        },
    )
