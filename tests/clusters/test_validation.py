"""The number of clusters that were put in is found again, and clusters that are none are told."""

import numpy as np
import pandas as pd
import pytest

from tomolab import clusters
from tomolab.clusters import validation
from tomolab.learning import Embedding


def made(sizes: list[int], spread: float = 0.6, seed: int = 1) -> tuple[Embedding, np.ndarray]:
    """Groups in as many directions, and which particle belongs to which."""
    rng = np.random.default_rng(seed)
    true = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = 4 * np.eye(12)[true] + spread * rng.normal(size=(len(true), 12))
    return Embedding(rng.permutation(len(true)) + 50, vectors, ""), true


@pytest.mark.parametrize("sizes", [[60] * 3, [90, 60, 40, 30, 25]])
def test_the_number_of_groups_is_found(sizes: list[int]) -> None:
    embedding, _ = made(sizes)
    table = validation.criteria(embedding, range(2, 8), seed=0, progress=False)
    assert table.index.tolist() == list(range(2, 8))
    assert validation.choose(table) == len(sizes)
    assert table["silhouette"].idxmax() == len(sizes)
    assert table["calinski_harabasz"].idxmax() == len(sizes)
    assert table["davies_bouldin"].idxmin() == len(sizes)
    assert table["bic"].idxmin() == len(sizes)
    assert table["strength"].loc[len(sizes)] > 0.95


def test_calinski_and_harabasz_choose_where_a_division_repeats_itself() -> None:
    table = pd.DataFrame(
        {
            "strength": [0.9, 0.6, 0.75, 0.3, 0.2],
            "silhouette": [0, 1, 0, 0, 0],
            "calinski_harabasz": [9, 1, 1, 1, 1],
            "davies_bouldin": [5, 4, 3, 2, 1],
            "bic": [3, 3, 3, 2, 1],
        },
        index=pd.Index(range(2, 7), name="k"),
    )
    assert validation.proposals(table).to_dict() == {
        "strength": 4,
        "silhouette": 3,
        "calinski_harabasz": 2,
        "davies_bouldin": 6,
        "bic": 6,
    }
    assert validation.choose(table) == 2
    assert validation.choose(table.assign(calinski_harabasz=[0, 0, 0, 1, 0])) == 5
    assert validation.choose(table.assign(strength=0.6)) == 1


def test_one_group_is_not_divided() -> None:
    embedding, _ = made([150], spread=2.0)
    table = validation.criteria(embedding, [3, 2, 5, 5], seed=0, progress=False)
    assert table.index.tolist() == [2, 3, 5]
    assert validation.choose(table) == 1


def test_many_particles_are_judged_by_a_sample_and_seeds_repeat() -> None:
    embedding, _ = made([200] * 4)
    first, again = (validation.criteria(embedding, [3, 4], seed=2, most=200, progress=False) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert validation.choose(first) == 4
    with pytest.raises(ValueError, match="of 200 particles 2 to 50 clusters can be tried, got 2 to 51"):
        validation.criteria(embedding, [2, 51], seed=2, most=200)
    with pytest.raises(ValueError, match="got none"):
        validation.criteria(embedding, [], seed=2)


def test_together_counts_pairs() -> None:
    # Of cluster 0 with three members two are together elsewhere: 1 of 3 pairs. Cluster 1 stays whole; 2 has no pair.
    assert validation._together(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 1, 2]), 3).tolist() == pytest.approx(
        [1 / 3, 1, 1]
    )


def test_real_clusters_come_back_and_arbitrary_cuts_do_not() -> None:
    embedding, true = made([80, 60, 40])
    labels = pd.Series(true, index=embedding.ids)
    table = validation.stability(embedding, labels, seed=0, repeats=8, progress=False)
    assert table.index.tolist() == [0, 1, 2]
    assert table["size"].tolist() == [80, 60, 40]
    assert (table["jaccard"] > 0.95).all()
    assert (table["recovered"] == 1).all()
    # The largest group is cut at random; the others stay.
    rng = np.random.default_rng(0)
    torn = labels.where(labels != 0, rng.choice([0, 3], len(labels)))
    table = validation.stability(embedding, torn, seed=0, repeats=8, progress=False)
    assert (table.loc[[1, 2], "jaccard"] > 0.8).all()
    assert (table.loc[[0, 3], "jaccard"] < 0.7).all()
    assert (table.loc[[0, 3], "recovered"] < 0.5).all()
    assert (table["lowest"] <= table["jaccard"]).all()


def test_stability_repeats_the_partition_it_is_given() -> None:
    embedding, _ = made([80, 60, 40])
    labels = clusters.hdbscan(embedding, smallest=8)
    seeds = []

    def anew(some: Embedding, seed: int) -> pd.Series:
        seeds.append(seed)
        return clusters.hdbscan(some, smallest=5, seed=seed)

    table = validation.stability(embedding, labels, seed=3, repeats=4, partition=anew, progress=False)
    assert len(set(seeds)) == 4
    assert -1 not in table.index
    pd.testing.assert_frame_equal(
        table, validation.stability(embedding, labels, seed=3, repeats=4, partition=anew, progress=False)
    )
    with pytest.raises(ValueError, match="got 0 clusters, 180 particles, 20 repeats"):
        validation.stability(embedding, labels * 0 - 1, seed=0)


def test_what_is_left_in_no_cluster_is_not_a_cluster_that_came_back() -> None:
    embedding, true = made([80, 60, 40])
    labels = pd.Series(true, index=embedding.ids)

    def losing(some: Embedding, seed: int) -> pd.Series:
        return labels.loc[some.ids].replace(0, -1)

    table = validation.stability(embedding, labels, seed=0, repeats=3, partition=losing, progress=False)
    assert table["jaccard"].tolist() == [0, 1, 1]
    assert table["dissolved"].tolist() == [1, 0, 0]


def test_a_cluster_of_one_can_be_judged() -> None:
    embedding, true = made([60, 60])
    labels = pd.Series(true, index=embedding.ids)
    labels.iloc[0] = 2
    table = validation.stability(embedding, labels, seed=0, repeats=1, progress=False)
    assert np.isnan(table.loc[2, "jaccard"]) == (table.loc[2, "recovered"] == 0)
