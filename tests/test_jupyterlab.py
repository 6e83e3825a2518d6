"""JupyterLab as a person meets it: opened in Chromium, all cells run from the menu, figures and scatter plots drawn."""

import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import write_run
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tomolab import inspection
from tomolab import io as tomolab_io

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--force-device-scale-factor=1"),
)
# All cells in the page, seen or not; no questions about news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# JupyterLab shows tracebacks and warnings in the same kind of output; only a traceback opens with a rule or a cell's name.
STATE = """() => {
    const texts = query => [...document.querySelectorAll(query)].map(element => element.textContent);
    const prompts = texts('.jp-Notebook .jp-CodeCell .jp-InputPrompt');
    const complaints = texts('.jp-Notebook [data-mime-type="application/vnd.jupyter.stderr"]');
    return {cells: prompts.length, done: prompts.filter(text => /\\[\\d+\\]/.test(text)).length,
            errors: complaints.filter(text => /^\\s*(-{20,}|Cell In)/.test(text))};
}"""
SMALL = [
    "import numpy as np\nimport pandas as pd\nimport matplotlib.pyplot as plt\nimport jscatter",
    "points = np.random.default_rng(0).normal(size=(500, 2))",
    "plt.scatter(*points.T)\nplt.show()",
    "table = pd.DataFrame(points, columns=['first', 'second'])\njscatter.Scatter(data=table, x='first', y='second').show()",
]
AVERAGE = [
    "import time\n\nfrom tomolab import averaging, jobs, simulation\n"
    "from tomolab.simulation import densities, imaging\nfrom tomolab.ui.notebook import jobs as job_widgets",
    "look = imaging.Imaging(snr=0.3, tilts=(-60, 60))\nmaps = densities.load(['tric'], voxel_size=20, box=20)\n"
    "few = simulation.subtomograms(maps, 24, imaging=look, box=20, seed=1)",
    "job = jobs.start('chaperonin', averaging.average, few, seed=1, iterations=5000)\njob_widgets.watch(job)",
    "time.sleep(12)",
]

# A million particles in a hundred tomograms, of which 150,000 lie apart from the others in the map.
MILLION = [
    """import pathlib

import numpy as np
import pandas as pd

from tomolab import particles
from tomolab.inspection import Inspection
from tomolab.inspection import Session
from tomolab.ui.notebook import inspector
from tomolab.volumes import Volume

rng, count, apart = np.random.default_rng(0), 1_000_000, 150_000
points = pd.DataFrame({"x": rng.normal(3, 0.5, count), "y": rng.normal(0, 2, count)}).clip(-6, 6)
points.loc[points.index[:apart], "x"] -= 6
kinds = rng.integers(0, 50, count)
tomograms = np.array([f"TS_{number:02d}" for number in range(100)])[rng.integers(0, 100, count)]
table = particles.table(rng.uniform(0, 1, (count, 3)) * [2000, 4000, 4000], tomogram=tomograms)
points = points.assign(particle_id=table["particle_id"])
one = Volume(rng.normal(size=(100, 200, 200)).astype(np.float32), 20.0)
session = Session(table, pd.Series(kinds, index=table["particle_id"]))
work = Inspection(session, points=points, tomograms={"TS_07": one}, diameter=250.0)""",
    "view = inspector.Inspector(work)\nview",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory, boxes) -> Path:
    """The run folder of the notebooks, as if 03 to 05 had been run."""
    return write_run(tmp_path_factory.mktemp("lab") / "runs" / "first", boxes)


@pytest.fixture(scope="module")
def folder(run) -> Path:
    """A copy of the notebooks, with small ones beside them."""
    folder = run.parents[1] / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name, cells in {"small": SMALL, "average": AVERAGE, "broken": ["1 / 0", "2"]}.items():
        write_notebook(folder / f"{name}.ipynb", cells)
    write_notebook(folder / "million.ipynb", [*MILLION, f"view.inspection.folder = pathlib.Path({str(run)!r})"])
    return folder


def write_notebook(path: Path, cells: list[str]) -> None:
    """A notebook of these code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory) -> Iterator[str]:
    """Address of a JupyterLab of our own on this machine, with `{}` where the notebook's name goes."""
    with serving(folder, tmp_path_factory.mktemp("jupyter")) as address:
        yield address


@contextmanager
def serving(folder: Path, home: Path, *, scale: str = "tiny") -> Iterator[str]:
    """JupyterLab over a folder of notebooks, with its settings in another; its address, as of `lab`."""
    token = secrets.token_hex(16)
    for name, content in SETTINGS.items():
        path = home / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = f"http://127.0.0.1:{port}"
    options = [
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
    ]
    options += [f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}"]
    variables = {name: value for name, value in os.environ.items() if name != "MPLBACKEND" and not name.startswith("JUPYTER")}
    variables |= {"JUPYTER_CONFIG_DIR": str(home), "TOMOLAB_SCALE": scale, "TOMOLAB_RUNS": str(folder.parent / "runs")}
    variables |= {"NAPARI_APPLICATION_IPY_INTERACTIVE": "0"}
    log = home / "log.txt"
    with (
        log.open("w") as sink,
        subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=variables, stdout=sink, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            wait_for(f"{server}/api/status?token={token}", process, log)
            yield f"{server}/lab/tree/{{}}?token={token}&reset"
        finally:
            process.terminate()


def wait_for(address: str, process: subprocess.Popen, log: Path, *, seconds: float = 90) -> None:
    """Return once the server answers; fail with its log if it stops or stays silent."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for all tests."""
    with opened() as browser:
        yield browser


@contextmanager
def opened() -> Iterator[Browser]:
    """Chromium from the system, since playwright's own may not be there."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert program, f"none of {', '.join(BROWSERS)} is installed: run scripts/libraries.sh test"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh window; where a test fails in it, what it showed then is printed, and kept as a picture."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    window = context.new_page()
    failures = request.session.testsfailed
    try:
        yield window
        if request.session.testsfailed > failures:
            photograph(window, f"failed-{request.node.name}")
            sys.stderr.write(window.locator("body").inner_text()[-6000:])
    finally:
        context.close()


def begin(page: Page, address: str) -> None:
    """Open a notebook, and run all cells from the menu."""
    page.goto(address, timeout=90_000)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=90_000)
    # Asked to run before the kernel answers, JupyterLab would ask which kernel.
    page.locator(".jp-StatusBar-TextItem", has_text="| Idle").wait_for(timeout=90_000)
    page.wait_for_timeout(1000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def run_all(page: Page, address: str, *, seconds: float) -> dict:
    """Run all cells of a notebook, and wait until the last is done or one fails."""
    begin(page, address)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = page.evaluate(STATE)
        if state["errors"] or state["done"] == state["cells"]:
            return state
        page.wait_for_timeout(500)
    return page.evaluate(STATE)


def photograph(page: Page, name: str) -> Path:
    """Keep a picture of the page in runs/browser, for people."""
    path = ROOT / "runs" / "browser" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    return path


def is_drawn(element: Locator, *, seconds: float = 60) -> bool:
    """Whether an element shows more than one flat colour, within some time: WebGL without a GPU is slow to start."""
    element.scroll_into_view_if_needed()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pixels = np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("L"), dtype=float)
        if pixels.std() > 1:
            return True
        time.sleep(0.5)
    return False


def check(page: Page, lab: str, name: str, *, seconds: float) -> None:
    """Run a notebook and look at what it drew."""
    state = run_all(page, lab.format(f"{name}.ipynb"), seconds=seconds)
    try:
        assert state["errors"] == []
        assert state["done"] == state["cells"] > 0, f"only {state['done']} of {state['cells']} cells ran within {seconds} s"
        figures = page.locator(".jp-OutputArea-output img:visible")
        assert figures.count() > 0, "no figure"
        assert all(figures.nth(index).evaluate("image => image.naturalWidth") > 50 for index in range(figures.count()))
        canvas = page.locator(".jp-OutputArea-output canvas").first
        canvas.wait_for(timeout=60_000)
        assert is_drawn(canvas), "the scatter plot stayed empty"
    finally:
        photograph(page, name)


def test_figure_and_scatter_plot_are_drawn(page, lab):
    check(page, lab, "small", seconds=120)


def test_failing_cell_is_seen(page, lab):
    state = run_all(page, lab.format("broken.ipynb"), seconds=60)
    assert "ZeroDivisionError" in state["errors"][0]


def test_an_average_is_watched_while_a_cell_computes_and_is_stopped(page, lab):
    begin(page, lab.format("average.ipynb"))
    said, picture = page.get_by_text(re.compile(r"^search \d+ of .* Å")), page.locator(".jp-OutputArea-output img")
    said.wait_for(timeout=120_000)
    seen = set()
    while page.evaluate(STATE)["done"] < len(AVERAGE):
        seen.add((said.text_content(), picture.get_attribute("src")))
        page.wait_for_timeout(250)
    assert len({text for text, _ in seen}) > 3
    assert len({source for _, source in seen}) > 3
    photograph(page, "average")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text(re.compile(r"^stopped; 24 particles, halves agree to \d+ Å")).wait_for(timeout=60_000)
    assert page.get_by_role("button", name="Stop").is_disabled()


def drag(page: Page, canvas: Locator, corners: list[tuple[float, float]], *, key: str = "") -> None:
    """Draw around a part of a canvas, in shares of its width and height, perhaps with a key held."""
    canvas.scroll_into_view_if_needed()
    frame = canvas.bounding_box()
    assert frame is not None
    places = [(frame["x"] + across * frame["width"], frame["y"] + down * frame["height"]) for across, down in corners]
    if key:
        page.keyboard.down(key)
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in [*places[1:], places[0]]:
        page.mouse.move(*place, steps=8)
        page.wait_for_timeout(30)
    page.mouse.up()
    if key:
        page.keyboard.up(key)


def test_an_inspection_by_hand_is_kept(page, lab, run):
    page.set_viewport_size({"width": 1280, "height": 720})
    state = run_all(page, lab.format("06_inspect.ipynb"), seconds=300)
    assert state["errors"] == []
    page.keyboard.press("Control+b")
    table, said = page.locator(".tomolab-clusters"), page.locator(".tomolab-said")
    table.wait_for(timeout=30_000)
    canvas, cut = page.locator(".tomolab-inspector canvas").first, page.locator(".tomolab-slice canvas")
    assert is_drawn(canvas)
    assert is_drawn(cut)
    page.wait_for_timeout(2000)
    left, right = ([(a, 0.02), (b, 0.02), (b, 0.98), (a, 0.98)] for a, b in ((0.02, 0.49), (0.51, 0.98)))

    def expect(text: str) -> None:
        said.filter(has_text=re.compile(text)).wait_for(timeout=20_000)

    # A lasso in the map is followed by the slice; shift adds, alt takes away.
    before = cut.screenshot()
    drag(page, canvas, left)
    expect(r"^\s*16 of 32 particles selected")
    page.wait_for_timeout(500)
    assert cut.screenshot() != before
    drag(page, canvas, right, key="Shift")
    expect(r"^\s*32 of 32 particles selected")
    drag(page, canvas, left, key="Alt")
    expect(r"^\s*16 of 32 particles selected")
    # A lasso in the slice is followed by the map.
    drag(page, cut, [(0.02, 0.02), (0.97, 0.02), (0.97, 0.97), (0.02, 0.97)])
    expect(r"lasso in the tomogram")
    page.keyboard.press("u")
    expect(r"^\s*16 of 32 particles selected")
    # A cluster of its own, merged, and parted again by a key.
    page.get_by_role("button", name="New cluster").click()
    expect("new cluster of 16 particles")
    boxes = table.locator("input.tick")
    assert boxes.count() == 2
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Merge").click()
    expect(r"merge cluster 0, cluster \d")
    assert boxes.count() == 1
    boxes.nth(0).uncheck()
    page.keyboard.press("u")
    expect("new cluster of 16 particles")
    table.locator("input.name").nth(1).fill("drawn by hand")
    page.keyboard.press("Enter")
    expect("drawn by hand")
    # Its average, watched until it is there.
    boxes.nth(1).check()
    page.get_by_role("tab", name="Averages").click()
    page.get_by_role("button", name="Quick look").click()
    page.get_by_text(re.compile(r"^16 particles, halves agree to \d+ Å")).first.wait_for(timeout=120_000)
    # The other cluster has lost particles, so its average is not of what it is now.
    table.locator("img").first.wait_for(timeout=20_000)
    assert table.locator("img").count() == 1
    page.wait_for_timeout(1000)
    photograph(page, "inspect")
    # All of it is in the run folder, and on the page when it is loaded again.
    work = inspection.open(run)
    assert work.session.counts().tolist() == [16, 16]
    drawn = max(work.session.clusters)
    assert work.session.title(drawn) == "drawn by hand"
    assert list(work.averages) == ["cluster 0, quick", "drawn by hand, quick"]
    assert inspection.export(work, run / "one.star", [drawn]).count == len(tomolab_io.read_particles(run / "one.star")) == 16
    page.keyboard.press("Control+s")
    page.wait_for_timeout(1500)
    page.goto(lab.format("06_inspect.ipynb").replace("&reset", ""), timeout=90_000)
    table.wait_for(timeout=60_000)
    expect("drawn by hand")
    assert table.get_by_label("name of drawn by hand").input_value() == "drawn by hand"
    assert table.locator("img").count() == 1


def test_150_000_of_a_million_are_as_many_on_the_page_and_in_the_file(page, lab, run):
    state = run_all(page, lab.format("million.ipynb"), seconds=180)
    assert state["errors"] == []
    page.keyboard.press("Control+b")
    canvas, said = page.locator(".tomolab-inspector canvas").first, page.locator(".tomolab-said")
    assert is_drawn(canvas)
    page.wait_for_timeout(3000)
    drag(page, canvas, [(0.01, 0.01), (0.49, 0.01), (0.49, 0.99), (0.01, 0.99)])
    said.filter(has_text=re.compile(r"^\s*150,000 of 1,000,000 particles selected")).wait_for(timeout=60_000)
    page.get_by_role("button", name="New cluster").click()
    said.filter(has_text="new cluster of 150,000 particles").wait_for(timeout=60_000)
    row = page.locator(".tomolab-clusters tr").last
    assert row.inner_text().split()[:2] == ["150,000", "150,000"]
    row.locator("input.tick").check()
    # What can be done with a ticked cluster can be done as soon as the kernel knows of the tick.
    page.get_by_role("button", name="Unassign", disabled=False).wait_for(timeout=60_000)
    page.get_by_role("tab", name="Export").click()
    page.locator(".tomolab-inspector select", has_text="Dynamo").select_option("all columns (.csv)")
    page.get_by_role("button", name="Write").click()
    page.get_by_text("150,000 particles are in chosen.csv").wait_for(timeout=60_000)
    photograph(page, "million")
    assert len(pd.read_csv(run / "chosen.csv", usecols=["particle_id"])) == 150_000


def test_tour_runs_from_top_to_bottom(page, lab):
    check(page, lab, "00_tour", seconds=600)
