"""Take particles and labels; select, name, merge, split and average clusters with undo; save sessions in the run folder."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Inspection",
    "Selection",
    "Session",
    "export",
    "import_data",
    "load_selection",
    "open",
    "selection_from_cluster",
]

if TYPE_CHECKING:
    from tomolab.inspection.exports import export
    from tomolab.inspection.importing import import_data
    from tomolab.inspection.model import Inspection, open  # noqa: A004
    from tomolab.inspection.selection import Selection
    from tomolab.inspection.selection import from_cluster as selection_from_cluster
    from tomolab.inspection.selection import load as load_selection
    from tomolab.inspection.session import Session
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "exports": ["export"],
            "importing": ["import_data"],
            "model": ["Inspection", "open"],
            "selection": ["Selection", "from_cluster as selection_from_cluster", "load as load_selection"],
            "session": ["Session"],
        },
    )
