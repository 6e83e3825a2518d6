import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tomolab import rotations


def test_relion_angles_place_a_point_as_relion_does() -> None:
    angles = np.array([[30.0, 50.0, 70.0], [-100.0, 120.0, 10.0]])
    point_xyz = np.array([3.0, -2.0, 5.0])
    passive = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    in_particle_xyz = passive.transpose(0, 2, 1) @ point_xyz
    ours_zyx = rotations.from_euler(angles) @ point_xyz[::-1]
    assert np.allclose(ours_zyx[:, ::-1], in_particle_xyz)


def test_a_turn_about_x_sends_y_to_z() -> None:
    # Active turn by +90° about x: xyz (0, 1, 0) goes to (0, 0, 1); in zyx vectors (0, 1, 0) to (1, 0, 0).
    turn_xyz = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    angles = Rotation.from_matrix(turn_xyz.T).as_euler("ZYZ", degrees=True)
    assert np.allclose(rotations.from_euler(angles)[0] @ [0, 1, 0], [1, 0, 0], atol=1e-6)


def test_euler_round_trip_compares_matrices_also_at_the_pole() -> None:
    turns = rotations.random(200, torch.Generator().manual_seed(3)).double().numpy()
    pole = rotations.from_euler(np.array([[40.0, 0.0, 25.0]]))
    for matrices in (turns, pole):
        assert np.allclose(rotations.from_euler(rotations.to_euler(matrices)), matrices, atol=1e-6)


def test_random_rotations_are_proper_and_uniform() -> None:
    turns = rotations.random(20000, torch.Generator().manual_seed(0))
    assert torch.allclose(torch.linalg.det(turns), torch.ones(20000), atol=1e-4)
    assert float(turns.mean(0).abs().max()) < 0.02
    # Mean angle of uniform rotations: π/2 + 2/π.
    angle = rotations.angle_between(turns, torch.eye(3).expand_as(turns)).mean()
    assert float(angle) == pytest.approx(np.rad2deg(np.pi / 2 + 2 / np.pi), abs=1)


def test_a_mirror_is_refused() -> None:
    with pytest.raises(ValueError, match="proper rotations"):
        rotations.to_euler(np.diag([1.0, 1.0, -1.0])[None])


def test_rounded_matrices_become_the_nearest_rotations() -> None:
    turns = Rotation.random(50, rng=1).as_matrix()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(rotations.nearest(turns.round(5), "turn"), turns, atol=1e-4)
        assert rotations.nearest(np.zeros((0, 3, 3)), "turn").shape == (0, 3, 3)
    with pytest.warns(UserWarning, match="turn: .* of 50 matrices are rotations to .* only") as told:
        found = rotations.nearest(turns.round(3), "turn")
    assert len(told) == 1
    rotations.check(found)
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    assert Rotation.from_matrix(found @ turns.transpose(0, 2, 1)).magnitude().max() < np.radians(0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.diag([1.0, 1.0, -1.0]), "turn: expected proper rotations, but 1 of 2 matrices mirror .* point 1,"),
        (-np.eye(3), "mirror"),
        (2 * np.eye(3), "1 of 2 matrices are none: that of point 1, counted from 0, is 1 off"),
        (np.array([[1, 0.02, 0], [0.02, 1, 0], [0, 0, 1]]), "matrices are none"),
        (np.zeros((3, 3)), "proper rotations"),
    ],
)
def test_what_is_no_rotation_is_refused(wrong: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rotations.nearest(np.stack([np.eye(3), wrong]), "turn")
