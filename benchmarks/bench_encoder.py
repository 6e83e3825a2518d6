"""What the compact encoder is worth after training at laptop scale, and what a shipped one is worth.

    python benchmarks/bench_encoder.py                # train, then judge it and the shipped one
    python benchmarks/bench_encoder.py --judge fine runs/other/network.safetensors   # judge trained networks

Judged are accuracy on the training classes, and on the complexes left out of training k-means purity with twice as many
clusters as classes, and the adjusted Rand index with as many; at tilts ±60° and several signal-to-noise ratios of the
finest voxels among them. Medians over k-means seeds.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import record
import torch

from tomolab import experiments, fourier, parallel, simulation
from tomolab.io import run_folder
from tomolab.learning import embedding, metrics, networks, training
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms

LAPTOP = run_folder.SCALES["laptop"]
TILTS = (-60.0, 60.0)
USUAL = 0.05
"""SNR at which training at laptop scale and its judgement are."""
PER_CLASS, STARTS = 100, 5


def main() -> None:
    """Train the compact encoder and judge it beside the shipped one; or judge what was trained elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", nargs="+", metavar="NETWORK", help="names of shipped networks, or files")
    parser.add_argument("--snr", type=float, nargs="+", default=[USUAL, 0.02, 0.01, 0.005])
    options = parser.parse_args()
    settings: dict[str, Any] = {"tilts": TILTS, "per_class": PER_CLASS}
    if options.judge:
        rows = judged({place: networks.load(place) for place in options.judge}, options.snr)
        record.write("encoder_judged", rows, settings=settings)
        return
    shipped = networks.load("default")
    maps = densities.load(shipped.classes, voxel_size=LAPTOP.voxel_size, box=LAPTOP.box)
    seconds, trained = train(maps)
    rows = judged({f"trained in {seconds / 60:.1f} min": trained, "shipped": shipped}, [USUAL])
    record.write("encoder", rows, settings=settings | {"scale": vars(LAPTOP), "seconds": seconds})


def train(maps: dict[str, Any]) -> tuple[float, networks.Network]:
    """Seconds and network of one training at laptop scale."""
    box, epoch_size, imaging = LAPTOP.box, LAPTOP.epoch_size, Imaging(snr=USUAL, tilts=TILTS)
    stream = simulation.Stream(maps, imaging=imaging, box=box, epoch_size=epoch_size, seed=1)
    validation = simulation.subtomograms(maps, 20, imaging=imaging, box=box, seed=2)
    network = networks.create("compact", box=box, classes=stream.classes, voxel_size=LAPTOP.voxel_size)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        training.fit(network, stream, validation=validation, epochs=LAPTOP.epochs, seed=1, folder=Path(folder))
    return time.perf_counter() - start, network


def judged(encoders: dict[str, networks.Network], ratios: list[float]) -> list[dict[str, Any]]:
    """Accuracy on complexes that the networks were trained on; purity and ARI on the other shipped ones.

    All see the same particles, with the SNR that is asked for in the voxels of the finest; the others have them cropped in
    Fourier space.
    """
    finest = min(encoders.values(), key=lambda network: network.voxel_size)
    every = densities.load(voxel_size=finest.voxel_size, box=finest.box)
    known = {name: every[name] for name in finest.classes}
    unknown = {name: volume for name, volume in every.items() if name not in known}
    rows = []
    for snr in ratios:
        imaging = Imaging(snr=snr, tilts=TILTS)
        seen, unseen = (
            simulation.subtomograms(maps, PER_CLASS, imaging=imaging, box=finest.box, seed=seed)
            for maps, seed in ((known, 77), (unknown, 78))
        )
        for title, network in encoders.items():
            network.to(parallel.pick_device())
            row = {"encoder": title, "network": network.name, "voxel size (Å)": network.voxel_size, "SNR": snr}
            rows.append(row | judge(network, cropped(seen, network), cropped(unseen, network)))
    return rows


def cropped(particles: Subtomograms, network: networks.Network) -> Subtomograms:
    """Particles at the voxel size of a network, each of mean 0 and standard deviation 1 again."""
    if particles.voxel_size == network.voxel_size:
        return particles
    volumes = fourier.resize(torch.from_numpy(particles.volumes), [network.box] * 3)
    volumes = volumes - volumes.mean((1, 2, 3), keepdim=True)
    volumes = volumes / volumes.std((1, 2, 3), keepdim=True)
    return Subtomograms(volumes.numpy(), particles.particles, particles.voxel_size * particles.box / network.box)


def judge(network: networks.Network, seen: Subtomograms, unseen: Subtomograms) -> dict[str, float]:
    """What a network is worth on particles of complexes that it knows, and of others."""
    features = embedding.embed(network, unseen, progress=False)
    truth = unseen.particles.set_index("particle_id")["label"]
    count = truth.nunique()
    once, twice = (experiments.cluster_scores(features, truth, k, starts=STARTS) for k in (count, 2 * count))
    return {
        "accuracy, known": metrics.evaluate(network, seen)["accuracy"],
        f"ARI, unknown, k={count}": once["ari"],
        f"purity, unknown, k={2 * count}": twice["purity"],
    }


if __name__ == "__main__":
    main()
