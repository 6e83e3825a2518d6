"""Novelty: shares mean what they say for known particles and clusters, and a class that was put in as new is found."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tomolab import clusters
from tomolab.clusters import novelty
from tomolab.learning import Embedding

FEATURES = 12
WITHIN = np.diag(np.linspace(0.5, 1.6, FEATURES))
"""Spread within a class: uneven, so that distances must be whitened."""


def centre(one: int) -> np.ndarray:
    """Centre of a class; 0 to 3 are known, 4 and 5 are not."""
    return 5 * np.eye(FEATURES)[one]


def drawn(counts: dict[int, int], *, seed: int, start: int = 0) -> tuple[Embedding, pd.Series]:
    """Particles of these classes in random order, with ids from `start`, and their classes."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(list(counts), list(counts.values())))
    vectors = np.stack([centre(code) for code in codes]) + rng.normal(size=(len(codes), FEATURES)) @ WITHIN
    ids = np.arange(start, start + len(codes))
    return Embedding(ids, vectors, "net"), pd.Series([f"class {code}" for code in codes], index=ids)


@pytest.fixture(scope="module")
def known() -> novelty.Reference:
    return novelty.reference(*drawn(dict.fromkeys(range(4), 150), seed=0))


def test_novelty_of_known_particles_is_uniform(known) -> None:
    seen, _ = drawn(dict.fromkeys(range(4), 500), seed=1)
    found = known.particles(seen)
    assert (found.name, found.index.name, found.index.tolist()) == ("novelty", "particle_id", seen.ids.tolist())
    for share in (0.1, 0.25, 0.5, 0.75, 0.9, 0.95):
        assert (found <= share).mean() == pytest.approx(share, abs=0.05)


def test_particles_of_a_new_class_are_found(known) -> None:
    mixed, truth = drawn({0: 100, 2: 100, 4: 100}, seed=2)
    found = known.particles(mixed)
    assert roc_auc_score(truth == "class 4", found) > 0.95
    assert found.between(0, 1, inclusive="left").all()


def test_a_whitened_distance_judges(known) -> None:
    # Steps of one length: along the narrowest direction of its class a particle leaves it, along the widest it does not.
    narrow, wide = (
        Embedding(
            [0, 1, 2, 3], np.stack([centre(one) + 3 * WITHIN[-1, -1] * np.eye(FEATURES)[axis] for one in range(4)]), "net"
        )
        for axis in (4, 11)
    )
    assert known.particles(narrow).min() > known.particles(wide).max()


def test_only_directions_that_tell_classes_apart_count(known) -> None:
    # The same number of standard deviations off class 0: away from the known classes, and where nothing tells them apart.
    steps = -4 * WITHIN[[1, 8]]
    found = known.particles(Embedding([1, 8], centre(0) + steps, "net"))
    assert found[1] > found[8] + 0.1


def test_novelty_of_clusters_of_known_particles_is_uniform() -> None:
    found = []
    for seed in range(12):
        known = novelty.reference(*drawn(dict.fromkeys(range(4), 160), seed=100 + seed))
        seen, _ = drawn(dict.fromkeys(range(4), 80), seed=200 + seed)
        found.append(known.clusters(seen, clusters.kmeans(seen, 16, seed=seed))["novelty"])
    shares = pd.concat(found)
    assert shares.mean() == pytest.approx(0.5, abs=0.08)
    for share in (0.25, 0.5, 0.75, 0.9):
        assert (shares <= share).mean() == pytest.approx(share, abs=0.1)


def test_clusters_of_new_classes_are_found_and_named(known) -> None:
    mixed, truth = drawn({0: 90, 1: 80, 4: 70, 5: 60}, seed=3)
    labels = clusters.kmeans(mixed, 4, seed=0)
    table = known.clusters(mixed, labels)
    names = truth.groupby(labels).agg(lambda one: one.mode()[0])
    assert list(table) == ["size", "novelty", "distance", "class", "likeness", "compactness", "rank"]
    assert table.index.name == "cluster"
    assert table["size"].tolist() == labels.value_counts().sort_index().tolist()
    new = names.isin(["class 4", "class 5"])
    assert (table["novelty"][new] > 0.97).all()
    assert (table["novelty"][~new] < 0.97).all()
    assert table["distance"][new].min() > 3 * table["distance"][~new].max()
    assert (table["class"][~new] == names[~new]).all()
    assert table["likeness"][~new].min() > 0.97 > 0.5 > table["likeness"][new].max()


def test_particles_in_no_cluster_are_left_out(known) -> None:
    mixed, _ = drawn({0: 60, 4: 60}, seed=4)
    labels = clusters.kmeans(mixed, 2, seed=0)
    thinned = labels.where(labels.index % 5 > 0, -1)
    table = known.clusters(mixed, thinned)
    assert table.index.tolist() == [0, 1]
    pd.testing.assert_frame_equal(table, known.clusters(mixed, thinned[thinned >= 0]))
    with pytest.raises(ValueError, match="none of 120 particles is in a cluster"):
        known.clusters(mixed, labels * 0 - 1)


@pytest.mark.parametrize("count", [1, 3, 300])
def test_any_number_of_clusters_can_be_judged(known, count: int) -> None:
    mixed, _ = drawn({0: count, 4: count}, seed=10)
    table = known.clusters(mixed, pd.Series(np.arange(2 * count) % count, index=mixed.ids))
    assert len(table) == count
    assert sorted(table["rank"]) == list(range(1, count + 1))
    assert table["novelty"].between(0, 1).all()


def test_compactness_is_the_mean_cosine_between_two_particles(known) -> None:
    mixed, _ = drawn({1: 7, 4: 1}, seed=5)
    labels = pd.Series([0] * 7 + [1], index=mixed.ids)
    unit = mixed.vectors / np.linalg.norm(mixed.vectors, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[:7, :7]
    table = known.clusters(mixed, labels)
    assert table["compactness"][0] == pytest.approx((cosines.sum() - 7) / 42, rel=1e-5)
    assert np.isnan(table["compactness"][1])


def test_ranks_put_new_tight_and_large_clusters_first(known) -> None:
    rng = np.random.default_rng(6)
    kinds = [(0, 1.0, 60), (4, 2.5, 60), (4, 0.5, 60), (5, 0.5, 12)]
    vectors = [centre(one) + spread * rng.normal(size=(count, FEATURES)) @ WITHIN for one, spread, count in kinds]
    labels = pd.Series(np.repeat(range(4), [count for *_, count in kinds]))
    embedding = Embedding(labels.index, np.concatenate(vectors), "net")
    table = known.clusters(embedding, labels)
    # The tight one before the loose one; too small a cluster, and a known one, come after them.
    assert table["rank"].tolist() == [4, 2, 1, 3]
    assert known.clusters(embedding, labels, smallest=10)["rank"][3] < 3


def test_the_same_seed_judges_the_same(known) -> None:
    mixed, _ = drawn({0: 60, 4: 60}, seed=7)
    labels = clusters.kmeans(mixed, 5, seed=0)
    again = novelty.reference(*drawn(dict.fromkeys(range(4), 150), seed=0))
    pd.testing.assert_frame_equal(known.clusters(mixed, labels), again.clusters(mixed, labels))
    pd.testing.assert_series_equal(known.particles(mixed), again.particles(mixed))


def test_what_cannot_be_judged_is_refused(known) -> None:
    some, truth = drawn({0: 20, 1: 20}, seed=8)
    with pytest.raises(ValueError, match=r"1 of 40 particles have no label, such as \[0\]"):
        novelty.reference(some, truth[1:])
    with pytest.raises(ValueError, match="one entry per particle id, but 40 ids are repeated"):
        novelty.reference(some, pd.concat([truth, truth]))
    with pytest.raises(ValueError, match=r"two classes with 8 particles each, got \{'class 0': 20, 'class 1': 5\}"):
        novelty.reference(*drawn({0: 20, 1: 5}, seed=9))
    other = Embedding(some.ids, some.vectors, "another")
    with pytest.raises(ValueError, match="two networks"):
        known.particles(other)
    with pytest.raises(ValueError, match="two networks"):
        known.clusters(other, pd.Series(0, index=some.ids))
    with pytest.raises(KeyError, match="not in the embedding"):
        known.clusters(some, pd.Series([0], index=[999]))
