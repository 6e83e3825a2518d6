"""The inspector: map of the particles, slices of their tomograms, clusters, boxes and averages as one thing, in the browser.

All of it shows one inspection and changes that only: what is drawn around in one view is selected in every other, every
step can be undone, and what the run folder holds is what is seen.

>>> from tomolab.ui.notebook import inspector
>>> inspector.open("runs/first")             # shows in a notebook
>>> inspector.Inspector(inspection)          # of one that is there
"""

import html
import itertools
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
from ipywidgets import HTML, BoundedIntText, Button, Dropdown, FloatRangeSlider, HBox, Layout, Tab, VBox
from traitlets import List, Unicode

from tomolab.conventions import BOX, READ_POSE, SOURCE
from tomolab.inspection import model as inspections
from tomolab.inspection.model import COMPONENTS, Inspection
from tomolab.inspection.run_contents import SESSION
from tomolab.inspection.session import NONE, Session
from tomolab.ui import style
from tomolab.ui.napari import link, viewer
from tomolab.ui.notebook import scatter
from tomolab.ui.notebook.averages import Averages
from tomolab.ui.notebook.cluster_table import Roster
from tomolab.ui.notebook.export import Export
from tomolab.ui.notebook.gallery import Gallery
from tomolab.ui.notebook.slices import Section

CLUSTER = "cluster"
"""What particles are coloured by at first."""
FEW = 40
"""Kinds of a column, at most, to colour by."""
KEYS = {
    "N": "gather",
    "M": "merge",
    "S": "split",
    "X": "dissolve",
    "U": "undo",
    "Ctrl+Z": "undo",
    "R": "redo",
    "Ctrl+Shift+Z": "redo",
    "A": "average",
    "Q": "quick",
    "Escape": "clear",
}
"""What a key does while the inspector has the focus."""


class Keys(anywidget.AnyWidget):  # type: ignore[misc]
    """What is held and pressed on the keyboard."""

    _esm = Path(__file__).with_name("keys.js")
    watched: Any = List([]).tag(sync=True)
    how = Unicode("replace").tag(sync=True)


class Inspector(VBox):  # type: ignore[misc]
    """All views of an inspection.

    Parameters
    ----------
    inspection
        What to inspect. Views of what it lacks are left out.
    height
        Of the map and the slices, in pixels.
    """

    def __init__(self, inspection: Inspection, *, height: int = 370) -> None:
        self.inspection, self.session = inspection, inspection.session
        self.keyboard = Keys(watched=list(KEYS))
        self.keyboard.on_msg(lambda _, message, __: self.act(KEYS[message["key"]]))
        self.said = HTML(layout=Layout(flex="1 1 0", min_width="0", overflow="hidden"))
        self.said.add_class("tomolab-said")
        self.roster = Roster(inspection, say=self.say)
        self.roster.observe(lambda _: self._ticked(), "ticked")
        self.averages = Averages(inspection, ticked=lambda: self.roster.ticked, say=self.say)
        self.gallery = Gallery(inspection, ticked=lambda: self.roster.ticked, went=self._go)
        self.section = Section(inspection, height=height) if inspection.tomograms else None
        self.lasso = None if inspection.points is None else self._map(height)
        self.buttons = {name: self._button(name) for name in ACTIONS}
        self.parts = BoundedIntText(value=2, min=2, max=20, layout=Layout(width="48px"), tooltip="parts of a split")
        self.axes = Dropdown(
            options=_axes(inspection),
            layout=Layout(width="130px", flex="0 0 auto"),
            tooltip="what lies along the axes of the map",
        )
        self.axes.layout.display = None if len(self.axes.options) > 1 else "none"
        self.axes.observe(lambda _: self._place(), "value")
        self.colour = Dropdown(
            options=_columns(inspection),
            layout=Layout(width="110px", flex="0 0 auto"),
            tooltip="what the colours of the map mean",
        )
        self.colour.observe(lambda _: self._colour(), "value")
        tabs = Tab(
            [
                self.gallery,
                self.averages,
                Filters(self.session),
                Export(inspection, ticked=lambda: list(self.roster.ticked), say=self.say),
            ]
        )
        tabs.titles, tabs.layout.width = ("Boxes", "Averages", "Filters", "Export"), "54%"
        middle = Layout(align_items="center", flex_flow="row wrap")
        most = [self.buttons[name] for name in ("undo", "redo", "clear", "napari")]
        top = HBox([*most, self.axes, self.colour, self.said], layout=Layout(align_items="center"))
        acts = [self.buttons[name] for name in ("gather", "merge", "split")] + [self.parts, self.buttons["dissolve"]]
        left = VBox([HBox(acts, layout=middle), self.roster], layout=Layout(width="46%", padding="0 8px 0 0"))
        shown = [VBox([self.lasso.show()])] if self.lasso is not None else []
        views = shown if self.section is None else [*shown, self.section]
        for one in views:
            one.layout.width = f"{100 / len(views):g}%"
        for one in shown:
            one.layout.padding = "0 8px 0 0"
        super().__init__([top, HBox(views), HBox([left, tabs]), self.keyboard], layout=Layout(max_width="1500px"))
        self.add_class("tomolab-inspector")
        inspection.watch(self._follow)
        self._follow({"labels", "selected", "filters"})

    def say(self, text: str) -> None:
        """Tell why something could not be done, where it is seen."""
        self.said.value = _line(html.escape(text), "#B00020", role="alert")

    def napari(self) -> link.Link:
        """Open napari on the same inspection: the tomogram in 3-D, particles, and averages at their places.

        Raises
        ------
        RuntimeError
            If there is no display; says what to do.
        """
        return link.link(viewer.open(), self.inspection)

    # What buttons and keys do

    def act(self, name: str) -> None:
        """Do what a button or key of that name does; why it cannot be done is said beside the buttons."""
        ticked = list(self.roster.ticked)
        try:
            {
                "gather": self.session.gather,
                "merge": lambda: self.session.merge(ticked),
                "split": lambda: self.inspection.split(self._one(ticked), self.parts.value),
                "dissolve": lambda: self.session.dissolve(*ticked),
                "undo": self.session.undo,
                "redo": self.session.redo,
                "clear": lambda: self.session.select([], "cleared"),
                "average": lambda: self.averages.whole.click(),
                "quick": lambda: self.averages.quick.click(),
                "napari": self.napari,
            }[name]()
        except (ValueError, IndexError, RuntimeError) as error:
            self.say(self._problem(name) or str(error))

    def _one(self, ticked: list[int]) -> int:
        if len(ticked) != 1:
            raise ValueError("tick one cluster")
        return ticked[0]

    def _problem(self, name: str) -> str:
        ticked = list(self.roster.ticked)
        if name == "clear":
            return "" if self.session.selected.any() else "nothing is selected"
        if name == "napari":
            return self._no_display
        return self.inspection.problem(name, ticked) if name in ACTIONS else ""

    @cached_property
    def _no_display(self) -> str:
        problem = viewer.display_problem()
        return f"napari needs a display: {problem}" if problem else ""

    def _button(self, name: str) -> Button:
        text, icon, _ = ACTIONS[name]
        button = Button(description=text, icon=icon, layout=Layout(width="auto"))
        button.on_click(lambda _: self.act(name))
        return button

    # How views follow

    def _map(self, height: int) -> scatter.Lasso:
        assert self.inspection.points is not None
        view = scatter.lasso(self.inspection.points, particles=self.session.particles, height=height - 4)
        view.scatter.mouse(mode="lasso").legend(False)
        view.on_change(self._drawn)
        return view

    def _drawn(self, held: np.ndarray) -> None:
        # With alt the scatter itself takes away from what it has.
        how = "add" if self.keyboard.how == "add" else "replace"
        self.session.select(self.session.ids[held], "lasso in the map", how=how)

    def _follow(self, changed: set[str]) -> None:
        if changed & {"labels", "clusters", "filters", "selected"}:
            # First, since the colours of a million particles take their time in the browser.
            self._tell()
        if self.lasso is None:
            return
        if changed & {"labels", "clusters"} and self.colour.value == CLUSTER:
            self._colour()
        if changed & {"labels", "clusters", "filters"}:
            self.lasso.show_only(self.session.visible)
        if "selected" in changed:
            self.lasso.choose(self.session.selected)

    def _ticked(self) -> None:
        self.gallery.renew()
        self.averages.renew()
        self._enable()

    def _tell(self) -> None:
        """Counts, and what was done last."""
        session, past = self.session, self.session.history.past
        shown, count = int(session.visible.sum()), len(session.ids)
        text = f"<b>{session.selected.sum():,}</b> of {count:,} particles selected"
        text += f", {count - shown:,} hidden" if shown < count else ""
        text += f" · {html.escape(past[-1].what)}" if past else ""
        kept, unkept = self.inspection.kept, self.inspection.unkept
        text += "" if kept is None else " · kept" if kept.name == SESSION else f" · kept as {html.escape(kept.name)}"
        if unkept:
            self.say(f"NOT KEPT: {unkept}")
        else:
            self.said.value = _line(text, style.QUIET)
        self._enable()

    def _enable(self) -> None:
        for name, button in self.buttons.items():
            problem = self._problem(name)
            button.disabled, button.tooltip = bool(problem), problem or ACTIONS[name][2]

    def _colour(self) -> None:
        if self.lasso is None:
            return
        if self.colour.value == CLUSTER:
            self.lasso.recolour(*_kinds(self.session))
        else:
            values = self.session.particles[self.colour.value]
            if not _varies(values):
                kinds, inks = style.kinds(values)
                self.lasso.recolour(kinds, list(inks.values()), name=self.colour.value)
            else:
                self.lasso.shade(values.to_numpy(float, na_value=np.nan), self.colour.value)
        # Clusters have their colours in the list below.
        self.lasso.scatter.legend(self.colour.value != CLUSTER)

    def _place(self) -> None:
        if self.lasso is not None:
            chosen = self.axes.value
            self.lasso.place(self.inspection.points if chosen is None else self.inspection.components(*chosen))

    def _go(self, particle: int) -> None:
        if self.section is not None:
            self.section.look(particle)


class Filters(VBox):  # type: ignore[misc]
    """A range of values for each column of numbers by which particles are to be left out of all views."""

    def __init__(self, session: Session) -> None:
        self.session = session
        table = session.particles
        names = [name for name in table if _varies(table[name])]
        self.column = Dropdown(options=names, layout=Layout(width="150px"))
        self.range = FloatRangeSlider(continuous_update=False, readout_format=".3g", layout=Layout(width="100%"))
        self.all = Button(
            description="Show all",
            icon="eye",
            layout=Layout(width="120px", flex="0 0 auto"),
            tooltip="no limits for this column",
        )
        self.text = HTML()
        self.column.observe(lambda _: self._turn(), "value")
        self.range.observe(lambda _: self._set(), "value")
        self.all.on_click(lambda _: self.session.filter(self.column.value))
        session.watch(self._follow)
        controls = [HBox([self.column, self.range, self.all]), self.text]
        super().__init__(controls if names else [HTML("no column of the particle table holds different numbers")])
        if names:
            self._turn()

    def _turn(self) -> None:
        """Another column, or limits that were changed elsewhere."""
        values = self.session.particles[self.column.value]
        low, high = float(values.min()), float(values.max())
        wanted = self.session.filters.get(self.column.value, (low, high))
        with self.range.hold_trait_notifications():
            self.range.min, self.range.max = min(low, self.range.max), max(high, self.range.min)
            self.range.min, self.range.max, self.range.step = low, high, (high - low) / 200
            self.range.value = tuple(np.clip(wanted, low, high).tolist())
        self.text.value = "<br>".join(
            f"{html.escape(name)}: {a:.4g} to {b:.4g}" for name, (a, b) in self.session.filters.items()
        )

    def _set(self) -> None:
        column, (low, high) = self.column.value, self.range.value
        whole = low <= self.range.min and high >= self.range.max
        now = self.session.filters.get(column, (self.range.min, self.range.max))
        if not np.allclose(now, (low, high)):
            self.session.filter(column) if whole else self.session.filter(column, low, high)

    def _follow(self, changed: set[str]) -> None:
        if "filters" in changed:
            self._turn()


ACTIONS = {
    "gather": ("New cluster", "plus", "make a cluster of what is selected (N)"),
    "merge": ("Merge", "compress", "make the ticked clusters one, which keeps the name of the first (M)"),
    "split": ("Split in", "expand", "divide the ticked cluster by its features (S)"),
    "dissolve": ("Dissolve", "times", "put the particles of the ticked clusters into none (X)"),
    "undo": ("Undo", "undo", "take the last step back (U, Ctrl+Z)"),
    "redo": ("Redo", "repeat", "do it again (R, Ctrl+Shift+Z)"),
    "clear": ("Clear", "eraser", "select nothing (Escape)"),
    "napari": ("napari", "cube", "tomogram, particles and averages in 3-D, in a window of their own"),
}
"""Text, icon and meaning of every button."""


def open(folder: str | Path, *, diameter: float | None = None, seed: int = 0) -> Inspector:  # noqa: A001 - inspector.open
    """Inspect a run folder, as `inspection.open` does, in the browser."""
    return Inspector(inspections.open(folder, diameter=diameter, seed=seed))


def _varies(values: pd.Series) -> bool:
    """Whether these are numbers, and not all the same."""
    return pd.api.types.is_float_dtype(values) and values.min() < values.max()


def _line(text: str, ink: str, *, role: str = "status") -> str:
    """One line, cut where there is no room, and whole under the mouse; nothing below it is moved by a longer one."""
    whole = re.sub("<[^>]*>", "", text)
    how = f"color:{ink}; white-space:nowrap; overflow:hidden; text-overflow:ellipsis"
    return f'<div role="{role}" title="{whole}" style="{how}">{text}</div>'


def _axes(inspection: Inspection) -> list[tuple[str, tuple[int, int] | None]]:
    """What can lie along the axes of the map: its own, and pairs of principal components."""
    most = 0 if inspection.features is None else min(COMPONENTS, *inspection.features.vectors.shape)
    pairs = itertools.combinations(range(1, most + 1), 2)
    return [("map", None), *((f"PC {first}, {second}", (first, second)) for first, second in pairs)]


def _columns(inspection: Inspection) -> list[str]:
    """What particles can be coloured by: clusters, and columns that are numbers or a few kinds."""
    table = inspection.session.particles
    names = [name for name in table if name not in ("particle_id", CLUSTER, *SOURCE, *READ_POSE, *BOX)]
    return [CLUSTER, *(name for name in names if pd.api.types.is_float_dtype(table[name]) or table[name].nunique() <= FEW)]


def _kinds(session: Session) -> tuple[pd.Categorical, list[str]]:
    """Cluster of each particle, and the colour of each; those in none come first, in a faint one."""
    inks = style.inks(session.clusters)
    numbers = np.array(sorted(inks), dtype=np.int64)
    labels = session.labels.to_numpy()
    codes = np.where(labels == NONE, 0, np.searchsorted(numbers, labels) + 1)
    names = ["none", *(str(number) for number in numbers)]
    return pd.Categorical.from_codes(codes, categories=names), [style.FAINT, *(inks[number] for number in numbers.tolist())]
