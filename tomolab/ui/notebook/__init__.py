"""The inspector in the browser and its parts, as Jupyter widgets."""

from tomolab.ui import modules

__getattr__ = modules(__name__)
