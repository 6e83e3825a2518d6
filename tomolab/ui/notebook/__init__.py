"""The inspector in the browser and its parts, as Jupyter widgets."""
