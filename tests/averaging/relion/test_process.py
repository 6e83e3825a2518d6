"""Programs are followed line by line, and nothing of them is left when they are stopped."""

import sys
import time

import psutil
import pytest

from tomolab.averaging.relion import process

FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("child", child.pid, flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_lines_come_as_they_are_printed(tmp_path) -> None:
    script = (
        "import sys, os; print(os.getcwd()); print(os.environ['COLOUR']); sys.stderr.write('1/2\\r2/2\\rdone'); sys.exit(3)"
    )
    lines: list[str] = []
    code, last = process.run(
        python(script), folder=tmp_path, log=tmp_path / "log", environment={"COLOUR": "blue"}, on_line=lines.append
    )
    assert code == 3
    assert sorted(lines) == sorted([str(tmp_path), "blue", "1/2", "2/2", "done"])
    assert last == lines
    assert sorted((tmp_path / "log").read_text().splitlines()) == sorted(lines)


def test_stopping_leaves_no_grandchild(tmp_path) -> None:
    lines: list[str] = []
    code, _ = process.run(python(FAMILY), folder=tmp_path, on_line=lines.append, stop=lambda: bool(lines))
    assert code is None
    assert gone(int(lines[0].split()[1]))


def test_an_interrupt_ends_the_program(tmp_path) -> None:
    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run(python(FAMILY), folder=tmp_path, on_line=interrupt)
    assert gone(int(lines[0].split()[1]))


def test_a_program_that_does_not_listen_is_killed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.5)
    lines: list[str] = []
    began = time.monotonic()
    assert process.run(python(STUBBORN), folder=tmp_path, on_line=lines.append, stop=lambda: bool(lines))[0] is None
    assert time.monotonic() - began < 55
    assert process.run(python("pass"), folder=tmp_path) == (0, [])


def test_a_missing_program_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no_such_program"):
        process.run(["no_such_program"], folder=tmp_path)
