import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from tomolab.simulation import Membrane, membranes

LOPSIDED = Membrane(centre=(400.0, 500.0, 600.0), radii=(250.0, 400.0, 300.0), roughness=0.05, tilt=30.0, seed=3)


def test_distance_is_that_to_the_nearest_point_of_the_surface() -> None:
    away = membranes.distance(LOPSIDED, shape=(40, 50, 60), voxel_size=20.0, origin=(0.0, 10.0, -10.0)).numpy()
    # Nearer to the surface the gaps between its points would count.
    at = np.argwhere((np.abs(away) < membranes.HALF_THICKNESS) & (np.abs(away) > 10))
    nearest, _ = cKDTree(membranes.surface(LOPSIDED, 100_000)).query(at * 20.0 + [0, 10, -10])
    assert np.abs(np.abs(away[tuple(at.T)]) - nearest).max() < 1
    assert away[20, 24, 30] == -membranes.REACH
    assert away[0, 0, 0] == membranes.REACH


def test_distance_of_a_sphere_is_exact() -> None:
    ball = Membrane(centre=(0.0, 0.0, 0.0), radii=(300.0, 300.0, 300.0), roughness=0.0)
    points = torch.tensor([[330.0, 0, 0], [0, -280, 0], [0, 0, 0.001], [200, 200, 200]])
    expected = [30.0, -20.0, -300.0, 200 * 3**0.5 - 300]
    assert membranes.signed_distance(ball, points).tolist() == pytest.approx(expected, abs=0.01)


def test_tilt_turns_from_y_towards_x() -> None:
    long_y = Membrane(centre=(0.0, 0.0, 0.0), radii=(100.0, 400.0, 100.0), roughness=0.0, tilt=30.0)
    tip = 400 * np.array([0, np.cos(np.pi / 6), np.sin(np.pi / 6)])
    mirrored = tip * [1, 1, -1]
    sides = membranes.signed_distance(long_y, torch.tensor(np.stack([tip, mirrored])).float())
    assert float(sides[0]) == pytest.approx(0, abs=0.1)
    assert float(sides[1]) > 50
    low, high = long_y.extent()
    assert (membranes.surface(long_y, 5000) >= low - 1e-6).all()
    assert (membranes.surface(long_y, 5000) <= high + 1e-6).all()
    assert high[1] == pytest.approx(np.hypot(400 * np.cos(np.pi / 6), 100 * np.sin(np.pi / 6)))


def test_extent_holds_the_roughest_surface() -> None:
    for seed in range(20):
        rough = Membrane(centre=(0.0, 0.0, 0.0), radii=(100.0, 100.0, 100.0), roughness=0.15, seed=seed)
        low, high = rough.extent()
        points = membranes.surface(rough, 2000)
        assert (points >= low).all()
        assert (points <= high).all()


def test_roughness_is_the_deviation_of_the_radius() -> None:
    ratios = [
        np.linalg.norm(membranes.surface(Membrane(centre=(0, 0, 0), radii=(1e3,) * 3, seed=seed)), axis=1) / 1e3
        for seed in range(60)
    ]
    assert np.std(ratios) == pytest.approx(0.03, rel=0.15)


def test_profile_has_head_groups_37_angstrom_apart_and_lighter_tails() -> None:
    away = torch.linspace(-100, 100, 2001)
    density = membranes.profile(away)
    peak = abs(float(away[density.argmax()]))
    assert 2 * peak == pytest.approx(36.8, abs=3)
    middle = float(density[1000])
    assert 0 <= middle < 0.4 * float(density.max())
    assert float(density[0]) == pytest.approx(0, abs=1e-6)


def test_profile_of_a_leaflet_has_the_scattering_of_its_lipids() -> None:
    away = torch.linspace(-200, 200, 8001)
    # DOPC, C44 H84 N O8 P in 1303 Å³ on 72.4 Å², over ice of 4.48 V; volts of one atom in 1 Å³ are 47.88 times its length.
    lipid = 47.88 * (44 * 2.51 + 84 * 0.53 + 2.21 + 8 * 1.98 + 5.5) - 4.48 * 1303
    for resolution in (0.0, 20.0, 40.0):
        total = float(membranes.profile(away, resolution=resolution).sum()) * 0.05
        assert total == pytest.approx(2 * lipid / 72.4 / 4.5, rel=0.03)


def test_window_holds_all_that_is_near() -> None:
    shape = (60, 60, 60)
    away = membranes.distance(LOPSIDED, shape=shape, voxel_size=20.0)
    near = torch.zeros(shape, dtype=torch.bool)
    near[membranes.window(LOPSIDED, shape, 20.0)] = True
    assert bool(near[away < membranes.REACH].all())
    far = Membrane(centre=(-900.0, 0.0, 0.0), radii=(100.0, 100.0, 100.0))
    assert away[membranes.window(far, shape, 20.0)].numel() == 0


def test_scattered_vesicles_do_not_touch_and_stay_in_the_ice() -> None:
    cell = Membrane(centre=(500.0, 1000.0, 3500.0), radii=(2000.0, 2000.0, 2000.0))
    made = membranes.random_vesicles(
        8, low=(0, 0, 0), high=(1000, 2000, 3000), rng=np.random.default_rng(1), radii=(100.0, 250.0), others=[cell]
    )
    assert len(made) == 8
    clouds = [membranes.surface(one, 2000) for one in (cell, *made)]
    for i, cloud in enumerate(clouds[1:], start=1):
        assert cloud[:, 0].min() >= membranes.HALF_THICKNESS
        assert cloud[:, 0].max() <= 1000 - membranes.HALF_THICKNESS
        others = np.concatenate(clouds[:i])
        # The points are some Å apart, so the distance between them is at most a little more than that of the surfaces.
        assert cKDTree(others).query(cloud)[0].min() > 60


def test_scatter_gives_up_where_there_is_no_room() -> None:
    made = membranes.random_vesicles(
        50, low=(0, 0, 0), high=(500, 600, 600), rng=np.random.default_rng(1), radii=(150.0, 200.0), tries=20
    )
    assert 0 < len(made) < 50
    with pytest.raises(ValueError, match="smallest, largest"):
        membranes.random_vesicles(1, low=(0, 0, 0), high=(500, 600, 600), rng=np.random.default_rng(1), radii=(300.0, 200.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radii": (30.0, 300.0, 300.0)}, "at least 60"),
        ({"roughness": 0.5}, "from 0 to 0.15"),
        ({"centre": (1.0, 2.0)}, "three"),
    ],
)
def test_impossible_membranes_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Membrane(**({"centre": (0.0, 0.0, 0.0), "radii": (300.0, 300.0, 300.0)} | change))
