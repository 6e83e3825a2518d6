"""The inspector and the viewer in napari, and what napari opens by itself."""

from tomolab.ui import modules

__getattr__ = modules(__name__)
