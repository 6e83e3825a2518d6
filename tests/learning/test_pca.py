"""Principal components found in one embedding hold for others."""

import numpy as np
import pytest

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
    np.testing.assert_allclose(pca.pca(whole, 3, whiten=True).vectors.var(0, ddof=1), 1, rtol=1e-4)
    assert full.network == whole.network
    with pytest.raises(ValueError, match="40 particles with 6 features has 1 to 6 components, got components=7"):
        pca.pca(whole, 7)


def test_whitening_found_in_one_is_applied_to_another() -> None:
    known, other = some(400), some(300, seed=1)
    basis = pca.fit(known, 3, whiten=True)
    np.testing.assert_allclose(np.cov(basis.apply(known).vectors.T), np.eye(3), atol=1e-3)
    shifted = Embedding(other.ids, other.vectors + basis.axes[0] * np.sqrt(basis.variance[0]), "abc")
    moved = basis.apply(shifted).vectors - basis.apply(other).vectors
    np.testing.assert_allclose(moved, np.tile([1, 0, 0], (300, 1)), atol=1e-3)
    with pytest.raises(ValueError, match="6 features of network abc, got 6 of xyz"):
        basis.apply(Embedding(other.ids, other.vectors, "xyz"))
    with pytest.raises(ValueError, match="got 3 of abc"):
        basis.apply(basis.apply(other))


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_parts_and_the_whole_give_the_same_components(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    # Far from the origin, where a covariance summed in one pass would lose its digits.
    far = Embedding(np.arange(500), (some(500).vectors + 300).astype(dtype), "")
    whole = pca.fit(far, 4)
    monkeypatch.setattr(embedding, "BLOCK_ROWS", 64)
    parts = pca.fit(far, 4)
    np.testing.assert_allclose(parts.axes, whole.axes, atol=1e-6)
    np.testing.assert_allclose(parts.apply(far).vectors.mean(axis=0), 0, atol=1e-3)
    monkeypatch.setattr(pca, "WIDE", 3)
    wide = pca.fit(far, 4)
    # sklearn works in float32 where the covariance was summed in float64.
    np.testing.assert_allclose(wide.variance, whole.variance, rtol=1e-2)
    np.testing.assert_allclose(np.abs(np.sum(wide.axes * whole.axes, axis=1)), 1, atol=1e-2)


def test_directions_without_variance_are_not_whitened() -> None:
    line = Embedding(np.arange(20), np.outer(np.arange(20), [1.0, 2.0, 3.0]), "")
    assert pca.fit(line, 1, whiten=True).variance[0] > 0
    with pytest.raises(ValueError, match="2 of 3 components have no variance to whiten; ask for at most 1"):
        pca.fit(line, 3, whiten=True)
