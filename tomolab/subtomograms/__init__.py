"""Boxes cut around particles, in memory or in a store on disk, and folders of them for RELION and Dynamo."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Subtomograms",
    "append",
    "extract",
    "join",
    "open",
]

if TYPE_CHECKING:
    from tomolab.subtomograms.dataset import Subtomograms, append, join, open  # noqa: A004
    from tomolab.subtomograms.extraction import extract
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "dataset": ["Subtomograms", "append", "join", "open"],
            "extraction": ["extract"],
        },
    )
