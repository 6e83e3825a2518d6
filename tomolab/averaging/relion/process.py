"""A command in, its exit status out: runs another program, passes on its output, and stops it with all that it started.

>>> code = run(["relion_refine", "--i", "particles.star"], folder="set", told=print, stop=cancelled)
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

POLL = 0.2
"""Seconds between two questions whether to stop."""
PATIENCE = 5.0
"""Seconds that a program has to end itself before it is killed."""


def run(
    command: Sequence[str],
    *,
    folder: str | Path,
    log: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    told: Callable[[str], Any] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[int | None, list[str]]:
    """Run a program in a folder, without a shell, until it ends or `stop` says so.

    Whatever ends this call, also a KeyboardInterrupt or an error in `told`, no process of the program is left.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Where it runs.
    log
        File to which all that the program prints is appended.
    environment
        Variables beside those of this process.
    told
        Called with every line printed, also with one that a carriage return ends, as progress bars have.
    stop
        Asked five times a second.

    Returns
    -------
    code, last
        Exit code, None if it was stopped; and the last lines printed, on either stream.

    Raises
    ------
    FileNotFoundError
        If there is no such program or folder.
    """
    process = subprocess.Popen(
        list(command),
        cwd=folder,
        env=os.environ | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    lines = _Lines(told)
    try:
        with Path(os.devnull if log is None else log).open("ab") as copy:
            stopped = _follow(process, copy, lines, stop)
        return (None if stopped else process.wait()), lines.last
    finally:
        # Once it has been waited for, its number may be another's.
        if process.poll() is None:
            end(process.pid)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def end(pid: int) -> None:
    """End a process, its group and everything that it started: asked first, killed after some seconds."""
    try:
        parent = psutil.Process(pid)
        # MPI puts its processes in groups of their own.
        everyone = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for ask in (signal.SIGTERM, signal.SIGKILL):
        for one in everyone:
            try:
                one.send_signal(ask)
            except psutil.NoSuchProcess:
                continue
        _, everyone = psutil.wait_procs(everyone, timeout=PATIENCE)


class _Lines:
    """Cuts what is printed into lines, tells them, and keeps the last."""

    def __init__(self, told: Callable[[str], Any] | None) -> None:
        self.told, self.rest, self.last = told, b"", list[str]()

    def add(self, data: bytes) -> None:
        *whole, self.rest = (self.rest + data.replace(b"\r", b"\n")).split(b"\n")
        for line in whole:
            self._tell(line)

    def close(self) -> None:
        self._tell(self.rest)
        self.rest = b""

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        if text.strip():
            self.last = [*self.last[-39:], text]
            if self.told is not None:
                self.told(text)


def _follow(process: subprocess.Popen, copy: IO[bytes], lines: _Lines, stop: Callable[[], bool] | None) -> bool:
    """Read until the program closes its output or is to be stopped; whether it was stopped."""
    assert process.stdout is not None
    asked = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(POLL):
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    lines.close()
                    return False
                copy.write(data)
                copy.flush()
                lines.add(data)
            if stop is not None and time.monotonic() - asked >= POLL:
                asked = time.monotonic()
                if stop():
                    return True
