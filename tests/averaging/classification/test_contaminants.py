"""Contaminants: a membrane is no class and is given apart; particles stay, also those with neighbours in their boxes."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tomolab import averaging, simulation
from tomolab.simulation import Imaging, densities, membranes
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

BOX, VOXEL_SIZE = 20, 20.0
LARGE = 36
"""Edge of a map that fills a box in all orientations."""


def simulated(maps: dict[str, Volume], count: int, **imaging: Any) -> Subtomograms:
    options: dict[str, Any] = {"snr": 0.3, "shift": 0.05} | imaging
    return simulation.subtomograms(maps, count, imaging=Imaging(**options), box=BOX, seed=5, device="cpu")


def discover(boxes: Subtomograms, labels: pd.Series) -> averaging.Discovery:
    return averaging.discover(boxes, labels, seed=1, iterations=4, progress=False, device="cpu")


@pytest.fixture(scope="module")
def tric() -> Volume:
    return densities.load(["tric"], voxel_size=VOXEL_SIZE, box=BOX)["tric"]


@pytest.fixture(scope="module")
def bilayer() -> Volume:
    """A nearly flat piece of membrane."""
    middle, radius = LARGE // 2 * VOXEL_SIZE, 4000.0
    cell = simulation.Membrane(centre=(middle + radius, middle, middle), radii=(radius,) * 3, roughness=0.0)
    distance = simulation.membrane_distance(cell, shape=(LARGE,) * 3, voxel_size=VOXEL_SIZE)
    return Volume(membranes.profile(distance, resolution=2 * VOXEL_SIZE).numpy(), VOXEL_SIZE)


def test_a_membrane_is_no_class_and_particles_stay(tric: Volume, bilayer: Volume) -> None:
    boxes = simulated({"tric": tric, "membrane": bilayer}, 24)
    truth = boxes.particles.set_index("particle_id")["label"]
    wrong = np.random.default_rng(1).uniform(size=len(truth)) < 0.15
    found = discover(boxes, (truth == "tric").astype(int).where(~wrong, 0))
    membrane = truth.index[truth == "membrane"]
    assert (found.labels[membrane] == -1).mean() > 0.9
    assert (found.labels.drop(membrane) == 0).all()
    assert len(found.volumes) == 1
    (contaminant,) = found.contaminants
    assert set(contaminant.ids) == set(found.reason.index[found.reason == contaminant.reason]) <= set(membrane)
    assert len(contaminant.ids) > 12
    assert "border of the box" in contaminant.reason
    assert contaminant.volume.shape == found.volumes[0].shape
    assert set(found.reason.index) == set(found.labels.index[found.labels < 0])


def test_particles_with_neighbours_at_random_places_stay(tric: Volume) -> None:
    boxes = simulated({"tric": tric}, 24, neighbours=1.5)
    found = discover(boxes, pd.Series(np.arange(24) % 2, index=boxes.ids))
    assert found.contaminants == []
    assert (found.labels >= 0).mean() > 0.9


def test_the_edge_of_a_particle_is_no_class(tric: Volume) -> None:
    """All boxes show the particle at the same distance from the middle, half outside the box."""
    large = np.zeros((LARGE,) * 3, dtype=np.float32)
    first = LARGE // 2 - BOX // 2
    large[first + 8 : first + 8 + BOX, first : first + BOX, first : first + BOX] = tric.data
    boxes = simulated({"edge": Volume(large, VOXEL_SIZE)}, 24)
    found = discover(boxes, pd.Series(0, index=boxes.ids))
    assert (found.labels == -1).all()
    assert len(found.volumes) == 0
    assert len(found.contaminants) == 1
