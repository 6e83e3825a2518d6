"""A newcomer's way in a terminal: from a clone of this repository to an average of an own tomogram and list, each step timed.

    python benchmarks/bench_newcomer.py

The environment is built in the clone, in a home folder of its own, so that nothing is cached there; how long that takes depends
on the package index. The tomogram has 100 ribosomes at 20 Å, protein is dark, and the list is one of RELION with the least that
RELION reads. The commands are those of docs/your_data.md.
"""

import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import record

from tomolab import averaging, io, simulation
from tomolab.simulation import Imaging
from tomolab.volumes import Volume

ROOT = Path(__file__).parents[1]
VOXEL_SIZE, COUNT = 20.0, 100
COLUMNS = ("X", "Y", "Z")
IMPORT = (
    "tomolab/.venv/bin/tomolab import TS_01.mrc --particles TS_01.star --contrast dark --tilts -60 60 --diameter 250 --seed 1"
)
STEPS = {
    "clone": f"git clone -q {ROOT} tomolab",
    "make install": "make -s -C tomolab install",
    "tomolab import": f"{IMPORT} -o runs/mine",
    "tomolab average": "tomolab/.venv/bin/tomolab average runs/mine --all --seed 1 -o maps",
}


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_data(folder)
        (folder / "home").mkdir()
        rows = [timed(step, command, folder) for step, command in STEPS.items()]
        average = averaging.load(folder / "runs" / "mine" / "averages" / "all_particles")
    total = {name: sum(row[name] for row in rows) for name in ("seconds", "processor seconds")}
    rows.append({"step": "all", **total, "halves (Å)": average.resolution})
    record.write("newcomer", rows, settings={"particles": COUNT, "voxel size (Å)": VOXEL_SIZE})


def write_data(folder: Path) -> None:
    """Write the tomogram and the list of somebody else."""
    maps = simulation.load_densities(["ribosome_70s"], voxel_size=VOXEL_SIZE, box=20)
    imaging = Imaging(snr=0.1, tilts=(-60, 60))
    volume, truth = simulation.tomogram(maps, COUNT, shape=(60, 256, 256), imaging=imaging, seed=3)
    io.write_volume(Volume(-volume.data, VOXEL_SIZE), folder / "TS_01.mrc")
    # RELION counts voxels from the corner of the first one.
    places = truth[["x", "y", "z"]].to_numpy() / VOXEL_SIZE + 0.5
    heads = [f"_rlnCoordinate{name} #{number}" for number, name in enumerate(COLUMNS, 1)] + ["_rlnMicrographName #4"]
    lines = [f"{x:.3f} {y:.3f} {z:.3f} TS_01.mrc" for x, y, z in places]
    (folder / "TS_01.star").write_text("\n".join(["data_", "", "loop_", *heads, *lines, ""]))


def timed(step: str, command: str, folder: Path) -> dict[str, Any]:
    """A row: the time of a command, by the clock and of all processors."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command.split(), cwd=folder, env=os.environ | {"HOME": str(folder / "home")}, check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"step": step, "seconds": seconds, "processor seconds": used}


if __name__ == "__main__":
    main()
