"""Looking: figures, the lasso scatter and napari. The only place of matplotlib, jupyter-scatter and napari."""
