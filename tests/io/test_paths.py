"""Files and folders appear whole or not at all; locks end with their process, and two writers of one path do not meet."""

import contextlib
import errno
import fcntl
import hashlib
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tomolab import io
from tomolab.io import paths


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
    assert io.inside(tmp_path / "root", "link/a.mrc", tomogram=True) == tmp_path / "root/link/a.mrc"
    with pytest.raises(ValueError, match="cannot name a file"):
        io.inside(tmp_path / "root", "../a.mrc", tomogram=True)


def test_hashes(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert io.sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    before = io.sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert io.sha256(tmp_path) != before
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        io.sha256(tmp_path / "none")


def write_and_wait(path: Path, begun: object) -> None:
    """Begin to write a folder, and never end."""
    with io.atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("half")
        begun.set()
        time.sleep(600)


@pytest.fixture
def writer(tmp_path: Path):
    """A process that is writing ``tmp_path / "store"``."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=write_and_wait, args=(tmp_path / "store", begun), daemon=True)
    process.start()
    assert begun.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_killed_writer_leaves_no_lock_and_its_half_is_removed(tmp_path: Path, writer) -> None:
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[0] == ".store.lock"
    assert left[1].startswith(".store.tmp-")
    others = [".store.tmp-notes", ".store.tmp-0123456g", ".store.tmp-01234567.txt", ".restore.tmp-01234567"]
    for name in others:
        (tmp_path / name).write_text("somebody's own")
    with io.atomic(tmp_path / "store") as temporary:
        temporary.mkdir()
    assert {path.name for path in tmp_path.iterdir()} == {"store", *others}


def test_a_second_writer_is_told(tmp_path: Path, writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PATIENCE", 0.2)
    with (
        pytest.raises(BlockingIOError, match=r"another process has been writing .*store for 0.2 s"),
        io.atomic(tmp_path / "store"),
    ):
        pass
    assert writer.is_alive()
    assert sum(path.name.startswith(".store.tmp-") for path in tmp_path.iterdir()) == 1
    # Beside it, all goes on.
    with io.atomic(tmp_path / "other.txt") as temporary:
        temporary.write_text("whole")


def test_threads_take_turns(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "count.txt", [], []

    def add() -> None:
        with paths.lock(path):
            inside.append(1)
            most.append(len(inside))
            number = int(path.read_text()) if path.exists() else 0
            time.sleep(0.002)
            path.write_text(str(number + 1))
            inside.pop()

    threads = [threading.Thread(target=add) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "20"
    assert max(most) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["count.txt"]


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP])
def _no_locks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(paths, "_WITHOUT_LOCKS", set())


@pytest.mark.usefixtures("_no_locks")
@pytest.mark.filterwarnings("ignore:the file system of .* has no locks")
def test_without_locks_writers_take_turns_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_threads_take_turns(tmp_path)
    # Long enough for a machine with much other work.
    monkeypatch.setattr(paths, "LEASE", 3.0)
    (tmp_path / ".a.tmp-01234567.txt").write_text("of a writer that was killed")
    with io.atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        with (
            pytest.raises(BlockingIOError, match=r"another process has been writing .*a.txt"),
            paths.lock(tmp_path / "a.txt", patience=0.1),
        ):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "count.txt"}


@pytest.mark.usefixtures("_no_locks")
@pytest.mark.filterwarnings("ignore:the file system of .* has no locks")
def test_without_locks_a_writer_that_died_on_another_machine_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "LEASE", 0.5)
    path = tmp_path / "a.txt"
    with paths.lock(path):
        left = (tmp_path / ".a.txt.lease").read_text()
    # The same claim, of a process that this machine cannot look for.
    (tmp_path / ".a.txt.lease").write_text(left.replace(socket.gethostname(), "elsewhere"))
    began = time.monotonic()
    with paths.lock(path):
        assert time.monotonic() - began > 0.4
    # A writer may be killed before it has written its name.
    (tmp_path / ".a.txt.lease").touch()
    with paths.lock(path, patience=0.1):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_locks")
@pytest.mark.filterwarnings("ignore:the file system of .* has no locks")
def test_without_locks_a_writer_that_slept_replaces_nothing(tmp_path: Path) -> None:
    path, lease = tmp_path / "a.txt", tmp_path / ".a.txt.lease"
    for sleep in (
        lambda: lease.write_text(re.sub("token=.*", "token=of another", lease.read_text())),
        lambda: lease.rename(tmp_path / "taken"),
    ):
        path.write_text("of the other")
        with contextlib.ExitStack() as stack:
            stack.enter_context(pytest.raises(BlockingIOError, match=r"another process took .*a\.txt over"))
            temporary = stack.enter_context(io.atomic(path))
            sleep()
            temporary.write_text("late")
        assert path.read_text() == "of the other"
        lease.unlink(missing_ok=True)


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_the_user_is_told_once(tmp_path: Path) -> None:
    for told in (pytest.warns(UserWarning, match="has no locks"), contextlib.nullcontext()):
        with told, io.atomic(tmp_path / "a.txt") as temporary:
            temporary.write_text("whole")
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_reader_finds_a_folder_that_a_killed_writer_had_moved_aside(tmp_path: Path) -> None:
    for name in (".a.old-01234567", ".b.old-89abcdef.zarr", ".c.old-01234567", ".e.old-01234567.old-89abcdef"):
        (tmp_path / name).mkdir()
    assert paths.recovered(tmp_path / "a") == tmp_path / "a"
    assert (tmp_path / "a").is_dir()
    paths.recover_all(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"a", "b.zarr", "c", "e.old-89abcdef"}
    assert not paths.recovered(tmp_path / "d").exists()


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(OSError, match=r"cannot be written: Read-only file system: '.*/a.txt'"),
        io.atomic(tmp_path / "a.txt"),
    ):
        pass


def test_a_folder_that_was_moved_aside_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    for left in (".store.old-01234567", ".store.tmp-89abcdef"):
        (tmp_path / left).mkdir()
        (tmp_path / left / left[7:10]).write_text("whole")
    with pytest.raises(RuntimeError, match="power"), io.atomic(tmp_path / "store"):
        raise RuntimeError("power cut")
    assert [path.name for path in tmp_path.rglob("*")] == ["store", "old"]
    (tmp_path / ".store.old-01234567").mkdir()
    with io.atomic(tmp_path / "store") as temporary:
        temporary.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["store"]


def test_a_folder_stays_where_another_cannot_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    rename = os.rename

    def refuse(one: Path, other: Path) -> None:
        if ".tmp-" in str(one):
            raise OSError(errno.EIO, "Input/output error")
        rename(one, other)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"), io.atomic(tmp_path / "store") as temporary:
        temporary.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8))
@example(
    ["a b", "a_b", "a%20b", "a+b", "", "%", ".", "..", "-rf", ".hidden", "x.", "../../etc", "a/b", "Ölbaum", "$(rm)", "a\nb"]
)
def test_every_name_is_one_file_and_comes_back(names: list[str]) -> None:
    files = {paths.file_name(name): name for name in names}
    assert len(files) == len(set(names))
    for text, name in files.items():
        assert paths.name_of_file(text) == name
        assert paths.inside("runs", text).name == text
        assert re.fullmatch(r"[\w.,+%-]*[\w,+%-]", text)
        assert not text.startswith((".", "-"))
