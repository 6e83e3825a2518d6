"""Takes an inspection, shows the map of its particles, slices of tomograms, clusters, boxes and averages in a notebook.

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
from IPython.display import display
from ipywidgets import HTML, BoundedIntText, Button, Dropdown, HBox, Layout, Tab, VBox
from traitlets import Bool, List, Unicode

from tomolab.inspection import model as inspections
from tomolab.inspection.actions import ACTIONS, Choice, averaged, exported
from tomolab.inspection.history import counted
from tomolab.inspection.model import CLUSTER, COMPONENTS, Inspection
from tomolab.inspection.run_contents import SESSION
from tomolab.inspection.session import Session
from tomolab.inspection.session_values import NONE
from tomolab.ui import style, view_figure
from tomolab.ui.napari import link, viewer
from tomolab.ui.notebook import scatter
from tomolab.ui.notebook.averages import Averages
from tomolab.ui.notebook.cluster_table import ClusterTable
from tomolab.ui.notebook.counts import Counts
from tomolab.ui.notebook.export import Export
from tomolab.ui.notebook.filters import Filters
from tomolab.ui.notebook.gallery import Gallery
from tomolab.ui.notebook.particle import Card
from tomolab.ui.notebook.positions import Positions
from tomolab.ui.notebook.slices import Section
from tomolab.ui.notebook.structures import Structures


class Keys(anywidget.AnyWidget):  # type: ignore[misc]
    """Keys that are held and pressed; lets a scatter (its model's id) draw again what it refused to draw."""

    _esm = Path(__file__).with_name("keys.js")
    watched: Any = List([]).tag(sync=True)
    how = Unicode("replace").tag(sync=True)
    dark = Bool(False).tag(sync=True)
    scatter = Unicode("").tag(sync=True)


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
        keys = {key: name for name, action in ACTIONS.items() for key in action.keys}
        self.keyboard = Keys(watched=list(keys))
        self.keyboard.on_msg(lambda _, message, __: self.act(keys[message["key"]]))
        self.status = HTML(layout=Layout(flex="1 1 260px", min_width="0", overflow="hidden"))
        self.status.add_class("tomolab-said")
        self.buttons = {name: self._button(name) for name in ACTIONS}
        self.napari_button = Button(description="napari", icon="cube", layout=Layout(width="auto"))
        self.napari_button.on_click(lambda _: self._open_napari())
        self.napari_button.tooltip = self._no_display or "Show tomogram, particles and averages in napari, in 3-D"
        self.napari_button.disabled = bool(self._no_display)
        self.n_clusters = BoundedIntText(value=2, min=2, max=20, layout=Layout(width="48px"), tooltip="Clusters of a split")
        self.table = ClusterTable(inspection, say=self.say)
        self.table.observe(lambda _: self._ticked(), "ticked")
        self.averages = Averages(inspection, buttons=self._group("averages"), changed=self._enable)
        self.gallery = Gallery(inspection, ticked=lambda: self.table.ticked, went=self._go)
        self.filters = Filters(self.session, say=self.say)
        self.export = Export(inspection, ticked=lambda: self.table.ticked, say=self.say, done=self._tell, shown=self._slice)
        self.card = Card(inspection, found=self._find, say=self.say)
        self.section = (
            Section(inspection, height=height, hovered=self.card.show, say=self.say) if inspection.tomograms else None
        )
        self.lasso = None if inspection.points is None else self._map(height)
        self.keyboard.observe(lambda _: self._darken(), "dark")
        self.n_similar = BoundedIntText(
            value=50, min=1, max=100_000, layout=Layout(width="66px"), tooltip="Number of similar ones"
        )
        sizes = [("auto", 0.0), *((f"{size} px", float(size)) for size in (1, 2, 3, 5, 8, 12, 20))]
        self.size = Dropdown(options=sizes, description="points", style=style.LABEL, layout=Layout(width="118px"))
        shares = [("by density", 0.0), *((f"{share:.0%}", share) for share in (1.0, 0.7, 0.4, 0.2, 0.1, 0.05))]
        self.opacity = Dropdown(options=shares, description="opacity", style=style.LABEL, layout=Layout(width="160px"))
        self.size.tooltip, self.opacity.tooltip = "Size of the points of the map", "Opacity of the points of the map"
        for look in (self.size, self.opacity):
            look.observe(lambda _: self._draw_points(), "value")
        self.axes = Dropdown(options=_axes(inspection), description="axes", tooltip="Axes of the map", style=style.LABEL)
        self.axes.layout = Layout(width="150px", flex="0 0 auto", display=None if len(self.axes.options) > 1 else "none")
        self.axes.observe(lambda _: self._place(), "value")
        columns = [CLUSTER, *style.colour_columns(inspection.session.particles)]
        about = "Column that colours the particles, in all views"
        self.colour = Dropdown(options=columns, description="colour by", tooltip=about, style=style.LABEL)
        self.colour.layout = Layout(width="220px", flex="0 0 auto")
        self.colour.observe(lambda _: setattr(inspection, "colour_by", self.colour.value), "value")
        self.counts = Counts(inspection, say=self.say)
        self.structures, self.positions = Structures(inspection, say=self.say), Positions(inspection)
        pages = {"Boxes": self.gallery, "Averages": self.averages, "3-D": self.structures, "Positions": self.positions}
        pages |= {"Filters": self.filters, "Counts": self.counts, "Export": self.export}
        self.tabs = Tab(list(pages.values()), titles=list(pages))
        self.tabs.observe(lambda _: self._turn(), "selected_index")
        self.tabs.layout = Layout(flex="1 1 530px", min_width="0")
        super().__init__(
            [self._top(), HBox(self._views(), layout=Layout(flex_flow="row wrap")), self.card, self._bottom(), self.keyboard],
            layout=Layout(max_width="1500px"),
        )
        self.add_class("tomolab-inspector")
        inspection.changed.connect(self._follow)
        self._follow({"labels", "selected", "filters"})

    # Layout

    def _button(self, name: str) -> Button:
        action = ACTIONS[name]
        button = Button(description=action.title, icon=action.icon, layout=Layout(width="auto"))
        button.on_click(lambda _: self.act(name))
        return button

    def _group(self, group: str) -> list[Button]:
        return [button for name, button in self.buttons.items() if ACTIONS[name].group == group]

    def _top(self) -> HBox:
        select, similar, *show = self._group("selection")
        pair = HBox([similar, self.n_similar], layout=Layout(align_items="center"))
        tools = [*self._group("history"), select, pair, *show, *self._group("export"), self.napari_button]
        colour = [] if self.lasso is not None else [self.colour]
        return HBox([*tools, *colour, self.status], layout=Layout(align_items="center", flex_flow="row wrap"))

    def _views(self) -> list[Any]:
        looks = HBox([self.size, self.opacity, self.axes, self.colour], layout=Layout(flex_flow="row wrap"))
        shown = [VBox([self.lasso.show(), looks], layout=Layout(padding="0 8px 0 0"))] if self.lasso is not None else []
        views = shown if self.section is None else [*shown, self.section]
        for one in views:
            # Below one another where both are narrower than the map is high, which would cut it.
            one.layout.flex, one.layout.min_width = "1 1 400px", "0"
        for one in shown:
            one.add_class("tomolab-map")
        return views

    def _bottom(self) -> HBox:
        *buttons, split = self._group("clusters")
        row = Layout(align_items="center", flex_flow="row wrap")
        line = HBox([*buttons, HBox([split, HTML("into"), self.n_clusters], layout=Layout(align_items="center"))], layout=row)
        # Side by side, or in a narrow window below one another.
        clusters = VBox([line, self.table], layout=Layout(flex="1 1 530px", min_width="0", padding="0 8px 0 0"))
        return HBox([clusters, self.tabs], layout=Layout(flex_flow="row wrap"))

    def _ipython_display_(self) -> None:
        # The first output stays in a saved notebook, in which the second cannot be shown without the kernel.
        display({"text/html": view_figure.picture(self.inspection), "text/plain": repr(self.inspection)}, raw=True)
        display(self._repr_mimebundle_(), raw=True)

    def say(self, text: str) -> None:
        """Show an error message, after why the last change is not saved, if it is not."""
        unsaved = f"NOT SAVED: {self.inspection.unsaved}; the next change saves it too" if self.inspection.unsaved else ""
        self.status.value = _line(html.escape(" · ".join(filter(None, (unsaved, text)))), style.ERROR_TEXT, role="alert")

    def napari(self) -> link.Link:
        """Open napari on the same inspection: the tomogram in 3-D, particles, and averages at their places.

        Raises
        ------
        RuntimeError
            If there is no display; the message says what to do.
        """
        return link.link(viewer.open(), self.inspection)

    # Buttons and keys

    @property
    def choice(self) -> Choice:
        """The ticked clusters and the values of the fields."""
        numbers = {"n_clusters": self.n_clusters.value, "n_similar": self.n_similar.value}
        return Choice(tuple(self.table.ticked), **numbers, **self.averages.options)

    def act(self, name: str) -> None:
        """Run an action, as its button or key does; show its error beside the buttons."""
        if name == "export":
            self.tabs.selected_index = self.tabs.children.index(self.export)
            return
        try:
            ACTIONS[name].do(self.inspection, self.choice)
        except (ValueError, RuntimeError) as error:
            self.say(str(error))
        else:
            self._tell()

    def _open_napari(self) -> None:
        try:
            self.napari()
        except RuntimeError as error:
            self.say(str(error))
        else:
            self._tell()

    @cached_property
    def _no_display(self) -> str:
        problem = viewer.display_problem()
        return f"napari needs a display: {problem}" if problem else ""

    # Views

    def _map(self, height: int) -> scatter.Lasso:
        assert self.inspection.points is not None
        view = scatter.lasso(self.inspection.points, particles=self.session.particles, height=height - 4)
        view.scatter.mouse(mode="lasso").legend(False)
        view.on_change(self._drawn)
        view.on_hover(self.card.show)
        self.keyboard.scatter = view.widget.model_id
        return view

    def _drawn(self, held: np.ndarray) -> None:
        # With Alt or Ctrl the scatter itself removes particles from its selection.
        how = "add" if self.keyboard.how == "add" else "replace"
        ids = self.session.ids[held]
        self.session.select(ids, "click in the map" if len(ids) == 1 else "lasso in the map", how=how)
        if len(ids) == 1:
            self._go(int(ids[0]))

    def _find(self, particle: int) -> None:
        self.session.select([particle], "id")
        self._go(particle)

    def _draw_points(self) -> None:
        if self.lasso is not None:
            self.lasso.draw_points(size=self.size.value or None, opacity=self.opacity.value or None)
            # A new size takes the title from the legend.
            self._dress()

    def _follow(self, changed: set[str]) -> None:
        if changed & {"labels", "clusters", "filters", "selected", "deleted", "saved"}:
            # First, since the colours of a million particles are slow in the browser.
            self._tell()
        if self.inspection.colour_by in self.colour.options:
            self.colour.value = self.inspection.colour_by
        if self.lasso is None:
            return
        if "colours" in changed or (changed & {"labels", "clusters"} and self.colour.value == CLUSTER):
            self._colour()
        if changed & {"labels", "clusters", "filters"}:
            self.lasso.show_only(self.session.visible)
        if "selected" in changed:
            self.lasso.choose(self.session.selected)

    def _turn(self) -> None:
        shown = self.tabs.children[self.tabs.selected_index]
        self.positions.active = self.counts.active = False
        if isinstance(shown, Structures | Positions | Counts):
            shown.show()

    def _slice(self) -> dict[str, Any]:
        return {} if self.section is None else self.section.shown

    def _ticked(self) -> None:
        self.structures.put(self.table.ticked)
        self.gallery.renew()
        self._enable()

    def _tell(self) -> None:
        """Show the counts and the last step."""
        session, past = self.session, self.session.history.past
        shown, count = int(session.visible.sum()), len(session.ids)
        text = f"<b>{session.chosen_rows.sum():,}</b> of {counted(shown)} selected"
        text += f", {count - shown:,} hidden" if shown < count else ""
        text += f" · {html.escape(past[-1].what)}" if past else ""
        path = self.inspection.session_path
        text += "" if path is None else " · saved" if path.name == SESSION else f" · saved as {html.escape(path.name)}"
        if self.inspection.unsaved:
            self.say("")
        else:
            self.status.value = _line(text, style.QUIET_TEXT)
        self._enable()

    def _enable(self) -> None:
        work, choice = self.inspection, self.choice
        for name, button in self.buttons.items():
            button.disabled, button.tooltip = bool(ACTIONS[name].problem(work, choice)), ACTIONS[name].help(work, choice)
        average = ACTIONS["average"]
        self.averages.tell(average.problem(work, choice) or averaged(work, choice))
        self.export.tell(ACTIONS["export"].problem(work, choice) or exported(work, choice))

    def _colour(self) -> None:
        if self.lasso is None:
            return
        if self.colour.value == CLUSTER:
            self.lasso.recolour(*_cluster_colours(self.session, dark=self.keyboard.dark))
        else:
            values = self.session.particles[self.colour.value]
            if not style.varies(values):
                categories, inks = style.to_categorical(values)
                self.lasso.recolour(categories, list(inks.values()), name=self.colour.value)
            else:
                self.lasso.shade(values.to_numpy(float, na_value=np.nan), self.colour.value)
        # The list of clusters below shows their colours.
        self._dress()

    def _darken(self) -> None:
        self.structures.dark = self.positions.dark = self.keyboard.dark
        self.averages.results.set_dark(self.keyboard.dark)
        self._turn()
        self._colour()

    def _dress(self) -> None:
        if self.lasso is not None:
            self.lasso.dress(dark=self.keyboard.dark, legend="" if self.colour.value == CLUSTER else self.colour.value)

    def _place(self) -> None:
        if self.lasso is not None:
            chosen = self.axes.value
            self.lasso.place(self.inspection.components(*chosen) if chosen else self.inspection.points)

    def _go(self, particle: int) -> None:
        self.card.show(particle)
        self.positions.look(particle)
        if self.section is not None:
            self.section.look(particle)


def open(folder: str | Path, *, diameter: float | None = None, seed: int = 0) -> Inspector:  # noqa: A001 - inspector.open
    """Open a run folder (`inspection.open`) in the notebook inspector."""
    return Inspector(inspections.open(folder, diameter=diameter, seed=seed))


def _line(text: str, ink: str, *, role: str = "status") -> str:
    """One line, cut to the width, with the full text as its tooltip, so that a long text does not move the widgets below."""
    whole = re.sub("<[^>]*>", "", text)
    how = f"color:{ink}; white-space:nowrap; overflow:hidden; text-overflow:ellipsis"
    return f'<div role="{role}" title="{whole}" style="{how}">{text}</div>'


def _axes(inspection: Inspection) -> list[tuple[str, tuple[int, ...]]]:
    """Choices for the axes of the map: its own, and pairs of components; a list would show None as no choice."""
    most = 0 if inspection.features is None else min(COMPONENTS, *inspection.features.vectors.shape)
    pairs = itertools.combinations(range(1, most + 1), 2)
    return [("map", ()), *((f"PC {first}, {second}", (first, second)) for first, second in pairs)]


def _cluster_colours(session: Session, *, dark: bool) -> tuple[pd.Categorical, list[str]]:
    """Cluster of each particle, and the colour of each category; particles in no cluster are the first, in a faint colour."""
    faint = style.FAINT_ON_DARK if dark else style.FAINT
    inks = style.inks(session.clusters)
    numbers = np.array(sorted(inks), dtype=np.int64)
    labels = session.labels.to_numpy()
    codes = np.where(labels == NONE, 0, np.searchsorted(numbers, labels) + 1)
    names = ["none", *(str(number) for number in numbers)]
    return pd.Categorical.from_codes(codes, categories=names), [faint, *(inks[number] for number in numbers.tolist())]
