"""Takes a session, shows the distribution of a column in a notebook, to draw the range or tick the values that are shown.

>>> panel = Filters(session)
>>> panel.column.value = "tomogram"
"""

import html
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anywidget
from ipywidgets import HTML, Button, Dropdown, FloatRangeSlider, HBox, Layout, VBox
from traitlets import Float, List, Unicode

from tomolab.inspection import context
from tomolab.inspection.session import Session
from tomolab.ui import column_filter, style
from tomolab.ui.column_filter import ColumnFilter


class Distribution(anywidget.AnyWidget):  # type: ignore[misc]
    """The histogram, or the rows of values; sends {"range": [low, high]} or {"values": [...]}."""

    _esm = Path(__file__).with_name("filters.js")
    kind = Unicode("range").tag(sync=True)
    low, high = Float(0.0).tag(sync=True), Float(1.0).tag(sync=True)
    range: Any = List([0.0, 1.0]).tag(sync=True)
    counts: Any = List([]).tag(sync=True)
    shown: Any = List([]).tag(sync=True)
    rows: Any = List([]).tag(sync=True)


class Filters(VBox):  # type: ignore[misc]
    """Ranges and values of columns; all views, counts, averages and exports leave out particles outside of them."""

    def __init__(self, session: Session, *, say: Callable[[str], Any] = lambda _: None) -> None:
        self.session, self.say = session, say
        self.column = Dropdown(
            options=column_filter.columns(session.particles),
            description="column",
            style=style.LABEL,
            layout=Layout(width="270px"),
            tooltip="Column of the particle table",
        )
        self.filter = ColumnFilter(session, self.column.value)
        self.plot = Distribution()
        self.plot.add_class("tomolab-filter")
        self.range = FloatRangeSlider(continuous_update=False, readout_format=".3g", layout=Layout(width="100%"))
        self.all = Button(description="Whole column", icon="eye", layout=Layout(width="140px", flex="0 0 auto"))
        self.all.tooltip = "Remove the filter of this column"
        self.about, self.text = HTML(), HTML()
        self.column.observe(lambda _: self._turn(), "value")
        self.range.observe(lambda _: self._set(self.range.value), "value")
        self.all.on_click(lambda _: self.filter.clear())
        self.plot.on_msg(lambda _, message, __: self._receive(message))
        session.changed.connect(self._follow)
        line = HBox([self.column, self.all], layout=Layout(flex_flow="row wrap"))
        super().__init__([line, self.about, self.plot, self.range, self.text])
        self._turn()

    def _turn(self) -> None:
        """Show another column, or a filter that another view changed."""
        if self.filter.column != self.column.value:
            self.filter = ColumnFilter(self.session, self.column.value)
        self.range.layout.display = None if self.filter.is_range else "none"
        about = context.tooltip(self.column.value)
        self.about.value, self.about.layout.display = style.span(about, style.QUIET_TEXT), None if about else "none"
        with self.plot.hold_sync():
            self.plot.kind = "range" if self.filter.is_range else "values"
            if self.filter.is_range:
                self._draw_range()
            else:
                self.plot.rows = [asdict(one) for one in self.filter.values()]
        lines = map(html.escape, column_filter.described(self.session))
        self.text.value = f"<div style='line-height:1.5; color:{style.QUIET_TEXT}'>{'<br>'.join(lines)}</div>"

    def _draw_range(self) -> None:
        (low, high), kept = self.filter.limits, self.filter.range
        self.plot.low, self.plot.high, self.plot.range = low, high, list(kept)
        self.plot.counts, self.plot.shown = self.filter.histogram()
        with self.range.hold_trait_notifications():
            self.range.min, self.range.max = min(low, self.range.max), max(high, self.range.min)
            self.range.min, self.range.max, self.range.step = low, high, (high - low) / 200
            self.range.value = kept

    def _receive(self, message: dict[str, Any]) -> None:
        try:
            if "range" in message:
                self._set(message["range"])
            else:
                self.filter.set_values(message["values"])
        except ValueError as error:
            self.say(str(error))
            # The ticks again as they were.
            self.plot.rows = []
        self._turn()

    def _set(self, wanted: Any) -> None:
        if self.filter.is_range:
            self.filter.set_range(*wanted)

    def _follow(self, changed: set[str]) -> None:
        if changed & {"filters", "clusters", "labels"}:
            self._turn()
