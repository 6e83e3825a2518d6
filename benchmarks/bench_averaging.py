"""Reference-free averaging from random orientations: seconds, resolution, and fit to the truth and to its mirror image."""

import time

import record

from tomolab import alignment, averaging, densities, simulation
from tomolab.imaging import Imaging
from tomolab.volumes import Volume

NAMES = ("ribosome_70s", "spliceosome", "erythrocruorin", "mm_cpn_closed")
COUNT, SEED = 100, 1


def main() -> None:
    """Average simulated particles of complexes, one at a time, at two noise levels."""
    maps = densities.load(NAMES, voxel_size=20.0, box=20)
    rows = []
    for snr in (0.1, 0.05):
        imaging = Imaging(snr=snr, tilts=(-60, 60))
        for name, density in maps.items():
            particles = simulation.subtomograms({name: density}, COUNT, imaging=imaging, box=20, seed=SEED)
            start = time.perf_counter()
            average = averaging.average(particles, seed=SEED)
            seconds = time.perf_counter() - start
            mirror = Volume(density.data[:, :, ::-1], density.voxel_size)
            rows.append(
                {
                    "complex": name,
                    "snr": snr,
                    "seconds": seconds,
                    "resolution (Å)": average.resolution,
                    "fit to truth": alignment.align_map(density, average.volume).score,
                    "fit to mirror": alignment.align_map(mirror, average.volume).score,
                }
            )
    record.write("averaging", rows, settings={"particles": COUNT, "box": 20, "voxel size (Å)": 20.0, "seed": SEED})


if __name__ == "__main__":
    main()
