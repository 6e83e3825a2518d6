"""The five functions that take a client, here and on two worker processes of the same machine: seconds, and whether they agree.

All processes compute with one thread, so that the results can be equal bit for bit. Seconds of the processors tell what the
cluster costs beside the work, also where others are at work on the same machine: what this process uses cannot be shared, what
the workers use can.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import record
import torch
from distributed import Client, LocalCluster

from tomolab import averaging, io, parallel, particles, simulation, subtomograms, tomograms
from tomolab.learning import embedding, networks
from tomolab.simulation import Imaging, densities
from tomolab.volumes import Volume

TASKS = 200


def main() -> None:
    """Everything once here and once there."""
    rows, load = [], os.getloadavg()[0]
    torch.set_num_threads(1)
    settings = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    began = time.perf_counter()
    cluster = LocalCluster(processes=True, scheduler_kwargs={"dashboard": False}, **settings)
    with TemporaryDirectory() as folder, cluster, Client(cluster, set_as_default=False) as client:
        ready = time.perf_counter() - began
        client.run(warm)
        for name, work in works(Path(folder)).items():
            rows.append({"function": name} | compared(work, client))
        began = time.perf_counter()
        list(parallel.each(abs, range(TASKS), client=client))
        each = (time.perf_counter() - began) / TASKS
    rows += [
        {"function": "two workers start and import tomolab", "two workers (s)": ready},
        {"function": "a task that does nothing", "two workers (s)": each},
    ]
    settings = {"workers": 2, "threads of each process": 1, "tasks": TASKS, "processes that wanted to run before": load}
    record.write("cluster", rows, settings=settings)


def warm() -> None:
    """Start what the first task would wait for."""
    networks.load("default")
    averaging.correlate(*[Volume(np.random.default_rng(1).normal(size=(16,) * 3), 10.0)] * 2)


def compared(work: Callable[[Any], np.ndarray], client: Client) -> dict[str, Any]:
    """Seconds here and on the workers, of the clock and of the processors; and whether the results are equal."""
    told: dict[str, Any] = {}
    began, own = time.perf_counter(), time.process_time()
    here = work(False)
    told |= {"here (s)": time.perf_counter() - began, "processor here": time.process_time() - own}
    used, began, own = sum(client.run(time.process_time).values()), time.perf_counter(), time.process_time()
    there = work(client)
    told |= {"two workers (s)": time.perf_counter() - began, "processor here beside workers": time.process_time() - own}
    told["processor of both workers"] = sum(client.run(time.process_time).values()) - used
    told["times as fast"] = told["here (s)"] / told["two workers (s)"]
    return {name: round(value, 2) for name, value in told.items()} | {"equal": bool(np.array_equal(here, there))}


def works(folder: Path) -> dict[str, Callable[[Any], np.ndarray]]:
    """The functions with their work, each of the client alone; what they give as one array."""
    rng = np.random.default_rng(1)
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=20.0, box=20)
    imaging = Imaging(snr=0.3)
    boxes = simulation.subtomograms(maps, 2048, imaging=imaging, box=20, seed=1, device="cpu", client=False)
    stored = subtomograms.open(boxes.save(folder / "boxes.zarr"))
    stack, tilts = rng.normal(size=(41, 256, 256)).astype(np.float32), np.arange(-60, 61, 3.0)
    volume = Volume(rng.normal(size=(128, 256, 256)).astype(np.float32), 10.0)
    cell = io.open_volume(io.write_volume(volume, folder / "cell.mrc"))
    places = particles.table(rng.uniform(200, [1000, 2300, 2300], (2000, 3)))
    network, few = networks.load("default"), boxes.ids[np.r_[:128, 2048:2176]]

    def simulate(client: Any) -> np.ndarray:
        return simulation.subtomograms(maps, 8192, imaging=imaging, box=20, seed=2, device="cpu", client=client).volumes

    def reconstruct(client: Any) -> np.ndarray:
        options: dict[str, Any] = {"voxel_size": 10.0, "shape": (100, 256, 256), "device": "cpu", "progress": False}
        return tomograms.reconstruct(stack, tilts, **options, client=client).data

    def extract(client: Any) -> np.ndarray:
        return np.asarray(subtomograms.extract(cell, places, box=32, client=client).volumes, dtype=np.float32)

    def embed(client: Any) -> np.ndarray:
        return embedding.embed(network, stored, device="cpu", progress=False, client=client).vectors

    def average(client: Any) -> np.ndarray:
        options: dict[str, Any] = {"iterations": 3, "starts": 1, "device": "cpu", "progress": False}
        return averaging.average(boxes, few, seed=1, **options, client=client).volume.data

    return {
        "simulate 16,384 boxes of 20³": simulate,
        "reconstruct 100 x 256 x 256 from 41 images": reconstruct,
        "extract 2,000 boxes of 32³": extract,
        "embed 4,096 boxes of 20³": embed,
        "average 256 boxes of 20³, 3 iterations": average,
    }


if __name__ == "__main__":
    main()
