import numpy as np
import pytest
import torch

from tomolab import rotations
from tomolab.simulation import Imaging, membranes, rendering
from tomolab.simulation.rendering import MembranePatches
from tomolab.volumes import Volume, transform


def test_radii_enclose_the_density(phantom: Volume) -> None:
    ball = np.zeros((32, 32, 32), dtype=np.float32)
    axes = np.meshgrid(*[np.arange(32) - 16] * 3, indexing="ij")
    ball[sum(axis**2 for axis in axes) <= 10**2] = 1
    templates = rendering.prepare({"ball": Volume(ball, 10.0)}, torch.device("cpu"))
    # 95 % of a ball's mass lies within 0.95^(1/3) of its radius.
    assert float(templates.radii[0]) == pytest.approx(10 * 0.95 ** (1 / 3), abs=0.3)


def test_render_draws_as_many_neighbours_as_asked(phantom: Volume) -> None:
    templates = rendering.prepare({"phantom": phantom}, torch.device("cpu"))
    labels = torch.zeros(60, dtype=torch.long)
    quiet = {"snr": float("inf"), "defocus": None, "shift": 0.0}
    mass = [
        float(
            rendering.render(
                templates, labels, box=80, imaging=Imaging(**quiet, neighbours=n), generator=torch.Generator().manual_seed(1)
            )[0].sum()
        )
        for n in (0.0, 2.0)
    ]
    assert mass[1] / mass[0] == pytest.approx(3, rel=0.15)


def test_render_is_a_trilinear_sampling_of_the_density_in_its_pose(phantom: Volume) -> None:
    half = Volume(np.where(np.arange(32)[:, None, None] < 17, phantom.data, 0), 10.0)
    templates = rendering.prepare({"phantom": phantom, "half": half}, torch.device("cpu"))
    labels = torch.arange(12) % 2
    volumes, turns, shifts = rendering.render(
        templates, labels, box=24, imaging=Imaging(shift=0.1), generator=torch.Generator().manual_seed(3)
    )
    expected = transform(templates.data[labels], turns, shifts, box=24, step=2)
    error = (volumes - expected).square().sum((1, 2, 3)) / expected.square().sum((1, 2, 3))
    assert float(error.max()) < 2e-4
    assert float(shifts.abs().max()) > 0.5


def test_both_ways_of_sampling_agree(phantom: Volume) -> None:
    templates = rendering.prepare({"phantom": phantom, "negative": Volume(-phantom.data, 10.0)}, torch.device("cpu"))
    stack = templates.stacks[0]
    lines = torch.rand(6, 3, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    lines[:, :, 3] = stack.depth // 2
    arguments = lines, torch.arange(6) % 2 * stack.depth, torch.arange(-30, 31)
    one, other = (way(stack, *arguments) for way in (rendering._bilinear, rendering._trilinear))
    assert torch.allclose(one, other, atol=2e-3 * float(stack.data.max()))
    assert float(one[0].mean()) > 0 > float(one[1].mean())


def test_complexes_of_many_sizes_keep_their_mass(phantom: Volume) -> None:
    maps = {f"size {n}": Volume(ball(32, n), 10.0) for n in (2, 4, 7, 9, 13)} | {"phantom": phantom}
    templates = rendering.prepare(maps, torch.device("cpu"))
    assert len(templates.stacks) > 2
    volumes = torch.zeros(6, 40, 40, 40)
    turns = rotations.random(6, torch.Generator().manual_seed(2))
    rendering.add(
        volumes, templates, torch.arange(6), boxes=torch.arange(6).flip(0), matrices=turns, shifts=torch.full((6, 3), 0.4)
    )
    expected = torch.tensor([float(volume.data.sum()) for volume in maps.values()]).flip(0)
    assert torch.allclose(volumes.sum((1, 2, 3)), expected, rtol=0.02)


def test_what_lies_outside_the_box_is_cut_off(phantom: Volume) -> None:
    templates = rendering.prepare({"phantom": phantom}, torch.device("cpu"))
    turn = rotations.random(1, torch.Generator().manual_seed(4))
    pose = {"matrices": turn, "boxes": torch.tensor([0])}
    large, small = torch.zeros(1, 64, 64, 64), torch.zeros(1, 16, 16, 16)
    for volumes in (large, small):
        rendering.add(volumes, templates, torch.tensor([0]), shifts=torch.tensor([[9.0, -11.0, 6.0]]), **pose)
    assert torch.allclose(small[0], large[0, 24:40, 24:40, 24:40], atol=1e-3)
    assert float(small.max()) > 0.1
    away = torch.zeros(1, 16, 16, 16)
    rendering.add(away, templates, torch.tensor([0]), shifts=torch.tensor([[40.0, 0.0, 0.0]]), **pose)
    assert float(away.abs().max()) == 0


def test_neighbours_keep_out_of_a_membrane(phantom: Volume) -> None:
    templates = rendering.prepare({"phantom": phantom}, torch.device("cpu"))
    n, generator = 300, torch.Generator().manual_seed(5)
    shifts = torch.randn(n, 3, generator=generator)
    patches = rendering.draw_membranes(
        1.0, positions=shifts * 10, radii=templates.radii.expand(n) * 10, gap=0.0, generator=generator
    )
    boxes, species, places = rendering._neighbours(
        templates, torch.zeros(n, dtype=torch.long), shifts,
        gap=2.0, mean=2.0, generator=generator, patches=patches,
    )  # fmt: skip
    ahead = (places * patches.normal[boxes]).sum(-1) + templates.radii[species]
    assert bool((ahead * 10 <= patches.distance[boxes] + 1e-3).all())
    apart = (places - shifts[boxes]).norm(dim=-1) - 2 * templates.radii[0]
    assert 0 <= float(apart.min()) + 1e-4 < float(apart.max()) <= 2.0 + 1e-4


def ball(box: int, radius: float) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij")
    return (1 / (1 + np.exp(2 * (np.sqrt(sum(axis**2 for axis in axes)) - radius)))).astype(np.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_membranes_come_as_often_as_asked_and_pass_beside_the_particle() -> None:
    places = torch.randn(2000, 3, generator=generator()) * 30
    radii = torch.full((2000,), 100.0)
    patches = rendering.draw_membranes(0.3, positions=places, radii=radii, gap=40.0, generator=generator(1))
    assert len(patches.box) / 2000 == pytest.approx(0.3, abs=0.03)
    middle = patches.normal * (patches.distance + patches.curvature_radius)[:, None]
    nearest = ((places[patches.box] - middle).norm(dim=-1) - patches.curvature_radius.abs()).abs()
    # Off the middle of the box a curved membrane comes a little nearer or stays farther.
    assert float(nearest.median()) == pytest.approx(100 + membranes.HALF_THICKNESS + 20, rel=0.03)
    assert float(nearest.min()) > 100
    assert float((patches.curvature_radius > 0).float().mean()) == pytest.approx(0.5, abs=0.06)
    assert len(rendering.draw_membranes(0.0, positions=places, radii=radii, gap=40.0, generator=generator()).box) == 0


@pytest.mark.parametrize("bend", [2000.0, -2000.0])
def test_a_membrane_has_the_profile_of_a_bilayer_at_its_distance(bend: float) -> None:
    patches = MembranePatches(torch.tensor([1]), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([60.0]), torch.tensor([bend]))
    volumes = torch.zeros(2, 40, 40, 40)
    rendering.add_membranes(volumes, patches, voxel_size=5.0)
    assert float(volumes[0].abs().max()) == 0
    along = torch.arange(40) * 5.0 - 100 - 60
    assert torch.allclose(volumes[1, 20, :, 20], membranes.profile(along, resolution=10.0), atol=0.01)
    # It bends away from the middle of the box, or around it.
    edge = volumes[1, 20, :, 0].argmax() * 5.0 - 100
    assert (float(edge) > 60) == (bend > 0) or abs(float(edge) - 60) < 26
