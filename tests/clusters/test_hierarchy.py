"""Trees join what lies together first, and count the particles."""

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import linkage

from tomolab import clusters
from tomolab.clusters import hierarchy
from tomolab.learning import Embedding


def on_a_line(places: list[float], sizes: list[int]) -> tuple[Embedding, pd.Series]:
    """Clusters of identical particles at places on a line."""
    vectors = np.repeat(places, sizes)[:, None] * np.ones((1, 2)) / np.sqrt(2)
    labels = pd.Series(np.repeat(np.arange(len(sizes)), sizes), index=np.arange(sum(sizes)) + 3)
    return Embedding(labels.index.to_numpy(), vectors, ""), labels


def test_an_over_partition_is_joined_to_the_classes_that_were_put_in() -> None:
    rng = np.random.default_rng(3)
    true = np.repeat([0, 1, 2], [80, 60, 40])
    embedding = Embedding(np.arange(180), 5 * np.eye(8)[true] + rng.normal(size=(180, 8)), "")
    truth = pd.Series(true)
    labels = clusters.kmeans(embedding, 9, seed=0)
    groups = hierarchy.cut(hierarchy.merges(embedding, labels), 3)
    assert groups[0][0] == 0
    assert sorted(cluster for group in groups for cluster in group) == list(range(9))
    merged = clusters.merge(labels, groups)
    assert clusters.agreement(merged, truth)["ari"] > 0.97 > clusters.agreement(labels, truth)["ari"] + 0.2


def test_one_particle_each_gives_the_linkage_of_scipy() -> None:
    points = np.random.default_rng(1).normal(size=(12, 4))
    tree = hierarchy.merges(Embedding(np.arange(12), points, ""), pd.Series(np.arange(12)), normalise=False)
    np.testing.assert_allclose(tree.links, linkage(points.astype(np.float32), "ward"), atol=1e-5)


def test_small_clusters_join_before_large_ones() -> None:
    # 0 and 1 are nearer, but large; 2 and 3 are small. Heights: sqrt(2 n m / (n + m)) times the distance.
    embedding, labels = on_a_line([0, 1, 10, 11.5], [50, 50, 2, 2])
    tree = hierarchy.merges(embedding, labels, normalise=False)
    assert tree.links[0].tolist() == pytest.approx([2, 3, np.sqrt(2) * 1.5, 2])
    assert tree.links[1].tolist() == pytest.approx([0, 1, np.sqrt(50), 2])
    assert (tree.clusters, tree.sizes) == ((0, 1, 2, 3), (50, 50, 2, 2))
    assert hierarchy.cut(tree, 3) == [[0], [1], [2, 3]]
    assert hierarchy.cut(tree, 2) == [[0, 1], [2, 3]]
    assert hierarchy.cut(tree, 4) == [[0], [1], [2], [3]]
    assert hierarchy.cut(tree, 1) == [[0, 1, 2, 3]]
    with pytest.raises(ValueError, match="4 clusters is cut into 1 to that many groups, got k=5"):
        hierarchy.cut(tree, 5)


def test_merges_of_equal_height_are_cut_into_the_number_asked_for() -> None:
    embedding, labels = on_a_line([0, 1, 10, 11, 20, 21], [4] * 6)
    tree = hierarchy.merges(embedding, labels, normalise=False)
    assert [len(hierarchy.cut(tree, k)) for k in range(1, 7)] == [1, 2, 3, 4, 5, 6]


def test_particles_in_no_cluster_are_no_leaf() -> None:
    embedding, labels = on_a_line([0, 1, 5], [3, 3, 3])
    labels[labels == 1] = -1
    tree = hierarchy.merges(embedding, labels, normalise=False)
    assert (tree.clusters, tree.sizes) == ((0, 2), (3, 3))
    assert clusters.merge(labels, hierarchy.cut(tree, 1)).tolist() == [0, 0, 0, -1, -1, -1, 0, 0, 0]
    with pytest.raises(ValueError, match="at least two clusters, got 1"):
        hierarchy.merges(embedding, labels.where(labels == 0, -1))
