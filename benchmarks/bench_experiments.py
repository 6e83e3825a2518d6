"""Baselines, published networks and ours on complexes that nobody trained for: noise, missing wedge, novelty, recovery.

    python benchmarks/bench_experiments.py --folder runs/experiments

Each network trains for the same time on the same simulated data (SNR 0.02 to 0.5, tilts ±40° to ±60°), for each of three
splits that leave five complexes out, and is judged under 18 conditions; CB3D and YOPO, which a CPU can hardly train, under
one. An ablation changes the ingredients of ours one by one, on the first split. Every trial leaves its own file in the
folder: what was cut goes on where it stopped. ``--others FOLDER`` judges the networks of the first split also on the twelve
complexes of the SHREC'21 contest, from MRC maps ``<pdb>_10A.mrc.gz``.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import record

from tomolab import experiments, io, volumes
from tomolab.experiments import METHODS, STANDARD, Method, Plan
from tomolab.learning.recipes import recipe
from tomolab.simulation import Imaging, densities
from tomolab.ui import plots
from tomolab.volumes import Volume

VOXEL_SIZE = 20.0
SHREC = ("1s3x", "3qm1", "3gl1", "3h84", "2cg9", "3d2f", "1u6g", "3cf3", "1bxn", "1qvr", "4cr2", "5mrc")
OURS, RECIPE = METHODS["compact"], recipe("compact")
ABLATION: dict[str, Method] = {
    "ours": OURS,
    "no margin": replace(OURS, recipe=replace(RECIPE, margin=0.0)),
    "optimiser of the paper": replace(OURS, recipe=replace(RECIPE, algorithm="sgd", learning_rate=0.01, decay=1e-6, clip=None)),
    "trained at SNR 0.05 and ±60° only": replace(OURS, imaging=Imaging(snr=0.05)),
    "DSRF3D, our recipe": replace(OURS, network="dsrf3d"),
}
SHOWN = ("invariants", "pose normalisation", "pose normalisation, masked", "inception3d", "dsrf3d", "compact")
LONGER = {"ours, four times as long": OURS}


def main() -> None:
    """Make all trials, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="training of each network")
    parser.add_argument("--others", type=Path, help="folder with the maps of SHREC'21")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trials at a time")
    options = parser.parse_args()
    plan = Plan(seconds=options.seconds)
    maps = densities.load(voxel_size=VOXEL_SIZE, box=plan.box)
    others = foreign(options.others, box=plan.box) if options.others else {}
    settings: dict[str, Any] = {"plan": vars(plan), "training": str(experiments.WIDE), "others": sorted(others)}

    rows = experiments.run(plan, METHODS, maps=maps, folder=options.folder, others=others, workers=options.workers)
    if others:
        written("experiments_others", rows[rows["split"] == "others"].query(_STANDARD).set_index("method"), settings)
    rows = rows[rows["split"] != "others"]
    shown = rows[rows["method"].isin(SHOWN)]
    plots.conditions(shown).savefig(options.folder / "conditions.png", dpi=110)
    written("experiments_conditions", experiments.summary(rows, by=["method", "tilt", "snr"]), settings)
    middle = rows.query(_STANDARD)
    seen = middle.groupby("method", sort=False)[["seen"]].mean()
    written("experiments", experiments.summary(middle).join(seen), settings)
    written("experiments_advantage", experiments.advantage(middle, "compact"), settings)

    short = replace(plan, snrs=(STANDARD.snr,), tilts=(STANDARD.tilt,), splits=plan.splits[:1])
    changed = experiments.run(short, ABLATION, maps=maps, folder=options.folder, workers=options.workers)
    longer = experiments.run(replace(short, seconds=4 * plan.seconds), LONGER, maps=maps, folder=options.folder)
    changed = pd.concat([changed, longer], ignore_index=True)
    seen = changed.groupby("method", sort=False)[["seen"]].mean()
    written("experiments_ablation", experiments.summary(changed).join(seen), settings)
    seen = experiments.budgets(plan, {"ours": OURS}, maps=maps, folder=options.folder)["ours"]
    written("experiments_recovery", recovered(plan, maps, seen=seen), settings)


_STANDARD = f"snr == {STANDARD.snr} and tilt == {STANDARD.tilt}"


def written(name: str, table: pd.DataFrame, settings: dict[str, Any]) -> None:
    """Write a table with its index as columns."""
    record.write(name, table.reset_index().to_dict("records"), settings=settings)


def foreign(folder: Path, *, box: int) -> dict[str, Volume]:
    """Maps of 10 Å from elsewhere, as ours are."""
    out = {}
    for name in SHREC:
        volume = io.read_volume(folder / f"{name}_10A.mrc.gz", voxel_size=10.0)
        fine = volumes.fit(volume, 2 * box)
        out[name] = volumes.resample(Volume(fine.data / fine.data.max(), fine.voxel_size), VOXEL_SIZE)
    return out


def recovered(plan: Plan, maps: dict[str, Volume], *, seen: int) -> pd.DataFrame:
    """Structures of the complexes that ours never saw, split by split."""
    parts = []
    for number, left_out in enumerate(plan.splits, 1):
        known = {name: volume for name, volume in maps.items() if name not in left_out}
        unknown = {name: maps[name] for name in left_out}
        ready = experiments.prepare(OURS, known, box=plan.box, seen=seen, seed=plan.seed + number)
        parts.append(experiments.recover(ready, unknown, box=plan.box, seed=plan.seed, progress=False).assign(split=number))
    return pd.concat(parts)


if __name__ == "__main__":
    main()
