"""Averages beside the clusters: what to average and how, the queue of what runs, and what came of it.

>>> panel = Averages(inspection, ticked=lambda: [3])
>>> panel                                   # shows in a notebook
"""

import html
from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, BoundedIntText, Button, Dropdown, HBox, Image, Layout, Text, VBox

from tomolab.averaging import symmetry
from tomolab.averaging.gold_standard import FIND
from tomolab.averaging.half_maps import Average
from tomolab.inspection.model import ENGINES, QUICK, Inspection
from tomolab.ui import job_summary, style
from tomolab.ui.notebook import jobs as job_widgets
from tomolab.ui.plots import curves

LISTED = 20
"""Jobs that are shown when they are over; their averages stay."""
AUTO = "measured"
"""In place of the diameter of the mask."""


class Averages(VBox):  # type: ignore[misc]
    """Buttons that average what is ticked or selected, the queue, and the averages there are.

    Parameters
    ----------
    inspection
        Whose clusters.
    ticked
        Asked for the clusters that are ticked; with none, the selection is averaged.
    say
        Called with why something could not be done.
    """

    def __init__(self, inspection: Inspection, *, ticked: Callable[[], list[int]], say: Callable[[str], Any]) -> None:
        self.inspection, self.ticked, self.say = inspection, ticked, say
        narrow = Layout(width="108px")
        self.engine = Dropdown(options=ENGINES, layout=narrow, tooltip="who averages")
        self.classes = BoundedIntText(
            value=1, min=1, max=9, layout=Layout(width="48px"), tooltip="sorted apart first, if over 1"
        )
        self.symmetry = Text(
            "C1", layout=Layout(width="50px"), tooltip="C1, C2 .. D2 .. T, O, I, or find", continuous_update=False
        )
        self.mask = Text(AUTO, layout=Layout(width="92px"), tooltip="diameter of the mask in Å", continuous_update=False)
        self.quick = Button(description="Quick look", icon="bolt", layout=narrow)
        self.whole = Button(description="Average", icon="play", button_style="primary", layout=narrow)
        self.quick.on_click(lambda _: self._start(quick=True))
        self.whole.on_click(lambda _: self._start(quick=False))
        self.engine.observe(lambda _: self.renew(), "value")
        self.text = HTML()
        self.queue = VBox(layout=Layout(max_height="280px", overflow="hidden auto"))
        self.results = Results(inspection)
        labels = ("by", self.engine), ("classes", self.classes), ("symmetry", self.symmetry), ("mask (Å)", self.mask)
        parts = [part for name, control in labels for part in (HTML(_quiet(name)), control)]
        middle = Layout(align_items="center", flex_flow="row wrap")
        inspection.watch(self._follow)
        super().__init__(
            [HBox([self.whole, self.quick, self.text], layout=middle), HBox(parts, layout=middle), self.queue, self.results]
        )
        self._queue()
        self.renew()

    def renew(self) -> None:
        """Say what would be averaged, or why nothing can be."""
        session, ticked = self.inspection.session, self.ticked()
        counts = session.counts()
        sets = [f"{session.title(one)} ({counts[one]:,})" for one in ticked] or [f"the selection ({session.selected.sum():,})"]
        problem = self.inspection.problem("RELION" if self.engine.value == "RELION" else "average", ticked)
        for button, does in (
            (self.whole, "Average all particles"),
            (self.quick, f"Average the {QUICK} most typical particles, to see what it is"),
        ):
            button.disabled, button.tooltip = bool(problem), problem or does
        self.text.value = _quiet(problem or f"of {', '.join(sets)}")

    def _start(self, *, quick: bool) -> None:
        try:
            options: dict[str, Any] = {"engine": self.engine.value, "classes": self.classes.value, "quick": quick}
            options |= {"symmetry": _group(self.symmetry.value), "mask_diameter": _length(self.mask.value)}
            chosen: list[int | None] = [*self.ticked()]
            for cluster in chosen or [None]:
                self.inspection.average(cluster, **options)
        except ValueError as error:
            self.say(str(error))

    def _queue(self) -> None:
        """The newest first; panels that are there stay, but for old ones that are over."""
        held = {panel.job: panel for panel in self.queue.children}
        jobs = [job for place, job in enumerate(reversed(self.inspection.jobs)) if place < LISTED or not job.over]
        self.queue.children = [held.get(job) or job_widgets.Panel(job, side=64) for job in jobs]
        for job in held.keys() - set(jobs):
            held[job].remove()

    def _follow(self, changed: set[str]) -> None:
        if "jobs" in changed:
            self._queue()
        if changed & {"labels", "clusters", "selected"}:
            self.renew()


class Results(VBox):  # type: ignore[misc]
    """The averages of an inspection, one at a time: slices, Fourier shell correlation, and facts; the newest by default."""

    def __init__(self, inspection: Inspection) -> None:
        self.inspection = inspection
        self.choice = Dropdown(layout=Layout(width="320px"), tooltip="averages made so far")
        self.slices = Image(format="png", layout=Layout(width="236px", height="77px", flex="0 0 auto"))
        self.curve = Image(format="png", layout=Layout(flex="0 0 auto"))
        self.text = HTML()
        self.choice.observe(lambda _: self._show(), "value")
        inspection.watch(self._follow)
        super().__init__([self.choice, HBox([VBox([self.slices, self.text], layout=Layout(flex="0 0 auto")), self.curve])])
        self._follow({"averages"})

    def _follow(self, changed: set[str]) -> None:
        if "averages" in changed:
            names = list(self.inspection.averages)
            self.layout.display = None if names else "none"
            if names:
                self.choice.options, self.choice.value = names, names[-1]

    def _show(self) -> None:
        average = self.inspection.averages.get(self.choice.value)
        if average is None:
            return
        self.slices.value = job_summary.picture(average.volume)
        figure = curves.fsc(average, width=3.0)
        self.curve.value, size = style.png(figure)
        self.curve.width, self.curve.height = str(size["width"]), str(size["height"])
        self.text.value = _facts(average)


def _facts(average: Average) -> str:
    record = average.record
    said = [job_summary.found(average), f"voxels of {average.volume.voxel_size:g} Å, symmetry {record.get('symmetry', 'C1')}"]
    if "mask" in record:
        said.append(f"mask of {record['mask']:.0f} Å")
    return f"<div style='color:{style.QUIET}; line-height:1.5'>{'<br>'.join(map(html.escape, said))}</div>"


def _quiet(text: str) -> str:
    return f"<span style='color:{style.QUIET}; padding:0 4px'>{html.escape(text)}</span>"


def _group(text: str) -> str:
    """A symmetry as it was typed; ValueError if there is none of that name."""
    name = text.strip()
    if name.lower() == FIND:
        return FIND
    symmetry.group(name.upper())
    return name.upper()


def _length(text: str) -> float | None:
    """A diameter as it was typed, None where it is to be measured; ValueError if it is neither."""
    if text.strip().lower() in ("", AUTO):
        return None
    try:
        length = float(text)
    except ValueError:
        length = 0.0
    if not length > 0:
        raise ValueError(f"the mask diameter is a positive number of Å or {AUTO!r}, got {text!r}")
    return length
