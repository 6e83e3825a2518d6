"""Fixtures shared by all tests: a phantom without symmetry, groups of features, a run folder, and a web server."""

import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import fourier, io, particles, rotations, simulation, volumes
from tomolab.learning import Embedding
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume


def blob(box: int, at: tuple[float, float, float], sigma: float) -> np.ndarray:
    """Gaussian of width `sigma` voxels at a zyx offset from the centre of the box."""
    axes = np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij")
    return np.exp(-sum((axis - place) ** 2 for axis, place in zip(axes, at, strict=True)) / (2 * sigma**2))


@pytest.fixture(scope="session")
def phantom() -> Volume:
    """32 voxels of 10 Å: three unequal arms and a bead off the axes, so no rotation or mirror maps it onto itself."""
    data = np.zeros((32, 32, 32))
    for arm, length in enumerate((9, 6, 4)):
        for step in np.linspace(0, length, 2 * length):
            place = [0.0, 0.0, 0.0]
            place[arm] = step
            data += 0.3 * blob(32, tuple(place), 1.5)
    data += 1.5 * blob(32, (-4, 3, 5), 1.5)
    return Volume(data, 10.0)


@pytest.fixture(scope="session")
def small(phantom: Volume) -> Volume:
    """The phantom at 20 Å in a box of 20."""
    return volumes.fit(volumes.resample(phantom, 20.0), 20)


def imaged(truth: Volume, count: int, *, snr: float, seed: int) -> tuple[Subtomograms, np.ndarray, np.ndarray]:
    """Copies in random poses with a missing wedge and noise inside it; the rotations and the shifts in Å."""
    generator = torch.Generator().manual_seed(seed)
    turns = rotations.random(count, generator)
    shifts = 2 * torch.rand(count, 3, generator=generator) - 1
    fine = fourier.resize(torch.from_numpy(truth.data), [2 * n for n in truth.shape])
    clean = volumes.transform(fine.expand(count, -1, -1, -1), turns, shifts, box=truth.shape[0], step=2.0)
    tilts = torch.tensor([[-60.0, 60.0], [-50.0, 60.0]])[torch.arange(count) % 2]
    wedge = fourier.wedge(truth.shape[0], tilts[:, 0], tilts[:, 1])

    def seen(batch: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(batch, dim=(1, 2, 3)) * wedge, s=truth.shape, dim=(1, 2, 3))

    signal, noise = seen(clean), seen(torch.randn(clean.shape, generator=generator))
    scale = (signal.flatten(1).var(1) / noise.flatten(1).var(1) / snr).sqrt()
    data = volumes.normalise(signal + scale[:, None, None, None] * noise)
    middle = np.full((count, 3), truth.shape[0] // 2 * truth.voxel_size)
    table = particles.table(middle, ids=np.arange(count) + 100, tilts=tilts.numpy(), source="phantom")
    return (
        Subtomograms(data.numpy(), table, truth.voxel_size),
        turns.double().numpy(),
        shifts.double().numpy() * truth.voxel_size,
    )


@pytest.fixture(scope="session")
def boxes() -> Subtomograms:
    """Sixteen boxes each of two kinds, with places in a tomogram of 40 × 60 × 80 voxels of 20 Å."""
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=20.0, box=20)
    cut = simulation.subtomograms(maps, 16, imaging=Imaging(snr=0.5, tilts=(-60.0, 60.0)), box=20, seed=3, device="cpu")
    places = np.random.default_rng(2).uniform(0, 1, (32, 3)) * [780.0, 1180.0, 1580.0]
    table = cut.particles.assign(z=places[:, 0], y=places[:, 1], x=places[:, 2], tomogram="cell", score=np.arange(32.0))
    return Subtomograms(cut.volumes, table, cut.voxel_size)


@pytest.fixture(scope="session")
def mixed() -> Subtomograms:
    """Twenty-four subtomograms of each of two complexes, tric and ruvab."""
    maps = densities.load(["tric", "ruvab"], voxel_size=20.0, box=20)
    imaging = Imaging(snr=0.3, tilts=(-60.0, 60.0), shift=0.05)
    return simulation.subtomograms(maps, 24, imaging=imaging, box=20, seed=3, device="cpu")


@pytest.fixture(scope="session")
def rough(mixed: Subtomograms) -> pd.Series:
    """Labels of `mixed`, two for tric and one for ruvab; a fifth of all is wrong."""
    generator = np.random.default_rng(4)
    kind = mixed.particles["label"].map(["tric", "ruvab"].index).to_numpy()
    labels = kind * 2 + (kind == 0) * generator.integers(2, size=len(kind))
    wrong = generator.uniform(size=len(kind)) <= 0.2
    return pd.Series(np.where(wrong, generator.integers(3, size=len(kind)), labels), index=mixed.ids, name="label")


def write_run(folder: Path, boxes: Subtomograms) -> Path:
    """A run folder as the notebooks leave it: one cluster of two kinds of particles that are far apart in the embedding."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = (boxes.particles["label"] == "tric").to_numpy()
    vectors = np.random.default_rng(1).normal(size=(len(boxes), 8)) * 0.05
    vectors[:, 0] += np.where(kind, 1.0, -1.0)
    Embedding(boxes.ids, vectors, "of a test").save(folder / "embedding")
    io.write_particles(boxes.particles.assign(cluster=0), folder / "clusters.csv")
    boxes.save(folder / "subtomograms.zarr")
    noise = np.random.default_rng(4).normal(size=(40, 60, 80)).astype(np.float32)
    io.write_volume(Volume(noise, 20.0), folder / "tomogram.mrc")
    layout = pd.DataFrame({"particle_id": boxes.ids, "x": vectors[:, 0], "y": vectors[:, 1]})
    layout.to_csv(folder / "layout.csv", index=False)
    return folder


def divide_run(folder: Path) -> None:
    """Put the particles of `write_run` into two tomograms, of which one has an image, and into clusters of their kinds."""
    table = io.read_particles(folder / "clusters.csv").assign(tomogram=["cell", "other"] * 16)
    io.write_particles(table.assign(cluster=(table["label"] == "tric").astype(int)), folder / "clusters.csv")
    (folder / "tomograms").mkdir()
    (folder / "tomogram.mrc").rename(folder / "tomograms" / "cell.mrc")


@pytest.fixture
def folder(tmp_path: Path, boxes: Subtomograms) -> Path:
    """A run folder of two kinds of particles (`write_run`)."""
    return write_run(tmp_path, boxes)


@pytest.fixture
def groups() -> tuple[Embedding, pd.Series]:
    """Three directions in feature space with 40, 30 and 20 particles, in random order, and the truth."""
    rng = np.random.default_rng(3)
    true = rng.permutation(np.repeat([0, 1, 2], [20, 40, 30]))
    ids = rng.choice(10_000, 90, replace=False)
    vectors = 5 * np.eye(8)[true] + 0.3 * rng.normal(size=(90, 8))
    return Embedding(ids, vectors, ""), pd.Series(np.array(["small", "large", "middle"])[true], index=ids)


@dataclass
class Server:
    """A web server on this machine: it serves `folder` at `url`, fails at /fail, and notes what was asked."""

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path_factory):
    state = Server(tmp_path_factory.mktemp("server"))

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            if self.path == "/fail":
                self.send_error(500)
            else:
                super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(state.folder))) as web:
        state.url = f"http://127.0.0.1:{web.server_port}"
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield state
        web.shutdown()
        thread.join()
