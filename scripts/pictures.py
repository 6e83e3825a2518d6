"""Makes the pictures of the inspector in docs/ anew: `python scripts/pictures.py [FOLDER]`.

A tomogram of three complexes is simulated, embedded and clustered. `tomolab inspect` shows it, and Chromium draws a lasso,
averages the group and discovers the structures, as a person would. Then napari shows the structures where they were found, and
picks by hand. Without a display, `xvfb-run -a` makes one.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from tomolab import clusters, inspection, io, learning, simulation, subtomograms
from tomolab.ui import napari

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import test_jupyterlab as browser  # noqa: E402 - of the tests

COMPLEXES = ("ribosome_70s", "tric", "ruvab")
PER_COMPLEX = 70
WINDOW = {"width": 1280, "height": 960}
NAPARI, DOCK = (1150, 800), 330
"""Pixels: the window of napari, and the width of the dock in it."""


def write_run(folder: Path) -> None:
    """Write the run folder that the pictures show."""
    network = learning.load_network("default")
    maps = simulation.load_densities(COMPLEXES, voxel_size=network.voxel_size, box=network.box)
    imaging = simulation.Imaging(snr=0.2, tilts=(-60, 60))
    volume, truth = simulation.tomogram(maps, PER_COMPLEX, shape=(60, 220, 300), imaging=imaging, seed=1)
    folder.mkdir()
    boxes = subtomograms.extract(volume, truth, box=network.box, path=folder / "subtomograms.zarr", check_contrast=False)
    features = learning.embed(network, boxes)
    features.save(folder / "embedding")
    clusters.layout(features, method="tsne", seed=1).to_csv(folder / "layout.csv", index=False)
    io.write_volume(volume, folder / "tomogram.mrc")
    labels = clusters.kmeans(features, 2 * len(COMPLEXES), seed=1)
    io.write_particles(boxes.particles.assign(cluster=labels.to_numpy(), diameter=250.0), folder / "clusters.csv")


def group(folder: Path) -> list[tuple[float, float]]:
    """Outline of the ribosomes in the map, in shares of its width and height."""
    table = io.read_particles(folder / "clusters.csv")
    layout = np.loadtxt(folder / "layout.csv", delimiter=",", skiprows=1)
    places = layout[:, 1:] - (layout[:, 1:].min(axis=0) + layout[:, 1:].max(axis=0)) / 2
    places /= 1.1 * np.ptp(places, axis=0) / 2
    held = places[(table["label"] == COMPLEXES[0]).to_numpy()]
    middle = np.median(held, axis=0)
    reach = 1.25 * np.quantile(np.abs(held - middle), 0.92, axis=0)
    turn = np.linspace(0, 2 * np.pi, 24)
    return [tuple(one) for one in middle + reach * np.column_stack([np.cos(turn), np.sin(turn)])]


def journey(page: Page, outline: list[tuple[float, float]], pictures: Path) -> None:
    """Draw around a group, average it, and discover all structures; photograph each."""

    def photograph(name: str) -> None:
        page.mouse.move(5, 5)
        page.wait_for_timeout(1500)
        page.screenshot(path=pictures / f"{name}.png")

    def click(name: str) -> None:
        page.get_by_role("button", name=re.compile(rf"{name}\s*$"), disabled=False).first.click()

    canvas, table = page.locator(".tomolab-inspector canvas").first, page.locator(".tomolab-clusters")
    assert browser.is_drawn(canvas)
    page.wait_for_timeout(2000)
    frame = canvas.bounding_box()
    half = min(frame["width"], frame["height"]) / 2
    browser.drag(page, canvas, [(0.5 + x * half / frame["width"], 0.5 - y * half / frame["height"]) for x, y in outline])
    page.locator(".tomolab-said", has_text="lasso in the map").wait_for(timeout=20_000)
    photograph("inspector_lasso")
    click("New cluster")
    page.locator(".tomolab-said", has_text="new cluster of").wait_for(timeout=20_000)
    page.wait_for_timeout(1000)
    table.locator("input.name").last.fill("what I drew around")
    page.keyboard.press("Enter")
    table.locator("input.tick").last.check()
    page.get_by_role("tab", name="Averages").click()
    click("Average")
    page.get_by_text(re.compile(r"^search \d\d of")).first.wait_for(timeout=600_000)
    page.screenshot(path=pictures / "inspector_running.png")
    page.get_by_text(re.compile(r"particles, halves agree to \d+ Å, \d+ s")).first.wait_for(timeout=900_000)
    photograph("inspector_average")
    table.locator("input.tick").last.uncheck()
    click("Discover")
    # The structures and then their averages replace the clusters.
    table.locator("img").nth(len(COMPLEXES) - 1).wait_for(timeout=900_000)
    table.locator("input.tick").first.check()
    photograph("inspector")


def photograph_napari(folder: Path, pictures: Path) -> None:
    """Show the averages where their particles are, then pick by hand; photograph both."""
    from tomolab.ui.napari.dock import Inspector

    def settle() -> None:
        for _ in range(30):
            QApplication.instance().processEvents()
            time.sleep(0.03)

    def photograph(name: str) -> None:
        settle()
        viewer.window._qt_window.grab().save(str(pictures / f"{name}.jpg"), quality=88)

    # The pictures show a path.
    os.chdir(folder.parent)
    viewer = napari.open_viewer()
    viewer.window._qt_window.resize(*NAPARI)
    work = inspection.open(folder.name)
    dock = Inspector(viewer, work)
    held = viewer.window.add_dock_widget(dock, name="tomolab", area="right")
    viewer.window._qt_window.resizeDocks([held], [DOCK], Qt.Orientation.Horizontal)
    settle()
    dock.panel.map.setChecked(True)
    photograph("inspector_napari")
    dock.panel.map.setChecked(False)
    dock.panel.tabs.setCurrentIndex(dock.panel.tabs.count() - 1)
    dock.panel.picking.name.setText("my_picks")
    layer = dock.panel.picking.picks.start()
    for other in viewer.layers[1:]:
        other.visible = other is layer
    particles = work.session.particles
    height = particles["z"].median()
    near = particles[(particles["z"] - height).abs() < 4 * work.subtomograms.voxel_size]
    layer.add(near.assign(z=height)[["z", "y", "x"]].to_numpy())
    layer.selected_data = set()
    viewer.dims.set_point(0, height)
    settle()
    dock.panel.picking.save.click()
    photograph("inspector_picks")
    dock.close_inspection()
    viewer.close()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs")
    pictures = parser.parse_args().folder.resolve()
    with tempfile.TemporaryDirectory() as place:
        run = Path(place, "cell")
        write_run(run)
        words = [sys.executable, "-m", "tomolab", "inspect", str(run), "--no-browser"]
        with (
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as command,
            browser.opened() as chromium,
        ):
            url = next(found[0] for line in command.stdout if (found := re.search(r"http://\S+", line)))
            page = chromium.new_page(viewport=WINDOW, color_scheme="light")
            try:
                page.goto(url, timeout=300_000)
                page.locator(".tomolab-clusters").wait_for(timeout=300_000)
                journey(page, group(run), pictures)
            finally:
                command.send_signal(signal.SIGINT)
        photograph_napari(run, pictures)


if __name__ == "__main__":
    main()
