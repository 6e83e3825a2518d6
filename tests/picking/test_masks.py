"""Masks: the ice between its planes, cells, outlines, gold with its streaks, and what is near."""

import mrcfile
import numpy as np
import pytest

from tomolab import tomograms
from tomolab.picking import masks
from tomolab.picking.masks import Slab
from tomolab.tomograms import projection
from tomolab.volumes import Volume

VOXEL = 20.0


def speckles(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Noise with the grain of complexes."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=tuple(n // 4 + 2 for n in shape))
    return np.kron(coarse, np.ones((4, 4, 4)))[tuple(slice(0, n) for n in shape)]


@pytest.fixture(scope="module")
def tilted() -> tuple[Volume, Slab]:
    """Ice between two planes of different slopes, in noise."""
    truth = Slab((250.0, 0.09, -0.05), (900.0, 0.06, -0.03))
    blank = Volume(np.ones((80, 128, 144)), VOXEL)
    inside = truth.mask(blank)
    noise = np.random.default_rng(1).normal(0, 0.8, blank.shape)
    return Volume(np.where(inside, speckles(blank.shape), 0) + noise, VOXEL), truth


def test_tilted_ice_is_found(tilted: tuple[Volume, Slab]) -> None:
    volume, truth = tilted
    found = masks.find_slab(volume)
    for name in ("low", "high"):
        ours, theirs = getattr(found, name), getattr(truth, name)
        for y, x in ((300, 300), (1280, 1440), (2300, 400)):
            assert np.dot(ours, (1, y, x)) == pytest.approx(np.dot(theirs, (1, y, x)), abs=60)
        np.testing.assert_allclose(ours[1:], theirs[1:], atol=0.015)
    assert found.thickness(volume) == pytest.approx(truth.thickness(volume), abs=60)
    agree = (found.mask(volume) == truth.mask(volume)).mean()
    assert agree > 0.94


def test_gold_does_not_move_the_ice(tilted: tuple[Volume, Slab]) -> None:
    volume, truth = tilted
    data = volume.data.copy()
    data[70:75, 20:25, 30:35] = 500
    found = masks.find_slab(Volume(data, VOXEL))
    assert (found.mask(volume) == truth.mask(volume)).mean() > 0.94


def test_ice_that_fills_the_volume_is_not_made_up() -> None:
    with pytest.raises(ValueError, match=r"no ice was found: only in \d+ of 64 patches"):
        masks.find_slab(Volume(speckles((40, 64, 64)), VOXEL))
    with pytest.raises(ValueError, match="level between 0 and 1"):
        masks.find_slab(Volume(speckles((8, 8, 8)), VOXEL), level=1.0)


def test_level_ice_includes_its_faces() -> None:
    mask = masks.slab(100, 200).mask(Volume(np.ones((20, 3, 4)), VOXEL))
    assert np.flatnonzero(mask[:, 0, 0]).tolist() == [5, 6, 7, 8, 9, 10]
    with pytest.raises(ValueError, match="got 200 to 100 Å"):
        masks.slab(200, 100)
    with pytest.raises(ValueError, match="low: a plane is its height"):
        Slab((1.0, np.nan, 0.0), (2.0, 0.0, 0.0))


def test_a_cell_is_found_without_its_holes() -> None:
    z, y, x = np.indices((30, 90, 100))
    truth = ((y - 20) / 55) ** 2 + ((x - 60) / 35) ** 2 + ((z - 20) / 40) ** 2 < 1
    hole = (y - 20) ** 2 + (x - 60) ** 2 + (z - 15) ** 2 < 8**2
    data = np.where(truth & ~hole, 1.0, 0.0) + np.random.default_rng(2).normal(0, 1.5, truth.shape)
    data[5:9, 80:84, 5:9] += 6
    found = masks.cell(Volume(data, VOXEL), detail=300)
    assert (found == truth).mean() > 0.96
    assert found[15, 20, 60]
    assert not found[7, 82, 7]
    assert masks.cell(Volume(data, VOXEL), detail=300, threshold=0.8).sum() < found.sum()
    with pytest.raises(ValueError, match="nothing is denser than 9"):
        masks.cell(Volume(data, VOXEL), threshold=9.0)


def test_outlines_turn_into_each_other() -> None:
    volume = Volume(np.ones((40, 60, 70)), 10.0)
    square = np.array([[100, 100], [100, 400], [300, 400], [300, 100]])
    mask = masks.outlined(volume, {100: square, 300: square + np.array([100, 200])})
    assert not mask[:10].any()
    assert not mask[31:].any()
    for layer, corner in ((10, (10, 10)), (30, (20, 30))):
        rows, columns = np.nonzero(mask[layer])
        assert (rows.min(), columns.min()) == corner
    centre = [np.argwhere(mask[layer]).mean(0) for layer in (10, 20, 30)]
    np.testing.assert_allclose(centre[1], (centre[0] + centre[2]) / 2, atol=1)
    assert masks.outlined(volume, {100: square})[10].sum() == mask[10].sum()


@pytest.mark.parametrize(
    ("outlines", "message"),
    [
        ({}, "no outlines"),
        ({100: [[0, 0], [1, 1]]}, r"corners \(n, 2\) with n of 3 or more, got shape \(2, 2\)"),
        ({100: [[0, 0], [1, 1], [np.nan, 3]]}, "corners"),
        ({4000: [[0, 0], [100, 100], [0, 100]]}, "z = 4000 Å is outside the volume, which is 400 Å high"),
    ],
)
def test_bad_outlines_are_refused(outlines: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masks.outlined(Volume(np.ones((40, 60, 70)), 10.0), outlines)


def test_near_and_inner_are_in_angstrom() -> None:
    mask = np.zeros((9, 11, 13), dtype=bool)
    mask[4, 5, 6] = True
    grown = masks.near(mask, 30.0, voxel_size=10.0)
    assert np.argwhere(grown).min(0).tolist() == [1, 2, 3]
    assert grown.sum() == sum(z * z + y * y + x * x <= 9 for z in range(-3, 4) for y in range(-3, 4) for x in range(-3, 4))
    assert not masks.near(np.zeros((3, 3, 3), dtype=bool), 10, voxel_size=10).any()
    with pytest.raises(ValueError, match="distance must not be negative"):
        masks.near(mask, -1, voxel_size=10)
    inner = masks.inner(Volume(np.ones((9, 11, 13)), 10.0), (20, 0, 35))
    assert np.argwhere(inner).min(0).tolist() == [2, 0, 4]
    assert np.argwhere(inner).max(0).tolist() == [6, 10, 8]
    assert not masks.inner(Volume(np.ones((9, 11, 13)), 10.0), 60).any()
    with pytest.raises(ValueError, match="margin must not be negative"):
        masks.inner(Volume(np.ones((9, 11, 13)), 10.0), -1)


def test_a_segmentation_is_read_and_held_against_the_tomogram(tmp_path) -> None:
    with mrcfile.new(tmp_path / "wall.mrc") as file:
        file.set_data((np.arange(60).reshape(3, 4, 5) % 7 == 0).astype(np.int8))
        file.voxel_size = 10.0
    like = Volume(np.zeros((3, 4, 5)), 10.0)
    np.testing.assert_array_equal(masks.read(tmp_path / "wall.mrc", like=like), np.arange(60).reshape(3, 4, 5) % 7 == 0)
    with pytest.raises(ValueError, match=r"has \(3, 4, 5\) voxels, but the tomogram \(3, 4, 6\)"):
        masks.read(tmp_path / "wall.mrc", like=Volume(np.zeros((3, 4, 6)), 10.0))
    with pytest.raises(ValueError, match="no voxels are above 3"):
        masks.read(tmp_path / "wall.mrc", like=like, threshold=3)
    with pytest.raises(ValueError, match="voxel_size=20"):
        masks.read(tmp_path / "wall.mrc", like=Volume(np.zeros((3, 4, 5)), 20.0))


def test_streaks_lie_where_back_projection_leaves_them() -> None:
    """A bead seen from -30 to 50 degrees: what is bright far from it lies along the beams of these two tilts."""
    data = np.zeros((64, 4, 96), dtype=np.float32)
    data[31:34, :, 47:50] = 100
    tilts = np.arange(-30, 51, 2.0)
    images = projection.project(Volume(data, 10.0), tilts, device="cpu", progress=False)
    options = {"pixel_size": 10.0, "shape": data.shape, "invert": False, "clip": None, "normalise": False, "progress": False}
    seen = np.abs(tomograms.reconstruct(images, tilts, voxel_size=10.0, **options).data[:, 2])
    bead = data > 50
    ours = masks.streaks(masks.near(bead, 15.0, voxel_size=10.0), tilts=(-30, 50), length=300.0, voxel_size=10.0)[:, 2]
    mirrored = masks.streaks(masks.near(bead, 15.0, voxel_size=10.0), tilts=(-50, 30), length=300.0, voxel_size=10.0)[:, 2]
    z, x = np.indices(seen.shape) - np.array([32, 48])[:, None, None]
    far = (np.hypot(z, x) > 10) & (np.hypot(z, x) < 28)
    bright = far & (seen > np.quantile(seen[far], 0.95))
    assert (ours & bright).sum() > 0.8 * bright.sum()
    assert (mirrored & bright).sum() < 0.3 * bright.sum()
    assert not masks.streaks(np.zeros((4, 4, 4), dtype=bool), tilts=(-60, 60), length=50, voxel_size=10).any()
    with pytest.raises(ValueError, match="expected ±90° and lengths"):
        masks.streaks(bead, tilts=(-95, 60), length=50, voxel_size=10)


def test_no_gold_gives_an_empty_mask() -> None:
    noise = Volume(np.random.default_rng(4).normal(0, 0.7, (30, 40, 50)), VOXEL)
    assert not masks.beads(noise).any()
    with pytest.raises(ValueError, match="got 0 Å"):
        masks.beads(noise, diameter=0)
