"""Take tomograms, particles, averages and inspections; show them in napari, with an inspector and a plugin."""

from typing import TYPE_CHECKING

from tomolab.ui import modules

__all__ = [
    "display_problem",
    "link_inspection",
    "open_viewer",
    "screenshot",
    "show_averages",
    "show_plane",
    "show_tomogram",
    "viewer_model",
]

if TYPE_CHECKING:
    from tomolab.ui.napari.display_check import display_problem
    from tomolab.ui.napari.link import link as link_inspection
    from tomolab.ui.napari.viewer import averages as show_averages
    from tomolab.ui.napari.viewer import model as viewer_model
    from tomolab.ui.napari.viewer import open as open_viewer
    from tomolab.ui.napari.viewer import plane as show_plane
    from tomolab.ui.napari.viewer import screenshot
    from tomolab.ui.napari.viewer import tomogram as show_tomogram
else:
    __getattr__, __dir__ = modules(
        __name__,
        {
            "display_check": ["display_problem"],
            "link": ["link as link_inspection"],
            "viewer": [
                "averages as show_averages",
                "model as viewer_model",
                "open as open_viewer",
                "plane as show_plane",
                "screenshot",
                "tomogram as show_tomogram",
            ],
        },
    )
