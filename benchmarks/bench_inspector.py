"""The inspector in Chromium: how it answers with a million particles, and a first user's way to a named class.

    python benchmarks/bench_inspector.py
    python benchmarks/bench_inspector.py --parts journey --pictures docs

A million particles lie in a hundred tomograms and fifty clusters. The journey is the tour at its usual scale: run all,
draw around a group, make a cluster of it, name and tick it, average. JupyterLab and Chromium run on this machine, which may
have no GPU to draw with.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import test_jupyterlab as browser

LEFT, RIGHT = ([(a, 0.01), (b, 0.01), (b, 0.99), (a, 0.99)] for a, b in ((0.01, 0.49), (0.51, 0.99)))
PARTS = ("million", "journey")
OUTLINE = """import json

import numpy as np

places = points.set_index("particle_id")[["x", "y"]]
low, high = places.min(), places.max()
# The map shows a tenth more than the points take.
placed = (places - (low + high) / 2) / (1.1 * (high - low) / 2)
held = placed.loc[work.session.members(largest).ids]
middle = held.median()
reach = 1.3 * (held - middle).abs().quantile(0.9)
turn = np.linspace(0, 2 * np.pi, 24)[:, None]
print(json.dumps((middle.to_numpy() + reach.to_numpy() * np.hstack([np.cos(turn), np.sin(turn)])).tolist()))"""
"""A cell that prints an outline of the largest cluster, in shares of half of the map."""
MEMORY = "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="lassos of each kind, of which the median counts")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the journey")
    options = parser.parse_args()
    for part in options.parts:
        with tempfile.TemporaryDirectory() as place:
            notebooks, home = Path(place, "notebooks"), Path(place, "home")
            notebooks.mkdir()
            write_notebooks(notebooks)
            with browser.serving(notebooks, home, scale="laptop") as address, browser.opened() as chromium:
                page = chromium.new_page(viewport={"width": 1280, "height": 720})
                if part == "million":
                    rows = million(page, address.format("million.ipynb"), times=options.times)
                else:
                    rows = journey(page, address.format("tour.ipynb"), options.pictures)
        record.write(f"inspector_{part}", rows, settings={"window": "1280 x 720", "times": options.times})


def write_notebooks(folder: Path) -> None:
    """The million, and the tour with a cell after it that tells where a group lies in the map."""
    given, shown = browser.MILLION
    browser.write_notebook(folder / "million.ipynb", [given, MEMORY, shown, MEMORY])
    tour = nbformat.read(Path(__file__).parents[1] / "notebooks" / "00_tour.ipynb", as_version=4)
    tour.cells.append(nbformat.v4.new_code_cell(OUTLINE))
    nbformat.write(tour, folder / "tour.ipynb")


def journey(page: Any, address: str, pictures: Path | None) -> list[dict[str, Any]]:
    """From JupyterLab, open on the tour, to a named class with its average: clicks, and minutes."""
    start, clicks, rows = time.perf_counter(), 0, []

    def done(what: str, more: int, name: str = "") -> None:
        nonlocal clicks
        clicks += more
        rows.append({"what": what, "clicks": clicks, "minutes": (time.perf_counter() - start) / 60})
        if pictures is not None and name:
            page.wait_for_timeout(1500)
            page.screenshot(path=pictures / f"inspector_{name}.png")

    state = browser.run_all(page, address, seconds=900)
    assert not state["errors"], state["errors"]
    done("menu Run, Run All Cells, until the tour is over", 2)
    corners = json.loads(page.locator(".jp-OutputArea-output pre").last.inner_text())
    page.keyboard.press("Control+b")
    canvas, table = page.locator(".tomolab-inspector canvas").first, page.locator(".tomolab-clusters")
    assert browser.is_drawn(canvas), "the map stayed empty"
    page.locator(".tomolab-said").evaluate("element => element.scrollIntoView()")
    page.wait_for_timeout(2000)
    frame = canvas.bounding_box()
    # The shorter side of the map goes from -1 to 1.
    half = min(frame["width"], frame["height"]) / 2
    places = [(0.5 + x * half / frame["width"], 0.5 - y * half / frame["height"]) for x, y in corners]
    browser.drag(page, canvas, places)
    page.locator(".tomolab-said", has_text="lasso in the map").wait_for(timeout=20_000)
    page.wait_for_timeout(1000)
    assert int(page.locator(".tomolab-said b").inner_text()) > 100, "the lasso holds less than the group"
    done("a lasso in the map", 1, "lasso")
    page.get_by_role("button", name="New cluster").click()
    page.locator(".tomolab-said", has_text="new cluster").wait_for(timeout=20_000)
    done("New cluster", 1)
    name = table.locator("input.name").last
    name.click()
    page.keyboard.type("what I drew around")
    page.keyboard.press("Enter")
    done("its name", 1)
    table.locator("input.tick").last.check()
    page.get_by_role("tab", name="Averages").click()
    page.get_by_role("button", name=re.compile("Average$")).click()
    page.get_by_text(re.compile(r"^refine \d+ of")).first.wait_for(timeout=600_000)
    if pictures is not None:
        page.screenshot(path=pictures / "inspector_running.png")
    page.get_by_text(re.compile(r"particles, halves agree to \d+ Å, \d+ s")).first.wait_for(timeout=600_000)
    done("tick, Averages, Average, until it is there", 3, "average")
    return rows


def million(page: Any, address: str, *, times: int) -> list[dict[str, Any]]:
    """Open, draw around a few and around many, make clusters of them, undo."""
    browser.begin(page, address)
    page.locator(".jp-OutputArea-output pre").first.wait_for(timeout=200_000)
    start = time.perf_counter()
    canvas, said = page.locator(".tomolab-inspector canvas").first, page.locator(".tomolab-said")
    canvas.wait_for(timeout=100_000)
    assert browser.is_drawn(canvas), "the map stayed empty"
    opened = time.perf_counter() - start
    page.keyboard.press("Control+b")
    page.wait_for_timeout(3000)

    def answered(act: Any) -> float:
        """Seconds from the end of an action until the page says something else."""
        before = said.inner_text()
        act()
        start = time.perf_counter()
        page.wait_for_function("old => document.querySelector('.tomolab-said').innerText !== old", arg=before, timeout=60_000)
        seconds = time.perf_counter() - start
        page.wait_for_timeout(2000)
        return seconds

    many = [answered(lambda corners=corners: browser.drag(page, canvas, corners)) for corners in [RIGHT, LEFT] * times]
    button = {name: page.get_by_role("button", name=name) for name in ("New cluster", "Undo")}
    parts = [answered(button[name].click) for name in ("New cluster", "Undo") * times]
    before, after = (float(one) for one in page.locator(".jp-OutputArea-output pre").all_inner_texts())
    return [
        {"what": "opened and drawn (s)", "value": opened},
        {"what": "lasso of 850,000 answered (s)", "value": statistics.median(many[::2])},
        {"what": "lasso of 150,000 answered (s)", "value": statistics.median(many[1::2])},
        {"what": "new cluster of 150,000 answered (s)", "value": statistics.median(parts[::2])},
        {"what": "undo answered (s)", "value": statistics.median(parts[1::2])},
        {"what": "kernel's memory with the particles (GB)", "value": before},
        {"what": "with the inspector (GB)", "value": after},
    ]


if __name__ == "__main__":
    main()
