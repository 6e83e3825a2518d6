"""Takes picks of a napari viewer, shows their list as a Qt panel: name, diameter, undo, open, save.

>>> panel = PickPanel(Picks(view, diameter=250))
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import (  # type: ignore[attr-defined]
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from tomolab.inspection.history import counted
from tomolab.io.lists import formats
from tomolab.ui import style
from tomolab.ui.napari.picks import PLACE, Picks

ABOUT = (
    "A click in a slice adds a pick. The arrow in the layer controls selects picks: a drag moves them, Delete removes them, "
    "Ctrl+Z undoes."
)
FORMATS = sorted(formats.WRITERS.keys() - {".star"})
FILTER = f"Particle lists ({' '.join(f'*{one}' for one in sorted(formats.READERS))})"


class PickPanel(QWidget):
    """Panel to pick particles by hand.

    Parameters
    ----------
    picks
        Of the viewer; the panel sets their tomogram.
    tell
        Called with a message, and with fault=False if it reports success.
    parent
        Widget that it belongs to.
    """

    def __init__(self, picks: Picks, *, tell: Callable[..., Any], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.picks, self.tell = picks, tell
        self.tomogram, self.name = QComboBox(), QLineEdit("my_picks")
        self.diameter, self.voxel_size = _number(10, 5000, " Å"), _number(0, 1000, " Å")
        self.low, self.high = _number(-91, 90, "°"), _number(-91, 90, "°")
        self.pick, self.undo, self.redo = QPushButton("Pick"), QPushButton("Undo"), QPushButton("Redo")
        self.open, self.save, self.replace = QPushButton("Open…"), QPushButton("Save"), QCheckBox("replace")
        self.about, self.count = QLabel(ABOUT), QLabel()
        self._describe()
        self._arrange()
        self._connect()
        self._find()

    def _describe(self) -> None:
        self.diameter.setValue(self.picks.diameter)
        self.voxel_size.setDecimals(3)
        for widget, about in (
            (self.diameter, "Diameter of the circles, as of a particle"),
            (self.voxel_size, "Voxel size of the tomogram, if its file does not say it"),
            (self.low, "Lowest tilt, if no file says it"),
            (self.high, "Highest tilt, if no file says it"),
            (
                self.name,
                f"Name or path of the list; its suffix is the format: {', '.join(sorted(formats.WRITERS))} (default: .star)",
            ),
            (self.pick, "Add picks by a click in a slice"),
            (self.open, "Continue a list; its particles replace the present picks, and Undo brings these back"),
            (self.replace, "Replace a list of this name that is there already"),
        ):
            widget.setToolTip(about)
        for box in (self.voxel_size, self.low, self.high):
            box.setSpecialValueText("?")
            box.setValue(box.minimum())

    def _arrange(self) -> None:
        for label in (self.about, self.count):
            label.setWordWrap(True)
        self.tomogram.setMinimumWidth(60)
        layout, form = QVBoxLayout(self), QFormLayout()
        layout.setContentsMargins(2, 4, 2, 2)
        layout.setSpacing(4)
        layout.addWidget(_line(self.pick, self.undo, self.redo))
        layout.addWidget(self.count)
        for title, widget in (
            ("List", self.name),
            ("", _line(self.open, self.save, self.replace)),
            ("Tomogram", self.tomogram),
            ("Diameter", self.diameter),
            ("Voxel size", self.voxel_size),
            ("Tilts", _line(self.low, self.high)),
        ):
            form.addRow(title, widget) if title else form.addRow(widget)
        layout.addLayout(form)
        layout.addWidget(self.about)
        layout.addStretch(1)

    def _connect(self) -> None:
        layers = self.picks.viewer.layers
        for event in (layers.events.inserted, layers.events.removed):
            event.connect(self._find)
        self.picks.changed.connect(self._update)
        self.picks.refused.connect(self.tell)
        self.tomogram.activated.connect(lambda _: self.picks.show(self.tomogram.currentData()))
        self.diameter.valueChanged.connect(self.picks.set_diameter)
        self.voxel_size.editingFinished.connect(lambda: self._do(lambda: self.picks.state_voxel_size(self.voxel_size.value())))
        for box in (self.low, self.high):
            box.editingFinished.connect(self._state_tilts)
        for button, work in (
            (self.pick, self.picks.start),
            (self.undo, self.picks.undo),
            (self.redo, self.picks.redo),
            (self.open, self._open),
            (self.save, self._save),
        ):
            button.clicked.connect(lambda _=False, work=work: self._do(work))

    def leave(self) -> None:
        """Disconnect from the viewer."""
        layers = self.picks.viewer.layers
        for event in (layers.events.inserted, layers.events.removed):
            event.disconnect(self._find)
        self.picks.changed.disconnect(self._update)
        self.picks.refused.disconnect(self.tell)

    def _find(self, event: Any = None) -> None:
        """Offer the images in which one can pick, the newest first."""
        images = [layer for layer in reversed(self.picks.viewer.layers) if PLACE in layer.metadata]
        self.tomogram.clear()
        for image in images:
            self.tomogram.addItem(image.metadata[PLACE].tomogram, image)
        if event is not None and event.type == "removed" and event.value is self.picks.layer:
            self.picks.layer = None
        if self.picks.image not in images or (event is not None and event.type == "inserted" and PLACE in event.value.metadata):
            self.picks.show(images[0] if images else None)
        self._update()

    def _update(self) -> None:
        picks, place = self.picks, self.picks.place
        known = None if place is None else picks.tomograms[place.tomogram]
        sized = place is not None and place.sized
        self.voxel_size.setValue(known.voxels.voxel_size if known and sized else 0)
        self.voxel_size.setEnabled(place is not None and not sized)
        for side, box in enumerate((self.low, self.high)):
            # What a file says is shown, not asked for.
            box.setEnabled(place is not None and place.tomograms[place.tomogram].tilts is None)
            if known and known.tilts:
                box.setValue(known.tilts[side])
            elif not box.isEnabled():
                box.setValue(box.minimum())
        self.tomogram.setCurrentIndex(self.tomogram.findData(picks.image))
        for button in (self.pick, self.open, self.save):
            button.setEnabled(sized)
        self.undo.setEnabled(bool(picks.past))
        self.redo.setEnabled(bool(picks.future))
        counts = picks.counts
        text = counted(sum(counts.values()), "picks") if counts else "no picks"
        text += f": {', '.join(f'{name} {number:,}' for name, number in counts.items())}" if len(counts) > 1 else ""
        self.count.setText(
            f"<b>{style.plain(text)}</b>"
            if place
            else "Open a tomogram to pick in: <i>File, Open</i>, a run folder or .mrc file"
        )

    def _do(self, work: Callable[[], Any]) -> None:
        self.tell("")
        try:
            work()
        except (ValueError, OSError) as error:
            self.tell(str(error))

    def _state_tilts(self) -> None:
        if self.low.value() >= -90 and self.high.value() >= -90:
            self._do(lambda: self.picks.state_tilts(self.low.value(), self.high.value()))

    def _open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Particle list", "", FILTER)
        if path:
            self.load(path)

    def load(self, path: str | Path) -> None:
        """Go on with the particles of a list; its name becomes that of the list to save.

        Parameters
        ----------
        path
            As in `io.read_particles`.
        """
        self.picks.start()
        self.picks.load(path)
        self.name.setText(str(path))

    def _save(self) -> None:
        path = self.picks.save(self.name.text(), replace=self.replace.isChecked())
        self.replace.setChecked(False)
        count = counted(sum(self.picks.counts.values()), "picks")
        self.tell(f"saved {count} in {path}. Next: tomolab import TOMOGRAM --particles {path} ...", fault=False)


def _number(low: float, high: float, suffix: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(low, high)
    box.setDecimals(0 if suffix == " Å" else 1)
    box.setSuffix(suffix)
    box.setMinimumWidth(50)
    return box


def _line(*widgets: QWidget) -> QWidget:
    """Widgets side by side."""
    line = QWidget()
    layout = QHBoxLayout(line)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(3)
    for widget in widgets:
        layout.addWidget(widget, 1)
    return line
