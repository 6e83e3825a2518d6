"""Looking: figures, the lasso scatter and napari. The only place of matplotlib, jupyter-scatter and napari.

These come with extras: where what a module needs is not installed, ``from tomolab.ui import plots`` says which extra has it.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

LAB, NAPARI = "pip install 'tomolab[lab]'", "pip install 'tomolab[napari]'"
INSTALL = {
    **dict.fromkeys(("jinja2", "matplotlib"), f"{LAB}, or {NAPARI}"),
    **dict.fromkeys(("IPython", "anywidget", "ipywidgets", "jscatter", "traitlets"), LAB),
    **dict.fromkeys(("napari", "qtpy"), NAPARI),
}
"""How to install what modules in here import, by its name."""


def require(package: str, *, by: str = __name__) -> ModuleType:
    """Import a package that an extra brings.

    Parameters
    ----------
    package
        A key of `INSTALL`.
    by
        What needs it.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed; the message says which extra brings it.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(f"{by} needs {package}, which is not installed: {INSTALL[package]}", name=package) from error


def modules(package: str) -> Callable[[str], ModuleType]:
    """Give the ``__getattr__`` of a package: it imports a module that is asked for, and says which extra that lacks."""

    def find(name: str) -> ModuleType:
        whole = f"{package}.{name}"
        try:
            return import_module(whole)
        except ModuleNotFoundError as error:
            if error.name == whole:
                raise AttributeError(f"module {package} has no attribute {name}") from None
            if error.name in INSTALL:
                require(error.name, by=whole)
            raise

    return find


__getattr__ = modules(__name__)
require("matplotlib")
