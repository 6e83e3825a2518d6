"""Masks show cells, membranes and gold with its streaks where they were put, and nothing where there is nothing."""

import numpy as np
import pytest

from tomolab import simulation, tomograms
from tomolab.picking import masks
from tomolab.simulation import Imaging, Membrane, densities
from tomolab.simulation import specimen as specimens
from tomolab.tomograms import projection
from tomolab.volumes import Volume

VOXEL = 20.0
TOMOGRAM_SHAPE = (40, 128, 128)


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


def test_dilate_and_inner_are_in_angstrom() -> None:
    mask = np.zeros((9, 11, 13), dtype=bool)
    mask[4, 5, 6] = True
    grown = masks.dilate(mask, 30.0, voxel_size=10.0)
    assert np.argwhere(grown).min(0).tolist() == [1, 2, 3]
    assert grown.sum() == sum(z * z + y * y + x * x <= 9 for z in range(-3, 4) for y in range(-3, 4) for x in range(-3, 4))
    assert not masks.dilate(np.zeros((3, 3, 3), dtype=bool), 10, voxel_size=10).any()
    with pytest.raises(ValueError, match="distance must not be negative"):
        masks.dilate(mask, -1, voxel_size=10)
    inner = masks.inner(Volume(np.ones((9, 11, 13)), 10.0), (20, 0, 35))
    assert np.argwhere(inner).min(0).tolist() == [2, 0, 4]
    assert np.argwhere(inner).max(0).tolist() == [6, 10, 8]
    assert not masks.inner(Volume(np.ones((9, 11, 13)), 10.0), 60).any()
    with pytest.raises(ValueError, match="margin must not be negative"):
        masks.inner(Volume(np.ones((9, 11, 13)), 10.0), -1)


def test_streaks_lie_where_back_projection_leaves_them() -> None:
    """A bead seen from -30 to 50 degrees: what is bright far from it lies along the beams of these two tilts."""
    data = np.zeros((64, 4, 96), dtype=np.float32)
    data[31:34, :, 47:50] = 100
    tilts = np.arange(-30, 51, 2.0)
    images = projection.project(Volume(data, 10.0), tilts, device="cpu", progress=False)
    options = {"pixel_size": 10.0, "shape": data.shape, "invert": False, "clip": None, "normalise": False, "progress": False}
    seen = np.abs(tomograms.reconstruct(images, tilts, voxel_size=10.0, **options).data[:, 2])
    bead = data > 50
    ours = masks.streaks(masks.dilate(bead, 15.0, voxel_size=10.0), tilts=(-30, 50), length=300.0, voxel_size=10.0)[:, 2]
    mirrored = masks.streaks(masks.dilate(bead, 15.0, voxel_size=10.0), tilts=(-50, 30), length=300.0, voxel_size=10.0)[:, 2]
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
    assert not masks.fiducial_mask(noise).any()
    with pytest.raises(ValueError, match="got 0 Å"):
        masks.fiducial_mask(noise, diameter=0)


def seen(cell: Membrane | None, vesicles: int) -> tuple[Volume, np.ndarray]:
    """Tomogram of ribosomes and smaller complexes, and where its membranes are."""
    maps = densities.load(["ribosome_70s", "tric", "apoferritin"], voxel_size=20.0, box=20)
    specimen = specimens.build(
        maps,
        12,
        shape=TOMOGRAM_SHAPE,
        thickness=760.0,
        cell=cell,
        vesicles=vesicles,
        soluble_protein=60.0,
        seed=4,
        device="cpu",
        progress=False,
    )
    imaging = Imaging(snr=None, dose=120.0, defocus=3.0, envelope=None)
    series = simulation.acquire(specimen, imaging, seed=5, device="cpu", progress=False)
    volume = tomograms.reconstruct(
        series.images, series.tilts, voxel_size=20.0, shape=TOMOGRAM_SHAPE, device="cpu", progress=False
    )
    named = specimen.labels == (specimen.names.index("membrane") + 1 if "membrane" in specimen.names else -1)
    return volume, named


def test_the_border_of_a_cell_is_found() -> None:
    volume, truth = seen(Membrane(centre=(400, 200, 700), radii=(2000, 1500, 1700), roughness=0.03, seed=3), 0)
    found = masks.membranes(volume)
    close = [masks.dilate(one, 40.0, voxel_size=20.0) for one in (truth, found)]
    assert (found & close[0]).sum() > 0.9 * found.sum()
    assert (truth & close[1]).sum() > 0.7 * truth.sum()


def test_no_membrane_is_found_among_complexes() -> None:
    volume, truth = seen(None, 0)
    assert not truth.any()
    assert not masks.membranes(volume).any()


def test_noise_and_nothing_have_no_membranes() -> None:
    assert not masks.membranes(Volume(np.random.default_rng(0).normal(size=(30, 60, 60)), 20.0)).any()
    assert not masks.membranes(Volume(np.ones((8, 8, 8)), 20.0)).any()


def test_the_layers_do_not_show() -> None:
    """A sheet across the places where the tomogram is split into stacks of layers."""
    z, _, x = np.indices((90, 40, 44))
    data = np.exp(-((x - 22 - 0.1 * z) ** 2) / 4) + np.random.default_rng(2).normal(0, 0.2, z.shape)
    volume = Volume(data, 20.0)
    flat = masks.flatness(volume, thickness=100, patch=60)
    assert flat.max() < 1.01
    middle = flat[10:-10, 10:-10].argmax(2)
    np.testing.assert_allclose(middle, (22 + 0.1 * z[10:-10, 10:-10, 0]), atol=2)
    along = flat[15:75, 20, :].max(1)
    assert along.min() > 0.8 * along.max()


def test_bad_sizes_are_refused() -> None:
    for name in ("thickness", "patch", "threshold", "area"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            masks.membranes(Volume(np.ones((8, 8, 8)), 20.0), **{name: 0})
