"""What the compact encoder is worth after training at laptop scale, and what the shipped one is worth.

Both are judged at SNR 0.05 and tilts ±60°: accuracy on the training classes, and on the complexes left out of training
k-means purity with twice as many clusters as classes, and the adjusted Rand index with as many. Medians over k-means seeds.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import record

from tomolab import densities, embedding, networks, scales, simulation, training, trials
from tomolab.imaging import Imaging

LAPTOP = scales.SCALES["laptop"]
IMAGING = Imaging(snr=0.05, tilts=(-60, 60))
PER_CLASS, STARTS = 100, 5


def main() -> None:
    """Train the compact encoder, then judge it and the shipped one on the same particles."""
    shipped = networks.load("default")
    maps = densities.load(voxel_size=LAPTOP.voxel_size, box=LAPTOP.box)
    known = {name: maps[name] for name in shipped.classes}
    unknown = {name: volume for name, volume in maps.items() if name not in known}
    seconds, trained = train(known)
    rows = []
    for title, network in ((f"trained in {seconds / 60:.1f} min", trained), ("shipped", shipped)):
        rows.append({"encoder": title} | judge(network, known, unknown))
    settings = {
        "scale": vars(LAPTOP),
        "imaging": vars(IMAGING),
        "left_out": list(unknown),
        "per_class": PER_CLASS,
        "seconds": seconds,
    }
    record.write("encoder", rows, settings=settings)


def train(maps: dict[str, Any]) -> tuple[float, networks.Network]:
    """Seconds and network of one training at laptop scale."""
    box, epoch_size = LAPTOP.box, LAPTOP.epoch_size
    stream = simulation.stream(maps, imaging=IMAGING, box=box, epoch_size=epoch_size, seed=1)
    validation = simulation.subtomograms(maps, 20, imaging=IMAGING, box=box, seed=2)
    network = networks.create("compact", box=box, classes=stream.classes, voxel_size=LAPTOP.voxel_size)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        training.fit(network, stream, validation=validation, epochs=LAPTOP.epochs, seed=1, folder=Path(folder))
    return time.perf_counter() - start, network


def judge(network: networks.Network, known: dict[str, Any], unknown: dict[str, Any]) -> dict[str, float]:
    """Accuracy on known complexes; purity and ARI on unknown ones."""
    seen = simulation.subtomograms(known, PER_CLASS, imaging=IMAGING, box=LAPTOP.box, seed=77)
    unseen = simulation.subtomograms(unknown, PER_CLASS, imaging=IMAGING, box=LAPTOP.box, seed=78)
    features = embedding.embed(network, unseen, progress=False)
    truth = unseen.particles.set_index("particle_id")["label"]
    once, twice = (trials.divided(features, truth, k, starts=STARTS) for k in (len(unknown), 2 * len(unknown)))
    return {
        "accuracy, known": training.evaluate(network, seen)["accuracy"],
        f"ARI, unknown, k={len(unknown)}": once["ari"],
        f"purity, unknown, k={2 * len(unknown)}": twice["purity"],
    }


if __name__ == "__main__":
    main()
