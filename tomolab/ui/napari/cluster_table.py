"""Takes an inspection, shows its clusters in a Qt table, to tick, name, hide and annotate.

The columns are those of `cluster_columns`; the first also has the tick and the colour.

>>> table = ClusterTable(inspection)
>>> table.clusters.ticked                   # in the order in which they were ticked
[0, 3]
"""

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QPixmap, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from tomolab.inspection import cluster_columns
from tomolab.inspection.model import Inspection
from tomolab.ui import style

Index = QModelIndex | QPersistentModelIndex
NONE = QModelIndex()
Role = Qt.ItemDataRole
WIDTHS = {"selected": 440, "accepted": 440, "note": 440, "identity": 360}
"""Pixels of a table below which a column would leave no room for the names."""


class Clusters(QAbstractTableModel):
    """Qt model of the table; its only state is the ticked clusters.

    Parameters
    ----------
    inspection
        Source of the cells; edits change its session.
    """

    tick_changed = Signal()
    refreshed = Signal()
    refused = Signal(str)
    """Sent with the message of a refused edit."""

    def __init__(self, inspection: Inspection) -> None:
        super().__init__()
        self.inspection, self.session, self.ticked = inspection, inspection.session, list[int]()
        self.columns = cluster_columns.COLUMNS
        self._read()

    def _read(self) -> None:
        self.numbers = sorted(self.session.clusters)
        self._values = [column.values(self.inspection) for column in self.columns]
        self.hidden = [
            column.optional and not any(column.format(values[number]) for number in self.numbers)
            for column, values in zip(self.columns, self._values, strict=True)
        ]
        """Whether each column is hidden."""
        self.ticked = [one for one in self.ticked if one in self.session.clusters]

    def refresh(self) -> None:
        """Read the inspection again."""
        same = self.numbers == sorted(self.session.clusters)
        if not same:
            self.beginResetModel()
        self._read()
        if same and self.numbers:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.numbers) - 1, len(self.columns) - 1))
        elif not same:
            self.endResetModel()
            self.tick_changed.emit()
        self.refreshed.emit()

    def rowCount(self, parent: Index = NONE) -> int:  # noqa: N802 - Qt's name
        """Clusters."""
        return 0 if parent.isValid() else len(self.numbers)

    def columnCount(self, parent: Index = NONE) -> int:  # noqa: N802 - Qt's name
        """Columns."""
        return 0 if parent.isValid() else len(self.columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole) -> Any:  # noqa: N802 - Qt's
        """Titles and tooltips."""
        if orientation == Qt.Orientation.Horizontal:
            column = self.columns[section]
            return {Role.DisplayRole: column.title, Role.ToolTipRole: style.plain(column.tooltip)}.get(role)  # type: ignore[call-overload]
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        """Whether a cell can be ticked or edited."""
        can, column = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable, self.columns[index.column()]
        if column.type == "check" or index.column() == 0:
            can |= Qt.ItemFlag.ItemIsUserCheckable
        if column.type == "text" and column.write is not None:
            can |= Qt.ItemFlag.ItemIsEditable
        return can

    def data(self, index: Index, role: int = Role.DisplayRole) -> Any:
        """Content of a cell."""
        number, place = self.numbers[index.row()], index.column()
        column, value = self.columns[place], self._values[place][number]
        if role == Role.CheckStateRole and (column.type == "check" or place == 0):
            on = value if column.type == "check" else number in self.ticked
            return Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        if role == Role.DecorationRole and place == 0:
            return swatch(style.inks(self.session.clusters)[number])
        if role == Role.TextAlignmentRole and column.type == "number":
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Role.ToolTipRole:
            return style.plain(f"{column.tooltip}\n{self.session.title(number)} (number {number})")
        if role in (Role.DisplayRole, Role.EditRole) and column.type != "check":
            return column.format(value)
        return None

    def setData(self, index: Index, value: Any, role: int = Role.EditRole) -> bool:  # noqa: N802 - Qt's name
        """Tick a cluster, or edit a cell."""
        number, column = self.numbers[index.row()], self.columns[index.column()]
        if role == Role.CheckStateRole:
            value = Qt.CheckState(value) == Qt.CheckState.Checked
            if column.type != "check":
                self.tick(number, on=value)
                return True
        elif role != Role.EditRole or value == self.data(index):
            # Qt commits the text of an editor also if it is unchanged.
            return False
        try:
            assert column.write is not None
            column.write(self.session, number, value)
        except ValueError as error:
            self.refused.emit(str(error))
            return False
        return True

    def tick(self, cluster: int, *, on: bool = True) -> None:
        """Tick or untick a cluster.

        Parameters
        ----------
        cluster
            Its number.
        on
            True ticks, False unticks.
        """
        self.ticked = [one for one in self.ticked if one != cluster] + [cluster] * on
        self.dataChanged.emit(self.index(0, 0), self.index(len(self.numbers) - 1, 0))
        self.tick_changed.emit()


class ClusterTable(QTableView):
    """Table of the clusters of an inspection.

    Parameters
    ----------
    inspection
        Whose clusters.
    parent
        Widget that it belongs to.
    """

    def __init__(self, inspection: Inspection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.clusters = Clusters(inspection)
        self.setModel(self.clusters)
        self.setShowGrid(False)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(22)
        for place, column in enumerate(self.clusters.columns):
            # Texts share what numbers and checks leave.
            wide = column.type == "text"
            mode = QHeaderView.ResizeMode.Stretch if wide else QHeaderView.ResizeMode.ResizeToContents
            self.horizontalHeader().setSectionResizeMode(place, mode)
        self.horizontalHeader().setMinimumSectionSize(24)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumHeight(78)
        self.clusters.refreshed.connect(self._hide)
        self._hide()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Leave out columns where names would have no room beside them."""
        super().resizeEvent(event)
        self._hide()

    def _hide(self) -> None:
        for place, (column, hidden) in enumerate(zip(self.clusters.columns, self.clusters.hidden, strict=True)):
            self.setColumnHidden(place, hidden or self.width() < WIDTHS.get(column.name, 0))


def swatch(ink: str, size: int = 12) -> QPixmap:
    """A square of one colour, "#rrggbb", `size` pixels wide."""
    square = QPixmap(size, size)
    square.fill(QColor(ink))
    return square
