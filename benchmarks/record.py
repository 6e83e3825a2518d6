"""What all benchmarks share: rows printed as a table and written as JSON with the machine and versions; peaks of memory."""

import json
import re
import resource
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from tomolab import io
from tomolab.io import run_folder

RESULTS = Path(__file__).parent / "results"
WORSE = 0.2
"""Share by which a figure may be worse than the last one before it is named."""
LESS = r"\b(seconds|minutes|GB|own MB|lost|damaged|left over|one at most)\b|\((s|ms|Å|°)\)"
MORE = r"per_second|/s\b|\b(accuracy|ARI|purity|AU(?:RO)?C|times plain|fit|of the bound|time spared|can be undone)\b"
"""Names of columns of which less, or more, is better."""


def write(name: str, rows: list[dict[str, Any]], *, settings: dict[str, Any]) -> None:
    """Print the rows and what is worse than at the last commit, and write ``results/<name>.json``."""
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    machine = run_folder.machine()
    print(f"on {machine['cpu']}, {machine['cores']} cores, GPU: {machine['gpu'] or 'none'}, torch {machine['torch']}\n")
    result = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, "settings": settings, "rows": rows}
    for line in worse(name, result):
        print(line)
    with io.atomic(RESULTS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def markdown(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as a table for a page; shares in per cent, other numbers in three figures."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append(f"| {' | '.join(_shown(key, row.get(key, '')) for key in columns)} |")
    return "\n".join(lines)


def _shown(column: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0%}" if column in ("of the bound", "share", "time spared", "busy") else f"{value:.3g}"


def worse(name: str, result: dict[str, Any]) -> list[str]:
    """Figures that are worse by more than `WORSE` than in the result that was committed last, a line each.

    Compared are rows of the same words in the same order, measured on the same kind of machine.
    """
    earlier = committed(name)
    if earlier is None or earlier["time"] == result["time"]:
        return []
    kinds = [{key: one["machine"][key] for key in ("cpu", "cores", "gpu")} for one in (earlier, result)]
    if kinds[0] != kinds[1]:
        return [f"{name}: the last result is of another machine ({kinds[0]}), nothing is compared"]
    before, lines = figures(earlier["rows"]), []
    for (row, column), value in figures(result["rows"]).items():
        old = before.get((row, column))
        if old == 0 < value and sense(row, column) < 0:
            lines.append(f"WORSE {name}: {row}: {column} 0 -> {value:.4g}")
        ratio = value / old if old is not None and old > 0 and value > 0 else 1.0
        if ratio ** -sense(row, column) > 1 + WORSE:
            lines.append(f"WORSE {name}: {row}: {column} {old:.4g} -> {value:.4g} ({ratio:.2f} times)")
    return lines


def committed(name: str) -> dict[str, Any] | None:
    """The result as it stands in the last commit, if it does."""
    place = f"HEAD:./{name}.json"
    try:
        told = subprocess.run(["git", "show", place], cwd=RESULTS, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git, no commits
        return None
    return json.loads(told.stdout) if told.returncode == 0 else None


def earlier(name: str, *, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of ``results/<name>.json``, to add others to them; none without that file. Its settings must be the same."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    result = json.loads(path.read_text())
    if result["settings"] != json.loads(json.dumps(settings)):
        raise SystemExit(f"{path} was measured with other settings: {result['settings']}; give another --name")
    return result["rows"]


def sense(row: str, column: str) -> int:
    """1 if more is better, by the name of a column or of the row of a ``value``; -1 if less is; 0 if nobody can say."""
    name = row if column == "value" else column
    for sign, pattern in ((-1, LESS), (1, MORE)):
        if re.search(pattern, name, re.IGNORECASE):
            return sign
    return 0


def figures(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """All figures of a result by row and column.

    A row is named by its words, other than those of a result, and by its number among those of the same words.
    """
    found: dict[tuple[str, str], float] = {}
    seen: Counter[str] = Counter()
    for row in rows:
        words = ", ".join(value for key, value in row.items() if isinstance(value, str) and key not in ("succeeded", "result"))
        seen[words] += 1
        title = f"{words} #{seen[words]}"
        told = {key: value for key, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}
        found |= {(title, key): float(value) for key, value in told.items()}
    return found


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
