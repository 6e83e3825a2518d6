"""Simulate specimens, tilt series and subtomograms from atomic structures, with known truth."""

from typing import TYPE_CHECKING

from tomolab import attach

__all__ = [
    "Imaging",
    "Membrane",
    "Microscope",
    "Specimen",
    "Stream",
    "Structure",
    "accessible_volume",
    "acquire",
    "build_specimen",
    "catalogue",
    "counts_for_concentrations",
    "density_from_structure",
    "estimate",
    "fetch_structure",
    "load_densities",
    "membrane_distance",
    "read_structure",
    "subtomograms",
    "tomogram",
]

if TYPE_CHECKING:
    from tomolab.simulation.densities import catalogue
    from tomolab.simulation.densities import from_structure as density_from_structure
    from tomolab.simulation.densities import load as load_densities
    from tomolab.simulation.generator import Stream, estimate, subtomograms, tomogram
    from tomolab.simulation.imaging import Imaging
    from tomolab.simulation.membranes import Membrane
    from tomolab.simulation.membranes import distance as membrane_distance
    from tomolab.simulation.microscope import Microscope
    from tomolab.simulation.specimen import Specimen, accessible_volume, counts_for_concentrations
    from tomolab.simulation.specimen import build as build_specimen
    from tomolab.simulation.structures import Structure
    from tomolab.simulation.structures import fetch as fetch_structure
    from tomolab.simulation.structures import read as read_structure
    from tomolab.simulation.tilt_series import acquire
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "densities": ["catalogue", "from_structure as density_from_structure", "load as load_densities"],
            "generator": ["Stream", "estimate", "subtomograms", "tomogram"],
            "imaging": ["Imaging"],
            "membranes": ["Membrane", "distance as membrane_distance"],
            "microscope": ["Microscope"],
            "specimen": [
                "Specimen",
                "accessible_volume",
                "build as build_specimen",
                "counts_for_concentrations",
            ],
            "structures": ["Structure", "fetch as fetch_structure", "read as read_structure"],
            "tilt_series": ["acquire"],
        },
    )
