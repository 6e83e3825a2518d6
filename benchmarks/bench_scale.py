"""A million subtomograms on one machine: every stage from simulating to an average, its seconds and its memory.

    python benchmarks/bench_scale.py                                        # 10,000 and 100,000 of 20³, in some minutes
    python benchmarks/bench_scale.py --counts 10000 100000 1000000 --large 100000
    python benchmarks/bench_scale.py --model                                # tables of what more would need

Subtomograms of all complexes that are shipped, at SNR 0.1 and 20 Å, are simulated to a store, embedded by the shipped encoder,
parted into 100 clusters, inspected without a screen, and 2,000 of one kind are selected and averaged. Each stage runs in a
process of its own, so that its peak of memory is its own, and works on the files that the one before has left.

Memory is what the process held itself ("GB"), which the system cannot take back. The pages of files that it mapped come on
top in "peak GB". The model is a line through the seconds, GB and bytes on disk of each stage over the count of subtomograms.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
import torch

from tomolab import averaging, clusters, inspection, simulation, subtomograms
from tomolab.clusters import layouts
from tomolab.inspection import selection
from tomolab.inspection.run_contents import BOXES, EMBEDDING, LAYOUT, TABLE
from tomolab.learning import embedding, networks
from tomolab.simulation import Imaging, densities

K, CHOSEN, ITERATIONS, VOXEL_SIZE = 100, 2000, 6, 20.0
DENSITY_BOX = 20
"""Voxels of the maps, at any box of the subtomograms."""
MACHINES = {"8 GB, 1 TB": (8, 1000), "64 GB, 10 TB": (64, 10_000), "256 GB, 100 TB": (256, 100_000)}
MORE = (10**6, 10**7, 10**8)
DAYS = 7


def simulate(folder: Path, count: int, box: int) -> None:
    """To a store."""
    maps = densities.load(voxel_size=VOXEL_SIZE, box=DENSITY_BOX)
    each, more = divmod(count, len(maps))
    counts = {name: each + (number < more) for number, name in enumerate(maps)}
    simulation.subtomograms(maps, counts, imaging=Imaging(snr=0.1), box=box, seed=1, path=folder / BOXES)


def embed(folder: Path, count: int, box: int) -> None:  # noqa: ARG001 - all stages take the same
    """By the shipped encoder, in float16; by an untrained one of the same kind where the boxes are of another size."""
    torch.manual_seed(0)
    network = networks.load()
    if network.box != box:
        network = networks.create("compact", box=box, classes=network.classes, voxel_size=VOXEL_SIZE)
    embedding.embed(network, subtomograms.open(folder / BOXES), path=folder / EMBEDDING, dtype="float16")


def cluster(folder: Path, count: int, box: int) -> None:  # noqa: ARG001
    """By k-means, and a plane to look at."""
    found = embedding.load(folder / EMBEDDING, mapped=True)
    labels = clusters.kmeans(found, K, seed=0)
    table = subtomograms.open(folder / BOXES).particles
    table.assign(cluster=labels.loc[table["particle_id"]].to_numpy()).to_csv(folder / TABLE, index=False)
    layouts.flat(found, method="pca").to_csv(folder / LAYOUT, index=False)


def inspect(folder: Path, count: int, box: int) -> None:  # noqa: ARG001
    """Open, select a tenth, make a cluster of it, undo, keep; and keep the ids of 2,000 of one kind."""
    work = inspection.open(folder)
    tenth = work.session.ids[:: max(1, len(work.session.ids) // (count // 10))]
    work.session.select(tenth, "lasso")
    work.session.new_cluster("a tenth")
    work.session.undo()
    work.save()


def select(folder: Path, count: int, box: int) -> None:  # noqa: ARG001
    """The most typical of the largest cluster, or of the largest few where none is large enough."""
    work = inspection.open(folder)
    sizes = work.session.counts().sort_values(ascending=False)
    few = sizes.index[: int(np.searchsorted(sizes.cumsum(), CHOSEN)) + 1]
    ids = np.concatenate([work.session.members(int(number)).ids for number in few])
    selection.Selection("chosen", work.typical(ids)[:CHOSEN], "the most typical").save(folder / "chosen.json")


def average(folder: Path, count: int, box: int) -> None:  # noqa: ARG001
    """Of what is selected, out of the store."""
    chosen = selection.load(folder / "chosen.json")
    averaging.average(subtomograms.open(folder / BOXES), chosen.ids, seed=1, iterations=ITERATIONS).save(folder / "average")


STAGES: dict[str, Callable[[Path, int, int], None]] = {
    "simulate": simulate,
    "embed": embed,
    "cluster": cluster,
    "inspect": inspect,
    "select": select,
    "average": average,
}
LEFT = {"simulate": [BOXES], "embed": [EMBEDDING], "cluster": [TABLE, LAYOUT], "inspect": ["session.npz"]}
"""What a stage leaves."""


def measured(stage: str, folder: Path, count: int, box: int) -> dict[str, Any]:
    """A row, in the process of the stage."""
    with record.Own() as own:
        start = time.perf_counter()
        STAGES[stage](folder, count, box)
        seconds = time.perf_counter() - start
    return {
        "stage": stage,
        "box": box,
        "count": count,
        "seconds": seconds,
        "per_second": count / seconds if stage != "average" else CHOSEN / seconds,
        "GB": own.peak,
        "peak GB": record.peak_memory(),
        "GB on disk": sum(size(folder / name) for name in LEFT.get(stage, [])) / 1e9,
    }


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())


def road(count: int, box: int, place: Path | None) -> list[dict[str, Any]]:
    """A row for each stage."""
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=place))
    try:
        rows = []
        for stage in STAGES:
            rows.append(record.apart(measured, stage, folder, count, box))
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=stage == "simulate"), flush=True)
        return rows
    finally:
        shutil.rmtree(folder)


def line(counts: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Start and slope of a line with neither below 0, by least squares of relative deviations; and the largest of these."""
    best = (float(values.mean()), 0.0)
    design = np.stack([np.ones(len(counts)), counts], axis=1) / values[:, None]
    if len(counts) > 1:
        tries = [np.linalg.lstsq(design, np.ones(len(counts)), rcond=None)[0]]
        tries += [np.array([0.0, 1 / (counts / values).mean()]), np.array([values.mean(), 0.0])]
        allowed = [one for one in tries if (one >= 0).all()]
        start, slope = min(allowed, key=lambda one: float(np.square(design @ one - 1).sum()))
        best = (float(start), float(slope))
    deviation = np.abs((best[0] + best[1] * counts) / values - 1).max()
    return *best, float(deviation)


def model(rows: list[dict[str, Any]], box: int) -> pd.DataFrame:
    """For each stage of a box: start, slope and largest deviation of the lines through seconds, GB and GB on disk."""
    table, found = pd.DataFrame(rows), {}
    for stage, part in table[table["box"] == box].groupby("stage", sort=False):
        counts = part["count"].to_numpy(dtype=float)
        told: dict[str, float] = {}
        for what in ("seconds", "GB", "GB on disk"):
            values = part[what].to_numpy(dtype=float)
            told |= dict(
                zip((f"{what}, start", f"{what}, slope", f"{what}, off"), line(counts, np.maximum(values, 1e-9)), strict=True)
            )
        found[stage] = told
    return pd.DataFrame(found).T


def needed(lines: pd.DataFrame, count: float) -> dict[str, float]:
    """What the whole road needs: hours of all stages, memory of the largest, disk of all."""
    at = {what: lines[f"{what}, start"] + lines[f"{what}, slope"] * count for what in ("seconds", "GB", "GB on disk")}
    # An embedding stands twice until its file is whole.
    disk = at["GB on disk"].sum() + (at["GB on disk"].get("embed", 0.0))
    return {"hours": at["seconds"].sum() / 3600, "RAM (GB)": at["GB"].max(), "disk (GB)": disk}


def most(lines: pd.DataFrame, what: str, limit: float) -> float:
    """Subtomograms with which a need reaches its limit."""
    low, high = 0.0, 1e13
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(lines, middle)[what] <= limit else (low, middle)
    return low


def told(result: dict[str, Any]) -> str:
    """All as Markdown: what was measured, the lines through it, what more would need, and what runs out first."""
    rows, text = result["rows"], []
    machine = result["machine"]
    text.append(
        f"Measured on {machine['cpu']}, {machine['cores']} cores, GPU: {machine['gpu'] or 'none'}, {result['time'][:10]}."
    )
    for box in sorted({row["box"] for row in rows}):
        of, lines = [row for row in rows if row["box"] == box], model(rows, box)
        text += [f"### {box}³ voxels", markdown(_measured(of))]
        counts = [row["count"] for row in of]
        if max(counts) < 10 * min(counts):
            # A line through so little says nothing of a hundred million.
            continue
        per = {
            "stage": lines.index,
            "seconds": [
                f"{a:.3g} + {1e6 * b:,.4g} per million" for a, b in lines[["seconds, start", "seconds, slope"]].to_numpy()
            ],
            "largest deviation": [f"{100 * off:.0f} %" for off in lines["seconds, off"]],
            "GB of memory": [f"{a:.2f} + {1e6 * b:.3g} per million" for a, b in lines[["GB, start", "GB, slope"]].to_numpy()],
        }
        text += ["The lines:", markdown(pd.DataFrame(per))]
        wanted = [{"subtomograms": f"{count:,}"} | needed(lines, count) for count in MORE]
        text += ["What the whole road needs by them:", markdown(pd.DataFrame(wanted))]
        text += ["Where each resource runs out:", markdown(pd.DataFrame(_limits(lines)))]
    return "\n\n".join(text)


def _measured(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    out = table[["count", "stage", "seconds", "per_second", "GB", "peak GB", "GB on disk"]].copy()
    out["count"] = [f"{count:,}" for count in out["count"]]
    return out.rename(columns={"count": "subtomograms", "per_second": "per second"})


def _limits(lines: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for name, (memory, disk) in MACHINES.items():
        limits = {"RAM (GB)": memory, "disk (GB)": disk, "hours": 24 * DAYS}
        reach = {what: most(lines, what, limit) for what, limit in limits.items()}
        words = {"RAM (GB)": "memory", "disk (GB)": "disk", "hours": f"{DAYS} days"}
        row: dict[str, Any] = {"machine": name}
        row |= {words[what]: f"{count / 1e6:,.3g} million" for what, count in reach.items()}
        rows.append(row | {"first": words[min(reach, key=lambda what: reach[what])]})
    return rows


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    shown = [[f"{cell:,.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in table.to_numpy(dtype=object)]
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1], *shown]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Measure and write, or tell what more would need."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000], help="subtomograms of 20³ voxels")
    parser.add_argument("--large", type=int, nargs="*", default=[], help="subtomograms of 40³ voxels")
    parser.add_argument("--folder", type=Path, help="where the files of a run lie meanwhile; the system's own by default")
    parser.add_argument("--model", action="store_true", help="only print tables of the last result, as Markdown")
    given = parser.parse_args()
    if given.model:
        print(told(json.loads((record.RESULTS / "scale.json").read_text())))
        return
    settings = {"k": K, "chosen": CHOSEN, "iterations": ITERATIONS, "threads": torch.get_num_threads()}
    rows: list[dict[str, Any]] = []
    for box, counts in ((20, given.counts), (40, given.large)):
        for count in counts:
            rows += road(count, box, given.folder)
            # A million takes long: what was measured before stays, whatever happens to the rest.
            record.write("scale", rows, settings=settings | {"load of the machine": os.getloadavg()[0]})


if __name__ == "__main__":
    main()
