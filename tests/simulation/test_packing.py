import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab.simulation.packing import Occupancy, Shape

HOOK = np.zeros((5, 6, 7), dtype=bool)
HOOK[1, 1:5, 2] = HOOK[1:4, 1, 2] = HOOK[1, 4, 2:6] = True


def test_shape_holds_the_voxels_of_its_mask() -> None:
    shape = Shape.of(HOOK)
    again = np.zeros_like(HOOK)
    again[tuple((shape.voxels + shape.corner).T)] = True
    assert (again == HOOK).all()
    assert shape.extent.tolist() == [3, 4, 4]
    assert len(shape.voxels) == HOOK.sum()
    with pytest.raises(ValueError, match="empty"):
        Shape.of(np.zeros((3, 3, 3), dtype=bool))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), density=st.floats(0.001, 0.03))
def test_shapes_never_overlap_nor_leave_the_volume(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    taken = rng.random((15, 17, 16)) < density
    occupancy, shape = Occupancy(taken.copy()), Shape.of(rng.random((7, 6, 8)) < 0.6)
    placed = taken.astype(int)
    while (place := occupancy.find(shape, rng, tries=3000)) is not None:
        at = shape.voxels + place
        assert (at >= 0).all()
        assert (at < taken.shape).all()
        placed[tuple(at.T)] += 1
        occupancy.occupy(shape, place)
    assert placed.max() == 1
    assert ((placed > 0) == occupancy.occupied).all()


def test_a_shape_finds_the_only_hole_that_has_its_form() -> None:
    taken = np.ones((30, 30, 30), dtype=bool)
    shape = Shape.of(HOOK)
    taken[tuple((shape.voxels + np.array([7, 11, 20])).T)] = False
    assert Occupancy(taken).find(shape, np.random.default_rng(0)).tolist() == [7, 11, 20]
    mirrored = Shape.of(HOOK[:, :, ::-1])
    assert Occupancy(taken).find(mirrored, np.random.default_rng(0)) is None


def test_free_places_are_equally_likely() -> None:
    taken = np.ones((3, 1, 40), dtype=bool)
    taken[1, 0, :4] = taken[1, 0, 20:24] = False
    rng, dimer = np.random.default_rng(0), Shape.of(np.ones((1, 1, 2), dtype=bool))
    found = [int(Occupancy(taken).find(dimer, rng)[2]) for _ in range(3000)]
    counts = np.bincount(found, minlength=40)[[0, 1, 2, 20, 21, 22]]
    assert counts.sum() == 3000
    assert np.abs(counts - 500).max() < 100


def test_limits_are_kept_and_what_is_too_large_finds_none() -> None:
    occupancy, rng = Occupancy(np.zeros((10, 10, 10), dtype=bool)), np.random.default_rng(0)
    cube = Shape.of(np.ones((3, 3, 3), dtype=bool))
    for _ in range(50):
        assert occupancy.find(cube, rng, low=(2, 0, 0), high=(5, 10, 10))[0] == 2
    assert occupancy.find(cube, rng, low=(2, 0, 0), high=(4, 10, 10)) is None
    assert occupancy.find(Shape.of(np.ones((1, 1, 11), dtype=bool)), rng) is None


def test_occupancy_must_be_a_volume_of_bool() -> None:
    with pytest.raises(ValueError, match="array of bool, got float64"):
        Occupancy(np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match="contiguous"):
        Occupancy(np.zeros((3, 4, 5), dtype=bool).T)
