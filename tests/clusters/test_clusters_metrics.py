"""Agreement of labels with truth, on partitions that can be counted by hand."""

import pandas as pd
import pytest

from tomolab import clusters


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
        clusters.agreement(labels, pd.Series(["a", "b"], index=[5, 5]))
    with pytest.raises(ValueError, match="no labels"):
        clusters.agreement(labels.iloc[:0], pd.Series(["a"], index=[5]))


def test_particles_in_no_cluster_are_counted_apart() -> None:
    truth = pd.Series(list("aaabbbcc"))
    labels = pd.Series([0, 0, -1, 1, 1, -1, -1, -1])
    scores = clusters.agreement(labels, truth)
    assert scores == pytest.approx({"ari": 1, "homogeneity": 1, "completeness": 1, "purity": 1, "clustered": 0.5})
    with pytest.raises(ValueError, match=r"none of 8 particles is in a cluster"):
        clusters.agreement(labels * 0 - 1, truth)


def test_by_class_finds_the_best_cluster_of_every_class() -> None:
    truth = pd.Series(list("aaaabbbbcc"), index=range(20, 30))
    labels = pd.Series([0, 0, 0, 1, 1, 1, 1, -1, 0, -1], index=range(20, 30))
    table = clusters.by_class(labels.sample(frac=1, random_state=2), truth)
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["size"].tolist() == [4, 4, 2]
    assert table["cluster"].tolist() == [0, 1, 0]
    # Of a 3 of 4 are in cluster 0, which holds 4; of b 3 of 4 in cluster 1 of 4; of c 1 of 2 in cluster 0.
    assert table["recall"].tolist() == [0.75, 0.75, 0.5]
    assert table["precision"].tolist() == [0.75, 0.75, 0.25]
    assert table["f1"].tolist() == pytest.approx([0.75, 0.75, 2 * 0.5 * 0.25 / 0.75])
