"""Symmetry: groups are groups, axes are found where they were put, and no symmetry is seen where there is none."""

import numpy as np
import pytest
import torch

from tomolab import fourier, rotations, volumes
from tomolab.averaging import alignment, symmetry
from tomolab.averaging.alignment import Fit
from tomolab.volumes import Volume

BOX = 24


@pytest.fixture(scope="module")
def small(phantom: Volume) -> Volume:
    """The phantom at 16 Å, off the axes."""
    return volumes.fit(volumes.resample(phantom, 16.0), BOX)


def turned(volume: Volume, turn: torch.Tensor, shift: torch.Tensor) -> Volume:
    fine = fourier.resize(torch.from_numpy(volume.data), [2 * n for n in volume.shape])[None]
    return Volume(volumes.transform(fine, turn, shift, box=BOX, step=2.0)[0].numpy(), volume.voxel_size)


def symmetric(volume: Volume, name: str) -> Volume:
    """The sum of a map, moved off the axis, after all rotations of a group."""
    aside = turned(volume, torch.eye(3)[None], torch.tensor([[2.0, 3.0, 1.0]]))
    parts = [alignment.apply(aside, Fit(turn, np.zeros(3), 1.0)).data for turn in symmetry.group(name)]
    return Volume(np.sum(parts, axis=0).astype(np.float32), volume.voxel_size)


def hidden(volume: Volume, seed: int) -> Volume:
    generator = torch.Generator().manual_seed(seed)
    return turned(volume, rotations.random(1, generator), 1.5 * torch.rand(1, 3, generator=generator))


@pytest.mark.parametrize(("name", "order"), [("C1", 1), ("C7", 7), ("D2", 4), ("D7", 14), ("T", 12), ("O", 24), ("I", 60)])
def test_groups_are_closed_and_proper(name: str, order: int) -> None:
    turns = symmetry.group(name)
    assert turns.shape == (order, 3, 3)
    rotations.check(turns)
    np.testing.assert_allclose(turns[0], np.eye(3), atol=1e-12)
    products = (turns[:, None] @ turns[None]).reshape(-1, 9)
    distances = np.abs(products[:, None] - turns.reshape(1, order, 9)).max(-1)
    assert (distances < 1e-9).sum(1).tolist() == [1] * order**2


def test_the_axis_of_c_is_z() -> None:
    np.testing.assert_allclose(symmetry.group("C5") @ [1.0, 0, 0], np.tile([1.0, 0, 0], (5, 1)), atol=1e-12)
    assert any(np.allclose(turn @ [0, 0, 1.0], [0, 0, 1.0]) for turn in symmetry.group("D5")[1:])


@pytest.mark.parametrize("name", ["", "C", "C0", "D1", "C61", "Y", "c2", "D7 "])
def test_what_is_no_group_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="symmetry is C1 to C60, D2 to D60, T, O or I, got"):
        symmetry.group(name)


@pytest.mark.parametrize(("name", "seed"), [("C3", 1), ("D2", 2), ("T", 3)])
def test_axes_are_found_where_they_were_put(small: Volume, name: str, seed: int) -> None:
    found = hidden(symmetric(small, name), seed)
    fit = symmetry.align(found, name)
    assert fit.score > 0.97
    standard = alignment.apply(found, fit)
    for turn in symmetry.group(name)[1:]:
        again = alignment.apply(standard, Fit(turn, np.zeros(3), 1.0))
        assert alignment.correlation(standard, again, radius_cycles=6) > 0.95


def test_no_axis_is_where_there_is_none(small: Volume) -> None:
    assert symmetry.align(small, "C3").score < 0.95
    with pytest.raises(ValueError, match="C1 has no axes"):
        symmetry.align(small, "C1")
    with pytest.raises(ValueError, match="cubic map that is not constant"):
        symmetry.align(Volume(np.ones((BOX,) * 3), 10.0), "C2")


@pytest.mark.parametrize(("name", "seed"), [("C1", 4), ("C3", 5), ("D2", 6)])
def test_the_survey_names_the_symmetry(small: Volume, name: str, seed: int) -> None:
    truth = hidden(symmetric(small, name), seed)
    generator = np.random.default_rng(seed)
    halves = [
        Volume((truth.data + truth.data.std() * generator.standard_normal(truth.shape)).astype(np.float32), 16.0)
        for _ in range(2)
    ]
    table = symmetry.compare(*halves, names=("C2", "C3", "C4", "D2", "D3"))
    assert table.index[0] == name
    assert set(table.index) == {"C1", "C2", "C3", "C4", "D2", "D3"}
    assert table.loc[name, "order"] == len(symmetry.group(name))
