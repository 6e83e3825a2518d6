"""tomolab: from cryo-electron tomograms to clusters of unknown complexes and their averages.

The packages in the order of the flow of the data:

simulation      simulate specimens, tilt series and subtomograms with known truth
tomograms       reconstruct tomograms from tilt series
picking         find particles in tomograms
subtomograms    cut boxes around particles
learning        compute feature vectors of boxes with networks
clusters        cluster feature vectors
averaging       compute the structure of a cluster
inspection      select, name, merge and split clusters by hand
io              read and write files of other programs and our own
ui              figures, notebook widgets, napari

The ``__init__`` of each package lists its public names. Notebooks import packages: ``from tomolab import simulation, io``.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

# Threads of OpenMP that wait for each other sleep instead of keeping the cores from other processes. OpenMP reads this when
# PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
        For each module of the package, the names that are offered; ``"load as load_network"`` offers `load` as `load_network`.
        No names offer the module itself, which is for packages within the package.

    Returns
    -------
    tuple of callable
        ``__getattr__`` and ``__dir__`` of the package (PEP 562).
    """
    where: dict[str, tuple[str, str]] = {}
    for module, offered in homes.items():
        for text in offered:
            own, _, public = text.partition(" as ")
            where[public or own] = (f"{package}.{module}", own)

    def find(name: str) -> object:
        if name in where:
            module, own = where[name]
            return getattr(import_module(module), own)
        if name in homes and not homes[name]:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted(where)

    return find, names


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in PACKAGES:
            return import_module(f"tomolab.{name}")
        raise AttributeError(f"module 'tomolab' has no attribute {name!r}")
