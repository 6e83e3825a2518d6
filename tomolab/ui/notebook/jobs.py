"""Takes jobs, shows each in a notebook as it runs: a bar, the average so far, and a button to stop it.

>>> job = jobs.start("cluster 3", averaging.average, subtomograms, chosen.ids, seed=1)
>>> watch(job)
"""

import html
import time
from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, Box, Button, FloatProgress, HBox, Image, Layout, VBox

from tomolab.jobs import Job
from tomolab.ui import job_summary, style
from tomolab.ui.job_summary import COLOURS, EVERY, SIDE


class Panel(HBox):  # type: ignore[misc]
    """One job until it ends: name, progress bar, state, and slices (`side` pixels) and Fourier shell correlation so far.

    The thread of the job updates the panel, so it changes also while a cell of the notebook runs. `discard` is called with the
    job when it has ended and the user removes it; by default it cannot be removed.
    """

    def __init__(self, job: Job, *, side: int = SIDE, discard: Callable[[Job], Any] | None = None) -> None:
        self.job, self.side, self.discard, self._drawn = job, side, discard, -EVERY
        self.bar = FloatProgress(0.0, min=0.0, max=1.0, layout=Layout(width="100%", height="14px"))
        self.button = Button(description="Stop", icon="stop", layout=Layout(width="96px", flex="0 0 auto"))
        self.button.tooltip = "Stop the job and keep the best so far"
        self.text, self.title, self.structures = HTML(), HTML(), HTML()
        # Hidden until there is a picture: a browser draws an empty one as a broken image.
        size = {"width": f"{3 * side + 8}px", "height": f"{side}px", "flex": "0 0 auto"}
        self.image = Image(format="png", layout=Layout(**size, visibility="hidden"))
        self.curve = HTML(layout=Layout(flex="0 0 auto", margin="0 0 0 8px"))
        self.button.on_click(lambda _: self._pressed())
        words = VBox(
            [
                HBox([self.title, self.button], layout=Layout(justify_content="space-between")),
                self.bar,
                self.text,
            ],
            layout=Layout(flex="1 1 220px", padding="0 12px 0 0"),
        )
        self.structures.layout.flex = "1 1 100%"
        # Without flex many jobs would share the height of a few.
        layout = Layout(max_width="920px", margin="2px 0 6px 0", flex_flow="row wrap", flex="0 0 auto")
        super().__init__([words, self.image, self.curve, self.structures], layout=layout)
        job.watch(self._follow)

    def remove(self) -> None:
        """Close the panel and all its widgets, which the kernel and the browser would keep otherwise."""
        widgets: list[Any] = [self]
        for widget in widgets:
            widgets += getattr(widget, "children", ())
        for widget in widgets:
            for one in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
                if one is not None:
                    one.close()

    def _pressed(self) -> None:
        if not self.job.over:
            self.job.stop()
        elif self.discard is not None:
            self.discard(self.job)

    def _follow(self, job: Job) -> None:
        self.title.value = f"<b>{html.escape(job.name)}</b>"
        text = style.span(job_summary.job_text(job), style.ERROR_TEXT if job.state == "failed" else style.QUIET_TEXT)
        self.text.value = f"<div style='line-height:1.4; margin:4px 0'>{text}</div>"
        self.bar.value = 1.0 if job.state == "done" else job_summary.share(job.progress)
        if job.over:
            self.button.disabled, self.button.tooltip = self.discard is None, "The job has ended"
            if self.discard is not None:
                self.button.description, self.button.icon = "Remove", "times"
                self.button.tooltip = "Remove the job from the list; its averages stay"
            self.bar.style.bar_color = COLOURS[job.state]
        elif job.state == "stopping":
            self.button.disabled, self.button.tooltip = True, "The job stops after this iteration"
        # They stay while their averages are computed.
        self.structures.value = job_summary.structures(job.progress) or self.structures.value
        volume = job_summary.shown(job)
        if volume is not None and (job.over or time.monotonic() - self._drawn > EVERY):
            self.image.value, self._drawn = job_summary.picture(volume), time.monotonic()
            self.image.layout.visibility = "visible"
            self.curve.value = job_summary.curve(job_summary.fsc(job), self.side)


def watch(*jobs: Job) -> Box:
    """Follow jobs, each with a bar, central slices across z, y and x of the average so far, and a button to stop it.

    Parameters
    ----------
    jobs
        Of `jobs.start`.
    """
    return VBox([Panel(job) for job in jobs])
