"""Particle lists: a million rows of STAR read, copied with half of them and written, and 100,000 rows in every format.

Each work on the million rows is measured in a process of its own, with the peak of memory that it had; to write, the table is
there before. starfile reads the same file beside it.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import starfile

from tomolab import io, particles
from tomolab.io.lists import copick

MANY, FEWER = 1_000_000, 100_000
SIZE, SHAPE = 10.0, (200, 500, 500)
FORMATS = {
    "CSV of tomolab": ("a.csv", "relion31"),
    "RELION 3.0": ("a.star", "relion30"),
    "RELION 3.1": ("b.star", "relion31"),
    "RELION 4": ("c.star", "relion4"),
    "RELION 5": ("d.star", "relion5"),
    "Warp": ("e.star", "warp"),
    "STOPGAP": ("f.star", "stopgap"),
    "Dynamo": ("a.tbl", "relion31"),
    "AV3": ("a.em", "relion31"),
    "Artiatomi": ("b.em", "artiatomi"),
    "IMOD": ("a.mod", "relion31"),
    "data portal": ("a.ndjson", "relion31"),
    "copick": ("copick", "copick"),
}


def main() -> None:
    """Measure the large list, then every format."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "many.star")
        for what, work, count in (
            ("write", write_many, MANY),
            ("read", read_many, MANY),
            ("read by starfile", read_by_starfile, MANY),
            ("copy of every second row", copy_many, MANY // 2),
        ):
            rows.append({"list": "RELION 3.1, a million rows", "work": what} | record.apart(measured, work, path, count))
        ours, theirs = (
            next(row["seconds of CPU"] for row in rows if row["work"] == work) for work in ("read", "read by starfile")
        )
        rows.append({"list": "RELION 3.1, a million rows", "work": "read, seconds of starfile's", "ratio": ours / theirs})
        rows += record.apart(formats, Path(folder))
    record.write("lists", rows, settings={"rows": [MANY, FEWER], "voxel size (Å)": SIZE})


def formats(folder: Path) -> list[dict[str, Any]]:
    """Every format, one after the other in one process, so without a peak of memory for each."""
    rows = []
    for name in FORMATS:
        for what, work in (("write", write_format), ("read", read_format)):
            made = measured(work, folder / name, FEWER)
            del made["peak memory (GB)"]
            rows.append({"list": name, "work": what} | made)
    return rows


def measured(work: Callable[[Path], Callable[[], int]], path: Path, count: int) -> dict[str, Any]:
    """Seconds and memory of what a function prepared; it must be of as many rows as expected.

    Rows are counted per second of CPU: all of it is work of one thread, and the figure stands on a machine that is shared.
    """
    prepared = work(path)
    start, spent = time.perf_counter(), time.process_time()
    found = prepared()
    seconds, used = time.perf_counter() - start, time.process_time() - spent
    if found != count:
        raise ValueError(f"{work.__name__} of {path.name}: expected {count} rows, got {found}")
    told = {"rows": count, "seconds": seconds, "seconds of CPU": used, "rows/s": count / used}
    return told | {"peak memory (GB)": record.peak_memory()}


def table(count: int) -> Any:
    """Particles in ten tomograms, with columns as a list of RELION has them; of one tomogram where a format knows one."""
    rng = np.random.default_rng(0)
    names = [f"TS_{number:02}" for number in range(10)]
    return particles.table(
        rng.uniform(0, 1, (count, 3)) * np.array(SHAPE) * SIZE,
        tomogram=rng.choice(names, count).tolist() if count == MANY else "TS_01",
        ids=np.arange(count) + 1,
        angles=rng.uniform(0, 180, (count, 3)),
        rlnClassNumber=rng.integers(1, 20, count),
        rlnImageName=[f"{number:07}@stack.mrcs" for number in range(count)],
        score=rng.uniform(0, 1, count),
    )


def write_many(path: Path) -> Callable[[], int]:
    given = table(MANY)
    return lambda: len(given) if io.write_particles(given, path, voxel_size=SIZE) else 0


def read_many(path: Path) -> Callable[[], int]:
    return lambda: len(io.read_particles(path))


def read_by_starfile(path: Path) -> Callable[[], int]:
    return lambda: len(starfile.read(path, always_dict=True)["particles"])


def copy_many(path: Path) -> Callable[[], int]:
    return lambda: io.filter_particles(path, np.arange(0, MANY, 2), path.with_name("half.star")).kept


def write_format(folder: Path) -> Callable[[], int]:
    folder.mkdir()
    (name, kind), given = FORMATS[folder.name], table(FEWER)
    if kind == "copick":
        return lambda: len(given) if copick.write(given.assign(cluster_name="bead"), folder) else 0
    options = {"voxel_size": SIZE, "format": kind, "tomogram_shape": SHAPE}
    return lambda: len(given) if io.write_particles(given, folder / name, **options) else 0


def read_format(folder: Path) -> Callable[[], int]:
    name, kind = FORMATS[folder.name]
    path = next(folder.glob("ExperimentRuns/*/Picks/*.json")) if kind == "copick" else folder / name
    known: dict[str, Any] = {"tilts": (-60, 60)}
    if path.suffix != ".json":
        known |= {"voxel_size": SIZE, "tomogram_shape": SHAPE}
    if path.suffix in (".mod", ".ndjson"):
        known["tomogram"] = "TS_01"
    return lambda: len(io.read_particles(path, **known))


if __name__ == "__main__":
    main()
