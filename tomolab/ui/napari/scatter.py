"""Takes positions and colours of particles, draws them with vispy, gives the rows inside a lasso.

The left button draws a lasso; Shift adds to the selection, Ctrl or Alt removes from it. The wheel zooms about the mouse, the
right or middle button pans.

>>> canvas = Canvas(points[["x", "y"]].to_numpy())
>>> canvas.drawn.connect(lambda rows, how: print(len(rows), how))
>>> canvas.show_points(inks, visible=session.visible, selected=session.selected)
"""

import html
import weakref
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgba
from matplotlib.path import Path
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QVBoxLayout, QWidget

from tomolab.ui import style

STEP = 3
"""Pixels between two vertices of a lasso: fine for a hand, and fast for a million particles."""
PALE = 0.25
"""Opacity of the other particles while some are selected."""
CLICK = 4
"""Pixels below which a drag is a click, which clears the selection."""


class Canvas(QWidget):
    """Scatter plot with a lasso.

    Parameters
    ----------
    points
        Positions (n, 2); a particle without one (NaN) is not drawn.
    parent
        Widget that it belongs to.
    """

    drawn = Signal(object, str)
    """Rows inside the lasso (int array), and how to select them: "replace", "add" or "remove"."""

    def __init__(self, points: np.ndarray, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.points, self.dark = np.asarray(points, dtype=np.float32).reshape(-1, 2), False
        count = len(self.points)
        self._placed = np.asarray(np.isfinite(self.points).all(axis=1))
        self._seen = np.tile(to_rgba(style.QUIET), (count, 1)), self._placed, np.zeros(count, dtype=bool)
        self._visible = self._placed
        self._path: list[np.ndarray] = []
        self._from: np.ndarray | None = None
        self._window: weakref.ref[QWidget] | None = None
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self.setMinimumSize(200, 120)
        self._build()
        self.fit()

    def _build(self) -> None:
        from qtpy import API_NAME
        from vispy.scene import SceneCanvas, visuals

        self.scene = SceneCanvas(app=API_NAME.lower(), parent=self, keys=None, size=(300, 200))
        self.view = self.scene.central_widget.add_view(camera="panzoom")
        self.view.camera.aspect = 1
        # The camera's own bindings would pan with the button that draws.
        self.view.camera.interactive = False
        self._marks, self._chosen = (visuals.Markers(parent=self.view.scene, antialias=0.5) for _ in range(2))
        self._line = visuals.Line(parent=self.view.scene, width=2, method="gl")
        self.set_dark(self.dark)
        self._marks.order, self._chosen.order, self._line.order = 0, 1, 2
        for one in (self._marks, self._chosen, self._line):
            one.set_gl_state("translucent", depth_test=False)
            one.visible = False
        for name in ("mouse_press", "mouse_move", "mouse_release", "mouse_wheel"):
            getattr(self.scene.events, name).connect(getattr(self, f"_{name}"))
        self._box.addWidget(self.scene.native)

    @property
    def _ink(self) -> str:
        return "white" if self.dark else style.INK

    def set_dark(self, dark: bool) -> None:
        """Draw on a dark or a light background."""
        self.dark = dark
        self.scene.bgcolor = style.DARK if dark else "white"
        self._line.set_data(color=self._ink)

    def hideEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Stop drawing until shown again: a dock that is torn off loses its data on the graphics card."""
        super().hideEvent(event)
        self.scene.events.draw.disconnect()

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Send all data to the graphics card again if the window has changed."""
        super().showEvent(event)
        if self._window is not None and self.window() is not self._window():
            old, rect = self.scene, self.view.camera.rect
            self._box.removeWidget(old.native)
            # Not closed: its graphics context no longer exists.
            old.native.hide()
            old.native.deleteLater()
            self._build()
            self.view.camera.rect = rect
            inks, visible, selected = self._seen
            self.show_points(inks, visible=visible, selected=selected)
        elif self._window is not None:
            self.scene.events.draw.connect(self.scene.on_draw)
        # A weak reference, so that the window can be destroyed first.
        self._window = weakref.ref(self.window())

    @property
    def size_of_points(self) -> float:
        """Size in pixels: few points are large enough to click, many are small enough to leave gaps."""
        return float(np.clip(160 / np.sqrt(max(1, len(self.points))), 2, 9))

    def fit(self) -> None:
        """Show all particles."""
        placed = self.points[self._placed]
        if len(placed):
            low, size = placed.min(axis=0), np.maximum(np.ptp(placed, axis=0), 1e-6)
            self.view.camera.rect = (*(low - 0.04 * size), *(1.08 * size))

    def show_points(self, inks: np.ndarray, *, visible: np.ndarray, selected: np.ndarray) -> None:
        """Draw the particles.

        Parameters
        ----------
        inks
            Colours (n, 4), 0 to 1.
        visible, selected
            Whether each is drawn, and whether it is selected (n,); selected ones are outlined, the others pale.
        """
        self._seen, self._visible = (inks, visible, selected), visible & self._placed
        chosen, rest = self._visible & selected, self._visible & ~selected
        opacity = PALE if selected.any() else 0.85
        self._draw(self._marks, rest, inks * [1, 1, 1, opacity], edge=0.0)
        self._draw(self._chosen, chosen, inks, edge=1.0 if self.size_of_points > 3 else 0.0)
        self.scene.update()

    def _draw(self, marks: Any, which: np.ndarray, inks: np.ndarray, *, edge: float) -> None:
        marks.visible = bool(which.any())
        if marks.visible:
            size = self.size_of_points + 2 * edge
            marks.set_data(self.points[which], size=size, edge_width=edge, edge_color=self._ink, face_color=inks[which])

    def inside(self, corners: np.ndarray) -> np.ndarray:
        """Rows of the visible particles inside a polygon of vertices (m, 2), in the units of the points."""
        low, high = corners.min(axis=0), corners.max(axis=0)
        near = np.flatnonzero(self._visible & ((self.points >= low) & (self.points <= high)).all(axis=1))
        return near[Path(corners).contains_points(self.points[near])]

    # Mouse

    def _places(self, pixels: Any) -> np.ndarray:
        """Coordinates of pixels (m, 2) in the units of the points, (m, 2)."""
        return np.asarray(self.view.scene.transform.imap(np.asarray(pixels, dtype=float)), dtype=float)[:, :2]

    def _mouse_press(self, event: Any) -> None:
        self.scene.native.setFocus()
        self._from = np.asarray(event.pos[:2], dtype=float)
        self._path = [self._from] if event.button == 1 else []

    def _mouse_move(self, event: Any) -> None:
        if self._from is None or not event.is_dragging:
            return
        here = np.asarray(event.pos[:2], dtype=float)
        if not self._path:
            start, end = self._places([self._from, here])
            self.view.camera.pan(start - end)
            self._from = here
        elif np.abs(here - self._path[-1]).max() >= STEP:
            self._path.append(here)
            places = self._places([*self._path, self._path[0]])
            self._line.set_data(places)
            self._line.visible = len(places) > 2

    def _mouse_release(self, event: Any) -> None:
        path, self._path, self._from = self._path, [], None
        self._line.visible = False
        self.scene.update()
        if not path:
            return
        # Qt bundles fast moves and may leave out the last.
        path.append(np.asarray(event.pos[:2], dtype=float))
        held = {str(key.name) for key in event.modifiers}
        how = "add" if "Shift" in held else "remove" if held & {"Control", "Alt", "Meta"} else "replace"
        corners = self._places(path)
        drawn = len(path) > 2 and np.ptp(np.array(path), axis=0).max() > CLICK
        rows = self.inside(corners) if drawn else np.empty(0, dtype=np.intp)
        if drawn or how == "replace":
            self.drawn.emit(rows, how)

    def _mouse_wheel(self, event: Any) -> None:
        self.view.camera.zoom(1.2 ** -event.delta[1], self._places([event.pos[:2]])[0])
        event.handled = True

    def close_scene(self) -> None:
        """Free the memory of the graphics card."""
        self.scene.close()


def legend(values: Any) -> str:
    """What the colours of values mean (`style.particle_inks`), as rich text.

    Parameters
    ----------
    values
        A pandas Series: categories (text, whole numbers) or numbers (float).
    """
    if not style.varies(values):
        _, palette = style.to_categorical(values)
        names = [f"{style.span('■', ink)} {html.escape(name)}" for name, ink in list(palette.items())[:12]]
        return "&ensp;".join(names) + (f" and {len(palette) - 12} more" if len(palette) > 12 else "")
    low, high = style.limits(values.to_numpy(dtype=float, na_value=np.nan))
    bar = "".join(style.span("■", to_hex(matplotlib.colormaps["viridis"](k / 9))) for k in range(10))
    return f"{low:.3g} {bar} {high:.3g}"
