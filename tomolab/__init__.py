"""tomolab: from cryo-electron tomograms to clusters of unknown complexes and their averages.

The module is the namespace: ``from tomolab import densities, simulation, training``.
"""

__version__ = "0.1.0"
