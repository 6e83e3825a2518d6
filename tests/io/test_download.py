"""Downloads: whole or not at all, once, and noticed when changed. Everything against a local server."""

import json

import pytest

from tomolab import io
from tomolab.io import download


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


def test_expected_hash(tmp_path, server):
    (server.folder / "map.bin").write_bytes(b"density")
    with pytest.raises(ValueError, match="does not hold the expected file"):
        download.cached(f"{server.url}/map.bin", tmp_path / "map.bin", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    right = io.sha256(server.folder / "map.bin")
    download.cached(f"{server.url}/map.bin", tmp_path / "map.bin", sha256=right.upper())
    with pytest.raises(ValueError, match="has changed"):
        download.cached(f"{server.url}/map.bin", tmp_path / "map.bin", sha256="0" * 64)


def test_missing_file_and_failing_server(tmp_path, server):
    with pytest.raises(FileNotFoundError, match="HTTP 404"):
        download.cached(f"{server.url}/none.bin", tmp_path / "none.bin")
    with pytest.raises(ConnectionError, match="HTTP 500"):
        download.cached(f"{server.url}/fail", tmp_path / "fail")
    with pytest.raises(ConnectionError, match="could not be fetched"):
        download.cached("http://127.0.0.1:9/none.bin", tmp_path / "none.bin")
    assert list(tmp_path.iterdir()) == []
