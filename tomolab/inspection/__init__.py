"""What a person decides about particles, step by step, and the run folder it rests on; no screen in here."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Inspection",
    "Selection",
    "Session",
    "export",
    "from_cluster",
    "open",
]

if TYPE_CHECKING:
    from tomolab.inspection.exports import export
    from tomolab.inspection.model import Inspection, open  # noqa: A004
    from tomolab.inspection.selection import Selection, from_cluster
    from tomolab.inspection.session import Session
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "exports": ["export"],
            "model": ["Inspection", "open"],
            "selection": ["Selection", "from_cluster"],
            "session": ["Session"],
        },
    )
