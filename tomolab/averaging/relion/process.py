"""Takes a command, gives its exit code: runs another program, passes on its output, and ends it with all that it started.

>>> code, last = run(["relion_refine", "--i", "particles.star"], folder="set", on_line=print, stop=cancelled)
"""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

import psutil

POLL = 0.2
"""Seconds between two calls of `stop`."""
PATIENCE = 5.0
"""Seconds that a program has to end itself before it is killed."""


def run(
    command: Sequence[str],
    *,
    folder: str | Path,
    log: str | Path = os.devnull,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], Any] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[int | None, list[str]]:
    """Run a program in a folder, without a shell, until it ends or `stop` returns True.

    However this call ends, also by a KeyboardInterrupt or an error in `on_line`, no process of the program is left.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Where it runs.
    log
        File to which all output is appended.
    environment
        Variables beside those of this process.
    on_line
        Called with every line of output that is not empty. A carriage return ends a line too, as progress bars have it.
    stop
        Called after each line, and at least five times a second.

    Returns
    -------
    code, last
        Exit code, None if it was stopped; and the last lines of output.

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
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines, last = SimpleQueue[str | None](), deque[str](maxlen=200)
    Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    try:
        with Path(log).open("a") as copy:
            while (line := _next(lines)) is not None:
                copy.write(line)
                copy.flush()
                if text := line.rstrip():
                    last.append(text)
                    if on_line is not None:
                        on_line(text)
                if stop is not None and stop():
                    return None, list(last)
        return process.wait(), list(last)
    finally:
        # After it has been waited for, its number may belong to another process.
        if process.poll() is None:
            _end(process.pid)
            process.wait()


def _read(output: IO[str], lines: SimpleQueue[str | None]) -> None:
    """Put each line into the queue, and None at the end. In a thread: reading waits, and `stop` is to be called meanwhile."""
    with output:
        for line in output:
            lines.put(line)
    lines.put(None)


def _next(lines: SimpleQueue[str | None]) -> str | None:
    """The next line; empty if there is none yet."""
    with suppress(Empty):
        return lines.get(timeout=POLL)
    return ""


def _end(pid: int) -> None:
    """Ask a process and everything that it started to end; kill what has not ended after `PATIENCE` seconds."""
    parent = psutil.Process(pid)
    # A process group would not do: MPI puts its processes into groups of their own.
    family = [*parent.children(recursive=True), parent]
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for one in family:
            with suppress(psutil.NoSuchProcess):
                ask(one)
        _, family = psutil.wait_procs(family, timeout=PATIENCE)
