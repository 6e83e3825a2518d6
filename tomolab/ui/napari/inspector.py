"""The bench: an inspection as a panel in Qt, with a scatter to draw in, the table of clusters, what can be done, and the jobs.

>>> panel = Bench(work, link.link(view, work))
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (  # type: ignore[attr-defined]
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QShortcut,
    QSizePolicy,
    QSpinBox,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from tomolab.conventions import BOX, READ_POSE, SOURCE
from tomolab.inspection.model import ENGINES, QUICK, Inspection
from tomolab.ui import style
from tomolab.ui.napari import link as napari_link
from tomolab.ui.napari import scatter, threads
from tomolab.ui.napari.cluster_table import Ledger
from tomolab.ui.napari.export_menu import Exports
from tomolab.ui.napari.jobs import Queue
from tomolab.ui.napari.link import Link
from tomolab.ui.napari.scatter import Canvas

SYMMETRIES = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "D2", "D3", "D4", "D7", "T", "O", "I")


@dataclass(frozen=True)
class Action:
    """A button: its name as `Inspection.problem` knows it, what stands on it, what it does, and its keys."""

    name: str
    title: str
    about: str
    keys: str


ACTIONS = (
    Action("gather", "New", "A new cluster of the selected particles, taken out of the clusters where they were", "Alt+N"),
    Action("merge", "Merge", "Make the ticked clusters one", "Alt+M"),
    Action(
        "split", "Split", "Divide the ticked cluster by k-means of its features, into as many parts as said beside", "Alt+B"
    ),
    Action("dissolve", "Dissolve", "Put the particles of the ticked clusters into none", "Alt+D"),
    Action("undo", "Undo", "Take back the last step", "Alt+Z"),
    Action("redo", "Redo", "Do again what was taken back", "Alt+Y"),
    Action("export", "Export…", "Write the particles of the ticked clusters, or of all, for other programs", "Alt+E"),
    Action("average", "Average", "Average each ticked cluster, or the selected particles", "Alt+A"),
    Action("quick", "Quick look", f"Average only the {QUICK} most typical particles, in few iterations", "Alt+Q"),
)


class Bench(QWidget):
    """Panel that shows an inspection and changes it.

    Parameters
    ----------
    inspection
        What is shown.
    link
        Of the same inspection with the viewer; it follows the choice of the tomogram.
    parent
        Widget that it belongs to.
    """

    def __init__(self, inspection: Inspection, link: Link, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.inspection, self.link, self._gone, self._busy = inspection, link, False, ""
        self._deliver = threads.qt()
        self.ledger, self.queue = Ledger(inspection.session), Queue()
        self.exports = Exports(inspection, chosen=self.ledger.chosen, tell=self.tell, parent=self)
        self.canvas = None if inspection.points is None else Canvas(inspection.points[["x", "y"]].to_numpy())
        self.colour, self.tomogram, self.map = QComboBox(), QComboBox(), QPushButton("Cell map")
        self.legend, self.counts, self.message = QLabel(), QLabel(), QLabel()
        self.parts, self.classes, self.diameter = QSpinBox(), QSpinBox(), QDoubleSpinBox()
        self.engine, self.symmetry = QComboBox(), QComboBox()
        self.buttons = {one.name: self._button(one) for one in ACTIONS}
        self._fill()
        self._arrange()
        self._connect()
        for job in inspection.jobs:
            self.queue.add(job)
        self._update({"labels", "clusters", "selected", "filters"})

    # How it looks

    def _button(self, one: Action) -> QPushButton:
        button = QPushButton(one.title)
        button.clicked.connect(lambda: self.do(one.name))
        shortcut = QShortcut(QKeySequence(one.keys), self)
        # A click, so that what cannot be done is not done by its keys either.
        shortcut.activated.connect(button.click)
        return button

    def _fill(self) -> None:
        columns = [
            name
            for name in self.inspection.session.particles
            if name not in ("particle_id", "cluster", *SOURCE, *READ_POSE, *BOX)
        ]
        self.colour.addItems(["cluster", *map(str, columns)])
        self.colour.setToolTip("What the scatter is coloured by")
        self.tomogram.addItems(self.inspection.named)
        self.tomogram.setCurrentText(self.link.tomogram)
        self.tomogram.setToolTip("The tomogram that napari shows")
        self.map.setCheckable(True)
        self.map.setToolTip(
            "Averages in 3-D at every particle as it lies, around one slice of the tomogram; again for the slices"
        )
        for box, low, high, value, about in (
            (self.parts, 2, 20, 2, "Parts to split into"),
            (self.classes, 1, 10, 1, "Sort the particles into so many classes first, and average each"),
        ):
            box.setRange(low, high)
            box.setValue(value)
            box.setToolTip(about)
        self.classes.setPrefix("classes: ")
        self.parts.setPrefix("in ")
        for spin in (self.parts, self.classes, self.diameter):
            spin.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.diameter.setPrefix("mask: ")
        self.diameter.setRange(0, 5000)
        self.diameter.setDecimals(0)
        self.diameter.setSingleStep(10)
        self.diameter.setSuffix(" Å")
        self.diameter.setSpecialValueText("mask: auto")
        self.diameter.setToolTip("Diameter of the mask in Å; found from the particles by default")
        self.engine.addItems(ENGINES)
        self.engine.setToolTip("What averages: tomolab, or RELION, which refines the average of tomolab")
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
        split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        split.addWidget(_stack(_line(QLabel("Colour"), (self.colour, 1), *self._places()), self._scatter(), self.legend))
        grid = QGridLayout()
        grid.setSpacing(3)
        grid.setContentsMargins(0, 0, 0, 0)
        names: tuple[str | QWidget, ...] = ("gather", "merge", "split", self.parts, "dissolve", "undo", "redo", "export")
        for place, name in enumerate(names):
            grid.addWidget(name if isinstance(name, QWidget) else self.buttons[name], place // 4, place % 4)
        ways = QGridLayout()
        ways.setSpacing(3)
        order = (self.engine, self.symmetry, self.buttons["average"], self.classes, self.diameter, self.buttons["quick"])
        for place, one in enumerate(order):
            ways.addWidget(one, place // 3, place % 3)
            ways.setColumnStretch(place % 3, 1)
        split.addWidget(_stack(self.ledger, self.counts, grid))
        split.addWidget(_stack(ways, self.queue))
        split.setSizes([230, 190, 170])
        for place, share in enumerate((5, 3, 4)):
            split.setStretchFactor(place, share)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 2)
        layout.addWidget(split)
        layout.addWidget(self.message)
        self.message.hide()
        self.setMinimumWidth(330)

    def _places(self) -> list[Any]:
        return [*([(self.tomogram, 1)] if self.tomogram.count() > 1 else []), self.map]

    def _scatter(self) -> QWidget:
        if self.canvas is not None:
            about = "Draw around particles to select them; Shift adds, Ctrl or Alt takes away.\n"
            self.canvas.setToolTip(about + "The wheel zooms, the right or middle button moves.")
            return self.canvas
        text = QLabel("There is no embedding in this run folder, and so no scatter: select particles in the tomogram.")
        text.setWordWrap(True)
        return text

    def _connect(self) -> None:
        self.inspection.watch(self._hear)
        if self.canvas is not None:
            self.canvas.drawn.connect(self._drawn)
        self.ledger.clusters.ticked.connect(self._allow)
        self.ledger.clusters.refused.connect(self.tell)
        self.colour.currentTextChanged.connect(lambda: self._update({"labels"}))
        self.tomogram.currentTextChanged.connect(self._go)
        self.map.toggled.connect(self.link.map)
        self.engine.currentTextChanged.connect(self._allow)

    # What is shown

    def _hear(self, changed: set[str]) -> None:
        self._deliver(lambda: self._update(changed))

    def _update(self, changed: set[str]) -> None:
        if self._gone:
            return
        session = self.inspection.session
        if changed & {"labels", "clusters"}:
            self.ledger.clusters.refresh()
        if self.canvas is not None and changed & {"labels", "clusters", "selected", "filters"}:
            self.canvas.show_points(self._inks(), visible=session.visible, selected=session.selected)
        followed = {id(row.job) for row in self.queue.rows}
        for job in self.inspection.jobs:
            if id(job) not in followed:
                self.queue.add(job)
        inside, chosen = int(session.counts().sum()), int(session.selected.sum())
        hidden = len(session.ids) - int(session.visible.sum())
        told = [f"<b>{chosen:,} selected</b>", f"{inside:,} in {len(session.clusters)} clusters"]
        told += [f"{len(session.ids) - inside:,} in none"] + ([f"{hidden:,} hidden"] if hidden else [])
        told += (
            [f"<b style='color:{style.OKABE_ITO[1]}'>NOT KEPT: {self.inspection.unkept}</b>"] if self.inspection.unkept else []
        )
        self.counts.setText(" · ".join(told))
        self._allow()

    def _inks(self) -> np.ndarray:
        """Colours of the particles by what is chosen, and the legend."""
        session, column = self.inspection.session, self.colour.currentText()
        if column == "cluster":
            self.legend.hide()
            return napari_link.inks(session)
        inks, legend = scatter.inks(pd.Series(session.particles[column].to_numpy()))
        self.legend.setText(legend)
        self.legend.show()
        return inks

    def _allow(self, *_: Any) -> None:
        """Enable what can be done; what cannot says why."""
        for one in ACTIONS:
            problem = self.problem(one.name)
            button = self.buttons[one.name]
            button.setEnabled(not problem)
            about = f"{one.about} ({one.keys})"
            button.setToolTip(f"{about}\nNot now: {problem}" if problem else about)
        past, future = self.inspection.session.history.past, self.inspection.session.history.future
        for name, steps in (("undo", past), ("redo", future)):
            if steps:
                self.buttons[name].setToolTip(f"{self.buttons[name].toolTip()}: {steps[-1].what}")

    def problem(self, action: str) -> str:
        """Why a button cannot be pressed now; empty if it can.

        Parameters
        ----------
        action
            Name of one of `ACTIONS`.
        """
        chosen = self.ledger.chosen()
        if action == "split" and self._busy:
            return self._busy
        if action in ("average", "quick"):
            action = "RELION" if action == "average" and self.engine.currentText() == "RELION" else "average"
        return self.inspection.problem(action, chosen)

    def tell(self, text: str, *, fault: bool = True) -> None:
        """Say something below everything; an empty text takes it away.

        Parameters
        ----------
        text
            What to say.
        fault
            Whether it is about something that went wrong.
        """
        colour = style.OKABE_ITO[1] if fault else style.OKABE_ITO[4]
        self.message.setText(f"<span style='color:{colour}'>{'⚠ ' * fault}{text}</span>")
        self.message.setVisible(bool(text))

    # What is done

    def do(self, action: str) -> None:
        """Do what a button says, and tell what went wrong.

        Parameters
        ----------
        action
            Name of one of `ACTIONS`.
        """
        self.tell("")
        session, chosen = self.inspection.session, self.ledger.chosen()
        ways: dict[str, Callable[[], Any]] = {
            "gather": session.gather,
            "merge": lambda: session.merge(chosen),
            "split": lambda: self._split(chosen[0]),
            "dissolve": lambda: session.dissolve(*chosen),
            "undo": session.undo,
            "redo": session.redo,
            "export": lambda: self.exports.popup(self.buttons["export"].mapToGlobal(QPoint(0, 0))),
            "average": lambda: self._average(chosen, engine=self.engine.currentText()),
            "quick": lambda: self._average(chosen, quick=True),
        }
        problem = self.problem(action)
        try:
            if problem:
                raise ValueError(problem)
            ways[action]()
        except (ValueError, OSError) as error:
            self.tell(str(error))

    def _drawn(self, rows: np.ndarray, how: str) -> None:
        session = self.inspection.session
        session.select(session.ids[rows], "lasso", how=how)

    def _go(self, tomogram: str) -> None:
        self.link.show(tomogram)
        self.link.map(self.map.isChecked())

    def _split(self, cluster: int) -> None:
        session, parts = self.inspection.session, self.parts.value()
        self._busy = f"{session.title(cluster)} is being split"
        self._allow()
        threads.later(
            lambda: self.inspection.parts(cluster, parts),
            then=lambda found: self._ended(partial(session.split, cluster, found)),
            failed=lambda error: self._ended(partial(self.tell, str(error))),
        )

    def _ended(self, last: Callable[[], Any]) -> None:
        """Do the last bit of something that ran beside the window."""
        self._busy = ""
        if self._gone:
            return
        try:
            last()
        except ValueError as error:
            self.tell(str(error))
        self._allow()

    def _average(self, chosen: list[int], **options: Any) -> None:
        options |= {"symmetry": self.symmetry.currentText().strip(), "mask_diameter": self.diameter.value() or None}
        clusters: list[int | None] = [*chosen] or [None]
        for cluster in clusters:
            self.inspection.average(cluster, classes=self.classes.value(), **options)

    def leave(self) -> None:
        """Follow the inspection no more."""
        if not self._gone:
            self._gone = True
            self.inspection.unwatch(self._hear)


def _line(*widgets: Any) -> QHBoxLayout:
    """Widgets side by side; one with a number takes that share of the room."""
    line = QHBoxLayout()
    line.setSpacing(3)
    line.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        one, share = widget if isinstance(widget, tuple) else (widget, 0)
        line.addWidget(one, share)
    return line


def _stack(*parts: Any) -> QWidget:
    """Widgets and lines above one another."""
    widget = QWidget()
    layout = QVBoxLayout(widget)
    layout.setSpacing(3)
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addWidget(part) if isinstance(part, QWidget) else layout.addLayout(part)
    return widget
