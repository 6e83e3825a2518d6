"""Embeddings keep ids and vectors together, from the network to the file, and what was done when a run is cut."""

import errno
import json

import numpy as np
import pytest
import torch
from torch import nn

from tomolab import particles
from tomolab.io import paths
from tomolab.learning import Embedding, embedding, networks
from tomolab.learning.embedding import PartialArray
from tomolab.subtomograms import Subtomograms


def some(n: int = 40, d: int = 6, seed: int = 0) -> Embedding:
    rng = np.random.default_rng(seed)
    return Embedding(np.arange(n) + 100, rng.normal(size=(n, d)) * np.arange(d, 0, -1), "abc")


def test_an_embedding_must_be_consistent() -> None:
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3, 4\)"):
        Embedding([1, 2], np.zeros((3, 4)), "")
    with pytest.raises(ValueError, match=r"unique, but 1 are repeated: \[2\]"):
        Embedding([2, 2, 3], np.zeros((3, 4)), "")
    with pytest.raises(ValueError, match="ids must be integers, got float64"):
        Embedding([1.5, 2, 3], np.zeros((3, 4)), "")


def test_take_follows_the_ids_asked_for() -> None:
    whole = some()
    assert whole.take(whole.ids > 118).ids.tolist() == whole.ids[whole.ids > 118].tolist() != []
    part = whole.take([120, 101])
    assert part.ids.tolist() == [120, 101]
    np.testing.assert_array_equal(part.vectors, whole.vectors[[20, 1]])
    with pytest.raises(KeyError, match=r"1 of 2 particles are not in the embedding, such as \[7\]"):
        whole.take([101, 7])


def test_save_and_load(tmp_path) -> None:
    whole = some()
    whole.save(tmp_path / "embedding")
    read = embedding.load(tmp_path / "embedding")
    np.testing.assert_array_equal(read.ids, whole.ids)
    np.testing.assert_array_equal(read.vectors, whole.vectors)
    assert read.network == "abc"
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "embedding",
        "embedding/about.json",
        "embedding/checksums.json",
        "embedding/ids.npy",
        "embedding/vectors.npy",
    ]


def test_load_refuses_other_files(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no embedding .*absent: that is a folder with vectors.npy, ids.npy and about"):
        embedding.load(tmp_path / "absent")
    some().save(tmp_path / "a")
    vectors = tmp_path / "a/vectors.npy"
    np.save(vectors, np.array([{}]))
    with pytest.raises(ValueError, match=r"vectors\.npy was damaged, or changed by another program"):
        embedding.load(tmp_path / "a")
    (tmp_path / "a/checksums.json").unlink()
    with pytest.raises(ValueError, match="values of type object, expected numbers or text"):
        embedding.load(tmp_path / "a")
    np.save(vectors, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"got shapes \(40,\) and \(3, 2\)"):
        embedding.load(tmp_path / "a")
    vectors.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*vectors.npy"):
        embedding.load(tmp_path / "a")
    some().save(tmp_path / "b")
    vectors.symlink_to(tmp_path / "b/vectors.npy")
    with pytest.raises(ValueError, match="leads out of"):
        embedding.load(tmp_path / "a")


def test_half_precision_is_kept_and_doubles_are_not() -> None:
    for given, kept in (("f2", "f2"), ("f4", "f4"), ("f8", "f4"), ("i8", "f4")):
        assert Embedding([1, 2], np.ones((2, 3), given), "").vectors.dtype == kept


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_mapped_vectors_stay_on_disk(tmp_path, dtype: str) -> None:
    whole = Embedding(some().ids, some().vectors.astype(dtype), "abc")
    whole.save(tmp_path / "embedding")
    read = embedding.load(tmp_path / "embedding", mapped=True)
    assert isinstance(read.vectors, np.memmap)
    np.testing.assert_array_equal(read.vectors, whole.vectors)
    assert read.vectors.dtype == dtype
    part = read.take([120, 101])
    assert not isinstance(part.vectors, np.memmap)
    np.testing.assert_array_equal(part.vectors, whole.vectors[[20, 1]])
    with pytest.raises(ValueError, match="read-only"):
        read.vectors[0, 0] = 1
    # What was mapped outlives the file that takes its place.
    some(seed=1).save(tmp_path / "embedding")
    np.testing.assert_array_equal(read.vectors, whole.vectors)


def test_an_embedding_of_nothing_can_be_kept(tmp_path) -> None:
    Embedding([], np.zeros((0, 5), np.float32), "").save(tmp_path / "none")
    for mapped in (False, True):
        assert embedding.load(tmp_path / "none", mapped=mapped).vectors.shape == (0, 5)


def test_blocks_are_all_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BLOCK_ROWS", 16)
    whole = Embedding(some().ids, some().vectors.astype(np.float16), "")
    parts = list(whole.blocks())
    assert [len(part) for _, part in parts] == [16, 16, 8]
    assert all(part.dtype == np.float32 for _, part in parts)
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), whole.vectors)
    broken = some().vectors.copy()
    broken[[3, 20, 39], 1] = np.nan
    with pytest.raises(ValueError, match=r"3 particles hold NaN or infinity, such as particles \[103, 120, 139\]"):
        Embedding(whole.ids, broken, "")


def test_a_part_notes_its_progress_for_when_it_is_killed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "NOTED_ROWS", 4)
    first = PartialArray(10, dtype="float32", folder=tmp_path / "part", about={"of": "a"})
    for row in range(7):
        first.add(np.full((1, 2), row))
    # No orderly end: what was noted last counts.
    assert json.loads((tmp_path / "part/about.json").read_text())["done"] == 4
    second = PartialArray(10, dtype="float32", folder=tmp_path / "part", about={"of": "a"})
    assert second.done == 4
    with second:
        second.add(np.full((6, 2), 9))
    np.testing.assert_array_equal(second.array[:, 0], [0, 1, 2, 3, 9, 9, 9, 9, 9, 9])
    third = PartialArray(10, dtype="float32", folder=tmp_path / "part", about={"of": "a"})
    assert third.done == 10


def test_a_part_holds_rows_of_one_width_and_no_more_than_its_count(tmp_path) -> None:
    part = PartialArray(3, dtype="float16")
    part.add(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"rows \(1, 5\) do not fit after row 2 of \(3, 4\)"):
        part.add(np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"rows \(2, 4\) do not fit"):
        part.add(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"beyond float16 .*up to 7e\+04"):
        part.add(np.full((1, 4), 7e4))
    with pytest.raises(ValueError, match="numbers too small for float16"):
        part.add(np.full((1, 4), 1e-9))


def test_a_partial_array_of_something_else_is_refused(tmp_path) -> None:
    with PartialArray(3, dtype="float32", folder=tmp_path / "part", about={"of": "a"}) as part:
        part.add(np.ones((1, 2)))
    with pytest.raises(ValueError, match="count was 3, is 4, of was a, is b; delete the folder"):
        PartialArray(4, dtype="float32", folder=tmp_path / "part", about={"of": "b"})


def test_room_for_all_is_taken_first(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = PartialArray(100_000, dtype="float32", folder=tmp_path / "part")
    part.add(np.ones((1, 10)))
    assert (tmp_path / "part/vectors.npy").stat().st_blocks * 512 >= 4_000_000

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedding.os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match=r"no room for 0.004 GB: No space left on device: '.*vectors.npy'"):
        PartialArray(100_000, dtype="float32", folder=tmp_path / "other").add(np.ones((1, 10)))
    assert list((tmp_path / "other").iterdir()) == []


def test_a_description_without_its_array_is_begun_anew(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "NOTED_ROWS", 4)
    first = PartialArray(8, dtype="float32", folder=tmp_path / "part")
    first.add(np.ones((5, 2)))
    # As when the folder is deleted while it is filled: its description comes again, its array does not.
    (tmp_path / "part/vectors.npy").unlink()
    second = PartialArray(8, dtype="float32", folder=tmp_path / "part")
    assert second.done == 0
    second.add(np.full((8, 2), 2.0))
    assert (second.array == 2).all()


class Moments(nn.Module):
    """Mean, maximum and a learned mean of every volume; notes how many volumes it was given at once."""

    name, box, voxel_size = "moments", 8, 10.0

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


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_embed_keeps_every_id_with_its_volume(subtomograms: Subtomograms, batch_size: int) -> None:
    network = Moments()
    found = embedding.embed(network, subtomograms, batch_size=batch_size, progress=False, precision="float32")
    assert found.ids.tolist() == subtomograms.particles["particle_id"].tolist()
    np.testing.assert_allclose(found.vectors[:, 0], subtomograms.volumes.mean((1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.vectors[:, 1], subtomograms.volumes.max((1, 2, 3)), atol=1e-6)
    assert max(network.seen) <= batch_size
    assert sum(network.seen) == 11


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", "<f8"])
def test_volumes_of_any_kind_give_the_features_of_their_values(subtomograms: Subtomograms, dtype: str) -> None:
    network = Moments()
    volumes = subtomograms.volumes.astype(dtype)
    volumes.flags.writeable = False
    other = Subtomograms(volumes, subtomograms.particles, 10.0)
    same = Subtomograms(volumes.astype(np.float32), subtomograms.particles, 10.0)
    one, two = (embedding.embed(network, data, precision="float32", progress=False).vectors for data in (other, same))
    np.testing.assert_array_equal(one, two)


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
    with pytest.raises(ValueError, match="trained on boxes of 12 voxels, the subtomograms have 8: extract them with box=12"):
        embedding.embed(network, subtomograms)
    network.box = 8
    network.voxel_size = 13.5
    with pytest.raises(ValueError, match=r"trained on voxels of 13.5 Å, the subtomograms have 10 Å"):
        embedding.embed(network, subtomograms)
    with pytest.raises(ValueError, match="no subtomograms"):
        embedding.embed(Moments(), subtomograms.take([]))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        embedding.embed(Moments(), subtomograms, batch_size=0)
    with pytest.raises(ValueError, match=r"precision is .* got 'half'"):
        embedding.embed(Moments(), subtomograms, precision="half")


@pytest.mark.parametrize(("box", "voxel_size"), [(32, 20.0), (40, 20.0), (12, 20.0), (20, 13.48), (20, 22.0)])
def test_the_shipped_network_takes_only_the_boxes_that_it_was_trained_on(box: int, voxel_size: float) -> None:
    volumes = np.random.default_rng(2).normal(size=(2, box, box, box))
    wrong = Subtomograms(volumes, particles.table(np.zeros((2, 3))), voxel_size)
    with pytest.raises(ValueError, match=r"trained on boxes of 20 voxels|trained on voxels of 20 Å"):
        embedding.embed(networks.load("default"), wrong, progress=False)


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


class Breaks(Moments):
    """Fails at its third batch, as often as it is told."""

    breaks = 1

    def features(self, volumes: torch.Tensor) -> torch.Tensor:
        if len(self.seen) == 2 and self.breaks:
            self.breaks -= 1
            raise KeyboardInterrupt
        return super().features(volumes)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_cut_run_goes_on_where_it_stopped(subtomograms: Subtomograms, tmp_path, dtype: str) -> None:
    network, path = Breaks(), tmp_path / "embedding"
    unbroken = Moments()
    unbroken.load_state_dict(network.state_dict())
    settings = {"batch_size": 3, "dtype": dtype, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        embedding.embed(network, subtomograms, path=path, **settings)
    assert not path.exists()
    network.seen.clear()
    found = embedding.embed(network, subtomograms, path=path, **settings)
    # Two batches of three were done; the third and the fourth remained.
    assert network.seen == [3, 2]
    whole = embedding.embed(unbroken, subtomograms, **settings)
    assert found.vectors.dtype == whole.vectors.dtype == dtype
    np.testing.assert_array_equal(found.vectors, whole.vectors)
    np.testing.assert_array_equal(found.ids, whole.ids)
    assert isinstance(found.vectors, np.memmap)
    assert [one.name for one in tmp_path.iterdir()] == ["embedding"]
    np.testing.assert_array_equal(embedding.load(path).vectors, whole.vectors)


def test_a_part_of_something_else_is_refused(subtomograms: Subtomograms, tmp_path) -> None:
    network, path = Breaks(), tmp_path / "embedding"
    with pytest.raises(KeyboardInterrupt):
        embedding.embed(network, subtomograms, path=path, batch_size=3, precision="float32", progress=False)
    other = Subtomograms(subtomograms.volumes[::-1], subtomograms.particles, 10.0)
    with pytest.raises(ValueError, match=r"begun otherwise: subtomograms was .{12}, is .{12}; delete"):
        embedding.embed(network, other, path=path, precision="float32", progress=False)
    with pytest.raises(ValueError, match="begun otherwise: network was"):
        embedding.embed(Breaks(), subtomograms, path=path, precision="float32", progress=False)
    with pytest.raises(ValueError, match="dtype was float32, is float16, precision was float32, is bfloat16"):
        embedding.embed(network, subtomograms, path=path, dtype="float16", precision="bfloat16", progress=False)


def test_a_part_that_another_process_fills_is_left_alone(
    subtomograms: Subtomograms, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "PATIENCE", 0.1)
    network = Moments()
    with (
        paths.lock(tmp_path / "a.part"),
        pytest.raises(BlockingIOError, match=r"another process has been writing .*a.part"),
    ):
        embedding.embed(network, subtomograms, path=tmp_path / "a", progress=False)
    assert list(tmp_path.iterdir()) == []
    embedding.embed(network, subtomograms, path=tmp_path / "a", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_embed_to_a_file_holds_one_batch_in_memory(tmp_path) -> None:
    class Endless:
        """Volumes made when they are asked for."""

        shape = (3000, 8, 8, 8)

        def __getitem__(self, rows: slice) -> np.ndarray:
            first, last, _ = rows.indices(self.shape[0])
            assert last - first <= 100
            return np.arange(first, last, dtype=np.float32)[:, None, None, None] + np.zeros((8, 8, 8), np.float32)

    many = Subtomograms(Endless(), particles.table(np.zeros((3000, 3))), 10.0)
    found = embedding.embed(Moments(), many, path=tmp_path / "many", batch_size=100, progress=False)
    np.testing.assert_allclose(found.vectors[:, 0], np.arange(3000), rtol=1e-6)


def test_float16_halves_the_space_and_refuses_what_it_cannot_hold(subtomograms: Subtomograms) -> None:
    network = Moments()
    exact, rounded = (embedding.embed(network, subtomograms, dtype=d, progress=False) for d in ("float32", "float16"))
    np.testing.assert_allclose(rounded.vectors, exact.vectors, rtol=1 / 2048)
    assert (rounded.vectors.nbytes, exact.vectors.nbytes) == (11 * 3 * 2, 11 * 3 * 4)
    assert rounded.take(rounded.ids[:2]).vectors.dtype == np.float16
    loud = Subtomograms(subtomograms.volumes * 1e5, subtomograms.particles, 10.0)
    with pytest.raises(ValueError, match="beyond float16"):
        embedding.embed(network, loud, dtype="float16", progress=False)
    with pytest.raises(ValueError, match="got 'int8'"):
        embedding.embed(network, subtomograms, dtype="int8", progress=False)
