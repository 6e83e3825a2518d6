"""Takes an inspection, shows boxes of its particles page by page, the most typical first; a click selects a particle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
from ipywidgets import HTML, Button, Dropdown, HBox, Layout, VBox
from traitlets import Bytes, Dict, List

from tomolab.inspection.model import Inspection
from tomolab.ui import images, style
from tomolab.ui.box_pages import BoxPages

COLUMNS, ROWS, CELL = 8, 3, 64


class Boxes(anywidget.AnyWidget):  # type: ignore[misc]
    """The canvas: one picture of all boxes, and the colours of their frames."""

    _esm = Path(__file__).with_name("gallery.js")
    picture = Bytes(b"").tag(sync=True)
    grid = Dict({"columns": COLUMNS, "rows": 0, "cell": CELL}).tag(sync=True)
    flags: Any = List([]).tag(sync=True)


class Gallery(VBox):  # type: ignore[misc]
    """Boxes of the ticked clusters, or of the selection if none is ticked, a page at a time; empty without subtomograms.

    `went` is called with the id of a particle when its box is clicked.
    """

    def __init__(
        self,
        inspection: Inspection,
        *,
        ticked: Callable[[], list[int]] = list,
        went: Callable[[int], Any] = lambda _: None,
    ) -> None:
        self.session, self.ticked, self.went = inspection.session, ticked, went
        self.pages = BoxPages(inspection, columns=COLUMNS, rows=ROWS)
        self.boxes, self.text = Boxes(), HTML()
        self.boxes.add_class("tomolab-boxes")
        self.view = Dropdown(
            options=images.VIEWS, description="view", style=style.LABEL, tooltip="mean of the central slices, or of all"
        )
        self.detail = Dropdown(options=self.pages.details, description="detail", style=style.LABEL, tooltip="low-pass filter")
        self.view.layout, self.detail.layout = Layout(width="142px"), Layout(width="146px")
        self.back = Button(icon="chevron-left", tooltip="previous page", layout=Layout(width="36px"))
        self.forth = Button(icon="chevron-right", tooltip="next page", layout=Layout(width="36px"))
        self.back.on_click(lambda _: self._turn(-1))
        self.forth.on_click(lambda _: self._turn(1))
        for control in (self.view, self.detail):
            control.observe(lambda _: self._draw(), "value")
        self.boxes.on_msg(self._receive)
        inspection.changed.connect(self._follow)
        controls = HBox(
            [self.view, self.detail, self.back, self.forth, self.text],
            layout=Layout(align_items="center", flex_flow="row wrap"),
        )
        super().__init__([controls, self.boxes])
        self.renew()

    def renew(self) -> None:
        """Show the particles that are ticked or selected now, from the first page."""
        if self.pages.renew(self.ticked()) or not self.text.value:
            self._draw()

    def _turn(self, by: int) -> None:
        self.pages.turn(by)
        self._draw()

    def _follow(self, changed: set[str]) -> None:
        if changed & {"selected", "labels", "clusters", "filters", "colours"}:
            self.renew()
            self.boxes.flags = self.pages.frames()

    def _draw(self) -> None:
        pages = self.pages
        pages.view, pages.low_pass = self.view.value, self.detail.value
        self.back.disabled, self.forth.disabled, self.text.value = not pages.has_previous, not pages.has_next, pages.text
        with self.boxes.hold_sync():
            self.boxes.grid = {"columns": COLUMNS, "rows": -(-len(pages.shown) // COLUMNS), "cell": CELL}
            self.boxes.picture, self.boxes.flags = pages.picture(), pages.frames()

    def _receive(self, _: Any, message: dict[str, Any], __: Any) -> None:
        if message["index"] >= len(self.pages.shown):
            return
        particle = int(self.pages.shown[message["index"]])
        self.went(particle)
        # Where the gallery shows the selection, a click without a key keeps it.
        if message["how"] != "replace" or self.ticked():
            self.session.select([particle], "gallery", how=message["how"])
