"""Clusters recover groups that were put in, whatever they are called."""

import numpy as np
import pandas as pd
import pytest

from tomolab import clusters, particles
from tomolab.embedding import Embedding


@pytest.fixture
def groups() -> tuple[Embedding, pd.Series]:
    """Three directions in feature space with 40, 30 and 20 particles, in random order, and the truth."""
    rng = np.random.default_rng(3)
    true = rng.permutation(np.repeat([0, 1, 2], [20, 40, 30]))
    ids = rng.choice(10_000, 90, replace=False)
    vectors = 5 * np.eye(8)[true] + 0.3 * rng.normal(size=(90, 8))
    return Embedding(ids, vectors, ""), pd.Series(np.array(["small", "large", "middle"])[true], index=ids)


def test_kmeans_recovers_groups_largest_first(groups) -> None:
    embedding, truth = groups
    labels = clusters.kmeans(embedding, 3, seed=0)
    assert (labels.name, labels.index.name) == ("cluster", "particle_id")
    assert labels.index.tolist() == embedding.ids.tolist()
    assert clusters.agreement(labels, truth) == pytest.approx({"ari": 1, "homogeneity": 1, "completeness": 1, "purity": 1})
    assert [truth[labels.index[labels == k]].iloc[0] for k in range(3)] == ["large", "middle", "small"]


def test_kmeans_repeats_with_its_seed(groups) -> None:
    embedding, _ = groups
    first, again, other = (clusters.kmeans(embedding, 12, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_series_equal(first, again)
    assert not first.equals(other)


def test_normalised_kmeans_ignores_the_length_of_vectors(groups) -> None:
    embedding, truth = groups
    lengths = np.exp(np.random.default_rng(0).normal(size=(90, 1)) * 2)
    stretched = Embedding(embedding.ids, embedding.vectors * lengths, "")
    assert clusters.purity(clusters.kmeans(stretched, 3, seed=0), truth) == 1
    assert clusters.purity(clusters.kmeans(stretched, 3, seed=0, normalise=False), truth) < 0.9


def test_kmeans_of_many_particles_uses_batches(groups, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, truth = groups
    monkeypatch.setattr(clusters, "MANY", 50)
    assert clusters.agreement(clusters.kmeans(embedding, 3, seed=0), truth)["ari"] == pytest.approx(1)


@pytest.mark.parametrize("k", [0, 91])
def test_kmeans_refuses_impossible_numbers_of_clusters(groups, k: int) -> None:
    with pytest.raises(ValueError, match=f"90 particles makes 1 to 90 clusters, got k={k}"):
        clusters.kmeans(groups[0], k, seed=0)


def test_agreement_on_a_known_partition() -> None:
    ids = [11, 12, 13, 14, 15, 16]
    truth = pd.Series(list("aaabbb"), index=ids)
    labels = pd.Series([0, 0, 1, 1, 1, 1], index=ids)
    scores = clusters.agreement(labels, truth.sample(frac=1, random_state=0))
    # Of 15 pairs 7 are together in the clusters, 6 in truth, 4 in both: (4 - 2.8) / (6.5 - 2.8).
    assert scores["ari"] == pytest.approx((4 - 2.8) / (6.5 - 2.8))
    assert scores["purity"] == pytest.approx(5 / 6)
    assert clusters.agreement(labels.map({0: 9, 1: 4}), truth) == pytest.approx(scores)
    swapped = clusters.agreement(truth, labels)
    assert (swapped["homogeneity"], swapped["completeness"]) == pytest.approx((scores["completeness"], scores["homogeneity"]))


def test_one_cluster_per_particle_is_homogeneous_but_not_complete() -> None:
    truth = pd.Series(list("aabb"))
    scores = clusters.agreement(pd.Series(range(4)), truth)
    assert (scores["homogeneity"], scores["purity"]) == pytest.approx((1, 1))
    assert scores["completeness"] == pytest.approx(0.5)


def test_agreement_names_particles_without_truth() -> None:
    labels = pd.Series([0, 1, 1], index=[5, 6, 7])
    with pytest.raises(ValueError, match=r"unknown for 2 of 3 particles, such as \[6, 7\]"):
        clusters.agreement(labels, pd.Series(["a", None], index=[5, 6]))
    with pytest.raises(ValueError, match="truth must have one entry per particle id, but 1 ids are repeated"):
        clusters.purity(labels, pd.Series(["a", "b"], index=[5, 5]))
    with pytest.raises(ValueError, match="no labels"):
        clusters.purity(labels.iloc[:0], pd.Series(["a"], index=[5]))


def test_nearest_puts_outliers_last(groups) -> None:
    embedding, _ = groups
    labels = clusters.kmeans(embedding, 3, seed=0)
    odd = int(embedding.ids[17])
    vectors = embedding.vectors.copy()
    vectors[17] += 3 * np.eye(8)[7]
    distances = clusters.nearest(Embedding(embedding.ids, vectors, ""), labels.sample(frac=1, random_state=1))
    assert distances.name == "distance"
    assert distances.idxmax() == odd
    with pytest.raises(KeyError, match="not in the embedding"):
        clusters.nearest(embedding, pd.Series([0], index=[-1]))


def test_summary_counts_and_names_clusters() -> None:
    table = particles.table(np.zeros((5, 3)), label=["a", "a", "b", "b", "b"]).assign(
        particle_id=[1, 2, 3, 4, 5], tomogram=["t1", "t1", "t1", "t2", "t2"]
    )
    labels = pd.Series([0, 0, 0, 1], index=[1, 2, 3, 5], name="cluster")
    found = clusters.summary(labels, table)
    assert found["size"].tolist() == [3, 1]
    assert found["share"].tolist() == [0.75, 0.25]
    assert found["tomograms"].tolist() == [1, 1]
    assert found["class"].tolist() == ["a", "b"]
    assert found["purity"].tolist() == pytest.approx([2 / 3, 1])
    assert list(clusters.summary(labels, table.drop(columns="label"))) == ["size", "share", "tomograms"]
    with pytest.raises(ValueError, match=r"1 of 4 labelled particles are not in the table, such as \[5\]"):
        clusters.summary(labels, table[:4])


def test_likeness_puts_the_cluster_of_the_reference_first(groups) -> None:
    embedding, truth = groups
    labels = clusters.kmeans(embedding, 3, seed=0)
    some = truth.index[truth == "small"][:7].to_numpy()
    ranked = clusters.likeness(embedding, labels, embedding.take(some))
    assert truth[labels.index[labels == ranked.index[0]]].iloc[0] == "small"
    assert ranked.iloc[0] > 0.95 > 0.5 > ranked.iloc[1]
    with pytest.raises(ValueError, match="two networks"):
        clusters.likeness(embedding, labels, Embedding(embedding.ids, embedding.vectors, "another"))
