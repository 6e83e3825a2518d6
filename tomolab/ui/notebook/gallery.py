"""Takes an inspection, shows boxes of its particles page by page, the most typical first; a click selects a particle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
from ipywidgets import HTML, Button, Dropdown, HBox, Layout, VBox
from traitlets import Bytes, Dict, List

from tomolab.inspection.model import Inspection
from tomolab.ui import images, style

COLUMNS, ROWS, CELL = 8, 3, 64


class Boxes(anywidget.AnyWidget):  # type: ignore[misc]
    """The canvas: one picture of all boxes, and the colours of their frames."""

    _esm = Path(__file__).with_name("gallery.js")
    picture = Bytes(b"").tag(sync=True)
    grid = Dict({"columns": COLUMNS, "rows": 0, "cell": CELL}).tag(sync=True)
    flags: Any = List([]).tag(sync=True)


class Gallery(VBox):  # type: ignore[misc]
    """Boxes of the ticked clusters, or of the selection if none is ticked, a page at a time.

    Parameters
    ----------
    inspection
        The inspection; without subtomograms the gallery is empty.
    ticked
        Returns the ticked clusters.
    went
        Called with the id of a particle when its box is clicked.
    """

    def __init__(
        self,
        inspection: Inspection,
        *,
        ticked: Callable[[], list[int]] = list,
        went: Callable[[int], Any] = lambda _: None,
    ) -> None:
        self.inspection, self.session, self.ticked, self.went = inspection, inspection.session, ticked, went
        self._index = pd.Index(self.session.ids)
        self._ids, self._page, self._shown = np.empty(0, np.int64), 0, np.empty(0, np.int64)
        self.boxes, self.text = Boxes(), HTML()
        self.boxes.add_class("tomolab-boxes")
        self.view = Dropdown(
            options=images.VIEWS, description="view", style=style.LABEL, tooltip="mean of the central slices, or of all"
        )
        self.detail = Dropdown(options=self._details(), description="detail", style=style.LABEL, tooltip="low-pass filter")
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
        if self.inspection.subtomograms is None:
            self.text.value = "there are no boxes to show"
            return
        clusters = self.ticked()
        labels = self.session.labels.to_numpy()
        chosen = np.isin(labels, clusters) if clusters else self.session.selected
        ids = self.inspection.typical(self.session.ids[chosen & self.session.visible])
        if not np.array_equal(ids, self._ids) or not self.text.value:
            # A subset of the old particles stays on its page; other particles start on the first.
            fewer = len(ids) and np.isin(ids, self._ids).all()
            self._page = min(self._page, (len(ids) - 1) // (COLUMNS * ROWS)) if fewer else 0
            self._ids = ids
            self._draw()

    def _details(self) -> list[tuple[str, float]]:
        """Low-pass filters in Å: a seventh or a quarter of the diameter of a particle, or none."""
        sizes = [round(self.inspection.diameter / divisor, -1) for divisor in (7, 4)]
        return [*((f"to {size:g} Å", size) for size in sizes), ("all detail", 0.0)]

    def _turn(self, by: int) -> None:
        self._page += by
        self._draw()

    def _follow(self, changed: set[str]) -> None:
        if changed & {"selected", "labels", "clusters", "filters", "colours"}:
            self.renew()
            self._frame()

    def _draw(self) -> None:
        size = COLUMNS * ROWS
        first = self._page * size
        self._shown = self._ids[first : first + size]
        self.back.disabled, self.forth.disabled = first == 0, first + size >= len(self._ids)
        count = len(self._shown)
        self.text.value = "tick clusters or select particles to see their boxes"
        if count:
            order = ", typical first" if self.inspection.features is not None else ""
            self.text.value = f"{first + 1:,}–{first + count:,} of {len(self._ids):,}{order}"
        rows = -(-count // COLUMNS)
        with self.boxes.hold_sync():
            self.boxes.grid = {"columns": COLUMNS, "rows": rows, "cell": CELL}
            self.boxes.picture = self._picture(rows) if count else b""
            self._frame()

    def _frame(self) -> None:
        """Frame the selected particles in their colours."""
        rows = self._index.get_indexer(self._shown)
        inks = style.particle_inks(self.session, self.inspection.colour_by)[rows]
        self.boxes.flags = [
            style.hexadecimal(ink) if on else "" for ink, on in zip(inks, self.session.selected[rows], strict=True)
        ]

    def _picture(self, rows: int) -> bytes:
        assert self.inspection.subtomograms is not None
        cut = self.inspection.subtomograms.choose(self._shown)
        flat = images.flattened(cut.volumes[:], cut.voxel_size, view=self.view.value, low_pass=self.detail.value or None)
        box = flat.shape[1]
        sheet = np.full((rows * COLUMNS, box, box), np.nan, dtype=np.float32)
        for place, one in zip(sheet, flat, strict=False):
            grey = images.limits(one, 1, 99.8)
            place[:] = (one - grey["vmin"]) / (grey["vmax"] - grey["vmin"])
        sheet[:, :1] = sheet[:, :, :1] = np.nan
        pages = sheet.reshape(rows, COLUMNS, box, box).swapaxes(1, 2).reshape(rows * box, COLUMNS * box)
        return images.png(pages, vmin=0.0, vmax=1.0)

    def _receive(self, _: Any, message: dict[str, Any], __: Any) -> None:
        if message["index"] >= len(self._shown):
            return
        particle = int(self._shown[message["index"]])
        self.went(particle)
        # Where the gallery shows the selection, a click without a key keeps it.
        if message["how"] != "replace" or self.ticked():
            self.session.select([particle], "gallery", how=message["how"])
