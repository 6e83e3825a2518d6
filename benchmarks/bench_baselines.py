"""What the baselines are worth and how fast they are: support vector machine on known complexes, k-means on the others.

At SNR 0.05, tilts ±60°, 20 Å and 20³: accuracy on the ten classes of the shipped encoder, and on the six complexes that it did
not see the adjusted Rand index with as many clusters as classes and the purity with twice as many (medians of k-means seeds).
"As described" is without the mask that the papers do not mention; by default the baselines have one.
"""

import time

import record

from tomolab import experiments, simulation, subtomograms
from tomolab.learning import baselines, embedding, networks
from tomolab.simulation import Imaging, densities

IMAGING = Imaging(snr=0.05, tilts=(-60, 60))
LEARN, ASK, STARTS = 200, 100, 5
KINDS = {
    "invariants": lambda data: baselines.invariants(data, progress=False),
    "invariants, as described": lambda data: baselines.invariants(data, mask_fraction=2.0, progress=False),
    "normalised": lambda data: baselines.normalised(data, progress=False),
    "normalised, as described": lambda data: baselines.normalised(data, mask_fraction=2.0, progress=False),
    "shipped encoder": lambda data: embedding.embed(networks.load("default"), data, progress=False),
}


def main() -> None:
    """Embed the same particles in every way, and judge."""
    maps = densities.load(voxel_size=20, box=20)
    known = {name: maps[name] for name in networks.describe("default")["classes"]}
    unknown = {name: volume for name, volume in maps.items() if name not in known}
    parts = [
        simulation.subtomograms(which, count, imaging=IMAGING, box=20, seed=seed)
        for which, count, seed in ((known, LEARN, 91), (known, ASK, 92), (unknown, ASK, 93))
    ]
    everything = subtomograms.join(parts)
    truth = everything.particles.set_index("particle_id")["label"]
    ends = (len(parts[0]), len(parts[0]) + len(parts[1]))
    learn, ask, others = everything.ids[: ends[0]], everything.ids[ends[0] : ends[1]], everything.ids[ends[1] :]
    rows = []
    for title, kind in KINDS.items():
        start = time.perf_counter()
        features = kind(everything)
        rate = len(everything) / (time.perf_counter() - start)
        predicted = baselines.classify(features.take(learn), truth, features.take(ask))
        row = {"features": title, "per_second": rate, "accuracy, known": float((predicted == truth[ask]).mean())}
        unseen = features.take(others)
        once, twice = (experiments.cluster_scores(unseen, truth, k, starts=STARTS) for k in (len(unknown), 2 * len(unknown)))
        rows.append(
            row | {f"ARI, unknown, k={len(unknown)}": once["ari"], f"purity, unknown, k={2 * len(unknown)}": twice["purity"]}
        )
    record.write("baselines", rows, settings={"imaging": vars(IMAGING), "learn": LEARN, "ask": ASK, "left_out": list(unknown)})


if __name__ == "__main__":
    main()
