"""Takes a session, shows the filter of a column in Qt: a histogram with the range that is shown, or a list of values to tick.

>>> panel = Filters(session, tell=print)
>>> panel.column.setCurrentText("tomogram")
"""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QSignalBlocker, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget
from superqt import QLabeledDoubleRangeSlider

from tomolab.inspection import context
from tomolab.inspection.session import Session
from tomolab.ui import column_filter, style
from tomolab.ui.column_filter import ColumnFilter
from tomolab.ui.napari import threads
from tomolab.ui.napari.cluster_table import swatch


class Histogram(QWidget):
    """Bars of all particles, and before them, in colour, of those that are shown."""

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.shown = list[int](), list[int]()
        self.setMinimumHeight(56)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """A strip."""
        return QSize(200, 72)

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the bars."""
        painter, top = QPainter(self), max([*self.counts, 1])
        width = self.width() / max(1, len(self.counts))
        for counts, ink in ((self.counts, style.QUIET), (self.shown, style.OKABE_ITO[4])):
            for place, count in enumerate(counts):
                # A rare value shows too.
                height = max(1, round(count / top * self.height())) if count else 0
                left, right = round(place * width), round((place + 1) * width)
                painter.fillRect(left, self.height() - height, max(1, right - left - 1), height, QColor(ink))
        painter.end()


class Filters(QWidget):
    """Filter of one column at a time; particles outside are left out of all views, counts, averages and exports.

    Parameters
    ----------
    session
        Whose particles.
    tell
        Called with error messages.
    """

    def __init__(self, session: Session, *, tell: Callable[[str], Any]) -> None:
        super().__init__()
        self.session, self.tell, self._gone = session, tell, False
        self.column, self.all, self.text = QComboBox(), QPushButton("Whole column"), QLabel()
        self.plot, self.range, self.list = Histogram(), QLabeledDoubleRangeSlider(Qt.Orientation.Horizontal), QListWidget()
        self.column.addItems(column_filter.columns(session.particles))
        self.column.setMinimumWidth(70)
        self.list.setMinimumHeight(40)
        self.all.setToolTip("Remove the filter of this column")
        self.text.setWordWrap(True)
        self.range.setHandleLabelPosition(QLabeledDoubleRangeSlider.LabelPosition.NoLabel)
        self.range.setEdgeLabelMode(QLabeledDoubleRangeSlider.EdgeLabelMode.LabelIsValue)
        self.filter = ColumnFilter(session, self.column.currentText())
        layout, line = QVBoxLayout(self), QHBoxLayout()
        layout.setContentsMargins(2, 4, 2, 2)
        line.addWidget(self.column, 1)
        line.addWidget(self.all)
        layout.addLayout(line)
        for widget, share in ((self.plot, 2), (self.range, 0), (self.list, 3), (self.text, 0)):
            layout.addWidget(widget, share)
        self.column.currentTextChanged.connect(lambda _: self._show())
        self.all.clicked.connect(lambda: self.filter.clear())
        self.range.sliderReleased.connect(lambda: self.filter.set_range(*self.range.value()))
        self.range.editingFinished.connect(lambda: self.filter.set_range(*self.range.value()))
        self.list.itemChanged.connect(self._ticked)
        session.changed.connect(self._follow)
        self._show()

    def leave(self) -> None:
        """Disconnect from the session."""
        self._gone = True
        self.session.changed.disconnect(self._follow)

    @threads.in_window
    def _follow(self, changed: set[str]) -> None:
        if not self._gone and changed & {"filters", "clusters", "labels"}:
            self._show()

    def _show(self) -> None:
        if self.filter.column != self.column.currentText():
            self.filter = ColumnFilter(self.session, self.column.currentText())
        chosen = self.filter
        self.column.setToolTip(style.plain(context.tooltip(chosen.column) or "Column of the particle table"))
        for widget in (self.plot, self.range):
            widget.setVisible(chosen.is_range)
        self.list.setVisible(not chosen.is_range)
        if chosen.is_range:
            self.plot.counts, self.plot.shown = chosen.histogram()
            self.plot.update()
            with QSignalBlocker(self.range):
                self.range.setRange(*chosen.limits)  # type: ignore[arg-type]
                self.range.setValue(chosen.range)
        else:
            self._list()
        self.text.setText(style.plain("\n".join(column_filter.described(self.session))))

    def _list(self) -> None:
        with QSignalBlocker(self.list):
            self.list.clear()
            for one in self.filter.values():
                count = f"{one.count:,}" if one.shown == one.count else f"{one.shown:,} of {one.count:,}"
                item = QListWidgetItem(f"{one.title} ({count})", self.list)
                item.setData(Qt.ItemDataRole.UserRole, one.value)
                item.setCheckState(Qt.CheckState.Checked if one.on else Qt.CheckState.Unchecked)
                if one.ink:
                    item.setIcon(swatch(one.ink))

    def _ticked(self, _: QListWidgetItem) -> None:
        items = map(self.list.item, range(self.list.count()))
        values = [one.data(Qt.ItemDataRole.UserRole) for one in items if one.checkState() == Qt.CheckState.Checked]
        try:
            self.filter.set_values(values)
        except ValueError as error:
            self.tell(str(error))
            self._list()
