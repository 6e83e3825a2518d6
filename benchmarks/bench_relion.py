"""The same subtomograms averaged by tomolab and by RELION: seconds of both, and how far both agree with the true density.

tomolab starts from nothing. RELION (`relion_refine_mpi --auto_refine --split_random_halves`) needs a map to start from: it
is given the true one, low-passed to 60 Å, which a user would not have, and, with --random, for the first set the average in
random orientations too. Both look for shifts of up to a tenth of the box.
With the second command below RELION searches all orientations on a grid of 15 degrees only, and locally from 7.5 degrees on
(3.75 is its default), which saves it most of its time.

    python benchmarks/bench_relion.py --counts 60 300
    python benchmarks/bench_relion.py --counts 60 300 --result relion_local --relion "--auto_local_healpix_order 3"
    python benchmarks/bench_relion.py --counts 16 --box 20 --voxel-size 20 --relion "--auto_iter_max 1"
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import record

from tomolab import averaging, simulation
from tomolab import volumes as maps
from tomolab.averaging import Average, alignment, correlate, relion
from tomolab.averaging.fsc import resolution_at
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

NAMES = ("ribosome_70s", "spliceosome")
TILTS, SNR, SEED = (-60, 60), 0.1, 1
TRUTH, RANDOM = "truth at 60 Å", "random"


def across(density: Volume) -> float:
    """Å of the sphere that holds all that is over a twentieth of the peak, and two voxels more."""
    far = maps.distance(density.shape[0]).numpy()[density.data > 0.05 * density.data.max()].max()
    return float(min(2 * far + 4, 0.95 * density.shape[0]) * density.voxel_size)


def judged(average: Average, truth: Volume, *, seconds: float) -> dict[str, Any]:
    """Seconds, resolution by the half maps and against the truth, and correlation with the truth and its mirror image."""
    fit = alignment.align_map(average.volume, truth)
    diameter = across(truth) / truth.voxel_size
    mirror = maps.mirror(truth)
    return {
        "seconds": seconds,
        "halves 0.143 (Å)": average.resolution,
        "to truth 0.5 (Å)": resolution_at(
            correlate(alignment.apply(average.volume, fit), truth, diameter_voxels=diameter), 0.5
        ),
        "fit to truth": fit.score,
        "fit to mirror": alignment.align_map(average.volume, mirror).score,
    }


def ours(particles: Subtomograms, truth: Volume, *, keep: str) -> dict[str, Any]:
    start = time.perf_counter()
    average = averaging.average(particles, seed=SEED, progress=False, device="cpu")
    seconds = time.perf_counter() - start
    if keep:
        average.save(Path(keep, "tomolab"))
    return judged(average, truth, seconds=seconds)


def theirs(particles: Subtomograms, truth: Volume, *, start: str, options: argparse.Namespace, keep: str) -> dict[str, Any]:
    reference = truth if start == TRUTH else None
    with tempfile.TemporaryDirectory() as place:
        folder = relion.write(particles, Path(place, "set"), progress=False)
        average = relion.refine(
            folder,
            diameter=across(truth),
            reference=reference,
            processes=options.processes,
            threads=options.threads,
            seed=SEED,
            progress=False,
            extra=options.relion.split(),
        )
    if keep:
        average.save(Path(keep, "relion-random" if start == RANDOM else "relion"))
    return judged(average, truth, seconds=average.record["seconds"]) | {"iterations": average.record["iterations"]}


def main() -> None:
    """Average each set with both, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[60, 300], help="particles of a set")
    parser.add_argument("--names", nargs="+", default=list(NAMES), help="complexes")
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--voxel-size", type=float, default=10.0)
    parser.add_argument("--random", action="store_true", help="start RELION from random orientations, too")
    parser.add_argument("--processes", type=int, default=3, help="MPI processes of RELION")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    parser.add_argument("--relion", default="", help="more options for RELION, in quotes")
    parser.add_argument("--result", default="relion", help="name of the result")
    parser.add_argument("--keep", default="", help="folder to save the averages in")
    options = parser.parse_args()
    found = relion.available()
    if found is None:
        print("RELION is not installed: nothing to compare with (apt-get install relion openmpi-bin)")
        return
    first = (options.counts[0], options.names[0])
    rows: list[dict[str, Any]] = []
    settings = vars(options) | {"snr": SNR, "tilts": TILTS, "seed": SEED}
    # The largest complex needs a larger box to be made in; what it has beyond ours is its faint rim.
    made = densities.load(options.names, voxel_size=options.voxel_size, box=options.box + 8)
    truths = {name: maps.fit(truth, options.box) for name, truth in made.items()}
    for count in options.counts:
        for name, truth in truths.items():
            imaging = Imaging(snr=SNR, tilts=TILTS)
            particles = simulation.subtomograms({name: truth}, count, imaging=imaging, box=options.box, seed=SEED)
            about = {"complex": name, "particles": count}
            keep = options.keep and f"{options.keep}/{name}-{count}"
            mine = ours(particles, truth, keep=keep)
            rows.append(about | {"program": "tomolab", "start": "nothing"} | mine)
            for start in [TRUTH, RANDOM] if options.random and (count, name) == first else [TRUTH]:
                other = theirs(particles, truth, start=start, options=options, keep=keep)
                ratio = {"times as long": other["seconds"] / mine["seconds"]}
                rows.append(about | {"program": f"RELION {found.version}", "start": start} | other | ratio)
                # Hours may pass until the last row.
                record.write(options.result, rows, settings=settings)


if __name__ == "__main__":
    main()
