import numpy as np
import pytest
import torch

from tomolab import rotations
from tomolab.simulation import Imaging, rendering, surroundings
from tomolab.volumes import Volume, transform


def test_radii_enclose_the_density(phantom: Volume) -> None:
    ball = np.zeros((32, 32, 32), dtype=np.float32)
    axes = np.meshgrid(*[np.arange(32) - 16] * 3, indexing="ij")
    ball[sum(axis**2 for axis in axes) <= 10**2] = 1
    sources = rendering.prepare({"ball": Volume(ball, 10.0)}, torch.device("cpu"))
    # 95 % of a ball's mass lies within 0.95^(1/3) of its radius.
    assert float(sources.radii[0]) == pytest.approx(10 * 0.95 ** (1 / 3), abs=0.3)


def test_render_draws_as_many_neighbours_as_asked(phantom: Volume) -> None:
    sources = rendering.prepare({"phantom": phantom}, torch.device("cpu"))
    labels = torch.zeros(60, dtype=torch.long)
    quiet = {"snr": float("inf"), "defocus": None, "shift": 0.0}
    mass = [
        float(
            rendering.render(
                sources, labels, box=80, imaging=Imaging(**quiet, neighbours=n), generator=torch.Generator().manual_seed(1)
            )[0].sum()
        )
        for n in (0.0, 2.0)
    ]
    assert mass[1] / mass[0] == pytest.approx(3, rel=0.15)


def test_render_is_a_trilinear_sampling_of_the_density_in_its_pose(phantom: Volume) -> None:
    half = Volume(np.where(np.arange(32)[:, None, None] < 17, phantom.data, 0), 10.0)
    sources = rendering.prepare({"phantom": phantom, "half": half}, torch.device("cpu"))
    labels = torch.arange(12) % 2
    volumes, turns, shifts = rendering.render(
        sources, labels, box=24, imaging=Imaging(shift=0.1), generator=torch.Generator().manual_seed(3)
    )
    expected = transform(sources.data[labels], turns, shifts, box=24, step=2)
    error = (volumes - expected).square().sum((1, 2, 3)) / expected.square().sum((1, 2, 3))
    assert float(error.max()) < 2e-4
    assert float(shifts.abs().max()) > 0.5


def test_both_ways_of_sampling_agree(phantom: Volume) -> None:
    sources = rendering.prepare({"phantom": phantom, "negative": Volume(-phantom.data, 10.0)}, torch.device("cpu"))
    shelf = sources.shelves[0]
    lines = torch.rand(6, 3, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    lines[:, :, 3] = shelf.depth // 2
    arguments = lines, torch.arange(6) % 2 * shelf.depth, torch.arange(-30, 31)
    one, other = (way(shelf, *arguments) for way in (rendering._bilinear, rendering._trilinear))
    assert torch.allclose(one, other, atol=2e-3 * float(shelf.data.max()))
    assert float(one[0].mean()) > 0 > float(one[1].mean())


def test_complexes_of_many_sizes_keep_their_mass(phantom: Volume) -> None:
    maps = {f"size {n}": Volume(ball(32, n), 10.0) for n in (2, 4, 7, 9, 13)} | {"phantom": phantom}
    sources = rendering.prepare(maps, torch.device("cpu"))
    assert len(sources.shelves) > 2
    volumes = torch.zeros(6, 40, 40, 40)
    turns = rotations.random(6, torch.Generator().manual_seed(2))
    rendering.add(
        volumes, sources, torch.arange(6), owner=torch.arange(6).flip(0), rotations=turns, places=torch.full((6, 3), 0.4)
    )
    expected = torch.tensor([float(volume.data.sum()) for volume in maps.values()]).flip(0)
    assert torch.allclose(volumes.sum((1, 2, 3)), expected, rtol=0.02)


def test_what_lies_outside_the_box_is_cut_off(phantom: Volume) -> None:
    sources = rendering.prepare({"phantom": phantom}, torch.device("cpu"))
    turn = rotations.random(1, torch.Generator().manual_seed(4))
    pose = {"rotations": turn, "owner": torch.tensor([0])}
    large, small = torch.zeros(1, 64, 64, 64), torch.zeros(1, 16, 16, 16)
    for volumes in (large, small):
        rendering.add(volumes, sources, torch.tensor([0]), places=torch.tensor([[9.0, -11.0, 6.0]]), **pose)
    assert torch.allclose(small[0], large[0, 24:40, 24:40, 24:40], atol=1e-3)
    assert float(small.max()) > 0.1
    away = torch.zeros(1, 16, 16, 16)
    rendering.add(away, sources, torch.tensor([0]), places=torch.tensor([[40.0, 0.0, 0.0]]), **pose)
    assert float(away.abs().max()) == 0


def test_neighbours_keep_out_of_a_membrane(phantom: Volume) -> None:
    sources = rendering.prepare({"phantom": phantom}, torch.device("cpu"))
    n, generator = 300, torch.Generator().manual_seed(5)
    shifts = torch.randn(n, 3, generator=generator)
    pieces = surroundings.sheets(1.0, places=shifts * 10, radii=sources.radii.expand(n) * 10, gap=0.0, generator=generator)
    owner, kinds, places = rendering._neighbours(
        sources, torch.zeros(n, dtype=torch.long), shifts,
        gap=2.0, imaging=Imaging(neighbours=2.0), generator=generator, pieces=pieces,
    )  # fmt: skip
    ahead = (places * pieces.normal[owner]).sum(-1) + sources.radii[kinds]
    assert bool((ahead * 10 <= pieces.away[owner] + 1e-3).all())
    apart = (places - shifts[owner]).norm(dim=-1) - 2 * sources.radii[0]
    assert 0 <= float(apart.min()) + 1e-4 < float(apart.max()) <= 2.0 + 1e-4


def ball(box: int, radius: float) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij")
    return (1 / (1 + np.exp(2 * (np.sqrt(sum(axis**2 for axis in axes)) - radius)))).astype(np.float32)
