"""The ribosome from one measured tilt series without a template: notebook 08 at laptop scale, end to end, from several seeds.

    python benchmarks/bench_ribosome.py --seeds 3
    python benchmarks/bench_ribosome.py --seeds 10 --more

Judged only at its end, against the 70S of PDB 4V5D: the resolution at which the FSC with it first falls to 0.5, as it is and
mirrored, and how many particles are in the average. Loading the tilt series counts, fetching it once does not. "predicted" are
picks set apart ("apart") that fit the average of the cluster better than its mirror image does.

The result is written after every seed; `--more` adds the seeds that it lacks.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
import record
from nbclient import NotebookClient

from tomolab.averaging.fsc import resolution_at
from tomolab.io import download

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "08_your_own_data.ipynb"


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
    counts = ("picks", "clusters tried", "cluster", "apart", "predicted", "particles")
    row = {"seed": seed} | {name: left[name] for name in counts}
    return row | {"halves (Å)": left["halves"], "known (Å)": left["known"], "mirror image": mirrored, "minutes": seconds / 60}


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--more", action="store_true", help="keep the rows of the result that exists")
    arguments = parser.parse_args()
    download.fetch_sample("empiar_10499_ts01")
    rows = record.earlier("ribosome", settings={}) if arguments.more else []
    for seed in sorted({*range(1, arguments.seeds + 1)} - {row["seed"] for row in rows}):
        rows.append(road(seed))
        record.write("ribosome", rows, settings={})
    print("medians:", pd.DataFrame(rows).drop(columns="seed").median().to_dict())


if __name__ == "__main__":
    main()
