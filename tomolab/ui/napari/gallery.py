"""Takes an inspection, shows boxes of its particles in Qt page by page, the most typical first; a click selects a particle.

>>> gallery = Gallery(inspection, ticked=lambda: [3], went=print)
"""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QRect, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from tomolab.inspection.model import Inspection
from tomolab.ui import images, style
from tomolab.ui.box_pages import BoxPages
from tomolab.ui.napari import threads

COLUMNS, ROWS = 5, 4


class Boxes(QWidget):
    """The boxes of a page with the frames of the selected ones, as large as there is room."""

    clicked = Signal(int, str)
    """Place of a box on the page, and how to select its particle: "replace", "add" or "remove"."""

    def __init__(self) -> None:
        super().__init__()
        self.picture, self.frames = QPixmap(), list[str]()
        self.setMinimumHeight(100)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Room for a page."""
        return QSize(280, 224)

    def cell(self, place: int) -> QRect:
        """Where a box is drawn."""
        side = min(self.width() // COLUMNS, self.height() // ROWS)
        return QRect(place % COLUMNS * side, place // COLUMNS * side, side, side)

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the page."""
        painter, box = QPainter(self), self.picture.width() // COLUMNS
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        for place, ink in enumerate(self.frames):
            source = QRect(place % COLUMNS * box, place // COLUMNS * box, box, box)
            painter.drawPixmap(self.cell(place).adjusted(1, 1, -1, -1), self.picture, source)
            if ink:
                painter.setPen(QPen(QColor(ink), 3))
                painter.drawRect(self.cell(place).adjusted(2, 2, -3, -3))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Tell which box was clicked."""
        keys, modifier = event.modifiers(), Qt.KeyboardModifier
        how = "add" if keys & modifier.ShiftModifier else "replace"
        how = "remove" if keys & (modifier.ControlModifier | modifier.AltModifier) else how
        at = event.position().toPoint()
        for place in range(len(self.frames)):
            if self.cell(place).contains(at):
                self.clicked.emit(place, how)


class Gallery(QWidget):
    """Boxes of the ticked clusters, or of the selection if none is ticked, a page at a time.

    Parameters
    ----------
    inspection
        Whose particles.
    ticked
        Returns the ticked clusters.
    went
        Called with the id of a particle when its box is clicked.
    """

    def __init__(self, inspection: Inspection, *, ticked: Callable[[], list[int]], went: Callable[[int], Any]) -> None:
        super().__init__()
        self.inspection, self.ticked, self.went, self._gone = inspection, ticked, went, False
        self.pages = BoxPages(inspection, columns=COLUMNS, rows=ROWS)
        self.boxes, self.text, self.view, self.detail = Boxes(), QLabel(), QComboBox(), QComboBox()
        self.back, self.forth = QToolButton(), QToolButton()
        self.view.addItems(images.VIEWS)
        self.view.setToolTip("Mean of the central slices, or of all")
        for name, size in self.pages.details:
            self.detail.addItem(name, size)
        self.detail.setToolTip("Low-pass filter")
        self.text.setWordWrap(True)
        layout, line = QVBoxLayout(self), QHBoxLayout()
        layout.setContentsMargins(2, 4, 2, 2)
        for button, arrow, by in ((self.back, Qt.ArrowType.LeftArrow, -1), (self.forth, Qt.ArrowType.RightArrow, 1)):
            button.setArrowType(arrow)
            button.setToolTip("Next page" if by > 0 else "Previous page")
            button.clicked.connect(lambda _=False, by=by: self._turn(by))
        for choice in (self.view, self.detail):
            choice.currentIndexChanged.connect(lambda _: self._draw())
            choice.setMinimumWidth(60)
            line.addWidget(choice, 1)
        line.addWidget(self.back)
        line.addWidget(self.forth)
        layout.addLayout(line)
        layout.addWidget(self.boxes, 1)
        layout.addWidget(self.text)
        self.boxes.clicked.connect(self._click)
        inspection.changed.connect(self._follow)

    def leave(self) -> None:
        """Disconnect from the inspection."""
        self._gone = True
        self.inspection.changed.disconnect(self._follow)

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw what changed while the gallery was not seen."""
        super().showEvent(event)
        self._renew()

    def renew(self) -> None:
        """Show the particles that are ticked or selected now; later, if the gallery is not seen."""
        if self.isVisible():
            self._renew()

    def _renew(self) -> None:
        if self.pages.renew(self.ticked()) or not self.text.text():
            self._draw()

    @threads.in_window
    def _follow(self, changed: set[str]) -> None:
        if not self._gone and changed & {"selected", "labels", "clusters", "filters", "colours"}:
            self.renew()
            self.boxes.frames = self.pages.frames()
            self.boxes.update()

    def _turn(self, by: int) -> None:
        self.pages.turn(by)
        self._draw()

    def _draw(self) -> None:
        pages = self.pages
        pages.view, pages.low_pass = self.view.currentText(), self.detail.currentData()
        self.back.setEnabled(pages.has_previous)
        self.forth.setEnabled(pages.has_next)
        self.text.setText(style.plain(pages.text))
        self.boxes.picture = QPixmap()
        self.boxes.picture.loadFromData(pages.picture())
        self.boxes.frames = pages.frames()
        self.boxes.update()

    def _click(self, place: int, how: str) -> None:
        particle = int(self.pages.shown[place])
        self.went(particle)
        # Where the gallery shows the selection, a click without a key keeps it.
        if how != "replace" or self.ticked():
            self.inspection.session.select([particle], "gallery", how=how)
