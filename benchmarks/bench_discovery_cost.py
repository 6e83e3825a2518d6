"""Discovery: what it costs with the number of particles, with all of them and with some that find the structures for all.

    python benchmarks/bench_discovery_cost.py
    python benchmarks/bench_discovery_cost.py --counts 600 6000 10000 --most 0 2000

Simulated subtomograms of twelve complexes at SNR 0.1, as many of each, divided by k-means of their features into twice as many
clusters; from there `averaging.discover`, with `max_particles=` where "most" is not 0. Each row is measured in a process of its
own, whose peak of memory counts. Boxes are made and embedded before the clock starts. The result is written after every row.
"""

import argparse
import itertools
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import record
from sklearn.metrics import adjusted_rand_score

from tomolab import averaging, clusters, learning, simulation
from tomolab.simulation import Imaging

CLASSES, SNR = 12, 0.1


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=(600, 6000))
    parser.add_argument("--most", type=int, nargs="+", default=(0, 1200), help="0 for all particles")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    # A process that is forked from one that computes would inherit its threads.
    context = multiprocessing.get_context("spawn")
    for count, most in itertools.product(options.counts, options.most):
        if most < count:
            with context.Pool(1) as pool:
                rows.append(pool.apply(measured, (count, most)))
            record.write("discovery_cost", rows, settings={"classes": CLASSES, "SNR": SNR})


def measured(count: int, most: int) -> dict[str, Any]:
    """A row: `count` particles, of which `most` find the structures."""
    network = learning.load_network()
    maps = simulation.load_densities(voxel_size=network.voxel_size, box=network.box)
    maps = {name: maps[name] for name in sorted(maps)[:CLASSES]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "boxes.zarr"
        options: dict[str, Any] = {"imaging": Imaging(snr=SNR), "box": network.box, "seed": 1, "progress": False}
        boxes = simulation.subtomograms(maps, count // CLASSES, path=path, **options)
        features = learning.embed(network, boxes, progress=False)
        rough = clusters.kmeans(features, 2 * CLASSES, seed=1)
        before, began = _peak(), (time.perf_counter(), time.process_time())
        limits = {"max_particles": most} if most else {}
        found = averaging.discover(boxes, rough, features=features.vectors, seed=1, progress=False, **limits)
        ended = time.perf_counter(), time.process_time()
    truth = boxes.particles.set_index("particle_id")["label"]
    return {
        "particles": len(boxes),
        "most": most,
        "minutes": (ended[0] - began[0]) / 60,
        "processor minutes": (ended[1] - began[1]) / 60,
        "ms a particle": 1000 * (ended[1] - began[1]) / len(boxes),
        "iterations": len(found.history),
        "found": len(found.volumes),
        "ARI": float(adjusted_rand_score(truth[found.labels.index], found.labels)),
        "peak before (GB)": before,
        "peak (GB)": _peak(),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
