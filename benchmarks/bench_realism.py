"""How far a simulated tomogram is from a measured one: notebook 02 at laptop scale, and what it found.

The notebook simulates a part of a cell, records it at the tilts, doses and defoci of EMPIAR-10499 TS_01, and compares: radial
power well inside the cell after one global scale, grey values inside and outside, profiles about picks.
"""

import os
import tempfile
from pathlib import Path

import nbformat
import pandas as pd
import record
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "02_tomograms.ipynb"


def main() -> None:
    """Execute the notebook in a run folder of its own and read the tables that it left."""
    here = {"metadata": {"path": str(NOTEBOOK.parent)}}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"TOMOLAB_SCALE": "laptop", "TOMOLAB_RUNS": folder}
        NotebookClient(nbformat.read(NOTEBOOK, as_version=4), timeout=1800, resources=here).execute()
        run = Path(folder) / "tomograms"
        power, values, profiles = (pd.read_csv(run / f"{name}.csv") for name in ("power", "grey_values", "profiles"))
    settings = {"grey values": values.to_dict("records"), "profiles": profiles.to_dict("records")}
    settings |= {"largest difference of power": float((power["ratio"] - 1).abs().max())}
    record.write("realism", power.to_dict("records"), settings=settings)


if __name__ == "__main__":
    main()
