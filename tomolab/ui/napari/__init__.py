"""The inspector and the viewer in napari, and what napari opens by itself."""
