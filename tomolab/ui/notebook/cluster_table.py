"""The roster: clusters of an inspection as rows, to tick, name, colour, hide and note; the counts are the session's."""

import base64
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from traitlets import Int, List

from tomolab.averaging.half_maps import Average
from tomolab.inspection.model import Inspection
from tomolab.ui import images, style


class Roster(anywidget.AnyWidget):  # type: ignore[misc]
    """A row for each cluster.

    Parameters
    ----------
    inspection
        Whose clusters.
    height
        In pixels; what is longer scrolls.
    say
        Called with why something could not be done; warns by default.
    """

    _esm = Path(__file__).with_name("cluster_table.js")
    height = Int(250).tag(sync=True)
    rows: Any = List([]).tag(sync=True)
    ticked: Any = List([]).tag(sync=True)
    """Clusters that are ticked, in the order in which they were."""

    def __init__(self, inspection: Inspection, *, height: int = 250, say: Callable[[str], Any] = warnings.warn) -> None:
        self.inspection, self.session, self.say = inspection, inspection.session, say
        self._pictures: dict[str, str] = {}
        super().__init__(height=height)
        self.on_msg(self._heard)
        inspection.watch(self._follow)
        self._fill()

    def _follow(self, changed: set[str]) -> None:
        if changed & {"labels", "clusters", "selected", "averages"}:
            self._fill()

    def _fill(self) -> None:
        session = self.session
        counts, inks = session.counts(), style.inks(session.clusters)
        held = session.labels[session.selected].value_counts()
        latest = {average.record.get("cluster"): (name, average) for name, average in self.inspection.averages.items()}
        rows = []
        for number, one in session.clusters.items():
            row = {"cluster": number, "title": session.title(number), "name": one.name, "note": one.note, "hidden": one.hidden}
            row |= {"ink": inks[number], "count": int(counts[number]), "selected": int(held.get(number, 0))}
            if number in latest:
                name, average = latest[number]
                row |= {"image": self._picture(name, average), "about": f"{name}: {average.resolution:.0f} Å"}
            rows.append(row)
        with self.hold_sync():
            self.rows = rows
            self.ticked = [number for number in self.ticked if number in session.clusters]

    def _picture(self, name: str, average: Average) -> str:
        if name not in self._pictures:
            self._pictures[name] = _strip(average)
        return self._pictures[name]

    def _heard(self, _: Any, message: dict[str, Any], __: Any) -> None:
        cluster = message.pop("cluster")
        if "select" in message:
            members = self.session.members(cluster)
            self.session.select(members.ids, members.name, how=message["select"])
        else:
            try:
                self.session.describe(cluster, **message)
            except ValueError as error:
                self.say(str(error))
                # What was typed is still seen there: rows that are sent anew take its place.
                self.rows = []
                self._fill()


def _strip(average: Average) -> str:
    """Central slices of an average beside one another, as the address of a PNG."""
    cuts, grey = images.central(average.volume)
    return "data:image/png;base64," + base64.b64encode(images.png(np.hstack(cuts), **grey)).decode()
