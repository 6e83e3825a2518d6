import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab.simulation import packing
from tomolab.simulation.packing import Room, Shape

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
def test_shapes_never_overlap_nor_leave_the_room(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    taken = rng.random((15, 17, 16)) < density
    room, shape = Room(taken.copy()), Shape.of(rng.random((7, 6, 8)) < 0.6)
    placed = taken.astype(int)
    while (place := room.find(shape, rng, tries=3000)) is not None:
        at = shape.voxels + place
        assert (at >= 0).all()
        assert (at < taken.shape).all()
        placed[tuple(at.T)] += 1
        room.take(shape, place)
    assert placed.max() == 1
    assert ((placed > 0) == room.taken).all()


def test_a_shape_finds_the_only_hole_that_has_its_form() -> None:
    taken = np.ones((30, 30, 30), dtype=bool)
    shape = Shape.of(HOOK)
    taken[tuple((shape.voxels + np.array([7, 11, 20])).T)] = False
    assert Room(taken).find(shape, np.random.default_rng(0)).tolist() == [7, 11, 20]
    mirrored = Shape.of(HOOK[:, :, ::-1])
    assert Room(taken).find(mirrored, np.random.default_rng(0)) is None


def test_free_places_are_equally_likely() -> None:
    taken = np.ones((3, 1, 40), dtype=bool)
    taken[1, 0, :4] = taken[1, 0, 20:24] = False
    rng, dimer = np.random.default_rng(0), Shape.of(np.ones((1, 1, 2), dtype=bool))
    found = [int(Room(taken).find(dimer, rng)[2]) for _ in range(3000)]
    counts = np.bincount(found, minlength=40)[[0, 1, 2, 20, 21, 22]]
    assert counts.sum() == 3000
    assert np.abs(counts - 500).max() < 100


def test_limits_are_kept_and_what_is_too_large_finds_none() -> None:
    room, rng = Room(np.zeros((10, 10, 10), dtype=bool)), np.random.default_rng(0)
    cube = Shape.of(np.ones((3, 3, 3), dtype=bool))
    for _ in range(50):
        assert room.find(cube, rng, low=(2, 0, 0), high=(5, 10, 10))[0] == 2
    assert room.find(cube, rng, low=(2, 0, 0), high=(4, 10, 10)) is None
    assert room.find(Shape.of(np.ones((1, 1, 11), dtype=bool)), rng) is None


def test_room_must_be_a_volume_of_bool() -> None:
    with pytest.raises(ValueError, match="array of bool, got float64"):
        Room(np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match="contiguous"):
        Room(np.zeros((3, 4, 5), dtype=bool).T)


def test_grown_keeps_a_distance() -> None:
    one = np.zeros((1, 1, 1), dtype=bool)
    one[0, 0, 0] = True
    grown = packing.grown(one, 2.5)
    axes = np.meshgrid(*[np.arange(7) - 3] * 3, indexing="ij")
    assert (grown == (sum(axis**2 for axis in axes) <= 2.5**2)).all()


def test_thinnest_is_the_width_of_the_flat_side() -> None:
    plate = np.ones((3, 20, 30), dtype=bool)
    assert packing.thinnest(Shape.of(plate)) == pytest.approx(3, abs=0.1)
    assert packing.thinnest(Shape.of(plate.transpose(2, 0, 1))) == pytest.approx(3, abs=0.1)
