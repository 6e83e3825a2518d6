"""Projection puts every point where the geometry says, and splits along the beam without losing anything."""

import numpy as np
import pytest
import torch

from tomolab.tomograms import projection
from tomolab.volumes import Volume

TILTS = np.arange(-60, 61, 3.0)
BEAD = (6.0, -4.0, 9.0)


def test_projection_sums_along_the_beam(phantom: Volume) -> None:
    images = projection.project(phantom, [0.0, 37.0, 90.0], progress=False)
    assert images.shape == (3, 32, 32)
    np.testing.assert_allclose(images[0], phantom.data.sum(0), atol=0.01 * images[0].max())
    np.testing.assert_allclose(images.sum((1, 2)), phantom.data.sum(), rtol=1e-3)
    # At 90 degrees the image's x is the volume's z.
    np.testing.assert_allclose(images[2], phantom.data.sum(2).T, atol=0.01 * images[2].max())


def test_projection_sees_a_bead_where_it_is() -> None:
    grid = np.indices((32, 40, 48)) - np.array([16, 20, 24])[:, None, None, None]
    bead = np.exp(-((grid - np.array(BEAD)[:, None, None, None]) ** 2).sum(0) / (2 * 1.5**2))
    images = projection.project(Volume(bead, 10.0), TILTS, width=64, progress=False)
    expected = 24 + 8 + BEAD[2] * np.cos(np.deg2rad(TILTS)) + BEAD[0] * np.sin(np.deg2rad(TILTS))
    mass = images.sum(1)
    np.testing.assert_allclose((mass * np.arange(64)).sum(1) / mass.sum(1), expected, atol=0.1)


@pytest.mark.parametrize("tilt", [-60.0, 0.0, 41.0, 90.0])
def test_slabs_add_up_to_the_projection(phantom: Volume, tilt: float) -> None:
    whole = projection.project(phantom, [tilt], width=40, progress=False)[0]
    parts, heights = projection.slabs(torch.from_numpy(phantom.data), tilt, width=40, depth=5.0)
    assert len(parts) == len(heights) > 5
    np.testing.assert_allclose(parts.sum(0), whole, atol=1e-4)
    np.testing.assert_allclose(heights + heights.flip(0), 0, atol=1e-5)
    np.testing.assert_allclose(heights.diff(), 5.0)
    one, middle = projection.slabs(torch.from_numpy(phantom.data), tilt, width=40)
    assert one.shape == (1, 32, 40)
    assert middle.tolist() == [0.0]


@pytest.mark.parametrize("tilt", [-60.0, -20.0, 0.0, 35.0, 60.0])
def test_a_point_lies_in_the_slab_of_its_height(tilt: float) -> None:
    """At z cos t - x sin t, so that the two ends of a tilted slab lie on different sides of the focus."""
    data = torch.zeros(20, 4, 60)
    data[13, 2, 50] = 1
    parts, heights = projection.slabs(data, tilt, width=60, depth=4.0)
    found = heights[int(parts.sum((1, 2)).argmax())]
    expected = (13 - 10) * np.cos(np.deg2rad(tilt)) - (50 - 30) * np.sin(np.deg2rad(tilt))
    assert abs(float(found) - expected) <= 2.0


def test_a_volume_may_reach_beyond_the_image(phantom: Volume) -> None:
    wide = projection.project(phantom, TILTS, width=32, progress=False)
    narrow = projection.project(phantom, TILTS, width=20, progress=False)
    np.testing.assert_allclose(narrow, wide[:, :, 6:26], atol=1e-4)


def test_layout_in_memory_does_not_matter(phantom: Volume) -> None:
    data = torch.from_numpy(phantom.data)
    turned = projection.y_last(data)
    torch.testing.assert_close(turned, data)
    torch.testing.assert_close(*(projection.slabs(each, 20.0, width=32)[0] for each in (data, turned)))


def test_back_projection_is_the_adjoint_of_spreading() -> None:
    """The sum over voxels of a back-projection times a volume is that over columns of the images times the spread volume."""
    generator = torch.Generator().manual_seed(3)
    wide = projection.columns_needed(20, TILTS, (8, 20))
    images, volume = (torch.randn(shape, generator=generator) for shape in ((len(TILTS), wide, 3), (8, 3, 20)))
    back_projected = projection.back_project(images, TILTS, (8, 3, 20), progress=False)
    index, share = projection.columns(torch.from_numpy(TILTS), (8, 20), wide, layers=slice(0, 8))
    spread = torch.zeros(len(TILTS) * wide, 3)
    rows = volume.transpose(1, 2).reshape(160, 1, 3).expand(-1, index.shape[1], -1)
    spread.index_add_(0, index.flatten(), (rows * share[..., None]).flatten(0, 1))
    expected = (spread.reshape(images.shape) * images).sum()
    np.testing.assert_allclose((back_projected * volume.numpy()).sum(), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.zeros(3, 3)}, r"shape \(z, y, x\) is needed, got shape \(3, 3\)"),
        ({"tilt": 91.0}, "within ±90°, got"),
        ({"width": 0}, "must be positive, got 0 pixels"),
        ({"depth": 0.0}, "got 8 pixels and 0.0 voxels"),
    ],
)
def test_bad_input_is_refused(change: dict, message: str) -> None:
    given = {"data": torch.zeros(3, 3, 3), "tilt": 0.0, "width": 8, "depth": None} | change
    with pytest.raises(ValueError, match=message):
        projection.slabs(given.pop("data"), given.pop("tilt"), **given)
