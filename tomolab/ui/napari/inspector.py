"""Takes an inspection, shows it as a Qt panel: tabs (map, boxes, filters, picks), clusters, buttons of all actions, jobs.

>>> panel = InspectorPanel(work, link.link(view, work))
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from napari.utils.theme import get_theme
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QKeySequence, QResizeEvent
from qtpy.QtWidgets import (  # type: ignore[attr-defined]
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QShortcut,
    QSizePolicy,
    QSpinBox,
    QSplitter,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)
from superqt import QFlowLayout

from tomolab.inspection.actions import ACTIONS, GROUPS, Action, Choice
from tomolab.inspection.model import CLUSTER, ENGINES, Inspection
from tomolab.ui import style
from tomolab.ui.napari import scatter, threads
from tomolab.ui.napari.cluster_table import ClusterTable
from tomolab.ui.napari.export_menu import ExportMenu
from tomolab.ui.napari.filters import Filters
from tomolab.ui.napari.gallery import Gallery
from tomolab.ui.napari.jobs import JobList
from tomolab.ui.napari.link import Link
from tomolab.ui.napari.pick_panel import PickPanel
from tomolab.ui.napari.picks import Picks
from tomolab.ui.napari.scatter import Canvas

SYMMETRIES = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "D2", "D3", "D4", "D7", "T", "O", "I")


class InspectorPanel(QWidget):
    """Panel that shows an inspection and changes it.

    Parameters
    ----------
    inspection
        What to show.
    link
        Link of the inspection with the viewer; the panel sets its tomogram.
    parent
        Widget that it belongs to.
    """

    def __init__(self, inspection: Inspection, link: Link, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.inspection, self.link, self._gone, self._busy, self._fault = inspection, link, False, "", False
        self.table, self.jobs = ClusterTable(inspection), JobList(inspection.remove_job)
        self.exports = ExportMenu(inspection, chosen=lambda: self.table.clusters.ticked, tell=self.tell, parent=self)
        self.canvas = None if inspection.points is None else Canvas(inspection.points[["x", "y"]].to_numpy())
        self.colour, self.tomogram, self.map = QComboBox(), QComboBox(), QPushButton("Cell map")
        self.legend, self.counts, self.message = QLabel(), QLabel(), QLabel()
        self.n_clusters, self.classes, self.diameter = QSpinBox(), QSpinBox(), QDoubleSpinBox()
        self.engine, self.symmetry = QComboBox(), QComboBox()
        self.gallery = Gallery(inspection, ticked=lambda: self.table.clusters.ticked, went=link.go)
        self.filters = Filters(inspection.session, tell=self.tell)
        self.picking = PickPanel(Picks(link.viewer, diameter=inspection.diameter), tell=self.tell)
        self.buttons = {name: self._button(name) for name in ACTIONS}
        self._fill()
        self._arrange()
        self._connect()
        self._follow_theme()

    # Layout

    def _button(self, name: str) -> QPushButton:
        button = QPushButton(ACTIONS[name].title)
        button.clicked.connect(lambda: self.do(name))
        for key in ACTIONS[name].keys:
            # In the panel only: napari uses the same keys elsewhere.
            shortcut = QShortcut(QKeySequence(key), self, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(lambda: self.do(name))
        return button

    def _fill(self) -> None:
        self.colour.addItems([CLUSTER, *style.colour_columns(self.inspection.session.particles)])
        self.colour.setToolTip("Column that colours the particles, in all views")
        self.tomogram.addItems(self.inspection.named)
        self.tomogram.setCurrentText(self.link.tomogram)
        self.tomogram.setToolTip("The tomogram that napari shows")
        self.map.setCheckable(True)
        self.map.setToolTip(
            "Show the averages in 3-D at all particles, around one slice of the tomogram; click again to show the slices"
        )
        for box, low, high, value, about in (
            (self.n_clusters, 2, 20, 2, "Clusters of a split"),
            (self.classes, 1, 10, 1, "Number of classes to sort the particles into first; each is averaged"),
        ):
            box.setRange(low, high)
            box.setValue(value)
            box.setToolTip(about)
        self.classes.setPrefix("classes: ")
        self.n_clusters.setPrefix("into ")
        for spin in (self.classes, self.diameter):
            spin.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.diameter.setPrefix("mask: ")
        self.diameter.setRange(0, 5000)
        self.diameter.setDecimals(0)
        self.diameter.setSingleStep(10)
        self.diameter.setSuffix(" Å")
        self.diameter.setSpecialValueText("mask: auto")
        self.diameter.setToolTip("Diameter of the mask in Å; auto measures it")
        self.engine.addItems(ENGINES)
        self.engine.setToolTip("Program that averages: tomolab, or RELION, which refines the average of tomolab")
        self.symmetry.setEditable(True)
        self.symmetry.addItems(SYMMETRIES)
        self.symmetry.setToolTip("Symmetry of the complex, such as C1, C4, D2, O; others can be typed")
        for choice in (self.colour, self.tomogram, self.engine, self.symmetry):
            choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            choice.setMinimumWidth(70)

    def _arrange(self) -> None:
        for label in (self.legend, self.counts, self.message):
            label.setWordWrap(True)
            label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        split, self.tabs = QSplitter(Qt.Orientation.Vertical), QTabWidget()
        split.setChildrenCollapsible(False)
        line = _line(QLabel("Colour"), (self.colour, 1), *self._places())
        self.tabs.addTab(_stack(self._scatter(), self.legend), "Map")
        # It scrolls, or its height would be the least of all tabs.
        scroll = QScrollArea()
        scroll.setWidget(self.picking)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        for widget, title in ((self.gallery, "Boxes"), (self.filters, "Filters"), (scroll, "Picks")):
            self.tabs.addTab(widget, title)
        split.addWidget(_stack(line, self.tabs))
        groups = {group: [self.buttons[name] for name in ACTIONS if ACTIONS[name].group == group] for group in GROUPS}
        edits = [*groups["history"], *groups["selection"], *groups["clusters"], self.n_clusters, *groups["export"]]
        split.addWidget(_stack(self.table, self.counts, _Flow(edits)))
        engine, other = _line((self.engine, 1), (self.symmetry, 1)), _line((self.classes, 1), (self.diameter, 1))
        split.addWidget(_stack(_Flow(groups["averages"]), engine, other, self.jobs))
        split.setSizes([260, 220, 170])
        for place, share in enumerate((5, 3, 4)):
            split.setStretchFactor(place, share)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 2)
        layout.addWidget(split)
        layout.addWidget(self.message)
        self.message.hide()
        self.setMinimumWidth(280)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)

    def _places(self) -> list[Any]:
        return [*([(self.tomogram, 1)] if self.tomogram.count() > 1 else []), self.map]

    def _scatter(self) -> QWidget:
        if self.canvas is not None:
            about = "Draw around particles to select them; Shift adds, Ctrl or Alt removes.\n"
            self.canvas.setToolTip(about + "The wheel zooms, the right or middle button pans.")
            return self.canvas
        text = QLabel("This run folder has no embedding, so there is no scatter: select particles in the tomogram.")
        text.setWordWrap(True)
        return text

    def _connect(self) -> None:
        self.inspection.changed.connect(self._update)
        self.link.viewer.events.theme.connect(self._follow_theme)
        if self.canvas is not None:
            self.canvas.drawn.connect(self._drawn)
        self.table.clusters.tick_changed.connect(self._enable)
        self.table.clusters.tick_changed.connect(self.gallery.renew)
        self.table.clusters.refused.connect(self.tell)
        self.colour.currentTextChanged.connect(lambda column: setattr(self.inspection, "colour_by", column))
        self.tomogram.currentTextChanged.connect(self._go)
        self.map.toggled.connect(self.link.map)
        self.engine.currentTextChanged.connect(self._enable)

    # Updates

    def _follow_theme(self, _: Any = None) -> None:
        if self.canvas is not None:
            *colour, _ = get_theme(self.link.viewer.theme).background.as_rgb_tuple(alpha=True)
            self.canvas.set_dark(sum(colour) < 3 * 128)
        self._update({"labels", "clusters", "selected", "filters"})

    @threads.in_window
    def _update(self, changed: set[str]) -> None:
        if self._gone:
            return
        if self._fault and changed - {"jobs", "averages", "colours", "saved"}:
            self.tell("")
        session = self.inspection.session
        if changed & {"labels", "clusters", "selected", "averages", "filters"}:
            self.table.clusters.refresh()
        self.colour.setCurrentText(self.inspection.colour_by)
        if self.canvas is not None and changed & {"labels", "clusters", "selected", "filters", "colours"}:
            self.canvas.show_points(self._inks(), visible=session.visible, selected=session.selected)
        self.jobs.show_only(self.inspection.jobs)
        inside, chosen = int(session.counts().sum()), int(session.chosen_rows.sum())
        hidden = len(session.ids) - int(session.visible.sum())
        counts = [f"<b>{chosen:,} selected</b>", f"{inside:,} in {len(session.clusters)} clusters"]
        counts += [f"{len(session.ids) - inside:,} in none"] + ([f"{hidden:,} hidden"] if hidden else [])
        if self.inspection.unsaved:
            unsaved = f"NOT SAVED: {self.inspection.unsaved}; the next change saves it too"
            counts.append(f"<b>{style.span(unsaved, style.ERROR)}</b>")
        self.counts.setText(" · ".join(counts))
        self._enable()

    def _inks(self) -> np.ndarray:
        """Colours of the particles by the chosen column; updates the legend."""
        session, column = self.inspection.session, self.inspection.colour_by
        self.legend.setVisible(column != CLUSTER)
        if column != CLUSTER:
            self.legend.setText(scatter.legend(session.particles[column]))
        return style.particle_inks(session, column, dark=self.canvas is not None and self.canvas.dark)

    @property
    def choice(self) -> Choice:
        """The ticked clusters and the values of the fields."""
        options: dict[str, Any] = {"symmetry": self.symmetry.currentText(), "mask_diameter": self.diameter.value() or None}
        options |= {"engine": self.engine.currentText(), "classes": self.classes.value()}
        return Choice(tuple(self.table.clusters.ticked), n_clusters=self.n_clusters.value(), **options)

    def _enable(self, *_: Any) -> None:
        """Enable the possible actions; the tooltip of a disabled button says why."""
        work, choice = self.inspection, self.choice
        for name, button in self.buttons.items():
            busy = ACTIONS[name].slow and bool(self._busy)
            button.setEnabled(not (busy or ACTIONS[name].problem(work, choice)))
            button.setToolTip(style.plain(self._busy if busy else ACTIONS[name].help(work, choice)))

    def tell(self, text: str, *, fault: bool = True) -> None:
        """Show a message at the bottom; an empty text hides it.

        Parameters
        ----------
        text
            The message.
        fault
            Whether it reports an error.
        """
        self.message.setText(message(text, fault=fault))
        self.message.setVisible(bool(text))
        self._fault = fault and bool(text)

    # Actions

    def do(self, name: str) -> None:
        """Run an action, as its button or key does; show its error.

        Parameters
        ----------
        name
            Name of one of `ACTIONS`.
        """
        self.tell("")
        action, work, choice = ACTIONS[name], self.inspection, self.choice
        problem = (self._busy if action.slow else "") or action.problem(work, choice)
        try:
            if problem:
                raise ValueError(problem)
            if action.run is None:
                self.exports.popup(self.buttons[name].mapToGlobal(QPoint(0, 0)))
            elif action.slow:
                self._run_slow(action, choice)
            else:
                action.do(work, choice)
        except (ValueError, OSError) as error:
            self.tell(str(error))

    def _drawn(self, rows: np.ndarray, how: str) -> None:
        session = self.inspection.session
        session.select(session.ids[rows], "lasso", how=how)

    def _go(self, tomogram: str) -> None:
        self.link.show(tomogram)
        self.link.map(self.map.isChecked())

    def _run_slow(self, action: Action, choice: Choice) -> None:
        assert action.run is not None
        self._busy = f"{action.title} is at work"
        self._enable()
        threads.in_background(
            partial(action.run, self.inspection, choice),
            then=self._ended,
            failed=lambda error: self._ended(partial(self.tell, str(error))),
        )

    def _ended(self, last: Callable[[], Any]) -> None:
        """Finish a slow action in the thread of the window."""
        self._busy = ""
        if self._gone:
            return
        try:
            last()
        except ValueError as error:
            self.tell(str(error))
        self._enable()

    def leave(self) -> None:
        """Disconnect from the inspection and the viewer."""
        if not self._gone:
            self._gone = True
            for part in (self.gallery, self.filters, self.picking):
                part.leave()
            self.inspection.changed.disconnect(self._update)
            self.link.viewer.events.theme.disconnect(self._follow_theme)


def message(text: str, *, fault: bool) -> str:
    """Rich text of an error or of a success, readable in light and dark themes."""
    return style.span(f"{'⚠ ' * fault}{text}", style.OKABE_ITO[5 if fault else 2])


def _line(*widgets: Any) -> QHBoxLayout:
    """Widgets side by side; a number with a widget is its stretch factor."""
    line = QHBoxLayout()
    line.setSpacing(3)
    line.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        one, share = widget if isinstance(widget, tuple) else (widget, 0)
        line.addWidget(one, share)
    return line


def _stack(*items: Any) -> QWidget:
    """Widgets and lines above one another."""
    widget = QWidget()
    layout = QVBoxLayout(widget)
    layout.setSpacing(3)
    layout.setContentsMargins(0, 0, 0, 0)
    for item in items:
        layout.addWidget(item) if isinstance(item, QWidget) else layout.addLayout(item)
    return widget


class _Flow(QWidget):
    """Widgets in as many rows as their width needs, all of which stay visible."""

    def __init__(self, widgets: Sequence[QWidget]) -> None:
        super().__init__()
        self.flow = QFlowLayout(self)
        self.flow.setContentsMargins(0, 0, 0, 0)
        self.flow.setHorizontalSpacing(3)
        self.flow.setVerticalSpacing(3)
        for widget in widgets:
            self.flow.addWidget(widget)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Keep the height of all rows: a splitter does not ask for it."""
        super().resizeEvent(event)
        self.setMinimumHeight(self.flow.heightForWidth(self.width()))
