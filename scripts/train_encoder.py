"""Train the general encoder that tomolab ships as data/networks/default.safetensors.

    python scripts/train_encoder.py --folder runs/encoder --ship

Six of the shipped complexes are left out of training, so that benchmarks and notebooks can say what the features are worth
for complexes nobody trained for. A run that is cut goes on where it stopped. With --ship the result goes to data/networks.
"""

import argparse
from pathlib import Path

from tomolab import densities, files, networks, simulation, training
from tomolab.imaging import Imaging

LEFT_OUT = ("apoferritin", "atcase", "capsid_mottle", "mm_cpn_closed", "ribosome_50s", "spliceosome")
VOXEL_SIZE, BOX = 20.0, 20
# Wider than any one data set: noise, wedge, defocus, off-centre picks and crowding must not decide what a feature says.
IMAGING = Imaging(snr=(0.02, 0.4), tilts=((-66.0, -40.0), (40.0, 66.0)), defocus=(1.0, 5.0), shift=0.1, neighbours=1.0)


def main() -> None:
    """Train, and ship the network if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/encoder"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--epoch-size", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default=None)
    parser.add_argument("--ship", action="store_true", help="write the network to data/networks")
    options = parser.parse_args()
    shipped = densities.catalogue().query("shipped")["name"]
    maps = densities.load([name for name in shipped if name not in LEFT_OUT], voxel_size=VOXEL_SIZE, box=BOX)
    stream = simulation.stream(
        maps,
        imaging=IMAGING,
        box=BOX,
        batch_size=64,
        epoch_size=options.epoch_size,
        seed=options.seed,
        device=options.device,
    )
    validation = simulation.subtomograms(maps, 50, imaging=IMAGING, box=BOX, seed=options.seed + 1, device=options.device)
    network = networks.create("compact", box=BOX, classes=stream.classes, voxel_size=VOXEL_SIZE, seed=options.seed)
    record = training.fit(
        network,
        stream,
        validation=validation,
        epochs=options.epochs,
        seed=options.seed,
        folder=options.folder,
        device=options.device,
    )
    print({key: record["history"][-1][key] for key in ("epoch", "loss", "accuracy")})
    if options.ship:
        record |= {"imaging": vars(IMAGING), "left_out": list(LEFT_OUT), "epoch_size": options.epoch_size}
        networks.save(network, files.data_folder() / "networks" / "default.safetensors", record=record)


if __name__ == "__main__":
    main()
