"""What the compact encoder is worth after training at laptop scale, and what a shipped one is worth.

    python benchmarks/bench_encoder.py                # train, then judge it and the shipped one
    python benchmarks/bench_encoder.py --judge fine runs/other/network.safetensors   # judge trained networks

Judged are accuracy on the training classes, and on the complexes left out of training k-means purity with twice as many
clusters as classes, and the adjusted Rand index with as many; at tilts ±60° and several signal-to-noise ratios of the
network's own voxels. Medians over k-means seeds.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import record

from tomolab import densities, devices, embedding, networks, scales, simulation, training, trials
from tomolab.imaging import Imaging

LAPTOP = scales.SCALES["laptop"]
TILTS = (-60.0, 60.0)
USUAL = 0.05
"""SNR at which training at laptop scale and its judgement are."""
PER_CLASS, STARTS = 100, 5


def main() -> None:
    """Train the compact encoder and judge it beside the shipped one; or judge what was trained elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", nargs="+", metavar="NETWORK", help="names of shipped networks, or files, of one voxel size")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, USUAL, 0.02, 0.01])
    options = parser.parse_args()
    settings: dict[str, Any] = {"tilts": TILTS, "per_class": PER_CLASS}
    if options.judge:
        rows = [row for place in options.judge for row in judged(place, networks.load(place), options.snr)]
        record.write("encoder_judged", rows, settings=settings)
        return
    shipped = networks.load("default")
    maps = densities.load(shipped.classes, voxel_size=LAPTOP.voxel_size, box=LAPTOP.box)
    seconds, trained = train(maps)
    rows = []
    for title, network in ((f"trained in {seconds / 60:.1f} min", trained), ("shipped", shipped)):
        rows += judged(title, network, [USUAL])
    record.write("encoder", rows, settings=settings | {"scale": vars(LAPTOP), "seconds": seconds})


def train(maps: dict[str, Any]) -> tuple[float, networks.Network]:
    """Seconds and network of one training at laptop scale."""
    box, epoch_size, imaging = LAPTOP.box, LAPTOP.epoch_size, Imaging(snr=USUAL, tilts=TILTS)
    stream = simulation.stream(maps, imaging=imaging, box=box, epoch_size=epoch_size, seed=1)
    validation = simulation.subtomograms(maps, 20, imaging=imaging, box=box, seed=2)
    network = networks.create("compact", box=box, classes=stream.classes, voxel_size=LAPTOP.voxel_size)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        training.fit(network, stream, validation=validation, epochs=LAPTOP.epochs, seed=1, folder=Path(folder))
    return time.perf_counter() - start, network


def judged(title: str, network: networks.Network, ratios: list[float]) -> list[dict[str, Any]]:
    """Accuracy on complexes that a network was trained on; purity and ARI on the other shipped ones."""
    network.to(devices.pick())
    every = densities.load(voxel_size=network.voxel_size, box=network.box)
    known = {name: every[name] for name in network.classes}
    unknown = {name: volume for name, volume in every.items() if name not in known}
    return [{"encoder": title, "network": network.name, "SNR": snr} | judge(network, known, unknown, snr) for snr in ratios]


def judge(network: networks.Network, known: dict[str, Any], unknown: dict[str, Any], snr: float) -> dict[str, float]:
    """What a network is worth at one SNR."""
    imaging, box = Imaging(snr=snr, tilts=TILTS), network.box
    seen = simulation.subtomograms(known, PER_CLASS, imaging=imaging, box=box, seed=77)
    unseen = simulation.subtomograms(unknown, PER_CLASS, imaging=imaging, box=box, seed=78)
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
