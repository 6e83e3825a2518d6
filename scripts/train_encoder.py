"""Train the encoders that tomolab ships in data/networks.

    python scripts/train_encoder.py --folder runs/encoder --ship                     # default: 20 Å, on two cores
    python scripts/train_encoder.py --scale paper --minutes 4 --folder runs/fine     # fine: 10 Å, on a GPU

Six of the shipped complexes are left out of training, so that benchmarks and notebooks can say what the features are worth
for complexes nobody trained for. A run that is cut goes on where it stopped. With --ship the result goes to data/networks.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from tomolab import io, simulation
from tomolab.learning import networks, training
from tomolab.simulation import Imaging, Stream, densities

LEFT_OUT = ("apoferritin", "atcase", "capsid_mottle", "mm_cpn_closed", "ribosome_50s", "spliceosome")
# Wider than any one data set: noise, wedge, defocus, off-centre picks and crowding must not decide what a feature says.
IMAGING = Imaging(snr=(0.02, 0.4), tilts=((-66.0, -40.0), (40.0, 66.0)), defocus=(1.0, 5.0), shift=0.1, neighbours=1.0)


@dataclass(frozen=True)
class Kind:
    """An encoder that is shipped: its name, voxels of how many Å, edge of its boxes, what it learns from, and how much."""

    name: str
    voxel_size: float
    box: int
    imaging: Imaging
    batch_size: int
    epoch_size: int


KINDS = {
    "laptop": Kind("default", 20.0, 20, IMAGING, 64, 8192),
    # Of the same particle, a voxel half as wide has an eighth of the signal over about the same noise.
    "paper": Kind("fine", 10.0, 40, replace(IMAGING, snr=(0.004, 0.4)), 256, 16384),
}


def main() -> None:
    """Train, and ship the network if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=list(KINDS), default="laptop")
    parser.add_argument("--network", choices=networks.names(), default="compact")
    parser.add_argument("--folder", type=Path, default=Path("runs/encoder"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--minutes", type=float, help="as many epochs as take so long (a cut run goes on with --epochs)")
    parser.add_argument("--epoch-size", type=int, help="subtomograms of an epoch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default=None)
    parser.add_argument("--ship", action="store_true", help="write the network to data/networks")
    options = parser.parse_args()
    kind = KINDS[options.scale]
    every = densities.load(list(densities.catalogue().query("shipped")["name"]), voxel_size=kind.voxel_size, box=kind.box)
    maps = {name: volume for name, volume in every.items() if name not in LEFT_OUT}
    unknown = {name: volume for name, volume in every.items() if name in LEFT_OUT}
    common = {"imaging": kind.imaging, "box": kind.box, "device": options.device}
    epoch_size = options.epoch_size or kind.epoch_size
    stream = simulation.Stream(maps, batch_size=kind.batch_size, epoch_size=epoch_size, seed=options.seed, **common)
    validation = simulation.subtomograms(maps, 50, seed=options.seed + 1, **common)
    novel = simulation.subtomograms(unknown, 50, seed=options.seed + 2, **common)
    network = networks.create(
        options.network, box=kind.box, classes=stream.classes, voxel_size=kind.voxel_size, seed=options.seed
    )
    epochs = options.epochs if options.minutes is None else fitting(network, stream, options.minutes, options.device)
    record = training.fit(
        network,
        stream,
        validation=validation,
        novel=novel,
        epochs=epochs,
        seed=options.seed,
        folder=options.folder,
        device=options.device,
    )
    told = record["history"][-1]
    print({key: told[key] for key in ("epoch", "loss", "accuracy", "novel_ari", "per_second")}, flush=True)
    if options.ship:
        record |= {"imaging": vars(kind.imaging), "left_out": list(LEFT_OUT), "epoch_size": epoch_size}
        networks.save(network, io.data_folder() / "networks" / f"{kind.name}.safetensors", record=record)


def fitting(network: networks.Network, stream: Stream, minutes: float, device: str | None) -> int:
    """Epochs that so many minutes have room for, at the rate of a few batches."""
    told = training.estimate(network, stream, epochs=1, batches=20, device=device)
    return max(1, int(60 * minutes / told["seconds"]))


if __name__ == "__main__":
    main()
