"""Archives at an address: what is asked of a server, what is believed of it, and what never reaches it."""

import asyncio
import contextlib
import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import google_crc32c
import numcodecs
import numpy as np
import pytest
import requests
import zarr

from tomolab import io, subtomograms
from tomolab import particles as tables
from tomolab.io.volumes import zarr_arrays
from tomolab.io.volumes.zarr_arrays import Archive, decompressed, locate
from tomolab.volumes import Volume


@pytest.fixture
def volume() -> Volume:
    return Volume(np.random.default_rng(0).standard_normal((40, 50, 60)), 10.0)


class Web:
    """A server of a folder that can read ranges and be told to do something else for a path; it notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.answers, self.headers = folder, [], {}, []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append(self.path)
                web.headers.append(dict(self.headers))
                path = web.folder / unquote(self.path.lstrip("/"))
                status, headers, data = web.answers.get(self.path) or (200, {}, path.read_bytes() if path.is_file() else None)
                if data is None:
                    status, data = 404, b""
                span = self.headers.get("Range", "")
                if span and status == 200 and "whole" not in headers:
                    low, high = span.removeprefix("bytes=").split("-")
                    data = data[int(low) : int(high) + 1] if low and high else data[int(low) :] if low else data[-int(high) :]
                    status = 206
                self.send_response(status)
                headers = {"Content-Length": str(len(data)), **headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = "Connection" in headers

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def web(tmp_path) -> Iterator[Web]:
    made = Web(tmp_path)
    yield made
    made.close()


def test_a_tomogram_is_read_from_an_address(web: Web, volume: Volume) -> None:
    io.write_volume(volume, web.folder / "TS 01.zarr", version="0.4")
    for name in ("TS 01.zarr", "TS%2001.zarr/"):
        opened = io.open_volume(f"{web.url}/{name}")
        np.testing.assert_array_equal(opened.read(np.s_[7:9, :, 20:]), volume.data[7:9, :, 20:])
    assert all("%20" in path for path in web.asked)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_only_the_chunks_about_particles_are_fetched(web: Web, volume: Volume, monkeypatch, version: str) -> None:
    monkeypatch.setattr("tomolab.io.volumes.ome_zarr.CHUNK", (16, 16, 16))
    io.write_volume(volume, web.folder / "a.zarr", version=version)
    opened = io.open_volume(f"{web.url}/a.zarr")
    assert (opened.shape, opened.voxel_size) == (volume.shape, 10.0)
    web.asked.clear()
    table = tables.table([[160.0, 160.0, 160.0], [170.0, 160.0, 150.0]])
    cut = subtomograms.extract(opened, table, box=6)
    assert len(web.asked) == 8
    assert np.array_equal(cut.volumes, subtomograms.extract(volume, table, box=6).volumes)
    np.testing.assert_array_equal(opened.load().data, volume.data)
    assert len(web.asked) == 3 * 4 * 4


def test_shards_are_read_by_range_and_also_where_the_server_knows_none(web: Web, volume: Volume) -> None:
    zarr.create_array(web.folder / "a.zarr", data=volume.data, chunks=(10, 10, 10), shards=(40, 50, 60))
    opened = io.open_volume(f"{web.url}/a.zarr", voxel_size=10.0)
    np.testing.assert_array_equal(opened.read(np.s_[11:19, 1:9, 31:39]), volume.data[11:19, 1:9, 31:39])
    spans = [headers["Range"] for headers in web.headers if "Range" in headers]
    assert any(span.startswith("bytes=-") for span in spans)
    assert any(not span.startswith("bytes=-") for span in spans)
    web.answers["/a.zarr/c/0/0/0"] = (200, {"whole": "1"}, (web.folder / "a.zarr/c/0/0/0").read_bytes())
    opened = io.open_volume(f"{web.url}/a.zarr", voxel_size=10.0)
    np.testing.assert_array_equal(opened.read(np.s_[5:15, 1:9, 31:39]), volume.data[5:15, 1:9, 31:39])


def test_no_credentials_reach_a_server(web: Web, volume: Volume, monkeypatch, tmp_path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth(web.url) == ("somebody", "secret")
    io.write_volume(volume, web.folder / "a.zarr", version="0.4")
    web.answers["/a.zarr/.zattrs"] = (200, {"Set-Cookie": "id=7"}, (web.folder / "a.zarr/.zattrs").read_bytes())
    io.read_volume(f"{web.url}/a.zarr")
    assert not {name.lower() for headers in web.headers for name in headers} & {
        "authorization",
        "cookie",
        "proxy-authorization",
    }
    for address in ("http://me:secret@127.0.0.1/a.zarr", "https://127.0.0.1/a.zarr?token=secret"):
        with pytest.raises(ValueError, match=r"holds a name, password or query") as caught:
            io.open_volume(address)
        assert "secret" not in str(caught.value)


def test_redirects_stay_with_the_host(web: Web, volume: Volume) -> None:
    io.write_volume(volume, web.folder / "a.zarr", version="0.4")
    web.answers["/b.zarr/zarr.json"] = (302, {"Location": "/a.zarr/zarr.json"}, b"")
    web.answers["/b.zarr/.zarray"] = (302, {"Location": f"{web.url}/a.zarr/.zarray"}, b"")
    assert Archive(f"{web.url}/b.zarr").fetch(".zarray") is None
    assert Archive(f"{web.url}/b.zarr").fetch("zarr.json") is None
    named = web.url.replace("http://", "http://me:secret@")
    for target in ("http://localhost:1/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:1/x", f"{named}/x"):
        web.answers["/b.zarr/zarr.json"] = (302, {"Location": target}, b"")
        with pytest.raises(ConnectionError, match="which is not followed") as caught:
            io.open_volume(f"{web.url}/b.zarr")
        assert "secret" not in str(caught.value)
    web.answers["/b.zarr/zarr.json"] = (302, {"Location": "/b.zarr/zarr.json"}, b"")
    with pytest.raises(ConnectionError, match="redirects more than 3 times"):
        io.open_volume(f"{web.url}/b.zarr")


def test_servers_that_fail_are_told_from_what_is_not_there(web: Web, volume: Volume, monkeypatch) -> None:
    with pytest.raises(ValueError, match="is no Zarr"):
        io.open_volume(f"{web.url}/none.zarr")
    web.answers["/a.zarr/zarr.json"] = (500, {}, b"")
    with pytest.raises(ConnectionError, match="failed with HTTP 500"):
        io.open_volume(f"{web.url}/a.zarr")
    web.answers["/a.zarr/zarr.json"] = (200, {"Content-Encoding": "gzip"}, gzip.compress(b"{}"))
    with pytest.raises(ConnectionError, match="came compressed"):
        io.open_volume(f"{web.url}/a.zarr")
    web.answers["/a.zarr/zarr.json"] = (200, {}, b" " * 2**18)
    monkeypatch.setattr(zarr_arrays, "METADATA_BYTES", 2**17)
    with pytest.raises(ValueError, match="holds more than the 131,072 bytes"):
        io.open_volume(f"{web.url}/a.zarr")
    web.answers["/a.zarr/zarr.json"] = (200, {"Content-Length": "900", "Connection": "close"}, b"{}")
    with pytest.raises(ConnectionError, match=r"could not be fetched|ended after"):
        io.open_volume(f"{web.url}/a.zarr")
    monkeypatch.setattr(zarr_arrays, "LONGEST", -1.0)
    web.answers["/a.zarr/zarr.json"] = (200, {}, b"{}")
    with pytest.raises(ConnectionError, match="took more than"):
        io.open_volume(f"{web.url}/a.zarr")
    monkeypatch.undo()
    web.close()
    with pytest.raises(ConnectionError, match="could not be fetched"):
        io.open_volume(f"{web.url}/a.zarr")
    web.close = lambda: None


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"1"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-More: 1\r\n"),
    ],
    ids=["headers", "interim answers", "body", "trailers"],
)
def test_an_answer_that_never_ends_is_given_up(monkeypatch, start: bytes, again: bytes) -> None:
    monkeypatch.setattr(zarr_arrays, "LONGEST", 0.5)
    ended = threading.Event()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(start)
            while not ended.wait(0.05):
                connection.sendall(again)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        began = time.monotonic()
        with pytest.raises(ConnectionError, match=r"took more than 0\.5 seconds"):
            Archive(f"http://127.0.0.1:{listening.getsockname()[1]}/a.zarr").fetch("zarr.json")
        assert time.monotonic() - began < 20
        ended.set()
        server.join()


def test_a_missing_chunk_at_an_address_is_no_zeros(web: Web, volume: Volume) -> None:
    path = io.write_volume(volume, web.folder / "a.zarr")
    (path / "0" / "c/0/0/0").unlink()
    with pytest.raises(FileNotFoundError, match="lacks the chunk"):
        io.read_volume(f"{web.url}/a.zarr")


def test_addresses_and_folders(tmp_path, volume: Volume) -> None:
    path = io.write_volume(volume, tmp_path / "a b.zarr")
    np.testing.assert_array_equal(io.read_volume(path.as_uri()).data, volume.data)
    for wrong in ("s3://bucket/a.zarr", "ftp://server/a.zarr", "file://server/a.zarr", "https:///a.zarr"):
        with pytest.raises(ValueError, match="addresses are http://"):
            locate(wrong)
    link = tmp_path / "b.zarr"
    io.write_volume(volume, link)
    (link / "0" / "zarr.json").unlink()
    (link / "0" / "zarr.json").symlink_to(path / "0" / "zarr.json")
    with pytest.raises(ValueError, match="leads out of"):
        io.open_volume(link)


@pytest.mark.parametrize(
    ("codec", "packed"),
    [
        ("gzip", lambda data: gzip.compress(data)),
        ("gzip", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:]) + b"\0\0"),
        ("zlib", lambda data: zlib.compress(data)),
        ("zstd", lambda data: numcodecs.Zstd().encode(data)),
        ("zstd", lambda data: numcodecs.Zstd(checksum=True).encode(data[:10]) + numcodecs.Zstd().encode(data[10:])),
        ("zstd", lambda data: b"\x50\x2a\x4d\x18\x03\0\0\0abc" + numcodecs.Zstd().encode(data)),
        ("blosc", lambda data: numcodecs.Blosc().encode(data)),
        ("lz4", lambda data: numcodecs.LZ4().encode(data)),
    ],
)
def test_chunks_that_unpack_to_more_than_a_chunk_are_refused(codec: str, packed) -> None:
    for data in (bytes(100_000), np.random.default_rng(0).bytes(100_000)):
        assert decompressed(codec, bytes(packed(data)), 100_000) == data
        with pytest.raises(ValueError, match=rf"bytes of {codec} unpack to more than 99,999"):
            decompressed(codec, bytes(packed(data)), 99_999)
        with pytest.raises(ValueError, match="is damaged"):
            decompressed(codec, bytes(packed(data))[:-3], 100_000)


def test_a_frame_that_does_not_say_how_long_it_is_is_counted() -> None:
    # Repeated bytes: 128 kB from 4, as often as one likes.
    def frame(blocks: int) -> bytes:
        heads = [(int(i == blocks - 1) | 1 << 1 | 2**17 << 3).to_bytes(3, "little") + b"\0" for i in range(blocks)]
        return b"\x28\xb5\x2f\xfd\x00\x38" + b"".join(heads)

    assert len(numcodecs.Zstd().decode(frame(3))) == 3 * 2**17
    assert decompressed("zstd", frame(3), 3 * 2**17) == b"\0" * 3 * 2**17
    with pytest.raises(ValueError, match="unpack to more than"):
        decompressed("zstd", frame(80_000), 2**23)


def test_a_bomb_in_a_store_does_not_go_off(tmp_path) -> None:
    made = zarr.create_array(tmp_path / "a.zarr", data=np.ones((8, 8, 8), dtype="f4"), chunks=(4, 8, 8), zarr_format=2)
    (tmp_path / "a.zarr" / "1.0.0").write_bytes(numcodecs.Blosc().encode(bytes(50_000_000)))
    assert json.loads((tmp_path / "a.zarr" / ".zarray").read_text())["compressor"]["id"] in ("zstd", "blosc")
    told = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    told["compressor"] = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"bytes of blosc unpack to more than 2,176, and a chunk has less"):
        io.open_volume(tmp_path / "a.zarr", voxel_size=10.0).read(np.s_[4:, :, :])
    assert made.shape == (8, 8, 8)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_that_are_compressed_twice_are_read(tmp_path, zarr_format: int) -> None:
    data = np.random.default_rng(0).random((8, 8, 8), dtype="f4")
    codecs = [zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec(), zarr.codecs.ZstdCodec()]
    options = {"compressors": codecs} if zarr_format == 3 else {"filters": [numcodecs.Zlib()], "compressors": numcodecs.Blosc()}
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(4, 8, 8), zarr_format=zarr_format, **options)
    np.testing.assert_array_equal(io.read_volume(tmp_path / "a.zarr", voxel_size=10.0).data, data)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("checksum", [False, True])
def test_a_bomb_in_a_shard_does_not_go_off(tmp_path, count: int, checksum: bool) -> None:
    """A shard of one chunk is read whole by Zarr, one of two by its index."""
    data = np.random.default_rng(0).random((8, 8, 8), dtype="f4")
    codecs = [zarr.codecs.GzipCodec(), *([zarr.codecs.Crc32cCodec()] if checksum else [])]
    options = {"chunks": (8 // count, 8, 8), "shards": (8, 8, 8), "compressors": codecs}
    zarr.create_array(tmp_path / "a.zarr", data=data, **options)
    np.testing.assert_array_equal(io.read_volume(tmp_path / "a.zarr", voxel_size=10.0).data, data)
    packed = gzip.compress(bytes(50_000_000))
    packed += google_crc32c.value(packed).to_bytes(4, "little") * checksum
    places = np.array([[0, len(packed)]] * count, dtype="<u8").tobytes()
    shard = packed + places + google_crc32c.value(places).to_bytes(4, "little")
    (tmp_path / "a.zarr/c/0/0/0").write_bytes(shard)
    tracemalloc.start(1)
    try:
        with pytest.raises(ValueError, match=r"bytes of gzip unpack to more than"):
            io.read_volume(tmp_path / "a.zarr", voxel_size=10.0)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_filter_that_widens_values_is_refused(tmp_path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((8, 8, 8), dtype="f4"), zarr_format=2)
    stated = json.loads((tmp_path / "a.zarr/.zarray").read_text())
    narrow = {"id": "delta", "dtype": "<f4"}
    for wide in ("S1000000", "V4096", "<c32"):
        stated["filters"] = [narrow | {"dtype": wide, "astype": "|i1"}, narrow]
        (tmp_path / "a.zarr/.zarray").write_text(json.dumps(stated))
        with pytest.raises(ValueError, match=f"its codec delta gives values of type {wide}, and its values are float32"):
            io.open_volume(tmp_path / "a.zarr", voxel_size=10.0)


def test_a_checksum_after_the_compression_hides_no_bomb(tmp_path) -> None:
    data = np.random.default_rng(0).random((8, 8, 8), dtype="f4")
    codecs = [zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec()]
    array = zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(4, 8, 8), compressors=codecs)
    opened = io.open_volume(tmp_path / "a.zarr", voxel_size=10.0)
    np.testing.assert_array_equal(opened.load().data, data)
    packed = gzip.compress(bytes(1024)) + gzip.compress(bytes(50_000_000))
    chunk = tmp_path / "a.zarr" / "c" / "1" / "0" / "0"
    chunk.write_bytes(packed + google_crc32c.value(packed).to_bytes(4, "little"))
    with pytest.raises(ValueError, match=r"bytes of gzip unpack to more than 2,176, and a chunk has less"):
        io.open_volume(tmp_path / "a.zarr", voxel_size=10.0).read(np.s_[4:, :, :])
    assert array.shape == (8, 8, 8)


def test_nothing_is_written_and_nothing_listed(tmp_path) -> None:
    archive = Archive(str(tmp_path))
    for work in (archive.set("zarr.json", None), archive.delete("zarr.json")):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"is read, not written: zarr\.json"):
            asyncio.run(work)
    for listed in (archive.list, lambda: archive.list_prefix(""), lambda: archive.list_dir("")):
        with pytest.raises(ValueError, match="is read by name, not listed"):
            listed()
