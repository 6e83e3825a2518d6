"""A crowded simulated tomogram, from the volume to named structures: which species are found, how completely, and their names.

    python benchmarks/bench_one_call.py --seeds 2
    python benchmarks/bench_one_call.py --snr 0.05 --count 150 --name one_call_noisy

Eight species in random poses, picked without a template and at one diameter, cut out, embedded and clustered by
`inspection.import_data`, divided and named by `Inspection.discover`, with default settings and the shipped catalogue. A row
is a species: the structure that holds most of its particles, the share of all its particles in it (recall), the share of
the structure that is this species (precision), and the name that the structure got. Picks that are no particles count against
precision.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import record

from tomolab import inspection, picking, simulation
from tomolab.inspection import Inspection
from tomolab.simulation import Imaging

SPECIES = (
    "ribosome_70s",
    "ribosome_80s",
    "tric",
    "mm_cpn_open",
    "apoferritin",
    "spliceosome",
    "erythrocruorin",
    "atcase",
)
BOX, VOXEL_SIZE = 20, 20.0
SHAPE = (60, 256, 256)
DIAMETER, DISTANCE = 250.0, 100.0
"""Å: of the picks, and the largest distance of a pick from its particle."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--count", type=int, default=80, help="particles of each species")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--name", default="one_call", help="of the result")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(1, options.seeds + 1):
        rows += found(count=options.count, snr=options.snr, seed=seed)
        record.write(options.name, rows, settings={"shape": SHAPE, "voxel size (Å)": VOXEL_SIZE} | vars(options))


def found(*, count: int, snr: float, seed: int) -> list[dict[str, Any]]:
    """A row for each species of one tomogram, and one for all together."""
    maps = simulation.load_densities(list(SPECIES), voxel_size=VOXEL_SIZE, box=BOX)
    imaging = Imaging(snr=snr)
    tomogram, truth = simulation.tomogram(maps, count, shape=SHAPE, imaging=imaging, seed=seed)
    truth = truth.assign(tomogram="tomogram")  # as picks of a volume without a name
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        options: dict[str, Any] = {"contrast": "bright", "tilts": imaging.tilts, "diameter": DIAMETER, "seed": seed}
        work = inspection.import_data(tomogram, Path(folder) / "run", progress=False, **options)
        work.discover(seed=seed).result()
        minutes = (time.perf_counter() - began) / 60
        rows = species(work, truth)
    picks = work.session.particles
    agreement = picking.evaluate(picks, truth, distance=DISTANCE)
    whole = {"species": "all", "structures": len(work.session.clusters), "picks": len(picks), "minutes": minutes}
    whole |= {"recall": agreement["recall"], "precision": agreement["precision"]}
    return [{"seed": seed} | row for row in [*rows, whole]]


def species(work: Inspection, truth: pd.DataFrame) -> list[dict[str, Any]]:
    """For every species the structure that holds most of it."""
    table = work.session.table().set_index("particle_id")
    matched = picking.evaluate(work.session.particles, truth, distance=DISTANCE)["matched"]
    label = matched["truth_id"].map(truth.set_index("particle_id")["label"])
    cluster = table["cluster"].reindex(matched["pick_id"], fill_value=-1)  # the table has only particles of clusters
    counts = pd.crosstab(cluster.to_numpy(), label.to_numpy())
    counts = counts[counts.index >= 0]
    rows = []
    for name, number in truth["label"].value_counts().items():
        held = counts.get(name, pd.Series(0, index=counts.index))
        structure = int(held.idxmax())
        averages = [one for one in work.averages.values() if one.record.get("cluster") == structure]
        identity = averages[-1].record.get("identity", {}) if averages else {}
        rows.append(
            {
                "species": name,
                "particles": number,
                "structure": structure,
                "recall": float(held.max() / number),
                "precision": float(held.max() / (table["cluster"] == structure).sum()),
                "halves (Å)": averages[-1].resolution if averages else None,
                "name": identity.get("sentence", "no believable average"),
            }
        )
    return rows


if __name__ == "__main__":
    main()
