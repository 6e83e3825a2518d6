"""Simulated specimens, tilt series and subtomograms from atomic structures, each with its truth."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Imaging",
    "Membrane",
    "Microscope",
    "Specimen",
    "Stream",
    "Structure",
    "acquire",
    "subtomograms",
    "tomogram",
]

if TYPE_CHECKING:
    from tomolab.simulation.generator import Stream, subtomograms, tomogram
    from tomolab.simulation.imaging import Imaging
    from tomolab.simulation.membranes import Membrane
    from tomolab.simulation.microscope import Microscope
    from tomolab.simulation.specimen import Specimen
    from tomolab.simulation.structures import Structure
    from tomolab.simulation.tilt_series import acquire
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "generator": ["Stream", "subtomograms", "tomogram"],
            "imaging": ["Imaging"],
            "membranes": ["Membrane"],
            "microscope": ["Microscope"],
            "specimen": ["Specimen"],
            "structures": ["Structure"],
            "tilt_series": ["acquire"],
        },
    )
