"""tomolab: from cryo-electron tomograms to clusters of unknown complexes and their averages.

The packages in the order of the flow of the data:

simulation      specimens, tilt series and subtomograms with their truth
tomograms       tilt series become tomograms
picking         where particles are
subtomograms    boxes cut around them
learning        boxes become feature vectors
clusters        feature vectors become clusters
averaging       the structure of each cluster
inspection      decisions of a person about clusters and particles
io              files of other programs and our own
ui              figures, notebook widgets, napari
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

PACKAGES = (
    "averaging",
    "clusters",
    "inspection",
    "io",
    "learning",
    "picking",
    "simulation",
    "subtomograms",
    "tomograms",
    "ui",
)


def attach(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the two functions by which a package offers names of its modules without loading these before they are asked for.

    Parameters
    ----------
    package
        Its full name.
    homes
        For each module, by its name in the package, the names that are offered.

    Returns
    -------
    tuple of callable
        ``__getattr__`` and ``__dir__`` of the package (PEP 562).
    """
    where = {name: f"{package}.{home}" for home, names in homes.items() for name in names}

    def find(name: str) -> object:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(where[name]), name)

    def names() -> list[str]:
        return sorted(where)

    return find, names


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in PACKAGES:
            return import_module(f"tomolab.{name}")
        raise AttributeError(f"module 'tomolab' has no attribute {name!r}")
