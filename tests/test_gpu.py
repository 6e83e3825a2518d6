"""Every stage agrees between CPU and GPU; these tests skip themselves where there is no GPU."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tomolab import averaging, rotations, simulation, tomograms, volumes
from tomolab.averaging import alignment
from tomolab.jobs import Progress
from tomolab.learning import Embedding, baselines, embedding, networks, training
from tomolab.simulation import Imaging, densities, microscope, specimen
from tomolab.volumes import Volume

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
GPU = torch.device("cuda")


def test_geometry_agrees(phantom: Volume) -> None:
    batch = torch.from_numpy(phantom.data).expand(8, -1, -1, -1)
    turns = rotations.random(8, torch.Generator().manual_seed(1))
    here, there = (volumes.transform(batch.to(where), turns.to(where)).cpu() for where in ("cpu", GPU))
    assert torch.allclose(here, there, atol=1e-4)


def test_imaging_keeps_its_snr(phantom: Volume) -> None:
    batch = torch.from_numpy(phantom.data).to(GPU).expand(16, -1, -1, -1)
    images = []
    for snr in (float("inf"), 0.1):
        scope = microscope.prepare(Imaging(snr=snr, defocus=3.0), phantom.shape, voxel_size=10.0, device=GPU)
        images.append(microscope.image(batch, scope, torch.Generator(device=GPU).manual_seed(1))[0])
    clean, noisy = images
    assert float((clean.var((1, 2, 3)) / (noisy - clean).var((1, 2, 3))).mean()) == pytest.approx(0.1, rel=0.05)


def test_particles_look_alike(phantom: Volume) -> None:
    """What is rendered on the GPU, neighbours and all, has the power of what is rendered on the CPU."""
    imaging = Imaging.in_cells(dose=120.0)
    here, there = (
        simulation.subtomograms({"phantom": phantom}, 200, imaging=imaging, box=24, seed=1, device=where)
        for where in ("cpu", "cuda")
    )
    power = [np.abs(np.fft.rfftn(np.asarray(one.volumes, dtype=np.float32), axes=(1, 2, 3))) ** 2 for one in (here, there)]
    assert power[0][:, :6, :6, 1:6].mean() == pytest.approx(power[1][:, :6, :6, 1:6].mean(), rel=0.05)


def test_a_tilt_series_and_its_tomogram_agree(phantom: Volume) -> None:
    made = specimen.build({"phantom": phantom}, 2, shape=(48, 64, 64), seed=1, device="cpu", progress=False)
    imaging = Imaging(snr=float("inf"), defocus=3.0, tilt_step=10.0)
    here, there = (simulation.acquire(made, imaging, seed=1, device=where, progress=False) for where in ("cpu", "cuda"))
    assert np.allclose(here.images, there.images, atol=1e-3)
    volumes_of = [
        tomograms.reconstruct(here.images, here.tilts, voxel_size=10.0, device=where, progress=False).data
        for where in ("cpu", "cuda")
    ]
    assert np.corrcoef(volumes_of[0].ravel(), volumes_of[1].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("name", networks.names())
def test_features_agree(phantom: Volume, name: str) -> None:
    particles = simulation.subtomograms({"phantom": phantom}, 12, imaging=Imaging(snr=1.0), box=20, seed=1, device="cpu")
    network = networks.create(name, box=20, classes=["a", "b"]).eval()
    here, there = (
        embedding.embed(network, particles, device=where, precision="float32", progress=False).vectors
        for where in ("cpu", "cuda")
    )
    assert np.allclose(here, there, atol=1e-2 * np.abs(here).max())


@pytest.mark.parametrize("describe", [baselines.invariants, baselines.normalised])
def test_baselines_agree(phantom: Volume, describe: Callable[..., Embedding]) -> None:
    particles = simulation.subtomograms({"phantom": phantom}, 60, imaging=Imaging(snr=5.0), box=20, seed=1, device="cpu")
    here, there = (describe(particles, device=where, progress=False).vectors for where in ("cpu", "cuda"))
    # Where two axes of a particle are nearly alike, a rounding can turn its pose; and an axis of PCA may point either way.
    alike = np.abs((here * there).sum(0)) / np.sqrt((here**2).sum(0) * (there**2).sum(0))
    assert np.median(alike) > 0.99


def test_training_learns_on_the_gpu(phantom: Volume, tmp_path) -> None:
    half = phantom.data.copy()
    half[16:] = 0
    maps = {"whole": phantom, "half": Volume(half, 10.0)}
    imaging = Imaging(snr=1.0, defocus=None)
    stream = simulation.Stream(maps, imaging=imaging, box=16, batch_size=16, epoch_size=320, seed=1, device="cuda")
    held_back = simulation.subtomograms(maps, 20, imaging=imaging, box=16, seed=2, device="cuda")
    network = networks.create("compact", box=16, classes=stream.classes)
    record = training.fit(
        network, stream, validation=held_back, epochs=3, seed=1, folder=tmp_path, device="cuda", progress=False
    )
    assert max(row["accuracy"] for row in record["history"]) > 0.7


def test_averaging_recovers_the_phantom_on_the_gpu(phantom: Volume) -> None:
    particles = simulation.subtomograms({"phantom": phantom}, 60, imaging=Imaging(snr=1.0, defocus=None), box=32, seed=1)
    average = averaging.average(particles, seed=1, device="cuda")
    assert alignment.align_map(phantom, average.volume).score > 0.85


def test_a_symmetry_is_found_on_the_gpu() -> None:
    maps = densities.load(["tric"], voxel_size=20.0, box=20)
    particles = simulation.subtomograms(maps, 60, imaging=Imaging(snr=0.5, defocus=None), box=20, seed=1)
    average = averaging.average(particles, seed=1, symmetry="D8", device="cuda", progress=False)
    assert average.record["symmetry"] == "D8"
    assert average.reliable


def test_strangers_are_named_on_the_gpu() -> None:
    maps = densities.load(["tric", "ruvab"], voxel_size=20.0, box=20)
    imaging = Imaging(snr=0.2, tilts=(-60.0, 60.0), shift=0.05)
    mixed = simulation.subtomograms(maps, {"tric": 40, "ruvab": 10}, imaging=imaging, box=20, seed=3)
    found = averaging.classify(mixed, seed=1, iterations=3, device="cuda", progress=False)
    stranger = mixed.particles.set_index("particle_id")["label"] == "ruvab"
    assert found.labels[stranger].mean() > 0.85
    assert found.labels[~stranger].mean() < 0.1


def test_a_gpu_goes_on_where_it_was_stopped(phantom: Volume, tmp_path) -> None:
    particles = simulation.subtomograms({"phantom": phantom}, 40, imaging=Imaging(snr=1.0, defocus=None), box=32, seed=1)
    options = {"seed": 1, "checkpoint": tmp_path / "state.safetensors", "device": "cuda"}
    seen: list[Progress] = []
    averaging.average(particles, progress=seen.append, stop=lambda: len(seen) == 20, **options)
    assert options["checkpoint"].exists()
    average = averaging.average(particles, progress=seen.append, **options)
    assert seen[20].iteration > 1
    assert alignment.align_map(phantom, average.volume).score > 0.85
