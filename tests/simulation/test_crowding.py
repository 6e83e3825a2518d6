import numpy as np
import pytest
import torch

from tomolab import particles
from tomolab.simulation import crowding, densities
from tomolab.simulation import scene as scenes
from tomolab.volumes import Volume, overlap, sphere, transform

CPU = torch.device("cpu")


def scene(shape=(50, 60, 70), **changes) -> scenes.Scene:
    settings = {"voxel_size": 10.0, "thickness": None, "particles": 100, "seed": 1}
    return scenes.start(("phantom", "shell", "plate"), shape=shape, device=CPU, **(settings | changes))


def ball(radius: float, hollow: float = 0.0, box: int = 32) -> Volume:
    axes = np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij")
    away = np.sqrt(sum(axis**2 for axis in axes))
    share = np.clip(radius - away + 0.5, 0, 1) - np.clip(hollow - away + 0.5, 0, 1)
    return Volume(0.75 * share, 10.0)


def test_molecular_volume_of_a_ball() -> None:
    # The surface lies a quarter of a voxel within that of a sharp ball.
    assert crowding.molecular_volume(ball(8)) == pytest.approx(4 / 3 * np.pi * 77**3, rel=0.05)


def test_contour_encloses_the_molecular_volume(phantom: Volume) -> None:
    (species,) = crowding.prepare_species({"phantom": phantom}, CPU).values()
    fine = species.templates.data[0]
    assert (fine > species.contour).sum() * 5.0**3 == pytest.approx(crowding.molecular_volume(phantom), rel=0.01)
    # A sharp ball has one density nearly everywhere.
    (species,) = crowding.prepare_species({"ball": ball(8)}, CPU).values()
    assert species.contour == pytest.approx(0.8 * 0.75, rel=0.1)


def test_a_box_much_too_large_is_cut(phantom: Volume) -> None:
    padded = np.zeros((96, 96, 96), dtype=np.float32)
    padded[32:64, 32:64, 32:64] = phantom.data
    (species,) = crowding.prepare_species({"phantom": Volume(padded, 10.0)}, CPU).values()
    assert species.box <= 40


def test_units_do_not_matter_but_contrast_does(phantom: Volume) -> None:
    plain, other = (crowding.molecular_volume(Volume(data, 10.0)) for data in (phantom.data, 1e3 * phantom.data))
    assert other == pytest.approx(plain)
    with pytest.raises(ValueError, match="bright on dark"):
        crowding.prepare_species({"phantom": Volume(-phantom.data, 10.0)}, CPU)


@pytest.mark.parametrize(("voxel_size", "box"), [(10.0, 40), (20.0, 20)])
def test_the_surface_encloses_the_molecular_volume(voxel_size: float, box: int) -> None:
    names = ["ribosome_70s", "tric", "apoferritin", "dahp_synthase", "ruvab"]
    mass = densities.catalogue().set_index("name")["mass_kda"] * 1e3
    for name, density in densities.load(names, voxel_size=voxel_size, box=box).items():
        # 1.35 g/cm³ of protein is 0.75 Da/Å³ without hydrogen.
        assert crowding.molecular_volume(density) == pytest.approx(mass[name] / 0.75, rel=0.25)


def test_complexes_lie_where_the_table_says(phantom: Volume) -> None:
    """A few phantoms far apart: the density about each is the phantom, turned by the matrix of the table."""
    made = scene((60, 80, 80))
    found, rows = crowding.add(
        made, crowding.prepare_species({"phantom": phantom}, CPU), {"phantom": 3}, gap=100.0, progress=False
    )
    assert rows == [("phantom", 3, 3, "")]
    mirrored = np.roll(phantom.data[:, :, ::-1], 1, axis=2)
    for place, turn, number in zip(
        particles.positions(found) / 10, particles.matrices(found), found["particle_id"], strict=True
    ):
        corner = np.floor(place).astype(int) - 16
        inside, cut = overlap(corner, 32, made.density.shape)
        alike = []
        for data in (phantom.data, mirrored):
            turned = transform(
                torch.from_numpy(data.copy())[None],
                torch.from_numpy(turn)[None],
                torch.from_numpy(place - np.floor(place))[None],
            )
            # Beyond this there may be neighbours.
            near = sphere(32, 24).numpy()[cut] > 0
            alike.append(np.corrcoef(turned[0].numpy()[cut][near], made.density[inside][near])[0, 1])
        assert alike[0] > 0.99
        assert alike[1] < 0.9
        top = np.unravel_index(np.argmax(made.density[inside]), made.density[inside].shape)
        assert made.instances[inside][top] == number + 1


def test_shapes_do_not_overlap_and_density_adds_up(phantom: Volume) -> None:
    made = scene()
    species = crowding.prepare_species({"phantom": phantom}, CPU)
    found, ((_, asked, placed, reason),) = crowding.add(made, species, {"phantom": 300}, progress=False)
    assert asked == 300
    assert 20 < placed == len(found) < 300
    assert reason.startswith(f"no room for {300 - placed}")
    sizes = np.bincount(made.instances.ravel())[1:]
    expected = crowding.molecular_volume(phantom) / 1e3
    # Were shapes to overlap, the later one would take voxels from the earlier.
    assert sizes.min() > 0.9 * expected
    assert sizes.max() < 1.1 * expected
    assert made.density.sum() == pytest.approx(placed * phantom.data.sum(), rel=0.02)
    assert ((made.instances > 0) == (made.labels == 1)).all()


def test_gap_is_left_between_complexes() -> None:
    made = scene((40, 50, 60))
    crowding.add(made, crowding.prepare_species({"shell": ball(5)}, CPU), {"shell": 30}, gap=30.0, progress=False)
    places = [np.argwhere(made.instances == i) for i in range(1, made.instances.max() + 1)]
    assert len(places) > 5
    for i, mine in enumerate(places):
        for other in places[:i]:
            nearest = np.sqrt(((mine[:, None] - other[None]) ** 2).sum(-1)).min()
            assert nearest > 3


def test_nothing_is_placed_within_a_closed_shell() -> None:
    made = scene((32, 32, 32))
    species = crowding.prepare_species({"shell": ball(14, hollow=10), "phantom": ball(4)}, CPU)
    found, _ = crowding.add(made, species, {"shell": 1, "phantom": 8}, progress=False)
    places = particles.positions(found) / 10
    assert len(places) > 3
    # In the corners of the volume, but not in the ball of 10 voxels within the shell.
    assert np.linalg.norm(places[1:] - places[0], axis=1).min() > 14
    assert made.labels[tuple(np.rint(places[0]).astype(int))] == 0


def test_large_complexes_come_first() -> None:
    made = scene((40, 40, 40))
    species = crowding.prepare_species({"phantom": ball(4), "shell": ball(12)}, CPU)
    found, _ = crowding.add(made, species, {"phantom": 5, "shell": 1}, progress=False)
    assert found["label"].tolist() == ["shell"] + ["phantom"] * 5
    assert found["particle_id"].tolist() == list(range(6))
