"""Partitions recover groups that were put in, largest first."""

import numpy as np
import pandas as pd
import pytest

from tomolab import clusters
from tomolab.clusters import clustering
from tomolab.learning import Embedding


def test_kmeans_recovers_groups_largest_first(groups) -> None:
    embedding, truth = groups
    labels = clustering.kmeans(embedding, 3, seed=0)
    assert (labels.name, labels.index.name) == ("cluster", "particle_id")
    assert labels.index.tolist() == embedding.ids.tolist()
    assert clusters.agreement(labels, truth) == pytest.approx(
        {"ari": 1, "homogeneity": 1, "completeness": 1, "purity": 1, "clustered": 1}
    )
    assert [truth[labels.index[labels == k]].iloc[0] for k in range(3)] == ["large", "middle", "small"]


def test_kmeans_repeats_with_its_seed(groups) -> None:
    embedding, _ = groups
    first, again, other = (clustering.kmeans(embedding, 12, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_series_equal(first, again)
    assert not first.equals(other)


def test_normalised_kmeans_ignores_the_length_of_vectors(groups) -> None:
    embedding, truth = groups
    lengths = np.exp(np.random.default_rng(0).normal(size=(90, 1)) * 2)
    stretched = Embedding(embedding.ids, embedding.vectors * lengths, "")
    assert clusters.agreement(clustering.kmeans(stretched, 3, seed=0), truth)["purity"] == 1
    assert clusters.agreement(clustering.kmeans(stretched, 3, seed=0, normalise=False), truth)["purity"] < 0.9


@pytest.mark.parametrize("normalise", [True, False])
def test_kmeans_of_many_particles_improves_the_centres_of_a_sample(groups, monkeypatch, normalise: bool) -> None:
    embedding, truth = groups
    before = embedding.vectors.copy()
    monkeypatch.setattr(clustering, "MANY", 30)
    labels = clustering.kmeans(embedding, 3, seed=0, normalise=normalise)
    assert clusters.agreement(labels, truth)["ari"] == pytest.approx(1)
    np.testing.assert_array_equal(embedding.vectors, before)
    assert len(clustering.kmeans(embedding, 40, seed=0, normalise=normalise).unique()) == 40


@pytest.mark.parametrize("k", [0, 91])
def test_kmeans_refuses_impossible_numbers_of_clusters(groups, k: int) -> None:
    with pytest.raises(ValueError, match=f"90 particles makes 1 to 90 clusters, got k={k}"):
        clustering.kmeans(groups[0], k, seed=0)


def test_half_precision_finds_the_same_groups(groups) -> None:
    embedding, _ = groups
    half = Embedding(embedding.ids, embedding.vectors.astype(np.float16), "")
    pd.testing.assert_series_equal(clustering.kmeans(half, 3, seed=0), clustering.kmeans(embedding, 3, seed=0))


def noisy(groups) -> tuple[Embedding, pd.Series]:
    """The three groups twice as large, with 40 particles of all directions among them."""
    embedding, truth = groups
    rng = np.random.default_rng(8)
    more = embedding.vectors + 0.3 * rng.normal(size=embedding.vectors.shape)
    vectors = np.concatenate([embedding.vectors, more, 5 * rng.normal(size=(40, 8))])
    names = np.concatenate([truth, truth, ["none"] * 40])
    return Embedding(np.arange(220), vectors, ""), pd.Series(names, index=np.arange(220))


@pytest.mark.parametrize("most", [20_000, 160])
def test_hdbscan_finds_the_number_of_clusters_and_leaves_out_what_is_in_none(groups, monkeypatch, most: int) -> None:
    embedding, truth = noisy(groups)
    monkeypatch.setattr(clustering, "SAMPLE", most)
    labels = clustering.hdbscan(embedding, smallest=10, leaves=False)
    assert (labels.name, labels.index.name) == ("cluster", "particle_id")
    assert sorted(labels.unique()) == [-1, 0, 1, 2]
    counts = labels[labels >= 0].value_counts()
    assert counts.loc[[0, 1, 2]].is_monotonic_decreasing
    assert clusters.agreement(labels, truth)["purity"] > 0.9
    # Most of what belongs nowhere is left out, hardly any of the groups.
    assert (labels[truth == "none"] == -1).mean() > 0.5
    assert (labels[truth != "none"] == -1).mean() < 0.05
    pd.testing.assert_series_equal(labels, clustering.hdbscan(embedding, smallest=10, leaves=False))


def test_hdbscan_in_its_leaves_is_finer() -> None:
    rng = np.random.default_rng(4)
    # Two pairs of groups: far from each other, and neighbours within a pair.
    places = np.array([[0, 0], [0, 2.4], [30, 0], [30, 2.4]])
    vectors = np.repeat(places, 60, axis=0) + 0.5 * rng.normal(size=(240, 2))
    embedding = Embedding(np.arange(240), vectors, "")
    fine, coarse = (clustering.hdbscan(embedding, leaves=leaves, normalise=False) for leaves in (True, False))
    assert (fine.max(), coarse.max()) == (3, 1)
    assert (fine == -1).sum() > (coarse == -1).sum()
    assert clusters.agreement(fine, pd.Series(np.repeat(range(4), 60)))["purity"] > 0.97
    with pytest.raises(ValueError, match="240 particles has 2 to that many, got smallest=1"):
        clustering.hdbscan(embedding, smallest=1)


def test_gaussians_tell_long_groups_apart_where_kmeans_cannot() -> None:
    rng = np.random.default_rng(5)
    true = rng.permutation(np.repeat([0, 1], [200, 120]))
    vectors = rng.normal(size=(320, 3)) * [8, 0.3, 0.3] + np.outer(true, [0, 3, 0])
    embedding = Embedding(np.arange(320) + 5, vectors, "")
    truth = pd.Series(true, index=embedding.ids)
    mixture = clustering.gaussians(embedding, 2, seed=0, normalise=False)
    assert clusters.agreement(mixture.labels, truth)["ari"] > 0.95
    assert clusters.agreement(clustering.kmeans(embedding, 2, seed=0, normalise=False), truth)["ari"] < 0.2
    assert mixture.labels.value_counts().loc[0] > mixture.labels.value_counts().loc[1]
    assert mixture.certainty.between(0.5, 1).all()
    assert (mixture.certainty > 0.99).mean() > 0.9
    others = [clustering.gaussians(embedding, k, seed=0, normalise=False).bic for k in (1, 4)]
    assert mixture.bic < min(others)
    with pytest.raises(ValueError, match="320 particles has 1 to 320 Gaussians, got k=0"):
        clustering.gaussians(embedding, 0, seed=0)


def test_gaussians_fitted_to_a_sample_label_all(groups, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, truth = groups
    monkeypatch.setattr(clustering, "SAMPLE", 60)
    mixture = clustering.gaussians(embedding, 3, seed=1, components=3)
    assert clusters.agreement(mixture.labels, truth)["purity"] == 1
    assert len(mixture.labels) == 90


def test_series_numbers_from_the_largest_and_keeps_none() -> None:
    found = clustering.series(np.array([5, 5, -3, 9, 9, 9, 2, -1]), np.arange(8))
    assert found.tolist() == [1, 1, -1, 0, 0, 0, 2, -1]
