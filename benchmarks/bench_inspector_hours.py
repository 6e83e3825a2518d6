"""The inspector for eight hours of work in a few minutes: does it take more memory, files or time the longer it is open?

    python benchmarks/bench_inspector_hours.py

The browser's inspector, without a browser, on a run folder with 800 particles: 10,000 actions, one every three seconds of
eight hours, drawn at random from what a person does there (lassos in map and slices, new clusters, merging, splitting, names,
filters, undo, redo, pages, colours, and now and then a list or a quick average), each kept in the run folder at once. After
every 500 it is measured what the process holds.
"""

import argparse
import gc
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
from ipywidgets.widgets import widget

from tomolab import io, particles, simulation
from tomolab.inspection import Session
from tomolab.inspection.model import FEWEST
from tomolab.learning import Embedding
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms
from tomolab.ui.notebook import inspector
from tomolab.ui.notebook.inspector import Inspector
from tomolab.volumes import Volume

BOX, VOXEL_SIZE = 20, 20.0
RARE = 1000
"""Actions between two averages; a list is exported twice as often."""


def write_run(folder: Path, count: int) -> None:
    """A run folder with particles of two kinds in one tomogram."""
    rng = np.random.default_rng(0)
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=VOXEL_SIZE, box=BOX)
    look = Imaging(snr=0.5, tilts=(-60.0, 60.0))
    cut = simulation.subtomograms(maps, count // 2, imaging=look, box=BOX, seed=1, device="cpu")
    places = rng.uniform(0, 1, (len(cut), 3)) * [780.0, 1980.0, 1980.0]
    table = cut.particles.assign(
        z=places[:, 0], y=places[:, 1], x=places[:, 2], tomogram="cell", score=rng.normal(size=len(cut)), cluster=0
    )
    vectors = rng.normal(size=(len(cut), 16))
    vectors[:, 0] += 3.0 * (table["label"] == "tric")
    Subtomograms(cut.volumes, table.drop(columns="cluster"), VOXEL_SIZE).save(folder / "subtomograms.zarr")
    Embedding(cut.ids, vectors, "of a benchmark").save(folder / "embedding")
    io.write_particles(table, folder / "clusters.csv")
    io.write_volume(Volume(rng.normal(size=(40, 100, 100)).astype(np.float32), VOXEL_SIZE), folder / "tomogram.mrc")
    pd.DataFrame({"particle_id": cut.ids, "x": vectors[:, 0], "y": vectors[:, 1]}).to_csv(folder / "layout.csv", index=False)


class Person:
    """Somebody who works with an inspector, by what the browser would send; every draw comes from one seed."""

    def __init__(self, view: Inspector, *, seed: int) -> None:
        self.view, self.session, self.rng, self.done = view, view.session, np.random.default_rng(seed), 0
        self.filters, self.lists = view.filters, view.export
        likely: dict[Callable[[], Any], float] = {
            self.lasso: 0.3,
            self.slice: 0.1,
            self.tick: 0.1,
            self.gather: 0.1,
            self.undo: 0.08,
            self.move: 0.08,
            self.redo: 0.04,
            self.name: 0.04,
            self.filter: 0.04,
            self.page: 0.04,
            self.split: 0.03,
            self.colour: 0.03,
            self.hide: 0.02,
        }
        self.acts, self.odds = list(likely), np.array(list(likely.values())) / sum(likely.values())

    def act(self) -> None:
        """Do something."""
        self.done += 1
        if self.done % RARE == 0:
            self.average()
        elif self.done % (RARE // 2) == 0:
            self.export()
        elif len(self.session.clusters) > 30:
            self.merge(10)
        else:
            self.acts[self.rng.choice(len(self.acts), p=self.odds)]()

    def lasso(self) -> None:
        """Draw around a part of the map, by itself or with shift."""
        points = self.view.inspection.points[["x", "y"]].to_numpy()
        near = np.linalg.norm(points - points[self.rng.integers(len(points))], axis=1) < self.rng.uniform(0.2, 2.0)
        self.view.keyboard.how = str(self.rng.choice(["replace", "replace", "add"]))
        self.view.lasso.widget.selection = np.flatnonzero(near).astype(np.uint32)

    def slice(self) -> None:
        """Draw around something in the slice."""
        (left, top), width = self.rng.uniform(0, 80, 2), self.rng.uniform(5, 40)
        corners = [[left, top], [left + width, top], [left + width, top + width], [left, top + width]]
        self._tell(self.view.section.slice, type="lasso", at=corners, how="replace")

    def move(self) -> None:
        """Look at another slice."""
        self._tell(self.view.section.slice, type="step", by=int(self.rng.choice([-3, -1, 1, 3])))

    def tick(self) -> None:
        """Tick one or two clusters."""
        clusters = list(self.session.clusters)
        self.view.table.ticked = sorted(
            self.rng.choice(clusters, min(len(clusters), int(self.rng.integers(1, 3))), replace=False).tolist()
        )

    def gather(self) -> None:
        """New cluster."""
        self._tell(self.view.keyboard, key="N")

    def split(self) -> None:
        """Split what is ticked."""
        self._tell(self.view.keyboard, key="S")

    def undo(self) -> None:
        """Take back."""
        self._tell(self.view.keyboard, key="U")

    def redo(self) -> None:
        """Do again."""
        self._tell(self.view.keyboard, key="R")

    def merge(self, count: int) -> None:
        """Make the first clusters one."""
        self.view.table.ticked = list(self.session.clusters)[:count]
        self._tell(self.view.keyboard, key="M")

    def name(self) -> None:
        """Give a cluster a name that none has."""
        self._tell(self.view.table, cluster=self._some(), column="name", value=f"kind {self.done}")

    def hide(self) -> None:
        """Hide a cluster, or show it again."""
        number = self._some()
        self._tell(self.view.table, cluster=number, column="shown", value=self.session.clusters[number].hidden)

    def filter(self) -> None:
        """Leave out the low scores, or none."""
        self.filters.column.value = "score"
        self.filters.range.value = (float(self.rng.choice([self.filters.range.min, -1.0, 0.0])), self.filters.range.max)

    def page(self) -> None:
        """Turn a page of boxes."""
        self.view.gallery.forth.click()

    def colour(self) -> None:
        """Colour by something else."""
        self.view.colour.value = str(self.rng.choice(self.view.colour.options))

    def export(self) -> None:
        """Write a list of all, over the last one."""
        self.lists.name.value = "list"
        self.lists.button.click()

    def average(self) -> None:
        """A quick look at the smallest cluster that can be averaged, and wait for it."""
        counts = self.session.counts()
        self.view.table.ticked = [int(counts[counts >= FEWEST].idxmin())]
        before = len(self.view.inspection.jobs)
        self.view.buttons["quick"].click()
        for job in self.view.inspection.jobs[before:]:
            job.result()

    def _some(self) -> int:
        return int(self.rng.choice(list(self.session.clusters)))

    def _tell(self, widget: Any, **message: Any) -> None:
        widget._handle_custom_msg(message, [])


def held() -> dict[str, float]:
    """What this process holds: memory of its own in MB, files, threads, and widgets."""
    gc.collect()
    (own,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return {
        "own MB": int(own) / 1024,
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "widgets": len(widget._instances),
    }


def work(folder: Path, *, actions: int, every: int, minutes: float = 60.0, seed: int = 0) -> list[dict[str, Any]]:
    """A row after every so many actions, at most for some minutes."""
    view = inspector.open(folder)
    person = Person(view, seed=seed)
    rows: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * minutes
    while person.done < actions and time.monotonic() < end:
        # Of this thread: averages are made in another one.
        start = time.thread_time()
        for _ in range(every):
            person.act()
        seconds = (time.thread_time() - start) / every
        history, averages = view.session.history, view.inspection.averages
        kept = {"averages": len(averages), "steps": len(history.past), "steps MB": history.size / 2**20}
        size = (folder / "session.npz").stat().st_size / 2**20
        rows.append(
            {"actions": person.done, "computing per action (ms)": 1000 * seconds} | held() | kept | {"session.npz MB": size}
        )
        print(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    return rows


def slopes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What 1,000 actions add, from a line through the rows of the second half."""
    late = pd.DataFrame(rows[len(rows) // 2 :])
    return {name: float(np.polyfit(late["actions"], late[name], 1)[0] * 1000) for name in late.columns if name != "actions"}


def undone(count: int) -> dict[str, Any]:
    """How many steps can be taken back: lassos around 15 %, a new cluster of each, and its end."""
    table = particles.table(np.zeros((count, 3)))
    session, rng = Session(table), np.random.default_rng(0)
    while not session.history.older:
        session.select(session.ids[rng.uniform(size=count) < 0.15])
        session.unassign(session.new_cluster())
    return {"particles": count, "steps that can be undone": len(session.history.past), "steps MB": session.history.size / 2**20}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--particles", type=int, default=800)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # small averages are not to be believed
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder), given.particles)
        rows = work(Path(folder), actions=given.actions, every=given.every, minutes=given.minutes)
    added = {"actions": "added by 1,000"} | slopes(rows)
    record.write("inspector_hours", [*rows, added], settings=vars(given))
    record.write("inspector_undo", [undone(count) for count in (10_000, 100_000, 1_000_000)], settings={})


if __name__ == "__main__":
    main()
