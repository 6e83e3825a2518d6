"""Specimens: time, memory and the crowding that is reached, at the size of a tomogram."""

import statistics
import time
from typing import Any

import record

from tomolab.simulation import Membrane, densities, specimen

SHAPE, VOXEL_SIZE, THICKNESS = (200, 512, 512), 10.0, 1800.0
CELL = Membrane(centre=(1000.0, 1500.0, 2000.0), radii=(2500.0, 3000.0, 2500.0))
REPEATS = 3


def main() -> None:
    """Time 2,000 complexes in an open slab, a crowded cell with everything in it, and more complexes than there is room for."""
    catalogue = densities.catalogue().query("shipped")["name"]
    maps = densities.load([name for name in catalogue if not name.startswith("capsid")], voxel_size=VOXEL_SIZE)
    volume = specimen.accessible_volume(shape=SHAPE, voxel_size=VOXEL_SIZE, thickness=THICKNESS, cell=CELL)
    cell = {"cell": CELL, "vesicles": 4, "soluble_protein": 60.0, "fiducials": 8}
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        ("2,000 complexes", 2000 // len(maps) + 1, {}),
        ("cell at 0.25", specimen.counts_for_crowding(maps, 0.25, volume=volume), cell),
        ("cell at 0.35", specimen.counts_for_crowding(maps, 0.35, volume=volume), {"cell": CELL}),
    ]
    rows = [{"specimen": name} | repeated(maps, counts, options) for name, counts, options in cases]
    settings = {"shape": SHAPE, "voxel_size": VOXEL_SIZE, "thickness": THICKNESS, "densities": len(maps), "repeats": REPEATS}
    record.write("specimen", rows, settings=settings)


def repeated(maps: dict[str, Any], counts: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Medians over fresh processes, so that each peak of memory is that of one specimen."""
    made = [record.apart(measured, maps, counts, options, seed) for seed in range(REPEATS)]
    return {name: statistics.median(one[name] for one in made) for name in made[0]}


def measured(maps: dict[str, Any], counts: Any, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Build one specimen."""
    start = time.perf_counter()
    made = specimen.build(maps, counts, shape=SHAPE, seed=seed, thickness=THICKNESS, device="cpu", progress=False, **options)
    seconds = time.perf_counter() - start
    listed = made.report[made.report["name"].isin(list(maps))]
    return {
        "asked": int(listed["asked"].sum()),
        "placed": int(listed["placed"].sum()),
        "crowding": round(made.crowding, 3),
        "seconds, median": round(seconds, 1),
        "peak memory (GB)": round(record.peak_memory(), 2),
    }


if __name__ == "__main__":
    main()
