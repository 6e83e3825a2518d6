"""Clusters recover groups that were put in, whatever they are called."""

import numpy as np
import pandas as pd
import pytest

from tomolab import clusters, particles
from tomolab.learning import Embedding


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


def test_merge_joins_what_it_is_told_and_keeps_the_largest_first() -> None:
    labels = pd.Series([0, 0, 0, 1, 1, 2, 3, -1], index=range(10, 18), name="cluster")
    merged = clusters.merge(labels, [[1, 2, 3]])
    assert merged.tolist() == [1, 1, 1, 0, 0, 0, 0, -1]
    assert (merged.name, merged.index.name, merged.index.tolist()) == ("cluster", "particle_id", list(range(10, 18)))
    table = clusters.became(labels, merged)
    assert table[["before", "after", "particles"]].to_numpy().tolist() == [
        [-1, -1, 1],
        [0, 1, 3],
        [1, 0, 2],
        [2, 0, 1],
        [3, 0, 1],
    ]
    assert table["jaccard"].tolist() == [1, 1, 0.5, 0.25, 0.25]
    pd.testing.assert_series_equal(clusters.merge(labels, []), labels.rename_axis("particle_id"))
    with pytest.raises(ValueError, match="no cluster -1, 7; there are 0, 1, 2, 3"):
        clusters.merge(labels, [[0, 7], [-1]])
    with pytest.raises(ValueError, match=r"\[1\] are in two"):
        clusters.merge(labels, [[0, 1], [1, 2]])


def test_split_divides_one_cluster_and_leaves_the_others(groups) -> None:
    embedding, truth = groups
    labels = truth.map({"large": 0, "middle": 0, "small": 1}).rename("cluster")
    labels.iloc[3] = -1
    found = clusters.split(embedding, labels, 0, seed=1)
    held = found[found >= 0]
    assert clusters.agreement(held, truth)["purity"] == 1
    assert held.nunique() == 3
    assert found.iloc[3] == -1
    table = clusters.became(labels, found)
    assert table.loc[table["before"] == 0, "share"].sum() == pytest.approx(1)
    assert table.loc[table["before"] == 1, "share"].tolist() == [1]
    with pytest.raises(ValueError, match="no cluster 9"):
        clusters.split(embedding, labels, 9, seed=1)
    with pytest.raises(ValueError, match="makes 1 to"):
        clusters.split(embedding, labels, 1, k=90, seed=1)


def test_became_needs_the_same_particles() -> None:
    with pytest.raises(ValueError, match=r"2 particles have only one of two labels, such as \[1, 3\]"):
        clusters.became(pd.Series([0, 0], index=[1, 2]), pd.Series([0, 0], index=[2, 3]))


def test_particles_in_no_cluster_take_no_part(groups) -> None:
    embedding, truth = groups
    labels = clusters.kmeans(embedding, 3, seed=0)
    lost = labels.index[::7]
    holes = labels.where(~labels.index.isin(lost), -1)
    held = labels.drop(lost)
    pd.testing.assert_frame_equal(clusters.centres(embedding, holes), clusters.centres(embedding, held))
    assert clusters.centres(embedding, holes).index.tolist() == [0, 1, 2]
    distances = clusters.nearest(embedding, holes)
    assert distances.index[distances.isna()].tolist() == lost.tolist()
    pd.testing.assert_series_equal(distances.drop(lost), clusters.nearest(embedding, held))
    reference = embedding.take(truth.index[truth == "small"][:5].to_numpy())
    pd.testing.assert_series_equal(
        clusters.likeness(embedding, holes, reference), clusters.likeness(embedding, held, reference)
    )
    table = particles.table(np.zeros((90, 3))).assign(particle_id=embedding.ids)
    assert clusters.summary(holes, table).index.tolist() == [0, 1, 2, -1]
    assert clusters.summary(holes, table)["size"].sum() == 90
    with pytest.raises(ValueError, match="none of 90 particles is in a cluster"):
        clusters.centres(embedding, labels * 0 - 1)
