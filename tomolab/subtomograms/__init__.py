"""Cut boxes around particles, keep them in memory or in a store on disk, and write them for RELION and Dynamo."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Subtomograms",
    "append",
    "extract",
    "extract_many",
    "find_tomograms",
    "join",
    "open",
    "read_tomogram_list",
    "write_tomogram_list",
]

if TYPE_CHECKING:
    from tomolab.subtomograms.dataset import Subtomograms, append, join, open  # noqa: A004
    from tomolab.subtomograms.extraction import extract
    from tomolab.subtomograms.tomogram_list import extract as extract_many
    from tomolab.subtomograms.tomogram_list import find as find_tomograms
    from tomolab.subtomograms.tomogram_list import read as read_tomogram_list
    from tomolab.subtomograms.tomogram_list import write as write_tomogram_list
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "dataset": ["Subtomograms", "append", "join", "open"],
            "extraction": ["extract"],
            "tomogram_list": [
                "extract as extract_many",
                "find as find_tomograms",
                "read as read_tomogram_list",
                "write as write_tomogram_list",
            ],
        },
    )
