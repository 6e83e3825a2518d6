"""Which imaging model makes a better encoder for measured data: the simple one, or the full one of crowded cells?

Two encoders are trained alike at laptop scale and differ in nothing but `Imaging`. Both then describe the same boxes of a
measured tilt series (EMPIAR-10499, TS_01): picks that a template match with the known 70S ribosome ranks highest, which no
encoder had a say in, and background: the picks that match worst, and picks outside of the cell. How well the likeness to
simulated ribosomes tells them apart is the area under the ROC curve (0.5 is chance).
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import record
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score

from tomolab import ctf, fourier, io, particles, picking, simulation, subtomograms, tomograms
from tomolab.averaging import alignment, coefficients
from tomolab.io import download, run_folder
from tomolab.learning import embedding, networks, training
from tomolab.simulation import Imaging, Membrane, densities, membranes
from tomolab.subtomograms import Subtomograms

LAPTOP = run_folder.SCALES["laptop"]
VOXEL_SIZE, BOX, SHAPE = LAPTOP.voxel_size, LAPTOP.box, (160, 315, 326)
DIAMETER, DEFOCUS, COUNT = 250.0, 1.77, 150
# The border of the cell, by eye, a little outside of its membrane.
CELL = Membrane(centre=(1360.0, 3000.0, 3580.0), radii=(960.0, 6900.0, 2450.0), tilt=23, roughness=0.0)
MODELS = {
    "simple": Imaging(snr=(0.02, 0.4), defocus=(1.0, 5.0), shift=0.1),
    "simple, with neighbours": Imaging(snr=(0.02, 0.4), defocus=(1.0, 5.0), shift=0.1, neighbours=1.0),
    "full": Imaging.in_cells(),
}


def main() -> None:
    """Train one encoder for each model and seed, and judge them all on the same boxes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=LAPTOP.epochs)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    boxes = measured()
    rows = []
    for seed in range(1, options.seeds + 1):
        for name, imaging in MODELS.items():
            network = train(imaging, seed=seed, epochs=options.epochs)
            rows.append({"model": name, "seed": seed} | judge(network, boxes))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).drop(columns="seed").groupby("model", sort=False).mean().reset_index()
    settings = {"models": {name: str(imaging) for name, imaging in MODELS.items()}, "rows of single runs": rows}
    settings |= {"epochs": options.epochs, "epoch size": LAPTOP.epoch_size}
    settings |= {"boxes": {kind: len(some) for kind, some in boxes.items()}}
    record.write("transfer", table.to_dict("records"), settings=settings)


def measured() -> dict[str, Subtomograms]:
    """Boxes of the measured tomogram by kind."""
    series = download.fetch_sample("empiar_10499_ts01")
    stack, pixel_size = io.read_stack(series.stack, pixel_size=series.pixel_size)
    tilts, transforms = io.tilts.read_tilts(series.tilts), io.tilts.read_transforms(series.transforms)
    options = {"voxel_size": VOXEL_SIZE, "pixel_size": pixel_size, "transforms": transforms, "shape": SHAPE, "progress": False}
    tomogram = tomograms.reconstruct(stack, tilts, **options)
    wedge = (float(tilts.min()), float(tilts.max()))
    gold = picking.fiducial_mask(tomogram)
    found = {"diameter": DIAMETER, "tilts": wedge, "exclude": gold}
    peaks = picking.candidates(tomogram, **found)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* particles skipped")
        picks = subtomograms.extract(tomogram, picking.choose(peaks, threshold=10.0), box=BOX)
    order = np.argsort(-matched(picks))
    ids = picks.particles["particle_id"].to_numpy()[order]
    more = picking.choose(peaks, threshold=4.0)
    # Signed distances reach as far as a bilayer does: this is all that lies beyond the border of the cell.
    beyond = membranes.distance(CELL, shape=SHAPE, voxel_size=VOXEL_SIZE).numpy() > membranes.HALF_THICKNESS
    places = np.rint(particles.positions(more) / VOXEL_SIZE).astype(int)
    within = np.abs(places[:, 0] * VOXEL_SIZE - CELL.centre[0]) < 800
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* particles skipped")
        empty = subtomograms.extract(tomogram, more[beyond[tuple(places.T)] & within], box=BOX)
    return {
        "ribosome-like": picks.take(ids[:COUNT]),
        "worst matching picks": picks.take(ids[-COUNT:]),
        "picks outside of the cell": empty,
    }


def matched(boxes: Subtomograms) -> np.ndarray:
    """Best correlation of every box with the imaged 70S ribosome, over 2,000 orientations and shifts to 2 voxels."""
    known = torch.from_numpy(densities.load("ribosome_70s", voxel_size=VOXEL_SIZE, box=BOX)["ribosome_70s"].data)
    k = fourier.radius(known.shape) / VOXEL_SIZE
    transfer = ctf.contrast(k, torch.tensor(DEFOCUS), ctf.Lens(amplitude_contrast=0.1))
    template = torch.fft.irfftn(torch.fft.rfftn(known) * transfer, s=known.shape)
    low, high = (torch.from_numpy(boxes.particles[name].to_numpy(dtype=np.float32)) for name in ("tilt_min", "tilt_max"))
    data = coefficients.transform(
        torch.from_numpy(np.asarray(boxes.volumes, dtype=np.float32)), low, high, radius_cycles=BOX / 2 - 2
    )
    # A faint template makes the likelihood a plain correlation.
    grid = coefficients.oversample(template * (1e-3 / template.std()))
    poses = alignment.exhaustive_search(
        grid,
        data,
        turns=alignment.uniform_rotations(2000),
        shifts=alignment.shift_grid(2, 1),
        noise=torch.ones(len(data.points)),
        keep=1,
    )
    return (poses.scores[:, 0] / data.values.abs().pow(2).sum(1).sqrt()).numpy()


def train(imaging: Imaging, *, seed: int, epochs: int) -> networks.Network:
    """An encoder of all shipped complexes."""
    maps = densities.load(voxel_size=VOXEL_SIZE, box=BOX)
    stream = simulation.Stream(maps, imaging=imaging, box=BOX, epoch_size=LAPTOP.epoch_size, seed=seed)
    validation = simulation.subtomograms(maps, 10, imaging=imaging, box=BOX, seed=seed + 100)
    network = networks.create("compact", box=BOX, classes=stream.classes, voxel_size=VOXEL_SIZE, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        training.fit(network, stream, validation=validation, epochs=epochs, seed=seed, folder=Path(folder))
    return network


def judge(network: networks.Network, boxes: dict[str, Subtomograms]) -> dict[str, float]:
    """How well an encoder tells ribosome-like boxes from the others."""
    features = {kind: directions(network, some) for kind, some in boxes.items()}
    known = densities.load("ribosome_70s", voxel_size=VOXEL_SIZE, box=BOX)
    example = simulation.subtomograms(known, 100, imaging=Imaging(snr=0.1, defocus=DEFOCUS), box=BOX, seed=7)
    middle = directions(network, example).mean(0)
    out = {"likeness of ribosome-like": float((features["ribosome-like"] @ middle / np.linalg.norm(middle)).mean())}
    for kind in list(features)[1:]:
        truth = np.repeat([1, 0], [len(features["ribosome-like"]), len(features[kind])])
        both = np.concatenate([features["ribosome-like"], features[kind]])
        out[f"AUC by likeness, {kind}"] = roc_auc_score(truth, both @ middle)
        probe = LogisticRegression(C=1.0, max_iter=2000)
        out[f"AUC by linear probe, {kind}"] = cross_val_score(probe, both, truth, cv=5, scoring="roc_auc").mean()
    return out


def directions(network: networks.Network, some: Subtomograms) -> np.ndarray:
    """Embedding, each vector of length 1."""
    vectors = embedding.embed(network, some, progress=False).vectors
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
