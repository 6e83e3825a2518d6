"""Takes an inspection, shows its averages in 3-D in a notebook, one or two side by side, with their Fourier shell correlations.

The browser draws the surfaces (k3d), so the server needs no display, and the threshold moves without the kernel.

>>> panel = Structures(inspection)
>>> panel.first.choice.value, panel.second.choice.value = "ribosomes", "cluster 3"
>>> panel.compare().result()                 # aligns the second to the first
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ipywidgets import HTML, Button, Dropdown, FloatSlider, HBox, Image, Layout, VBox, jslink

from tomolab import jobs
from tomolab.averaging import matching
from tomolab.averaging.half_maps import Average
from tomolab.averaging.matching import Comparison
from tomolab.inspection import cluster_columns
from tomolab.inspection.model import Inspection
from tomolab.jobs import Job
from tomolab.ui import job_summary, require, style, surfaces
from tomolab.ui.plots import curves
from tomolab.volumes import Volume, apply_mask

NOTHING = "(none)"
HEIGHT = 260
"""Of a view, in pixels."""
FINEST = 80
"""Voxels along an edge up to which a map is sampled more finely."""
LIMITS = {"min": 0.0, "max": 8.0, "step": 0.05}
"""Of a threshold, in standard deviations."""


class View(VBox):  # type: ignore[misc]
    """A view in 3-D (k3d) of a height in pixels; it is made when it is shown, since it takes memory of the browser."""

    def __init__(self, name: str, height: int) -> None:
        self.height = height
        self.plot: Any = None
        self.objects: dict[str, tuple[Any, Any]] = {}
        """What is drawn, by name: the object of k3d, and its link to a slider or None."""
        super().__init__(layout=Layout(min_width="0"))
        self.add_class(name)

    @property
    def k3d(self) -> Any:
        """The library; ModuleNotFoundError, which says how to install it, if it is missing."""
        return require("k3d", by="a view in 3-D")

    def show(self, *, dark: bool) -> Any:
        """The view of k3d, on a dark or a white background."""
        if self.plot is None:
            looks = {"grid_visible": False, "menu_visibility": False, "axes_helper": 0.7, "camera_auto_fit": False}
            self.plot = self.k3d.plot(height=self.height, **looks)
            self.children = [self.plot]
        self.plot.background_color = packed(style.DARK if dark else "#ffffff")
        return self.plot

    def put(self, name: str, new: Any, slider: tuple[FloatSlider, str] | None = None) -> None:
        """Draw an object of k3d in place of that of this name; a slider changes one of its values in the browser."""
        if name in self.objects:
            old, link = self.objects[name]
            if link is not None:
                link.unlink()
            self.plot -= old
        self.plot += new
        self.objects[name] = new, slider and jslink((slider[0], "value"), (new, slider[1]))


class Surface(VBox):  # type: ignore[misc]
    """The surface of one average, with a slider for its threshold, its slices and its facts; `label` names its list."""

    def __init__(self, inspection: Inspection, *, label: str) -> None:
        self.inspection = inspection
        wide = Layout(width="96%", max_width="420px")
        self.choice = Dropdown(options=[NOTHING], description=label, style=style.LABEL, layout=wide)
        self.threshold = FloatSlider(description="threshold (σ)", style=style.LABEL, layout=wide, **LIMITS)
        self.threshold.tooltip = "Density of the surface, in standard deviations above the mean of the map"
        self.view, self.text = View("tomolab-surface", HEIGHT), HTML()
        self.slices = Image(format="png", layout=Layout(width="236px", height="77px"))
        layout = Layout(flex="1 1 250px", min_width="0", overflow="hidden")
        super().__init__([self.choice, self.view, self.threshold, self.slices, self.text], layout=layout)

    @property
    def average(self) -> Average | None:
        """The chosen average; None if none is chosen."""
        return self.inspection.averages.get(self.choice.value)

    def draw(self, volume: Volume | None = None, *, dark: bool = False) -> None:
        """Draw the chosen average, or another map in its place, such as itself after an alignment."""
        average = self.average
        for one in (self.view, self.threshold, self.slices, self.text):
            one.layout.display = "none" if average is None else None
        if average is None:
            return
        shown = average.volume if volume is None else volume
        diameter = min(average.record.get("mask") or shown.extent[0], shown.extent[0])
        first = self.view.plot is None
        plot = self.view.show(dark=dark)
        if first:
            # The sphere of the mask fills the view.
            half = diameter / np.sqrt(3) / 2
            plot.camera = plot.get_auto_camera(factor=1.1, pitch=60, bounds=np.array([-half, half] * 3))
        self._show(shown, diameter, packed(style.lighter(_ink(self.inspection, average), 0.2)))
        self.slices.value = job_summary.picture(shown)
        self.text.value = style.span(job_summary.average_text(average), style.QUIET_TEXT)

    def _show(self, volume: Volume, diameter: float, colour: int) -> None:
        data, cut = in_deviations(volume, diameter)
        bounds = [bound for edge in volume.extent[::-1] for bound in (-edge / 2, edge / 2)]
        new = self.view.k3d.marching_cubes(data, level=cut, color=colour, flat_shading=False, bounds=bounds)
        self.threshold.value = cut
        self.view.put("surface", new, (self.threshold, "level"))


class Structures(VBox):  # type: ignore[misc]
    """Two averages side by side, in 3-D, in slices and by their Fourier shell correlations; the second may be none."""

    def __init__(self, inspection: Inspection, *, say: Callable[[str], Any] = lambda _: None) -> None:
        self.inspection, self.say, self.dark, self._shown = inspection, say, False, False
        self.first, self.second = Surface(inspection, label="average"), Surface(inspection, label="beside")
        self._cameras: Any = None
        self.comparison: tuple[str, str, Comparison] | None = None
        """Names of the two averages that were compared last, and the result."""
        self.button = Button(description="Align and compare", icon="balance-scale", layout=Layout(width="180px"))
        self.button.tooltip = (
            "Rotate and shift the second onto the first, and compute the FSC of the two, also of the mirror image"
        )
        self.delete = Button(description="Delete", icon="trash", layout=Layout(width="100px"))
        self.delete.tooltip = "Delete the first average; Undo brings it back"
        self.curve, self.text = Image(format="png", layout=Layout(flex="0 0 auto")), HTML()
        for surface in (self.first, self.second):
            surface.choice.observe(lambda _: self._draw(), "value")
        self.button.on_click(lambda _: self.compare())
        self.delete.on_click(lambda _: self.inspection.delete_average(self.first.choice.value))
        inspection.changed.connect(self._follow)
        row = Layout(flex_flow="row wrap", align_items="center")
        line = HBox([self.button, self.delete, self.text], layout=row)
        super().__init__([HBox([self.first, self.second], layout=Layout(flex_flow="row wrap")), line, self.curve])
        self._list()

    def show(self) -> None:
        """Draw from now on; before, nothing is computed, and no view in 3-D takes memory of the browser."""
        self._shown = True
        self._draw()

    def put(self, clusters: Sequence[int]) -> None:
        """Choose the newest averages of one or two clusters, those that have one."""
        newest = cluster_columns.newest(self.inspection)
        names = [newest[one][0] for one in clusters if one in newest][:2]
        for surface, name in zip((self.first, self.second), names, strict=False):
            surface.choice.value = name

    def compare(self) -> Job[Comparison] | None:
        """Align the second average to the first in a background job, and show both with their FSC; None without two."""
        one, other = self.first.average, self.second.average
        if one is None or other is None:
            self.say("choose two averages to compare")
            return None
        names = self.first.choice.value, self.second.choice.value
        self.button.disabled, self.text.value = True, style.span("aligns…", style.QUIET_TEXT)
        job: Job[Comparison] = jobs.start(f"{names[1]} with {names[0]}", lambda **_: matching.compare(one, other.volume))
        job.watch(lambda job: self._compared(job, names))
        return job

    def _compared(self, job: Job[Comparison], names: tuple[str, str]) -> None:
        if not job.over:
            return
        self.button.disabled, self.text.value = False, ""
        if job.state != "done":
            self.say(job_summary.job_text(job))
            return
        self.comparison = (*names, job.result())
        self._draw()

    def _follow(self, changed: set[str]) -> None:
        if "averages" in changed:
            self._list()
        elif changed & {"clusters", "labels"}:
            self._draw()

    def _list(self) -> None:
        """The averages to choose from; the newest where none is chosen."""
        names = list(self.inspection.averages)
        one = self.first.choice.value if self.first.choice.value in names else [NOTHING, *names][-1]
        other = self.second.choice.value if self.second.choice.value in {*names} - {one} else NOTHING
        self.layout.display = None if names else "none"
        for surface, wanted in ((self.first, one), (self.second, other)):
            surface.choice.options = [NOTHING, *names]
            surface.choice.value = wanted
        self._draw()

    def _draw(self) -> None:
        one, other = self.first.average, self.second.average
        self.button.disabled, self.delete.disabled = one is None or other is None, one is None
        if not self._shown:
            return
        names = self.first.choice.value, self.second.choice.value
        done = self.comparison[2] if self.comparison is not None and self.comparison[:2] == names else None
        for surface, volume in ((self.first, None), (self.second, None if done is None else done.known)):
            try:
                surface.draw(volume, dark=self.dark)
            except ValueError as error:
                self.say(f"{surface.choice.value} cannot be drawn in 3-D: {error}")
        if self._cameras is None and self.first.view.plot is not None and self.second.view.plot is not None:
            # Turning one turns the other.
            self._cameras = jslink((self.first.view.plot, "camera"), (self.second.view.plot, "camera"))
        self.second.layout.flex = "1 1 250px" if other is not None else "0 1 250px"
        shown: dict[str, Any] = {name: found for name, found in zip(names, (one, other), strict=True) if found is not None}
        self.text.value = ""
        if done is not None:
            shown["the two with each other"] = done.fsc
            straight, mirrored = done.resolutions
            text = f"FSC of the two falls to 0.5 at {straight:.0f} Å, with the mirror image of the second at {mirrored:.0f} Å"
            self.text.value = style.span(text, style.QUIET_TEXT)
        self.curve.layout.display = None if shown else "none"
        if shown:
            inks = [_ink(self.inspection, one) if isinstance(one, Average) else style.INK for one in shown.values()]
            self.curve.value, size = style.png(curves.fsc(shown, width=4.4, inks=inks), dark=self.dark)
            self.curve.width, self.curve.height = str(size["width"]), str(size["height"])


def in_deviations(volume: Volume, diameter: float) -> tuple[np.ndarray, float]:
    """Density (z, y, x) in a soft spherical mask, in standard deviations from its mean, and the threshold of `surfaces.level`.

    The density is sampled more finely, up to about `FINEST` voxels along an edge, for a smooth surface; `diameter` is in Å.
    """
    inside = Volume(apply_mask(torch.from_numpy(volume.data), diameter / volume.voxel_size).numpy(), volume.voxel_size)
    mean, deviation = float(inside.data.mean()), float(inside.data.std()) or 1.0
    cut = (surfaces.level(inside) - mean) / deviation
    dense = surfaces.finer(inside, max(1, FINEST // volume.shape[0]))
    return ((dense - mean) / deviation).astype(np.float32), float(np.clip(round(cut, 2), LIMITS["step"], LIMITS["max"]))


def packed(colour: str) -> int:
    """A colour "#rrggbb" as one number."""
    return int(colour.removeprefix("#"), 16)


def _ink(inspection: Inspection, average: Average) -> str:
    """Colour of the cluster of an average; the first of the palette where it is of none."""
    cluster = average.record.get("cluster")
    palette = style.inks(inspection.session.clusters)
    return palette.get(-1 if cluster is None else int(cluster), style.OKABE_ITO[0])
