"""Takes an inspection or a run folder, shows the inspector as a dock widget of napari.

>>> view = viewer.open()
>>> view.window.add_dock_widget(Inspector(view, inspection.open("runs/first")), name="tomolab", area="right")

From napari's own menu: Plugins > tomolab > Inspector.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStatusBar,
    QVBoxLayout,
    QWidget,
)

from tomolab.inspection import model as inspections
from tomolab.inspection.model import Inspection
from tomolab.ui import style
from tomolab.ui.napari import link as napari_link
from tomolab.ui.napari import threads
from tomolab.ui.napari.inspector import InspectorPanel, message
from tomolab.ui.napari.pick_panel import PickPanel
from tomolab.ui.napari.picks import Picks

if TYPE_CHECKING:
    from napari.viewer import Viewer

WELCOME = (
    "Open a run folder (of <i>tomolab import</i> or the notebooks 01 to 05) to inspect its particles, edit its clusters and "
    "compute averages. Every change is saved in the folder at once. Or open a tomogram by <i>File, Open</i> and pick particles:"
)
DIAMETER = 250.0
"""Å, of the circles of picks where no run folder says the diameter of a particle."""


class Inspector(QWidget):
    """The inspector of a napari window.

    Parameters
    ----------
    napari_viewer
        The window.
    inspection
        What to inspect; by default the run folder of the layers in the window, or one that the user opens.
    """

    def __init__(self, napari_viewer: "Viewer", inspection: Inspection | None = None) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.panel: InspectorPanel | None = None
        self.picking: PickPanel | None = None
        self.link: napari_link.Link | None = None
        self.folder, self.button = QLabel("tomolab"), QPushButton("Open run folder…")
        self.welcome, self.bar, self.fault = QLabel(WELCOME), QProgressBar(), QLabel()
        self._arrange()
        self.button.clicked.connect(self._ask)
        followed, gone = self._followed, self._gone = list[Any](), list[bool]()

        def end() -> None:
            """Qt has destroyed this object by then, so the function must not use it."""
            gone.append(True)
            for one in followed:
                one.leave()

        self.destroyed.connect(end)
        self._opening = False
        self.viewer.layers.events.inserted.connect(self._offered)
        if inspection is not None:
            self.inspect(inspection)
        else:
            self._offer_picking()
            self._offered()

    def _arrange(self) -> None:
        for label in (self.welcome, self.fault, self.folder):
            label.setWordWrap(label is not self.folder)
            label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.bar.setRange(0, 0)
        self.bar.setFixedHeight(8)
        self.bar.hide()
        self.fault.hide()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(2, 2, 2, 2)
        self._layout.setSpacing(2)
        line = QHBoxLayout()
        line.addWidget(self.folder, 1)
        line.addWidget(self.button)
        self._layout.addLayout(line)
        for widget in (self.bar, self.fault, self.welcome):
            self._layout.addWidget(widget)
        self._layout.addStretch(1)
        self.setMinimumWidth(290)

    def _offer_picking(self) -> None:
        """Let the user pick in a tomogram that belongs to no inspection."""
        self.welcome.show()
        self.picking = PickPanel(Picks(self.viewer, diameter=DIAMETER), tell=self._tell)
        self._followed.append(self.picking)
        self._layout.insertWidget(4, self.picking)

    def _tell(self, text: str, *, fault: bool = True) -> None:
        self.fault.setText(message(text, fault=fault))
        self.fault.setVisible(bool(text))

    def inspect(self, inspection: Inspection) -> None:
        """Show an inspection instead of the one before; remove the layers of run folders.

        Parameters
        ----------
        inspection
            What to inspect.
        """
        self.close_inspection()
        self._opening = True
        for layer in [one for one in self.viewer.layers if napari_link.MARK in one.metadata]:
            self.viewer.layers.remove(layer)
        if self.picking is not None:
            self._followed.remove(self.picking)
            self.picking.leave()
            self._layout.removeWidget(self.picking)
            self.picking.deleteLater()
            self.picking = None
        # napari shows there what the pointer is at: names and values of files.
        for label in (one for bar in self.window().findChildren(QStatusBar) for one in bar.findChildren(QLabel)):
            label.setTextFormat(Qt.TextFormat.PlainText)
        self.link = napari_link.link(self.viewer, inspection)
        self.panel = InspectorPanel(inspection, self.link)
        self._followed += [self.link, self.panel]
        self._layout.insertWidget(3, self.panel, 1000)
        self.welcome.hide()
        self.folder.setText(f"<b>{'' if inspection.folder is None else style.plain(inspection.folder.name)}</b>")
        self.folder.setToolTip(style.plain(str(inspection.folder or "This inspection has no run folder")))
        self.button.setText("Open another…")
        self._opening = False

    def open(self, folder: str | Path) -> None:
        """Open a run folder in a background thread; it may have to compute the layout of its embedding.

        Parameters
        ----------
        folder
            As in `inspection.open`.
        """
        picking = self.picking if self.panel is None else self.panel.picking
        if picking is not None and picking.picks.unsaved:
            self._tell("there are picks that no list has: save them, or undo them, before you open a run folder")
            return
        self._opening = True
        self._wait(f"opening {Path(folder).name}; the first time this computes a layout, which may take minutes")
        threads.in_background(lambda: inspections.open(folder), then=self._opened, failed=self._failed)

    def _opened(self, inspection: Inspection) -> None:
        if not self._gone:
            self._wait("")
            self.inspect(inspection)

    def _failed(self, error: Exception) -> None:
        if self._gone:
            return
        self._opening = False
        self._wait("")
        self._tell(str(error))

    def _wait(self, what: str) -> None:
        self.bar.setVisible(bool(what))
        self.fault.setVisible(bool(what))
        self.fault.setText(style.plain(what))
        self.button.setEnabled(not what)

    def _ask(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Run folder")
        if folder:
            self.open(folder)

    def _offered(self, *_: Any) -> None:
        """Open the run folder of the layers in the window, if none is open."""
        if not (self._gone or self._opening or self.panel):
            folders = [layer.metadata.get(napari_link.MARK) for layer in self.viewer.layers]
            found = [one for one in folders if one and (Path(one) / "clusters.csv").is_file()]
            if found:
                self.open(found[0])

    def close_inspection(self) -> None:
        """Close the inspection and remove its layers from the viewer; its changes are in the run folder."""
        if self.panel is not None and self.link is not None:
            panel, link, self.panel, self.link = self.panel, self.link, None, None
            panel.leave()
            link.close()
            if panel.canvas is not None:
                panel.canvas.close_scene()
            self._layout.removeWidget(panel)
            panel.deleteLater()
            self._followed.clear()
