import numpy as np
import pytest

from tomolab.simulation import fiducials
from tomolab.simulation.packing import Occupancy


def test_ball_has_its_volume_at_its_place() -> None:
    rest = np.array([0.3, 0.8, 0.0])
    share = fiducials.ball(9.0, rest)
    assert share.sum() == pytest.approx(np.pi / 6 * 9**3, rel=0.02)
    axes = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in share.shape], indexing="ij"), axis=-1)
    assert (share[..., None] * axes).sum((0, 1, 2)) / share.sum() == pytest.approx(rest, abs=0.01)
    assert (share[0] == 0).all()
    assert (share[-1] == 0).all()


def scattered(site: fiducials.Site, count: int = 30) -> list[fiducials.Fiducial]:
    taken = np.zeros((60, 100, 100), dtype=bool)
    taken[:10] = taken[50:] = True
    return fiducials.place(
        Occupancy(taken), count, diameter=80.0, voxel_size=10.0, layers=(10, 50), site=site, rng=np.random.default_rng(0)
    )


def test_beads_on_a_face_touch_it_from_within() -> None:
    places = np.array([bead.centre[0] for bead in scattered("face")])
    depth = np.minimum(places - 9.5, 49.5 - places)
    assert np.abs(depth - 4).max() < 1.2
    assert 0 < (places > 30).sum() < len(places)


def test_beads_in_the_ice_lie_anywhere_and_apart() -> None:
    made = scattered("ice")
    assert np.ptp([bead.centre[0] for bead in made]) > 20
    for i, bead in enumerate(made):
        for other in made[:i]:
            reach = (bead.diameter + other.diameter) / 20
            assert np.linalg.norm(bead.centre - other.centre) > reach - 1


def test_what_finds_no_room_is_left_out() -> None:
    assert 5 < len(scattered("face", 320)) < 300


def test_impossible_beads_are_refused() -> None:
    settings = {"voxel_size": 10.0, "layers": (0, 20), "rng": np.random.default_rng(0)}
    occupancy = Occupancy(np.zeros((20, 20, 20), dtype=bool))
    with pytest.raises(ValueError, match="at least a voxel"):
        fiducials.place(occupancy, 1, diameter=5.0, site="ice", **settings)
    with pytest.raises(ValueError, match="'face' or in the 'ice', got 'glass'"):
        fiducials.place(occupancy, 1, diameter=100.0, site="glass", **settings)  # type: ignore[arg-type]
