"""Membranes are found in a simulated tomogram, and not where there are none."""

import numpy as np
import pytest
import torch

from tomolab import simulation, tomograms
from tomolab.picking import masks, membranes
from tomolab.simulation import Imaging, Membrane, densities
from tomolab.simulation import specimen as specimens
from tomolab.volumes import Volume

SHAPE = (40, 128, 128)


def seen(cell: Membrane | None, vesicles: int) -> tuple[Volume, np.ndarray]:
    """Tomogram of ribosomes and smaller complexes, and where its membranes are."""
    maps = densities.load(["ribosome_70s", "tric", "apoferritin"], voxel_size=20.0, box=20)
    specimen = specimens.build(
        maps, 12, shape=SHAPE, thickness=760.0, cell=cell, vesicles=vesicles, solutes=60.0, seed=4, device="cpu", progress=False
    )
    imaging = Imaging(snr=None, dose=120.0, defocus=3.0, envelope=None)
    series = simulation.acquire(specimen, imaging, seed=5, device="cpu", progress=False)
    volume = tomograms.reconstruct(series.images, series.tilts, voxel_size=20.0, shape=SHAPE, device="cpu", progress=False)
    named = specimen.labels == (specimen.names.index("membrane") + 1 if "membrane" in specimen.names else -1)
    return volume, named


def test_the_border_of_a_cell_is_found() -> None:
    volume, truth = seen(Membrane(centre=(400, 200, 700), radii=(2000, 1500, 1700), roughness=0.03, seed=3), 0)
    found = membranes.membranes(volume)
    close = [masks.near(one, 40.0, voxel_size=20.0) for one in (truth, found)]
    assert (found & close[0]).sum() > 0.9 * found.sum()
    assert (truth & close[1]).sum() > 0.7 * truth.sum()


def test_no_membrane_is_found_among_complexes() -> None:
    volume, truth = seen(None, 0)
    assert not truth.any()
    assert not membranes.membranes(volume).any()


def test_noise_and_nothing_have_no_membranes() -> None:
    assert not membranes.membranes(Volume(np.random.default_rng(0).normal(size=(30, 60, 60)), 20.0)).any()
    assert not membranes.membranes(Volume(np.ones((8, 8, 8)), 20.0)).any()


def test_the_layers_do_not_show() -> None:
    """A sheet across the places where the tomogram is split into stacks of layers."""
    z, _, x = np.indices((90, 40, 44))
    data = np.exp(-((x - 22 - 0.1 * z) ** 2) / 4) + np.random.default_rng(2).normal(0, 0.2, z.shape)
    volume = Volume(data, 20.0)
    flat = membranes.flatness(volume, thickness=100, patch=60)
    assert flat.max() < 1.01
    middle = flat[10:-10, 10:-10].argmax(2)
    np.testing.assert_allclose(middle, (22 + 0.1 * z[10:-10, 10:-10, 0]), atol=2)
    along = flat[15:75, 20, :].max(1)
    assert along.min() > 0.8 * along.max()


def test_eigenvalues_are_those_of_numpy() -> None:
    matrices = np.random.default_rng(1).normal(size=(200, 3, 3))
    matrices += matrices.transpose(0, 2, 1)
    matrices[:3] = [np.zeros((3, 3)), np.eye(3), np.diag([1.0, 1.0, -2.0])]
    upper = torch.from_numpy(matrices[:, *np.triu_indices(3)].T.copy())
    np.testing.assert_allclose(torch.stack(membranes.eigenvalues(upper), 1), np.linalg.eigvalsh(matrices), atol=1e-6)


def test_bad_sizes_are_refused() -> None:
    for name in ("thickness", "patch", "threshold", "area"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            membranes.membranes(Volume(np.ones((8, 8, 8)), 20.0), **{name: 0})
