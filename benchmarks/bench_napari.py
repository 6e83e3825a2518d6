"""The inspector's napari with 100,000 particles in one tomogram: seconds until it has followed, frames a second, memory.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/bench_napari.py

Without a GPU the processor draws. A merge and selections are timed from the call until napari has drawn them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import record

from tomolab import particles
from tomolab.inspection import Inspection, Session
from tomolab.ui.napari import link, viewer
from tomolab.volumes import Volume


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="particles")
    parser.add_argument("--times", type=int, default=5, help="of each, of which the median counts")
    options = parser.parse_args()
    rows = measure(options.count, options.times)
    record.write("napari", rows, settings={"particles": options.count, "times": options.times})


def measure(count: int, times: int) -> list[dict[str, Any]]:
    """Open, merge and undo, select there and here, go through slices."""
    from qtpy.QtWidgets import QApplication

    rng = np.random.default_rng(0)
    table = particles.table(rng.uniform(0, 1, (count, 3)) * [3000, 9000, 9000], tomogram="cell")
    session = Session(table, pd.Series(rng.integers(0, 20, count), index=table["particle_id"]))
    cell = Volume(rng.normal(size=(150, 450, 450)).astype(np.float32), 20.0)
    work = Inspection(session, tomograms={"cell": cell}, diameter=250.0)
    before = record.peak_memory()

    def drawn(act: Callable[[], Any]) -> float:
        start = time.perf_counter()
        act()
        QApplication.processEvents()
        window.screenshot(canvas_only=True, flash=False)
        return time.perf_counter() - start

    start = time.perf_counter()
    window = viewer.open()
    shown = link.link(window, work)
    window.screenshot(canvas_only=True, flash=False)
    opened = time.perf_counter() - start
    spent: dict[str, list[float]] = {}
    for number in range(times):
        few = rng.choice(count, 30_000, replace=False)
        for what, act in {
            "merge": lambda: session.merge([0, 1]),
            "undo": session.undo,
            "select 30,000 here": lambda few=few: session.select(session.ids[few], "bench"),
            "select 30,000 in napari": lambda first=number: setattr(
                shown.points, "selected_data", set(range(first, first + 30_000))
            ),
            "another slice": lambda first=number: window.dims.set_point(0, 1000.0 + 100 * first),
        }.items():
            spent.setdefault(what, []).append(drawn(act))
    rows = [{"what": "opened (s)", "value": opened}]
    rows += [{"what": f"{what} (s)", "value": statistics.median(seconds)} for what, seconds in spent.items()]
    rows += [{"what": "memory before napari (GB)", "value": before}, {"what": "with it (GB)", "value": record.peak_memory()}]
    shown.close()
    window.close()
    return rows


if __name__ == "__main__":
    main()
