"""What a person decides about particles, step by step, and the run folder it rests on; no screen in here."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Inspection",
    "Selection",
    "Session",
    "load_selection",
    "open",
    "selection_from_cluster",
]

if TYPE_CHECKING:
    from tomolab.inspection.model import Inspection, open  # noqa: A004
    from tomolab.inspection.selection import Selection
    from tomolab.inspection.selection import from_cluster as selection_from_cluster
    from tomolab.inspection.selection import load as load_selection
    from tomolab.inspection.session import Session
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "model": ["Inspection", "open"],
            "selection": ["Selection", "from_cluster as selection_from_cluster", "load as load_selection"],
            "session": ["Session"],
        },
    )
