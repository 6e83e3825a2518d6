import numpy as np
import pytest
import torch

from tomolab.simulation import Membrane, membranes
from tomolab.simulation import scene as scenes

SHAPE = (60, 80, 90)
CELL = Membrane(centre=(300.0, 400.0, 0.0), radii=(600.0, 500.0, 500.0), roughness=0.0)


def scene(**changes) -> scenes.Scene:
    settings = {"shape": SHAPE, "voxel_size": 10.0, "thickness": 400.0, "particles": 10, "seed": 1}
    return scenes.start(("blob", scenes.MEMBRANE, scenes.GOLD), device=torch.device("cpu"), **(settings | changes))


def test_ice_is_a_slab_about_the_centre() -> None:
    accessible = scene().accessible
    assert accessible[10:50].all()
    assert not accessible[:10].any()
    assert not accessible[50:].any()
    assert scenes.ice_layers(SHAPE, 10.0, None) == (0, 60)
    assert scenes.ice_layers(SHAPE, 10.0, 600.0) == (0, 60)
    with pytest.raises(ValueError, match="600 Å of the volume thick, got 700 Å"):
        scenes.ice_layers(SHAPE, 10.0, 700.0)
    with pytest.raises(ValueError, match=r"\(z, y, x\) voxels"):
        scenes.ice_layers((60, 80), 10.0, None)  # type: ignore[arg-type]


def test_accessible_volume_of_a_cell_is_inside_of_its_border() -> None:
    made = scene()
    assert scenes.add_membranes(made, CELL, 0) == [("membrane", 1, 1, "")]
    away = membranes.distance(CELL, shape=SHAPE, voxel_size=10.0).numpy()
    layers = np.zeros(SHAPE, dtype=bool)
    layers[10:50] = True
    assert (made.accessible == (layers & (away <= -membranes.HALF_THICKNESS))).all()
    assert ((made.labels == 2) == (layers & (np.abs(away) < membranes.HALF_THICKNESS))).all()


def test_painted_bilayer_has_the_density_of_its_profile() -> None:
    made = scene()
    scenes.add_membranes(made, CELL, 0)
    away = membranes.distance(CELL, shape=SHAPE, voxel_size=10.0)[10:50]
    assert np.allclose(made.density[10:50], membranes.profile(away, resolution=20.0), atol=1e-4)
    assert (made.density[:10] == 0).all()
    assert (made.density[50:] == 0).all()


def test_vesicles_take_the_room_of_their_bilayer_only() -> None:
    made = scene(thickness=None)
    vesicle = Membrane(centre=(300.0, 400.0, 450.0), radii=(150.0, 200.0, 200.0), roughness=0.0)
    scenes.add_membranes(made, None, [vesicle])
    assert made.accessible[30, 40, 45]
    assert not made.accessible[30, 40, 65]
    assert made.accessible[30, 40, 70]
    assert (made.accessible != (made.labels == 2)).all()


def test_vesicles_that_find_no_room_are_told() -> None:
    made = scene()
    ((name, asked, placed, reason),) = scenes.add_membranes(made, None, 60)
    assert (name, asked) == ("membrane", 60)
    assert 0 < placed < 60
    assert reason.startswith(f"no room for {60 - placed} vesicles")


def test_gold_is_dense_labelled_and_not_accessible() -> None:
    made = scene()
    scenes.add_membranes(made, CELL, 0)
    table, rows = scenes.add_fiducials(made, 6, diameter=80.0, site="ice", cell=True)
    assert rows == [("gold", 6, 6, "")]
    for z, y, x, _ in table.to_numpy() / 10:
        at = round(z), round(y), round(x)
        assert made.labels[at] == 3
        assert made.density[at] == pytest.approx(5.6, abs=0.01)
        assert np.hypot(y - 40, x) > 45
    assert not made.accessible[made.labels == 3].any()
    volume = (np.pi / 6 * table["diameter"] ** 3).sum()
    assert (made.labels == 3).sum() * 1e3 == pytest.approx(volume, rel=0.1)


def test_no_gold_is_an_empty_table() -> None:
    table, rows = scenes.add_fiducials(scene(), 0, diameter=80.0, site="face", cell=False)
    assert list(table.columns) == ["z", "y", "x", "diameter"]
    assert table.empty
    assert rows == []
