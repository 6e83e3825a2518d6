"""Boxes cut out of a tomogram of 3 GB that stays on disk: seconds, and the memory that the process holds on its own.

The tomogram is made for it and removed at the end. What is read from the disk once is in the cache of the system after that,
so the seconds are those of reading from there.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import record

from tomolab import io, particles, subtomograms

SHAPE, SIZE = (400, 1440, 1440), 5.0
COUNT, BOX = 500, 64
CASES = {
    "500 boxes of 64, as it is": {"box": BOX},
    "the same, cut to 10 Å": {"box": BOX // 2, "voxel_size": 2 * SIZE},
    "the same, cut to 8.3 Å": {"box": 40, "voxel_size": 8.3},
}


def main() -> None:
    """Make the tomogram, and cut in fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = made(Path(folder, "tomogram.mrc"))
        rows = [{"cut": name} | record.apart(measured, path, options) for name, options in CASES.items()]
        gigabytes = path.stat().st_size / 2**30
    record.write("extraction", rows, settings={"tomogram": SHAPE, "voxel size (Å)": SIZE, "GB on disk": gigabytes})


def made(path: Path) -> Path:
    """A tomogram of noise, written a slice at a time."""
    rng = np.random.default_rng(0)
    with mrcfile.new_mmap(path, shape=SHAPE, mrc_mode=2) as file:
        some = rng.standard_normal((16, *SHAPE[1:]), dtype=np.float32)
        for z in range(SHAPE[0]):
            file.data[z] = np.roll(some[z % 16], z, axis=1)
        file.voxel_size = SIZE
    return path


def measured(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Cut boxes about random places."""
    margin = 1.5 * BOX
    places = np.random.default_rng(1).uniform(margin, np.array(SHAPE) - margin, (COUNT, 3)) * SIZE
    table = particles.table(places, tomogram="noise")
    with record.Own() as own:
        start, spent = time.perf_counter(), time.process_time()
        cut = subtomograms.extract(io.open_volume(path, voxel_size=SIZE), table, path=path.with_suffix(".zarr"), **options)
        seconds, used = time.perf_counter() - start, time.process_time() - spent
    if len(cut) != COUNT:
        raise ValueError(f"expected {COUNT} boxes, got {len(cut)}")
    return {"seconds": seconds, "seconds of CPU": used, "boxes/s": COUNT / seconds, "own memory (GB)": own.peak}


if __name__ == "__main__":
    main()
