"""Trials: one way to describe subtomograms, judged on complexes that it knows and on complexes that it does not.

A `Method` learns from the known complexes: a network from so many subtomograms, a baseline has nothing to learn. Then it
describes particles of known and unknown complexes under several conditions of imaging. Known ones should be recognised,
unknown ones should fall into clusters of one complex each, and it should be noticed that they are unknown.

>>> ready = prepare(Method(network="compact"), known, box=20, seen=40_000, seed=1)
>>> judge(ready, known, unknown, condition=STANDARD, box=20, seed=2)
{'accuracy': 0.92, 'ari': 0.91, ...}
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from tomolab.clusters import labels as cluster_labels
from tomolab.clusters import novelty
from tomolab.learning import baselines, embedding, networks, training
from tomolab.learning.embedding import Embedding
from tomolab.learning.recipes import Recipe
from tomolab.simulation import generator
from tomolab.simulation.imaging import Imaging
from tomolab.subtomograms import dataset
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

WIDE = Imaging(snr=(0.02, 0.5), tilts=((-60.0, -40.0), (40.0, 60.0)))
"""What networks train on. There is next to nothing to learn from SNR 0.01, and nothing that 0.5 does not teach from 1."""
STARTS = 3
"""Runs of k-means from different seeds, of which the median counts."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How particles are imaged in a trial: signal-to-noise ratio, and tilts in degrees from -tilt to +tilt."""

    snr: float
    tilt: float

    @property
    def imaging(self) -> Imaging:
        """In full."""
        return Imaging(snr=self.snr, tilts=(-self.tilt, self.tilt))


STANDARD = Condition(snr=0.05, tilt=60.0)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to describe subtomograms.

    Parameters
    ----------
    network
        Name of a network to train (`networks.names`), or None for a baseline.
    baseline
        "invariants" or "normalised" (`baselines`), as published or ", masked"; or None for a network.
    recipe
        How the network is trained; what goes with its name by default.
    imaging
        What it trains on.
    batch_size
        Subtomograms per batch in training.
    reference
        Simulated particles of each known complex to compare with.
    slow
        Judged under the standard condition only.
    """

    network: str | None = None
    baseline: str | None = None
    recipe: Recipe | None = None
    imaging: Imaging = WIDE
    batch_size: int = 32
    reference: int = 60
    slow: bool = False

    def __post_init__(self) -> None:
        if (self.network is None) == (self.baseline is None):
            raise ValueError(f"a method is a network or a baseline, got {self.network!r} and {self.baseline!r}")
        if self.network is not None and self.network not in networks.names():
            raise ValueError(f"unknown network {self.network!r}; there are {', '.join(networks.names())}")
        if self.baseline is not None and self.baseline not in _BASELINES:
            raise ValueError(f"unknown baseline {self.baseline!r}; there are {', '.join(_BASELINES)}")


# No mask is described where the two were published; ours looks at what lies about the centre.
_BASELINES: dict[str, Callable[..., Embedding]] = {
    "invariants": partial(baselines.invariants, diameter=2.0),
    "invariants, masked": baselines.invariants,
    "normalised": partial(baselines.normalised, diameter=2.0),
    "normalised, masked": baselines.normalised,
}


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A method that has learnt what it can, from so many subtomograms; made by `prepare`."""

    method: Method
    network: networks.Network | None = None
    seen: int = 0

    def embed(self, *sets: Subtomograms) -> list[Embedding]:
        """Describe sets of subtomograms, in one space."""
        if self.network is not None:
            return [embedding.embed(self.network, one, progress=False) for one in sets]
        return _together(_BASELINES[str(self.method.baseline)], sets)

    def classify(self, known: Embedding, labels: pd.Series, found: Embedding) -> pd.Series:
        """Class of each particle: by the head of the network, or by a support vector machine trained on `known`."""
        if self.network is None:
            return baselines.classify(known, labels, found)
        with torch.inference_mode():
            best = self.network.head(torch.from_numpy(found.vectors)).argmax(1).numpy()
        return pd.Series(np.array(self.network.classes)[best], index=found.ids)


def speed(method: Method, known: Mapping[str, Volume], *, box: int) -> float:
    """Subtomograms per second that the network of a method learns from on this machine, as it is just now."""
    network, stream = _network(method, known, box=box, updates=EPOCHS, seed=0)
    return training.estimate(network, stream, epochs=1, recipe=method.recipe)["per_second"]


def prepare(method: Method, known: Mapping[str, Volume], *, box: int, seen: int, seed: int) -> Ready:
    """Let a method learn from complexes that are known.

    Parameters
    ----------
    method
        What learns.
    known
        Their maps by class name, all of one voxel size.
    box
        Edge of the subtomograms in voxels.
    seen
        Subtomograms that a network sees in training; for methods of unlike speed, `speed` times the seconds that they have.
    seed
        Decides weights and data.
    """
    if method.network is None:
        return Ready(method=method)
    updates = max(EPOCHS, round(seen / method.batch_size))
    network, stream = _network(method, known, box=box, updates=updates, seed=seed)
    held_back = generator.subtomograms(known, 2, imaging=STANDARD.imaging, box=box, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        training.fit(
            network,
            stream,
            validation=held_back,
            epochs=EPOCHS,
            seed=seed,
            folder=folder,
            recipe=method.recipe,
            progress=False,
        )
    return Ready(method=method, network=network, seen=stream.batches * EPOCHS * method.batch_size)


EPOCHS = 4
"""Training is one run of the learning rate; in how many epochs makes no difference to it."""


def _network(
    method: Method, known: Mapping[str, Volume], *, box: int, updates: int, seed: int
) -> tuple[networks.Network, generator.Stream]:
    """A network that knows nothing yet, and what it is to learn from in `EPOCHS` epochs."""
    size = method.batch_size
    epoch_size = updates // EPOCHS * size
    stream = generator.stream(known, imaging=method.imaging, box=box, batch_size=size, epoch_size=epoch_size, seed=seed)
    network = networks.create(str(method.network), box=box, classes=stream.classes, voxel_size=stream.voxel_size, seed=seed)
    return network, stream


def judge(
    ready: Ready,
    known: Mapping[str, Volume],
    unknown: Mapping[str, Volume],
    *,
    condition: Condition,
    box: int,
    seed: int,
    counts: tuple[int, int] = (25, 50),
) -> dict[str, float]:
    """Measure a method under one condition.

    Parameters
    ----------
    ready
        The method, after `prepare` with the same `known`.
    known, unknown
        Maps by class name.
    condition
        How all particles are imaged.
    box
        Edge of the subtomograms in voxels.
    seed
        Decides the particles.
    counts
        Particles of each known, and of each unknown complex.

    Returns
    -------
    dict
        ``accuracy``: share of known particles that are recognised. Of unknown particles, with as many clusters (k-means) as
        complexes: ``ari``, ``purity``, ``homogeneity``, and with twice as many: ``ari_twice``, ``purity_twice``,
        ``homogeneity_twice`` (`clusters.agreement`). ``novelty``: area under the ROC curve of the novelty of particles, for
        being of an unknown complex; ``novelty_clusters``: the same of clusters of all particles, twice as many as there are
        complexes, for holding mostly unknown ones. Medians over k-means seeds.
    """
    numbers = np.random.SeedSequence(seed).generate_state(2).tolist()
    options: dict[str, Any] = {"imaging": condition.imaging, "box": box}
    reference = generator.subtomograms(known, ready.method.reference, seed=numbers[0], **options)
    wanted = dict.fromkeys(known, counts[0]) | dict.fromkeys(unknown, counts[1])
    found = generator.subtomograms({**known, **unknown}, wanted, seed=numbers[1], **options)
    compared, described = ready.embed(reference, found)
    truth, names = _labels(found), _labels(reference)
    new = truth.isin(list(unknown))
    seen, unseen = (described.take(truth.index[chosen].to_numpy()) for chosen in (~new, new))
    right = ready.classify(compared, names, seen).to_numpy() == truth[~new].to_numpy()
    judged = novelty.reference(compared, names)
    return {
        "accuracy": float(right.mean()),
        **divided(unseen, truth, len(unknown)),
        **{f"{name}_twice": value for name, value in divided(unseen, truth, 2 * len(unknown)).items()},
        "novelty": float(roc_auc_score(new, judged.particles(described))),
        "novelty_clusters": statistics.median(_clusters_found(judged, described, new, 2 * len(wanted))),
    }


def _labels(particles: Subtomograms) -> pd.Series:
    return particles.particles.set_index("particle_id")["label"]


def divided(features: Embedding, truth: pd.Series, k: int, *, starts: int = STARTS) -> dict[str, float]:
    """``ari``, ``purity`` and ``homogeneity`` of `k` clusters, medians over k-means from several seeds.

    Parameters
    ----------
    features
        Of the particles to divide.
    truth
        Class of each, indexed by particle id.
    k
        How many clusters.
    starts
        How many seeds.
    """
    scores = [cluster_labels.agreement(cluster_labels.kmeans(features, k, seed=seed), truth) for seed in range(starts)]
    return {name: statistics.median(one[name] for one in scores) for name in ("ari", "purity", "homogeneity")}


def _clusters_found(judged: novelty.Reference, described: Embedding, new: pd.Series, k: int) -> Iterator[float]:
    """Areas under the ROC curve of clusters, for holding more particles of unknown complexes than of known ones."""
    for seed in range(STARTS):
        labels = cluster_labels.kmeans(described, k, seed=seed)
        mostly_new = new.groupby(labels).mean() > 0.5
        yield float(roc_auc_score(mostly_new, judged.clusters(described, labels)["distance"].loc[mostly_new.index]))


def _together(describe: Callable[..., Embedding], sets: tuple[Subtomograms, ...]) -> list[Embedding]:
    """Embeddings of sets that are described at once, so that what is fitted to the data is the same for all."""
    everything = dataset.join(sets)
    described = describe(everything, progress=False)
    ends = np.cumsum([len(one) for one in sets])[:-1]
    parts = (described.take(ids) for ids in np.split(everything.ids, ends))
    return [Embedding(one.ids, part.vectors, described.network) for one, part in zip(sets, parts, strict=True)]
