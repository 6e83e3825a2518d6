"""All results in one table, with machine and versions; what is worse than at the last commit is named.

Run after the benchmarks, as `make bench` does. What was not run again stands with the figures of its last time.
"""

import json
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
import record


def medians(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, int]]:
    """Median, and number of rows, of every figure that can be better or worse, over all rows of the same words."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (row, column), value in record.figures(rows).items():
        if record.sense(row, column) and not np.isnan(value):
            found[row.rsplit(" #", 1)[0], column].append(value)
    return {key: (float(np.median(values)), len(values)) for key, values in found.items()}


def table() -> pd.DataFrame:
    """A row for each figure: benchmark, day, machine, torch, of what, figure, median, and how many rows it is of."""
    rows = []
    for path in sorted(record.RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        machine = result["machine"]
        where = f"{machine['cpu']}, {machine['cores']} cores" + (f", {machine['gpu']}" if machine["gpu"] else "")
        about = {"benchmark": path.stem, "day": result["time"][:10], "machine": where, "torch": machine["torch"]}
        for (what, figure), (median, count) in medians(result["rows"]).items():
            rows.append(about | {"of": what, "figure": figure, "median": median, "rows": count})
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table, and what is worse."""
    print(table().to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    for path in sorted(record.RESULTS.glob("*.json")):
        for line in record.worse(path.stem, json.loads(path.read_text())):
            print(line)


if __name__ == "__main__":
    main()
