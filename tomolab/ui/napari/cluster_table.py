"""The ledger: the clusters of a session as a table in Qt, to tick, name, hide and annotate.

>>> table = Ledger(session)
>>> table.chosen()                    # clusters that are ticked
[0, 3]
"""

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from tomolab.inspection.session import Session
from tomolab.ui import style

NAME, COUNT, SHOWN, NOTE = range(4)
TITLES = ("Cluster", "Particles", "Shown", "Note")
ABOUT = (
    "Tick clusters to merge, split, dissolve, average or export them; double-click to name one",
    "Particles in the cluster now",
    "Whether its particles are drawn, here and in the tomogram",
    "Anything worth remembering; double-click to write",
)
Index = QModelIndex | QPersistentModelIndex
NONE = QModelIndex()
Role = Qt.ItemDataRole


class Clusters(QAbstractTableModel):
    """Model of the clusters of a session: it holds nothing but what is ticked.

    Parameters
    ----------
    session
        Asked for everything that is shown, and told what is written.
    """

    ticked = Signal()
    """What is ticked has changed."""
    refused = Signal(str)
    """Something that was written could not be, and why."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session, self.marked = session, set[int]()
        self._read()

    def _read(self) -> None:
        self.numbers, self.counts = sorted(self.session.clusters), self.session.counts()
        self.marked &= set(self.numbers)

    def refresh(self) -> None:
        """Read the session again."""
        same = self.numbers == sorted(self.session.clusters)
        if not same:
            self.beginResetModel()
        self._read()
        if same and self.numbers:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.numbers) - 1, NOTE))
        elif not same:
            self.endResetModel()
            self.ticked.emit()

    def rowCount(self, parent: Index = NONE) -> int:  # noqa: N802 - Qt's name
        """Clusters."""
        return 0 if parent.isValid() else len(self.numbers)

    def columnCount(self, parent: Index = NONE) -> int:  # noqa: N802 - Qt's name
        """Columns."""
        return 0 if parent.isValid() else len(TITLES)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole) -> Any:  # noqa: N802 - Qt's
        """Titles, and what they mean."""
        if orientation == Qt.Orientation.Horizontal:
            return {Role.DisplayRole: TITLES[section], Role.ToolTipRole: ABOUT[section]}.get(role)  # type: ignore[call-overload]
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        """What can be done with a cell."""
        can = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() in (NAME, SHOWN):
            can |= Qt.ItemFlag.ItemIsUserCheckable
        if index.column() in (NAME, NOTE):
            can |= Qt.ItemFlag.ItemIsEditable
        return can

    def data(self, index: Index, role: int = Role.DisplayRole) -> Any:
        """What a cell shows."""
        number, column = self.numbers[index.row()], index.column()
        one = self.session.clusters[number]
        if role == Role.CheckStateRole and column in (NAME, SHOWN):
            on = number in self.marked if column == NAME else not one.hidden
            return Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        if role == Role.DecorationRole and column == NAME:
            return swatch(style.inks(self.session.clusters)[number])
        if role == Role.TextAlignmentRole and column == COUNT:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Role.ToolTipRole:
            return f"{one.note or self.session.title(number)} (number {number})" if column in (NAME, NOTE) else ABOUT[column]
        if role == Role.EditRole:
            return {NAME: one.name, NOTE: one.note}.get(column)
        if role == Role.DisplayRole:
            return {NAME: self.session.title(number), COUNT: f"{self.counts[number]:,}", NOTE: one.note}.get(column)
        return None

    def setData(self, index: Index, value: Any, role: int = Role.EditRole) -> bool:  # noqa: N802 - Qt's name
        """Tick, hide, name or annotate a cluster."""
        number, column = self.numbers[index.row()], index.column()
        if role == Role.CheckStateRole:
            on = Qt.CheckState(value) == Qt.CheckState.Checked
            if column == SHOWN:
                self.session.describe(number, hidden=not on)
            else:
                self.tick(number, on=on)
            return True
        if role != Role.EditRole:
            return False
        try:
            self.session.describe(number, **{"name" if column == NAME else "note": str(value).strip()})
        except ValueError as error:
            self.refused.emit(str(error))
            return False
        return True

    def tick(self, cluster: int, *, on: bool = True) -> None:
        """Tick a cluster, or take the tick away.

        Parameters
        ----------
        cluster
            Its number.
        on
            Whether it is to be ticked.
        """
        self.marked = self.marked | {cluster} if on else self.marked - {cluster}
        self.dataChanged.emit(self.index(0, 0), self.index(len(self.numbers) - 1, NAME))
        self.ticked.emit()


class Ledger(QTableView):
    """Table of the clusters of a session.

    Parameters
    ----------
    session
        Of an inspection.
    parent
        Widget that it belongs to.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.clusters = Clusters(session)
        self.setModel(self.clusters)
        self.setShowGrid(False)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(22)
        header = self.horizontalHeader()
        for column in (COUNT, SHOWN):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(NOTE, QHeaderView.ResizeMode.Stretch)
        self.setMinimumHeight(78)

    def chosen(self) -> list[int]:
        """Clusters that are ticked, sorted."""
        return sorted(self.clusters.marked)


def swatch(ink: str, size: int = 12) -> QPixmap:
    """A square of one colour, "#rrggbb", `size` pixels wide."""
    square = QPixmap(size, size)
    square.fill(QColor(ink))
    return square
