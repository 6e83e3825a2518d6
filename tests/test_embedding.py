"""Embeddings keep ids and vectors together, from the network to the file."""

import numpy as np
import pytest
import torch
from torch import nn

from tomolab import embedding, particles
from tomolab.embedding import Embedding
from tomolab.subtomograms import Subtomograms


class Moments(nn.Module):
    """Mean, maximum and a learned mean of every volume; notes how many volumes it was given at once."""

    name, box, any_box, voxel_size = "moments", 8, False, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 1)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[int] = []

    def features(self, volumes: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(volumes))
        flat = volumes.flatten(1)
        learned = self.dropout(self.conv(volumes[:, None])).flatten(1).mean(1)
        return torch.stack([flat.mean(1), flat.amax(1), learned], dim=1)


@pytest.fixture
def subtomograms() -> Subtomograms:
    volumes = np.random.default_rng(1).normal(size=(11, 8, 8, 8)).astype(np.float32)
    table = particles.table(np.zeros((11, 3)))
    return Subtomograms(volumes, table.assign(particle_id=np.arange(11)[::-1] * 7), 10.0)


def vectors(n: int = 40, d: int = 6, seed: int = 0) -> Embedding:
    rng = np.random.default_rng(seed)
    return Embedding(np.arange(n) + 100, rng.normal(size=(n, d)) * np.arange(d, 0, -1), "abc")


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_embed_keeps_every_id_with_its_volume(subtomograms: Subtomograms, batch_size: int) -> None:
    network = Moments()
    found = embedding.embed(network, subtomograms, batch_size=batch_size, progress=False, precision="float32")
    assert found.ids.tolist() == subtomograms.particles["particle_id"].tolist()
    np.testing.assert_allclose(found.vectors[:, 0], subtomograms.volumes.mean((1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.vectors[:, 1], subtomograms.volumes.max((1, 2, 3)), atol=1e-6)
    assert max(network.seen) <= batch_size
    assert sum(network.seen) == 11


def test_embed_is_in_evaluation_mode_and_leaves_the_network_as_it_came(subtomograms: Subtomograms) -> None:
    network = Moments().train()
    network.conv.eval()
    first = embedding.embed(network, subtomograms, progress=False)
    second = embedding.embed(network, subtomograms, progress=False)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert network.training
    assert network.dropout.training
    assert not network.conv.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_embed_restores_the_mode_after_an_error(subtomograms: Subtomograms) -> None:
    network = Moments().train()
    network.features = lambda volumes: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        embedding.embed(network, subtomograms, progress=False)
    assert network.training


def test_bfloat16_is_close_to_float32(subtomograms: Subtomograms) -> None:
    exact, rough = (embedding.embed(Moments(), subtomograms, precision=p, progress=False) for p in ("float32", "bfloat16"))
    np.testing.assert_allclose(rough.vectors[:, :2], exact.vectors[:, :2], atol=0.05)


def test_the_digest_tells_networks_apart(subtomograms: Subtomograms) -> None:
    first, second = Moments(), Moments()
    second.load_state_dict(first.state_dict())
    same = [embedding.embed(n, subtomograms, progress=False).network for n in (first, second)]
    assert same[0] == same[1]
    with torch.no_grad():
        second.conv.bias += 1
    assert embedding.embed(second, subtomograms, progress=False).network != same[0]


def test_embed_shows_its_rate(subtomograms: Subtomograms, capsys: pytest.CaptureFixture[str]) -> None:
    embedding.embed(Moments(), subtomograms)
    assert "11/11" in capsys.readouterr().err


def test_embed_refuses_what_the_network_was_not_made_for(subtomograms: Subtomograms) -> None:
    network = Moments()
    network.box = 12
    with pytest.raises(ValueError, match="takes boxes of 12 voxels, the subtomograms have 8"):
        embedding.embed(network, subtomograms)
    network.any_box = True
    assert len(embedding.embed(network, subtomograms, progress=False)) == 11
    network.voxel_size = 13.5
    with pytest.raises(ValueError, match=r"trained on voxels of 13.5 Å, the subtomograms have 10 Å"):
        embedding.embed(network, subtomograms)
    with pytest.raises(ValueError, match="no subtomograms"):
        embedding.embed(Moments(), subtomograms.take([]))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        embedding.embed(Moments(), subtomograms, batch_size=0)
    with pytest.raises(ValueError, match=r"precision is .* got 'half'"):
        embedding.embed(Moments(), subtomograms, precision="half")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present")
def test_embed_refuses_an_absent_gpu(subtomograms: Subtomograms) -> None:
    with pytest.raises(ValueError, match="device 'cuda' was asked for, but torch sees no GPU"):
        embedding.embed(Moments(), subtomograms, device="cuda")


def test_embed_refuses_features_that_are_not_finite(subtomograms: Subtomograms) -> None:
    network = Moments()
    with torch.no_grad():
        network.conv.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="11 particles hold NaN or infinity, such as particles \\[70, 63"):
        embedding.embed(network, subtomograms, progress=False)


def test_an_embedding_must_be_consistent() -> None:
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3, 4\)"):
        Embedding([1, 2], np.zeros((3, 4)), "")
    with pytest.raises(ValueError, match=r"unique, but 1 are repeated: \[2\]"):
        Embedding([2, 2, 3], np.zeros((3, 4)), "")
    with pytest.raises(ValueError, match="ids must be integers, got float64"):
        Embedding([1.5, 2, 3], np.zeros((3, 4)), "")


def test_take_follows_the_ids_asked_for() -> None:
    whole = vectors()
    part = whole.take([120, 101])
    assert part.ids.tolist() == [120, 101]
    np.testing.assert_array_equal(part.vectors, whole.vectors[[20, 1]])
    with pytest.raises(KeyError, match=r"1 of 2 particles are not in the embedding, such as \[7\]"):
        whole.take([101, 7])


def test_save_and_load(tmp_path) -> None:
    whole = vectors()
    whole.save(tmp_path / "embedding.npz")
    read = embedding.load(tmp_path / "embedding.npz")
    np.testing.assert_array_equal(read.ids, whole.ids)
    np.testing.assert_array_equal(read.vectors, whole.vectors)
    assert read.network == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["embedding.npz"]


def test_load_refuses_other_files(tmp_path) -> None:
    np.savez(tmp_path / "other.npz", ids=np.arange(3))
    with pytest.raises(ValueError, match="not an embedding: it has no network, vectors"):
        embedding.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", ids=np.array([{}]), vectors=np.zeros((1, 2)), network="")
    with pytest.raises(ValueError, match="allow_pickle=False"):
        embedding.load(tmp_path / "pickled.npz")
    with pytest.raises(FileNotFoundError):
        embedding.load(tmp_path / "absent.npz")


def test_pca_orders_directions_by_variance_and_keeps_distances() -> None:
    whole = vectors()
    full = embedding.pca(whole, 6)
    assert (np.diff(full.vectors.var(0)) < 0).all()
    pairs = [np.linalg.norm(e.vectors[:, None] - e.vectors[None], axis=-1) for e in (whole, full)]
    np.testing.assert_allclose(pairs[0], pairs[1], atol=1e-3)
    np.testing.assert_allclose(embedding.pca(whole, 3, whiten=True).vectors.var(0, ddof=1), 1, rtol=1e-4)
    assert full.network == whole.network
    with pytest.raises(ValueError, match="40 particles with 6 features has 1 to 6 components, got components=7"):
        embedding.pca(whole, 7)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_flat_keeps_groups_apart_and_repeats(method: str) -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1], 30)
    far = Embedding(np.arange(60)[::-1], rng.normal(size=(60, 5)) + 20 * groups[:, None], "")
    points = embedding.flat(far, method=method, seed=4)
    assert points.columns.tolist() == ["particle_id", "x", "y"]
    assert points["particle_id"].tolist() == far.ids.tolist()
    middles = points.groupby(groups)[["x", "y"]].mean()
    spread = points.groupby(groups)[["x", "y"]].std().to_numpy().max()
    assert np.linalg.norm(middles.loc[0] - middles.loc[1]) > 3 * spread
    np.testing.assert_array_equal(points, embedding.flat(far, method=method, seed=4))


def test_flat_refuses_unknown_methods_and_too_few_particles() -> None:
    with pytest.raises(ValueError, match="got 'umap'"):
        embedding.flat(vectors(), method="umap")
    with pytest.raises(ValueError, match="at least 5 particles, got 4"):
        embedding.flat(vectors(4), method="tsne")
