"""Takes an inspection, shows the options of averaging, its jobs and its averages in a notebook.

>>> panel = Averages(inspection)
>>> panel                                   # shows in a notebook
>>> panel.options
{'engine': 'tomolab', 'classes': 1, 'symmetry': 'C1', 'mask_diameter': None}
"""

import html
from collections.abc import Callable, Sequence
from typing import Any

from ipywidgets import HTML, BoundedFloatText, BoundedIntText, Button, Dropdown, HBox, Image, Layout, Text, VBox

from tomolab.averaging.half_maps import Average
from tomolab.inspection.model import ENGINES, Inspection
from tomolab.ui import job_summary, style
from tomolab.ui.notebook import jobs as job_widgets
from tomolab.ui.plots import curves

LISTED = 20
"""Maximum number of finished jobs to show; their averages stay."""


class Averages(VBox):  # type: ignore[misc]
    """Options of averaging, the jobs, and the averages.

    `buttons` start an average and stand above the options; `changed` is called after a change of an option.
    """

    def __init__(
        self, inspection: Inspection, *, buttons: Sequence[Button] = (), changed: Callable[[], Any] = lambda: None
    ) -> None:
        self.inspection = inspection
        self.engine = Dropdown(options=ENGINES, layout=Layout(width="134px"), tooltip="Program that computes the average")
        self.classes = BoundedIntText(
            value=1, min=1, max=9, layout=Layout(width="104px"), tooltip="Number of classes to sort the particles into first"
        )
        self.symmetry = Text(
            "C1", layout=Layout(width="124px"), tooltip="C1, C2 .. D2 .. T, O, I, or find", continuous_update=False
        )
        self.mask = BoundedFloatText(
            value=0, min=0, max=5000, step=10, layout=Layout(width="230px"), tooltip="Diameter of the mask in Å; 0: measured"
        )
        self.text = HTML()
        self.queue = VBox(layout=Layout(max_height="280px", overflow="hidden auto"))
        self.results = Results(inspection)
        labels = {"by": self.engine, "classes": self.classes, "symmetry": self.symmetry, "mask (Å, 0: measured)": self.mask}
        for name, control in labels.items():
            control.description, control.style.description_width = name, "initial"
            control.observe(lambda _: changed(), "value")
        line = Layout(align_items="center", flex_flow="row wrap")
        inspection.changed.connect(self._follow)
        super().__init__(
            [HBox([*buttons, self.text], layout=line), HBox(list(labels.values()), layout=line), self.queue, self.results]
        )
        self._follow({"jobs"})

    @property
    def options(self) -> dict[str, Any]:
        """The options of `Inspection.average`."""
        chosen = {"engine": self.engine.value, "classes": self.classes.value, "symmetry": self.symmetry.value}
        return chosen | {"mask_diameter": self.mask.value or None}

    def tell(self, text: str) -> None:
        """Show a text beside the buttons: what would be averaged, or why averaging is disabled."""
        self.text.value = style.span(text, style.QUIET_TEXT)

    def _follow(self, changed: set[str]) -> None:
        """Show the newest job first; keep existing panels except old finished ones."""
        if "jobs" not in changed:
            return
        held = {panel.job: panel for panel in self.queue.children}
        jobs = [job for place, job in enumerate(reversed(self.inspection.jobs)) if place < LISTED or not job.over]
        self.queue.children = [
            held.get(job) or job_widgets.Panel(job, side=64, discard=self.inspection.remove_job) for job in jobs
        ]
        for job in held.keys() - set(jobs):
            held[job].remove()


class Results(VBox):  # type: ignore[misc]
    """The averages of an inspection, one at a time: slices, Fourier shell correlation, and facts; the newest by default."""

    def __init__(self, inspection: Inspection) -> None:
        self.inspection, self.dark = inspection, False
        self.choice = Dropdown(description="average", style=style.LABEL, layout=Layout(width="360px"))
        self.slices = Image(format="png", layout=Layout(width="236px", height="77px", flex="0 0 auto"))
        self.curve = Image(format="png", layout=Layout(flex="0 0 auto"))
        self.text = HTML()
        self.choice.observe(lambda _: self._show(), "value")
        inspection.changed.connect(self._follow)
        facts = VBox([self.slices, self.text], layout=Layout(flex="0 0 auto"))
        super().__init__([self.choice, HBox([facts, self.curve], layout=Layout(flex_flow="row wrap"))])
        self._follow({"averages"})

    def _follow(self, changed: set[str]) -> None:
        if "averages" in changed:
            names = list(self.inspection.averages)
            self.layout.display = None if names else "none"
            if names:
                self.choice.options, self.choice.value = names, names[-1]

    def set_dark(self, dark: bool) -> None:
        """Draw on a dark or a light background."""
        if dark != self.dark:
            self.dark = dark
            self._show()

    def _show(self) -> None:
        average = self.inspection.averages.get(self.choice.value)
        if average is None:
            return
        self.slices.value = job_summary.picture(average.volume)
        self.curve.value, size = style.png(curves.fsc(average, width=2.6), dark=self.dark)
        self.curve.width, self.curve.height = str(size["width"]), str(size["height"])
        self.text.value = _facts(average)


def _facts(average: Average) -> str:
    record = average.record
    facts = [
        job_summary.average_text(average),
        f"voxels of {average.volume.voxel_size:g} Å, symmetry {record.get('symmetry', 'C1')}",
    ]
    if "mask" in record:
        facts.append(f"mask of {record['mask']:.0f} Å")
    return f"<div style='color:{style.QUIET_TEXT}; line-height:1.5'>{'<br>'.join(map(html.escape, facts))}</div>"
