"""The measured tilt series by the shortest road, at 20 Å: seconds of every step from files to an average of a cluster."""

import time
from collections.abc import Callable
from typing import Any

import record

from tomolab import averaging, clusters, io, picking, simulation
from tomolab import subtomograms as boxes
from tomolab import tomograms as reconstructions
from tomolab.averaging import alignment
from tomolab.io import download
from tomolab.learning import embedding, networks
from tomolab.simulation import Imaging, densities
from tomolab.ui import plots
from tomolab.volumes import Volume

VOXEL_SIZE, DIAMETER, K, SEED = 20.0, 250.0, 12, 7
SHAPE = (160, 315, 326)


def main() -> None:
    """Run the steps in order; every row is one step, its seconds and what came out."""
    series = download.fetch_sample("empiar_10499_ts01")
    network = networks.load("default")
    rows: list[dict[str, Any]] = []

    def timed(step: str, work: Callable[[], Any], told: Callable[[Any], str]) -> Any:
        start = time.perf_counter()
        made = work()
        rows.append({"step": step, "seconds": time.perf_counter() - start, "result": told(made)})
        return made

    stack, pixel_size = timed(
        "read", lambda: io.read_stack(series.stack, pixel_size=series.pixel_size), lambda made: str(made[0].shape)
    )
    tilts, transforms = io.tilts.read_tilts(series.tilts), io.tilts.read_transforms(series.transforms)
    wedge = (float(tilts.min()), float(tilts.max()))
    optics = {"voxel_size": VOXEL_SIZE, "pixel_size": pixel_size, "transforms": transforms, "shape": SHAPE, "progress": False}
    tomogram = timed("reconstruct", lambda: reconstructions.reconstruct(stack, tilts, **optics), repr)
    gold = timed("find beads", lambda: picking.fiducial_mask(tomogram), lambda made: f"{made.mean():.2%} of voxels")
    options = {"diameter": DIAMETER, "tilts": wedge, "exclude": gold}
    picks = timed(
        "pick",
        lambda: picking.choose(picking.candidates(tomogram, **options), threshold=10.0),
        lambda made: f"{len(made)} picks",
    )
    cut = timed("extract", lambda: boxes.extract(tomogram, picks, box=network.box), repr)
    features = timed("embed", lambda: embedding.embed(network, cut, progress=False), repr)
    labels = timed("cluster", lambda: clusters.kmeans(features, K, seed=SEED), lambda made: f"{made.nunique()} clusters")
    ribosome = densities.load("ribosome_70s", voxel_size=VOXEL_SIZE, box=network.box)
    imaging = Imaging(snr=0.1, defocus=1.7, tilts=wedge)
    example = simulation.subtomograms(ribosome, 100, imaging=imaging, box=network.box, seed=SEED)
    likeness = clusters.likeness(features, labels, embedding.embed(network, example, progress=False))
    chosen = labels.index[labels == likeness.index[0]].to_numpy()
    average = timed(
        "average",
        lambda: averaging.average(cut, chosen, seed=SEED),
        lambda made: f"{len(chosen)} particles, {made.resolution:.0f} Å",
    )
    known = ribosome["ribosome_70s"]
    mirror = Volume(known.data[:, :, ::-1], VOXEL_SIZE)
    fits = [alignment.align_map(volume, average.volume).score for volume in (known, mirror)]
    rows.append({"step": "fit of the 70S, and of its mirror", "seconds": 0.0, "result": f"{fits[0]:.3f}, {fits[1]:.3f}"})
    radii, profile = plots.profile(average.volume)
    record.write(
        "tilt_series",
        rows,
        settings={"voxel size (Å)": VOXEL_SIZE, "k": K, "seed": SEED, "radii (Å)": radii.tolist(), "profile": profile.tolist()},
    )


if __name__ == "__main__":
    main()
