import numpy as np
import pytest
import torch

from tomolab import rotations, specimens
from tomolab.imaging import Imaging
from tomolab.volumes import Volume


def test_places_neither_overlap_nor_leave_the_volume() -> None:
    radii = np.array([9.0, 9, 6, 6, 6, 4, 4, 4, 4, 4])
    places = specimens.places(radii, (40, 60, 80), np.random.default_rng(0))
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(10)
    assert (apart >= radii[:, None] + radii[None]).all()
    assert ((places - radii[:, None]) >= 0).all()
    assert ((places + radii[:, None]) <= np.array([39, 59, 79])).all()


def test_paste_puts_a_density_where_it_belongs(phantom: Volume) -> None:
    sources = specimens.prepare({"phantom": phantom}, torch.device("cpu"))
    turn = rotations.random(1, torch.Generator().manual_seed(1))
    place = np.array([[20.4, 30.7, 25.0]])
    specimen = torch.zeros(48, 56, 50)
    specimens.paste(specimen, sources, torch.tensor([0]), rotations=turn, places=place)
    axes = torch.stack(torch.meshgrid(*[torch.arange(n) for n in specimen.shape], indexing="ij"), dim=-1).float()
    found = (specimen[..., None] * axes).sum((0, 1, 2)) / specimen.sum()
    own = torch.stack(torch.meshgrid(*[torch.arange(32) - 16.0] * 3, indexing="ij"), dim=-1)
    middle = (torch.from_numpy(phantom.data)[..., None] * own).sum((0, 1, 2)) / phantom.data.sum()
    assert torch.allclose(found, torch.from_numpy(place[0]).float() + turn[0] @ middle, atol=0.1)


def test_paste_cuts_what_leaves_the_volume(phantom: Volume) -> None:
    sources = specimens.prepare({"phantom": phantom}, torch.device("cpu"))
    specimen = torch.zeros(20, 20, 20)
    specimens.paste(specimen, sources, torch.tensor([0]), rotations=torch.eye(3)[None], places=np.array([[0.0, 19, 10]]))
    assert torch.allclose(specimen[:16, 4:20, 0:20], torch.from_numpy(phantom.data)[16:, 1:17, 6:26], atol=1e-3)


def test_radii_enclose_the_density(phantom: Volume) -> None:
    ball = np.zeros((32, 32, 32), dtype=np.float32)
    axes = np.meshgrid(*[np.arange(32) - 16] * 3, indexing="ij")
    ball[sum(axis**2 for axis in axes) <= 10**2] = 1
    sources = specimens.prepare({"ball": Volume(ball, 10.0)}, torch.device("cpu"))
    # 95 % of a ball's mass lies within 0.95^(1/3) of its radius.
    assert float(sources.radii[0]) == pytest.approx(10 * 0.95 ** (1 / 3), abs=0.3)


def test_render_draws_as_many_neighbours_as_asked(phantom: Volume) -> None:
    sources = specimens.prepare({"phantom": phantom}, torch.device("cpu"))
    labels = torch.zeros(60, dtype=torch.long)
    quiet = {"snr": float("inf"), "defocus": None, "shift": 0.0}
    mass = [
        float(
            specimens.render(
                sources, labels, box=96, imaging=Imaging(**quiet, neighbours=n), generator=torch.Generator().manual_seed(1)
            )[0].sum()
        )
        for n in (0.0, 2.0)
    ]
    assert mass[1] / mass[0] == pytest.approx(3, rel=0.15)
