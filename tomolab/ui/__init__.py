"""Take data of the other packages; give figures, notebook widgets and napari layers.

Only this package imports matplotlib, jupyter-scatter and napari. Extras install them; if one is missing, the error of
``from tomolab.ui import plots`` names the extra.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from tomolab import attach

LAB, NAPARI = "pip install 'tomolab[lab]'", "pip install 'tomolab[napari]'"
INSTALL = {
    **dict.fromkeys(("jinja2", "matplotlib"), f"{LAB}, or {NAPARI}"),
    **dict.fromkeys(
        ("IPython", "anywidget", "ipywidgets", "jscatter", "jupyter_server", "k3d", "nbformat", "traitlets", "voila"), LAB
    ),
    **dict.fromkeys(("napari", "qtpy"), NAPARI),
}
"""Command that installs each optional package."""


def require(package: str, *, by: str = __name__) -> ModuleType:
    """Import a package of an extra.

    Parameters
    ----------
    package
        A key of `INSTALL`.
    by
        Name of what needs it, for the error.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed; the message names the extra.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(f"{by} needs {package}, which is not installed: {INSTALL[package]}", name=package) from error


def modules(
    package: str, homes: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Import the names and modules of a package lazily; the error of a missing package names its extra.

    Parameters
    ----------
    package
        Its full name.
    homes
        Its public names, as in `tomolab.attach`.

    Returns
    -------
    tuple of callable
        ``__getattr__`` and ``__dir__`` of the package.
    """
    public, names = attach(package, homes)

    def find(name: str) -> object:
        whole = f"{package}.{name}"
        try:
            return public(name) if name in names() else import_module(whole)
        except ModuleNotFoundError as error:
            if error.name == whole:
                raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
            if error.name in INSTALL:
                require(error.name, by=whole)
            raise

    return find, names


require("matplotlib")

__all__ = [
    "write_report",
]

if TYPE_CHECKING:
    from tomolab.ui.report import write as write_report
else:
    __getattr__, __dir__ = modules(
        __name__,
        {
            "report": ["write as write_report"],
        },
    )
