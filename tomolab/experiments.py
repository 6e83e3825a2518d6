"""Takes methods that give feature vectors of subtomograms, and complexes left out of training; gives tables of their scores.

A `Method` learns from the known complexes (a baseline has nothing to learn), and embeds particles of known and unknown
complexes under several conditions of imaging. Measured is whether known ones are recognised, whether each cluster of unknown
ones holds one complex, and whether unknown ones are noticed as novel.

>>> ready = prepare(Method(network="compact"), known, box=20, seen=40_000, seed=1)
>>> evaluate(ready, known, unknown, condition=STANDARD, box=20, seed=2)
{'accuracy': 0.92, 'ari': 0.91, ...}

A `Plan` says which complexes are left out, how particles are imaged and how long networks train. `run` makes all trials of
all methods, one file each, so that an interrupted run continues; `summary` makes the table.

>>> rows = run(PLANS["laptop"], METHODS, maps=maps, folder="runs/experiments")
>>> summary(rows, by=["method", "snr", "tilt"])
"""

import dataclasses
import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy import stats
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from tomolab import clusters, fourier, io
from tomolab.averaging import alignment, gold_standard
from tomolab.averaging.fsc import resolution_at
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
"""Imaging of the training data. Networks learn next to nothing from SNR 0.01, and nothing from 1 that 0.5 does not teach."""
STARTS = 3
"""Runs of k-means from different seeds, of which the median is taken."""
EPOCHS = 4
"""The learning rate has one cycle in a training, whatever the number of epochs."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Imaging of the particles in a trial: signal-to-noise ratio, and tilts in degrees from -tilt to +tilt."""

    snr: float
    tilt: float

    @property
    def imaging(self) -> Imaging:
        """As the generator takes it."""
        return Imaging(snr=self.snr, tilts=(-self.tilt, self.tilt))


STANDARD = Condition(snr=0.05, tilt=60.0)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to compute feature vectors of subtomograms.

    Parameters
    ----------
    network
        Name of a network to train (`networks.names`), or None for a baseline.
    baseline
        "invariants" or "normalised" (`baselines`), as published or ", masked"; or None for a network.
    recipe
        How the network is trained; by default the recipe of its name.
    imaging
        Of the training data.
    batch_size
        Subtomograms per batch in training.
    reference
        Simulated particles of each known complex to compare with.
    slow
        Evaluated under the standard condition only.
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


# The publications of the two describe no mask; ours is a sphere about the centre.
_BASELINES: dict[str, Callable[..., Embedding]] = {
    "invariants": partial(baselines.invariants, mask_fraction=2.0),
    "invariants, masked": baselines.invariants,
    "normalised": partial(baselines.normalised, mask_fraction=2.0),
    "normalised, masked": baselines.normalised,
}


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A method after `prepare`, with its trained network and the number of subtomograms that this saw."""

    method: Method
    network: networks.Network | None = None
    seen: int = 0

    def embed(self, *sets: Subtomograms) -> list[Embedding]:
        """Embeddings of sets of subtomograms, in one space."""
        if self.network is not None:
            return [embedding.embed(self.network, one, progress=False) for one in sets]
        return _together(_BASELINES[str(self.method.baseline)], sets)

    def classify(self, known: Embedding, labels: pd.Series, found: Embedding) -> pd.Series:
        """Class of each particle, by the head of the network or a support vector machine trained on `known`."""
        if self.network is None:
            return baselines.classify(known, labels, found)
        with torch.inference_mode():
            best = self.network.head(torch.from_numpy(found.vectors)).argmax(1).numpy()
        return pd.Series(np.array(self.network.classes)[best], index=found.ids)


def speed(method: Method, known: Mapping[str, Volume], *, box: int) -> float:
    """Subtomograms per second in the training of a method's network, on this machine under its present load."""
    network, stream = _network(method, known, box=box, updates=EPOCHS, seed=0)
    return training.estimate(network, stream, epochs=1, recipe=method.recipe)["per_second"]


def prepare(method: Method, known: Mapping[str, Volume], *, box: int, seen: int, seed: int) -> Ready:
    """Train a method on known complexes.

    Parameters
    ----------
    method
        To be trained.
    known
        Maps by class name, all of one voxel size.
    box
        Edge of the subtomograms in voxels.
    seen
        Subtomograms that a network sees in training; `speed` times the seconds, where methods get equal time.
    seed
        Of weights and data.
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


def _network(
    method: Method, known: Mapping[str, Volume], *, box: int, updates: int, seed: int
) -> tuple[networks.Network, generator.Stream]:
    """An untrained network, and its training data for `EPOCHS` epochs."""
    size = method.batch_size
    epoch_size = updates // EPOCHS * size
    stream = generator.Stream(known, imaging=method.imaging, box=box, batch_size=size, epoch_size=epoch_size, seed=seed)
    network = networks.create(str(method.network), box=box, classes=stream.classes, voxel_size=stream.voxel_size, seed=seed)
    return network, stream


def evaluate(
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
        Imaging of all particles.
    box
        Edge of the subtomograms in voxels.
    seed
        Of the particles.
    counts
        Particles of each known, and of each unknown complex.

    Returns
    -------
    dict
        ``accuracy``: fraction of known particles that are recognised. For unknown particles in as many clusters (k-means)
        as complexes ``ari``, ``purity``, ``homogeneity``, and in twice as many ``ari_twice``, ``purity_twice``,
        ``homogeneity_twice`` (`clusters.agreement`). ``novelty``: area under the ROC curve of particles' novelty, for
        belonging to an unknown complex; ``novelty_clusters``: the same for clusters of all particles, twice as many as
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
    known_features = novelty.reference(compared, names)
    return {
        "accuracy": float(right.mean()),
        **cluster_scores(unseen, truth, len(unknown)),
        **{f"{name}_twice": value for name, value in cluster_scores(unseen, truth, 2 * len(unknown)).items()},
        "novelty": float(roc_auc_score(new, known_features.particles(described))),
        "novelty_clusters": statistics.median(_cluster_novelty(known_features, described, new, 2 * len(wanted))),
    }


def _labels(particles: Subtomograms) -> pd.Series:
    return particles.particles.set_index("particle_id")["label"]


def cluster_scores(features: Embedding, truth: pd.Series, k: int, *, starts: int = STARTS) -> dict[str, float]:
    """``ari``, ``purity`` and ``homogeneity`` of `k` clusters, medians over k-means from as many seeds as `starts`.

    `truth` is the class of each particle, indexed by particle id.
    """
    scores = [clusters.agreement(clusters.kmeans(features, k, seed=seed), truth) for seed in range(starts)]
    return {name: statistics.median(one[name] for one in scores) for name in ("ari", "purity", "homogeneity")}


def _cluster_novelty(known: novelty.Reference, described: Embedding, new: pd.Series, k: int) -> Iterator[float]:
    """Areas under the ROC curve of clusters, for holding more particles of unknown complexes than of known ones."""
    for seed in range(STARTS):
        labels = clusters.kmeans(described, k, seed=seed)
        mostly_new = new.groupby(labels).mean() > 0.5
        yield float(roc_auc_score(mostly_new, known.clusters(described, labels)["distance"].loc[mostly_new.index]))


def _together(describe: Callable[..., Embedding], sets: tuple[Subtomograms, ...]) -> list[Embedding]:
    """Embeddings of sets that are computed at once, since baselines fit their scaling to the data."""
    everything = dataset.join(sets)
    described = describe(everything, progress=False)
    ends = np.cumsum([len(one) for one in sets])[:-1]
    parts = (described.take(ids) for ids in np.split(everything.ids, ends))
    return [Embedding(one.ids, part.vectors, described.network) for one, part in zip(sets, parts, strict=True)]


SPLITS = (
    ("apoferritin", "atcase", "capsid_mottle", "mm_cpn_closed", "ribosome_50s"),
    ("tric", "ribosome_30s", "dahp_synthase", "erythrocruorin", "capsid_triatoma"),
    ("ruvab", "spliceosome", "ribosome_80s", "mm_cpn_open", "capsid_phix174"),
)
"""Complexes left out of training, five at a time: small and large ones, and some that resemble a known one."""

METHODS: dict[str, Method] = {
    "invariants": Method(baseline="invariants"),
    "invariants, masked": Method(baseline="invariants, masked"),
    "pose normalisation": Method(baseline="normalised"),
    "pose normalisation, masked": Method(baseline="normalised, masked"),
    "inception3d": Method(network="inception3d"),
    "dsrf3d": Method(network="dsrf3d"),
    "dsrf3d_v2": Method(network="dsrf3d_v2"),
    "rb3d": Method(network="rb3d"),
    "cb3d": Method(network="cb3d", slow=True),
    "yopo": Method(network="yopo", slow=True),
    "compact": Method(network="compact", batch_size=64),
}
"""Baselines, the networks of Xu et al. 2017, their successors, and ours."""

MEASURES = (
    *("accuracy", "ari", "purity", "homogeneity", "ari_twice", "purity_twice", "homogeneity_twice"),
    *("novelty", "novelty_clusters"),
)
"""Columns with a result (`experiments.evaluate`); all are better when larger."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The trials to make.

    Parameters
    ----------
    box
        Edge of the subtomograms in voxels.
    splits
        Names of the complexes that are left out, split by split.
    snrs, tilts
        Conditions: every signal-to-noise ratio with every tilt range (± degrees).
    seconds
        Of the training of each network, from which `budgets` measures how many subtomograms it sees.
    counts
        Particles of each known, and each unknown complex, per condition.
    seed
        Of all random numbers.
    """

    box: int = 20
    splits: tuple[tuple[str, ...], ...] = SPLITS
    snrs: tuple[float, ...] = (1.0, 0.5, 0.1, 0.05, 0.03, 0.01)
    tilts: tuple[float, ...] = (60.0, 50.0, 40.0)
    seconds: float = 100.0
    counts: tuple[int, int] = (25, 50)
    seed: int = 1

    def conditions(self, method: Method) -> list[Condition]:
        """Conditions under which a method is evaluated."""
        if method.slow:
            return [STANDARD]
        return [Condition(snr=snr, tilt=tilt) for tilt in self.tilts for snr in self.snrs]


PLANS = {
    "tiny": Plan(splits=(("atcase", "ribosome_50s"),), snrs=(0.5, 0.05), tilts=(60.0,), seconds=1.0, counts=(4, 12)),
    "laptop": Plan(snrs=(0.5, 0.1, 0.05, 0.02), tilts=(60.0, 40.0), seconds=40.0),
    "paper": Plan(box=40, seconds=1800.0, counts=(100, 200)),
}
"""Plans of notebook 09 at each scale; ``benchmarks/bench_experiments.py`` has `Plan` as it is by default."""


def run(
    plan: Plan,
    methods: Mapping[str, Method],
    *,
    maps: Mapping[str, Volume],
    folder: str | Path,
    others: Mapping[str, Volume] | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Make all trials, or those that are not yet in `folder`.

    Parameters
    ----------
    plan
        The trials.
    methods
        By name.
    maps
        All complexes by name, of one voxel size; those of a split are unknown in it, the others known.
    folder
        Where each trial writes its rows. Another plan or method gives another file.
    others
        Further complexes, never trained on, that are evaluated after the first split as a split of their own, "others".
    workers
        Trials at a time, each in a process with its part of the cores: a small network alone leaves cores idle.
    progress
        Show a bar.

    Returns
    -------
    DataFrame
        A row for each method, split (number from 1, or "others"), ``snr`` and ``tilt``: `MEASURES`, and ``seen``, the
        subtomograms in training.

    Raises
    ------
    ValueError
        If a split names a complex without a map.
    """
    absent = sorted({name for split in plan.splits for name in split} - set(maps))
    if absent:
        raise ValueError(f"there are no maps of {', '.join(absent)}, which the plan leaves out")
    budget = budgets(plan, methods, maps=maps, folder=folder)
    work = [(number, title) for number in range(1, len(plan.splits) + 1) for title in methods]
    paths = {
        (number, title): Path(folder) / f"{number}-{title.replace(' ', '-')}-{_digest(plan, methods[title], others)}.csv"
        for number, title in work
    }
    missing = [
        delayed(_recorded)(path, plan, methods[title], maps=maps, number=number, others=others or {}, seen=budget.get(title, 0))
        for (number, title), path in paths.items()
        if not path.exists()
    ]
    made = Parallel(workers, return_as="generator_unordered")(missing)
    for _ in tqdm(made, desc="trials", initial=len(work) - len(missing), total=len(work), disable=not progress):
        pass
    parts = [pd.read_csv(path, dtype={"split": str}).assign(method=title) for (_, title), path in paths.items()]
    return pd.concat(parts, ignore_index=True)


def budgets(
    plan: Plan, methods: Mapping[str, Method], *, maps: Mapping[str, Volume], folder: str | Path, rounds: int = 5
) -> dict[str, int]:
    """Subtomograms that each network sees in the seconds of the plan; measured once, and kept in ``speeds.json`` of `folder`.

    All networks train on a few batches in turn, several times, so that other load of the machine slows all alike.
    """
    path = Path(folder) / "speeds.json"
    speeds = json.loads(path.read_text()) if path.exists() else {}
    known = {name: volume for name, volume in maps.items() if name not in plan.splits[0]}
    keys = {title: str(method) for title, method in methods.items() if method.network is not None}
    missing = {key: methods[title] for title, key in keys.items() if key not in speeds}
    found = [{key: speed(method, known, box=plan.box) for key, method in missing.items()} for _ in range(rounds)]
    speeds |= {key: statistics.median(one[key] for one in found) for key in missing}
    if missing:
        with io.atomic(path) as temporary:
            temporary.write_text(json.dumps(speeds, indent=1))
    return {title: round(speeds[key] * plan.seconds) for title, key in keys.items()}


def _digest(plan: Plan, method: Method, others: Mapping[str, Volume] | None) -> str:
    """Digest, in eight letters, of all that a trial depends on."""
    content = json.dumps([str(plan), str(method), sorted(others or {})])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _recorded(path: Path, plan: Plan, method: Method, **options: Any) -> None:
    """Make a trial, and write its rows."""
    rows = pd.DataFrame(_trial(plan, method, **options))
    with io.atomic(path) as temporary:
        rows.to_csv(temporary, index=False)


def _trial(
    plan: Plan, method: Method, *, maps: Mapping[str, Volume], number: int, others: Mapping[str, Volume], seen: int
) -> list[dict[str, float | str]]:
    left_out = plan.splits[number - 1]
    known = {name: volume for name, volume in maps.items() if name not in left_out}
    ready = prepare(method, known, box=plan.box, seen=seen, seed=plan.seed + number)
    sets = {str(number): {name: maps[name] for name in left_out}}
    if others and number == 1:
        sets["others"] = dict(others)
    rows = []
    for split, unknown in sets.items():
        for condition in plan.conditions(method):
            seed = plan.seed * 1000 + number
            found = evaluate(ready, known, unknown, condition=condition, box=plan.box, seed=seed, counts=plan.counts)
            rows.append({"split": split, **dataclasses.asdict(condition), **found, "seen": ready.seen})
    return rows


def summary(rows: pd.DataFrame, *, by: Sequence[str] = ("method",), measures: Sequence[str] = MEASURES) -> pd.DataFrame:
    """Means of `measures` over splits, each with half of its 95 % confidence interval (Student's t) in a column ``<name> ±``.

    `rows` come from `run`, without those of the split "others"; the table has a line for each value of the columns `by`.
    """
    groups = rows.groupby(list(by), sort=False)[list(measures)]
    mean, count = groups.mean(), groups.count()
    # One split gives no interval: NaN.
    half = groups.std(ddof=1) / np.sqrt(count) * stats.t.ppf(0.975, (count - 1).clip(lower=1))
    half = half.rename(columns=lambda name: f"{name} ±")
    return pd.concat([mean, half], axis=1)[[column for name in measures for column in (name, f"{name} ±")]]


def advantage(rows: pd.DataFrame, method: str, *, measures: Sequence[str] = MEASURES) -> pd.DataFrame:
    """The `summary` of differences between one method and each other, in the same split and condition."""
    keys = ["split", "snr", "tilt"]
    table = rows.set_index([*keys, "method"])[list(measures)]
    ours = table.xs(method, level="method")
    rest = rows.loc[rows["method"] != method].set_index(keys)
    better = ours.loc[rest.index].sub(rest[list(measures)]).assign(method=rest["method"]).reset_index()
    return summary(better, measures=measures)


def recover(
    ready: Ready,
    unknown: Mapping[str, Volume],
    *,
    box: int,
    seed: int,
    count: int = 100,
    condition: Condition = STANDARD,
    progress: bool = True,
) -> pd.DataFrame:
    """Recover structures that were not trained on: cluster particles of unknown complexes, average and compare each cluster.

    Parameters
    ----------
    ready
        From `prepare`.
    unknown
        Maps by class name; there will be as many clusters.
    box
        Edge of the subtomograms in voxels.
    seed
        Of particles, clusters and averages.
    count
        Particles of each complex.
    condition
        Their imaging.
    progress
        Show a bar.

    Returns
    -------
    DataFrame
        A row per cluster: ``size``, ``class`` (the commonest) and ``purity``; ``fit`` and ``mirror``, the correlation of its
        average with the map of that class and with the mirror image of that map, each in its best pose; ``resolution``, Å at
        which the Fourier shell correlation of average and map falls to 0.5; ``halves``, Å at which that of the half maps
        falls to 0.143.
    """
    found = generator.subtomograms(unknown, count, imaging=condition.imaging, box=box, seed=seed)
    (described,) = ready.embed(found)
    labels = clusters.kmeans(described, len(unknown), seed=seed)
    table = clusters.summary(labels, found.particles)[["size", "class", "purity"]]
    measured = []
    for cluster, name in tqdm(table["class"].items(), total=len(table), desc="averages", disable=not progress):
        ids = labels.index[labels == cluster].to_numpy()
        average = gold_standard.average(found, ids, seed=seed, progress=False)
        measured.append({"halves": average.resolution, **_against(average.volume, unknown[name])})
    return table.assign(**pd.DataFrame(measured, index=table.index))


def _against(average: Volume, known: Volume) -> dict[str, float]:
    fit = alignment.align_map(known, average)
    mirror = alignment.align_map(Volume(known.data[:, :, ::-1].copy(), known.voxel_size), average)
    truth = alignment.apply(known, fit)
    fsc = fourier.shell_correlation(torch.from_numpy(average.data), torch.from_numpy(truth.data))[1:].numpy()
    resolution = average.extent[0] / np.arange(1, len(fsc) + 1)
    return {
        "fit": fit.score,
        "mirror": mirror.score,
        "resolution": resolution_at(pd.DataFrame({"resolution": resolution, "fsc": fsc}), 0.5),
    }
