"""Takes an inspection, shows the clusters by tomogram, label or another column as a table in a notebook.

>>> panel = Counts(inspection)
>>> panel.column.value = "tomogram"         # particles of every cluster in every tomogram
>>> panel.column.value = "depth"            # median and quartiles of every cluster
"""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ipywidgets import HTML, Button, Dropdown, HBox, Layout, VBox

from tomolab import io
from tomolab.inspection import cluster_columns, context, exports
from tomolab.inspection.model import CLUSTER, Inspection
from tomolab.io import run_folder
from tomolab.ui import style
from tomolab.ui.column_filter import columns, is_scale

WIDEST = 200
"""Maximum number of columns on the screen; the file has all."""


class Counts(VBox):  # type: ignore[misc]
    """Number of visible particles of every cluster by the values of a column; of numbers, median and quartiles."""

    def __init__(self, inspection: Inspection, *, say: Callable[[str], Any] = lambda _: None) -> None:
        self.inspection, self.say, self.active, self._asked = inspection, say, False, set[Path]()
        names = [name for name in columns(inspection.session.particles) if name != CLUSTER]
        first = ["tomogram"] if "tomogram" in inspection.session.particles else []
        self.column = Dropdown(
            options=[*first, *(name for name in names if name not in first)],
            description="clusters by",
            style=style.LABEL,
            layout=Layout(width="270px"),
            tooltip="Column of the particle table",
        )
        self.button = Button(description="Write", icon="download", layout=Layout(width="90px"))
        self.button.tooltip = "Write this table into the run folder as .csv"
        self.button.disabled = inspection.folder is None
        self.text, self.table = HTML(), HTML(layout=Layout(max_height="280px", overflow="auto"))
        self.column.observe(lambda _: self._draw(), "value")
        self.button.on_click(lambda _: self._write())
        inspection.changed.connect(self._follow)
        super().__init__([HBox([self.column, self.button, self.text], layout=Layout(flex_flow="row wrap")), self.table])

    def show(self) -> None:
        """Draw from now on, until `active` is False: a million particles take half a second at every change."""
        self.active = True
        self._draw()

    @property
    def found(self) -> pd.DataFrame:
        """The table: a row for each cluster, with its number as the index."""
        session, column = self.inspection.session, self.column.value
        if is_scale(session.particles[column]):
            return cluster_columns.quartiles_by(session, column)
        counts = cluster_columns.counts_by(session, column)
        return counts.assign(all=counts.sum(axis=1)) if "all" not in counts else counts

    def _draw(self) -> None:
        if not self.active:
            return
        self.text.value = style.span(context.tooltip(self.column.value), style.QUIET_TEXT)
        found, session = self.found, self.inspection.session
        inks, numbers = style.inks(session.clusters), is_scale(session.particles[self.column.value])
        # Without a visible particle there is no column.
        most = 1 if numbers else int(found.drop(columns="all", errors="ignore").to_numpy().max(initial=1))
        shown = found.iloc[:, :WIDEST]
        rows = [
            f"<tr><th style='text-align:left'>{style.span('■', inks[number])} {html.escape(session.title(number))}</th>"
            + "".join(_cell(value, 0.0 if numbers or name == "all" else value / most) for name, value in row.items())
            + "</tr>"
            for number, row in zip(shown.index, shown.to_dict("records"), strict=True)
        ]
        self.table.value = _table(list(map(str, shown.columns)), rows)

    def _write(self) -> None:
        assert self.inspection.folder is not None
        folder, found = self.inspection.folder, self.found
        path = folder / f"clusters_by_{exports.folder_names([self.column.value])[0]}.csv"
        if path.exists() and path not in self._asked:
            self._asked.add(path)
            self.say(f"{path.name} is there already: click again to replace it; what is there now stays as {path.name}.~1~")
            return
        try:
            with run_folder.replacing(path, folder=folder, replace=True) as earlier, io.atomic(path) as temporary:
                found.set_axis([self.inspection.session.title(one) for one in found.index]).to_csv(temporary)
        except OSError as error:
            self.say(str(error))
        else:
            self._asked.discard(path)
            self.text.value = style.span(f"the table is in {path.name}{run_folder.earlier_text(earlier)}", style.QUIET_TEXT)

    def _follow(self, changed: set[str]) -> None:
        if changed & {"labels", "clusters", "filters"}:
            self._draw()


def _table(names: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th style='text-align:right; padding:2px 6px'>{html.escape(name)}</th>" for name in names)
    return (
        "<table class='tomolab-counts' style='border-collapse:collapse; font-size:13px; line-height:1.5; "
        f"font-variant-numeric:tabular-nums; white-space:nowrap'><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    )


def _cell(value: Any, share: float) -> str:
    """A number, on a background that is darker the larger its share."""
    text = "" if not np.isfinite(value) or value == 0 else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
    # Mixed from colours of the theme, so that it is readable in a dark one.
    wash = f"background:color-mix(in srgb, var(--jp-brand-color1, #1976d2) {60 * share:.0f}%, transparent)"
    return f"<td style='text-align:right; padding:2px 6px; {wash}'>{text}</td>"
