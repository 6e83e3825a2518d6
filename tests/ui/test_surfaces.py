"""Surfaces lie where the density is, and pictures of them keep the hand."""

import numpy as np
import pytest

from tomolab.ui import surfaces
from tomolab.volumes import Volume


def ball(radius: float, at: tuple[float, float, float], box: int = 32, voxel_size: float = 10.0) -> Volume:
    axes = np.meshgrid(*[np.arange(box)] * 3, indexing="ij")
    distance = np.sqrt(sum((axis - place) ** 2 for axis, place in zip(axes, at, strict=True)))
    return Volume(np.clip(radius + 0.5 - distance, 0, 1), voxel_size)


@pytest.mark.parametrize("detail", [1, 2])
def test_the_mesh_of_a_ball_is_a_sphere_of_its_size_at_its_place(detail: int) -> None:
    vertices, faces, values = surfaces.mesh(ball(8, (14, 16, 19)), 0.5, detail=detail)
    radii = np.linalg.norm(vertices - [140, 160, 190], axis=1)
    assert radii.mean() == pytest.approx(80, abs=1)
    assert radii.std() < 3
    assert faces.max() < len(vertices) == len(values)
    corners = vertices[faces]
    inside = abs(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)
    assert inside == pytest.approx(4 / 3 * np.pi * 80**3, rel=0.05)


def test_the_mesh_is_closed_where_density_touches_the_edge() -> None:
    _, faces, _ = surfaces.mesh(Volume(np.pad(np.ones((4, 4, 4)), ((0, 4),) * 3), 1.0), 0.5)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_level_divides_dense_from_empty(phantom: Volume) -> None:
    noisy = Volume(phantom.data + np.random.default_rng(0).normal(0, 0.05, phantom.shape), 10.0)
    assert 0.2 < surfaces.level(noisy) < 1.0
    assert surfaces.level(noisy, 0.3) == 0.3


def test_impossible_thresholds_are_refused(phantom: Volume) -> None:
    with pytest.raises(ValueError, match="constant volume"):
        surfaces.level(Volume(np.ones((4, 4, 4)), 10.0))
    with pytest.raises(ValueError, match=r"threshold must lie between .* got 99"):
        surfaces.mesh(phantom, 99)
    with pytest.raises(ValueError, match="only a cubic volume"):
        surfaces.shade(Volume(phantom.data[:20], 10.0))


def test_a_picture_shows_density_where_it_projects(phantom: Volume) -> None:
    picture = surfaces.shade(phantom, pixels=64)
    assert picture.shape == (64, 64, 4)
    assert picture.min() >= 0
    assert picture.max() <= 1
    filled = phantom.data.max(axis=0) > surfaces.level(phantom)
    shown = picture[..., 3].reshape(32, 2, 32, 2).mean((1, 3)) > 0.5
    assert (filled != shown).sum() < 0.3 * (filled != shown[:, ::-1]).sum()


def test_a_picture_is_taken_from_low_z_where_things_are_brighter() -> None:
    near, far = ball(5, (6, 9, 9)), ball(5, (25, 22, 22))
    picture = surfaces.shade(Volume(near.data + far.data, 10.0), threshold=0.5, pixels=64)
    light = picture[..., :3].mean(-1)
    opaque = picture[..., 3] > 0.9
    assert light[:32, :32][opaque[:32, :32]].mean() > 1.1 * light[32:, 32:][opaque[32:, 32:]].mean()
    upside_down = surfaces.shade(Volume((near.data + far.data)[::-1], 10.0), threshold=0.5, pixels=64)[..., :3].mean(-1)
    assert upside_down[:32, :32][opaque[:32, :32]].mean() < upside_down[32:, 32:][opaque[32:, 32:]].mean()


def test_views_are_proper_rotations_that_turn_the_picture(phantom: Volume) -> None:
    for rotation in surfaces.VIEWS.values():
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
    side = surfaces.shade(phantom, rotation=surfaces.VIEWS["side"], pixels=64)
    # Seen from the side the rows are still y and the columns are z.
    filled = (phantom.data.max(axis=2) > surfaces.level(phantom)).T
    shown = side[..., 3].reshape(32, 2, 32, 2).mean((1, 3)) > 0.5
    assert (filled == shown).mean() > 0.96
