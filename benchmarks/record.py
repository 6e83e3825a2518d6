"""What all benchmarks do with their rows: print them as a table, and write them as JSON with the machine and versions."""

import json
from datetime import UTC, datetime
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
