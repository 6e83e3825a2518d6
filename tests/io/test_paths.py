"""Files and folders appear whole or not at all."""

import hashlib

import pytest

from tomolab import io


def test_a_file_appears_whole(tmp_path) -> None:
    with io.atomic(tmp_path / "new" / "a.tar.gz") as temporary:
        assert not temporary.exists()
        assert temporary.parent == tmp_path / "new"
        assert temporary.name.endswith(".tar.gz")
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "a.tar.gz").exists()
    assert (tmp_path / "new" / "a.tar.gz").read_text() == "whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.tar.gz"]


def test_an_error_leaves_what_was_there(tmp_path) -> None:
    for target in (tmp_path / "a.txt", tmp_path / "b"):
        with io.atomic(target) as temporary:
            temporary.write_text("first") if target.suffix else temporary.mkdir()
        with pytest.raises(RuntimeError, match="power"), io.atomic(target) as temporary:  # noqa: PT012
            temporary.write_text("half") if target.suffix else (temporary / "half").mkdir(parents=True)
            raise RuntimeError("power cut")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert list((tmp_path / "b").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b"}


def test_a_folder_replaces_a_folder(tmp_path) -> None:
    for content in ("one", "two"):
        with io.atomic(tmp_path / "store") as temporary:
            (temporary / "deep").mkdir(parents=True)
            (temporary / "deep" / content).write_text(content)
    assert [path.name for path in (tmp_path / "store" / "deep").iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_kinds_are_not_mixed_and_nothing_is_an_error(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(ValueError, match="is a folder and would be replaced by a file"),
        io.atomic(tmp_path / "folder") as temporary,
    ):
        temporary.write_text("x")
    with pytest.raises(FileNotFoundError, match="nothing was written"), io.atomic(tmp_path / "a"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_names_from_files_stay_inside(tmp_path) -> None:
    assert io.inside(tmp_path, "a/b.mrc") == tmp_path / "a" / "b.mrc"
    for name in ("../a", "/a", "a/../../b", "", "a\0b"):
        with pytest.raises(ValueError, match="cannot name a file"):
            io.inside(tmp_path, name)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out of"):
        io.inside(tmp_path / "root", "link/a")


def test_hashes(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert io.sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    before = io.sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert io.sha256(tmp_path) != before
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        io.sha256(tmp_path / "none")
