"""Names: how well averages are told to be of a map of a catalogue, or of none, and how long that takes.

    python benchmarks/bench_identify.py --averages folder
    python benchmarks/bench_identify.py --speed
    python benchmarks/bench_identify.py --maps folder/of/maps --name identify_others

Averages of simulated subtomograms of the shipped complexes (and of the maps in a folder), each from random orientations. Half
of the complexes, drawn at random, are the catalogue, so each average is of a known or of a novel structure. AUROC is that of
these two by the p-value, and by the correlation.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
from sklearn.metrics import roc_auc_score

from tomolab import averaging, simulation, volumes
from tomolab.averaging import Average, Catalogue
from tomolab.simulation import Imaging
from tomolab.volumes import Volume

BOX, VOXEL_SIZE, SNR = 20, 20.0, 0.05


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="only the time of a catalogue of 200 maps")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2, help="averages of each complex")
    parser.add_argument("--counts", type=int, nargs="+", default=(60, 100), help="particles of an average")
    parser.add_argument("--averages", type=Path, help="folder for the averages; those that are in it are used again")
    parser.add_argument("--maps", type=Path, help="folder of maps (.mrc), beside the shipped complexes")
    parser.add_argument("--name", default="identify", help="of the result")
    options = parser.parse_args()
    if options.speed:
        record.write("identify_speed", speed(), settings={"maps": 200, "box": 32, "resolution (Å)": 40.0})
        return
    everything = Catalogue.from_maps(simulation.load_densities(), about=simulation.catalogue().set_index("name"))
    if options.maps is not None:
        for name, one in Catalogue.from_folder(options.maps).maps.items():
            everything = everything.add(name, one)
    folder = options.averages or Path(tempfile.mkdtemp())
    found = pd.concat([asked(everything, folder, options, split=number) for number in range(1, options.splits + 1)])
    rows = [summary(some, split=split, particles=count) for (split, count), some in found.groupby(["split", "particles"])]
    rows += [summary(some, split="all", particles=count) for count, some in found.groupby("particles")]
    rows.append(summary(found, split="all", particles="all"))
    wrong = found[(found["verdict"] != "known") & found["known"] | (found["verdict"] != "novel") & ~found["known"]]
    settings = {
        "complexes": list(everything.maps),
        "seeds": options.seeds,
        "SNR": SNR,
        "box": BOX,
        "voxel size (Å)": VOXEL_SIZE,
    }
    listed = [f"{row.name_}, {row.particles} particles, {row.resolution:.0f} Å: {row.sentence}" for row in wrong.itertuples()]
    record.write(options.name, rows, settings=settings | {"wrong": listed})


def asked(everything: Catalogue, folder: Path, options: argparse.Namespace, *, split: int) -> pd.DataFrame:
    """What is said of every average if a half of the complexes is the catalogue."""
    names = np.random.default_rng(split).permutation(list(everything.maps))
    catalogue = everything.choose(names[: len(names) // 2])
    rows = []
    for name, one in everything.maps.items():
        for count in options.counts:
            for seed in range(1, options.seeds + 1):
                average = averaged(name, one, folder, count=count, seed=seed)
                found = averaging.identify(average, catalogue)
                best = found.fits.iloc[0]
                row = {"split": split, "particles": count, "name_": name, "known": name in catalogue.maps}
                row |= {"verdict": found.verdict, "right": best["name"] == name, "sentence": str(found)}
                row |= {"resolution": average.resolution, "believable": average.reliable}
                rows.append(row | {"r": best["correlation"], "p": best["p_value"]})
    return pd.DataFrame(rows)


def averaged(name: str, one: Volume, folder: Path, *, count: int, seed: int) -> Average:
    """An average of subtomograms of a complex, from random orientations."""
    place = folder / f"{name}__{count}__{seed}"
    if not place.exists():
        density = volumes.fit(volumes.resample(one, VOXEL_SIZE), BOX)
        boxes = simulation.subtomograms({name: density}, count, imaging=Imaging(snr=SNR), box=BOX, seed=seed, progress=False)
        averaging.average(boxes, seed=seed, progress=False).save(place)
    return averaging.load(place)


def summary(found: pd.DataFrame, *, split: int | str, particles: int | str) -> dict[str, Any]:
    """One row: how well known and novel are told apart, and how often the name and the verdict are right."""
    known, novel = found[found["known"]], found[~found["known"]]
    clear = found[found["believable"]]
    return {
        "split": str(split),
        "particles": str(particles),
        "averages": len(found),
        "AUROC by p": roc_auc_score(found["known"], -found["p"]),
        "AUROC by r": roc_auc_score(found["known"], found["r"]),
        "AUROC by r, believable": roc_auc_score(clear["known"], clear["r"]),
        "identity right": float(known["right"].mean()),
        "said to be known": float((known["verdict"] == "known").mean()),
        "said to be novel": float((novel["verdict"] == "novel").mean()),
    }


def speed() -> list[dict[str, Any]]:
    """Two rows: seconds for maps of 32³ and a catalogue of 200, pairs of shipped complexes that touch."""
    maps, rng = simulation.load_densities(), np.random.default_rng(0)
    table = simulation.catalogue().set_index("name")["diameter_angstrom"]
    small, many = [name for name in maps if table[name] < 200], {}
    for number in range(200):
        first, second = (maps[name].data for name in rng.choice(small, 2, replace=False))
        turned = np.rot90(second, rng.integers(4), axes=tuple(rng.choice(3, 2, replace=False)))
        moved = np.roll(turned, rng.integers(-6, 7, 3), axis=(0, 1, 2))
        many[f"pair_{number}"] = volumes.fit(Volume(first + moved, 10.0), 32)
    catalogue = Catalogue.from_maps(many)
    rows = []
    for order, name in (("first, with the null", "pair_3"), ("next", "pair_4")):
        began, worked = time.perf_counter(), time.process_time()
        averaging.identify(many[name], catalogue, resolution=40.0)
        seconds = {"seconds": time.perf_counter() - began, "CPU seconds": time.process_time() - worked}
        rows.append({"identify": order, **seconds})
    return rows


if __name__ == "__main__":
    main()
