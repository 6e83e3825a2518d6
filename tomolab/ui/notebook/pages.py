"""Takes a run folder, shows its inspector in the whole window of a browser, without a notebook (`server.serve`)."""

import html
from pathlib import Path

import anywidget
from ipywidgets import HTML, VBox
from traitlets import Int

from tomolab import inspection
from tomolab.ui import style
from tomolab.ui.notebook import inspector

OTHERS, LOWEST, SHARE = 290, 500, 0.6
"""Pixels of buttons and margins; least height of all else, and the share of it for map and slices, the rest for the list."""


class Page(VBox):  # type: ignore[misc]
    """The inspector of a run folder, as high as the window of the browser; or why it cannot be opened."""

    def __init__(self, folder: str | Path) -> None:
        self.view: inspector.Inspector | None = None
        self.window = Window()
        try:
            self.inspection = inspection.open(folder)
        except (OSError, ValueError) as error:
            text = html.escape(f"{folder} cannot be inspected: {error}")
            super().__init__([HTML(f"<p role='alert' style='color:{style.ERROR_TEXT}'>{text}</p>")])
        else:
            super().__init__([self.window])
            self.window.observe(lambda change: self._fit(change["new"]), "height")

    def _fit(self, height: int) -> None:
        room = max(LOWEST, height - OTHERS)
        if self.view is None:
            # Now, since a map does not follow a change of its height.
            self.view = inspector.Inspector(self.inspection, height=round(SHARE * room))
            self.children = [self.view, self.window]
        self.view.table.height = room - round(SHARE * room)


class Window(anywidget.AnyWidget):  # type: ignore[misc]
    """Height of the browser's window, in pixels."""

    _esm = """export default { render({ model }) {
        const tell = () => { model.set("height", window.innerHeight); model.save_changes(); };
        tell();
        window.addEventListener("resize", tell);
        return () => window.removeEventListener("resize", tell);
    } };"""
    height = Int(0).tag(sync=True)
