"""What all benchmarks share: rows printed as a table and written as JSON with the machine and versions; peaks of memory."""

import json
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from tomolab import files, runs

RESULTS = Path(__file__).parent / "results"


def write(name: str, rows: list[dict[str, Any]], *, settings: dict[str, Any]) -> None:
    """Print the rows and write ``results/<name>.json``."""
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    machine = runs.machine()
    print(f"on {machine['cpu']}, {machine['cores']} cores, GPU: {machine['gpu'] or 'none'}, torch {machine['torch']}\n")
    result = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, "settings": settings, "rows": rows}
    with files.atomic(RESULTS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a benchmark returns in a fresh process, so that its peak of memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


class Own:
    """Most memory in GB that this process has held on its own while in the block, without pages of files that are mapped.

    Those the system takes back when others need the room; the peak that it reports itself counts them.
    """

    def __enter__(self) -> "Own":
        self.peak, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
            self.peak = max(self.peak, int(line.split()[1]) / 2**20)
            if self._over.wait(0.1):
                return


def peak_memory() -> float:
    """Most memory in GB that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
