"""Takes a session, shows the distribution of a column in a notebook, to draw the range or tick the values that are shown.

>>> panel = Filters(session)
>>> panel.column.value = "tomogram"
"""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
from ipywidgets import HTML, Button, Dropdown, FloatRangeSlider, HBox, Layout, VBox
from traitlets import Float, List, Unicode

from tomolab.inspection import context
from tomolab.inspection import session_values as values
from tomolab.inspection.model import CLUSTER
from tomolab.inspection.session import Session
from tomolab.ui import style

BINS = 64
MOST = 1000
"""Maximum number of different values to list."""


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
    """Ranges and values of columns; all views, counts, averages and exports leave out particles outside of them.

    Parameters
    ----------
    session
        Whose particles.
    say
        Called with error messages.
    """

    def __init__(self, session: Session, *, say: Callable[[str], Any] = lambda _: None) -> None:
        self.session, self.say = session, say
        self._bins: tuple[str, np.ndarray] = "", np.empty(0)
        self.column = Dropdown(
            options=[CLUSTER, *listed(session.particles)],
            description="column",
            style=style.LABEL,
            layout=Layout(width="270px"),
            tooltip="Column of the particle table",
        )
        self.plot = Distribution()
        self.plot.add_class("tomolab-filter")
        self.range = FloatRangeSlider(continuous_update=False, readout_format=".3g", layout=Layout(width="100%"))
        self.all = Button(description="Whole column", icon="eye", layout=Layout(width="140px", flex="0 0 auto"))
        self.all.tooltip = "Remove the filter of this column"
        self.about, self.text = HTML(), HTML()
        self.column.observe(lambda _: self._turn(), "value")
        self.range.observe(lambda _: self._set(self.range.value), "value")
        self.all.on_click(lambda _: self._clear())
        self.plot.on_msg(lambda _, message, __: self._receive(message))
        session.changed.connect(self._follow)
        line = HBox([self.column, self.all], layout=Layout(flex_flow="row wrap"))
        super().__init__([line, self.about, self.plot, self.range, self.text])
        self._turn()

    @property
    def _is_range(self) -> bool:
        return self.column.value != CLUSTER and is_scale(self.session.particles[self.column.value])

    def _turn(self) -> None:
        """Show another column, or a filter that another view changed."""
        self.range.layout.display = None if self._is_range else "none"
        about = context.tooltip(self.column.value)
        self.about.value, self.about.layout.display = style.span(about, style.QUIET_TEXT), None if about else "none"
        with self.plot.hold_sync():
            self.plot.kind = "range" if self._is_range else "values"
            self._draw_range() if self._is_range else self._draw_values()
        filters = self.session.filters
        lines = [html.escape(values.describe(name, kept)) for name, kept in filters.items()]
        hidden = [one for one in self.session.clusters if self.session.clusters[one].hidden]
        lines += [f"hidden: {html.escape(', '.join(map(self.session.title, hidden)))}"] if hidden else []
        self.text.value = f"<div style='line-height:1.5; color:{style.QUIET_TEXT}'>{'<br>'.join(lines)}</div>"

    def _draw_range(self) -> None:
        numbers = self.session.particles[self.column.value].to_numpy(float, na_value=np.nan)
        low, high = style.limits(numbers)
        if self._bins[0] != self.column.value:
            shares = np.nan_to_num((numbers - low) / (high - low), nan=-1.0)
            self._bins = self.column.value, np.where(shares < 0, -1, np.minimum((BINS * shares).astype(int), BINS - 1))
        bins = self._bins[1]
        wanted = self.session.filters.get(self.column.value, (low, high))
        kept = np.clip(np.array(wanted, dtype=float), low, high).tolist()
        self.plot.low, self.plot.high, self.plot.range = low, high, kept
        self.plot.counts = np.bincount(bins[bins >= 0], minlength=BINS).tolist()
        self.plot.shown = np.bincount(bins[(bins >= 0) & self.session.visible], minlength=BINS).tolist()
        with self.range.hold_trait_notifications():
            self.range.min, self.range.max = min(low, self.range.max), max(high, self.range.min)
            self.range.min, self.range.max, self.range.step = low, high, (high - low) / 200
            self.range.value = tuple(kept)

    def _draw_values(self) -> None:
        session, column = self.session, self.column.value
        if column == CLUSTER:
            inks, counts, shown = style.inks(session.clusters), session.counts(), session.counts(visible=True)
            self.plot.rows = [
                {"value": str(number), "title": session.title(number), "count": int(counts[number]), "ink": inks[number]}
                | {"shown": int(shown[number]), "on": not one.hidden}
                for number, one in session.clusters.items()
            ]
            return
        texts = values.as_text(session.particles[column])
        counts, shown = texts.value_counts(), texts[session.visible].value_counts()
        kept = session.filters.get(column)
        self.plot.rows = [
            {"value": one, "title": one, "count": int(counts[one]), "shown": int(shown.get(one, 0)), "ink": ""}
            | {"on": kept is None or one in kept}
            for one in sorted(counts.index)[:MOST]
        ]

    def _receive(self, message: dict[str, Any]) -> None:
        try:
            if "range" in message:
                self._set(message["range"])
            elif self.column.value == CLUSTER:
                self._show_clusters([int(one) for one in message["values"]])
            else:
                whole = len(message["values"]) == len(self.plot.rows)
                self.session.filter_values(self.column.value, None if whole else message["values"])
        except ValueError as error:
            self.say(str(error))
            # The ticks again as they were.
            self.plot.rows = []
        self._turn()

    def _show_clusters(self, clusters: list[int]) -> None:
        if not clusters:
            raise ValueError("one cluster at least must be shown: tick another one first")
        self.session.show_only(*clusters)

    def _clear(self) -> None:
        if self.column.value == CLUSTER:
            self.session.show_only(*self.session.clusters)
        elif self._is_range:
            self.session.filter(self.column.value)
        else:
            self.session.filter_values(self.column.value, None)

    def _set(self, wanted: Any) -> None:
        column, (low, high) = self.column.value, wanted
        if not self._is_range:
            return
        whole = low <= self.plot.low and high >= self.plot.high
        now = self.session.filters.get(column, (self.plot.low, self.plot.high))
        if not np.allclose(now, (low, high)):
            self.session.filter(column) if whole else self.session.filter(column, low, high)

    def _follow(self, changed: set[str]) -> None:
        if changed & {"filters", "clusters", "labels"}:
            self._turn()


def is_scale(column: pd.Series) -> bool:
    """Whether a column is filtered by a range: numbers that differ, if they are whole more than `style.FEW` of them."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return False
    return style.varies(column) or (style.is_categorical(column) and column.nunique() > style.FEW)


def listed(table: pd.DataFrame) -> list[str]:
    """Columns to filter by: numbers that differ, and at most `MOST` different values."""
    names = [str(name) for name in table if name not in ("particle_id", CLUSTER)]
    return [name for name in names if is_scale(table[name]) or 1 < table[name].nunique(dropna=False) <= MOST]
