"""Layouts keep groups apart, whether particles were fitted or placed."""

import numpy as np
import pytest

from tomolab.clusters import layouts
from tomolab.learning import Embedding


@pytest.fixture
def groups() -> tuple[Embedding, np.ndarray]:
    """Two directions in feature space with 30 particles each, of all lengths, in random order."""
    rng = np.random.default_rng(2)
    kinds = rng.permutation(np.repeat([0, 1], 30))
    vectors = (10 * np.eye(5)[kinds] + rng.normal(size=(60, 5))) * np.exp(rng.normal(size=(60, 1)))
    return Embedding(np.arange(60)[::-1] + 7, vectors, ""), kinds


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
def test_groups_stay_apart_and_the_layout_repeats(groups, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    embedding, kinds = groups
    # Two thirds are fitted, the others placed in chunks.
    monkeypatch.setattr(layouts, "SAMPLE", 40)
    monkeypatch.setattr(layouts, "CHUNK", 9)
    points = layouts.flat(embedding, method=method, seed=4, progress=False)
    assert points.columns.tolist() == ["particle_id", "x", "y"]
    assert points["particle_id"].tolist() == embedding.ids.tolist()
    middles = points.groupby(kinds)[["x", "y"]].mean().to_numpy()
    place = points[["x", "y"]].to_numpy()
    distances = np.linalg.norm(place[:, None] - middles, axis=2)
    assert (distances.argmin(axis=1) == kinds).all()
    assert np.linalg.norm(middles[0] - middles[1]) > 3 * np.median(distances[np.arange(60), kinds])
    np.testing.assert_array_equal(points, layouts.flat(embedding, method=method, seed=4, progress=False))


def test_layouts_refuse_unknown_methods_and_too_few_particles(groups) -> None:
    embedding, _ = groups
    with pytest.raises(ValueError, match="got 'isomap'"):
        layouts.flat(embedding, method="isomap")
    for method, least in (("umap", 5), ("tsne", 5), ("pca", 2)):
        with pytest.raises(ValueError, match=f"{method} needs at least {least} particles, got {least - 1}"):
            layouts.flat(embedding.take(embedding.ids[: least - 1]), method=method)
    assert len(layouts.flat(embedding.take(embedding.ids[:2]), method="pca")) == 2


@pytest.mark.parametrize("method", ["pca", "umap", "tsne"])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_features_that_are_all_the_same_have_no_layout(method: str, scale: float) -> None:
    same = Embedding(np.arange(60), np.full((60, 8), scale, dtype=np.float32), "network")
    with pytest.raises(ValueError, match="features of all 60 particles point the same way"):
        layouts.flat(same, method=method, progress=False)
    one = Embedding(np.arange(60), np.eye(60, 8, dtype=np.float32)[:1] + np.r_[np.zeros(59), 1][:, None].astype("f"), "network")
    if scale:
        for size in (1e-30, 1e-42):
            faint = Embedding(same.ids, size * np.random.default_rng(0).normal(size=(60, 8)), "network")
            with pytest.raises(ValueError, match="scale the features"):
                layouts.flat(faint, method=method, progress=False)
    placed = layouts.flat(one, method=method, progress=False)
    assert np.isfinite(placed[["x", "y"]]).all(axis=None)
