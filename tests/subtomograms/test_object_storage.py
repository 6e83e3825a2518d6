"""Stores in object storage: written, read and trained from as in a folder, from a server on this machine that speaks S3."""

import builtins
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3
from obstore.exceptions import PermissionDeniedError

from tomolab import learning, particles, subtomograms
from tomolab.learning import embedding, networks
from tomolab.subtomograms import Subtomograms, store, writer

BOX = 8


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """A server that lets in somebody."""
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 16 * 2 * BOX**3)
    with s3.serving() as server:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "somebody"),
            ("AWS_SECRET_ACCESS_KEY", "a secret of somebody"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ENDPOINT_URL", server.address),
            ("AWS_ALLOW_HTTP", "true"),
        ):
            monkeypatch.setenv(name, value)
        yield server


def some(count: int = 40, first: int = 100, seed: int = 0) -> Subtomograms:
    rng = np.random.default_rng(seed)
    ids = first + rng.permutation(count)
    table = particles.table(rng.uniform(0, 500, (count, 3)), ids=ids, label=[f"class {i % 3}" for i in range(count)])
    lost = particles.table(np.zeros((1, 3)), ids=[9]).assign(reason="too near")
    return Subtomograms(rng.standard_normal((count, BOX, BOX, BOX)).astype(np.float32), table, 20.0, lost)


def test_a_store_in_a_bucket_is_the_one_in_a_folder(server: s3.Server, tmp_path: Path) -> None:
    made, address = some(), "s3://bucket/folder/many.zarr"
    assert made.save(address) == address
    here, there = subtomograms.open(made.save(tmp_path / "made.zarr")), subtomograms.open(address)
    pd.testing.assert_frame_equal(here.particles, there.particles)
    pd.testing.assert_frame_equal(here.skipped, there.skipped)
    assert here.voxel_size == there.voxel_size
    for (a, b), (c, d) in zip(here.batches(7), there.batches(7), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    ids = np.random.default_rng(1).permutation(here.ids)[:25]
    np.testing.assert_array_equal(there.take(ids).volumes, here.take(ids).volumes)
    np.testing.assert_array_equal(there.choose(ids).volumes[3:9], here.take(ids).volumes[3:9])
    epochs = [list(learning.Labelled(one, batch_size=8, seed=3).epoch(0)) for one in (here, there)]
    for (a, b), (c, d) in zip(*epochs, strict=True):
        assert a.equal(c)
        assert b.equal(d)
    network = networks.create("compact", box=BOX, classes=["a", "b"], voxel_size=20.0)
    vectors = [embedding.embed(network, one, progress=False).vectors for one in (here, there)]
    np.testing.assert_array_equal(*vectors)


def test_large_objects_go_up_in_parts(server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 2**24)
    monkeypatch.setattr("tomolab.subtomograms.store.LARGEST_SHARD", 2**14)
    made = some(6000)
    made.save("s3://bucket/large.zarr")
    assert any(method == "POST" for method, _, _ in server.asked)
    np.testing.assert_array_equal(subtomograms.open("s3://bucket/large.zarr").volumes[5990:], made.volumes[5990:].astype("f2"))


def test_a_half_written_store_is_none(server: s3.Server) -> None:
    address = "s3://bucket/many.zarr"
    written = [f"bucket/many.zarr/{name}" for name in ("volumes/c/1/0/0/0", store.SKIPPED, store.TABLE)]
    for last in written:
        server.refuse = lambda method, key, last=last: (method, key) == ("PUT", last)
        with pytest.raises(PermissionDeniedError):
            some().save(address)
        with pytest.raises(ValueError, match="not a store of subtomograms"):
            subtomograms.open(address)
    # Without the attributes, which come last, all the objects are there, and it is still none.
    server.refuse = lambda method, key: method == "PUT" and key.endswith("many.zarr/zarr.json")
    with pytest.raises(PermissionDeniedError):
        some().save(address)
    with pytest.raises(ValueError, match="not a store of subtomograms"):
        subtomograms.open(address)
    server.refuse = lambda method, key: False
    some().save(address)
    some(5).save(address)
    assert len(subtomograms.open(address)) == 5
    assert sum("/c/" in key for key in server.objects) == 1


def test_what_is_no_store_is_not_replaced(server: s3.Server) -> None:
    server.objects["bucket/folder/thesis.pdf"] = b"years"
    with pytest.raises(ValueError, match=r"s3://bucket/folder holds 1 objects that are not of a store, such as thesis"):
        some().save("s3://bucket/folder")
    with pytest.raises(FileNotFoundError, match=r"no subtomograms at s3://bucket/none.zarr"):
        subtomograms.open("s3://bucket/none.zarr")
    assert list(server.objects) == ["bucket/folder/thesis.pdf"]


def test_credentials_are_not_written_down(server: s3.Server) -> None:
    some().save("s3://bucket/many.zarr")
    assert all("somebody" in signed for _, _, signed in server.asked)
    assert not [key for key, data in server.objects.items() if b"somebody" in data or b"secret" in data]
    for address in ("s3://somebody:secret@bucket/a.zarr", "s3://bucket/a.zarr?X-Amz-Signature=secret", "s3://secret@bucket/a"):
        with pytest.raises(ValueError, match="holds a name, password or query") as caught:
            subtomograms.open(address)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://server.org/a.zarr", "a store is a folder or an address of s3, gs"),
        ("s3://bucket", "names no place in a bucket"),
        ("s3://bucket/../other/a.zarr", "names no place in a bucket"),
        ("simplecache::s3://bucket/a.zarr", "a store is a folder or an address"),
        ("memory://a.zarr", "a store is a folder or an address"),
    ],
)
def test_other_addresses_are_refused(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        subtomograms.open(address)


def test_a_file_address_is_a_folder(tmp_path: Path) -> None:
    some().save(f"file://{tmp_path}/made%20here.zarr")
    assert len(subtomograms.open(tmp_path / "made here.zarr")) == 40


def test_what_grows_needs_a_folder(server: s3.Server) -> None:
    address = "s3://bucket/many.zarr"
    for grow in (
        lambda: writer.begin(address, "key", box=BOX, voxel_size=20.0),
        lambda: writer.append(address, [], box=BOX, voxel_size=20.0),
    ):
        with pytest.raises(ValueError, match="a store grows in a folder of this machine"):
            grow()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(builtins.ModuleNotFoundError, match=r"need the package obstore \(pip install 'tomolab\[objects\]'\)"):
        subtomograms.open("s3://bucket/many.zarr")
