"""Training and inference of every network in subtomograms per second, ours against a plain float32 loop in the same run.

The plain loop is what one writes first: float32, volumes as they come (channels first), torch.optim, one step after the other.
Both have the same network, batch, loss and optimiser. Ours is the loop of `training.fit` and the features of `metrics`.
Training is measured with batches that are ready, and with batches simulated on the way. Rounds of both alternate; medians.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import record
import torch
from torch.nn import functional

from tomolab import parallel, simulation
from tomolab.learning import Network, metrics, networks, recipes
from tomolab.learning import loop as training_loop
from tomolab.learning.datasets import Data
from tomolab.learning.loop import Loop
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms

BOX, ROUNDS = 20, 5
# Large networks take smaller batches, so that the whole takes minutes.
BATCHES = {"compact": 64, "dsrf3d": 32, "inception3d": 32, "dsrf3d_v2": 32, "rb3d": 32, "cb3d": 8, "yopo": 8}
WHERE = parallel.pick_device()


@dataclass(frozen=True)
class Ready:
    """One batch that is there already, again and again."""

    classes: tuple[str, ...]
    volumes: torch.Tensor
    labels: torch.Tensor
    batches: int = 1_000_000

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:  # noqa: ARG002
        """The batch, without end."""
        return itertools.repeat((self.volumes, self.labels))


def main() -> None:
    """Measure all networks."""
    maps = densities.load(networks.load("default").classes, voxel_size=20.0, box=BOX)
    rows = [measure(name, maps) for name in networks.names()]
    settings = {
        "box": BOX,
        "rounds": ROUNDS,
        "bfloat16": parallel.use_bfloat16(WHERE, "auto"),
        "threads": torch.get_num_threads(),
    }
    record.write("networks", rows, settings=settings)


def measure(name: str, maps: dict[str, Any]) -> dict[str, Any]:
    """One row: subtomograms per second of ours, and how many times that of the plain loop."""
    size = BATCHES[name]
    stream = simulation.Stream(maps, imaging=Imaging(snr=0.05), box=BOX, batch_size=size, epoch_size=10_000 * size, seed=1)
    volumes, labels = next(stream.epoch(0))
    particles = simulation.subtomograms(maps, max(1, size // len(maps)), imaging=Imaging(snr=0.05), box=BOX, seed=2)
    ready = Ready(stream.classes, volumes, labels)
    row: dict[str, Any] = {"network": name, "batch": size}
    for title, (ours, plain), count in (
        ("training", (our_steps(name, ready), plain_steps(name, ready)), size),
        ("training, simulated", (our_steps(name, stream), plain_steps(name, stream)), size),
        ("inference", inference(name, stream, particles), len(particles)),
    ):
        seconds = alternate(ours, plain)
        row[f"{title} (1/s)"] = count / seconds[0]
        row[f"{title}, times plain"] = seconds[1] / seconds[0]
    return row


def alternate(ours: Callable[[], object], plain: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of both, in rounds that alternate, after one round that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for work, found in zip((ours, plain), times, strict=True):
            start = time.perf_counter()
            work()
            if WHERE.type == "cuda":
                torch.cuda.synchronize()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def our_steps(name: str, data: Data) -> Callable[[], object]:
    """A step of `training.fit`."""
    fabric = training_loop.launch(WHERE, bfloat16=parallel.use_bfloat16(WHERE, "auto"))
    loop = Loop(made(name, data), data, recipe=recipes.recipe(name), epochs=1, seed=1, fabric=fabric)
    loop.start()
    steps = loop.epoch(0)
    return lambda: next(steps)


def plain_steps(name: str, data: Data) -> Callable[[], object]:
    """A step of the plain loop."""
    network, recipe = made(name, data), recipes.recipe(name)
    if recipe.algorithm == "sgd":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    else:
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    batches = data.epoch(1)

    def step() -> None:
        volumes, labels = next(batches)
        loss = functional.cross_entropy(network(volumes.to(WHERE)), labels.to(WHERE))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def inference(name: str, data: Data, particles: Subtomograms) -> tuple[Callable[[], object], Callable[[], object]]:
    """Features by `metrics.features`, and by the plain loop."""
    ours, plain = made(name, data).eval().to(memory_format=torch.channels_last_3d), made(name, data).eval()

    def straight() -> torch.Tensor:
        with torch.no_grad():
            return plain.features(torch.from_numpy(particles.volumes).to(WHERE)).cpu()

    return lambda: metrics.features(ours, particles), straight


def made(name: str, data: Data) -> Network:
    """A fresh network for the data."""
    return networks.create(name, box=BOX, classes=data.classes, voxel_size=20.0).to(WHERE)


if __name__ == "__main__":
    main()
