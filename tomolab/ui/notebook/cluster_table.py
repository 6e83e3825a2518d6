"""Takes an inspection, shows its clusters as rows in a notebook, to tick, name, colour, hide and annotate.

The columns are those of `cluster_columns`, between a tick and a colour on the left and the latest average on the right.

>>> table = ClusterTable(inspection)
>>> table                                   # shows in a notebook
"""

import base64
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from traitlets import Int, List

from tomolab.averaging.half_maps import Average
from tomolab.inspection import cluster_columns
from tomolab.inspection.model import Inspection
from tomolab.ui import images, style


class ClusterTable(anywidget.AnyWidget):  # type: ignore[misc]
    """A row for each cluster; a table longer than `height` pixels scrolls."""

    _esm = Path(__file__).with_name("cluster_table.js")
    height = Int(250).tag(sync=True)
    columns: Any = List([]).tag(sync=True)
    rows: Any = List([]).tag(sync=True)
    ticked: Any = List([]).tag(sync=True)
    """Ticked clusters, in the order of ticking."""

    def __init__(self, inspection: Inspection, *, height: int = 250, say: Callable[[str], Any] = warnings.warn) -> None:
        self.inspection, self.session, self.say = inspection, inspection.session, say
        self._columns = {column.name: column for column in cluster_columns.COLUMNS}
        self._pictures: dict[str, str] = {}
        shown = [
            {key: getattr(one, key) for key in ("name", "title", "tooltip", "type", "optional")}
            | {"edit": one.write is not None}
            for one in self._columns.values()
        ]
        super().__init__(height=height, columns=shown)
        self.on_msg(self._receive)
        inspection.changed.connect(self._follow)
        self._fill()

    def _follow(self, changed: set[str]) -> None:
        if changed & {"labels", "clusters", "selected", "averages", "filters"}:
            self._fill()

    def _fill(self) -> None:
        session, inks = self.session, style.inks(self.session.clusters)
        values = {name: column.values(self.inspection) for name, column in self._columns.items()}
        newest = cluster_columns.newest(self.inspection)
        rows = []
        for number in session.clusters:
            texts = {name: column.format(values[name][number]) for name, column in self._columns.items()}
            row = {"cluster": number, "title": session.title(number), "ink": inks[number], "texts": texts}
            row |= {name: _as_json(one[number]) for name, one in values.items()}
            if number in newest:
                name, average = newest[number]
                row |= {"image": self._picture(name, average), "about": f"{name}: {average.resolution:.0f} Å"}
            rows.append(row)
        with self.hold_sync():
            self.rows = rows
            self.ticked = [number for number in self.ticked if number in session.clusters]

    def _picture(self, name: str, average: Average) -> str:
        if name not in self._pictures:
            self._pictures[name] = _strip(average)
        return self._pictures[name]

    def _receive(self, _: Any, message: dict[str, Any], __: Any) -> None:
        cluster = message["cluster"]
        if "select" in message:
            members = self.session.members(cluster, visible=True)
            self.session.select(members.ids, members.name, how=message["select"])
            return
        try:
            if "colour" in message:
                self.session.describe(cluster, colour=message["colour"])
            else:
                write = self._columns[message["column"]].write
                assert write is not None
                write(self.session, cluster, message["value"])
        except ValueError as error:
            self.say(str(error))
            # Sending the rows again replaces the refused text.
            self.rows = []
            self._fill()


def _as_json(value: Any) -> Any:
    """A value as it can stand in JSON, which has no infinity."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _strip(average: Average) -> str:
    """Central slices of an average beside one another, as the address of a PNG."""
    cuts, grey = images.central(average.volume)
    return "data:image/png;base64," + base64.b64encode(images.png(np.hstack(cuts), **grey)).decode()
