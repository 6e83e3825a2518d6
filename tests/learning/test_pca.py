"""Principal components are those of sklearn, exact far from the origin, and found block by block."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from tomolab.learning import Embedding, embedding, pca


def some(n: int = 40, d: int = 6, seed: int = 0) -> Embedding:
    rng = np.random.default_rng(seed)
    return Embedding(np.arange(n) + 100, rng.normal(size=(n, d)) * np.arange(d, 0, -1), "abc")


def test_pca_orders_directions_by_variance_and_keeps_distances() -> None:
    whole = some()
    full = pca.pca(whole, 6)
    assert (np.diff(full.vectors.var(0)) < 0).all()
    pairs = [np.linalg.norm(e.vectors[:, None] - e.vectors[None], axis=-1) for e in (whole, full)]
    np.testing.assert_allclose(pairs[0], pairs[1], atol=1e-3)
    np.testing.assert_allclose(np.cov(pca.pca(whole, 3, whiten=True).vectors.T), np.eye(3), atol=1e-4)
    assert full.network == whole.network
    with pytest.raises(ValueError, match="40 particles with 6 features has 1 to 6 components, got components=7"):
        pca.pca(whole, 7)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("whiten", [False, True])
def test_blocks_give_the_components_of_sklearn(monkeypatch: pytest.MonkeyPatch, dtype: str, whiten: bool) -> None:
    # Far from the origin, where a covariance summed in one pass would lose its digits.
    far = Embedding(np.arange(500), (some(500).vectors + 300).astype(dtype), "")
    monkeypatch.setattr(embedding, "BLOCK_ROWS", 64)
    expected = PCA(4, whiten=whiten, svd_solver="full").fit_transform(far.vectors.astype(float))
    np.testing.assert_allclose(pca.pca(far, 4, whiten=whiten).vectors, expected, atol=2e-4)


def test_fewer_particles_than_features_have_components() -> None:
    few = some(5, 30)
    expected = PCA(4).fit_transform(few.vectors.astype(float))
    np.testing.assert_allclose(pca.pca(few, 4).vectors, expected, atol=1e-4)


def test_directions_without_variance_are_not_whitened() -> None:
    line = Embedding(np.arange(20), np.outer(np.arange(20), [1.0, 2.0, 3.0]), "")
    assert pca.pca(line, 1, whiten=True).vectors.std(ddof=1) == pytest.approx(1)
    with pytest.raises(ValueError, match="2 of 3 components have no variance to whiten; ask for at most 1"):
        pca.pca(line, 3, whiten=True)
