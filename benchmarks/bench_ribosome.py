"""The ribosome from one measured tilt series without a template: notebook 08 at laptop scale, end to end, from three seeds.

    python benchmarks/bench_ribosome.py --seeds 3
    python benchmarks/bench_ribosome.py --discover --seeds 1 --picks 1200 --iterations 7

Judged only at its end, against the 70S of PDB 4V5D: the resolution at which the FSC with it first falls to 0.5, as it is and
mirrored, and how many particles are in the average. Loading the tilt series counts, fetching it once does not.

With `--discover` no cluster is chosen: `averaging.discover` divides the picks of the notebook. It prints a row for every
structure and writes nothing: how many picks it has, the medians of their pick score and of their agreement with the 70S, the
halves of an average that starts from the structure, and its name in the shipped catalogue. Class -1 is no class.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import record
from nbclient import NotebookClient

from tomolab import averaging, clusters, learning, picking, simulation, subtomograms, tomograms
from tomolab.averaging.fsc import resolution_at
from tomolab.io import download
from tomolab.subtomograms import Subtomograms

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "08_your_own_data.ipynb"
VOXEL_SIZE, DIAMETER = 20.0, 270.0
"""Å, of the boxes that are divided, and of the mask on the 70S."""


def road(seed: int) -> dict[str, float]:
    """Execute the notebook with a seed, in a run folder of its own, and read what it left."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.source.startswith("seed = "))
    cell.source = f"seed = {seed}\n" + cell.source.split("\n", 1)[1]
    here = {"metadata": {"path": str(NOTEBOOK.parent)}}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"TOMOLAB_SCALE": "laptop", "TOMOLAB_RUNS": folder}
        began = time.perf_counter()
        NotebookClient(notebook, timeout=1800, resources=here).execute()
        seconds = time.perf_counter() - began
        left = json.loads((Path(folder) / "real" / "summary.json").read_text())
    fsc = pd.DataFrame(left["fsc"])
    mirrored = resolution_at(fsc[["resolution"]].assign(fsc=fsc["mirrored"]), 0.5)
    row = {"seed": seed, "picks": left["picks"], "cluster": left["dense"], "particles": left["particles"]}
    return row | {"halves (Å)": left["halves"], "known (Å)": left["known"], "mirror image": mirrored, "minutes": seconds / 60}


def boxes() -> Subtomograms:
    """The picks of the notebook in boxes for the shipped network."""
    sample = download.fetch_sample("empiar_10499_ts01")
    options = {"transforms": sample.transforms, "metadata": sample.metadata, "pixel_size": sample.pixel_size}
    series = tomograms.erase_fiducials(tomograms.read_tilt_series(sample.stack, **options), diameter=100.0)
    shape = (280, *(round(n * series.pixel_size / 10) for n in series.images.shape[1:]))
    options = {"pixel_size": series.pixel_size, "transforms": series.transforms, "dose": series.dose}
    tomogram = tomograms.reconstruct(series.images, series.tilts, voxel_size=10.0, shape=shape, **options)
    wedge = (float(series.tilts.min()), float(series.tilts.max()))
    found = picking.candidates(tomogram, diameter=250.0, tilts=wedge, tomogram="TS_01")
    fine = subtomograms.extract(tomogram, picking.choose(found, threshold=5.0), box=40)
    return subtomograms.extract(tomogram, fine.particles, box=20, voxel_size=VOXEL_SIZE)


def structures(cut: Subtomograms, *, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Divide picks by `averaging.discover`; a row for those in no class and one for each structure."""
    began = time.process_time()
    features = learning.embed(learning.load_network("default"), cut)
    rough = clusters.kmeans(features, options.clusters, seed=seed)
    found = averaging.discover(
        cut, rough, features=features.vectors, seed=seed, iterations=options.iterations, mask_diameter=options.mask
    )
    minutes = (time.process_time() - began) / 60
    known = averaging.Catalogue.from_maps(simulation.load_densities())
    known = known.choose(known.table.query(f"diameter <= {cut.box * cut.voxel_size}").index)
    seventy = simulation.load_densities("ribosome_70s", voxel_size=VOXEL_SIZE, box=cut.box)["ribosome_70s"]
    scores = averaging.score_matches(cut, seventy, mask_diameter=DIAMETER, progress=False)
    scores["pick"] = cut.particles.set_index("particle_id")["score"]
    rows = []
    for number in range(-1, len(found.volumes)):
        ids = found.labels.index[found.labels == number]
        row: dict[str, Any] = {"seed": seed, "class": number, "picks": len(ids)}
        middle = scores.loc[ids].median()
        row |= {"pick score": float(middle["pick"]), "70S": float(middle["match"]), "processor minutes": minutes}
        if number >= 0 and len(ids) >= 8:
            average = averaging.average(cut, ids, seed=seed, start=found.volumes[number], progress=False)
            row |= {"halves (Å)": average.resolution, "believed": bool(average.believable)}
            row["name"] = str(averaging.identify(average, known))
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def discovered(options: argparse.Namespace) -> None:
    """Print the structures that are found in all picks, or in some of them, with every seed."""
    warnings.filterwarnings("ignore", "the two halves agree on nothing")
    cut = boxes()
    rows = []
    for seed in range(1, options.seeds + 1):
        drawn = np.random.default_rng(seed).permutation(cut.ids)[: options.picks]
        rows += structures(cut.choose(drawn), seed=seed, options=options)
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}"))


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--discover", action="store_true", help="divide the picks, with no cluster chosen, instead")
    parser.add_argument("--picks", type=int, help="so many picks, by chance; all by default")
    parser.add_argument("--clusters", type=int, default=12, help="of the features, from which it starts")
    parser.add_argument("--iterations", type=int, default=24, help="at most")
    parser.add_argument("--mask", type=float, help="Å, of every structure; measured by default")
    arguments = parser.parse_args()
    if arguments.discover:
        discovered(arguments)
        return
    download.fetch_sample("empiar_10499_ts01")
    rows = []
    for seed in range(1, arguments.seeds + 1):
        rows.append(road(seed))
        print(json.dumps(rows[-1]), flush=True)
    medians = {key: float(np.median([row[key] for row in rows])) for key in rows[0] if key != "seed"}
    record.write("ribosome", rows, settings={"medians": medians})


if __name__ == "__main__":
    main()
